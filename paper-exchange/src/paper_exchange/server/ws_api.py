"""The WebSocket API: the same calls as REST in JSON frames, sessions, and the user data stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog
from aiohttp import WSCloseCode, web
from prometheus_client import Counter

from paper_exchange.api import SpotApi
from paper_exchange.auth import unauthorized
from paper_exchange.core.errors import ExchangeError
from paper_exchange.faults.calls import NONE, CallFaults, Disturbance
from paper_exchange.faults.model import Subject
from paper_exchange.gate import Gate, Request
from paper_exchange.keys import ApiKey
from paper_exchange.limits import Limits
from paper_exchange.server.connections import Connection, Connections
from paper_exchange.server.stream_events import in_microseconds as event_in_microseconds
from paper_exchange.server.ws_frames import ApiRequest, RequestRefusedError, failure, parse_request, success
from paper_exchange.server.ws_methods import METHODS
from paper_exchange.server.ws_session import Session
from paper_exchange.time_units import in_microseconds, wants_microseconds
from paper_exchange.venue import Venue

_log = structlog.get_logger(__name__)
_CONNECT_WEIGHT: Final = 2
_SESSION_WEIGHT: Final = 2
_BANNED: Final = 418


@dataclass(frozen=True, slots=True)
class Desk:
    """What requests are answered with, and counted in."""

    venue: Venue
    api: SpotApi
    gate: Gate
    limits: Limits
    requests: Counter
    faults: CallFaults


class WsApi:
    """The handler of /ws-api/v3."""

    def __init__(self, desk: Desk, connections: Connections) -> None:
        self._desk = desk
        self._connections = connections
        self._talks: dict[_Talk, None] = {}
        """In their order."""
        desk.venue.deleted_key_listeners.append(self._on_key_deleted)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection until it closes; `timeUnit` and `returnRateLimits` in its address hold for all of it."""
        refusal = await self._connections.refuse(request, "GET /ws-api/v3")
        if refusal is not None:
            return refusal
        try:
            microseconds = wants_microseconds(request.query.get("timeUnit"))
        except ExchangeError as error:
            return web.json_response({"code": error.code, "msg": error.message}, status=error.status)
        address = request.remote or ""
        self._desk.limits.charge(address, _CONNECT_WEIGHT, self._desk.venue.now_ms())
        show_limits = request.query.get("returnRateLimits") != "false"
        async with self._connections.open(request) as connection:
            ban = partial(self._ban, connection)
            talk = _Talk(self._desk, connection, address, ban, microseconds=microseconds, show_limits=show_limits)
            self._talks[talk] = None
            connection.farewell = talk.farewell
            try:
                async for frame in connection.frames(self._connections.clock_ms):
                    talk.receive(frame)
            finally:
                del self._talks[talk]
                talk.gone = True
                talk.session.close()
        return connection.socket

    def _ban(self, connection: Connection) -> None:
        connection.end(self._connections.clock_ms(), WSCloseCode.POLICY_VIOLATION)

    def _on_key_deleted(self, key: ApiKey) -> None:
        for talk in list(self._talks):
            talk.session.on_key_deleted(key)


