"""A whole bot and a whole exchange on virtual time: minutes in seconds, the same each time, and the books balance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest
import structlog

from paper_exchange.core.units import to_units
from paper_exchange.journal import replay
from paper_exchange.testing import PaperExchange, TestAccount
from support.waiting import until
from tradingbot.__main__ import main
from tradingbot.app import BotApp
from tradingbot.clocks import Clocks
from tradingbot.desk import Desk
from tradingbot.lab import sim as sim_module
from tradingbot.lab.paper import drop_log
from tradingbot.lab.sim import START, SimReport, SimRun, simulate
from tradingbot.risk.drawdown import DrawdownTracker

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
    assert status.trades is not None
    assert status.trades.win_rate is not None
    assert abs(status.trades.win_rate - Decimal(status.trades.successful) / status.trades.total) < Decimal("0.000001")
    assert Decimal("0.1") < (status.trades.exposure or 0) < 1


def test_status_and_account_are_of_one_moment_before_the_bot_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    pays: list[Callable[[], None]] = []
    stop = BotApp.stop

    async def beside(exchange: PaperExchange, account: TestAccount) -> None:
        assert exchange.server is not None
        venue = exchange.server.venue
        pays.append(lambda: venue.exchange.deposit(account.uid, "USDT", to_units(Decimal(500)), venue.now_ms()))

    def stop_and_pay(app: BotApp) -> None:
        stop(app)
        pays[0]()

    monkeypatch.setattr(BotApp, "stop", stop_and_pay)
    report = simulate(SimRun("BTCUSDT", timedelta(seconds=20)), lambda _: None, beside)
    assert report.status is not None
    assert report.status.balance is not None
    held = report.account["balances"]["USDT"]
    assert Decimal(held["free"]) + Decimal(held["locked"]) == report.status.balance.quote


@pytest.mark.parametrize("hours", [24, -24], ids=["ahead", "behind"])
def test_a_wall_clock_that_jumps_by_a_day_in_position_changes_no_day_and_no_cooldown(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    jump = timedelta(0)
    desks: list[Desk] = []
    stop = BotApp.stop

    def clocks(monotonic: Callable[[], float], utc: Callable[[], datetime], random: Random) -> Clocks:
        return Clocks(monotonic, lambda: utc() + jump, random)

    def stop_and_show(app: BotApp) -> None:
        desks.append(app.desk)
        stop(app)

    async def beside(exchange: PaperExchange, account: TestAccount) -> None:
        nonlocal jump
        await until("a position", lambda: bool(exchange.account_now(account.uid)["openOrderLists"]), 120)
        jump = timedelta(hours=hours)
        await asyncio.sleep(0.5)  # the equity is taken in position
        price = await exchange.last_price("BTCUSDT")
        # Sweeps the book below the stop, which begins the cooldown.
        await exchange.push_trade("BTCUSDT", (price * Decimal("0.9")).quantize(Decimal("0.01")))
        await asyncio.sleep(3600)

    monkeypatch.setattr(sim_module, "Clocks", clocks)
    monkeypatch.setattr(BotApp, "stop", stop_and_show)
    report = simulate(SimRun("BTCUSDT", timedelta(seconds=80)), lambda _: None, beside)
    assert report.events["StopLoss"] == 1
    marks = desks[0].risk.drawdown.marks
    assert marks is not None
    assert marks.day == START.date().isoformat()
    assert marks.day_start == desks[0].settings.capital
    ends = desks[0].risk.to_json()["cooldownUntil"]
    assert ends is not None
    cooldown = timedelta(seconds=desks[0].settings.risk.cooldown_seconds)
    assert START < datetime.fromisoformat(ends) - cooldown < START + timedelta(seconds=80)


def test_where_nobody_saw_midnight_the_day_begins_with_the_equity_of_midnight_by_fills(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where no process ran for a minute and a half; trades are made before and after midnight."""
    midnight, blind, sight = timedelta(seconds=90), timedelta(seconds=20), timedelta(seconds=120)
    update = DrawdownTracker.update
    desks: list[Desk] = []
    price = Decimal(0)

    def watch(tracker: DrawdownTracker, equity: Decimal, capital: Decimal, now: datetime) -> bool:
        if blind <= now - begin < sight:
            return False
        return update(tracker, equity, capital, now)

    def stop_and_show(app: BotApp) -> None:
        desks.append(app.desk)
        stop(app)

    async def beside(exchange: PaperExchange, _account: TestAccount) -> None:
        nonlocal price
        await asyncio.sleep(midnight.total_seconds())
        price = await exchange.last_price("BTCUSDT")
        await asyncio.sleep(3600)

    begin, stop = START - midnight, BotApp.stop
    monkeypatch.setattr(sim_module, "START", begin)
    monkeypatch.setattr(DrawdownTracker, "update", watch)
    monkeypatch.setattr(BotApp, "stop", stop_and_show)
    report = simulate(SimRun("BTCUSDT", timedelta(seconds=140)), lambda _: None, beside)
    desk = desks[0]
    marks = desk.risk.drawdown.marks
    assert marks is not None
    assert (marks.day, marks.day_seen) == (START.date().isoformat(), True)
    cash = held = Decimal(0)
    before = [row for row in report.account["trades"] if row["time"] < START.timestamp() * 1000]
    assert before
    assert before != report.account["trades"]
    for row in before:
        sign, fee = (1 if row["isBuyer"] else -1), Decimal(row["commission"])
        in_base = row["commissionAsset"] == "BTC"
        held += sign * Decimal(row["qty"]) - (fee if in_base else 0)
        cash -= sign * Decimal(row["quoteQty"]) + (0 if in_base else fee)
    worth = desk.settings.capital + cash + held * price * (1 - Decimal("0.001"))
    assert abs(marks.day_start - worth) < Decimal("0.02")


def test_what_runs_beside_a_bot_that_fails_is_ended_and_the_failure_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    async def fail(_app: BotApp) -> None:
        await asyncio.sleep(1)
        raise RuntimeError("the disk is gone")

    async def beside(_exchange: PaperExchange, _account: TestAccount) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    monkeypatch.setattr(BotApp, "run", fail)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        simulate(SimRun("BTCUSDT", timedelta(seconds=20)), lambda _: None, beside)
    assert ended == ["cancelled"]


def test_the_command_line_simulates_and_names_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    assert main(["sim", "--hours", "0.01", "--journal", str(journal)]) == 0
    assert "0:00:36" in capsys.readouterr().out
    assert journal.stat().st_size > 10_000
    assert main(["sim", "--journal", str(journal / "in a file")]) == 2
    assert f"--journal: expected a file that can be written, got {journal / 'in a file'}" in capsys.readouterr().err
    assert main(["sim", "--symbol", "NOPE"]) == 2
    assert "got NOPE" in capsys.readouterr().err
    assert main(["sim", "--market", "live"]) == 2
    assert "--market" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["sim", "--hours", "0"])
