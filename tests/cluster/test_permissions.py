"""The rights that the chart gives the operator are enough for a whole life, and none of them is unused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_kubernetes.local import LocalCluster

from support import chart
from support.kube import Json, until
from support.operator_process import OperatorProcess
from support.operator_scene import Scene, gone, more, operator_scene
from tradingbot_api import names

pytestmark = pytest.mark.cluster

ACCOUNT = chart.RELEASE
TRUTHS = "charts/tradingbot-operator/templates/rbac.yaml and the docstring of tradingbot_operator/cluster.py"
Right = tuple[str, str, str]
"""Namespace, resource with its group, verb."""


def rights(objects: list[dict[str, Any]]) -> set[Right]:
    """What the rendered Roles of the operator grant."""
    return {
        (role["metadata"]["namespace"], f"{resource}.{group}".rstrip("."), verb)
        for role in objects
        if role["kind"] == "Role"
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
            right = (reference.get("namespace", ""), f"{resource}.{reference.get('apiGroup', '')}".rstrip("."))
            found.setdefault((*right, event["verb"]), set()).add(event.get("responseStatus", {}).get("code", 0))
        return found

    async def restart(self) -> None:
        """Another operator, with the same rights."""
        await self.scene.operator.stop()
        self.scene.operator = await OperatorProcess.start(
            self.kubeconfig, self.scene.authority, self.scene.namespace, *self.scene.options
        )


@pytest.fixture
async def served(served_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Served]:
    """One namespace with bots, another with the operator's account and the claims."""
    kubectl, claims = served_cluster.kubectl, f"{api_namespace}-claims"
    kubectl("create", "namespace", claims)
    policy: list[Json] = []
    try:
        objects = chart.render(
            "--namespace", claims, "--set", f"watchNamespaces={{{api_namespace}}}",
            "--set", "uninstallGuard.enabled=false",
        )  # fmt: skip
        access = [o for o in objects if o["kind"] in {"ServiceAccount", "Role", "RoleBinding"}]
        # What holds on-call back must not hold the operator back.
        policy = [chart.of_its_own(o, f"-{api_namespace}", api_namespace) for o in objects if "Admission" in o["kind"]]
        access += policy
        kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": access}))
        token = kubectl("create", "token", ACCOUNT, "--namespace", claims, "--duration", "30m").strip()
        config = yaml.safe_load(served_cluster.kubeconfig().read_text(encoding="utf-8"))
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        options = ("--claims-namespace", claims, "--resync-seconds", "2")
        kubectl("apply", "-f", "-", stdin=json.dumps(volume(api_namespace)))
        async with operator_scene(served_cluster, api_namespace, tmp_path, kubeconfig, options) as scene:
            user = f"system:serviceaccount:{claims}:{ACCOUNT}"
            yield Served(scene, kubeconfig, claims, user, rights(access))
    finally:
        kubectl("delete", "namespace", claims, "--wait=false")
        for document in policy:
            kubectl("delete", document["kind"], document["metadata"]["name"], "--ignore-not-found")
        kubectl("delete", "persistentvolume", api_namespace, "--ignore-not-found", "--wait=false")


async def test_a_whole_life_needs_every_right_of_the_chart_and_no_other(served: Served) -> None:
    await live(served)
    await served.scene.audited()
    asked = served.asked()
    refused = sorted(right for right, codes in asked.items() if 403 in codes)
    assert refused == [], f"the operator was refused these: does its code need them, then add them to {TRUTHS}"
    unused = sorted(served.granted - set(asked))
    assert unused == [], (
        f"granted, and not used in this life: drive the code that needs them here, or take them out of {TRUTHS}"
    )


async def live(served: Served) -> None:
    """A life with everything that an operator may have to do."""
    scene = served.scene
    bot = scene.path("tradingbots", "btcusdt")
    await scene.create(storage={"size": "1Gi", "reclaimPolicy": "Retain"})
    await scene.reaches("Trading")
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


async def replaced(scene: Scene, first: Json) -> bool:
    """Whether there is another pod."""
    pod = await scene.kube.get(scene.path("pods", "btcusdt"))
    return pod is not None and pod["metadata"]["uid"] != first["metadata"]["uid"]
