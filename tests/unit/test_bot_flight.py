"""The flight recorder: what was decided comes out again, of each file alone, and of no file anything else is run."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import pickle
import zlib
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from support.symbol_rules import btcusdt_rules
from tradingbot.engine.strategies import CATALOGUE, build_strategy
from tradingbot.engine.strategies.base import Signal, Strategy
from tradingbot.engine.strategies.catalogue import Offered
from tradingbot.engine.trading_loop import TradingLoop
from tradingbot.lab.flight_replay import FlightInvalidError, read_flight, replay_flight
from tradingbot.model import BookTicker, Candle
from tradingbot.monitoring import flight_recorder
from tradingbot.monitoring.flight_recorder import PATTERN, FlightRecorder
from tradingbot.recorded import recorded_methods
from tradingbot.risk.drawdown import DrawdownTracker
from tradingbot.risk.risk_manager import Funds, RiskManager
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot_api.v1alpha1 import BotSettings

BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAX_AGE_MS = 5_000
SETTINGS = BotSettings.model_validate(
    {
        "symbol": "BTCUSDT",
        "exchange": {"environment": "Testnet", "credentialsSecretRef": {"name": "keys"}},
        "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 2, "slow": 4}},
        "capital": "1000",
        "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
    }
)


def files(folder: Path) -> list[Path]:
    """The recordings there, oldest first."""
    return sorted(folder.glob(PATTERN))


class Flight:
    """A bot's decisions on a random market, recorded."""

    def __init__(self, folder: Path, strategy: Strategy | None = None, segment_bytes: int = 1 << 20) -> None:
        self.now = BEGUN
        self.recorder = FlightRecorder(folder, {"version": "1"}, lambda: self.now, segment_bytes)
        self.folder = folder
        self.risk = RiskManager(SETTINGS, DrawdownTracker(), VolatilityTracker())
        self.recorder.watch("risk", self.risk, ("drawdown", "volatility"))
        self.loop = TradingLoop(strategy or build_strategy("ema-cross", {"fast": 2, "slow": 4}))
        self.recorder.watch("loop", self.loop)
        self.rng = Random(7)
        self.price = Decimal(50_000)
        self.holding = False
        self.loop.backfill([self.candle()])

    def candle(self) -> Candle:
        """Of the minute that ends now."""
        now_ms = round(self.now.timestamp() * 1000)
        return Candle(
            symbol="BTCUSDT",
            interval="1m",
            open_ms=now_ms - 60_000,
            close_ms=now_ms - 1,
            open=self.price,
            high=self.price,
            low=self.price,
            close=self.price,
            volume=Decimal(1),
            trades=1,
            closed=True,
        )

    def minute(self) -> None:
        """A candle, and what follows."""
        self.now += timedelta(minutes=1)
        self.price *= Decimal(str(round(self.rng.uniform(0.99, 1.01), 6)))
        now_ms, steady = round(self.now.timestamp() * 1000), self.now.timestamp() / 7
        candle = self.candle()
        book = BookTicker("BTCUSDT", self.price, Decimal(1), self.price + 1, Decimal(1), received=steady)
        decision = self.loop.on_candle(candle, now_ms=now_ms, max_age_ms=MAX_AGE_MS, holding=self.holding)
        self.loop.on_tick(book, now_ms=now_ms, age_ms=0, max_age_ms=MAX_AGE_MS, holding=self.holding)
        # Ten times as volatile, so that the size is sometimes halved.
        self.risk.volatility.update_prices(float(one) ** 10 for one in (candle.close,))
        self.risk.adjust_risk_parameters()
        if not self.risk.drawdown.day_known:
            self.risk.drawdown.open_day(self.now, self.price / 50, self.price / 50, Decimal(1000))
        self.risk.update_equity(self.price / 50, self.now)
        self.risk.should_pause_trading(self.now, steady)
        if type(decision).__name__ == "Enter":
            self.risk.check_market_conditions(book, steady)
            self.risk.calculate_position_size(
                btcusdt_rules(), book.ask, Funds(Decimal(900), Decimal(0), self.price / 50, Decimal(0), Decimal(0))
            )
            self.risk.record_entry(steady)
            self.recorder.note("entry", price=book.ask)
            self.holding = True
        elif type(decision).__name__ == "Exit":
            self.holding = False

    async def fly(self, minutes: int = 200, end: bool = True) -> list[Path]:
        """Its files."""
        for _ in range(minutes):
            self.minute()
            await self.recorder.flush()
        await self.recorder.flush(end=end)
        return files(self.folder)


