"""The campaign of ill-meaning clients: 20,000 cases against paper exchanges, while another client trades on each."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Final

from book import Book

from campaigns.paper_fuzz import CASES, fuzz

_LOT: Final = 500
"""Cases against one exchange."""


async def campaign(options: argparse.Namespace, folder: Path) -> int:
    """Runs what is asked for and not done yet, in lots; the exit code."""
    book = Book.open("fuzz")
    until = time.monotonic() + options.minutes * 60
    number, _, of = options.shard.partition("/")
    lots = [range(first, first + _LOT) for first in range(0, CASES, _LOT)][int(number) - 1 :: int(of)]
    if options.cases:
        lots = [range(int(text), int(text) + 1) for text in options.cases.split(",")]
    waiting = [lot for lot in lots if options.cases or str(lot.start) not in book.done]
    mine = sum(map(len, lots))
    print(f"{CASES} cases in all, {mine} in this shard, {sum(map(len, waiting))} not done", flush=True)
    while waiting and time.monotonic() < until:
        lot = waiting.pop(0)
        found = await fuzz(lot, folder / str(lot.start))
        print(
            f"cases {lot.start} to {lot.stop - 1}: {found.answers} answered, the other client went {found.rounds} "
            f"rounds, slowest {found.slowest:.2f} s  {'FAILED' if found.findings else 'ok'}",
            flush=True,
        )
        for finding in found.findings:
            print("    " + finding, flush=True)
        book.note({"case": str(lot.start)} | asdict(found))
    rows = [book.done[str(lot.start)] for lot in lots if str(lot.start) in book.done]
    codes: Counter[str] = Counter()
    for row in rows:
        codes.update(row["codes"])
    failed = sum(len(row["findings"]) for row in rows)
    done = sum(row["cases"] for row in rows)
    print(f"{done} of {mine} cases of this shard done, {CASES} in all; answers: {dict(codes)}")
    print(f"{failed} findings")
    return int(bool(failed))
