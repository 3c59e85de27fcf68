"""Promises of the end of a TradingBot and of its volume, against a real API server; kubelet and bot are doubles."""

from __future__ import annotations

import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.kube import Json, Kube
from support.operator_process import OperatorProcess
from support.operator_scene import Scene, gone, logged, operator_scene
from support.waiting import until
from tradingbot_api import names
from tradingbot_api.bot_http import OpenOrder

pytestmark = pytest.mark.cluster

PREFIX = names.order_prefix("1001", "BTCUSDT")
STOP = OpenOrder(
    client_order_id=f"{PREFIX}0000001-000001-sl", order_id=7, order_list_id=3, type="STOP_LOSS_LIMIT", side="SELL",
    status="NEW", quantity="0.5", executed_quantity="0", price="97", stop_price="98", purpose="sl",
    created_time=datetime(2026, 11, 22, tzinfo=UTC),
)  # fmt: skip
HOLDING: dict[str, Any] = {"quantity": Decimal("0.5"), "open_orders": (STOP,)}


async def events(scene: Scene) -> dict[str, str]:
    """Messages of the namespace's events, by reason."""
    return {item["reason"]: item["message"] for item in await scene.kube.items(scene.path("events"))}


async def delete(scene: Scene, resource: str = "tradingbots", name: str = "btcusdt") -> None:
    """Deletes an object of the namespace."""
    await scene.kube.call("DELETE", scene.path(resource, name))


async def ends(scene: Scene, seconds: float = 60.0) -> None:
    """Waits for the TradingBot to go."""
    try:
        await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; log {scene.operator.log[-8:]}") from error


