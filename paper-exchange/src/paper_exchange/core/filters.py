"""The filters of a symbol: which orders the exchange refuses before it looks at money."""

from __future__ import annotations

from paper_exchange.core.errors import WOULD_TRIGGER, filter_failure, rejected
from paper_exchange.core.model import Order, OrderType, Side
from paper_exchange.core.requests import NewOrder
from paper_exchange.core.symbols import SymbolRules
from paper_exchange.core.units import product


def check_static(rules: SymbolRules, order: NewOrder | Order, average: int | None, sized: bool = True) -> None:
    """Filters that need nothing but the order and the average price (units; None while nothing has traded).

    Of an order that is not `sized` only the prices are checked.
    """
    for price in (order.price, order.stop_price):
        if price and not _keeps(price, rules.tick, rules.min_price, rules.max_price):
            raise filter_failure("PRICE_FILTER")
    if order.price and average is not None:
        _check_percent(rules, order, average)
    if order.trailing_delta and not rules.min_trailing_delta <= order.trailing_delta <= rules.max_trailing_delta:
        raise filter_failure("TRAILING_DELTA")
    if sized:
        check_quantity(rules, order, average)


def _keeps(value: int, step: int, least: int, most: int) -> bool:
    """Whether a value is a multiple of the step and within the bounds; any of the three is off when it is 0."""
    return not (step and value % step) and value >= least and (not most or value <= most)


def _check_percent(rules: SymbolRules, order: NewOrder | Order, average: int) -> None:
    up, down = rules.percent_up, rules.percent_down
    if up and not average * down <= order.price <= average * up:
        raise filter_failure("PERCENT_PRICE")
    buying = order.side is Side.BUY
    up = rules.bid_multiplier_up if buying else rules.ask_multiplier_up
    down = rules.bid_multiplier_down if buying else rules.ask_multiplier_down
    if not average * down <= order.price <= average * up:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def check_quantity(rules: SymbolRules, order: NewOrder | Order, average: int | None) -> None:
    """The filters that look at the quantity of an order."""
    if not order.quote_quantity:
        for quantity in (order.quantity, *((order.iceberg_quantity,) if order.iceberg_quantity else ())):
            if not _keeps(quantity, rules.step, rules.min_quantity, rules.max_quantity):
                raise filter_failure("LOT_SIZE")
        if order.type is OrderType.MARKET:
            check_market_lot(rules, order.quantity)
    if order.iceberg_quantity and -(-order.quantity // order.iceberg_quantity) > rules.max_iceberg_parts:
        raise filter_failure("ICEBERG_PARTS")
    _check_notional(rules, order, average)


def check_market_lot(rules: SymbolRules, quantity: int) -> None:
    """The quantity of a MARKET order, also of one by quote amount."""
    if not _keeps(quantity, rules.market_step, rules.market_min_quantity, rules.max_market_quantity):
        raise filter_failure("MARKET_LOT_SIZE")


def _check_notional(rules: SymbolRules, order: NewOrder | Order, average: int | None) -> None:
    """An order without a price is measured by its trigger, a MARKET order by the average price."""
    reference = order.price or order.stop_price or average
    if not order.quote_quantity and reference is None:
        return
    notional = order.quote_quantity or product(reference or 0, order.quantity)
    if notional < rules.only_min_notional:
        raise filter_failure("MIN_NOTIONAL")
    if notional < rules.min_notional:
        raise filter_failure("NOTIONAL")
    if order.type is not OrderType.MARKET and notional > rules.max_notional:
        raise filter_failure("NOTIONAL")


def check_trigger(order: NewOrder, last: int | None) -> None:
    """A conditional order must not be triggered by the last traded price already."""
    if order.type.conditional and last is not None and would_trigger(order.type, order.side, order.stop_price, last):
        raise rejected(WOULD_TRIGGER)


def triggers_rising(kind: OrderType, side: Side) -> bool:
    """Whether the order waits for the price to rise: a buy stop or a sell take profit."""
    return kind.stop == (side is Side.BUY)


def would_trigger(kind: OrderType, side: Side, stop_price: int, last: int) -> bool:
    """Whether the last traded price meets the stop price; a trailing stop may have none."""
    if not stop_price:
        return False
    return last >= stop_price if triggers_rising(kind, side) else last <= stop_price
