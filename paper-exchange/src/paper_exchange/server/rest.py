"""REST: turns HTTP requests into calls of the API, with Binance's headers, statuses and error bodies."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from paper_exchange.api import SpotApi
from paper_exchange.auth import check_signature, check_time, find_key, split_signature
from paper_exchange.core.errors import ExchangeError
from paper_exchange.endpoint import Call, Route, Security
from paper_exchange.limits import Limits
from paper_exchange.server.faults import Faults
from paper_exchange.venue import Venue

_log = structlog.get_logger(__name__)
_MAX_BODY: Final = 64 * 1024
_REMOVED: Final = "/api/v3/userDataStream"
_GONE: Final = "<html><body><h1>410 Gone</h1>Use userDataStream.subscribe.signature on /ws-api/v3.</body></html>"
"""Listen keys were removed on 2026-02-20; Binance answers 410 with HTML."""


class RestApi:
    """The handler of every path under /api and /sapi."""

    def __init__(
        self, venue: Venue, api: SpotApi, *, limits: Limits, faults: Faults, registry: CollectorRegistry
    ) -> None:
        self._venue = venue
        self._api = api
        self._limits = limits
        self._faults = faults
        self._requests = Counter(
            "paper_exchange_requests", "REST requests by path and status", ["path", "status"], registry=registry
        )
        self._paths = {path for _, path in api.routes}

    async def handle(self, request: web.Request) -> web.Response:
        """One HTTP request."""
        response = await self._respond(request)
        path = request.path if request.path in self._paths else "other"
        self._requests.labels(path, str(response.status)).inc()
        return response

    async def _respond(self, request: web.Request) -> web.Response:
        fault = self._faults.active()
        if fault and request.path.startswith("/api"):
            retry = {"Retry-After": str(self._faults.retry_after())} if fault.status in (418, 429) else {}
            return _json(fault.body(), fault.status, retry)
        if request.path == _REMOVED:
            return web.Response(text=_GONE, status=410, content_type="text/html")
        route = self._api.routes.get((request.method, request.path))
        address = request.remote or ""
        if route is None:
            self._limits.charge(address, 1, self._venue.now_ms())
            return _not_found(request, self._weight_headers(address))
        headers: dict[str, str] = {}
        try:
            body = await self._answer(request, route, address, headers)
            status = 200
        except ExchangeError as error:
            body = {"code": error.code, "msg": error.message}
            status = error.status
            if error.retry_after is not None:
                headers["Retry-After"] = str(error.retry_after)
        except Exception:
            _log.exception("request failed", path=request.path)
            body = {"code": -1000, "msg": "An unknown error occurred while processing the request."}
            status = 500
        finally:
            self._venue.commit()
        return _json(body, status, headers | self._weight_headers(address))

    async def _answer(self, request: web.Request, route: Route, address: str, headers: dict[str, str]) -> Any:
        raw_query = request.raw_path.partition("?")[2]
        raw_body = (await request.content.read(_MAX_BODY)).decode("utf-8", "replace")
        if request.content_type == "application/json":
            raw_body = ""
        params = _merge(raw_query, raw_body)
        now = self._venue.now_ms()
        weight = route.weight(params)
        self._limits.refuse_excess(address, weight, now)
        try:
            uid, api_key = self._authenticate(request, route, params, raw=(raw_query, raw_body))
            if route.orders:
                ten, day = self._limits.count_orders(uid, route.orders, now)
                headers["X-MBX-ORDER-COUNT-10S"], headers["X-MBX-ORDER-COUNT-1D"] = str(ten), str(day)
            body = route.answer(Call(params, uid, now, api_key))
        except ExchangeError:
            self._limits.charge(address, weight, now)
            raise
        if not route.trade:
            self._limits.charge(address, weight, now)
        return body

    def _authenticate(
        self, request: web.Request, route: Route, params: dict[str, str], *, raw: tuple[str, str]
    ) -> tuple[int, str]:
        if route.security is Security.NONE:
            return 0, ""
        key = find_key(self._venue.keys, request.headers.get("X-MBX-APIKEY"))
        if route.security is Security.KEY:
            return key.uid, key.api_key
        check_time(params, self._venue.now_ms())
        query, in_query = split_signature(raw[0])
        body, in_body = split_signature(raw[1])
        # Query and body are signed one after the other, without a separator, as they were received.
        check_signature(key, [(query + body).encode()], in_query or in_body)
        return key.uid, key.api_key

    def _weight_headers(self, address: str) -> dict[str, str]:
        used = str(self._limits.charge(address, 0, self._venue.now_ms()))
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}


def _merge(raw_query: str, raw_body: str) -> dict[str, str]:
    """Parameters of query and body; the query wins."""
    result: dict[str, str] = {}
    for raw in (raw_body, raw_query):
        pairs = parse_qsl(raw, keep_blank_values=True)
        if len(dict(pairs)) != len(pairs):
            raise ExchangeError(-1101, "Duplicate values for a parameter detected.")
        result.update(pairs)
    return result


def _not_found(request: web.Request, headers: dict[str, str]) -> web.Response:
    """JSON, except for a browser."""
    if "text/html" in request.headers.get("Accept", ""):
        page = "<html><body><h1>404 Not Found</h1></body></html>"
        return web.Response(text=page, status=404, headers=headers, content_type="text/html")
    return _json({"status": 404, "error": "Not Found", "path": request.path}, 404, headers)


def _json(body: Any, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(
        text=json.dumps(body, separators=(",", ":")),
        status=status,
        headers=headers,
        content_type="application/json",
    )
