"""Does to a market or an account what a scenario says: prices, filters, statuses, money."""

from __future__ import annotations

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, Side
from paper_exchange.core.units import text
from paper_exchange.faults.moves import AccountMove, Fill, MarketMove, Price
from paper_exchange.venue import Venue


class Stagehand:
    """One venue that things happen to."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue

    # -- markets -----------------------------------------------------------------------------------------------

    def move_market(self, move: MarketMove) -> None:
        """Do it; ControlInvalidError or ExchangeError where the market does not let it be done."""
        market, exchange, now = self._venue.exchange.market(move.symbol), self._venue.exchange, self._venue.now_ms()
        if move.status is not None:
            self._venue.change_status(move.symbol, move.status)
        if move.filters is not None:
            exchange.change_filters(move.symbol, dict(move.filters))
        if move.gap is not None:
            self._venue.gap(move.symbol, _price(market, move.gap) - _last(market))
        try:
            if move.push is not None:
                exchange.push_trade(move.symbol, _price(market, move.push), now)
            if move.trade is not None:
                price = _price(market, move.trade.price)
                exchange.on_trade(move.symbol, price, move.trade.quantity, move.trade.side is Side.SELL, now)
            if move.fill is not None:
                order = _best(market, move.fill.side)
                part = _part(market, order, move.fill)
                # One tick through its price: nobody waits before it.
                tick = market.rules.tick
                price = order.price + (tick if order.side is Side.SELL else -tick)
                exchange.on_trade(move.symbol, price, part, order.side is Side.BUY, now)
        finally:
            self._venue.commit()

    # -- accounts ----------------------------------------------------------------------------------------------

    def move_account(self, move: AccountMove) -> None:
        """Do it to one account, or to all."""
        exchange, now = self._venue.exchange, self._venue.now_ms()
        if move.uid is not None and move.uid not in exchange.accounts:
            known = ", ".join(str(uid) for uid in list(exchange.accounts)[:10]) or "none yet"
            raise ControlInvalidError(f"uid: expected one of {known}, got {move.uid}")
        if move.reset is not None and move.uid is None:
            self._venue.reset(move.reset)
            return
        refused = []
        try:
            for uid in list(exchange.accounts) if move.uid is None else [move.uid]:
                try:
                    self._move(uid, move, now)
                except ExchangeError as error:
                    # What one account lacks is no reason to spare the others.
                    refused.append(f"{uid}: {error}")
        finally:
            self._venue.commit()
        if refused:
            raise ControlInvalidError("; ".join(refused))

    def _move(self, uid: int, move: AccountMove, now: int) -> None:
        exchange = self._venue.exchange
        for asset, amount in (move.deposit or {}).items():
            exchange.deposit(uid, asset, amount, now)
        for asset, amount in (move.withdraw or {}).items():
            exchange.withdraw(uid, asset, amount, now)
        if move.reset is not None:
            exchange.reset_account(uid, dict(move.reset), now)
        if move.set is not None:
            exchange.change_account(uid, move.set)


def _last(market: MarketState) -> int:
    if market.last is None:
        raise ControlInvalidError(f"symbol: expected one that has traded, got {market.rules.symbol!r}")
    return market.last


def _price(market: MarketState, asked: Price) -> int:
    return market.rules.on_tick(asked.from_last(_last(market)))


def _best(market: MarketState, side: Side) -> Order:
    """The first in the queue at the best price at which an account's order rests."""
    ladder = market.ladder(side)
    for price in ladder.own_prices():
        for order in ladder.own[price]:
            if order.open:
                return order
    raise ControlInvalidError(f"fill.side: expected a side on which an order rests, got {side.value!r}")


def _part(market: MarketState, order: Order, fill: Fill) -> int:
    step = market.rules.step
    part = int(order.remaining * fill.share) // step * step
    if not part:
        raise ControlInvalidError(
            f"fill.share: expected at least a lot step of {text(order.remaining)}, got {fill.share}"
        )
    return part
