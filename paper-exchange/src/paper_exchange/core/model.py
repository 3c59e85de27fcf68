"""What the exchange keeps: orders, lists, trades and accounts, in units of 1e-8 and milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from paper_exchange.core.rates import CommissionRates


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class OrderType(StrEnum):
    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"

    @property
    def conditional(self) -> bool:
        """Waits for a trigger price."""
        return self in CONDITIONAL

    @property
    def priced(self) -> bool:
        """Has a limit price."""
        return self in PRICED

    @property
    def stop(self) -> bool:
        """Is a stop loss of either kind."""
        return self in (OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT)


CONDITIONAL = frozenset(
    (OrderType.STOP_LOSS, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_LIMIT)
)
PRICED = frozenset((OrderType.LIMIT, OrderType.LIMIT_MAKER, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT))


class TimeInForce(StrEnum):
    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


class OrderStatus(StrEnum):
    NEW = "NEW"
    PENDING_NEW = "PENDING_NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"
    REJECTED = "REJECTED"


OPEN = frozenset((OrderStatus.NEW, OrderStatus.PENDING_NEW, OrderStatus.PARTIALLY_FILLED))
LIVE = frozenset((OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED))


class StpMode(StrEnum):
    """Self-trade prevention: who expires or shrinks when an order would meet one of the same account or group."""

    NONE = "NONE"
    EXPIRE_TAKER = "EXPIRE_TAKER"
    EXPIRE_MAKER = "EXPIRE_MAKER"
    EXPIRE_BOTH = "EXPIRE_BOTH"
    DECREMENT = "DECREMENT"
    TRANSFER = "TRANSFER"


@dataclass(frozen=True, slots=True)
class Amendment:
    """One change of an order's quantity; the client order id may change with it."""

    execution_id: int
    old_client_order_id: str
    new_client_order_id: str
    old_quantity: int
    new_quantity: int
    time: int


@dataclass(slots=True, eq=False)
class Order:
    """One order from acceptance to its end."""

    order_id: int
    uid: int
    symbol: str
    client_order_id: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: int
    quantity: int
    quote_quantity: int
    stop_price: int
    stp: StpMode
    time: int
    update_time: int
    list_id: int = -1
    sibling: int = 0
    """The other order of a one-cancels-the-other pair, or 0."""
    status: OrderStatus = OrderStatus.NEW
    executed: int = 0
    quote_executed: int = 0
    working_time: int = -1
    expiry_reason: str | None = None
    strategy_id: int | None = None
    strategy_type: int | None = None
    cancel_client_id: str = ""
    sequence: int = 0
    """Place in the queue of its price level: lower is earlier."""
    ahead: int = 0
    """Outside quantity that must trade at this price before this order does."""
    amendments: list[Amendment] = field(default_factory=list)
    iceberg_quantity: int = 0
    """The part of an iceberg that the book shows at a time; 0 shows all."""
    visible: int = 0
    """What is left of the part of an iceberg that the book shows."""
    trailing_delta: int = 0
    """How far, in 1/100 of a percent, a trailing stop lets the price come back."""
    trailing_time: int = -1
    """When a trailing stop began to follow the price."""
    extreme: int = 0
    """The best price since then."""
    prevented: int = 0
    """Quantity that self-trade prevention took off."""
    prevented_match_id: int = -1
    """The prevented match that did so last."""

    @property
    def remaining(self) -> int:
        """Quantity still to be filled."""
        return self.quantity - self.executed - self.prevented

    @property
    def shown(self) -> int:
        """Open quantity that the book shows."""
        return min(self.visible, self.remaining) if self.iceberg_quantity else self.remaining

    @property
    def open(self) -> bool:
        """May still change."""
        return self.status in OPEN

    @property
    def live(self) -> bool:
        """Accepted, and not waiting for the working order of its list."""
        return self.status in LIVE

    @property
    def untriggered(self) -> bool:
        """A conditional order whose trigger price was not reached yet."""
        return self.type.conditional and self.working_time < 0

    @property
    def protects(self) -> bool:
        """A stop loss that sells, accepted and waiting for its trigger."""
        return self.side is Side.SELL and self.type.stop and self.live and self.untriggered


@dataclass(slots=True, eq=False)
class OrderList:
    """Orders placed together: an OCO, or a working order with one pending order (OTO, OPO) or a pair (OTOCO, OPOCO)."""

    list_id: int
    uid: int
    symbol: str
    client_list_id: str
    contingency: str
    order_ids: list[int]
    working_id: int
    """The working order of an OTO or OTOCO, 0 for an OCO."""
    time: int
    done: bool = False
    pays: bool = False
    """One pays the other: what the working order receives is what the pending orders sell."""
    kept: int = 0
    """Base that was received so and is locked until the pending orders begin."""


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill of one order."""

    trade_id: int
    uid: int
    symbol: str
    order_id: int
    list_id: int
    price: int
    quantity: int
    quote: int
    commission: int
    commission_asset: str
    time: int
    buyer: bool
    maker: bool


@dataclass(frozen=True, slots=True)
class PreventedMatch:
    """A trade that self-trade prevention did not let happen, and what each order lost by it (0 for nothing)."""

    match_id: int
    symbol: str
    price: int
    quantity: int
    """What would have been traded."""
    mode: StpMode
    taker_uid: int
    taker_order_id: int
    taker_quantity: int
    maker_uid: int
    maker_order_id: int
    maker_quantity: int
    trade_group_id: int
    time: int


@dataclass(slots=True, eq=False)
class Balance:
    """What an account holds of one asset."""

    free: int = 0
    locked: int = 0


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """What changes of an account, under the names that the account has for it; None stays as it is."""

    can_trade: bool | None = None
    permissions: list[str] | None = None
    max_assets: dict[str, int] | None = None
    trade_group_id: int | None = None
    commission: dict[str, CommissionRates] | None = None


@dataclass(slots=True, eq=False)
class Account:
    """One account: its balances by asset, and what it may trade."""

    uid: int
    balances: dict[str, Balance] = field(default_factory=dict)
    update_time: int = 0
    can_trade: bool = True
    permissions: list[str] = field(default_factory=lambda: ["SPOT"])
    max_assets: dict[str, int] = field(default_factory=dict)
    """The most of an asset that one order may move (MAX_ASSET)."""
    trade_group_id: int = -1
    """Accounts of one group do not trade with each other; -1 is none."""
    commission: dict[str, CommissionRates] = field(default_factory=dict)
    """Rates by symbol, under "" those of every other."""
    bnb_discount: bool = False
    """Pay commissions in BNB where that is possible."""
    new_orders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By the interval of an order limit: the number of its last window, and the unfilled orders counted in that."""

    def rates(self, symbol: str) -> CommissionRates:
        """What trading a symbol costs this account."""
        return self.commission.get(symbol) or self.commission.get("") or CommissionRates()

    def balance(self, asset: str) -> Balance:
        """The balance of an asset, made when it is first needed."""
        held = self.balances.get(asset)
        if held is None:
            held = self.balances[asset] = Balance()
        return held
