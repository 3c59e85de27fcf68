"""Helm installs, upgrades and removes the operator, and what must outlive that does."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from local_kubernetes.basics import Progress
from local_kubernetes.images import build
from local_kubernetes.local import LocalCluster

from support import chart

# What is the whole cluster's can be of one release only, and tests run side by side.
INSTALL = ("upgrade", "--install", "operator", str(chart.CHART), "--set", "people.enabled=false")


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


@pytest.fixture
def running(cluster: LocalCluster, namespace: str) -> Iterator[Release]:
    """Two operators at work, for one namespace."""
    (image,) = build(("operator",), os.environ, Progress.begin("images"))
    cluster.load([image.archive])
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(chart.CHART / "crds"))
    made = Release(cluster, namespace)
    made.helm(*INSTALL, "--set", f"watchNamespaces={{{namespace}}}", "--wait", "--timeout", "90s")
    yield made
    cluster.kubectl("delete", "tradingbots", "--all", "--namespace", namespace, "--wait=false")
    cluster.kubectl("wait", "tradingbots", "--all", "--for=delete", "--namespace", namespace, "--timeout=60s")
    made.helm("uninstall", "operator", "--ignore-not-found", "--no-hooks")


def test_uninstalling_is_refused_while_a_tradingbot_exists_and_says_what_would_be_left(running: Release) -> None:
    kubectl, here = running.cluster.kubectl, ("--namespace", running.namespace)
    ready = kubectl("get", "deployment", *here, "-o", "jsonpath={.items[*].status.readyReplicas}")
    assert ready == "2"
    kubectl("apply", *here, "-f", str(chart.ROOT / "examples/btcusdt.yaml"))
    kubectl("wait", "tradingbot/btcusdt", *here, "--for=jsonpath={.metadata.finalizers}", "--timeout=30s")
    refused = running.tries("uninstall", "operator")
    assert refused.returncode != 0
    said = refused.stdout + refused.stderr
    assert "1 TradingBot would be left without an operator" in said
    assert f"{running.namespace}/btcusdt" in said
    # The operator was not touched, and the release can be used further as it is told.
    assert kubectl("get", "deployment", *here, "-o", "jsonpath={.items[*].status.readyReplicas}") == "2"
    hint = next(line for line in said.replace("\\n", "\n").splitlines() if line.startswith("To go on"))
    running.helm(*hint.strip('"').split("helm ")[1].split())
    running.helm(*INSTALL, "--reuse-values", "--set", "logLevel=DEBUG")
    kubectl("delete", "tradingbot/btcusdt", *here, "--timeout=60s")
    running.helm("uninstall", "operator")
    assert "tradingbots.tradingbot.dev" in kubectl("get", "crd", "-o", "name")
    assert kubectl("get", "jobs", *here, "-o", "name") == ""
