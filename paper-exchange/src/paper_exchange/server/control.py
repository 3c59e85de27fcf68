"""The control port: probes, metrics, accounts, faults and outside trades, for operators and tests only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from paper_exchange.amounts import ControlInvalidError, check_public_key, parse_deposits, positive_units
from paper_exchange.core import reports
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.units import text
from paper_exchange.server.faults import FaultInvalidError, Faults
from paper_exchange.venue import Venue

_TRADES_SHOWN = 1000


class Control:
    """The handlers of the control port."""

    def __init__(
        self, venue: Venue, faults: Faults, registry: CollectorRegistry, healthy: Callable[[], str | None]
    ) -> None:
        self._venue = venue
        self._faults = faults
        self._registry = registry
        self._healthy = healthy

    def application(self) -> web.Application:
        """The routes of the control port."""
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._health),
                web.get("/metrics", self._metrics),
                web.post("/control/accounts", self._create_account),
                web.get("/control/accounts/{uid}", self._account),
                web.post("/control/accounts/{uid}/deposits", self._deposit),
                web.post("/control/accounts/{uid}/keys", self._create_key),
                web.delete("/control/accounts/{uid}/keys/{key}", self._delete_key),
                web.post("/control/faults", self._start_fault),
                web.get("/control/faults", self._list_faults),
                web.delete("/control/faults", self._clear_faults),
                web.post("/control/trades", self._push_trade),
            ]
        )
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        problem = self._healthy()
        return web.Response(text=problem or "ok", status=503 if problem else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _create_account(self, request: web.Request) -> web.Response:
        body = await _body(request)
        public_key = body.get("publicKey", "")
        deposits = parse_deposits(body.get("deposits"))
        key = self._venue.create_account(deposits, check_public_key(public_key))
        return web.json_response(key.answer(), status=201)

    def _uid(self, request: web.Request) -> int:
        asked = request.match_info["uid"]
        if not asked.isdigit() or int(asked) not in self._venue.exchange.accounts:
            known = ", ".join(str(uid) for uid in list(self._venue.exchange.accounts)[:10]) or "none yet"
            raise web.HTTPNotFound(text=json.dumps({"error": f"uid: no account {asked}; there are: {known}"}))
        return int(asked)

    async def _account(self, request: web.Request) -> web.Response:
        uid = self._uid(request)
        exchange = self._venue.exchange
        trades = sorted(
            (trade for (owner, _), rows in exchange.trades.items() if owner == uid for trade in rows),
            key=lambda trade: (trade.time, trade.trade_id),
        )
        lists = [group for group in exchange.lists.values() if group.uid == uid and not group.done]
        return web.json_response(
            {
                "uid": uid,
                "balances": {
                    asset: {"free": text(balance.free), "locked": text(balance.locked)}
                    for asset, balance in exchange.accounts[uid].balances.items()
                },
                "openOrders": [reports.order_status(order) for order in exchange.open_orders(uid)],
                "openOrderLists": [exchange.list_body(group) for group in lists],
                "trades": [reports.my_trade(trade) for trade in trades[-_TRADES_SHOWN:]],
            }
        )

    async def _deposit(self, request: web.Request) -> web.Response:
        uid = self._uid(request)
        for asset, amount in parse_deposits((await _body(request)).get("deposits")).items():
            self._venue.exchange.deposit(uid, asset, amount, self._venue.now_ms())
        self._venue.commit()
        return web.json_response({"uid": uid})

    async def _create_key(self, request: web.Request) -> web.Response:
        uid = self._uid(request)
        key = self._venue.create_key(uid, check_public_key((await _body(request)).get("publicKey", "")))
        return web.json_response(key.answer(), status=201)

    async def _delete_key(self, request: web.Request) -> web.Response:
        uid = self._uid(request)
        if not self._venue.delete_key(uid, request.match_info["key"]):
            raise web.HTTPNotFound(text=json.dumps({"error": f"key: account {uid} has no such key"}))
        return web.json_response({"uid": uid})

    async def _start_fault(self, request: web.Request) -> web.Response:
        try:
            self._faults.start(await _body(request))
        except FaultInvalidError as error:
            raise ControlInvalidError(str(error)) from error
        return web.json_response({"faults": self._faults.describe()}, status=201)

    async def _list_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": self._faults.describe()})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({"faults": []})

    async def _push_trade(self, request: web.Request) -> web.Response:
        body = await _body(request)
        symbol = body.get("symbol")
        market = self._venue.exchange.markets.get(symbol) if isinstance(symbol, str) else None
        if market is None:
            known = ", ".join(self._venue.exchange.markets)
            raise ControlInvalidError(f"symbol: expected one of {known}, got {symbol!r}")
        price = positive_units("price", body.get("price"))
        if price % market.rules.tick:
            raise ControlInvalidError(f"price: expected a multiple of {text(market.rules.tick)}, got {body['price']!r}")
        try:
            self._venue.exchange.push_trade(market.rules.symbol, price, self._venue.now_ms())
        finally:
            self._venue.commit()
        return web.json_response({"symbol": symbol, "lastPrice": text(market.last or 0)})


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.text())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ControlInvalidError("body: expected a JSON object")
    return body


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except ControlInvalidError as error:
        return web.json_response({"error": str(error)}, status=400)
    except ExchangeError as error:
        return web.json_response({"error": error.message}, status=400)
