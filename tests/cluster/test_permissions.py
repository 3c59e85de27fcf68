"""The rights that the chart gives the operator, in a namespace or everywhere, suffice for a life; none is unused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_kubernetes.local import LocalCluster

from support import chart
from support.kube import Json
from support.kubelet_double import KubeletDouble
from support.operator_objects import SPEC
from support.operator_process import OperatorProcess
from support.operator_scene import Scene, gone, more, operator_scene
from support.own_cluster import NAMESPACE, own_cluster
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

ACCOUNT = chart.RELEASE
TRUTHS = "charts/tradingbot-operator/templates/rbac.yaml and the docstring of tradingbot_operator/cluster.py"
Right = tuple[str, str, str]
"""Namespace, resource with its group, verb."""
EVERYWHERE = "*"
"""Instead of the namespace, of a right that a ClusterRole gives."""
RBAC = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def rights(objects: list[dict[str, Any]]) -> set[Right]:
    """What the rendered roles of the operator grant."""
    return {
        (role["metadata"].get("namespace", EVERYWHERE), f"{resource}.{group}".rstrip("."), verb)
        for role in objects
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def volume(namespace: str) -> Json:
    """A volume for the bot's claim: the cluster has no storage of its own."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": namespace, "name": names.volume_claim_name("btcusdt")},
            "hostPath": {"path": "/nowhere"},
        },
    }


@dataclass
class Served:
    """A scene whose operator has the rights of the chart and no others."""

    scene: Scene
    kubeconfig: Path
    claims: str
    user: str
    granted: set[Right]
    everywhere: bool = False
    """The operator serves all namespaces."""

    def asked(self) -> dict[Right, set[int]]:
        """What the operator asked the API server for, and the codes of the answers, from the audit log."""
        found: dict[Right, set[int]] = {}
        with self.scene.cluster.audit_log().open(encoding="utf-8") as log:
            log.seek(self.scene.audit_from)
            lines = [line for line in log if self.user in line and line.endswith("\n")]
        for event in map(json.loads, lines):
            reference = event.get("objectRef")
            if event["user"]["username"] != self.user or reference is None:
                continue
            resource = "/".join(part for part in (reference["resource"], reference.get("subresource")) if part)
            namespace = reference.get("namespace", "")
            if self.everywhere and namespace != self.claims:
                namespace = EVERYWHERE
            kind = f"{resource}.{reference.get('apiGroup', '')}".rstrip(".")
            code = event.get("responseStatus", {}).get("code", 0)
            found.setdefault((namespace, kind, event["verb"]), set()).add(code)
            if (event["verb"], code) == ("patch", 201):
                # An apply that makes an object needs both rights.
                found.setdefault((namespace, kind, "create"), set()).add(code)
        return found

    async def restart(self) -> None:
        """Another operator, with the same rights."""
        await self.scene.operator.stop()
        self.scene.operator = await OperatorProcess.start(
            self.kubeconfig, self.scene.authority, self.scene.namespace, *self.scene.options,
            everywhere=self.everywhere,
        )  # fmt: skip

    def judge(self) -> None:
        """The operator was refused nothing, and used all that it was granted."""
        asked = self.asked()
        refused = sorted(right for right, codes in asked.items() if 403 in codes)
        assert refused == [], f"the operator was refused these: does its code need them, then add them to {TRUTHS}"
        unused = sorted(self.granted - set(asked))
        assert unused == [], (
            f"granted, and not used in this life: drive the code that needs them here, or take them out of {TRUTHS}"
        )


@pytest.fixture
async def served(served_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Served]:
    """One namespace with bots, another with the operator's account and the claims."""
    async with operator_of_the_chart(served_cluster, api_namespace, tmp_path, everywhere=False) as made:
        yield made


@pytest.fixture
async def served_everywhere(tmp_path: Path) -> AsyncIterator[Served]:
    """The same without a namespace to watch; on a cluster of its own, as it serves every TradingBot."""
    with own_cluster("everywhere") as cluster:
        async with operator_of_the_chart(cluster, NAMESPACE, tmp_path, everywhere=True) as made:
            yield made


