"""What survives a restart: accounts, keys, orders, lists, trades and how symbols stood, in one SQLite file."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import IO, Any, Final

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Account, Balance, Order, OrderList, PreventedMatch, Trade
from paper_exchange.core.rates import CommissionRates, Rates
from paper_exchange.core.state import Changes
from paper_exchange.history import INDEXES, History
from paper_exchange.keys import PERMISSIONS, ApiKey, KeyTerms

_SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts (uid INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS keys (api_key TEXT PRIMARY KEY, uid INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS orders (order_id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS lists (list_id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS trades (
    number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS prevented (
    number INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS prices (symbol TEXT PRIMARY KEY, price INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS statuses (symbol TEXT PRIMARY KEY, status TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS wiped (kind TEXT PRIMARY KEY, last_id INTEGER NOT NULL) STRICT;
"""


class DirectoryInUseError(OSError):
    """Another process has the directory open."""


class Store:
    """The database; each call is one transaction, on disk for any crash of the process when it returns.

    WAL with synchronous=NORMAL: a loss of power may lose the last transactions, the end of the process may not.
    """

    def __init__(self, directory: Path | None) -> None:
        """Open the file in a directory, which is made when needed, or keep all in memory when it is None.

        DirectoryInUseError where another process has it: two would not know of each other's orders.
        """
        self._lock: IO[str] | None = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory)
        self._path = ":memory:" if directory is None else str(directory / "exchange.sqlite")
        self._db = sqlite3.connect(self._path, isolation_level=None, timeout=5)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        # Moving the log to the file waits for the disk: `move_log` does it, and a writer only where nobody does.
        self._db.execute("PRAGMA wal_autocheckpoint=100000")
        self._db.executescript(_SCHEMA + INDEXES)
        self.history = History(self._db)

    def close(self) -> None:
        """Close the file, and let others have the directory."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def move_log(self) -> None:
        """Move what was written to the file, for a thread of its own: writers go on meanwhile. sqlite3.Error."""
        with closing(sqlite3.connect(self._path)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def save(self, changes: Changes) -> None:
        """Store everything an input changed, all or nothing."""
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO accounts VALUES (?, ?)",
                [(account.uid, _encoded(account)) for account in changes.accounts.values()],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO orders VALUES (?, ?)",
                [(order.order_id, _encoded(order)) for order in changes.orders.values()],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO lists VALUES (?, ?)",
                [(group.list_id, _encoded(group)) for group in changes.lists.values()],
            )
            self._db.executemany(
                "INSERT INTO trades (body) VALUES (?)", [(_encoded(trade),) for trade in changes.trades]
            )
            self._db.executemany(
                "INSERT INTO prevented (body) VALUES (?)",
                [(_encoded(match),) for match in changes.prevented],
            )

    def restore(self, exchange: Exchange) -> None:
        """Give an exchange its accounts, what is still at work and how symbols stand; `history` tells the rest."""
        lists = self.history.open_lists()
        orders = self.history.open_orders(lists)
        last = self.history.last_ids()
        exchange.restore(
            self.accounts(),
            orders,
            lists,
            self.history.last_trades(),
            last_ids=(last.get("order", 0), last.get("list", -1)),
            last_traded={symbol: last.get(f"trade {symbol}", 0) for symbol in exchange.markets},
            last_prevented={symbol: last.get(f"prevented {symbol}", -1) for symbol in exchange.markets},
            statuses=dict(self._db.execute("SELECT symbol, status FROM statuses").fetchall()),
        )
        exchange.ended = self.history

    def save_key(self, key: ApiKey) -> None:
        """Store a key."""
        with self._transaction():
            self._db.execute("INSERT INTO keys VALUES (?, ?, ?)", (key.api_key, key.uid, json.dumps(asdict(key))))

    def delete_key(self, api_key: str) -> None:
        """Forget a key."""
        with self._transaction():
            self._db.execute("DELETE FROM keys WHERE api_key = ?", (api_key,))

    def wipe(self, last_traded: Mapping[str, int], *, drop_accounts: bool) -> None:
        """Forget all orders, lists, trades and prevented ones, and, where they are dropped, all accounts and keys.

        The last ids of all of them stay, so that none is given again; `last_traded` are those of trades by symbol.
        """
        last = self.history.last_ids() | {f"trade {symbol}": ident for symbol, ident in last_traded.items()}
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO wiped VALUES (?, ?)", list(last.items()))
            for table in ("orders", "lists", "trades", "prevented", *(("accounts", "keys") if drop_accounts else ())):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608, they are ours

    def save_prices(self, prices: Mapping[str, int]) -> None:
        """Store the last price of each symbol, in units."""
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO prices VALUES (?, ?)", list(prices.items()))

    def save_status(self, symbol: str, status: str) -> None:
        """Store what clients may do with a symbol."""
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO statuses VALUES (?, ?)", (symbol, status))

    def accounts(self) -> list[Account]:
        """Every account."""
        return [_account(row) for row in self._rows("accounts", "uid")]

    def api_keys(self) -> list[ApiKey]:
        """Every key."""
        return [decode_key(row) for row in self._rows("keys", "api_key")]

    def prices(self) -> dict[str, int]:
        """The last known price of each symbol, in units."""
        return dict(self._db.execute("SELECT symbol, price FROM prices").fetchall())

    def _rows(self, table: str, key: str) -> Iterator[dict[str, Any]]:
        for (body,) in self._db.execute(f"SELECT body FROM {table} ORDER BY {key}"):  # noqa: S608, both are ours
            yield json.loads(body)

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


def decode_key(row: dict[str, Any]) -> ApiKey:
    """A key from its stored fields; one stored before keys had terms may do everything."""
    given = row.get("terms", row)
    terms = KeyTerms(
        given["public_key"], tuple(given.get("permissions", PERMISSIONS)), tuple(given.get("addresses", ()))
    )
    return ApiKey(row["api_key"], row["uid"], row["secret"], row["created_ms"], terms)


def _locked(directory: Path) -> IO[str]:
    """A file of the directory, locked for as long as it is open or its process lives."""
    file = (directory / "exchange.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DirectoryInUseError(
            f"expected a directory that no exchange has open, got {str(directory)!r}; "
            "ask the running one by --control-url, or stop it"
        ) from None
    return file


def _encoded(row: Account | Order | OrderList | PreventedMatch | Trade) -> str:
    return _ENCODER.encode(row)


def _fields(row: Any) -> dict[str, Any]:
    """The fields of a dataclass as they are, without the copies that `asdict` makes."""
    kind = type(row)
    names = _NAMES.get(kind) or _NAMES.setdefault(kind, [one.name for one in fields(kind)])
    return {name: getattr(row, name) for name in names}


_NAMES: Final[dict[type, list[str]]] = {}
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_fields)


class _Transaction:
    """BEGIN on entry; COMMIT on leaving, or ROLLBACK when it failed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


def _account(row: dict[str, Any]) -> Account:
    """An account from its stored fields."""
    balances = {asset: Balance(**held) for asset, held in row["balances"].items()}
    commission = {symbol: _rates(kinds) for symbol, kinds in row.get("commission", {}).items()}
    return Account(**row | {"balances": balances, "commission": commission})


def _rates(kinds: dict[str, Any]) -> CommissionRates:
    parts = {name: Rates(**kinds[name]) for name in ("standard", "special", "tax")}
    return CommissionRates(**parts, discount=kinds["discount"])
