"""`tradingbot replay` takes a manifest and candles, varies fields, reports, and tells what it cannot use."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from paper_exchange.core.symbols import SYMBOLS
from support.recordings import manifest, random_recording, replay_settings, write_archive
from tradingbot.__main__ import main
from tradingbot.lab.replay_grid import GridError, Variation


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A manifest and a folder with candles."""
    folder = tmp_path / "klines"
    folder.mkdir()
    write_archive(random_recording(1, 300), folder)
    bot = tmp_path / "bot.yaml"
    bot.write_text(yaml.safe_dump(manifest(replay_settings())))
    return str(bot), str(folder)


def run(files: tuple[str, str], *options: str) -> int:
    bot, folder = files
    return main(["replay", bot, "--candles", folder, "--workers", "1", *options])


def report(files: tuple[str, str], capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert run(files, "--json", "-", *options) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_one_replay_is_told_with_its_figures_and_trades(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = report(files, capsys)["runs"]
    assert (one["symbol"], one["strategy"], one["candles"]) == ("BTCUSDT", "donchian-breakout", 300)
    assert one["trades"]["total"] == sum(trade["closed"] is not None for trade in one["tradeList"]) > 5
    assert {trade["closedBy"] for trade in one["tradeList"]} >= {"Signal", "StopLoss"}
    assert run(files) == 0
    told = capsys.readouterr().out
    for part in ("profit factor", "largest drawdown", "StopLoss", "candles in", "fills: the paper exchange's core"):
        assert part in told


def test_each_combination_is_replayed_and_the_best_is_shown(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = report(files, capsys, "--set", "entry=4..8:2", "--set", "exit=2,3", "--set", "protection.stopLossRatio=0.01")
    assert [tuple(one["changed"].values())[:2] for one in told["runs"]] == [
        (entry, leave) for entry in ("4", "6", "8") for leave in ("2", "3")
    ]
    assert len({one["pnl"] for one in told["runs"]}) > 3
    (best,) = told["best"]
    assert float(best["pnl"]) == max(float(one["pnl"]) for one in told["runs"])
    assert best["tradeList"]
    # One alone is the same as one of many.
    (alone,) = report(files, capsys, *(f"--set={name}={value}" for name, value in best["changed"].items()))["runs"]
    assert alone == best


def test_a_combination_that_the_strategy_refuses_is_left_out_with_its_reason(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    told = report(files, capsys, "--strategy", "ema-cross", "--set", "fast=5,30", "--set", "slow=10")
    assert [one["changed"] for one in told["runs"]] == [{"fast": "5", "slow": "10"}]
    (left_out,) = told["refused"]
    assert "fast must be less than slow" in left_out["why"]


def test_only_the_candles_between_from_and_to_are_traded(
    files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (one,) = report(files, capsys, "--from", "2025-01-06T01:00", "--to", "2025-01-06T02:00:00+00:00")["runs"]
    assert (one["from"], one["to"]) == ("2025-01-06T01:00:00+00:00", "2025-01-06T02:00:00+00:00")
    assert one["candles"] == 60
    assert all("T01:" in trade["opened"] for trade in one["tradeList"])


def test_the_page_needs_nothing_from_elsewhere(files: tuple[str, str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert run(files, "--html", str(page), "--set", "entry=4,6") == 0
    text = page.read_text()
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href|url)\s*[=(]""", text.replace("default-src", ""))
    assert "http" not in text.replace("http-equiv", "")
    assert text.count("<svg") == 3
    assert text.count('class="buy"') > 5
    assert 'class="sell"' in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--set", "fast"], "--set: expected NAME=VALUE"),
        (["--set", "entry=1..x"], "--set entry: expected FROM..TO[:STEP] of numbers, got '1..x'"),
        (["--set", "entry=8..4"], "--set entry: expected FROM not above TO"),
        (["--set", "entry=1..2:0"], "STEP above 0"),
        (["--set", "entry=1..9999999"], "at most 100000 values"),
        (["--set", "entry=4,,6"], "expected a value between the commas"),
        (["--set", "entry=0"], "spec.strategy.parameters.entry: Input should be greater than or equal to 1, got 0"),
        (["--set", "entrance=4"], "spec.strategy.parameters.entrance: Extra inputs are not permitted"),
        (["--set", "protection.stopLossRatio=2"], "spec.protection.stopLossRatio"),
        (["--set", "capital.much=2"], "spec.capital.much: there is no such field"),
        (["--set", "risk.maxPositionValue=99999"], "risk.maxPositionValue must not exceed capital"),
        (["--set", "strategy.interval=1s"], "spec.strategy.interval: expected whole candles of 1m"),
        (["--set", "strategy.interval=4h"], "spec.strategy.interval: expected at least two whole candles"),
        (["--strategy", "hodl"], "spec.strategy.name: expected one of"),
        (["--symbol", "ETHUSDT"], "--candles: expected candles of ETHUSDT, found BTCUSDT"),
        (["--symbol", "PEPEUSDT"], "--symbol: expected some of"),
        (["--from", "2026-01-01"], "--from, --to: expected at least two candles of BTCUSDT"),
        (["--html", "/nonexistent/report.html"], "/nonexistent/report.html: No such file"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_name(
    files: tuple[str, str], options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(files, *options) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("fast=8..20:4", ("8", "12", "16", "20")),
        ("fast=8..11:2", ("8", "10")),
        ("spec.protection.stopLossRatio=0.01..0.02:0.005", ("0.01", "0.015", "0.02")),
        ("fast=3,5..6,5", ("3", "5", "6")),
        ("oversold=29.5", ("29.5",)),
    ],
)
def test_a_variation_is_a_value_a_list_or_a_range(text: str, values: tuple[str, ...]) -> None:
    assert Variation.parse(text).values == values


def test_a_range_of_what_is_no_number_is_refused() -> None:
    with pytest.raises(GridError):
        Variation.parse("fast=1..Infinity")


def test_a_symbol_of_which_only_the_exchange_tells_is_replayed_with_its_filters(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = SYMBOLS["BTCUSDT"].info("TRADING") | {"symbol": "WBTCUSDT", "baseAsset": "WBTC"}
    lot = next(one for one in row["filters"] if one["filterType"] == "LOT_SIZE")
    lot |= {"stepSize": "0.01000000", "minQty": "0.01000000"}
    info, (_, folder) = tmp_path / "info.json", files
    info.write_text(json.dumps({"symbols": [row]}))
    (Path(folder) / "BTCUSDT-1m-2025-01-06.csv").rename(Path(folder) / "WBTCUSDT-1m-2025-01-06.csv")
    options = ["--symbol", "WBTCUSDT", "--exchange-info", str(info)]
    (one,) = report(files, capsys, *options)["runs"]
    assert len(one["tradeList"]) > 5
    assert {Decimal(trade["bought"]) % Decimal("0.01") for trade in one["tradeList"]} == {0}
    assert run(files, "--symbol", "WBTCUSDT") == 2
    assert "--exchange-info brings the filters of others" in capsys.readouterr().err
    row["filters"].remove(lot)
    info.write_text(json.dumps({"symbols": [row]}))
    assert run(files, *options) == 2
    assert (
        "symbols: expected the answer of GET /api/v3/exchangeInfo, with all filters of each symbol, lacks 'LOT_SIZE'"
        in capsys.readouterr().err
    )


def test_the_fee_may_be_another(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    (usual,), (none,) = (report(files, capsys, *fee)["runs"] for fee in ([], ["--fee", "0"]))
    assert Decimal(usual["fees"]) > 0 == Decimal(none["fees"])
    with pytest.raises(SystemExit):
        run(files, "--fee", "20%")
    assert "--fee: expected 0 to 0.1" in capsys.readouterr().err
