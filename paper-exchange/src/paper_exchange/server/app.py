"""The running server: opens the ports, lets the market's events flow when they are due, and stops in order."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import IO, Any, Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from paper_exchange.api import SpotApi
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.faults.control import Faults
from paper_exchange.faults.director import Director
from paper_exchange.faults.parsing import Known
from paper_exchange.faults.record import open_record
from paper_exchange.faults.scenario import open_scenario
from paper_exchange.faults.stagehand import Stagehand
from paper_exchange.gate import Gate
from paper_exchange.journal import Journal
from paper_exchange.limits import ORDERS_10S, Limits
from paper_exchange.market import open_market
from paper_exchange.market.events import Market, MarketError, MarketEvent
from paper_exchange.market.live import upstream_of
from paper_exchange.market.playback import Playback, SpeedInvalidError
from paper_exchange.server.connections import HANDSHAKES, USUAL, ConnectionLimits, Connections
from paper_exchange.server.control import Control
from paper_exchange.server.front_door import FrontDoor
from paper_exchange.server.live import USUAL_TIMES, LiveFeed, LiveTimes
from paper_exchange.server.rest import RestApi
from paper_exchange.server.stream_server import StreamServer
from paper_exchange.server.streams import MarketStreams
from paper_exchange.server.ws_api import Desk, WsApi
from paper_exchange.server.ws_methods import METHODS
from paper_exchange.server.ws_session import SESSION_METHODS
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from paper_exchange.wallet import Wallet

_log = structlog.get_logger(__name__)
_TICK_SECONDS: Final = 0.05
_MOVE_SECONDS: Final = 1.0
_STUCK_MS: Final = 10_000
_BATCH: Final = 50
_LARGEST_BODY: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve; ports of 0 are chosen by the system, no directory means that nothing survives the end."""

    symbols: Sequence[str] = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    market: str = "synthetic"
    seed: int = 1
    loop: bool = False
    """Whether a recording begins again at its end."""
    speed: float = 1.0
    """Seconds of a recorded or generated market in a second of the clock; 0 stands still."""
    host: str = "127.0.0.1"
    port: int = 0
    control_port: int = 0
    data_dir: Path | None = None
    journal: Path | None = None
    weight_per_minute: int = 6000
    orders_10s: int = ORDERS_10S
    """New orders of an account in ten seconds."""
    connections: ConnectionLimits = USUAL
    live: LiveTimes = USUAL_TIMES
    fault_log: Path | None = None
    """The file that tells what faults did; in the directory where there is one, unless named here."""
    scenario: str = ""
    """The file or the name of a scenario that begins with the server."""


class UnknownSymbolError(MarketError):
    """A symbol that the exchange does not know."""

    code = "UnknownSymbol"


def known_endpoints(api: SpotApi) -> list[str]:
    """What faults may name: the endpoints of REST, the methods of the WebSocket API, and opening a connection."""
    rest = [f"{method} {path}" for method, path in api.routes]
    return [*rest, *METHODS, *SESSION_METHODS, *HANDSHAKES]


def open_log(options: Options) -> IO[bytes] | None:
    """The file that tells what faults did, to be gone on with."""
    path = options.fault_log or (options.data_dir / "faults.jsonl" if options.data_dir else None)
    return open_record(path) if path else None


def wall_clock_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def steady_clock_ms() -> int:
    """Milliseconds on a clock that only goes forward."""
    return time.monotonic_ns() // 1_000_000


def _followed(market: str, speed: float) -> SpeedInvalidError:
    return SpeedInvalidError(f"speed: expected 1, for {market} is followed, got {speed:g}")


class PaperExchangeServer:
    """One exchange on its two ports, between `start` and `stop`."""

    def __init__(
        self,
        options: Options,
        steady_ms: Callable[[], int] = steady_clock_ms,
        wall_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Open the store, the market and the scenario; raises when one of them cannot be opened.

        `steady_ms` is the clock on which connections age and faults last, `wall_ms` the exchange's time; with one that
        a test turns a day passes at once.
        """
        unknown = [symbol for symbol in options.symbols if symbol not in SYMBOLS]
        if unknown or not options.symbols:
            raise UnknownSymbolError(
                f"symbols: expected some of {', '.join(SYMBOLS)}, got {', '.join(unknown) or 'none'}"
            )
        self.options = options
        self.registry = registry = CollectorRegistry()
        upstream = upstream_of(options.market)
        self._market: Market | None = None
        self.live: LiveFeed | None = None
        """What follows another exchange, where the market is one that is followed."""
        begun_ms = wall_ms()
        self._playback = Playback(begun_ms)
        if upstream is None:
            self._market = open_market(options.market, options.symbols, options.seed, begun_ms, loop=options.loop)
        elif options.speed != 1:
            raise _followed(options.market, options.speed)
        else:
            self.live = LiveFeed(
                upstream,
                options.symbols,
                options.live,
                steady_ms=steady_ms,
                wall_ms=wall_ms,
                rng=Random(),  # noqa: S311, it only spreads reconnects
                registry=registry,
            )
        self._store = Store(options.data_dir)
        self._journal = Journal(options.journal) if options.journal else None
        self.venue = Venue(options.symbols, self._market, self._store, wall_ms, registry, journal=self._journal)
        self._limits = limits = Limits(options.weight_per_minute, orders_10s=options.orders_10s)
        api = SpotApi(self.venue, limits)
        api.routes |= Wallet(self.venue).routes
        applied = Counter("paper_exchange_faults_applied", "What faults befell, by kind", ["kind"], registry=registry)
        known = Known(options.symbols, known_endpoints(api))
        # Read before this run begins in the file, which may be the scenario itself.
        self._scenario = open_scenario(options.scenario, known) if options.scenario else None
        self._fault_log = open_log(options)

        def seconds() -> float:
            return steady_ms() / 1000

        self.faults = Faults(
            known,
            seed=options.seed,
            clock=seconds,
            now_ms=wall_ms,
            count=lambda kind: applied.labels(kind).inc(),
            file=self._fault_log,
        )
        calls = self.faults.calls
        self._connections = Connections(steady_ms, options.connections, self.faults)
        sockets = {"cut": self._connections.cut, "close": self._connections.drop}
        self.director = Director(self.faults, Stagehand(self.venue), sockets, self._refuse, seconds)
        self._streams = MarketStreams(self.venue, api.market_data)
        refusals = Counter(
            "paper_exchange_refusals",
            "Requests that broke a rule of the exchange, by code",
            ["code"],
            registry=registry,
        )
        gate = Gate(self.venue, limits, refused=lambda code: refusals.labels(str(code)).inc())
        rest = RestApi(self.venue, api, gate=gate, limits=limits, faults=calls, registry=registry)
        ws_requests = Counter(
            "paper_exchange_ws_requests", "WebSocket API requests", ["method", "status"], registry=registry
        )
        ws_api = WsApi(Desk(self.venue, api, gate, limits, ws_requests, calls), self._connections)
        streams = StreamServer(self._streams, options.symbols, self._connections, wall_ms)
        public = web.Application(client_max_size=_LARGEST_BODY)
        public.router.add_get("/ws-api/v3", ws_api.handle)
        public.router.add_get("/ws", streams.handle)
        public.router.add_get("/ws/{streams:.*}", streams.handle)
        public.router.add_get("/stream", streams.handle)
        public.router.add_route("*", "/{path:.*}", rest.handle)
        control = Control(
            self.venue,
            self.faults,
            self.director,
            registry,
            healthy=self._problem,
            ready=self._not_ready,
            drop_connections=self._connections.drop,
            market=options.market,
            playback=None if self.live else self._playback,
            set_speed=self._set_speed,
        ).application()
        self._doors = [
            FrontDoor(application, options.host, port)
            for application, port in ((public, options.port), (control, options.control_port))
        ]
        Gauge("paper_exchange_faults_active", "Faults in force", registry=registry).set_function(
            lambda: float(len(self.faults.engine.in_force()))
        )
        Gauge("paper_exchange_accounts", "Accounts", registry=registry).set_function(
            lambda: float(len(self.venue.exchange.accounts))
        )
        Gauge("paper_exchange_open_orders", "Open orders of all accounts", registry=registry).set_function(
            lambda: float(sum(len(orders) for orders in self.venue.exchange.opened.values()))
        )
        ProcessCollector(registry=registry)
        Gauge("paper_exchange_connections", "Open WebSockets", registry=registry).set_function(
            lambda: float(len(self._connections))
        )
        self._market_tasks: list[asyncio.Task[None]] = []
        self._steady_ms, self._turned_ms = steady_ms, 0
        self.base_url = ""
        self.control_url = ""

    async def start(self) -> None:
        """Listen on both ports and let the market run; MarketError when one that is to be followed is not reached."""
        if self.live is not None:
            for symbol, history in (await self.live.open()).items():
                self.venue.seed(symbol, history, None)
                self.venue.set_known(symbol, False)
        urls = []
        for door in self._doors:
            bound = await door.open()
            host = "127.0.0.1" if self.options.host in ("0.0.0.0", "") else self.options.host  # noqa: S104, compared
            urls.append(f"http://{host}:{bound}")
        self.base_url, self.control_url = urls
        if self._scenario is not None:
            self.director.begin(self._scenario)
        self._turned_ms = self._steady_ms()
        if self.options.speed != 1:
            self._set_speed(self.options.speed)
        parts = [self._pump()]
        if self.options.data_dir is not None:
            parts.append(self._move_log())
        if self.live is not None:
            parts.append(self.live.run(self.venue.feed, self.venue.set_known))
        self._market_tasks = [asyncio.create_task(self._run_market(part)) for part in parts]

    async def stop(self) -> None:
        """Stop the market, close every connection, then the store."""
        for task in self._market_tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self.live is not None:
            await self.live.close()
        self._connections.shut_down()
        for door in self._doors:
            await door.close()
        try:
            self.venue.save_market()
        finally:
            self._store.close()
            if self._journal is not None:
                self._journal.close()
            if self._fault_log is not None:
                self._fault_log.close()

    def _refuse(self, seconds: float) -> None:
        """As an exchange whose server is restarted: what is stored stays, and what addresses used up is forgotten."""
        self._limits.forget()
        self._doors[0].shut(seconds)

    def _problem(self) -> str | None:
        """What is wrong with the server, or None."""
        if not self._market_tasks or any(task.done() for task in self._market_tasks):
            return "the market does not run"
        if self._steady_ms() - self._turned_ms > _STUCK_MS:
            return "the market is stuck"
        return None

    def _not_ready(self) -> str | None:
        """Why clients had better wait, or None."""
        return self._problem() or (self.live.problem() if self.live is not None else None)

    async def _run_market(self, part: Coroutine[Any, Any, None]) -> None:
        """A part of the market; its failure is logged, and the probes tell of it."""
        try:
            await part
        except Exception:
            _log.exception("the market stopped")

    async def _move_log(self) -> None:
        """Keep the store's log short."""
        while True:
            await asyncio.sleep(_MOVE_SECONDS)
            try:
                await asyncio.to_thread(self._store.move_log)
            except sqlite3.Error as error:
                # A full disk: what is written to the log is safe there, and goes on being tried.
                _log.warning("the store's log stays long", error=str(error))

    def _set_speed(self, speed: float) -> None:
        """Play on at this speed; SpeedInvalidError where the market is one that is followed."""
        if self.live is not None:
            raise _followed(self.options.market, speed)
        now = self.venue.now_ms()
        self._playback.set_speed(speed, now)
        if self._journal is not None:
            self._journal.speed(speed, now)

    async def _pump(self) -> None:
        """Feed the market's events when their time has come; when there are none or no more, only time goes on."""
        events = self._market.events() if self._market is not None else iter(())
        following = next(events, None)
        saved = 0
        while True:
            self.director.tick()
            now = self.venue.now_ms()
            following = await self._feed_due(events, following, now)
            # The time up to which events were fed: a candle must not close before its last trades are in it.
            self._streams.tick(now)
            self._connections.tick()
            if now - saved >= 1000:
                saved = now
                self.venue.save_market()
            self._turned_ms = self._steady_ms()
            wait = _TICK_SECONDS
            if following is not None:
                wait = min(wait, max(0.0, (self._playback.due_ms(following.time_ms) - self.venue.now_ms()) / 1000))
            await asyncio.sleep(wait)

    async def _feed_due(
        self,
        events: Iterator[MarketEvent],
        following: MarketEvent | None,
        now: int,
    ) -> MarketEvent | None:
        """Feed events up to `now`; returns the first that is still to come."""
        fed = 0
        while following is not None and (due := self._playback.due_ms(following.time_ms)) <= now:
            # The clock of clients is the exchange's: an event has the time at which it happens on it.
            self.venue.feed(following if due == following.time_ms else replace(following, time_ms=int(due)))
            following = next(events, None)
            fed += 1
            if fed % _BATCH == 0:
                await asyncio.sleep(0)
                if following is not None:
                    self._playback.keep_up(following.time_ms, self.venue.now_ms())
        return following
