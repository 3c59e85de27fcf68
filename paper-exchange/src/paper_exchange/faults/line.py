"""Events on their way to one connection: dropped, doubled, out of order, late, or the end of the connection."""

from __future__ import annotations

from collections import deque
from typing import Final

import structlog

from paper_exchange.faults.engine import Engine
from paper_exchange.faults.model import Stage, Subject

_LONGEST_HOLD: Final = 1.0
"""Seconds after which an event that waits for another to overtake it goes on alone."""
_MOST_LATE: Final = 10_000
_MOST_BYTES: Final = 8 << 20
"""How many events of one connection may be late, and their bytes; as much as waits for a client that does not read."""

_log = structlog.get_logger(__name__)


class Line:
    """What is between the exchange and one connection; without faults an event passes at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[tuple[str, int], tuple[float, bytes]] = {}
        """By stream and account an event that the next one there overtakes, and until when it waits for that."""
        self._late: deque[tuple[float, bytes]] = deque()
        """Events with the time at which they go on, in their order."""
        self._late_bytes = 0
        self.cut = False
        """Whether the connection ends here."""

    @property
    def free(self) -> bool:
        """Whether an event passes as it is."""
        return not (self._late or self._held or self._engine.any(Stage.EVENT))

    def carry(self, message: bytes, subject: Subject) -> list[bytes]:
        """What the connection gets now that an event was sent; where too many are late, it ends."""
        if self.cut:
            return []
        now = self._engine.clock()
        applied = self._engine.first(Stage.EVENT, subject)
        kind = "" if applied is None else applied.fault.kind
        whose = subject.stream, subject.uid
        delay = 0.0
        passing = [message]
        if kind in ("drop_events", "dead_stream"):
            passing = []
        elif kind == "cut_connection":
            self.cut = True
            return []
        elif kind == "duplicate_events":
            passing = [message, message]
        elif kind == "reorder_events" and whose not in self._held:
            self._held[whose] = now + _LONGEST_HOLD, message
            passing = []
        elif kind == "delay_events" and applied is not None:
            parameters = applied.fault.parameters
            delay = parameters["seconds"] + parameters["jitter"] * applied.luck
        if passing and whose in self._held:
            passing.append(self._held.pop(whose)[1])
        if not delay and not self._late:
            return passing
        # Who is late holds up what comes behind it.
        due = max(now + delay, self._late[-1][0] if self._late else now)
        for one in passing:
            self._delay(due, one)
        if len(self._late) > _MOST_LATE or self._late_bytes > _MOST_BYTES:
            _log.warning("more events are late than a connection holds; cut off", late_bytes=self._late_bytes)
            self._late.clear()
            self.cut = True
        return self.due()

    def _delay(self, due: float, message: bytes) -> None:
        self._late.append((due, message))
        self._late_bytes += len(message)

    def due(self) -> list[bytes]:
        """What the connection gets because time has passed."""
        now = self._engine.clock()
        for whose, (until, message) in list(self._held.items()):
            if now >= until:
                self._delay(now, message)
                del self._held[whose]
        passing = []
        while self._late and self._late[0][0] <= now:
            passing.append(self._late.popleft()[1])
            self._late_bytes -= len(passing[-1])
        return passing
