"""REST: turns HTTP requests into calls of the API, with Binance's headers, statuses and error bodies."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from paper_exchange.api import SpotApi
from paper_exchange.auth import check_signature, check_time, find_key, split_signature
from paper_exchange.core.errors import ExchangeError
from paper_exchange.endpoint import is_sapi
from paper_exchange.faults.calls import NONE, CallFaults, Disturbance
from paper_exchange.faults.model import Subject
from paper_exchange.gate import Gate, Request
from paper_exchange.keys import ApiKey
from paper_exchange.limits import Limits
from paper_exchange.server.disturbed import lost, refused
from paper_exchange.server.group_commit import GroupCommit
from paper_exchange.time_units import in_microseconds as told_in_microseconds
from paper_exchange.time_units import wants_microseconds
from paper_exchange.venue import Venue

_log = structlog.get_logger(__name__)
_NOT_FOUND: Final = "<html><body><h1>404 Not Found</h1></body></html>"
_SCHEMA = re.compile(r"[0-9]+:[0-9]+")
_UNKNOWN: Final = {"code": -1000, "msg": "An unknown error occurred while processing the request."}
_UNREADABLE: Final = {"code": -1102, "msg": "A mandatory parameter was not sent, was empty/null, or malformed."}
_REMOVED: Final = "/api/v3/userDataStream"
_GONE: Final = "<html><body><h1>410 Gone</h1>Use userDataStream.subscribe.signature on /ws-api/v3.</body></html>"
"""Listen keys were removed on 2026-02-20; Binance answers 410 with HTML."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An HTTP request as it was received: query and form body raw, header names in lower case."""

    method: str
    path: str
    query: str = ""
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back: a body for json.dumps, or a page of HTML."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class RestApi:
    """The handler of every path under /api and /sapi."""

    def __init__(
        self, venue: Venue, api: SpotApi, *, gate: Gate, limits: Limits, faults: CallFaults, registry: CollectorRegistry
    ) -> None:
        self._venue = venue
        self._api = api
        self._gate = gate
        self._limits = limits
        self._faults = faults
        self._stored = GroupCommit(venue.commit)
        self._requests = Counter(
            "paper_exchange_requests", "REST requests by path and status", ["path", "status"], registry=registry
        )
        self._paths = {path for _, path in api.routes}

    async def handle(self, request: web.Request) -> web.Response:
        """One HTTP request."""
        try:
            sent = await _received(request)
        except web.RequestPayloadError:
            # A body that is not what its Content-Encoding or its chunks say.
            return web.json_response(_UNREADABLE, status=400)
        path = sent.path if sent.path in self._paths else "other"
        subject = self._subject(sent) if self._faults.any else None
        end, answer = await self._end(sent, subject)
        if end.lost:
            self._requests.labels(path, "lost").inc()
            return await lost(request, cut=end.cut)
        response = refused(end.refusal) if end.refusal is not None else answer
        self._requests.labels(path, str(response.status)).inc()
        return response

    async def _end(self, sent: Sent, subject: Subject | None) -> tuple[Disturbance, web.Response]:
        """What faults make of the end of a request, and its answer where they leave it."""
        before = NONE if subject is None else self._faults.before(subject)
        if before.seconds:
            await asyncio.sleep(before.seconds)
        if before.ends:
            return before, web.Response()
        reply = self.respond(sent, before.skew_ms)
        # What is refused may have changed something too; what only reads may have seen what is not stored.
        try:
            await self._stored.done()
        except Exception:
            _log.exception("storing failed", path=sent.path)
            reply = Reply(500, _UNKNOWN, {})
        after = NONE if subject is None else self._faults.after(subject, accepted=reply.status == 200)
        if after.seconds:
            await asyncio.sleep(after.seconds)
        page = isinstance(reply.body, str)
        return after, web.Response(
            text=reply.body if page else json.dumps(reply.body, separators=(",", ":")),
            status=reply.status,
            headers=reply.headers,
            content_type="text/html" if page else "application/json",
        )

    def _subject(self, sent: Sent) -> Subject:
        """Whom and what a request is about, as far as can be seen before it is checked."""
        key = self._venue.keys.get(sent.headers.get("x-mbx-apikey", ""))
        params = dict(parse_qsl(sent.body)) | dict(parse_qsl(sent.query))
        endpoint = f"{sent.method} {sent.path}"
        return Subject(endpoint, uid=0 if key is None else key.uid, symbol=params.get("symbol", ""))

    def respond(self, sent: Sent, skew_ms: int = 0) -> Reply:
        """The reply to a request; it may be sent when what was done until now is committed."""
        if sent.path == _REMOVED:
            return Reply(410, _GONE)
        headers: dict[str, str] = {}
        try:
            status, body = self._answer(sent, headers, skew_ms)
        except ExchangeError as error:
            status, body = error.status, error.told()
            if error.retry_at is not None:
                headers["Retry-After"] = str(max(1, -(-(error.retry_at - self._venue.now_ms()) // 1000)))
        except Exception:
            _log.exception("request failed", path=sent.path)
            status, body = 500, _UNKNOWN
        return Reply(status, body, headers | self._used_weight(sent))

    def _used_weight(self, sent: Sent) -> dict[str, str]:
        """The headers that tell the used weight."""
        now = self._venue.now_ms()
        if is_sapi(sent.path):
            return {
                "X-SAPI-USED-IP-WEIGHT-1M": str(self._limits.sapi_weight((sent.address, sent.method, sent.path), now))
            }
        used = str(self._limits.used_weight(sent.address, now))
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def _answer(self, sent: Sent, headers: dict[str, str], skew_ms: int) -> tuple[int, Any]:
        route = self._api.routes.get((sent.method, sent.path))
        if route is None:
            if not is_sapi(sent.path):
                now = self._venue.now_ms()
                self._limits.admit(sent.address, 1, now)
                self._limits.charge(sent.address, 1, now)
            page = "text/html" in sent.headers.get("accept", "")
            return 404, _NOT_FOUND if page else {"status": 404, "error": "Not Found", "path": sent.path}

        def counted(ten_seconds: int, day: int) -> None:
            headers["X-MBX-ORDER-COUNT-10S"], headers["X-MBX-ORDER-COUNT-1D"] = str(ten_seconds), str(day)

        params = _merge(sent.query, sent.body)
        _refuse_sbe(sent.headers.get("x-mbx-sbe"))
        in_microseconds = wants_microseconds(sent.headers.get("x-mbx-time-unit"))
        api_key = sent.headers.get("x-mbx-apikey")
        request = Request(
            (sent.method, sent.path),
            route,
            params,
            sent.address,
            key=lambda: find_key(self._venue.keys, api_key),
            prove=lambda key: self._prove(key, sent, params, skew_ms),
            counted=counted,
            skew_ms=skew_ms,
        )
        answer = self._gate.answer(request)
        return 200, told_in_microseconds(answer) if in_microseconds else answer

    def _prove(self, key: ApiKey, sent: Sent, params: dict[str, str], skew_ms: int) -> None:
        check_time(params, self._venue.now_ms() + skew_ms)
        query, in_query = split_signature(sent.query)
        body, in_body = split_signature(sent.body)
        # Query and body are signed one after the other, without a separator, as they were received.
        check_signature(key, [(query + body).encode()], in_query or in_body)


def _refuse_sbe(schema: str | None) -> None:
    """Answers are JSON: who asks for binary ones by this header is told that there are none."""
    if schema is None:
        return
    if not _SCHEMA.fullmatch(schema):
        raise ExchangeError(-1152, "Invalid `X-MBX-SBE` header; expected `<SCHEMA_ID>:<VERSION>`.")
    raise ExchangeError(-1155, "SBE is not enabled.")


async def _received(request: web.Request) -> Sent:
    """A body of JSON is none: parameters are sent in the query or as a form."""
    body = (await request.read()).decode("utf-8", "replace")
    return Sent(
        request.method,
        request.path,
        request.raw_path.partition("?")[2],
        "" if request.content_type == "application/json" else body,
        {name.lower(): value for name, value in request.headers.items()},
        request.remote or "",
    )


def _merge(raw_query: str, raw_body: str) -> dict[str, str]:
    """Parameters of query and body; the query wins."""
    result: dict[str, str] = {}
    for raw in (raw_body, raw_query):
        pairs = parse_qsl(raw, keep_blank_values=True)
        if len(dict(pairs)) != len(pairs):
            raise ExchangeError(-1101, "Duplicate values for a parameter detected.")
        result.update(pairs)
    return result
