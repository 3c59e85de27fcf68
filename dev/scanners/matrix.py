"""What is scanned: the chart by a matrix of values, what the operator makes of the example bots, and the examples."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from tradingbot_api.v1alpha1 import TradingBotSpec
from tradingbot_operator import desired

ROOT: Final = Path(__file__).resolve().parents[2]
CHART: Final = ROOT / "charts/tradingbot-operator"
RELEASE: Final = "tradingbot-operator"
NAMESPACES: Final = ("trading", "trading-too")
"""Of bots: the first bot is in the second."""
DIGEST: Final = "sha256:" + "0" * 64
VALUES: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "all-parts": {
        "image": {"digest": DIGEST},
        "botImage": {"digest": DIGEST},
        "allowedImages": {"enabled": True, "prefixes": ["tradingbot/bot"], "digest": True, "allPodsIn": ["desk"]},
        "paperExchange": {"enabled": True, "namespace": NAMESPACES[0], "image": {"digest": DIGEST}},
        "networkPolicy": {"enabled": True, "namespaces": list(NAMESPACES), "paperExchange": True},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {
            "enabled": True,
            "configMap": True,
            "exclude": ["DailyLossNear"],
            "alertLabels": {"team": "a"},
        },
        "dashboards": {"enabled": True},
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{"name": "registry"}],
        "serviceAccount": {"annotations": {"example.com/role": "operator"}},
        "extraArgs": ["--workers=16"],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    },
    "roles-only": {
        "watchNamespaces": list(NAMESPACES),
        "claimsNamespace": "claims",
        "people": {"enabled": False},
        "networkPolicy": {"enabled": True},
    },
    "one-replica": {
        "replicas": 1,
        "uninstallGuard": {"enabled": False},
        "installCheck": {"enabled": False},
        "scrapeAnnotations": {"enabled": False},
        "caSecretName": "mine",
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "mine"},
    },
    "prometheus-operator": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "plain-prometheus": {"prometheusRule": {"configMap": True}},
}
"""Values by the name of the case."""
WITH_PROMETHEUS_OPERATOR: Final = {"all-parts", "prometheus-operator"}
"""Cases of a cluster that has its CRDs."""


def write(helm: Path, folder: Path) -> list[Path]:
    """A file of manifests each case in a folder; with each case of the chart the objects of the bots that it serves.

    Raises CalledProcessError where Helm refuses; it has said why.
    """
    found = sorted((ROOT / "examples").rglob("*.yaml"))
    examples = [path for path in found if all("kind" in one for one in documents(path))]  # not what Prometheus reads
    bots = [bot for path in examples for bot in documents(path) if bot["kind"] == "TradingBot"]
    files = []
    for case, values in VALUES.items():
        crds = ["--api-versions=monitoring.coreos.com/v1"] if case in WITH_PROMETHEUS_OPERATOR else []
        rendered = subprocess.run(
            [helm, "template", RELEASE, CHART, "--namespace=tradingbot-system", "--values=-", *crds],
            input=json.dumps(values), stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        files.append(folder / f"{case}.yaml")
        made = _of_bots(bots, rendered)
        files[-1].write_text(f"{rendered}\n---\n{yaml.safe_dump_all(made)}", encoding="utf-8")
    for path in examples:
        files.append(folder / f"example-{path.name}")
        files[-1].write_bytes(path.read_bytes())
    return files


def documents(path: Path) -> list[dict[str, Any]]:
    """The objects of a file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def _of_bots(bots: list[dict[str, Any]], rendered: str) -> list[dict[str, Any]]:
    """What the operator of a rendered chart makes of TradingBots, but for their certificates."""
    (deployment,) = (
        one
        for one in yaml.safe_load_all(rendered)
        if one and one["kind"] == "Deployment" and one["metadata"]["name"] == RELEASE
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (image,) = (word.removeprefix("--bot-image=") for word in container["args"] if word.startswith("--bot-image="))
    scraped = "--scrape-annotations" in container["args"]
    made = []
    for number, bot in enumerate(bots):
        spec = TradingBotSpec.model_validate(bot["spec"])
        place = NAMESPACES[number == 0]
        identity = desired.Identity(place, bot["metadata"]["name"], "5d1e0e6c-0000-4000-8000-000000000000")
        made += [
            desired.config_map(identity, desired.bot_config(identity, desired.settings_of(spec), 1)),
            desired.pod(identity, spec, image, "IfNotPresent", scraped=scraped),
        ]
        if volume := desired.volume_claim(identity, spec):
            made.append(volume)
    return made
