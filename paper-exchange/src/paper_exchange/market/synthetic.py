"""A seeded, endless market: a price with changing regimes, a book around it, and the trades that move it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from heapq import merge
from random import Random

from paper_exchange.core.units import to_units
from paper_exchange.market.events import BookUpdate, Candle, Level, MarketEvent, MarketTrade
from paper_exchange.market.profiles import Profile, profile_of

HISTORY_SECONDS = 30_600
"""8.5 h: more than 500 candles of one second as well as of one minute."""

BOOK_INTERVAL_MS = 100
LEVELS = 30
LEVEL_SPACING = 0.00008  # of the price: 30 levels reach 0.24 % away, an order of 500 USDT stays within one or two
TRADES_PER_SECOND = 5
# Chosen so that EMA 12/26 on closed 1 s candles crosses each 10 to 40 s, and that a stop of 0.1 % or a target of
# 0.2 % is hit within tens of seconds to a few minutes. Figures are of the log-price and per second.
WALK_VOLATILITY = 0.0001
SWING_VOLATILITY = 0.0002
SWING_PULL = 0.2
TREND = (0.00001, 0.00005)
REGIME_SECONDS = (10.0, 50.0)
HOME_PULL = 1 / 3600  # towards the first price, so that an endless run stays within a few percent of it


class LogPrice:
    """Log-price relative to home (0): a walk in regimes (calm or lively, trending or not) and a swing around it."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._walk = self._swing = 0.0
        self._remaining = self._drift = self._liveliness = 0.0

    def advance(self, seconds: float) -> float:
        """Move on by `seconds` and return the new log-price."""
        rng = self._rng
        self._remaining -= seconds
        if self._remaining <= 0:
            self._remaining = rng.uniform(*REGIME_SECONDS)
            self._liveliness = rng.uniform(0.6, 1.4)
            self._drift = rng.choice((-1, 0, 0, 1)) * rng.uniform(*TREND)
        noise = self._liveliness * math.sqrt(seconds)
        self._walk += (self._drift - HOME_PULL * self._walk) * seconds + WALK_VOLATILITY * noise * rng.gauss(0, 1)
        self._swing += SWING_VOLATILITY * noise * rng.gauss(0, 1) - SWING_PULL * self._swing * seconds
        return self._walk + self._swing


class SyntheticMarket:
    """A market of generated symbols; a symbol's data do not depend on the other symbols."""

    def __init__(self, symbols: Sequence[str], randomness: Callable[[str], Random], start_ms: int) -> None:
        """`randomness` gives a new seeded generator for each name, the same one for the same name."""
        self._profiles = {symbol: profile_of(symbol) for symbol in symbols}
        self._randomness = randomness
        self._start_ms = start_ms

    def events(self) -> Iterator[MarketEvent]:
        """Endless events of all symbols in order of time."""
        streams = [
            SyntheticBook(symbol, profile, self._randomness(symbol)).events(self._start_ms)
            for symbol, profile in self._profiles.items()
        ]
        return merge(*streams, key=lambda event: event.time_ms)

    def history(self, symbol: str) -> list[Candle]:
        """The candles before the start, ending at the symbol's first price."""
        profile = self._profiles[symbol]
        return synthetic_history(profile, self._randomness(f"{symbol}/history"), profile.price, self._start_ms)


