"""What faults and steps did, row by row, and the plan by which the same happens again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, Final

import structlog

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.faults.engine import Applied, InForce
from paper_exchange.faults.parsing import write_fault
from paper_exchange.lines_file import open_lines

_KEPT: Final = 10_000
_KEPT_BYTES: Final = 8 << 20
LARGEST_FILE: Final = 64 << 20
"""Bytes of a record's file; it may lie beside the exchange's store."""

_log = structlog.get_logger(__name__)
Row = dict[str, Any]


def open_record(path: Path) -> IO[bytes]:
    """The file of a record, to be gone on with; one that is half full is put aside as `PATH.1`. OSError."""
    if path.is_file() and path.stat().st_size > LARGEST_FILE // 2:
        path.replace(f"{path}.1")
    return open_lines(path)


class Record:
    """The rows of one run: the last ones in memory, and all as JSON lines where there is a file, until it is full.

    Each has `time` (ms since 1970), `at` (seconds since the start) and one of: `run` (the seed), `fault` (its number
    and all of it), `applied` (its number, `nth`, and what it befell), `ended` (its number), `step`, or `full` (the
    file takes no more).
    """

    def __init__(self, now_ms: Callable[[], int], seconds: Callable[[], float], file: IO[bytes] | None = None) -> None:
        """`seconds` tells the time since the start."""
        self._now_ms = now_ms
        self._seconds = seconds
        self._file = file
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self.written = 0

    @property
    def rows(self) -> list[Row]:
        """The last rows."""
        return [json.loads(line) for line in self._kept]

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
        line = self._line(row)
        self.written += 1
        self._kept.append(line)
        self._kept_bytes += len(line)
        while len(self._kept) > _KEPT or self._kept_bytes > _KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft())
        if self._file is not None:
            self._write_down(self._file, line)

    def _line(self, row: Row) -> bytes:
        full = {"time": self._now_ms(), "at": round(self._seconds(), 3), **row}
        return json.dumps(full, separators=(",", ":")).encode() + b"\n"

    def _write_down(self, file: IO[bytes], line: bytes) -> None:
        problem = ""
        try:
            if file.tell() + len(line) > LARGEST_FILE:
                problem = f"the file has {LARGEST_FILE >> 20} MiB"
                line = self._line({"full": True})
            file.write(line)
            file.flush()
        except OSError as error:
            problem = str(error)
        if problem:
            # It must not hold the exchange up: what happened is still told by the control port.
            self._file = None
            _log.warning("what faults do is no longer written down", error=problem)

    def plan(self) -> Row:
        """The scenario by which the same happens again; ControlInvalidError where the first rows are gone."""
        if self.written > len(self._kept):
            raise ControlInvalidError(
                f"plan: expected a run of which all rows are kept, got {self.written} rows, and the last "
                f"{len(self._kept)} of them; the file has more"
            )
        return plan_of(self.rows)


def plan_of(rows: Iterable[Row]) -> Row:
    """The scenario of the last run in these rows: the same steps, and each fault by the numbers of what it befell.

    ControlInvalidError where the file was full before its end.
    """
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
        elif "full" in row:
            raise ControlInvalidError("plan: expected all rows of a run, got a file that was full before its end")
    return {"steps": steps}
