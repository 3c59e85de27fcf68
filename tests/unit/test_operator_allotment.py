"""Parts of an address's request weight: together never more than the budget, by need, and nobody starves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import seen_bot, seen_pod, word
from tradingbot_api.bot_http import (
    FULL_PACE_WEIGHT,
    GRANT_RENEWAL_SECONDS,
    GRANT_TTL_SECONDS,
    LEAST_WEIGHT,
    BotStatus,
    WeightUse,
)
from tradingbot_api.v1alpha1 import PositionStatus
from tradingbot_operator.allotment import SPARE_PART, Need, allot, carries
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.shares import COUNT_SECONDS, Shares

needs = st.lists(st.builds(Need, wanted=st.integers(0, 3_000), holding=st.booleans()), max_size=200).map(
    lambda made: dict(enumerate(made))
)
budgets = st.integers(0, 6_000)


@given(budgets, needs)
def test_all_parts_together_are_within_the_budget_and_nobody_starves_where_it_carries_all(
    budget: int, asked: dict[int, Need]
) -> None:
    parts = allot(budget, asked)
    assert parts.keys() == asked.keys()
    assert sum(parts.values()) <= budget
    least = LEAST_WEIGHT if len(asked) <= carries(budget) else budget // max(1, len(asked))
    assert all(part >= least for part in parts.values())


@given(budgets, needs)
def test_who_needs_more_gets_no_less_and_a_position_comes_first(budget: int, asked: dict[int, Need]) -> None:
    parts = allot(budget, asked)
    for one, need in asked.items():
        for other, more in asked.items():
            if need.wanted <= more.wanted and need.holding <= more.holding:
                assert parts[one] <= parts[other]
    held = [parts[key] for key, need in asked.items() if need.holding]
    others = [parts[key] for key, need in asked.items() if not need.holding]
    if any(part > LEAST_WEIGHT for part in others):
        assert all(part >= FULL_PACE_WEIGHT for part in held)


@given(st.integers(0, 2_000), st.integers(1, 30))
def test_what_is_wanted_beyond_the_usual_is_given_in_proportion(budget: int, factor: int) -> None:
    little, much = FULL_PACE_WEIGHT + 100, FULL_PACE_WEIGHT + 100 * factor
    parts = allot(budget + 2 * FULL_PACE_WEIGHT, {0: Need(little, False), 1: Need(much, False)})
    if sum(parts.values()) < little + much:
        assert abs((parts[0] - FULL_PACE_WEIGHT) * factor - (parts[1] - FULL_PACE_WEIGHT)) <= factor


def test_a_bot_alone_has_all_but_the_spare_part() -> None:
    assert allot(4_800, {0: Need(0, False)}) == {0: 4_800 - 4_800 // SPARE_PART}
    assert allot(4_800, {}) == {}


class Fleet:
    """Bots of one address that are granted by one `Shares`, at a time that a test sets."""

    def __init__(self, limit: int = 6_000) -> None:
        self.now = 0.0
        self.bots: Inventory[SeenBot] = Inventory()
        self.pods: Inventory[SeenPod] = Inventory()
        self.shares = Shares((), limit, bots=self.bots, pods=self.pods, time=lambda: self.now)
        self.held: dict[str, tuple[int, float]] = {}
        """What each bot goes by, and until when."""

    def add(self, number: int, *, pod: bool = False, holding: bool = False) -> SeenBot:
        key, position = BotKey("trading", f"b{number}"), said(0, holding=holding).position
        told = seen_bot(status={"position": position.model_dump(mode="json", by_alias=True)} if position else {})
        bot = SeenBot(**{**told.__dict__, "key": key, "uid": f"uid-{number}"})
        self.bots.see(bot)
        if pod:
            self.pods.see(replace(seen_pod(), key=key))
        return bot

    def grant(self, bot: SeenBot, wanted: int, *, holding: bool = False, arrives: bool = True) -> int:
        share = self.shares.grant(bot, said(wanted, holding=holding))
        assert share is not None
        if arrives:
            self.shares.arrived(bot, share)
            self.held[bot.uid] = (share.weight, self.now + GRANT_TTL_SECONDS)
        return share.weight

    @property
    def in_force(self) -> int:
        return sum(weight for weight, until in self.held.values() if until > self.now)


def said(wanted: int, *, holding: bool, limit: int = 6_000) -> BotStatus:
    zero = Decimal(0)
    position = PositionStatus(
        side="Long" if holding else "Flat", quantity=Decimal(int(holding)), average_price=zero, value=zero,
        validated=True,
    )  # fmt: skip
    return word(position=position, weight=WeightUse(limit=limit, used=wanted, wanted=wanted, address_used=0))


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 3_000), st.booleans(), st.booleans(), st.floats(0, 8)),
        max_size=120,
    ),
    st.sampled_from([600, 1_200, 6_000]),
)
def test_whatever_is_granted_when_all_that_is_in_force_fits_together(
    grants: list[tuple[int, int, bool, bool, float]], limit: int
) -> None:
    fleet, known = Fleet(limit), {}
    for number, wanted, holding, arrives, later in grants:
        bot = known.get(number) or known.setdefault(number, fleet.add(number, pod=number % 2 == 0))
        fleet.now += later
        fleet.grant(bot, wanted, holding=holding, arrives=arrives)
        assert fleet.in_force <= limit * Decimal("0.8")


def test_a_new_leader_that_grants_all_its_bots_looks_once_who_shares_an_address() -> None:
    class Looked(Inventory[SeenBot]):
        looks = 0

        def __iter__(self) -> Iterator[SeenBot]:
            self.looks += 1
            return super().__iter__()

    fleet = Fleet()
    bots = [fleet.add(number) for number in range(60)]
    looked = Looked()
    for bot in bots:
        looked.see(bot)
    shares = Shares((), 6_000, bots=looked, pods=Inventory(), time=lambda: 0.0)
    for bot in bots:
        shares.grant(bot, said(0, holding=False))
    assert looked.looks == 1
    late = fleet.add(60)
    looked.see(late)
    told = shares.grant(late, said(0, holding=False))
    assert told is not None
    assert (looked.looks, told.address_bots) == (2, 61)


def test_a_new_leader_leaves_no_bot_without_its_part_until_the_next_grant() -> None:
    for many, least in ((30, FULL_PACE_WEIGHT), (140, LEAST_WEIGHT)):
        fleet = Fleet()
        bots = [fleet.add(number, pod=True) for number in range(many)]
        for number in range(many, many + 300):
            fleet.add(number)  # it waits for its turn to start
        for seconds in (0.0, GRANT_RENEWAL_SECONDS):
            fleet.now = seconds
            assert min(fleet.grant(bot, 300) for bot in bots) >= least


def test_a_new_leader_keeps_for_those_in_position_that_it_has_not_heard_what_they_need() -> None:
    fleet = Fleet(limit=600)
    bots = [fleet.add(number, pod=True, holding=number < 4) for number in range(8)]
    assert fleet.grant(bots[7], 300) == LEAST_WEIGHT
    fleet = Fleet()
    busy, *_ = [fleet.add(number, pod=True) for number in range(40)]
    assert fleet.grant(busy, 900) >= 900, "what one that it heard wants counts at once"


def test_bots_that_run_no_more_hold_up_no_start_and_leave_their_parts_to_those_that_do() -> None:
    fleet = Fleet()
    bots = [fleet.add(number) for number in range(140)]
    address = fleet.shares.address(bots[0])
    for _ in range(2):
        parts = [fleet.grant(bot, 60) for bot in bots]
        fleet.now += GRANT_RENEWAL_SECONDS
    assert (max(parts), fleet.shares.needed(address)) == (34, 140 * LEAST_WEIGHT)
    for _ in range(4):
        parts = [fleet.grant(bot, 60) for bot in bots[:40]]
        fleet.now += GRANT_RENEWAL_SECONDS
    assert (min(parts), fleet.shares.needed(address)) == (108, 40 * LEAST_WEIGHT)
    fleet.now += GRANT_TTL_SECONDS
    assert fleet.shares.needed(address) == 0


def test_a_part_that_was_told_counts_until_a_smaller_one_arrived() -> None:
    fleet = Fleet(limit=1_200)
    first, second = fleet.add(0), fleet.add(1)
    alone = fleet.grant(first, 0)
    assert alone > 800
    fleet.now = 20
    fleet.grant(first, 0, arrives=False)
    assert fleet.grant(second, 0) == 960 - alone, "the first may not have heard"
    fleet.now = 40
    assert fleet.grant(first, 0, arrives=False) < alone
    assert fleet.grant(second, 0) == 960 - alone, "nor may it of the smaller part"
    fleet.grant(first, 0)
    assert fleet.grant(second, 0) > 400


def test_a_bot_that_is_gone_leaves_its_part_to_others_once_its_grant_is_over() -> None:
    fleet = Fleet(limit=1_200)
    gone, stays = fleet.add(0), fleet.add(1)
    first = fleet.grant(gone, 900)
    fleet.bots.gone(gone.key, gone.uid)
    fleet.now = GRANT_TTL_SECONDS - 1
    assert fleet.grant(stays, 0) == 960 - first
    fleet.now += COUNT_SECONDS + 1
    share = fleet.shares.grant(stays, said(0, holding=False))
    assert share is not None
    assert (share.weight, share.address_bots) == (960 - 960 // SPARE_PART, 1)


def test_a_bot_that_is_suspended_shares_no_address() -> None:
    fleet = Fleet()
    bot = fleet.add(0)
    fleet.bots.see(replace(bot, key=BotKey("trading", "away"), uid="away", spec={**bot.spec, "suspend": True}))
    share = fleet.shares.grant(bot, said(0, holding=False))
    assert share is not None
    assert share.address_bots == 1


def test_who_comes_gets_its_part_within_two_grants_and_parts_stay_as_long_as_needs_do() -> None:
    fleet = Fleet()
    bots = [fleet.add(number) for number in range(20)]
    rounds = []
    for _ in range(6):
        rounds.append([fleet.grant(bot, 60) for bot in bots])
        fleet.now += GRANT_RENEWAL_SECONDS
    assert rounds[-1] == rounds[-2] == rounds[-3]
    late = fleet.add(20)
    first = fleet.grant(late, 0)
    assert first >= LEAST_WEIGHT
    for _ in range(2):
        fleet.now += GRANT_RENEWAL_SECONDS
        parts = [fleet.grant(bot, 60 + 7 * (bot.uid[-1] == "3")) for bot in (*bots, late)]
    assert min(parts) >= FULL_PACE_WEIGHT
    # One minute with more requests and a quiet one after it change nothing for the others.
    assert len(set(parts)) == 1


def test_a_bot_that_is_refused_for_lack_gets_more_and_one_that_is_quiet_gives_it_back_slowly() -> None:
    fleet = Fleet()
    bots = [fleet.add(number) for number in range(40)]
    busy = bots[0]
    for _ in range(4):
        for bot in bots:
            fleet.grant(bot, 900 if bot is busy else 60)
        fleet.now += GRANT_RENEWAL_SECONDS
    assert fleet.grant(busy, 900) >= 900
    less = []
    for _ in range(20):
        less.append(fleet.grant(busy, 0))
        for bot in bots[1:]:
            fleet.grant(bot, 60)
        fleet.now += GRANT_RENEWAL_SECONDS
    assert less == sorted(less, reverse=True)
    assert less[1] > 500
    assert less[-1] < 200


def test_what_bots_that_run_need_at_least_is_more_only_for_those_in_position() -> None:
    fleet = Fleet()
    flat, holds, calm = fleet.add(0), fleet.add(1), fleet.add(2)
    address = fleet.shares.address(flat)
    assert fleet.shares.needed(address) == 0
    for bot, wanted, holding in ((flat, 300, False), (holds, 210, True), (calm, 0, True)):
        fleet.grant(bot, wanted, holding=holding)
    assert fleet.shares.needed(address) == LEAST_WEIGHT + 210 + LEAST_WEIGHT


def test_a_group_that_is_too_large_says_so_and_a_limit_of_zero_shares_nothing() -> None:
    fleet = Fleet(limit=600)
    bots = [fleet.add(number) for number in range(carries(480))]
    fleet.grant(bots[0], 0)
    assert fleet.shares.too_many(bots[0]) is None
    fleet.grant(fleet.add(carries(480)), 0)
    assert fleet.shares.too_many(bots[0]) == (16, 15)
    assert Fleet(limit=0).shares.grant(bots[0], said(0, holding=False)) is None


def test_the_exchanges_own_limit_counts_where_it_is_smaller() -> None:
    fleet = Fleet()
    share = fleet.shares.grant(fleet.add(0), said(0, holding=False, limit=1_200))
    assert share is not None
    assert share.weight <= 1_200 * Decimal("0.8")
