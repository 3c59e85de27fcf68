"""A market that stands still where a test puts it, as a recording of one book and one trade."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

_BEFORE_NS = 1_700_000_000_000_000_000
_TICK = Decimal("0.01")


def write_still_market(directory: Path, *, quantity: str = "5.00000000", levels: int = 200, **prices: str) -> str:
    """Record `BTCUSDT="50000"` and so on: so many levels a cent apart on both sides; returns what `--market` takes."""
    for symbol, text in prices.items():
        price = Decimal(text)
        book = {
            "lastUpdateId": 1,
            "bids": [[str(price - step * _TICK), quantity] for step in range(1, levels + 1)],
            "asks": [[str(price + step * _TICK), quantity] for step in range(1, levels + 1)],
        }
        trade = {"stream": f"{symbol.lower()}@trade", "data": {"p": text, "q": "0.00100000", "m": True}}
        with gzip.open(directory / f"{symbol.lower()}_20240101.gz", "wt") as file:
            for number, message in enumerate((book, trade)):
                file.write(f"{_BEFORE_NS + number * 1_000_000} {json.dumps(message)}\n")
    return f"capture:{directory}"
