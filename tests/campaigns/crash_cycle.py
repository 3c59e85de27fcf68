"""One trade cycle of a simulated bot that dies at a point of it, among a fault of its exchange, and is started again.

The points are those of an undisturbed cycle: each commit of the bot's store that changes something, and each request of
REST. A cell is a point, the moment there (before it, as soon as it was sent, after it) and a kind of fault. At a commit
the machine loses power, and with it what its disk did not sync; at a request only the process ends.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import resource
import shutil
import sqlite3
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import count, pairwise
from multiprocessing.connection import Connection, wait
from pathlib import Path
from random import Random
from typing import Any, Final, NoReturn, TypeVar
from unittest.mock import patch

import structlog
from binance.async_client import AsyncClient

from paper_exchange.core.model import Order
from paper_exchange.core.reports import my_trade
from paper_exchange.core.units import to_units
from paper_exchange.faults.kinds import KINDS
from paper_exchange.faults.model import Stage
from paper_exchange.testing import Options as ExchangeOptions
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.exchange_books import Fill, has_no_stop, stored, twice
from support.forgetful_disk import ForgetfulDisk
from support.forked_files import take_copies
from support.still_market import write_still_market
from support.virtual_program import MortalLoop, Program, killed, killed_in_thread, running
from tradingbot.app import STORE_FILE, BotApp, Options
from tradingbot.clocks import Clocks
from tradingbot.gateway.binance import ORDER_TIMEOUT
from tradingbot.lab.paper import write_keys
from tradingbot.lab.sim import LATENCY, START
from tradingbot.monitoring.health import ConditionClock
from tradingbot.monitoring.http_api import ControlError
from tradingbot.monitoring.report import build_status
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.recovery.fence import Purpose, parse
from tradingbot.recovery.safe_mode import ANNOTATION, SPEC
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus, DrainPhase, DrainRequest, Grant, RaiseIncarnation
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy, UsageStatus

T = TypeVar("T")
SYMBOL: Final = "BTCUSDT"
_UID: Final = "crash"
START_PRICE: Final = 50_000
_LEVEL: Final = "0.00400000"
"""Of the book: an order of the bot takes three of them."""
_LEVELS: Final = 20
"""On each side."""
DEPOSIT: Final = Decimal(10_000)
FOREIGN: Final = Decimal("0.5")
"""Base of the account that is not the bot's."""
RESTART_SECONDS: Final = 2.0
DEADLINE_SECONDS: Final = 10
LONGEST_UNPROTECTED: Final = 60.0
"""With bans, outages and unknown answers."""
SETTLE_SECONDS: Final = 180.0
"""After the faults, until the bot has nothing on the exchange and its books agree."""
CPU_SECONDS: Final = 60
"""For a cell; a loop in which no time passes would have no end."""
_FORK: Final = multiprocessing.get_context("fork")
WATCH_SECONDS: Final = 0.2
_GRANT_SECONDS: Final = 5.0
"""Between two grants."""
_DRAIN_SECONDS: Final = 2.0
"""Between two looks at how far a drain is."""
_USAGE: Final = UsageStatus(memory_bytes=0, cpu_seconds=Decimal(0))

# Seconds, and the share of the first price at which the market then stands. With averages over one and two candles a
# step up is an entry, and a step down an exit.
_STEPS: Final[tuple[tuple[float, float], ...]] = (
    (3, 0.999),
    (5, 1.000),  # an entry
    (8, 0.999),  # an exit by signal
    (10, 1.000),  # an entry; no signal ends what a death at the exit left, for longer than the deadline
    (25, 0.970),  # its stop
    (28, 0.971),  # an entry
    (31, 1.000),  # its take-profit
    (34, 0.998),
    (37, 0.999),  # an entry that is sold by the drain
    (45, 0.998),
    (48, 0.999),  # an entry that must not be
)  # fmt: skip
_SAFE_AT: Final = 40.0
_DRAIN_AT: Final = 42.0
_CALM_AT: Final = 51.0
"""From then on without faults."""

