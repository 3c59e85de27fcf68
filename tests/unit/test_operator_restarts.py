"""Promises on when a bot's pod is ended while its TradingBot stays: suspend and update strategy."""

from __future__ import annotations

import itertools
from decimal import Decimal

import pytest

from support.operator_objects import seen_bot, seen_pod, word
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import PositionStatus, TradingBotSpec, UpdateStrategy
from tradingbot_operator.desired import Identity, pod
from tradingbot_operator.restarts import Ending, EndingFacts, PodStep, asked, is_flat, pod_step, up_to_date

MANUAL, WHEN_FLAT, IMMEDIATE = UpdateStrategy
LIVE = EndingFacts(
    wanted=Ending.NONE,
    strategy=MANUAL,
    running=True,
    could_trade=True,
    reachable=True,
    drained=False,
    flat=True,
    late=False,
    marked=False,
    naked=False,
)


def facts(**changes: object) -> EndingFacts:
    return EndingFacts(**{**LIVE.__dict__, **changes})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(facts(), PodStep.KEEP, id="nothing-is-wanted"),
        pytest.param(facts(wanted=Ending.SUSPEND), PodStep.DRAIN, id="suspend-cancels-entries-first"),
        pytest.param(facts(wanted=Ending.SUSPEND, flat=False), PodStep.DRAIN, id="suspend-in-position-too"),
        pytest.param(
            facts(wanted=Ending.SUSPEND, drained=True, flat=False), PodStep.MARK, id="suspend-notes-the-drain"
        ),
        pytest.param(
            facts(wanted=Ending.SUSPEND, drained=True, marked=True, flat=False), PodStep.DELETE, id="then-ends-the-pod"
        ),
        pytest.param(facts(wanted=Ending.SUSPEND, reachable=False), PodStep.WAIT, id="suspend-of-a-silent-bot-waits"),
        pytest.param(facts(wanted=Ending.SUSPEND, reachable=False, late=True), PodStep.DELETE, id="but-not-for-ever"),
        pytest.param(facts(wanted=Ending.SUSPEND, running=False), PodStep.DELETE, id="suspend-of-a-crashed-bot"),
        pytest.param(facts(wanted=Ending.SUSPEND, could_trade=False), PodStep.DELETE, id="it-never-had-an-account"),
        pytest.param(facts(wanted=Ending.UPDATE), PodStep.KEEP, id="manual-never-restarts-a-live-bot"),
        pytest.param(facts(wanted=Ending.UPDATE, could_trade=False), PodStep.KEEP, id="manual-without-an-account"),
        pytest.param(facts(wanted=Ending.UPDATE, running=False), PodStep.DELETE, id="what-does-not-run-is-replaced"),
        pytest.param(facts(wanted=Ending.UPDATE, strategy=IMMEDIATE, flat=False), PodStep.DRAIN, id="immediate-drains"),
        pytest.param(facts(wanted=Ending.UPDATE, strategy=IMMEDIATE, drained=True), PodStep.DELETE, id="then-restarts"),
        pytest.param(
            facts(wanted=Ending.UPDATE, strategy=IMMEDIATE, late=True, flat=False), PodStep.DELETE, id="not-for-ever"
        ),
        pytest.param(facts(wanted=Ending.UPDATE, strategy=WHEN_FLAT), PodStep.DRAIN, id="flat-closes-entries-first"),
        pytest.param(facts(wanted=Ending.UPDATE, strategy=WHEN_FLAT, drained=True), PodStep.DELETE, id="flat-drained"),
        pytest.param(facts(drained=True, flat=False), PodStep.WAIT, id="unwanted-drain-in-position-waits"),
        pytest.param(
            facts(drained=True, strategy=IMMEDIATE, flat=False), PodStep.DELETE, id="unless-the-strategy-is-immediate"
        ),
        pytest.param(
            facts(wanted=Ending.SUSPEND, drained=True, marked=True, flat=False, naked=True),
            PodStep.WAIT,
            id="naked-is-not-ended",
        ),
        pytest.param(
            facts(wanted=Ending.UPDATE, strategy=IMMEDIATE, late=True, flat=False, naked=True),
            PodStep.WAIT,
            id="naked-is-not-ended-though-late",
        ),
        pytest.param(
            facts(wanted=Ending.SUSPEND, running=False, naked=True), PodStep.DELETE, id="a-crashed-one-mends-nothing"
        ),
        pytest.param(facts(drained=True), PodStep.DELETE, id="resumed-before-the-pod-was-gone"),
        pytest.param(
            facts(wanted=Ending.UPDATE, strategy=WHEN_FLAT, turn=False), PodStep.QUEUE, id="its-set-has-others-first"
        ),
        pytest.param(
            facts(wanted=Ending.UPDATE, strategy=IMMEDIATE, drained=True, turn=False), PodStep.QUEUE, id="drained-too"
        ),
        pytest.param(
            facts(wanted=Ending.UPDATE, running=False, turn=False), PodStep.DELETE, id="a-crashed-one-needs-no-turn"
        ),
        pytest.param(facts(wanted=Ending.SUSPEND, turn=False), PodStep.DRAIN, id="nor-does-a-suspended-one"),
    ],
)
def test_the_end_of_a_pod_is_decided_by_what_is_wanted_and_what_is_known(given: EndingFacts, expected: PodStep) -> None:
    assert pod_step(given) is expected