def changed(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> Path:
    """A copy with other lines."""
    copy = path.with_name("changed.gz")
    zip_ = zlib.compressobj(wbits=31)
    copy.write_bytes(zip_.compress(b"".join(line + b"\n" for line in change(list(read_flight(path))))) + zip_.flush())
    return copy


async def test_every_decision_comes_out_again_byte_for_byte(tmp_path: Path) -> None:
    (path,) = await Flight(tmp_path).fly()
    report = replay_flight(path)
    assert report.exact
    recorded = [
        json.loads(line)[3]
        for line in read_flight(path)
        if line.startswith((b'["loop","on_candle"', b'["loop","on_tick"'))
    ]
    assert [line.encode() for line in report.decisions] == [line.encode() for line in recorded]
    assert len(recorded) == 400
    assert {line.partition("(")[0] for line in recorded} == {"Enter", "Exit", "Stay"}
    assert report.calls["risk.calculate_position_size"] > 3
    assert report.calls["risk.volatility.update_prices"] == 200


async def test_each_file_of_a_long_flight_is_replayed_alone(tmp_path: Path) -> None:
    paths = await Flight(tmp_path, segment_bytes=4_000).fly()
    assert len(paths) > 3
    reports = [replay_flight(path) for path in paths]
    assert all(report.exact for report in reports)
    assert sum(report.calls["loop.on_candle"] for report in reports) == 200
    for path in paths:
        gzip.decompress(path.read_bytes())  # it has its end


async def test_a_strategy_that_is_made_anew_takes_the_place_of_the_former(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    former = flight.loop
    for _ in range(30):
        flight.minute()
    flight.loop = TradingLoop(build_strategy("ema-cross", {"fast": 3, "slow": 9}))
    flight.recorder.watch("loop", flight.loop)
    for _ in range(30):
        flight.minute()
        former.missed(holding=True)  # by who has it still
    (path,) = await flight.fly(30)
    report = replay_flight(path)
    assert report.exact
    assert report.calls["loop.missed"] == 0


async def test_a_bot_that_starts_again_and_again_keeps_its_last_flights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flight_recorder, "MOST_FILES", 5)
    for number in range(8):
        recorder = FlightRecorder(tmp_path, {}, partial(datetime.__add__, BEGUN, timedelta(hours=number)))
        await recorder.flush(end=True)
    assert [path.name[7:22] for path in files(tmp_path)] == [f"20260301T{hour}0000" for hour in range(15, 20)]


@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        pytest.param(b'["loop","on_candle"', b'"close":"', b'"close":"1', id="a-close"),
        pytest.param(b'["risk","calculate_position_size"', b'"min_quantity":"', b'"min_quantity":"9', id="a-filter"),
        pytest.param(b'["risk","calculate_position_size"', b"(quantity=", b"(quantity=0+", id="an-outcome"),
    ],
)
async def test_an_input_that_was_another_or_an_outcome_that_was_not_is_found(
    tmp_path: Path, kind: bytes, old: bytes, new: bytes
) -> None:
    (path,) = await Flight(tmp_path).fly(100)
    copy = changed(path, lambda lines: [line.replace(old, new) if line.startswith(kind) else line for line in lines])
    report = replay_flight(copy)
    assert not report.exact
    assert kind == b'["%b","%b"' % tuple(report.differences[0].call.encode().split(b"."))


async def test_a_flight_that_was_cut_off_is_replayed_as_far_as_it_was_written(tmp_path: Path) -> None:
    (path,) = await Flight(tmp_path).fly(end=False)
    path.write_bytes(path.read_bytes()[:-100])
    report = replay_flight(path)
    assert report.exact
    assert report.calls["loop.on_candle"] > 150


class Unwritable(Strategy):
    """Holds what cannot be written down."""

    name = "unwritable"
    warmup = 0

    def __init__(self) -> None:
        super().__init__(None)
        self.held = lambda: None

    def on_candle(self, candle: Candle) -> Signal:
        return Signal.NONE

    def describe(self) -> str:
        return ""


async def test_a_strategy_that_cannot_be_written_down_is_said_to_be_unknown_and_the_rest_replayed(
    tmp_path: Path,
) -> None:
    (path,) = await Flight(tmp_path, Unwritable()).fly(10)
    report = replay_flight(path)
    assert "loop: " in report.unknown[0]
    assert not report.differences
    assert set(report.calls) == {
        f"risk.{name}"
        for name in (
            "adjust_risk_parameters",
            "drawdown.open_day",
            "should_pause_trading",
            "update_equity",
            "volatility.update_prices",
        )
    }


class Own(Strategy):
    """Somebody's own."""

    name = "own"
    warmup = 0

    def on_candle(self, candle: Candle) -> Signal:
        return Signal.ENTER

    def describe(self) -> str:
        return ""


async def test_strategies_of_ones_own_are_replayed_where_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = await Flight(tmp_path, Own(None)).fly(10)
    assert "is of no strategy that is known here" in replay_flight(path).unknown[0]
    monkeypatch.setitem(CATALOGUE.strategies, "own", Offered(Own, "test"))
    report = replay_flight(path)
    assert report.exact
    assert report.decisions[0].startswith("Enter(")


class Hoarder(Own):
    """Keeps all it ever saw, and says what is no text."""

    name = "hoarder"

    def __init__(self) -> None:
        super().__init__(None)
        self.seen = bytes(flight_recorder.STATE_BYTES)

    def describe(self) -> str:
        return "\ud800"


