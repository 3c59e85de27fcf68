"""Plans of entries and their protection: to the last digit, and refused by the filter that the exchange would name."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from unittest.mock import Mock, call

import pytest

from support.bot_orders import bot_settings
from support.symbol_rules import btcusdt_rules
from tradingbot.gateway.filters import FilterCode, FilterRefusal
from tradingbot.gateway.port import NewOrder, NewProtection
from tradingbot.model import (
    BookTicker,
    LotFilter,
    OrderType,
    PercentPriceFilter,
    PriceFilter,
    Side,
    SymbolRules,
    TimeInForce,
)
from tradingbot.orders.planning import (
    EntryPlan,
    ProtectionPlan,
    entry_order,
    plan_entry,
    plan_protection,
    protection_pair,
    sale_order,
    smallest_quantity,
    stop_limit,
    stop_order,
)
from tradingbot.orders.sizing import size_entry
from tradingbot.recovery.fence import ClientIds
from tradingbot.risk.risk_manager import Funds, Refusal, Refused, RiskManager, Size
from tradingbot.state.ledger import LedgerState, Lot

RULES = btcusdt_rules()
NO_MARKET_STOPS = replace(RULES, order_types=RULES.order_types - {OrderType.STOP_LOSS})
SETTINGS = bot_settings("http://paper", stopLossRatio="0.02", takeProfitRatio="0.03", trailingRatio="0.0125")
TAKER = Decimal("0.001")


def plan(rules: SymbolRules = RULES, quantity: str = "0.1234567", ask: str = "100.005") -> EntryPlan | FilterRefusal:
    """An entry beside 0.00002 that are held already."""
    return plan_entry(
        rules, SETTINGS, quantity=Decimal(quantity), ask=Decimal(ask), taker_rate=TAKER, held=Decimal("0.00002")
    )


def test_an_entry_and_its_pair_are_planned_on_the_symbols_steps() -> None:
    pair = ProtectionPlan(
        quantity=Decimal("0.12334"),  # 0.12345 less the fee, and what was held
        stop_price=Decimal("98.00"),
        stop_limit_price=None,
        take_profit_price=Decimal("103.01"),
        trailing_delta=125,
    )
    assert plan() == EntryPlan(Decimal("0.12345"), Decimal("100.10"), pair)
    limited = replace(pair, stop_limit_price=Decimal("97.02"))
    assert plan(NO_MARKET_STOPS) == EntryPlan(Decimal("0.12345"), Decimal("100.10"), limited)


def test_a_stop_that_does_not_follow_the_price_has_no_distance() -> None:
    settings = bot_settings("http://paper", stopLossRatio="0.02", takeProfitRatio="0.03")
    assert plan_protection(RULES, settings, Decimal(1), Decimal(100)).trailing_delta is None


def test_a_stop_without_a_market_sells_down_to_one_percent_below_its_trigger() -> None:
    assert stop_limit(RULES, Decimal(98)) is None
    assert stop_limit(NO_MARKET_STOPS, Decimal("98.01")) == Decimal("97.02")


def prices(**changes: str) -> SymbolRules:
    return replace(RULES, price=replace(RULES.price, **{name: Decimal(value) for name, value in changes.items()}))


def band(*factors: str) -> SymbolRules:
    return replace(RULES, percent_price=PercentPriceFilter(*(Decimal(factor) for factor in factors)))


@pytest.mark.parametrize(
    ("rules", "quantity", "code", "message"),
    [
        (prices(min_price="100.11"), "1", FilterCode.PRICE_FILTER, "price 100.10: expected at least"),
        (prices(min_price="98.01"), "1", FilterCode.PRICE_FILTER, "stop price 98.00: expected at least"),
        (prices(max_price="103.00"), "1", FilterCode.PRICE_FILTER, "take-profit price 103.01: expected at most"),
        (RULES, "0.000009", FilterCode.LOT_SIZE, "quantity 0.00000: expected more than 0"),
        (RULES, "0.04", FilterCode.NOTIONAL, "0.04 x 100.10 = 4.0040: expected 5"),
        (RULES, "0.051", FilterCode.NOTIONAL, "0.05096 x 98.00 = 4.9940800: expected 5"),
        (NO_MARKET_STOPS, "0.0515", FilterCode.NOTIONAL, "0.05146 x 97.02 = 4.9926492: expected 5"),
        (replace(RULES, lot=LotFilter(Decimal("0.1"), Decimal(9), Decimal("0.00001"))), "0.1", FilterCode.LOT_SIZE,
         "quantity 0.09992: expected at least 0.1"),
        (replace(RULES, trailing_delta=None), "1", FilterCode.TRAILING_DELTA, "BTCUSDT has no trailing stops"),
        (band("1.0009", "0.2", "5", "0.2"), "1", FilterCode.PERCENT_PRICE_BY_SIDE, "price 100.10: expected"),
        (band("5", "0.2", "1.03", "0.2"), "1", FilterCode.PERCENT_PRICE_BY_SIDE, "price 103.01: expected"),
        (band("5", "0.2", "5", "0.98"), "1", FilterCode.PERCENT_PRICE_BY_SIDE, "price 98.00: expected"),
        (replace(band("5", "0.2", "5", "0.975"), order_types=NO_MARKET_STOPS.order_types), "1",
         FilterCode.PERCENT_PRICE_BY_SIDE, "price 97.02: expected"),
    ],
)  # fmt: skip
def test_an_entry_that_the_exchange_would_refuse_in_any_of_its_three_orders_is_not_planned(
    rules: SymbolRules, quantity: str, code: FilterCode, message: str
) -> None:
    refusal = plan(rules, quantity)
    assert isinstance(refusal, FilterRefusal), refusal
    assert refusal.code is code
    assert refusal.message.startswith(message)


@pytest.mark.parametrize(
    ("changes", "price", "taker", "smallest"),
    [
        # 5 / 98 = 0.0510204..., over 0.999 is 0.0510715...
        ({}, "100", "0.001", "0.05109"),
        ({}, "100", "0", "0.05104"),
        # 5 / 97.02 = 0.0515357..., over 0.999 is 0.0515873...
        ({"order_types": NO_MARKET_STOPS.order_types}, "100", "0.001", "0.05160"),
        ({"lot": LotFilter(Decimal("0.06"), Decimal(9), Decimal("0.01"))}, "100", "0.001", "0.08"),
        ({"lot": LotFilter(Decimal("0.06"), Decimal(9), Decimal(0))}, "100", "0.25", "0.08000002"),
        # The stop is below the first tick: what is bought is measured at the price itself.
        ({"price": PriceFilter(Decimal(0), Decimal(0), Decimal(1))}, "1", "0", "5.00002"),
    ],
)
def test_the_smallest_purchase_leaves_enough_to_sell_at_the_stop_and_two_steps(
    changes: dict[str, Any], price: str, taker: str, smallest: str
) -> None:
    quantity = smallest_quantity(replace(RULES, **changes), SETTINGS, Decimal(price), Decimal(taker))
    assert quantity == Decimal(smallest)


@pytest.mark.parametrize("used_up", [False, True])
def test_an_entry_is_sized_by_what_books_and_account_have_and_a_limit_that_is_used_up_is_noted(used_up: bool) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    dust = LedgerState(
        "BTC", "USDT", Decimal("0.001"), lots=(Lot(Decimal("0.0005"), Decimal(80)),), gross_realized=Decimal(-3)
    )
    size = Refused(Refusal.DAILY_LOSS_AT_STOP, "") if used_up else Size(Decimal(2), Decimal(101), "")
    risk = Mock(spec_set=RiskManager)
    risk.calculate_position_size.return_value = size
    one = Decimal(1)
    book = BookTicker("BTCUSDT", Decimal(100), one, Decimal(101), one, 0.0)
    assert size is size_entry(
        risk, RULES, dust, capital=Decimal(1000), quote_free=Decimal(7), book=book, taker_rate=TAKER, now=now
    )
    equity = Decimal(1000) - 3 + Decimal("0.01") - Decimal("0.00005")
    funds = Funds(Decimal(7), Decimal("0.04"), equity, Decimal("0.04995"), TAKER)
    told = [call.update_equity(equity, now), call.calculate_position_size(RULES, Decimal(101), funds)]
    assert risk.mock_calls == told + [call.record_used_up("DailyLossAtStop", now)] * used_up


def test_a_purchase_is_limited_to_its_collar() -> None:
    planned = EntryPlan(Decimal(2), Decimal("100.1"), ProtectionPlan(Decimal(1), Decimal(98), None, Decimal(103)))
    assert entry_order("BTCUSDT", "a", planned, TimeInForce.FOK) == NewOrder(
        "BTCUSDT",
        "a",
        Side.BUY,
        OrderType.LIMIT,
        Decimal(2),
        price=Decimal("100.1"),
        time_in_force=TimeInForce.FOK,
    )


def test_both_legs_of_a_pair_share_a_sequence_number() -> None:
    ids = ClientIds("abcdefghij", 7, 0)
    planned = ProtectionPlan(Decimal(1), Decimal(98), Decimal(97), Decimal(103), 125)
    assert protection_pair(planned, partial(ids.make, 5)) == NewProtection(
        quantity=Decimal(1),
        take_profit_client_id="tb-abcdefghij-0000007-000005-tp",
        take_profit_price=Decimal(103),
        stop_client_id="tb-abcdefghij-0000007-000005-sl",
        stop_price=Decimal(98),
        stop_limit_price=Decimal(97),
        trailing_delta=125,
    )


def test_a_stop_alone_follows_the_price_or_has_one_and_sells_at_the_market_where_the_symbol_lets_it() -> None:
    following = ProtectionPlan(Decimal(1), Decimal(98), Decimal(97), Decimal(103), 125)
    assert stop_order("BTCUSDT", "a", following) == NewOrder(
        "BTCUSDT",
        "a",
        Side.SELL,
        OrderType.STOP_LOSS_LIMIT,
        Decimal(1),
        price=Decimal(97),
        trailing_delta=125,
        time_in_force=TimeInForce.GTC,
    )
    fixed = ProtectionPlan(Decimal(1), Decimal(98), None, Decimal(103))
    assert stop_order("BTCUSDT", "a", fixed) == NewOrder(
        "BTCUSDT", "a", Side.SELL, OrderType.STOP_LOSS, Decimal(1), stop_price=Decimal(98)
    )


def test_a_sale_stays_inside_the_collar_below_the_bid_and_at_the_market_within_what_that_takes() -> None:
    ratio = Decimal("0.002")
    assert sale_order(RULES, "a", Decimal(150), bid=Decimal("100.009"), max_slippage_ratio=ratio) == NewOrder(
        "BTCUSDT",
        "a",
        Side.SELL,
        OrderType.LIMIT,
        Decimal(150),
        price=Decimal("99.80"),
        time_in_force=TimeInForce.IOC,
    )
    assert sale_order(RULES, "a", Decimal(150), bid=None, max_slippage_ratio=ratio) == NewOrder(
        "BTCUSDT", "a", Side.SELL, OrderType.MARKET, Decimal(100)
    )
