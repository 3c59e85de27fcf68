"""What the paper exchange stores is what it finds again."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.keys import ApiKey, KeyTerms
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, units
from support.paper_rest import PRICE, RestDesk

ALICE = 1


def reopened(directory: Path, desk: Desk) -> Desk:
    """A second desk over the stored state, with the same book."""
    store = Store(directory)
    fresh = Desk()
    fresh.now = desk.now
    fresh.exchange = Exchange([SYMBOLS[SYMBOL]], desk.now)
    store.restore(fresh.exchange)
    fresh.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    fresh.trade("60000")
    store.close()
    return fresh


def test_orders_lists_trades_and_balances_survive_and_go_on_working(tmp_path: Path) -> None:
    store = Store(tmp_path)
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.bracket(ALICE, "0.5", limit="60005", stop="59000", profit="61000")
    resting = desk.place(ALICE, "BUY", price="59500", quantity="0.1")["orderId"]
    stop = desk.place(ALICE, "SELL", "STOP_LOSS", quantity="0.2", stopPrice="58000", response="RESULT")["orderId"]
    store.save(desk.exchange.take_changes())
    store.close()

    fresh = reopened(tmp_path, desk)
    assert fresh.held(ALICE, "BTC") == desk.held(ALICE, "BTC")
    assert fresh.held(ALICE, "USDT") == desk.held(ALICE, "USDT")
    assert fresh.exchange.trades == desk.exchange.trades
    assert [fresh.status(order) for order in fresh.exchange.orders] == [
        desk.status(order) for order in desk.exchange.orders
    ]
    fresh.push("59400")
    assert fresh.status(resting)[0] == "FILLED"
    fresh.push("58900")
    assert (fresh.status(2)[0], fresh.status(3)[2]) == ("FILLED", "OCO_TRIGGER")
    assert fresh.exchange.lists[0].done
    fresh.push("57900")
    assert fresh.status(stop)[0] == "FILLED"
    assert fresh.held(ALICE, "BTC")[1] == "0"
    newest = fresh.place(ALICE, "BUY", price="50000", quantity="0.1")["orderId"]
    assert newest == stop + 1


def test_a_database_of_an_older_version_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.book([("60000", "1")], [("60001", "1")])
    order = desk.place(ALICE, "BUY", price="59500", quantity="0.1")["orderId"]
    store.save(desk.exchange.take_changes())
    store.close()
    newer = {
        "accounts": ["trade_group_id", "commission", "bnb_discount"],
        "orders": ["iceberg_quantity", "visible", "trailing_delta", "trailing_time", "extreme", "prevented"],
    }
    with closing(sqlite3.connect(tmp_path / "exchange.sqlite", isolation_level=None)) as database:
        database.execute("DROP TABLE prevented")
        for table, fields in newer.items():
            for field in fields:
                database.execute(f"UPDATE {table} SET body = json_remove(body, '$.{field}')")
    fresh = reopened(tmp_path, desk)
    assert (fresh.status(order), fresh.held(ALICE, "USDT")) == (desk.status(order), ("94050", "5950"))
    fresh.push("59400")
    assert fresh.status(order)[0] == "FILLED"


def test_a_key_is_found_again(tmp_path: Path) -> None:
    key = ApiKey("k" * 64, 7, "s", 5, KeyTerms(permissions=("USER_DATA",), addresses=("127.0.0.1",)))
    store = Store(tmp_path)
    store.save_key(key)
    store.save_prices({SYMBOL: 42})
    store.close()
    again = Store(tmp_path)
    assert (again.api_keys(), again.prices()) == ([key], {SYMBOL: 42})
    again.close()


# -- places in the queue ---------------------------------------------------------------------------------------


def partly_filled(desk: RestDesk, order_id: int) -> None:
    """An outsider takes a part of the order, and all that is ahead of it."""
    desk.trade(PRICE, "5.01")


def amended(desk: RestDesk, order_id: int) -> None:
    """The owner makes the order smaller."""
    body = {"symbol": SYMBOL, "orderId": order_id, "newQty": "0.02"}
    assert desk.ask("PUT", "/api/v3/order/amend/keepPriority", **body).status == 200


def decremented(desk: RestDesk, order_id: int) -> None:
    """An order of the same account would have met it."""
    desk.trade(PRICE, "5")
    desk.book(PRICE, "60001", "0.001")
    desk.place(side="SELL", price=PRICE, quantity="0.011", timeInForce="IOC", selfTradePreventionMode="DECREMENT")


def filled_in_turn(desk: RestDesk) -> list[int]:
    """The orders that a large trade of outsiders fills, in the order of their first fills."""
    before = desk.now
    desk.now += 1
    desk.trade(PRICE, "20")
    trades = desk.ask("GET", "/api/v3/myTrades", symbol=SYMBOL).body
    return list(dict.fromkeys(trade["orderId"] for trade in trades if trade["time"] > before))


@pytest.mark.parametrize("change", [partly_filled, amended, decremented])
def test_orders_of_one_price_are_filled_in_their_order_after_a_restart(
    tmp_path: Path, change: Callable[[RestDesk, int], None]
) -> None:
    desk = RestDesk(directory=tmp_path)
    first, second = [desk.place(price=PRICE, quantity="0.03").body["orderId"] for _ in range(2)]
    change(desk, first)
    desk.restart()
    assert filled_in_turn(desk) == [first, second]


def test_an_iceberg_that_queued_anew_is_behind_after_a_restart(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    iceberg = desk.place(price=PRICE, quantity="0.03", icebergQty="0.01").body["orderId"]
    other = desk.place(price=PRICE, quantity="0.03").body["orderId"]
    desk.trade(PRICE, "5.01")
    desk.restart()
    assert filled_in_turn(desk) == [other, iceberg]


def test_what_was_traded_ahead_of_an_order_is_not_ahead_of_it_again_after_a_restart(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    order_id = desk.place(price=PRICE).body["orderId"]
    desk.trade(PRICE, "3")
    desk.venue.save_market()
    desk.restart()
    desk.trade(PRICE, "2.004")
    assert 0 < desk.venue.exchange.orders[order_id].executed < units("0.005")


def test_nothing_is_ahead_of_an_order_whose_level_the_market_left_meanwhile(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    desk.book("59000", "60001")
    order_id = desk.place(price="59000").body["orderId"]
    desk.restart()
    desk.trade("59000", "0.004")
    assert desk.venue.exchange.orders[order_id].executed == units("0.004")


def test_the_log_is_moved_to_the_file_while_the_store_is_written(tmp_path: Path) -> None:
    store, log = Store(tmp_path), tmp_path / "exchange.sqlite-wal"
    longest = 0
    for number in range(300):
        store.save_prices({f"S{one}USDT": number * 1000 + one for one in range(200)})
        if number % 10 == 9:
            store.move_log()
        longest = max(longest, log.stat().st_size)
    # Without it the log would hold every write: several times as much.
    assert longest < 400_000
    store.close()
    again = Store(tmp_path)
    assert again.prices() == {f"S{one}USDT": 299_000 + one for one in range(200)}
    again.close()


def given(desk: RestDesk) -> dict[str, int]:
    """The ids that an order which fills, a list, a prevented match and an account get."""
    key = desk.account(USDT="100000", BTC="5")
    filled = desk.place(key, price="60001").body
    pair = {"side": "SELL", "quantity": "0.01", "aboveType": "LIMIT_MAKER", "abovePrice": "61000"}
    pair |= {"belowType": "STOP_LOSS", "belowStopPrice": "59000"}
    group = desk.ask("POST", "/api/v3/orderList/oco", key=key, symbol=SYMBOL, **pair).body
    desk.place(key, side="SELL", price="60000.5")
    met = desk.place(key, price="60000.5", timeInForce="IOC").body["preventedMatches"]
    desk.ask("DELETE", "/api/v3/openOrders", key=key, symbol=SYMBOL)
    ids = {"account": key.uid, "order": filled["orderId"], "trade": filled["fills"][0]["tradeId"]}
    return ids | {"list": group["orderListId"], "prevented": met[0]["preventedMatchId"]}


@pytest.mark.parametrize("drop", [False, True], ids=["accounts stay", "accounts dropped"])
@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_no_id_is_given_again_after_a_reset(tmp_path: Path, drop: bool, restarts: int) -> None:
    desk = RestDesk(directory=tmp_path)
    before = given(desk)
    desk.venue.reset({}, drop_accounts=drop)
    for _ in range(restarts):
        desk.restart()
    after = given(desk)
    assert all(after[kind] > ident for kind, ident in before.items()), (before, after)
