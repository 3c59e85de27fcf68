"""The promise of one trader: of all processes that know an account and symbol, one at a time may add exposure."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from local_kubernetes.local import LocalCluster

from campaigns.life_cycle import ORDERS_EVERY, World, all_orders, eager_spec, entries, world
from paper_exchange.testing import TestAccount
from support.kube import Json
from support.operator_process import OperatorProcess, make_authority
from support.operator_scene import Scene, gone, more, operator_scene
from support.waiting import until
from tradingbot_api import names
from tradingbot_operator.claims import BOOT, INCARNATION, Claim

pytestmark = pytest.mark.cluster


async def claims(scene: Scene, namespace: str | None = None) -> list[Json]:
    """The Leases of claims in a namespace."""
    path = scene.path("leases").replace(scene.namespace, namespace or scene.namespace)
    return [item for item in await scene.kube.items(path) if item["metadata"]["name"].startswith("claim-")]


# --- a cluster that comes back from a backup ---


@pytest.mark.parametrize(
    ("incarnation", "boot"),
    [
        pytest.param("5", "of-an-earlier-start", id="the-claim-is-older-than-the-bot"),
        pytest.param("5000", "of-a-start-that-was-forgotten", id="the-claim-is-newer-than-the-bot"),
        pytest.param("1001", "of-another-start", id="another-start-had-this-very-incarnation"),
        pytest.param("", "", id="the-claims-marks-are-lost"),
        pytest.param("9" * 30, "of-nobody", id="the-claims-marks-are-rubbish"),
    ],
)
async def test_incarnations_grow_whatever_a_backup_brings_back(scene: Scene, incarnation: str, boot: str) -> None:
    await scene.create()
    await scene.reaches("Trading")
    (claim,) = await claims(scene)
    await scene.operator.stop()
    before = len(scene.double().grants)
    marks = {INCARNATION: incarnation or None, BOOT: boot or None}
    await scene.kube.merge(scene.path("leases", claim["metadata"]["name"]), {"metadata": {"annotations": marks}})
    await scene.restart_operator()
    await until("another grant", lambda: more(scene.double().grants, before), seconds=30)
    grants = scene.double().grants
    assert [item.incarnation for item in grants] == sorted(item.incarnation for item in grants)
    latest = grants[-1].incarnation
    assert latest == 5001 if incarnation == "5000" else latest >= 1001
    (claim,) = await claims(scene)
    assert (Claim.of(claim).incarnation, Claim.of(claim).boot_id) == (latest, scene.double().boot_id)
    # The next start goes above all of them.
    scene.kubelet.settings["btcusdt"] = {"incarnation": 7}
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))

    async def granted() -> bool:
        double = scene.kubelet.bots.get("btcusdt")
        return double is not None and bool(double.grants) and double.grants[-1].incarnation > latest

    await until("a grant of a greater incarnation", granted, seconds=30)


async def test_a_pod_that_vanished_before_any_status_was_written_is_replaced_only_when_its_grant_is_over(
    scene: Scene,
) -> None:
    await scene.create()
    await scene.reaches("Trading")
    await scene.operator.stop()
    # As where an operator granted the bot and was killed before it wrote the first status.
    status = scene.path("tradingbots", "btcusdt") + "/status"
    await scene.kube.merge(status, {"status": dict.fromkeys((await scene.bot())["status"])})
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"), {"gracePeriodSeconds": 0})
    await scene.restart_operator()
    assert "its process may still run" in await scene.is_("PodReady", "False", "PodMissing", seconds=30)
    assert await gone(scene, "pods", "btcusdt")


async def test_a_claim_that_a_backup_forgot_is_made_again_and_only_its_bot_is_granted(scene: Scene) -> None:
    await scene.create("first")
    await scene.reaches("Trading", "first")
    (claim,) = await claims(scene)
    await scene.operator.stop()
    await scene.kube.call("DELETE", scene.path("leases", claim["metadata"]["name"]))
    await scene.create("second")
    await scene.restart_operator()
    await until("the claim", lambda: claims(scene), seconds=30)
    (claim,) = await claims(scene)
    holder = Claim.of(claim).holder.partition("/")[2]
    other = {"first": "second", "second": "first"}[holder]
    await scene.reaches("Trading", holder, seconds=30)
    await scene.is_("ClaimHeld", "False", "ClaimedByOther", other, seconds=30)
    last = {name: [grant.epoch for grant in scene.double(name).grants] for name in (holder, other)}
    assert max(last[other], default=0) < max(last[holder])


# --- two operators ---


@pytest.fixture
def other_namespace(api_cluster: LocalCluster, api_namespace: str) -> Iterator[str]:
    """A second namespace of the test's own."""
    name = f"{api_namespace}-other"
    api_cluster.kubectl("create", "namespace", name)
    yield name
    api_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
