"""Helm installs, upgrades and removes the operator, and what must outlive that does."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from local_kubernetes.basics import Progress
from local_kubernetes.images import build
from local_kubernetes.local import LocalCluster

from support import chart

# What is the whole cluster's can be of one release only, and tests run side by side.
INSTALL = ("upgrade", "--install", "operator", str(chart.CHART), "--set", "people.enabled=false")
APPLY = ("apply", "--server-side", "--force-conflicts")


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own."""

    cluster: LocalCluster
    namespace: str

    def tries(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs helm, which may fail."""
        command = [str(self.cluster.binaries() / "helm"), "--kubeconfig", str(self.cluster.kubeconfig())]
        command += ["--namespace", self.namespace, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def helm(self, *words: str) -> str:
        """Runs helm; what it printed."""
        done = self.tries(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def authority(self) -> str:
        """The certificate and key that the chart made, as stored."""
        name = ("secret", "operator-tradingbot-operator-ca", "--namespace", self.namespace)
        return self.cluster.kubectl("get", *name, "-o", "jsonpath={.data}")

    def may(self, verb: str, resource: str) -> bool:
        """Whether the operator's service account may do it in another namespace."""
        resource, _, subresource = resource.partition("/")
        account = f"system:serviceaccount:{self.namespace}:operator-tradingbot-operator"
        question = (verb, resource, f"--subresource={subresource}", f"--as={account}", "--namespace=default")
        return self.cluster.kubectl("auth", "can-i", *question, check=False).strip() == "yes"


@pytest.fixture
def release(api_cluster: LocalCluster) -> Iterator[Release]:
    """Removed after the test."""
    made = Release(api_cluster, f"chart-{uuid.uuid4().hex[:8]}")
    api_cluster.kubectl("create", "namespace", made.namespace)
    yield made
    # No pod runs in this cluster: a hook would wait for its own for ever.
    made.helm("uninstall", "operator", "--ignore-not-found", "--no-hooks")
    api_cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


def test_authority_is_kept_over_upgrade_uninstall_and_install(release: Release) -> None:
    notes = release.helm(*INSTALL)
    assert "serves TradingBots in all namespaces" in notes
    made = release.authority()
    assert "ca.key" in made
    release.helm(*INSTALL, "--set", "logLevel=DEBUG")
    assert release.authority() == made
    release.helm("uninstall", "operator", "--no-hooks")
    assert release.authority() == made
    release.helm(*INSTALL)
    assert release.authority() == made


def test_service_account_has_the_least_rights(release: Release) -> None:
    release.helm(*INSTALL)
    for verb, resource in (("watch", "tradingbots"), ("patch", "tradingbots/status"), ("create", "secrets")):
        assert release.may(verb, resource), (verb, resource)
    for verb in ("get", "list", "watch", "update", "patch", "delete"):
        assert not release.may(verb, "secrets"), verb
    for verb, resource in (
        ("create", "tradingbots"), ("delete", "tradingbots"), ("update", "tradingbots"), ("get", "leases"),
        ("patch", "pods"), ("create", "pods/exec"), ("delete", "persistentvolumeclaims"), ("create", "clusterroles"),
    ):  # fmt: skip
        assert not release.may(verb, resource), (verb, resource)


# All that is optional, but for the roles of people, which are the whole cluster's.
OPTIONAL = (
    "prometheusRule.enabled=true", "prometheusRule.configMap=true", "podMonitor.enabled=true",
    "dashboards.enabled=true", "networkPolicy.enabled=true", "paperExchange.enabled=true",
    "allowedImages.enabled=true", "allowedImages.prefixes={tradingbot/}",
)  # fmt: skip


def monitoring_kind(kind: str) -> dict[str, Any]:
    """A kind of the Prometheus Operator, to be stored as it comes."""
    group, plural = "monitoring.coreos.com", f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    spec = {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural}, "versions": [version]}
    metadata = {"name": f"{plural}.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


@pytest.fixture
def running(cluster: LocalCluster, namespace: str) -> Iterator[Release]:
    """Two operators at work, for one namespace, with all that is optional."""
    built = build(("operator", "paper-exchange"), os.environ, Progress.begin("images"))
    cluster.load([image.archive for image in built])
    cluster.kubectl(*APPLY, "-f", str(chart.CHART / "crds"))
    kinds = [monitoring_kind(kind) for kind in ("PodMonitor", "PrometheusRule")]
    cluster.kubectl(*APPLY, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds}))
    cluster.kubectl("wait", "--for=condition=Established", *(f"crd/{kind['metadata']['name']}" for kind in kinds))
    made = Release(cluster, namespace)
    options = [part for option in (f"watchNamespaces={{{namespace}}}", *OPTIONAL) for part in ("--set", option)]
    made.helm(*INSTALL, *options, "--wait", "--timeout", "90s")
    yield made
    cluster.kubectl("delete", "tradingbots", "--all", "--namespace", namespace, "--wait=false")
    cluster.kubectl("wait", "tradingbots", "--all", "--for=delete", "--namespace", namespace, "--timeout=60s")
    made.helm("uninstall", "operator", "--ignore-not-found", "--no-hooks")


