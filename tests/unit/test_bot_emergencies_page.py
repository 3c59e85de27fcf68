"""The page of emergencies names tests that there are, and its rows are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tradingbot.recovery import safe_mode
from tradingbot_api.conditions import ConditionType, Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/emergencies.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| Emergency |")
]
TESTS = {
    name
    for path in ROOT.glob("tests/*/test_*.py")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_every_emergency_says_what_happens_and_which_test_shows_it(row: list[str]) -> None:
    emergency, does, _within, _told, shown = row
    assert emergency
    assert does
    names = set(re.findall(r"`(\w+)`", shown))
    assert names
    assert names <= TESTS, names - TESTS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:30])
def test_what_is_told_of_an_emergency_exists(row: list[str]) -> None:
    told = row[3]
    alerts = re.findall(r"^\| (\w+) \|", (ROOT / "docs/alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    words = {"True", "False", "Unknown", *ConditionType, *Reason, *alerts}
    assert set(re.findall(r"[A-Z]\w+", told)) <= words
    causes = {value.id for value in vars(safe_mode).values() if isinstance(value, safe_mode.CauseKind)}
    assert set(re.findall(r"cause `([\w-]+)`", told)) <= causes
