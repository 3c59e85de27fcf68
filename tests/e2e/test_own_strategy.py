"""Strategies of a stranger trade on a real cluster: from a ConfigMap, and as a package in an image FROM ours."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from demo import ROOT, Demo
from local_kubernetes.basics import Progress
from local_kubernetes.cluster import choose
from local_kubernetes.images import build_from_ours

from support.demo_bots import apply, installed, wait, wait_for

pytestmark = pytest.mark.e2e
OWN = ROOT / "examples/own-strategy"
IMAGE = "mine/bot:1"
TRADE_SECONDS = 240
"""Within so long the generated market has a dip."""


@pytest.fixture(scope="module")
def demo(cluster_environment: dict[str, str]) -> Demo:
    """A namespace of this module, on the cluster of this tier."""
    return installed(cluster_environment, "own-strategy")


def bot(name: str, symbol: str, strategy: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """The example's bot with another symbol and strategy."""
    example = yaml.safe_load((OWN / "dip.yaml").read_text())
    changed = {**example["spec"], "symbol": symbol, "strategy": strategy, **spec}
    return {**example, "metadata": {"name": name}, "spec": changed}


def test_a_strangers_strategies_trade_from_a_config_map_and_from_an_image_built_from_ours(
    demo: Demo, cluster_environment: dict[str, str]
) -> None:
    image = build_from_ours(OWN, IMAGE, cluster_environment, Progress.begin("images"))
    choose(cluster_environment).load([image.archive])
    module = OWN / "dip_strategies/buy_the_dip.py"
    demo.shell.show("kubectl", "create", "configmap", "strategies", f"--from-file={module}")
    example = yaml.safe_load((OWN / "dip.yaml").read_text())["spec"]["strategy"]
    packaged = {key: value for key, value in example.items() if key != "configMapRef"} | {"name": "catch-the-dip"}
    apply(
        demo,
        bot("mounted", "BTCUSDT", example),
        bot("packaged", "ETHUSDT", packaged, pod={"image": IMAGE}),
        # The image that has no such package says so, and what there is.
        bot("without", "BNBUSDT", packaged),
    )
    for name in ("mounted", "packaged"):
        wait_for(demo, name, "TradingAllowed", "True", 120)
    assert "buy-the-dip" not in wait_for(demo, "without", "ConfigApplied", "False UnknownStrategy", 60)
    for name in ("mounted", "packaged"):
        took = wait(
            f"{name} to trade",
            lambda name=name: demo.position(name) > 0 or demo.status(name).get("trades", {}).get("total", 0) > 0,
            TRADE_SECONDS,
            lambda name=name: demo.status(name),
        )
        print(f"{name}: traded {took:.1f} s later", flush=True)
    told = demo.shell.show("kubectl", "exec", "packaged", "--", "env", "COLUMNS=200", "tradingbot", "strategies")
    assert "package dip-strategies 0.1.0" in told
    demo.shell.show("kubectl", "get", "tradingbots", "-o", "wide")
    demo.shell.quiet("kubectl", "delete", "tradingbots", "--all", "--timeout=150s")
    demo.shell.quiet("kubectl", "delete", "namespace", demo.namespace, "--timeout=60s")
