"""Helm installs, upgrades and removes the operator, and what must outlive that does."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from local_kubernetes.local import LocalCluster

from support import chart

# What is the whole cluster's can be of one release only, and tests run side by side.
INSTALL = ("upgrade", "--install", "operator", str(chart.CHART), "--set", "people.enabled=false")


@dataclass(frozen=True)
class Release:
    """A release of the chart in a namespace of its own."""

    cluster: LocalCluster
    namespace: str

    def helm(self, *words: str) -> str:
        """Runs helm; what it printed."""
        command = [str(self.cluster.binaries() / "helm"), "--kubeconfig", str(self.cluster.kubeconfig())]
        command += ["--namespace", self.namespace, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
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
    made.helm("uninstall", "operator", "--ignore-not-found")
    api_cluster.kubectl("delete", "namespace", made.namespace, "--wait=false")


def test_authority_is_kept_over_upgrade_uninstall_and_install(release: Release) -> None:
    notes = release.helm(*INSTALL)
    assert "serves TradingBots in all namespaces" in notes
    made = release.authority()
    assert "ca.key" in made
    release.helm(*INSTALL, "--set", "logLevel=DEBUG")
    assert release.authority() == made
    release.helm("uninstall", "operator")
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
