"""The campaign of random valid specs: 500 walks of one TradingBot over ten specs each, with doubles for its bot."""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

from book import ROOT, Book
from local_kubernetes.local import LocalCluster

from campaigns.random_specs import Walk, specs, walk, walking
from support.kube import Json
from support.operator_scene import Scene

WALKS: Final = 500
SPECS: Final = 10
AT_ONCE: Final = 20
"""Walks whose specs are drawn ahead: drawing takes a moment, in which no double answers."""


def _show(done: Walk) -> None:
    word = "FAILED" if done.violations else "ok"
    states = ", ".join(f"{count} {state}" for state, count in sorted(done.states.items()))
    print(f"walk {done.number:<5} {done.seconds:6.1f} s  {done.taken:>3} specs  {word}  {states}", flush=True)
    for violation in done.violations:
        print("    " + violation.replace("\n", "\n    "), flush=True)
        print(f"    run it alone: make test-exhaustive CAMPAIGN=specs CASES={done.number}", flush=True)


async def _work(scene: Scene, drawn: list[tuple[int, list[Json]]], book: Book, until: float) -> None:
    while drawn and time.monotonic() < until:
        done = await walk(scene, *drawn.pop(0))
        _show(done)
        book.note({**asdict(done), "case": str(done.number), "seconds": round(done.seconds, 1)})


async def campaign(options: argparse.Namespace, folder: Path) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    cluster = LocalCluster(options.cluster)
    cluster.up(node=False)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/tradingbots.tradingbot.dev")
    book = Book.open("specs")
    # A walk that was begun takes up to two minutes more.
    until = time.monotonic() + options.minutes * 60 - 120
    number, _, of = options.shard.partition("/")
    mine = list(range(1, WALKS + 1))[int(number) - 1 :: int(of)]
    if options.cases:
        mine = [int(text) for text in options.cases.split(",")]
    waiting = [case for case in mine if options.cases or str(case) not in book.done]
    print(f"{WALKS} walks in all, {len(mine)} in this shard, {len(waiting)} not done", flush=True)
    while waiting and time.monotonic() < until:
        some, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
        drawn = [(case, specs(case, SPECS)) for case in some]
        # A scene of its own for each lot: its end looks into the operator's log for errors.
        async with walking(cluster, folder / str(some[0])) as scene:
            await asyncio.gather(*(_work(scene, drawn, book, until) for _ in range(options.parallel)))
        waiting = [case for case, _ in drawn] + waiting
    rows = [book.done[str(case)] for case in mine if str(case) in book.done]
    failed = [row["case"] for row in rows if row["violations"]]
    print(f"{len(rows)} of {len(mine)} walks of this shard done, {WALKS} in all; {len(waiting)} left")
    taken, refused = sum(row["taken"] for row in rows), sum(row["refused"] for row in rows)
    slowest = max((row["slowest"] for row in rows), default=0.0)
    restarts = sum(row["restarts"] for row in rows)
    print(f"{taken} specs brought about, the slowest in {slowest:.1f} s; {refused} refused by admission")
    print(f"the operator was killed {restarts} times meanwhile")
    print(f"{len(failed)} failed" + "".join(f"\n  {name}" for name in failed))
    return int(bool(failed))
