"""The demo, run as a new user runs it, on a cluster of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.e2e


def run_demo(market: str, report: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Runs the demo to its end; its own checks make it fail; gives the figures that it reports."""
    done = subprocess.run(
        [sys.executable, "dev/demo/demo.py", "--market", market, "--report", str(report)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=780,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-6000:]
    figures = dict(json.loads(report.read_text()))
    print(json.dumps(figures, indent=2))
    return figures


def told_of_alerts(figures: dict[str, Any]) -> None:
    """Two faults were told to who should know, with the bot's name, and told as over; no panel was empty."""
    for name, receiver in (("ExchangeBan", "page"), ("CircuitBreakerOpen", "ticket")):
        alert = figures["alerts"][name]
        assert alert["receiver"] == receiver
        assert alert["labels"]["pod"] == "btcusdt"
        assert alert["labels"]["namespace"] == "trading"
        assert alert["labels"]["symbol"] == "BTCUSDT"
        assert 0 < alert["firing"] < alert["resolved"]
    assert figures["dashboards"]["queries"] > 60
    assert figures["dashboards"]["empty"] == []


def test_the_whole_path_on_a_synthetic_market(tmp_path: Path, cluster_environment: dict[str, str]) -> None:
    figures = run_demo("synthetic", tmp_path / "report.json", cluster_environment)
    assert figures["bots"] == ["btcusdt", "ethusdt", "bnbusdt"]
    assert {"safe mode acknowledged", "fault to circuit closed", "pod killed to trading allowed", "deleted"} <= set(
        figures["seconds"]
    )
    told_of_alerts(figures)


def test_btcusdt_on_a_recorded_market(tmp_path: Path, cluster_environment: dict[str, str]) -> None:
    data = os.environ.get("TRADINGBOT_TEST_DATA")
    if not data or not list((Path(data) / "market").glob("btcusdt_*.gz")):
        pytest.skip("TRADINGBOT_TEST_DATA has no recorded market")
    figures = run_demo(f"capture:{data}/market", tmp_path / "report.json", cluster_environment)
    assert figures["bots"] == ["btcusdt"]
    told_of_alerts(figures)
