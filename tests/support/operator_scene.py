"""A namespace with an operator under test, where the kubelet and the bots are doubles."""

from __future__ import annotations

import json
import signal
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_kubernetes.local import LocalCluster

from support.bot_double import BotDouble
from support.kube import BOTS, LEASES, SETS, Json, Kube
from support.kubelet_double import KubeletDouble
from support.operator_objects import SPEC
from support.operator_process import OperatorProcess, make_authority
from support.waiting import until
from tradingbot_api import names


@dataclass
class Scene:
    """A namespace with an operator and a kubelet double."""

    kube: Kube
    cluster: LocalCluster
    namespace: str
    kubelet: KubeletDouble
    operator: OperatorProcess
    authority: Path
    audit_from: int
    options: tuple[str, ...]
    """Further arguments of the operator."""

    def path(self, resource: str, name: str = "") -> str:
        """Of an object in the namespace."""
        prefix = {
            "tradingbots": BOTS.format(self.namespace),
            "tradingbotsets": SETS.format(self.namespace),
            "leases": LEASES.format(self.namespace),
            "killswitches": f"/apis/{names.API_VERSION}/namespaces/{self.namespace}/killswitches",
        }.get(resource, f"/api/v1/namespaces/{self.namespace}/{resource}")
        return f"{prefix}/{name}" if name else prefix

    async def create(self, name: str = "btcusdt", labels: dict[str, str] | None = None, **spec: Any) -> Json:
        """Applies a TradingBot."""
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": name, "labels": labels or {}},
            "spec": {**SPEC, "pod": self.kubelet.shape(), **spec},
        }
        return await self.kube.call("POST", self.path("tradingbots"), body)

    async def bot(self, name: str = "btcusdt") -> Json:
        """A TradingBot."""
        return await self.kube.get(self.path("tradingbots", name)) or {}

    async def condition(self, kind: str, name: str = "btcusdt") -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        for item in (await self.bot(name)).get("status", {}).get("conditions", []):
            if item["type"] == kind:
                return item["status"], item["reason"], item.get("message", "")
        return "", "", ""

    async def reaches(self, phase: str, name: str = "btcusdt", seconds: float = 15.0) -> Json:
        """Waits for a phase."""
        latest: Json = {}

        async def probe() -> bool:
            nonlocal latest
            latest = await self.bot(name)
            return bool(latest.get("status", {}).get("phase") == phase)

        try:
            await until(f"phase {phase}", probe, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; status {latest.get('status')}; log {self.operator.log[-5:]}") from error
        return latest

    async def is_(self, kind: str, status: str, reason: str, name: str = "btcusdt", seconds: float = 15.0) -> str:
        """Waits for a condition; its message."""
        last = ("", "", "")

        async def probe() -> bool:
            nonlocal last
            last = await self.condition(kind, name)
            return last[:2] == (status, reason)

        try:
            await until(f"{kind}={status} {reason}", probe, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {last}; log {self.operator.log[-5:]}") from error
        return last[2]

    async def shows(self, what: Callable[[Json], bool], name: str = "btcusdt", seconds: float = 15.0) -> None:
        """Waits until the status is as `what` says."""

        async def probe() -> bool:
            return what((await self.bot(name)).get("status", {}))

        await until("the status to show it", probe, seconds)

    def double(self, name: str = "btcusdt") -> BotDouble:
        """The process behind a pod."""
        return self.kubelet.bots[name]

    def writes(self) -> list[str]:
        """Successful writes of the operator in the namespace, but for its own Lease, from the audit log."""
        found = []
        with self.cluster.audit_log().open(encoding="utf-8") as log:
            log.seek(self.audit_from)
            # Only lines of this namespace are parsed: the doubles answer in this very process.
            lines = [line for line in log if self.namespace in line and line.endswith("\n")]
        for event in map(json.loads, lines):
            reference = event.get("objectRef", {})
            if (
                event.get("userAgent") == names.FIELD_MANAGER
                and reference.get("namespace") == self.namespace
                and event["verb"] in {"create", "update", "patch", "delete"}
                and event.get("responseStatus", {}).get("code", 0) < 300
                and event["stage"] == "ResponseComplete"
                and not str(reference.get("name", "")).startswith(names.FIELD_MANAGER)
            ):
                found.append(f"{event['verb']} {reference['resource']}/{reference.get('subresource', '')}")
        return found

    async def audited(self) -> list[str]:
        """`writes`, once the log tells of all that was answered before: it has a later write of our own."""
        marker = f"marker-{uuid.uuid4().hex[:8]}"
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": marker}}
        await self.kube.call("POST", self.path("configmaps"), body)

        async def told() -> bool:
            with self.cluster.audit_log().open(encoding="utf-8") as log:
                log.seek(self.audit_from)
                return any(marker in line and '"ResponseComplete"' in line for line in log)

        await until("the audit log to tell of it", told)
        return self.writes()

    async def restart_operator(self, number: int = signal.SIGKILL) -> None:
        """Ends the operator and starts another."""
        await self.operator.stop(number)
        self.operator = await OperatorProcess.start(
            self.cluster.kubeconfig(), self.authority, self.namespace, *self.options
        )


@asynccontextmanager
async def operator_scene(
    cluster: LocalCluster,
    namespace: str,
    directory: Path,
    kubeconfig: Path | None = None,
    more: tuple[str, ...] = (),
    *,
    everywhere: bool = False,
) -> AsyncIterator[Scene]:
    """An operator at work in `namespace`, or also `everywhere` else; it must not have complained by the end.

    `kubeconfig` is the operator's alone: its way may lead through a proxy. `more` are arguments of it.
    """
    audit_from = cluster.audit_log().read_bytes().rfind(b"\n") + 1  # a line may be half written
    kube = await Kube.of(cluster.kubeconfig())
    kubelet = KubeletDouble(kube, namespace, directory / "pods")
    await kubelet.start()
    authority = directory / "authority"
    make_authority(authority)
    options = ("--identity", "test", *more)
    operator = await OperatorProcess.start(
        kubeconfig or cluster.kubeconfig(), authority, namespace, *options, everywhere=everywhere
    )
    scene = Scene(kube, cluster, namespace, kubelet, operator, authority, audit_from, options)
    try:
        yield scene
    finally:
        # First the operator, which would put its finalizer back.
        await scene.operator.stop()
        for bot in await kube.items(scene.path("tradingbots")):
            await kube.merge(scene.path("tradingbots", bot["metadata"]["name"]), {"metadata": {"finalizers": None}})
        await kubelet.stop()
        await kube.close()
    assert scene.operator.complaints() == []


async def more(items: list[Any], than: int) -> bool:
    """Whether there are more than so many."""
    return len(items) > than


async def gone(scene: Scene, resource: str, name: str) -> bool:
    """Whether an object of the namespace is no more."""
    return await scene.kube.get(scene.path(resource, name)) is None


async def logged(operator: OperatorProcess, event: str) -> bool:
    """Whether the operator's log tells of an event."""
    return any(entry.get("event") == event for entry in operator.log)
