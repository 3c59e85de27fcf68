"""One fleet from its first bot to a thousand: safe mode while nothing, a burst, a hand-over and a start goes on."""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from performance.scale.lab import (
    Lab,
    Lateness,
    condition,
    cpu_seconds,
    fresh_cluster,
    lab,
    memory_mib,
    requests,
)
from performance.scale.loads import bot_name, create_bots
from performance.scale.safe_mode import Tries, one_after_another, release, spread
from support.operator_process import OperatorProcess
from support.waiting import until
from tradingbot_api import names

HAND_OVER_SECONDS = 14.0
"""From the leader's end until another has its Lease and has taken over, and some more."""
MIN_READY_SECONDS = 5.0
"""As the chart's Deployment waits before it ends the former one."""
COLD_START_SECONDS = 8.0
FIGURES_SECONDS = 65.0
"""Figures of the last change are written at most a minute later."""
IDLE_SECONDS = 60.0
START_SECONDS = 240.0


@dataclass
class Life:
    """What one fleet showed, as far as it came. Times in seconds, memory in MiB."""

    fleet: int
    tries: dict[str, Tries] = field(default_factory=dict)
    lateness: dict[str, Lateness] = field(default_factory=dict)
    """Of the leader's event loop, by the same occasions."""
    idle_writes: int | None = None
    idle_cpu: float | None = None
    """Share of a core, of the leader."""
    memory: float | None = None
    """Of the leader with the whole fleet, at rest."""
    most_memory: float | None = None
    killed: float | None = None
    """From the answer to the creation of a ClusterKillSwitch until the last bot was engaged."""
    kill_told: float | None = None
    """Until every status told that it acknowledged, and its own, too."""
    consistent: float | None = None
    """From a start of one replica, as a process, until it has granted each bot."""


async def live(
    life: Life, tries: int, burst: int, *, idle: bool, options: tuple[str, ...], say: Callable[[str], None]
) -> None:
    """Lives it: `tries` bots take part in each occasion, `burst` are created in one of them, all are there at last.

    Without `idle` the two minutes are left out in which nothing may be written. What was seen before a failure stays.
    """
    fleet = life.fleet
    tried = [bot_name(number) for number in range(tries)]
    with fresh_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        async with lab(cluster, Path(folder), options) as made:
            leader = await made.start_operator("first")

            async def occasion(name: str, tries: Awaitable[Tries], fleet: int) -> None:
                before = await made.lateness(leader)
                life.tries[name] = await tries
                life.lateness[name] = (await made.lateness(leader)).since(before)
                say(f"safe mode {name}: {life.tries[name].summary()}")
                await release(made, tried, fleet)

            await create_bots(made.kube, range(tries))
            await made.all_trade(tries, START_SECONDS)
            await occasion("idle", one_after_another(made, tried), tries)
            await occasion("in a burst", _in_a_burst(made, tried, burst), tries + burst)
            say("more bots")
            await create_bots(made.kube, range(tries + burst, fleet))
            await made.all_trade(fleet, START_SECONDS)
            if idle:
                await _rest(made, leader, life)
                say(f"{life.idle_writes} writes while idle")
            await _hand_over(made, tried, life)
            say(f"safe mode in a hand-over: {life.tries['in a hand-over'].summary()}")
            await release(made, tried, fleet)
            life.consistent = await _restart(made)
            say(f"consistent {life.consistent:.1f} s after a start")
            await _cold_start(made, tried, life)
            say(f"safe mode in a cold start: {life.tries['in a cold start'].summary()}")
            await release(made, tried, fleet)
            await _kill(made, life)
            say(f"ClusterKillSwitch: engaged in {life.killed:.1f} s, statuses in {life.kill_told:.1f} s")


async def _in_a_burst(made: Lab, tried: list[str], burst: int) -> Tries:
    """The tries last about as long as the burst takes: 25 bots a second."""
    async with asyncio.TaskGroup() as group:
        group.create_task(create_bots(made.kube, range(len(tried), len(tried) + burst)))
        tries = group.create_task(spread(made, tried, burst / 25))
    return tries.result()