FAULTS: Final[dict[str, dict[str, Any]]] = {
    "rest_status": {"status": 503, "seconds": 6},
    "error": {"code": -1001, "count": 3},
    "rate_limited": {"for": 6},
    "banned": {"for": 6},
    "maintenance": {"for": 6},
    "order_refused": {"count": 1},
    "list_refused": {"count": 1},
    "lost_request": {"count": 3, "cut": False},
    "lost_answer": {"count": 2},
    "error_after": {"count": 2},
    "delay": {"seconds": 4.4, "jitter": 0.5, "count": 1},  # within recvWindow, and later than a hasty "not found"
    "answer_delay": {"seconds": 3, "jitter": 2, "count": 4},
    "clock_skew": {"milliseconds": 3000, "for": 15},
    "drop_events": {"for": 20},
    "duplicate_events": {"for": 30},
    "reorder_events": {"for": 30},
    "delay_events": {"seconds": 2, "jitter": 2, "for": 20},
    "dead_stream": {"for": 20},
    "cut_connection": {"count": 2},
}
"""Every kind of the exchange, with what it is here; it begins with the request at which the bot dies."""
AGAIN: Final = "again"
"""In place of a fault: the next two processes die early as well."""


class Moment(StrEnum):
    """When, at a point."""

    BEFORE = "before"
    SENT = "sent"
    """A request is on its way; it may be executed although nobody waits for it."""
    AFTER = "after"


@dataclass(frozen=True)
class Point:
    """The `number`th request or commit of the first process."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Point:
        """The inverse of str."""
        kind, number = text.split(":")
        return cls(kind, int(number))

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Those that there are."""
        return tuple(Moment) if self.kind == "request" else (Moment.BEFORE, Moment.AFTER)


@dataclass(frozen=True)
class Cell:
    """Where the bot dies, and among what."""

    point: Point
    moment: Moment
    fault: str = ""
    operated: bool = False
    """With an operator: grants, and safe mode by a configuration. Else the pod's annotation asks for it."""

    def __str__(self) -> str:
        prefix, suffix = "operated/" if self.operated else "", f"+{self.fault}" if self.fault else ""
        return f"{prefix}{self.point}:{self.moment}{suffix}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """The inverse of str."""
        where, _, fault = text.partition("+")
        point, _, moment = where.removeprefix("operated/").rpartition(":")
        return cls(Point.parse(point), Moment(moment), fault, text.startswith("operated/"))

    @property
    def foreign(self) -> Decimal:
        """Base of the account that is not the bot's, in every second cell: a sale too many would go through."""
        return FOREIGN * ((self.point.number + list(Moment).index(self.moment)) % 2)

    def deaths(self) -> dict[int, tuple[Point, Moment]]:
        """Where each process dies, by its number."""
        found, rng = {1: (self.point, self.moment)}, Random(str(self))
        for process in (2, 3) if self.fault == AGAIN else ():
            point = Point(rng.choice(("request", "commit")), rng.randint(1, 30))
            found[process] = point, rng.choice(point.moments)
        return found


@dataclass
class Outcome:
    """What came of a cycle."""

    points: list[Point] = field(default_factory=list)
    """Those of its first process."""
    died_at: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind befell something."""
    entries: int = 0
    trades: int = 0
    boots: int = 0
    unprotected: float = 0.0
    """Seconds for which a position was longest without its stop, by the exchange's own books."""
    charged: float = 0.0
    """Of those, without bans, outages, unknown answers, and a process that is not there."""
    virtual: float = 0.0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    """What the processes logged: virtual seconds, number of the process, level, event."""


def all_cells(points: list[Point], *, operated: bool) -> list[Cell]:
    """Each point and moment with each kind of fault, with none, and with more deaths."""
    others = ("", *FAULTS, AGAIN)
    return [Cell(point, moment, fault, operated) for point in points for moment in point.moments for fault in others]


def run_undisturbed(*, operated: bool) -> Outcome:
    """A cycle in which nothing happens, with an operator or without; its points are those of each trunk."""
    bare, shared = (next(_run_apart((), Trunk(operated, foreign), 1))[1] for foreign in (Decimal(0), FOREIGN))
    bare.points = [point for point in bare.points if point in shared.points]
    bare.violations += shared.violations
    return bare


def run_cells(cells: Iterable[Cell], *, parallel: int = 1) -> Iterator[tuple[Cell, Outcome]]:
    """What came of each, as it is known; at most `parallel` at a time.

    Up to their points the cells of a kind are one cycle, which runs once: each goes on in a fork of it.
    """
    kinds: defaultdict[Trunk, list[Cell]] = defaultdict(list)
    for cell in cells:
        kinds[Trunk(cell.operated, cell.foreign)].append(cell)
    for trunk, its_cells in kinds.items():
        for cell, outcome in _run_apart(its_cells, trunk, parallel):
            assert cell is not None
            yield cell, outcome


