"""Promises of an operator whose API server dies or whose etcd stands still: bots trade on, and it comes back right."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Iterator
from pathlib import Path

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.kube import Json, KubeError, until
from support.operator_process import OperatorProcess
from support.operator_scene import Scene, operator_scene

pytestmark = pytest.mark.cluster

PAUSE_SECONDS = 12.0
"""Of etcd: longer than the leader may go without renewing its Lease, and than the Lease."""


@pytest.fixture
def own_cluster() -> Iterator[LocalCluster]:
    """A cluster that a test may break."""
    started = LocalCluster(f"faults-{os.getpid()}")
    started.up(node=False)
    try:
        crd = Path(__file__).resolve().parents[2] / "crds/tradingbots.yaml"
        started.kubectl("apply", "--server-side", "-f", str(crd))
        started.kubectl("wait", "--for=condition=Established", "crd/tradingbots.tradingbot.dev")
        started.kubectl("create", "namespace", "trading")
        yield started
    finally:
        started.down()


@pytest.fixture
async def fragile(own_cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Scene]:
    """An operator on a cluster that a test may break."""
    async with operator_scene(own_cluster, "trading", tmp_path) as scene:
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

        paused = program(scene.cluster, "etcd")
        os.kill(paused, signal.SIGSTOP)
        wish = asyncio.create_task(scene.kube.merge(path, {"spec": {"safeMode": True}}))
        await asyncio.sleep(PAUSE_SECONDS)
        assert scene.double().granted
        assert not scene.double().engaged
        os.kill(paused, signal.SIGCONT)
        begun = loop.time()
        await asyncio.gather(wish, return_exceptions=True)
        await until("the API server", lambda: answers(scene), 60)
        bot = await scene.bot()
        assert not _acknowledged(bot) or scene.double().engaged
        await _carried(scene, path)
        print(f"right again {loop.time() - begun:.1f} s after etcd went on")
    finally:
        kubelet.cancel()
        await asyncio.gather(kubelet, return_exceptions=True)
        # What it said of the outages is not of interest; what it is now is.
        scene.operator.log.clear()


async def _carried(scene: Scene, path: str) -> None:
    """Safe mode goes on and off as ever."""
    await scene.kube.merge(path, {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK", seconds=30)
    assert scene.double().engaged
    await scene.kube.merge(path, {"spec": {"safeMode": None}})
    await scene.reaches("Trading", seconds=30)


def _acknowledged(bot: Json) -> bool:
    conditions = bot.get("status", {}).get("conditions", [])
    return any(item["type"] == "SafeModeAcknowledged" and item["status"] == "True" for item in conditions)


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer
