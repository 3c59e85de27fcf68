"""What people see of a TradingBot with kubectl alone: get, describe, explain, wait; kubelet and bots are doubles."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal

import pytest

from support.operator_scene import Scene
from tradingbot_api.conditions import ConditionType

pytestmark = pytest.mark.cluster


async def kubectl(scene: Scene, *words: str) -> str:
    """What it prints; beside the loop, in which the doubles answer."""
    return await asyncio.to_thread(scene.cluster.kubectl, "-n", scene.namespace, *words)


def table(printed: str) -> dict[str, str]:
    """The one row of a table by its heading, by place: a cell may be empty."""
    heading, row = printed.splitlines()
    found = list(re.finditer(r"\S+", heading))
    ends = [*(match.start() for match in found[1:]), len(row)]
    return {match[0]: row[match.start() : end].strip() for match, end in zip(found, ends, strict=True)}


async def test_get_shows_how_a_bot_is_in_one_line(scene: Scene) -> None:
    await scene.create()
    await scene.reaches("Trading")
    row = table(await kubectl(scene, "get", "tb"))
    assert list(row) == ["NAME", "SYMBOL", "PHASE", "SAFE", "CIRCUIT", "SYNCED", "POSITION", "PNL", "AGE"]
    assert row.pop("AGE")
    assert row == {
        "NAME": "btcusdt", "SYMBOL": "BTCUSDT", "PHASE": "Trading", "SAFE": "Normal", "CIRCUIT": "Closed",
        "SYNCED": "True", "POSITION": "0", "PNL": "0",
    }  # fmt: skip
    wide = table(await kubectl(scene, "get", "tradingbots", "-o", "wide"))
    more = {name: cell for name, cell in wide.items() if name not in {*row, "AGE"}}
    assert more == {
        "READY": "True", "PROTECTED": "Flat", "REALIZED": "0", "TRADES": "", "RISK": "LOW", "ENVIRONMENT": "Paper",
    }  # fmt: skip
    double = scene.double()
    double.quantity = Decimal("0.5")
    double.wake()
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
    await kubectl(scene, "wait", "tb/btcusdt", "--for=condition=SafeModeAcknowledged", "--timeout=30s")
    row = table(await kubectl(scene, "get", "tb", "btcusdt"))
    assert (row["PHASE"], row["SAFE"], row["POSITION"]) == ("SafeMode", "NoNewEntries", "0.5")


async def test_wait_ends_when_the_bot_is_what_one_waits_for(scene: Scene) -> None:
    scene.kubelet.held.add("btcusdt")
    await scene.create()
    await scene.is_("PodReady", "False", "PodPending")
    waiting = asyncio.create_task(kubectl(scene, "wait", "tb/btcusdt", "--for=condition=Ready", "--timeout=60s"))
    await kubectl(scene, "wait", "tb/btcusdt", "--for=condition=Ready=false", "--timeout=5s")
    assert not waiting.done()
    scene.kubelet.held.clear()
    assert "condition met" in await waiting
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"suspend": True}})
    suspended = "--for=jsonpath={.status.phase}=Suspended"
    assert "condition met" in await kubectl(scene, "wait", "tb/btcusdt", suspended, "--timeout=60s")
    deletion = asyncio.create_task(kubectl(scene, "wait", "tb/btcusdt", "--for=delete", "--timeout=60s"))
    await kubectl(scene, "delete", "tb", "btcusdt", "--wait=false")
    await deletion  # it says nothing where the bot was gone before it asked
    assert await scene.kube.get(scene.path("tradingbots", "btcusdt")) is None


async def test_describe_tells_the_conditions_with_what_to_do_and_the_events(scene: Scene) -> None:
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "btcusdt-config"}}
    await scene.kube.call("POST", scene.path("configmaps"), foreign)
    await scene.create()
    await scene.is_("Accepted", "False", "ForeignObject")
    told = await kubectl(scene, "describe", "tb", "btcusdt")
    for kind in ConditionType:
        assert f"Type:                  {kind}" in told, kind
    message = f"ConfigMap {scene.namespace}/btcusdt-config exists and is not this TradingBot's"
    assert told.count(message) >= 2, "in the condition and in the event"
    assert "delete or rename it" in told
    events = told[told.index("Events:") :]
    assert "Warning" in events
    assert "ForeignObject" in events


async def test_no_secret_is_shown_anywhere(scene: Scene) -> None:
    keys = {"apiKey": "key-that-nobody-sees", "apiSecret": "secret-that-nobody-sees"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "binance"}, "stringData": keys}
    await scene.kube.call("POST", scene.path("secrets"), secret)
    await scene.create()
    await scene.reaches("Trading")
    shown = await kubectl(scene, "get", "tb,pods,configmaps,leases,events", "-o", "json")
    told = shown + await kubectl(scene, "describe", "tb,pods") + json.dumps(scene.operator.log)
    assert "nobody-sees" not in told


async def test_explain_lists_every_field_of_the_spec_with_its_words(scene: Scene) -> None:
    listed = await kubectl(scene, "explain", "tradingbot", "--recursive")
    for field in ("safeMode", "suspend", "updateStrategy", "deletionPolicy", "reclaimPolicy", "maxDailyLoss"):
        assert f"{field}\t<" in listed, field
    for field in ("suspend", "updateStrategy", "deletionPolicy", "deletionDeadlineSeconds"):
        told = await kubectl(scene, "explain", f"tb.spec.{field}")
        assert len(told[told.index("DESCRIPTION:") :].split()) > 5, told
