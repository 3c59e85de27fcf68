"""Promises on suspend and update strategies over real API calls; the kubelet and the bots are doubles."""

from __future__ import annotations

from decimal import Decimal

import pytest

from support.kube import Json
from support.operator_scene import Scene, logged
from support.waiting import until
from tradingbot_api import names
from tradingbot_api.v1alpha1 import PositionPolicy
from tradingbot_operator.certainty import GRANT_OVER_SECONDS

pytestmark = pytest.mark.cluster


async def patch(scene: Scene, **spec: object) -> None:
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": spec})


async def pod(scene: Scene) -> Json | None:
    return await scene.kube.get(scene.path("pods", "btcusdt"))


async def pod_uid(scene: Scene) -> str:
    found = await pod(scene)
    return found["metadata"]["uid"] if found is not None else ""


async def reasons(scene: Scene) -> list[str]:
    return [item["reason"] for item in await scene.kube.items(scene.path("events"))]


async def test_suspend_drains_and_ends_the_pod_and_resume_trades_again_without_a_wait(scene: Scene) -> None:
    await scene.create()
    first = (await scene.reaches("Trading"))["status"]["incarnation"]
    double = scene.double()
    double.quantity, double.remaining = Decimal(1), ("position 1 BTC, protected",)
    double.wake()
    await patch(scene, suspend=True)
    status = (await scene.reaches("Suspended"))["status"]
    assert await pod(scene) is None
    assert [item.position_policy for item in double.drain_requests] == [PositionPolicy.HOLD]
    assert (await scene.condition("Ready"))[:2] == ("False", "Suspended")
    assert (await scene.condition("PodReady"))[:2] == ("False", "Suspended")
    assert "position" not in status
    assert status["accountUID"] == "1001"
    assert status["drained"]["remaining"] == ["position 1 BTC, protected"]
    assert (await scene.condition("SafeModeAcknowledged"))[:2] == ("True", "ProcessGone")
    leases = await scene.kube.items(scene.path("leases"))
    assert any(item["metadata"]["name"].startswith("claim-") for item in leases)
    await scene.restart_operator()
    await until("the new operator to work", lambda: logged(scene.operator, "the Lease is held"), seconds=25)
    assert await pod(scene) is None
    assert (await scene.condition("SafeModeAcknowledged"))[:2] == ("True", "ProcessGone")
    await patch(scene, suspend=None)
    again = await scene.reaches("Trading")
    assert again["status"]["incarnation"] > first
    assert "drained" not in again["status"]
    told = await reasons(scene)
    assert told.count("Suspended") == 1
    assert "PodReplaced" not in told


async def test_a_suspended_bot_whose_pod_vanished_is_told_as_gone_once_its_last_grant_is_over(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    double = scene.double()
    double.drains = False
    await patch(scene, suspend=True)
    await until("the bot to be asked to drain", lambda: double.drain_requests)
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"), {"gracePeriodSeconds": 0})
    await scene.is_("SafeModeEngaged", "Unknown", "BotUnreachable", seconds=30)
    await scene.is_("SafeModeEngaged", "True", "ProcessGone", seconds=GRANT_OVER_SECONDS + 20)
    assert "podName" not in (await scene.bot())["status"]


async def test_manual_shows_an_outdated_pod_and_never_restarts_a_live_bot(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    await scene.is_("UpToDate", "True", "OK")
    uid = await pod_uid(scene)
    await patch(scene, pod={"image": "tradingbot/bot:next"})
    message = await scene.is_("UpToDate", "False", "PodOutdated")
    assert "kubectl delete pod" in message
    assert "tradingbot/bot:next" in message
    assert await pod_uid(scene) == uid
    assert (await scene.bot())["status"]["phase"] == "Trading"
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))
    await scene.is_("UpToDate", "True", "OK")
    found = await pod(scene)
    assert found is not None
    assert found["spec"]["containers"][0]["image"] == "tradingbot/bot:next"


async def test_when_flat_waits_for_the_position_to_close_and_cancels_entries_first(scene: Scene) -> None:
    await scene.create(updateStrategy="WhenFlat")
    await scene.reaches("Trading")
    double, uid = scene.double(), await pod_uid(scene)
    double.quantity = Decimal(1)
    double.wake()
    await scene.shows(lambda status: (status.get("position") or {}).get("quantity") == "1")
    await patch(scene, pod={"labels": {"tier": "one"}})
    await scene.is_("UpToDate", "False", "AwaitingFlat")
    assert not double.drain_requests
    assert await pod_uid(scene) == uid
    double.quantity = Decimal(0)
    double.wake()
    await until("another pod", lambda: _differs(scene, uid))
    assert len(double.drain_requests) == 1
    await scene.is_("UpToDate", "True", "OK")
    await scene.reaches("Trading")
    assert (await reasons(scene)).count("Updating") == 1


