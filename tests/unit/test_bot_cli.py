"""Promises of the bot's command line: what it refuses, and how it says so."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from tradingbot.__main__ import main
from tradingbot.commands.shared import log_json

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["run"], "expected exactly one of FILE, --config FILE and --paper", id="nothing"),
        pytest.param(["run", "x.yaml", "--paper"], "expected exactly one of", id="two"),
        pytest.param(["run", "nowhere.yaml"], "nowhere.yaml: (file): cannot be read", id="no-file"),
        pytest.param(["run", str(EXAMPLES / "btcusdt.yaml")], "--credentials-dir: expected a directory", id="no-keys"),
        pytest.param(["check", "nowhere.yaml"], "nowhere.yaml", id="check"),
    ],
)
def test_bad_input_names_the_option_or_field_and_ends_with_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("name", ["btcusdt", "ethusdt", "bnbusdt", "testnet"])
def test_every_example_can_be_used(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(EXAMPLES / f"{name}.yaml")]) == 0
    assert "can be used" in capsys.readouterr().out.replace("\n", " ")


def test_the_example_of_a_strategy_of_ones_own_can_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    own = EXAMPLES / "own-strategy"
    assert main(["check", str(own / "dip.yaml"), "--strategies-dir", str(own / "dip_strategies")]) == 0
    assert "buy-the-dip" in capsys.readouterr().out


def test_a_wrong_strategy_parameter_is_named_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (EXAMPLES / "btcusdt.yaml").read_text().replace("fast: 12", "fast: 40")
    assert "fast: 40" in text
    file = tmp_path / "bot.yaml"
    file.write_text(text)
    assert main(["check", str(file)]) == 2
    assert "spec.strategy.parameters: fast must be less than slow, got fast=40 and slow=26" in capsys.readouterr().err


def test_the_strategies_are_listed_with_their_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["strategies"]) == 0
    out = capsys.readouterr().out
    assert "ema-cross" in out
    assert "slow" in out


def test_a_log_that_cannot_be_written_is_lost_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with suppress(OSError), open("/dev/full", "w", encoding="utf-8", buffering=1) as full:  # closing it fails too
        monkeypatch.setattr(sys, "stderr", full)
        log_json()
        structlog.get_logger("x").error("lost")
        os.dup2(2, full.fileno())  # there is room again
        structlog.get_logger("x").error("kept")
    assert '"event": "kept"' in capfd.readouterr().err
