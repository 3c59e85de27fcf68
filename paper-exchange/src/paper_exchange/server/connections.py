"""Open WebSockets: what each is sent, in order and bounded, and for how long Binance keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from paper_exchange.faults.control import Faults
from paper_exchange.faults.line import Line
from paper_exchange.faults.model import Subject
from paper_exchange.server.disturbed import lost, refused

_log = structlog.get_logger(__name__)

PING_MS: Final = 20_000
PONG_MS: Final = 60_000
LIFETIME_MS: Final = 24 * 3_600_000
ATTEMPTS_MS: Final = 5 * 60_000
_CLOSING_MS: Final = 5_000
"""How long a connection that was told to close may take, before it is cut."""
_MAX_FRAME: Final = 1 << 20
_QUEUED_MESSAGES: Final = 10_000
HANDSHAKES: Final = ("GET /ws", "GET /stream", "GET /ws-api/v3")
"""What opening a connection is called by faults; names of streams in the path are left out."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one address may open in five minutes, of streams and of the WebSocket API each, and how many bytes may wait
    for a client that does not read.
    """

    attempts: int = 300
    queued_bytes: int = 8 << 20


USUAL: Final = ConnectionLimits()
"""As on Binance, as far as it tells."""


class Connection:
    """One WebSocket; messages keep their order, and a client that does not read is cut off."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport | None,
        opened_ms: int,
        queued_bytes: int,
        line: Line,
    ) -> None:
        self.socket = socket
        self._line = line
        self.opened_ms = opened_ms
        self.farewell: Callable[[], None] = lambda: None
        """Tells the client that the server shuts down."""
        self._transport = transport
        self._queued_bytes = queued_bytes
        self._queue: asyncio.Queue[tuple[WSMsgType, bytes]] = asyncio.Queue()
        self._bytes = 0
        self._close: tuple[int, bytes] = (WSCloseCode.GOING_AWAY, b"")
        self._ended_ms: int | None = None
        self._pinged_ms = opened_ms
        self._unanswered: list[tuple[int, bytes]] = []

    # -- sending -----------------------------------------------------------------------------------------------

    def send(self, text: bytes) -> None:
        """Queue a text message in UTF-8."""
        self._put(WSMsgType.TEXT, text)

    @property
    def undisturbed(self) -> bool:
        """Whether an event may be sent as it is."""
        return self._line.free

    def send_event(self, text: bytes, subject: Subject) -> None:
        """Queue an event, unless a fault does something else with it."""
        for passing in self._line.carry(text, subject):
            self.send(passing)
        if self._line.cut:
            self.cut()

    def _put(self, kind: WSMsgType, data: bytes) -> None:
        if self._ended_ms is not None:
            return
        if self._queue.qsize() >= _QUEUED_MESSAGES or self._bytes + len(data) > self._queued_bytes:
            _log.warning("a client does not read; cut off", queued_bytes=self._bytes)
            self.cut()
            return
        self._bytes += len(data)
        self._queue.put_nowait((kind, data))

    def end(self, now_ms: int, code: int = WSCloseCode.GOING_AWAY, reason: bytes = b"") -> None:
        """Close the connection after what was queued."""
        if self._ended_ms is None:
            self._ended_ms = now_ms
            self._close = code, reason
            self._queue.put_nowait((WSMsgType.CLOSE, b""))

    def cut(self) -> None:
        """End the connection without a word."""
        self._ended_ms = self.opened_ms  # long ago: it is not waited for
        if self._transport is not None:
            self._transport.abort()

    async def run(self) -> None:
        """Send what is queued until the connection ends."""
        while True:
            kind, data = await self._queue.get()
            try:
                if kind is WSMsgType.TEXT:
                    await self.socket.send_frame(data, WSMsgType.TEXT)
                elif kind is WSMsgType.PING:
                    await self.socket.ping(data)
                elif kind is WSMsgType.PONG:
                    await self.socket.pong(data)
                else:
                    code, reason = self._close
                    await self.socket.close(code=code, message=reason)
                    return
            except (ConnectionError, RuntimeError):
                return
            self._bytes -= len(data)

    # -- receiving ---------------------------------------------------------------------------------------------

    async def frames(self, clock_ms: Callable[[], int], per_second: int | None = None) -> AsyncIterator[str | bytes]:
        """The data frames of the client; one that sends more than it may in a second, pings counted, is closed."""
        second, count = -1, 0
        async for message in self.socket:
            if self._ended_ms is not None:  # nothing more is done for a client that is told to go
                continue
            now = clock_ms()
            if now // 1000 != second:
                second, count = now // 1000, 0
            count += 1
            if per_second is not None and count > per_second:
                self.end(now, WSCloseCode.POLICY_VIOLATION, b"Too many requests")
            elif message.type is WSMsgType.PING:
                self._put(WSMsgType.PONG, message.data)
            elif message.type is WSMsgType.PONG:
                self._answered(message.data)
            elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                yield message.data

    def _answered(self, payload: bytes) -> None:
        """A pong counts with the payload of a ping of ours; it answers the earlier ones too."""
        for place, (_, sent) in enumerate(self._unanswered):
            if sent == payload:
                del self._unanswered[: place + 1]
                return

    # -- time --------------------------------------------------------------------------------------------------

    def tick(self, now_ms: int) -> None:
        """Time passes: send what was late, ping, and end what is too old, does not answer or does not close."""
        for passing in self._line.due():
            self.send(passing)
        if self._ended_ms is not None:
            if now_ms - self._ended_ms >= _CLOSING_MS:
                self.cut()
        elif now_ms - self.opened_ms >= LIFETIME_MS:
            self.end(now_ms)
        elif self._unanswered and now_ms - self._unanswered[0][0] >= PONG_MS:
            self.end(now_ms, WSCloseCode.POLICY_VIOLATION, b"Pong timeout")
        elif now_ms - self._pinged_ms >= PING_MS:
            self._pinged_ms = now_ms
            self._unanswered.append((now_ms, str(now_ms).encode()))
            self._put(WSMsgType.PING, str(now_ms).encode())