async def test_no_strategy_spoils_the_recording_or_is_spoilt_by_it(tmp_path: Path) -> None:
    flight = Flight(tmp_path, Hoarder())
    flight.recorder.note("odd", text="\ud800", thing=object())
    (path,) = await flight.fly(10)
    assert path.stat().st_size < 20_000
    report = replay_flight(path)
    assert "1048576 are kept" in report.unknown[0]
    assert not report.differences
    assert flight.loop.failure is None
    assert flight.holding


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/evil"),))


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(pickle.dumps(Evil()), id="pathlib"),
        pytest.param(b"cos\nsystem\n(S'true'\ntR.", id="os"),
        pytest.param(b"\x80\x04\x8c\x18tradingbot.risk.drawdown\x8c\x05_fall\x93.", id="a-function"),
        pytest.param(b"\x80\x04\x8c\x18tradingbot.risk.drawdown\x8c\x07Decimal\x93.", id="imported-there"),
    ],
)
async def test_a_file_runs_nothing_but_what_decides(tmp_path: Path, state: bytes) -> None:
    (path,) = await Flight(tmp_path).fly(1)
    line = json.dumps({"object": "loop", "state": b64encode(state).decode()}).encode()
    report = replay_flight(changed(path, lambda lines: [*lines, line]))
    assert len(report.unknown) == 1
    assert not report.exact


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b'["risk","level",["1"],""]', "no recorded method 'level'", id="reads-only"),
        pytest.param(b'["risk","__init__",[],""]', "no recorded method '__init__'", id="not-recorded"),
        pytest.param(b'["nobody","on_candle",[],""]', "KeyError: 'nobody'", id="unknown-object"),
        pytest.param(b'["risk","record_entry",["soon"],""]', "valid number", id="argument"),
        pytest.param(b"{", "line", id="no-json"),
    ],
)
async def test_a_line_that_cannot_be_is_named(tmp_path: Path, line: bytes, words: str) -> None:
    (path,) = await Flight(tmp_path).fly(1)
    with pytest.raises(FlightInvalidError, match=words):
        replay_flight(changed(path, lambda lines: [*lines, line]))


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for content in (b"", b"nothing", zlib.compress(b'{"flight": 99}\n')):
        path.write_bytes(content)
        with pytest.raises(FlightInvalidError, match=str(path)):
            replay_flight(path)


async def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_recorder, "LIMIT_BYTES", 20_000)
    monkeypatch.setattr(flight_recorder, "SEGMENT_BYTES", 4_000)
    flight = Flight(tmp_path, segment_bytes=4_000)
    most = 0
    for _ in range(20):
        paths = await flight.fly(50, end=False)
        most = max(most, sum(path.stat().st_size for path in paths))
    assert 10_000 < most < 22_000
    assert not (tmp_path / "flight-20260301T120000-0001.jsonl.gz").exists()
    assert replay_flight(paths[-2]).exact


async def test_a_full_disk_costs_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flight = Flight(tmp_path)
    await flight.fly(20, end=False)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        flight.minute()
        assert not await flight.recorder.flush()
        assert not files(tmp_path)  # the books have the room
    monkeypatch.setattr(flight_recorder, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(flight_recorder, "FLUSH_SECONDS", 0.0)
    running = asyncio.create_task(flight.recorder.run())
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", full)
        await asyncio.sleep(0.05)
    while not files(tmp_path):
        flight.minute()
        await asyncio.sleep(0.01)
    running.cancel()
    (path,) = files(tmp_path)
    assert replay_flight(path).exact


def test_all_that_changes_or_decides_is_recorded() -> None:
    reads_only = {
        RiskManager: {"level", "to_json"},
        TradingLoop: {"describe", "ready"},
        DrawdownTracker: {"daily_loss", "day_known", "drawdown"},
        VolatilityTracker: {"calculate_volatility", "is_high_volatility"},
    }
    for kind, names in reads_only.items():
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public - names == set(recorded_methods(kind))


def test_without_a_recorder_nothing_stands_between() -> None:
    loop = TradingLoop(build_strategy("ema-cross", {}))
    assert loop.on_candle.__func__ is TradingLoop.on_candle  # type: ignore[attr-defined]


def test_the_command_shows_what_came_of_each_file_and_ends_with_1_where_anything_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tradingbot.__main__ import main

    (path,) = asyncio.run(Flight(tmp_path).fly(30))
    assert main(["replay-flight", str(tmp_path)]) == 0
    assert "no differences" in capsys.readouterr().out
    other = changed(path, lambda lines: [line.replace(b"warming up: 2 of", b"warming up: 3 of") for line in lines])
    assert main(["replay-flight", str(other)]) == 1
    assert "now Stay(reason='warming up: 2 of" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["replay-flight", str(tmp_path / "empty")]) == 2
    assert "it has none" in capsys.readouterr().err
    assert main(["replay-flight", str(tmp_path / "nothing.gz")]) == 2
    assert "nothing.gz" in capsys.readouterr().err
