"""Published vectors: worked examples from Binance's own documentation, where the test data is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest


def vectors(name: str, rows: str) -> list[Any]:
    """The rows of one file as parameters with their ids; one that says why it is skipped where the file is absent."""
    folder = os.environ.get("TRADINGBOT_TEST_DATA")
    if folder is None:
        reason = "TRADINGBOT_TEST_DATA does not name the folder with the published vectors"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="absent")]
    found = json.loads((Path(folder) / "vectors" / f"{name}.json").read_text())[rows]
    return [pytest.param(row, id=row["id"]) for row in found]
