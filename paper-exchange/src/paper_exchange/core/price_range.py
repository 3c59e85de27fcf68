"""The price-range execution rule: a taker trades only at prices near the reference price.

Binance's documentation describes the mean and the rule ("Price Range Execution Rule"); its numbers are not told there.
80 buckets of 3,750 ms and 0.85 to 1.15 are what exchanges that run on Binance's engine answered in 2026.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from paper_exchange.core.model import Side

_EXTRA: Final = 10_000
"""Counts and sums of trades have four more decimals, so that a part of a bucket can be taken."""


@dataclass(frozen=True, slots=True)
class PriceRange:
    """Multiples of the reference price between which buys and sells may be executed; None sets no limit."""

    bid_up: Decimal | None = Decimal("1.1500")
    bid_down: Decimal | None = Decimal("0.8500")
    ask_up: Decimal | None = Decimal("1.1500")
    ask_down: Decimal | None = Decimal("0.8500")
    bucket_count: int = 80
    bucket_width_ms: int = 3750

    def allows(self, side: Side, price: int, reference: int | None) -> bool:
        """Whether a taker of a side may trade at a price; always where there is no reference price."""
        if reference is None:
            return True
        up, down = (self.bid_up, self.bid_down) if side is Side.BUY else (self.ask_up, self.ask_down)
        return (up is None or price <= reference * up) and (down is None or price >= reference * down)


class ReferencePrice:
    """The mean price of the trades of a sliding window, in buckets; time must not run back."""

    def __init__(self, bucket_count: int, bucket_width_ms: int) -> None:
        self._width = bucket_width_ms
        self._window = bucket_count * bucket_width_ms
        self._buckets: deque[list[int]] = deque()
        """[open time, number of trades, sum of their prices]."""
        self._count = self._total = 0
        """Trades of all buckets and their prices: a mean is asked for with every order."""

    def add(self, time: int, price: int) -> None:
        """A trade happened."""
        opened = time - time % self._width
        if not self._buckets or self._buckets[-1][0] != opened:
            self._forget(time)
            self._buckets.append([opened, 0, 0])
        self._buckets[-1][1] += 1
        self._buckets[-1][2] += price
        self._count += _EXTRA
        self._total += price * _EXTRA

    def value(self, now: int) -> int | None:
        """The reference price, of the oldest bucket only the part inside the window; None without trades."""
        count, total = self._count, self._total
        for opened, trades, prices in self._buckets:
            inside = max(0, opened + self._width - (now - self._window))
            if inside >= self._width:
                break
            count -= trades * _EXTRA - trades * _EXTRA * inside // self._width
            total -= prices * _EXTRA - prices * _EXTRA * inside // self._width
        return total // count if count else None

    def _forget(self, now: int) -> None:
        """Drop the buckets that closed before the window began."""
        while self._buckets and self._buckets[0][0] + self._width <= now - self._window:
            _, trades, prices = self._buckets.popleft()
            self._count -= trades * _EXTRA
            self._total -= prices * _EXTRA
