"""Runs a campaign: every case of it, in shards, resumable; says how many were run, how long they took, what they found.

make test-exhaustive CAMPAIGN=faults SHARD=1/4
make test-exhaustive CAMPAIGN=faults CASES=kill-after:3,reset:2@delete
make test-exhaustive CAMPAIGN=specs SHARD=1/8
make test-exhaustive CAMPAIGN=walks
make test-exhaustive CAMPAIGN=fleet
make test-exhaustive CAMPAIGN=fuzz
make test-exhaustive CAMPAIGN=sims
make test-exhaustive CAMPAIGN=crashes SHARD=1/2
make test-exhaustive CAMPAIGN=crashes CASES=request:31:sent+delay
make test-exhaustive CAMPAIGN=mutation CASES=recovery,state
make test-exhaustive CAMPAIGN=pages CASES=BotDown,OperatorDown
make test-exhaustive CAMPAIGN=chaos MINUTES=75
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "dev/cluster")]

import chaos  # noqa: E402
import crashes  # noqa: E402
import fleet  # noqa: E402
import fuzz  # noqa: E402
import mutation  # noqa: E402
import pages  # noqa: E402
import sims  # noqa: E402
import specs  # noqa: E402
import walks  # noqa: E402
from book import Book  # noqa: E402
from local_kubernetes.local import LocalCluster  # noqa: E402

from campaigns.life_cycle import Case, Outcome, StepFault, World, live, world  # noqa: E402
from support.fault_proxy import FaultKind, WatchFaultKind  # noqa: E402


def all_cases(writes: dict[str, int], events: dict[str, int]) -> list[Case]:
    """Every fault at every write, and every watch fault at every event, of the undisturbed life's longest step."""
    faults = [StepFault(kind, at) for at in range(1, max(writes.values()) + 1) for kind in FaultKind]
    faults += [StepFault(kind, at) for at in range(1, max(events.values()) + 1) for kind in WatchFaultKind]
    return [Case((fault,)) for fault in faults]


def faults_of(cases: list[Case], writes: dict[str, int], events: dict[str, int]) -> int:
    """How many faults the cases bring, where they meet the undisturbed life's writes and events."""
    return sum(
        count >= fault.at
        for case in cases
        for fault in case.faults
        for count in (events if isinstance(fault.kind, WatchFaultKind) else writes).values()
    )


async def undisturbed(shared: World, book: Book) -> None:
    """One life without a fault, which the others are compared with."""
    if book.undisturbed:
        return
    outcome = await live(shared, Case(), None)
    _show(outcome)
    if outcome.violations:
        raise SystemExit("the undisturbed life breaks promises; nothing can be compared with it")
    book.note({"undisturbed": {"waypoints": outcome.waypoints, "writes": outcome.writes, "events": outcome.events}})


def _show(outcome: Outcome) -> None:
    name = str(outcome.case)
    word = "FAILED" if outcome.violations else "ok" if outcome.fired or not outcome.case.faults else "ok (not reached)"
    print(
        f"{name:<20} {outcome.seconds:6.1f} s  {outcome.entries:>3} entries  {len(outcome.fired)} faults  {word}  "
        f"{' '.join(f'{step}={seconds:.0f}s' for step, seconds in outcome.times.items())}",
        flush=True,
    )
    if outcome.violations:
        for violation in outcome.violations:
            print(f"    {violation[:1500]}")
        print(f"    run it alone: make test-exhaustive CAMPAIGN=faults CASES={name}")
        print("    " + outcome.dump.replace("\n", "\n    "), flush=True)


async def campaign(options: argparse.Namespace, folder: Path) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    if (task := asyncio.current_task()) is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            # What was started is ended, and what was done is noted.
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    cluster = LocalCluster(options.cluster)
    cluster.up(node=False)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/tradingbots.tradingbot.dev")
    book = Book.open("faults")
    begun = time.monotonic()
    async with world(cluster, folder) as shared:
        await undisturbed(shared, book)
        counts = book.undisturbed["writes"], book.undisturbed["events"]
        everything = all_cases(*counts)
        number, _, of = options.shard.partition("/")
        mine = everything[int(number) - 1 :: int(of)]
        if options.cases:
            mine = [Case.parse(text) for text in options.cases.split(",")]
        waiting = [case for case in mine if options.cases or str(case) not in book.done]
        left = len(waiting)
        print(f"{len(everything)} cases in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
        longest = 0.0

        async def work() -> None:
            nonlocal longest, left
            # A case that could not end in time is not begun.
            while waiting and time.monotonic() - begun + longest < options.minutes * 60:
                case = waiting.pop(0)
                outcome = await live(shared, case, book.undisturbed["waypoints"])
                longest, left = max(longest, outcome.seconds), left - 1
                book.note(
                    {
                        "case": str(case), "seconds": round(outcome.seconds, 1), "fired": outcome.fired,
                        "entries": outcome.entries, "violations": outcome.violations,
                    }
                )  # fmt: skip
                _show(outcome)

        await asyncio.gather(*(work() for _ in range(options.parallel)))
    rows = [book.done[str(case)] for case in mine if str(case) in book.done]
    failed = [row["case"] for row in rows if row["violations"]]
    seconds = sum(row["seconds"] for row in rows)
    print(f"{len(rows)} of {len(mine)} cases of this shard done, {len(everything)} in all; {left} left")
    print(
        f"{sum(not row['fired'] for row in rows)} did not reach their fault; {seconds / max(1, len(rows)):.1f} s a case"
    )
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "campaign",
        choices=["faults", "specs", "walks", "fuzz", "sims", "crashes", "fleet", "mutation", "pages", "chaos"],
    )
    parser.add_argument("--shard", default="1/1", help="which part of how many (default %(default)s)")
    parser.add_argument("--cases", default="", help="only these, by name, separated by commas; also those done before")
    parser.add_argument("--minutes", type=float, default=30, help="at most so long (default %(default)s)")
    parser.add_argument("--parallel", type=int, default=3, help="cases at a time (default %(default)s)")
    parser.add_argument("--cluster", default="campaign", help="local cluster; left running (default %(default)s)")
    options = parser.parse_args()
    alone = {
        "fleet": fleet.campaign,
        "walks": walks.campaign, "sims": sims.campaign, "crashes": crashes.campaign, "mutation": mutation.campaign,
        "pages": pages.campaign, "chaos": chaos.campaign,
    }.get(options.campaign)  # fmt: skip
    if alone is not None:
        return alone(options)
    with tempfile.TemporaryDirectory(prefix="tradingbot-campaign-") as folder:
        chosen = {"specs": specs.campaign, "fuzz": fuzz.campaign}.get(options.campaign, campaign)
        return asyncio.run(chosen(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
