"""What faults and steps did, row by row, and the plan by which the same happens again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from typing import IO, Any, Final

import structlog

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.faults.engine import Applied, InForce
from paper_exchange.faults.parsing import write_fault

_KEPT: Final = 10_000

_log = structlog.get_logger(__name__)
Row = dict[str, Any]


class Record:
    """The rows of one run: the last ones in memory, all of them as JSON lines where there is a file.

    Each has `time` (ms since 1970), `at` (seconds since the start) and one of: `run` (the seed), `fault` (its number
    and all of it), `applied` (its number, `nth`, and what it befell), `ended` (its number), `step`.
    """

    def __init__(self, now_ms: Callable[[], int], seconds: Callable[[], float], file: IO[str] | None = None) -> None:
        """`seconds` tells the time since the start."""
        self._now_ms = now_ms
        self._seconds = seconds
        self._file = file
        self.rows: deque[Row] = deque(maxlen=_KEPT)
        self.written = 0

    def begin(self, seed: int) -> None:
        """A run begins; in a file that several runs wrote, its rows are those behind this one."""
        self._write(run={"seed": seed})

    def fault(self, begun: InForce) -> None:
        """A fault was put in force."""
        self._write(fault=begun.ident, **{"is": write_fault(begun.fault)})

    def applied(self, one: Applied) -> None:
        """A fault befell something."""
        subject = one.subject
        told = {
            "endpoint": subject.endpoint,
            "stream": subject.stream,
            "event": subject.event,
            "uid": subject.uid,
            "symbol": subject.symbol,
        }
        self._write(applied=one.ident, nth=one.nth, kind=one.fault.kind, **{k: v for k, v in told.items() if v})

    def ended(self, ident: int) -> None:
        """A fault was ended before its time."""
        self._write(ended=ident)

    def step(self, step: Row, error: str | None) -> None:
        """A step of another kind was carried out, or could not be."""
        self._write(step=step, **({} if error is None else {"error": error}))

    def _write(self, **row: Any) -> None:
        full = {"time": self._now_ms(), "at": round(self._seconds(), 3), **row}
        self.rows.append(full)
        self.written += 1
        if self._file is not None:
            try:
                self._file.write(json.dumps(full, separators=(",", ":")) + "\n")
                self._file.flush()
            except OSError as error:
                # A full disk must not hold the exchange up: what happened is still told by the control port.
                self._file = None
                _log.warning("what faults do is no longer written down", error=str(error))

    def plan(self) -> Row:
        """The scenario by which the same happens again; ControlInvalidError where the first rows are gone."""
        if self.written > len(self.rows):
            raise ControlInvalidError(
                f"plan: expected a run of at most {_KEPT} rows, got {self.written}; the file has them all"
            )
        return plan_of(self.rows)


def plan_of(rows: Iterable[Row]) -> Row:
    """The scenario of the last run in these rows: the same steps, and each fault by the numbers of what it befell."""
    steps: list[Row] = []
    faults: dict[int, Row] = {}
    for row in rows:
        if "run" in row:
            steps, faults = [], {}
        elif "fault" in row:
            faults[row["fault"]] = {**row["is"], "nth": []}
            steps.append({"at": row["at"], "fault": faults[row["fault"]]})
        elif "applied" in row:
            runs, nth = faults[row["applied"]]["nth"], row["nth"]
            if runs and runs[-1][1] == nth - 1:
                runs[-1][1] = nth
            else:
                runs.append([nth, nth])
        elif "step" in row:
            steps.append({"at": row["at"], **row["step"]})
    return {"steps": steps}
