"""Keeps what campaigns have run at a commit, so that one that was ended goes on where it was."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Book:
    """What is known of a campaign at a commit: the undisturbed life and the cases that were run."""

    path: Path
    undisturbed: dict[str, Any]
    done: dict[str, dict[str, Any]]

    @classmethod
    def open(cls, campaign: str) -> Book:
        """Of the commit that is checked out."""
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
        path = base / "tradingbot" / "campaigns" / f"{campaign}-{commit}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        book = cls(path, {}, {})
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            if "undisturbed" in row:
                book.undisturbed = row["undisturbed"]
            else:
                book.done[row["case"]] = row
        return book

    def note(self, row: dict[str, Any]) -> None:
        """Keeps a row at once: a shard may be ended at any time."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if "undisturbed" in row:
            self.undisturbed = row["undisturbed"]
        else:
            self.done[row["case"]] = row
