"""The port through which the bot uses an exchange; the gateway is its only implementation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from tradingbot.model import (
    AccountSnapshot,
    BookTicker,
    Candle,
    OrderListReport,
    OrderReport,
    OrderType,
    Side,
    SymbolRules,
    TimeInForce,
    TradeFill,
)

T = TypeVar("T")
MOST_CANDLES: Final = 1_000
"""That the exchange gives at once, for the same weight as a few."""


class EndpointClass(StrEnum):
    """What a circuit breaker counts apart."""

    MARKET = "market"
    ACCOUNT = "account"
    ORDER = "order"
    """Sends that may add exposure."""
    REDUCE = "reduce"
    """Cancel-entry, protect, exit and the reads that they need: counted, never refused by a breaker."""


class Guard(Protocol):
    """What every request goes through (the circuit breaker); a refusal is a subclass of errors.NotSentError."""

    async def call(self, endpoint: EndpointClass, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call`, or refuse it; sees the exceptions of gateway.errors."""
        ...


class DemandedWait(Protocol):
    """The wait that the exchange demanded by a 429 or 418; all that talks to it keeps it and reports its own."""

    def wait_seconds(self) -> float:
        """Seconds for which nothing may be sent."""
        ...

    def demand(self, seconds: float) -> None:
        """The exchange demanded so many seconds from now."""
        ...


class OpenGuard:
    """A guard that lets everything through, and a wait that was never demanded."""

    def wait_seconds(self) -> float:
        """None."""
        return 0.0

    def demand(self, seconds: float) -> None:
        """Not kept."""

    async def call(self, endpoint: EndpointClass, call: Callable[[], Awaitable[T]]) -> T:
        """Run `call`."""
        return await call()