async def _rest(made: Lab, leader: OperatorProcess, life: Life) -> None:
    await asyncio.sleep(FIGURES_SECONDS)
    place, used = made.cluster.audit_log().stat().st_size, cpu_seconds(leader.process.pid)
    await asyncio.sleep(IDLE_SECONDS)
    asked = requests(made.cluster, place)
    life.idle_writes = sum(asked.writes.values()) + asked.events
    life.idle_cpu = (cpu_seconds(leader.process.pid) - used) / IDLE_SECONDS
    life.memory = memory_mib(leader.process.pid)
    life.most_memory = memory_mib(leader.process.pid, "VmHWM")


async def _hand_over(made: Lab, tried: list[str], life: Life) -> None:
    leader = made.operators[0]
    standby = await made.start_operator("second")
    await until("the standby to be ready", lambda: made.ready(standby), 60)
    await asyncio.sleep(MIN_READY_SECONDS)

    async def kill() -> None:
        await asyncio.sleep(1.0)
        await made.stop(leader, signal.SIGKILL)

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        tries = group.create_task(spread(made, tried, HAND_OVER_SECONDS))
    life.tries["in a hand-over"] = tries.result()
    life.lateness["in a hand-over"] = await made.lateness(standby)


async def _kill(made: Lab, life: Life) -> None:
    """A ClusterKillSwitch that selects all TradingBots."""
    switches = f"/apis/{names.API_VERSION}/{names.CLUSTER_KILL_SWITCH.plural}"
    body = {"apiVersion": names.API_VERSION, "kind": names.CLUSTER_KILL_SWITCH.kind, "metadata": {"name": "all"}}
    before = {name: len(made.bots.engaged[name]) for name in made.tradingbots.seen}
    await made.kube.call("POST", switches, {**body, "spec": {"reason": "a measurement"}})
    answered = time.monotonic()

    def engaged() -> list[float]:
        times = [made.bots.engaged[name][count:] for name, count in before.items()]
        return [found[0] for found in times] if all(times) else []

    life.killed = max(await until("each bot to be engaged", engaged, START_SECONDS, every=0.1)) - answered

    def told() -> bool:
        return all(
            condition(raw, "SafeModeAcknowledged").get("status") == "True" for raw in made.tradingbots.seen.values()
        )

    await until("each status to tell of it", told, START_SECONDS, every=0.1)

    async def counted() -> bool:
        return bool((await made.kube.get(f"{switches}/all") or {}).get("status", {}).get("acknowledged") == life.fleet)

    await until("the ClusterKillSwitch to tell of it", counted, START_SECONDS, every=0.1)
    life.kill_told = time.monotonic() - answered


async def _end_all(made: Lab) -> None:
    for operator in list(made.operators):
        await made.stop(operator, signal.SIGTERM)


async def _restart(made: Lab) -> float:
    await _end_all(made)
    before = set(made.bots.granted)
    begun = time.monotonic()
    await made.start_operator("third")
    names = set(made.tradingbots.seen)

    def granted() -> dict[str, float]:
        epochs = [made.bots.granted[epoch] for epoch in set(made.bots.granted) - before]
        return epochs[-1] if epochs and epochs[-1].keys() >= names else {}

    found: dict[str, float] = await until("each bot to be granted", granted, START_SECONDS, every=0.1)
    return max(found.values()) - begun


async def _cold_start(made: Lab, tried: list[str], life: Life) -> None:
    """A patch that comes before the process can see it waits for it: its start is part of the time."""
    await _end_all(made)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(made.start_operator("fourth"))
        tries = group.create_task(spread(made, tried, COLD_START_SECONDS))
    life.tries["in a cold start"] = tries.result()
    life.lateness["in a cold start"] = await made.lateness(starting.result())
