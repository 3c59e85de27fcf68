"""The two loads that are compared: TradingBots under the operator, StatefulSets under kube-controller-manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from performance.scale.lab import FAKE_SHAPE, NAMESPACE, Watched, watching
from support.kube import BOTS, Json, Kube
from support.operator_objects import SPEC
from support.waiting import until
from tradingbot_api import names

CLIENTS = 20
"""Creations under way at the same time."""
SLOWEST = 1.0
"""Objects a second at which a load is given up."""
START_SECONDS = 60


@dataclass(frozen=True)
class Burst:
    """How fast a burst of objects became Ready; seconds from each one's first request to its Ready."""

    count: int
    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Ready objects a second, from the first request to the last Ready."""
        return self.count / self.seconds


async def at_once(calls: Iterable[Coroutine[Any, Any, Any]], clients: int = CLIENTS) -> None:
    """Makes many calls, some at a time."""
    gate = asyncio.Semaphore(clients)

    async def one(call: Coroutine[Any, Any, Any]) -> None:
        async with gate:
            await call

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))


def bot_name(number: int) -> str:
    """Of the TradingBot of a number."""
    return f"bot-{number:04d}"


def tradingbot(number: int, **spec: Any) -> Json:
    """A TradingBot whose pod comes to a kwok node; all are of one account, each has a symbol of its own."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"name": bot_name(number)},
        "spec": {**SPEC, "symbol": f"A{number:04d}USDT", "pod": FAKE_SHAPE, **spec},
    }


async def create_bots(kube: Kube, numbers: Iterable[int], begun: dict[str, float] | None = None) -> None:
    """Creates TradingBots; `begun` takes when each was asked for."""

    async def one(number: int) -> None:
        if begun is not None:
            begun[bot_name(number)] = time.monotonic()
        await kube.call("POST", BOTS.format(NAMESPACE), tradingbot(number))

    await at_once(one(number) for number in numbers)


async def burst_of_bots(kube: Kube, watched: Watched, numbers: Sequence[int]) -> Burst:
    """TradingBots from their creation to Ready."""
    begun: dict[str, float] = {}
    await create_bots(kube, numbers, begun)
    return await _ready(watched, begun)


async def burst_of_statefulsets(kube: Kube, count: int) -> Burst:
    """StatefulSets of one replica with a ConfigMap and a Secret each, from the first of the three to Ready."""
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets"
    begun: dict[str, float] = {}

    async def one(number: int) -> None:
        name = f"set-{number:04d}"
        begun[name] = time.monotonic()
        for resource, manifest in _set_objects(name):
            await kube.call("POST", f"/api/v1/namespaces/{NAMESPACE}/{resource}", manifest)
        await kube.call("POST", path, _statefulset(name))

    async with watching(kube, path, _set_ready) as watched:
        await at_once(one(number) for number in range(count))
        return await _ready(watched, begun)


async def _ready(watched: Watched, begun: dict[str, float]) -> Burst:
    def all_ready() -> bool:
        return begun.keys() <= watched.ready.keys()

    seconds = START_SECONDS + len(begun) / SLOWEST
    await until(f"{len(begun)} objects to be Ready", all_ready, seconds, every=0.1)
    ready = {name: watched.ready[name] for name in begun}
    latencies = [ready[name] - at for name, at in begun.items()]
    return Burst(len(begun), max(ready.values()) - min(begun.values()), latencies)


def _set_ready(raw: Json) -> bool:
    return bool(raw.get("status", {}).get("readyReplicas") == 1)


def _set_objects(name: str) -> list[tuple[str, Json]]:
    """As much to store as a TradingBot's ConfigMap and certificate."""
    header: Json = {"apiVersion": "v1", "metadata": {"name": name}}
    return [
        ("configmaps", {**header, "kind": "ConfigMap", "data": {"a": "b" * 1500}}),
        ("secrets", {**header, "kind": "Secret", "stringData": {"a": "b" * 2500}}),
    ]


def _statefulset(name: str) -> Json:
    labels = {"app": name}
    container = {
        "name": "bot",
        "image": "bot",
        "volumeMounts": [{"name": "config", "mountPath": "/config"}, {"name": "tls", "mountPath": "/tls"}],
    }
    volumes = [{"name": "config", "configMap": {"name": name}}, {"name": "tls", "secret": {"secretName": name}}]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "volumes": volumes, **FAKE_SHAPE},
            },
        },
    }
