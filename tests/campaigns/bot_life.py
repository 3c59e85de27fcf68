"""A random life of a simulated bot: its market, its settings, faults of its exchange, deaths of its process, a second
process with its keys, and an operator who changes its mind. What it promises is looked at all the time.
"""

from __future__ import annotations

import asyncio
import gc
import math
import multiprocessing
import os
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Final

from campaigns.crash_cycle import (
    FAULTS,
    START_PRICE,
    SYMBOL,
    WATCH_SECONDS,
    Cycle,
    Outcome,
    Point,
    Trunk,
    purpose_of,
)  # fmt: skip
from campaigns.sim_faults import UNPROTECTED_SECONDS, draw_fault
from paper_exchange.core.model import Order, Side
from paper_exchange.core.units import to_decimal, to_units
from support.virtual_program import MortalLoop, Program, running
from tradingbot.gateway.binance import ORDER_TIMEOUT
from tradingbot.lab.sim import LATENCY, START
from tradingbot.recovery.fence import Purpose, parse
from tradingbot.recovery.safe_mode import DAILY_LOSS, DRAWDOWN
from tradingbot_api.bot_http import BotConfig

LIVES: Final = 72
MINUTES: Final = 20.0
"""Of virtual time, for each: 24 hours in all."""
CPU_SECONDS: Final = 600
FENCE_SECONDS: Final = 1.0
"""The longest that an older process enters after a newer one's first order, where nothing disturbs it."""
DEAF_SECONDS: Final = 95.0
"""The same among faults: an entry needs a user stream that answered in 90 s."""
WRONG_SECONDS: Final = 8.0
"""The longest that books may be told as right while they are not, where nothing disturbs them."""
MISSED_SECONDS: Final = 75.0
"""The same among faults, and beside another process: an event that was not told is found within a minute."""
AGAIN_SECONDS: Final = 400.0
"""After the faults, until the bot buys again."""
_END_SECONDS: Final = 180.0
_MISSED: Final = "the books differ from the account"
_FORK: Final = multiprocessing.get_context("fork")
_EVENTS: Final = ("drop_events", "duplicate_events", "reorder_events", "delay_events", "dead_stream", "cut_connection")


@dataclass
class LifeOutcome(Outcome):
    """What came of a life."""

    deaths: int = 0
    rivals: int = 0
    """Second processes with the same keys."""
    changes: int = 0
    """Of the configuration, by an operator."""
    quietly: float = 0.0
    """Seconds for which a position was longest without its stop while no fault lasted."""
    late: float = 0.0
    """Seconds after a newer process's first order at which an older one entered last."""
    wrong: float = 0.0
    """Seconds for which books were longest told as right while they were not."""
    rests: str = ""
    """Why the bot needed not buy again."""
    settings: dict[str, Any] = field(default_factory=dict)