async def _differs(scene: Scene, uid: str) -> bool:
    return await pod_uid(scene) not in {"", uid}


async def test_immediate_restarts_in_a_position_after_a_drain_that_keeps_it(scene: Scene) -> None:
    await scene.create(updateStrategy="Immediate", deletionPolicy="ClosePosition")
    await scene.reaches("Trading")
    double, uid = scene.double(), await pod_uid(scene)
    double.quantity = Decimal(1)
    double.wake()
    await patch(scene, pod={"labels": {"tier": "one"}})
    await until("another pod", lambda: _differs(scene, uid))
    assert [item.position_policy for item in double.drain_requests] == [PositionPolicy.HOLD]
    await scene.is_("UpToDate", "True", "OK")
    await scene.reaches("Trading")


async def test_a_pod_that_the_api_server_would_refuse_costs_no_running_bot(scene: Scene) -> None:
    await scene.create(updateStrategy="Immediate")
    await scene.reaches("Trading")
    double, uid = scene.double(), await pod_uid(scene)
    await patch(scene, pod={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})
    message = await scene.is_("UpToDate", "False", "PodOutdated")
    assert "must be less than or equal to memory limit" in message
    assert await pod_uid(scene) == uid
    assert not double.drain_requests
    assert (await scene.bot())["status"]["phase"] == "Trading"
    await patch(scene, pod={"resources": {"requests": {"memory": "1Gi"}}})
    await until("another pod", lambda: _differs(scene, uid))
    await scene.reaches("Trading")


async def test_a_pod_that_never_ran_is_replaced_when_the_spec_is_mended(scene: Scene) -> None:
    scene.kubelet.held.add("btcusdt")
    await scene.create(pod={**scene.kubelet.shape(), "nodeSelector": {"kubernetes.io/hostname": "no-such-node"}})
    await scene.is_("PodReady", "False", "Unschedulable")
    scene.kubelet.held.discard("btcusdt")
    await patch(scene, pod=scene.kubelet.shape())
    await scene.reaches("Trading")


async def test_steps_that_fail_again_and_again_stall_one_bot_alone_with_the_reason_and_heal(scene: Scene) -> None:
    await scene.create("ethusdt", symbol="ETHUSDT")
    await scene.reaches("Trading", "ethusdt")
    await scene.create()
    await scene.reaches("Trading")
    name = f"busy-{scene.namespace}"
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["configmaps"]}
                ]
            },
            "validations": [{"expression": "object.metadata.name != 'btcusdt-config'", "message": "not today"}],
        },
    }
    policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}},
        },
    }
    await scene.kube.call("POST", policies, policy)
    try:
        await scene.kube.call("POST", f"{policies[: -len('policies')]}policybindings", binding)

        async def enforced() -> bool:
            marks = {"metadata": {"labels": {"probe": "x"}}}
            try:
                await scene.kube.merge(scene.path("configmaps", "btcusdt-config"), marks)
            except Exception as error:
                return "not today" in str(error)
            return False

        await until("the policy", enforced)
        await patch(scene, capital="900")
        message = await scene.is_("Ready", "False", "Stalled", seconds=30)
        assert "Accepted" in message
        assert "not today" in (await scene.condition("Accepted"))[2]
        assert (await scene.bot())["status"]["phase"] == "Degraded"
        assert (await scene.condition("Ready", "ethusdt"))[0] == "True"
    finally:
        await scene.kube.call("DELETE", f"{policies[: -len('policies')]}policybindings/{name}")
        await scene.kube.call("DELETE", f"{policies}/{name}")
    await scene.is_("Ready", "True", "OK", seconds=45)
    assert (await reasons(scene)).count("Stalled") == 1
    assert names.FINALIZER in (await scene.bot())["metadata"]["finalizers"]


async def test_an_eviction_during_a_start_is_told_although_the_pod_is_gone_in_a_moment(scene: Scene) -> None:
    scene.kubelet.held.add("btcusdt")
    await scene.create()
    await scene.is_("PodReady", "False", "PodPending")
    uid = await pod_uid(scene)
    status = {"phase": "Failed", "reason": "Evicted", "message": "Pod ephemeral local storage usage exceeds the limit."}
    await scene.kube.merge(scene.path("pods", "btcusdt") + "/status", {"status": status})

    async def replaced() -> bool:
        return await pod_uid(scene) not in {"", uid}

    await until("another pod", replaced)
    told = [item for item in await scene.kube.items(scene.path("events")) if item["reason"] == "Evicted"]
    assert [item["type"] for item in told] == ["Warning"]
    assert "exceeds the limit" in told[0]["message"]
