"""Exact rounding to a symbol's filters and the checks that the exchange will make (Binance Spot API, filters.md).

Binance checks `x % step == 0` since 2023 (not `(x - min) % step`), and a zero switches a part of a filter off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum
from typing import Final

from tradingbot.model import NO_LIST, LotFilter, OrderReport, Side, SymbolRules

BALANCE_STEP: Final = Decimal("1e-8")
"""A balance of Binance has eight decimals."""


class FilterCode(StrEnum):
    """Which filter refuses; Binance's names."""

    PRICE_FILTER = "PRICE_FILTER"
    LOT_SIZE = "LOT_SIZE"
    MARKET_LOT_SIZE = "MARKET_LOT_SIZE"
    NOTIONAL = "NOTIONAL"
    PERCENT_PRICE_BY_SIDE = "PERCENT_PRICE_BY_SIDE"
    TRAILING_DELTA = "TRAILING_DELTA"
    MAX_NUM_ORDERS = "MAX_NUM_ORDERS"
    MAX_NUM_ALGO_ORDERS = "MAX_NUM_ALGO_ORDERS"
    MAX_NUM_ORDER_LISTS = "MAX_NUM_ORDER_LISTS"
    MAX_POSITION = "MAX_POSITION"


@dataclass(frozen=True, slots=True)
class FilterRefusal:
    """Why the exchange would refuse: the filter, the value, and what was expected."""

    code: FilterCode
    message: str


def _to_step(value: Decimal, step: Decimal, rounding: str) -> Decimal:
    return value if step == 0 else (value / step).to_integral_value(rounding) * step


def floor_price(rules: SymbolRules, price: Decimal) -> Decimal:
    """The highest allowed price that is not above `price`."""
    return _to_step(price, rules.price.tick, ROUND_FLOOR)


def ceil_price(rules: SymbolRules, price: Decimal) -> Decimal:
    """The lowest allowed price that is not below `price`."""
    return _to_step(price, rules.price.tick, ROUND_CEILING)


def floor_quantity(rules: SymbolRules, quantity: Decimal) -> Decimal:
    """The largest quantity of whole steps that is not above `quantity`; it may still be below the minimum."""
    return _to_step(quantity, rules.lot.step, ROUND_FLOOR)


def floor_market_quantity(rules: SymbolRules, quantity: Decimal) -> Decimal:
    """The same for a MARKET order, whose step may be coarser and whose maximum smaller."""
    coarsest = max(rules.lot.step, rules.market_lot.step)
    limit = rules.market_lot.max_quantity
    return _to_step(min(quantity, limit) if limit > 0 else quantity, coarsest, ROUND_FLOOR)


def dust_limit(rules: SymbolRules) -> Decimal:
    """The base quantity below which no order can be placed, whatever the price."""
    return max(rules.lot.min_quantity, rules.lot.step)


def exact_quote(rules: SymbolRules) -> bool:
    """Whether price times quantity never has more decimals than a balance, so that nothing is rounded."""
    smallest = rules.price.tick * rules.lot.step
    return smallest > 0 and smallest % BALANCE_STEP == 0


def sellable(rules: SymbolRules, quantity: Decimal, price: Decimal) -> bool:
    """Whether `quantity`, floored to the step, passes LOT_SIZE and NOTIONAL at `price`."""
    floored = floor_quantity(rules, quantity)
    return floored > 0 and floored >= rules.lot.min_quantity and floored * price >= rules.notional.min_notional


def check_price(rules: SymbolRules, price: Decimal, name: str = "price") -> FilterRefusal | None:
    """PRICE_FILTER; also of stop prices."""
    limits = rules.price
    if limits.min_price and price < limits.min_price:
        return FilterRefusal(FilterCode.PRICE_FILTER, f"{name} {price}: expected at least {limits.min_price}")
    if limits.max_price and price > limits.max_price:
        return FilterRefusal(FilterCode.PRICE_FILTER, f"{name} {price}: expected at most {limits.max_price}")
    if limits.tick and price % limits.tick:
        return FilterRefusal(FilterCode.PRICE_FILTER, f"{name} {price}: expected a multiple of {limits.tick}")
    return None


