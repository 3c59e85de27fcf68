"""The symbols that can be traded and their filters, as typical for Binance Spot production."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core.model import StpMode
from paper_exchange.core.price_range import PriceRange
from paper_exchange.core.units import text, to_units

ORDER_TYPES: Final = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)


@dataclass(frozen=True, slots=True)
class SymbolRules:
    """One market: its assets and filters; prices and quantities in units of 1e-8."""

    symbol: str
    base: str
    quote: str
    tick: int
    step: int
    min_price: int
    max_price: int
    min_quantity: int
    max_quantity: int
    min_notional: int
    max_market_quantity: int
    """On Binance it moves with the market; here it stands."""
    max_notional: int = 9_000_000 * 10**8
    multiplier_up: int = 5
    multiplier_down: Decimal = Decimal("0.2")
    average_minutes: int = 5
    max_orders: int = 200
    max_algo_orders: int = 5
    max_lists: int = 20
    max_amends: int = 10
    default_stp: StpMode = StpMode.EXPIRE_MAKER
    stp_modes: tuple[StpMode, ...] = tuple(mode for mode in StpMode if mode is not StpMode.NONE)
    max_iceberg_parts: int = 100
    min_trailing_delta: int = 10
    max_trailing_delta: int = 2000
    price_range: PriceRange = field(default_factory=PriceRange)

    def info(self) -> dict[str, Any]:
        """The symbol's row in `GET /api/v3/exchangeInfo`."""
        return {
            "symbol": self.symbol,
            "status": "TRADING",
            "baseAsset": self.base,
            "baseAssetPrecision": 8,
            "quoteAsset": self.quote,
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8,
            "quoteCommissionPrecision": 8,
            "orderTypes": list(ORDER_TYPES),
            "icebergAllowed": True,
            "ocoAllowed": True,
            "otoAllowed": True,
            "opoAllowed": True,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": True,
            "cancelReplaceAllowed": True,
            "amendAllowed": True,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": text(self.min_price),
                    "maxPrice": text(self.max_price),
                    "tickSize": text(self.tick),
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": text(self.min_quantity),
                    "maxQty": text(self.max_quantity),
                    "stepSize": text(self.step),
                },
                {
                    "filterType": "MARKET_LOT_SIZE",
                    "minQty": text(0),
                    "maxQty": text(self.max_market_quantity),
                    "stepSize": text(0),
                },
                {"filterType": "ICEBERG_PARTS", "limit": self.max_iceberg_parts},
                {
                    "filterType": "TRAILING_DELTA",
                    "minTrailingAboveDelta": self.min_trailing_delta,
                    "maxTrailingAboveDelta": self.max_trailing_delta,
                    "minTrailingBelowDelta": self.min_trailing_delta,
                    "maxTrailingBelowDelta": self.max_trailing_delta,
                },
                {
                    "filterType": "PERCENT_PRICE_BY_SIDE",
                    "bidMultiplierUp": str(self.multiplier_up),
                    "bidMultiplierDown": str(self.multiplier_down),
                    "askMultiplierUp": str(self.multiplier_up),
                    "askMultiplierDown": str(self.multiplier_down),
                    "avgPriceMins": self.average_minutes,
                },
                {
                    "filterType": "NOTIONAL",
                    "minNotional": text(self.min_notional),
                    "applyMinToMarket": True,
                    "maxNotional": text(self.max_notional),
                    "applyMaxToMarket": False,
                    "avgPriceMins": self.average_minutes,
                },
                {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
                {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": self.max_lists},
                {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_algo_orders},
                {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": self.max_amends},
            ],
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": self.default_stp.value,
            "allowedSelfTradePreventionModes": [mode.value for mode in self.stp_modes],
        }


def _rules(base: str, quote: str, *, tick: str, step: str, max_price: str, max_quantity: str) -> SymbolRules:
    return SymbolRules(
        symbol=base + quote,
        base=base,
        quote=quote,
        tick=to_units(Decimal(tick)),
        step=to_units(Decimal(step)),
        min_price=to_units(Decimal(tick)),
        max_price=to_units(Decimal(max_price)),
        min_quantity=to_units(Decimal(step)),
        max_quantity=to_units(Decimal(max_quantity)),
        min_notional=5 * 10**8,
        max_market_quantity=to_units(Decimal(max_quantity) / 50 // Decimal(step) * Decimal(step)),
    )


SYMBOLS: Final[dict[str, SymbolRules]] = {
    rules.symbol: rules
    for rules in (
        _rules("BTC", "USDT", tick="0.01", step="0.00001", max_price="1000000", max_quantity="9000"),
        _rules("ETH", "USDT", tick="0.01", step="0.0001", max_price="1000000", max_quantity="9000"),
        _rules("BNB", "USDT", tick="0.01", step="0.001", max_price="100000", max_quantity="900000"),
        _rules("SOL", "USDT", tick="0.01", step="0.001", max_price="10000", max_quantity="90000"),
        _rules("XRP", "USDT", tick="0.0001", step="0.1", max_price="10000", max_quantity="9222449"),
        _rules("BTC", "USDC", tick="0.01", step="0.00001", max_price="1000000", max_quantity="9000"),
    )
}
