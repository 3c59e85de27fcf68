"""Promises of an operator that starts with a thousand TradingBots: its event loop turns, and safe mode passes them."""

from __future__ import annotations

import asyncio
import re
import signal
import uuid
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.bot_double import BotDouble
from support.kube import BOTS, Json
from support.operator_process import OperatorProcess
from support.operator_scene import SPEC, operator_scene
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

MANY: Final = 1000
AT_ONCE: Final = 25
WATCHED_SECONDS: Final = 8.0
LATE_SECONDS: Final = 1.0
"""A loop that is not blocked comes round within milliseconds; the rest is for a machine that runs other tests, too."""
LATE_LOOKS: Final = 2
CARRIED_SECONDS: Final = 2.0


async def at_once(calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
    """Makes many calls, some at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with gate:
            await call

    await asyncio.gather(*map(one, calls))


def suspended(number: int) -> Json:
    """A TradingBot that a start looks at as at any other, and the scheduler not at all."""
    metadata = {"name": f"bot-{number}"}
    spec = {**SPEC, "suspend": True}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": metadata, "spec": spec}


async def metrics(operator: OperatorProcess) -> str:
    """What its metrics tell."""
    url = f"http://127.0.0.1:{operator.ports['metrics']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.text()


async def looks(operator: OperatorProcess) -> dict[float, int]:
    """How many looks at the event loop came at most so many seconds late."""
    text = await metrics(operator)
    buckets = re.findall(r'^tradingbot_operator_event_loop_lag_seconds_bucket\{le="(.+)"\} (.+)$', text, re.M)
    return {float(bound): int(float(count)) for bound, count in buckets}


async def test_a_start_with_a_thousand_bots_blocks_neither_the_event_loop_nor_a_safe_mode_patch(
    served_cluster: LocalCluster, api_namespace: str, tmp_path: Path
) -> None:
    crowd = f"t-{uuid.uuid4().hex[:8]}"
    served_cluster.kubectl("create", "namespace", crowd)
    bots = BOTS.format(crowd)
    loop = asyncio.get_running_loop()
    async with operator_scene(served_cluster, api_namespace, tmp_path, more=("--namespace", crowd)) as scene:
        try:
            await scene.create()
            await scene.reaches("Trading")
            await scene.operator.stop(signal.SIGKILL)
            begun = loop.time()
            await at_once(scene.kube.call("POST", bots, suspended(number)) for number in range(MANY))
            print(f"{MANY} TradingBots made in {loop.time() - begun:.0f} s")

            await scene.restart_operator()
            await until("it to be ready", lambda: _ready(scene.operator), 30)
            wished = loop.time()
            await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
            await until("safe mode", lambda: _engaged(scene.double()))
            carried = loop.time() - wished
            await asyncio.sleep(WATCHED_SECONDS)  # the work on the thousand goes on
            late = await looks(scene.operator)
            waiting = re.findall(r"^tradingbot_operator_queue_length (.+)$", await metrics(scene.operator), re.M)
            tally = {bound: count for bound, count in late.items() if count > 0}
            print(f"safe mode carried after {carried:.2f} s; looks by seconds late: {tally}; {waiting} still wait")
            assert carried < CARRIED_SECONDS
            assert late[float("inf")] > WATCHED_SECONDS
            assert late[float("inf")] - late[LATE_SECONDS] <= LATE_LOOKS
        finally:
            await scene.operator.stop(signal.SIGKILL)
            served_cluster.kubectl("delete", "namespace", crowd, "--wait=false")
            held = [item["metadata"] for item in await scene.kube.items(bots) if "finalizers" in item["metadata"]]
            free = {"metadata": {"finalizers": None}}
            await at_once(scene.kube.merge(f"{bots}/{item['name']}", free) for item in held)


async def _ready(operator: OperatorProcess) -> bool:
    url = f"http://127.0.0.1:{operator.ports['probe']}/readyz"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status == 200


async def _engaged(double: BotDouble) -> bool:
    return double.engaged
