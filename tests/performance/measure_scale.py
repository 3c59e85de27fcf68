"""Measures the operator with up to 1,000 TradingBots beside StatefulSets under kube-controller-manager; `make bench`.

Real control plane, kwok nodes, real operator processes; one process plays the bots over mTLS (scale/light_bots.py).
Every load has an empty cluster of its own; loads of one size take turns. All of it runs on the machine's own cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import platform
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import uvloop

from performance.scale.lab import (
    Requests,
    cpu_of_all,
    cpu_seconds,
    fresh_cluster,
    lab,
    memory_mib,
    pid_of,
    programs,
    requests,
)
from performance.scale.life import Life, live
from performance.scale.loads import Burst, burst_of_bots, burst_of_statefulsets
from performance.scale.tables import percentile, spread, table
from support.kube import Kube

MANAGER = "kube-controller-manager"
TUNED = ("--kube-api-qps=1000", "--kube-api-burst=2000", "--concurrent-statefulset-syncs=20")
LOADS = {
    "TradingBots": (),
    "StatefulSets, tuned manager": TUNED,
    "StatefulSets, default manager": (),
}
"""Loads and the flags of kube-controller-manager. The scheduler is tuned in all of them."""
MOST_BY_DEFAULT_MANAGER = 500
"""More take it minutes, at the same rate."""
NOT_PACED = ("--exchange-weight-per-minute", "0")
"""Starts wait for no request weight of the exchange: what is measured is the operator."""
SETTLE_SECONDS = 6.0
"""After the last Ready: a bot is granted, and the status that says so is written."""


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"[bench {time.monotonic() - BEGUN:6.0f} s] {text}\n")
    sys.stderr.flush()


BEGUN = time.monotonic()


@dataclass(frozen=True)
class Run:
    """One load once. CPU in seconds and memory in MiB are of the operator, or of kube-controller-manager."""

    burst: Burst
    cpu: float
    memory: float
    all_cpu: Counter[str]
    """Of every program that took part, until the last was Ready."""
    asked: Requests | None = None


async def run_bots(count: int, options: tuple[str, ...]) -> Run:
    """TradingBots under one operator."""
    with fresh_cluster(*LOADS["TradingBots"]) as cluster, tempfile.TemporaryDirectory() as folder:
        async with lab(cluster, Path(folder), options) as made:
            operator = await made.start_operator("first")
            pid = operator.process.pid
            pids = {**programs(cluster), "operator": pid, "all bots": made.bots.process.pid, "clients": os.getpid()}
            before, all_before = cpu_seconds(pid), cpu_of_all(pids)
            burst = await burst_of_bots(made.kube, made.tradingbots, range(count))
            used = cpu_of_all(pids) - all_before
            await made.all_trade(count, 120)
            await asyncio.sleep(SETTLE_SECONDS)
            run = Run(burst, cpu_seconds(pid) - before, memory_mib(pid), used, requests(cluster))
            if complaints := operator.complaints():
                raise AssertionError(f"the operator complained: {complaints[:3]}")
            return run


async def run_statefulsets(count: int, flags: tuple[str, ...]) -> Run:
    """StatefulSets under a kube-controller-manager with these flags."""
    with fresh_cluster(*flags) as cluster:
        kube = await Kube.of(cluster.kubeconfig())
        try:
            pid, pids = pid_of(cluster, MANAGER), {**programs(cluster), "clients": os.getpid()}
            before, all_before = cpu_seconds(pid), cpu_of_all(pids)
            burst = await burst_of_statefulsets(kube, count)
            used = cpu_of_all(pids) - all_before
            return Run(burst, cpu_seconds(pid) - before, memory_mib(pid), used)
        finally:
            await kube.close()


async def throughput(counts: Iterable[int], repeat: int, options: tuple[str, ...]) -> dict[tuple[int, str], list[Run]]:
    """All loads of all sizes, in turns whose order changes with each round."""
    runs: dict[tuple[int, str], list[Run]] = defaultdict(list)
    for turn in range(repeat):
        for count in counts:
            names = list(LOADS)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name.endswith("default manager") and count > MOST_BY_DEFAULT_MANAGER:
                    continue
                if name == "TradingBots":
                    run = await run_bots(count, options)
                else:
                    run = await run_statefulsets(count, LOADS[name])
                runs[count, name].append(run)
                say(f"{count} {name}: {run.burst.rate:.1f}/s, CPU {run.cpu:.1f} s, {run.memory:.0f} MiB")
    return runs


def throughput_table(runs: dict[tuple[int, str], list[Run]]) -> str:
    """A row for each load and size."""
    head = ("n", "Load", "Ready a second", "p50 s", "p99 s", "CPU ms each", "memory MiB")
    rows = []
    for (count, name), found in runs.items():
        bursts = [run.burst for run in found]
        rows.append(
            (
                str(count),
                name,
                spread([burst.rate for burst in bursts]),
                spread([percentile(burst.latencies, 0.5) for burst in bursts]),
                spread([percentile(burst.latencies, 0.99) for burst in bursts]),
                spread([1000 * run.cpu / count for run in found]),
                spread([run.memory for run in found], 0),
            )
        )
    return table(head, rows)


def cpu_table(runs: dict[tuple[int, str], list[Run]]) -> str:
    """CPU for each object, of every program that took part: all of them have the same cores."""
    rows = []
    for (count, name), found in runs.items():
        last = found[-1]
        each = ", ".join(f"{who} {1000 * seconds / count:.0f}" for who, seconds in last.all_cpu.most_common(7))
        share = last.all_cpu.total() / last.burst.seconds / (os.cpu_count() or 1)
        rows.append((str(count), name, each, f"{1000 * last.all_cpu.total() / count:.0f}", f"{share:.0%}"))
    return table(("n", "Load", "CPU ms each until the last is Ready", "in all", "of the cores"), rows)


def requests_table(runs: dict[tuple[int, str], list[Run]]) -> str:
    """Writes and reads for each new TradingBot, by verb and resource."""
    rows = []
    for (count, _), found in runs.items():
        for asked in (run.asked for run in found[-1:] if run.asked is not None):
            each = sum(asked.writes.values()) / count
            writes = ", ".join(f"{what} {number / count:.2f}" for what, number in asked.writes.most_common())
            reads = ", ".join(f"{what} {number}" for what, number in asked.reads.most_common(8))
            rows.append((str(count), f"{each:.2f}", writes, f"{asked.events / count:.2f}", reads))
    return table(("n", "Writes each", "of these", "Events each", "Reads in all"), rows)


def safe_mode_table(life: Life) -> str:
    """A row for each occasion."""
    head = ("spec.safeMode", "n", "engaged p50 s", "p99 s", "max s", "since it was sent p99 s",
            "acknowledged p50 s", "p99 s", "event loop late p99 s", "max s")  # fmt: skip
    rows = []
    for occasion, late in life.lateness.items():
        tries = life.tries[occasion]
        told = [
            *(percentile(tries.engaged, share) for share in (0.5, 0.99, 1)),
            percentile(tries.engaged_after_sending, 0.99),
            *(percentile(tries.acknowledged, share) for share in (0.5, 0.99)),
        ]
        bounds = [f"<= {late.within(share):g}" for share in (0.99, 1)]
        rows.append((occasion, str(len(tries.engaged)), *(f"{value:.3f}" for value in told), *bounds))
    return table(head, rows)


def fleet_table(life: Life) -> str:
    """What else the fleet showed."""
    measured = [
        ("from the start of one replica to a grant for each bot, s", life.consistent, "{:.1f}"),
        ("a ClusterKillSwitch over all: the last bot engaged, s", life.killed, "{:.1f}"),
        ("all statuses tell that they acknowledged, s", life.kill_told, "{:.1f}"),
        ("writes in an idle minute", life.idle_writes, "{}"),
        ("CPU of the idle leader, of one core", life.idle_cpu, "{:.0%}"),
        ("memory of the leader, MiB", life.memory, "{:.0f}"),
        ("its most until then, MiB", life.most_memory, "{:.0f}"),
    ]
    rows = [(what, form.format(value)) for what, value, form in measured if value is not None]
    return table((f"With {life.fleet} TradingBots", ""), rows)


def aims_table(runs: dict[tuple[int, str], list[Run]]) -> str:
    """How many times as fast as StatefulSets, in each round of their own."""
    rows = []
    for (count, name), found in runs.items():
        bots = runs.get((count, "TradingBots"), [])
        if name != "TradingBots" and bots:
            ratios = [ours.burst.rate / theirs.burst.rate for ours, theirs in zip(bots, found, strict=False)]
            rows.append((str(count), name, spread(ratios, 2)))
    return table(("n", "TradingBots a second per", "times"), rows)


def machine() -> str:
    """What it ran on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}, load {load}"


