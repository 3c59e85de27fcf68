"""The whole table of a status: what was observed, the condition and reason that tell it, the phase, what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.operator_objects import GOOD, NOW, RUNNING, seen_bot, seen_pod, word
from tradingbot_api.conditions import ConditionType as Type
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.v1alpha1 import SafeModeCause, SafeModeStatus
from tradingbot_operator.bot_controller import stalled
from tradingbot_operator.equality import Standing
from tradingbot_operator.fleet import NO_ACCOUNT_YET
from tradingbot_operator.inventory import BotKey
from tradingbot_operator.restarts import PodStep, up_to_date
from tradingbot_operator.status import Finding, Gone, Observed, compose

ROOT = Path(__file__).resolve().parents[2]
GOING = Finding.open(Reason.STARTING, "There is no running process yet.")
SILENT = Finding.bad(Reason.NO_HEARTBEAT, "No word from the bot: silence.")
DELETED: dict[str, Any] = {"metadata": {"deletionTimestamp": "2026-11-22T12:00:00Z"}}
NO_NODE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes."}
NO_VOLUME = {**NO_NODE, "message": "pod has unbound immediate PersistentVolumeClaims."}
BOTS_OWN = (
    Type.BALANCE_SYNCED,
    Type.CAPITAL_COVERED,
    Type.CIRCUIT_CLOSED,
    Type.PROTECTED,
    Type.TRADING_ALLOWED,
)


@dataclass(frozen=True)
class Row:
    """One thing that is observed, and how it is told."""

    seen: Observed
    kind: Type
    status: str
    reason: Reason
    phase: Phase
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.kind}-{self.status}-{self.reason}-{self.phase}"


def seen(**more: Any) -> Observed:
    """A bot that trades, but for `more`."""
    fields: dict[str, Any] = {
        "now": NOW,
        "bot": seen_bot(),
        "accepted": Finding.good(),
        "claim": Finding.good(),
        "pod": RUNNING,
        "pod_missing": "The pod is being made.",
        "word": word(),
        "reachable": Finding.good(),
        "revision": 1,
        "up_to_date": Finding.good(),
    }
    return Observed(**{**fields, **more})


def unheard(pod: Any, **more: Any) -> Observed:
    """A bot whose process does not answer yet, since its pod is so."""
    return seen(pod=pod, **{"word": None, "reachable": GOING, **more})


def says(kind: Type, status: str, reason: Reason) -> Observed:
    """The bot's own word on a condition."""
    return seen(word=word(said={kind: (status, reason)}))


def engaged(reason: Reason, **more: Any) -> Observed:
    """A bot in safe mode for one cause."""
    return seen(word=word(causes=(reason,)), **more)


def outdated(step: PodStep, **spec: Any) -> Observed:
    """A pod of another template than the spec asks for, and what is done about it."""
    bot, pod = seen_bot(**spec), seen_pod({"running": {}}, ready=True, template="old", image="bot:1")
    return seen(bot=bot, pod=pod, up_to_date=up_to_date(pod, bot, "new", "bot:2", step))


def failed_often() -> Finding:
    """A step that failed again and again."""
    finding = stalled(1000, RuntimeError("boom"))
    assert finding is not None
    return finding


T, F, U = "True", "False", "Unknown"
UNTOLD = SafeModeStatus(level="NoNewEntries", engaged=True, acknowledged=True, causes=[])
SPEC_CAUSE = [SafeModeCause(id="spec", source="Spec", reason=Reason.SPEC, level="NoNewEntries")]
WORKING = SafeModeStatus(level="NoNewEntries", engaged=True, acknowledged=False, causes=SPEC_CAUSE)

