"""A campaign of numbered cases that run one after another in this process: its shard, its book and its end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from book import Book

Row = dict[str, Any]


def run_seeds(
    options: argparse.Namespace, campaign: str, what: str, count: int, run: Callable[[int], Row]
) -> list[Row]:
    """Runs the cases of 1 to `count` that are asked for and not done yet; the rows of all that are done.

    `run` shows one case and returns its row; its `broken` says how it failed, and is empty where it did not.
    """
    book = Book.open(campaign)
    until = time.monotonic() + options.minutes * 60
    number, _, of = options.shard.partition("/")
    mine = list(range(1, count + 1))[int(number) - 1 :: int(of)]
    if options.cases:
        mine = [int(text) for text in options.cases.split(",")]
    waiting = [seed for seed in mine if options.cases or str(seed) not in book.done]
    print(f"{count} {what} in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
    while waiting and time.monotonic() < until:
        seed = waiting.pop(0)
        row = run(seed)
        for broken in row["broken"]:
            print("    " + broken.replace("\n", "\n    "))
        if row["broken"]:
            print(f"    run it alone: make test-exhaustive CAMPAIGN={campaign} CASES={seed}", flush=True)
        book.note({"case": str(seed)} | row)
    rows = [book.done[str(seed)] for seed in mine if str(seed) in book.done]
    print(f"{len(rows)} of {len(mine)} {what} of this shard done, {count} in all; {len(waiting)} left")
    return rows


def show_failed(rows: list[Row]) -> int:
    """Says which cases failed; the exit code."""
    failed = [row["case"] for row in rows if row["broken"]]
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))
