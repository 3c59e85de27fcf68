"""Promises of the operator over a TradingBot's life, against a real API server; the kubelet and the bot are doubles."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import aiohttp
import pytest

from support.operator_process import OperatorProcess
from support.operator_scene import Scene, gone, logged, more
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster


async def test_a_new_bot_trades_after_at_most_eight_writes_and_then_idles_without_any(scene: Scene) -> None:
    await scene.create()
    bot = await scene.reaches("Trading")
    status = bot["status"]
    assert {item["type"]: item["status"] for item in status["conditions"]}["Ready"] == "True"
    assert status["accountUID"] == "1001"
    assert names.FINALIZER in bot["metadata"]["finalizers"]
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    assert pod["metadata"]["ownerReferences"][0]["uid"] == bot["metadata"]["uid"]
    assert pod["spec"]["automountServiceAccountToken"] is False
    made = await scene.audited()
    assert len(made) <= 8, made
    # Heartbeats come each 5 s and carry new figures of CPU and sync time; a grant is renewed at 20 s.
    grants = len(scene.double().grants)
    await until("a renewed grant", lambda: more(scene.double().grants, grants), seconds=25)
    assert await scene.audited() == made


async def test_safe_mode_is_carried_both_ways_and_acknowledged_with_its_time(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
    message = await scene.is_("SafeModeAcknowledged", "True", "OK")
    assert "after spec.safeMode was seen" in message
    assert (await scene.condition("SafeModeEngaged"))[:2] == ("True", "Spec")
    assert (await scene.bot())["status"]["phase"] == "SafeMode"
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": None}})
    await scene.reaches("Trading")
    # Each start of a bot is given once what it should have by its file.
    assert [config.settings.safe_mode for config in scene.double().configs] == [None, True, None]
    events = [item["reason"] for item in await scene.kube.items(scene.path("events"))]
    assert events.count("SafeModeEngaged") == events.count("SafeModeAcknowledged") == 1


async def test_safe_mode_of_a_bot_that_cannot_be_reached_stays_unacknowledged_with_the_reason(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    await scene.kubelet.crash("btcusdt")
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "False", "BotUnreachable", seconds=25)
    status = (await scene.bot())["status"]
    assert "position" not in status
    assert "circuitBreaker" not in status
    assert (await scene.condition("BalanceSynced"))[0] == "Unknown"
    assert status["accountUID"] == "1001"


async def test_a_lost_pod_is_made_again_and_trades_with_a_greater_incarnation(scene: Scene) -> None:
    await scene.create()
    first = (await scene.reaches("Trading"))["status"]["incarnation"]
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    # The next process begins below what the claim knows, and must go above.
    scene.kubelet.settings["btcusdt"] = {"incarnation": 5}
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))

    async def traded_again() -> bool:
        status = (await scene.bot())["status"]
        return bool(status["phase"] == "Trading" and status["incarnation"] > first)

    await until("trading again", traded_again)
    again = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    assert again["metadata"]["uid"] != pod["metadata"]["uid"]


async def test_a_pod_that_vanished_by_force_is_not_replaced_until_a_human_says_it_stopped(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    pod = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"), {"gracePeriodSeconds": 0})
    message = await scene.is_("PodReady", "False", "PodMissing")
    assert names.CONFIRM_STOPPED_ANNOTATION in message
    uid = pod["metadata"]["uid"]
    mark = {"metadata": {"annotations": {names.CONFIRM_STOPPED_ANNOTATION: uid}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), mark)
    await until("another pod", lambda: scene.kube.get(scene.path("pods", "btcusdt")))


async def test_a_pod_that_the_api_server_refuses_is_told_with_its_reason_and_heals(scene: Scene) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await scene.kube.call("POST", scene.path("resourcequotas"), quota)

    async def enforced() -> bool:
        return bool((await scene.kube.call("GET", scene.path("resourcequotas", "none"))).get("status", {}).get("hard"))

    await until("the quota", enforced)
    await scene.create()
    message = await scene.is_("PodReady", "False", "PodMissing")
    assert "exceeded quota" in message
    assert (await scene.bot())["status"]["phase"] == "Pending"
    await scene.kube.call("DELETE", scene.path("resourcequotas", "none"))
    await scene.reaches("Trading", seconds=40)


async def test_deletion_drains_by_policy_and_leaves_nothing(scene: Scene) -> None:
    await scene.create(deletionPolicy="ClosePosition")
    await scene.reaches("Trading")
    double = scene.double()
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"))
    assert [request.position_policy for request in double.drain_requests] == ["ClosePosition"]
    assert [item for item in await scene.kube.items(scene.path("leases")) if "claim-" in item["metadata"]["name"]] == []


async def test_a_pod_lost_before_its_deletion_drained_is_made_again_and_drains(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"drains": False}
    await scene.create(deletionPolicy="ClosePosition")
    await scene.reaches("Trading")
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the drain to begin", lambda: more(scene.double().drain_requests, 0))
    first = scene.double()
    scene.kubelet.settings["btcusdt"] = {"drains": True}
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=30)
    events = [item["reason"] for item in await scene.kube.items(scene.path("events"))]
    assert "PodReplaced" in events
    assert "DeletionIncomplete" not in events
    assert first.drain_requests


async def test_a_held_position_is_named_when_the_bot_is_deleted(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"remaining": ("position 0.5 BTC", "order list 7")}
    await scene.create()
    await scene.reaches("Trading")
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"))
    events = {item["reason"]: item["message"] for item in await scene.kube.items(scene.path("events"))}
    assert events["LeftOnExchange"] == "Stays on the exchange: position 0.5 BTC; order list 7"


async def test_a_bot_that_does_not_finish_is_let_go_at_the_deadline_and_reported(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"drains": False}
    await scene.create(deletionDeadlineSeconds=10)
    await scene.reaches("Trading")
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await scene.reaches("Draining")
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=25)
    events = {item["reason"]: item["type"] for item in await scene.kube.items(scene.path("events"))}
    assert events["DeletionIncomplete"] == "Warning"


async def test_a_bot_that_never_started_is_deleted_at_once(scene: Scene) -> None:
    scene.kubelet.held.add("btcusdt")
    await scene.create()
    await scene.is_("PodReady", "False", "PodPending")
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=5)


async def test_an_object_of_somebody_else_is_refused_and_left_alone_until_it_is_gone(scene: Scene) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "btcusdt-config"}, "data": {"a": "b"}}
    await scene.kube.call("POST", scene.path("configmaps"), foreign)
    await scene.create()
    message = await scene.is_("Accepted", "False", "ForeignObject")
    assert f"{scene.namespace}/btcusdt-config" in message
    assert (await scene.kube.call("GET", scene.path("configmaps", "btcusdt-config")))["data"] == {"a": "b"}
    assert await scene.kube.get(scene.path("pods", "btcusdt")) is None
    await scene.kube.call("DELETE", scene.path("configmaps", "btcusdt-config"))
    await scene.reaches("Trading", seconds=20)


async def test_of_two_bots_on_one_account_and_symbol_only_the_first_is_granted(scene: Scene) -> None:
    await scene.create("first")
    await scene.reaches("Trading", "first")
    await scene.create("second")
    message = await scene.is_("ClaimHeld", "False", "ClaimedByOther", "second")
    assert f"{scene.namespace}/first" in message
    assert scene.double("second").grants == []
    await scene.kube.call("DELETE", scene.path("tradingbots", "first"))
    await scene.reaches("Trading", "second", seconds=20)


async def test_a_bot_without_the_claim_is_deleted_and_never_asked_to_sell(scene: Scene) -> None:
    await scene.create("first")
    await scene.reaches("Trading", "first")
    await scene.create("second", deletionPolicy="ClosePosition")
    await scene.is_("ClaimHeld", "False", "ClaimedByOther", "second")
    second = scene.double("second")
    await scene.restart_operator()
    await scene.kube.call("DELETE", scene.path("tradingbots", "second"))
    await until("the second to go", lambda: gone(scene, "tradingbots", "second"), seconds=90)
    assert second.drain_requests == []
    assert (await scene.bot("first"))["status"]["phase"] == "Trading"


async def test_invalid_strategy_parameters_are_a_condition_that_names_the_field_and_heal(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    scene.double().refuses = ("StrategyParametersInvalid", "strategy.parameters.fast")
    wrong = {"spec": {"strategy": {"parameters": {"fast": 40}}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), wrong)
    message = await scene.is_("ConfigApplied", "False", "StrategyParametersInvalid")
    assert "strategy.parameters.fast: must be less than slow" in message
    scene.double().refuses = None
    right = {"spec": {"strategy": {"parameters": {"fast": 10}}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), right)
    await scene.is_("ConfigApplied", "True", "OK")
    assert (await scene.bot())["status"]["phase"] == "Trading"


async def test_missing_credentials_are_told_by_the_bot_and_heal_without_a_restart(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"account_uid": None, "balance_synced": ("False", "CredentialsMissing")}
    await scene.create()
    await scene.is_("BalanceSynced", "False", "CredentialsMissing")
    assert (await scene.bot())["status"]["phase"] == "Degraded"
    double = scene.double()
    double.account_uid, double.balance_synced = "1001", ("True", "Exact")
    double.wake()
    await scene.reaches("Trading")
    assert scene.kubelet.starts["btcusdt"] == 1


async def test_figures_go_on_while_nothing_is_granted(scene: Scene) -> None:
    scene.kubelet.settings["btcusdt"] = {"account_uid": None}
    await scene.create()
    await scene.is_("ClaimHeld", "Unknown", "AwaitingAccount")
    await scene.is_("BotReachable", "True", "OK")
    scene.double().unrealized = Decimal(7)

    async def shown() -> bool:
        return bool(((await scene.bot())["status"].get("pnl") or {}).get("unrealized") == "7")

    await until("the figure", shown, seconds=75)


async def test_a_killed_operator_comes_back_and_changes_nothing(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    grants, before = len(scene.double().grants), await scene.audited()
    await scene.restart_operator()
    await until("a grant of the new operator", lambda: more(scene.double().grants, grants), seconds=25)
    epochs = [grant.epoch for grant in scene.double().grants]
    assert epochs[-1] > epochs[0]
    assert await scene.audited() == before


async def test_sigterm_ends_the_operator_in_order_and_its_lease_is_free(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    assert await scene.operator.stop() == 0
    leases = {item["metadata"]["name"]: item["spec"] for item in await scene.kube.items(scene.path("leases"))}
    own = next(spec for name, spec in leases.items() if name.startswith(names.FIELD_MANAGER))
    assert own.get("holderIdentity", "") == ""


async def test_probes_and_metrics_answer(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    probe, metrics = (f"http://127.0.0.1:{scene.operator.ports[name]}" for name in ("probe", "metrics"))
    async with aiohttp.ClientSession() as session:
        for path in ("/healthz", "/readyz"):
            async with session.get(probe + path) as response:
                assert response.status == 200, await response.text()
        async with session.get(f"{metrics}/metrics") as response:
            text = await response.text()
    assert 'tradingbot_operator_bots{phase="Trading"} 1.0' in text
    await asyncio.sleep(0)


async def test_a_bot_made_anew_at_once_under_the_same_name_trades(scene: Scene) -> None:
    await scene.create()
    first = (await scene.reaches("Trading"))["metadata"]["uid"]
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"))
    await scene.create()
    bot = await scene.reaches("Trading", seconds=30)
    assert bot["metadata"]["uid"] != first
    reasons = [item["reason"] for item in await scene.kube.items(scene.path("events"))]
    assert "ForeignObject" not in reasons


async def test_of_two_operators_one_works_and_the_other_takes_over_with_a_greater_epoch(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    standby = await OperatorProcess.start(
        scene.cluster.kubeconfig(), scene.authority, scene.namespace, "--identity", "standby"
    )
    try:
        await until("the second to wait", lambda: logged(standby, "waiting for the Lease"), seconds=20)
        before = len(scene.double().grants)
        assert await scene.operator.stop() == 0
        await until("a grant of the second", lambda: more(scene.double().grants, before), seconds=30)
        epochs = [grant.epoch for grant in scene.double().grants]
        assert epochs == sorted(epochs)
        assert epochs[-1] > epochs[0]
    finally:
        await standby.stop()


async def test_an_operator_that_lost_its_lease_ends(scene: Scene) -> None:
    await until("work", lambda: logged(scene.operator, "the Lease is held"))
    leases = await scene.kube.items(scene.path("leases"))
    name = next(item["metadata"]["name"] for item in leases if item["metadata"]["name"].startswith(names.FIELD_MANAGER))
    await scene.kube.merge(scene.path("leases", name), {"spec": {"holderIdentity": "somebody"}})
    async with asyncio.timeout(20):
        assert await scene.operator.process.wait() == 3
    assert "is held by somebody" in scene.operator.complaints()[-1]["error"]
    scene.operator.log.clear()


async def test_safe_mode_passes_a_burst_of_new_bots(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    for number in range(40):
        scene.kubelet.held.add(f"bot-{number}")
    made = [asyncio.create_task(scene.create(f"bot-{number}")) for number in range(40)]
    await asyncio.gather(*made[:10])
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
    await until("the configuration", lambda: more(scene.double().configs, 1))
    # Seconds would measure the machine: it overtook bots that were there before it and still have no pod.
    waiting = len(await scene.kube.items(scene.path("tradingbots"))) - len(await scene.kube.items(scene.path("pods")))
    await asyncio.gather(*made)
    await scene.is_("SafeModeAcknowledged", "True", "OK")
    assert waiting > 0


async def test_a_cause_that_a_human_cleared_goes_to_the_bot_once_and_the_annotation_goes(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    mark = {"metadata": {"annotations": {names.CLEAR_ANNOTATION: "drawdown"}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), mark)

    async def consumed() -> bool:
        annotations = (await scene.bot())["metadata"].get("annotations", {})
        return names.CLEAR_ANNOTATION not in annotations and len(scene.double().configs) == 3

    await until("the annotation to go", consumed)
    assert [config.cleared_causes for config in scene.double().configs] == [[], ["drawdown"], []]
    await scene.reaches("Trading")
