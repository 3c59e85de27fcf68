"""Strategies of one's own: found in folders and packages, and never able to take the bot down."""

from __future__ import annotations

import importlib
from pathlib import Path
from textwrap import dedent

import pytest

from tradingbot.__main__ import main
from tradingbot.engine import strategies
from tradingbot.engine.strategies import BUILT_IN, StrategyParametersError, build_strategy
from tradingbot.engine.strategies.catalogue import ENTRY_POINTS, Catalogue
from tradingbot.engine.strategies.ema_cross import EmaCross

GOOD = """
    from tradingbot.strategy import Candle, Signal, Strategy

    class BuyTheDip(Strategy):
        name = "buy-the-dip"
        warmup = 1

        def on_candle(self, candle: Candle) -> Signal:
            return Signal.ENTER if candle.close < candle.open else Signal.NONE

        def describe(self) -> str:
            return ""
"""


@pytest.fixture
def catalogue() -> Catalogue:
    return Catalogue(BUILT_IN)


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(dedent(text))
    return folder


def test_a_module_of_ones_own_is_found_by_the_strategies_that_it_defines(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.add_modules(write(tmp_path, dip=GOOD))
    assert catalogue.problems == []
    assert catalogue.strategies["buy-the-dip"].source == "module dip.py"
    assert set(catalogue.strategies) == {"buy-the-dip", *(kind.name for kind in BUILT_IN)}


def test_a_folder_that_is_absent_has_no_strategies(catalogue: Catalogue, tmp_path: Path) -> None:
    catalogue.add_modules(tmp_path / "nowhere")
    assert catalogue.problems == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("def (", "module own.py: cannot be loaded: SyntaxError", id="syntax"),
        pytest.param("import nowhere_to_be_found", "cannot be loaded: ModuleNotFoundError", id="import"),
        pytest.param("raise SystemExit(3)", "cannot be loaded: SystemExit: 3", id="exit"),
        pytest.param("x = 1", "defines no strategy", id="empty"),
        pytest.param(GOOD.replace("buy-the-dip", "ema-cross"), "'ema-cross' is that of a strategy", id="taken-name"),
        pytest.param(GOOD.replace('name = "buy-the-dip"', "pass"), "BuyTheDip: it lacks a name", id="no-name"),
        pytest.param(
            GOOD.replace("warmup = 1", "Parameters = dict; warmup = 1"), "expected a pydantic model", id="parameters"
        ),
    ],
)
def test_a_module_that_cannot_be_used_is_told_and_takes_no_other_with_it(
    catalogue: Catalogue, tmp_path: Path, text: str, words: str
) -> None:
    catalogue.add_modules(write(tmp_path, own=text, zebra=GOOD.replace("buy-the-dip", "zebra")))
    assert [words in problem for problem in catalogue.problems] == [True]
    assert "zebra" in catalogue.strategies
    assert catalogue.strategies["ema-cross"].kind is EmaCross


def test_a_strategy_whose_warmup_is_no_number_is_refused_before_it_is_used(
    catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.add_modules(write(tmp_path, own=GOOD.replace("warmup = 1", 'warmup = "26"')))
    monkeypatch.setattr(strategies, "CATALOGUE", catalogue)
    with pytest.raises(StrategyParametersError, match="warmup: expected a number of candles, got '26'"):
        build_strategy("buy-the-dip", {})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package: a folder on the path, with its metadata."""
    (tmp_path / "dips.py").write_text(dedent(GOOD))
    info = tmp_path / "dips-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dips\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\ndip = dips:BuyTheDip\nnone = dips:Nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.usefixtures("package")
def test_a_package_offers_strategies_by_entry_points(catalogue: Catalogue) -> None:
    catalogue.add_packages()
    assert catalogue.strategies["buy-the-dip"].source == "package dips 1.2"
    assert ["package dips 1.2: dips:Nothing cannot be loaded" in problem for problem in catalogue.problems] == [True]


def test_strategies_lists_what_is_there_and_what_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(BUILT_IN)
    for module in ("__main__", "commands.check"):
        monkeypatch.setattr(f"tradingbot.{module}.CATALOGUE", catalogue)
    folder = write(tmp_path, dip=GOOD, broken="def (")
    assert main(["strategies", "--strategies-dir", str(folder)]) == 1
    told = capsys.readouterr()
    assert "buy-the-dip" in told.out
    assert "donchian" in told.out
    assert "cannot be used: module broken.py" in told.err
