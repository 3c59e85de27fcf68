"""python-binance behind the port: addresses, signing, one guarded way for every request, and exact types out.

Requests are signed here and sent through the client's own transport, because the client signs with a time of its own
choosing, while an intent must know the timestamp before it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import aiohttp
from binance.async_client import AsyncClient

from tradingbot.gateway import payloads
from tradingbot.gateway.clock import ExchangeClock
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.errors import (
    AmbiguousError,
    ClockSkewError,
    ExchangeError,
    RejectedError,
    TooManyOrdersError,
    UnknownSymbolError,
    classify,
    read_answer,
)
from tradingbot.gateway.order_limits import OrderBudget, orders_of
from tradingbot.gateway.order_params import oco_params, order_params, otoco_params
from tradingbot.gateway.port import (
    CallCounts,
    CallKind,
    Commission,
    EndpointClass,
    Guard,
    KeyPermissions,
    NewOco,
    NewOrder,
    NewOtoco,
    Stamp,
)
from tradingbot.gateway.rate_limits import KEY_PERMISSIONS, WeightBudget, WeightBudgetError, weight_of
from tradingbot.gateway.redirects import refuse_redirects
from tradingbot.model import (
    AccountSnapshot,
    BookTicker,
    Candle,
    OrderListReport,
    OrderReport,
    OrderType,
    SymbolRules,
    TradeFill,
)
from tradingbot_api.bot_http import OrderUse, WeightUse
from tradingbot_api.v1alpha1 import Environment
from tradingbot_api.v1alpha1 import Exchange as ExchangeSettings

P = ParamSpec("P")
T = TypeVar("T")
RECV_WINDOW_MS: Final = 5_000
READ_TIMEOUT: Final = 10.0
ORDER_TIMEOUT: Final = 12.0
"""Longer than the 10 s after which Binance itself answers -1007, so that its word is heard."""
CONNECT_TIMEOUT: Final = 5.0
PAGE: Final = 1_000
Observe = Callable[[CallKind, float, str], None]
"""Told of each request: what it was, the seconds until its answer, the code of its ExchangeError (empty: none)."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of one environment."""

    rest: str
    ws_api: str
    streams: str
    wallet: str | None
    """The /sapi calls, which the Testnet has not."""


def endpoints(settings: ExchangeSettings) -> Endpoints:
    """The addresses of the settings' environment; a paper exchange serves all of them at its baseURL."""
    match settings.environment:
        case Environment.TESTNET:
            return Endpoints(
                "https://testnet.binance.vision/api",
                "wss://ws-api.testnet.binance.vision/ws-api/v3",
                "wss://stream.testnet.binance.vision",
                None,
            )
        case Environment.LIVE:
            return Endpoints(
                "https://api.binance.com/api",
                "wss://ws-api.binance.com:443/ws-api/v3",
                "wss://stream.binance.com:9443",
                "https://api.binance.com/sapi",
            )
        case Environment.PAPER:
            base = (settings.base_url or "").rstrip("/")
            parts = urlsplit(base)
            socket = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}"
            return Endpoints(f"{base}/api", f"{socket}/ws-api/v3", socket, f"{base}/sapi")


class _Client(AsyncClient):  # type: ignore[misc]
    """The library's, but for how it reads an answer."""

    async def _handle_response(self, response: aiohttp.ClientResponse) -> Any:
        return read_answer(response.status, await response.read(), response.headers)


def _watch_use(budget: WeightBudget, orders: OrderBudget, now_ms: Callable[[], int]) -> aiohttp.TraceConfig:
    """A hook for the client's session that reads each answer's headers: the client keeps only those of its last one."""

    async def ended(_session: object, _context: object, params: aiohttp.TraceRequestEndParams) -> None:
        used = params.response.headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdecimal():
            budget.observe(int(used), now_ms())
        orders.observe(params.response.headers, now_ms())

    config = aiohttp.TraceConfig()
    config.on_request_end.append(ended)
    return config


