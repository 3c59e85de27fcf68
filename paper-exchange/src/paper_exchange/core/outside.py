"""What the outside market does to our resting orders: its trades, its book, and a pushed trade."""

from __future__ import annotations

from typing import Final

from paper_exchange.core.fills import fill, print_trade
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, Side
from paper_exchange.core.state import State

_PUSHED_STEPS: Final = 100_000
"""Least quantity, in lot steps, that stands at the price of a pushed trade."""


def _fill_maker(state: State, market: MarketState, maker: Order, quantity: int) -> None:
    """A resting order trades at its price with an outsider."""
    trade = print_trade(state, market, maker.price, quantity, maker.side is Side.BUY)
    fill(state, market, maker, trade, maker=True)


def trade_with_resting(state: State, market: MarketState, price: int, quantity: int, buyer_is_maker: bool) -> int:
    """Let our resting orders take part in an outside trade; what is left is between outsiders."""
    ladder = market.ladder(Side.BUY if buyer_is_maker else Side.SELL)
    left = quantity
    for level in ladder.own_prices():
        if not ladder.reaches(level, price):
            break
        consumed = 0
        for maker in list(ladder.own.get(level, ())):
            if not maker.open:
                continue
            if level == price:
                queue = min(max(0, maker.ahead - consumed), left)
                consumed += queue
                left -= queue
            part = min(left, maker.shown if level == price else maker.remaining)
            if part:
                left -= part
                _fill_maker(state, market, maker, part)
        ladder.come_forward(level, consumed)
        if level == price:
            left += consumed
    return left


def fill_crossed(state: State, market: MarketState) -> None:
    """The outside book crossed resting orders of ours: they fill at their own price."""
    for side in Side:
        ladder, other = market.ladder(side), market.ladder(side.opposite)
        for price in ladder.own_prices():
            best = other.best_outside()
            if best is None or not other.reaches(best, price):
                break
            for maker in list(ladder.own.get(price, ())):
                while maker.open:
                    best = other.best_outside()
                    if best is None or not other.reaches(best, price):
                        break
                    quantity = min(maker.remaining, other.available(best))
                    other.take(best, quantity)
                    _fill_maker(state, market, maker, quantity)


def forget_pushed(market: MarketState) -> None:
    """The level that a pushed trade left is again what the market reported."""
    if market.pushed is not None:
        ladder, price, quantity = market.pushed
        ladder.set_level(price, quantity)
        market.pushed = None


def sweep(state: State, market: MarketState, price: int) -> None:
    """Outsiders trade through the book to a price; what stood at better prices stands at this one afterwards."""
    bid, ask = market.bids.best(), market.asks.best()
    buyer_is_maker = price <= bid if bid is not None else ask is None or price < ask
    ladder = market.bids if buyer_is_maker else market.asks
    standing = _PUSHED_STEPS * market.rules.step
    for level in list(ladder.prices()):
        if not ladder.reaches(level, price):
            break
        for maker in list(ladder.own.get(level, ())):
            if maker.open:
                _fill_maker(state, market, maker, maker.remaining)
        quantity = ladder.available(level)
        if level != price and quantity:
            print_trade(state, market, level, quantity, buyer_is_maker)
            ladder.take(level, quantity)
            standing += quantity
    market.pushed = (ladder, price, ladder.reported(price))
    ladder.set_level(price, ladder.available(price) + standing)
    print_trade(state, market, price, market.rules.step, buyer_is_maker)
