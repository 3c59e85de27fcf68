"""Binance's daily archives as files: how they are named, and their rows, checked and read one by one.

Names and columns are those of https://github.com/binance/binance-public-data: no header in spot archives, times in
milliseconds, and in microseconds from 2025 on.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeVar

from paper_exchange.market.candles import FIXED_INTERVALS_MS
from paper_exchange.market.events import ArchiveInvalidError, Candle, MarketTrade

INTERVALS: Final = tuple(name for name, length in FIXED_INTERVALS_MS.items() if length <= FIXED_INTERVALS_MS["1d"])
KINDS: Final = ("trades", "aggTrades", *INTERVALS)
"""What a daily archive may hold, the most exact first."""

_COLUMNS: Final = {
    "trades": ("id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"),
    "aggTrades": ("id", "price", "quantity", "firstId", "lastId", "time", "isBuyerMaker", "isBestMatch"),
}
_CANDLE_COLUMNS: Final = (
    *("openTime", "open", "high", "low", "close", "volume", "closeTime"),
    *("quoteVolume", "trades", "takerBase", "takerQuote", "ignore"),
)
_NAME: Final = re.compile(rf"([A-Z0-9]+)-({'|'.join(KINDS)})-(\d{{4}}-\d{{2}}-\d{{2}})\.(?:csv|zip)")
_AMOUNT: Final = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,8})?")
_MAKER: Final = {"True": True, "False": False, "true": True, "false": False}
_DAY_MS: Final = 86_400_000
_FIRST_MICROSECOND: Final = 10**14
"""More milliseconds than this are beyond the year 5000."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """What one daily archive holds."""

    symbol: str
    kind: str
    day: date

    @classmethod
    def of(cls, file_name: str) -> ArchiveName | None:
        """What a file holds by its name; None for other files."""
        match = _NAME.fullmatch(file_name)
        try:
            return cls(match[1], match[2], date.fromisoformat(match[3])) if match else None
        except ValueError:
            return None

    @property
    def stem(self) -> str:
        """The name of its file, without `.zip` or `.csv`."""
        return f"{self.symbol}-{self.kind}-{self.day.isoformat()}"

    @property
    def start_ms(self) -> int:
        """When its day begins."""
        return int(datetime(self.day.year, self.day.month, self.day.day, tzinfo=UTC).timestamp()) * 1000


class _BadFieldError(Exception):
    """A field is not what it should be."""

    def __init__(self, index: int, expected: str) -> None:
        super().__init__(index, expected)
        self.index = index
        self.expected = expected


def read_trades(path: Path, name: ArchiveName) -> Iterator[MarketTrade]:
    """The trades, or aggregates, of one archive at their own times; ArchiveInvalidError with file, line, field."""
    columns = _COLUMNS[name.kind]
    price_at, quantity_at = columns.index("price"), 2
    time_at, maker_at = columns.index("time"), columns.index("isBuyerMaker")
    symbol, start_ms = name.symbol, name.start_ms

    def trade(row: Sequence[str]) -> MarketTrade:
        buyer_is_maker = _MAKER.get(row[maker_at])
        if buyer_is_maker is None:
            raise _BadFieldError(maker_at, "True or False")
        return MarketTrade(
            symbol,
            _time(row, time_at, start_ms),
            _positive(row, price_at),
            _positive(row, quantity_at),
            buyer_is_maker,
        )

    return _read(path, columns, trade)


def read_candles(path: Path, name: ArchiveName) -> Iterator[Candle]:
    """The candles of one archive, oldest first; ArchiveInvalidError with file, line, field."""
    interval_ms = FIXED_INTERVALS_MS[name.kind]
    start_ms = name.start_ms

    def candle(row: Sequence[str]) -> Candle:
        opened, high, low, closed = (_positive(row, index) for index in range(1, 5))
        if high < max(opened, closed):
            raise _BadFieldError(2, "the highest price")
        if low > min(opened, closed):
            raise _BadFieldError(3, "the lowest price")
        if not row[8].isascii() or not row[8].isdecimal():
            raise _BadFieldError(8, "a count of trades")
        return Candle(
            open_time_ms=_time(row, 0, start_ms),
            interval_ms=interval_ms,
            open=opened,
            high=high,
            low=low,
            close=closed,
            volume=_amount(row, 5),
            quote_volume=_amount(row, 7),
            trades=int(row[8]),
            taker_base=_amount(row, 9),
            taker_quote=_amount(row, 10),
        )

    return _read(path, _CANDLE_COLUMNS, candle)


def _read(path: Path, columns: Sequence[str], make: Callable[[Sequence[str]], _T]) -> Iterator[_T]:
    number = 0
    try:
        with _opened(path) as lines:
            for number, row in enumerate(csv.reader(lines), 1):
                if number == 1 and row and row[0].isidentifier():
                    continue  # a header, which archives of futures have
                if len(row) != len(columns):
                    raise ArchiveInvalidError(
                        f"{path.name}:{number}: expected the {len(columns)} fields {','.join(columns)}, "
                        f"got {len(row)}; fetch the file of the spot market anew"
                    )
                yield make(row)
    except _BadFieldError as error:
        raise ArchiveInvalidError(
            f"{path.name}:{number}: {columns[error.index]}: expected {error.expected}, got {row[error.index]!r}; "
            "fetch the file anew"
        ) from None
    except (OSError, EOFError, ValueError, csv.Error, zlib.error, zipfile.BadZipFile) as error:
        raise ArchiveInvalidError(
            f"{path.name}:{number + 1}: expected readable lines of CSV, got {error}; fetch the file anew"
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    """The lines of an archive, read as they are asked for."""
    if path.suffix == ".csv":
        with path.open(encoding="ascii", newline="") as lines:
            yield lines
        return
    with zipfile.ZipFile(path) as archive:
        inside = path.with_suffix(".csv").name
        if inside not in archive.namelist():
            raise zipfile.BadZipFile(f"a zip without {inside}")
        with archive.open(inside) as data, io.TextIOWrapper(data, encoding="ascii", newline="") as lines:
            yield lines


def _amount(row: Sequence[str], index: int) -> Decimal:
    text = row[index]
    if not _AMOUNT.fullmatch(text):
        raise _BadFieldError(index, "a decimal such as 0.001")
    return Decimal(text)


def _positive(row: Sequence[str], index: int) -> Decimal:
    amount = _amount(row, index)
    if not amount:
        raise _BadFieldError(index, "a positive decimal")
    return amount


def _time(row: Sequence[str], index: int, day_ms: int) -> int:
    """Milliseconds of a time within the day that the file is named after."""
    text = row[index]
    if not text.isascii() or not text.isdecimal():
        raise _BadFieldError(index, "milliseconds or microseconds since 1970")
    time = int(text)
    if time >= _FIRST_MICROSECOND:
        time //= 1000
    if not day_ms <= time < day_ms + _DAY_MS:
        raise _BadFieldError(index, "a time of the day that the file is named after")
    return time
