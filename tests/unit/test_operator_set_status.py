"""A set's status: exact sums that say of how many bots they are, and conditions that name who and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import NOW, seen_bot
from tradingbot_api.sets import SetCondition, SetReason, TradingBotSetStatus
from tradingbot_operator import set_status
from tradingbot_operator.budget import Figures as FleetFigures
from tradingbot_operator.budget import Full, Limits
from tradingbot_operator.inventory import BotKey, read_status
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.rollout import Rollout
from tradingbot_operator.set_desired import Problem
from tradingbot_operator.set_status import BotFacts, Figures, ObservedSet
from tradingbot_operator.status import Change, encode

IDLE = Rollout((), (), (), (), 0, None)


def figures(total: str = "1", exposure: str = "0", drawdown: str | None = "0", asset: str = "USDT") -> Figures:
    fall = Decimal(drawdown) if drawdown is not None else None
    return Figures(asset, Decimal(total), Decimal(0), Decimal(total), Decimal(exposure), fall)


def facts(name: str = "x-btcusdt", **more: Any) -> BotFacts:
    """A bot that trades and is flat."""
    fields: dict[str, Any] = {
        "phase": "Trading", "ready": True, "why": "OK: ", "suspended": False, "settled": True, "up_to_date": True,
        "awaits": "", "paced": False, "flat": True, "in_position": False, "safe_mode": False, "deleting": False,
        "asset": "USDT", "figures": figures(),
    }  # fmt: skip
    return BotFacts(name, **{**fields, **more})


def observed(*bots: BotFacts, **more: Any) -> ObservedSet:
    fields: dict[str, Any] = {
        "now": NOW, "generation": 2, "wanted": [bot.name for bot in bots], "bots": {bot.name: bot for bot in bots},
        "current": frozenset(bot.name for bot in bots), "problems": {}, "rollout": IDLE, "since": {}, "draining": [],
        "deadline": 600, "before": TradingBotSetStatus(),
    }  # fmt: skip
    return ObservedSet(**{**fields, **more})


def told(status: TradingBotSetStatus, kind: SetCondition) -> tuple[str, str, str]:
    (found,) = [item for item in status.conditions if item.type == kind]
    return found.status, found.reason, found.message


def test_counts_and_sums_are_of_all_bots() -> None:
    status = set_status.compose(
        observed(
            facts("x-a", figures=figures("1.5", "100.25", "0.01"), flat=False, in_position=True),
            facts("x-b", figures=figures("-0.5", "0", "0.02"), phase="SafeMode", safe_mode=True),
            facts("x-c", asset="BTC", figures=figures("0.00000001", asset="BTC")),
        )
    )
    assert (status.bots, status.ready, status.updated, status.in_safe_mode, status.in_position) == (3, 3, 3, 1, 1)
    assert status.known == "3 of 3"
    assert status.phases == {"SafeMode": 1, "Trading": 2}
    assert [(item.asset, item.pnl.total, item.exposure, item.known) for item in status.totals] == [
        ("BTC", Decimal("0.00000001"), Decimal(0), "1 of 1"),
        ("USDT", Decimal("1.0"), Decimal("100.25"), "2 of 2"),
    ]
    assert status.worst_drawdown is not None
    assert (status.worst_drawdown.bot, status.worst_drawdown.ratio) == ("x-b", Decimal("0.02"))
    assert told(status, SetCondition.READY)[0] == "True"


def test_a_sum_says_of_how_many_bots_it_is() -> None:
    silent = facts("x-b", phase="Unreachable", ready=False, figures=None, why="NoHeartbeat: No word from the bot.")
    never = facts("x-c", phase="Starting", ready=False, figures=None, asset=None, why="")
    status = set_status.compose(observed(facts("x-a"), silent, never, wanted=["x-a", "x-b", "x-c", "x-d"]))
    assert status.known == "1 of 4"
    # Two may trade against anything: one has not told yet, one is not made.
    assert [item.known for item in status.totals] == ["1 of 4"]
    assert status.phases == {"Missing": 1, "Starting": 1, "Trading": 1, "Unreachable": 1}
    ready = told(status, SetCondition.READY)
    assert ready[:2] == ("False", SetReason.BOTS_NOT_READY)
    assert ready[2] == "1 of 4 bots are Ready; not x-b (NoHeartbeat), x-c (Starting), x-d (Missing)."


@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**19), max_value=10**19)))
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    bots = [facts(f"x-{n}", figures=figures(str(amount))) for n, amount in enumerate(amounts)]
    found = set_status.totals(bots, 0)
    if amounts:
        scaled = sum(int(amount.scaleb(18, context=set_status.EXACT)) for amount in amounts)
        assert found[0].pnl.total == Decimal(scaled).scaleb(-18, context=set_status.EXACT)


def test_a_bad_override_is_told_and_the_bot_that_it_keeps_is_still_counted() -> None:
    problem = Problem(
        SetReason.INVALID_OVERRIDES, "bots[ETHUSDT].overrides.capital: must be greater than 0. Correct it."
    )
    status = set_status.compose(observed(facts("x-btcusdt"), facts("x-ethusdt"), problems={"ETHUSDT": problem},
                                         current=frozenset({"x-btcusdt"})))  # fmt: skip
    accepted = told(status, SetCondition.ACCEPTED)
    assert accepted[:2] == ("False", SetReason.INVALID_OVERRIDES)
    assert "1 of 2 bots" in accepted[2]
    assert "bots[ETHUSDT].overrides.capital" in accepted[2]
    assert [(item.symbol, item.reason) for item in status.problems] == [("ETHUSDT", SetReason.INVALID_OVERRIDES)]
    assert (status.ready, status.updated) == (2, 1)
    assert told(status, SetCondition.READY)[:2] == ("False", SetReason.INVALID_OVERRIDES)


def test_a_stalled_rollout_names_the_bot_and_why_it_is_not_ready() -> None:
    broken = facts("x-b", ready=False, settled=False, why="CrashLoop: The bot ends with exit code 1.", phase="Degraded")
    plan = Rollout((), ("x-b",), ("x-b",), (), 3, None)
    status = set_status.compose(observed(facts("x-a"), broken, rollout=plan, since={"x-b": NOW.timestamp()}))
    stalled = told(status, SetCondition.STALLED)
    assert stalled[:2] == ("True", SetReason.PROGRESS_DEADLINE_EXCEEDED)
    assert "600 s" in stalled[2]
    assert "x-b: CrashLoop: The bot ends with exit code 1." in stalled[2]
    assert "3 bots keep what they had" in stalled[2]
    assert told(status, SetCondition.PROGRESSING)[0] == "False"
    assert [(item.bot, item.since_time) for item in status.in_progress] == [("x-b", NOW)]
    (notice,) = set_status.notices(TradingBotSetStatus(), status)
    assert (notice.reason, notice.warning) == (SetReason.PROGRESS_DEADLINE_EXCEEDED, True)


def test_what_waits_for_a_human_or_a_position_is_told_apart() -> None:
    manual = facts("x-a", up_to_date=False)
    found = told(set_status.compose(observed(manual)), SetCondition.UP_TO_DATE)
    assert found[:2] == ("False", SetReason.POD_OUTDATED)
    assert "kubectl delete pod x-a" in found[2]
    plan = replace(IDLE, awaiting_flat=("x-a",), remaining=1)
    status = set_status.compose(observed(facts("x-a"), current=frozenset(), rollout=plan))
    assert told(status, SetCondition.UP_TO_DATE)[1] == SetReason.AWAITING_FLAT
    assert told(status, SetCondition.PROGRESSING)[:2] == ("True", SetReason.AWAITING_FLAT)
    assert told(status, SetCondition.READY)[0] == "True"


def test_draining_bots_are_named() -> None:
    status = set_status.compose(observed(facts("x-a"), draining=["x-b"]))
    assert status.draining == ["x-b"]
    assert told(status, SetCondition.PROGRESSING)[:2] == ("True", SetReason.DRAINING)
    assert told(status, SetCondition.READY)[0] == "True"


def test_figures_alone_may_wait_and_a_state_may_not() -> None:
    first = set_status.compose(observed(facts()))
    assert set_status.change(TradingBotSetStatus(), first) is Change.STATE
    later = observed(facts(), before=first, now=NOW + timedelta(hours=1))
    assert set_status.change(first, set_status.compose(later)) is Change.NONE
    earned = observed(facts(figures=figures("2")), before=first)
    assert set_status.change(first, set_status.compose(earned)) is Change.FIGURES
    unknown = observed(facts(figures=None), before=first)
    assert set_status.change(first, set_status.compose(unknown)) is Change.STATE
    assert read_status(TradingBotSetStatus, encode(first)) == first


@pytest.mark.parametrize(
    ("strategy", "reason", "settled"),
    [("Manual", "PodOutdated", True), ("WhenFlat", "AwaitingFlat", False), ("Immediate", "PodOutdated", False)],
)
def test_only_a_bot_whose_restart_is_left_to_people_is_done_with_a_former_pod(
    strategy: str, reason: str, settled: bool
) -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "OK"},
        {"type": "UpToDate", "status": "False", "reason": reason},
    ]
    status = {"observedGeneration": 3, "conditions": conditions, "phase": "Trading"}
    found = set_status.facts_of(seen_bot(status=status, updateStrategy=strategy))
    assert (found.settled, found.up_to_date) == (settled, False)
    assert found.awaits == ("AwaitingFlat" if reason == "AwaitingFlat" else "")


def test_a_bot_that_has_not_observed_its_spec_is_not_done_with_it() -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "OK"},
        {"type": "UpToDate", "status": "True", "reason": "OK"},
    ]
    for generation, settled in ((2, False), (3, True)):
        status = {"observedGeneration": generation, "conditions": conditions, "phase": "Trading"}
        assert set_status.facts_of(seen_bot(status=status)).settled is settled


def test_a_suspended_bot_is_done_once_its_pod_has_ended() -> None:
    for phase, settled in (("Draining", False), ("Suspended", True)):
        status = {"observedGeneration": 3, "phase": phase}
        found = set_status.facts_of(seen_bot(status=status, suspend=True))
        assert (found.settled, found.available) == (settled, settled)


LIMITS = Limits(Decimal(100), Decimal(10), 2)


def fleet(value: str = "60", bots: int = 1, unheard: int = 0, full: Full | None = None) -> FleetFigures:
    lost = full is Full.DAILY_LOSS
    return FleetFigures(Decimal(value), Decimal(5), bots, bots + unheard, Decimal(-3), unheard, full, lost)


def test_metrics_tell_what_counts_against_which_limit_and_nothing_of_limits_that_there_are_not() -> None:
    late = Rollout((), ("x-a",), ("x-a",), (), 0, None)
    stopped, key = set_status.compose(observed(facts("x-a", ready=False), rollout=late)), BotKey("trading", "x")
    told = set_status.set_figures(key, stopped, Limits(Decimal(100), None, 2), fleet(unheard=2, full=Full.DAILY_LOSS))
    assert told.limits == {"maxPositionValue": 100, "maxBotsInPosition": 2}
    assert told.counted == {"maxPositionValue": 65, "maxDailyLoss": 3, "maxBotsInPosition": 3}
    assert (told.rollout_stopped, told.daily_loss_reached) == (True, True)
    calm = set_status.set_figures(key, set_status.compose(observed(facts("x-a"))), Limits(), None)
    assert (calm.limits, calm.counted, calm.rollout_stopped, calm.daily_loss_reached) == ({}, {}, False, False)
    metrics = Metrics()
    metrics.sets = lambda: [told]
    labels = {"set_namespace": "trading", "set": "x"}
    value = metrics.registry.get_sample_value
    assert value("tradingbot_operator_set_counted", {**labels, "limit": "maxDailyLoss"}) == 3
    assert value("tradingbot_operator_set_limit", {**labels, "limit": "maxDailyLoss"}) is None
    assert value("tradingbot_operator_set_rollout_stopped", labels) == 1
    assert value("tradingbot_operator_set_daily_loss_reached", labels) == 1


@pytest.mark.parametrize(
    ("figures", "status", "reason", "message"),
    [
        (fleet(), "True", "OK", ""),
        (fleet(full=Full.POSITION_VALUE), "True", "LimitReached", "leave no room"),
        (fleet(full=Full.BOTS_IN_POSITION), "True", "LimitReached", "leave no room"),
        (fleet(full=Full.DAILY_LOSS), "True", "LimitReached", "until 00:00 UTC"),
        (fleet(unheard=2), "Unknown", "BotsUnheard", "2 bots have not told"),
        (fleet(full=Full.QUOTE_ASSETS, unheard=2), "False", "QuoteAssetsDiffer", "for each quote asset"),
        (fleet("100.01"), "False", "LimitExceeded", "positions=100.01 maxPositionValue=100"),
        (fleet(bots=3, unheard=1), "False", "LimitExceeded", "botsInPosition=3 maxBotsInPosition=2"),
    ],
)
def test_limits_over_a_set_are_told_with_what_counts_against_them(
    figures: FleetFigures, status: str, reason: str, message: str
) -> None:
    found = set_status.compose(observed(facts(), limits=LIMITS, fleet=figures))
    assert told(found, SetCondition.FLEET_LIMITS_HELD)[:2] == (status, reason)
    assert message in told(found, SetCondition.FLEET_LIMITS_HELD)[2]
    assert found.limits is not None
    assert (found.limits.reserved, found.limits.daily_pnl, found.limits.unheard) == (5, -3, figures.unheard)


def test_of_amounts_in_two_quote_assets_nothing_is_told_and_no_limit_is_exceeded_by_them() -> None:
    mixed = replace(fleet(full=Full.QUOTE_ASSETS), position_value=None, reserved=None, daily_pnl=None)
    found = set_status.compose(observed(facts(), limits=LIMITS, fleet=mixed))
    assert told(found, SetCondition.FLEET_LIMITS_HELD)[:2] == ("False", "QuoteAssetsDiffer")
    assert found.limits is not None
    assert (found.limits.position_value, found.limits.reserved, found.limits.daily_pnl) == (None, None, None)
    assert found.limits.bots_in_position == 1
    assert read_status(TradingBotSetStatus, encode(found)) == found
    counted = set_status.set_figures(BotKey("trading", "x"), found, LIMITS, mixed).counted
    assert counted == {"maxBotsInPosition": 1}


def test_a_set_without_limits_tells_of_none() -> None:
    found = set_status.compose(observed(facts()))
    assert found.limits is None
    assert SetCondition.FLEET_LIMITS_HELD not in {item.type for item in found.conditions}


def test_what_counts_against_limits_are_figures_and_an_unheard_bot_or_a_lost_day_is_more() -> None:
    before = set_status.compose(observed(facts(), limits=LIMITS, fleet=fleet("60")))
    after = set_status.compose(observed(facts(), limits=LIMITS, fleet=fleet("61"), before=before))
    assert set_status.change(before, after) is Change.FIGURES
    lost = set_status.compose(observed(facts(), limits=LIMITS, fleet=fleet("61"), lost_day="2026-11-22", before=after))
    assert set_status.change(after, lost) is Change.STATE
    assert (set_status.lost_day(lost), set_status.lost_day(after)) == ("2026-11-22", "")
    one, two = (
        set_status.compose(observed(facts(), limits=LIMITS, fleet=fleet("61", unheard=unheard), before=after))
        for unheard in (1, 2)
    )
    assert set_status.change(one, two) is Change.STATE
