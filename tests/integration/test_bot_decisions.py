"""What a bot decides on, on virtual time: ticks between candles, and candles whose close the stream does not bring."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
import structlog

from paper_exchange.testing import PaperExchange, TestAccount
from support.emergency import PRICE, Emergency, run_emergency
from tradingbot.app import BotApp
from tradingbot.engine.strategies import CATALOGUE
from tradingbot.engine.strategies.catalogue import Catalogue
from tradingbot.lab import sim as sim_module
from tradingbot.lab.paper import drop_log, paper_settings
from tradingbot.lab.sim import SimRun, simulate
from tradingbot.monitoring.metrics import Missed
from tradingbot_api.v1alpha1 import BotSettings

pytestmark = pytest.mark.integration
OWN = Path(__file__).resolve().parents[2] / "examples/own-strategy/dip_strategies"
MINUTES = 5
LATE_SECONDS = 5.0
"""`entry.maxDataAgeSeconds` as it is by default."""


def sample(app: BotApp, name: str, **labels: str) -> float:
    return app.metrics.registry.get_sample_value(f"tradingbot_{name}", {"symbol": "BTCUSDT", **labels}) or 0.0


@pytest.fixture
def own_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Catalogue(())
    own.add_modules(OWN)
    assert not own.problems
    for name, offered in own.strategies.items():
        monkeypatch.setitem(CATALOGUE.strategies, name, offered)


@pytest.mark.usefixtures("own_strategies")
def test_a_strategy_of_ticks_trades_in_the_middle_of_a_candle() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        await asyncio.sleep(5)
        world.move(PRICE * 0.95)
        assert await world.until("a position", lambda: world.held > 0) < 1
        await world.until("its stop", world.stops)
        await asyncio.sleep(2)
        world.move(PRICE * 1.05)
        assert await world.until("no position", lambda: world.flat) < 1
        assert world.loop.time() < 30  # no candle of a minute has closed
        await world.at_peace()

    world = run_emergency(
        befall,
        strategy={"name": "catch-the-dip", "interval": "1m", "parameters": {"period": 2, "depth": "0.02"}},
        entry={"maxSpreadRatio": "0.01", "maxSlippageRatio": "0.01"},
    )
    assert world.unprotected == 0


@pytest.mark.usefixtures("own_strategies")
def test_a_close_that_the_stream_does_not_bring_is_asked_for_and_traded_on_in_time() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        world.fault("drop_events", streams="*@kline_1m", **{"for": 600})
        loop = world.session.runner.loop
        assert loop is not None
        before = loop.seen
        await asyncio.sleep(55 - world.loop.time())
        world.move(PRICE * 0.95)
        await world.until("a position", lambda: world.held > 0)
        assert 60 < world.loop.time() < 60 + LATE_SECONDS
        assert world.session.runner.loop is loop
        assert loop.seen == before + 1
        assert sample(world.app, "candles_missed_total", how=Missed.NO_CLOSE.value) == 1

    run_emergency(
        befall,
        strategy={"name": "buy-the-dip", "interval": "1m", "parameters": {"period": 3, "depth": "0.02"}},
        entry={"maxSpreadRatio": "0.01", "maxSlippageRatio": "0.01"},
    )


def test_an_exchange_that_does_not_answer_for_a_close_is_asked_ever_more_rarely_and_the_strategy_goes_on() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        loop = world.session.runner.loop
        assert loop is not None
        before = loop.seen
        await asyncio.sleep(55 - world.loop.time())
        world.fault("drop_events", streams="*@kline_1m", **{"for": 600})
        world.fault("error", endpoints="GET /api/v3/klines", **{"for": 20})
        await world.until("the close", lambda: loop.seen > before)
        assert 75 < world.loop.time() < 90
        assert world.session.runner.loop is loop
        asked = [row for row in await world.exchange.fault_record() if "klines" in row.get("endpoint", "")]
        assert 2 <= len(asked) <= 3

    run_emergency(befall)


def write_archive(folder: Path, minutes: int) -> int:
    """The first minutes of the recorded candles as Binance's archive; how many of them have no trade."""
    data = os.environ.get("TRADINGBOT_TEST_DATA")
    source = Path(data or "") / "market/klines/BTCUSDC_1m_20230301_20230321.csv.gz"
    if not data or not source.exists():
        pytest.skip("TRADINGBOT_TEST_DATA has no recorded candles")
    empty, lines = 0, []
    with gzip.open(source, "rt") as file:
        for row in islice(csv.DictReader(file), minutes):
            opened = round(datetime.fromisoformat(row["open_time"]).timestamp() * 1000)
            prices = ",".join(row[name] for name in ("open", "high", "low", "close"))
            traded = float(row["volume"]) > 0
            empty += not traded
            figures = f"{row['volume']},{opened + 59_999},0,{int(traded)},{row['volume']},0,0"
            lines.append(f"{opened},{prices},{figures}\n")
    (folder / "BTCUSDT-1m-2023-03-01.csv").write_text("".join(lines))
    return empty


def test_each_minute_of_a_market_with_empty_minutes_is_decided_on_once_and_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = write_archive(tmp_path, MINUTES + 10)
    assert empty >= MINUTES / 2
    apps: list[BotApp] = []
    stop: Callable[[BotApp], None] = BotApp.stop

    def slow(symbol: str, base_url: str) -> BotSettings:
        made = paper_settings(symbol, base_url)
        strategy = {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 1, "slow": 2}}
        return BotSettings.model_validate(made.model_dump() | {"strategy": strategy})

    def stop_and_show(app: BotApp) -> None:
        apps.append(app)
        stop(app)

    async def beside(_exchange: PaperExchange, _account: TestAccount) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(sim_module, "paper_settings", slow)
    monkeypatch.setattr("paper_exchange.market.synthetic.HISTORY_SECONDS", 900)
    monkeypatch.setattr(BotApp, "stop", stop_and_show)
    structlog.configure(processors=[drop_log])
    try:
        simulate(SimRun("BTCUSDT", timedelta(minutes=MINUTES), f"archive:{tmp_path}"), lambda _: None, beside)
    finally:
        structlog.reset_defaults()
    app = apps[0]
    decided = sample(app, "candle_seconds_count")
    assert abs(decided - MINUTES) <= 1
    assert sample(app, "candle_seconds_bucket", le="5.0") == decided
    assert sample(app, "candles_missed_total", how=Missed.NO_CLOSE.value) >= MINUTES / 2
    assert sample(app, "candles_missed_total", how=Missed.LATE.value) == 0