def check_quantity(rules: SymbolRules, quantity: Decimal, *, market: bool = False) -> FilterRefusal | None:
    """LOT_SIZE, and MARKET_LOT_SIZE for a MARKET order."""
    if quantity <= 0:
        return FilterRefusal(FilterCode.LOT_SIZE, f"quantity {quantity}: expected more than 0")
    refusal = _check_lot(rules.lot, quantity, FilterCode.LOT_SIZE)
    if refusal is None and market:
        refusal = _check_lot(rules.market_lot, quantity, FilterCode.MARKET_LOT_SIZE)
    return refusal


def _check_lot(lot: LotFilter, quantity: Decimal, code: FilterCode) -> FilterRefusal | None:
    if lot.min_quantity and quantity < lot.min_quantity:
        return FilterRefusal(code, f"quantity {quantity}: expected at least {lot.min_quantity}")
    if lot.max_quantity and quantity > lot.max_quantity:
        return FilterRefusal(code, f"quantity {quantity}: expected at most {lot.max_quantity}")
    if lot.step and quantity % lot.step:
        return FilterRefusal(code, f"quantity {quantity}: expected a multiple of {lot.step}")
    return None


def check_notional(
    rules: SymbolRules, price: Decimal, quantity: Decimal, *, market: bool = False
) -> FilterRefusal | None:
    """NOTIONAL; for a MARKET order `price` is the average price that the exchange uses."""
    limits = rules.notional
    value = price * quantity
    if (not market or limits.apply_min_to_market) and value < limits.min_notional:
        return FilterRefusal(FilterCode.NOTIONAL, f"{quantity} x {price} = {value}: expected {limits.min_notional}")
    if limits.max_notional and (not market or limits.apply_max_to_market) and value > limits.max_notional:
        return FilterRefusal(FilterCode.NOTIONAL, f"{quantity} x {price} = {value}: at most {limits.max_notional}")
    return None


def check_percent_price(rules: SymbolRules, side: Side, price: Decimal, average: Decimal) -> FilterRefusal | None:
    """PERCENT_PRICE_BY_SIDE against the average price."""
    band = rules.percent_price
    if band is None:
        return None
    up, down = (band.bid_up, band.bid_down) if side is Side.BUY else (band.ask_up, band.ask_down)
    if not average * down <= price <= average * up:
        return FilterRefusal(
            FilterCode.PERCENT_PRICE_BY_SIDE, f"price {price}: expected {average * down} to {average * up}"
        )
    return None


def check_trailing_delta(rules: SymbolRules, delta: int | None) -> FilterRefusal | None:
    """TRAILING_DELTA of a stop that sells, in 1/100 of a percent; None does not trail."""
    if delta is None:
        return None
    allowed = rules.trailing_delta
    if allowed is None:
        return FilterRefusal(FilterCode.TRAILING_DELTA, f"{rules.symbol} has no trailing stops")
    if allowed.smallest <= delta <= allowed.largest:
        return None
    message = f"trailing delta {delta} is not within {allowed.smallest} and {allowed.largest} hundredths of a percent"
    return FilterRefusal(FilterCode.TRAILING_DELTA, message)


def check_room(
    rules: SymbolRules, others: Sequence[OrderReport], held: Decimal, quantity: Decimal
) -> FilterRefusal | None:
    """MAX_NUM_* and MAX_POSITION, for an entry of `quantity` with its pair: three orders, one a stop, in a list.

    `others` are the account's open orders on the symbol, `held` is its base, free and locked.
    """
    conditional = sum(order.type.is_conditional for order in others)
    lists = {order.order_list_id for order in others} - {NO_LIST}
    for code, count, limit in (
        (FilterCode.MAX_NUM_ORDERS, len(others) + 3, rules.max_orders),
        (FilterCode.MAX_NUM_ALGO_ORDERS, conditional + 1, rules.max_algo_orders),
        (FilterCode.MAX_NUM_ORDER_LISTS, len(lists) + 1, rules.max_order_lists),
    ):
        if limit is not None and count > limit:
            return FilterRefusal(code, f"{count} open with this entry: expected at most {limit}")
    buying = sum(order.quantity - order.executed_quantity for order in others if order.side is Side.BUY)
    position = held + buying + quantity
    if rules.max_position is not None and position > rules.max_position:
        asset = rules.base_asset
        return FilterRefusal(
            FilterCode.MAX_POSITION, f"{position} {asset} with this entry: expected at most {rules.max_position}"
        )
    return None
