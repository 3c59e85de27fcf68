"""Promises of the bot's conditions, readiness, grant and applied configuration."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tradingbot.applied import Applied, ConfigRefusedError, advance, choose_at_start
from tradingbot.model import Balance, BookTicker
from tradingbot.monitoring.health import ConditionClock, Facts, Lasting, Problem, judge, not_ready, unwell
from tradingbot.monitoring.progress import STUCK_SECONDS, Progress
from tradingbot.orders.types import ProtectionState, ProtectionStatus
from tradingbot.recovery.circuit_breaker import BreakerSnapshot, BreakerState
from tradingbot.recovery.grant import GrantKeeper, GrantRefusedError
from tradingbot.recovery.safe_mode import Cause, Level, Source
from tradingbot.session import known_price
from tradingbot.state.balance_reconciler import Verdict, VerdictKind
from tradingbot.state.position_validator import Correction
from tradingbot_api.bot_http import BotConfig, BotIdentity, Grant
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOTHING = Balance(Decimal(0), Decimal(0))
EXACT = Verdict(VerdictKind.EXACT, NOTHING, NOTHING, Decimal(0), Decimal(0), 0)
CLOSED = BreakerSnapshot(BreakerState.CLOSED, 0, None, None)
WELL = Facts(
    config_problem=None,
    loosened=(),
    connection_problem=None,
    connected=True,
    verdict=EXACT,
    verdict_age=1.0,
    correction=Correction.NONE,
    capital_problem=None,
    breaker=CLOSED,
    protection=ProtectionStatus(ProtectionState.FLAT),
    orders_age=1.0,
    causes=(),
    trading_problem=None,
    stream_problem=None,
)
BOOK = BookTicker("BTCUSDT", Decimal(100), Decimal(1), Decimal(101), Decimal(1), received=50.0)
ENGAGED = Cause("spec", Source.SPEC, Reason.SPEC, Level.NO_NEW_ENTRIES, NOW, "set spec.safeMode to false")


def conditions(facts: Facts) -> dict[str, tuple[str, str]]:
    return {item.type: (item.status, item.reason) for item in judge(facts)}


@pytest.mark.parametrize(
    ("changes", "condition", "expected"),
    [
        pytest.param({}, "TradingAllowed", ("True", "OK"), id="well"),
        pytest.param({}, "BalanceSynced", ("True", "Exact"), id="exact"),
        pytest.param({}, "Protected", ("True", "Flat"), id="flat"),
        pytest.param(
            {"verdict": replace(EXACT, kind=VerdictKind.DRIFT)}, "BalanceSynced", ("False", "Drift"), id="drift"
        ),
        pytest.param({"orders_age": 181.0}, "Protected", ("Unknown", "NotReconciled"), id="orders-not-read"),
        pytest.param({"orders_age": 179.0}, "Protected", ("True", "Flat"), id="orders-read"),
        pytest.param({"verdict_age": 181.0}, "BalanceSynced", ("Unknown", "NotReconciled"), id="stale"),
        pytest.param({"verdict": None}, "CapitalCovered", ("Unknown", "NotReconciled"), id="capital-unknown"),
        pytest.param(
            {"connection_problem": Problem(Reason.CREDENTIALS_MISSING, "no apiKey")},
            "BalanceSynced",
            ("False", "CredentialsMissing"),
            id="credentials",
        ),
        pytest.param({"loosened": ("spec.capital",)}, "ConfigApplied", ("False", "LooseningNeedsSafeMode"), id="loose"),
        pytest.param(
            {"config_problem": Problem(Reason.UNKNOWN_SYMBOL, "x")}, "ConfigApplied", ("False", "UnknownSymbol"), id="x"
        ),
        pytest.param(
            {"breaker": replace(CLOSED, state=BreakerState.OPEN)}, "CircuitClosed", ("False", "CircuitOpen"), id="open"
        ),
        pytest.param(
            {"breaker": replace(CLOSED, state=BreakerState.HALF_OPEN)},
            "CircuitClosed",
            ("False", "CircuitHalfOpen"),
            id="half-open",
        ),
        pytest.param(
            {"protection": ProtectionStatus(ProtectionState.UNPROTECTED)}, "Protected", ("False", "Unprotected"), id="u"
        ),
        pytest.param({"protection": None}, "Protected", ("Unknown", "NotReconciled"), id="protection-unknown"),
        pytest.param({"causes": (ENGAGED,)}, "TradingAllowed", ("False", "Spec"), id="safe-mode"),
        pytest.param(
            {"trading_problem": Problem(Reason.STREAM_DEAD, "x")}, "TradingAllowed", ("False", "StreamDead"), id="dead"
        ),
        pytest.param({"connected": False}, "TradingAllowed", ("False", "Starting"), id="starting"),
    ],
)
def test_every_state_has_its_condition(changes: dict[str, Any], condition: str, expected: tuple[str, str]) -> None:
    assert conditions(replace(WELL, **changes))[condition] == expected


def test_ready_means_reconciled_and_is_independent_of_safe_mode() -> None:
    assert not_ready(WELL) is None
    assert not_ready(replace(WELL, causes=(ENGAGED,))) is None
    assert not_ready(replace(WELL, verdict=None)) is not None
    assert "no apiKey" in str(
        not_ready(replace(WELL, connection_problem=Problem(Reason.CREDENTIALS_MISSING, "no apiKey")))
    )


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    clock = ConditionClock()
    first = clock.stamp(judge(WELL), NOW)
    later = clock.stamp(judge(replace(WELL, causes=(ENGAGED,))), NOW + timedelta(seconds=5))
    times = {item.type: item.last_transition_time for item in later}
    assert all(item.last_transition_time == NOW for item in first)
    assert times["TradingAllowed"] == NOW + timedelta(seconds=5)
    assert times["BalanceSynced"] == NOW


# --- the grant ---


def grant(**changes: Any) -> Grant:
    return Grant(
        **{"bot_uid": "u", "boot_id": "b", "incarnation": 5, "revision": 2, "status_sequence": 9, "epoch": 3, **changes}
    )


def test_the_time_of_a_grant_counts_from_the_status_that_it_answers() -> None:
    now = [100.0]
    keeper = GrantKeeper(True, lambda: now[0])
    assert not keeper.allows
    left = keeper.take(grant(), bot_uid="u", boot_id="b", incarnation=5, revision=2, sent_at=90.0)
    assert left == 50.0
    # A grant that was longer on its way shortens nothing, and a longer time than agreed is not taken.
    keeper.take(grant(ttl_seconds=600), bot_uid="u", boot_id="b", incarnation=5, revision=2, sent_at=80.0)
    assert keeper.expires_in == 50.0
    now[0] = 150.0
    assert not keeper.allows


def test_a_former_leader_cannot_grant() -> None:
    keeper = GrantKeeper(True, lambda: 0.0)
    keeper.take(grant(epoch=4), bot_uid="u", boot_id="b", incarnation=5, revision=2, sent_at=0.0)
    with pytest.raises(GrantRefusedError, match="epoch: expected at least 4, got 3"):
        keeper.take(grant(), bot_uid="u", boot_id="b", incarnation=5, revision=2, sent_at=0.0)


def test_without_an_operator_no_grant_is_needed() -> None:
    assert GrantKeeper(False, lambda: 0.0).allows


# --- the applied configuration ---


def config(revision: int, **changes: Any) -> BotConfig:
    spec: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "exchange": {
            "environment": "Paper",
            "baseURL": "http://127.0.0.1:1",
            "credentialsSecretRef": {"name": "keys"},
        },
        "strategy": {"name": "ema-cross", "interval": "1s"},
        "capital": "1000",
        "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
        **changes,
    }
    identity = BotIdentity(namespace="a", name="b", uid="c")
    return BotConfig(revision=revision, bot=identity, settings=BotSettings.model_validate(spec))


BAD = {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 9, "slow": 5}}


def test_a_loosened_limit_is_committed_and_waits_for_safe_mode() -> None:
    first = Applied.fresh(config(1))
    second = advance(first, config(2, capital="2000"), in_safe_mode=False)
    assert (second.committed.settings.capital, second.in_force.capital) == (2000, 1000)
    assert second.loosened == ("spec.capital",)
    third = advance(second, config(3, capital="2000", safeMode=True), in_safe_mode=False)
    assert (third.in_force.capital, third.loosened) == (2000, ())
    assert Applied.from_json(second.to_json()) == second


def test_a_revision_that_is_not_newer_is_refused_and_its_repetition_is_not() -> None:
    present = Applied.fresh(config(2))
    assert advance(present, config(2), in_safe_mode=False).committed == present.committed
    for stale in (config(1), config(2, capital="900")):
        with pytest.raises(ConfigRefusedError) as caught:
            advance(present, stale, in_safe_mode=False)
        assert caught.value.stale


def test_at_start_the_higher_revision_of_file_and_store_counts() -> None:
    stored = Applied.fresh(config(5, capital="900"))
    older = choose_at_start(config(4), stored)
    assert (older.revision, older.applied.in_force.capital, older.problem) == (5, 900, None)
    newer = choose_at_start(config(6, capital="800"), stored)
    assert (newer.revision, newer.applied.in_force.capital) == (6, 800)
    loosened = choose_at_start(config(6, capital="1200"), stored)
    assert (loosened.applied.in_force.capital, loosened.applied.loosened) == (900, ("spec.capital",))


def test_at_start_a_bad_strategy_leaves_the_last_good_one_or_none() -> None:
    stored = Applied.fresh(config(5))
    kept = choose_at_start(config(6, strategy=BAD), stored)
    assert (kept.revision, kept.usable, kept.applied) == (5, True, stored)
    assert kept.problem is not None
    nothing = choose_at_start(config(6, strategy=BAD), None)
    assert (nothing.revision, nothing.usable) == (0, False)
    assert nothing.problem is not None
    assert "spec.strategy.parameters" in nothing.problem.message


def test_the_store_of_a_deleted_bot_of_that_name_is_not_continued() -> None:
    old = config(9)
    stored = Applied.fresh(old.model_copy(update={"bot": old.bot.model_copy(update={"uid": "former"})}))
    assert choose_at_start(config(1), stored).revision == 1


@pytest.mark.parametrize(
    ("book", "now", "expected"),
    [
        pytest.param(BOOK, 79.0, Decimal(100), id="bid"),
        pytest.param(BOOK, 81.0, None, id="dead-stream"),
        pytest.param(None, 29.0, Decimal(99), id="close-before-the-first-bid"),
        pytest.param(None, 31.0, None, id="no-stream"),
    ],
)
def test_a_price_that_comes_no_more_is_not_told(book: BookTicker | None, now: float, expected: Decimal | None) -> None:
    assert known_price(book, Decimal(99), 0.0, now) == expected


@pytest.mark.parametrize(
    ("correction", "advice"),
    [
        pytest.param(Correction.RECONCILE, "compared again", id="first-look"),
        pytest.param(Correction.ADOPT, "tradingbot.dev/clear=untrusted-books", id="for-people"),
    ],
)
def test_books_that_differ_say_what_would_correct_them(correction: Correction, advice: str) -> None:
    drift = replace(EXACT, kind=VerdictKind.DRIFT, message="1 BTC short")
    synced = next(
        one for one in judge(replace(WELL, verdict=drift, correction=correction)) if one.type == "BalanceSynced"
    )

    assert synced.message.startswith("1 BTC short; ")
    assert advice in synced.message


# --- readiness ---


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({}, None, id="well"),
        pytest.param({"causes": (ENGAGED,)}, None, id="safe-mode"),
        pytest.param({"stream_problem": Problem(Reason.STREAM_DEAD, "the user stream")}, "StreamDead: ", id="stream"),
        pytest.param({"verdict_age": 181.0}, "NotReconciled: ", id="old-verdict"),
        pytest.param({"verdict": replace(EXACT, kind=VerdictKind.DRIFT)}, None, id="drift"),
        pytest.param({"breaker": replace(CLOSED, state=BreakerState.OPEN)}, "CircuitOpen: ", id="open"),
        pytest.param({"breaker": replace(CLOSED, state=BreakerState.HALF_OPEN)}, "CircuitHalfOpen: ", id="half-open"),
    ],
)
def test_a_bot_that_neither_sees_nor_reaches_the_exchange_says_why(changes: dict[str, Any], reason: str | None) -> None:
    told = unwell(replace(WELL, **changes))
    assert (told is None) if reason is None else str(told).startswith(reason)
    # The operator's view, whether the books are known, is another.
    assert not_ready(replace(WELL, **changes)) is None


def test_a_problem_is_told_once_it_lasted() -> None:
    now = [0.0]
    lasting = Lasting(15.0, lambda: now[0])
    told = {}
    for second, problem in ((0, "a"), (14, "a"), (14.5, None), (15, "a"), (29, "b"), (30, "b"), (31, None), (32, "a")):
        now[0] = second
        told[second] = lasting.look(problem)
    assert {second: problem for second, problem in told.items() if problem} == {30: "b"}


def test_a_task_that_ends_its_work_in_time_is_not_stuck_however_long_it_waits_for_more() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    with progress.at("tick"):
        now[0] = STUCK_SECONDS
        assert progress.stuck() is None
        now[0] += 1
        assert progress.stuck() == "tick has made no progress for 301 s"
    now[0] += 10 * STUCK_SECONDS
    assert progress.stuck() is None
