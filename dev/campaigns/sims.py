"""The campaign of simulations: 200 bots among faults for twelve virtual minutes each, and 72 lives of twenty."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from book import Book
from seeds import Row, run_cases, show_failed

from campaigns.bot_life import LIVES, run_life
from campaigns.sim_faults import SIMS, sim_among_faults

_LIFE = "life-"


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    cases = [f"{_LIFE}{seed}" for seed in range(1, LIVES + 1)] + [str(seed) for seed in range(1, SIMS + 1)]
    book = Book.open("sims")
    rows = run_cases(options, book, "simulations", cases, lambda waiting: ((case, _run(case)) for case in waiting))
    faults: Counter[str] = Counter()
    for row in rows:
        faults.update(row["faults"])
    print(f"{sum(row['trades'] for row in rows)} trades; calls disturbed: {dict(faults)}")
    lives = [row for row in rows if row["case"].startswith(_LIFE)]
    for what in ("virtual", "entries", "deaths", "rivals", "changes"):
        print(f"{what} in lives: {sum(row[what] for row in lives):.0f}")
    print(f"lives at whose end a limit of losses kept the bot from buying: {sum(bool(row['rests']) for row in lives)}")
    for what, rows_of in (("unprotected", rows), ("quietly", rows), ("late", lives), ("wrong", lives)):
        print(f"longest {_LONGEST[what]}: {max((row[what] for row in rows_of), default=0.0):.1f} s")
    return show_failed(rows)


_LONGEST = {
    "unprotected": "without a stop",
    "quietly": "without a stop while no fault lasted",
    "late": "between a newer process's first order and an older one's last entry",
    "wrong": "with books that were told as right and were not",
}


def _run(case: str) -> Row:
    if case.startswith(_LIFE):
        life = run_life(int(case.removeprefix(_LIFE)))
        print(
            f"{case:<9} {life.seconds:5.1f} s  {sum(life.faults.values()):>4} calls disturbed  {life.entries:>3} "
            f"entries  {life.boots:>2} boots  unprotected {life.unprotected:5.1f} s  {_verdict(life.violations)}",
            flush=True,
        )
        return asdict(life) | {"log": [], "points": [], "broken": life.violations}
    sim = sim_among_faults(int(case))
    print(
        f"sim {case:<5} {sim.seconds:5.1f} s  {sum(sim.faults.values()):>4} calls disturbed  {sim.trades:>3} trades  "
        f"unprotected {sim.unprotected:5.1f} s  {_verdict(sim.violations)}",
        flush=True,
    )
    return asdict(sim) | {"broken": sim.violations}


def _verdict(violations: list[str]) -> str:
    return "FAILED" if violations else "ok"
