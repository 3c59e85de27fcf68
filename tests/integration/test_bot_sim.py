"""A whole bot and a whole exchange on virtual time: minutes in seconds, the same each time, and the books balance."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import structlog

from paper_exchange.journal import replay
from tradingbot.__main__ import main
from tradingbot.lab.paper import drop_log
from tradingbot.lab.sim import SimReport, SimRun, simulate

pytestmark = pytest.mark.integration

MINUTES = 3


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    structlog.configure(processors=[drop_log])
    yield
    structlog.reset_defaults()


@pytest.fixture
def sim(tmp_path: Path) -> Callable[..., tuple[SimReport, bytes]]:
    """Simulates some minutes; what came of it, and the journal."""

    def run(name: str, seed: int) -> tuple[SimReport, bytes]:
        journal = tmp_path / name
        report = simulate(SimRun("BTCUSDT", timedelta(minutes=MINUTES), seed=seed, journal=journal), lambda _: None)
        assert not replay(journal, lambda _: None).difference
        return report, journal.read_bytes()

    return run


def test_the_same_seed_gives_the_same_orders_byte_for_byte(sim: Callable[..., tuple[SimReport, bytes]]) -> None:
    (first, one), (second, same), (_, other) = sim("one", 7), sim("same", 7), sim("other", 8)
    assert b'"place_list"' in one
    assert one == same
    assert first.events == second.events
    assert one != other


def test_a_simulated_bot_trades_and_its_books_equal_the_exchanges(
    sim: Callable[..., tuple[SimReport, bytes]],
) -> None:
    report, _ = sim("books", 7)
    assert report.simulated >= timedelta(minutes=MINUTES)
    assert report.events["EntryFilled"] >= 2
    status, held = report.status, report.account["balances"]
    assert status is not None
    assert status.position is not None
    owned = {asset: Decimal(row["free"]) + Decimal(row["locked"]) for asset, row in held.items()}
    trades = report.account["trades"]
    bought = sum(Decimal(row["qty"]) * (1 if row["isBuyer"] else -1) for row in trades)
    fees = sum(Decimal(row["commission"]) for row in trades if row["commissionAsset"] == "BTC")
    assert status.position.quantity == owned["BTC"] == bought - fees
    # With this seed it ends in a position, which stays protected when the bot leaves.
    assert status.position.quantity > Decimal("0.001")
    assert {row["type"] for row in report.account["openOrders"]} == {"STOP_LOSS", "LIMIT_MAKER"}


def test_the_command_line_simulates_and_names_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    assert main(["sim", "--hours", "0.01", "--journal", str(journal)]) == 0
    assert "0:00:36" in capsys.readouterr().out
    assert journal.stat().st_size > 10_000
    assert main(["sim", "--symbol", "NOPE"]) == 2
    assert "got NOPE" in capsys.readouterr().err
    assert main(["sim", "--market", "live"]) == 2
    assert "--market" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sim", "--hours", "0"])