async def metric(scene: Scene, name: str) -> float:
    """A figure of the operator, over all labels."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{scene.operator.ports['metrics']}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    found = [line for line in lines if line.split("{")[0].split(" ")[0] == f"tradingbot_operator_{name}"]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


async def begin_operator(scene: Scene) -> None:
    """Another operator, after one that was stopped."""
    scene.operator = await OperatorProcess.start(
        scene.cluster.kubeconfig(), scene.authority, scene.namespace, *scene.options
    )


async def test_of_a_dead_bot_everything_it_last_told_is_named_at_the_deadline(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = HOLDING
    await scene.create(deletionDeadlineSeconds=10)
    await scene.reaches("Trading")
    await scene.kubelet.crash("btcusdt")
    await delete(scene)
    await ends(scene)
    message = (await events(scene))["DeletionIncomplete"]
    assert STOP.client_order_id in message
    assert "position 0.5 of BTCUSDT" in message
    assert f"client order id begins {PREFIX}" in message
    assert [item["left"][0] for item in scene.operator.log if item.get("event") == "left on the exchange"] == [
        "position 0.5 of BTCUSDT"
    ]


async def test_a_bot_whose_pod_was_lost_while_no_operator_ran_drains_in_another_one(scene: Scene) -> None:
    await scene.create(deletionPolicy="ClosePosition")
    status = (await scene.reaches("Trading"))["status"]
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    assert status["podUID"] == pod["metadata"]["uid"]
    await scene.operator.stop(signal.SIGKILL)
    await delete(scene)
    await delete(scene, "pods")
    await until("the pod to go", lambda: gone(scene, "pods", "btcusdt"))
    # An operator that never saw the pod knows its UID, so the word of a human counts.
    mark = {"metadata": {"annotations": {names.CONFIRM_STOPPED_ANNOTATION: status["podUID"]}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), mark)
    # Its number is below what the claim knows: it must take a greater one before it sends a cancel or a sale.
    scene.kubelet.settings["btcusdt"] = {"incarnation": 5}
    await begin_operator(scene)
    await ends(scene)
    first, second = scene.kubelet.runs["btcusdt"]
    assert [request.position_policy for request in second.drain_requests] == ["ClosePosition"]
    assert second.incarnation > first.incarnation
    assert [request.claimed_incarnation for request in second.drain_requests] == [second.incarnation]
    assert "DeletionIncomplete" not in await events(scene)


async def test_an_operator_that_ends_just_before_a_release_leaves_no_false_report(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"remaining": ("position 0.5 BTC",)}
    scene.kubelet.unending.add("btcusdt")
    await scene.create()
    await scene.reaches("Trading")
    await delete(scene)

    async def ending() -> bool:
        return "deletionTimestamp" in (await scene.kube.call("GET", scene.path("pods", "btcusdt")))["metadata"]

    await until("the pod's end to be asked for", ending)
    assert (await scene.bot())["status"]["drained"] == {"positionPolicy": "Hold", "remaining": ["position 0.5 BTC"]}
    await scene.operator.stop(signal.SIGKILL)
    scene.kubelet.unending.clear()
    await until("the pod to go", lambda: gone(scene, "pods", "btcusdt"))
    await begin_operator(scene)
    await ends(scene)
    assert scene.kubelet.starts["btcusdt"] == 1
    told = await events(scene)
    assert told["LeftOnExchange"] == "Stays on the exchange: position 0.5 BTC"
    assert not {"DeletionIncomplete", "PodReplaced"} & set(told)


async def test_a_bot_without_configuration_certificate_and_claim_still_drains(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"drains": False}
    bot = await scene.create(deletionPolicy="ClosePosition")
    await scene.reaches("Trading")
    scene.kubelet.settings["btcusdt"] = {}
    await delete(scene)
    await delete(scene, "configmaps", names.config_map_name("btcusdt"))
    await delete(scene, "secrets", names.tls_secret_name("btcusdt", bot["metadata"]["uid"]))
    for lease in await scene.kube.items(scene.path("leases")):
        if lease["metadata"]["name"].startswith("claim-"):
            await delete(scene, "leases", lease["metadata"]["name"])
    await delete(scene, "pods")
    await ends(scene)
    assert scene.kubelet.runs["btcusdt"][-1].drain_requests
    assert "DeletionIncomplete" not in await events(scene)
    claims = [item for item in await scene.kube.items(scene.path("leases")) if "claim-" in item["metadata"]["name"]]
    assert claims == []


async def test_a_bot_that_lost_its_keys_ends_at_the_deadline_with_what_it_told_before(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = HOLDING
    await scene.create(deletionPolicy="ClosePosition", deletionDeadlineSeconds=10)
    await scene.reaches("Trading")
    scene.kubelet.settings["btcusdt"] = {"account_uid": None, "balance_synced": ("False", "CredentialsMissing")}
    await delete(scene, "pods")
    await until("another process", lambda: more_runs(scene, 2))
    await scene.is_("BalanceSynced", "False", "CredentialsMissing")
    await delete(scene)
    await ends(scene)
    assert scene.kubelet.runs["btcusdt"][-1].drain_requests == []
    message = (await events(scene))["DeletionIncomplete"]
    assert "position 0.5 of BTCUSDT" in message
    assert STOP.client_order_id in message


async def test_safe_mode_of_a_suspended_bot_is_acknowledged_by_its_end_also_for_a_new_operator(scene: Scene) -> None:
    await scene.create(safeMode=True)
    await scene.is_("SafeModeAcknowledged", "True", "OK", seconds=30)
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"suspend": True}})
    await scene.is_("SafeModeAcknowledged", "True", "ProcessGone", seconds=30)
    assert (await scene.condition("SafeModeEngaged"))[:2] == ("True", "ProcessGone")

    async def forgotten() -> bool:
        return "podUID" not in (await scene.bot())["status"]

    await until("the pod to be told as gone", forgotten)
    before = (await scene.bot())["status"]
    await scene.restart_operator()
    await until("the new operator to look", lambda: metric(scene, "reconciles_total"), seconds=60)
    assert (await scene.bot())["status"] == before


@asynccontextmanager
async def namespace_of(cluster: LocalCluster) -> AsyncIterator[str]:
    """A namespace that the test itself may delete."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


