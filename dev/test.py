"""Runs the tiers of tests in order and ends with the time of each against its budget."""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import time


@dataclasses.dataclass(frozen=True)
class Tier:
    """A tier, its budget in minutes on two cores, and its commands."""

    name: str
    minutes: float
    commands: tuple[tuple[str, ...], ...]


PYTEST = ("pytest", "-q", "--durations=5", "--durations-min=5")
TIERS = {
    tier.name: tier
    for tier in (
        Tier("check", 2, (("make", "lint"), ("make", "scan"))),
        Tier("unit", 1, ((*PYTEST, "-n", "2", "tests/unit"),)),
        Tier("integration", 8, ((*PYTEST, "-n", "3", "tests/integration"),)),
        Tier("cluster", 12, ((*PYTEST, "-n", "3", "tests/cluster"),)),
        Tier("e2e", 15, ((*PYTEST, "tests/e2e"),)),
    )
}
TOTAL_MINUTES = 45


def main() -> int:
    """Runs the named tiers; a red tier stops the run, because the later ones build on it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiers", nargs="+", choices=tuple(TIERS), metavar="TIER")
    # Clusters are left running for the next run where a person asks for it.
    environment = {"TRADINGBOT_KEEP_CLUSTER": "0", **os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    rows, failed, started = [], False, time.monotonic()
    for name in parser.parse_args().tiers:
        tier, begun = TIERS[name], time.monotonic()
        print(f"=== {name}: budget {tier.minutes:g} min", flush=True)
        failed = any(subprocess.run(command, env=environment, check=False).returncode for command in tier.commands)
        rows.append((tier, time.monotonic() - begun))
        if failed:
            break
    total = time.monotonic() - started
    print("\ntier          time    budget")
    for tier, seconds in rows:
        over = "  over budget" if seconds > tier.minutes * 60 else ""
        print(f"{tier.name:<12} {seconds:5.0f} s  {tier.minutes * 60:5.0f} s{over}")
    print(f"{'total':<12} {total:5.0f} s  {TOTAL_MINUTES * 60:5.0f} s")
    if failed:
        print(f"red: tier {rows[-1][0].name} failed")
    elif total > TOTAL_MINUTES * 60:
        print(f"red: over {TOTAL_MINUTES} minutes")
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
