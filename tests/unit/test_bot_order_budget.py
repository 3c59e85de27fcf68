"""The budget of new orders: entries stop before the account's limit, and what reduces risk never waits for them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.paper_rest import RestDesk
from tradingbot.gateway.errors import RateLimitedError, TooManyOrdersError, classify_answer
from tradingbot.gateway.order_limits import HEADER, ORDERS, USUAL_LIMITS, OrderBudget, OrderBudgetError, OrderLimit
from tradingbot.gateway.payloads import order_limits
from tradingbot_api.bot_http import ENTRY_ORDERS, ENTRY_ORDERS_PART, ORDER_SETTLE_SECONDS

NOW = 1_700_000_040_000
"""The beginning of a minute."""
WINDOW_MS = 10_000


class Account:
    """A bot's budget, and time that a test moves."""

    def __init__(self, limit: int = 100) -> None:
        self.seconds = 0.0
        self.budget = OrderBudget(lambda: self.seconds)
        self.budget.limits = {**USUAL_LIMITS, "10S": OrderLimit(limit, WINDOW_MS)}

    @property
    def now_ms(self) -> int:
        return NOW + round(self.seconds * 1000)

    def told(self, count: int, interval: str = "10S") -> None:
        self.budget.observe({HEADER + interval: str(count)}, self.now_ms)

    def enter(self, orders: int = 3) -> bool:
        """Whether it was sent; it is answered at once."""
        try:
            self.budget.check(orders, self.now_ms)
        except OrderBudgetError:
            return False
        self.budget.sent(orders, allotted=True)
        self.budget.answered(orders)
        return True


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 6), st.integers(0, 40)), max_size=80), st.integers(5, 100))
def test_whatever_others_send_no_entry_goes_beyond_its_part_of_what_the_exchange_tells(
    entries: list[tuple[int, float, int]], limit: int
) -> None:
    it, window, used = Account(limit), -1, 0
    for orders, later, others in entries:
        it.seconds += later
        if it.now_ms // WINDOW_MS != window:
            window, used = it.now_ms // WINDOW_MS, 0
        used += others
        it.told(used)
        if it.enter(orders):
            used += orders
            assert used <= limit * ENTRY_ORDERS_PART


def test_a_day_that_is_used_up_for_entries_stops_them_until_it_is_over() -> None:
    it = Account()
    it.told(119_998, "1D")
    assert not it.enter(3)
    assert it.enter(2)
    it.seconds = 86_400
    assert it.enter(3)


def test_what_was_told_of_the_former_interval_is_past_and_what_is_under_way_counts() -> None:
    it = Account(limit=10)
    it.told(6)
    assert not it.enter(1)
    it.seconds = 10
    it.budget.sent(4, allotted=False)
    assert not it.enter(3), "a pair and two sales are under way"
    it.budget.answered(4)
    assert it.enter(3)


def test_the_first_interval_names_why_an_entry_waits_and_for_how_long() -> None:
    it = Account()
    it.told(58)
    it.seconds = 4
    with pytest.raises(OrderBudgetError, match=r"58 orders of 100 in 10S, 60 are for entries; they go on in 6 s"):
        it.budget.check(3, it.now_ms)


def test_an_allotment_is_kept_to_for_as_long_as_orders_may_count_together() -> None:
    it = Account()
    it.budget.allot(ENTRY_ORDERS, 60)
    assert it.enter(3)
    assert not it.enter(3)
    assert it.enter(1), "the part that a thin book has"
    it.seconds = ORDER_SETTLE_SECONDS - 0.1
    assert not it.enter(3)
    it.seconds = ORDER_SETTLE_SECONDS
    assert it.enter(3)
    it.seconds = 60
    assert not it.enter(3), "the allotment is over"
    it.budget.check(1, it.now_ms, allotted=False)
    it.budget.allot(None, 60)
    assert it.enter(3), "an operator that allots none"


def test_after_a_refusal_entries_wait_until_the_interval_is_over_and_it_is_told_on_unchanged() -> None:
    it = Account()
    it.budget.refuse(7, it.now_ms)
    end = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(seconds=7)
    assert it.budget.use(it.now_ms).refused_until_time == end
    other = Account()
    other.seconds = 2
    other.budget.hold(end, 5)
    assert other.budget.use(other.now_ms).refused_until_time == end
    other.seconds = it.seconds = 6.9
    assert not it.enter()
    assert not other.enter()
    other.seconds = it.seconds = 7
    assert it.enter()
    assert other.enter()
    assert other.budget.use(other.now_ms).refused_until_time is None


def test_an_order_of_others_that_is_heard_late_makes_none_forgotten_that_came_after_it() -> None:
    it = Account(limit=10)
    for _ in range(6):
        it.budget.hear(it.now_ms)
    it.budget.hear(it.now_ms - 1)  # over a connection that is being replaced
    assert it.budget.spare(it.now_ms) == 10 - 7
    assert not it.enter(1)


def test_what_is_left_for_a_sale_is_the_whole_limit_less_what_answers_told() -> None:
    it = Account(limit=10)
    assert it.budget.spare(it.now_ms) == 10
    it.told(8)
    it.budget.allot(0, 60)
    it.budget.refuse(5, it.now_ms)
    assert it.budget.spare(it.now_ms) == 2, "neither an allotment nor a refused entry keeps a position from its sale"


async def test_an_entry_that_lacks_an_allotment_asks_and_goes_on_as_soon_as_it_has_one() -> None:
    it, told = Account(), []

    def changed() -> None:
        use = it.budget.use(it.now_ms)
        told.append((use.asks, use.wanted))

    await it.budget.wait(60, changed)
    assert told == [], "nobody allots"
    it.budget.allot(0, 60)
    waiting = asyncio.create_task(it.budget.wait(60, changed))
    await asyncio.sleep(0)
    it.budget.allot(0, 60)
    await asyncio.sleep(0)
    assert not waiting.done()
    it.budget.allot(ENTRY_ORDERS, 10)
    await waiting
    assert told == [(True, ENTRY_ORDERS), (False, 0)]
    it.budget.allot(0, 60)
    await it.budget.wait(0.01, changed)
    assert not it.enter(3)


def test_limits_and_the_names_of_their_headers_are_those_of_the_exchange() -> None:
    desk = RestDesk()
    limits = order_limits(desk.send("GET", "/api/v3/exchangeInfo").body)
    assert limits == USUAL_LIMITS
    headers = desk.place().headers
    assert {HEADER + name for name in limits} <= headers.keys()
    for path, orders in ORDERS.items():
        assert desk.api.routes["POST", f"/api/v3/{path}"].orders == orders, path


def test_too_many_orders_are_no_failure_of_the_exchange_and_no_wait_of_the_address() -> None:
    refused = classify_answer(429, -1015, "Too many new orders.", {"Retry-After": "4"})
    assert isinstance(refused, TooManyOrdersError)
    assert (refused.retry_after, refused.counts_as_failure) == (4, False)
    assert type(classify_answer(429, -1003, "Too much request weight used.", {})) is RateLimitedError
