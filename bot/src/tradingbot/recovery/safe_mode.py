"""Safe mode: the causes that forbid entries, and the strictest level of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final

from tradingbot_api import names
from tradingbot_api.bot_http import ImposedCause
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import SafeModeCause, SafeModeStatus


class Level(IntEnum):
    """What may still be sent. Ordered: a greater level forbids more."""

    NORMAL = 0
    NO_NEW_ENTRIES = 1
    """The strategy's exits run, protection is kept."""
    REDUCE_ONLY = 2
    """The position is sold."""
    HALTED = 3
    """Nothing is sent; protection stays on the exchange."""

    @property
    def word(self) -> str:
        """The level as the status spells it."""
        return LEVEL_WORDS[self]


LEVEL_WORDS: Final = {
    Level.NORMAL: "Normal",
    Level.NO_NEW_ENTRIES: "NoNewEntries",
    Level.REDUCE_ONLY: "ReduceOnly",
    Level.HALTED: "Halted",
}


class Source(StrEnum):
    """Who wants safe mode."""

    SPEC = "Spec"
    KILL_SWITCH = names.KILL_SWITCH.kind
    CLUSTER_KILL_SWITCH = names.CLUSTER_KILL_SWITCH.kind
    POD = "Pod"
    OPERATOR = "Operator"
    BOT = "Bot"
    COMMAND = "Command"


@dataclass(frozen=True, slots=True)
class CauseKind:
    """A reason for safe mode that there can be; all of them are told in docs/safe-mode.md."""

    id: str
    source: Source
    reason: Reason
    clears: str
    """What ends it."""
    levels: tuple[Level, ...] = (Level.NO_NEW_ENTRIES,)
    """The level of it, then those that it may have besides."""
    latched: bool = False
    """It survives a restart and ends only when a human clears it."""


def _cleared_by_hand(cause_id: str) -> str:
    return f"kubectl annotate tradingbot NAME {names.CLEAR_ANNOTATION}={cause_id}"