class BinanceExchange:
    """The port's implementation; make it with `create` inside a running event loop, and `close` it."""

    def __init__(
        self,
        *,
        client: AsyncClient,
        addresses: Endpoints,
        guard: Guard,
        monotonic: Callable[[], float],
        clock: ExchangeClock,
        budget: WeightBudget,
        orders: OrderBudget,
        observe: Observe,
    ) -> None:
        self._client = client
        self._addresses = addresses
        self._guard = guard
        self._monotonic = monotonic
        self._clock = clock
        self._budget = budget
        self._orders = orders
        self._observe = observe
        self._counts = CallCounts()

    @classmethod
    def create(
        cls,
        settings: ExchangeSettings,
        credentials: Credentials | None,
        guard: Guard,
        monotonic: Callable[[], float],
        budget: WeightBudget | None = None,
        *,
        orders: OrderBudget | None = None,
        observe: Observe = lambda _call, _seconds, _error: None,
    ) -> BinanceExchange:
        """A client without any traffic yet; without credentials only public calls work."""
        addresses, clock, budget = endpoints(settings), ExchangeClock(monotonic), budget or WeightBudget(monotonic)
        orders = orders or OrderBudget(monotonic)
        budget.share = Decimal(settings.weight_share_percent) / 100
        client = _Client(
            api_key=credentials.api_key if credentials else None,
            api_secret=credentials.api_secret if credentials else None,
            private_key=credentials.private_key if credentials else None,
            session_params={"trace_configs": [_watch_use(budget, orders, clock.about_ms), refuse_redirects()]},
        )
        client.API_URL, client.MARGIN_API_URL = addresses.rest, addresses.wallet or ""
        return cls(
            client=client,
            addresses=addresses,
            guard=guard,
            monotonic=monotonic,
            clock=clock,
            budget=budget,
            orders=orders,
            observe=observe,
        )

    @property
    def counts(self) -> CallCounts:
        """Requests and errors so far."""
        return replace(self._counts, used_weight=self._budget.used(self._clock.about_ms()))

    @property
    def addresses(self) -> Endpoints:
        """Where this exchange is, for the streams."""
        return self._addresses

    # --- time ---

    def exchange_ms(self) -> int:
        """The exchange's time now, in ms."""
        return self._clock.now_ms()

    def stamp(self) -> Stamp:
        """The timestamp and window to commit and then sign a request with."""
        return Stamp(self._clock.now_ms(), RECV_WINDOW_MS)

    async def sync_clock(self) -> int:
        """Forget old samples and measure anew; returns the exchange's time in ms."""
        return await self._clock.sync(self._server_time)

    def ask_for_start(self) -> None:
        """WeightBudgetError where the address has used too much of this minute for a start, by the last answer."""
        if (wait := self._budget.start_wait_ms(self._clock.now_ms())) > 0:
            raise WeightBudgetError("a start", wait / 1000)

    @property
    def weight_use(self) -> WeightUse:
        """What was used of the request weight, and wanted."""
        now_ms = self._clock.about_ms()
        used, wanted = self._budget.last_minute(now_ms)
        return WeightUse(limit=self._budget.limit, used=used, wanted=wanted, address_used=self._budget.used(now_ms))

    @property
    def order_use(self) -> OrderUse:
        """What was used of the account's new orders, and wanted."""
        return self._orders.use(self._clock.about_ms())

    async def ping(self) -> None:
        """GET time, which also keeps the offset fresh."""
        await self._clock.sample(self._server_time)

    async def _server_time(self) -> int:
        data = await self._public(EndpointClass.MARKET, "time")
        return _parse(lambda: int(data["serverTime"]))

    # --- market ---

    @property
    def spare_weight(self) -> int:
        """What the limit leaves of this minute's weight, by the last answers; call it after `rules`."""
        return self._budget.limit - self._budget.used(self._clock.about_ms())

    @property
    def spare_orders(self) -> int:
        """What the limits leave of the account's new orders, by the last answers."""
        return self._orders.spare(self._clock.about_ms())

    async def rules(self, symbol: str, *, urgent: bool = False) -> SymbolRules:
        """GET exchangeInfo for one symbol."""
        kind = EndpointClass.REDUCE if urgent else EndpointClass.MARKET
        data = await self._public(kind, "exchangeInfo", symbol=symbol)
        self._budget.limit = _parse(payloads.weight_limit, data)
        self._orders.limits = _parse(payloads.order_limits, data) or self._orders.limits
        found = _parse(payloads.rules_of, data, symbol)
        if found is None:
            raise UnknownSymbolError(f"exchangeInfo has no {symbol}", api_code=-1121)
        return found

    async def book_ticker(self, symbol: str, *, urgent: bool = False) -> BookTicker:
        """GET ticker/bookTicker."""
        kind = EndpointClass.REDUCE if urgent else EndpointClass.MARKET
        return _parse(
            payloads.book_ticker, await self._public(kind, "ticker/bookTicker", symbol=symbol), self._monotonic()
        )

    async def last_price(self, symbol: str) -> Decimal:
        """GET ticker/price."""
        return _parse(payloads.last_price, await self._public(EndpointClass.MARKET, "ticker/price", symbol=symbol))

    async def candles(
        self, symbol: str, interval: str, *, limit: int = 500, start_ms: int | None = None
    ) -> list[Candle]:
        """GET klines."""
        rows = await self._public(
            EndpointClass.MARKET, "klines", symbol=symbol, interval=interval, limit=limit, startTime=start_ms
        )
        now = self._clock.now_ms()
        return _list(rows, lambda row: payloads.candle(symbol, interval, row, now))

    # --- account ---

    async def commission(self, symbol: str) -> Commission:
        """GET account/commission."""
        return _parse(
            payloads.commission, await self._signed(EndpointClass.ACCOUNT, "get", "account/commission", symbol=symbol)
        )

    async def account(self, *, urgent: bool = False) -> AccountSnapshot:
        """GET account."""
        data = await self._signed(_reading(urgent), "get", "account", omitZeroBalances="true")
        # The answer's own time is that of the last change, not of the reading.
        return replace(_parse(payloads.account, data), time_ms=self._clock.now_ms())

    async def key_permissions(self) -> KeyPermissions | None:
        """GET /sapi/v1/account/apiRestrictions; None on the Testnet, which has no /sapi."""
        if self._addresses.wallet is None:
            return None
        return _parse(payloads.key_permissions, await self._signed(EndpointClass.ACCOUNT, "get", KEY_PERMISSIONS))

    async def order(self, symbol: str, client_order_id: str, *, urgent: bool = False) -> OrderReport:
        """GET order."""
        data = await self._signed(_reading(urgent), "get", "order", symbol=symbol, origClientOrderId=client_order_id)
        return _parse(payloads.order, data)

    async def open_orders(self, symbol: str, *, urgent: bool = False) -> list[OrderReport]:
        """GET openOrders."""
        return _list(await self._signed(_reading(urgent), "get", "openOrders", symbol=symbol), payloads.order)

    async def all_orders(self, symbol: str, *, from_order_id: int, urgent: bool = False) -> list[OrderReport]:
        """GET allOrders, paged by order id."""
        found: list[OrderReport] = []
        while True:
            rows = await self._signed(
                _reading(urgent), "get", "allOrders", symbol=symbol, orderId=from_order_id, limit=PAGE
            )
            found += _list(rows, payloads.order)
            if len(rows) < PAGE:
                return found
            from_order_id = found[-1].order_id + 1

    async def order_trades(self, symbol: str, order_id: int, *, urgent: bool = False) -> list[TradeFill]:
        """GET myTrades of one order, paged by trade id."""
        rows = await self._signed(_reading(urgent), "get", "myTrades", symbol=symbol, orderId=order_id, limit=PAGE)
        found = _list(rows, payloads.trade)
        while len(rows) == PAGE:
            rows = await self._signed(
                _reading(urgent),
                "get",
                "myTrades",
                symbol=symbol,
                orderId=order_id,
                fromId=found[-1].trade_id + 1,
                limit=PAGE,
            )
            found += _list(rows, payloads.trade)
        return found

    async def trades(self, symbol: str, *, from_id: int | None, urgent: bool = False) -> list[TradeFill]:
        """GET myTrades from a trade id on, paged; one page of the newest with None."""
        found: list[TradeFill] = []
        while True:
            rows = await self._signed(_reading(urgent), "get", "myTrades", symbol=symbol, fromId=from_id, limit=PAGE)
            found += _list(rows, payloads.trade)
            if len(rows) < PAGE or from_id is None:
                return found
            from_id = found[-1].trade_id + 1

    async def test_order(self, order: NewOrder) -> None:
        """POST order/test: nothing is placed, so it is repeated like a read."""
        await self._signed(EndpointClass.ACCOUNT, "post", "order/test", **order_params(order))

    # --- orders: sent once, never repeated here ---

    async def place_order(self, order: NewOrder, stamp: Stamp, *, urgent: bool = False) -> OrderReport:
        """POST order."""
        kind = EndpointClass.REDUCE if urgent else EndpointClass.ORDER
        data = await self._send(kind, "post", "order", stamp, newOrderRespType="FULL", **order_params(order))
        return _parse(payloads.order, data)

    async def place_oco(self, order: NewOco, stamp: Stamp) -> OrderListReport:
        """POST orderList/oco, SELL: the take-profit above, the stop below."""
        data = await self._send(
            EndpointClass.REDUCE, "post", "orderList/oco", stamp, newOrderRespType="RESULT", **oco_params(order)
        )
        return _parse(payloads.order_list, data)

    async def place_otoco(self, order: NewOtoco, stamp: Stamp) -> OrderListReport:
        """POST orderList/otoco: the working BUY and the pending pair."""
        data = await self._send(
            EndpointClass.ORDER, "post", "orderList/otoco", stamp, newOrderRespType="RESULT", **otoco_params(order)
        )
        return _parse(payloads.order_list, data)

    async def cancel_order(
        self, symbol: str, client_order_id: str, cancel_id: str, stamp: Stamp, *, order_id: int | None = None
    ) -> OrderReport:
        """DELETE order."""
        data = await self._send(
            EndpointClass.REDUCE,
            "delete",
            "order",
            stamp,
            symbol=symbol,
            orderId=order_id,
            origClientOrderId=client_order_id if order_id is None else None,
            newClientOrderId=cancel_id,
        )
        return _parse(payloads.cancelled_order, data, client_order_id)

    async def cancel_list(self, symbol: str, order_list_id: int, cancel_id: str, stamp: Stamp) -> OrderListReport:
        """DELETE orderList."""
        data = await self._send(
            EndpointClass.REDUCE,
            "delete",
            "orderList",
            stamp,
            symbol=symbol,
            orderListId=order_list_id,
            newClientOrderId=cancel_id,
        )
        return _parse(payloads.order_list, data)

    # --- the one way out ---

    def user_subscription(self) -> Mapping[str, Any]:
        """Signed parameters of `userDataStream.subscribe.signature`, for now."""
        params = {"apiKey": self._client.API_KEY, "timestamp": self._clock.now_ms()}
        return {**params, "signature": self._client._generate_ws_api_signature(params)}

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close_connection()

    async def _public(self, kind: EndpointClass, path: str, **params: Any) -> Any:
        return await self._call(kind, "get", path, params, READ_TIMEOUT)

    async def _signed(self, kind: EndpointClass, method: str, path: str, **params: Any) -> Any:
        """A signed read; after -1021 the clock is measured and the read repeated once."""
        if not self._clock.synced:
            await self.sync_clock()
        try:
            return await self._send(kind, method, path, self.stamp(), timeout=READ_TIMEOUT, **params)
        except ClockSkewError:
            await self.sync_clock()
            return await self._send(kind, method, path, self.stamp(), timeout=READ_TIMEOUT, **params)

    async def _send(
        self,
        kind: EndpointClass,
        method: str,
        path: str,
        stamp: Stamp,
        *,
        timeout: float = ORDER_TIMEOUT,
        **params: Any,
    ) -> Any:
        signed = {name: value for name, value in params.items() if value is not None}
        signed |= {"timestamp": stamp.timestamp_ms, "recvWindow": stamp.recv_window_ms}
        # aiohttp encodes the form of a POST itself; the query of a GET is sent as it is.
        signed["signature"] = self._client._generate_signature(signed, uri_encode=method == "get")
        return await self._call(kind, method, path, signed, timeout)

    async def _call(self, kind: EndpointClass, method: str, path: str, params: dict[str, Any], timeout: float) -> Any:
        send, version = (
            (self._client._request_margin_api, 1) if path == KEY_PERMISSIONS else (self._client._request_api, "v3")
        )

        weight = weight_of(method, path, params)
        # The time is read for 1, and without it nothing can be signed.
        read, now_ms = method == "get", self._clock.about_ms()
        if path != "time" and (wait := self._budget.wait_ms(kind, weight, now_ms, read=read)) > 0:
            raise WeightBudgetError(path, wait / 1000)
        orders = orders_of(method, path)
        # What rests is the announcement, one order in the life of a process: it waits for no operator.
        entry = kind is EndpointClass.ORDER and params.get("type") != OrderType.LIMIT_MAKER
        if kind is EndpointClass.ORDER:
            self._orders.check(orders, now_ms, allotted=entry)

        async def request() -> Any:
            limits = aiohttp.ClientTimeout(total=timeout, connect=CONNECT_TIMEOUT)
            self._counts = replace(self._counts, calls=self._counts.calls + 1)
            self._budget.sent(weight, self._clock.about_ms())
            self._orders.sent(orders, allotted=entry)
            begun, failed = self._monotonic(), ""
            try:
                return await send(
                    method, path, signed=False, version=version, data={**params, "requests_params": {"timeout": limits}}
                )
            except Exception as error:
                known = classify(error)
                if known is None:
                    raise
                failed = known.code
                self._count_error(known, path)
                if isinstance(known, TooManyOrdersError):
                    self._orders.refuse(known.retry_after, self._clock.about_ms())
                raise known from None
            finally:
                self._budget.answered(weight)
                self._orders.answered(orders)
                call = CallKind.READ if method == "get" or path == "order/test" else CallKind.ORDER
                self._observe(call, self._monotonic() - begun, failed)

        return await self._guard.call(kind, request)

    def _count_error(self, error: ExchangeError, path: str) -> None:
        if isinstance(error, RejectedError | TooManyOrdersError):
            return  # a refusal is an answer
        self._counts = replace(self._counts, errors=self._counts.errors + 1, last_error=f"{path}: {error}"[:200])


def _parse(parser: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Parse an answer; one of another shape than documented says nothing about what was done."""
    try:
        return parser(*args, **kwargs)
    except payloads.UNREADABLE as error:
        raise AmbiguousError(f"the answer was not understood ({type(error).__name__}: {error})") from None


def _list(data: Any, parser: Callable[[Any], T]) -> list[T]:
    """Parse an answer that is a list; an empty object is not the word that there is nothing."""
    if not isinstance(data, list):
        raise AmbiguousError(f"the answer was not understood (expected a list, got {type(data).__name__})")
    return _parse(lambda: [parser(row) for row in data])


def _reading(urgent: bool) -> EndpointClass:
    return EndpointClass.REDUCE if urgent else EndpointClass.ACCOUNT
