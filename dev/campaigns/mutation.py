"""The campaign of mutations: each small change of the rooms that must not fail, and whether a unit test sees it.

mutmut works on a copy, in which the bot's package and its unit tests lie as it expects them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

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
_READ = ("docs", "examples")
"""What tests read of the repository."""
_CONFIGURATION = """\
[tool.mutmut]
source_paths = ["src"]
only_mutate = [{rooms}]
do_not_mutate = [{apart}]
also_copy = ["tests", {read}]
pytest_add_cli_args = ["-p", "no:cacheprovider", "-p", "no:xdist"]
pytest_add_cli_args_test_selection = ["tests/unit"]
use_setproctitle = false

[tool.pytest.ini_options]
asyncio_mode = "auto"
pythonpath = ["tests"]
addopts = "--import-mode=importlib"
"""


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for, by rooms (`--cases recovery,state`); survivors are shown with their change."""
    rooms = options.cases.split(",") if options.cases else list(ROOMS)
    stage = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tradingbot/mutation"
    _stage(stage, rooms)
    mutmut = [sys.executable, "-m", "mutmut"]
    code = subprocess.run([*mutmut, "run", "--max-children", str(options.parallel)], cwd=stage, check=False).returncode
    if code:
        return code
    told = subprocess.run([*mutmut, "results", "--all", "true"], cwd=stage, check=False, capture_output=True, text=True)
    results = dict(line.strip().rsplit(": ", 1) for line in told.stdout.splitlines() if ": " in line)
    print(f"{len(results)} mutants: {dict(Counter(results.values()))}")
    survivors = [name for name, result in results.items() if result in {"survived", "suspicious", "no tests"}]
    for name in survivors:
        print(f"{name}: {results[name]}")
        subprocess.run([*mutmut, "show", name], cwd=stage, check=False)
    return 0


def _stage(stage: Path, rooms: list[str]) -> None:
    """The copy; what is known of mutants that did not change is kept there."""
    for name in ("src", "tests", "mutants/tests"):
        shutil.rmtree(stage / name, ignore_errors=True)
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bot/src", stage / "src", ignore=no_caches)
    shutil.copytree(ROOT / "tests/support", stage / "tests/support", ignore=no_caches)
    (stage / "tests/unit").mkdir()
    for test in (ROOT / "tests/unit").glob("test_bot_*.py"):
        shutil.copy(test, stage / "tests/unit")
    for name in _READ:
        shutil.copytree(ROOT / name, stage / name, dirs_exist_ok=True)
    listed = ", ".join(f'"src/tradingbot/{room}/*.py"' for room in rooms)
    apart = ", ".join(f'"src/tradingbot/{name}"' for name in APART)
    read = ", ".join(f'"{name}"' for name in _READ)
    text = _CONFIGURATION.format(rooms=listed, apart=apart, read=read)
    (stage / "pyproject.toml").write_text(text, encoding="utf-8")
