"""Promises of kill switches on a real API server: who is held and since when, and what alone releases."""

from __future__ import annotations

import asyncio
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.kube import Json
from support.operator_process import OperatorProcess, ready
from support.operator_scene import Scene, logged
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

SPOT = {"team": "spot"}
HELD = {"kill-switch/incident": "ReduceOnly"}


async def engage(scene: Scene, name: str = "incident", **spec: Any) -> None:
    """Applies a kill switch."""
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "KillSwitch",
        "metadata": {"name": name},
        "spec": {"reason": "exchange incident", **spec},
    }
    await scene.kube.call("POST", scene.path("killswitches"), body)


async def switch(scene: Scene, name: str = "incident") -> Json:
    """The kill switch; empty where it is gone."""
    return await scene.kube.get(scene.path("killswitches", name)) or {}


async def tells(scene: Scene, phase: str, *, bots: int, name: str = "incident") -> Json:
    """Waits until its status tells this."""

    async def probe() -> Json | None:
        status: Json = (await switch(scene, name)).get("status", {})
        return status if (status.get("phase"), status.get("bots")) == (phase, bots) else None

    try:
        return dict(await until(f"{phase} of {bots}", probe))
    except AssertionError as error:
        raise AssertionError(f"{error}: {await switch(scene, name)}; log {scene.operator.log[-5:]}") from error


def imposed(scene: Scene, name: str) -> dict[str, str]:
    """What a bot says that is imposed on it."""
    return {cause.id: cause.level for cause in scene.double(name).imposed.values()}