async def main() -> int:
    """Runs it, and prints or writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 500, 1000], help="sizes of the loads")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of the loads")
    parser.add_argument("--tries", type=int, default=200, help="tries of safe mode on each occasion")
    parser.add_argument("--fleet", type=int, default=1000, help="TradingBots of the fleet on which safe mode is tried")
    parser.add_argument("--short", action="store_true", help="500 of each, one round, a fleet of 500")
    parser.add_argument("--only", choices=["loads", "fleet"], help="one part")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the tables there, too")
    options = parser.parse_args()
    if options.short:
        options.counts, options.repeat, options.tries, options.fleet = [500], 1, 100, 500
    gc.disable()  # passes over all that is watched would count as lateness of what is measured
    # What is begun is ended also where somebody asks for the end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
    # The file is where it is read, and no part of what was measured.
    words = [word for word in sys.argv[1:] if word not in {"--write", str(options.write)}]
    parts = [f"`{' '.join(['measure_scale.py', *words])}` on a machine of {machine()} before it began."]
    if options.only != "fleet":
        runs = await throughput(options.counts, options.repeat, NOT_PACED)
        parts += [throughput_table(runs), aims_table(runs), cpu_table(runs), requests_table(runs)]
        print("\n\n".join(parts), flush=True)
    if options.only != "loads":
        burst = min(500, options.fleet - options.tries)
        life = Life(options.fleet)
        try:
            await live(life, options.tries, burst, idle=not options.short, options=NOT_PACED, say=say)
        finally:
            fleet = [safe_mode_table(life), fleet_table(life)]
            print("\n\n".join(fleet), flush=True)
        parts += fleet
    if options.write is not None:
        text = "\n\n".join(["# Figures of a thousand TradingBots", "What they mean: [scale.md](scale.md).", *parts])
        options.write.write_text(f"{text}\n")
    say("done")
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