class Life(Cycle):
    """One life, all of it drawn from its seed."""

    outcome: LifeOutcome

    def __init__(self, loop: MortalLoop, seed: int, minutes: float, outcome: LifeOutcome) -> None:
        self.rng = rng = Random(f"{seed}/life")
        super().__init__(loop, Trunk(rng.random() < 0.5, rng.choice([Decimal(0), Decimal("0.5")])), outcome)
        self.seconds = minutes * 60
        self.settings = outcome.settings = _random_settings(rng)
        self.deadline = self.settings["protection"]["deadlineSeconds"]
        self.level = rng.choice(["0.00200000", "0.00400000", "0.05000000"])
        # Some lives go on over midnight.
        self.start = START + timedelta(seconds=rng.choice([0.0, 86_400 - rng.uniform(0, self.seconds)]))
        self.safe_at = self._drain_at = math.inf
        self.former: Program | None = None
        self.safe: list[tuple[float, float]] = []
        """From when to when no entry may be: acknowledged, and not yet taken back."""
        self._calm_at = math.inf
        self._disturbed: list[tuple[float, float]] = []
        """From when to when faults lasted, with what they kept waiting."""
        self._wrong_for = self._quietly_naked_for = 0.0
        self._wrong_excused = False

    def beside(self) -> list[Coroutine[Any, Any, None]]:
        return [*super().beside(), self._disturb(), self._disrupt(), self._change_mind()]

    def config(self, revision: int, **changes: Any) -> BotConfig:
        return super().config(revision, **self.settings | changes)

    async def live(self) -> None:
        await self._operate_until(self.seconds)
        self._calm_at = self.loop.time()
        await self.exchange.clear_faults()
        self.deaths.clear()
        if self.former is not None:
            self.loop.kill(self.former)
        self._take_safe_mode_back()
        bought = self._purchases()
        while self._purchases() == bought:
            await self._operate_until(self.loop.time() + 1)
            if self.loop.time() > self._calm_at + AGAIN_SECONDS:
                status = self.status()
                causes = {cause.id for cause in status.safe_mode.causes} if status else set[str]()
                self.outcome.rests = ", ".join(causes & {DAILY_LOSS.id, DRAWDOWN.id})
                if not self.outcome.rests:
                    self.outcome.violations.append(f"buys nothing for {AGAIN_SECONDS} s without faults: {causes}")
                break
        self.safe_at = self.loop.time()
        end = self.safe_at + _END_SECONDS
        while self.acknowledged is None and self.loop.time() < end:
            await self._operate_until(self.loop.time() + 1)
        await self._operate_until(self.loop.time() + 10)
        self._drain_at = self.loop.time()
        while not await self.operate():
            if self.loop.time() > end:
                told = self.status()
                self.outcome.violations.append(f"not drained: {told and told.model_dump_json()[:3000]}")
                return
            await asyncio.sleep(0.5)

    async def _operate_until(self, moment: float) -> None:
        while self.loop.time() < moment:
            await self.operate()
            await asyncio.sleep(0.5)

    def _purchases(self) -> int:
        assert self.exchange.server is not None
        orders = self.exchange.server.venue.exchange.orders.values()
        return sum(order.side is Side.BUY and order.executed > 0 for order in orders)

    # -- what happens to it ----------------------------------------------------------------------------------------

    async def move_market(self) -> None:
        """A walk with jumps that comes home; in the calm waves, of which each average sees the turns."""
        assert self.exchange.server is not None
        venue, rng, share = self.exchange.server.venue, Random(self.rng.random()), 0.0
        step = rng.choice([0.0003, 0.0008, 0.0015])
        for second in count(1):
            await self._until(second + 0.4)
            share += rng.gauss(0, step) - share / 600
            if rng.random() < 1 / 200:
                share += rng.uniform(-0.04, 0.03)
            if self.loop.time() > self._calm_at:
                share = 0.003 * abs(1 - second % 40 / 20)
            price = round(START_PRICE * math.exp(share))
            venue.gap(SYMBOL, to_units(Decimal(price)) - (venue.exchange.market(SYMBOL).last or 0))

    async def _disturb(self) -> None:
        rng = Random(self.rng.random())
        while True:
            await asyncio.sleep(rng.uniform(5, 90))
            fault = draw_fault(rng)
            if rng.random() < 0.4:
                kind = rng.choice(_EVENTS)
                fault = {"kind": kind} | FAULTS[kind]
            if self.loop.time() > self._calm_at:
                return
            assert self.exchange.server is not None
            self.exchange.server.faults.start(fault)

    async def _disrupt(self) -> None:
        """Processes that die, end in order, or find another one at work."""
        rng = Random(self.rng.random())
        while True:
            await asyncio.sleep(rng.uniform(20, 150))
            if self.loop.time() > self._calm_at:
                return
            self.restart_seconds = rng.uniform(0.5, 8)
            what = rng.choice(["request", "commit", "commit", "end", "rival"])
            if self.program is None or not self.program.alive or self.app is None:
                continue
            if what == "end":
                await self._restart()
            elif what == "rival":
                await self._rival(rng.uniform(2, 60))
            else:
                boot = self.outcome.boots
                point = Point(what, self.counts[boot, what] + rng.randint(1, 25))
                self.deaths[boot] = point, rng.choice(point.moments)

    async def _restart(self) -> None:
        assert self.app is not None
        app, boot, program = self.app, self.outcome.boots, self.program
        app.stop()
        if self.task is not None:
            await asyncio.wait([self.task], timeout=60)
        if self.outcome.boots != boot or program is None or not program.alive:
            return  # it died meanwhile
        self.loop.kill(program)
        self.app = None
        shutil.copytree(self.folder / f"state-{boot}", self.folder / f"state-{boot + 1}")
        await asyncio.sleep(self.restart_seconds)
        self.outcome.deaths += 1
        self.boot()

    async def _rival(self, seconds: float) -> None:
        """A new process with a store of its own takes over; the one before lives on for some time."""
        self.former = former = self.program
        self.deaths.pop(self.outcome.boots, None)
        self.outcome.rivals += 1
        self.boot()
        await asyncio.sleep(seconds)
        if former is not None:
            self.loop.kill(former)

    def keep_log(self, logger: Any, level: str, event: Any) -> Any:
        # A process that another one took over from says so, and so does one that missed a fill; how long books are
        # wrong is looked at elsewhere.
        what = event.get("event")
        expected = (what == "two traders" and running() is not self.program) or what == _MISSED
        return super().keep_log(logger, "warning" if expected else level, event)

    def killed(self) -> None:
        self.outcome.deaths += 1

    async def lead(self) -> None:
        # An operator leads nobody while the process before may still hold its grant.
        if self.former is None or not self.former.alive:
            await super().lead()

    async def _change_mind(self) -> None:
        """Safe mode for a while, or other limits, as an operator tells them."""
        rng = Random(self.rng.random())
        while self.operated:
            await asyncio.sleep(rng.uniform(30, 200))
            if self.loop.time() > self._calm_at:
                return
            self.outcome.changes += 1
            self.revision += 1
            if rng.random() < 0.5:
                self.changes = {"risk": self.settings["risk"] | {"maxPositionValue": rng.choice(["200", "500"])}}
                continue
            self.changes = {"safeMode": True}
            self.safe_at = self.loop.time()
            await asyncio.sleep(rng.uniform(5, 60))
            if self.loop.time() > self._calm_at:
                return
            self._take_safe_mode_back()

    def _take_safe_mode_back(self) -> None:
        if self.acknowledged is not None:
            self.safe.append((self.acknowledged, self.loop.time()))
        self.acknowledged, self.safe_at = None, math.inf
        if self.operated:
            self.revision += 1
            self.changes = {}

    def wish_safe_mode(self) -> None:
        if self.operated and self.changes != {"safeMode": True}:
            self.revision += 1
        super().wish_safe_mode()

    # -- what must be ----------------------------------------------------------------------------------------------

    def disturbed(self) -> bool:
        """Whether a fault lasts, or what it kept waiting may."""
        return bool(self._disturbed) and self.loop.time() <= self._disturbed[-1][1]

    def _note_faults(self) -> None:
        assert self.exchange.server is not None
        if self.exchange.server.faults.engine.in_force():
            begin = self._disturbed.pop()[0] if self.disturbed() else self.loop.time()
            self._disturbed.append((begin, self.loop.time() + ORDER_TIMEOUT + 1))

    def excused(self) -> bool:
        session = self.app.desk.session if self.app is not None else None
        return self.disturbed() or session is None or bool(session.manager.unknown)

    def look(self) -> None:
        self._note_faults()
        super().look()
        outcome, disturbed = self.outcome, self.disturbed()
        self._quietly_naked_for = self._quietly_naked_for + WATCH_SECONDS if self.naked() and not disturbed else 0.0
        outcome.quietly = max(outcome.quietly, self._quietly_naked_for)
        self._look_at_entries()
        if self.former is not None and self.former.alive:
            self._another_until = self.loop.time() + MISSED_SECONDS
        missed = disturbed or self.loop.time() < self._another_until
        wrong = self._wrong()
        # What was missed is looked for no sooner because the faults are over.
        self._wrong_excused = wrong and (missed or self._wrong_excused)
        self._wrong_for = self._wrong_for + WATCH_SECONDS if wrong else 0.0
        outcome.wrong = max(outcome.wrong, self._wrong_for)
        if self._wrong_for > (MISSED_SECONDS if self._wrong_excused else WRONG_SECONDS) and not self._wrong_said:
            self._wrong_said = True
            outcome.violations.append(f"at {self.loop.time():.1f} the books were wrong for {self._wrong_for:.1f} s")

    _wrong_said = _open_said = False
    _another_until = 0.0

    def _look_at_entries(self) -> None:
        assert self.exchange.server is not None
        orders = self.exchange.server.venue.exchange.open_orders(self.account.uid, SYMBOL)
        if self.acknowledged is None or self._open_said:
            return
        if any(order.side is Side.BUY and order.live for order in orders):
            self._open_said = True
            self.outcome.violations.append(f"at {self.loop.time():.1f} an entry was open in acknowledged safe mode")

    def _wrong(self) -> bool:
        """Whether the bot says that its books are right, and they are not."""
        assert self.exchange.server is not None
        session = self.app.desk.session if self.app is not None else None
        if session is None or session.verdict is None or session.drifts or session.manager.unknown:
            return False
        balance = self.exchange.server.venue.exchange.accounts[self.account.uid].balance("BTC")
        if session.manager.books.quantity == to_decimal(balance.free + balance.locked) - self.foreign:
            return False
        status = self.status()
        return status is not None and any(
            one.type == "BalanceSynced" and one.status == "True" for one in status.conditions
        )

    def late(self, orders: list[Order]) -> list[str]:
        """Entries while safe mode was acknowledged, and of an older process after a newer one's first order."""
        wrong, first = [], dict[int, int]()
        if self.acknowledged is not None:
            self.safe.append((self.acknowledged, math.inf))
        for order in orders:
            client_id = parse(order.client_order_id)
            if client_id is None:
                continue
            first.setdefault(client_id.incarnation, order.time)
            if purpose_of(order) not in {Purpose.ENTRY, Purpose.ANNOUNCE}:
                continue
            moment = order.time / 1000 - self.start.timestamp()
            wrong += [
                f"{order.client_order_id} entered at {moment:.1f}, in safe mode since {begin:.1f}"
                for begin, end in self.safe
                if begin + 0.001 < moment < end
            ]
            newer = [time for incarnation, time in first.items() if incarnation > client_id.incarnation]
            if newer:
                late = (order.time - min(newer)) / 1000
                self.outcome.late = max(self.outcome.late, late)
                among = any(begin <= moment and end >= moment - late for begin, end in self._disturbed)
                if late > (DEAF_SECONDS if among else FENCE_SECONDS):
                    wrong.append(f"{order.client_order_id} entered {late:.1f} s after a newer process's order")
        if self.outcome.quietly > UNPROTECTED_SECONDS:
            wrong.append(f"unprotected for {self.outcome.quietly:.1f} s while no fault lasted")
        return wrong


