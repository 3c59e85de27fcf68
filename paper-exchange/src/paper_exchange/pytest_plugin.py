"""Fixtures for the tests of any trading program: install `paper-exchange[pytest]`, and ask for `paper_exchange`.

The exchange is a process of its own, so it serves tests with and without an event loop.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from paper_exchange.testing import TestAccount

_SETTINGS: Final = {
    "symbols": ("BTCUSDT,ETHUSDT,BNBUSDT", "symbols that the fixture `paper_exchange` trades"),
    "market": ("synthetic", "its market: synthetic[:MOOD], capture:DIR or archive:DIR"),
    "seed": ("1", "which synthetic market it has"),
}
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ServedExchange:
    """A running paper exchange: where clients find it, and its control port as methods."""

    base_url: str
    """The address of REST, without a path."""
    control_url: str

    @property
    def ws_url(self) -> str:
        """The address of WebSockets, without a path."""
        return self.base_url.replace("http", "ws", 1)

    def create_account(self, **deposits: str | Decimal) -> TestAccount:
        """A new account with a key, for example `create_account(USDT="10000")`."""
        from paper_exchange.testing import TestAccount

        made = self.control("POST", "/control/accounts", deposits=_texts(deposits))
        return TestAccount(made["uid"], made["apiKey"], made["secretKey"])

    def deposit(self, uid: int, **deposits: str | Decimal) -> None:
        """Pay into an account."""
        self.control("POST", f"/control/accounts/{uid}/deposits", deposits=_texts(deposits))

    def change_account(self, uid: int, **settings: Any) -> None:
        """What an account may do and pays, for example `change_account(uid, canTrade=False, tradeGroupId=7)`."""
        self.control("PATCH", f"/control/accounts/{uid}", **settings)

    def account(self, uid: int) -> dict[str, Any]:
        """Balances, open orders, open lists and trades as the exchange has them."""
        return self.control("GET", f"/control/accounts/{uid}")

    def push_trade(self, symbol: str, price: str | Decimal) -> None:
        """An outside trade that sweeps the book to a price: resting orders up to it fill, triggers fire."""
        self.control("POST", "/control/trades", symbol=symbol, price=str(price))

    def set_speed(self, speed: float) -> None:
        """Play the market so many times as fast as real time from now on; 0 stands still."""
        self.control("PATCH", "/control/market", speed=speed)

    def last_price(self, symbol: str) -> Decimal:
        """The price of the last trade."""
        return Decimal(_json(f"{self.base_url}/api/v3/ticker/price?symbol={symbol}")["price"])

    def fail_rest(self, status: int, seconds: float) -> None:
        """Answer every REST call with a status for some seconds; nothing is executed."""
        self.control("POST", "/control/faults", kind="rest_status", status=status, seconds=seconds)

    def start_fault(self, kind: str, **more: Any) -> int:
        """Put a fault in force, for example `start_fault("lost_answer", count=1)`; returns its number."""
        return int(self.control("POST", "/control/faults", kind=kind, **more)["id"])

    def fault_record(self) -> list[dict[str, Any]]:
        """What faults and steps of a scenario did, oldest first."""
        return list(self.control("GET", "/control/faults/record")["rows"])

    def begin_scenario(self, scenario: str | list[dict[str, Any]]) -> None:
        """Begin a shipped scenario by its name, or one of these steps."""
        if isinstance(scenario, str):
            self.control("POST", f"/control/scenario?name={scenario}")
        else:
            self.control("POST", "/control/scenario", steps=scenario)

    def clear_faults(self) -> None:
        """End all faults."""
        self.control("DELETE", "/control/faults")

    def control(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """A call of the control port; ValueError with its reason where it is refused."""
        sent = json.dumps(body).encode() if body else None
        headers = {"Content-Type": "application/json"}
        return _json(urllib.request.Request(self.control_url + path, sent, headers, method=method))  # noqa: S310, ours


def _texts(deposits: dict[str, str | Decimal]) -> dict[str, str]:
    return {asset: str(amount) for asset, amount in deposits.items()}


def _json(request: str | urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310, ours
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        raise ValueError(f"the paper exchange refused: {error.read().decode(errors='replace')}") from None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Settings in the `pytest` section of the project's configuration."""
    for name, (default, told) in _SETTINGS.items():
        parser.addini(f"paper_exchange_{name}", told, default=default)


@pytest.fixture(scope="session")
def paper_exchange(request: pytest.FixtureRequest) -> Iterator[ServedExchange]:
    """A paper exchange for the whole run, on free ports of the loopback, in memory."""
    settings = [f"--{name}={request.config.getini(f'paper_exchange_{name}')}" for name in _SETTINGS]
    command = (sys.executable, "-m", "paper_exchange", "serve", "--port=0", "--control-port=0", *settings)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603, our own
        try:
            assert process.stdout is not None  # noqa: S101, it is a pipe
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the paper exchange ended with {process.wait()}; what it wrote says why")
            listening = json.loads(line)
            yield ServedExchange(listening["baseURL"], listening["controlURL"])
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def paper_account(paper_exchange: ServedExchange) -> TestAccount:
    """An account of the test's own, with 10,000 USDT and 1 BTC."""
    return paper_exchange.create_account(USDT="10000", BTC="1")
