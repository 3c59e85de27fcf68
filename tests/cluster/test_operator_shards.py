"""Promises of two operators that divide the TradingBots of one namespace by a label; the bots are doubles."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from local_kubernetes.local import LocalCluster

from support.kube import Json
from support.operator_objects import SPEC
from support.operator_process import OperatorProcess, ready
from support.operator_scene import Scene, gone, operator_scene
from support.waiting import until
from tradingbot_api import names
from tradingbot_operator.leader import lease_name

pytestmark = pytest.mark.cluster

IN_A = {names.SHARD_LABEL: "a"}
RAISED = "the epoch is raised above another operator's"
SWITCH = "kill-switch/incident"


@asynccontextmanager
async def shard_a(scene: Scene) -> AsyncIterator[OperatorProcess]:
    """The operator of shard a beside the scene's own; its log must hold no complaint."""
    operator = await OperatorProcess.start(
        scene.cluster.kubeconfig(), scene.authority, scene.namespace, "--identity", "a", "--shard", "a"
    )
    try:
        await ready(operator)
        yield operator
    finally:
        await operator.stop()
    assert operator.complaints() == []


@pytest.fixture
async def main(served_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """The main operator, which leaves the bots of shard a to another one; that is not there yet."""
    more = ("--other-shard", "a")
    async with operator_scene(served_cluster, api_namespace, tmp_path, more=more) as made:
        yield made


async def make(scene: Scene, name: str, symbol: str, labels: dict[str, str] | None = None, account: str = "") -> None:
    """A TradingBot on an account of its own, unless one is named."""
    scene.kubelet.settings[name] = {"account_uid": account or f"of-{name}"}
    await scene.create(name, labels, symbol=symbol)


async def label(scene: Scene, name: str, shard: str | None, resource: str = "tradingbots") -> None:
    """Moves it to a shard."""
    await scene.kube.merge(scene.path(resource, name), {"metadata": {"labels": {names.SHARD_LABEL: shard}}})


async def epoch_of(scene: Scene, shard: str = "") -> int:
    """What the Lease of a shard's operators counts."""
    lease = await scene.kube.get(scene.path("leases", lease_name((scene.namespace,), shard)))
    assert lease is not None
    return int(lease["spec"]["leaseTransitions"])


async def granted_by(scene: Scene, name: str, shard: str = "", seconds: float = 30.0) -> None:
    """Waits until a bot holds a grant of a shard's operator."""

    async def probe() -> bool:
        double = scene.kubelet.bots.get(name)
        epoch = await epoch_of(scene, shard)
        return double is not None and double.granted and bool(double.grants) and double.grants[-1].epoch == epoch

    await until(f"{name} to be granted by {shard or 'main'}", probe, seconds)


async def switch_tells(scene: Scene, **figures: Any) -> Json:
    """Waits until the kill switch's status has these figures."""
    latest: Json = {}

    async def probe() -> bool:
        nonlocal latest
        latest = ((await scene.kube.get(scene.path("killswitches", "incident"))) or {}).get("status", {})
        return all(latest.get(key) == value for key, value in figures.items())

    try:
        await until(f"the kill switch to tell {figures}", probe, 30.0)
    except AssertionError as error:
        raise AssertionError(f"{error}; status {latest}; log {scene.operator.log[-5:]}") from error
    return latest


async def test_two_shards_serve_their_own_and_a_shard_that_nobody_knows_is_the_main_ones(main: Scene) -> None:
    await make(main, "plain", "BTCUSDT")
    await make(main, "typo", "ETHUSDT", {names.SHARD_LABEL: "aa"})
    await make(main, "of-a", "BNBUSDT", IN_A)
    for name in ("plain", "typo"):
        await main.reaches("Trading", name)
        await granted_by(main, name)
    assert "status" not in await main.bot("of-a"), "the main operator leaves it alone"
    assert await gone(main, "pods", "of-a")
    async with shard_a(main) as other:
        await main.reaches("Trading", "of-a", 30)
        await granted_by(main, "of-a", "a")
        pod = await main.kube.get(main.path("pods", "of-a"))
        assert pod is not None
        assert pod["metadata"]["labels"][names.SHARD_LABEL] == "a"
        for name, shard in (("plain", ""), ("typo", ""), ("of-a", "a")):
            assert {grant.epoch for grant in main.double(name).grants} == {await epoch_of(main, shard)}
        await main.kube.call("DELETE", main.path("tradingbots", "of-a"))
        await until("it to be drained by its own operator", lambda: gone(main, "tradingbots", "of-a"), 30)
        assert not any(entry["event"] == RAISED for entry in main.operator.log + other.log)


async def test_a_label_moves_while_the_bot_holds_a_position_to_an_operator_of_an_older_lease_and_back(
    main: Scene,
) -> None:
    async with shard_a(main) as other:
        main.kubelet.settings["btcusdt"] = {"quantity": Decimal("0.5")}
        await main.create(labels=IN_A)
        await main.reaches("Trading", seconds=30)
        await granted_by(main, "btcusdt", "a")
        double = main.double()
        pod = await main.kube.get(main.path("pods", "btcusdt"))
        assert await epoch_of(main) <= await epoch_of(main, "a"), "what the bot remembers is no less"
        lapsed, phases = False, set()

        async def watch() -> None:
            nonlocal lapsed
            while True:
                lapsed = lapsed or not double.granted
                phases.add((await main.bot())["status"]["phase"])
                await asyncio.sleep(0.05)

        watching = asyncio.create_task(watch())
        for shard in ("", "a", ""):
            begun = time.monotonic()
            await label(main, "btcusdt", shard or None)
            await granted_by(main, "btcusdt", shard)
            print(f"granted by {shard or 'main'} {time.monotonic() - begun:.1f} s after its label moved")
            await main.reaches("Trading")
        watching.cancel()
        assert not lapsed, "it had a grant all the time"
        assert phases == {"Trading"}
        raised = [sum(entry["event"] == RAISED for entry in one.log) for one in (main.operator, other)]
        assert raised == [2, 1], "once for each that came, and no more"
        assert not any(entry["event"] == "the bot refused" for one in (main.operator, other) for entry in one.log)
        later = await main.kube.get(main.path("pods", "btcusdt"))
        assert pod is not None
        assert later is not None
        assert later["metadata"]["uid"] == pod["metadata"]["uid"]
        assert (double.quantity, double.drain_requests, main.kubelet.starts["btcusdt"]) == (Decimal("0.5"), [], 1)
        await main.kube.merge(main.path("tradingbots", "btcusdt"), {"spec": {"safeMode": True}})
        await main.is_("SafeModeAcknowledged", "True", "OK")


async def test_of_two_shards_bots_that_want_one_account_and_symbol_one_is_refused(main: Scene) -> None:
    async with shard_a(main):
        await make(main, "first", "BTCUSDT", account="1001")
        await main.reaches("Trading", "first")
        await make(main, "second", "BTCUSDT", IN_A, account="1001")
        message = await main.is_("ClaimHeld", "False", "ClaimedByOther", "second", 30)
        assert f"{main.namespace}/first" in message
        assert main.double("second").grants == []


async def test_an_account_that_is_split_over_shards_is_told_and_never_said_to_balance(main: Scene) -> None:
    async with shard_a(main):
        await make(main, "here", "BTCUSDT", account="1001")
        await make(main, "there", "ETHUSDT", IN_A, account="1001")
        for name, other in (("here", "there"), ("there", "here")):
            for kind in ("BalanceSynced", "CapitalCovered"):
                assert other in await main.is_(kind, "Unknown", "AccountSplit", name, 30)
            await main.is_("Ready", "False", "AccountSplit", name)
            await main.reaches("Trading", name)
        await label(main, "there", None)
        for name in ("here", "there"):
            await main.is_("BalanceSynced", "True", "Exact", name, 30)
            await main.is_("Ready", "True", "OK", name)


async def test_a_kill_switch_counts_the_bots_of_both_shards_and_those_of_a_dead_one_are_pending(main: Scene) -> None:
    await make(main, "here", "BTCUSDT")
    await main.reaches("Trading", "here")
    body = {
        "apiVersion": names.API_VERSION, "kind": "KillSwitch", "metadata": {"name": "incident"},
        "spec": {"reason": "exchange incident"},
    }  # fmt: skip
    async with shard_a(main) as other:
        await make(main, "there", "ETHUSDT", IN_A)
        await main.reaches("Trading", "there", 30)
        # Its operator is dead before it hears of the kill switch.
        assert await other.stop(signal.SIGKILL) == -signal.SIGKILL
    await main.kube.call("POST", main.path("killswitches"), body)
    status = await switch_tells(main, bots=2, acknowledged=1, unacknowledged=1, phase="Engaging")
    assert [item["name"] for item in status["pending"]] == ["there"]
    assert main.double("there").imposed == {}
    async with shard_a(main):
        await switch_tells(main, bots=2, acknowledged=2, phase="Engaged")
        assert SWITCH in main.double("there").imposed
        assert SWITCH in main.double("here").imposed
    await main.kube.merge(main.path("killswitches", "incident"), {"spec": {"release": True}})
    await until("its own bot to be free", lambda: not main.double("here").imposed)
    await switch_tells(main, bots=1, phase="Releasing")
    await main.kube.call("DELETE", main.path("killswitches", "incident"))
    assert not await gone(main, "killswitches", "incident"), "a bot of the dead shard has its cause"
    assert SWITCH in main.double("there").imposed
    async with shard_a(main):
        await until("the other shard's bot to be free", lambda: not main.double("there").imposed, 30)
        await until("the kill switch to be gone", lambda: gone(main, "killswitches", "incident"), 30)


async def test_a_ban_of_a_bot_reaches_the_other_shards_bots_of_its_address(main: Scene) -> None:
    async with shard_a(main):
        await make(main, "here", "BTCUSDT")
        await make(main, "there", "ETHUSDT", IN_A)
        for name in ("here", "there"):
            await main.reaches("Trading", name, 30)
        for banned, heard in (("here", "there"), ("there", "here")):
            until_time = datetime.now(UTC) + timedelta(seconds=600 if banned == "here" else 1200)
            begun = time.monotonic()
            main.double(banned).banned_until = until_time
            main.double(banned).wake()
            told = main.double(heard).waits

            def arrived(told: Any = told, until_time: datetime = until_time) -> bool:
                return any(wait.until_time == until_time for _, wait in told)

            await until("the other shard's bot to be told", arrived)
            print(f"told after {time.monotonic() - begun:.2f} s")


async def test_the_bots_of_a_set_go_where_the_set_goes_and_nowhere_else(main: Scene) -> None:
    template = {key: value for key, value in SPEC.items() if key != "symbol"}
    symbols = ("BTCUSDT", "ETHUSDT")
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.TRADING_BOT_SET.kind,
        "metadata": {"name": "x", "labels": IN_A},
        "spec": {
            "bots": [{"symbol": symbol} for symbol in symbols],
            "template": {"spec": {**template, "pod": main.kubelet.shape()}},
        },
    }
    bots = [f"x-{symbol.lower()}" for symbol in symbols]

    async def labelled(shard: str | None) -> bool:
        found = [(await main.bot(name)).get("metadata", {}).get("labels", {}) for name in bots]
        return all(labels and labels.get(names.SHARD_LABEL) == shard for labels in found)

    await main.kube.call("POST", main.path("tradingbotsets"), body)
    async with shard_a(main):
        for name in bots:
            await main.reaches("Trading", name, 30)
            await granted_by(main, name, "a")
        await label(main, bots[0], "b")
        await until("the set to have its bot back", lambda: labelled("a"))
        await label(main, "x", None, "tradingbotsets")
        await until("the bots to go with the set", lambda: labelled(None))
        for name in bots:
            await granted_by(main, name)
    assert [main.kubelet.starts[name] for name in bots] == [1, 1]
