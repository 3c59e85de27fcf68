"""Random lives of a limited fleet: bots that ask, buy, sell, die and come back, leaders that follow each other while
the former one still speaks, and messages that are lost, repeated and late in both directions. The bots' keepers and
the leaders' books are the real ones. After each step what the bots have together is within the limits.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tradingbot.recovery.reservation import ReservationKeeper
from tradingbot_api.bot_http import FleetReport, Reservation
from tradingbot_operator.budget import Bound, FleetBook, Limits, Told, next_bound

LIVES: Final = 20
"""Seeds of the campaign."""
BOTS: Final = 3
MOST_VALUE: Final = Decimal(100)
MOST_BOTS: Final = 2
BOUND: Final = Decimal(60)
"""What a bot may have by its own spec: two of them do not fit."""
MOST_WAITING: Final = 40
"""Messages on their way in one direction; older ones are lost."""
SHARES: Final = (Decimal(1), Decimal(1), Decimal("0.5"), Decimal("0.1"))
OFTEN: Final = {
    "trade": 6, "sell": 6, "all trade": 3, "all talk": 5, "talk": 3, "tell": 5, "hear": 7, "arrive": 7, "ask": 7,
    "send": 7, "fill": 2, "wait": 3, "expire": 3, "give back": 2, "die": 1, "start": 2, "reconcile": 4, "lead": 1,
    "change spec": 2, "tighten": 2, "record": 4,
}  # fmt: skip
"""How often each step is drawn."""


class Step(NamedTuple):
    """A step: of which bot or message, and how much, late or again."""

    what: str
    which: int
    much: int


STEPS_DRAWN: Final = st.builds(
    Step,
    st.sampled_from([what for what, often in OFTEN.items() for _ in range(often)]),
    st.integers(0, 5),
    st.integers(0, 11),
)


@dataclass
class Life:
    """What came of a seed."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    done: Counter[str] = field(default_factory=Counter)
    violation: str = ""


class Bot:
    """One TradingBot: what it has on the exchange, and its process, if one runs."""

    def __init__(self, number: int, clock: Clock) -> None:
        self.uid = f"bot-{number}"
        self._clock = clock
        self.cost = Decimal(0)
        self.working = Decimal(0)
        """What its entries that work, are in flight or of unknown outcome may cost."""
        self.allowed = self.recorded = BOUND
        """By its spec, and in its status."""
        self.starts = 0
        self.alive = self.knows = False
        self.start()

    def start(self) -> None:
        """A process starts; it knows the exchange only later."""
        self.starts += 1
        self.alive, self.knows = True, False
        # Each process counts its own time.
        self.began = self._clock.now - 1000 * self.starts
        self.keeper = ReservationKeeper(lambda: True, self.monotonic)

    def monotonic(self) -> float:
        return self._clock.now - self.began

    @property
    def bound(self) -> Bound:
        return Bound.of(self.allowed, self.recorded)

    @property
    def boot(self) -> str:
        return f"{self.uid}-{self.starts}"

    @property
    def exposure(self) -> Decimal:
        return self.cost + self.working

    def told(self) -> Told:
        """What its status says now."""
        epoch, number = self.keeper.seen
        report = FleetReport(
            clock=self.monotonic(),
            exposure=self.exposure if self.knows else None,
            in_position=self.knows and self.exposure > 0,
            epoch=epoch,
            number=number,
            reserved=self.keeper.exposure,
            request=self.keeper.request,
            quote_asset="USDT",
        )
        return Told(self.uid, self.boot, self.starts if self.knows else None, report)


class Clock:
    """Time that passes at the same pace for all."""

    def __init__(self) -> None:
        self.now = 10_000.0


