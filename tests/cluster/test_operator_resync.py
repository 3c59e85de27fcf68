"""Promises of the resync: what no watch event told is found by a list, and repeated misses are told to the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from local_kubernetes.local import LocalCluster

from support.kube import BOTS, Kube
from support.operator_objects import SPEC
from tradingbot_api import names
from tradingbot_operator.cluster import Access, Cluster
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.resync import Resync

pytestmark = pytest.mark.cluster


class Notebook:
    """Takes in what a resync finds, as the watcher does."""

    def __init__(self, bots: Inventory[SeenBot], pods: Inventory[SeenPod]) -> None:
        self.bots, self.pods = bots, pods

    def bot(self, raw: Manifest) -> None:
        self.bots.see(SeenBot.of(raw))

    def bot_gone(self, bot: SeenBot) -> None:
        self.bots.gone(bot.key, bot.uid)

    def pod(self, raw: Manifest) -> None:
        self.pods.see(SeenPod.of(raw))

    def pod_gone(self, pod: SeenPod) -> None:
        self.pods.gone(pod.key, pod.uid)


@pytest.fixture
async def calls(served_cluster: LocalCluster) -> AsyncIterator[tuple[Kube, Cluster]]:
    kube = await Kube.of(served_cluster.kubeconfig())
    cluster = Cluster(await Access.load(str(served_cluster.kubeconfig())), Metrics())
    yield kube, cluster
    await cluster.close()
    await kube.close()


async def test_a_bot_that_no_event_told_is_found_changed_and_gone(
    calls: tuple[Kube, Cluster], api_namespace: str
) -> None:
    kube, cluster = calls
    notebook = Notebook(Inventory(), Inventory())
    resync = Resync(
        cluster, (api_namespace,), bots=notebook.bots, pods=notebook.pods,
        watcher=notebook, now=lambda: datetime.now(UTC), metrics=Metrics(),
    )  # fmt: skip
    key, path = BotKey(api_namespace, "unseen"), BOTS.format(api_namespace)
    assert await resync.round() == 0
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "unseen"}, "spec": SPEC}
    await kube.call("POST", path, body)
    assert await resync.round() == 1
    assert notebook.bots.get(key) is not None
    await kube.merge(f"{path}/unseen", {"spec": {"safeMode": True}})
    assert await resync.round() == 1
    seen = notebook.bots.get(key)
    assert seen is not None
    assert seen.safe_mode
    await kube.call("DELETE", f"{path}/unseen")
    assert await resync.round() == 1
    assert notebook.bots.get(key) is None
    assert resync.trouble() is not None
    assert await resync.round() == 0
    assert resync.trouble() is None
