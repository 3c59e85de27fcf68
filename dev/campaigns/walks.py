"""The campaign of random walks: 20 seeds of 4,500 operations each on paper exchanges with their stores."""

from __future__ import annotations

import argparse
from collections import Counter

from seeds import Row, run_seeds, show_failed

from campaigns.paper_walk import WALKS, walk


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    rows = run_seeds(options, "walks", "walks", WALKS, _run)
    print(f"{sum(row['operations'] for row in rows)} operations")
    for what in ("done", "refused", "executions"):
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row[what])
        print(f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    return show_failed(rows)


def _run(seed: int) -> Row:
    found = walk(seed)
    word = "FAILED" if found.violation else "ok"
    print(f"walk {found.seed:<5} {found.seconds:5.1f} s  {found.operations} operations  {word}", flush=True)
    return vars(found) | {"broken": [found.violation] if found.violation else []}