SPEC: Final = CauseKind(
    "spec",
    Source.SPEC,
    Reason.SPEC,
    "set spec.safeMode to false or remove it",
    (Level.NO_NEW_ENTRIES, Level.REDUCE_ONLY),
)
ANNOTATION: Final = CauseKind(
    "annotation", Source.POD, Reason.POD_ANNOTATION, _cleared_by_hand("annotation"), latched=True
)
ANNOTATION_STANDS: Final = (
    f"the pod still has the annotation {names.SAFE_MODE_ANNOTATION} (its removal is seen within two minutes): remove "
    f"it, and only then {_cleared_by_hand('annotation')}"
)
"""What ends the cause `annotation` while it has no effect to clear it."""
AWAITING_GRANT: Final = CauseKind(
    "awaiting-grant",
    Source.OPERATOR,
    Reason.AWAITING_GRANT,
    "ends with a grant of the operator",
    (Level.NO_NEW_ENTRIES, Level.HALTED),
)
DRAINING: Final = CauseKind("draining", Source.OPERATOR, Reason.DRAINING, "the bot ends")
BREAKER: Final = CauseKind("breaker", Source.BOT, Reason.BREAKER_OPEN, "ends when a probe of the exchange succeeds")
DAILY_LOSS: Final = CauseKind("daily-loss", Source.BOT, Reason.DAILY_LOSS, "ends at 00:00 UTC")
DRAWDOWN: Final = CauseKind("drawdown", Source.BOT, Reason.DRAWDOWN, _cleared_by_hand("drawdown"), latched=True)
UNTRUSTED_BOOKS: Final = CauseKind(
    "untrusted-books",
    Source.BOT,
    Reason.UNTRUSTED_BOOKS,
    "ends when the books agree with the account again; where it cannot come back, take the account's word: "
    + _cleared_by_hand("untrusted-books"),
    (Level.NO_NEW_ENTRIES, Level.REDUCE_ONLY),
)
UNKNOWN_ORDER: Final = CauseKind(
    "unknown-order", Source.BOT, Reason.UNKNOWN_ORDER, "ends when the exchange has said what became of the order"
)
STORE: Final = CauseKind(
    "store",
    Source.BOT,
    Reason.STORE_FAILED,
    "ends when the store can be written again and the books were compared",
)
STORE_LOST: Final = CauseKind(
    "store-lost",
    Source.BOT,
    Reason.STORE_FAILED,
    f"check the position, then {_cleared_by_hand('store-lost')}",
    latched=True,
)
EXCHANGE_RESET: Final = CauseKind(
    "exchange-reset",
    Source.BOT,
    Reason.EXCHANGE_RESET,
    f"begin anew with new books: {_cleared_by_hand('exchange-reset')}; the former are kept beside them",
    (Level.HALTED,),
    latched=True,
)
FLATTENED: Final = CauseKind(
    "flattened",
    Source.COMMAND,
    Reason.FLATTENED,
    f"{_cleared_by_hand('flattened')}; without an operator: tradingbot run FILE --clear flattened",
    (Level.REDUCE_ONLY,),
    latched=True,
)
TWO_TRADERS: Final = CauseKind(
    "two-traders",
    Source.BOT,
    Reason.TWO_TRADERS,
    "stop the other process, then restart this bot",
    (Level.HALTED,),
)
CAUSES: Final = (
    SPEC,
    ANNOTATION,
    AWAITING_GRANT,
    DRAINING,
    BREAKER,
    DAILY_LOSS,
    DRAWDOWN,
    UNTRUSTED_BOOKS,
    UNKNOWN_ORDER,
    STORE,
    STORE_LOST,
    EXCHANGE_RESET,
    FLATTENED,
    TWO_TRADERS,
)


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for safe mode that is in force."""

    id: str
    source: Source
    reason: Reason
    level: Level
    since: datetime
    clears: str
    latched: bool = False
    imposed: bool = False
    """The operator put it in force, from outside the spec."""
    message: str = ""

    @classmethod
    def of_operator(cls, wanted: ImposedCause, since: datetime) -> Cause:
        """A cause as the operator imposes it; a newer one may use words that this version does not know."""
        return cls(
            wanted.id,
            Source(wanted.source) if wanted.source in list(Source) else Source.OPERATOR,
            Reason(wanted.reason) if wanted.reason in list(Reason) else Reason.UNKNOWN,
            level_of(wanted.level),
            since,
            wanted.clears,
            imposed=True,
            message=wanted.message,
        )

    def to_json(self) -> dict[str, str | int]:
        """For the store."""
        return {
            "id": self.id,
            "source": self.source,
            "reason": self.reason,
            "level": int(self.level),
            "since": self.since.isoformat(),
            "clears": self.clears,
        }


def level_of(word: str) -> Level:
    """The level of a cause of the operator's: whatever the word is, no entry is sent, and only one that is known sells
    a position."""
    return Level.REDUCE_ONLY if word == Level.REDUCE_ONLY.word else Level.NO_NEW_ENTRIES


class SafeMode:
    """All causes in force. Engaged means: from now on no entry is sent."""

    def __init__(self) -> None:
        self._causes: dict[str, Cause] = {}

    def activate(self, kind: CauseKind, *, since: datetime, level: Level | None = None, clears: str = "") -> bool:
        """Put a cause in force, at its own level unless told; True when that changed anything.

        The first `since` of a cause stands. `clears` is said where there is more to say than for every such cause.
        """
        present = self._causes.get(kind.id)
        cause = Cause(
            kind.id,
            kind.source,
            kind.reason,
            kind.levels[0] if level is None else level,
            present.since if present else since,
            clears or kind.clears,
            kind.latched,
        )
        if cause == present:
            return False
        self._causes[kind.id] = cause
        return True

    def impose(self, wanted: Iterable[ImposedCause], *, since: datetime) -> None:
        """Put these causes of the operator in force, of one id the strictest, and end all others of it."""
        imposed: dict[str, Cause] = {}
        for item in wanted:
            present = self._causes.get(item.id)
            cause = Cause.of_operator(item, present.since if present else since)
            if (other := imposed.get(cause.id)) is None or other.level < cause.level:
                imposed[cause.id] = cause
        others = {cause.id: cause for cause in self._causes.values() if not cause.imposed}
        self._causes = {**imposed, **others}

    def clear(self, cause_id: str) -> bool:
        """A human clears a latched cause; True when it was in force. Others end with what they tell of."""
        present = self._causes.get(cause_id)
        return present is not None and present.latched and self.deactivate(cause_id)

    def deactivate(self, cause_id: str) -> bool:
        """End a cause; True when it was in force."""
        return self._causes.pop(cause_id, None) is not None

    def set(self, active: bool, kind: CauseKind, *, since: datetime, level: Level | None = None) -> bool:
        """Activate or deactivate a cause that follows a state; True when that changed anything."""
        return self.activate(kind, since=since, level=level) if active else self.deactivate(kind.id)

    @property
    def level(self) -> Level:
        """The strictest level of all causes."""
        return max((cause.level for cause in self._causes.values()), default=Level.NORMAL)

    @property
    def causes(self) -> list[Cause]:
        """All causes, strictest first, then oldest first."""
        return sorted(self._causes.values(), key=lambda cause: (-cause.level, cause.since, cause.id))

    def has(self, cause_id: str) -> bool:
        """Whether a cause is in force."""
        return cause_id in self._causes

    def should_allow_trading(self) -> bool:
        """Whether an entry may be sent now."""
        return not self._causes

    def get_safe_mode_status(self, entries_quiet: bool) -> SafeModeStatus:
        """The status; acknowledged only where engaged and `entries_quiet`.

        `entries_quiet` says that no entry of ours is working, in flight or unknown on the exchange, and that a restart
        would change nothing of that.
        """
        engaged = bool(self._causes)
        return SafeModeStatus(
            level=self.level.word,
            engaged=engaged,
            acknowledged=engaged and entries_quiet,
            causes=[
                SafeModeCause(
                    id=cause.id,
                    source=cause.source,
                    reason=cause.reason,
                    level=cause.level.word,
                    since_time=cause.since,
                    clears=cause.clears,
                    message=cause.message or None,
                )
                for cause in self.causes
            ],
        )

    def latches_to_json(self) -> list[dict[str, str | int]]:
        """The latched causes, for the store."""
        return [cause.to_json() for cause in self.causes if cause.latched]

    def restore_latches(self, data: Iterable[dict[str, str | int]]) -> None:
        """Put the causes of latches_to_json in force again."""
        for item in data:
            cause = Cause(
                id=str(item["id"]),
                # A newer version may have written words that this one does not know; the cause holds all the same.
                source=Source(word) if (word := item["source"]) in list(Source) else Source.BOT,
                reason=Reason(word) if (word := item["reason"]) in list(Reason) else Reason.UNKNOWN,
                level=Level(word) if (word := item["level"]) in list(Level) else Level.HALTED,
                since=datetime.fromisoformat(str(item["since"])),
                clears=str(item["clears"]),
                latched=True,
            )
            self._causes[cause.id] = cause
