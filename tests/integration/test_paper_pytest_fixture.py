"""A stranger's project: installs the wheel into an environment of its own, and its tests trade."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import hashlib, hmac, json, time, urllib.error, urllib.request
from decimal import Decimal

import pytest


def place(exchange, account, **order):
    order |= {"timestamp": int(time.time() * 1000), "recvWindow": 60000}
    query = "&".join(f"{name}={value}" for name, value in order.items())
    signature = hmac.new(account.secret_key.encode(), query.encode(), hashlib.sha256).hexdigest()
    request = urllib.request.Request(
        f"{exchange.base_url}/api/v3/order?{query}&signature={signature}",
        headers={"X-MBX-APIKEY": account.api_key},
        method="POST",
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_my_program_buys(paper_exchange, paper_account):
    order = place(paper_exchange, paper_account, symbol="ETHUSDT", side="BUY", type="MARKET", quantity="0.5")
    assert order["status"] == "FILLED"
    held = paper_exchange.account(paper_account.uid)["balances"]["ETH"]["free"]
    assert Decimal(held) == Decimal("0.4995")


def test_my_resting_order_fills_when_the_market_comes(paper_exchange, paper_account):
    price = paper_exchange.last_price("ETHUSDT") - 100
    order = place(
        paper_exchange, paper_account, symbol="ETHUSDT", side="BUY", type="LIMIT", timeInForce="GTC",
        quantity="0.5", price=price,
    )
    assert order["status"] == "NEW"
    paper_exchange.push_trade("ETHUSDT", price)
    assert paper_exchange.account(paper_account.uid)["openOrders"] == []


def test_each_test_has_money_of_its_own(paper_exchange, paper_account):
    assert paper_exchange.account(paper_account.uid)["balances"]["USDT"]["free"] == "10000.00000000"


def test_my_program_meets_faults(paper_exchange, paper_account):
    paper_exchange.start_fault("order_refused", accounts=paper_account.uid, count=1)
    order = {"symbol": "ETHUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.5"}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        place(paper_exchange, paper_account, **order)
    assert place(paper_exchange, paper_account, **order)["status"] == "FILLED"
    assert paper_exchange.fault_record()[-1]["kind"] == "order_refused"
    paper_exchange.begin_scenario("ban")
    with pytest.raises(urllib.error.HTTPError, match="429"):
        place(paper_exchange, paper_account, **order)
    paper_exchange.clear_faults()
"""


def test_the_wheel_gives_a_strangers_tests_an_exchange(tmp_path: Path) -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the PATH, as it is for `make test`")
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "test_my_program.py").write_text(TESTS)
    (stranger / "pytest.ini").write_text("[pytest]\npaper_exchange_symbols = ETHUSDT\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "VIRTUAL_ENV"))}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, cwd=stranger, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path / "dist", ROOT / "paper-exchange")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    run(uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(uv, "pip", "install", "--quiet", "--python", python, f"paper-exchange[pytest] @ {wheel.as_uri()}")
    assert "4 passed" in run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