class Connections:
    """All open WebSockets of the server, on a clock of ms that only goes forward."""

    def __init__(self, clock_ms: Callable[[], int], limits: ConnectionLimits, faults: Faults) -> None:
        self.clock_ms = clock_ms
        self._limits = limits
        self._faults = faults
        self._open: dict[Connection, None] = {}
        """In their order: that of a set is an accident of addresses, and would be another one in each run."""
        self._window = -1
        self._attempts: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    async def refuse(self, request: web.Request, endpoint: str) -> web.Response | None:
        """The answer to an address that may not connect: it opened too many lately, or a fault is in force; else None.

        Call it once for each attempt; `endpoint` is one of HANDSHAKES.
        """
        if self._faults.calls.any:
            before = self._faults.calls.before(Subject(endpoint))
            await asyncio.sleep(before.seconds)
            if before.lost:
                return await lost(request, cut=before.cut)
            if before.refusal is not None:
                return refused(before.refusal)
        what = "WebSocket API" if endpoint == HANDSHAKES[2] else "streams"
        window = self.clock_ms() // ATTEMPTS_MS
        if window != self._window:
            self._window, self._attempts = window, {}
        who = request.remote or "", what
        self._attempts[who] = self._attempts.get(who, 0) + 1
        if self._attempts[who] <= self._limits.attempts:
            return None
        message = f"Too many connection attempts from IP; current limit is {self._limits.attempts} per '5 MINUTE'."
        return web.json_response({"code": -1034, "msg": message}, status=429)

    @asynccontextmanager
    async def open(self, request: web.Request) -> AsyncIterator[Connection]:
        """Accept a connection and send from a task of its own until the block ends."""
        socket = web.WebSocketResponse(autoping=False, max_msg_size=_MAX_FRAME, compress=False, timeout=2.0)
        await socket.prepare(request)
        transport = request.transport
        connection = Connection(
            socket,
            transport if isinstance(transport, asyncio.Transport) else None,
            self.clock_ms(),
            self._limits.queued_bytes,
            self._faults.line(),
        )
        self._open[connection] = None
        sender = asyncio.create_task(connection.run())
        try:
            yield connection
        finally:
            self._open.pop(connection, None)
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender

    def tick(self) -> None:
        """Time passes; call it several times a second."""
        now = self.clock_ms()
        for connection in list(self._open):
            connection.tick(now)

    def cut(self) -> int:
        """End all without a word; returns how many."""
        for connection in self._open:
            connection.cut()
        return len(self._open)

    def drop(self) -> int:
        """Close all after what waits to be sent on them; returns how many."""
        for connection in self._open:
            connection.end(self.clock_ms())
        return len(self._open)

    def shut_down(self) -> None:
        """Tell everybody that the server ends, and close."""
        for connection in list(self._open):
            connection.farewell()
        self.drop()
