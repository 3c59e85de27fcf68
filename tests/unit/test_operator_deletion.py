"""Promises about the end of a TradingBot: its deadline, and that people learn all that stays on the exchange."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from support.operator_objects import NOW, seen_bot, word
from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, DrainPhase, DrainStatus, GrantStatus, OpenOrder
from tradingbot_api.v1alpha1 import PositionPolicy, PositionStatus, TradingBotStatus
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import Word
from tradingbot_operator.certainty import ENTRY_SETTLE_SECONDS, granted_after, over_in, stood
from tradingbot_operator.deletion import DEFAULT_DEADLINE_SECONDS, Wish, begun
from tradingbot_operator.inventory import SeenBot
from tradingbot_operator.leftovers import farewell, leftovers
from tradingbot_operator.status import Finding, Gone, safe_mode_acknowledged, safe_mode_engaged

DELETED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PREFIX = names.order_prefix("1001", "BTCUSDT")
HELD = GrantStatus(held=True)


def composed(bot: SeenBot, **more: Any) -> TradingBotStatus:
    """The status of a TradingBot that has no pod."""
    fields: dict[str, Any] = {
        "now": NOW, "accepted": Finding.good(), "claim": Finding.good(), "pod": None, "pod_missing": "gone",
        "word": None, "reachable": Finding.open("Starting", "There is no process."), "revision": 1, **more,
    }  # fmt: skip
    return statuses.compose(statuses.Observed(bot=bot, **fields))


def condition(kind: str, reason: str, status: str = "True") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason}


# --- the deadline ---


def deleting(reason: str, since: str) -> dict[str, Any]:
    return {
        "status": {"conditions": [
            {"type": "Accepted", "status": "False", "reason": reason, "lastTransitionTime": since}
        ]},
        "metadata": {"deletionTimestamp": "2026-11-22T12:00:00Z"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bot", "seen_after", "expected_after"),
    [
        pytest.param(deleting("OK", "2026-11-22T11:00:00Z"), 0, 0, id="at-once"),
        pytest.param(deleting("OK", "2026-11-22T11:00:00Z"), 3600, 3600, id="no-operator-for-an-hour"),
        pytest.param(deleting("Deleting", "2026-11-22T12:00:02Z"), 60, 2, id="a-former-operator-began"),
        pytest.param(deleting("Deleting", "2026-11-22T11:00:00Z"), 60, 0, id="dated-before-it-by-a-former-release"),
    ],
)
def test_the_deadline_counts_from_when_an_operator_took_the_deletion_up(
    bot: dict[str, Any], seen_after: int, expected_after: int
) -> None:
    seen = DELETED + timedelta(seconds=seen_after)
    assert begun(seen_bot(**bot), seen) == DELETED + timedelta(seconds=expected_after)


@pytest.mark.parametrize("before", ["OK", "ForeignObject", "Deleting"])
def test_the_status_keeps_when_an_operator_took_the_deletion_up_whatever_stood_before(before: str) -> None:
    taken_up = DELETED + timedelta(minutes=10)
    status = "True" if before == "OK" else "False"
    since = "2026-11-22T12:10:00Z" if before == "Deleting" else "2026-11-17T12:00:00Z"
    bot = seen_bot(
        metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"},
        status={"conditions": [{**condition("Accepted", before, status), "lastTransitionTime": since}]},
    )
    told = composed(bot, now=taken_up, accepted=Finding.bad("Deleting", "Being deleted."))
    again = seen_bot(metadata={"deletionTimestamp": "2026-11-22T12:00:00Z"}, status=statuses.encode(told))
    assert begun(again, taken_up + timedelta(hours=1)) == taken_up


def test_a_spec_that_cannot_be_read_ends_by_the_defaults_and_never_sells() -> None:
    wish = Wish.of(seen_bot(deletionPolicy="SellAll", deletionDeadlineSeconds="soon"))
    assert (wish.policy, wish.seconds, wish.readable) == (PositionPolicy.HOLD, DEFAULT_DEADLINE_SECONDS, False)
    wish = Wish.of(seen_bot(deletionPolicy="ClosePosition", deletionDeadlineSeconds=10))
    assert (wish.policy, wish.seconds, wish.readable) == (PositionPolicy.CLOSE_POSITION, 10, True)


def test_a_drain_survives_the_status_and_a_word_of_another_version_does_not_break_it() -> None:
    drained = DrainStatus(phase=DrainPhase.DRAINED, position_policy=PositionPolicy.HOLD, remaining=["position 0.5 BTC"])
    noted = {"drained": statuses.drained_mark(drained).model_dump(mode="json", by_alias=True)}
    assert statuses.noted_drain(seen_bot(status=noted)) == drained
    other = statuses.noted_drain(seen_bot(status={"drained": {"positionPolicy": "Other", "remaining": []}}))
    assert other is not None
    assert other.position_policy is None
    assert statuses.noted_drain(seen_bot()) is None


# --- what is left ---


def drained(policy: str, *remaining: str) -> DrainStatus:
    return DrainStatus(phase=DrainPhase.DRAINED, position_policy=PositionPolicy(policy), remaining=list(remaining))


def last_word(quantity: str = "0.5", orders: int = 1) -> BotStatus:
    position = PositionStatus(
        side="Long", quantity=quantity, average_price="1", value="1", validated=True
    )  # fmt: skip
    stops = [
        OpenOrder(
            client_order_id=f"{PREFIX}0000001-{number:06}-sl", order_id=number, order_list_id=7, type="STOP_LOSS_LIMIT",
            side="SELL", status="NEW", quantity="0.5", executed_quantity="0", price="97", stop_price="98",
            purpose="sl", created_time=NOW,
        )
        for number in range(orders)
    ]  # fmt: skip
    return word(position=position, open_orders=stops)


@pytest.mark.parametrize(
    ("drain", "reason", "warning"),
    [
        pytest.param(drained("Hold", "position 0.5 BTC"), "LeftOnExchange", False, id="held-as-wanted"),
        pytest.param(drained("ClosePosition", "position 0.5 BTC"), "PositionNotClosed", True, id="not-closed"),
        pytest.param(drained("Hold", "unknown: not connected"), "DeletionIncomplete", True, id="not-known"),
        pytest.param(drained("Hold", "outcome of tb-1 is unknown"), "DeletionIncomplete", True, id="an-order-unknown"),
        pytest.param(None, "DeletionIncomplete", True, id="never-drained"),
    ],
)
def test_what_is_left_against_the_policy_is_a_warning_with_what_to_do(
    drain: DrainStatus | None, reason: str, warning: bool
) -> None:
    told = farewell(seen_bot(status={"accountUID": "1001"}), drain, None)
    assert told is not None
    notice, left = told
    assert (notice.reason, notice.warning) == (reason, warning)
    assert (PREFIX in notice.message) is warning
    assert all(line in notice.message for line in left.lines)


def test_a_drain_that_left_nothing_is_no_event() -> None:
    assert farewell(seen_bot(), drained("ClosePosition"), last_word()) is None


@pytest.mark.parametrize(
    ("status", "last", "lines", "source"),
    [
        pytest.param(
            {}, last_word(),
            ("position 0.5 of BTCUSDT", f"SELL STOP_LOSS_LIMIT 0.5 stop=98 price=97 list=7 {PREFIX}0000001-000000-sl"),
            "as the bot last said at 2026-11-22T12:00:00Z", id="the-bots-last-word",
        ),
        pytest.param({}, last_word("0", 0), (), "as the bot last said at 2026-11-22T12:00:00Z", id="flat"),
        pytest.param(
            {"accountUID": "1001", "position": {
                "side": "Long", "quantity": "0.25", "averagePrice": "1", "value": "1", "validated": True}},
            None, ("position 0.25 of BTCUSDT", "orders not known"), "as the status had it", id="the-status",
        ),
        pytest.param(
            {"accountUID": "1001"}, word(account_uid=None), ("position of BTCUSDT not known", "orders not known"),
            "as the status had it", id="a-word-that-knew-nothing",
        ),
    ],
)  # fmt: skip
def test_every_order_and_position_is_named_by_the_best_witness_there_is(
    status: dict[str, Any], last: BotStatus | None, lines: tuple[str, ...], source: str
) -> None:
    left = leftovers(seen_bot(status=status), None, last)
    assert (left.lines, left.source) == (lines, source)
    assert left.look_for == f"every open order of BTCUSDT whose client order id begins {PREFIX}"


def test_an_event_holds_what_to_do_however_many_orders_are_left() -> None:
    told = farewell(seen_bot(), None, last_word(orders=40))
    assert told is not None
    notice, left = told
    assert len(left.lines) == 41
    assert len(notice.message) <= 1024
    assert PREFIX in notice.message
    assert "more, see the operator's log" in notice.message


# --- safe mode of a bot that is gone ---


@pytest.mark.parametrize(
    ("last", "facts", "expected"),
    [
        pytest.param(None, {"could_trade": False}, 0.0, id="never-had-a-claim"),
        pytest.param(None, {"stood": True}, 0.0, id="an-earlier-operator-had-its-word"),
        pytest.param(None, {}, None, id="nobody-heard-it"),
        pytest.param(word(causes=("Spec",)), {}, 0.0, id="it-had-acknowledged"),
        pytest.param(word(causes=("Spec",)), {"granted_since": True}, 0.0, id="a-grant-does-not-release-it"),
        pytest.param(
            word(causes=("Spec",), grant=HELD), {"wished": False}, None, id="a-configuration-may-have-released-it"
        ),
        pytest.param(word(causes=("BreakerOpen",), grant=HELD), {}, None, id="it-may-have-released-itself"),
        pytest.param(
            word(causes=("BreakerOpen",), grant=HELD, announced=True),
            {},
            ENTRY_SETTLE_SECONDS,
            id="it-may-have-released-itself-and-entered",
        ),
        pytest.param(word(causes=("BreakerOpen", "Draining"), grant=HELD), {"wished": False}, 0.0, id="it-was-ending"),
        pytest.param(word(causes=("AwaitingGrant",)), {"wished": False}, 0.0, id="it-had-no-grant"),
        pytest.param(word(causes=("AwaitingGrant",)), {"granted_since": True}, None, id="it-may-have-got-a-grant"),
        pytest.param(word(causes=("Spec",), acknowledged=False), {}, None, id="not-acknowledged-nor-shown"),
        pytest.param(word(), {}, None, id="traded-before-it-showed-itself"),
        pytest.param(word(announced=True), {}, ENTRY_SETTLE_SECONDS, id="an-entry-may-be-on-its-way"),
        pytest.param(word(announced=True), {"gone_for": 5.0}, ENTRY_SETTLE_SECONDS - 5.0, id="not-yet-over"),
        pytest.param(word(announced=True), {"gone_for": 60.0}, 0.0, id="its-recv-window-is-over"),
    ],
)
def test_nothing_is_left_of_a_process_only_where_that_is_certain(
    last: BotStatus | None, facts: dict[str, Any], expected: float | None
) -> None:
    known: dict[str, Any] = {
        "could_trade": True, "stood": False, "granted_since": False, "wished": True, "gone_for": 0.0, **facts
    }  # fmt: skip
    assert over_in(last, **known) == expected


@pytest.mark.parametrize(
    ("held", "granted", "after"),
    [
        pytest.param(True, None, False, id="never"),
        pytest.param(True, 99.0, False, id="it-knew-of-one"),
        pytest.param(True, 101.0, True, id="renewed-since"),
        pytest.param(False, 99.0, True, id="its-word-crossed-the-grant"),
        pytest.param(False, 30.0, False, id="that-grant-is-over"),
    ],
)
def test_a_word_that_knows_of_no_grant_does_not_rule_out_one_that_was_sent(
    held: bool, granted: float | None, after: bool
) -> None:
    assert granted_after(Word(word(grant=GrantStatus(held=held)), received=100.0), granted) is after


@pytest.mark.parametrize(
    ("engaged", "acknowledged", "wanted", "expected"),
    [
        pytest.param("Spec", "OK", True, True, id="as-the-spec-still-wants"),
        pytest.param("Spec", "OK", False, False, id="the-spec-wants-it-no-more"),
        pytest.param("BreakerOpen", "OK", True, False, id="for-a-reason-of-its-own"),
        pytest.param("ProcessGone", "ProcessGone", False, True, id="by-its-end"),
    ],
)
def test_a_former_operators_word_counts_only_while_nothing_can_have_ended_it(
    engaged: str, acknowledged: str, wanted: bool, expected: bool
) -> None:
    conditions = [condition("SafeModeEngaged", engaged), condition("SafeModeAcknowledged", acknowledged)]
    assert stood(seen_bot(safeMode=wanted, status={"conditions": conditions})) is expected
    assert not stood(seen_bot(safeMode=True, status={"conditions": conditions[:1]}))


@pytest.mark.parametrize(
    ("gone", "acknowledged", "engaged"),
    [
        pytest.param(None, ("False", "BotUnreachable"), ("Unknown", "BotUnreachable"), id="it-may-run"),
        pytest.param(Gone(0.0), ("True", "ProcessGone"), ("True", "ProcessGone"), id="gone-and-over"),
        pytest.param(Gone(7.0), ("False", "EntriesWorking"), ("True", "ProcessGone"), id="gone-and-soon-over"),
        pytest.param(Gone(None), ("False", "UnknownOrder"), ("True", "ProcessGone"), id="an-order-may-rest"),
    ],
)
def test_safe_mode_of_a_bot_is_acknowledged_by_its_certain_end(
    gone: Gone | None, acknowledged: tuple[str, str], engaged: tuple[str, str]
) -> None:
    silent = Finding.bad("NoHeartbeat", "No word.")
    found = safe_mode_acknowledged(None, silent, True, 1, None, gone=gone)
    assert (found.status, found.reason) == acknowledged
    found = safe_mode_engaged(None, True, gone)
    assert (found.status, found.reason) == engaged


@pytest.mark.parametrize(
    ("status", "vanished", "named"),
    [
        pytest.param({"podName": "btcusdt", "podUID": "pod-1"}, "pod-1", ("btcusdt", "pod-1"), id="it-may-run"),
        pytest.param({"podName": "btcusdt"}, "", ("btcusdt", None), id="a-former-release-wrote-its-name-alone"),
        pytest.param({"podName": "btcusdt", "podUID": "pod-1"}, None, (None, None), id="certainly-gone"),
    ],
)
def test_a_pod_that_vanished_is_named_until_its_process_is_certainly_gone(
    status: dict[str, str], vanished: str | None, named: tuple[str | None, str | None]
) -> None:
    told = composed(seen_bot(status=status), vanished_pod=vanished)
    assert (told.pod_name, told.pod_uid) == named
