"""Promises of an operator whose API server dies or whose etcd stands still: bots trade on, and it comes back right."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.bot_double import BotDouble
from support.kube import KubeError
from support.operator_process import OperatorProcess
from support.operator_scene import Scene, operator_scene
from support.own_cluster import NAMESPACE, own_cluster
from support.waiting import until
from tradingbot_api.bot_http import GRANT_TTL_SECONDS
from tradingbot_operator.leader import LEASE_SECONDS

pytestmark = pytest.mark.cluster


@pytest.fixture
async def fragile(tmp_path: Path) -> AsyncIterator[Scene]:
    """An operator on a cluster that a test may break."""
    with own_cluster("faults") as cluster:
        async with operator_scene(cluster, NAMESPACE, tmp_path) as scene:
            yield scene


def program(cluster: LocalCluster, name: str) -> int:
    """The process id of a program of a cluster."""
    first = next(process.pid for process in cluster.processes() if process.first)
    for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
        if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode().endswith(f"/{name}"):
            return int(child)
    raise AssertionError(f"no {name} runs in cluster {cluster.name}")


async def kept_alive(scene: Scene) -> None:
    """Starts the operator again whenever it ends, as a kubelet does, until cancelled."""
    while True:
        await scene.operator.process.wait()
        scene.operator = await OperatorProcess.start(
            scene.cluster.kubeconfig(), scene.authority, scene.namespace, "--identity", "test"
        )


async def answers(scene: Scene) -> bool:
    """Whether the API server answers."""
    try:
        return await scene.bot() != {}
    except (aiohttp.ClientError, TimeoutError, KubeError):
        return False


async def test_bots_trade_on_while_the_api_server_dies_and_etcd_stands_still_and_all_is_right_again(
    fragile: Scene,
) -> None:
    scene, loop = fragile, asyncio.get_running_loop()
    path = scene.path("tradingbots", "btcusdt")
    await scene.create()
    await scene.reaches("Trading")
    before = await scene.audited()
    kubelet = asyncio.create_task(kept_alive(scene))
    try:
        os.kill(program(scene.cluster, "kube-apiserver"), signal.SIGKILL)
        begun = loop.time()
        await until("no API server", lambda: _not(answers(scene)))
        await until("the API server", lambda: answers(scene), 60)
        print(f"the API server was away for {loop.time() - begun:.1f} s")
        assert scene.double().granted
        await _carried(scene, path)
        assert (await scene.audited())[len(before) :].count("create pods/") == 0

        paused, pod = program(scene.cluster, "etcd"), await scene.kube.call("GET", scene.path("pods", "btcusdt"))
        leader, double, begun = scene.operator, scene.double(), loop.time()
        os.kill(paused, signal.SIGSTOP)
        async with asyncio.timeout(LEASE_SECONDS + 5):
            code = await leader.process.wait()
        print(f"the leader ended with {code}, {loop.time() - begun:.1f} s after etcd stood still")
        assert code == 3
        assert double.granted
        # Who comes after it cannot take the Lease, and grants nothing: the bot trades on until its grant runs out.
        grants = len(double.grants)
        await until("the grant to run out", lambda: _not(_granted(double)), GRANT_TTL_SECONDS)
        assert double.status(0).safe_mode.level == "NoNewEntries"
        assert len(double.grants) == grants
        os.kill(paused, signal.SIGCONT)
        begun = loop.time()
        await until("the API server", lambda: answers(scene), 60)
        await scene.shows(lambda status: status.get("phase") == "Trading" and double.granted, seconds=60)
        print(f"right again {loop.time() - begun:.1f} s after etcd went on")
        await _carried(scene, path)
        same = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
        assert same["metadata"]["uid"] == pod["metadata"]["uid"]
        assert scene.kubelet.runs["btcusdt"] == [double]
    finally:
        kubelet.cancel()
        await asyncio.gather(kubelet, return_exceptions=True)
        # What it said of the outages is not of interest; what it is now is.
        scene.operator.log.clear()


async def _carried(scene: Scene, path: str) -> None:
    """Safe mode goes on and off as ever."""
    await scene.kube.merge(path, {"spec": {"safeMode": True}})
    # A bot without a grant has acknowledged too, and the status of an outage may be written only after it.
    await scene.is_("SafeModeEngaged", "True", "Spec", seconds=30)
    await scene.is_("SafeModeAcknowledged", "True", "OK", seconds=30)
    assert scene.double().engaged
    await scene.kube.merge(path, {"spec": {"safeMode": None}})
    await scene.reaches("Trading", seconds=30)


async def _granted(double: BotDouble) -> bool:
    return double.granted


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer
