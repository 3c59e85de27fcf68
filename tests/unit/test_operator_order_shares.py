"""Parts of an account's new orders: entries of all its bots together stay below the limit, whatever message is lost."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from tradingbot.gateway.order_limits import USUAL_LIMITS, OrderBudget, OrderBudgetError, OrderLimit
from tradingbot_api.bot_http import (
    ENTRY_ORDERS,
    ENTRY_ORDERS_PART,
    GRANT_RENEWAL_SECONDS,
    GRANT_TTL_SECONDS,
    OrderCount,
    OrderUse,
)
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.order_shares import ASKED_SECONDS, KEPT_PART, OrderShare, OrderShares, order_part

ACCOUNT = ("Paper http://exchange:8080", "1001")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = 10
LONGEST_WAY = 5
"""Seconds until an order counts at the exchange at the latest: its recvWindow."""
BUDGET = 60
FITTING = int(BUDGET * KEPT_PART) // ENTRY_ORDERS


def use(wanted: int = 0, *, asks: bool = False, allotted: int | None = 0, day: int = 0, at: float = 0.0) -> OrderUse:
    told = BEGIN + timedelta(seconds=at)
    return OrderUse(
        counts=[
            OrderCount(interval="10S", seconds=WINDOW, limit=100),
            OrderCount(interval="1D", seconds=86_400, limit=200_000, used=day, told_time=told if day else None),
        ],
        wanted=wanted,
        asks=asks,
        allotted=allotted,
    )


class Bots:
    """Bots of one account, each with its own budget, and what the exchange counts of their entries: it tells nobody."""

    def __init__(self, limit: int = 100) -> None:
        self.now = 0.0
        self.limits = {**USUAL_LIMITS, "10S": OrderLimit(limit, WINDOW * 1000)}
        self.shares = OrderShares(lambda: self.now, lambda: BEGIN + timedelta(seconds=self.now))
        self.budgets: dict[int, OrderBudget] = {}
        self.counted: Counter[int] = Counter()

    def budget(self, bot: int) -> OrderBudget:
        if bot not in self.budgets:
            self.budgets[bot] = OrderBudget(lambda: self.now)
            self.budgets[bot].limits = self.limits
            self.budgets[bot].allot(0, 0)
        return self.budgets[bot]

    def told(self, bot: int, *, asks: bool) -> OrderUse:
        """What it says of itself; with an entry that waits, where it `asks`."""
        said = self.budget(bot).use(self.now_ms)
        return said.model_copy(update={"asks": asks, "wanted": said.wanted + ENTRY_ORDERS * asks})

    def grant(self, bot: int, *, asks: bool, arrives: bool = True, answered: bool = True) -> OrderShare:
        share = self.shares.grant(ACCOUNT, f"uid-{bot}", self.told(bot, asks=asks))
        if arrives:
            self.budget(bot).allot(share.orders, share.seconds)
            if answered:
                self.shares.arrived(ACCOUNT, f"uid-{bot}")
        return share

    def enter(self, bot: int, orders: int, way: float) -> None:
        """Sends an entry if it may; it counts at the exchange after its way."""
        with suppress(OrderBudgetError):
            self.budget(bot).check(orders, self.now_ms)
            self.budget(bot).sent(orders, allotted=True)
            self.budget(bot).answered(orders)
            self.counted[int(self.now + way) // WINDOW] += orders

    @property
    def in_force(self) -> int:
        """What all may send now, as they were told."""
        return sum(budget.use(self.now_ms).allotted or 0 for budget in self.budgets.values())

    @property
    def now_ms(self) -> int:
        return round((BEGIN.timestamp() + self.now) * 1000)


ways = st.floats(0, LONGEST_WAY)
bots = st.integers(0, 5)


@given(
    st.lists(
        st.tuples(
            bots, st.booleans(), st.booleans(), st.booleans(), st.floats(0, 4),
            st.lists(st.tuples(bots, st.integers(1, ENTRY_ORDERS), ways), max_size=6),
        ),
        max_size=120,
    ),
    st.sampled_from([20, 30, 100]),
)  # fmt: skip
def test_entries_of_all_bots_in_any_interval_fit_whatever_arrives_and_whenever_they_are_sent(
    steps: list[tuple[int, bool, bool, bool, float, list[tuple[int, int, float]]]], limit: int
) -> None:
    it, budget = Bots(limit), limit * ENTRY_ORDERS_PART
    for bot, asks, arrives, answered, later, entries in steps:
        it.now += later
        it.grant(bot, asks=asks, arrives=arrives, answered=answered)
        assert it.in_force <= budget
        for who, orders, way in entries:
            it.enter(who, orders, way)
    assert max(it.counted.values(), default=0) <= budget


@given(st.integers(1, 40), st.lists(st.booleans(), min_size=40, max_size=40))
def test_a_burst_of_all_bots_in_one_interval_fits_before_any_has_seen_an_answer(many: int, asking: list[bool]) -> None:
    it = Bots()
    for _ in range(3):
        for bot in range(many):
            it.grant(bot, asks=asking[bot])
        it.now += 1
    for bot in range(many):
        for _ in range(ENTRY_ORDERS):
            it.enter(bot, 1, 0)
    assert sum(it.counted.values()) <= BUDGET


@given(st.integers(0, 120), st.integers(1, 1_000), st.integers(0, 1_000), st.integers(0, 200))
def test_a_part_is_an_entry_at_least_where_it_is_asked_for_and_an_equal_one_among_askers_at_most(
    budget: int, bots: int, askers: int, wanted: int
) -> None:
    orders, seconds = order_part(budget, bots, askers, wanted)
    assert orders <= max(ENTRY_ORDERS, budget // max(1, askers))
    if wanted >= ENTRY_ORDERS or bots * ENTRY_ORDERS <= budget * KEPT_PART:
        assert orders >= ENTRY_ORDERS
    assert seconds in {GRANT_TTL_SECONDS, ASKED_SECONDS}


def test_where_an_entry_of_each_fits_nobody_has_to_ask() -> None:
    it = Bots()
    assert {it.grant(bot, asks=False) for bot in range(FITTING)} == {OrderShare(ENTRY_ORDERS, GRANT_TTL_SECONDS)}


def test_where_they_do_not_fit_who_asks_has_an_entry_at_once_and_all_others_none() -> None:
    it = Bots()
    many = BUDGET // ENTRY_ORDERS * 10
    for _ in range(3):  # the first had parts before the others came
        parts = [it.grant(bot, asks=False).orders for bot in range(many)]
        it.now += GRANT_RENEWAL_SECONDS
    assert set(parts) == {0}
    parts = [it.grant(bot, asks=True).orders for bot in range(BUDGET // ENTRY_ORDERS + 1)]
    assert parts == [ENTRY_ORDERS] * (BUDGET // ENTRY_ORDERS) + [0]
    it.now += ASKED_SECONDS + WINDOW + LONGEST_WAY
    assert it.grant(many - 1, asks=True).orders == ENTRY_ORDERS, "the next in turn"


def test_who_asked_in_vain_comes_before_who_had_a_part_since() -> None:
    it = Bots(limit=10)
    for bot in range(3):
        it.grant(bot, asks=False)
    assert [it.grant(bot, asks=True).orders for bot in range(2)] == [ENTRY_ORDERS, 0]
    it.now = ASKED_SECONDS + WINDOW + LONGEST_WAY - 1
    assert it.grant(1, asks=True).orders == 0
    it.now += 1
    assert it.grant(0, asks=True).orders == 0, "it had one"
    assert it.grant(1, asks=True).orders == ENTRY_ORDERS


def test_a_part_that_was_given_back_counts_while_orders_of_it_may() -> None:
    it = Bots(limit=10)
    for bot in range(2):
        it.grant(bot, asks=False)
    it.grant(0, asks=True)
    it.now = ASKED_SECONDS - 0.1
    it.enter(0, ENTRY_ORDERS, LONGEST_WAY)
    it.now += 0.2
    assert it.grant(1, asks=True).orders == 0, "the part of the first is over, but what it sent last is under way"
    it.now = ASKED_SECONDS + WINDOW + LONGEST_WAY
    assert it.grant(1, asks=True).orders == ENTRY_ORDERS


def test_a_smaller_part_that_arrived_makes_room_only_once_what_was_sent_by_the_former_counts_no_more() -> None:
    it = Bots(limit=10)
    for bot in range(2):
        it.grant(bot, asks=False)
    it.grant(0, asks=True)
    it.enter(0, 3, 0)
    it.now = 1
    assert it.grant(0, asks=False).orders == 0
    assert it.grant(1, asks=True).orders == 0
    it.now += WINDOW + LONGEST_WAY
    assert it.grant(1, asks=True).orders == ENTRY_ORDERS


def test_a_day_that_any_bot_tells_to_be_used_up_stops_the_entries_of_all() -> None:
    it = Bots()
    assert it.grant(0, asks=False).orders == ENTRY_ORDERS
    it.shares.hear(ACCOUNT, "uid-1", use(day=120_000, at=1))
    it.now = 2
    assert it.grant(0, asks=True).orders == 0
    it.shares.hear(ACCOUNT, "uid-2", use(day=119_000, at=1.5))
    assert it.grant(0, asks=True).orders > 0, "fills made it less since"
    it.shares.hear(ACCOUNT, "uid-1", use(day=120_000, at=1))
    assert it.grant(0, asks=True).orders > 0, "older than what is known"


def test_operators_that_share_an_account_allot_what_their_bots_are_of_all_and_an_entry_at_least() -> None:
    for others, part in ((2, BUDGET // 2), (4, BUDGET // 3), (300, ENTRY_ORDERS)):
        shares = OrderShares(lambda: 0.0, lambda: BEGIN, others=lambda _, others=others: others)
        for bot in range(2):
            shares.hear(ACCOUNT, f"uid-{bot}", use())
        told = [shares.grant(ACCOUNT, f"uid-{bot % 2}", use(BUDGET, asks=True)).orders for bot in range(2)]
        assert sum(told) == part


def test_a_new_leader_counts_what_bots_say_that_a_former_one_told_them() -> None:
    it = Bots()
    it.shares.hear(ACCOUNT, "uid-0", use(allotted=BUDGET - 2 * ENTRY_ORDERS))
    assert [it.grant(bot, asks=True).orders for bot in (1, 2, 3)] == [ENTRY_ORDERS, ENTRY_ORDERS, 0]
    it.now = GRANT_RENEWAL_SECONDS
    it.grant(0, asks=False)
    it.now += WINDOW + LONGEST_WAY
    assert it.grant(3, asks=True).orders == ENTRY_ORDERS


def test_a_new_leader_keeps_what_there_is_for_those_that_ask_until_it_has_heard_how_many_bots_there_are() -> None:
    it, many = Bots(), BUDGET // ENTRY_ORDERS
    it.shares = OrderShares(lambda: it.now, lambda: BEGIN, expected=lambda _: 5 * many)
    assert {it.grant(bot, asks=False).orders for bot in range(FITTING)} == {0}
    assert {it.grant(bot, asks=True).orders for bot in range(FITTING, FITTING + many)} == {ENTRY_ORDERS}
    it.now = GRANT_TTL_SECONDS + WINDOW + LONGEST_WAY  # the others did not come
    assert it.grant(0, asks=False).orders == ENTRY_ORDERS


def test_accounts_have_budgets_of_their_own_and_are_measured_without_their_names() -> None:
    it, metrics = Bots(), Metrics()
    it.grant(0, asks=False)
    other = ("Live", "4711")
    it.shares.grant(other, "uid-9", use(day=7, at=0))
    it.shares.measure(metrics)
    samples = [
        (sample.labels["exchange"], sample.labels["interval"], sample.labels["part"], sample.value)
        for family in metrics.account_orders.collect()
        for sample in family.samples
        if "4711" not in sample.labels["account"]
    ]
    assert ("Live", "1D", "used", 7.0) in samples
    assert ("Live", "10S", "allotted", float(ENTRY_ORDERS)) in samples
    assert len(samples) == 2 * 5
