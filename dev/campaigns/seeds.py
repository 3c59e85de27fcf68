"""A campaign of cases that run one after another from this process: its shard, its book and its end."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from book import Book

Row = dict[str, Any]


def run_seeds(
    options: argparse.Namespace, campaign: str, what: str, count: int, run: Callable[[int], Row]
) -> list[Row]:
    """`run_cases` of the numbers from 1 to `count`, one after another."""
    cases = [str(seed) for seed in range(1, count + 1)]
    return run_cases(
        options, Book.open(campaign), what, cases, lambda waiting: ((case, run(int(case))) for case in waiting)
    )


def run_cases(
    options: argparse.Namespace,
    book: Book,
    what: str,
    cases: Sequence[str],
    run: Callable[[Sequence[str]], Iterable[tuple[str, Row]]],
) -> list[Row]:
    """Runs the cases that are asked for and not done yet; the rows of all that are done.

    `run` shows each case and gives its row; its `broken` says how it failed, and is empty where it did not.
    """
    until = time.monotonic() + options.minutes * 60
    number, _, of = options.shard.partition("/")
    mine = options.cases.split(",") if options.cases else cases[int(number) - 1 :: int(of)]
    waiting = [case for case in mine if options.cases or case not in book.done]
    print(f"{len(cases)} {what} in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
    left = len(waiting)
    for case, row in run(waiting):
        for broken in row["broken"]:
            print("    " + broken.replace("\n", "\n    "))
        if row["broken"]:
            print(f"    run it alone: make test-exhaustive CAMPAIGN={options.campaign} CASES={case}", flush=True)
        book.note({"case": case} | row)
        left -= 1
        if time.monotonic() > until:
            break
    rows = [book.done[case] for case in mine if case in book.done]
    print(f"{len(rows)} of {len(mine)} {what} of this shard done, {len(cases)} in all; {left} left")
    return rows


def show_failed(rows: list[Row]) -> int:
    """Says which cases failed; the exit code."""
    failed = [row["case"] for row in rows if row["broken"]]
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))
