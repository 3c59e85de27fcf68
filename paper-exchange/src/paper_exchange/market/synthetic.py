"""A seeded, endless market: a price with changing regimes, a book around it, and the trades that move it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from heapq import merge
from random import Random

from paper_exchange.market.book import LEVEL_SPACING, Changes, GeneratedBook
from paper_exchange.market.events import BookUpdate, Candle, MarketEvent, MarketTrade, TradingStatus
from paper_exchange.market.moods import USUAL, Mood
from paper_exchange.market.profiles import Profile, profile_of

HISTORY_SECONDS = 30_600
"""8.5 h: more than 500 candles of one second as well as of one minute."""

BOOK_INTERVAL_MS = 100
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

    def __init__(self, rng: Random, mood: Mood = USUAL) -> None:
        self._rng = rng
        self._mood = mood
        self._walk = self._swing = 0.0
        self._remaining = self._drift = self._liveliness = 0.0

    def advance(self, seconds: float, push: float = 0.0) -> float:
        """Move on by `seconds`, and by `push` on top; returns the new log-price."""
        rng, mood = self._rng, self._mood
        self._remaining -= seconds
        if self._remaining <= 0:
            self._remaining = rng.uniform(*REGIME_SECONDS)
            self._liveliness = rng.uniform(0.6, 1.4)
            self._drift = rng.choice((-1, 0, 0, 1)) * rng.uniform(*TREND) * mood.regimes
        noise = self._liveliness * math.sqrt(seconds) * mood.volatility
        pull = HOME_PULL * mood.homing * self._walk
        self._walk += (self._drift - pull) * seconds + WALK_VOLATILITY * noise * rng.gauss(0, 1) + push
        self._swing += SWING_VOLATILITY * noise * rng.gauss(0, 1) - SWING_PULL * self._swing * seconds
        return self._walk + self._swing


class SyntheticMarket:
    """A market of generated symbols; a symbol's data do not depend on the other symbols."""

    def __init__(
        self, symbols: Sequence[str], randomness: Callable[[str], Random], start_ms: int, mood: Mood = USUAL
    ) -> None:
        """`randomness` gives a new seeded generator for each name, the same one for the same name."""
        self._mood = mood
        self._profiles = {symbol: profile_of(symbol) for symbol in symbols}
        self._randomness = randomness
        self._start_ms = start_ms

    def events(self) -> Iterator[MarketEvent]:
        """Endless events of all symbols in order of time."""
        streams = [
            SyntheticSymbol(symbol, profile, self._randomness(symbol), self._mood).events(self._start_ms)
            for symbol, profile in self._profiles.items()
        ]
        return merge(*streams, key=lambda event: event.time_ms)

    def history(self, symbol: str) -> list[Candle]:
        """The candles before the start, in the usual mood, ending at the symbol's first price."""
        profile = self._profiles[symbol]
        return synthetic_history(profile, self._randomness(f"{symbol}/history"), profile.price, self._start_ms)


class SyntheticSymbol:
    """The book and trades of one symbol, in whole ticks and steps."""

    def __init__(self, symbol: str, profile: Profile, rng: Random, mood: Mood) -> None:
        self._symbol = symbol
        self._mood = mood
        self._rng = rng
        self._tick, self._step = profile.tick, profile.step
        self._home = int(profile.price / profile.tick)
        self._widest = round(self._home * mood.spread)
        self._price = LogPrice(rng, mood)
        level_value = round(profile.level_value * mood.level_value)
        self._book = GeneratedBook(replace(profile, level_value=level_value), rng, LEVEL_SPACING * mood.level_spacing)

    def events(self, start_ms: int) -> Iterator[MarketEvent]:
        """A snapshot at `start_ms`, then trades as they happen and a change of the book each 100 ms, unless halted."""
        bids, asks = self._quote(self._home)
        yield BookUpdate(self._symbol, start_ms, bids, asks, snapshot=True)
        time_ms = start_ms
        trading = True
        while True:
            seconds = BOOK_INTERVAL_MS / 1000
            elapsed_ms = time_ms - start_ms
            moved = self._price.advance(seconds, self._mood.push(elapsed_ms, BOOK_INTERVAL_MS))
            mid = max(1.0, self._home * math.exp(moved))
            may_trade = not (self._mood.halts and self._mood.happens(elapsed_ms))
            if may_trade is not trading:
                trading = may_trade
                yield TradingStatus(self._symbol, time_ms, trading)
            if not trading:
                time_ms += BOOK_INTERVAL_MS
                continue
            yield from self._trades(time_ms, mid)
            time_ms += BOOK_INTERVAL_MS
            bids, asks = self._quote(int(mid))
            yield BookUpdate(self._symbol, time_ms, bids, asks, snapshot=False)

    def _trades(self, time_ms: int, mid: float) -> Iterator[MarketTrade]:
        """The trades until the next change of the book, mostly on the side to which the price then moves."""
        rng, book = self._rng, self._book
        up = mid > book.ask
        down = mid < book.bid
        buying = 0.75 if up else 0.25 if down else 0.5
        chance = TRADES_PER_SECOND * BOOK_INTERVAL_MS / 1000 / 2
        moments = sorted(rng.randrange(1, BOOK_INTERVAL_MS) for _ in range(2) if rng.random() < chance)
        for moment in moments:
            bought = rng.random() < buying
            side, price = (book.asks, book.ask) if bought else (book.bids, book.bid)
            # Never the whole level: that it goes is said by the book alone.
            steps = min(max(1, int(rng.expovariate(8 / book.level_steps))), side[price] - 1)
            if steps < 1:
                continue
            side[price] -= steps
            yield MarketTrade(
                self._symbol, time_ms + moment, price * self._tick, steps * self._step, buyer_is_maker=not bought
            )

    def _quote(self, bid: int) -> Changes:
        """Move the best bid to `bid` ticks, and the best ask to one above it or a little more."""
        if self._widest:
            return self._book.quote(bid, bid + self._rng.randrange(1, self._widest + 1))
        return self._book.quote(bid, bid + (1 if self._rng.random() < 0.8 else self._rng.randrange(2, 4)))


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
