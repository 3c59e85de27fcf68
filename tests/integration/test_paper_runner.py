"""`paper-exchange run`: a bot is driven through a scenario, and what its account went through is reported."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

MANIFEST = """
apiVersion: tradingbot.dev/v1alpha1
kind: TradingBot
metadata: {{name: btcusdt}}
spec:
  symbol: BTCUSDT
  exchange:
    environment: Paper
    baseURL: http://127.0.0.1:{port}
    credentialsSecretRef: {{name: binance}}
  strategy: {{name: ema-cross, interval: 1s, parameters: {{fast: 1, slow: 2}}}}
  capital: "3000"
  protection: {{stopLossRatio: "0.001", takeProfitRatio: "0.002"}}
  risk: {{maxPositionValue: "300", maxDailyLoss: "400", cooldownSeconds: 0}}
"""
SCENARIO = """
description: Answers to orders are lost.
steps:
  - at: 0
    fault: {kind: answer_delay, seconds: 0.05, endpoints: "POST /api/v3/*"}
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paper_exchange", "run", "--symbols=BTCUSDT", "--control-port=0", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_real_bot_is_driven_through_a_scenario_and_its_account_reported(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "bot.yaml").write_text(MANIFEST.format(port=port))
    (tmp_path / "scenario.yaml").write_text(SCENARIO)
    bot = [sys.executable, "-m", "tradingbot", "run", str(tmp_path / "bot.yaml")]
    bot += ["--credentials-dir", "{credentials}", "--state-dir", str(tmp_path / "state")]
    scenario = f"--scenario={tmp_path / 'scenario.yaml'}"
    done = run(f"--port={port}", scenario, "--duration=25", "--deposit=USDT=5000", "--output=json", "--", *bot)
    assert done.returncode == 0, done.stderr[-3000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert report["exit_code"] == 0
    assert report["fills"] >= 1
    assert report["faults"]["answer_delay"] >= 1
    assert report["requests"]["/api/v3/orderList/otoco 200"] >= 1
    assert float(report["equity"]) == pytest.approx(5000 + float(report["profit"]))
    assert report["longest_unprotected"] <= report["unprotected_seconds"] < 5
    secrets = [path.name for path in tmp_path.rglob("apiSecret")]
    assert not secrets


def test_the_command_finds_addresses_and_keys_and_its_exit_code_is_the_runs() -> None:
    looks = 'test -s "$PAPER_EXCHANGE_CREDENTIALS/apiSecret" && echo "$PAPER_EXCHANGE_URL $PAPER_EXCHANGE_WS_URL" {url}'
    done = run("--port=0", "--", "sh", "-c", f"{looks}; exit 7")
    assert done.returncode == 7, done.stderr
    url, ws, filled = done.stdout.splitlines()[0].split()
    assert url == filled == ws.replace("ws", "http", 1)
    assert "command      ended with 7" in done.stdout
    assert "equity       10000.00000000 USDT" in done.stdout


def test_a_command_is_ended_after_the_duration_and_what_was_paid_in_meanwhile_is_no_profit(tmp_path: Path) -> None:
    scenario = tmp_path / "scenario.json"
    scenario.write_text(json.dumps({"steps": [{"at": 0.5, "account": {"deposit": {"USDT": "500"}}}]}))
    done = run("--port=0", "--duration=1", f"--scenario={scenario}", "--", "sleep", "60")
    assert done.returncode != 0
    assert "command      ended with -15" in done.stdout
    assert "equity       10500.00000000 USDT, profit 0.00000000, deepest fall 0.00000000" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--scenario=nosuch", "--", "true"], "--scenario", id="scenario"),
        pytest.param(["--deposit=USDT=much", "--", "true"], "--deposit", id="deposit"),
        pytest.param(["--", "/no/such/command"], "COMMAND", id="command"),
        pytest.param(["--market=nosuch", "--", "true"], "--market", id="market"),
    ],
)
def test_bad_input_names_the_option(arguments: list[str], expected: str) -> None:
    done = run("--port=0", *arguments)
    assert done.returncode == 2
    assert f"argument {expected}:" in done.stderr
