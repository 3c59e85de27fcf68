"""Promises of an operator of two replicas: who works, how fast the other takes over, and what neither may do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.fault_proxy import Fault, FaultKind, FaultProxy, WatchFault, WatchFaultKind
from support.kube import Json
from support.operator_process import OperatorProcess, ready
from support.operator_scene import Scene, logged, operator_scene
from support.waiting import until
from tradingbot_operator.app import utc_now
from tradingbot_operator.cluster import Access, ApiError, Cluster
from tradingbot_operator.leader import Leader, LeaseLostError
from tradingbot_operator.metrics import Metrics

pytestmark = pytest.mark.cluster

LEADER = 'tradingbot_operator_leader{shard=""}'
LEASE_LOST = 3
KINDS = 4
"""That an operator of one namespace watches: pods, TradingBots, their sets, kill switches."""


@asynccontextmanager
async def replica(
    scene: Scene, identity: str, kubeconfig: Path | None = None, *more: str
) -> AsyncIterator[OperatorProcess]:
    """Another operator process for the scene's namespace; its log must hold no complaint but a lost Lease."""
    operator = await OperatorProcess.start(
        kubeconfig or scene.cluster.kubeconfig(), scene.authority, scene.namespace, "--identity", identity, *more
    )
    try:
        yield operator
    finally:
        if operator.process.returncode is None:
            operator.process.send_signal(signal.SIGCONT)
        await operator.stop()


@asynccontextmanager
async def proxied(cluster: LocalCluster) -> AsyncIterator[FaultProxy]:
    """A proxy before an API server."""
    async with FaultProxy(await Access.load(str(cluster.kubeconfig()))) as proxy:
        yield proxy


@dataclass
class Through:
    """A scene whose operator reaches the API server through a proxy, with a token from a file."""

    scene: Scene
    proxy: FaultProxy
    token: Path


@pytest.fixture
async def through(served_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Through]:
    """A proxy with no plan; a watch that is silent for 2 s is opened again."""
    token = tmp_path / "token"
    token.write_text("first")
    async with proxied(served_cluster) as proxy:
        proxy.token = "first"
        kubeconfig = proxy.kubeconfig(tmp_path / "kubeconfig", token)
        more = ("--watch-inactivity-seconds", "2")
        async with operator_scene(served_cluster, api_namespace, tmp_path, kubeconfig, more) as scene:
            yield Through(scene, proxy, token)


async def ended(operator: OperatorProcess) -> int:
    """Waits for the end of a process that ends by itself; its exit code. Its complaints are expected."""
    async with asyncio.timeout(15):
        code = await operator.process.wait()
    await operator.stop()
    operator.log.clear()
    return code


async def figure(operator: OperatorProcess, name: str) -> float:
    """A metric without labels."""
    url = f"http://127.0.0.1:{operator.ports['metrics']}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        lines = (await response.text()).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


async def granted_anew(scene: Scene, begun: float, seconds: float) -> float:
    """Waits for a grant of a greater epoch than all so far; seconds since `begun`."""
    epoch = max(grant.epoch for grant in scene.double().grants)

    async def anew() -> bool:
        return scene.double().grants[-1].epoch > epoch

    await until("a grant of the next leader", anew, seconds)
    return asyncio.get_running_loop().time() - begun


async def wish_safe_mode(scene: Scene, wish: bool | None) -> None:
    """Patches spec.safeMode."""
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), {"spec": {"safeMode": wish}})


async def true(condition: Callable[[], bool]) -> bool:
    """For `until`."""
    return condition()


