"""The campaign of crashes: every point of a trade cycle at which the bot can die, with every fault of its exchange."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence

from book import Book
from seeds import Row, run_cases, show_failed

from campaigns.crash_cycle import Cell, Outcome, Point, all_cells, run_cells, run_undisturbed


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    book = Book.open("crashes")
    if not book.undisturbed:
        book.note({"undisturbed": {mode: _undisturbed(operated) for mode, operated in _MODES.items()}})
    cells: list[str] = []
    for mode, operated in _MODES.items():
        points = [Point.parse(text) for text in book.undisturbed[mode]]
        kinds = Counter(point.kind for point in points)
        print(f"points of an undisturbed cycle {mode}: {kinds['commit']} commits, {kinds['request']} requests")
        cells += [str(cell) for cell in all_cells(points, operated=operated)]
    rows = run_cases(options, book, "cells", cells, lambda waiting: _run(waiting, options.parallel))
    befell: Counter[str] = Counter()
    for row in rows:
        befell.update(row["faults"].keys())
    print(f"cells in which a fault befell something, by kind: {dict(sorted(befell.items()))}")
    print(f"cells by moment: {dict(Counter(Cell.parse(row['case']).moment.value for row in rows))}")
    print(f"{sum(row['trades'] for row in rows)} trades; {sum(row['seconds'] for row in rows):.0f} s of processor time")
    for what in ("unprotected", "charged"):
        worst = max(rows, key=lambda row: float(row[what]), default=None)
        if worst is not None:
            print(f"longest {_LONGEST[what]}: {worst[what]:.1f} s, in {worst['case']}")
    return show_failed(rows)


_MODES = {"alone": False, "with an operator": True}
_LONGEST = {
    "unprotected": "without a stop, with bans, outages, unknown answers and while no bot ran",
    "charged": "without a stop and without an excuse",
}


def _undisturbed(operated: bool) -> list[str]:
    outcome = run_undisturbed(operated=operated)
    if outcome.violations:
        raise SystemExit("\n".join(["the undisturbed cycle breaks promises:", *outcome.violations]))
    return [str(point) for point in outcome.points]


def _run(cases: Sequence[str], parallel: int) -> Iterator[tuple[str, Row]]:
    for cell, outcome in run_cells([Cell.parse(case) for case in cases], parallel=parallel):
        yield str(cell), _shown(str(cell), outcome)


def _shown(case: str, outcome: Outcome) -> Row:
    print(
        f"{case:<40} {outcome.seconds:5.2f} s  {outcome.trades:>2} trades  {outcome.boots} boots  "
        f"unprotected {outcome.unprotected:5.1f} s  {'FAILED' if outcome.violations else 'ok'}  at {outcome.died_at}",
        flush=True,
    )
    if outcome.violations:
        print("\n".join(f"    {line}" for line in outcome.log if "'candle'" not in line))
    return {
        "died_at": outcome.died_at, "faults": outcome.faults, "trades": outcome.trades,
        "unprotected": outcome.unprotected, "charged": outcome.charged, "seconds": outcome.seconds,
        "broken": outcome.violations,
    }  # fmt: skip
