"""Which bots of a set are given its template next: a few at a time, flat ones first, stopped by one that is late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tradingbot_operator.rollout import Member, most_unavailable, next_step

DEADLINE = 600.0


def member(name: str, **more: Any) -> Member:
    """A bot that is Ready, flat, and has the former template."""
    fields = {"current": False, "available": True, "settled": True, "flat": True, "in_position": False}
    return Member(name, **{**fields, **more})


def moving(name: str, since: float = 0.0, **more: Any) -> Member:
    return member(name, current=True, available=False, settled=False, since=since, **more)


def step(*members: Member, most: int = 1, now: float = 1.0) -> Any:
    return next_step(members, most, DEADLINE, now)


def test_one_at_a_time_until_it_is_ready_again() -> None:
    assert step(member("a"), member("b")).give == ("a",)
    assert step(moving("a"), member("b")).give == ()
    assert step(replace(moving("a"), available=True, settled=True), member("b")).give == ("b",)


def test_a_bot_that_is_ready_but_does_not_run_with_it_yet_keeps_its_place() -> None:
    assert step(member("a", current=True, settled=False), member("b")).give == ()


def test_flat_bots_come_before_those_in_a_position() -> None:
    holding = member("a", flat=False, in_position=True)
    assert step(holding, member("b"), member("c"), most=2).give == ("b", "c")
    assert step(holding).give == ("a",)


def test_a_bot_that_restarts_only_flat_is_not_given_it_while_it_holds_a_position() -> None:
    holding = member("a", flat=False, in_position=True, restarts_flat=True)
    plan = step(holding)
    assert plan.give == ()
    assert plan.awaiting_flat == ("a",)
    assert plan.again_in is None
    # It takes nobody's place.
    assert step(holding, member("b"), now=10 * DEADLINE).give == ("b",)


def test_a_bot_that_restarts_only_flat_and_is_not_ready_is_given_it_as_it_may_be_its_cure() -> None:
    down = member("z", available=False, settled=False, flat=False, in_position=True, restarts_flat=True)
    assert step(down, member("a")).give == ("z",)


def test_a_refused_change_has_its_turn_later_and_a_bot_that_is_down_counts_though_its_change_is_refused() -> None:
    assert step(member("a", refused=True), member("b")).give == ("b",)
    down = member("a", refused=True, available=False, settled=False)
    assert step(down, member("b")).give == ()
    assert step(down, member("b"), most=2).give == ("b",)


def test_one_that_is_not_ready_in_time_stops_the_rollout_for_all_that_are() -> None:
    plan = step(moving("a", since=0.0), member("b"), member("c"), most=3, now=DEADLINE)
    assert plan.late == ("a",)
    assert plan.give == ()
    assert plan.remaining == 2
    assert plan.again_in is None
    assert step(moving("a", since=1.0), member("b"), most=1, now=2.0).again_in == DEADLINE - 1.0


def test_a_corrected_template_goes_first_to_the_bot_that_the_former_one_broke() -> None:
    assert step(member("z", available=False, settled=False), member("a")).give == ("z",)


def test_a_healthy_bot_is_not_touched_while_as_many_others_are_down_already() -> None:
    down = member("z", available=False, settled=False)
    assert step(moving("y"), down, member("a"), most=2).give == ("z",)
    assert step(moving("y"), replace(down, current=True, since=1.0), member("a"), most=2).give == ()
    both = step(replace(down, name="y"), down, member("a"), member("b"), most=3)
    assert (both.give, both.remaining) == (("y", "z", "a"), 1)


@pytest.mark.parametrize(
    ("value", "bots", "most"),
    [(1, 10, 1), (5, 3, 5), ("10%", 50, 5), ("10%", 9, 1), ("100%", 7, 7), ("3", 10, 3), (0, 10, 1)],
)
def test_max_unavailable_is_a_number_or_a_share_rounded_down_and_never_none(
    value: int | str, bots: int, most: int
) -> None:
    assert most_unavailable(value, bots) == most


members = st.builds(
    Member,
    name=st.uuids().map(str),
    current=st.booleans(),
    available=st.booleans(),
    settled=st.booleans(),
    flat=st.booleans(),
    in_position=st.booleans(),
    restarts_flat=st.booleans(),
    since=st.floats(0, 1000),
)


@given(st.lists(members, max_size=12), st.integers(1, 5))
def test_no_step_exceeds_its_bounds(bots: list[Member], most: int) -> None:
    plan = next_step(bots, most, DEADLINE, 800.0)
    by_name = {bot.name: bot for bot in bots}
    given_now = [by_name[name] for name in plan.give]
    assert all(not bot.current for bot in given_now)
    in_the_middle = sum(bot.current and not bot.settled for bot in bots)
    assert not given_now or in_the_middle + len(given_now) <= most
    healthy = [bot for bot in given_now if bot.available]
    if healthy:
        assert not plan.late
        down = sum(not bot.available and bot not in given_now and not bot.current for bot in bots)
        assert in_the_middle + len(given_now) + down <= most
    # Nobody who is flat waits for one who is not.
    if any(bot.in_position and not bot.flat for bot in healthy):
        left = [bot for bot in bots if not bot.current and bot not in given_now and bot.available and bot.flat]
        assert all(bot.restarts_flat and bot.in_position for bot in left)


@dataclass
class Bot:
    """A bot as the machine below keeps it."""

    template: int = 0
    ready: bool = True
    holds: bool = False
    broken: bool = False
    since: float = 0.0
    by_rollout: bool = False


class Rollouts(RuleBasedStateMachine):
    """Bots that break, buy and sell, templates that are good or bad, and the rollout among them."""

    @initialize(bots=st.integers(1, 8), most=st.integers(1, 3))
    def begin(self, bots: int, most: int) -> None:
        self.bots: Mapping[str, Bot] = {f"b{number}": Bot() for number in range(bots)}
        self.most, self.template, self.bad, self.now = most, 0, frozenset[int](), 0.0

    @rule(bad=st.booleans())
    def change_the_template(self, bad: bool) -> None:
        self.template += 1
        if bad:
            self.bad |= {self.template}

    @rule(seconds=st.floats(1, 700))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        bot = data.draw(st.sampled_from(sorted(self.bots)))
        if self.bots[bot].template not in self.bad and not self.bots[bot].broken:
            self.bots[bot].ready, self.bots[bot].by_rollout = True, False

    @rule(data=st.data(), broken=st.booleans())
    def break_or_mend(self, data: st.DataObject, broken: bool) -> None:
        bot = self.bots[data.draw(st.sampled_from(sorted(self.bots)))]
        bot.broken = broken
        if broken:
            bot.ready, bot.since = False, self.now

    @rule(data=st.data())
    def trade(self, data: st.DataObject) -> None:
        bot = self.bots[data.draw(st.sampled_from(sorted(self.bots)))]
        bot.holds = not bot.holds

    @rule()
    def roll(self) -> None:
        seen = [
            Member(
                name, current=bot.template == self.template, available=bot.ready, settled=bot.ready,
                flat=not bot.holds, in_position=bot.holds, since=bot.since,
            )
            for name, bot in self.bots.items()
        ]  # fmt: skip
        plan = next_step(seen, self.most, DEADLINE, self.now)
        healthy = [name for name in plan.give if self.bots[name].ready]
        if healthy:
            late = [
                bot
                for bot in self.bots.values()
                if bot.template == self.template and not bot.ready and self.now - bot.since >= DEADLINE
            ]
            assert not late
        for name in plan.give:
            bot = self.bots[name]
            bot.by_rollout = bot.by_rollout or bot.ready
            bot.template, bot.ready, bot.since = self.template, False, self.now

    @invariant()
    def never_more_than_so_many_are_down_by_the_rollout(self) -> None:
        if hasattr(self, "bots"):
            assert sum(bot.by_rollout and not bot.ready for bot in self.bots.values()) <= self.most


TestRollouts = Rollouts.TestCase
