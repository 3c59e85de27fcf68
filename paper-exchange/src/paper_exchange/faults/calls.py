"""What faults make of a call: held up, refused, executed and not answered, or measured by a wrong clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from paper_exchange.core.errors import ExchangeError
from paper_exchange.faults.engine import Applied, Engine
from paper_exchange.faults.model import Stage, Subject

_USUAL_RETRY: Final = 60
"""Seconds after which to come back, where a fault has no end."""
_STAGES: Final = tuple(stage for stage in Stage if stage is not Stage.EVENT)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer in place of the true one."""

    status: int
    code: int
    message: str
    page: str = ""
    """HTML, which REST answers instead of the code."""
    retry_after: int | None = None
    """Seconds."""

    def error(self, now_ms: int) -> ExchangeError:
        """As the WebSocket API tells it."""
        retry_at = None if self.retry_after is None else now_ms + self.retry_after * 1000
        return ExchangeError(self.code, self.message, self.status, retry_at=retry_at)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What happens to a call at one moment, before or after it is executed."""

    seconds: float = 0.0
    """It waits for so long; what follows comes after that."""
    refusal: Refusal | None = None
    lost: bool = False
    """There is no answer: the connection is cut, or nothing is said."""
    cut: bool = False
    skew_ms: int = 0
    """How far the exchange's clock is ahead."""

    @property
    def ends(self) -> bool:
        """Whether the answer is decided."""
        return self.lost or self.refusal is not None


NONE: Final = Disturbance()


class CallFaults:
    """The faults in force, asked by whoever answers calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def any(self) -> bool:
        """Whether a call has to be looked at."""
        return self._engine.any(*_STAGES)

    def before(self, subject: Subject) -> Disturbance:
        """What happens to a call that came in; it is not executed where that decides its answer."""
        skew = sum(one.fault.parameters["milliseconds"] for one in self._engine.all(Stage.CLOCK, subject))
        return _disturbance(
            self._engine.all(Stage.DELAY, subject), self._engine.first(Stage.REFUSE, subject), skew_ms=skew
        )

    def after(self, subject: Subject, *, accepted: bool) -> Disturbance:
        """What happens to a call that was executed; the answer of one that was refused may only be late."""
        ending = self._engine.first(Stage.ANSWER, subject) if accepted else None
        return _disturbance(self._engine.all(Stage.ANSWER_DELAY, subject), ending)


def _disturbance(delays: list[Applied], ending: Applied | None, skew_ms: int = 0) -> Disturbance:
    parameters = [one.fault.parameters for one in delays]
    chances = [one.luck for one in delays]
    seconds = sum(p["seconds"] + p["jitter"] * luck for p, luck in zip(parameters, chances, strict=True))
    if ending is None:
        return Disturbance(seconds, skew_ms=skew_ms) if delays or skew_ms else NONE
    told: Any = ending.fault.parameters
    if "cut" in told:
        return Disturbance(seconds, lost=True, cut=told["cut"], skew_ms=skew_ms)
    refusal = Refusal(told["status"], told["code"], told["message"], told.get("page", ""), _retry_after(ending))
    return Disturbance(seconds, refusal, skew_ms=skew_ms)


def _retry_after(applied: Applied) -> int | None:
    parameters = applied.fault.parameters
    if parameters["status"] not in (418, 429):
        return None
    given: int | None = parameters.get("retryAfter")
    if given is None:
        given = _USUAL_RETRY if applied.left is None else max(1, int(applied.left) + 1)
    return given