def test_all_that_is_optional_is_installed_tried_upgraded_rolled_back_and_removed_beside_a_bot(
    running: Release,
) -> None:
    kubectl, here = running.cluster.kubectl, ("--namespace", running.namespace)

    def operators() -> str:
        path = "jsonpath={.status.readyReplicas} {.spec.template.spec.containers[0].args}"
        return kubectl("get", "deployment/operator-tradingbot-operator", *here, "-o", path)

    def pod() -> str:
        return kubectl("get", "pod/btcusdt", *here, "-o", "jsonpath={.metadata.uid}")

    tested = running.tries("test", "operator", "--timeout", "100s")
    assert tested.returncode == 0, tested.stderr
    assert "the operator works" in tested.stdout + tested.stderr
    example = (chart.ROOT / "examples/btcusdt.yaml").read_text(encoding="utf-8")
    kubectl("apply", *here, "-f", "-", stdin=example)
    kubectl("wait", "pod/btcusdt", *here, "--for=create", "--timeout=30s")
    before = pod()

    # As docs/upgrade.md says.
    kubectl(*APPLY, "-f", str(chart.CHART / "crds"))
    upgrade = ("upgrade", "operator", str(chart.CHART), "--reset-then-reuse-values")
    running.helm(*upgrade, "--set", "logLevel=DEBUG", "--wait", "--timeout", "90s")
    assert operators().startswith("2 ")
    assert "--log-level=DEBUG" in operators()

    refused = running.tries("uninstall", "operator")
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "1 TradingBot would be left without an operator" in said
    assert f"{running.namespace}/btcusdt" in said
    # The operator was not touched, and the release can be used further as it is told.
    assert operators().startswith("2 ")
    hint = next(line for line in said.replace("\\n", "\n").splitlines() if line.startswith("To go on"))
    running.helm(*hint.strip('"').split("helm ")[1].split())
    running.helm("rollback", "operator", "1", "--wait", "--timeout", "90s")
    assert operators().startswith("2 ")
    assert "--log-level=INFO" in operators()
    assert pod() == before, "neither upgrade nor rollback disturbs a bot"

    kubectl("delete", "tradingbot/btcusdt", *here, "--timeout=60s")
    running.helm("uninstall", "operator")
    assert "tradingbots.tradingbot.dev" in kubectl("get", "crd", "-o", "name")
    assert kubectl("get", "jobs", *here, "-o", "name") == ""
    left = ("deployments,services,configmaps,networkpolicies,roles,podmonitors,prometheusrules",)
    managed = ("--selector", "app.kubernetes.io/managed-by=Helm", "-o", "name")
    assert kubectl("get", *left, *here, *managed) == ""
    policies = kubectl("get", "validatingadmissionpolicies", *managed)
    assert running.namespace not in policies
