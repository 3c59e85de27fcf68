"""The live streams: one supervisor that keeps market data and user events coming, or says that they do not.

Own reading loops, because python-binance 1.0.37 does not subscribe again after its WebSocket API reconnects and stops
reading for ever when its queue is full. On any error, termination or silence the connection is closed and rebuilt,
and its name is reported as reconnected, because there is no replay: the bot must read the state by REST. What nobody
has taken yet is conflated (the last book, closed candles by their time), so a slow reader loses nothing it needs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

import aiohttp
import structlog

from tradingbot.gateway import payloads
from tradingbot.gateway.redirects import refuse_redirects
from tradingbot.model import BookTicker, Candle, UserEvent

CONNECT_TIMEOUT: Final = 10.0
SILENCE: Final = 60.0
"""Seconds without a frame (the exchange pings every 20 s) after which a connection counts as dead."""
PING_EVERY: Final = 20.0
"""Seconds between pings by request on the user stream's connection."""
USER_ANSWER_AGE: Final = 90.0
"""The user stream is alive if it answered in this many seconds."""
ROTATE_AFTER: Final = 23 * 3600.0
"""Binance closes a connection after 24 h; it is rebuilt before."""
MAX_BACKOFF: Final = 5.0
MAX_WAITING_EVENTS: Final = 10_000
MAX_WAITING_CANDLES: Final = 1_000


class StreamName(StrEnum):
    """The two connections."""

    MARKET = "market"
    USER = "user"


@dataclass(slots=True)
class Batch:
    """What came since the last take; `reconnected` names the streams that may have missed something."""

    book: BookTicker | None = None
    candles: list[Candle] = field(default_factory=list)
    """Closed candles, in order."""
    forming: Candle | None = None
    user: list[UserEvent] = field(default_factory=list)
    reconnected: set[StreamName] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """State of one connection; `age` is seconds since the last frame (user: answer), None before the first."""

    connected: bool
    age: float | None
    connects: int
    last_error: str | None


_UNREADABLE: Final = (KeyError, TypeError, ValueError, ArithmeticError)
"""What a message of another shape than documented raises: the connection is rebuilt, the bot reconciles."""
Subscription = Callable[[], Mapping[str, Any]]


