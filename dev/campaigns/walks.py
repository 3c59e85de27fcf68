"""The campaign of random walks: 20 seeds of 4,500 operations each on paper exchanges with their stores."""

from __future__ import annotations

import argparse
import time
from collections import Counter

from book import Book

from campaigns.paper_walk import WALKS, walk


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet, one after another; the exit code."""
    book = Book.open("walks")
    until = time.monotonic() + options.minutes * 60
    number, _, of = options.shard.partition("/")
    mine = list(range(1, WALKS + 1))[int(number) - 1 :: int(of)]
    if options.cases:
        mine = [int(text) for text in options.cases.split(",")]
    waiting = [seed for seed in mine if options.cases or str(seed) not in book.done]
    print(f"{WALKS} walks in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
    while waiting and time.monotonic() < until:
        found = walk(waiting.pop(0))
        word = "FAILED" if found.violation else "ok"
        print(f"walk {found.seed:<5} {found.seconds:5.1f} s  {found.operations} operations  {word}", flush=True)
        if found.violation:
            print("    " + found.violation.replace("\n", "\n    "))
            print(f"    run it alone: make test-exhaustive CAMPAIGN=walks CASES={found.seed}", flush=True)
        book.note({"case": str(found.seed)} | vars(found))
    rows = [book.done[str(seed)] for seed in mine if str(seed) in book.done]
    failed = [row["case"] for row in rows if row["violation"]]
    print(f"{len(rows)} of {len(mine)} walks of this shard done, {WALKS} in all; {len(waiting)} left")
    print(f"{sum(row['operations'] for row in rows)} operations")
    for what in ("done", "refused", "executions"):
        counts: Counter[str] = Counter()
        for row in rows:
            counts.update(row[what])
        print(f"{what}: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))