OPERATORS = [
    # Accepted
    Row(seen(), Type.ACCEPTED, T, Reason.OK, Phase.TRADING),
    Row(
        seen(accepted=Finding.bad(Reason.INVALID_SPEC, "Correct it.")), Type.ACCEPTED, F, Reason.INVALID_SPEC,
        Phase.INVALID, "Correct it.",
    ),
    Row(
        seen(accepted=Finding.bad(Reason.FOREIGN_OBJECT, "delete or rename it")), Type.ACCEPTED, F,
        Reason.FOREIGN_OBJECT, Phase.INVALID, "delete or rename it",
    ),
    Row(
        seen(accepted=Finding.bad(Reason.VOLUME_EXISTS, "adopt it")), Type.ACCEPTED, F, Reason.VOLUME_EXISTS,
        Phase.INVALID, "adopt it",
    ),
    Row(
        seen(accepted=Finding.open(Reason.STARTING, "is being removed")), Type.ACCEPTED, U, Reason.STARTING,
        Phase.TRADING, "is being removed",
    ),
    Row(
        seen(bot=seen_bot(**DELETED), accepted=Finding.bad(Reason.DELETING, "Being deleted: Drain.")), Type.ACCEPTED, F,
        Reason.DELETING, Phase.DRAINING, "Drain",
    ),
    Row(seen(accepted=failed_often()), Type.ACCEPTED, U, Reason.STALLED, Phase.DEGRADED, "see the operator's log"),
    # ClaimHeld
    Row(seen(), Type.CLAIM_HELD, T, Reason.OK, Phase.TRADING),
    Row(
        seen(claim=Finding.bad(Reason.CLAIMED_BY_OTHER, "Delete one of the two")), Type.CLAIM_HELD, F,
        Reason.CLAIMED_BY_OTHER, Phase.DEGRADED, "Delete one of the two",
    ),
    Row(
        seen(claim=Finding.bad(Reason.CLAIM_REFUSED, "Nothing is granted.")), Type.CLAIM_HELD, F, Reason.CLAIM_REFUSED,
        Phase.DEGRADED, "Nothing is granted.",
    ),
    Row(
        seen(claim=Finding.bad(Reason.ACCOUNT_CHANGED, "Put the former account's keys back")), Type.CLAIM_HELD, F,
        Reason.ACCOUNT_CHANGED, Phase.DEGRADED, "Put the former",
    ),
    Row(
        seen(claim=NO_ACCOUNT_YET, word=word(causes=(Reason.AWAITING_GRANT,))), Type.CLAIM_HELD, U,
        Reason.AWAITING_ACCOUNT, Phase.STARTING, "see BalanceSynced",
    ),
    Row(
        seen(claim=Finding.open(Reason.STARTING, "looked at again"), word=word(causes=(Reason.AWAITING_GRANT,))),
        Type.CLAIM_HELD, U, Reason.STARTING, Phase.STARTING,
    ),
    # PodReady
    Row(seen(), Type.POD_READY, T, Reason.OK, Phase.TRADING),
    Row(unheard(None), Type.POD_READY, F, Reason.POD_MISSING, Phase.PENDING, "being made"),
    Row(
        unheard(None, pod_missing="at about 12:05 UTC", paced=True), Type.POD_READY, F, Reason.START_PACED,
        Phase.PENDING, "at about 12:05 UTC",
    ),
    Row(
        unheard(None, bot=seen_bot(suspend=True), pod_missing="spec.suspend"), Type.POD_READY, F, Reason.SUSPENDED,
        Phase.SUSPENDED, "spec.suspend",
    ),
    Row(unheard(seen_pod(None, phase="Pending")), Type.POD_READY, F, Reason.POD_PENDING, Phase.PENDING, "starting"),
    Row(
        unheard(seen_pod(None, phase="Pending", node=None, scheduled=NO_NODE)), Type.POD_READY, F, Reason.UNSCHEDULABLE,
        Phase.DEGRADED, "Change spec.pod or the nodes",
    ),
    Row(
        unheard(seen_pod(None, phase="Pending", node=None, scheduled=NO_VOLUME)), Type.POD_READY, F,
        Reason.VOLUME_PENDING, Phase.DEGRADED, "kubectl describe pvc -n trading btcusdt-state",
    ),
    Row(
        unheard(seen_pod({"waiting": {"reason": "ImagePullBackOff"}}, phase="Pending")), Type.POD_READY, F,
        Reason.IMAGE_PULL_FAILED, Phase.DEGRADED, "Correct spec.pod.image",
    ),
    Row(
        unheard(seen_pod({"waiting": {"reason": "CrashLoopBackOff"}}, last={"exitCode": 2, "reason": "Error"})),
        Type.POD_READY, F, Reason.CRASH_LOOP, Phase.DEGRADED, "kubectl logs -n trading btcusdt --previous",
    ),
    Row(
        unheard(
            seen_pod(
                {"waiting": {"reason": "CrashLoopBackOff"}}, last={"exitCode": 137, "reason": "OOMKilled"},
                resources={"limits": {"memory": "128Mi"}},
            )
        ),
        Type.POD_READY, F, Reason.OUT_OF_MEMORY, Phase.DEGRADED, "its limit of 128Mi",
    ),
    Row(
        unheard(seen_pod(None, phase="Failed", reason="Evicted")), Type.POD_READY, F, Reason.EVICTED, Phase.STARTING,
        "It is made again.",
    ),
    Row(
        unheard(seen_pod({"running": {}}, disruption="DeletionByTaintManager", deleting=True), reachable=SILENT),
        Type.POD_READY, F, Reason.NODE_LOST, Phase.DEGRADED, "kubectl delete node node1",
    ),
    Row(
        seen(pod=seen_pod({"running": {}}), word=word(said={Type.BALANCE_SYNCED: (F, Reason.NOT_RECONCILED)})),
        Type.POD_READY, F, Reason.POD_NOT_READY, Phase.STARTING, "the other conditions say why",
    ),
    # BotReachable
    Row(seen(), Type.BOT_REACHABLE, T, Reason.OK, Phase.TRADING),
    Row(unheard(RUNNING), Type.BOT_REACHABLE, U, Reason.STARTING, Phase.STARTING),
    Row(unheard(RUNNING, reachable=SILENT), Type.BOT_REACHABLE, F, Reason.NO_HEARTBEAT, Phase.UNREACHABLE),
    Row(
        unheard(RUNNING, reachable=Finding.bad(Reason.IDENTITY_MISMATCH, "Not this TradingBot's process")),
        Type.BOT_REACHABLE, F, Reason.IDENTITY_MISMATCH, Phase.UNREACHABLE,
    ),
    Row(
        unheard(None, bot=seen_bot(suspend=True), reachable=Finding.open(Reason.SUSPENDED, "no process")),
        Type.BOT_REACHABLE, U, Reason.SUSPENDED, Phase.SUSPENDED,
    ),
    # ConfigApplied
    Row(seen(), Type.CONFIG_APPLIED, T, Reason.OK, Phase.TRADING),
    Row(unheard(RUNNING), Type.CONFIG_APPLIED, U, Reason.UNKNOWN, Phase.STARTING),
    Row(seen(revision=2), Type.CONFIG_APPLIED, F, Reason.CONFIG_PENDING, Phase.TRADING, "revision 2 is on its way"),
    Row(
        seen(pod=seen_pod({"running": {}}, ready=True, credentials="former")), Type.CONFIG_APPLIED, F,
        Reason.CONFIG_PENDING, Phase.TRADING,
    ),
    Row(
        seen(revision=2, refusal=Finding.bad(Reason.CONFIG_INVALID, "correct the spec")), Type.CONFIG_APPLIED, F,
        Reason.CONFIG_INVALID, Phase.DEGRADED, "correct the spec",
    ),
    # what only the bot can judge
    *(Row(unheard(RUNNING), kind, U, Reason.UNKNOWN, Phase.STARTING, "cannot be asked") for kind in BOTS_OWN),
    *(
        Row(seen(word=word(conditions=[])), kind, U, Reason.STARTING, Phase.STARTING, "has not said yet")
        for kind in BOTS_OWN
    ),
    # SafeModeEngaged
    Row(unheard(RUNNING), Type.SAFE_MODE_ENGAGED, U, Reason.BOT_UNREACHABLE, Phase.STARTING, "within a minute"),
    Row(seen(), Type.SAFE_MODE_ENGAGED, F, Reason.NOT_ENGAGED, Phase.TRADING, "Entries are allowed."),
    Row(seen(bot=seen_bot(safeMode=True), revision=2), Type.SAFE_MODE_ENGAGED, F, Reason.NOT_ENGAGED, Phase.TRADING,
        "on its way"),
    Row(seen(word=word(safe_mode=UNTOLD)), Type.SAFE_MODE_ENGAGED, T, Reason.ENGAGED, Phase.SAFE_MODE),
    Row(engaged(Reason.AWAITING_GRANT), Type.SAFE_MODE_ENGAGED, T, Reason.AWAITING_GRANT, Phase.STARTING),
    # SafeModeAcknowledged
    Row(engaged(Reason.KILL_SWITCH), Type.SAFE_MODE_ENGAGED, T, Reason.KILL_SWITCH, Phase.SAFE_MODE),
    Row(engaged(Reason.SPEC, bot=seen_bot(safeMode=True)), Type.SAFE_MODE_ACKNOWLEDGED, T, Reason.OK, Phase.SAFE_MODE),
    Row(seen(), Type.SAFE_MODE_ACKNOWLEDGED, F, Reason.NOT_ENGAGED, Phase.TRADING),
    Row(unheard(RUNNING, reachable=SILENT), Type.SAFE_MODE_ACKNOWLEDGED, F, Reason.BOT_UNREACHABLE, Phase.UNREACHABLE),
    Row(unheard(None, gone=Gone(0.0)), Type.SAFE_MODE_ENGAGED, T, Reason.PROCESS_GONE, Phase.PENDING),
    Row(unheard(None, gone=Gone(0.0)), Type.SAFE_MODE_ACKNOWLEDGED, T, Reason.PROCESS_GONE, Phase.PENDING),
    Row(unheard(None, gone=Gone(9.0)), Type.SAFE_MODE_ACKNOWLEDGED, F, Reason.ENTRIES_WORKING, Phase.PENDING),
    Row(
        unheard(None, gone=Gone(None)), Type.SAFE_MODE_ACKNOWLEDGED, F, Reason.UNKNOWN_ORDER, Phase.PENDING,
        "open BUY orders",
    ),
    Row(
        engaged(Reason.DRAWDOWN, bot=seen_bot(safeMode=True), revision=2), Type.SAFE_MODE_ACKNOWLEDGED, F,
        Reason.CONFIG_PENDING, Phase.SAFE_MODE,
    ),
    Row(
        seen(bot=seen_bot(safeMode=True), word=word(safe_mode=WORKING)), Type.SAFE_MODE_ACKNOWLEDGED, F,
        Reason.ENTRIES_WORKING, Phase.SAFE_MODE,
    ),
    # AddressSuffices
    Row(seen(), Type.ADDRESS_SUFFICES, T, Reason.OK, Phase.TRADING),
    Row(
        seen(egress_group="nat-1", too_many=(160, 150)), Type.ADDRESS_SUFFICES, F, Reason.TOO_MANY_BOTS, Phase.TRADING,
        "Spread them over nodes with addresses of their own",
    ),
    # UpToDate
    Row(seen(), Type.UP_TO_DATE, T, Reason.OK, Phase.TRADING),
    Row(
        unheard(None, up_to_date=up_to_date(None, seen_bot(), "new", "bot:2", PodStep.DELETE)), Type.UP_TO_DATE, U,
        Reason.POD_MISSING, Phase.PENDING,
    ),
    Row(
        outdated(PodStep.KEEP), Type.UP_TO_DATE, F, Reason.POD_OUTDATED, Phase.TRADING,
        "kubectl delete pod -n trading btcusdt",
    ),
    Row(
        outdated(PodStep.WAIT, updateStrategy="WhenFlat"), Type.UP_TO_DATE, F, Reason.AWAITING_FLAT, Phase.TRADING,
        "bot:2 is asked for",
    ),
    Row(
        outdated(PodStep.QUEUE, updateStrategy="WhenFlat"), Type.UP_TO_DATE, F, Reason.AWAITING_TURN, Phase.TRADING,
        "in its turn",
    ),
    Row(outdated(PodStep.DRAIN, updateStrategy="WhenFlat"), Type.UP_TO_DATE, F, Reason.UPDATING, Phase.TRADING),
    # Ready
    Row(seen(), Type.READY, T, Reason.OK, Phase.TRADING),
    Row(engaged(Reason.SPEC), Type.READY, T, Reason.OK, Phase.SAFE_MODE),
    Row(unheard(None), Type.READY, F, Reason.POD_MISSING, Phase.PENDING, "Not yet: PodReady, BotReachable"),
    Row(
        says(Type.BALANCE_SYNCED, F, Reason.DRIFT), Type.READY, F, Reason.DRIFT, Phase.DEGRADED,
        "Not yet: BalanceSynced.",
    ),
    # BalanceSynced, over all bots of the account
    Row(
        seen(account=Standing(False, True, "the account is not what its bots made of it; put it back")),
        Type.BALANCE_SYNCED, F, Reason.UNEXPLAINED, Phase.DEGRADED, "put it back",
    ),
    Row(
        seen(account=Standing(False, message="not compared for three minutes: a/eth does not tell")),
        Type.BALANCE_SYNCED, T, Reason.COVERED, Phase.TRADING, "a/eth does not tell",
    ),
    Row(
        seen(split=(BotKey("a", "eth"),), account=Standing(True)), Type.BALANCE_SYNCED, U, Reason.ACCOUNT_SPLIT,
        Phase.TRADING, "Give them the same label",
    ),
    Row(
        seen(split=(BotKey("a", "eth"),)), Type.CAPITAL_COVERED, U, Reason.ACCOUNT_SPLIT, Phase.TRADING, "a/eth",
    ),
    Row(
        seen(split=(BotKey("a", "eth"),), account=Standing(False, True, "it lacks 1 BTC")), Type.BALANCE_SYNCED, F,
        Reason.UNEXPLAINED, Phase.DEGRADED, "it lacks 1 BTC",
    ),
    Row(
        seen(
            word=word(said={Type.BALANCE_SYNCED: (T, Reason.COVERED)}), account=Standing(True, others_hold_base=True)
        ),
        Type.BALANCE_SYNCED, T, Reason.EXACT, Phase.TRADING,
    ),
    Row(
        seen(word=word(said={Type.BALANCE_SYNCED: (T, Reason.COVERED)}), account=Standing(True)),
        Type.BALANCE_SYNCED, T, Reason.COVERED, Phase.TRADING,
    ),
    Row(
        seen(
            word=word(said={Type.BALANCE_SYNCED: (F, Reason.DRIFT)}), account=Standing(True, others_hold_base=True)
        ),
        Type.BALANCE_SYNCED, F, Reason.DRIFT, Phase.DEGRADED,
    ),
]  # fmt: skip
"""What the operator composes."""

