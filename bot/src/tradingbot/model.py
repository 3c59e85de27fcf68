"""The words that every room of the bot shares: orders, fills, candles, accounts and the rules of a symbol."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

NO_ORDER: Final = -1
"""`order_id` of a fill that no order made."""
NO_LIST: Final = -1
"""`order_list_id` of an order that belongs to no list."""


class Side(StrEnum):
    """Side of an order."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(StrEnum):
    """Binance's spot order types."""

    LIMIT = "LIMIT"
    MARKET = "MARKET"
    LIMIT_MAKER = "LIMIT_MAKER"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"

    @property
    def is_stop(self) -> bool:
        """Whether the order sells when the price has fallen (for a SELL)."""
        return self in {OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT}

    @property
    def is_conditional(self) -> bool:
        """Whether it waits for a price, which MAX_NUM_ALGO_ORDERS limits."""
        return self.is_stop or self in {OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT}


class TimeInForce(StrEnum):
    """How long an order may rest."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class OrderStatus(StrEnum):
    """Binance's order states."""

    NEW = "NEW"
    PENDING_NEW = "PENDING_NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    PENDING_CANCEL = "PENDING_CANCEL"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"

    @property
    def is_open(self) -> bool:
        """Whether the order can still be executed, now or once its list's working order is filled."""
        return self in {
            OrderStatus.NEW,
            OrderStatus.PENDING_NEW,
            OrderStatus.PARTIALLY_FILLED,
            OrderStatus.PENDING_CANCEL,
        }


class ListStatus(StrEnum):
    """Binance's `listOrderStatus`."""

    EXECUTING = "EXECUTING"
    ALL_DONE = "ALL_DONE"
    REJECT = "REJECT"


@dataclass(frozen=True, slots=True)
class TradeFill:
    """One execution, as the exchange tells it; the key is (symbol, trade_id)."""

    symbol: str
    trade_id: int
    order_id: int
    side: Side
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: str
    is_maker: bool
    time_ms: int

    @property
    def quote_quantity(self) -> Decimal:
        """Price times quantity, in the quote asset."""
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What the exchange says of one order, from whichever answer or event."""

    symbol: str
    order_id: int
    order_list_id: int
    client_order_id: str
    side: Side
    type: OrderType
    status: OrderStatus
    time_in_force: TimeInForce
    price: Decimal
    stop_price: Decimal
    quantity: Decimal
    executed_quantity: Decimal
    time_ms: int
    fills: tuple[TradeFill, ...] = ()
    expiry_reason: str | None = None
    working: bool = False
    """It is, or was, on the book; a stop is so once it was triggered."""

    @property
    def is_open(self) -> bool:
        """Whether the order can still be executed."""
        return self.status.is_open


@dataclass(frozen=True, slots=True)
class OrderListReport:
    """What the exchange says of one order list; `reports` is empty where an answer has only the ids."""

    symbol: str
    order_list_id: int
    list_client_order_id: str
    status: ListStatus
    order_ids: tuple[int, ...]
    client_order_ids: tuple[str, ...]
    time_ms: int
    reports: tuple[OrderReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """Free and locked amount of one asset."""

    free: Decimal
    locked: Decimal

    @property
    def total(self) -> Decimal:
        """Free and locked together."""
        return self.free + self.locked


ZERO_BALANCE: Final = Balance(Decimal(0), Decimal(0))


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """The account at `time_ms`; assets without an amount are absent."""

    uid: str
    can_trade: bool
    balances: dict[str, Balance]
    maker_rate: Decimal
    taker_rate: Decimal
    time_ms: int
    permissions: frozenset[str] = frozenset()
    """SPOT and the trading groups that symbols ask for."""

    def balance(self, asset: str) -> Balance:
        """The balance of `asset`; zero where the account has none."""
        return self.balances.get(asset, ZERO_BALANCE)


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle; `closed` means that no trade can change it any more."""

    symbol: str
    interval: str
    open_ms: int
    close_ms: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int
    closed: bool


@dataclass(frozen=True, slots=True)
class BookTicker:
    """Best bid and ask; `received` is the monotonic clock at arrival, in seconds."""

    symbol: str
    bid: Decimal
    bid_quantity: Decimal
    ask: Decimal
    ask_quantity: Decimal
    received: float

    @property
    def two_sided(self) -> bool:
        """Somebody buys and somebody sells."""
        return self.bid > 0 and self.ask > 0


@dataclass(frozen=True, slots=True)
class PriceFilter:
    """PRICE_FILTER; a zero switches its part off."""

    min_price: Decimal
    max_price: Decimal
    tick: Decimal


@dataclass(frozen=True, slots=True)
class LotFilter:
    """LOT_SIZE or MARKET_LOT_SIZE; a zero switches its part off."""

    min_quantity: Decimal
    max_quantity: Decimal
    step: Decimal


@dataclass(frozen=True, slots=True)
class NotionalFilter:
    """NOTIONAL; `max_notional` zero means no upper bound."""

    min_notional: Decimal
    apply_min_to_market: bool
    max_notional: Decimal
    apply_max_to_market: bool


@dataclass(frozen=True, slots=True)
class PercentPriceFilter:
    """PERCENT_PRICE_BY_SIDE: multipliers of the average price, for BUY (bid) and SELL (ask)."""

    bid_up: Decimal
    bid_down: Decimal
    ask_up: Decimal
    ask_down: Decimal


@dataclass(frozen=True, slots=True)
class TrailingFilter:
    """TRAILING_DELTA of a stop that sells, in 1/100 of a percent."""

    smallest: int
    largest: int


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """What `exchangeInfo` says of one symbol."""

    symbol: str
    status: str
    base_asset: str
    quote_asset: str
    base_precision: int
    quote_precision: int
    order_types: frozenset[OrderType]
    oco_allowed: bool
    oto_allowed: bool
    price: PriceFilter
    lot: LotFilter
    market_lot: LotFilter
    notional: NotionalFilter
    percent_price: PercentPriceFilter | None = None
    max_orders: int | None = None
    max_algo_orders: int | None = None
    max_order_lists: int | None = None
    max_position: Decimal | None = None
    permission_sets: tuple[frozenset[str], ...] = ()
    """An account needs one permission of each to trade the symbol."""
    trailing_delta: TrailingFilter | None = None
    """None: the symbol has no trailing stops."""

    @property
    def trading(self) -> bool:
        """Whether the symbol accepts new orders."""
        return self.status == "TRADING"


# --- events of the user data stream ---


@dataclass(frozen=True, slots=True)
class OrderUpdate:
    """executionReport: an order changed."""

    report: OrderReport
    execution_type: str
    reject_reason: str | None
    fill: TradeFill | None
    event_ms: int


@dataclass(frozen=True, slots=True)
class ListUpdate:
    """listStatus: an order list changed."""

    symbol: str
    order_list_id: int
    list_client_order_id: str
    status: ListStatus
    client_order_ids: tuple[str, ...]
    event_ms: int


@dataclass(frozen=True, slots=True)
class BalancesUpdate:
    """outboundAccountPosition: balances that may have changed."""

    balances: dict[str, Balance]
    event_ms: int


@dataclass(frozen=True, slots=True)
class BalanceChange:
    """balanceUpdate: an asset came (above 0: deposit, transfer) or went (below 0: withdrawal) besides trades.

    With `outside_lock` externalLockUpdate: something that is no order of the account locked it, or let it go (below 0).
    """

    asset: str
    amount: Decimal
    outside_lock: bool
    event_ms: int


UserEvent = OrderUpdate | ListUpdate | BalancesUpdate | BalanceChange
