"""The durable store: SQLite (WAL, synchronous FULL), written by one thread so that no commit blocks the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from tradingbot.orders.intents import Intent, IntentState
from tradingbot.orders.tracker import MOST_DONE
from tradingbot.orders.types import TrackedOrder
from tradingbot.state.ledger import BookedFill

T = TypeVar("T")
_log = structlog.get_logger("store")


@dataclasses.dataclass(frozen=True)
class _Rows(Generic[T]):
    """Rows of a table: `key` is an expression for its primary key, the body is JSON of `form`."""

    table: str
    key: str
    form: TypeAdapter[T]

    @property
    def sweep(self) -> str:
        """Statements that set aside the rows whose body is no JSON, which no query may meet."""
        return (
            f"INSERT INTO set_aside SELECT '{self.table}', {self.key}, body, 'no JSON', 0 "  # noqa: S608, no input
            f"FROM {self.table} WHERE NOT json_valid(body) ON CONFLICT DO UPDATE SET body=excluded.body, restored=0;"
            f"DELETE FROM {self.table} WHERE NOT json_valid(body);"
        )


# What a form does not know is ignored, what is absent has its default: a field that is added needs one.
_INTENTS: Final = _Rows("intents", "client_id", TypeAdapter(Intent))
_ORDERS: Final = _Rows("orders", "client_id", TypeAdapter(TrackedOrder))
_FILLS: Final = _Rows("fills", "symbol || '/' || trade_id", TypeAdapter(BookedFill))
_FACTS: Final = _Rows("facts", "name", TypeAdapter(Any))
_SWEEP: Final = "".join(rows.sweep for rows in (_INTENTS, _ORDERS, _FILLS, _FACTS))

_MIGRATIONS: Final = (
    """
