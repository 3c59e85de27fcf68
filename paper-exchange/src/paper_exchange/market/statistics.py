"""What a market is like: spread, trades, volatility and depth of its first seconds, to compare one with another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, pstdev
from typing import Final

from paper_exchange.core.units import SCALE
from paper_exchange.market.events import BookUpdate, Market, MarketEvent, MarketTrade

_NEAR: Final = 0.001
_BPS: Final = 10_000


class Watch:
    """Sees the events of one symbol, and looks at its book each second."""

    def __init__(self, start_ms: int) -> None:
        """`start_ms` is when the market begins."""
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._look_ms = start_ms + 1000
        self._middles: list[float] = []
        self._spreads: list[float] = []
        self._bid_depths: list[float] = []
        self._ask_depths: list[float] = []
        self._changes = self._levels = 0
        self._values: list[float] = []
        self._bought = 0

    def see(self, event: MarketEvent) -> None:
        """The next event, in order of time."""
        self.look(event.time_ms)
        if isinstance(event, MarketTrade):
            self._values.append(float(event.price * event.quantity))
            self._bought += not event.buyer_is_maker
        elif isinstance(event, BookUpdate):
            self._changes += 1
            self._levels += len(event.bids) + len(event.asks)
            for side, levels in ((self._bids, event.bids), (self._asks, event.asks)):
                if event.snapshot:
                    side.clear()
                for price, quantity in levels:
                    if quantity:
                        side[price] = quantity
                    else:
                        side.pop(price, None)

    def look(self, until_ms: int) -> None:
        """Look at the book at every full second up to a time."""
        while self._look_ms <= until_ms and self._bids and self._asks:
            self._look_ms += 1000
            bid, ask = max(self._bids), min(self._asks)
            middle = (bid + ask) / 2
            self._middles.append(middle)
            self._spreads.append((ask - bid) / middle * _BPS)
            self._bid_depths.append(_depth(self._bids, middle * (1 - _NEAR), middle))
            self._ask_depths.append(_depth(self._asks, middle, middle * (1 + _NEAR)))

    def figures(self) -> dict[str, str]:
        """The figures by their names; fewer where nothing was traded."""
        seconds = len(self._middles)
        told = {"seconds": str(seconds)}
        if not seconds:
            return told
        returns = [math.log(after / before) for before, after in zip(self._middles, self._middles[1:], strict=False)]
        values = sorted(self._values)
        told |= {
            "spread, median (bps)": f"{median(self._spreads):.3f}",
            "spread, mean (bps)": f"{fmean(self._spreads):.3f}",
            "volatility per second (bps)": f"{pstdev(returns) * _BPS:.2f}" if returns else "-",
            "highest to lowest (bps)": f"{(max(self._middles) / min(self._middles) - 1) * _BPS:.1f}",
            "bids within 0.1 % (quote)": f"{fmean(self._bid_depths):,.0f}",
            "asks within 0.1 % (quote)": f"{fmean(self._ask_depths):,.0f}",
            "changes of the book per second": f"{self._changes / seconds:.2f}",
            "levels per change": f"{self._levels / max(1, self._changes):.1f}",
            "trades per second": f"{len(values) / seconds:.2f}",
        }
        if values:
            told |= {
                "trades bought (%)": f"{100 * self._bought / len(values):.1f}",
                **{
                    f"trade size, {share} % are up to (quote)": f"{values[len(values) * share // 100]:,.2f}"
                    for share in (10, 50, 90, 99)
                },
                "trade size, mean (quote)": f"{fmean(values):,.2f}",
            }
        return told


def watch(market: Market, symbols: Sequence[str], start_ms: int, seconds: int) -> dict[str, dict[str, str]]:
    """The figures of each symbol over the first `seconds`, or to the end of the market; MarketError."""
    end_ms = start_ms + seconds * 1000
    watches = {symbol: Watch(start_ms) for symbol in symbols}
    for event in market.events():
        if event.time_ms > end_ms:
            for one in watches.values():
                one.look(end_ms)
            break
        watches[event.symbol].see(event)
    return {symbol: one.figures() for symbol, one in watches.items()}


def _depth(side: dict[int, int], lowest: float, highest: float) -> float:
    """The quote value of a side between two prices."""
    return sum(price * quantity for price, quantity in side.items() if lowest <= price <= highest) / SCALE**2
