"""The symbols that can be traded and their filters, as typical for Binance Spot production."""

from __future__ import annotations

from collections.abc import Mapping
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


def rules_of(row: Mapping[str, Any]) -> SymbolRules:
    """The rules in a row of exchangeInfo's `symbols`, such as `info` gives: assets and filters, the rest as usual.

    KeyError, ValueError or InvalidOperation where the row lacks what every symbol has.
    """
    found = {one["filterType"]: one for one in row["filters"]}

    def units(kind: str, name: str) -> int:
        return to_units(Decimal(found[kind][name]))

    price, lot, market = "PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE"
    optional: dict[str, Any] = {}
    if (band := found.get("PERCENT_PRICE_BY_SIDE")) is not None:
        for side in ("bid", "ask"):
            for way in ("Up", "Down"):
                optional[f"{side}_multiplier_{way.lower()}"] = Decimal(band[f"{side}Multiplier{way}"])
        optional["average_minutes"] = int(band["avgPriceMins"])
    if (band := found.get("PERCENT_PRICE")) is not None:
        optional |= {"percent_up": Decimal(band["multiplierUp"]), "percent_down": Decimal(band["multiplierDown"])}
    if (trailing := found.get("TRAILING_DELTA")) is not None:
        optional["min_trailing_delta"] = int(trailing["minTrailingBelowDelta"])
        optional["max_trailing_delta"] = int(trailing["maxTrailingBelowDelta"])
    for kind, name, rule in (
        ("ICEBERG_PARTS", "limit", "max_iceberg_parts"),
        ("MAX_NUM_ORDERS", "maxNumOrders", "max_orders"),
        ("MAX_NUM_ORDER_LISTS", "maxNumOrderLists", "max_lists"),
        ("MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders", "max_algo_orders"),
        ("MAX_NUM_ICEBERG_ORDERS", "maxNumIcebergOrders", "max_iceberg_orders"),
        ("MAX_NUM_ORDER_AMENDS", "maxNumOrderAmends", "max_amends"),
    ):
        if kind in found:
            optional[rule] = int(found[kind][name])
    for kind, name, rule in (
        ("NOTIONAL", "maxNotional", "max_notional"),
        ("MIN_NOTIONAL", "minNotional", "only_min_notional"),
        ("MAX_POSITION", "maxPosition", "max_position"),
    ):
        if kind in found:
            optional[rule] = units(kind, name)
    return SymbolRules(
        symbol=row["symbol"],
        base=row["baseAsset"],
        quote=row["quoteAsset"],
        tick=units(price, "tickSize"),
        step=units(lot, "stepSize"),
        min_price=units(price, "minPrice"),
        max_price=units(price, "maxPrice"),
        min_quantity=units(lot, "minQty"),
        max_quantity=units(lot, "maxQty"),
        min_notional=units("NOTIONAL", "minNotional") if "NOTIONAL" in found else 0,
        max_market_quantity=units(market, "maxQty"),
        market_step=units(market, "stepSize"),
        market_min_quantity=units(market, "minQty"),
        **optional,
    )


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


_OTHERS: Final = (
    ("ADA", "0.0001", "0.1"),
    ("DOGE", "0.00001", "1"),
    ("TRX", "0.0001", "0.1"),
    ("LINK", "0.001", "0.01"),
    ("LTC", "0.01", "0.001"),
    ("BCH", "0.1", "0.001"),
    ("AVAX", "0.01", "0.01"),
    ("UNI", "0.001", "0.01"),
    ("ATOM", "0.001", "0.01"),
    ("DOT", "0.001", "0.01"),
    ("XLM", "0.0001", "1"),
    ("ETC", "0.01", "0.01"),
    ("FIL", "0.001", "0.01"),
    ("NEAR", "0.001", "0.1"),
    ("APT", "0.001", "0.01"),
    ("ARB", "0.0001", "0.1"),
    ("OP", "0.0001", "0.01"),
    ("ICP", "0.001", "0.01"),
    ("AAVE", "0.01", "0.001"),
    ("ALGO", "0.00001", "1"),
    ("HBAR", "0.00001", "1"),
    ("SUI", "0.0001", "0.1"),
    ("INJ", "0.001", "0.01"),
    ("GRT", "0.0001", "1"),
    ("SAND", "0.0001", "1"),
    ("MANA", "0.0001", "1"),
    ("AXS", "0.001", "0.01"),
    ("THETA", "0.0001", "0.1"),
    ("EGLD", "0.01", "0.01"),
    ("RUNE", "0.001", "0.1"),
    ("CRV", "0.0001", "0.1"),
    ("LDO", "0.0001", "0.01"),
    ("IMX", "0.0001", "0.01"),
    ("DYDX", "0.0001", "0.01"),
    ("SNX", "0.0001", "0.1"),
    ("COMP", "0.01", "0.001"),
    ("ZEC", "0.01", "0.001"),
    ("DASH", "0.01", "0.001"),
    ("NEO", "0.001", "0.01"),
    ("QTUM", "0.001", "0.1"),
    ("KSM", "0.01", "0.001"),
    ("GALA", "0.00001", "1"),
    ("FET", "0.0001", "0.1"),
    ("TIA", "0.0001", "0.01"),
    ("SEI", "0.0001", "0.1"),
)
"""Further bases against USDT, with their tick and step."""

SYMBOLS: Final[dict[str, SymbolRules]] = {
    rules.symbol: rules
    for rules in (
        _rules("BTC", "USDT", tick="0.01", step="0.00001", max_price="1000000", max_quantity="9000"),
        _rules("ETH", "USDT", tick="0.01", step="0.0001", max_price="1000000", max_quantity="9000"),
        _rules("BNB", "USDT", tick="0.01", step="0.001", max_price="100000", max_quantity="900000"),
        _rules("SOL", "USDT", tick="0.01", step="0.001", max_price="10000", max_quantity="90000"),
        _rules("XRP", "USDT", tick="0.0001", step="0.1", max_price="10000", max_quantity="9222449"),
        _rules("BTC", "USDC", tick="0.01", step="0.00001", max_price="1000000", max_quantity="9000"),
        *(
            _rules(base, "USDT", tick=tick, step=step, max_price="100000", max_quantity="900000")
            for base, tick, step in _OTHERS
        ),
    )
}
