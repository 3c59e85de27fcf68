"""Follows another exchange: its candles once, then depth and trades over one connection that is made again when cut."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Final

import aiohttp
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from paper_exchange.market.events import Candle, MarketEvent
from paper_exchange.market.live import (
    Follower,
    Upstream,
    UpstreamError,
    candle_of,
    history_spans,
    stream_names,
)
from paper_exchange.market.local_book import BookGapError

_log = structlog.get_logger(__name__)
_CALL_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 1.0
_FIRST_WAIT: Final = 0.25
_LONGEST_WAIT: Final = 30.0
_LEVELS: Final = 5000
_ROWS: Final = 1000
_LARGEST_MESSAGE: Final = 16 << 20
_CUT = (aiohttp.ClientError, OSError, TimeoutError, UpstreamError)
"""What ends a connection; everything else is a fault of this program."""


@dataclass(frozen=True, slots=True)
class LiveTimes:
    """Seconds: how old the last word of a book may be, how long a connection serves, and how long beside the next one.

    Binance ends a connection after 24 hours.
    """

    stale: float = 10.0
    lifetime: float = 23 * 3600.0
    overlap: float = 1.0


USUAL_TIMES: Final = LiveTimes()


class LiveFeed:
    """Between `open` and `close`, `run` tells of the market; `problem` says why it is not known at the moment."""

    def __init__(
        self,
        upstream: Upstream,
        symbols: Sequence[str],
        times: LiveTimes,
        *,
        steady_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        rng: Random,
        registry: CollectorRegistry,
    ) -> None:
        """`steady_ms` only goes forward; `rng` spreads what many may do at once."""
        self._upstream = upstream
        self._times = times
        self._steady_ms = steady_ms
        self._wall_ms = wall_ms
        self._rng = rng
        self.followers = {symbol: Follower(symbol) for symbol in symbols}
        self._heard = dict.fromkeys(symbols, steady_ms())
        """When each book was known to be that of the exchange, on the steady clock."""
        self._ahead_ms = 0
        """By how much the exchange's clock is ahead of the one here."""
        self._not_before = 0
        """Until when, on the steady clock, the exchange told to stay away."""
        self._why: str | None = "it was not reached yet"
        self._feed: Callable[[MarketEvent], None] = lambda event: None
        self._known: Callable[[str, bool], None] = lambda symbol, known: None
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self.reconnects = Counter("paper_exchange_live_reconnects", "Connections made again", registry=registry)
        self.resyncs = Counter("paper_exchange_live_resyncs", "Books read anew", ["symbol"], registry=registry)
        age = Gauge("paper_exchange_live_age_seconds", "Time since a book was known", ["symbol"], registry=registry)
        missed = Gauge("paper_exchange_live_missed_trades", "Trades never told", ["symbol"], registry=registry)
        for symbol, follower in self.followers.items():
            age.labels(symbol).set_function(partial(self._age, symbol))
            missed.labels(symbol).set_function(partial(getattr, follower, "missed"))

    def problem(self) -> str | None:
        """Why the market is not known now, or None."""
        unknown = [symbol for symbol, follower in self.followers.items() if follower.book.update_id is None]
        if self._why is None and unknown:
            return f"the books of {', '.join(unknown)} are read anew"
        return f"{self._upstream.rest} is not followed: {self._why}" if self._why else None

    def _age(self, symbol: str) -> float:
        return (self._steady_ms() - self._heard[symbol]) / 1000

    # -- life --------------------------------------------------------------------------------------------------

    async def open(self) -> dict[str, list[Candle]]:
        """Connect, and the candles of each symbol up to now; UpstreamError when they cannot be had."""
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout, trace_configs=[trace])
        try:
            self._socket = await self._connect()
            return {symbol: await self._history(symbol) for symbol in self.followers}
        except _CUT as error:
            await self.close()
            raise UpstreamError(f"market: expected to reach {self._upstream.rest}, got {error!r}") from error

    async def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def run(self, feed: Callable[[MarketEvent], None], known: Callable[[str, bool], None]) -> None:
        """Tell `feed` of events and `known` of symbols whose book is known or not, until cancelled."""
        self._feed, self._known = feed, known
        failures = 0
        self._lose()
        while True:
            begun = self._steady_ms()
            try:
                if self._socket is None:
                    self.reconnects.inc()
                    self._socket = await self._connect()
                await self._follow(self._socket)
            except* _CUT as group:
                self._why = _first(group)
            finally:
                # Also where nothing of the kind was expected: nobody may trade on a book that stands still.
                self._lose()
            if self._socket is not None:
                await self._socket.close()
                self._socket = None
            lived = (self._steady_ms() - begun) / 1000
            failures = 0 if lived > _LONGEST_WAIT else failures + 1
            wait = max(self._pause(failures), (self._not_before - self._steady_ms()) / 1000)
            _log.warning("the followed market is cut", upstream=self._upstream.rest, why=self._why, wait=round(wait, 2))
            await asyncio.sleep(wait)

    def _lose(self) -> None:
        """No book is known."""
        for symbol, follower in self.followers.items():
            follower.restart()
            self._known(symbol, False)

    def _pause(self, failures: int) -> float:
        """Seconds with full jitter: those who were cut together do not come back together."""
        return self._rng.uniform(0, min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(failures, 10)))

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        assert self._session is not None  # noqa: S101, it is open
        url = f"{self._upstream.streams}/stream?streams={stream_names(self.followers)}"
        times = aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                return await self._session.ws_connect(url, max_msg_size=_LARGEST_MESSAGE, timeout=times)
        except aiohttp.WSServerHandshakeError as error:
            self._obey(error.status, error.headers or {})
            raise

    async def _follow(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """One connection until it ends, which is always an error."""
        asked = self._wall_ms()
        told = await self._server_time()
        self._ahead_ms = told - (asked + self._wall_ms()) // 2
        self._heard = dict.fromkeys(self.followers, self._steady_ms())
        self._why = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read(socket, tasks))
            tasks.create_task(self._watch(tasks))
            tasks.create_task(self._rotate(tasks))
            for follower in self.followers.values():
                tasks.create_task(self._read_book(follower))

    # -- messages ----------------------------------------------------------------------------------------------

    async def _read(self, socket: aiohttp.ClientWebSocketResponse, tasks: asyncio.TaskGroup) -> None:
        """Messages of a connection; of one that is not yet in use, those that continue what the other told."""
        async for message in socket:
            with _understood(message.data):
                event = json.loads(message.data)["data"]
                follower = self.followers.get(event.get("s", ""))
                if follower is None or not (socket is self._socket or follower.follows_on(event)):
                    continue
                events = self._events(follower, event, tasks)
            for one in events:
                self._feed(one)
        if socket is self._socket:
            raise UpstreamError(f"the connection was closed ({socket.close_code})")

    def _events(self, follower: Follower, event: Mapping[str, Any], tasks: asyncio.TaskGroup) -> list[MarketEvent]:
        """What a message says of the market; a gap has the book read anew, and what is too old ends the connection."""
        now = self._wall_ms()
        old = (now + self._ahead_ms - event["E"]) / 1000
        if old > self._times.stale:
            raise UpstreamError(f"its events of {follower.symbol} are {old:.1f} s old")
        if event["e"] == "trade":
            return follower.trade(event, now)
        try:
            events = follower.depth(event, now)
        except BookGapError as gap:
            _log.warning("events of a book are missing", symbol=follower.symbol, gap=str(gap))
            self._known(follower.symbol, False)
            tasks.create_task(self._read_book(follower))
            return []
        self._heard[follower.symbol] = self._steady_ms()
        return events

    async def _read_book(self, follower: Follower) -> None:
        """Ask for the book until it fits the events that came since."""
        symbol = follower.symbol
        for attempt in itertools.count(1):
            asked = self._steady_ms()
            answer = await self._get("depth", {"symbol": symbol, "limit": _LEVELS})
            with suppress(BookGapError), _understood(answer):
                events = follower.snapshot(answer, self._wall_ms())
                break
            await asyncio.sleep(self._pause(attempt))
        for one in events:
            self._feed(one)
        self._heard[symbol] = asked
        self.resyncs.labels(symbol).inc()
        self._known(symbol, True)
        _log.info("a book is followed", symbol=symbol, update_id=follower.book.update_id)

    # -- time --------------------------------------------------------------------------------------------------

    async def _watch(self, tasks: asyncio.TaskGroup) -> None:
        """A book of which nothing is heard is asked for; one that is too old ends the connection."""
        asked: set[str] = set()
        while True:
            await asyncio.sleep(self._times.stale / 20)
            for symbol, follower in self.followers.items():
                age = self._age(symbol)
                if age > self._times.stale:
                    raise UpstreamError(f"nothing was heard of {symbol} for {age:.1f} s")
                if age <= self._times.stale / 2:
                    asked.discard(symbol)
                elif symbol not in asked:
                    asked.add(symbol)
                    tasks.create_task(self._ask_whether_quiet(follower))

    async def _ask_whether_quiet(self, follower: Follower) -> None:
        """A book that did not change since its last event is as good as one that was just told."""
        asked = self._steady_ms()
        with suppress(*_CUT):
            answer = await self._get("depth", {"symbol": follower.symbol, "limit": 5})
            with _understood(answer):
                known = answer["lastUpdateId"]
            if known == follower.book.update_id:
                self._heard[follower.symbol] = asked

    async def _rotate(self, tasks: asyncio.TaskGroup) -> None:
        """Before the exchange ends a connection, a second one takes over; both are heard for a moment."""
        while True:
            await asyncio.sleep(self._times.lifetime)
            try:
                following = await self._connect()
            except _CUT as error:
                _log.warning("no second connection; the first one goes on", why=repr(error))
                continue
            tasks.create_task(self._read(following, tasks))
            await asyncio.sleep(self._times.overlap)
            before, self._socket = self._socket, following
            if before is not None:
                await before.close()
            _log.info("the connection was replaced")

    # -- calls -------------------------------------------------------------------------------------------------

    async def _history(self, symbol: str) -> list[Candle]:
        now = await self._server_time()
        candles: list[Candle] = []
        for interval, begin, end in history_spans(now):
            start = begin
            while start < end:
                span = {"startTime": start, "endTime": end - 1}
                rows = await self._get("klines", {"symbol": symbol, "interval": interval, "limit": _ROWS, **span})
                with _understood(rows):
                    found = [candle_of(row, interval) for row in rows]
                if not found:
                    break
                candles += found
                start = found[-1].open_time_ms + found[-1].interval_ms
        if not candles:
            raise UpstreamError(f"expected klines of {symbol}, got none")
        self.followers[symbol].from_ms = candles[-1].close_time_ms + 1
        return candles

    async def _server_time(self) -> int:
        answer = await self._get("time", {})
        with _understood(answer):
            return int(answer["serverTime"])

    def _obey(self, status: int, headers: Mapping[str, str]) -> None:
        """Who is told of too many requests stays away as long as he is told, a minute where he is not."""
        if status in (429, 418):
            told = headers.get("Retry-After", "")
            self._not_before = self._steady_ms() + 1000 * (int(told) if told.isdigit() else 60)

    async def _get(self, what: str, params: Mapping[str, str | int]) -> Any:
        """The answer of a public endpoint; UpstreamError where it is a refusal, or no JSON."""
        assert self._session is not None  # noqa: S101, it is open
        url = f"{self._upstream.rest}/api/v3/{what}"
        async with asyncio.timeout(_CALL_SECONDS), self._session.get(url, params=params) as answer:
            text = await answer.text()
            self._obey(answer.status, answer.headers)
            if answer.status != 200:
                raise UpstreamError(f"GET {what} {dict(params)}: {answer.status} {text[:200]}")
            with _understood(text):
                return json.loads(text)


@contextmanager
def _understood(data: object) -> Iterator[None]:
    """What cannot be read of an answer or message makes the exchange unusable."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise UpstreamError(f"expected what Binance says, got {str(data)[:200]!r}: {error!r}") from error


async def _refuse_redirect(_session: Any, _context: Any, params: aiohttp.TraceRequestRedirectParams) -> None:
    """Only the addresses that were given are called."""
    raise UpstreamError(f"{params.url} sends to another address; only what was configured is called")


def _first(group: BaseExceptionGroup[Any]) -> str:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else str(error) or repr(error)
