"""Who shares an address: what the exchange demands of one bot is demanded of all of it, and they come back in turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import seen_bot, seen_pod
from tradingbot_operator.egress import (
    RETURN_PART,
    RETURN_WEIGHT,
    Address,
    EgressGroup,
    ExchangeWaits,
    address_of,
    turns,
)
from tradingbot_operator.inventory import BotKey, SeenBot

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=90)
GROUPS = (
    EgressGroup("nat-1", {"zone": "a", "pool": "bots"}),
    EgressGroup("nat-2", {"zone": "a"}),
    EgressGroup("nat-1", {"zone": "c"}),
)


def bot(selector: dict[str, str] | None, environment: str = "Live") -> SeenBot:
    return seen_bot(exchange={"environment": environment}, pod={"nodeSelector": selector} if selector else {})


@pytest.mark.parametrize(
    ("selector", "group"),
    [
        pytest.param({"zone": "a", "pool": "bots", "disk": "ssd"}, "nat-1", id="contains all labels"),
        pytest.param({"zone": "a", "pool": "web"}, "nat-2", id="the first that it contains"),
        pytest.param({"zone": "c"}, "nat-1", id="one name for two selectors"),
        pytest.param({"zone": "b"}, "default", id="another value"),
        pytest.param(None, "default", id="no selector"),
    ],
)
def test_a_bot_is_of_the_first_group_that_its_node_selector_contains(
    selector: dict[str, str] | None, group: str
) -> None:
    assert address_of(bot(selector), None, GROUPS) == Address("Live", group)


def test_an_address_counts_per_exchange_and_a_running_pod_counts_before_its_changed_spec() -> None:
    assert address_of(bot(None, "Testnet"), None, ()) != address_of(bot(None, "Live"), None, ())
    moved = bot({"zone": "c"})
    assert address_of(moved, seen_pod({"running": {}}), GROUPS).group == "default"
    assert address_of(moved, None, GROUPS).group == "nat-1"
    assert address_of(seen_bot(exchange=None, pod=None), None, GROUPS).group == "default", "a spec that is not to read"


@pytest.mark.parametrize("text", ["nat-1", "nat-1=", "nat-1=zone", "=zone=a", "NAT=zone=a", "nat-1=zone=a,", "a b=c=d"])
def test_a_group_that_cannot_be_read_says_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="NAME=key=value"):
        EgressGroup.parse(text)


def test_a_group_is_read_from_name_and_labels() -> None:
    assert EgressGroup.parse("nat-1=topology.kubernetes.io/zone=eu-1,pool=") == EgressGroup(
        "nat-1", {"topology.kubernetes.io/zone": "eu-1", "pool": ""}
    )


def test_a_wait_is_news_once_and_only_a_longer_one_again_and_of_no_other_address() -> None:
    waits, here, there = ExchangeWaits(), Address("Live", "nat-1"), Address("Live", "nat-2")
    assert not waits.tell(here, NOW, NOW), "a wait that is over"
    assert waits.tell(here, SOON, NOW)
    assert not waits.tell(here, SOON, NOW)
    assert not waits.tell(here, SOON - timedelta(seconds=1), NOW)
    assert waits.until(here, NOW) == SOON
    assert waits.until(there, NOW) is None
    assert waits.until(here, SOON) is None
    assert waits.tell(here, SOON + timedelta(seconds=1), NOW)


@given(
    st.lists(st.booleans(), max_size=60),
    st.sampled_from([600, 1200, 6000]),
    st.integers(0, 5),
)
def test_bots_come_back_one_after_another_those_with_a_position_first_within_the_limit(
    holding: list[bool], limit: int, shift: int
) -> None:
    bots = [(BotKey("trading", f"b{number}"), holds) for number, holds in enumerate(holding)]
    until = SOON + timedelta(seconds=shift)
    made = turns(bots, until, limit)
    assert made == turns(reversed(bots), until, limit), "not by the order in which they are known"
    assert made.keys() == {key for key, _ in bots}
    last = max((made[key] for key, holds in bots if holds), default=-1.0)
    assert all(made[key] > last for key, holds in bots if not holds)
    for begin in made.values():
        within = sum(RETURN_WEIGHT for turn in made.values() if begin <= turn < begin + 60)
        assert within <= limit * RETURN_PART + RETURN_WEIGHT


def test_the_same_bot_is_not_the_last_after_each_wait_and_without_a_limit_there_are_no_turns() -> None:
    bots = [(BotKey("trading", f"b{number}"), False) for number in range(20)]
    last = {
        max(made, key=lambda key: made[key])
        for shift in range(20)
        if (made := turns(bots, SOON + timedelta(shift), 6000))
    }
    assert len(last) > 5
    assert turns(bots, SOON, 0) == {}
