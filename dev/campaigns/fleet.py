"""The campaign of limited fleets: 20 seeds of 500 lives each, of bots and leaders among lost and late messages."""

from __future__ import annotations

import argparse
from collections import Counter

from seeds import Row, run_seeds, show_failed

from campaigns.fleet_walk import LIVES, live


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    rows = run_seeds(options, "fleet", "seeds", LIVES, _run)
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update(row["done"])
    print(
        f"{sum(row['steps'] for row in rows)} steps: {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))}"
    )
    return show_failed(rows)


def _run(seed: int) -> Row:
    found = live(seed)
    word = "FAILED" if found.violation else "ok"
    print(f"fleet {found.seed:<5} {found.seconds:5.1f} s  {found.steps} steps  {word}", flush=True)
    return vars(found) | {"broken": [found.violation] if found.violation else []}
