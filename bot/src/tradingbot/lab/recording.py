"""Recorded candles: read from CSV files, checked row by row, and kept as columns of integers."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zipfile
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path
from typing import Final

from paper_exchange.core.units import SCALE
from tradingbot.candle_reader import INTERVAL_MS
from tradingbot.clocks import from_ms
from tradingbot.model import Candle
from tradingbot_api.v1alpha1 import Interval

BINANCE_COLUMNS: Final = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time"),
    *("quote_volume", "trades", "taker_base", "taker_quote", "ignore"),
)
"""Of Binance's public archives, which have no header."""
NEEDED: Final = BINANCE_COLUMNS[:6]
_ALIASES: Final = {"count": "trades", "taker_buy_volume": "taker_base", "taker_buy_base_asset_volume": "taker_base"}
_NAME: Final = re.compile(r"([A-Z0-9]{5,20})[-_](\d{1,2}[smhd])\b|([A-Z0-9]{5,20})[-_](\d{1,2}[smhd])[-_]")
_SUFFIXES: Final = (".csv", ".csv.gz", ".zip")
_INTERVALS: Final = {width: interval for interval, width in INTERVAL_MS.items()}
_FIRST_MICROSECOND: Final = 10**14
"""More milliseconds than this are beyond the year 5000: such times are microseconds, as Binance's from 2025 on."""
_LARGEST: Final = 2**63 - 1
_UNIT: Final = Decimal("0.00000001")


class RecordingError(Exception):
    """Recorded candles cannot be read; the text names file, line and field."""

    code = "RecordingInvalid"