@asynccontextmanager
async def operator_of_the_chart(
    cluster: LocalCluster, namespace: str, folder: Path, *, everywhere: bool
) -> AsyncIterator[Served]:
    """The operator with its ServiceAccount's token and the chart's roles."""
    kubectl, claims = cluster.kubectl, f"{namespace}-claims"
    kubectl("create", "namespace", claims)
    policy: list[Json] = []
    try:
        watched = () if everywhere else ("--set", f"watchNamespaces={{{namespace}}}")
        alone = ("--set", "uninstallGuard.enabled=false,installCheck.enabled=false,sets.enabled=true")
        objects = chart.render("--namespace", claims, *watched, *alone)
        access = [o for o in objects if o["kind"] in RBAC and not _of_people(o)]
        # What holds on-call back must not hold the operator back.
        policy = [chart.of_its_own(o, f"-{namespace}", namespace) for o in objects if "Admission" in o["kind"]]
        access += policy
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": access}))
        token = kubectl("create", "token", ACCOUNT, "--namespace", claims, "--duration", "30m").strip()
        config = yaml.safe_load(cluster.kubeconfig().read_text(encoding="utf-8"))
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        options = ("--claims-namespace", claims, "--resync-seconds", "2")
        kubectl("apply", "-f", "-", stdin=json.dumps(volume(namespace)))
        async with operator_scene(cluster, namespace, folder, kubeconfig, options, everywhere=everywhere) as scene:
            user = f"system:serviceaccount:{claims}:{ACCOUNT}"
            yield Served(scene, kubeconfig, claims, user, rights(access), everywhere)
    finally:
        kubectl("delete", "namespace", claims, "--wait=false")
        for document in policy:
            kubectl("delete", document["kind"], document["metadata"]["name"], "--ignore-not-found")
        kubectl("delete", "persistentvolume", namespace, "--ignore-not-found", "--wait=false")


def _of_people(document: Json) -> bool:
    """Whether it is a role of people, which has a name of the whole cluster."""
    return document["kind"].startswith("Cluster") and not document["metadata"]["name"].endswith(f"-claims-{ACCOUNT}")


async def test_a_whole_life_needs_every_right_of_the_chart_and_no_other(served: Served) -> None:
    await live(served)
    await served.scene.audited()
    served.judge()


async def test_without_namespaces_to_watch_the_operator_serves_all_with_every_right_of_its_cluster_role_and_no_other(
    served_everywhere: Served, tmp_path: Path
) -> None:
    scene = served_everywhere.scene
    await scene.kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    kubelet = KubeletDouble(scene.kube, "elsewhere", tmp_path / "elsewhere")
    kubelet.settings["btcusdt"] = {"account_uid": "1002"}
    await kubelet.start()
    try:
        # At the same time: what is done for one namespace must not stop the other.
        async with asyncio.TaskGroup() as group:
            group.create_task(live(served_everywhere))
            group.create_task(live_shortly(replace(scene, namespace="elsewhere", kubelet=kubelet)))
    finally:
        await kubelet.stop()
    await scene.audited()
    served_everywhere.judge()


async def live_shortly(scene: Scene) -> None:
    """Created, configured, made safe, suspended, resumed, deleted."""
    bot = scene.path("tradingbots", "btcusdt")
    await scene.create()
    await scene.reaches("Trading", seconds=30)
    await scene.kube.merge(bot, {"spec": {"risk": {"maxPositionValue": "400"}, "safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK", seconds=30)
    assert scene.double().config.settings.risk.max_position_value == 400
    await scene.kube.merge(bot, {"spec": {"safeMode": None, "suspend": True}})
    await scene.reaches("Suspended", seconds=60)
    await until("the pod to go", lambda: gone(scene, "pods", "btcusdt"), seconds=30)
    await scene.kube.merge(bot, {"spec": {"suspend": None}})
    await scene.reaches("Trading", seconds=60)
    await scene.kube.call("DELETE", bot)
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=60)


async def live(served: Served) -> None:
    """A life with everything that an operator may have to do."""
    scene = served.scene
    bot = scene.path("tradingbots", "btcusdt")
    await scene.create(storage={"size": "1Gi", "reclaimPolicy": "Retain"})
    await scene.reaches("Trading")
    await live_as_a_set(scene)
    await live_under_kill_switches(scene, everywhere=served.everywhere)
    # Safe mode both ways, then a cause that a human clears.
    await scene.kube.merge(bot, {"spec": {"safeMode": True}})
    await scene.is_("SafeModeAcknowledged", "True", "OK")
    await scene.kube.merge(bot, {"spec": {"safeMode": None}})
    await scene.reaches("Trading")
    await scene.kube.merge(bot, {"metadata": {"annotations": {names.CLEAR_ANNOTATION: "drawdown"}}})

    async def consumed() -> bool:
        return names.CLEAR_ANNOTATION not in (await scene.bot())["metadata"].get("annotations", {})

    await until("the annotation to go", consumed)
    # Another process of the operator, and another pod.
    grants = len(scene.double().grants)
    await served.restart()
    await until("a grant of the new operator", lambda: more(scene.double().grants, grants), seconds=30)
    first = await scene.kube.call("GET", scene.path("pods", "btcusdt"))
    await scene.kube.call("DELETE", scene.path("pods", "btcusdt"))
    await until("another pod", lambda: replaced(scene, first))
    await scene.reaches("Trading", seconds=30)
    # A TradingBot that is removed past the operator, its pod left behind.
    await scene.create("left", symbol="ETHUSDT")
    await scene.reaches("Trading", "left", seconds=30)
    left = scene.path("tradingbots", "left")
    await scene.kube.call("DELETE", left, {"propagationPolicy": "Orphan"})
    await scene.kube.merge(left, {"metadata": {"finalizers": None}})
    await until("the pod left behind to go", lambda: gone(scene, "pods", "left"), seconds=60)
    # Deletion leaves the volume, which another TradingBot of that name takes up when a human says so.
    await scene.kube.call("DELETE", bot)
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=30)
    await scene.create(storage={"size": "1Gi", "reclaimPolicy": "Retain"})
    volume = await scene.kube.call("GET", scene.path("persistentvolumeclaims", "btcusdt-state"))
    adopted = {names.ADOPT_VOLUME_ANNOTATION: volume["metadata"]["uid"]}
    await scene.kube.merge(bot, {"metadata": {"annotations": adopted}})
    await scene.reaches("Trading", seconds=40)
    await scene.kube.call("DELETE", bot)
    await until("the TradingBot to go", lambda: gone(scene, "tradingbots", "btcusdt"), seconds=30)