async def other_scene(
    served_cluster: LocalCluster, api_namespace: str, other_namespace: str, tmp_path: Path
) -> AsyncIterator[Scene]:
    """A second operator, in a namespace of its own, that shares the claims of the first."""
    folder = tmp_path / "other"
    more = ("--claims-namespace", api_namespace)
    async with operator_scene(served_cluster, other_namespace, folder, more=more) as made:
        yield made


def anywhere(scene: Scene, **more: Any) -> Json:
    """A spec whose exchange is the same one seen from any namespace."""
    exchange = {
        "environment": "Paper",
        "baseURL": "http://paper-exchange.markets:8080",
        "credentialsSecretRef": {"name": "binance"},
    }
    return {"exchange": exchange, **more}


async def test_operators_of_two_namespaces_that_share_claims_let_one_bot_trade(
    scene: Scene, other_scene: Scene
) -> None:
    await scene.create("first", **anywhere(scene))
    await scene.reaches("Trading", "first", seconds=30)
    await other_scene.create("second", **anywhere(other_scene))
    message = await other_scene.is_("ClaimHeld", "False", "ClaimedByOther", "second", seconds=30)
    assert f"{scene.namespace}/first" in message
    assert (await other_scene.bot("second"))["status"]["phase"] == "Degraded"
    assert other_scene.double("second").grants == []
    assert len(await claims(scene)) == 1
    assert await claims(other_scene) == []
    # Not before the first has drained and its process is gone.
    scene.double("first").drains = False
    await scene.kube.call("DELETE", scene.path("tradingbots", "first"))
    await until("the drain to begin", lambda: more(scene.double("first").drain_requests, 0))
    first = scene.double("first")
    assert (await other_scene.condition("ClaimHeld", "second"))[0] == "False"
    first.drains = True
    await first.drain(first.drain_requests[0])
    await until("the first to go", lambda: gone(scene, "tradingbots", "first"), seconds=30)
    await other_scene.reaches("Trading", "second", seconds=30)
    (claim,) = await claims(scene)
    assert Claim.of(claim).holder == f"{other_scene.namespace}/second"


# --- two clusters ---


