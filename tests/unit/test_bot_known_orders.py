"""What is known of each order, from whichever report came last until it is forgotten, and which ones serve nothing."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from support.order_reports import order_report
from tradingbot.model import OrderReport, OrderStatus, OrderType, Side
from tradingbot.orders.cleanup import entry_of, foreign_orders, stale_orders
from tradingbot.orders.oco_monitor import OCOMonitor, OcoPair, OcoState, OcoVerdict
from tradingbot.orders.tracker import HOUR_MS, MOST_DONE, OrderTracker
from tradingbot.orders.types import Trace, TrackedOrder

NEW, PENDING, PART, FILLED = (
    OrderStatus.NEW,
    OrderStatus.PENDING_NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.FILLED,
)
EXPIRED, CANCELED, CANCELING = OrderStatus.EXPIRED, OrderStatus.CANCELED, OrderStatus.PENDING_CANCEL


def tracked(*reports: OrderReport, purpose: str = "sl") -> OrderTracker:
    tracker = OrderTracker()
    for report in reports:
        tracker.absorb(report, purpose)
    return tracker


# --- the tracker ---


def test_what_a_list_holds_is_cancelled_together_and_an_order_alone_by_its_own_id() -> None:
    orders = tracked(order_report("a", list_id=6), order_report("b", list_id=6), order_report("c", order_id=12))
    assert [order.group for order in orders] == [6, 6, "c"]


def test_a_new_order_is_known_with_all_that_was_reported_and_where_it_goes_back_to() -> None:
    tracker = OrderTracker()
    report = replace(
        order_report("a", order_id=5, list_id=6, kind=OrderType.STOP_LOSS, status=PART, quantity="2", executed="1",
                     time_ms=7, expiry_reason="WHY"),
        working=True,
    )  # fmt: skip
    order = TrackedOrder(
        "a", 5, 6, "sl", Side.SELL, OrderType.STOP_LOSS, PART, Decimal(2), Decimal(1), Decimal(100), Decimal(90), 7, 7,
        (), "entry", "signal", "WHY", True,
    )  # fmt: skip
    assert tracker.absorb(report, "sl", Trace("signal", "entry")) == (None, order)
    assert tracker.get("a") == order
    assert tracker.get_order_status("a") is PART
    assert tracker.get_order_status("b") is None
    assert tracker.get("b") is None
    assert tracked(order_report("a")).get("a") == replace(
        order, order_id=11, order_list_id=-1, type=OrderType.LIMIT, status=NEW, quantity=Decimal(1),
        executed_quantity=Decimal(0), stop_price=Decimal(0), created_ms=1, updated_ms=1, related_position="",
        signal_id="", expiry_reason="", working=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "then", "status", "executed", "updated"),
    [
        ((PENDING, "0"), (NEW, "0"), NEW, "0", 9),
        ((NEW, "0"), (PENDING, "0"), NEW, "0", 5),
        ((NEW, "0"), (PART, "1"), PART, "1", 9),
        ((PART, "1"), (NEW, "0"), PART, "1", 5),
        ((PART, "1"), (PART, "2"), PART, "2", 9),
        ((PART, "2"), (PART, "1"), PART, "2", 5),
        ((PART, "1"), (CANCELING, "1"), PART, "1", 5),
        ((CANCELING, "1"), (PART, "2"), PART, "2", 9),
        ((PART, "1"), (CANCELED, "1"), CANCELED, "1", 9),
        ((CANCELED, "1"), (PART, "1"), CANCELED, "1", 5),
        ((CANCELED, "1"), (PART, "2"), CANCELED, "2", 5),
        ((CANCELED, "1"), (FILLED, "2"), FILLED, "2", 9),
        ((FILLED, "2"), (CANCELED, "1"), FILLED, "2", 5),
        ((FILLED, "2"), (EXPIRED, "2"), FILLED, "2", 5),
    ],
)
def test_of_two_reports_the_later_state_and_the_greater_execution_stand(
    first: tuple[OrderStatus, str], then: tuple[OrderStatus, str], status: OrderStatus, executed: str, updated: int
) -> None:
    tracker = tracked(order_report("a", status=first[0], executed=first[1], quantity="2", time_ms=5))
    was = tracker.get("a")
    before, after = tracker.absorb(
        order_report("a", status=then[0], executed=then[1], quantity="2", time_ms=9), "xx", Trace("x", "x")
    )
    assert before == was
    assert after == tracker.get("a")
    assert (after.status, after.executed_quantity, after.updated_ms) == (status, Decimal(executed), updated)
    assert (after.created_ms, after.purpose, after.signal_id, after.related_position) == (5, "sl", "", "")


def test_a_report_of_an_earlier_time_turns_no_clock_back_and_what_was_told_once_stays() -> None:
    tracker = tracked(order_report("a", time_ms=9, expiry_reason="WHY"))
    _, after = tracker.absorb(replace(order_report("a", status=PART, executed="0.5", time_ms=5), working=True), "sl")
    assert (after.updated_ms, after.expiry_reason, after.working) == (9, "WHY", True)
    _, after = tracker.absorb(order_report("a", status=PART, executed="0.5", expiry_reason="OTHER"), "sl")
    assert (after.expiry_reason, after.working) == ("OTHER", True)


def test_open_orders_are_told_oldest_first_and_by_list() -> None:
    tracker = tracked(
        order_report("late", order_id=1, list_id=5, time_ms=3),
        order_report("second", order_id=9, list_id=5, time_ms=1),
        order_report("first", order_id=1, time_ms=1),
        order_report("done", order_id=2, list_id=6, status=FILLED, executed="1"),
        order_report("other", order_id=3, list_id=7, time_ms=2),
    )
    tracker.add_order(replace(next(iter(tracker)), client_order_id="unnumbered", order_id=None, created_ms=1))
    assert [order.client_order_id for order in tracker.active_orders] == [
        "unnumbered", "first", "second", "other", "late",
    ]  # fmt: skip
    lists = {number: [order.client_order_id for order in orders] for number, orders in tracker.oco_orders.items()}
    assert lists == {5: ["unnumbered", "second", "late"], 7: ["other"]}
    assert len(list(tracker)) == 6


def test_only_done_orders_can_be_forgotten() -> None:
    tracker = tracked(order_report("open", order_id=1), order_report("done", order_id=2, status=CANCELED))
    with pytest.raises(ValueError, match=r"^order open is open: it can only be forgotten when it is done$"):
        tracker.remove_order("open")
    tracker.remove_order("done")
    tracker.remove_order("never known")
    assert [order.client_order_id for order in tracker] == ["open"]


def test_a_trade_is_noted_once() -> None:
    tracker = tracked(order_report("a"))
    noted = tracker.note_trade("a", 3)
    assert noted is not None
    assert noted.trade_ids == (3,)
    assert tracker.note_trade("a", 3) is None
    noted = tracker.note_trade("a", 4)
    assert noted == tracker.get("a")
    assert noted is not None
    assert noted.trade_ids == (3, 4)


def test_done_orders_are_forgotten_after_their_time_or_beyond_the_newest() -> None:
    tracker = tracked(
        *(order_report(name, order_id=n, status=CANCELED, time_ms=n) for n, name in enumerate(("a", "b", "c"), 1))
    )
    assert tracker.cleanup_old_orders(24 * HOUR_MS + 1) == []
    assert tracker.cleanup_old_orders(24 * HOUR_MS + 2) == ["a"]
    assert tracker.cleanup_old_orders(2 * HOUR_MS + 3, max_age_hours=2) == ["b"]
    many = tracked(
        *(order_report(f"{n:03}", order_id=n, status=CANCELED, time_ms=n // 2) for n in range(1, MOST_DONE + 4)),
        order_report("open", order_id=9_999, time_ms=0),
    )
    assert many.cleanup_old_orders(0, keep={"002"}) == ["003", "001"]
    assert many.get("004") is not None
    assert many.get("open") is not None


# --- pairs ---


def pair(stop: OrderStatus, target: OrderStatus, *, taken: str = "0", stopped: str = "0") -> list[OrderReport]:
    return [
        order_report("s", order_id=2, list_id=5, kind=OrderType.STOP_LOSS, status=stop, executed=stopped),
        order_report("t", order_id=3, list_id=5, kind=OrderType.LIMIT_MAKER, status=target, executed=taken),
    ]


PAIR = OcoPair(5, "s", "t")


def test_a_pair_is_known_with_both_legs_in_whatever_order_they_come() -> None:
    for reports in (pair(NEW, NEW), pair(NEW, NEW)[::-1]):
        tracker = OrderTracker()
        monitor = OCOMonitor(tracker)
        assert monitor.handle_oco_execution(5) is None
        for number, report in enumerate(reports):
            assert monitor.check_oco_status() == []
            monitor.track_oco_order(5, tracker.absorb(report, "sl")[1])
            assert (monitor.handle_oco_execution(5) is None) is (number == 0)
        assert monitor.check_oco_status() == [OcoVerdict(PAIR, OcoState.WORKING)]
        assert monitor.handle_oco_execution(6) is None


def test_each_new_verdict_is_told_once_and_a_pair_that_ended_is_dropped_with_its_last_leg() -> None:
    tracker = OrderTracker()
    monitor = OCOMonitor(tracker)
    for report in pair(PENDING, PENDING):
        monitor.track_oco_order(5, tracker.absorb(report, "sl")[1])
    told = []
    for reports in (
        pair(PENDING, PENDING),
        pair(NEW, NEW),
        pair(NEW, NEW),
        pair(EXPIRED, PART, taken="0.4"),
        pair(EXPIRED, PART, taken="0.5"),
        pair(EXPIRED, FILLED, taken="1"),
        pair(EXPIRED, FILLED, taken="1"),
    ):
        for report in reports:
            tracker.absorb(report, "sl")
        told.append(monitor.handle_oco_execution(5))
    states = [verdict and (verdict.pair == PAIR, verdict.state) for verdict in told]
    assert states == [
        (True, OcoState.PENDING), (True, OcoState.WORKING), None, (True, OcoState.PARTLY_TAKEN), None,
        (True, OcoState.TAKE_PROFIT), None,
    ]  # fmt: skip
    assert monitor.check_oco_status() == []


def test_a_pair_is_kept_while_either_leg_is_open_and_nothing_is_told_of_one_whose_leg_was_forgotten() -> None:
    for stop, target, open_leg in ((NEW, CANCELED, "s"), (EXPIRED, PART, "t")):
        tracker = tracked(*pair(stop, target, taken="0.4"))
        monitor = OCOMonitor(tracker)
        for order in tracker:
            monitor.track_oco_order(5, order)
        assert monitor.handle_oco_execution(5) == OcoVerdict(PAIR, OcoState.PARTLY_TAKEN)
        assert monitor.check_oco_status() == [OcoVerdict(PAIR, OcoState.PARTLY_TAKEN)], f"{open_leg} is open"
        tracker.remove_order("t" if open_leg == "s" else "s")
        assert monitor.handle_oco_execution(5) is None
        assert monitor.check_oco_status() == []


@pytest.mark.parametrize("state", OcoState)
def test_a_pair_protects_until_either_leg_has_done_something(state: OcoState) -> None:
    assert state.ended is (state not in {OcoState.PENDING, OcoState.WORKING, OcoState.STOP_TRIGGERED})


# --- clean-up ---


def leg(purpose: str, *, list_id: int = 5, status: OrderStatus = NEW, executed: str = "0") -> OrderReport:
    number = {"en": 1, "tp": 2, "sl": 3, "an": 4}[purpose]
    return order_report(
        f"tb-abcdefghij-0000007-00000{number}-{purpose}",
        order_id=number,
        list_id=list_id,
        side=Side.BUY if purpose in {"en", "an"} else Side.SELL,
        kind=OrderType.STOP_LOSS if purpose == "sl" else OrderType.LIMIT_MAKER,
        status=status,
        quantity="2",
        executed=executed,
    )


@pytest.mark.parametrize(
    ("reports", "flat", "position", "stale"),
    [
        pytest.param([leg("sl")], True, "0", ["protects a position that is no longer held"], id="orphan"),
        pytest.param([leg("sl")], False, "0", [], id="held"),
        pytest.param([leg("sl")], True, "2", [], id="no-more-than-the-position"),
        pytest.param([leg("sl")], True, "1.9", ["protects a position that is no longer held"], id="more-than-that"),
        pytest.param([leg("sl", executed="0.1")], True, "1.9", [], id="what-is-left-of-it"),
        pytest.param([leg("tp"), leg("sl")], True, "2", [], id="a-pair-of-the-position"),
        pytest.param(
            [leg("sl", status=EXPIRED), leg("tp", executed="1.99")],
            True,
            "0.01",
            ["what it has not sold is too little to be sold"],
            id="a-rest-without-a-stop",
        ),
        pytest.param([leg("sl", status=CANCELED)], True, "0", [], id="done"),
        pytest.param([leg("en"), leg("sl")], True, "0", [], id="its-entry-works"),
        pytest.param(
            [leg("en", list_id=6), leg("sl")], True, "0", ["protects a position that is no longer held"], id="another"
        ),
        pytest.param(
            [leg("en", status=EXPIRED), leg("sl")], True, "0", ["protects a position that is no longer held"], id="gone"
        ),
        pytest.param([leg("an")], True, "0", ["announcement that was not canceled"], id="announcement"),
    ],
)
def test_what_serves_nothing_is_stale_and_says_why(
    reports: list[OrderReport], flat: bool, position: str, stale: list[str]
) -> None:
    tracker = OrderTracker()
    for report in reports:
        tracker.absorb(report, report.client_order_id[-2:])
    found = stale_orders(tracker, flat=flat, position=Decimal(position), now_ms=1_001, entry_seconds=1)
    assert [item.reason for item in found] == stale
    assert {item.order.client_order_id for item in found} <= {reports[-1].client_order_id}
    late = stale_orders(tracker, flat=False, position=Decimal(position), now_ms=1_002, entry_seconds=1)
    entries = [item for item in late if item.order.purpose == "en"]
    assert [item.reason for item in entries] == ["entry older than 1 s"] * (reports[0].client_order_id[-2:] == "en"
        and reports[0].status is NEW)  # fmt: skip


@pytest.mark.parametrize(
    ("leg_id", "entry"),
    [
        ("tb-abcdefghij-0000007-00000z-sl", "tb-abcdefghij-0000007-00000z-en"),
        ("tb-abcdefghij-0000007-00000z-tp", "tb-abcdefghij-0000007-00000z-en"),
        ("tb-abcdefghij-0000007-00000z-xt", None),
        ("tb-abcdefghij-0000007-00000z-en", None),
        ("web_1", None),
    ],
)
def test_a_leg_names_the_entry_that_made_it(leg_id: str, entry: str | None) -> None:
    _, order = OrderTracker().absorb(order_report(leg_id), "sl")
    assert entry_of(order) == entry


def test_orders_of_other_bots_and_of_people_are_foreign() -> None:
    ours, other, hand = leg("sl"), order_report("tb-zzzzzzzzzz-0000007-000001-sl"), order_report("web_1")
    assert foreign_orders([ours, other, hand], "abcdefghij") == [other, hand]
