"""The campaign of simulations among faults: 200 seeds of twelve virtual minutes each, one bot on one exchange."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from seeds import Row, run_seeds, show_failed

from campaigns.sim_faults import SIMS, sim_among_faults


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    rows = run_seeds(options, "sims", "simulations", SIMS, _run)
    faults: Counter[str] = Counter()
    for row in rows:
        faults.update(row["faults"])
    print(f"{sum(row['trades'] for row in rows)} trades; calls disturbed: {dict(faults)}")
    print(f"longest without a stop: {max((row['unprotected'] for row in rows), default=0.0):.1f} s")
    return show_failed(rows)


def _run(seed: int) -> Row:
    outcome = sim_among_faults(seed)
    print(
        f"sim {outcome.seed:<5} {outcome.seconds:5.1f} s  {sum(outcome.faults.values()):>4} calls disturbed  "
        f"{outcome.trades:>3} trades  unprotected {outcome.unprotected:5.1f} s  "
        f"{'FAILED' if outcome.violations else 'ok'}",
        flush=True,
    )
    return asdict(outcome) | {"broken": outcome.violations}