async def test_a_namespace_that_goes_hangs_on_no_bot_and_what_is_left_is_logged_and_counted(
    served_cluster: LocalCluster, api_namespace: str, tmp_path: Path
) -> None:
    async with (
        namespace_of(served_cluster) as namespace,
        operator_scene(served_cluster, namespace, tmp_path, more=("--claims-namespace", api_namespace)) as scene,
    ):
        scene.kubelet.settings["btcusdt"] = HOLDING
        await scene.create(deletionDeadlineSeconds=600)
        await scene.reaches("Trading")
        await scene.kube.call("DELETE", f"/api/v1/namespaces/{namespace}")
        # Long before the deadline: no pod can be made in it, so nothing is to be waited for.
        await ends(scene)
        await until("the log to name what is left", lambda: logged(scene.operator, "left on the exchange"))
        left = next(item for item in scene.operator.log if item.get("event") == "left on the exchange")
        assert left["reason"] == "DeletionIncomplete"
        assert left["left"][0] == "position 0.5 of BTCUSDT"
        assert STOP.client_order_id in left["left"][1]
        assert await metric(scene, "deletions_incomplete_total") == 1
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{api_namespace}/leases"
        assert [item for item in await scene.kube.items(leases) if "claim-" in item["metadata"]["name"]] == []


# --- volumes ---


@asynccontextmanager
async def volume_for(kube: Kube, namespace: str) -> AsyncIterator[None]:
    """A volume for the claim of `btcusdt`, which nothing would provision here."""
    claim = {"namespace": namespace, "name": names.volume_claim_name("btcusdt")}
    body: Json = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": "/nowhere"},
            "claimRef": claim,
        },
    }
    await kube.call("POST", "/api/v1/persistentvolumes", body)
    try:
        yield
    finally:
        await kube.call("DELETE", f"/api/v1/persistentvolumes/{namespace}")


async def test_a_retained_volume_is_taken_up_only_where_a_human_says_so(scene: Scene) -> None:
    async with volume_for(scene.kube, scene.namespace):
        first = await scene.create(storage={"size": "1Gi"})
        await scene.reaches("Trading", seconds=60)
        await delete(scene)
        await ends(scene)
        claim = await scene.kube.call("GET", scene.path("persistentvolumeclaims", "btcusdt-state"))
        assert "ownerReferences" not in claim["metadata"]
        assert claim["metadata"]["labels"][names.BOT_UID_LABEL] == first["metadata"]["uid"]
        second = await scene.create(storage={"size": "1Gi"})
        message = await scene.is_("Accepted", "False", "VolumeExists")
        assert await scene.kube.get(scene.path("pods", "btcusdt")) is None
        command = f"{names.ADOPT_VOLUME_ANNOTATION}={claim['metadata']['uid']}"
        assert f"kubectl annotate tradingbot -n {scene.namespace} btcusdt {command}" in message
        scene.cluster.kubectl("annotate", "tradingbot", "-n", scene.namespace, "btcusdt", command)
        await scene.reaches("Trading", seconds=60)
        claim = await scene.kube.call("GET", scene.path("persistentvolumeclaims", "btcusdt-state"))
        assert claim["metadata"]["labels"][names.BOT_UID_LABEL] == second["metadata"]["uid"]
        # A lost pod takes its own volume again, unasked.
        await delete(scene, "pods")
        await until("another pod", lambda: more_runs(scene, 3), seconds=60)


async def more_runs(scene: Scene, number: int) -> bool:
    """Whether so many processes ran."""
    return len(scene.kubelet.runs["btcusdt"]) >= number


async def test_a_volume_that_is_not_to_be_retained_goes_with_its_bot(scene: Scene) -> None:
    async with volume_for(scene.kube, scene.namespace):
        await scene.create(storage={"size": "1Gi", "reclaimPolicy": "Delete"})
        await scene.reaches("Trading", seconds=60)
        await delete(scene)
        await ends(scene)
        await until("the claim to go", lambda: gone(scene, "persistentvolumeclaims", "btcusdt-state"), seconds=60)


async def test_a_bot_that_was_made_from_a_saved_manifest_goes_when_it_is_deleted(scene: Scene) -> None:
    await scene.create()
    saved = await scene.reaches("Trading")
    await delete(scene)
    await ends(scene)
    kept = {key: saved["metadata"][key] for key in ("name", "labels", "finalizers") if key in saved["metadata"]}
    assert names.FINALIZER in kept["finalizers"]
    await scene.kube.call("POST", scene.path("tradingbots"), {**saved, "metadata": kept})
    await scene.reaches("Trading", seconds=60)
    await delete(scene)
    await ends(scene)