@dataclass(frozen=True)
class Trunk:
    """What cells have in common up to their points."""

    operated: bool
    foreign: Decimal


_Result = tuple[Cell | None, Outcome]


def _run_apart(cells: Collection[Cell], trunk: Trunk, parallel: int) -> Iterator[_Result]:
    """In a process of its own: what the dead left behind ends with it."""
    with tempfile.TemporaryDirectory(prefix="tradingbot-crash-") as folder:
        near, far = _FORK.Pipe(duplex=False)
        process = _FORK.Process(target=_run_trunk, args=(cells, trunk, parallel, Path(folder), far))
        process.start()
        far.close()
        try:
            for _ in cells or (None,):
                yield near.recv()
        except EOFError:
            process.join()
            raise RuntimeError(f"the cycle of {trunk} ended with {process.exitcode}") from None
        finally:
            process.terminate()
            process.join()


def _run_trunk(
    cells: Collection[Cell], trunk: Trunk, parallel: int, folder: Path, results: Connection[_Result, None]
) -> None:
    branches = _Branches(cells, parallel, folder, results)
    loop = MortalLoop(Random("network"), LATENCY)
    outcome = Outcome()
    # Nothing is collected: a coroutine of the dead that is freed runs its `finally`; and what is not looked at, and
    # not written to, is not copied with each fork.
    gc.disable()
    gc.freeze()
    own = folder / "trunk"
    own.mkdir()
    os.chdir(own)
    try:
        loop.run_until_complete(Cycle(loop, trunk, outcome, branches).run())
    except Exception:
        outcome.violations.append(traceback.format_exc())
    outcome.virtual, outcome.seconds = loop.time(), time.process_time()
    branches.end(outcome)


class _Branches:
    """The cells that go on from a cycle, each in a fork of it that lives until its end."""

    def __init__(
        self, cells: Collection[Cell], parallel: int, folder: Path, results: Connection[_Result, None]
    ) -> None:
        self.cell: Cell | None = None
        """In a fork."""
        self._alone = not cells
        self._waiting: defaultdict[tuple[Point, Moment], list[Cell]] = defaultdict(list)
        for cell in cells:
            self._waiting[cell.point, cell.moment].append(cell)
        self._parallel, self._folder, self._results = parallel, folder, results
        self._running: dict[Connection[Any, Any], tuple[Cell, int]] = {}

    def fork(self, point: Point, *moments: Moment) -> bool:
        """At a point: whether this is now the process of a cell."""
        for moment in moments:
            for cell in self._waiting.pop((point, moment), ()):
                while len(self._running) >= self._parallel:
                    self._take_results()
                near, far = _FORK.Pipe(duplex=False)
                process = os.fork()
                if process == 0:
                    self._become(cell, far)
                    return True
                far.close()
                with suppress(EOFError):  # told with its result
                    near.recv()
                self._running[near] = cell, process
        if not self._waiting and not self._alone and self.cell is None:
            self.end(Outcome())
        return False

    def _become(self, cell: Cell, results: Connection[Any, Any]) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
        self.cell, self._results = cell, results
        self._waiting.clear()
        self._running.clear()
        own = self._folder / str(os.getpid())
        take_copies(Path.cwd(), own)
        os.chdir(own)
        results.send(None)  # the cycle waits: what it wrote meanwhile would be in the copies

    def _take_results(self) -> None:
        for ready in wait(list(self._running)):
            assert isinstance(ready, Connection)
            cell, process = self._running.pop(ready)
            try:
                outcome = ready.recv()
            except EOFError:
                outcome = Outcome(violations=[f"ended early; {CPU_SECONDS} s of the processor's time are the most"])
            os.waitpid(process, 0)
            shutil.rmtree(self._folder / str(process), ignore_errors=True)
            self._results.send((cell, outcome))

    def end(self, outcome: Outcome) -> NoReturn:
        """Of this process, when it has told what came of its cycle; the first one waits for its forks."""
        while self._running:
            self._take_results()
        if self.cell is not None:
            self._results.send(outcome)
        elif self._alone:
            self._results.send((None, outcome))
        for cells in self._waiting.values():
            for cell in cells:
                self._results.send((cell, replace(outcome, violations=["its point was not reached"])))
        # Nothing of the dead is freed, as that would run what is theirs.
        os._exit(0)


