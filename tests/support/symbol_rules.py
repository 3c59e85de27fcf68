"""Symbol rules as production has them, for tests without an exchange."""

from __future__ import annotations

from decimal import Decimal

from tradingbot.model import (
    LotFilter,
    NotionalFilter,
    OrderType,
    PercentPriceFilter,
    PriceFilter,
    SymbolRules,
    TrailingFilter,
)


def btcusdt_rules() -> SymbolRules:
    """BTCUSDT's filters in production, September 2026."""
    return SymbolRules(
        symbol="BTCUSDT",
        status="TRADING",
        base_asset="BTC",
        quote_asset="USDT",
        base_precision=8,
        quote_precision=8,
        order_types=frozenset(OrderType),
        oco_allowed=True,
        oto_allowed=True,
        price=PriceFilter(Decimal("0.01"), Decimal("1000000"), Decimal("0.01")),
        lot=LotFilter(Decimal("0.00001"), Decimal("9000"), Decimal("0.00001")),
        market_lot=LotFilter(Decimal(0), Decimal("100"), Decimal(0)),
        notional=NotionalFilter(Decimal(5), True, Decimal(9000000), False),
        percent_price=PercentPriceFilter(Decimal(5), Decimal("0.2"), Decimal(5), Decimal("0.2")),
        max_orders=200,
        max_algo_orders=5,
        max_order_lists=20,
        trailing_delta=TrailingFilter(10, 2000),
    )