BOTS = [
    *(
        Row(says(Type.CONFIG_APPLIED, F, reason), Type.CONFIG_APPLIED, F, reason, phase)
        for reason, phase in (
            (Reason.UNKNOWN_SYMBOL, Phase.DEGRADED),
            (Reason.UNKNOWN_STRATEGY, Phase.DEGRADED),
            (Reason.STRATEGY_PARAMETERS_INVALID, Phase.DEGRADED),
            (Reason.CONFIG_INVALID, Phase.DEGRADED),
            (Reason.LOOSENING_NEEDS_SAFE_MODE, Phase.TRADING),
        )
    ),
    *(
        Row(says(Type.BALANCE_SYNCED, status, reason), Type.BALANCE_SYNCED, status, reason, phase)
        for status, reason, phase in (
            (T, Reason.EXACT, Phase.TRADING),
            (T, Reason.COVERED, Phase.TRADING),
            (F, Reason.DRIFT, Phase.DEGRADED),
            (F, Reason.CREDENTIALS_MISSING, Phase.DEGRADED),
            (F, Reason.CREDENTIALS_REJECTED, Phase.DEGRADED),
            (F, Reason.EXCHANGE_UNREACHABLE, Phase.DEGRADED),
            (F, Reason.KEY_CAN_WITHDRAW, Phase.DEGRADED),
            (F, Reason.KEY_CANNOT_TRADE, Phase.DEGRADED),
            (F, Reason.ACCOUNT_CHANGED, Phase.DEGRADED),
            (F, Reason.NOT_RECONCILED, Phase.STARTING),
            (F, Reason.STARTING, Phase.STARTING),
        )
    ),
    Row(says(Type.CAPITAL_COVERED, F, Reason.CAPITAL_NOT_COVERED), Type.CAPITAL_COVERED, F, Reason.CAPITAL_NOT_COVERED,
        Phase.TRADING),
    Row(says(Type.CIRCUIT_CLOSED, F, Reason.CIRCUIT_OPEN), Type.CIRCUIT_CLOSED, F, Reason.CIRCUIT_OPEN, Phase.TRADING),
    Row(says(Type.CIRCUIT_CLOSED, F, Reason.CIRCUIT_HALF_OPEN), Type.CIRCUIT_CLOSED, F, Reason.CIRCUIT_HALF_OPEN,
        Phase.TRADING),
    Row(says(Type.PROTECTED, T, Reason.FLAT), Type.PROTECTED, T, Reason.FLAT, Phase.TRADING),
    Row(says(Type.PROTECTED, T, Reason.PROTECTED), Type.PROTECTED, T, Reason.PROTECTED, Phase.TRADING),
    Row(says(Type.PROTECTED, F, Reason.UNPROTECTED), Type.PROTECTED, F, Reason.UNPROTECTED, Phase.DEGRADED),
    *(
        Row(engaged(reason), Type.SAFE_MODE_ENGAGED, T, reason, Phase.SAFE_MODE)
        for reason in (
            Reason.SPEC,
            Reason.POD_ANNOTATION,
            Reason.DAILY_LOSS,
            Reason.DRAWDOWN,
            Reason.BREAKER_OPEN,
            Reason.UNTRUSTED_BOOKS,
            Reason.UNKNOWN_ORDER,
            Reason.EXCHANGE_RESET,
            Reason.FLATTENED,
            Reason.TWO_TRADERS,
            Reason.STORE_FAILED,
            Reason.DRAINING,
        )
    ),
    *(
        Row(says(Type.TRADING_ALLOWED, F, reason), Type.TRADING_ALLOWED, F, reason, Phase.PAUSED)
        for reason in (
            Reason.STREAM_DEAD,
            Reason.STRATEGY_FAILED,
            Reason.COOLDOWN,
            Reason.WARMING_UP,
            Reason.CAPITAL_NOT_COVERED,
            Reason.SYMBOL_HALTED,
            Reason.TEST_ORDER_REFUSED,
        )
    ),
]  # fmt: skip
"""What the bot says and the operator passes on."""


