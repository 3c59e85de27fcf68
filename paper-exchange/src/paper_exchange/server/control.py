"""The control port: the status page, probes, metrics, accounts, faults and outside trades, for operators and tests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from paper_exchange.administration import ROUTES, Administration, NotFoundError
from paper_exchange.amounts import ControlInvalidError, positive_units
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.units import text
from paper_exchange.faults.control import Faults
from paper_exchange.faults.director import Director
from paper_exchange.faults.fields import Field, read_object
from paper_exchange.faults.scenario import open_scenario, read_scenario, shipped
from paper_exchange.market.playback import Playback, SpeedInvalidError, speed_of
from paper_exchange.overview import overview
from paper_exchange.server.cross_site import from_another_site
from paper_exchange.server.status_page import status_page
from paper_exchange.venue import Venue


class Control:
    """The handlers of the control port."""

    def __init__(
        self,
        venue: Venue,
        faults: Faults,
        director: Director,
        registry: CollectorRegistry,
        *,
        healthy: Callable[[], str | None],
        ready: Callable[[], str | None],
        drop_connections: Callable[[], int],
        market: str,
        playback: Playback | None,
        set_speed: Callable[[float], None],
    ) -> None:
        """`market` is what the page calls the market; `playback` is None of one that is followed."""
        self._venue = venue
        self._administration = Administration(venue)
        self._faults = faults
        self._director = director
        self._registry = registry
        self._healthy = healthy
        self._ready = ready
        self._drop_connections = drop_connections
        self._market = market
        self._playback = playback
        self._set_speed = set_speed

    def application(self) -> web.Application:
        """The routes of the control port."""
        app = web.Application(middlewares=[_errors])
        app.add_routes(
            [
                web.get("/", status_page),
                web.get("/control/overview", self._overview),
                web.get("/healthz", self._probe(self._healthy)),
                web.get("/readyz", self._probe(self._ready)),
                web.get("/metrics", self._metrics),
                *(web.route(method, path, self._administer(name)) for name, (method, path) in ROUTES.items()),
                web.post("/control/faults", self._start_fault),
                web.get("/control/faults", self._list_faults),
                web.delete("/control/faults", self._clear_faults),
                web.get("/control/faults/record", self._record),
                web.get("/control/faults/plan", self._plan),
                web.delete("/control/faults/{id}", self._end_fault),
                web.post("/control/scenario", self._begin_scenario),
                web.get("/control/scenario", self._show_scenario),
                web.delete("/control/scenario", self._end_scenario),
                web.get("/control/market", self._show_market),
                web.patch("/control/market", self._change_market),
                web.post("/control/trades", self._push_trade),
                web.delete("/control/connections", self._drop),
            ]
        )
        return app

    def _probe(self, problem_of: Callable[[], str | None]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(_request: web.Request) -> web.Response:
            problem = problem_of()
            return web.Response(text=problem or "ok", status=503 if problem else 200)

        return handler

    async def _overview(self, request: web.Request) -> web.Response:
        whole = self._tell_market() | {"problem": self._ready(), "faults": self._faults.describe()}
        return web.json_response(whole | overview(self._venue, request.query.get("symbol")))

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    def _administer(self, name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        action = self._administration.actions[name]

        async def handler(request: web.Request) -> web.Response:
            body = await _body(request) if request.method in ("POST", "PATCH") else {}
            status = 201 if name.startswith("create") else 200
            return web.json_response(action(request.match_info, body), status=status)

        return handler

    async def _drop(self, _request: web.Request) -> web.Response:
        return web.json_response({"closed": self._drop_connections()})

    async def _start_fault(self, request: web.Request) -> web.Response:
        begun = self._faults.start(await _body(request))
        return web.json_response(self._faults.tell(begun) | {"faults": self._faults.describe()}, status=201)

    async def _list_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": self._faults.describe()})

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response({"faults": []})

    async def _end_fault(self, request: web.Request) -> web.Response:
        asked = request.match_info["id"]
        if not (asked.isascii() and asked.isdigit() and self._faults.stop(int(asked))):
            known = ", ".join(str(one["id"]) for one in self._faults.describe()) or "none"
            raise NotFoundError(f"id: no fault {asked} is in force; there are: {known}")
        return web.json_response({"faults": self._faults.describe()})

    async def _record(self, _request: web.Request) -> web.Response:
        record = self._faults.record
        return web.json_response({"rows": list(record.rows), "gone": record.written - len(record.rows)})

    async def _plan(self, _request: web.Request) -> web.Response:
        return web.json_response(self._faults.record.plan())

    async def _begin_scenario(self, request: web.Request) -> web.Response:
        name, known = request.query.get("name"), self._faults.known
        if name is not None and name not in shipped():
            raise ControlInvalidError(f"name: expected one of {', '.join(shipped())}, got {name!r}")
        scenario = open_scenario(name, known) if name else read_scenario(await request.text(), "body", known)
        self._director.begin(scenario)
        return web.json_response(self._director.describe(), status=201)

    async def _show_scenario(self, _request: web.Request) -> web.Response:
        return web.json_response(self._director.describe() | {"shipped": shipped()})

    async def _end_scenario(self, _request: web.Request) -> web.Response:
        self._director.stop()
        return web.json_response(self._director.describe())

    def _tell_market(self) -> dict[str, Any]:
        """The market, its speed (None of one that is followed) and its own time in ms."""
        playback = self._playback
        if playback is None:
            return {"market": self._market, "speed": None, "marketTime": None}
        market_time = int(playback.market_ms(self._venue.now_ms()))
        return {"market": self._market, "speed": playback.speed, "marketTime": market_time}

    async def _show_market(self, _request: web.Request) -> web.Response:
        return web.json_response(self._tell_market())

    async def _change_market(self, request: web.Request) -> web.Response:
        given = read_object("", await _body(request), {"speed": Field(speed_of)})
        self._set_speed(given["speed"])
        return web.json_response(self._tell_market())

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
    if from_another_site(request.method, request.headers):
        told = (
            "the page of another site may change nothing here; use the control port's own page, "
            "by HTTPS, an IP address, localhost or a name inside of the cluster"
        )
        return web.json_response({"error": told}, status=403)
    try:
        return await handler(request)
    except NotFoundError as error:
        return web.json_response({"error": str(error)}, status=404)
    except (ControlInvalidError, SpeedInvalidError) as error:
        return web.json_response({"error": str(error)}, status=400)
    except ExchangeError as error:
        return web.json_response({"error": error.message}, status=400)
