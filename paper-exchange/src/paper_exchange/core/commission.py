"""What one fill costs, and in which asset: what it gives, or BNB at a discount."""

from __future__ import annotations

from typing import Final

from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Order, Side
from paper_exchange.core.state import State, TradePrint
from paper_exchange.core.units import SCALE

_BNB: Final = "BNB"


def commission(
    state: State, market: MarketState, order: Order, trade: TradePrint, received: int, *, maker: bool
) -> tuple[str, int]:
    """Asset and amount (units), cut to 8 decimals; call it when the order has paid and before it receives.

    BNB pays where the account wants it, its price is known and enough is free, decided fill by fill; otherwise the
    full rates are taken from what is received.
    """
    account = state.accounts[order.uid]
    rules = market.rules
    buying = order.side is Side.BUY
    asset = rules.base if buying else rules.quote
    rates = account.rates(rules.symbol)
    if account.bnb_discount:
        share = rates.discounted(maker=maker, buyer=buying)
        if asset == _BNB:
            return _BNB, received * share // SCALE**2
        price = _bnb_price(state, rules.quote)
        if price:
            fee = trade.price * trade.quantity * share // (SCALE**2 * price)
            if account.balance(_BNB).free >= fee:
                return _BNB, fee
    return asset, received * rates.full(maker=maker, buyer=buying) // SCALE


def _bnb_price(state: State, quote: str) -> int | None:
    """What one BNB costs of a quote asset, by the last trade of that market; None where there is none."""
    if quote == _BNB:
        return SCALE
    market = state.markets.get(_BNB + quote)
    return market.last if market else None