@dataclass(slots=True)
class Recording:
    """Candles of one symbol and interval, oldest first; prices and volumes in units of 1e-8, times in ms UTC.

    `trades` is -1 where the file does not tell; `taker_base` is what takers bought, 0 where it does not tell.
    """

    symbol: str
    width: int
    """Milliseconds of a candle."""
    open_ms: array[int] = field(default_factory=lambda: array("q"))
    open: array[int] = field(default_factory=lambda: array("q"))
    high: array[int] = field(default_factory=lambda: array("q"))
    low: array[int] = field(default_factory=lambda: array("q"))
    close: array[int] = field(default_factory=lambda: array("q"))
    volume: array[int] = field(default_factory=lambda: array("q"))
    trades: array[int] = field(default_factory=lambda: array("q"))
    taker_base: array[int] = field(default_factory=lambda: array("q"))
    _coarser: dict[int, tuple[Recording, array[int]]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.open_ms)

    @property
    def interval(self) -> Interval:
        """The interval by Binance's name."""
        return _INTERVALS[self.width]

    def add(self, row: Sequence[int]) -> None:
        """One more candle: open_ms, open, high, low, close, volume, trades, taker_base."""
        columns = (self.open_ms, self.open, self.high, self.low, self.close, self.volume, self.trades, self.taker_base)
        for column, value in zip(columns, row, strict=True):
            column.append(value)

    def candle(self, index: int) -> Candle:
        """The candle at `index`, as the market stream tells it when it closes."""
        return next(self.candles(index, index + 1))

    def candles(self, first: int, end: int) -> Iterator[Candle]:
        """Those from index `first` to before `end`, made as they are asked for: columns take a tenth of the memory."""
        symbol, interval, last_ms = self.symbol, self.interval.value, self.width - 1
        for at in range(first, end):
            opened = self.open_ms[at]
            yield Candle(
                symbol,
                interval,
                opened,
                opened + last_ms,
                Decimal(self.open[at]) * _UNIT,
                Decimal(self.high[at]) * _UNIT,
                Decimal(self.low[at]) * _UNIT,
                Decimal(self.close[at]) * _UNIT,
                Decimal(self.volume[at]) * _UNIT,
                max(0, self.trades[at]),
                True,
            )

    def index_at(self, time_ms: int) -> int:
        """The first candle that opens at `time_ms` or later."""
        return bisect_left(self.open_ms, time_ms)

    def coarser(self, width: int) -> tuple[Recording, array[int]]:
        """Candles of a longer interval, and where in this recording each begins; the last place is where they end.

        One that the recording does not begin or end with whole is left out; ValueError where the interval is none of
        whole candles.
        """
        if width == self.width:
            return self, array("q", range(len(self) + 1))
        if width < self.width or width % self.width:
            raise ValueError(f"{width} ms are not whole candles of {self.width} ms")
        if width not in self._coarser:
            self._coarser[width] = self._joined_to(width)
        return self._coarser[width]

    def _joined_to(self, width: int) -> tuple[Recording, array[int]]:
        whole, starts = Recording(self.symbol, width), array("q")
        at = self.index_at(-(-self.open_ms[0] // width) * width) if len(self) else 0
        while at < len(self):
            opened = self.open_ms[at] // width * width
            end = self.index_at(opened + width)
            if end == len(self) and self.open_ms[-1] + self.width < opened + width:
                break
            trades = self.trades[at:end]
            whole.add(
                [
                    opened,
                    self.open[at],
                    max(self.high[at:end]),
                    min(self.low[at:end]),
                    self.close[end - 1],
                    sum(self.volume[at:end]),
                    -1 if min(trades) < 0 else sum(trades),
                    sum(self.taker_base[at:end]),
                ]
            )
            starts.append(at)
            at = end
        starts.append(at)
        return whole, starts

    @property
    def missing(self) -> int:
        """How many candles are not there between the first and the last."""
        return (self.open_ms[-1] - self.open_ms[0]) // self.width + 1 - len(self) if len(self) else 0


def read_recordings(
    paths: Iterable[Path], symbol: str | None = None, wanted: Container[str] | None = None
) -> dict[str, Recording]:
    """The recordings of files and folders, by symbol; RecordingError.

    The symbol comes from a file's name, such as BTCUSDT-1m-2024-08-08.zip; `symbol` is that of files whose name does
    not tell. Files of one symbol are joined in the order of their time; of others than the `wanted` none is read.
    """
    by_symbol: dict[str, list[Recording]] = {}
    names: dict[int, Path] = {}
    for path in _files(paths):
        found = _NAME.search(path.name)
        named = (found[1] or found[3]) if found else symbol
        if named is None:
            raise RecordingError(
                f"{path}: expected a name that begins with symbol and interval, such as BTCUSDT-1m-2024-08-08.zip; "
                "rename the file, or name one --symbol"
            )
        if wanted is not None and named not in wanted:
            by_symbol.setdefault(named, [])
            continue
        recording = read_recording(path, named)
        names[id(recording)] = path
        by_symbol.setdefault(named, []).append(recording)
    return {
        name: _joined(sorted(parts, key=lambda one: one.open_ms[0]), names) if parts else Recording(name, 0)
        for name, parts in by_symbol.items()
    }


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        inside = [one for one in sorted(path.iterdir()) if one.name.endswith(_SUFFIXES) and _NAME.search(one.name)]
        if not inside:
            raise RecordingError(f"{path}: expected files named like BTCUSDT-1m-2024-08-08.zip, found none")
        yield from inside


def _joined(parts: list[Recording], names: dict[int, Path]) -> Recording:
    first = parts[0]
    for before, part in pairwise(parts):
        path = names[id(part)]
        if part.width != first.width:
            raise RecordingError(
                f"{path}: expected candles of {first.interval.value}, as in {names[id(first)]}, "
                f"got {part.interval.value}"
            )
        if part.open_ms[0] <= before.open_ms[-1]:
            raise RecordingError(
                f"{path}: open_time: begins at {from_ms(part.open_ms[0]).isoformat()}, before "
                f"{names[id(before)]} ends; name each day once"
            )
    for part in parts[1:]:
        for name in ("open_ms", "open", "high", "low", "close", "volume", "trades", "taker_base"):
            getattr(first, name).extend(getattr(part, name))
    return first


def read_recording(path: Path, symbol: str) -> Recording:
    """One file: Binance's twelve columns without a header, or a header with at least the first six; RecordingError."""
    number = 0
    rows: list[list[int]] = []
    try:
        with _opened(path) as lines:
            columns: dict[str, int] = {name: at for at, name in enumerate(BINANCE_COLUMNS)}
            width = len(BINANCE_COLUMNS)
            for number, row in enumerate(csv.reader(lines), 1):
                if number == 1 and row and not row[0][:1].isdigit():
                    columns, width = _header(path, row), len(row)
                    continue
                if len(row) != width:
                    raise RecordingError(f"{path}:{number}: expected {width} fields, got {len(row)}")
                rows.append(_row(path, number, row, columns))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error, zipfile.BadZipFile) as error:
        raise RecordingError(f"{path}:{number + 1}: expected readable lines of CSV, got {error}") from error
    if len(rows) < 2:
        raise RecordingError(f"{path}: expected at least two candles, got {len(rows)}")
    recording = Recording(symbol, _width(path, rows, number - len(rows)))
    last = rows[0][0] - recording.width
    for at, values in enumerate(rows, number - len(rows) + 1):
        if values[0] <= last or (values[0] - rows[0][0]) % recording.width:
            raise RecordingError(
                f"{path}:{at}: open_time: expected whole {recording.interval.value} after {from_ms(last).isoformat()}, "
                f"got {from_ms(values[0]).isoformat()}"
            )
        last = values[0]
        recording.add(values)
    return recording


def _width(path: Path, rows: list[list[int]], header: int) -> int:
    # Times that do not rise are told apart, by their line.
    width = min((after[0] - before[0] for before, after in pairwise(rows) if after[0] > before[0]), default=0)
    if width not in _INTERVALS:
        raise RecordingError(
            f"{path}:{header + 2}: open_time: expected candles of {', '.join(one.value for one in Interval)}, "
            f"got {width / 1000:g} s between two"
        )
    return width


def _header(path: Path, row: list[str]) -> dict[str, int]:
    names = [_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in row]
    lacking = [name for name in NEEDED if name not in names]
    if lacking:
        raise RecordingError(f"{path}:1: expected the columns {','.join(NEEDED)}, lacks {', '.join(lacking)}")
    return {name: at for at, name in enumerate(names)}


def _row(path: Path, number: int, row: list[str], columns: dict[str, int]) -> list[int]:
    name = "open_time"
    try:
        values = [_time(row[columns[name]])]
        for name in ("open", "high", "low", "close", "volume"):
            values.append(_units(row[columns[name]]))  # noqa: PERF401, an error names the field
        name = "trades"
        values.append(int(row[columns[name]]) if name in columns else -1)
        name = "taker_base"
        values.append(_units(row[columns[name]]) if name in columns else 0)
    except (ValueError, InvalidOperation, OverflowError):
        kind = "a time such as 1723075200000 or 2024-08-08 00:00:00+00:00" if name == "open_time" else "a number"
        raise RecordingError(
            f"{path}:{number}: {name}: expected {kind} of at most 8 decimals, got {row[columns[name]]!r}"
        ) from None
    _, opened, high, low, closed, volume, _, taker_base = values
    for name, wrong, expected in (
        ("open", opened <= 0, "a price above 0"),
        ("high", high < max(opened, closed), "the highest price"),
        ("low", low <= 0 or low > min(opened, closed), "the lowest price, above 0"),
        ("volume", volume < 0, "no negative number"),
        ("taker_base", not 0 <= taker_base <= volume, "a part of the volume"),
    ):
        if wrong:
            raise RecordingError(f"{path}:{number}: {name}: expected {expected}, got {row[columns[name]]!r}")
    return values


def _time(text: str) -> int:
    """Milliseconds since 1970 UTC of milliseconds, microseconds or an ISO time; ValueError."""
    if text.isascii() and text.isdigit():
        time = int(text)
        return time // 1000 if time >= _FIRST_MICROSECOND else time
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return round(moment.timestamp() * 1000)


def _units(text: str) -> int:
    """Units of a decimal text; ValueError where it has more than 8 decimals, or is no finite number."""
    whole, _, part = text.partition(".")
    if len(part) <= 8 and whole.isdigit() and (part.isdigit() or not part) and text.isascii():
        units = int(whole + part.ljust(8, "0"))
    else:
        exact = Decimal(text) * SCALE  # such as 9e-05
        units = int(exact)
        if units != exact:
            raise ValueError(text)
    if units > _LARGEST:
        raise ValueError(text)
    return units


@contextmanager
def _opened(path: Path) -> Iterator[io.TextIOBase]:
    """The lines of a file, unpacked."""
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="ascii", newline="") as lines:
            yield lines
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".csv")]
            if len(inside) != 1:
                raise zipfile.BadZipFile(f"{len(inside)} CSV files in it instead of one")
            with archive.open(inside[0]) as data, io.TextIOWrapper(data, encoding="ascii", newline="") as lines:
                yield lines
    else:
        with path.open(encoding="ascii", newline="") as lines:
            yield lines
