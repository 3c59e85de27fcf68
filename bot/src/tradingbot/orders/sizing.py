"""The size of an entry by what books and account have, for the bot and for a replay alike."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from tradingbot.model import BookTicker, SymbolRules
from tradingbot.risk.risk_manager import Funds, Refused, RiskManager, Size, at_risk
from tradingbot.state.ledger import LedgerState


def size_entry(
    risk: RiskManager,
    rules: SymbolRules,
    books: LedgerState,
    *,
    capital: Decimal,
    quote_free: Decimal,
    book: BookTicker,
    taker_rate: Decimal,
    now: datetime,
    fleet_room: Decimal | None = None,
) -> Size | Refused:
    """What to buy at the ask while nothing but dust is held, or why nothing; `risk` is told of the equity first."""
    equity = books.equity(capital, book.bid, taker_rate)
    risk.update_equity(equity, now)
    # No stop protects dust.
    dust = at_risk(books.quantity, book.bid, None, taker_rate)
    funds = Funds(quote_free, books.cost, equity, dust, taker_rate, fleet_room)
    size = risk.calculate_position_size(rules, book.ask, funds)
    if isinstance(size, Refused):
        risk.record_used_up(size.code.value, now)
    return size