@pytest.mark.parametrize("row", [*OPERATORS, *BOTS], ids=str)
def test_what_is_observed_is_told_by_a_condition_a_reason_and_the_phase(row: Row) -> None:
    status = compose(row.seen)
    told = {item.type: item for item in status.conditions}
    assert set(told) == set(Type), "each status has every condition"
    assert (told[row.kind].status, told[row.kind].reason, status.phase) == (row.status, row.reason, row.phase)
    assert row.advice in told[row.kind].message
    assert row.status == T or row.kind in BOTS_OWN or told[row.kind].message or row in BOTS


def reasons_in(folder: str) -> set[Reason]:
    """The reasons that a component's source names."""
    named: set[str] = set()
    for path in (ROOT / folder).rglob("*.py"):
        named.update(re.findall(r"\bReason\.([A-Z_]+)", path.read_text(encoding="utf-8")))
    return {Reason[name] for name in named}


def test_every_reason_has_a_row_and_somebody_who_says_it() -> None:
    by_operator, by_bot = reasons_in("operator/src"), reasons_in("bot/src")
    assert set(Reason) - by_operator - by_bot == set(), "said by nobody"
    rows = {row.reason for row in OPERATORS}
    assert by_operator - rows - {row.reason for row in BOTS} == set()
    assert {row.reason for row in BOTS} - by_bot == set(), "the bot does not say them"
    assert set(Reason) - rows - {row.reason for row in BOTS} == set()


def test_every_condition_and_every_phase_has_a_row() -> None:
    rows = [*OPERATORS, *BOTS]
    assert {row.kind for row in rows} == set(Type)
    assert {row.phase for row in rows} == set(Phase)
    for kind in set(Type) - {*BOTS_OWN, Type.SAFE_MODE_ENGAGED}:
        assert {row.status for row in rows if row.kind is kind} >= {T, F}, kind


def test_the_bot_that_trades_is_good_in_every_answer() -> None:
    told = {item.type: item.status for item in compose(seen()).conditions}
    bad = {kind for kind, status in told.items() if status != T}
    assert bad == {Type.SAFE_MODE_ENGAGED, Type.SAFE_MODE_ACKNOWLEDGED}
    assert set(GOOD) <= set(told)
