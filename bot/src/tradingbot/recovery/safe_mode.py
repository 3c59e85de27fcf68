"""Safe mode: the causes that forbid entries, and the strictest level of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Final

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
    OPERATOR = "Operator"
    BOT = "Bot"


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason for safe mode; `latched` ones survive a restart and end only when a human clears them."""

    id: str
    source: Source
    reason: Reason
    level: Level
    since: datetime
    clears: str
    latched: bool = False

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


class SafeMode:
    """All causes in force. Engaged means: from now on no entry is sent."""

    def __init__(self) -> None:
        self._causes: dict[str, Cause] = {}

    def activate(
        self,
        cause_id: str,
        reason: Reason,
        *,
        since: datetime,
        clears: str,
        level: Level = Level.NO_NEW_ENTRIES,
        source: Source = Source.BOT,
        latched: bool = False,
    ) -> bool:
        """Put a cause in force; True when that changed anything. The first `since` of a cause stands."""
        present = self._causes.get(cause_id)
        cause = Cause(cause_id, source, reason, level, present.since if present else since, clears, latched)
        if cause == present:
            return False
        self._causes[cause_id] = cause
        return True

    def deactivate(self, cause_id: str) -> bool:
        """End a cause; True when it was in force."""
        return self._causes.pop(cause_id, None) is not None

    def set(
        self,
        active: bool,
        cause_id: str,
        reason: Reason,
        *,
        since: datetime,
        clears: str,
        level: Level = Level.NO_NEW_ENTRIES,
        source: Source = Source.BOT,
    ) -> bool:
        """Activate or deactivate a cause that follows a state; True when that changed anything."""
        if active:
            return self.activate(cause_id, reason, since=since, clears=clears, level=level, source=source)
        return self.deactivate(cause_id)

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

        `entries_quiet` says that no entry of ours is working, in flight or unknown on the exchange.
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
                source=Source(str(item["source"])),
                reason=Reason(str(item["reason"])),
                level=Level(int(item["level"])),
                since=datetime.fromisoformat(str(item["since"])),
                clears=str(item["clears"]),
                latched=True,
            )
            self._causes[cause.id] = cause