async def live_as_a_set(scene: Scene) -> None:
    """A set whose one bot is made, changed, and taken out."""
    of_set = scene.path("tradingbotsets", "x")
    template = {"spec": {**{key: SPEC[key] for key in SPEC if key != "symbol"}, "pod": scene.kubelet.shape()}}
    spec = {"template": template, "bots": [{"symbol": "BNBUSDT"}]}
    resource = names.TRADING_BOT_SET
    body = {"apiVersion": names.API_VERSION, "kind": resource.kind, "metadata": {"name": "x"}, "spec": spec}
    await scene.kube.call("POST", scene.path("tradingbotsets"), body)
    await scene.reaches("Trading", "x-bnbusdt", seconds=30)
    await scene.kube.merge(of_set, {"spec": {"template": {"spec": {"capital": "900", "safeMode": True}}}})
    await scene.reaches("SafeMode", "x-bnbusdt", seconds=30)

    async def changed() -> bool:
        return bool((await scene.bot("x-bnbusdt"))["spec"]["capital"] == "900")

    await until("the change to come to it", changed, seconds=30)
    await scene.kube.merge(of_set, {"spec": {"bots": []}})
    await until("the bot to go", lambda: gone(scene, "tradingbots", "x-bnbusdt"), seconds=30)


async def live_under_kill_switches(scene: Scene, *, everywhere: bool) -> None:
    """Each kind of kill switch sets all in safe mode, is released and deleted."""
    kinds = [(names.KILL_SWITCH, scene.path("killswitches"))]
    if everywhere:
        kinds.append((names.CLUSTER_KILL_SWITCH, f"/apis/{names.API_VERSION}/clusterkillswitches"))
    for resource, path in kinds:
        body = {"apiVersion": names.API_VERSION, "kind": resource.kind, "metadata": {"name": "all"}}
        await scene.kube.call("POST", path, {**body, "spec": {"reason": "a drill"}})
        await scene.is_("SafeModeEngaged", "True", "KillSwitch", seconds=30)
        await until("its finalizer", lambda path=path: _finalized(scene, f"{path}/all"), seconds=30)
        await scene.kube.call("DELETE", f"{path}/all")
        await scene.kube.merge(f"{path}/all", {"spec": {"release": True}})
        await scene.reaches("Trading", seconds=30)
        await until("the switch to go", lambda path=path: _absent(scene, f"{path}/all"), seconds=30)


async def _finalized(scene: Scene, path: str) -> bool:
    return names.RELEASE_FINALIZER in (await scene.kube.call("GET", path))["metadata"].get("finalizers", [])


async def _absent(scene: Scene, path: str) -> bool:
    return await scene.kube.get(path) is None


async def replaced(scene: Scene, first: Json) -> bool:
    """Whether there is another pod."""
    pod = await scene.kube.get(scene.path("pods", "btcusdt"))
    return pod is not None and pod["metadata"]["uid"] != first["metadata"]["uid"]
