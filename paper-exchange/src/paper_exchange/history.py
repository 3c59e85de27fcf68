"""Questions about orders, lists and trades, also prevented ones, that may be over for long: the store answers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final

from paper_exchange.core.model import (
    Amendment,
    Order,
    OrderList,
    OrderStatus,
    OrderType,
    PreventedMatch,
    Side,
    StpMode,
    TimeInForce,
    Trade,
)

INDEXES: Final = """
CREATE INDEX IF NOT EXISTS orders_of ON orders (body ->> 'uid', body ->> 'symbol', order_id);
CREATE INDEX IF NOT EXISTS orders_named ON orders (body ->> 'uid', body ->> 'symbol', body ->> 'client_order_id');
CREATE INDEX IF NOT EXISTS orders_open ON orders (order_id)
    WHERE body ->> 'status' IN ('NEW', 'PENDING_NEW', 'PARTIALLY_FILLED');
CREATE INDEX IF NOT EXISTS lists_of ON lists (body ->> 'uid', list_id);
CREATE INDEX IF NOT EXISTS lists_open ON lists (list_id) WHERE NOT body ->> 'done';
CREATE INDEX IF NOT EXISTS trades_of ON trades (body ->> 'uid', body ->> 'symbol', number);
CREATE INDEX IF NOT EXISTS trades_in ON trades (body ->> 'order_id', number);
CREATE INDEX IF NOT EXISTS prevented_of ON prevented (body ->> 'symbol', body ->> 'match_id');
CREATE INDEX IF NOT EXISTS prevented_takers ON prevented (body ->> 'taker_order_id');
CREATE INDEX IF NOT EXISTS prevented_makers ON prevented (body ->> 'maker_order_id');
"""
"""Over the stored objects themselves, so that a file of an older version has them too once it is opened."""


_LAST_IDS: Final = """
SELECT kind, max(last_id) FROM (
    SELECT 'account' AS kind, max(uid) AS last_id FROM accounts
    UNION ALL SELECT 'order', max(order_id) FROM orders
    UNION ALL SELECT 'list', max(list_id) FROM lists
    UNION ALL SELECT 'prevented ' || (body ->> 'symbol'), max(body ->> 'match_id') FROM prevented
        GROUP BY body ->> 'symbol'
    UNION ALL SELECT kind, last_id FROM wiped
) WHERE last_id IS NOT NULL GROUP BY kind
"""


_Wanted = dict[str, int | str | None]
"""Conditions and their values; None for one that is not asked for."""


class History:
    """Reads the tables that `Store` writes. Of several rows the first `limit` where a start is given, else the last."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # -- what is still at work, for a start --------------------------------------------------------------------

    def open_lists(self) -> list[OrderList]:
        """Every list that is not done, by id."""
        rows = self._rows("SELECT body FROM lists WHERE NOT body ->> 'done' ORDER BY list_id")
        return [OrderList(**row) for row in rows]

    def open_orders(self, lists: Iterable[OrderList]) -> list[Order]:
        """Every open order and every member of a list, by id."""
        rows = self._rows(
            "SELECT body FROM orders WHERE body ->> 'status' IN ('NEW', 'PENDING_NEW', 'PARTIALLY_FILLED')"
        )
        found = {row["order_id"]: _order(row) for row in rows}
        members = [order for group in lists for ident in group.order_ids if (order := self.order_of_id(ident))]
        found |= {order.order_id: order for order in members}
        return [found[ident] for ident in sorted(found)]

    def last_ids(self) -> dict[str, int]:
        """The highest ids that were given, also to what was wiped since.

        By kind: `account`, `order`, `list`, `prevented BTCUSDT`, and, as of the last wipe, `trade BTCUSDT`.
        """
        return dict(self._db.execute(_LAST_IDS).fetchall())

    def last_trades(self) -> list[Trade]:
        """The newest trades, from which the ids of the next ones follow."""
        return [Trade(**row) for row in self._rows("SELECT body FROM trades ORDER BY number DESC LIMIT 1000")][::-1]

    # -- single ones -------------------------------------------------------------------------------------------

    def order_of_id(self, order_id: int) -> Order | None:
        """An order, whoever owns it."""
        row = self._row("SELECT body FROM orders WHERE order_id = ?", order_id)
        return _order(row) if row else None

    def order_named(self, uid: int, symbol: str, client_order_id: str) -> Order | None:
        """The newest order that an account gave a name."""
        row = self._row(
            "SELECT body FROM orders WHERE body ->> 'uid' = ? AND body ->> 'symbol' = ?"
            " AND body ->> 'client_order_id' = ? ORDER BY order_id DESC LIMIT 1",
            uid,
            symbol,
            client_order_id,
        )
        return _order(row) if row else None

    def list_of_id(self, list_id: int) -> OrderList | None:
        """A list, whoever owns it."""
        row = self._row("SELECT body FROM lists WHERE list_id = ?", list_id)
        return OrderList(**row) if row else None

    def list_named(self, uid: int, client_list_id: str) -> OrderList | None:
        """The newest list that an account gave a name."""
        row = self._row(
            "SELECT body FROM lists WHERE body ->> 'uid' = ? AND body ->> 'client_list_id' = ?"
            " ORDER BY list_id DESC LIMIT 1",
            uid,
            client_list_id,
        )
        return OrderList(**row) if row else None

    # -- many --------------------------------------------------------------------------------------------------

    def orders(
        self, uid: int, symbol: str, *, limit: int, from_id: int | None, start: int | None, end: int | None
    ) -> list[Order]:
        """Orders of an account and symbol by id."""
        wanted: _Wanted = {
            "body ->> 'uid' = ?": uid,
            "body ->> 'symbol' = ?": symbol,
            "order_id >= ?": from_id,
            "body ->> 'time' >= ?": start,
            "body ->> 'time' <= ?": end,
        }
        forward = from_id is not None or start is not None
        return [_order(row) for row in self._many("orders", "order_id", wanted, limit, forward)]

    def lists(
        self, uid: int, *, limit: int, from_id: int | None, start: int | None, end: int | None
    ) -> list[OrderList]:
        """Lists of an account by id."""
        wanted: _Wanted = {
            "body ->> 'uid' = ?": uid,
            "list_id >= ?": from_id,
            "body ->> 'time' >= ?": start,
            "body ->> 'time' <= ?": end,
        }
        forward = from_id is not None or start is not None
        rows = self._many("lists", "list_id", wanted, limit, forward)
        return [OrderList(**row) for row in rows]

    def trades(
        self,
        uid: int,
        symbol: str | None,
        *,
        limit: int,
        order_id: int | None = None,
        from_id: int | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> list[Trade]:
        """Trades of an account, in the order they happened; of one symbol, or of all where it is None."""
        wanted: _Wanted = {
            "body ->> 'uid' = ?": uid,
            "body ->> 'symbol' = ?": symbol,
            "body ->> 'order_id' = ?": order_id,
            "body ->> 'trade_id' >= ?": from_id,
            "body ->> 'time' >= ?": start,
            "body ->> 'time' <= ?": end,
        }
        forward = from_id is not None or start is not None
        return [Trade(**row) for row in self._many("trades", "number", wanted, limit, forward)]

    def prevented(
        self, uid: int, symbol: str, *, limit: int, match_id: int | None, order_id: int | None, from_id: int
    ) -> list[PreventedMatch]:
        """Prevented matches in which an account was taker or maker, by id: one of them, or those of an order."""
        if match_id is not None:
            which = "body ->> 'symbol' = :symbol AND body ->> 'match_id' = :match_id"
        else:
            # The + keeps SQLite from going through all matches of the symbol instead.
            orders = "(body ->> 'taker_order_id' = :order_id OR body ->> 'maker_order_id' = :order_id)"
            which = f"{orders} AND +(body ->> 'symbol') = :symbol"
        rows = self._db.execute(
            f"SELECT body FROM prevented WHERE {which} AND body ->> 'match_id' >= :from_id"  # noqa: S608, all of it is ours
            " AND :uid IN (body ->> 'taker_uid', body ->> 'maker_uid') ORDER BY number LIMIT :limit",
            {
                "uid": uid,
                "symbol": symbol,
                "limit": limit,
                "match_id": match_id,
                "order_id": order_id,
                "from_id": from_id,
            },
        )
        found = (json.loads(body) for (body,) in rows)
        return [PreventedMatch(**row | {"mode": StpMode(row["mode"])}) for row in found]

    def _many(self, table: str, key: str, wanted: _Wanted, limit: int, forward: bool) -> list[dict[str, Any]]:
        where = {condition: value for condition, value in wanted.items() if value is not None}
        direction = "ASC" if forward else "DESC"
        query = f"SELECT body FROM {table} WHERE {' AND '.join(where)} ORDER BY {key} {direction} LIMIT ?"  # noqa: S608, all of it is ours
        rows = self._rows(query, *where.values(), limit)
        return rows if forward else rows[::-1]

    def _rows(self, query: str, *values: int | str) -> list[dict[str, Any]]:
        return [json.loads(body) for (body,) in self._db.execute(query, values)]

    def _row(self, query: str, *values: int | str) -> dict[str, Any] | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None


def _order(row: dict[str, Any]) -> Order:
    """An order from its stored fields."""
    return Order(
        **row
        | {
            "side": Side(row["side"]),
            "type": OrderType(row["type"]),
            "time_in_force": TimeInForce(row["time_in_force"]),
            "status": OrderStatus(row["status"]),
            "stp": StpMode(row["stp"]),
            "amendments": [Amendment(**one) for one in row.get("amendments", ())],
        }
    )