class SyntheticBook:
    """The book and trades of one symbol, in whole ticks and steps."""

    def __init__(self, symbol: str, profile: Profile, rng: Random) -> None:
        self._symbol = symbol
        self._rng = rng
        self._tick, self._step = profile.tick, profile.step
        self._tick_units, self._step_units = to_units(profile.tick), to_units(profile.step)
        self._home = int(profile.price / profile.tick)
        self._gap = max(1, round(self._home * LEVEL_SPACING))
        self._level_steps = float(profile.level_value / profile.price / profile.step)
        self._price = LogPrice(rng)
        self._bids: dict[int, int] = {}
        self._asks: dict[int, int] = {}
        self._shown_bids: dict[int, int] = {}
        self._shown_asks: dict[int, int] = {}
        self._bid = self._ask = 0

    def events(self, start_ms: int) -> Iterator[MarketEvent]:
        """A snapshot at `start_ms`, then trades as they happen and a change of the book each 100 ms."""
        bids, asks = self._quote(self._home)
        yield BookUpdate(self._symbol, start_ms, bids, asks, snapshot=True)
        time_ms = start_ms
        while True:
            seconds = BOOK_INTERVAL_MS / 1000
            mid = self._home * math.exp(self._price.advance(seconds))
            yield from self._trades(time_ms, mid)
            time_ms += BOOK_INTERVAL_MS
            bids, asks = self._quote(int(mid))
            yield BookUpdate(self._symbol, time_ms, bids, asks, snapshot=False)

    def _trades(self, time_ms: int, mid: float) -> Iterator[MarketTrade]:
        """The trades until the next change of the book, mostly on the side to which the price then moves."""
        rng = self._rng
        up = mid > self._ask
        down = mid < self._bid
        buying = 0.75 if up else 0.25 if down else 0.5
        chance = TRADES_PER_SECOND * BOOK_INTERVAL_MS / 1000 / 2
        moments = sorted(rng.randrange(1, BOOK_INTERVAL_MS) for _ in range(2) if rng.random() < chance)
        for moment in moments:
            bought = rng.random() < buying
            side, price = (self._asks, self._ask) if bought else (self._bids, self._bid)
            # Never the whole level: that it goes is said by the book alone.
            steps = min(max(1, int(rng.expovariate(8 / self._level_steps))), side[price] - 1)
            if steps < 1:
                continue
            side[price] -= steps
            yield MarketTrade(
                self._symbol, time_ms + moment, price * self._tick, steps * self._step, buyer_is_maker=not bought
            )

    def _quote(self, bid: int) -> tuple[tuple[Level, ...], tuple[Level, ...]]:
        """Move the best bid to `bid` ticks and return the levels that changed, bids and asks."""
        self._bid = bid
        self._ask = bid + (1 if self._rng.random() < 0.8 else self._rng.randrange(2, 4))
        below = range((bid - 1) // self._gap * self._gap, 0, -self._gap)
        above = range((self._ask // self._gap + 1) * self._gap, 2**63, self._gap)
        bids = self._side(self._bids, self._bid, below)
        asks = self._side(self._asks, self._ask, above)
        changes = self._changes(self._shown_bids, bids), self._changes(self._shown_asks, asks)
        self._bids, self._asks = bids, asks
        self._shown_bids, self._shown_asks = dict(bids), dict(asks)
        return changes

    def _side(self, before: dict[int, int], best: int, grid: range) -> dict[int, int]:
        """The levels of one side: the best and those on the grid behind it; one level of them is drawn anew."""
        side = {best: before.get(best, 0)}
        for tick in grid[:LEVELS]:
            side[tick] = before.get(tick, 0)
        redrawn = grid[self._rng.randrange(min(LEVELS, len(grid)))]
        thin = self._level_steps / 5
        for tick, steps in side.items():
            if steps < thin or tick == redrawn:
                side[tick] = max(2, int(self._level_steps * self._rng.uniform(0.4, 1.6)))
        return side

    def _changes(self, shown: dict[int, int], side: dict[int, int]) -> tuple[Level, ...]:
        tick_units, step_units = self._tick_units, self._step_units
        gone = [(tick * tick_units, 0) for tick in shown if tick not in side]
        changed = [(tick * tick_units, steps * step_units) for tick, steps in side.items() if shown.get(tick) != steps]
        return (*gone, *changed)


def synthetic_history(profile: Profile, rng: Random, last_price: Decimal, start_ms: int) -> list[Candle]:
    """Generated 1 s candles of the `HISTORY_SECONDS` before the second of `start_ms`, closing at `last_price`."""
    price = LogPrice(rng)
    path = [price.advance(1.0) for _ in range(HISTORY_SECONDS + 1)]
    last_ticks = int(last_price / profile.tick)
    ticks = [max(1, round(last_ticks * math.exp(value - path[-1]))) for value in path]
    per_trade = float(profile.level_value / last_price / profile.step) / 8
    wick = last_ticks * SWING_VOLATILITY / 3
    first_ms = start_ms // 1000 * 1000 - HISTORY_SECONDS * 1000
    candles = []
    for second in range(HISTORY_SECONDS):
        opened, closed = ticks[second], ticks[second + 1]
        high = max(opened, closed) + int(rng.random() * wick)
        low = max(1, min(opened, closed) - int(rng.random() * wick))
        trades = rng.randrange(2, 2 * TRADES_PER_SECOND - 1)
        steps = trades + int(trades * per_trade * rng.random())
        taken = int(steps * (0.35 + 0.3 * rng.random() + (0.1 if closed > opened else 0)))
        # All trades at the middle: exact enough for what nobody traded, and within the candle's range.
        middle = (high + low) // 2 * profile.tick
        candles.append(
            Candle(
                open_time_ms=first_ms + second * 1000,
                interval_ms=1000,
                open=opened * profile.tick,
                high=high * profile.tick,
                low=low * profile.tick,
                close=closed * profile.tick,
                volume=steps * profile.step,
                quote_volume=steps * profile.step * middle,
                trades=trades,
                taker_base=taken * profile.step,
                taker_quote=taken * profile.step * middle,
            )
        )
    return candles
