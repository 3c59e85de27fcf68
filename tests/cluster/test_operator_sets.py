"""Promises of TradingBotSets over real API calls; the kubelet and the bots are doubles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from support.kube import Json
from support.operator_objects import SPEC
from support.operator_scene import Scene
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

TEMPLATE = {key: value for key, value in SPEC.items() if key != "symbol"}


async def make_set(scene: Scene, *bots: Json, deadline: int = 600, **template: Any) -> Json:
    """Applies a TradingBotSet `x`."""
    scene.kubelet.settings |= {f"x-{bot['symbol'].lower()}": {"quote_asset": "USDT"} for bot in bots}
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.TRADING_BOT_SET.kind,
        "metadata": {"name": "x"},
        "spec": {
            "bots": list(bots),
            "template": {"spec": {**TEMPLATE, "pod": scene.kubelet.shape(), **template}},
            "updateStrategy": {"progressDeadlineSeconds": deadline},
        },
    }
    return await scene.kube.call("POST", scene.path("tradingbotsets"), body)


async def patch_set(scene: Scene, **spec: Any) -> None:
    await scene.kube.merge(scene.path("tradingbotsets", "x"), {"spec": spec})


async def the_set(scene: Scene) -> Json:
    return (await scene.kube.get(scene.path("tradingbotsets", "x"))) or {}


async def set_shows(scene: Scene, what: Callable[[Json], bool], seconds: float = 20.0) -> Json:
    """Waits until the set's status is as `what` says of it, for the present spec."""
    latest: Json = {}

    async def probe() -> bool:
        nonlocal latest
        raw = await the_set(scene)
        latest = raw.get("status", {})
        return latest.get("observedGeneration") == raw["metadata"]["generation"] and what(latest)

    try:
        await until("the set to show it", probe, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}; status {latest}; log {scene.operator.log[-5:]}") from error
    return latest


def condition(status: Json, kind: str) -> tuple[str, str, str]:
    for item in status.get("conditions", []):
        if item["type"] == kind:
            return item["status"], item["reason"], item.get("message", "")
    return "", "", ""


def is_(kind: str, value: str) -> Callable[[Json], bool]:
    return lambda status: condition(status, kind)[0] == value


async def test_a_set_makes_its_bots_sums_them_up_and_leaves_emergency_edits_alone(scene: Scene) -> None:
    await make_set(scene, {"symbol": "BTCUSDT"}, {"symbol": "ETHUSDT", "overrides": {"capital": "900"}},
                   {"symbol": "BNBUSDT"})  # fmt: skip
    status = await set_shows(scene, is_("Ready", "True"))
    assert status["bots"] == status["ready"] == status["updated"] == 3
    eth = await scene.bot("x-ethusdt")
    assert eth["spec"]["capital"] == "900"
    (owner,) = eth["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("TradingBotSet", "x", True)