def test_no_update_ends_a_live_bot_in_a_position_unless_told_to() -> None:
    booleans = (True, False)
    for reachable, drained, late, could_trade in itertools.product(booleans, repeat=4):
        for strategy in (MANUAL, WHEN_FLAT):
            given = facts(
                wanted=Ending.UPDATE, strategy=strategy, flat=False, reachable=reachable, drained=drained, late=late,
                could_trade=could_trade or reachable,
            )  # fmt: skip
            if given.could_trade:
                assert pod_step(given) in {PodStep.KEEP, PodStep.WAIT}, given


def test_a_bot_is_flat_only_by_its_own_reconciled_word() -> None:
    def holding(quantity: str) -> PositionStatus:
        return PositionStatus(
            side="Long", quantity=Decimal(quantity), average_price=Decimal(0), value=Decimal(0), validated=True
        )

    assert is_flat(word(position=holding("0")))
    assert not is_flat(word(position=holding("0.00001")))
    assert not is_flat(word(position=None))
    assert not is_flat(word(position=holding("0"), ready=False))


@pytest.mark.parametrize(
    ("strategy", "step", "reason"),
    [
        (MANUAL, PodStep.KEEP, Reason.POD_OUTDATED),
        (WHEN_FLAT, PodStep.WAIT, Reason.AWAITING_FLAT),
        (WHEN_FLAT, PodStep.DRAIN, Reason.UPDATING),
        (WHEN_FLAT, PodStep.QUEUE, Reason.AWAITING_TURN),
        (IMMEDIATE, PodStep.WAIT, Reason.UPDATING),
        (IMMEDIATE, PodStep.DELETE, Reason.UPDATING),
    ],
)
def test_an_outdated_pod_is_told_with_the_difference_and_what_comes(
    strategy: UpdateStrategy, step: PodStep, reason: Reason
) -> None:
    bot = seen_bot(updateStrategy=strategy)
    found = up_to_date(seen_pod({"running": {}}, template="a", image="bot:1"), bot, "b", "bot:2", step)
    assert (found.status, found.reason) == ("False", reason)
    assert "bot:1" in found.message
    assert "bot:2" in found.message
    same = up_to_date(seen_pod({"running": {}}, template="b"), bot, "b", "bot:1", PodStep.KEEP)
    assert same.holds


def test_the_digest_of_a_pod_changes_with_its_manifest_and_with_nothing_else() -> None:
    identity = Identity.of(seen_bot())

    def digest(image: str = "bot:1", **changes: object) -> str:
        spec = TradingBotSpec.model_validate({**seen_bot().spec, **changes})
        return str(pod(identity, spec, image, "Never")["metadata"]["annotations"]["tradingbot.dev/pod-template"])

    assert digest() == digest(capital="2000", safeMode=True, suspend=True, updateStrategy="Immediate")
    assert len({digest(), digest("bot:2"), digest(pod={"annotations": {"a": "b"}})}) == 3


@pytest.mark.parametrize("strategy", [MANUAL, WHEN_FLAT])
def test_a_suspend_is_given_its_whole_time_however_long_an_update_waited(strategy: UpdateStrategy) -> None:
    waiting = asked(None, Ending.UPDATE, strategy, reachable=True, now=0.0)
    assert waiting is None
    begun = asked(waiting, Ending.SUSPEND, strategy, reachable=True, now=10_000.0)
    assert begun is not None
    assert asked(begun, Ending.SUSPEND, strategy, reachable=True, now=10_100.0) is begun
    assert not begun.late(10_119.0, deadline=120)
    assert begun.late(10_120.0, deadline=120)
    silent = asked(begun, Ending.SUSPEND, strategy, reachable=False, now=10_115.0)
    assert silent is not None
    assert not silent.late(10_144.0, deadline=120)
    assert silent.late(10_145.0, deadline=120)
    immediate = asked(None, Ending.UPDATE, IMMEDIATE, reachable=True, now=0.0)
    assert immediate is not None
    assert asked(immediate, Ending.SUSPEND, IMMEDIATE, reachable=True, now=500.0) != immediate
