"""The page of emergencies names tests that there are, and its rows are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tradingbot.recovery import safe_mode
from tradingbot_api.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/emergencies.md").read_text(encoding="utf-8")


def rows(part: str) -> list[list[str]]:
    """Cells of the tables in a part of the page, without their heads."""
    lines = re.findall(r"^\| (?!Emergency|Failure)(.*) \|$", part, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines]


EMERGENCIES, REPORTED = map(rows, PAGE.split("## What is reported of other bots"))
TESTS = {
    name
    for path in ROOT.glob("tests/*/test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("row", EMERGENCIES + REPORTED, ids=lambda row: row[0][:30])
def test_every_emergency_says_what_happens_and_which_test_shows_it(row: list[str]) -> None:
    emergency, does, *_, shown = row
    assert emergency
    assert does
    names = set(re.findall(r"`(\w+)`", shown))
    assert names
    assert names <= TESTS, names - TESTS


def test_each_of_the_eleven_reported_failures_has_its_row() -> None:
    assert len(REPORTED) == 11


@pytest.mark.parametrize("row", EMERGENCIES, ids=lambda row: row[0][:30])
def test_what_is_told_of_an_emergency_exists(row: list[str]) -> None:
    _emergency, _does, _within, told, _shown = row
    alerts = re.findall(r"^\| \[(\w+)\]\(", (ROOT / "docs/alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = {"True", "False", "Unknown", *ConditionType, *Reason, *alerts}
    assert set(re.findall(r"[A-Z]\w+", told)) <= words
    causes = {value.id for value in vars(safe_mode).values() if isinstance(value, safe_mode.CauseKind)}
    assert set(re.findall(r"cause `([\w-]+)`", told)) <= causes
