"""A real API server takes valid manifests and refuses each invalid one with a message that names field and rule."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from local_kubernetes.local import LocalCluster

from support.manifests import Case, cases

ROOT = Path(__file__).resolve().parents[2]
Kubectl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def kubectl(api_cluster: LocalCluster) -> Kubectl:
    """kubectl on an API server that has the CRD; its exit code and its words are what is tested."""
    program, config = api_cluster.binaries() / "kubectl", api_cluster.kubeconfig()

    def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [program, "--kubeconfig", config, *words]
        return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=60)

    applied = run("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    assert applied.returncode == 0, applied.stderr
    established = run("wait", "crd", "--all", "--for=condition=Established", "--timeout=30s")
    assert established.returncode == 0, established.stderr
    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace of this module's own."""
    name = f"admission-{uuid.uuid4().hex[:8]}"
    assert kubectl("create", "namespace", name).returncode == 0
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def apply(kubectl: Kubectl, namespace: str, manifest: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`kubectl apply` as a user types it."""
    return kubectl("apply", "--namespace", namespace, "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("case", cases("accepted"), ids=str)
def test_valid_manifest_is_taken(kubectl: Kubectl, namespace: str, case: Case) -> None:
    for manifest in filter(None, (case.manifest, case.update)):
        done = apply(kubectl, namespace, manifest)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("case", cases("refused"), ids=str)
def test_invalid_manifest_is_refused_with_field_and_rule(kubectl: Kubectl, namespace: str, case: Case) -> None:
    done = apply(kubectl, namespace, case.manifest)
    if case.update is not None:
        assert done.returncode == 0, done.stderr
        done = apply(kubectl, namespace, case.update)
    assert done.returncode != 0, done.stdout
    assert case.field in done.stderr
    assert case.message in done.stderr


def test_examples_are_taken(kubectl: Kubectl, namespace: str) -> None:
    done = kubectl("apply", "--namespace", namespace, "--dry-run=server", "-f", str(ROOT / "examples"))
    assert done.returncode == 0, done.stderr


def test_defaults_are_filled_in_and_safe_mode_has_none(kubectl: Kubectl, namespace: str) -> None:
    (base,) = (case for case in cases("accepted") if case.id == "the-base")
    manifest = base.manifest | {"metadata": {"name": "defaults"}}
    assert apply(kubectl, namespace, manifest).returncode == 0
    stored = json.loads(kubectl("get", "tb", "defaults", "--namespace", namespace, "-o", "json").stdout)["spec"]
    assert stored["circuitBreaker"] == {"failureThreshold": 5, "recoveryTimeoutSeconds": 300}
    assert stored["entry"]["maxSlippageRatio"] == "0.001"
    assert stored["deletionPolicy"] == "Hold"
    assert "safeMode" not in stored


def test_an_emergency_patch_survives_an_apply_of_the_manifest(kubectl: Kubectl, namespace: str) -> None:
    (base,) = (case for case in cases("accepted") if case.id == "the-base")
    manifest = base.manifest | {"metadata": {"name": "emergency"}}
    assert apply(kubectl, namespace, manifest).returncode == 0
    patch = ("--type", "merge", "-p", '{"spec":{"safeMode":true}}')
    assert kubectl("patch", "tradingbot", "emergency", "--namespace", namespace, *patch).returncode == 0
    assert apply(kubectl, namespace, manifest).returncode == 0
    path = ("-o", "jsonpath={.spec.safeMode}")
    assert kubectl("get", "tb", "emergency", "--namespace", namespace, *path).stdout == "true"


@pytest.mark.parametrize("kind", ["KillSwitch", "ClusterKillSwitch"])
def test_a_kill_switch_is_not_made_released_and_what_was_released_stays_so(
    kubectl: Kubectl, namespace: str, kind: str
) -> None:
    spec: dict[str, Any] = {"selector": {"matchLabels": {"namespace": namespace}}, "reason": "test"}
    manifest = {"apiVersion": "tradingbot.dev/v1alpha1", "kind": kind, "metadata": {"name": namespace}, "spec": spec}
    released = manifest | {"spec": {**spec, "release": True}}
    refused = apply(kubectl, namespace, released)
    assert refused.returncode != 0
    assert "spec.release" in refused.stderr
    assert "cannot be made released" in refused.stderr
    try:
        for good in (manifest | {"spec": {**spec, "release": False}}, released):
            done = apply(kubectl, namespace, good)
            assert done.returncode == 0, done.stderr
        for again in (manifest, manifest | {"spec": {**spec, "release": False}}):
            undone = apply(kubectl, namespace, again)
            assert "what was released stays released" in undone.stderr
    finally:
        kubectl("delete", kind, namespace, "--namespace", namespace, "--wait=false")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        pytest.param("tradingbot.spec", "What the user wants.", id="spec"),
        pytest.param("tradingbot.spec.risk.maxDailyLoss", "at which entries stop until the next day", id="limit"),
        pytest.param("tb.spec.safeMode", "Absent means false", id="safe-mode-by-short-name"),
        pytest.param("tradingbot.status.safeMode.acknowledged", "working, in flight or unknown", id="status"),
    ],
)
def test_kubectl_explain_is_the_manual(kubectl: Kubectl, path: str, words: str) -> None:
    done = kubectl("explain", path)
    assert done.returncode == 0, done.stderr
    assert words in " ".join(done.stdout.split())


def test_every_field_that_kubectl_explain_shows_has_a_description(kubectl: Kubectl) -> None:
    # What `kubectl explain` reads.
    document = json.loads(kubectl("get", "--raw", "/openapi/v3/apis/tradingbot.dev/v1alpha1").stdout)
    schema = document["components"]["schemas"]["dev.tradingbot.v1alpha1.TradingBot"]

    def silent(node: dict[str, Any], path: str) -> Iterator[str]:
        for name, child in node.get("properties", {}).items():
            if not child.get("description"):
                yield f"{path}.{name}"
            yield from silent(child, f"{path}.{name}")
        for key in ("items", "additionalProperties"):
            if isinstance(node.get(key), dict):
                yield from silent(node[key], f"{path}[]")

    assert len(schema["properties"]["spec"]["properties"]) >= 10
    assert [*silent(schema["properties"]["spec"], "spec"), *silent(schema["properties"]["status"], "status")] == []


def test_columns_of_kubectl_get(kubectl: Kubectl, namespace: str) -> None:
    (base,) = (case for case in cases("accepted") if case.id == "the-base")
    assert apply(kubectl, namespace, base.manifest | {"metadata": {"name": "columns"}}).returncode == 0
    heading = kubectl("get", "tradingbots", "--namespace", namespace).stdout.splitlines()[0].split()
    assert heading == ["NAME", "SYMBOL", "PHASE", "SAFE", "CIRCUIT", "SYNCED", "POSITION", "PNL", "AGE"]
