"""Promises of the status: it says what is, forgets what is not known any more, and is quiet while nothing happens."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from support.operator_objects import NOW, RUNNING, seen_bot, seen_pod, word
from tradingbot_api.bot_http import BotStatus, FleetReport
from tradingbot_api.conditions import ConditionType as Type
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.v1alpha1 import (
    BalanceStatus,
    CircuitBreakerStatus,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    TradingBotStatus,
    UsageStatus,
)
from tradingbot_operator.inventory import SeenPod, read_status
from tradingbot_operator.reporter import conflict_wait
from tradingbot_operator.status import (
    Change,
    Finding,
    Observed,
    change,
    compose,
    encode,
    notices,
    pod_ready,
)
from tradingbot_operator.work_queue import LONGEST_RETRY_SECONDS

REACHED = Finding.good()
NOT_YET = Finding.open(Reason.STARTING, "not yet")
SILENT = Finding.bad(Reason.NO_HEARTBEAT, "silence")


def observed(
    said: BotStatus | None, *, reachable: Finding = REACHED, pod: SeenPod | None = RUNNING, **more: Any
) -> Observed:
    fields: dict[str, Any] = {
        "now": NOW,
        "bot": seen_bot(),
        "accepted": Finding.good(),
        "claim": Finding.good(),
        "pod_missing": "being made",
        "revision": 1,
    }
    return Observed(pod=pod, word=said, reachable=reachable, **{**fields, **more})


def conditions(status: TradingBotStatus) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status, item.reason) for item in status.conditions}


def unschedulable(message: str) -> SeenPod:
    """A pod that the scheduler gives to no node."""
    told = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return seen_pod(None, phase="Pending", node=None, scheduled=told)


@pytest.mark.parametrize(
    ("pod", "reason", "advice"),
    [
        pytest.param(None, Reason.POD_MISSING, "being made", id="no-pod"),
        pytest.param(seen_pod({"running": {}}, ready=True), Reason.OK, "", id="ready"),
        pytest.param(seen_pod({"running": {}}, deleting=True), Reason.POD_NOT_READY, "being deleted", id="deleting"),
        pytest.param(
            unschedulable("0/3 nodes."),
            Reason.UNSCHEDULABLE,
            "0/3 nodes. Change spec.pod",
            id="unschedulable",
        ),
        pytest.param(
            seen_pod({"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}}, phase="Pending"),
            Reason.IMAGE_PULL_FAILED,
            "Correct spec.pod.image",
            id="image",
        ),
        pytest.param(
            seen_pod({"waiting": {"reason": "CrashLoopBackOff"}}, restarts=3, last={"exitCode": 2, "reason": "Error"}),
            Reason.CRASH_LOOP,
            "kubectl logs -n trading btcusdt --previous",
            id="crash-loop",
        ),
        pytest.param(
            seen_pod(
                {"running": {}},
                restarts=1,
                last={"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-22T11:58:00Z"},
                resources={"limits": {"memory": "96Mi"}},
            ),
            Reason.OUT_OF_MEMORY,
            "limit of 96Mi, 1 restarts. Raise spec.pod.resources.limits.memory",
            id="out-of-memory",
        ),
        pytest.param(
            seen_pod(
                {"running": {}},
                restarts=1,
                last={"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-19T12:00:00Z"},
            ),
            Reason.POD_NOT_READY,
            "the other conditions say why",
            id="out-of-memory-days-ago",
        ),
        pytest.param(
            seen_pod(
                {"waiting": {"reason": "CreateContainerConfigError", "message": "secret missing"}}, phase="Pending"
            ),
            Reason.POD_PENDING,
            "secret missing",
            id="container-config",
        ),
        pytest.param(seen_pod(None, phase="Pending"), Reason.POD_PENDING, "starting", id="pending"),
        pytest.param(seen_pod({"running": {}}), Reason.POD_NOT_READY, "other conditions say why", id="not-ready"),
        pytest.param(
            seen_pod(
                {"terminated": {"exitCode": 137, "reason": "Error"}},
                phase="Failed",
                reason="Evicted",
                message="The node was low on resource: memory.",
            ),
            Reason.EVICTED,
            "low on resource: memory. It is made again",
            id="evicted",
        ),
        pytest.param(
            seen_pod({"terminated": {"exitCode": 0, "reason": "Completed"}}, phase="Succeeded"),
            Reason.EVICTED,
            "--field-selector involvedObject.name=",
            id="ended-at-once",
        ),
        pytest.param(seen_pod(None, phase="Failed", reason="Other"), Reason.POD_NOT_READY, "ended: Other", id="ended"),
        pytest.param(
            seen_pod({"running": {}}, deleting=True, disruption="DeletionByTaintManager"),
            Reason.NODE_LOST,
            "kubectl delete node node1",
            id="node-lost",
        ),
        pytest.param(
            unschedulable("1 node(s) didn't find available persistent volumes to bind."),
            Reason.VOLUME_PENDING,
            "kubectl describe pvc -n trading btcusdt-state",
            id="volume-pending",
        ),
    ],
)
def test_a_pod_in_trouble_has_a_reason_and_says_what_to_do(pod: SeenPod | None, reason: Reason, advice: str) -> None:
    found = pod_ready(pod, "The pod is being made.", NOW)
    assert found.reason == reason
    assert found.holds is (reason is Reason.OK)
    assert advice in found.message


@pytest.mark.parametrize(
    ("seen", "phase"),
    [
        pytest.param(observed(None, reachable=NOT_YET, pod=None), Phase.PENDING, id="no-pod"),
        pytest.param(
            observed(None, reachable=NOT_YET, pod=seen_pod(None, phase="Pending")), Phase.PENDING, id="pending"
        ),
        pytest.param(observed(None, reachable=NOT_YET), Phase.STARTING, id="running"),
        pytest.param(observed(word(causes=("AwaitingGrant",))), Phase.STARTING, id="awaiting-grant"),
        pytest.param(
            observed(word(said={Type.BALANCE_SYNCED: ("False", Reason.NOT_RECONCILED)})),
            Phase.STARTING,
            id="reconciling",
        ),
        pytest.param(observed(word()), Phase.TRADING, id="trading"),
        pytest.param(observed(word(causes=("Spec",))), Phase.SAFE_MODE, id="safe-mode"),
        pytest.param(
            observed(word(causes=("AwaitingGrant", "Drawdown"))), Phase.SAFE_MODE, id="drawdown-without-grant"
        ),
        pytest.param(
            observed(word(said={Type.TRADING_ALLOWED: ("False", Reason.STREAM_DEAD)})), Phase.PAUSED, id="paused"
        ),
        pytest.param(
            observed(word(said={Type.BALANCE_SYNCED: ("False", Reason.CREDENTIALS_REJECTED)})),
            Phase.DEGRADED,
            id="keys",
        ),
        pytest.param(observed(word(said={Type.PROTECTED: ("False", Reason.UNPROTECTED)})), Phase.DEGRADED, id="naked"),
        pytest.param(observed(word(), claim=Finding.bad(Reason.CLAIMED_BY_OTHER, "x")), Phase.DEGRADED, id="claimed"),
        pytest.param(
            observed(word(said={Type.CONFIG_APPLIED: ("False", Reason.LOOSENING_NEEDS_SAFE_MODE)})),
            Phase.TRADING,
            id="loosening-waits",
        ),
        pytest.param(
            observed(word(said={Type.CONFIG_APPLIED: ("False", Reason.UNKNOWN_STRATEGY)})),
            Phase.DEGRADED,
            id="strategy",
        ),
        pytest.param(observed(None, reachable=SILENT), Phase.UNREACHABLE, id="silent"),
        pytest.param(
            observed(None, reachable=NOT_YET, pod=seen_pod({"waiting": {"reason": "ErrImagePull"}})),
            Phase.DEGRADED,
            id="image",
        ),
        pytest.param(observed(word(), accepted=Finding.bad(Reason.FOREIGN_OBJECT, "x")), Phase.INVALID, id="foreign"),
        pytest.param(
            observed(word(), bot=seen_bot(metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"})),
            Phase.DRAINING,
            id="deleting",
        ),
    ],
)
def test_the_phase_follows_from_the_conditions(seen: Observed, phase: Phase) -> None:
    assert compose(seen).phase == phase


def test_what_only_the_bot_knows_is_cleared_when_it_is_silent_and_the_claims_facts_stay() -> None:
    said = word(circuit_breaker=CircuitBreakerStatus(state="Closed"))
    before = compose(observed(said))
    assert before.circuit_breaker is not None
    after = compose(observed(None, reachable=SILENT, bot=seen_bot(status=encode(before))))
    left = (after.circuit_breaker, after.safe_mode, after.position, after.pnl, after.balance, after.orders, after.api)
    assert set(left) == {None}
    assert {conditions(after)[kind][0] for kind in (Type.BALANCE_SYNCED, Type.PROTECTED, Type.CIRCUIT_CLOSED)} == {
        "Unknown"
    }
    assert (after.account_uid, after.incarnation) == ("1001", 100)
    assert conditions(after)[Type.READY][0] == "False"


def test_ready_does_not_depend_on_safe_mode_and_says_what_is_lacking() -> None:
    assert conditions(compose(observed(word(causes=("Spec",)))))[Type.READY] == ("True", Reason.OK)
    status = compose(observed(word(said={Type.BALANCE_SYNCED: ("False", Reason.DRIFT)})))
    ready = next(item for item in status.conditions if item.type == Type.READY)
    assert (ready.status, ready.reason, ready.message) == ("False", Reason.DRIFT, "Not yet: BalanceSynced.")


WANTED = seen_bot(safeMode=True)


@pytest.mark.parametrize(
    ("seen", "engaged", "acknowledged"),
    [
        pytest.param(
            observed(word(causes=("Spec",)), bot=WANTED), ("True", Reason.SPEC), ("True", Reason.OK), id="acknowledged"
        ),
        pytest.param(
            observed(word(causes=("Spec",), acknowledged=False), bot=WANTED),
            ("True", Reason.SPEC),
            ("False", Reason.ENTRIES_WORKING),
            id="an-entry-works",
        ),
        pytest.param(
            # Engaged and quiet, but only until the grant comes: that is no answer to the user's wish.
            observed(word(causes=("AwaitingGrant",)), bot=WANTED, revision=2),
            ("True", Reason.AWAITING_GRANT),
            ("False", Reason.CONFIG_PENDING),
            id="for-another-reason",
        ),
        pytest.param(
            observed(word(), bot=WANTED, revision=2),
            ("False", Reason.NOT_ENGAGED),
            ("False", Reason.NOT_ENGAGED),
            id="on-its-way",
        ),
        pytest.param(
            observed(None, reachable=SILENT, bot=WANTED),
            ("Unknown", Reason.BOT_UNREACHABLE),
            ("False", Reason.BOT_UNREACHABLE),
            id="unreachable",
        ),
        pytest.param(
            observed(word(causes=("AwaitingGrant", "Drawdown", "Spec")), bot=WANTED),
            ("True", Reason.SPEC),
            ("True", Reason.OK),
            id="the-users-wish-is-named-first",
        ),
        pytest.param(
            observed(
                word(causes=(Reason.SPEC,)),
                bot=seen_bot(safeMode=True),
                revision=2,
                refusal=Finding.bad(Reason.STRATEGY_PARAMETERS_INVALID, "fast"),
            ),
            ("True", Reason.SPEC),
            ("True", Reason.OK),
            id="engaged-though-another-field-was-refused",
        ),
        pytest.param(
            observed(
                word(causes=(Reason.DAILY_LOSS,)),
                bot=seen_bot(safeMode=True),
                revision=2,
                refusal=Finding.bad(Reason.STRATEGY_PARAMETERS_INVALID, "fast"),
            ),
            ("True", Reason.DAILY_LOSS),
            ("False", Reason.CONFIG_PENDING),
            id="refused-and-engaged-by-something-else",
        ),
    ],
)
def test_safe_mode_is_acknowledged_only_by_a_bot_that_has_the_wish_and_is_quiet(
    seen: Observed, engaged: tuple[str, str], acknowledged: tuple[str, str]
) -> None:
    found = conditions(compose(seen))
    assert found[Type.SAFE_MODE_ENGAGED] == engaged
    assert found[Type.SAFE_MODE_ACKNOWLEDGED] == acknowledged


def test_a_refused_configuration_is_told_with_the_bots_own_words() -> None:
    refusal = Finding.bad(Reason.STRATEGY_PARAMETERS_INVALID, "strategy.parameters.fast: must be less than slow")
    status = compose(observed(word(), revision=2, refusal=refusal))
    assert conditions(status)[Type.CONFIG_APPLIED] == ("False", Reason.STRATEGY_PARAMETERS_INVALID)
    assert conditions(compose(observed(word(), revision=2)))[Type.CONFIG_APPLIED] == ("False", Reason.CONFIG_PENDING)


def test_a_bot_too_old_for_limits_over_a_fleet_is_told_with_what_to_do_and_only_once_it_has_them() -> None:
    knows = FleetReport.model_validate(
        {"clock": 1.0, "exposure": "0", "in_position": False, "epoch": 1, "number": 0, "reserved": "0"}
    )
    for said, limited, expected in (
        (word(), True, ("False", Reason.POD_OUTDATED)),
        (word(fleet=knows), True, ("True", Reason.OK)),
        (word(), False, ("True", Reason.OK)),
        (word(applied_revision=0), True, ("False", Reason.CONFIG_PENDING)),
    ):
        status = compose(observed(said, fleet_limited=limited))
        assert conditions(status)[Type.CONFIG_APPLIED] == expected
    told = compose(observed(word(), fleet_limited=True))
    assert conditions(told)[Type.READY] == ("False", Reason.POD_OUTDATED)
    assert "Update its image" in next(item.message for item in told.conditions if item.type == Type.CONFIG_APPLIED)


def test_the_bound_within_a_fleet_is_told_at_once_and_not_of_a_bot_that_never_named_its_account() -> None:
    first = compose(observed(word(), exposure_bound=Decimal(500)))
    assert first.exposure_bound == 500
    assert compose(observed(None, reachable=SILENT, exposure_bound=Decimal(500))).exposure_bound is None
    assert change(first, compose(observed(word(), exposure_bound=Decimal(600)))) is Change.STATE


def test_a_pod_that_mounts_former_keys_is_told_with_what_to_do() -> None:
    pod = seen_pod({"running": {}}, ready=True, credentials="former")
    status = compose(observed(word(), pod=pod))
    assert conditions(status)[Type.CONFIG_APPLIED] == ("False", Reason.CONFIG_PENDING)
    message = next(item.message for item in status.conditions if item.type == Type.CONFIG_APPLIED)
    assert "kubectl delete pod -n trading btcusdt" in message
    assert conditions(compose(observed(word())))[Type.CONFIG_APPLIED] == ("True", Reason.OK)


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    first = compose(observed(word()))
    later = NOW + timedelta(minutes=5)
    again = compose(observed(word(causes=("Spec",)), now=later, bot=seen_bot(status=encode(first))))
    times = {item.type: item.last_transition_time for item in again.conditions}
    assert times[Type.BALANCE_SYNCED] == NOW
    assert times[Type.SAFE_MODE_ENGAGED] == later


# --- quiet ---


def figures(**more: Any) -> BotStatus:
    return word(
        balance=BalanceStatus(
            base=Decimal(0), quote=more.get("quote", Decimal(1)), drift=Decimal(0), last_sync_time=more.get("sync", NOW)
        ),
        position=PositionStatus(
            side="Flat",
            quantity=more.get("quantity", Decimal(0)),
            average_price=Decimal(0),
            value=Decimal(0),
            validated=True,
        ),
        pnl=PnLStatus(realized=Decimal(0), unrealized=more.get("pnl", Decimal(0)), total=Decimal(0)),
        risk=RiskStatus(level="LOW", volatility=more.get("volatility", Decimal(0)), drawdown=Decimal(0)),
        usage=UsageStatus(memory_bytes=more.get("memory", 1)),
    )


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        pytest.param(observed(figures()), Change.NONE, id="the-same"),
        pytest.param(
            observed(figures(sync=NOW + timedelta(minutes=1), memory=2, volatility=Decimal("0.1"))),
            Change.NONE,
            id="what-rides-along",
        ),
        pytest.param(observed(figures(pnl=Decimal("0.5"))), Change.FIGURES, id="unrealized"),
        pytest.param(observed(figures(quote=Decimal(2))), Change.FIGURES, id="balance"),
        pytest.param(observed(figures(quantity=Decimal("0.1"))), Change.POSITION, id="a-fill"),
        pytest.param(observed(word(causes=("Spec",))), Change.STATE, id="safe-mode"),
        pytest.param(observed(None, reachable=SILENT), Change.STATE, id="silence"),
        pytest.param(
            observed(figures(), bot=seen_bot(metadata={"generation": 4})), Change.STATE, id="another-generation"
        ),
    ],
)
def test_how_soon_a_status_is_written_follows_from_what_changed(new: Observed, expected: Change) -> None:
    stands = read_status(TradingBotStatus, encode(compose(observed(figures()))))
    held = compose(new)
    assert change(stands, held) is expected


def test_a_start_up_that_goes_well_is_not_written_step_by_step_and_trouble_in_it_is() -> None:
    first = compose(observed(None, reachable=NOT_YET, pod=seen_pod(None, phase="Pending")))
    second = compose(observed(None, reachable=NOT_YET))
    third = compose(observed(word(causes=("AwaitingGrant",))))
    assert [change(first, second), change(second, third)] == [Change.STARTING, Change.STARTING]
    assert change(second, compose(observed(word()))) is Change.STATE
    wrong = compose(observed(word(said={Type.BALANCE_SYNCED: ("False", Reason.CREDENTIALS_MISSING)})))
    assert change(second, wrong) is Change.STATE


def test_the_first_status_of_a_start_that_goes_well_may_wait_and_one_of_trouble_may_not() -> None:
    nothing = TradingBotStatus()
    assert change(nothing, compose(observed(None, reachable=NOT_YET))) is Change.STARTING
    assert change(nothing, compose(observed(word()))) is Change.STATE
    invalid = replace(observed(None, reachable=NOT_YET), accepted=Finding.bad(Reason.INVALID_SPEC, "no"))
    assert change(nothing, compose(invalid)) is Change.STATE
    # What a former operator wrote of another generation stands for nothing any more.
    told = compose(observed(None, reachable=NOT_YET))
    newer = compose(observed(None, reachable=NOT_YET, bot=seen_bot(metadata={"generation": 4})))
    assert change(told, newer) is Change.STATE


def test_what_cannot_be_read_of_a_status_costs_nothing_else() -> None:
    raw = {"accountUID": "1001", "phase": "Trading", "position": {"side": "Both"}, "pnl": "1", "ofLater": {}}
    assert read_status(TradingBotStatus, raw) == TradingBotStatus(account_uid="1001", phase="Trading")


def test_what_is_written_can_be_read_again() -> None:
    status = compose(observed(figures(pnl=Decimal("-0.00000001"))))
    assert read_status(TradingBotStatus, encode(status)) == status
    assert encode(status)["pnl"]["unrealized"] == "-0.00000001"


# --- events ---


def test_events_tell_safe_mode_and_the_breaker_once_and_no_start_up() -> None:
    starting = compose(observed(word(causes=("AwaitingGrant",))))
    trading = compose(observed(word()))
    safe = compose(observed(word(causes=("Spec",)), bot=WANTED))
    opened = compose(observed(word(said={Type.CIRCUIT_CLOSED: ("False", Reason.CIRCUIT_OPEN)})))
    assert notices(TradingBotStatus(), starting) == notices(starting, trading) == notices(trading, trading) == []
    assert [item.reason for item in notices(trading, safe)] == ["SafeModeEngaged", "SafeModeAcknowledged"]
    assert [item.reason for item in notices(safe, trading)] == ["SafeModeReleased"]
    assert [(item.reason, item.warning) for item in notices(trading, opened)] == [("CircuitOpened", True)]
    assert [item.reason for item in notices(opened, trading)] == ["CircuitClosed"]


def test_a_status_that_conflicts_again_and_again_is_tried_ever_more_rarely() -> None:
    waits = [conflict_wait(conflicts) for conflicts in (0, 1, 2, 1000)]
    assert waits == [0.2, 0.4, 0.8, LONGEST_RETRY_SECONDS]