async def test_the_standby_is_ready_and_takes_over_within_2_s_in_a_roll_and_15_s_after_a_kill(scene: Scene) -> None:
    loop = asyncio.get_running_loop()
    await scene.create()
    await scene.reaches("Trading")
    async with replica(scene, "second") as second:
        await ready(second)
        assert (await figure(scene.operator, LEADER), await figure(second, LEADER)) == (1.0, 0.0)
        begun = loop.time()
        scene.operator.process.send_signal(signal.SIGTERM)
        rolled = await granted_anew(scene, begun, 10)
        assert await scene.operator.process.wait() == 0
        assert await figure(second, LEADER) == 1.0
        async with replica(scene, "third") as third:
            await ready(third)
            begun = loop.time()
            second.process.kill()
            killed = await granted_anew(scene, begun, 20)
            if rolled >= 2:
                # Once more: the machine may have been busy with other tests.
                async with replica(scene, "fourth") as fourth:
                    await ready(fourth)
                    begun = loop.time()
                    third.process.send_signal(signal.SIGTERM)
                    rolled = await granted_anew(scene, begun, 10)
    print(f"hand-over: {rolled:.2f} s in a roll, {killed:.2f} s after a kill")
    assert rolled < 2
    assert killed < 15


async def test_while_the_leader_is_stopped_a_standby_engages_safe_mode_and_when_it_wakes_it_changes_nothing(
    through: Through,
) -> None:
    loop, scene, proxy = asyncio.get_running_loop(), through.scene, through.proxy
    former = scene.operator
    await scene.create()
    await scene.reaches("Trading")
    async with replica(scene, "second") as second:
        await ready(second)
        former.process.send_signal(signal.SIGSTOP)
        before = len(proxy.mutations), len(proxy.lease_writes)
        begun = loop.time()
        await wish_safe_mode(scene, True)
        await until("the standby's word", lambda: true(lambda: scene.double().engaged), 5)
        engaged = loop.time() - begun
        print(f"a standby's word: {engaged:.2f} s")
        assert engaged < 2
        assert not await logged(second, "the Lease is held")
        await scene.is_("SafeModeAcknowledged", "True", "OK")
        # The former leader has a change to act upon when it wakes up.
        await wish_safe_mode(scene, None)
        await scene.reaches("Trading")
        configs, epoch = len(scene.double().configs), scene.double().grants[-1].epoch
        former.process.send_signal(signal.SIGCONT)
        assert await ended(former) == LEASE_LOST
        assert (len(proxy.mutations), len(proxy.lease_writes)) == before
        assert len(scene.double().configs) == configs
        assert scene.double().grants[-1].epoch == epoch
        assert (await scene.bot())["status"]["phase"] == "Trading"


async def test_a_standby_writes_nothing_and_its_word_beside_the_leaders_leaves_no_trace(
    scene: Scene, tmp_path: Path
) -> None:
    await scene.create()
    await scene.reaches("Trading")
    async with (
        proxied(scene.cluster) as proxy,
        replica(scene, "second", proxy.kubeconfig(tmp_path / "kubeconfig")) as second,
    ):
        await ready(second)
        for _ in range(3):
            await wish_safe_mode(scene, True)
            await scene.is_("SafeModeAcknowledged", "True", "OK")
            await wish_safe_mode(scene, None)
            await scene.reaches("Trading")
        await until("the standby's words", lambda: true(lambda: len(scene.double().told_by_standbys) > 0))
        # A standby's word that comes when its wish has ended is taken back by the leader.
        scene.double().engaged = True
        scene.double().wake()
        await until("the release", lambda: true(lambda: not scene.double().engaged))
        await scene.reaches("Trading")
        assert proxy.mutations == proxy.lease_writes == []


async def test_a_leader_that_sees_nothing_does_not_release_what_a_standby_engaged(through: Through) -> None:
    scene, proxy = through.scene, through.proxy
    await scene.create()
    await scene.reaches("Trading")
    async with replica(scene, "second") as second:
        await ready(second)
        proxy.silent = True
        await wish_safe_mode(scene, True)
        await scene.is_("SafeModeAcknowledged", "True", "OK")
        assert [bool(config.settings.safe_mode) for config in scene.double().configs] == [False, True]
        proxy.silent = False


async def test_a_leader_that_sees_nothing_does_not_release_a_new_start_of_a_bot(through: Through) -> None:
    scene = through.scene
    await scene.create()
    await scene.reaches("Trading")
    through.proxy.silent = True
    double = scene.double()
    await wish_safe_mode(scene, True)
    # A standby told it, and it started anew: the leader would hand its configuration over.
    double.engaged, double.boot_id = True, "another"
    double.wake()
    await scene.is_("SafeModeAcknowledged", "True", "OK")
    await until("a grant of the new start", lambda: true(lambda: double.grants[-1].boot_id == "another"))
    assert [bool(config.settings.safe_mode) for config in double.configs] == [False, True]
    through.proxy.silent = False


async def test_a_standby_whose_watches_hang_compares_what_it_saw_before_it_works(scene: Scene, tmp_path: Path) -> None:
    await scene.create()
    await scene.create("ethusdt", symbol="ETHUSDT")
    await scene.reaches("Trading")
    await scene.reaches("Trading", "ethusdt")
    async with (
        proxied(scene.cluster) as proxy,
        replica(scene, "second", proxy.kubeconfig(tmp_path / "kubeconfig")) as second,
    ):
        await ready(second)

        async def watches() -> bool:
            await scene.kube.merge(
                scene.path("tradingbots", "btcusdt"), {"spec": {"capital": str(900 + proxy.requests)}}
            )
            return proxy.events > 0

        await until("an event that the standby sees", watches)
        proxy.silent = True
        await wish_safe_mode(scene, True)
        await scene.is_("SafeModeAcknowledged", "True", "OK")
        await scene.kube.merge(scene.path("tradingbots", "ethusdt"), {"spec": {"suspend": True}})
        await scene.reaches("Suspended", "ethusdt")
        told = len(scene.double().configs)
        scene.operator.process.send_signal(signal.SIGTERM)
        await granted_anew(scene, asyncio.get_running_loop().time(), 10)
        assert all(config.settings.safe_mode for config in scene.double().configs[told:])
        assert [item.what for item in proxy.mutations if item.what.startswith("pods")] == []
        assert [item.what for item in proxy.mutations if item.what.startswith("configmaps")] == []
        proxy.silent = False


async def test_a_leader_whose_calls_hang_ends_before_another_may_begin(through: Through) -> None:
    loop, scene = asyncio.get_running_loop(), through.scene
    former = scene.operator
    await scene.create()
    await scene.reaches("Trading")
    async with replica(scene, "second") as second:
        await ready(second)
        through.proxy.frozen = True
        begun = loop.time()
        assert await ended(former) == LEASE_LOST
        over = loop.time() - begun
        assert not await logged(second, "the Lease is held")
        taken = await granted_anew(scene, begun, 20)
        print(f"hung leader: ended after {over:.1f} s, the next grant after {taken:.1f} s")


@pytest.mark.parametrize("kind", [WatchFaultKind.ERROR, WatchFaultKind.UNAUTHORIZED])
async def test_a_watch_that_fails_ends_neither_the_operator_nor_its_lease(
    through: Through, kind: WatchFaultKind
) -> None:
    scene, proxy = through.scene, through.proxy
    await scene.create()
    await scene.reaches("Trading")
    for wish in (True, None, True):
        # What changes before is seen by the list that a watch begins with.
        await until("one watch of each kind", lambda: true(lambda: proxy.watches == KINDS))
        proxy.fired.clear()
        proxy.watch_plan = WatchFault(kind, at=proxy.events + 1)
        await wish_safe_mode(scene, wish)
        async with asyncio.timeout(15):
            await proxy.fired.wait()
        await scene.reaches("SafeMode" if wish else "Trading", seconds=30)
    await until("one watch of each kind", lambda: true(lambda: proxy.watches == KINDS))
    assert scene.operator.process.returncode is None
    assert len({grant.epoch for grant in scene.double().grants}) == 1


