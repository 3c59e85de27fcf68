"""What the paper exchange stores is what it finds again."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.keys import ApiKey, KeyTerms
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk

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