def _random_settings(rng: Random) -> dict[str, Any]:
    fast, slow = rng.choice([(1, 2), (2, 5), (3, 8)])
    return {
        "strategy": {"name": "ema-cross", "interval": "1s", "parameters": {"fast": fast, "slow": slow}},
        "entry": {"maxPerMinute": rng.choice([10, 60])},
        "protection": {
            "stopLossRatio": f"{rng.uniform(0.003, 0.02):.4f}",
            "takeProfitRatio": f"{rng.uniform(0.003, 0.03):.4f}",
            "deadlineSeconds": rng.choice([5, 10, 15]),
        },
        "risk": {
            "riskPerTradeRatio": rng.choice(["0.003", "0.01"]),
            "maxPositionValue": "500",
            "maxDailyLoss": rng.choice(["500", "500", "10"]),
            "maxDrawdownRatio": rng.choice(["0.9", "0.9", "0.01"]),
            "cooldownSeconds": rng.choice([0, 0, 15]),
        },
        "circuitBreaker": {
            "failureThreshold": rng.choice([2, 5]), "recoveryTimeoutSeconds": rng.choice([2, 5, 30]),
        },
    }  # fmt: skip


def run_life(seed: int, minutes: float = MINUTES) -> LifeOutcome:
    """One life in a process of its own: what the dead left behind ends with it."""
    near, far = _FORK.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="tradingbot-life-") as folder:
        process = _FORK.Process(target=_live, args=(seed, minutes, Path(folder), far))
        process.start()
        far.close()
        try:
            outcome: LifeOutcome = near.recv()
        except EOFError:
            outcome = LifeOutcome(violations=[f"ended early; {CPU_SECONDS} s of the processor's time are the most"])
        process.join()
    return outcome


def _live(seed: int, minutes: float, folder: Path, results: Connection[Any, Any]) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    gc.disable()  # a coroutine of the dead that is freed runs its `finally`
    os.chdir(folder)
    loop = MortalLoop(Random(f"{seed}/network"), LATENCY)
    outcome = LifeOutcome()
    try:
        loop.run_until_complete(Life(loop, seed, minutes, outcome).run())
    except Exception:
        outcome.violations.append(traceback.format_exc())
    outcome.virtual, outcome.seconds = loop.time(), time.process_time()
    outcome.points.clear()
    results.send(outcome)
    os._exit(0)  # nothing of the dead is freed
