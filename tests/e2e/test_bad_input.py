"""Bad input on a real cluster: each becomes a condition without a crash loop, and heals without a restart."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from demo import Demo

from support.demo_bots import apply, installed, manifest, patch, wait

pytestmark = pytest.mark.e2e
NAMESPACE = "bad-input"
# A changed Secret reaches a running pod with the kubelet's refresh.
KUBELET_REFRESH_SECONDS = 150


@pytest.fixture(scope="module")
def demo(cluster_environment: dict[str, str]) -> Demo:
    """A namespace of this module, on the cluster of this tier."""
    return installed(cluster_environment, "bad-input")


def secret(name: str, api_key: str, api_secret: str) -> dict[str, Any]:
    """A Secret with exchange keys."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"apiKey": api_key, "apiSecret": api_secret},
    }


def good_keys(demo: Demo) -> tuple[str, str]:
    """The keys that the namespace's Secret holds."""
    data = json.loads(demo.shell.quiet("kubectl", "get", "secret", "binance", "-o", "jsonpath={.data}"))
    return base64.b64decode(data["apiKey"]).decode(), base64.b64decode(data["apiSecret"]).decode()


def restarts(demo: Demo, name: str) -> int:
    """Restarts of a bot's container."""
    text = demo.shell.quiet("kubectl", "get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
    return int(text or 0)


def test_bad_input_is_a_condition_and_heals_without_a_restart(demo: Demo) -> None:
    exchange = {"environment": "Paper", "baseURL": "http://paper-exchange:8080"}
    refs = {name: {"credentialsSecretRef": {"name": name}} for name in ("binance", "wrong-keys", "missing")}
    apply(
        demo,
        secret("wrong-keys", "x" * 64, "y" * 64),
        manifest("unknown-symbol", symbol="NOPEUSDT", exchange={**exchange, **refs["binance"]}),
        manifest("wrong-keys", symbol="BTCUSDT", exchange={**exchange, **refs["wrong-keys"]}),
        manifest("missing-secret", symbol="ETHUSDT", exchange={**exchange, **refs["missing"]}),
        manifest(
            "exchange-down",
            exchange={"environment": "Paper", "baseURL": "http://later:8080", **refs["binance"]},
        ),
        manifest(
            "bad-parameters",
            symbol="ETHUSDT",
            exchange={**exchange, **refs["binance"]},
            strategy={"name": "ema-cross", "interval": "1s", "parameters": {"fast": 30, "slow": "many"}},
        ),
    )
    expected = {
        "unknown-symbol": ("ConfigApplied", "False UnknownSymbol"),
        "wrong-keys": ("BalanceSynced", "False CredentialsRejected"),
        "missing-secret": ("BalanceSynced", "False CredentialsMissing"),
        "exchange-down": ("BalanceSynced", "False ExchangeUnreachable"),
        "bad-parameters": ("ConfigApplied", "False StrategyParametersInvalid"),
    }
    begun = time.monotonic()
    for name, (kind, text) in expected.items():
        wait(
            f"{name}: {kind} {text}",
            lambda name=name, kind=kind, text=text: demo.condition(name, kind).startswith(text),
            60,
            lambda name=name, kind=kind: (demo.condition(name, kind), demo.condition(name, "PodReady")),
        )
        print(f"{name}: {time.monotonic() - begun:.1f} s after apply: {demo.condition(name, kind)}")
    assert "slow" in demo.condition("bad-parameters", "ConfigApplied")
    pods = {
        name: demo.shell.quiet("kubectl", "get", "pod", name, "-o", "jsonpath={.metadata.uid}") for name in expected
    }

    key, word = good_keys(demo)
    later = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "later"},
        "spec": {"selector": {"app.kubernetes.io/name": "paper-exchange"}, "ports": [{"port": 8080}]},
    }
    apply(demo, later, secret("wrong-keys", key, word), secret("missing", key, word))
    patch(demo, "bad-parameters", strategy={"parameters": {"fast": 12, "slow": 26}})
    mended = time.monotonic()
    for name in ("bad-parameters", "exchange-down", "wrong-keys", "missing-secret"):
        kind = expected[name][0]
        wait(
            f"{name} to heal",
            lambda name=name, kind=kind: demo.condition(name, kind).startswith("True"),
            KUBELET_REFRESH_SECONDS,
            lambda name=name, kind=kind: demo.condition(name, kind),
        )
        print(f"{name}: healed {time.monotonic() - mended:.1f} s after it was mended")
    for name, uid in pods.items():
        assert demo.shell.quiet("kubectl", "get", "pod", name, "-o", "jsonpath={.metadata.uid}") == uid
        assert restarts(demo, name) == 0
    demo.shell.show("kubectl", "get", "tradingbots")
    demo.shell.quiet("kubectl", "delete", "tradingbots", "--all", "--timeout=120s")
    demo.shell.quiet("kubectl", "delete", "namespace", NAMESPACE, "--timeout=60s")
