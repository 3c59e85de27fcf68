"""One symbol as the engine sees it: its book, last price, waiting triggers and average price."""

from __future__ import annotations

from collections import deque

from paper_exchange.core.ladder import Ladder
from paper_exchange.core.model import Order, Side
from paper_exchange.core.price_range import ReferencePrice
from paper_exchange.core.symbols import SymbolRules
from paper_exchange.core.units import SCALE


class MarketState:
    """One symbol: its book, last price, waiting triggers and the trades of the last minutes."""

    def __init__(self, rules: SymbolRules, next_trade_id: int) -> None:
        self.rules = rules
        self.status = "TRADING"
        self.bids = Ladder(Side.BUY)
        self.asks = Ladder(Side.SELL)
        self.last: int | None = None
        self.reference = ReferencePrice(rules.price_range.bucket_count, rules.price_range.bucket_width_ms)
        self.next_trade_id = next_trade_id
        self.next_prevented_id = 0
        self.rising: list[tuple[int, int]] = []
        """(trigger price, order id) of orders that wait for the price to rise."""
        self.falling: list[tuple[int, int]] = []
        """(minus trigger price, order id) of orders that wait for the price to fall."""
        self.trailing: dict[int, Order] = {}
        """Trailing stops that follow the price, by id."""
        self.todo: deque[tuple[str, int]] = deque()
        """Triggered orders and lists whose pending orders come to life, in order."""
        self.pushed: tuple[Ladder, int, int] | None = None
        """The level that a pushed trade left, and what the market had reported there."""
        self._traded: deque[tuple[int, int, int]] = deque()
        self._traded_base = 0
        self._traded_quote = 0

    def ladder(self, side: Side) -> Ladder:
        """The resting orders of a side."""
        return self.bids if side is Side.BUY else self.asks

    def record(self, time: int, base: int, quote: int) -> None:
        """Count traded amounts into the average price."""
        second = time // 1000
        oldest = self._oldest(time)
        while self._traded and self._traded[0][0] <= oldest:
            _, had_base, had_quote = self._traded.popleft()
            self._traded_base -= had_base
            self._traded_quote -= had_quote
        if self._traded and self._traded[-1][0] == second:
            _, had_base, had_quote = self._traded.pop()
            self._traded.append((second, had_base + base, had_quote + quote))
        else:
            self._traded.append((second, base, quote))
        self._traded_base += base
        self._traded_quote += quote

    def yardstick(self, now: int) -> int | None:
        """The price that filters measure orders by: the reference price, else the average."""
        return self.reference.value(now) or self.average(now)

    def average(self, now: int) -> int | None:
        """Volume-weighted price of the last minutes, else (or over no minutes) the last price."""
        oldest = self._oldest(now)
        base, quote = self._traded_base, self._traded_quote
        for second, gone_base, gone_quote in self._traded:
            if second > oldest:
                break
            base -= gone_base
            quote -= gone_quote
        return quote * SCALE // base if base else self.last

    def _oldest(self, now: int) -> int:
        """The last second that is too old for the average price."""
        return now // 1000 - self.rules.average_minutes * 60
