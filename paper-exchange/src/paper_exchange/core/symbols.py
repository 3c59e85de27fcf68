"""The symbols that can be traded and their filters, as typical for Binance Spot production."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core.model import StpMode
from paper_exchange.core.price_range import PriceRange
from paper_exchange.core.units import LARGEST, text, to_units

ORDER_TYPES: Final = (
    "LIMIT",
    "LIMIT_MAKER",
    "MARKET",
    "STOP_LOSS",
    "STOP_LOSS_LIMIT",
    "TAKE_PROFIT",
    "TAKE_PROFIT_LIMIT",
)


STATUSES: Final = ("TRADING", "HALT", "BREAK", "CANCEL_ONLY")


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
    only_min_notional: int = 0
    """MIN_NOTIONAL, which NOTIONAL replaced on most symbols; 0 is off, here and below."""
    bid_multiplier_up: Decimal = Decimal(5)
    bid_multiplier_down: Decimal = Decimal("0.2")
    ask_multiplier_up: Decimal = Decimal(5)
    ask_multiplier_down: Decimal = Decimal("0.2")
    percent_up: Decimal = Decimal(0)
    percent_down: Decimal = Decimal(0)
    market_step: int = 0
    market_min_quantity: int = 0
    average_minutes: int = 5
    max_orders: int = 200
    max_algo_orders: int = 5
    max_iceberg_orders: int = 0
    max_lists: int = 20
    max_amends: int = 10
    max_position: int = 0
    permission_sets: tuple[tuple[str, ...], ...] = (("SPOT",),)
    """An account needs one permission of each set."""
    default_stp: StpMode = StpMode.EXPIRE_MAKER
    stp_modes: tuple[StpMode, ...] = tuple(mode for mode in StpMode if mode is not StpMode.NONE)
    max_iceberg_parts: int = 100
    min_trailing_delta: int = 10
    max_trailing_delta: int = 2000
    price_range: PriceRange = field(default_factory=PriceRange)

    def on_tick(self, price: int) -> int:
        """The price at or below, a whole number of ticks: one tick at least, and what fits the wire at most."""
        return min(max(price, self.tick), LARGEST) // self.tick * self.tick

    def info(self, status: str) -> dict[str, Any]:
        """The symbol's row in `GET /api/v3/exchangeInfo`."""
        return {
            "symbol": self.symbol,
            "status": status,
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
            "filters": self.filters(),
            "permissions": [],
            "permissionSets": [list(groups) for groups in self.permission_sets],
            "defaultSelfTradePreventionMode": self.default_stp.value,
            "allowedSelfTradePreventionModes": [mode.value for mode in self.stp_modes],
        }

    def filters(self) -> list[dict[str, Any]]:
        """The filters of the symbol, without those that are off."""
        minutes = {"avgPriceMins": self.average_minutes}
        rows: list[dict[str, Any]] = [
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
            {"filterType": "ICEBERG_PARTS", "limit": self.max_iceberg_parts},
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": text(self.market_min_quantity),
                "maxQty": text(self.max_market_quantity),
                "stepSize": text(self.market_step),
            },
            {
                "filterType": "TRAILING_DELTA",
                "minTrailingAboveDelta": self.min_trailing_delta,
                "maxTrailingAboveDelta": self.max_trailing_delta,
                "minTrailingBelowDelta": self.min_trailing_delta,
                "maxTrailingBelowDelta": self.max_trailing_delta,
            },
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": str(self.bid_multiplier_up),
                "bidMultiplierDown": str(self.bid_multiplier_down),
                "askMultiplierUp": str(self.ask_multiplier_up),
                "askMultiplierDown": str(self.ask_multiplier_down),
                **minutes,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": text(self.min_notional),
                "applyMinToMarket": True,
                "maxNotional": text(self.max_notional),
                "applyMaxToMarket": False,
                **minutes,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": self.max_orders},
            {"filterType": "MAX_NUM_ORDER_LISTS", "maxNumOrderLists": self.max_lists},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": self.max_algo_orders},
            {"filterType": "MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends": self.max_amends},
        ]
        if self.percent_up:
            up, down = str(self.percent_up), str(self.percent_down)
            rows.append({"filterType": "PERCENT_PRICE", "multiplierUp": up, "multiplierDown": down, **minutes})
        if self.only_min_notional:
            least = text(self.only_min_notional)
            rows.append({"filterType": "MIN_NOTIONAL", "minNotional": least, "applyToMarket": True, **minutes})
        if self.max_iceberg_orders:
            rows.append({"filterType": "MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders": self.max_iceberg_orders})
        if self.max_position:
            rows.append({"filterType": "MAX_POSITION", "maxPosition": text(self.max_position)})
        return rows


@dataclass(frozen=True, slots=True)
class ExchangeRules:
    """The filters of the whole exchange: how much an account may have open over all symbols; 0 is off."""

    max_orders: int = 0
    max_algo_orders: int = 0
    max_iceberg_orders: int = 0
    max_lists: int = 0

    def filters(self) -> list[dict[str, Any]]:
        """Those that are on, as exchangeInfo tells them."""
        limits = {
            "EXCHANGE_MAX_NUM_ORDERS": ("maxNumOrders", self.max_orders),
            "EXCHANGE_MAX_NUM_ALGO_ORDERS": ("maxNumAlgoOrders", self.max_algo_orders),
            "EXCHANGE_MAX_NUM_ICEBERG_ORDERS": ("maxNumIcebergOrders", self.max_iceberg_orders),
            "EXCHANGE_MAX_NUM_ORDER_LISTS": ("maxNumOrderLists", self.max_lists),
        }
        return [{"filterType": kind, name: limit} for kind, (name, limit) in limits.items() if limit]


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
