"""The live streams: one supervisor that keeps market data and user events coming, or says that they do not.

Own reading loops, because python-binance 1.0.37 does not subscribe again after its WebSocket API reconnects and stops
reading for ever when its queue is full. A connection that is to end (by age, or as the exchange says) is replaced
before: the next one is subscribed while it is still read. On any error, termination or silence it is rebuilt, and its
name is reported as reconnected, because there is no replay: the bot must read the state by REST. What nobody has taken
yet is conflated (the last book, closed candles by their time), so a slow reader loses nothing it needs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

import aiohttp
import structlog

from tradingbot.gateway import payloads
from tradingbot.gateway.connection_limits import ConnectionBudget
from tradingbot.gateway.errors import ExchangeError, RateLimitedError, classify_handshake, classify_ws_answer
from tradingbot.gateway.port import DemandedWait
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
"""Binance closes a connection after 24 h; it is replaced before."""
OVERLAP: Final = 1.0
"""Seconds for which a replaced connection is still read: what was on its way."""
MAX_BACKOFF: Final = 60.0
LASTING: Final = 10.0
"""A connection that lived for so many seconds starts the back-off again."""
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
    user: list[UserEvent] = field(default_factory=list)
    reconnected: set[StreamName] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """State of one connection; `age` is seconds since the last frame (user: answer), None before the first."""

    connected: bool
    age: float | None
    connects: int
    last_error: str | None


Subscription = Callable[[], Mapping[str, Any]]


class _StreamError(Exception):
    """The connection must be rebuilt."""


_BROKEN: Final = (aiohttp.ClientError, OSError, TimeoutError, ExchangeError, _StreamError, *payloads.UNREADABLE)
"""What a connection ends with: another is made, and the bot reconciles."""


class _Connection:
    """One open connection, read by a task of its own."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, opened: float) -> None:
        self.socket = socket
        self.opened = opened
        self.told_book = False
        self.due = asyncio.Event()
        """Set when it is to be replaced, and when it ended."""
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, *work: Coroutine[Any, Any, None]) -> None:
        """Do this until one of it ends, which ends the connection."""
        for one in work:
            task = asyncio.create_task(one)
            task.add_done_callback(lambda _: self.due.set())
            self.tasks.append(task)

    def give_up(self) -> None:
        """Read it no more."""
        for task in self.tasks:
            task.cancel()

    @property
    def ended(self) -> bool:
        """Whether it is not read any more."""
        return any(task.done() for task in self.tasks)

    async def close(self) -> None:
        """End it without waiting long for the other side; raises nothing."""
        self.give_up()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self.socket.close()

    def why(self) -> str:
        """What ended it."""
        errors = [task.exception() for task in self.tasks if task.done() and not task.cancelled()]
        return next((_told(error) for error in errors if error is not None), "closed")


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
        wait: DemandedWait,
        connections: ConnectionBudget,
        monotonic: Callable[[], float],
        random: Random,
        rotate_after: float = ROTATE_AFTER,
    ) -> None:
        self._stream_url = stream_url.rstrip("/")
        self._ws_api_url = ws_api_url
        self._symbol = symbol
        self._interval = interval
        self._subscription = subscription
        self._wait = wait
        self._connections = connections
        self._monotonic = monotonic
        self._random = random
        self._rotate_after = rotate_after
        self._log = structlog.get_logger("streams").bind(symbol=symbol)
        self._batch = Batch()
        self._wake = asyncio.Event()
        self._present: dict[StreamName, _Connection] = {}
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

    def change_interval(self, interval: str) -> None:
        """Follow candles of another interval: the market connection is replaced."""
        if interval != self._interval:
            self._interval = interval
            if (present := self._present.get(StreamName.MARKET)) is not None:
                present.due.set()

    def rebuild(self, name: StreamName) -> None:
        """Give a connection up and make another, which is reported as reconnected."""
        if (present := self._present.get(name)) is not None:
            present.give_up()

    def health(self, name: StreamName) -> StreamHealth:
        """State of one connection."""
        last = self._last.get(name)
        age = None if last is None else self._monotonic() - last
        present = self._present.get(name)
        connected = present is not None and not present.ended
        return StreamHealth(connected, age, self._connects[name], self._errors.get(name))

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
        """One line of connections after another, with a wait between them."""
        attempt = 0
        while True:
            self._errors[name], lived = await self._line(session, name)
            attempt = 0 if lived > LASTING else attempt + 1
            self._log.warning("stream lost", stream=name.value, error=self._errors[name], attempt=attempt)
            await self._back_off(attempt)

    async def _back_off(self, attempt: int) -> None:
        """Full jitter, so that a fleet spreads out."""
        await asyncio.sleep(self._random.uniform(0.05, min(MAX_BACKOFF, 0.25 * 2 ** min(attempt, 16))))

    async def _line(self, session: aiohttp.ClientSession, name: StreamName) -> tuple[str, float]:
        """Connections of which each replaces the one before, until one is lost; why, and the seconds that it lived."""
        try:
            present = await self._open(session, name)
        except _BROKEN as error:
            return self._refused(error), 0.0
        self._report_gap(name)
        attempt = 0
        try:
            while await self._falls_due(present):
                try:
                    following = await self._open(session, name)
                except _BROKEN as error:
                    attempt += 1
                    self._log.warning("no connection to follow", stream=name.value, error=self._refused(error))
                    await self._back_off(attempt)
                    continue
                former, present, attempt = present, following, 0
                if former.ended:
                    self._report_gap(name)
                try:
                    await asyncio.sleep(OVERLAP)
                finally:
                    await former.close()
        finally:
            self._present.pop(name, None)
            await present.close()
        return present.why(), self._monotonic() - present.opened

    def _report_gap(self, name: StreamName) -> None:
        """What was told while there was no connection is lost."""
        self._batch.reconnected.add(name)
        self._wake.set()

    async def _falls_due(self, connection: _Connection) -> bool:
        """Wait until a connection is to be replaced; False where it ended."""
        with suppress(TimeoutError):
            # A fleet that started together does not replace all of its connections at once.
            async with asyncio.timeout(self._rotate_after * self._random.uniform(0.95, 1.0)):
                await connection.due.wait()
        connection.due.set()
        return not connection.ended

    async def _open(self, session: aiohttp.ClientSession, name: StreamName) -> _Connection:
        """Connect and subscribe, as soon as the exchange lets us; from then on it is read. Raises one of _BROKEN."""
        await self._until_its_turn(name)
        url = self._market_url() if name is StreamName.MARKET else self._ws_api_url
        self._connections.asked(name)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                socket = await session.ws_connect(url, autoping=False, max_msg_size=1 << 20)
        except aiohttp.ClientConnectorError:
            self._connections.unheard(name)
            raise
        except AssertionError as error:
            # What aiohttp says where the other side has closed within its own answer to the handshake.
            raise _StreamError("closed within the handshake") from error
        except aiohttp.WSServerHandshakeError as error:
            raise classify_handshake(error) or error from None
        connection = _Connection(socket, self._monotonic())
        try:
            if name is StreamName.USER:
                await self._subscribe(socket)
        except BaseException:
            await connection.close()
            raise
        self._present[name] = connection
        self._connects[name] += 1
        self._errors.pop(name, None)
        if name is StreamName.USER:
            connection.start(self._read_user(connection), self._ping(socket))
        else:
            connection.start(self._read_market(connection))
            if url != self._market_url():  # the interval changed meanwhile
                connection.due.set()
        return connection

    async def _until_allowed(self) -> None:
        """A connection, as any request, within a demanded wait makes it longer."""
        while True:
            left = self._wait.wait_seconds()
            if left <= 0:
                return
            await asyncio.sleep(left + self._random.uniform(0.0, 1.0))

    async def _until_its_turn(self, name: StreamName) -> None:
        """Wait until no wait is demanded and the address's bots together may make a connection of this kind."""
        await self._until_allowed()
        while (left := self._connections.wait_seconds(name)) > 0:
            bots = self._connections.address_bots
            self._errors[name] = f"waits {left:.0f} s: {bots} bots share the new connections of an address"
            self._log.warning("no connection yet", stream=name.value, seconds=round(left), address_bots=bots)
            await asyncio.sleep(left + self._random.uniform(0.0, 1.0))
            await self._until_allowed()

    def _refused(self, error: BaseException) -> str:
        """What an error says; all that talks to the exchange keeps the wait that it demands."""
        if isinstance(error, RateLimitedError):
            self._wait.demand(error.retry_after)
        return _told(error)

    # --- market ---

    def _market_url(self) -> str:
        symbol = self._symbol.lower()
        return f"{self._stream_url}/stream?streams={symbol}@kline_{self._interval}/{symbol}@bookTicker"

    async def _read_market(self, connection: _Connection) -> None:
        while (message := await self._receive(connection.socket)) is not None:
            self._last[StreamName.MARKET] = self._monotonic()
            data = message.get("data", message)
            if not isinstance(data, dict):
                continue
            if data.get("e") == "serverShutdown":
                connection.due.set()
            elif data.get("e") == "kline":
                self._take_candle(payloads.stream_candle(data))
            elif "b" in data and "a" in data:
                self._take_book(connection, payloads.stream_book(data, self._monotonic()))

    def _take_candle(self, candle: Candle) -> None:
        if candle.interval != self._interval or not candle.closed:
            return
        candles = self._batch.candles
        if not candles or candles[-1].open_ms < candle.open_ms:
            candles.append(candle)
        del candles[:-MAX_WAITING_CANDLES]
        self._wake.set()

    def _take_book(self, connection: _Connection, book: BookTicker) -> None:
        present = self._present.get(StreamName.MARKET)
        if connection is not present and present is not None and present.told_book:
            return  # it is being replaced, and may be behind the other
        connection.told_book = True
        self._last_book = self._batch.book = book
        self._wake.set()

    # --- user events ---

    async def _subscribe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        request = {
            "id": "subscribe",
            "method": "userDataStream.subscribe.signature",
            "params": dict(self._subscription()),
        }
        await socket.send_str(json.dumps(request))
        async with asyncio.timeout(CONNECT_TIMEOUT):
            while (answer := await self._receive(socket)) is not None:
                if answer.get("id") == "subscribe":
                    break
        if answer is None:
            raise _StreamError("closed instead of an answer to the subscription")
        if answer.get("status") != 200:
            raise classify_ws_answer(answer)
        self._last[StreamName.USER] = self._monotonic()

    async def _read_user(self, connection: _Connection) -> None:
        while (message := await self._receive(connection.socket)) is not None:
            event = message.get("event")
            if event is None:
                self._take_answer(message)
            elif event.get("e") == "serverShutdown":
                connection.due.set()
            elif event.get("e") == "eventStreamTerminated":
                raise _StreamError("the exchange ended the subscription")
            else:
                self._take_event(event)
            self._last[StreamName.USER] = self._monotonic()

    def _take_answer(self, answer: Mapping[str, Any]) -> None:
        if answer.get("status") == 200:
            return
        error = classify_ws_answer(answer)
        if not isinstance(error, RateLimitedError):
            raise error  # also the revocation of a key, with id null
        self._refused(error)

    def _take_event(self, event: Mapping[str, Any]) -> None:
        parsed = payloads.user_event(event)
        if parsed is None:
            return
        if len(self._batch.user) >= MAX_WAITING_EVENTS:
            raise _StreamError("user events were not taken in time")  # reconnects, so the bot reconciles
        self._batch.user.append(parsed)
        self._wake.set()

    async def _ping(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Ask again and again; ends where there was no answer for long."""
        number, asked = 0, self._monotonic()
        while True:
            await asyncio.sleep(PING_EVERY)
            await self._until_allowed()
            now = self._monotonic()
            if self._last[StreamName.USER] >= asked:
                asked = now  # of what is not answered the oldest
            elif now - asked > USER_ANSWER_AGE - PING_EVERY:
                # Frames of the exchange keep a connection from being silent that answers no request any more.
                raise _StreamError("it does not answer")
            number += 1
            await socket.send_str(json.dumps({"id": f"ping-{number}", "method": "ping"}))

    # --- both ---

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any] | None:
        """The next JSON message; None when the connection was closed."""
        while True:
            frame = await socket.receive(timeout=SILENCE)
            if frame.type is aiohttp.WSMsgType.PING:
                await socket.pong(frame.data)
            elif frame.type is aiohttp.WSMsgType.TEXT:
                message = json.loads(frame.data)
                if isinstance(message, dict):
                    return message
            elif frame.type is aiohttp.WSMsgType.ERROR:
                raise _StreamError(f"{socket.exception()}")
            elif frame.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED}:
                return None


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200]
