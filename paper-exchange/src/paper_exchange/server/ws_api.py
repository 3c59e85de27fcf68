"""The WebSocket API: the same calls as REST in JSON frames, and the user data stream."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import structlog
from aiohttp import WSMsgType, web

from paper_exchange.api import SpotApi
from paper_exchange.auth import check_signature, check_time, find_key
from paper_exchange.core.errors import ExchangeError, missing
from paper_exchange.gate import Gate, Request
from paper_exchange.keys import ApiKey
from paper_exchange.limits import Limits
from paper_exchange.server.outbox import Outbox
from paper_exchange.venue import Venue

_log = structlog.get_logger(__name__)

METHODS: Final[dict[str, tuple[str, str]]] = {
    "ping": ("GET", "/api/v3/ping"),
    "time": ("GET", "/api/v3/time"),
    "exchangeInfo": ("GET", "/api/v3/exchangeInfo"),
    "depth": ("GET", "/api/v3/depth"),
    "trades.recent": ("GET", "/api/v3/trades"),
    "trades.aggregate": ("GET", "/api/v3/aggTrades"),
    "klines": ("GET", "/api/v3/klines"),
    "uiKlines": ("GET", "/api/v3/uiKlines"),
    "avgPrice": ("GET", "/api/v3/avgPrice"),
    "executionRules": ("GET", "/api/v3/executionRules"),
    "referencePrice": ("GET", "/api/v3/referencePrice"),
    "referencePrice.calculation": ("GET", "/api/v3/referencePrice/calculation"),
    "ticker.24hr": ("GET", "/api/v3/ticker/24hr"),
    "ticker.price": ("GET", "/api/v3/ticker/price"),
    "ticker.book": ("GET", "/api/v3/ticker/bookTicker"),
    "account.status": ("GET", "/api/v3/account"),
    "account.commission": ("GET", "/api/v3/account/commission"),
    "account.rateLimits.orders": ("GET", "/api/v3/rateLimit/order"),
    "order.place": ("POST", "/api/v3/order"),
    "order.test": ("POST", "/api/v3/order/test"),
    "order.status": ("GET", "/api/v3/order"),
    "order.cancel": ("DELETE", "/api/v3/order"),
    "order.amend.keepPriority": ("PUT", "/api/v3/order/amend/keepPriority"),
    "order.amendments": ("GET", "/api/v3/order/amendments"),
    "order.cancelReplace": ("POST", "/api/v3/order/cancelReplace"),
    "openOrders.status": ("GET", "/api/v3/openOrders"),
    "openOrders.cancelAll": ("DELETE", "/api/v3/openOrders"),
    "allOrders": ("GET", "/api/v3/allOrders"),
    "myTrades": ("GET", "/api/v3/myTrades"),
    "orderList.place": ("POST", "/api/v3/order/oco"),
    "myPreventedMatches": ("GET", "/api/v3/myPreventedMatches"),
    "orderList.place.oco": ("POST", "/api/v3/orderList/oco"),
    "orderList.place.oto": ("POST", "/api/v3/orderList/oto"),
    "orderList.place.otoco": ("POST", "/api/v3/orderList/otoco"),
    "orderList.place.opo": ("POST", "/api/v3/orderList/opo"),
    "orderList.place.opoco": ("POST", "/api/v3/orderList/opoco"),
    "orderList.status": ("GET", "/api/v3/orderList"),
    "orderList.cancel": ("DELETE", "/api/v3/orderList"),
    "openOrderLists.status": ("GET", "/api/v3/openOrderList"),
    "allOrderLists": ("GET", "/api/v3/allOrderList"),
}
_CONNECT_WEIGHT: Final = 2


class WsApi:
    """The handler of /ws-api/v3."""

    def __init__(self, venue: Venue, api: SpotApi, *, gate: Gate, limits: Limits, outboxes: set[Outbox]) -> None:
        self._venue = venue
        self._api = api
        self._gate = gate
        self._limits = limits
        self._outboxes = outboxes

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """One connection until it closes."""
        self._limits.charge(request.remote or "", _CONNECT_WEIGHT, self._venue.now_ms())
        async with Outbox.open(request, self._outboxes) as outbox:
            session = _Session(self._venue, self._api, self._gate, self._limits, outbox)
            try:
                async for message in outbox.socket:
                    if message.type is WSMsgType.TEXT:
                        session.receive(message.data, request.remote or "")
            finally:
                session.close()
        return outbox.socket


class _Session:
    """One connection and its subscriptions to user events."""

    def __init__(self, venue: Venue, api: SpotApi, gate: Gate, limits: Limits, outbox: Outbox) -> None:
        self._venue = venue
        self._api = api
        self._gate = gate
        self._limits = limits
        self._outbox = outbox
        self._subscriptions: dict[int, tuple[int, Callable[[], None]]] = {}
        self._next_subscription = 0

    def close(self) -> None:
        """End all subscriptions."""
        for _, unsubscribe in self._subscriptions.values():
            unsubscribe()
        self._subscriptions.clear()

    def receive(self, text: str, address: str) -> None:
        """One frame of the client; the answer goes out before the events it causes."""
        ident: Any = None
        show_limits = True
        answer: dict[str, Any]
        try:
            frame = json.loads(text, parse_float=str)
            if not isinstance(frame, dict) or not isinstance(frame.get("method"), str):
                raise ExchangeError(-1135, "Invalid JSON Request")
            ident = frame.get("id")
            params = frame.get("params") or {}
            if not isinstance(params, dict):
                raise ExchangeError(-1135, "JSON sent for parameter 'params' is not valid")
            show_limits = params.get("returnRateLimits", True) is not False
            values = {name: _text(value) for name, value in params.items() if value is not None}
            answer = {"id": ident, "status": 200, "result": self._call(frame["method"], values, address)}
        except ValueError:
            answer = _failure(ident, ExchangeError(-1135, "Invalid JSON Request"))
        except ExchangeError as error:
            answer = _failure(ident, error)
        except Exception:
            _log.exception("WebSocket request failed")
            unknown = ExchangeError(-1000, "An unknown error occurred while processing the request.", status=500)
            answer = _failure(ident, unknown)
        if show_limits:
            answer["rateLimits"] = [self._limits.weight(address, self._venue.now_ms())]
        self._outbox.send(json.dumps(answer, separators=(",", ":")))
        self._venue.commit()

    def _call(self, method: str, params: dict[str, str], address: str) -> Any:
        now = self._venue.now_ms()
        own = {
            "userDataStream.subscribe.signature": self._subscribe,
            "userDataStream.unsubscribe": self._unsubscribe,
            "session.subscriptions": self._list,
        }
        if method in own:
            self._limits.admit(address, 2, now)
            self._limits.charge(address, 2, now)
            return own[method](params)
        if method not in METHODS:
            raise ExchangeError(-1020, "This operation is not supported.")
        route = self._api.routes[METHODS[method]]
        return self._gate.answer(
            Request(
                METHODS[method], route, params, address, lambda: self._key(params), lambda key: self._prove(key, params)
            )
        )

    def _authenticate(self, params: dict[str, str]) -> ApiKey:
        key = self._key(params)
        self._prove(key, params)
        return key

    def _key(self, params: dict[str, str]) -> ApiKey:
        return find_key(self._venue.keys, params.get("apiKey"))

    def _prove(self, key: ApiKey, params: dict[str, str]) -> None:
        """The signature covers all other parameters, sorted by name."""
        check_time(params, self._venue.now_ms())
        signed = sorted((name, value) for name, value in params.items() if name != "signature")
        raw = "&".join(f"{name}={value}" for name, value in signed)
        check_signature(key, [raw.encode(), urlencode(signed).encode()], params.get("signature"))

    def _subscribe(self, params: dict[str, str]) -> Any:
        key = self._authenticate(params)
        if any(uid == key.uid for uid, _ in self._subscriptions.values()):
            raise ExchangeError(-2035, "User Data Stream subscription already active.")
        ident = self._next_subscription
        self._next_subscription += 1

        def tell(event: dict[str, Any]) -> None:
            self._outbox.send(json.dumps({"subscriptionId": ident, "event": event}, separators=(",", ":")))

        self._subscriptions[ident] = (key.uid, self._venue.subscribe(key.uid, tell))
        return {"subscriptionId": ident}

    def _unsubscribe(self, params: dict[str, str]) -> Any:
        asked = params.get("subscriptionId")
        if asked is not None and not asked.isdigit():
            raise missing("subscriptionId")
        chosen = [int(asked)] if asked is not None else list(self._subscriptions)
        if not chosen or any(ident not in self._subscriptions for ident in chosen):
            raise ExchangeError(-2036, "User Data Stream subscription not active.")
        for ident in chosen:
            _, unsubscribe = self._subscriptions.pop(ident)
            unsubscribe()
            event = {"e": "eventStreamTerminated", "E": self._venue.now_ms()}
            self._outbox.send(json.dumps({"subscriptionId": ident, "event": event}, separators=(",", ":")))
        return {}

    def _list(self, _params: dict[str, str]) -> Any:
        return [{"subscriptionId": ident} for ident in self._subscriptions]


def _text(value: Any) -> str:
    """A JSON value as it is signed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _failure(ident: Any, error: ExchangeError) -> dict[str, Any]:
    return {"id": ident, "status": error.status, "error": error.told()}
