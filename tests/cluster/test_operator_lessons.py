"""What went wrong in other operators of trading bots, each as a promise of this one; kubelet and bots are doubles."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from local_kubernetes.local import LocalCluster

from support.kube import Json
from support.operator_scene import Scene, gone, more
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster
CRD = Path(__file__).resolve().parents[2] / "crds/tradingbots.yaml"
CLIENT_SIDE_LIMIT = 262_144
"""Bytes that the annotation of a client-side `kubectl apply` may have."""
OUTLIVE_A_SILENCE = {"observedGeneration", "phase", "conditions", "podName", "podUID", "incarnation", "accountUID"}


async def test_deletions_that_wait_do_not_delay_other_bots(scene: Scene) -> None:
    waiting = [f"waiting-{number}" for number in range(8)]
    for number, name in enumerate([*waiting, "other"]):
        scene.kubelet.settings[name] = {"account_uid": str(2000 + number), "drains": name == "other"}
    for name in waiting:
        await scene.create(name)
    for name in waiting:
        await scene.reaches("Trading", name, seconds=30)
    for name in waiting:
        await scene.kube.call("DELETE", scene.path("tradingbots", name))
    for name in waiting:
        await until("the drain to begin", lambda name=name: more(scene.double(name).drain_requests, 0))  # type: ignore[misc]
    await scene.create("other")
    await scene.reaches("Trading", "other", seconds=8)
    await scene.kube.merge(scene.path("tradingbots", "other"), {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK", "other", seconds=3)
    await scene.kube.call("DELETE", scene.path("tradingbots", "other"))
    await until("the other to go", lambda: gone(scene, "tradingbots", "other"), seconds=8)
    assert {(await scene.bot(name))["status"]["phase"] for name in waiting} == {"Draining"}


async def orphan(scene: Scene, name: str = "btcusdt") -> None:
    """Removes a TradingBot past its operator, so that its pod stays: --cascade=orphan and the finalizer by hand."""
    scene.double(name).drains = False
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await scene.kube.call("DELETE", scene.path("tradingbots", name), options)

    async def stripped() -> bool:
        bot = await scene.bot(name)
        if bot["metadata"]["finalizers"] != [names.FINALIZER]:
            return False
        await scene.kube.merge(scene.path("tradingbots", name), {"metadata": {"finalizers": None}})
        return True

    await until("the owner references to go", stripped, seconds=30)
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", name))


async def test_a_pod_whose_tradingbot_was_removed_past_the_operator_is_ended(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    double = scene.double()
    await orphan(scene)
    granted = len(double.grants)
    await until("the pod to go", lambda: gone(scene, "pods", "btcusdt"))
    assert len(double.grants) == granted


async def test_a_pod_that_was_orphaned_while_no_operator_ran_is_ended_by_the_next_one(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    await scene.operator.stop()
    await orphan(scene)
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    assert "ownerReferences" not in pod["metadata"]
    await scene.restart_operator()
    await until("the pod to go", lambda: gone(scene, "pods", "btcusdt"))


async def test_a_bot_of_the_same_name_comes_up_after_the_orphan_of_the_former_one_ended(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    first = scene.double()
    await scene.operator.stop()
    await orphan(scene)
    for resource, name in (("configmaps", "btcusdt-config"),):
        await scene.kube.call("DELETE", scene.path(resource, name))
    scene.kubelet.settings["btcusdt"] = {"account_uid": "1002"}
    await scene.create()
    await scene.restart_operator()
    await scene.reaches("Trading", seconds=30)
    assert scene.double() is not first


async def test_a_copy_of_a_bots_pod_under_another_name_is_left_alone(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    metadata = {"name": "copy", "labels": pod["metadata"]["labels"]}
    containers = [{"name": "bot", "image": "registry.invalid/bot"}]
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": containers}}
    await scene.kube.call("POST", scene.path("pods"), body)
    await scene.restart_operator()
    await until("a grant of the new operator", lambda: more(scene.double().grants, 1), seconds=25)
    assert "deletionTimestamp" not in (await scene.kube.call("GET", scene.path("pods", "copy")))["metadata"]


async def test_a_deletion_with_orphaned_dependents_still_drains_and_ends_the_pod(scene: Scene) -> None:
    await scene.create(deletionPolicy="ClosePosition")
    await scene.reaches("Trading")
    double = scene.double()
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"), options)
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=30)
    assert len(double.drain_requests) == 1
    assert await gone(scene, "pods", "btcusdt")


async def test_no_field_of_a_status_outlives_what_it_tells(scene: Scene) -> None:
    await scene.create()
    status = (await scene.reaches("Trading"))["status"]
    told = set(status) - OUTLIVE_A_SILENCE
    assert {"balance", "position", "pnl", "safeMode", "circuitBreaker", "usage"} <= told
    await scene.kubelet.crash("btcusdt")
    await scene.is_("BotReachable", "False", "NoHeartbeat", seconds=25)
    assert set((await scene.bot())["status"]) - OUTLIVE_A_SILENCE == set()
    scene.kubelet.held.add("btcusdt")
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))
    await scene.is_("PodReady", "False", "PodPending", seconds=25)
    status = (await scene.bot())["status"]
    assert set(status) <= OUTLIVE_A_SILENCE
    true = {item["type"] for item in status["conditions"] if item["status"] == "True"}
    assert true == {"Accepted", "AddressSuffices", "ClaimHeld", "UpToDate"}


async def test_a_status_write_never_changes_the_spec(scene: Scene) -> None:
    await scene.create()
    old = await scene.reaches("Trading")
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK")
    spec = (await scene.bot())["spec"]
    assert spec["safeMode"] is True
    # An operator of another version writes what it read before the patch, and fields of its own.
    status = {**old["status"], "state": "Running", "phase": "Running"}
    version = (await scene.bot())["metadata"]["resourceVersion"]
    stale = {**old, "metadata": {**old["metadata"], "resourceVersion": version}, "status": status}
    await scene.kube.call("PUT", scene.path("tradingbots", "btcusdt") + "/status", stale)
    await scene.kube.merge(scene.path("tradingbots", "btcusdt") + "/status", {"spec": {"safeMode": None}})
    await scene.reaches("SafeMode")
    bot = await scene.bot()
    assert bot["spec"] == spec
    assert bot["metadata"]["generation"] == old["metadata"]["generation"] + 1
    assert "state" not in bot["status"]
    assert scene.double().config.settings.safe_mode is True
    owned = [
        set(entry["fieldsV1"]) | set(entry["fieldsV1"].get("f:metadata", {}))
        for entry in bot["metadata"]["managedFields"]
        if entry["manager"] == names.FIELD_MANAGER
    ]
    assert set().union(*owned) == {"f:metadata", "f:finalizers", "f:status"}


@pytest.mark.parametrize("way", [(), ("--server-side", "--force-conflicts")], ids=["client-side", "server-side"])
def test_the_crd_can_be_applied(served_cluster: LocalCluster, way: tuple[str, ...]) -> None:
    done = served_cluster.kubectl("apply", "--dry-run=server", *way, "-f", str(CRD))
    assert "tradingbots.tradingbot.dev" in str(done)


def test_the_crd_fits_the_annotation_of_a_client_side_apply(served_cluster: LocalCluster) -> None:
    stored = json.loads(str(served_cluster.kubectl("get", "crd", "tradingbots.tradingbot.dev", "-o", "json")))
    assert len(json.dumps(stored["spec"])) < CLIENT_SIDE_LIMIT / 2


async def test_what_one_bot_makes_impossible_does_not_touch_the_others(scene: Scene) -> None:
    await scene.create("good")
    await scene.reaches("Trading", "good")
    scene.kubelet.settings["bad"] = {"account_uid": "1002"}
    await scene.create("bad")
    await scene.reaches("Trading", "bad")
    rubbish: Json = {"data": {names.CONFIG_KEY: "{"}}
    await scene.kube.merge(scene.path("configmaps", "bad-config"), rubbish)
    status = {"status": {"phase": "?", "conditions": [], "pnl": {"realized": "x", "unrealized": "", "total": "-"}}}
    await asyncio.gather(
        scene.restart_operator(),
        scene.kube.merge(scene.path("tradingbots", "bad") + "/status", status),
        return_exceptions=True,
    )
    before = len(scene.double("good").grants)
    await until("a grant of the good one", lambda: more(scene.double("good").grants, before), seconds=25)
    await scene.reaches("Trading", "bad", seconds=30)
    await scene.reaches("Trading", "good")


async def test_a_step_that_fails_again_and_again_is_told_on_its_bot_and_the_others_go_on(scene: Scene) -> None:
    await scene.create("good")
    await scene.reaches("Trading", "good")
    held = len(await scene.kube.items(scene.path("configmaps")))
    hard = {"spec": {"hard": {"count/configmaps": str(held)}}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}, **hard}
    await scene.kube.call("POST", scene.path("resourcequotas"), quota)

    async def enforced() -> bool:
        return bool((await scene.kube.call("GET", scene.path("resourcequotas", "full"))).get("status", {}).get("used"))

    await until("the quota", enforced)
    scene.kubelet.settings["bad"] = {"account_uid": "1002"}
    await scene.create("bad")
    message = await scene.is_("Accepted", "Unknown", "Stalled", "bad", seconds=30)
    assert "exceeded quota: full" in message
    assert (await scene.bot("bad"))["status"]["phase"] == "Degraded"
    await scene.kube.merge(scene.path("tradingbots", "good"), {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK", "good", seconds=5)
    await scene.kube.call("DELETE", scene.path("resourcequotas", "full"))
    await scene.reaches("Trading", "bad", seconds=45)
