"""Replay against a whole bot on the paper exchange over the same recording; and on several processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import structlog
import yaml

from paper_exchange.core.units import to_units
from paper_exchange.market import open_market
from paper_exchange.market.candles import CandleBook
from support.recordings import MINUTE_MS, START_MS, manifest, random_recording, replay_settings, write_archive
from tradingbot.__main__ import main
from tradingbot.lab.candle_exchange import FillModel
from tradingbot.lab.paper import DEPOSIT, drop_log
from tradingbot.lab.recording import Recording, read_recordings
from tradingbot.lab.replay import Why, replay
from tradingbot.lab.sim import SimRun, simulate
from tradingbot.model import Side

pytestmark = pytest.mark.integration

MINUTES = 16
SEED = 3


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(processors=[drop_log])
    yield
    structlog.reset_defaults()


def with_history(folder: Path) -> tuple[Recording, int]:
    """The archive's candles after the minutes that the exchange has before them, and where the archive begins."""
    archive = read_recordings([folder])["BTCUSDT"]
    before = open_market(f"archive:{folder}", ["BTCUSDT"], SEED, START_MS).history("BTCUSDT")
    whole = Recording("BTCUSDT", MINUTE_MS)
    for candle in CandleBook("BTCUSDT", before).candles("1m", START_MS - 1, limit=1000):
        prices = (candle.open, candle.high, candle.low, candle.close, candle.volume)
        whole.add([candle.open_time_ms, *map(to_units, prices), candle.trades, to_units(candle.taker_base)])
    first = len(whole)
    for name in ("open_ms", "open", "high", "low", "close", "volume", "trades", "taker_base"):
        getattr(whole, name).extend(getattr(archive, name))
    return whole, first


def test_each_fill_is_that_of_a_whole_bot_on_the_paper_exchange_to_the_last_decimal(tmp_path: Path) -> None:
    settings = replay_settings(
        "ema-cross",
        parameters={"fast": 1, "slow": 2},
        protection={"stopLossRatio": "0.002", "takeProfitRatio": "0.003"},
        capital=DEPOSIT,
        entry={"maxDataAgeSeconds": 120},  # the recorded book may stand still for so long
    )
    write_archive(random_recording(4, MINUTES + 2), tmp_path)
    run = SimRun("BTCUSDT", timedelta(minutes=MINUTES), f"archive:{tmp_path}", SEED, settings=settings)
    end_ms = START_MS + MINUTES * MINUTE_MS
    trades = [row for row in simulate(run, lambda _: None).account["trades"] if row["time"] < end_ms]
    recording, first = with_history(tmp_path)
    outcome = replay(recording, settings, FillModel(), first=first)
    replayed = [one.fill for one in outcome.fills if one.fill.time_ms < end_ms]
    names = ("price", "qty", "commission")
    real = [(*(Decimal(row[name]) for name in names), row["commissionAsset"], row["isBuyer"]) for row in trades]
    mine = [(one.price, one.quantity, one.commission, one.commission_asset, one.side is Side.BUY) for one in replayed]
    assert mine == real
    assert {one.why for one in outcome.fills} == {Why.ENTRY, Why.SIGNAL, Why.STOP_LOSS, Why.TAKE_PROFIT}
    assert all(abs(row["time"] - one.time_ms) < 100 for row, one in zip(trades, replayed, strict=True))


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    write_archive(random_recording(5, 200), tmp_path)
    bot = tmp_path / "bot.yaml"
    bot.write_text(yaml.safe_dump(manifest(replay_settings())))
    reports = []
    for workers in ("1", "2"):
        told, page = tmp_path / f"{workers}.json", tmp_path / f"{workers}.html"
        options = ["--set", "entry=4..8", "--set", "exit=2,3", "--workers", workers]
        assert (
            main(["replay", str(bot), "--candles", str(tmp_path), *options, "--json", str(told), "--html", str(page)])
            == 0
        )
        reports.append((told.read_bytes(), page.read_bytes()))
    assert len(json.loads(reports[0][0])["runs"]) == 10
    assert reports[0] == reports[1]
