"""Promises about a node that stops answering: its process may run, until it certainly can add no exposure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.kube import LEASES, Json, Kube, register_node
from support.operator_scene import Scene, operator_scene
from support.own_cluster import NAMESPACE, own_cluster
from support.waiting import until

pytestmark = pytest.mark.cluster

GRACE = "--node-monitor-grace-period=8s"
"""The default of 50 s would be most of the test."""
BEAT_SECONDS = 1.0
POOL = {"example.org/pool": "bots"}
SHAPE: Json = {
    "nodeSelector": POOL,
    "tolerations": [
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    ],
}
COLLECTED_SECONDS = 120.0
"""The garbage collector looks each 20 s, and again after 40 s, whether a node is really gone."""


class Node:
    """A node that takes pods and tells that it is well, as its kubelet would, until it is cut off."""

    def __init__(self, kube: Kube, name: str) -> None:
        self.name = name
        self._kube = kube
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register it, and let its heart beat."""
        await register_node(self._kube, self.name)
        path = f"/api/v1/nodes/{self.name}"
        await self._kube.merge(path, {"metadata": {"labels": POOL}, "spec": {"unschedulable": None}})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
        await self._kube.merge(f"{path}/status", {"status": {"conditions": [ready]}})
        leases = LEASES.format("kube-node-lease")
        spec = {"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": _now()}
        await self._kube.call("POST", leases, {"metadata": {"name": self.name}, "spec": spec})
        self._task = asyncio.create_task(self._beat(f"{leases}/{self.name}"))

    async def _beat(self, lease: str) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            await self._kube.merge(lease, {"spec": {"renewTime": _now()}})

    async def cut_off(self) -> None:
        """Nothing more is heard of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    """An operator on a cluster whose node controller has little patience."""
    with own_cluster("nodes", GRACE) as cluster:
        async with operator_scene(cluster, NAMESPACE, tmp_path) as made:
            yield made


async def test_a_bot_on_a_lost_node_is_made_anew_only_when_its_process_can_trade_no_more(scene: Scene) -> None:
    kube, loop = scene.kube, asyncio.get_running_loop()
    pods, bot = scene.path("pods"), scene.path("tradingbots", "btcusdt")
    lost, spare = Node(kube, "lost"), Node(kube, "spare")
    await lost.start()
    await scene.create(pod=SHAPE)
    await scene.reaches("Trading", seconds=30)
    await spare.start()
    (first,) = await kube.items(pods)
    assert first["spec"]["nodeName"] == lost.name

    # The machine is cut off from everything: nobody ends the pod, and the process may run and trade on.
    double = scene.double()
    scene.kubelet.unending.add("btcusdt")
    await lost.cut_off()
    await scene.kubelet.crash("btcusdt")
    granted = loop.time()
    message = await scene.is_("PodReady", "False", "NodeLost", seconds=60)
    assert "Node lost does not answer" in message
    assert "kubectl delete node lost" in message
    assert "deletionTimestamp" in (await kube.items(pods))[0]["metadata"]
    await kube.merge(bot, {"spec": {"safeMode": True}})
    why = await scene.is_("SafeModeAcknowledged", "False", "BotUnreachable")
    assert double.granted
    print(f"NodeLost after {loop.time() - granted:.1f} s; {why}")

    await kube.call("DELETE", f"/api/v1/nodes/{lost.name}")

    async def another() -> Json | None:
        """The new pod; safe mode stays unacknowledged while the process may hold a grant."""
        status, reason, _ = await scene.condition("SafeModeAcknowledged")
        assert status == "False" or not double.granted, reason
        found = [pod for pod in await kube.items(pods) if pod["metadata"]["uid"] != first["metadata"]["uid"]]
        return found[0] if found else None

    second = await until("another pod", another, COLLECTED_SECONDS, every=0.2)
    print(f"another pod after {loop.time() - granted:.1f} s")
    assert not double.granted
    assert second["metadata"]["name"] == "btcusdt"
    scene.kubelet.unending.clear()
    await scene.is_("SafeModeAcknowledged", "True", "OK", seconds=30)
    assert scene.double().engaged
    await kube.merge(bot, {"spec": {"safeMode": None}})
    await scene.reaches("Trading", seconds=30)
    (second,) = await kube.items(pods)
    assert second["spec"]["nodeName"] == spare.name
    assert (await scene.audited()).count("create pods/") == 2
    await spare.cut_off()