@pytest.mark.parametrize("fault", ["gone", "hung", "token", "busy", "away"])
async def test_an_operator_goes_on_after_the_api_server_failed_it(through: Through, fault: str) -> None:
    scene, proxy = through.scene, through.proxy
    await scene.create()
    await scene.reaches("Trading")
    match fault:
        case "gone":
            proxy.watch_plan = WatchFault(WatchFaultKind.GONE, at=proxy.events + 1)
        case "hung":
            proxy.silent = True
        case "token":
            proxy.token = "second"
            proxy.cut_watches()
            asked = proxy.requests
            await until("refused calls", lambda: true(lambda: proxy.requests > asked + 2))
            through.token.write_text("second")
        case "busy":
            proxy.refusing = 429
            proxy.cut_watches()
        case "away":
            proxy.down = True
    await wish_safe_mode(scene, True)
    if fault in {"hung", "busy", "away"}:
        await asyncio.sleep(1.5)  # the fault lasts
        assert not scene.double().engaged
    proxy.silent = proxy.down = False
    proxy.refusing = None
    await scene.is_("SafeModeAcknowledged", "True", "OK")
    assert scene.operator.process.returncode is None
    scene.operator.log.clear()


async def test_a_conflict_is_not_taken_for_an_object_that_exists(through: Through) -> None:
    proxy = through.proxy
    # As where two creations meet at a quota's count.
    proxy.plan = Fault(FaultKind.CONFLICT, at=len(proxy.mutations) + 3)
    await through.scene.create()
    await through.scene.reaches("Trading")
    spoiled = [item for item in proxy.mutations if item.fault is FaultKind.CONFLICT]
    assert [item.what.partition("/")[0] for item in spoiled] == ["secrets"]


async def test_what_the_bot_tells_does_not_hurry_a_status_that_cannot_be_written(through: Through) -> None:
    scene, proxy = through.scene, through.proxy
    await scene.create()
    await scene.reaches("Trading")
    proxy.silent = True
    annotation = {"metadata": {"annotations": {"example.org/seen": "later"}}}
    await scene.kube.merge(scene.path("tradingbots", "btcusdt"), annotation)
    begun, double = len(proxy.mutations), scene.double()

    def refused() -> int:
        return sum(item.status == 409 and item.what.endswith("/status") for item in proxy.mutations[begun:])

    for number in range(1, 31):
        double.quantity = Decimal(number)
        double.wake()
        await asyncio.sleep(0.1)
    # After 0, 0.2, 0.6, 1.4 and 3.0 seconds.
    assert 1 <= refused() <= 5
    proxy.silent = False
    await scene.shows(lambda status: status["position"]["quantity"] == "30")


async def test_while_the_api_server_wants_no_call_none_is_sent(api_cluster: LocalCluster, tmp_path: Path) -> None:
    async with proxied(api_cluster) as proxy:
        cluster = Cluster(await Access.load(str(proxy.kubeconfig(tmp_path / "kubeconfig"))), Metrics())
        proxy.refusing = 429
        for _ in range(5):
            with pytest.raises(ApiError) as caught:
                await cluster.served()
            assert 0 < caught.value.retry_after <= 1
        assert proxy.requests == 1
        proxy.refusing = None

        async def served() -> bool:
            try:
                return await cluster.served()
            except ApiError:
                return False

        await until("the second to pass", served, 5)
        await cluster.close()


async def test_a_write_that_waits_for_a_connection_is_not_sent_when_the_lease_ran_out_meanwhile(
    api_cluster: LocalCluster, api_namespace: str, tmp_path: Path
) -> None:
    async with proxied(api_cluster) as proxy:
        access = await Access.load(str(proxy.kubeconfig(tmp_path / "kubeconfig")))
        clock = 0.0
        lease = Cluster(access, Metrics())
        leader = Leader(lease, api_namespace, "another", "first", now=utc_now, clock=lambda: clock)
        cluster = Cluster(access, Metrics(), fence=leader.check)
        body: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": api_namespace, "name": "a"}}
        with pytest.raises(LeaseLostError):
            await cluster.create("configmaps", body)
        await leader.acquire()
        await cluster.create("configmaps", body)
        clock = 7.0
        body["metadata"]["name"] = "b"
        with pytest.raises(LeaseLostError):
            await cluster.create("configmaps", body)
        assert await cluster.get("configmaps", api_namespace, "b") is None
        assert [item.what for item in proxy.mutations] == ["leases/another", "configmaps/a"]
        with pytest.raises(LeaseLostError):
            await leader.keep()
        await cluster.close()
        await lease.close()
