"""The journal: each input of the engine as a line of JSON before it is applied, and what was told of it as a digest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from paper_exchange.core import model, rates
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.list_requests import NewOrderList
from paper_exchange.core.requests import AmendTarget, CancelTarget, NewOrder
from paper_exchange.core.state import Output, UserEvent
from paper_exchange.core.symbols import SYMBOLS, SymbolRules
from paper_exchange.lines_file import open_lines

VERSION: Final = 1
INPUTS: Final = (
    "restore", "seed", "open_account", "deposit", "withdraw", "change_account", "reset_account", "set_bnb_discount",
    "change_status", "change_filters", "forget_all", "on_book", "on_trade", "push_trade", "gap", "place", "test",
    "place_list", "cancel", "cancel_replace", "amend", "cancel_list", "cancel_all",
)  # fmt: skip
"""All that changes an exchange, by name."""
_KINDS: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        model.Account, model.AccountSettings, model.Amendment, model.Balance, model.Order, model.OrderList, model.Trade,
        rates.CommissionRates, rates.Rates, AmendTarget, CancelTarget, NewOrder, NewOrderList,
    )
}  # fmt: skip


class JournalInvalidError(Exception):
    """A journal that cannot be read; the message names the file, the line, what was expected and what came."""

    code = "JournalInvalid"


class JournalFileError(OSError):
    """The file of a journal cannot be written; the message names it and says why."""


class Journal:
    """Writes a journal at the end of a file; JournalFileError where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        try:
            # Nobody heard of what half a line tells.
            self._file = open_lines(path)
        except OSError as error:
            raise JournalFileError(f"expected a file that can be written, got {path}: {error.strerror}") from error
        self._waiting = bytearray()
        """What is not in the file yet, however often the disk refused it."""
        self._told = 0
        """Of the outputs that are still to be told, how many have their digest there."""

    def exchange(self, symbols: Iterable[str], start_ms: int) -> Exchange:
        """A new exchange of these symbols, all of whose inputs are written from now on."""
        symbols = list(symbols)
        self._write({"begin": {"version": VERSION, "symbols": symbols, "start": start_ms}})
        return _Recorded(self, (SYMBOLS[symbol] for symbol in symbols), start_ms)

    def input(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Write an input."""
        self._write({"input": name, "args": args} | ({"kwargs": kwargs} if kwargs else {}))

    def speed(self, speed: float, now_ms: int) -> None:
        """Write how fast the market is played from now on: for readers, for what it changes are the times of inputs."""
        self._write({"speed": speed, "time": now_ms})

    def told(self, outputs: Sequence[Output]) -> None:
        """Write what came of the inputs since the last time that succeeded; nobody hears of it before. OSError."""
        lines = [line_of(output) for output in outputs[self._told :]]
        if lines:
            self._write({"told": len(lines), "digest": digest(lines)})
        self._told = len(outputs)
        self.flush()
        self._told = 0

    def flush(self) -> None:
        """Hand all that was written to the system. OSError: nothing is lost, and the next time goes on behind it."""
        while self._waiting:
            written = os.write(self._file.fileno(), self._waiting)
            del self._waiting[:written]

    def close(self) -> None:
        """Close the file."""
        with self._file:
            self.flush()

    def _write(self, row: dict[str, Any]) -> None:
        self._waiting += _ENCODER.encode(row).encode() + b"\n"


class _Recorded(Exchange):
    """An exchange whose inputs are written before they are applied, also those that it refuses."""

    def __init__(self, journal: Journal, symbols: Iterable[SymbolRules], start_ms: int) -> None:
        super().__init__(symbols, start_ms)
        self.journal: Journal | None = journal


def _recorded(name: str) -> Callable[..., Any]:
    apply = getattr(Exchange, name)

    @wraps(apply)
    def method(self: _Recorded, *args: Any, **kwargs: Any) -> Any:
        journal = self.journal
        if journal is not None:
            journal.input(name, args, kwargs)
        # One input may be made of others: those follow from it.
        self.journal = None
        try:
            return apply(self, *args, **kwargs)
        finally:
            self.journal = journal

    return method


for _name in INPUTS:
    setattr(_Recorded, _name, _recorded(_name))


# -- reading -------------------------------------------------------------------------------------------------------


@dataclass
class Replay:
    """What came of replaying a journal."""

    starts: int = 0
    inputs: int = 0
    outputs: int = 0
    difference: str = ""
    """The first place at which other events came than were told then."""
    exchange: Exchange | None = None
    """The exchange as it is after the last input."""


def replay(path: Path, hear: Callable[[str], None]) -> Replay:
    """Applies the inputs of a journal to exchanges of its own; `hear` gets each event as a line of JSON.

    Stops at the first difference. JournalInvalidError for what is no journal; a last line that was cut off is left out.
    """
    done = Replay()
    waiting: list[str] = []
    for number, row in _rows(path):
        try:
            if "begin" in row:
                begin = row["begin"]
                if begin["version"] != VERSION:
                    raise ValueError(f"version {VERSION}, got version {begin['version']}")
                done.exchange = Exchange([SYMBOLS[symbol] for symbol in begin["symbols"]], begin["start"])
                done.starts += 1
                waiting = []
            elif "speed" in row:
                continue
            elif done.exchange is None:
                raise ValueError("a line `begin` first")
            elif "input" in row:
                if row["input"] not in INPUTS:
                    raise ValueError(f"one of {', '.join(INPUTS)} as input, got {row['input']!r}")
                with suppress(ExchangeError):
                    getattr(done.exchange, row["input"])(*row["args"], **row.get("kwargs", {}))
                done.inputs += 1
                lines = [line_of(output) for output in done.exchange.take_outputs()]
                done.exchange.take_changes()
                waiting += lines
                for line in lines:
                    hear(line)
            else:
                told, waiting = waiting, []
                done.outputs += len(told)
                if (len(told), digest(told)) != (row["told"], row["digest"]):
                    done.difference = f"line {number}: {row['told']} events were told, and {len(told)} other ones came"
                    return done
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise JournalInvalidError(f"{path}:{number}: expected an input of an exchange: {error}") from error
    if done.exchange is None:
        raise JournalInvalidError(f"{path}:1: expected a line `begin`, got an empty file")
    return done


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield number, json.loads(line, object_hook=_decoded)
            except (LookupError, TypeError, ValueError) as error:
                raise JournalInvalidError(f"{path}:{number}: expected a line of a journal: {error}") from error


def line_of(output: Output) -> str:
    """An event of an account, or a public trade, as a line of JSON."""
    if isinstance(output, UserEvent):
        return json.dumps({"uid": output.uid, "event": output.payload}, separators=(",", ":"))
    return json.dumps({"trade": _fields(output)}, separators=(",", ":"))


def digest(lines: Iterable[str]) -> str:
    """Stands for lines: other ones have another."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# -- dataclasses as JSON -------------------------------------------------------------------------------------------


def _fields(row: Any) -> dict[str, Any]:
    return {one.name: getattr(row, one.name) for one in fields(row)}


def _encoded(value: Any) -> Any:
    if is_dataclass(value):
        return {f"${type(value).__name__}": _fields(value)}
    if isinstance(value, ExchangeError):
        return {"$ExchangeError": [value.code, value.message, value.status, value.retry_at]}
    raise TypeError(f"{type(value).__name__} cannot be written to a journal")


def _decoded(row: dict[str, Any]) -> Any:
    name = next(iter(row), "")
    if len(row) != 1 or not name.startswith("$"):
        return row
    (values,) = row.values()
    if name == "$ExchangeError":
        code, message, status, retry_at = values
        return ExchangeError(code, message, status, retry_at=retry_at)
    kind = _KINDS[name[1:]]
    hints = _HINTS.get(kind) or _HINTS.setdefault(kind, get_type_hints(kind))
    return kind(**{one: _typed(hints[one], value) for one, value in values.items()})


def _typed(hint: Any, value: Any) -> Any:
    """A value of JSON as what the field holds: an enum, a tuple, or the value itself."""
    if isinstance(value, str):
        enums = [one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, StrEnum)]
        return enums[0](value) if enums else value
    return tuple(value) if get_origin(hint) is tuple else value


_HINTS: Final[dict[type, dict[str, Any]]] = {}
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=_encoded)