class Side:
    """One of two clusters with the same manifests: an operator and a claims namespace of its own, and a real bot."""

    def __init__(self, shared: World, account: TestAccount, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self._world = shared
        self._account = account
        self._folder = folder
        self._operator: OperatorProcess | None = None

    def path(self, resource: str, name: str = "") -> str:
        """Of an object in the namespace."""
        group = f"/apis/{names.API_VERSION}" if resource == names.PLURAL else "/api/v1"
        return f"{group}/namespaces/{self.namespace}/{resource}" + (f"/{name}" if name else "")

    async def start(self) -> None:
        """The operator, the keys and the TradingBot."""
        kube = self._world.kube
        keys = {"apiKey": self._account.api_key, "apiSecret": self._account.secret_key}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "binance"}, "stringData": keys}
        await kube.call("POST", self.path("secrets"), secret)
        make_authority(self._folder / "authority")
        self._operator = await OperatorProcess.start(
            self._world.cluster.kubeconfig(), self._folder / "authority", self.namespace
        )
        risk = {"maxPositionValue": "300", "maxDailyLoss": "500", "cooldownSeconds": 0}
        spec = eager_spec(self._world.exchange, self._world.kubelet, risk=risk)
        body = {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": "btcusdt"}, "spec": spec}
        await kube.call("POST", self.path(names.PLURAL), body)

    async def status(self) -> Json:
        """Of the TradingBot."""
        bot = await self._world.kube.call("GET", self.path(names.PLURAL, "btcusdt"))
        status: Json = bot.get("status", {})
        return status

    async def stop(self) -> None:
        """Ends the operator and lets the TradingBot go."""
        if self._operator is not None:
            await self._operator.stop()
        await self._world.kube.merge(self.path(names.PLURAL, "btcusdt"), {"metadata": {"finalizers": None}})


async def test_of_two_clusters_with_the_same_manifests_the_older_bot_halts(
    served_cluster: LocalCluster, api_namespace: str, other_namespace: str, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(world(served_cluster, tmp_path / "world"))
        account = await shared.exchange.create_account(USDT="10000")
        older = Side(shared, account, api_namespace, tmp_path / "older")
        newer = Side(shared, account, other_namespace, tmp_path / "newer")

        async def made() -> list[tuple[int, int, str]]:
            return entries(await all_orders(shared.exchange, account))

        stack.push_async_callback(older.stop)
        await older.start()
        await until("an entry of the first", made, seconds=60, every=ORDERS_EVERY)
        first = (await made())[-1][1]
        stack.push_async_callback(newer.stop)
        await newer.start()

        async def halted() -> bool:
            safe = (await older.status()).get("safeMode", {})
            return safe.get("level") == "Halted" and "TwoTraders" in {item["reason"] for item in safe["causes"]}

        async def entered() -> bool:
            return any(incarnation > first for _, incarnation, _ in await made())

        await until("the older one to halt", halted, seconds=60)
        await until("an entry of the newer one", entered, seconds=60, every=ORDERS_EVERY)
        told = {item["type"]: item for item in (await older.status())["conditions"]}
        assert (told["SafeModeEngaged"]["status"], told["SafeModeEngaged"]["reason"]) == ("True", "TwoTraders")
        assert "another process trades" in told["SafeModeEngaged"]["message"]
        assert (await older.status())["phase"] == "SafeMode"
        for (_, earlier, one), (_, later, two) in itertools.pairwise(await made()):
            assert later >= earlier, f"{two} came after {one}"
        assert "TwoTraders" not in str((await newer.status()).get("safeMode"))


# --- objects of somebody else ---


@pytest.mark.parametrize(
    ("resource", "name", "spec"),
    [
        pytest.param(
            "pods", "btcusdt", {"containers": [{"name": "theirs", "image": "registry.invalid/theirs"}]}, id="pod"
        ),
        pytest.param(
            "persistentvolumeclaims",
            "btcusdt-state",
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            id="volume-claim",
        ),
    ],
)
async def test_what_another_made_is_refused_and_reported_and_left_alone(
    scene: Scene, resource: str, name: str, spec: Json
) -> None:
    kind = {"pods": "Pod", "persistentvolumeclaims": "PersistentVolumeClaim"}[resource]
    theirs = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    made = await scene.kube.call("POST", scene.path(resource), theirs)
    await scene.create(storage={"size": "1Gi"})
    message = await scene.is_("Accepted", "False", "ForeignObject", seconds=30)
    assert f"{kind} {scene.namespace}/{name}" in message
    assert (await scene.bot())["status"]["phase"] == "Invalid"
    found = await scene.kube.call("GET", scene.path(resource, name))
    assert found["metadata"]["uid"] == made["metadata"]["uid"]
    assert "ownerReferences" not in found["metadata"]
    assert "deletionTimestamp" not in found["metadata"]
    events = [item["reason"] for item in await scene.kube.items(scene.path("events"))]
    assert events.count("ForeignObject") == 1
    assert "btcusdt" not in scene.kubelet.bots
    # The TradingBot goes without touching it.
    await scene.kube.call("DELETE", scene.path("tradingbots", "btcusdt"))
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=30)
    assert "deletionTimestamp" not in (await scene.kube.call("GET", scene.path(resource, name)))["metadata"]
