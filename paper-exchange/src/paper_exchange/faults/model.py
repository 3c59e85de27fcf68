"""A fault: what it does, whom it befalls, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any


class Stage(Enum):
    """Where on the way of a call or an event a fault acts."""

    CLOCK = "the clock that a call is measured by"
    DELAY = "before a call is executed"
    REFUSE = "instead of executing a call"
    ANSWER = "instead of the answer to a call that was executed"
    ANSWER_DELAY = "before the answer is sent"
    EVENT = "an event on its way to a connection"


@dataclass(frozen=True, slots=True)
class Subject:
    """What a fault may befall: one call, or one event on its way to one connection."""

    endpoint: str = ""
    """Of a call: `POST /api/v3/order` on REST, `order.place` on the WebSocket API."""
    stream: str = ""
    """Of an event: the name of its market stream, or `user`."""
    event: str = ""
    """Of an event: its type, the field `e`; empty where it has none."""
    uid: int = 0
    """The account, 0 where there is none."""
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. An empty filter is met by everything; all filters must be met, each by one of its values."""

    kind: str
    stage: Stage
    parameters: Mapping[str, Any]
    accounts: tuple[int, ...] = ()
    symbols: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Patterns, as in a shell."""
    streams: tuple[str, ...] = ()
    """Patterns, as in a shell."""
    events: tuple[str, ...] = ()
    probability: float = 1.0
    seed: int | None = None
    count: int | None = None
    skip: int = 0
    begin: float = 0.0
    """Seconds after it was put in force."""
    seconds: float | None = None
    """How long it lasts from then on; None is until it is ended."""
    nth: tuple[tuple[int, int], ...] | None = None
    """First and last of the matches that it befalls, counted from 1; where given, nothing else decides."""

    def meets(self, subject: Subject) -> bool:
        """Whether the filters let it befall this."""
        return (
            (not self.accounts or subject.uid in self.accounts)
            and (not self.symbols or subject.symbol in self.symbols)
            and (not self.endpoints or any(fnmatchcase(subject.endpoint, one) for one in self.endpoints))
            and (not self.streams or any(fnmatchcase(subject.stream, one) for one in self.streams))
            and (not self.events or subject.event in self.events)
        )