async def holds(scene: Scene, name: str, wanted: dict[str, str], seconds: float = 15.0) -> None:
    """Waits until exactly this is imposed on a bot."""
    try:
        await until(f"{name} to have {wanted}", lambda: imposed(scene, name) == wanted, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {imposed(scene, name)}; log {scene.operator.log[-5:]}") from error


async def test_a_kill_switch_holds_whom_it_selects_now_and_later_until_it_is_released_and_deleting_it_does_not(
    scene: Scene,
) -> None:
    loop = asyncio.get_running_loop()
    await scene.create("a", SPOT)
    await scene.create("b", symbol="ETHUSDT")
    for name in ("a", "b"):
        await scene.reaches("Trading", name)
    scene.double("a").quantity = scene.double("a").quantity + 1
    scene.double("a").wake()
    begun = loop.time()
    await engage(scene, selector={"matchLabels": SPOT}, policy="ClosePosition")
    await holds(scene, "a", HELD)
    print(f"engaged after {loop.time() - begun:.3f} s")
    assert imposed(scene, "b") == {}
    message = await scene.is_("SafeModeEngaged", "True", "KillSwitch", "a")
    assert "exchange incident; kubectl patch killswitch" in message
    await scene.is_("SafeModeAcknowledged", "True", "OK", "a")
    told = await tells(scene, "Engaged", bots=1)
    assert (told["engaged"], told["acknowledged"], told["unacknowledged"], told["holding"]) == (1, 1, 0, 1)
    print(scene.cluster.kubectl("get", "ks,tb", "--namespace", scene.namespace))

    # Those that come later, by a label or made anew: from their first configuration on.
    await scene.kube.merge(scene.path("tradingbots", "b"), {"metadata": {"labels": SPOT}})
    await holds(scene, "b", HELD)
    await scene.create("c", SPOT, symbol="BNBUSDT")
    await scene.reaches("SafeMode", "c")
    assert [[cause.id for cause in config.imposed] for config in scene.double("c").configs] in (
        [], [["kill-switch/incident"]],
    )  # fmt: skip
    assert imposed(scene, "c") == HELD
    await tells(scene, "Engaged", bots=3)

    # What is no release: a label that is taken off, a deletion, an operator that begins anew.
    await scene.kube.merge(scene.path("tradingbots", "b"), {"metadata": {"labels": {"team": None}}})
    await scene.kube.call("DELETE", scene.path("killswitches", "incident"))
    await until("the warning", lambda: _warns(scene))
    await scene.restart_operator(signal.SIGKILL)
    await until("the operator to work", lambda: logged(scene.operator, "the Lease is held"), 30)
    scene.double("c").acknowledges = False
    scene.double("c").wake()

    async def one_is_left() -> bool:
        pending = (await tells(scene, "Engaging", bots=3))["pending"]
        return [(item["name"], item["reason"]) for item in pending] == [("c", "EntriesWorking")]

    await until("the one that has not acknowledged", one_is_left)
    for name in ("a", "b", "c"):
        assert imposed(scene, name) == HELD
    assert (await scene.bot("b"))["metadata"].get("labels", {}) == {}

    # What is one: it goes to all, and the switch goes when nobody has it any more.
    await scene.kube.merge(scene.path("killswitches", "incident"), {"spec": {"release": True}})
    for name in ("a", "b", "c"):
        await holds(scene, name, {})
        await scene.reaches("Trading", name)
    await until("the switch to go", lambda: _is_gone(scene))
    writes = await scene.audited()
    assert writes.count("patch killswitches/status") < 12
    # Nothing is left to write.
    assert [write for write in (await scene.audited())[len(writes) :] if "killswitches" in write] == []


async def _warns(scene: Scene) -> bool:
    found = (await switch(scene)).get("status", {}).get("conditions", [])
    return any("was deleted and not released" in item["message"] for item in found)


async def _is_gone(scene: Scene, name: str = "incident") -> bool:
    return not await switch(scene, name)


async def test_a_kill_switch_outlives_operators_a_standby_carries_it_and_one_that_vanishes_releases_nobody(
    scene: Scene,
) -> None:
    await scene.create("a", SPOT)
    await scene.reaches("Trading", "a")
    standby = await OperatorProcess.start(
        scene.cluster.kubeconfig(), scene.authority, scene.namespace, "--identity", "second"
    )
    try:
        await ready(standby)
        # The leader stands still: nobody leads for the time of its Lease.
        scene.operator.process.send_signal(signal.SIGSTOP)
        await engage(scene, policy="ClosePosition")
        await holds(scene, "a", HELD, 8)
        assert not await logged(standby, "the Lease is held")
        assert [cause.id for config in scene.double("a").told_by_standbys for cause in config.imposed] == [*HELD]
        # It vanishes before any leader saw it: the next one keeps what the standby engaged.
        await scene.kube.call("DELETE", scene.path("killswitches", "incident"))
        await until("the switch to be gone", lambda: _is_gone(scene))
        await until("the next leader", lambda: logged(standby, "a cause that a standby imposed is kept"), 40)
        await scene.is_("SafeModeAcknowledged", "True", "OK", "a")
        message = await scene.is_("SafeModeEngaged", "True", "KillSwitch", "a")
        assert imposed(scene, "a") == HELD
    finally:
        scene.operator.process.send_signal(signal.SIGCONT)
        await scene.operator.process.wait()
        await scene.operator.stop()
        scene.operator = standby

    async def orphaned() -> bool:
        return "clear=kill-switch/incident" in (await scene.condition("SafeModeEngaged", "a"))[2]

    await until(f"what to do in {message}", orphaned)
    annotation = {"metadata": {"annotations": {names.CLEAR_ANNOTATION: "kill-switch/incident"}}}
    await scene.kube.merge(scene.path("tradingbots", "a"), annotation)
    await holds(scene, "a", {})
    await scene.reaches("Trading", "a")

    # By its expiry it ends by itself, and stays as a record.
    expiry = (datetime.now(UTC) + timedelta(seconds=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await engage(scene, "short", expiryTime=expiry)
    await holds(scene, "a", {"kill-switch/short": "NoNewEntries"})
    await holds(scene, "a", {})
    await tells(scene, "Expired", bots=0, name="short")
    await until("its finalizer to go", lambda: _has_no_finalizer(scene))


async def _has_no_finalizer(scene: Scene) -> bool:
    return not (await switch(scene, "short"))["metadata"].get("finalizers")
