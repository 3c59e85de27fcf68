"""The campaign of mutations: each small change of the rooms that must not fail, and whether a unit test sees it.

It works on a copy, in which the bot's package and the tests of one room lie as mutants.py expects them. A change that
no test sees is a hole in the tests, or has no effect that a promise speaks of: then mutation-judged.toml says why.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from book import ROOT

ROOMS = ("risk", "orders", "state", "recovery")
APART = tuple(
    f"orders/{part}.py"
    for part in (
        "account_check",
        "audit",
        "context",
        "entries",
        "exits",
        "known_orders",
        "manager",
        "own_fills",
        "protection_repair",
        "protection_watch",
        "sender",
    )
)
"""Their tests need sockets: a run of them for each mutant takes days."""
JUDGED = Path(__file__).with_name("mutation-judged.toml")
_READ = ("docs", "examples")
"""What tests read of the repository."""
_OTHERS = ("test_bot_desk.py", "test_bot_emergencies_page.py", "test_bot_flight.py")
"""They are about other rooms, the tests of other tiers, and the code, which is another one here."""
_CHEAP = """

# One failure of a test is enough here, as it is found, and few examples are tried for each of many changes.
from hypothesis import Phase

import tradingbot.state.store

tradingbot.state.store.ANSWER_SECONDS = 60.0  # a machine that is busy with mutants is no silent disk
settings.register_profile(
    "mutants", settings.get_profile("repeatable"), max_examples=5, phases=(Phase.explicit, Phase.generate)
)
settings.load_profile("mutants")
"""


class Change(NamedTuple):
    """What a mutant is, whatever its number."""

    file: str
    """Below the bot's package."""
    was: str
    now: str


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for, by rooms (`--cases recovery,state`); red where a change is neither seen nor judged."""
    rooms = options.cases.split(",") if options.cases else list(ROOMS)
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tradingbot/mutation"
    judged = _judged()
    not_judged = 0
    for room in rooms:
        stage = base / room
        files = _stage(stage, room)
        run = subprocess.run([sys.executable, ROOT / "dev/campaigns/mutants.py", *files], cwd=stage, check=False)
        if run.returncode:
            return run.returncode
        mutants = json.loads((stage / "mutants.json").read_text(encoding="utf-8"))
        print(f"{room}: {len(mutants)} mutants: {dict(Counter(mutant['result'] for mutant in mutants))}")
        unseen = set()
        for mutant in mutants:
            if mutant["result"] in {"killed", "timeout"}:
                continue
            file = str(Path(mutant["file"]).relative_to("src/tradingbot"))
            unseen.add(change := Change(file, mutant["was"], mutant["now"]))
            if change not in judged:
                not_judged += 1
                print(f"{mutant['name']}: {mutant['result']}\n  was: {change.was}\n  now: {change.now}")
        for change in sorted(judged - unseen):
            if change.file.startswith(f"{room}/"):
                print(f"judged, but seen or gone: {change}")
    print(f"survivors not judged: {not_judged}")
    return int(not_judged > 0)


def _judged() -> set[Change]:
    """What was looked at: by file, and reason by reason, the changes `[was, now]` that it is true of."""
    files = tomllib.loads(JUDGED.read_text(encoding="utf-8"))
    return {
        Change(file, was, now) for file, groups in files.items() for group in groups for was, now in group["changes"]
    }


def _stage(stage: Path, room: str) -> list[str]:
    """Make the copy; returns the files of the room in it."""
    for name in ("src", "tests"):
        shutil.rmtree(stage / name, ignore_errors=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bot/src", stage / "src", ignore=no_caches)
    shutil.copytree(ROOT / "tests/support", stage / "tests/support", ignore=no_caches)
    (stage / "tests/unit").mkdir()
    common = (ROOT / "tests/conftest.py").read_text(encoding="utf-8")
    (stage / "tests/conftest.py").write_text(common + _CHEAP, encoding="utf-8")
    for test in (ROOT / "tests/unit").glob("test_bot_*.py"):
        if test.name not in _OTHERS and f"tradingbot.{room}" in test.read_text(encoding="utf-8"):
            shutil.copy(test, stage / "tests/unit")
    for name in _READ:
        shutil.copytree(ROOT / name, stage / name, dirs_exist_ok=True)
    files = sorted((stage / "src/tradingbot" / room).glob("*.py"))
    return [str(file.relative_to(stage)) for file in files if f"{room}/{file.name}" not in APART]