@dataclass(frozen=True, slots=True)
class Stamp:
    """Signed timestamp (exchange time, ms) and window of a request; fixed before the request is sent."""

    timestamp_ms: int
    recv_window_ms: int


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order to place; `price` and `stop_price` where the type has them."""

    symbol: str
    client_order_id: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    stop_price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    trailing_delta: int | None = None
    """Instead of `stop_price`: a stop triggers so far below the highest price since then, in 1/100 of a percent."""


@dataclass(frozen=True, slots=True)
class NewProtection:
    """A SELL pair: a stop below the market and a LIMIT_MAKER above it.

    The stop is STOP_LOSS, or STOP_LOSS_LIMIT where `stop_limit_price` is given.
    """

    quantity: Decimal
    take_profit_client_id: str
    take_profit_price: Decimal
    stop_client_id: str
    stop_price: Decimal
    stop_limit_price: Decimal | None = None
    trailing_delta: int | None = None
    """Instead of `stop_price`, as of NewOrder."""


@dataclass(frozen=True, slots=True)
class NewOco:
    """A protection pair to place for base asset that is held."""

    symbol: str
    list_client_id: str
    pair: NewProtection


@dataclass(frozen=True, slots=True)
class NewOtoco:
    """A marketable LIMIT FOK buy and the pair that protects what it bought, in one request."""

    symbol: str
    list_client_id: str
    entry: NewOrder
    pair: NewProtection


@dataclass(frozen=True, slots=True)
class Commission:
    """Commission rates of the account for a symbol: standard, special and tax together, without any discount."""

    maker: Decimal
    taker: Decimal


@dataclass(frozen=True, slots=True)
class KeyPermissions:
    """What the exchange lets the API key do."""

    trade: bool
    withdraw: bool


class CallKind(StrEnum):
    """What a request asks for."""

    READ = "read"
    """Something to know; a test of an order, too."""
    ORDER = "order"
    """To place or cancel an order or a list."""


@dataclass(frozen=True, slots=True)
class CallCounts:
    """Requests since the process started."""

    calls: int = 0
    errors: int = 0
    last_error: str | None = None
    used_weight: int = 0


class Exchange(Protocol):
    """One account at one exchange. Every method raises errors of gateway.errors and nothing else.

    `urgent` marks reads that the reduce-only lane needs (EndpointClass.REDUCE).
    """

    @property
    def counts(self) -> CallCounts:
        """Requests and errors so far."""
        ...

    def stamp(self) -> Stamp:
        """The timestamp and window to commit and then sign a request with."""
        ...

    def exchange_ms(self) -> int:
        """The exchange's time now, by our estimate of the offset, in ms."""
        ...

    async def sync_clock(self) -> int:
        """Measure the offset to the exchange's clock; returns its time in ms."""
        ...

    async def ping(self) -> None:
        """A cheap signed-free call (GET time) for the breaker; also keeps the clock offset fresh."""
        ...

    @property
    def spare_weight(self) -> int:
        """Request weight that the address may still use in this minute, as of the last call of `rules`."""
        ...

    @property
    def spare_orders(self) -> int:
        """New orders that the account may still send now, by what answers told; without any, the whole limit."""
        ...

    async def rules(self, symbol: str, *, urgent: bool = False) -> SymbolRules:
        """What the exchange says of the symbol; UnknownSymbolError where there is none."""
        ...

    async def commission(self, symbol: str) -> Commission:
        """The account's commission rates for the symbol."""
        ...

    async def account(self, *, urgent: bool = False) -> AccountSnapshot:
        """Uid, balances and rates."""
        ...

    async def key_permissions(self) -> KeyPermissions | None:
        """What the key may do; None where the environment does not tell."""
        ...

    async def book_ticker(self, symbol: str, *, urgent: bool = False) -> BookTicker:
        """Best bid and ask."""
        ...

    async def last_price(self, symbol: str) -> Decimal:
        """The price of the last trade."""
        ...

    async def candles(
        self, symbol: str, interval: str, *, limit: int = 500, start_ms: int | None = None
    ) -> list[Candle]:
        """Candles in order of time, at most 1000, the last one perhaps still forming."""
        ...

    async def test_order(self, order: NewOrder) -> None:
        """Have one order checked and not placed: the keys, the clock and the filters."""
        ...

    async def place_order(self, order: NewOrder, stamp: Stamp, *, urgent: bool = False) -> OrderReport:
        """Send one order, once."""
        ...

    async def place_oco(self, order: NewOco, stamp: Stamp) -> OrderListReport:
        """Send a protection pair, once."""
        ...

    async def place_otoco(self, order: NewOtoco, stamp: Stamp) -> OrderListReport:
        """Send an entry with its protection, once."""
        ...

    async def cancel_order(
        self, symbol: str, client_order_id: str, cancel_id: str, stamp: Stamp, *, order_id: int | None = None
    ) -> OrderReport:
        """Cancel one order, by its number where that is known; of a list this cancels all of it."""
        ...

    async def cancel_list(self, symbol: str, order_list_id: int, cancel_id: str, stamp: Stamp) -> OrderListReport:
        """Cancel an order list."""
        ...

    async def order(self, symbol: str, client_order_id: str, *, urgent: bool = False) -> OrderReport:
        """One order by its client id; NotFoundError where the exchange does not know it."""
        ...

    async def open_orders(self, symbol: str, *, urgent: bool = False) -> list[OrderReport]:
        """Every open order of the account on the symbol."""
        ...

    async def all_orders(self, symbol: str, *, from_order_id: int, urgent: bool = False) -> list[OrderReport]:
        """Every order of the account on the symbol from that order id on, in order of id, paged."""
        ...

    async def order_trades(self, symbol: str, order_id: int, *, urgent: bool = False) -> list[TradeFill]:
        """The trades of one order."""
        ...

    async def trades(self, symbol: str, *, from_id: int | None, urgent: bool = False) -> list[TradeFill]:
        """The account's trades on the symbol from trade id `from_id` on, paged; the newest 1000 at most with None."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