class _Talk:
    """What is said on one connection."""

    def __init__(
        self,
        desk: Desk,
        connection: Connection,
        address: str,
        ban: Callable[[], None],
        *,
        microseconds: bool,
        show_limits: bool,
    ) -> None:
        """`ban` closes the connection of a client that is banned."""
        self._desk = desk
        self._connection = connection
        self._address = address
        self._ban = ban
        self._microseconds = microseconds
        self._show_limits = show_limits
        self._after: list[tuple[dict[str, Any], Subject]] | None = None
        """Events that wait for the answer to the request that caused them."""
        self.gone = False
        """Whether the connection is over: what a fault held up is not done any more."""
        self.session = Session(desk.venue, address, show_limits=show_limits, tell=self._on_event)

    def receive(self, frame: str | bytes) -> None:
        """One frame of the client, which faults may hold up, refuse, or leave without an answer."""
        try:
            request = parse_request(frame)
        except RequestRefusedError as refused:
            answer = failure(refused.ident, refused.error, self._desk.venue.now_ms())
            self._finish("other", self._with_limits(answer, None, None))
            return
        faults = self._desk.faults
        if not faults.any:
            self._execute(request, None, NONE)
            return
        params = request.params
        subject = Subject(request.method, uid=self.session.uid_of(params), symbol=params.get("symbol", ""))
        before = faults.before(subject)
        self._later(before.seconds, lambda: self._execute(request, subject, before))

    def _execute(self, request: ApiRequest, subject: Subject | None, before: Disturbance) -> None:
        """Do what is asked: what it changed is stored, then it is answered, then all hear of it."""
        method = request.method if request.method in METHODS or request.method in self.session.methods else "other"
        if before.ends:
            self._end(method, request, before, {})
            return
        self._after = []
        self.session.skew_ms = before.skew_ms
        answer = self._answer(request, before.skew_ms)
        after = NONE
        if subject is not None:
            after = self._desk.faults.after(subject, accepted=answer["status"] == 200)
        self._later(after.seconds, lambda: self._end(method, request, after, answer))
        events, self._after = self._after, None
        for event, about in events:
            self._send_event(event, about)
        self._desk.venue.tell()

    def _end(self, method: str, request: ApiRequest, disturbance: Disturbance, answer: dict[str, Any]) -> None:
        """Answer a request, as far as a fault lets it be answered."""
        if disturbance.lost:
            self._desk.requests.labels(method, "lost").inc()
            if disturbance.cut:
                self._connection.cut()
            return
        if disturbance.refusal is not None:
            now = self._desk.venue.now_ms()
            refusal = failure(request.ident, disturbance.refusal.error(now), now)
            answer = self._with_limits(refusal, request.show_limits, None)
        self._finish(method, answer)

    def _finish(self, method: str, answer: dict[str, Any]) -> None:
        self._desk.requests.labels(method, str(answer["status"])).inc()
        self._send(answer)
        if answer["status"] == _BANNED:
            self._ban()

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do it when a fault lets it be done; what comes meanwhile is done before."""
        if seconds:
            asyncio.get_running_loop().call_later(seconds, lambda: None if self.gone else do())
        else:
            do()

    def farewell(self) -> None:
        """The server shuts down."""
        self._tell({"e": "serverShutdown", "E": self._desk.venue.now_ms()}, 0)

    # -- answers -----------------------------------------------------------------------------------------------

    def _answer(self, request: ApiRequest, skew_ms: int) -> dict[str, Any]:
        now = self._desk.venue.now_ms()
        if self.session.revoked():
            return failure(None, unauthorized(), now)
        uids: list[int] = []
        try:
            answer = success(request.ident, self._stored(lambda: self._result(request, uids, skew_ms)))
        except ExchangeError as error:
            answer = failure(request.ident, error, now)
        except Exception:
            _log.exception("WebSocket request failed", method=request.method)
            unknown = ExchangeError(-1000, "An unknown error occurred while processing the request.", status=500)
            answer = failure(request.ident, unknown, now)
        return self._with_limits(answer, request.show_limits, uids[0] if uids else None)

    def _stored(self, result: Callable[[], Any]) -> Any:
        """A result, or a refusal, once what came of it is stored."""
        try:
            made = result()
        finally:
            self._desk.venue.keep()
        return in_microseconds(made) if self._microseconds else made

    def _result(self, request: ApiRequest, uids: list[int], skew_ms: int) -> Any:
        """What the method returns; `uids` gets the account whose orders were counted."""
        params = request.params
        # It is signed as every parameter is, but it is the frame's, not the endpoint's.
        read = {name: value for name, value in params.items() if name != "returnRateLimits"}
        own = self.session.methods.get(request.method)
        if own is not None:
            now = self._desk.venue.now_ms()
            self._desk.limits.admit(self._address, _SESSION_WEIGHT, now)
            self._desk.limits.charge(self._address, _SESSION_WEIGHT, now)
            return own(params)
        endpoint = METHODS.get(request.method, ("", ""))
        route = self._desk.api.routes.get(endpoint)
        if route is None:
            raise ExchangeError(-1020, "This operation is not supported.")

        def key_of() -> ApiKey:
            key = self.session.key_of(params)
            if route.orders:
                uids.append(key.uid)
            return key

        return self._desk.gate.answer(
            Request(
                endpoint,
                route,
                read,
                self._address,
                key_of,
                lambda key: self.session.prove(key, params),
                skew_ms=skew_ms,
            )
        )

    def _with_limits(self, answer: dict[str, Any], show: bool | None, uid: int | None) -> dict[str, Any]:
        """An answer with the limits it used, unless the client does not want them."""
        if self._show_limits if show is None else show:
            limits, venue = self._desk.limits, self._desk.venue
            now = venue.now_ms()
            orders = limits.orders(venue.exchange.accounts[uid], now) if uid is not None else []
            answer["rateLimits"] = [*orders, limits.weight(self._address, now)]
        return answer

    # -- events ------------------------------------------------------------------------------------------------

    def _on_event(self, subscription_id: int, uid: int, event: dict[str, Any]) -> None:
        self._tell(event, uid, subscriptionId=subscription_id)

    def _tell(self, event: dict[str, Any], uid: int, **head: int) -> None:
        told = {**head, "event": event_in_microseconds(event) if self._microseconds else event}
        subject = Subject(stream="user", event=event["e"], uid=uid, symbol=event.get("s", ""))
        if self._after is None:
            self._send_event(told, subject)
        else:
            self._after.append((told, subject))

    def _send_event(self, told: dict[str, Any], subject: Subject) -> None:
        message = json.dumps(told, separators=(",", ":")).encode()
        if self._connection.undisturbed:
            self._connection.send(message)
        else:
            self._connection.send_event(message, subject)

    def _send(self, body: dict[str, Any]) -> None:
        self._connection.send(json.dumps(body, separators=(",", ":")).encode())
