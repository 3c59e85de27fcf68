"""Statistics of a market: counted by hand on a small one, and as documented for the generated and the recorded one."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.__main__ import main
from paper_exchange.core.units import to_units
from paper_exchange.market.events import BookUpdate, Candle, MarketEvent, MarketTrade
from paper_exchange.market.statistics import watch
from support.paper import START_MS, SYMBOL

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
DOCS = Path(__file__).parents[2] / "docs" / "paper-exchange.md"


def book(ms: int, bids: str, asks: str, *, snapshot: bool = False) -> BookUpdate:
    """Levels as `price quantity, ...`."""
    sides = [
        tuple((to_units(Decimal(price)), to_units(Decimal(held))) for price, held in map(str.split, side.split(",")))
        for side in (bids, asks)
    ]
    return BookUpdate(SYMBOL, START_MS + ms, sides[0], sides[1], snapshot)


def trade(ms: int, price: str, quantity: str, *, sold: bool) -> MarketTrade:
    return MarketTrade(SYMBOL, START_MS + ms, Decimal(price), Decimal(quantity), sold)


class Scripted:
    """A market of given events."""

    def __init__(self, *events: MarketEvent) -> None:
        self._events = events

    def events(self) -> Iterator[MarketEvent]:
        return iter(self._events)

    def history(self, symbol: str) -> list[Candle]:
        raise NotImplementedError(symbol)


def test_figures_are_those_of_the_book_at_each_second_and_of_all_trades() -> None:
    market = Scripted(
        book(0, "9999 2, 9900 1000", "10001 1, 10005 1", snapshot=True),
        trade(100, "10001", "0.5", sold=False),
        trade(300, "9999", "0.1", sold=True),
        book(1500, "9999 0, 10099 1", "10001 0, 10005 0, 10101 3"),
        trade(1600, "10101", "1", sold=False),
        trade(1700, "10101", "2", sold=False),
        book(2500, "10099 7", "10101 7"),
        trade(9000, "10101", "9", sold=False),
    )
    told = watch(market, (SYMBOL,), START_MS, 2)[SYMBOL]
    assert told == {
        "seconds": "2",
        "spread, median (bps)": f"{(2 + 2 / 1.01) / 2:.3f}",
        "spread, mean (bps)": f"{(2 + 2 / 1.01) / 2:.3f}",
        "volatility per second (bps)": "0.00",  # one return has no deviation
        "highest to lowest (bps)": "100.0",
        "bids within 0.1 % (quote)": f"{(9999 * 2 + 10099) / 2:,.0f}",
        "asks within 0.1 % (quote)": f"{(10001 + 10005 + 10101 * 3) / 2:,.0f}",
        "changes of the book per second": "1.00",
        "levels per change": "4.5",
        "trades per second": "2.00",
        "trades bought (%)": "75.0",
        "trade size, 10 % are up to (quote)": "999.90",
        "trade size, 50 % are up to (quote)": "10,101.00",
        "trade size, 90 % are up to (quote)": "20,202.00",
        "trade size, 99 % are up to (quote)": "20,202.00",
        "trade size, mean (quote)": f"{(5000.5 + 999.9 + 30303) / 4:,.2f}",
    }


def test_volatility_is_the_deviation_of_the_returns_of_a_second() -> None:
    updates = [book(0, "9999 1", "10001 1", snapshot=True)]
    for second, middle in enumerate((10_100, 10_000, 10_100, 10_000)):
        updates.append(book(second * 1000 + 1500, f"{middle - 1} 1", f"{middle + 1} 1", snapshot=True))
    told = watch(Scripted(*updates), (SYMBOL,), START_MS, 5)[SYMBOL]
    assert told["seconds"] == "4"  # the market ended before the fifth
    returns = [math.log(1.01), -math.log(1.01), math.log(1.01)]
    mean = sum(returns) / 3
    assert told["volatility per second (bps)"] == f"{10_000 * math.sqrt(sum((r - mean) ** 2 for r in returns) / 3):.2f}"


def test_a_wrong_market_ends_the_command_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["market-stats", "capture:/nowhere"])
    assert ended.value.code == 2
    assert "MARKET: capture: expected a directory" in capsys.readouterr().err


@pytest.mark.skipif(
    DATA is None or not (Path(DATA) / "market").is_dir(),
    reason="TRADINGBOT_TEST_DATA names no directory with a recorded market",
)
def test_the_documented_comparison_is_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(DATA or "")
    assert main(["market-stats", "synthetic", "capture:./market", "--seconds", "600"]) == 0
    assert capsys.readouterr().out in DOCS.read_text()
