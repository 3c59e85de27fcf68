"""Promises of the resync: what no watch event told is found by a list, and repeated misses are told to the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from local_kubernetes.local import LocalCluster
from pydantic import Field

from support.kube import BOTS, Kube
from support.operator_objects import SPEC, watched
from support.operator_scene import operator_scene
from support.waiting import until
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig
from tradingbot_api.v1alpha1 import TradingBotStatus
from tradingbot_operator.cluster import Access, Cluster
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.resync import Resync

pytestmark = pytest.mark.cluster


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
    bots: Inventory[SeenBot] = Inventory()
    kinds = [watched(Inventory(), SeenPod), watched(bots, SeenBot)]
    resync = Resync(cluster, (api_namespace,), kinds, now=lambda: datetime.now(UTC), metrics=Metrics())
    key, path = BotKey(api_namespace, "unseen"), BOTS.format(api_namespace)
    assert await resync.round() == 0
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "unseen"}, "spec": SPEC}
    await kube.call("POST", path, body)
    assert await resync.round() == 1
    assert bots.get(key) is not None
    await kube.merge(f"{path}/unseen", {"spec": {"safeMode": True}})
    assert await resync.round() == 1
    seen = bots.get(key)
    assert seen is not None
    assert seen.safe_mode
    await kube.call("DELETE", f"{path}/unseen")
    assert await resync.round() == 1
    assert bots.get(key) is None
    assert resync.trouble() is not None
    assert await resync.round() == 0
    assert resync.trouble() is None


async def test_a_config_map_that_somebody_changed_or_deleted_is_written_anew(
    served_cluster: LocalCluster, api_namespace: str, tmp_path: Path
) -> None:
    more = ("--resync-seconds", "2")
    async with operator_scene(served_cluster, api_namespace, tmp_path, None, more) as scene:
        await scene.create(safeMode=True)
        await scene.reaches("SafeMode")
        path = scene.path("configmaps", "btcusdt-config")
        written = (await scene.kube.call("GET", path))["data"]

        async def whole() -> bool:
            found = await scene.kube.get(path)
            if found is None:
                return False
            config = BotConfig.model_validate_json(found.get("data", {}).get(names.CONFIG_KEY) or "{}")
            return config.settings.safe_mode is True

        loosened = written[names.CONFIG_KEY].replace('"safeMode": true', '"safeMode": false')
        assert loosened != written[names.CONFIG_KEY]
        await scene.kube.merge(path, {"data": {names.CONFIG_KEY: loosened}})
        await until("the ConfigMap as it should be", whole)
        await scene.kube.call("DELETE", path)
        await until("the ConfigMap again", whole)
        assert (await scene.bot())["status"]["phase"] == "SafeMode"


class LaterStatus(TradingBotStatus):
    """Of an operator that is newer than the CRD."""

    of_later: str = "a"
    also_later: dict[str, str] = Field(default={"deep": "b"})


async def test_a_status_with_fields_that_an_older_crd_does_not_have_is_written_without_them(
    calls: tuple[Kube, Cluster], api_namespace: str
) -> None:
    kube, cluster = calls
    body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "old"}, "spec": SPEC}
    bot = SeenBot.of(await kube.call("POST", BOTS.format(api_namespace), body))
    written = await cluster.apply_status(bot, LaterStatus(phase="Trading"))
    assert written.told == TradingBotStatus(phase="Trading")
    assert cluster.undeclared == {"ofLater", "alsoLater"}
    await cluster.apply_status(written, LaterStatus(phase="Paused"))
    await kube.call("DELETE", f"{BOTS.format(api_namespace)}/old")
