"""The campaign of simulations among faults: 200 seeds of twelve virtual minutes each, one bot on one exchange."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import asdict

from book import Book

from campaigns.sim_faults import SIMS, sim_among_faults


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet, one after another; the exit code."""
    book = Book.open("sims")
    until = time.monotonic() + options.minutes * 60
    number, _, of = options.shard.partition("/")
    mine = list(range(1, SIMS + 1))[int(number) - 1 :: int(of)]
    if options.cases:
        mine = [int(text) for text in options.cases.split(",")]
    waiting = [seed for seed in mine if options.cases or str(seed) not in book.done]
    print(f"{SIMS} simulations in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
    while waiting and time.monotonic() < until:
        outcome = sim_among_faults(waiting.pop(0))
        word = "FAILED" if outcome.violations else "ok"
        print(
            f"sim {outcome.seed:<5} {outcome.seconds:5.1f} s  {sum(outcome.faults.values()):>4} calls disturbed  "
            f"{outcome.trades:>3} trades  unprotected {outcome.unprotected:5.1f} s  {word}",
            flush=True,
        )
        for violation in outcome.violations:
            print(f"    {violation}")
            print(f"    run it alone: make test-exhaustive CAMPAIGN=sims CASES={outcome.seed}", flush=True)
        book.note({"case": str(outcome.seed)} | asdict(outcome))
    rows = [book.done[str(seed)] for seed in mine if str(seed) in book.done]
    faults: Counter[str] = Counter()
    for row in rows:
        faults.update(row["faults"])
    failed = [row["case"] for row in rows if row["violations"]]
    print(f"{len(rows)} of {len(mine)} simulations of this shard done, {SIMS} in all; {len(waiting)} left")
    print(f"{sum(row['trades'] for row in rows)} trades; calls disturbed: {dict(faults)}")
    print(f"longest without a stop: {max((row['unprotected'] for row in rows), default=0.0):.1f} s")
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))
