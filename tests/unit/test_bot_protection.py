"""Protection, pairs and clean-up: what counts as protected, and what is never touched."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import fold
from support.order_reports import order_report, trade_fill
from support.symbol_rules import btcusdt_rules
from tradingbot.model import OrderStatus, OrderType, Side
from tradingbot.orders.cleanup import stale_orders
from tradingbot.orders.oco_monitor import OCOMonitor, OcoState
from tradingbot.orders.protection import Unbooked, UnprotectedTime, judge_protection, stopped_quantity
from tradingbot.orders.tracker import HOUR_MS, OrderTracker
from tradingbot.orders.types import ProtectionState
from tradingbot.state.ledger import LedgerState, book

RULES = btcusdt_rules()
DAY = 86_400
NEW, PENDING, PART, FILLED = (
    OrderStatus.NEW,
    OrderStatus.PENDING_NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.FILLED,
)
EXPIRED, CANCELED = OrderStatus.EXPIRED, OrderStatus.CANCELED


def held(quantity: str) -> LedgerState:
    fills = [book(trade_fill(1, quantity=quantity), "BTC", "USDT")] if Decimal(quantity) else []
    return fold(fills, "BTC", "USDT", RULES.lot.min_quantity)


def pair(
    stop: OrderStatus,
    target: OrderStatus,
    *,
    taken: str = "0",
    stopped: str = "0",
    kind: OrderType = OrderType.STOP_LOSS,
    entry: OrderStatus | None = None,
    why: str | None = None,
) -> OrderTracker:
    tracker = OrderTracker()
    if entry is not None:
        tracker.absorb(order_report("e", order_id=1, list_id=5, side=Side.BUY, status=entry), "en")
    tracker.absorb(order_report("s", order_id=2, list_id=5, kind=kind, status=stop, executed=stopped), "sl")
    leg = OrderType.LIMIT_MAKER
    report = order_report("t", order_id=3, list_id=5, kind=leg, status=target, executed=taken, expiry_reason=why)
    tracker.absorb(report, "tp")
    return tracker


@pytest.mark.parametrize(
    ("quantity", "orders", "state"),
    [
        pytest.param("0", OrderTracker(), ProtectionState.FLAT, id="nothing-held"),
        pytest.param("0.000009", OrderTracker(), ProtectionState.FLAT, id="less-than-a-step"),
        pytest.param("0.0001", OrderTracker(), ProtectionState.FLAT, id="less-than-the-least-notional"),
        pytest.param("1", OrderTracker(), ProtectionState.UNPROTECTED, id="no-order"),
        pytest.param("1.01", pair(NEW, NEW), ProtectionState.PROTECTED, id="the-rest-could-not-be-sold-alone"),
        pytest.param("1.06", pair(NEW, NEW), ProtectionState.UNPROTECTED, id="the-rest-could-be-sold-alone"),
        pytest.param("1.0505", pair(NEW, NEW), ProtectionState.PROTECTED, id="the-rest-could-not-be-sold-at-the-stop"),
        pytest.param("1", pair(NEW, NEW), ProtectionState.PROTECTED, id="pair"),
        pytest.param("2", pair(NEW, NEW), ProtectionState.UNPROTECTED, id="pair-too-small"),
        pytest.param("1.000009", pair(NEW, NEW), ProtectionState.PROTECTED, id="pair-and-dust"),
        pytest.param("1", pair(EXPIRED, PART, taken="0.4"), ProtectionState.UNPROTECTED, id="partly-taken-no-stop"),
        pytest.param("1", pair(NEW, EXPIRED), ProtectionState.PROTECTED, id="market-stop-triggered"),
        pytest.param(
            "1",
            pair(NEW, EXPIRED, kind=OrderType.STOP_LOSS_LIMIT),
            ProtectionState.UNPROTECTED,
            id="limit-stop-triggered-may-have-gapped",
        ),
        pytest.param("1", pair(PENDING, PENDING, entry=FILLED), ProtectionState.PROTECTED, id="about-to-be-activated"),
        pytest.param("1", pair(PENDING, PENDING, entry=NEW), ProtectionState.UNPROTECTED, id="waits-for-the-entry"),
    ],
)
def test_a_position_is_protected_by_stops_over_all_that_can_be_sold(
    quantity: str, orders: OrderTracker, state: ProtectionState
) -> None:
    assert judge_protection(RULES, held(quantity), orders)[0] is state


def test_a_triggered_stop_with_a_limit_protects_nothing_in_whatever_order_the_legs_are_known() -> None:
    legs = list(pair(NEW, EXPIRED, kind=OrderType.STOP_LOSS_LIMIT))
    for known in (legs, legs[::-1]):
        assert judge_protection(RULES, held("1"), known)[0] is ProtectionState.UNPROTECTED


def test_what_has_a_stop_is_counted_past_orders_that_stop_nothing() -> None:
    limited = OrderType.STOP_LOSS_LIMIT
    assert judge_protection(RULES, held("1"), pair(NEW, NEW, kind=limited)) == (ProtectionState.PROTECTED, "")
    alone = pair(NEW, NEW, kind=limited)
    alone.absorb(order_report("alone", order_id=9, kind=OrderType.STOP_LOSS, quantity="3", executed="1"), "sl")
    assert stopped_quantity(alone) == 3
    for former in (pair(NEW, EXPIRED, kind=limited), pair(PENDING, PENDING, entry=NEW), OrderTracker()):
        former.absorb(order_report("alone", order_id=9, kind=limited, quantity="3", executed="1"), "sl")
        assert stopped_quantity(former) == 2
        assert judge_protection(RULES, held("2"), former) == (ProtectionState.PROTECTED, "")
        told = judge_protection(RULES, held("3"), former)
        assert told == (ProtectionState.UNPROTECTED, "3 BTC held, 2 of it has a stop")
    assert judge_protection(RULES, held("1"), []) == (ProtectionState.UNPROTECTED, "1 BTC held, 0 of it has a stop")
    assert isinstance(stopped_quantity([]), Decimal)
    low = OrderTracker()
    low.absorb(replace(order_report("low", kind=limited), price=Decimal(80)), "sl")
    # 0.06 could be sold alone at 90, where the stop is triggered, and not at 80, down to where it sells.
    assert judge_protection(RULES, held("1.06"), low)[0] is ProtectionState.PROTECTED
    assert judge_protection(RULES, held("0"), []) == (ProtectionState.FLAT, "")
    dust = judge_protection(RULES, held("0.000009"), [])
    assert dust == (ProtectionState.FLAT, "0.000009 BTC is too little to be sold")


@pytest.mark.parametrize(
    ("orders", "state"),
    [
        pytest.param(pair(PENDING, PENDING), OcoState.PENDING, id="pending"),
        pytest.param(pair(NEW, NEW), OcoState.WORKING, id="working"),
        pytest.param(pair(NEW, EXPIRED), OcoState.STOP_TRIGGERED, id="stop-triggered"),
        pytest.param(pair(EXPIRED, FILLED, taken="1"), OcoState.TAKE_PROFIT, id="take-profit"),
        pytest.param(pair(FILLED, EXPIRED, stopped="1"), OcoState.STOP_LOSS, id="stop-loss"),
        pytest.param(pair(EXPIRED, PART, taken="0.1"), OcoState.PARTLY_TAKEN, id="partly-taken"),
        pytest.param(pair(EXPIRED, EXPIRED, stopped="0.1"), OcoState.PARTLY_STOPPED, id="partly-stopped"),
        pytest.param(pair(EXPIRED, EXPIRED, why="OCO_TRIGGER"), OcoState.STOP_EXPIRED, id="stop-expired"),
        pytest.param(pair(EXPIRED, EXPIRED, why="REJECTED"), OcoState.GONE, id="rejected"),
        pytest.param(pair(CANCELED, CANCELED), OcoState.GONE, id="canceled"),
    ],
)
def test_each_end_of_a_pair_is_told_apart(orders: OrderTracker, state: OcoState) -> None:
    monitor = OCOMonitor(orders)
    for leg in orders:
        monitor.track_oco_order(5, leg)

    assert [verdict.state for verdict in monitor.check_oco_status()] == [state]
    verdict = monitor.handle_oco_execution(5)
    assert verdict is not None
    assert verdict.state is state


def test_a_verdict_is_told_once() -> None:
    orders = pair(EXPIRED, FILLED, taken="1")
    monitor = OCOMonitor(orders)
    for leg in orders:
        monitor.track_oco_order(5, leg)

    assert monitor.handle_oco_execution(5) is not None
    assert monitor.handle_oco_execution(5) is None


@pytest.mark.parametrize("first", ["sl", "tp"])
@pytest.mark.parametrize("end", [CANCELED, EXPIRED])
def test_a_pair_whose_legs_end_one_after_the_other_is_forgotten(first: str, end: OrderStatus) -> None:
    orders = pair(NEW, NEW)
    monitor = OCOMonitor(orders)
    for leg in orders:
        monitor.track_oco_order(5, leg)
    for leg in sorted(orders, key=lambda order: order.purpose != first):
        orders.add_order(replace(leg, status=end))
        monitor.handle_oco_execution(5)

    assert monitor.check_oco_status() == []


statuses = st.sampled_from(OrderStatus)


@given(st.lists(st.tuples(statuses, st.integers(0, 10)), max_size=10))
def test_an_order_never_goes_back_whatever_comes_late(reports: list[tuple[OrderStatus, int]]) -> None:
    tracker = OrderTracker()
    executed = Decimal(0)
    closed = False
    for status, quantity in reports:
        _, after = tracker.absorb(order_report("a", status=status, executed=str(quantity), quantity="10"), "sl")
        assert after.executed_quantity >= executed
        assert not (closed and after.is_open)
        executed, closed = after.executed_quantity, not after.is_open


def test_done_orders_are_forgotten_after_a_day_and_open_ones_never() -> None:
    tracker = OrderTracker()
    tracker.absorb(order_report("done", order_id=1, status=FILLED, executed="1"), "sl")
    tracker.absorb(order_report("open", order_id=2), "sl")

    assert tracker.cleanup_old_orders(25 * HOUR_MS) == ["done"]
    assert [order.client_order_id for order in tracker.active_orders] == ["open"]
    with pytest.raises(ValueError, match="open"):
        tracker.remove_order("open")


def test_done_orders_whose_fills_are_missing_are_kept() -> None:
    tracker = OrderTracker()
    tracker.absorb(order_report("done", order_id=1, status=FILLED, executed="1"), "sl")

    assert tracker.cleanup_old_orders(25 * HOUR_MS, keep={"done"}) == []


def test_an_execution_counts_before_its_trades_can_be_read() -> None:
    bought, sold = Unbooked(Decimal(1), Decimal(100)), Unbooked(Decimal(-1))

    assert judge_protection(RULES, held("0"), [], bought)[0] is ProtectionState.UNPROTECTED
    assert judge_protection(RULES, held("0"), pair(NEW, NEW), bought)[0] is ProtectionState.PROTECTED
    assert judge_protection(RULES, held("1"), [], sold)[0] is ProtectionState.FLAT


def stale(tracker: OrderTracker, *, flat: bool, position: str = "0", now_ms: int = 1, seconds: int = DAY) -> list[str]:
    """Client ids of the stale ones."""
    found = stale_orders(tracker, flat=flat, position=Decimal(position), now_ms=now_ms, entry_seconds=seconds)
    return [item.order.client_order_id for item in found]


@pytest.mark.parametrize("age_ms", [0, 100 * DAY * 1000])
def test_protection_of_an_open_position_is_never_stale_whatever_its_age(age_ms: int) -> None:
    assert stale(pair(NEW, NEW), flat=False, now_ms=age_ms) == []


def test_protection_of_nothing_is_stale() -> None:
    assert len(stale(pair(NEW, NEW), flat=True)) == 2


def test_a_stop_of_what_changed_filters_call_dust_is_not_stale() -> None:
    assert stale(pair(NEW, NEW), flat=True, position="1") == []


def test_a_stop_that_somebody_made_smaller_protects_no_more_than_it_sells() -> None:
    orders = pair(NEW, NEW)
    for quantity in ("0.4", "1"):  # what was told before may come late
        report = order_report("s", order_id=2, list_id=5, kind=OrderType.STOP_LOSS, quantity=quantity)
        orders.absorb(report, "sl")
        assert stopped_quantity(orders) == Decimal("0.4")
        assert judge_protection(RULES, held("1"), orders)[0] is ProtectionState.UNPROTECTED


def test_the_rest_of_a_sale_that_ended_its_stop_is_stale_once_it_is_too_little_to_be_sold() -> None:
    assert stale(pair(EXPIRED, PART, taken="0.99"), flat=True, position="0.01") == ["t"]
    assert stale(pair(EXPIRED, PART, taken="0.99"), flat=False, position="0.01") == []
    assert stale(pair(NEW, EXPIRED, stopped="0.99"), flat=True, position="0.01") == []


def test_legs_of_a_working_entry_are_not_stale() -> None:
    assert stale(pair(PENDING, PENDING, entry=NEW), flat=True) == []


def test_an_entry_is_stale_once_it_is_older_than_the_setting() -> None:
    tracker = OrderTracker()
    tracker.absorb(order_report("a", side=Side.BUY), "en")
    (order,) = tracker

    assert stale(tracker, flat=True, now_ms=order.created_ms + 60_000, seconds=60) == []
    assert stale(tracker, flat=True, now_ms=order.created_ms + 60_001, seconds=60) == ["a"]


def test_a_left_announcement_is_stale_at_once() -> None:
    tracker = OrderTracker()
    tracker.absorb(order_report("a", side=Side.BUY, kind=OrderType.LIMIT_MAKER), "an")

    assert stale(tracker, flat=False) == ["a"]


def test_unprotected_time_goes_on_over_a_lost_connection_and_begins_with_the_process() -> None:
    time = UnprotectedTime(started=100.0)
    assert time.begin(40.0) == 100.0
    assert time.begin(130.0) == 100.0  # the next connection finds the same position
    assert time.seconds(150.0) == 50.0
    time.end(160.0)
    time.end(170.0)
    assert time.begin(200.0) == 200.0
    assert time.seconds(201.0) == 61.0
