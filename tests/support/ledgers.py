"""Books made of fills, for tests."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from tradingbot.state.ledger import BookedFill, LedgerState, extend


def fold(
    fills: Iterable[BookedFill],
    base_asset: str,
    quote_asset: str,
    dust_limit: Decimal,
    dust_value: Decimal = Decimal(0),
) -> LedgerState:
    """The books of a set of fills: duplicates of a (symbol, trade id) and the order of arrival do not matter."""
    return extend(LedgerState(base_asset, quote_asset, dust_limit, dust_value), fills)
