"""Promises of the fault proxy: what it passes on, what it spoils, and that old reads are old."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from local_kubernetes.local import LocalCluster

from support.fault_proxy import Fault, FaultKind, FaultProxy, WatchFault, WatchFaultKind
from support.kube import Json, Kube, KubeError
from support.waiting import until
from tradingbot_operator.cluster import Access

pytestmark = pytest.mark.cluster


@dataclass
class Through:
    """The proxy and a client behind it, in a namespace."""

    proxy: FaultProxy
    kube: Kube
    maps: str

    async def create(self, name: str) -> Json:
        """A ConfigMap."""
        return await self.kube.call("POST", self.maps, {"metadata": {"name": name}})

    async def exists(self, name: str) -> bool:
        """Whether the client finds it."""
        return await self.kube.get(f"{self.maps}/{name}") is not None


@pytest.fixture
async def through(api_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Through]:
    """A proxy with no plan."""
    async with FaultProxy(await Access.load(str(api_cluster.kubeconfig()))) as proxy:
        kube = await Kube.of(proxy.kubeconfig(tmp_path / "kubeconfig"))
        yield Through(proxy, kube, f"/api/v1/namespaces/{api_namespace}/configmaps")
        await kube.close()


@pytest.mark.parametrize(
    ("kind", "status", "done"),
    [
        (FaultKind.CONFLICT, 409, False),
        (FaultKind.TOO_MANY, 429, False),
        (FaultKind.SERVER_ERROR, 500, False),
        (FaultKind.UNAUTHORIZED, 401, False),
        (FaultKind.RESET, 0, False),
        (FaultKind.ANSWER_LOST, 0, True),
        (FaultKind.KILL_BEFORE, 0, False),
        (FaultKind.KILL_AFTER, 0, True),
    ],
)
async def test_only_the_chosen_write_is_spoiled(through: Through, kind: FaultKind, status: int, done: bool) -> None:
    killed = []

    async def kill() -> None:
        killed.append(kind)

    through.proxy.kill = kill
    through.proxy.plan = Fault(kind, at=2)
    await through.create("first")
    with pytest.raises((KubeError, aiohttp.ClientError)) as caught:
        await through.create("second")
    assert getattr(caught.value, "status", 0) == status
    await through.create("third")
    assert await through.exists("second") is done
    assert [str(item.what) for item in through.proxy.mutations] == [
        f"configmaps/{n}" for n in ("first", "second", "third")
    ]
    assert bool(killed) is kind.startswith("kill")


async def test_reads_after_a_stale_restart_are_of_before_the_write_and_heal(through: Through) -> None:
    async def kill() -> None: ...

    through.proxy.kill = kill
    await through.create("first")
    through.proxy.plan = Fault(FaultKind.STALE_RESTART, at=2, seconds=1.0)
    with pytest.raises(aiohttp.ClientError):
        await through.create("second")
    assert await through.exists("first")
    assert not await through.exists("second")
    named = {item["metadata"]["name"] for item in await through.kube.items(through.maps)}
    assert "first" in named
    assert "second" not in named
    await until("the new state", lambda: through.exists("second"), seconds=5)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        (WatchFaultKind.DROP, ["one", "three"]),
        (WatchFaultKind.REPEAT, ["one", "two", "two", "three"]),
        (WatchFaultKind.DELAY, ["one", "two", "three"]),
        (WatchFaultKind.HANG, ["one"]),
        (WatchFaultKind.GONE, ["one", "ERROR"]),
    ],
)
async def test_only_the_chosen_watch_event_is_spoiled(through: Through, kind: WatchFaultKind, seen: list[str]) -> None:
    version = (await through.kube.call("GET", through.maps))["metadata"]["resourceVersion"]
    through.proxy.watch_plan = WatchFault(kind, at=2, seconds=0.3)
    got: list[str] = []
    params = {"watch": "true", "resourceVersion": version, "fieldSelector": "metadata.name!=kube-root-ca.crt"}

    async def follow() -> None:
        url = through.proxy.url + through.maps
        async with aiohttp.ClientSession() as session, session.get(url, params=params) as answer:
            async for line in answer.content:
                event = json.loads(line)
                got.append("ERROR" if event["type"] == "ERROR" else event["object"]["metadata"]["name"])

    watching = asyncio.create_task(follow())
    for name in ("one", "two", "three"):
        await through.create(name)

    async def told() -> bool:
        return len(got) >= len(seen) and through.proxy.fired.is_set()

    await until("the events", told, seconds=5)
    assert got == seen
    watching.cancel()


async def test_a_watch_is_cut_and_its_next_start_refused_once_as_by_a_token_that_expired(through: Through) -> None:
    version = (await through.kube.call("GET", through.maps))["metadata"]["resourceVersion"]
    through.proxy.watch_plan = WatchFault(WatchFaultKind.UNAUTHORIZED, at=2)
    params = {"watch": "true", "resourceVersion": version, "fieldSelector": "metadata.name!=kube-root-ca.crt"}
    for name in ("one", "two", "three"):
        await through.create(name)

    async def follow(session: aiohttp.ClientSession, count: int) -> list[str]:
        """The status, and the names of the first so many events, or of all until the stream ends."""
        async with session.get(through.proxy.url + through.maps, params=params) as answer:
            got = [str(answer.status)]
            async for line in answer.content:
                if answer.status == 200:
                    got.append(json.loads(line)["object"]["metadata"]["name"])
                if len(got) > count:
                    break
            return got

    async with aiohttp.ClientSession() as session, asyncio.timeout(10):
        assert await follow(session, 3) == ["200", "one"]
        assert not through.proxy.fired.is_set()
        assert await follow(session, 3) == ["401"]
        assert through.proxy.fired.is_set()
        assert await follow(session, 3) == ["200", "one", "two", "three"]


async def test_a_cluster_that_is_down_answers_nothing_until_it_is_up(through: Through) -> None:
    through.proxy.down = True
    with pytest.raises(aiohttp.ClientError):
        await through.create("first")
    through.proxy.down = False
    await through.create("first")