class Fleet:
    """The bots, the leaders so far, and the messages on their way."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._clock = Clock()
        self._bots = [Bot(number, self._clock) for number in range(BOTS)]
        self._books: list[FleetBook] = []
        self._up: list[Told] = []
        self._down: list[Reservation] = []
        for bot in self._bots:
            bot.knows = True
        self._lead()

    def act(self, step: Step) -> None:
        """One step, and what must hold after it."""
        self._life.steps += 1
        self._act(step, self._bots[step.which % BOTS], SHARES[step.much % len(SHARES)])
        exposures = {bot.uid: bot.exposure for bot in self._bots}
        assert sum(exposures.values()) <= MOST_VALUE, f"the value passes its limit: {exposures}"
        assert sum(one > 0 for one in exposures.values()) <= MOST_BOTS, f"too many are in position: {exposures}"

    def _act(self, step: Step, bot: Bot, share: Decimal) -> None:
        former, again = step.much % 3 == 0, step.much % 2 == 0
        match step.what:
            case "wait":
                self._clock.now += (0.1, 2.0, 7.0, 16.0)[step.much % 4]
            case "tell":
                if bot.alive:
                    self._up = [*self._up[-MOST_WAITING:], bot.told()]
            case "hear":
                if step.which < len(self._up):
                    told = self._up[-1 - step.which] if again else self._up.pop(-1 - step.which)
                    self._hear(told, former)
            case "arrive":
                if step.which < len(self._down):
                    self._arrive(self._down[-1 - step.which] if again else self._down.pop(-1 - step.which))
            case "talk":
                self._talk(bot, former)
            case "all talk":
                for one in self._bots * 2:
                    self._talk(one, former)
            case "ask":
                self._ask(bot, BOUND * share)
            case "send":
                self._send(bot, share)
            case "trade":
                if self._ask(bot, BOUND * share):
                    self._talk(bot, former)
                    self._send(bot, SHARES[step.which % len(SHARES)])
            case "all trade":
                asking = [one for one in self._bots if self._ask(one, BOUND * share)]
                answers = [self._hear(one.told(), former) for one in asking]
                for answer in answers:
                    self._arrive(answer)
                for one in asking:
                    self._send(one, Decimal(1))
            case "fill":
                bought = bot.working * share
                bot.working -= bought
                bot.cost += bought
            case "expire":
                bot.working = Decimal(0)
            case "give back":
                bot.keeper.give_back()
            case "sell":
                bot.cost *= 1 - share
            case "die":
                bot.alive = False
            case "start":
                bot.start()
            case "reconcile":
                bot.knows = bot.alive
            case "lead":
                self._lead()
            case "change spec":
                bot.allowed = BOUND * share
            case "tighten":  # and the next leader has not heard who holds more
                max(self._bots, key=lambda one: one.exposure).allowed = BOUND / 10
                self._lead()
            case "record":
                bot.recorded = next_bound(bot.allowed, bot.recorded, self._books[-1].known(bot.uid))

    def _lead(self) -> None:
        """Another leader, with an empty memory; the former one does not know yet."""
        self._books.append(FleetBook(len(self._books)))
        self._books[-1].configure(Limits(MOST_VALUE, None, MOST_BOTS), {bot.uid: bot.bound for bot in self._bots})
        self._life.done["leader"] += 1

    def _hear(self, told: Told, former: bool) -> Reservation | None:
        book = self._books[-2 if former and len(self._books) > 1 else -1]
        if book is self._books[-1]:  # the former one sees no change any more
            book.bind(told.bot_uid, next(bot.bound for bot in self._bots if bot.uid == told.bot_uid))
        answer = book.hear(told, self._clock.now)
        if answer is not None:
            kind = "learned of a leader" if answer.request is None else "granted" if answer.exposure else "refused"
            self._life.done[kind] += 1
            self._down = [*self._down[-MOST_WAITING:], answer]
        return answer

    def _arrive(self, message: Reservation | None) -> None:
        if message is None:
            return
        bot = next(bot for bot in self._bots if bot.uid == message.bot_uid)
        if bot.alive and message.boot_id == bot.boot:
            bot.keeper.take(message)

    def _talk(self, bot: Bot, former: bool) -> None:
        if bot.alive:
            self._arrive(self._hear(bot.told(), former))

    def _ask(self, bot: Bot, amount: Decimal) -> bool:
        if not (bot.alive and bot.knows) or bot.exposure > 0:
            return False
        bot.keeper.ask(bot.exposure + amount)
        return True

    def _send(self, bot: Bot, share: Decimal) -> None:
        """An entry of this share of what is reserved; it is exposure already when it is decided for the last time."""
        cost = (bot.keeper.exposure - bot.exposure) * share
        if not bot.alive or not bot.knows or cost <= 0:
            return
        bot.working += cost
        if bot.keeper.covers(bot.exposure):
            self._life.done["sent"] += 1
        else:
            bot.working -= cost


def live(number: int, examples: int = 500) -> Life:
    """All lives of a seed; a violation tells the steps that are needed for it."""
    found, begun = Life(number), time.monotonic()

    @seed(number)
    @settings(
        max_examples=examples,
        phases=(Phase.generate, Phase.shrink),
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(STEPS_DRAWN, min_size=30, max_size=120))
    def fleet(steps: list[Step]) -> None:
        world = Fleet(found)
        for step in steps:
            world.act(step)

    try:
        fleet()
    except Exception:
        found.violation = traceback.format_exc()
    found.seconds = time.monotonic() - begun
    return found
