"""The durable store: SQLite (WAL, synchronous FULL), written by one thread so that no commit blocks the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from tradingbot.model import OrderStatus, OrderType, Side, TradeFill
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.orders.types import TrackedOrder
from tradingbot.state.ledger import BookedFill

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE intents (client_id TEXT PRIMARY KEY, state TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE orders (client_id TEXT PRIMARY KEY, open INTEGER NOT NULL, created_ms INTEGER NOT NULL, body TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE fills (symbol TEXT NOT NULL, trade_id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (symbol, trade_id))
    STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
"""
T = TypeVar("T")


class StoreError(Exception):
    """The store cannot be used; `code` is stable."""

    code: ClassVar[str] = "StoreFailed"


class StoreCorruptError(StoreError):
    """The file is no store of this bot, is damaged, or is of a later version."""

    code = "StoreCorrupt"


class StoreFailedError(StoreError):
    """A commit failed (disk full, read-only, removed): entries are forbidden, exits still go."""

    code = "StoreFailed"


class Store:
    """One bot's intents, orders, fills and named facts (small JSON values).

    Facts are for everything small: the applied configuration, the incarnation, the breaker's state, safe-mode
    latches, equity marks. `failed` is the text of the first commit that failed, or None.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.failed: str | None = None

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create the store at `path` (blocking; at start only). StoreCorruptError, StoreFailedError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreFailedError(f"cannot open {path.name}: {error}") from None
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if damage != "ok":
                raise StoreCorruptError(f"{path.name} is damaged: {damage}")
            if version > SCHEMA_VERSION:
                raise StoreCorruptError(
                    f"{path.name} has version {version}, this bot knows {SCHEMA_VERSION}: use a newer bot"
                )
            if version == 0:
                connection.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
        except sqlite3.DatabaseError as error:
            connection.close()
            kind = StoreFailedError if isinstance(error, sqlite3.OperationalError) else StoreCorruptError
            raise kind(f"cannot read {path.name}: {error}") from None
        except StoreCorruptError:
            connection.close()
            raise
        return cls(connection)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            try:
                self._db.execute("BEGIN")  # not IMMEDIATE: what cannot be written can still be read
                try:
                    result = work(self._db)
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self.failed = self.failed or f"{type(error).__name__}: {error}"
                raise StoreFailedError(self.failed) from None
            return result

        # Shielded: a cancelled caller must not make a commit look as if it had not happened.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._writer, transaction))

    async def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """A transaction that gives nothing back: a cursor that is freed by another thread resets its statement, which
        the connection may be using again by then (SQLITE_MISUSE)."""

        def discard(db: sqlite3.Connection) -> None:
            work(db)

        await self._run(discard)

    # --- intents ---

    async def put_intent(self, intent: Intent) -> None:
        """Commit an intent; returns when it is on the disk. StoreFailedError."""
        body = _dump(intent)
        await self._write(
            lambda db: db.execute(
                "INSERT INTO intents VALUES (?,?,?) ON CONFLICT DO UPDATE SET state=excluded.state, body=excluded.body",
                (intent.client_id, intent.state.value, body),
            )
        )

    async def open_intents(self) -> list[Intent]:
        """Intents whose outcome is not known."""
        rows = await self._run(
            lambda db: db.execute(
                "SELECT body FROM intents WHERE state IN (?,?)", (IntentState.SENDING, IntentState.UNKNOWN)
            ).fetchall()
        )
        return [_load_intent(row[0]) for row in rows]

    # --- orders and fills ---

    async def record(
        self,
        orders: Iterable[TrackedOrder] = (),
        fills: Iterable[BookedFill] = (),
        *,
        unsettled: Collection[str] = (),
    ) -> None:
        """Commit what the exchange told of orders, and fills; a fill whose fee has a value stays as it is.

        `unsettled` are the client ids of done orders whose fills are not all known yet: they stay loaded at a start.
        """
        order_rows = [
            (o.client_order_id, int(o.is_open or o.client_order_id in unsettled), o.created_ms, _dump(o))
            for o in orders
        ]
        fill_rows = [(f.fill.symbol, f.fill.trade_id, _dump(f)) for f in fills]

        def write(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO orders VALUES (?,?,?,?) ON CONFLICT DO UPDATE SET open=excluded.open, body=excluded.body",
                order_rows,
            )
            db.executemany(
                "INSERT INTO fills VALUES (?,?,?) ON CONFLICT DO UPDATE SET body=excluded.body "
                "WHERE json_extract(body, '$.fee_value') IS NULL",
                fill_rows,
            )

        await self._write(write)

    async def orders(self, since_ms: int) -> list[TrackedOrder]:
        """Recorded orders that are open, are not settled, or were made since then, oldest first."""
        query = "SELECT body FROM orders WHERE open=1 OR created_ms>=? ORDER BY created_ms, client_id"
        rows = await self._run(lambda db: db.execute(query, (since_ms,)).fetchall())
        return [_load_order(row[0]) for row in rows]

    async def newest_order(self) -> TrackedOrder | None:
        """The recorded order with the highest order id."""
        query = "SELECT body FROM orders ORDER BY json_extract(body, '$.order_id') DESC LIMIT 1"
        row = await self._run(lambda db: db.execute(query).fetchone())
        return None if row is None else _load_order(row[0])

    async def highest_order_id(self) -> int:
        """The highest order id of any recorded order; 0 before any."""
        query = "SELECT max(json_extract(body, '$.order_id')) FROM orders"
        row = await self._run(lambda db: db.execute(query).fetchone())
        return int(row[0] or 0)

    async def unused(self) -> bool:
        """Whether no order was ever sent, as far as this store knows."""
        return not await self.open_intents() and await self.highest_order_id() == 0

    async def fills(self) -> list[BookedFill]:
        """Every recorded fill, in order of trade id."""
        rows = await self._run(lambda db: db.execute("SELECT body FROM fills ORDER BY symbol, trade_id").fetchall())
        return [_load_fill(row[0]) for row in rows]

    # --- facts ---

    async def get(self, name: str) -> Any:
        """The fact of that name, or None."""
        row = await self._run(lambda db: db.execute("SELECT body FROM facts WHERE name=?", (name,)).fetchone())
        return None if row is None else json.loads(row[0])

    async def put(self, name: str, value: Any) -> None:
        """Commit a fact (anything JSON); returns when it is on the disk. StoreFailedError."""
        await self.put_all({name: value})

    async def put_all(self, facts: Mapping[str, Any]) -> None:
        """Commit facts, all or none of them. StoreFailedError."""
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        await self._write(
            lambda db: db.executemany(
                "INSERT INTO facts VALUES (?,?) ON CONFLICT DO UPDATE SET body=excluded.body", rows
            )
        )

    async def close(self) -> None:
        """Finish what is being written and close the file."""

        def close() -> None:
            self._db.close()

        await asyncio.get_running_loop().run_in_executor(self._writer, close)
        self._writer.shutdown(wait=False)


def _dump(value: Any) -> str:
    def plain(item: Any) -> Any:
        if isinstance(item, Decimal):
            return format(item, "f")
        if isinstance(item, Enum):
            return item.value
        raise TypeError(type(item).__name__)

    return json.dumps(dataclasses.asdict(value), default=plain)


def _load_intent(body: str) -> Intent:
    data = json.loads(body)
    data["kind"] = IntentKind(data["kind"])
    data["state"] = IntentState(data["state"])
    data["client_ids"] = tuple(data["client_ids"])
    return Intent(**data)


def _load_order(body: str) -> TrackedOrder:
    data = json.loads(body)
    for name in ("quantity", "executed_quantity", "price", "stop_price"):
        data[name] = Decimal(data[name])
    data["side"] = Side(data["side"])
    data["type"] = OrderType(data["type"])
    data["status"] = OrderStatus(data["status"])
    data["trade_ids"] = tuple(data["trade_ids"])
    return TrackedOrder(**data)


def _load_fill(body: str) -> BookedFill:
    data = json.loads(body)
    fill = data["fill"]
    for name in ("price", "quantity", "commission"):
        fill[name] = Decimal(fill[name])
    fill["side"] = Side(fill["side"])
    value = data["fee_value"]
    return BookedFill(TradeFill(**fill), None if value is None else Decimal(value))