class _Connection(sqlite3.Connection):
    """Tells the cycle before and after each commit that changes something."""

    cycle: Cycle
    _before = 0

    def execute(self, sql: str, *args: Any) -> Any:  # type: ignore[override]
        if sql == "BEGIN":
            self._before = self.total_changes
        if sql != "COMMIT" or self.total_changes == self._before:
            return super().execute(sql, *args)
        return self._around(lambda: super(_Connection, self).execute(sql, *args))

    def executescript(self, sql: str, /) -> Any:
        return self._around(lambda: super(_Connection, self).executescript(sql))

    def _around(self, commit: Any) -> Any:
        point = self.cycle.reached("commit", "commit")
        self.cycle.branch(point, Moment.BEFORE)
        if self.cycle.dies(point, Moment.BEFORE):
            killed_in_thread()
        result = commit()
        self.cycle.branch(point, Moment.AFTER)
        if self.cycle.dies(point, Moment.AFTER):
            killed_in_thread()
        return result


async def _idle(*_: Any) -> None:
    await asyncio.get_running_loop().create_future()


class Cycle:
    """The world of one bot: the exchange, the market's steps, and whoever starts the bot, stops it and looks on."""

    def __init__(self, loop: MortalLoop, trunk: Trunk, outcome: Outcome, branches: _Branches | None = None) -> None:
        self.loop, self.outcome, self.branches = loop, outcome, branches
        self.operated, self.foreign = trunk.operated, trunk.foreign
        self.folder = Path()
        """Where this process is: each fork goes on in a folder of its own."""
        self.deaths: dict[int, tuple[Point, Moment]] = {}
        self.app: BotApp | None = None
        self.program: Program | None = None
        self.task: asyncio.Task[None] | None = None
        self.exchange: PaperExchange
        self.account: TestAccount
        self.start, self.restart_seconds, self.level = START, RESTART_SECONDS, _LEVEL
        self.revision, self.changes = 1, dict[str, Any]()
        """Of the configuration that an operator tells."""
        self.safe_at = _SAFE_AT
        """When safe mode was asked for."""
        self.acknowledged: float | None = None
        self.deadline = DEADLINE_SECONDS
        self.counts: Counter[tuple[int, str]] = Counter()
        self._recording = True
        self._faulted = False
        self._last = ""
        self._drain_at = _DRAIN_AT
        self._cause = SPEC.id if self.operated else ANNOTATION.id
        self._claimant, self._claimed, self._due = "", 0, 0.0
        self._naked_for = self._charged_for = 0.0
        self._written, self._excused_until = 0, 0.0
        self._context = copy_context()
        self._condition_clock = ConditionClock()

    # -- the points ----------------------------------------------------------------------------------------------

    def reached(self, kind: str, what: str) -> Point | None:
        """The point that the bot's code is at; None of what is no process of the bot, or not looked at any more."""
        boot = self.outcome.boots
        if running() is not self.program or not self._recording:
            return None
        self.counts[boot, kind] += 1
        point = Point(kind, self.counts[boot, kind])
        self._last = f"{self.loop.time():.3f} {what}"
        if boot == 1:
            self.outcome.points.append(point)
        return point

    @property
    def cell(self) -> Cell | None:
        """Of this process, once there is one."""
        return self.branches.cell if self.branches is not None else None

    def branch(self, point: Point | None, *moments: Moment) -> None:
        """Let the cells go on by themselves that begin here."""
        if point is None or self.branches is None or self.outcome.boots > 1:
            return
        if self.branches.fork(point, *moments):
            assert self.cell is not None
            self.deaths = self.cell.deaths()
            asyncio._set_running_loop(self.loop)  # a fork has none, as asyncio sees it

    def dies(self, point: Point | None, moment: Moment) -> bool:
        """Whether it is killed there; if so, it is."""
        if point is None or self.deaths.get(self.outcome.boots) != (point, moment):
            return False
        self._kill()
        return True

    def _kill(self) -> None:
        if self.program is None or not self.program.alive:
            return
        self.outcome.died_at += f"{', ' if self.outcome.died_at else ''}{self._last}"
        point, _ = self.deaths[self.outcome.boots]
        self._begin_fault()
        self.loop.kill(self.program)
        boots = self.outcome.boots
        former, state = self.folder / f"state-{boots}", self.folder / f"state-{boots + 1}"
        if point.kind == "commit":
            self.disk.lose_power(state, Random(str(self.cell)))
        else:
            shutil.copytree(former, state, ignore=lambda *_: [f"{STORE_FILE}-shm"])
        self.app = None
        self.killed()
        self.loop.call_later(self.restart_seconds, self.boot, context=self._context)

    def killed(self) -> None:
        """Told of each death."""

    def _begin_fault(self) -> None:
        if self.cell is None or self.cell.fault not in FAULTS or self._faulted:
            return
        self._faulted = True
        assert self.exchange.server is not None
        self.exchange.server.faults.start({"kind": self.cell.fault} | FAULTS[self.cell.fault])

    async def request(self, send: Any, method: str, path: str) -> Any:
        """A request of the bot: recorded, and the end of it where it is to be."""
        point = self.reached("request", f"{method.upper()} {path}")
        self.branch(point, *Moment)
        if self.dies(point, Moment.BEFORE):
            await killed()
        to_die, moment = self.deaths.get(self.outcome.boots, (None, None))
        if point is not None and point == to_die:
            self._begin_fault()
            if moment is Moment.SENT and self.program is not None:
                # Within the moment: what is written in several pieces is all on its way.
                self.program.wrote = lambda: self.loop.call_later(1e-4, self._kill, context=self._context)
        try:
            answer = await send()
        finally:
            if self.dies(point, Moment.AFTER):
                await killed()
        return answer

    # -- the world -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The cycle to its end, and what it broke."""
        market = self.folder / "market"
        market.mkdir()
        spec = write_still_market(market, quantity=self.level, levels=_LEVELS, **{SYMBOL: str(START_PRICE)})
        structlog.configure(processors=[self.keep_log])

        def steady_ms() -> int:
            return round(self.loop.time() * 1000)

        def wall_ms() -> int:
            return self.milliseconds(self.loop.time())

        options = ExchangeOptions(symbols=(SYMBOL,), market=spec, seed=1)
        async with self.hooked(), running_paper_exchange(options, steady_ms, wall_ms) as self.exchange:
            deposits = {"USDT": DEPOSIT} | ({"BTC": self.foreign} if self.foreign else {})
            self.account = await self.exchange.create_account(**deposits)
            write_keys(self.folder / "keys", self.account.api_key, self.account.secret_key)
            self.boot()
            beside = [asyncio.create_task(one) for one in self.beside()]
            try:
                await self.live()
                await self.check()
            finally:
                for task in beside:
                    task.cancel()
                ended = await asyncio.gather(*beside, return_exceptions=True)
                if self.program is not None:
                    self.loop.kill(self.program)
                await asyncio.sleep(1)  # what is still on its way ends at a server that listens
            for error in ended:
                if isinstance(error, Exception):
                    raise error

    def beside(self) -> list[Coroutine[Any, Any, None]]:
        """What goes on in the world meanwhile."""
        return [self.move_market(), self._watch()]

    def keep_log(self, _logger: Any, level: str, event: Any) -> Any:
        self.outcome.log.append(f"{self.loop.time():8.3f} {self.outcome.boots} {level} {event}"[:600])
        if level in {"error", "exception", "critical"}:
            said = f"logged {str(event)[:600]}"
            self.outcome.violations += [] if said in self.outcome.violations else [said]
        raise structlog.DropEvent

    async def move_market(self) -> None:
        """Each second the market trades where its step says: a book that is old is not used."""
        assert self.exchange.server is not None
        venue, steps = self.exchange.server.venue, dict(_STEPS)
        share = 1.0
        for second in count(1):
            await self._until(second + 0.4)
            share = steps.get(second, share)
            venue.gap(SYMBOL, to_units(Decimal(round(START_PRICE * share))) - (venue.exchange.market(SYMBOL).last or 0))

    @asynccontextmanager
    async def hooked(self) -> AsyncIterator[None]:
        connect, request = sqlite3.connect, AsyncClient._request_api
        cycle = self

        class Connection(_Connection):
            pass

        Connection.cycle = cycle

        def connect_noted(path: Any, **more: Any) -> sqlite3.Connection:
            return connect(path, **more) if running() is None else self.disk.connect(path, factory=Connection, **more)

        async def request_noted(client: AsyncClient, method: str, path: str, *args: Any, **more: Any) -> Any:
            return await cycle.request(lambda: request(client, method, path, *args, **more), method, path)

        with (
            patch("sqlite3.connect", connect_noted),
            patch.object(AsyncClient, "_request_api", request_noted),
            patch("tradingbot.app.control_tls", lambda _: None),  # nobody calls but from inside
            # What would be most of a cell's time: 8.5 h of history, an idle exchange's ticks, figures of this process,
            # and statuses for nobody.
            patch("paper_exchange.market.synthetic.HISTORY_SECONDS", 600),
            patch("paper_exchange.server.app._TICK_SECONDS", 0.1),
            patch("tradingbot.monitoring.report.usage_status", lambda: _USAGE),
            nullcontext() if self.operated else patch.object(StatusFeed, "run", _idle),
        ):
            yield

    def boot(self) -> None:
        self.outcome.boots += 1
        boot = self.outcome.boots
        options = Options(
            config=self.config(1),  # the mounted one, which may lag behind what an operator told
            credentials_dir=self.folder / "keys",
            state_dir=self.folder / f"state-{boot}",
            podinfo_dir=self.folder / "podinfo",
            tls_dir=self.folder / "tls" if self.operated else None,
        )

        async def main() -> None:
            clocks = Clocks(self.loop.time, self._utc, Random(f"bot/{boot}"))
            self.app = app = BotApp(options, None, clocks)
            await app.run()

        self.disk = ForgetfulDisk()
        self.program, self.task = self.loop.start(main)
        self.task.add_done_callback(self.ended, context=self._context)

    def config(self, revision: int, **changes: Any) -> BotConfig:
        return BotConfig(
            revision=revision,
            bot=BotIdentity(namespace="crash", name=SYMBOL.lower(), uid=_UID),
            settings=_settings(self.exchange.base_url, **changes),
        )

    def ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.outcome.violations.append(f"the process ended with {error!r}")

    def _utc(self) -> datetime:
        return self.start + timedelta(seconds=self.loop.time())

    async def _until(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, moment - self.loop.time()))

    async def live(self) -> None:
        """The cycle, as whoever runs the bot brings it about."""
        while self.loop.time() < _CALM_AT:
            await self.operate()
            await asyncio.sleep(0.5)
        self._recording = False
        await self.exchange.clear_faults()
        while self._outstanding() or not await self.operate():
            if self.loop.time() > _CALM_AT + SETTLE_SECONDS:
                told = self.status()
                self.outcome.violations.append(f"not drained: {told and told.model_dump_json()[:3000]}")
                return
            await asyncio.sleep(0.5)

    async def operate(self) -> bool:
        """What is due: a grant, safe mode, the drain; whether the bot is drained and all is in order."""
        if self.loop.time() >= self.safe_at and self.acknowledged is None:
            self.wish_safe_mode()
        if self.operated:
            await self.lead()
        if self.loop.time() < self._drain_at:
            return False
        self._drain_at = self.loop.time() + _DRAIN_SECONDS
        return await self.drained()

    def wish_safe_mode(self) -> None:
        if self.operated:
            self.revision, self.changes = max(2, self.revision), {"safeMode": True}
            return
        self._annotations.parent.mkdir(exist_ok=True)
        self._annotations.write_text(f'{names.SAFE_MODE_ANNOTATION}="true"\n')

    @property
    def _annotations(self) -> Path:
        return self.folder / "podinfo" / names.ANNOTATIONS_FILE

    async def lead(self) -> None:
        """An operator's side: the claim, the grant, and the configuration with safe mode, until it is acknowledged."""
        if self.app is None:
            return
        known = self.app.desk.boot_id == self._claimant and self.app.desk.revision >= self.revision
        if known and self.loop.time() < self._due:
            return
        control = self.app.control
        line = await self._call(anext(control.status_lines()))
        status = None if line is None else BotStatus.model_validate_json(line)
        if status is None or status.incarnation is None:
            return
        named = {"bot_uid": _UID, "boot_id": status.boot_id}
        if status.boot_id != self._claimant:
            if status.incarnation <= self._claimed:
                await self._call(control.raise_incarnation(RaiseIncarnation(**named, minimum=self._claimed + 1)))
                return
            self._claimant, self._claimed = status.boot_id, status.incarnation
        if status.applied_revision < self.revision:
            config = self.config(self.revision, **self.changes)
            await self._call(control.put_config(config.model_dump_json(by_alias=True).encode()))
        grant = Grant(
            **named,
            incarnation=status.incarnation,
            revision=status.applied_revision,
            status_sequence=status.sequence,
            epoch=1,
        )
        await self._call(control.put_grant(grant))
        self._due = self.loop.time() + _GRANT_SECONDS

    async def _call(self, call: Awaitable[T]) -> T | None:
        """A call of the bot's control port: what it begins is the bot's; None where it is refused or not answered."""
        assert self.program is not None

        async def answered() -> T:
            return await call

        task = self.loop.start_in(self.program, answered)
        await asyncio.wait([task], timeout=5)
        return task.result() if task.done() and not isinstance(task.exception(), ControlError) else None

    def _outstanding(self) -> bool:
        """Whether the bot is still to die: where it waits for an answer that is late."""
        return self.cell is not None and self.outcome.boots == 1

    async def drained(self) -> bool:
        """Asks for it, as often as it takes."""
        app = self.app
        if app is None:
            return False
        request = DrainRequest(
            bot_uid=_UID,
            boot_id=app.desk.boot_id,
            position_policy=PositionPolicy.CLOSE_POSITION,
            deadline_seconds=120,
            account_known=self.operated,
            claimed_incarnation=self._claimed if self.operated else None,
            epoch=1 if self.operated else 0,
        )
        status = await self._call(app.control.drain(request))
        return status is not None and status.phase is DrainPhase.DRAINED and not status.remaining and self._synced()

    def _synced(self) -> bool:
        status = self.status()
        told = {one.type: one.status for one in status.conditions} if status else {}
        return told.get("BalanceSynced") == "True" and told.get("Protected") == "True"

    def status(self) -> BotStatus | None:
        """What the bot says of itself now."""
        return build_status(self.app.desk, self._condition_clock, 0) if self.app is not None else None

    # -- the oracles ---------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Looks at the exchange's own books, and at what the bot says of safe mode."""
        while True:
            self.look()
            await asyncio.sleep(WATCH_SECONDS)

    def look(self) -> None:
        """One look."""
        excused = self.excused()
        if self.naked():
            self._naked_for += WATCH_SECONDS
            self._charged_for += 0 if excused else WATCH_SECONDS
        else:
            self._naked_for = self._charged_for = 0.0
        self.outcome.unprotected = max(self.outcome.unprotected, self._naked_for)
        self.outcome.charged = max(self.outcome.charged, self._charged_for)
        if self.acknowledged is None and self.loop.time() > self.safe_at and (status := self.status()) is not None:
            safe = status.safe_mode
            if safe.acknowledged and any(cause.id == self._cause for cause in safe.causes):
                self.acknowledged = self.loop.time()
                # It was told as done: from now on the bot's word counts.
                self._annotations.unlink(missing_ok=True)

    def naked(self) -> bool:
        """Whether a position is without its stop, by the exchange's own books."""
        assert self.exchange.server is not None
        return has_no_stop(self.exchange.server.venue.exchange, self.account.uid, SYMBOL, self.foreign)

    def excused(self) -> bool:
        """Whether nobody, or nothing in time, can protect now: there is no bot, no answer, or no knowledge."""
        assert self.exchange.server is not None
        record = self.exchange.server.faults.record
        fault = self.cell.fault if self.cell is not None else ""
        calls = fault in FAULTS and KINDS[fault].stage is not Stage.EVENT
        if calls and record.written > self._written:
            # The cell's only fault befell a call again, which may wait for its answer for so long.
            self._written, self._excused_until = record.written, self.loop.time() + ORDER_TIMEOUT + 1
        session = self.app.desk.session if self.app is not None else None
        return session is None or self.loop.time() <= self._excused_until or bool(session.manager.unknown)

    async def check(self) -> None:
        """What is not as it must be, at the end."""
        assert self.exchange.server is not None
        outcome, wrong = self.outcome, self.outcome.violations
        record = await self.exchange.fault_record()
        kinds = {row["fault"]: row["is"]["kind"] for row in record if "fault" in row}
        outcome.faults = dict(Counter(kinds[row["applied"]] for row in record if "applied" in row))
        core = self.exchange.server.venue.exchange
        orders = sorted(core.orders.values(), key=lambda order: order.order_id)
        account = await self.exchange.account(self.account.uid)
        history = self.exchange.server.venue.store.history  # the account tells of the newest ones only
        trades = [Fill.read(my_trade(one)) for one in history.trades(self.account.uid, SYMBOL, limit=-1)]
        entries = [order for order in orders if purpose_of(order) is Purpose.ENTRY]
        outcome.entries, outcome.trades = sum(order.executed > 0 for order in entries), len(trades)
        if outcome.charged > self.deadline + 1:
            wrong.append(f"unprotected for {outcome.charged:.1f} s without an excuse")
        if outcome.unprotected > LONGEST_UNPROTECTED:
            wrong.append(f"unprotected for {outcome.unprotected:.1f} s")
        wrong += twice(orders, trades, "BTC") + self.late(orders)
        state = self.folder / f"state-{outcome.boots}" / STORE_FILE
        wrong += await stored(state, orders, trades)
        wrong += self._told(account)
        if self.cell is not None and outcome.boots < 2:
            wrong.append(f"the point was not reached: {outcome.boots} processes")

    def late(self, orders: list[Order]) -> list[str]:
        """Entries after safe mode was acknowledged, and those of an older process after a newer one's."""
        wrong = []
        entries = [order for order in orders if purpose_of(order) in {Purpose.ENTRY, Purpose.ANNOUNCE}]
        if self.acknowledged is not None:
            limit = self.milliseconds(self.acknowledged)
            wrong += [f"{one.client_order_id} entered after safe mode" for one in entries if one.time > limit]
        for former, later in pairwise(entries):
            one, two = parse(former.client_order_id), parse(later.client_order_id)
            if one is not None and two is not None and two.incarnation < one.incarnation:
                wrong.append(f"{later.client_order_id} entered after {former.client_order_id}")
        return wrong

    def milliseconds(self, moment: float) -> int:
        """The exchange's time then."""
        return round((self.start.timestamp() + moment) * 1000)

    def _told(self, account: dict[str, Any]) -> list[str]:
        """What the status says against the exchange's own books."""
        wrong, status = [], self.status()
        if status is None or status.position is None or self.app is None or self.app.desk.session is None:
            return ["there is no status"]
        held = {asset: Decimal(row["free"]) + Decimal(row["locked"]) for asset, row in account["balances"].items()}
        base, quote = held.get("BTC", Decimal(0)) - self.foreign, held["USDT"] - DEPOSIT
        books = self.app.desk.session.manager.books
        if status.position.quantity != base:
            wrong.append(f"the position is {status.position.quantity}, the exchange has {base}")
        if books.realized - books.cost != quote:
            wrong.append(f"profit {books.realized} and cost {books.cost}, the exchange has {quote}")
        if account["openOrders"]:
            wrong.append("orders are open after the drain")
        if self.acknowledged is None:
            wrong.append("safe mode was never acknowledged")
        elif not any(cause.id == self._cause for cause in status.safe_mode.causes):
            wrong.append("safe mode was acknowledged, and is not in force any more")
        return wrong


def purpose_of(order: Order) -> Purpose | None:
    client_id = parse(order.client_order_id)
    return client_id.purpose if client_id else None


def _settings(base_url: str, **changes: Any) -> BotSettings:
    return BotSettings.model_validate(
        {
            "symbol": SYMBOL,
            "exchange": {"environment": "Paper", "baseURL": base_url, "credentialsSecretRef": {"name": "keys"}},
            "strategy": {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 1, "slow": 2}},
            "capital": "1000",
            "entry": {"maxPerMinute": 60},
            "protection": {
                "stopLossRatio": "0.01", "takeProfitRatio": "0.02", "deadlineSeconds": DEADLINE_SECONDS
            },
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "500", "cooldownSeconds": 0},
            "circuitBreaker": {"failureThreshold": 5, "recoveryTimeoutSeconds": 5},
        } | changes
    )  # fmt: skip
