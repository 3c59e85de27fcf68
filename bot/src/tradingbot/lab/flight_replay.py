"""`tradingbot replay-flight`: decides again what a flight recording says, and compares."""

from __future__ import annotations

import io
import pickle
import zlib
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter
from pydantic_core import from_json
from rich.console import Console
from rich.table import Table

from tradingbot.engine.strategies import CATALOGUE
from tradingbot.monitoring.flight_recorder import FORMAT, PATTERN
from tradingbot.recorded import recorded_methods

SHOWN: Final = 10
_ANY_ZIP: Final = 47
_DECIDING: Final = ("tradingbot.engine.", "tradingbot.model", "tradingbot.risk.", "tradingbot_api.")
_PLAIN: Final = {
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("collections", "deque"),
    ("collections", "OrderedDict"),
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("decimal", "Decimal"),
}


class FlightInvalidError(Exception):
    """A file that is no recording, or one of another form."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A call that now comes out otherwise."""

    line: int
    call: str
    recorded: str
    replayed: str


@dataclass(slots=True)
class FlightReport:
    """What came of a file."""

    about: dict[str, Any] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    """By object and method."""
    decisions: list[str] = field(default_factory=list)
    """What was decided on each candle and tick, as it was replayed."""
    differences: list[Difference] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Objects whose state could not be recorded or made again; their calls are left out."""

    @property
    def exact(self) -> bool:
        """Everything came out again."""
        return not self.differences and not self.unknown


class _Unpickler(pickle.Unpickler):
    """Makes objects of the rooms that decide, and of strategies that this process knows; a file runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """A class; UnpicklingError for anything else."""
        own = {offered.kind.__module__.partition(".")[0] for offered in CATALOGUE.strategies.values()} - {"tradingbot"}
        known = module.partition(".")[0] in own or module.startswith(_DECIDING) or (module, name) in _PLAIN
        if not known:
            raise pickle.UnpicklingError(f"{module}.{name} is of no strategy that is known here")
        found = super().find_class(module, name)
        if not isinstance(found, type) or found.__module__ != module:
            raise pickle.UnpicklingError(f"{module}.{name} is no class")
        return found


def read_flight(path: Path) -> Iterator[bytes]:
    """The lines of a file, as far as it was written: a process that was killed leaves no end."""
    unzip, rest = zlib.decompressobj(wbits=_ANY_ZIP), b""
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                *lines, rest = (rest + unzip.decompress(chunk)).split(b"\n")
                yield from lines
    except (OSError, zlib.error) as error:
        raise FlightInvalidError(f"{path}: {error}") from error


def replay_flight(path: Path) -> FlightReport:
    """Decide again; FlightInvalidError where it is no recording."""
    report = FlightReport()
    things: dict[str, Any] = {}
    for number, line in enumerate(read_flight(path), 1):
        try:
            entry = from_json(line)
            if number == 1:
                _check(entry)
                report.about = entry
            elif isinstance(entry, list):
                _call(report, things, number, entry)
            elif "object" in entry:
                things[entry["object"]] = _make(report, entry)
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # pydantic's errors are ValueErrors
            raise FlightInvalidError(f"{path}, line {number}: {type(error).__name__}: {error}") from error
    if not report.about:
        raise FlightInvalidError(f"{path}: it is empty")
    return report


def _check(entry: Any) -> None:
    if not isinstance(entry, dict) or entry.get("flight") != FORMAT:
        raise ValueError(f'expected a flight recording, {{"flight": {FORMAT}, ...}}')


def _make(report: FlightReport, entry: dict[str, Any]) -> Any:
    why = entry.get("unknown")
    if why is None:
        try:
            return _Unpickler(io.BytesIO(b64decode(entry["state"]))).load()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    report.unknown.append(f"{entry['object']}: {why}")
    return None


def _call(report: FlightReport, things: dict[str, Any], number: int, entry: list[Any]) -> None:
    name, method, given, outcome = entry
    target, *parts = name.split(".")
    thing = things[target]
    if thing is None:
        return
    for part in parts:
        thing = getattr(thing, part)
    call = recorded_methods(type(thing)).get(method)
    if call is None:
        raise ValueError(f"{name} has no recorded method {method!r}")
    names, shape = _arguments(call)
    arguments = dict(zip(names, shape.validate_python(tuple(given)), strict=True))
    try:
        replayed = repr(call(thing, **arguments))
    except Exception as error:
        replayed = f"raised {error!r}"
    report.calls[f"{name}.{method}"] += 1
    if target == "loop" and method in {"on_candle", "on_tick"}:
        report.decisions.append(replayed)
    if replayed != outcome:
        report.differences.append(Difference(number, f"{name}.{method}", outcome, replayed))


@cache
def _arguments(method: Callable[..., Any]) -> tuple[list[str], TypeAdapter[tuple[Any, ...]]]:
    """The names of its arguments, and what they are made by."""
    hints = get_type_hints(method)
    hints.pop("return", None)
    return list(hints), TypeAdapter(tuple[tuple(hints.values())])  # type: ignore[arg-type, misc]


def run_replay_flight(paths: Iterable[Path], console: Console) -> int:
    """Replay files, and those in folders, and show what came of each; 1 where anything came out otherwise."""
    exact = True
    for path in paths:
        files = sorted(path.glob(PATTERN)) if path.is_dir() else [path]
        if not files:
            raise FlightInvalidError(f"{path}: expected files {PATTERN}, it has none")
        for file in files:
            report = replay_flight(file)
            exact = exact and report.exact
            _show(file, report, console)
    return 0 if exact else 1


def _show(path: Path, report: FlightReport, console: Console) -> None:
    bot = report.about.get("bot", {})
    console.print(f"{path}: {bot.get('namespace')}/{bot.get('name')}, from {report.about.get('begun')}", soft_wrap=True)
    for why in report.unknown:
        console.print(f"not replayed: {why}", soft_wrap=True)
    table = Table("call", "times")
    for call, count in sorted(report.calls.items()):
        table.add_row(call, str(count))
    console.print(table)
    kinds = Counter(decision.partition("(")[0] for decision in report.decisions)
    decided = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none"
    console.print(f"decisions: {decided}; {len(report.differences) or 'no'} differences")
    for one in report.differences[:SHOWN]:
        console.print(f"line {one.line}, {one.call}: recorded {one.recorded}, now {one.replayed}", soft_wrap=True)