CREATE TABLE intents (client_id TEXT PRIMARY KEY, state TEXT NOT NULL, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE orders (client_id TEXT PRIMARY KEY, open INTEGER NOT NULL, created_ms INTEGER NOT NULL, body TEXT NOT NULL)
    STRICT, WITHOUT ROWID;
CREATE TABLE fills (symbol TEXT NOT NULL, trade_id INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (symbol, trade_id))
    STRICT, WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
""",
    """
CREATE TABLE set_aside (kept_in TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, error TEXT NOT NULL,
    restored INTEGER NOT NULL, PRIMARY KEY (kept_in, key)) STRICT, WITHOUT ROWID;
"""
    + _SWEEP
    + """
ALTER TABLE orders ADD COLUMN order_id INTEGER NOT NULL DEFAULT 0;
UPDATE orders SET order_id=coalesce(json_extract(body, '$.order_id'), 0);
CREATE INDEX intents_by_state ON intents (state);
CREATE INDEX orders_open ON orders (open) WHERE open=1;
CREATE INDEX orders_by_time ON orders (created_ms, client_id);
CREATE INDEX orders_by_id ON orders (order_id);
""",
)
"""What makes version n of version n - 1, in order; one that was released never changes."""
SCHEMA_VERSION: Final = len(_MIGRATIONS)
KEPT: Final = 5_000
"""So many intents, and orders, stay on the disk for people; the bot needs those without an end and MOST_DONE orders."""
PRUNE_EVERY: Final = 1_000
"""Records between two looks for what is beyond them."""
_PRUNE: Final = (
    # In the order of its client id, which is that of process start and sequence.
    "DELETE FROM intents WHERE state NOT IN (?,?) AND client_id NOT IN "
    "(SELECT client_id FROM intents ORDER BY client_id DESC LIMIT ?)",
    "DELETE FROM orders WHERE open=0 AND order_id<(SELECT max(order_id) FROM orders) AND client_id NOT IN "
    "(SELECT client_id FROM orders ORDER BY created_ms DESC, client_id DESC LIMIT ?)",
)
ANSWER_SECONDS: Final = 2.0
"""A disk that takes longer has failed: what is sent next, and whoever waits for that, must not wait with it."""


class StoreError(Exception):
    """The store cannot be used; `code` is stable."""

    code: ClassVar[str] = "StoreFailed"


class StoreCorruptError(StoreError):
    """The file is no store, or is damaged."""

    code = "StoreCorrupt"


class StoreVersionError(StoreError):
    """The file is of a later version of the bot: it is left alone."""

    code = "StoreVersion"


class StoreFailedError(StoreError):
    """A commit failed (disk full, read-only, removed, silent): entries are forbidden, exits still go."""

    code = "StoreFailed"


class Store:
    """One bot's intents, orders, fills and named facts (small JSON values).

    Facts are for everything small: the applied configuration, the incarnation, the breaker's state, safe-mode
    latches, equity marks. `failed` is the text of the first commit that failed since `retry`, or None. A row that does
    not parse is set aside, as it was, in a table of its own; `unreadable` are table and key of those that were not
    restored yet. A `volatile` store is in memory: what it has was told by the exchange since the process started.
    """

    def __init__(
        self, connection: sqlite3.Connection, unreadable: Iterable[tuple[str, str]] = (), *, volatile: bool = False
    ) -> None:
        self.volatile = volatile
        self._owed: dict[tuple[object, ...], tuple[object, ...]] = {}
        """Rows of orders and fills by table and key that are not on the disk yet."""
        self._records = 0
        self._db = connection
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._unanswered: set[asyncio.Future[Any]] = set()
        self.failed: str | None = None
        self.unreadable = set(unreadable)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open or create the store at `path` (blocking). StoreCorruptError, StoreVersionError, StoreFailedError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise StoreFailedError(f"cannot open {path.name}: {error}") from None
        return cls._take(connection, path.name)

    @classmethod
    def snapshot(cls, path: Path) -> Store:
        """A copy in memory of the store at `path` (blocking), which is only read, be it that a process writes it.

        StoreFailedError also where there is none; else as `open`.
        """
        # Without a log nobody has it open, and the files that a reader of a log needs may not be to be written.
        how = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "mode=ro&immutable=1"
        copy = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        try:
            with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True)) as source:
                source.backup(copy)
        except sqlite3.Error as error:
            copy.close()
            kind = StoreFailedError if isinstance(error, sqlite3.OperationalError) else StoreCorruptError
            raise kind(f"cannot read {path}: {error}") from None
        return cls._take(copy, path.name)

    @classmethod
    def _take(cls, connection: sqlite3.Connection, name: str) -> Store:
        """Check it and bring it up to date."""
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreVersionError(
                    f"{name} has version {version}, this bot knows {SCHEMA_VERSION}: use a newer bot"
                )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_size=-256")  # KiB: 2 MiB else, of rows that only a start reads again
            (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if damage != "ok":
                raise StoreCorruptError(f"{name} is damaged: {damage}")
            _migrate(connection, version)
            return cls(connection, connection.execute("SELECT kept_in, key FROM set_aside WHERE restored=0").fetchall())
        except sqlite3.DatabaseError as error:
            connection.close()
            kind = StoreFailedError if isinstance(error, sqlite3.OperationalError) else StoreCorruptError
            raise kind(f"cannot read {name}: {error}") from None
        except StoreError:
            connection.close()
            raise

    @classmethod
    def in_memory(cls) -> Store:
        """A volatile store, empty."""
        connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        _migrate(connection, 0)
        return cls(connection, volatile=True)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def transaction() -> T:
            try:
                self._db.execute("BEGIN")  # not IMMEDIATE: what cannot be written can still be read
                try:
                    result = work(self._db)
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # a full disk may have ended it
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                self.failed = self.failed or f"{type(error).__name__}: {error}"
                raise StoreFailedError(self.failed) from None
            return result

        return await self._in_time(transaction)

    async def _in_time(self, work: Callable[[], T]) -> T:
        """What the writer's thread makes of it; StoreFailedError where the disk is silent.

        Nothing is asked of a disk while it is silent: it would be done long after it was needed.
        """
        if self.silent:
            raise self._no_answer()
        future = asyncio.get_running_loop().run_in_executor(self._writer, work)
        if not future.done():
            # Not ended with its caller: a commit must not look as if it had not happened.
            await asyncio.wait({future}, timeout=ANSWER_SECONDS)
        if not future.done():
            self._unanswered.add(future)
            future.add_done_callback(self._answered)
            raise self._no_answer()
        return future.result()

    @property
    def silent(self) -> bool:
        """Whether the disk still owes an answer that was waited for too long."""
        return bool(self._unanswered)

    def _no_answer(self) -> StoreFailedError:
        self.failed = self.failed or f"the disk did not answer within {ANSWER_SECONDS:g} s"
        return StoreFailedError(self.failed)

    def _answered(self, future: asyncio.Future[Any]) -> None:
        self._unanswered.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.warning("the disk answered late", error=str(error))

    async def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """A transaction that gives nothing back: a cursor that is freed by another thread resets its statement, which
        the connection may be using again by then (SQLITE_MISUSE)."""

        def discard(db: sqlite3.Connection) -> None:
            work(db)

        await self._run(discard)

    # --- rows ---

    async def _load(self, rows: _Rows[T], where: str, *values: object) -> list[T]:
        """The rows that parse; the others are set aside."""
        query = f"SELECT {rows.key}, body FROM {rows.table} {where}"  # noqa: S608, no input
        found = await self._run(lambda db: db.execute(query, values).fetchall())
        loaded: list[T] = []
        for key, body in found:
            try:
                loaded.append(rows.form.validate_json(body))
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                path = ".".join(str(part) for part in first["loc"])
                await self._set_aside(rows, key, f"{path}: {first['msg']}".removeprefix(": "))
        return loaded

    async def _set_aside(self, rows: _Rows[Any], key: str, error: str) -> None:
        self.unreadable.add((rows.table, key))
        _log.error("a row was set aside", table=rows.table, key=key, error=error)
        with suppress(StoreFailedError):  # it is not taken, and the next process finds it again
            await self._write(
                lambda db: (
                    db.execute(
                        f"INSERT INTO set_aside SELECT ?, {rows.key}, body, ?, 0 FROM {rows.table} "  # noqa: S608
                        f"WHERE {rows.key}=? ON CONFLICT DO UPDATE SET body=excluded.body, restored=0",
                        (rows.table, error, key),
                    ),
                    db.execute(f"DELETE FROM {rows.table} WHERE {rows.key}=?", (key,)),  # noqa: S608
                )
            )

    async def restored(self) -> None:
        """What was set aside was read from the exchange. StoreFailedError."""
        if self.unreadable:
            await self._write(lambda db: db.execute("UPDATE set_aside SET restored=1"))
            self.unreadable.clear()

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
        return await self._load(_INTENTS, "WHERE state IN (?,?)", IntentState.SENDING, IntentState.UNKNOWN)

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
        What cannot be committed is owed, and committed with the next record. StoreFailedError.
        """
        for order in orders:
            name = order.client_order_id
            still = int(order.is_open or name in unsettled)
            self._owed[_ORDERS.table, name] = (name, still, order.created_ms, _dump(order), order.order_id or 0)
        for booked in fills:
            key = (booked.fill.symbol, booked.fill.trade_id)
            self._owed[_FILLS.table, *key] = (*key, _dump(booked))
        due = dict(self._owed)
        order_rows = [row for key, row in due.items() if key[0] == _ORDERS.table]
        fill_rows = [row for key, row in due.items() if key[0] == _FILLS.table]
        prune = self._records % PRUNE_EVERY == 0
        self._records += 1

        def write(db: sqlite3.Connection) -> None:
            db.executemany(
                "INSERT INTO orders VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE "
                "SET open=excluded.open, body=excluded.body, order_id=excluded.order_id",
                order_rows,
            )
            db.executemany(
                "INSERT INTO fills VALUES (?,?,?) ON CONFLICT DO UPDATE SET body=excluded.body "
                "WHERE json_extract(body, '$.fee_value') IS NULL",
                fill_rows,
            )
            if prune:
                intents, done = _PRUNE
                db.execute(intents, (IntentState.SENDING, IntentState.UNKNOWN, KEPT))
                db.execute(done, (KEPT,))

        await self._write(write)
        self._owed = {key: row for key, row in self._owed.items() if due.get(key) is not row}

    async def retry(self) -> None:
        """Commit what is owed; `failed` is None where that succeeds. StoreFailedError."""
        former, self.failed = self.failed, None
        await self.put("last-failure", former)
        await self.record()

    async def orders(self, since_ms: int) -> list[TrackedOrder]:
        """Recorded orders that are open, are not settled, or are the newest MOST_DONE made since then, oldest first."""
        newest = "SELECT client_id FROM orders WHERE created_ms>=? ORDER BY created_ms DESC, client_id DESC LIMIT ?"
        wanted = f"WHERE open=1 OR client_id IN ({newest}) ORDER BY created_ms, client_id"
        return await self._load(_ORDERS, wanted, since_ms, MOST_DONE)

    async def newest_order(self) -> TrackedOrder | None:
        """The recorded order with the highest order id."""
        found = await self._load(_ORDERS, "ORDER BY order_id DESC LIMIT 1")
        return found[0] if found else None

    async def highest_order_id(self) -> int:
        """The highest order id of any recorded order; 0 before any."""
        row = await self._run(lambda db: db.execute("SELECT max(order_id) FROM orders").fetchone())
        return int(row[0] or 0)

    async def unused(self) -> bool:
        """Whether no order was ever sent; a volatile store does not know that."""
        return not self.volatile and not await self.open_intents() and await self.highest_order_id() == 0

    async def fills(self, after: int = -1) -> list[BookedFill]:
        """Every recorded fill of a greater trade id, in order of trade id."""
        return await self._load(_FILLS, "WHERE trade_id>? ORDER BY symbol, trade_id", after)

    # --- facts ---

    async def get(self, name: str, form: Any = Any) -> Any:
        """The fact of that name; None where there is none, or one that is not of the type `form`."""
        found = await self._load(dataclasses.replace(_FACTS, form=_form(form)), "WHERE name=?", name)
        return found[0] if found else None

    async def set_aside_fact(self, name: str, error: Exception) -> None:
        """A fact could not be taken for what it should be."""
        await self._set_aside(_FACTS, name, f"{type(error).__name__}: {error}")

    async def put(self, name: str, value: Any) -> None:
        """Commit a fact (JSON or a dataclass); returns when it is on the disk. StoreFailedError."""
        await self.put_all({name: value})

    async def put_all(self, facts: Mapping[str, Any]) -> None:
        """Commit facts, all or none of them. StoreFailedError."""
        rows = [(name, _dump(value)) for name, value in facts.items()]
        await self._write(
            lambda db: db.executemany(
                "INSERT INTO facts VALUES (?,?) ON CONFLICT DO UPDATE SET body=excluded.body", rows
            )
        )

    async def close(self) -> None:
        """Finish what is being written and close the file; one on a silent disk is left as it is."""
        with suppress(StoreFailedError):
            await self._in_time(self._db.close)
        self._writer.shutdown(wait=False)


def set_aside_store(path: Path, now: datetime) -> Path:
    """Give the file of a store, which must be closed, another name; returns it. StoreFailedError."""
    kept = path.with_name(f"{path.stem}-{now:%Y%m%dT%H%M%SZ}{path.suffix}")
    try:
        for suffix in ("-wal", "-shm", ""):  # the file last: until then it is the store
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(kept.with_name(kept.name + suffix))
    except OSError as error:
        raise StoreFailedError(f"cannot rename {path.name}: {error}") from None
    return kept


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    steps = "".join(_MIGRATIONS[version:])
    if steps:
        connection.executescript(f"BEGIN;{steps}PRAGMA user_version={SCHEMA_VERSION};COMMIT;")
    else:
        connection.executescript(f"BEGIN;{_SWEEP}COMMIT;")


def _dump(value: Any) -> str:
    def plain(item: Any) -> Any:
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            return dataclasses.asdict(item)
        if isinstance(item, Decimal):
            return format(item, "f")
        if isinstance(item, Enum):
            return item.value
        raise TypeError(type(item).__name__)

    return json.dumps(value, default=plain)


@functools.cache
def _form(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind | None)  # null is a fact that was taken back
