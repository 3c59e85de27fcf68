"""Promises of TradingBotSets over real API calls; the kubelet and the bots are doubles."""

from __future__ import annotations

import signal
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from support.bot_double import BotDouble
from support.kube import Json
from support.operator_objects import SPEC
from support.operator_scene import Scene, gone
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

TEMPLATE = {key: value for key, value in SPEC.items() if key != "symbol"}


async def make_set(scene: Scene, *bots: Json, deadline: int = 600, limits: Json | None = None, **template: Any) -> Json:
    """Applies a TradingBotSet `x`."""
    for bot in bots:
        scene.kubelet.settings.setdefault(f"x-{bot['symbol'].lower()}", {})["quote_asset"] = "USDT"
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.TRADING_BOT_SET.kind,
        "metadata": {"name": "x"},
        "spec": {
            "bots": list(bots),
            "template": {"spec": {**TEMPLATE, "pod": scene.kubelet.shape(), **template}},
            "updateStrategy": {"progressDeadlineSeconds": deadline},
            **({"limits": limits} if limits is not None else {}),
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


THREE = ({"symbol": "BNBUSDT"}, {"symbol": "BTCUSDT"}, {"symbol": "ETHUSDT", "overrides": {"capital": "900"}})


async def patch_bot(scene: Scene, symbol: str, **spec: Any) -> None:
    await scene.kube.merge(scene.path("tradingbots", f"x-{symbol.lower()}"), {"spec": spec})


async def capitals(scene: Scene) -> dict[str, str]:
    items = await scene.kube.items(scene.path("tradingbots"))
    return {item["metadata"]["name"]: item["spec"]["capital"] for item in items}


async def test_a_set_makes_and_sums_up_its_bots_and_what_is_wrong_with_one_stops_no_other(scene: Scene) -> None:
    await scene.create("x-solusdt", symbol="SOLUSDT")
    bad = {"symbol": "ADAUSDT", "overrides": {"risk": {"maxPositionValue": "2000"}}}
    await make_set(scene, *THREE, {"symbol": "SOLUSDT"}, bad)
    status = await set_shows(scene, lambda status: status.get("ready") == 3)
    accepted = condition(status, "Accepted")
    assert accepted[:2] == ("False", "InvalidOverrides")
    problems = {item["symbol"]: item for item in status["problems"]}
    message = problems["ADAUSDT"]["message"]
    assert message.startswith("bots[ADAUSDT].overrides.risk.maxPositionValue: risk.maxPositionValue must not exceed")
    assert problems["SOLUSDT"]["reason"] == "ForeignObject"
    assert "ownerReferences" not in (await scene.bot("x-solusdt"))["metadata"]
    assert status["phases"] == {"Missing": 2, "Trading": 3}
    eth = await scene.bot("x-ethusdt")
    assert eth["spec"]["capital"] == "900"
    (owner,) = eth["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("TradingBotSet", "x", True)
    await scene.kube.call("DELETE", scene.path("tradingbots", "x-solusdt"))
    await until("the foreign bot to go", lambda: gone(scene, "tradingbots", "x-solusdt"), seconds=30)
    await patch_set(scene, bots=[*THREE])
    await set_shows(scene, is_("Ready", "True"))
    # Figures are sums of what the bots' own statuses say, and say of how many.
    for name, value in (("x-bnbusdt", "10.5"), ("x-btcusdt", "-0.25")):
        double = scene.double(name)
        double.quantity, double.value, double.unrealized = Decimal(1), Decimal(100), Decimal(value)
        double.drawdown = Decimal("0.01") if name == "x-btcusdt" else Decimal(0)
        double.wake()
    status = await set_shows(scene, lambda status: status["inPosition"] == 2)
    (totals,) = status["totals"]
    assert totals == {"asset": "USDT", "known": "3 of 3", "exposure": "200",
                      "pnl": {"realized": "0", "unrealized": "10.25", "total": "10.25"}}  # fmt: skip
    assert status["worstDrawdown"] == {"bot": "x-btcusdt", "ratio": "0.01"}
    shown = scene.cluster.kubectl("get", "tbs", "x", "-n", scene.namespace)
    assert shown.splitlines()[0].split() == [
        "NAME", "BOTS", "READY", "UPDATED", "SAFE", "POSITION", "KNOWN", "PNL", "EXPOSURE", "AGE",
    ]  # fmt: skip
    assert shown.splitlines()[1].split()[:10] == ["x", "3", "3", "3", "0", "2", "3", "of", "3", "10.25"]
    scene.cluster.kubectl("wait", "--for=condition=Ready", "tbs/x", "-n", scene.namespace, "--timeout=5s")
    await patch_bot(scene, "BTCUSDT", suspend=True)
    status = await set_shows(scene, lambda status: status["known"] == "2 of 3", seconds=30)
    assert status["totals"][0]["known"] == "2 of 3"
    assert status["totals"][0]["pnl"]["total"] == "10.5"
    assert condition(status, "Ready")[:2] == ("False", "BotsNotReady")
    assert "x-btcusdt (Suspended)" in condition(status, "Ready")[2]


async def test_what_people_stop_stays_stopped_and_the_templates_stops_go_to_all_at_once(scene: Scene) -> None:
    await make_set(scene, *THREE)
    await set_shows(scene, is_("Ready", "True"))
    await patch_bot(scene, "BTCUSDT", safeMode=True)
    await scene.reaches("SafeMode", "x-btcusdt")
    await set_shows(scene, lambda status: status["inSafeMode"] == 1)
    await patch_set(scene, template={"spec": {"capital": "800"}})
    await set_shows(scene, is_("UpToDate", "True"), seconds=40)
    assert await capitals(scene) == {"x-bnbusdt": "800", "x-btcusdt": "800", "x-ethusdt": "900"}
    assert (await scene.bot("x-btcusdt"))["spec"]["safeMode"] is True
    await scene.restart_operator(signal.SIGTERM)
    # A field that the set owns is set back; safe mode that is not wished by anybody any more goes.
    await patch_bot(scene, "BTCUSDT", safeMode=None, capital="700")
    await set_shows(scene, lambda status: status["inSafeMode"] == 0 and is_("UpToDate", "True")(status), seconds=40)
    assert (await capitals(scene))["x-btcusdt"] == "800"
    # One that breaks at a changed capital holds the others back, and safe mode none.
    scene.double("x-bnbusdt").refuses = ("StrategyParametersInvalid", "strategy.parameters.fast")
    await patch_set(scene, template={"spec": {"capital": "810"}})
    await until("the first to have it", lambda: _has(scene, "x-bnbusdt", "810"))
    await patch_set(scene, template={"spec": {"safeMode": True}})
    for name in ("x-btcusdt", "x-ethusdt"):
        await scene.reaches("SafeMode", name)
    assert (await capitals(scene))["x-btcusdt"] == "800"
    scene.double("x-bnbusdt").refuses = None
    await patch_set(scene, template={"spec": {"capital": "811"}})
    await set_shows(scene, is_("UpToDate", "True"), seconds=60)
    await patch_set(scene, template={"spec": {"safeMode": None}})
    for name in ("x-bnbusdt", "x-btcusdt", "x-ethusdt"):
        await scene.reaches("Trading", name, seconds=40)
        assert "safeMode" not in (await scene.bot(name))["spec"]
    assert (await capitals(scene))["x-btcusdt"] == "811"


async def _has(scene: Scene, name: str, capital: str) -> bool:
    return (await capitals(scene))[name] == capital


async def test_a_rollout_takes_flat_bots_first_and_stops_at_one_that_is_not_ready_in_time(scene: Scene) -> None:
    await make_set(scene, *THREE, deadline=10, updateStrategy="WhenFlat")
    await set_shows(scene, is_("Ready", "True"))
    for name in ("x-bnbusdt", "x-btcusdt"):
        double = scene.double(name)
        double.quantity = Decimal(1)
        double.wake()
    await set_shows(scene, lambda status: status["inPosition"] == 2)
    pods = {name: await _pod_uid(scene, name) for name in ("x-bnbusdt", "x-btcusdt", "x-ethusdt")}
    await patch_set(scene, template={"spec": {"pod": {**scene.kubelet.shape(), "labels": {"tier": "one"}}}})
    status = await set_shows(scene, lambda status: status["updated"] == 1)
    status = await set_shows(scene, lambda status: condition(status, "UpToDate")[1] == "AwaitingFlat")
    assert await _pod_uid(scene, "x-ethusdt") != pods["x-ethusdt"]
    assert {name: await _pod_uid(scene, name) for name in ("x-bnbusdt", "x-btcusdt")} == {
        name: pods[name] for name in ("x-bnbusdt", "x-btcusdt")
    }
    await patch_set(scene, template={"spec": {"pod": {"labels": None}}})
    await set_shows(scene, is_("UpToDate", "True"), seconds=30)
    # A change without a restart, which breaks the first one that gets it: the other keeps what it has.
    scene.double("x-ethusdt").refuses = ("StrategyParametersInvalid", "strategy.parameters.fast")
    await patch_set(scene, template={"spec": {"strategy": {"parameters": {"fast": 13}}}})
    status = await set_shows(scene, is_("Stalled", "True"), seconds=30)
    assert condition(status, "Stalled")[1] == "ProgressDeadlineExceeded"
    assert "x-ethusdt: StrategyParametersInvalid" in condition(status, "Stalled")[2]
    assert condition(status, "Progressing")[:2] == ("False", "ProgressDeadlineExceeded")
    assert (await scene.bot("x-btcusdt"))["spec"]["strategy"]["parameters"]["fast"] == 12
    await scene.restart_operator(signal.SIGTERM)
    status = await set_shows(scene, is_("Stalled", "True"))
    assert [item["bot"] for item in status["inProgress"]] == ["x-ethusdt"]
    scene.double("x-ethusdt").refuses = None
    await patch_set(scene, template={"spec": {"strategy": {"parameters": {"fast": 14}}}})
    status = await set_shows(scene, is_("UpToDate", "True"), seconds=60)
    assert condition(status, "Stalled")[0] == "False"
    for name in ("x-bnbusdt", "x-btcusdt", "x-ethusdt"):
        assert (await scene.bot(name))["spec"]["strategy"]["parameters"]["fast"] == 14
    assert await _pod_uid(scene, "x-btcusdt") == pods["x-btcusdt"]
    # Another image of the operator's own restarts them one after another too.
    for name in ("x-bnbusdt", "x-btcusdt"):
        double = scene.double(name)
        double.quantity = Decimal(0)
        double.wake()
    await set_shows(scene, lambda status: status["inPosition"] == 0)
    scene.options = (*scene.options, "--bot-image", "tradingbot/bot:next")
    await scene.restart_operator(signal.SIGTERM)
    at_once = 0

    async def renewed() -> bool:
        nonlocal at_once
        items = await scene.kube.items(scene.path("pods"))
        ready = {
            item["metadata"]["name"]
            for item in items
            if "deletionTimestamp" not in item["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions", ()))
        }
        at_once = max(at_once, 3 - len(ready))
        images = {item["spec"]["containers"][0]["image"] for item in items}
        return len(ready) == 3 and images == {"tradingbot/bot:next"}

    await until("all to run the other image", renewed, seconds=60)
    assert at_once == 1
    await set_shows(scene, is_("UpToDate", "True"))


async def _pod_uid(scene: Scene, name: str) -> str:
    found = await scene.kube.get(scene.path("pods", name))
    return found["metadata"]["uid"] if found is not None else ""


async def test_a_symbol_that_is_taken_out_drains_and_orphans_trade_on(scene: Scene) -> None:
    await make_set(scene, *THREE, deletionPolicy="ClosePosition")
    await set_shows(scene, is_("Ready", "True"))
    double = scene.double("x-bnbusdt")
    double.drains = False
    await patch_set(scene, bots=[*THREE[1:]])
    status = await set_shows(scene, lambda status: status["draining"] == ["x-bnbusdt"])
    assert condition(status, "Progressing")[:2] == ("True", "Draining")
    assert condition(status, "Ready")[0] == "True"
    await until("it to be asked", lambda: double.drain_requests)
    assert double.drain_requests[0].position_policy == "ClosePosition"
    double.drains = True
    await double.drain(double.drain_requests[0])
    await until("it to go", lambda: gone(scene, "tradingbots", "x-bnbusdt"), seconds=30)
    await set_shows(scene, lambda status: not status["draining"])
    await scene.kube.call("DELETE", scene.path("tradingbotsets", "x"), {"propagationPolicy": "Orphan"})
    await until("the set to go", lambda: gone(scene, "tradingbotsets", "x"), seconds=30)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        double = scene.double(f"x-{symbol.lower()}")
        await patch_bot(scene, symbol, risk={"cooldownSeconds": 60})
        await until("its people's word", lambda double=double: double.config.settings.risk.cooldown_seconds == 60)
        bot = await scene.bot(f"x-{symbol.lower()}")
        assert (bot["status"]["phase"], bot["metadata"].get("ownerReferences")) == ("Trading", None)
    # A set of that name does not take them up; deleted, it takes nothing with it.
    await make_set(scene, *THREE[1:])
    status = await set_shows(scene, lambda status: len(status["problems"]) == 2)
    assert {item["reason"] for item in status["problems"]} == {"ForeignObject"}
    await scene.kube.call("DELETE", scene.path("tradingbotsets", "x"))
    await until("the set to go", lambda: gone(scene, "tradingbotsets", "x"))
    assert len(await capitals(scene)) == 2


async def test_limits_over_a_set_hold_though_its_bots_ask_at_once_and_another_operator_takes_over(
    scene: Scene,
) -> None:
    symbols = ["BTCUSDT", "ETHUSDT", "BNBUSDT", "ADAUSDT"]
    limits = {"maxPositionValue": "1300", "maxBotsInPosition": 3, "maxDailyLoss": "100"}
    # One is of a version that knows of no reservations: it may do nothing, and counts with all that it may have.
    scene.kubelet.settings["x-adausdt"] = {"knows_fleets": False}
    await make_set(scene, *({"symbol": symbol} for symbol in symbols), limits=limits)
    await until("the bots to run", lambda: len(scene.kubelet.bots) == len(symbols), 30)
    older = scene.kubelet.bots["x-adausdt"]
    bots = [scene.kubelet.bots[f"x-{symbol.lower()}"] for symbol in symbols[:3]]
    await until("the others to be granted", lambda: all(bot.granted for bot in bots), 30)
    assert not older.grants
    assert "Update its image" in await scene.is_("ConfigApplied", "False", "PodOutdated", "x-adausdt")
    for symbol in symbols[:3]:  # nothing is granted before
        await scene.shows(lambda status: status.get("exposureBound") == "500", f"x-{symbol.lower()}")
    # Each learned of this leader, so that its word counts; of the older one the account is known by its claim.
    await set_shows(
        scene, lambda status: status["limits"]["unheard"] == 1 and status["limits"]["reserved"] == "500", 30
    )

    async def ask(*asking: BotDouble) -> list[str]:
        for bot in asking:
            bot.reservations.ask(Decimal(500))
            bot.wake()
        answers = [await bot.reservations.answer(10) for bot in asking]
        return sorted("none" if answer is None else str(answer.exposure) for answer in answers)

    assert await ask(*bots) == ["0", "300", "500"]
    for bot in bots:
        bot.value = bot.reservations.exposure
        bot.quantity = Decimal(1) if bot.value else Decimal(0)
        bot.reservations.give_back()
        bot.wake()
    status = await set_shows(scene, lambda status: status["limits"]["positionValue"] == "800", 30)
    assert status["limits"]["botsInPosition"] == 2
    assert condition(status, "FleetLimitsHeld")[:2] == ("Unknown", "BotsUnheard")
    (refused,) = [bot for bot in bots if bot.value == 0]
    await scene.restart_operator()
    await set_shows(scene, lambda status: status["limits"]["unheard"] == 1, 40)
    assert await ask(refused) == ["0"]
    seller = next(bot for bot in bots if bot.value > 0)
    sold, seller.value, seller.quantity = seller.value, Decimal(0), Decimal(0)
    seller.wake()

    async def gets_it() -> bool:
        return await ask(refused) == [str(sold)]

    await until("what was sold to be there for another bot", gets_it, 20)
    # Without limits nobody needs a reservation any more, and the older bot is granted.
    await patch_set(scene, limits=None)
    await until("the older bot to be granted", lambda: older.granted, 30)
    await until("the others to be told", lambda: not any(bot.config.fleet_limited for bot in bots), 30)
    await set_shows(scene, lambda status: "limits" not in status)
