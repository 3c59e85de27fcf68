"""The faults in force: which of them befall a call or an event, decided by seed and number, and told to a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Final

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.faults.model import Fault, Stage, Subject

_MOST: Final = 1000


@dataclass(frozen=True, slots=True)
class Applied:
    """A fault that befell something: the `nth` of what met its filters since it is in force."""

    ident: int
    fault: Fault
    nth: int
    subject: Subject
    luck: float
    """From 0 to 1, for what the fault leaves to chance."""
    left: float | None
    """Seconds that it still lasts."""


@dataclass(slots=True, eq=False)
class InForce:
    """One fault in force, and how often it was met."""

    ident: int
    fault: Fault
    since: float
    met: int = 0
    in_time: int = 0
    """Of those, within its time."""
    applied: int = 0

    def left(self, now: float) -> float | None:
        """Seconds that it still lasts."""
        lasting = self.fault.seconds
        return None if lasting is None else self.since + self.fault.begin + lasting - now

    def over(self, now: float) -> bool:
        """Whether it cannot befall anything more."""
        fault = self.fault
        if fault.nth is not None:
            return self.met >= max((last for _, last in fault.nth), default=0)
        left = self.left(now)
        return (left is not None and left <= 0) or (fault.count is not None and self.applied >= fault.count)

    def befalls(self, subject: Subject, now: float) -> Applied | None:
        """Count something that meets its filters, and say whether it happens to it."""
        fault = self.fault
        self.met += 1
        chance, luck = _chances(fault.seed, self.met)
        if fault.nth is not None:
            happens = any(first <= self.met <= last for first, last in fault.nth)
        elif now < self.since + fault.begin:
            happens = False
        else:
            self.in_time += 1
            happens = self.in_time > fault.skip and chance < fault.probability
        if not happens:
            return None
        self.applied += 1
        return Applied(self.ident, fault, self.met, subject, luck, self.left(now))


def _chances(seed: int | None, number: int) -> tuple[float, float]:
    """Two numbers from 0 to 1 that follow from a seed and a number, however many were asked for before."""
    made = blake2b(f"{seed}/{number}".encode(), digest_size=12).digest()
    return int.from_bytes(made[:6]) / 2**48, int.from_bytes(made[6:]) / 2**48


class Engine:
    """All faults in force, oldest first; `now` comes from a clock of seconds that only goes forward."""

    def __init__(self, seed: int, clock: Callable[[], float], hear: Callable[[Applied], None]) -> None:
        """`hear` is told of whatever a fault befell."""
        self._seed = seed
        self.clock = clock
        self._hear = hear
        self._next = 1
        self._stages: dict[Stage, list[InForce]] = {stage: [] for stage in Stage}

    def start(self, fault: Fault) -> InForce:
        """Put a fault in force; one without a seed gets one that follows from the engine's and its own number."""
        if sum(map(len, self._stages.values())) >= _MOST:
            raise ControlInvalidError(f"faults: expected at most {_MOST} in force, got one more; end some")
        if fault.seed is None:
            fault = replace(fault, seed=self._seed * 1_000_003 + self._next)
        begun = InForce(self._next, fault, self.clock())
        self._next += 1
        self._stages[fault.stage].append(begun)
        return begun

    def stop(self, ident: int) -> bool:
        """End a fault; False where none of this number is in force."""
        for faults in self._stages.values():
            for one in faults:
                if one.ident == ident:
                    faults.remove(one)
                    return True
        return False

    def in_force(self) -> list[InForce]:
        """The faults that may still befall something, oldest first."""
        now = self.clock()
        for stage, faults in self._stages.items():
            if any(one.over(now) for one in faults):
                self._stages[stage] = [one for one in faults if not one.over(now)]
        return sorted((one for faults in self._stages.values() for one in faults), key=lambda one: one.ident)

    def any(self, *stages: Stage) -> bool:
        """Whether there is anything to ask."""
        return any(self._stages[stage] for stage in stages)

    def first(self, stage: Stage, subject: Subject) -> Applied | None:
        """The oldest fault of a stage that befalls this; those behind it do not meet it."""
        return next(self._applied(stage, subject), None)

    def all(self, stage: Stage, subject: Subject) -> list[Applied]:
        """Every fault of a stage that befalls this, oldest first."""
        return list(self._applied(stage, subject))

    def _applied(self, stage: Stage, subject: Subject) -> Iterator[Applied]:
        now = self.clock()
        for one in list(self._stages[stage]):
            if one.over(now):
                self._stages[stage].remove(one)
            elif one.fault.meets(subject):
                applied = one.befalls(subject, now)
                if applied is not None:
                    self._hear(applied)
                    yield applied
