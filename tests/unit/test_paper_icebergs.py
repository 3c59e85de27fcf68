"""Icebergs on the paper exchange: what the book shows of them, and whom they let pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, units

ALICE, BOB = 1, 2


@pytest.fixture
def desk() -> Desk:
    """Two accounts and a book with room between its sides."""
    desk = Desk()
    desk.open(ALICE, USDT="1000000", BTC="10")
    desk.open(BOB, USDT="1000000", BTC="10")
    desk.book([("59000", "1")], [("61000", "1")])
    desk.trade("60000")
    return desk


def shown(desk: Desk) -> list[tuple[int, int]]:
    """The best level of the asks."""
    return desk.exchange.market(SYMBOL).asks.levels(1)


def test_the_book_shows_one_part_at_a_time(desk: Desk) -> None:
    answer = desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.3")
    assert answer["icebergQty"] == "0.30000000"
    assert shown(desk) == [(units("60000"), units("0.3"))]
    assert desk.held(ALICE, "BTC") == ("9", "1")
    desk.place(BOB, "BUY", "MARKET", quantity="0.2")
    assert shown(desk) == [(units("60000"), units("0.1"))]
    desk.place(BOB, "BUY", "MARKET", quantity="0.1")
    assert shown(desk) == [(units("60000"), units("0.3"))]
    desk.place(BOB, "BUY", "MARKET", quantity="0.6")
    assert shown(desk) == [(units("60000"), units("0.1"))]


def test_a_new_part_queues_behind_those_who_waited(desk: Desk) -> None:
    desk.open(3, BTC="1")
    iceberg = desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.3")["orderId"]
    waiting = desk.place(3, "SELL", price="60000", quantity="0.2")["orderId"]
    answer = desk.place(BOB, "BUY", "MARKET", quantity="0.6")
    assert [fill["qty"] for fill in answer["fills"]] == ["0.30000000", "0.20000000", "0.10000000"]
    assert desk.status(iceberg)[1] == "0.4"
    assert desk.status(waiting)[0] == "FILLED"


def test_a_new_part_queues_behind_the_outside_quantity(desk: Desk) -> None:
    iceberg = desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.3")["orderId"]
    desk.book([], [("60000", "0.5")], snapshot=False)
    desk.trade("60000", "0.4", seller_takes=False)
    assert desk.status(iceberg)[1] == "0.3"
    desk.trade("60000", "0.5", seller_takes=False)
    assert desk.status(iceberg)[1] == "0.3"
    desk.trade("60000", "0.2", seller_takes=False)
    assert desk.status(iceberg)[1] == "0.5"


def test_a_taker_reaches_the_hidden_parts(desk: Desk) -> None:
    desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.01")
    answer = desk.place(BOB, "BUY", price="60000", quantity="1", timeInForce="FOK")
    assert (answer["status"], len(answer["fills"])) == ("FILLED", 100)


def test_an_iceberg_that_takes_rests_with_one_part(desk: Desk) -> None:
    desk.place(BOB, "BUY", price="60000", quantity="0.5")
    answer = desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.2")
    assert answer["executedQty"] == "0.50000000"
    assert shown(desk) == [(units("60000"), units("0.2"))]


def test_a_triggered_stop_rests_as_an_iceberg(desk: Desk) -> None:
    desk.place(
        ALICE,
        "SELL",
        "STOP_LOSS_LIMIT",
        quantity="1",
        stopPrice="59950",
        price="60100",
        timeInForce="GTC",
        icebergQty="0.1",
    )
    desk.trade("59950")
    assert shown(desk) == [(units("60100"), units("0.1"))]


def test_the_shown_part_survives_a_restart(tmp_path: Path, desk: Desk) -> None:
    desk.place(ALICE, "SELL", price="60000", quantity="1", icebergQty="0.3")
    desk.place(BOB, "BUY", "MARKET", quantity="0.5")
    store = Store(tmp_path)
    store.save(desk.exchange.take_changes())
    fresh = Exchange([SYMBOLS[SYMBOL]], desk.now)
    store.restore(fresh)
    store.close()
    assert fresh.market(SYMBOL).asks.levels(1) == [(units("60000"), units("0.1"))]