class Streams:
    """Keeps the two connections of one bot. Use `run` as a task and `next` to take what came."""

    def __init__(
        self,
        *,
        stream_url: str,
        ws_api_url: str,
        symbol: str,
        interval: str,
        subscription: Subscription,
        monotonic: Callable[[], float],
        random: Random,
    ) -> None:
        self._stream_url = stream_url.rstrip("/")
        self._ws_api_url = ws_api_url
        self._symbol = symbol
        self._interval = interval
        self._subscription = subscription
        self._monotonic = monotonic
        self._random = random
        self._log = structlog.get_logger("streams").bind(symbol=symbol)
        self._batch = Batch()
        self._wake = asyncio.Event()
        self._sockets: dict[StreamName, aiohttp.ClientWebSocketResponse] = {}
        self._last: dict[StreamName, float] = {}
        self._connects = dict.fromkeys(StreamName, 0)
        self._errors: dict[StreamName, str] = {}
        self._last_book: BookTicker | None = None

    # --- for the bot ---

    async def run(self) -> None:
        """Keep both connections until cancelled."""
        configs = [refuse_redirects()]
        async with aiohttp.ClientSession(trace_configs=configs) as session, asyncio.TaskGroup() as group:
            group.create_task(self._keep(session, StreamName.MARKET))
            group.create_task(self._keep(session, StreamName.USER))

    async def next(self) -> Batch:
        """Wait until something came and take all of it."""
        await self._wake.wait()
        self._wake.clear()
        batch, self._batch = self._batch, Batch()
        return batch

    async def change_interval(self, interval: str) -> None:
        """Follow candles of another interval: the market connection is rebuilt."""
        if interval != self._interval:
            self._interval = interval
            socket = self._sockets.get(StreamName.MARKET)
            if socket is not None:
                await socket.close()

    def health(self, name: StreamName) -> StreamHealth:
        """State of one connection."""
        last = self._last.get(name)
        age = None if last is None else self._monotonic() - last
        return StreamHealth(name in self._sockets, age, self._connects[name], self._errors.get(name))

    @property
    def user_alive(self) -> bool:
        """The user stream is subscribed and answered in the last 90 s."""
        health = self.health(StreamName.USER)
        return health.connected and health.age is not None and health.age <= USER_ANSWER_AGE

    @property
    def book(self) -> BookTicker | None:
        """The last best bid and ask; look at `received` before using it."""
        return self._last_book

    # --- connections ---

    async def _keep(self, session: aiohttp.ClientSession, name: StreamName) -> None:
        attempt = 0
        while True:
            started = self._monotonic()
            try:
                await (self._market(session) if name is StreamName.MARKET else self._user(session))
                self._errors[name] = "closed"
            except (aiohttp.ClientError, OSError, TimeoutError, _StreamError, *_UNREADABLE) as error:
                self._errors[name] = f"{type(error).__name__}: {error}"[:200]
            finally:
                self._sockets.pop(name, None)
            # A connection that lived a while starts the back-off again; full jitter, so that a fleet spreads out.
            attempt = 0 if self._monotonic() - started > 10 else attempt + 1
            self._log.warning("stream lost", stream=name.value, error=self._errors[name], attempt=attempt)
            await asyncio.sleep(self._random.uniform(0.05, min(MAX_BACKOFF, 0.25 * 2 ** min(attempt, 8))))

    async def _market(self, session: aiohttp.ClientSession) -> None:
        symbol, interval = self._symbol.lower(), self._interval
        url = f"{self._stream_url}/stream?streams={symbol}@kline_{interval}/{symbol}@bookTicker"
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await session.ws_connect(url, autoping=False, max_msg_size=1 << 20)
        async with _Closing(socket):
            self._opened(StreamName.MARKET, socket)
            deadline = self._monotonic() + ROTATE_AFTER
            while self._monotonic() < deadline:
                message = await self._receive(StreamName.MARKET, socket)
                if message is None:
                    return
                if message.get("data", message).get("e") == "serverShutdown":
                    raise _StreamError("the exchange shuts this connection down")
                self._take_market(message)

    def _take_market(self, message: Mapping[str, Any]) -> None:
        data = message.get("data")
        if not isinstance(data, dict):
            return
        if data.get("e") == "kline":
            candle = payloads.stream_candle(data)
            if candle.interval != self._interval:
                return
            if candle.closed:
                candles = self._batch.candles
                if not candles or candles[-1].open_ms < candle.open_ms:
                    candles.append(candle)
                del candles[:-MAX_WAITING_CANDLES]
            else:
                self._batch.forming = candle
        elif "b" in data and "a" in data:
            self._last_book = self._batch.book = payloads.stream_book(data, self._monotonic())
        self._wake.set()

    async def _user(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            socket = await session.ws_connect(self._ws_api_url, autoping=False, max_msg_size=1 << 20)
        async with _Closing(socket):
            subscribe = {
                "id": "subscribe",
                "method": "userDataStream.subscribe.signature",
                "params": dict(self._subscription()),
            }
            await socket.send_str(json.dumps(subscribe))
            async with asyncio.timeout(CONNECT_TIMEOUT):
                while (answer := await self._receive(StreamName.USER, socket, count=False)) is not None:
                    if answer.get("id") == "subscribe":
                        break
            if answer is None:
                return
            if answer.get("status") != 200:
                error = answer.get("error") or {}
                raise _StreamError(f"subscription refused: {error.get('code')} {error.get('msg')}")
            self._last[StreamName.USER] = self._monotonic()
            self._opened(StreamName.USER, socket)
            pings = asyncio.create_task(self._ping(socket))
            try:
                await self._read_user(socket)
            finally:
                pings.cancel()

    async def _read_user(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        deadline = self._monotonic() + ROTATE_AFTER
        while self._monotonic() < deadline:
            message = await self._receive(StreamName.USER, socket, count=False)
            if message is None:
                return
            if "event" not in message:
                status = message.get("status")
                if status != 200:
                    raise _StreamError(f"answer with status {status}")  # also the revocation of a key, with id null
                self._last[StreamName.USER] = self._monotonic()
                continue
            event = message["event"]
            if event.get("e") in {"eventStreamTerminated", "serverShutdown"}:
                raise _StreamError(f"{event['e']}")
            self._last[StreamName.USER] = self._monotonic()
            parsed = payloads.user_event(event)
            if parsed is None:
                continue
            if len(self._batch.user) >= MAX_WAITING_EVENTS:
                raise _StreamError("user events were not taken in time")  # reconnects, so the bot reconciles
            self._batch.user.append(parsed)
            self._wake.set()

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        number = 0
        while not socket.closed:
            await asyncio.sleep(PING_EVERY)
            if not self.user_alive:
                # Frames of the exchange keep a connection from being silent that answers no request any more.
                self._log.warning("the user connection does not answer")
                await socket.close()
                return
            number += 1
            await socket.send_str(json.dumps({"id": f"ping-{number}", "method": "ping"}))

    async def _receive(
        self, name: StreamName, socket: aiohttp.ClientWebSocketResponse, *, count: bool = True
    ) -> dict[str, Any] | None:
        """The next JSON message; None when the connection was closed."""
        while True:
            frame = await socket.receive(timeout=SILENCE)
            if frame.type is aiohttp.WSMsgType.PING:
                await socket.pong(frame.data)
            elif frame.type is aiohttp.WSMsgType.TEXT:
                if count:
                    self._last[name] = self._monotonic()
                message = json.loads(frame.data)
                if isinstance(message, dict):
                    return message
            elif frame.type is aiohttp.WSMsgType.ERROR:
                raise _StreamError(f"{socket.exception()}")
            elif frame.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}:
                return None

    def _opened(self, name: StreamName, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._sockets[name] = socket
        self._connects[name] += 1
        self._errors.pop(name, None)
        self._batch.reconnected.add(name)
        self._wake.set()


class _StreamError(Exception):
    """The connection must be rebuilt."""


class _Closing:
    """Closes a socket without waiting long for the other side."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        try:
            async with asyncio.timeout(1):
                await self._socket.close()
        except TimeoutError:
            pass
