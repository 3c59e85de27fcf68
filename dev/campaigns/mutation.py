"""The campaign of mutations: each small change of the rooms that must not fail, and whether a unit test sees it.

mutmut works on a copy, in which the bot's package and the tests of one room lie as it expects them. A change that no
test sees is a hole in the tests, or has no effect that a promise speaks of: then mutation-judged.toml says why.
"""

from __future__ import annotations

import argparse
import contextlib
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
_OTHERS = ("test_bot_emergencies_page.py",)
"""They look at the tests of other tiers."""
_KILLED = 1
_SEEN = ("killed", "timeout", "segfault")
_CONFIGURATION = """\
[tool.mutmut]
source_paths = ["src"]
only_mutate = ["src/tradingbot/{room}/*.py"]
do_not_mutate = [{apart}]
also_copy = ["tests", {read}]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:unraisableexception"]
pytest_add_cli_args_test_selection = ["tests/unit"]
use_setproctitle = false

[tool.pytest.ini_options]
asyncio_mode = "auto"
pythonpath = ["tests"]
addopts = "--import-mode=importlib"
"""
_CHEAP = """

# One failure of a test is enough here, and a process that lives for a mutant collects no garbage.
import gc

from hypothesis import Phase

gc.disable()
settings.register_profile("mutants", settings.get_profile("repeatable"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("mutants")
"""


class Change(NamedTuple):
    """A mutant by what it is: its number moves with each edit of the function."""

    file: str
    """Below the bot's package."""
    was: str
    now: str


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for, by rooms (`--cases recovery,state`); red where a change is neither seen nor judged."""
    rooms = options.cases.split(",") if options.cases else list(ROOMS)
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tradingbot/mutation"
    judged = _judged()
    open_changes = 0
    for room in rooms:
        stage = base / room
        _stage(stage, room)
        mutmut = [sys.executable, "-m", "mutmut"]
        run = subprocess.run([*mutmut, "run", "--max-children", str(options.parallel)], cwd=stage, check=False)
        if run.returncode:
            return run.returncode
        told = subprocess.run(
            [*mutmut, "results", "--all", "true"], cwd=stage, check=True, capture_output=True, text=True
        )
        results = dict(line.strip().rsplit(": ", 1) for line in told.stdout.splitlines() if ": " in line)
        survivors = {name: _change(stage, name) for name, result in results.items() if result not in _SEEN}
        print(f"{room}: {len(results)} mutants: {dict(Counter(results.values()))}")
        for name, change in survivors.items():
            if change not in judged:
                open_changes += 1
                print(f"{name}: {results[name]}, in {change.file}\n  was: {change.was}\n  now: {change.now}")
        for change in judged - set(survivors.values()):
            if change.file.startswith(f"{room}/"):
                print(f"judged, but seen or gone: {change}")
    print(f"survivors not judged: {open_changes}")
    return int(open_changes > 0)


def _judged() -> set[Change]:
    """What was looked at: by file, and reason by reason, the changes `[was, now]` that it is true of."""
    files = tomllib.loads(JUDGED.read_text(encoding="utf-8"))
    return {
        Change(file, was, now) for file, groups in files.items() for group in groups for was, now in group["changes"]
    }


def _change(stage: Path, name: str) -> Change:
    with contextlib.chdir(stage):  # where mutmut looks for its configuration, as soon as it is imported
        from mutmut.mutation.diff_apply import find_mutant, get_diff_for_mutant

        path = find_mutant(name).path
        lines = get_diff_for_mutant(name, path=path).splitlines()[3:]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Change(str(Path(path).relative_to("src/tradingbot")), was, now)


def _stage(stage: Path, room: str) -> None:
    """The copy. That a mutant was killed is kept while its function stays as it is; the others are tried again."""
    for name in ("src", "tests", "mutants/tests"):
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
    apart = ", ".join(f'"src/tradingbot/{name}"' for name in APART)
    read = ", ".join(f'"{name}"' for name in _READ)
    text = _CONFIGURATION.format(room=room, apart=apart, read=read)
    (stage / "pyproject.toml").write_text(text, encoding="utf-8")
    (stage / "mutants/mutmut-stats.json").unlink(missing_ok=True)
    for meta in (stage / "mutants").rglob("*.meta"):
        data = json.loads(meta.read_text(encoding="utf-8"))
        data["exit_code_by_key"] = {
            name: code if code == _KILLED else None for name, code in data["exit_code_by_key"].items()
        }
        meta.write_text(json.dumps(data), encoding="utf-8")
