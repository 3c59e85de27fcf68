"""The faults of one server: put in force, told and ended by who runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

from paper_exchange.faults.calls import CallFaults
from paper_exchange.faults.engine import Applied, Engine, InForce
from paper_exchange.faults.line import Line
from paper_exchange.faults.model import Fault
from paper_exchange.faults.parsing import Known, parse_fault, write_fault
from paper_exchange.faults.record import Record


class Faults:
    """What is in force and what it did; `clock` tells seconds and only goes forward."""

    def __init__(
        self,
        known: Known,
        *,
        seed: int,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        count: Callable[[str], None] = lambda kind: None,
        file: IO[bytes] | None = None,
    ) -> None:
        """`count` is told the kind of each fault that befell something; `file` gets the record."""
        self.known = known
        self._clock = clock
        self._count = count
        started = clock()
        self.record = Record(now_ms, lambda: clock() - started, file)
        self.record.begin(seed)
        self.engine = Engine(seed, clock, self._applied)
        self.calls = CallFaults(self.engine)

    def line(self) -> Line:
        """What is between the exchange and a new connection."""
        return Line(self.engine)

    def start(self, body: object) -> InForce:
        """Put {"kind": "lost_answer", "count": 1} in force; ControlInvalidError names the field."""
        return self.begin(parse_fault("", body, self.known))

    def begin(self, fault: Fault) -> InForce:
        """Put a fault in force; a `rest_status` takes the place of the one before."""
        if fault.kind == "rest_status":
            for one in self.engine.in_force():
                if one.fault.kind == fault.kind:
                    self.stop(one.ident)
        begun = self.engine.start(fault)
        self.record.fault(begun)
        return begun

    def stop(self, ident: int) -> bool:
        """End a fault; False where none of this number is in force."""
        stopped = self.engine.stop(ident)
        if stopped:
            self.record.ended(ident)
        return stopped

    def clear(self) -> None:
        """End all faults."""
        for one in self.engine.in_force():
            self.stop(one.ident)

    def describe(self) -> list[dict[str, Any]]:
        """The faults in force, with what they did and the seconds they still last."""
        return [self.tell(one) for one in self.engine.in_force()]

    def tell(self, one: InForce) -> dict[str, Any]:
        """One fault in force."""
        left = one.left(self._clock())
        told = {"id": one.ident, **write_fault(one.fault), "met": one.met, "applied": one.applied}
        return told if left is None else told | {"secondsLeft": round(left, 1)}

    def _applied(self, one: Applied) -> None:
        self.record.applied(one)
        self._count(one.fault.kind)
