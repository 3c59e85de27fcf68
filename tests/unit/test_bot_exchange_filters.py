"""Filters: whatever is rounded or planned is accepted by the exchange's own rules, exactly."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.bot_orders import bot_settings
from support.order_reports import order_report
from support.symbol_rules import btcusdt_rules
from tradingbot.gateway import filters
from tradingbot.gateway.filters import FilterCode, FilterRefusal
from tradingbot.model import LotFilter, OrderReport, OrderType, Side
from tradingbot.orders.planning import EntryPlan, plan_entry, smallest_quantity

RULES = btcusdt_rules()
SETTINGS = bot_settings("http://paper")
FOREIGN = order_report("somebody-else", side=Side.BUY)
SALES = [replace(FOREIGN, side=Side.SELL)] * 198
CONDITIONAL = [replace(FOREIGN, type=OrderType.TAKE_PROFIT)] * 5
LISTED = [replace(FOREIGN, order_list_id=number) for number in range(20)]
amounts = st.decimals(min_value="0.00000001", max_value="1000", places=8)
prices = st.decimals(min_value="1", max_value="900000", places=8)


@given(amounts)
def test_floored_quantity_is_the_largest_multiple_of_the_step(quantity: Decimal) -> None:
    floored = filters.floor_quantity(RULES, quantity)

    assert floored % RULES.lot.step == 0
    assert quantity - RULES.lot.step < floored <= quantity


@given(prices)
def test_floored_and_ceiled_prices_are_the_neighbouring_ticks(price: Decimal) -> None:
    below, above = filters.floor_price(RULES, price), filters.ceil_price(RULES, price)

    assert below <= price <= above
    assert above - below in {Decimal(0), RULES.price.tick}
    assert filters.check_price(RULES, below) is None
    assert filters.check_price(RULES, above) is None


@pytest.mark.parametrize(("tick", "exact"), [("0.01", True), ("0.001", True), ("0.0001", False), ("0", False)], ids=str)
def test_the_quote_of_a_fill_is_exact_where_no_price_and_quantity_give_more_than_eight_decimals(
    tick: str, exact: bool
) -> None:
    rules = replace(RULES, price=replace(RULES.price, tick=Decimal(tick)))
    assert filters.exact_quote(rules) is exact


def test_a_zero_step_switches_rounding_off() -> None:
    rules = replace(RULES, lot=LotFilter(Decimal(0), Decimal(0), Decimal(0)))

    assert filters.floor_quantity(rules, Decimal("0.123456789")) == Decimal("0.123456789")


def test_the_step_is_counted_from_zero_not_from_the_minimum() -> None:
    rules = replace(RULES, lot=LotFilter(Decimal("0.15"), Decimal(100), Decimal("0.1")))

    assert filters.check_quantity(rules, Decimal("0.2")) is None
    refusal = filters.check_quantity(rules, Decimal("0.25"))
    assert refusal is not None
    assert refusal.code is FilterCode.LOT_SIZE


def room(others: list[OrderReport], held: str = "0") -> FilterRefusal | None:
    """For one more entry of 1 BTC, where 10 may be held."""
    return filters.check_room(replace(RULES, max_position=Decimal(10)), others, Decimal(held), Decimal(1))


@pytest.mark.parametrize("stops", range(5))
def test_an_entry_beside_orders_of_others_has_room_up_to_the_limits(stops: int) -> None:
    others = [replace(FOREIGN, type=OrderType.STOP_LOSS, side=Side.SELL)] * stops + [FOREIGN]
    assert room(others, held="8") is None


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        pytest.param(filters.check_price(RULES, Decimal("1.001")), FilterCode.PRICE_FILTER, id="tick"),
        pytest.param(filters.check_price(RULES, Decimal("2000000")), FilterCode.PRICE_FILTER, id="highest-price"),
        pytest.param(filters.check_quantity(RULES, Decimal("10000")), FilterCode.LOT_SIZE, id="largest-quantity"),
        pytest.param(filters.check_quantity(RULES, Decimal(0)), FilterCode.LOT_SIZE, id="nothing"),
        pytest.param(filters.check_notional(RULES, Decimal(10), Decimal("0.1")), FilterCode.NOTIONAL, id="notional"),
        pytest.param(
            filters.check_percent_price(RULES, Side.BUY, Decimal(600), Decimal(100)),
            FilterCode.PERCENT_PRICE_BY_SIDE,
            id="band",
        ),
        pytest.param(room(SALES), FilterCode.MAX_NUM_ORDERS, id="orders"),
        pytest.param(room(CONDITIONAL), FilterCode.MAX_NUM_ALGO_ORDERS, id="stops"),
        pytest.param(room(LISTED), FilterCode.MAX_NUM_ORDER_LISTS, id="lists"),
        pytest.param(room([FOREIGN], held=Decimal("8.5")), FilterCode.MAX_POSITION, id="position"),
    ],
)
def test_each_filter_refuses_under_its_own_name(refusal: FilterRefusal | None, code: FilterCode) -> None:
    assert refusal is not None
    assert refusal.code is code
    assert "expected" in refusal.message


@given(
    st.decimals(min_value="0.0001", max_value="5", places=8),
    st.decimals(min_value="10", max_value="500000", places=2),
    st.decimals(min_value="0", max_value="0.002", places=4),
    st.decimals(min_value="0", max_value="0.00000999", places=8),
)
def test_a_planned_entry_passes_every_filter_and_its_legs_are_covered_by_what_it_brings(
    quantity: Decimal, ask: Decimal, taker: Decimal, dust: Decimal
) -> None:
    plan = plan_entry(RULES, SETTINGS, quantity=quantity, ask=ask, taker_rate=taker, held=dust)

    if isinstance(plan, FilterRefusal):
        assert plan.code in {FilterCode.NOTIONAL, FilterCode.LOT_SIZE}
        return
    pair = plan.protection
    received = plan.quantity * (1 - taker) + dust
    assert received - RULES.lot.step < pair.quantity <= received
    assert ask <= plan.limit_price + RULES.price.tick
    assert plan.limit_price <= ask * (1 + SETTINGS.entry.max_slippage_ratio)
    assert pair.stop_price < ask < pair.take_profit_price
    assert pair.stop_price * pair.quantity >= RULES.notional.min_notional


def test_an_entry_that_could_not_be_sold_at_its_stop_is_not_planned() -> None:
    plan = plan_entry(
        RULES, SETTINGS, quantity=Decimal("0.05"), ask=Decimal("100.50"), taker_rate=Decimal("0.001"), held=Decimal(0)
    )

    assert isinstance(plan, FilterRefusal)
    assert plan.code is FilterCode.NOTIONAL


def test_a_symbol_without_market_stops_gets_a_stop_with_a_limit_below() -> None:
    rules = replace(RULES, order_types=RULES.order_types - {OrderType.STOP_LOSS})
    plan = plan_entry(
        rules, SETTINGS, quantity=Decimal(1), ask=Decimal(100), taker_rate=Decimal("0.001"), held=Decimal(0)
    )

    assert isinstance(plan, EntryPlan)
    assert plan.protection.stop_limit_price is not None
    assert plan.protection.stop_limit_price < plan.protection.stop_price


@given(
    prices,
    st.decimals(min_value="0.0001", max_value="0.5", places=4),
    st.decimals(min_value=0, max_value="0.01", places=4),
)
def test_the_smallest_quantity_passes_every_filter_on_its_way_in_and_out(
    price: Decimal, stop_ratio: Decimal, taker_rate: Decimal
) -> None:
    settings = bot_settings("http://paper", stopLossRatio=f"{stop_ratio:f}")
    quantity = smallest_quantity(RULES, settings, price, taker_rate)

    plan = plan_entry(RULES, settings, quantity=quantity, ask=price, taker_rate=taker_rate, held=Decimal(0))

    assert isinstance(plan, EntryPlan), plan
    assert plan.quantity * price <= max(4 * RULES.notional.min_notional, 5 * RULES.lot.step * price)
