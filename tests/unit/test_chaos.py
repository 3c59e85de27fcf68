"""The chaos campaign: its schedule follows from the seed, and each of its oracles sees what it is there to see."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from campaigns.chaos_oracles import Log, bare, charged, figures, overtaken, told_right, unexplained, unsafe
from campaigns.chaos_plan import Harm, blows
from paper_exchange.core.model import OrderStatus
from paper_exchange.faults.parsing import Known
from paper_exchange.faults.scenario import read_scenario
from support.paper import Desk
from tradingbot.recovery.fence import ClientId, Purpose

UID = 1
ENDPOINTS = (
    "POST /api/v3/order",
    "POST /api/v3/orderList/otoco",
    "DELETE /api/v3/order",
    "GET /api/v3/account",
    "GET /api/v3/openOrders",
)
OLD, NEW = 1_700_000_000, 1_700_000_100


def name(purpose: Purpose, incarnation: int = OLD, sequence: int = 1) -> str:
    return str(ClientId("a" * 10, incarnation, sequence, purpose))


def log_of(desk: Desk) -> Log:
    exchange = desk.exchange
    orders = sorted(exchange.orders.values(), key=lambda order: order.order_id)
    return Log("BTC", orders, dict(exchange.lists), sorted(exchange.changes.trades, key=lambda one: one.trade_id))


@pytest.fixture
def desk() -> Desk:
    """An account that held nothing before its bot came."""
    desk = Desk()
    desk.open(UID, USDT="100000")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    return desk


def bracket(desk: Desk, incarnation: int = OLD, sequence: int = 1) -> None:
    desk.bracket(
        UID, "0.01", "60001", "59000", "61000", pendingQuantity="0.00999",  # less what the fee takes
        workingClientOrderId=name(Purpose.ENTRY, incarnation, sequence),
        pendingAboveClientOrderId=name(Purpose.TAKE_PROFIT, incarnation, sequence),
        pendingBelowClientOrderId=name(Purpose.STOP_LOSS, incarnation, sequence),
    )  # fmt: skip


def test_the_schedule_is_the_same_for_a_seed_and_has_each_harm_once_a_turn() -> None:
    turn = [blows(7, step, 50) for step in range(1, len(Harm) + 1)]
    assert turn == [blows(7, step, 50) for step in range(1, len(Harm) + 1)]
    assert {step[0].harm for step in turn} == set(Harm)
    assert turn != [blows(8, step, 50) for step in range(1, len(Harm) + 1)]
    assert all(bot < 50 for step in turn for blow in step for bot in blow.bots)
    spared = [blow.harm for step in range(1, 200) for blow in blows(7, step, 50, {Harm.LEADER_KILLED})]
    assert set(spared) == set(Harm) - {Harm.LEADER_KILLED}


def test_the_exchange_takes_each_fault_and_gap_of_the_schedule() -> None:
    known = Known(("BTCUSDT",), ENDPOINTS)
    played = dict.fromkeys((Harm.PRICE_GAPS, Harm.CALLS_DISTURBED, Harm.EVENTS_DISTURBED), 0)
    for blow in (blow for step in range(1, 20 * len(Harm)) for blow in blows(1, step, 50) if blow.terms):
        played[blow.harm] += 1
        gap = blow.harm is Harm.PRICE_GAPS
        step = {"market": {"symbol": "BTCUSDT", **blow.terms}} if gap else {"fault": {**blow.terms, "accounts": [1]}}
        read_scenario(json.dumps({"description": "Chaos.", "steps": [{"at": 0, **step}]}), "chaos", known)
    assert min(played.values()) > 10


def test_a_position_is_bare_from_the_cancel_of_its_stop_until_the_next_one(desk: Desk) -> None:
    bracket(desk)
    assert bare(log_of(desk)) == []
    stop = next(order for order in log_of(desk).orders if order.type.stop)
    desk.cancel(UID, stop.order_id)
    since = desk.now
    assert bare(log_of(desk)) == [(since, float("inf"))]
    desk.now += 5_000
    desk.oco(UID, "0.00999", "59000", "61000")
    assert bare(log_of(desk)) == [(since, desk.now)]


def test_a_take_profit_that_is_filled_in_part_leaves_the_rest_bare(desk: Desk) -> None:
    bracket(desk)
    desk.book([("61000", "0.004")], [("61001", "1")])
    log = log_of(desk)
    assert next(order for order in log.orders if order.type.stop).status is OrderStatus.EXPIRED
    assert bare(log) == [(desk.now, float("inf"))]


def test_what_is_excused_is_not_charged_and_all_else_is() -> None:
    spans = [(1_000, 31_000.0)]
    assert charged(spans, [], 40_000) == [((1_000, 31_000.0), 30_000.0)]
    assert charged(spans, [(0, 5_000), (4_000, 11_000), (30_000, float("inf"))], 40_000)[0][1] == 19_000
    assert charged([(1_000, float("inf"))], [(2_000, 3_000)], 10_000)[0][1] == 8_000


def test_an_entry_of_an_older_process_after_a_newer_one_is_seen(desk: Desk) -> None:
    bracket(desk)
    assert overtaken(log_of(desk)) == []
    far = {"price": "50000", "quantity": "0.001"}
    desk.place(UID, "BUY", "LIMIT_MAKER", newClientOrderId=name(Purpose.ANNOUNCE, NEW), **far)
    assert overtaken(log_of(desk)) == []
    desk.place(UID, "BUY", newClientOrderId=name(Purpose.ENTRY, OLD, 2), **far)
    assert [late for _, late in overtaken(log_of(desk))] == [1]


def test_what_is_accepted_or_rests_in_acknowledged_safe_mode_is_seen(desk: Desk) -> None:
    desk.place(UID, "BUY", price="50000", quantity="0.001", newClientOrderId=name(Purpose.ENTRY))
    acknowledged = desk.tick()
    assert len(unsafe(log_of(desk), [(acknowledged, float("inf"))])) == 1
    desk.cancel(UID, log_of(desk).orders[0].order_id)
    safe = desk.tick()
    assert unsafe(log_of(desk), [(safe, float("inf"))]) == []
    desk.place(UID, "BUY", "LIMIT_MAKER", price="50000", quantity="0.001", newClientOrderId=name(Purpose.ANNOUNCE))
    assert len(unsafe(log_of(desk), [(safe, float("inf"))])) == 1
    assert unsafe(log_of(desk), [(safe, desk.now - 1)]) == []


def test_books_are_told_right_to_the_last_decimal_and_only_of_a_moment_that_was(desk: Desk) -> None:
    bracket(desk)
    log = log_of(desk)
    books = figures(log, "USDT")
    held, realized = Decimal("0.00999"), Decimal("-0.60001")
    assert (books[-1].quantity, books[-1].realized) == (held, realized)
    at = log.trades[-1].time
    assert told_right((held, realized), books, at, at)
    assert told_right((Decimal(0), Decimal(0)), books, at - 10, at)
    assert not told_right((Decimal(0), Decimal(0)), books, at + 1, at + 10)
    assert not told_right((held, realized), books, at - 10, at - 1)
    assert not told_right((held + Decimal("1e-8"), realized), books, at, at)
    assert not told_right((held, Decimal(0)), books, at, at)


def test_an_order_that_nobody_gave_a_reason_for_is_seen(desk: Desk) -> None:
    bracket(desk)
    log = log_of(desk)
    entry, *others = (order.client_order_id for order in log.orders)
    assert unexplained(log, dict.fromkeys((entry, *others), "Signal"), ()) == ([], 0)
    assert unexplained(log, dict.fromkeys(others, "Signal"), {entry}) == ([], 1)
    wrong, _ = unexplained(log, dict.fromkeys(others, "Signal") | {entry: ""}, ())
    assert len(wrong) == 1
    assert entry in wrong[0]


def test_a_stop_of_an_entry_that_was_not_filled_protects_nothing(desk: Desk) -> None:
    bracket(desk)
    log = log_of(desk)
    canceled = [replace(order, status=OrderStatus.CANCELED) if order.side == "BUY" else order for order in log.orders]
    assert bare(replace(log, orders=canceled)) == [(log.trades[0].time, float("inf"))]
