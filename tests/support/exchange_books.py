"""What the exchange's own books say of a bot's position, whatever the bot says."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.units import SCALE, to_decimal

DUST: Final = Decimal(11)
"""Value in quote that may be left: nothing as small can be sold."""


def has_no_stop(books: Exchange, uid: int, symbol: str, foreign: Decimal = Decimal(0)) -> bool:
    """Whether base of the account beyond `foreign`, and worth more than dust, is sold by no stop that rests."""
    market = books.market(symbol)
    balance = books.accounts[uid].balance(market.rules.base)
    stopped = sum(order.remaining for order in books.open_orders(uid, symbol) if order.protects)
    bare = to_decimal(balance.free + balance.locked - stopped) - foreign
    return bare * (market.last or 0) / SCALE > DUST
