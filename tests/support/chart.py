"""The Helm chart as it is rendered, for the tests that read it."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/tradingbot-operator"
RELEASE = "tradingbot-operator"
NAMESPACE = "tradingbot-system"


class ChartError(Exception):
    """Helm refused; the text is what it said."""


@functools.cache
def tool(name: str) -> str:
    """The command `helm` or `kubectl`: built once per machine, or with CLUSTER=kind or existing that of the PATH."""
    done = subprocess.run([ROOT / "dev/cluster/cluster", "bin"], check=True, stdout=subprocess.PIPE, text=True)
    folder = done.stdout.strip()
    return str(Path(folder) / name) if folder else name


def render(*options: str, prometheus_operator: bool = True) -> list[dict[str, Any]]:
    """All objects of the chart with these options of `helm template`; ChartError where Helm refuses.

    `prometheus_operator`: whether the cluster has its CRDs.
    """
    found = ("--api-versions", "monitoring.coreos.com/v1") if prometheus_operator else ()
    done = subprocess.run(
        [tool("helm"), "template", RELEASE, CHART, "--namespace", NAMESPACE, *found, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChartError(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def one(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    """The only object of a kind (and name)."""
    (found,) = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


def of_its_own(document: dict[str, Any], suffix: str, namespace: str) -> dict[str, Any]:
    """An object of the whole cluster under a name of the test's own, in force in one namespace only."""
    document["metadata"]["name"] += suffix
    if "policyName" in document.get("spec", {}):
        document["spec"]["policyName"] += suffix
        selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
        document["spec"]["matchResources"] = {"namespaceSelector": selector}
    return document
