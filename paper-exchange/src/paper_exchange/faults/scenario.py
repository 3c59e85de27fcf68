"""Scenarios: what is to happen and when, checked as a whole before anything of it begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.faults.fields import Field, invalid, number, one_of, read_object, text
from paper_exchange.faults.model import Fault
from paper_exchange.faults.moves import AccountMove, MarketMove, read_account_move, read_market_move
from paper_exchange.faults.parsing import Known, parse_fault
from paper_exchange.faults.record import plan_of
from paper_exchange.faults.yaml_lines import YamlInvalidError, read_yaml

_LONGEST: Final = 30 * 86_400.0
_SHIPPED: Final = files("paper_exchange.faults").joinpath("scenarios")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Every connection ends, and none is accepted for so long: the exchange is restarted."""

    seconds: float


Action = Fault | MarketMove | AccountMove | Refusal | str
"""What a step does; a text says what happens to all WebSockets: `cut` or `close`."""


class ScenarioInvalidError(ControlInvalidError):
    """A scenario that is not understood; the message names file, line, field, what was expected and what came."""

    code = "ScenarioInvalid"


@dataclass(frozen=True, slots=True)
class Step:
    """What happens so many seconds after the scenario began."""

    at: float
    action: Action
    written: dict[str, Any]
    """The step as it was given, without its time."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps in the order of their times."""

    name: str
    steps: tuple[Step, ...]


def shipped() -> list[str]:
    """The names of the scenarios that come with the exchange."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".yaml"))


def open_scenario(asked: str, known: Known) -> Scenario:
    """A scenario by its file, which may be the record of a run (`.jsonl`), or by the name of a shipped one."""
    if asked in shipped():
        return read_scenario(_SHIPPED.joinpath(f"{asked}.yaml").read_text(encoding="utf-8"), asked, known)
    path = Path(asked)
    try:
        given = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioInvalidError(
            f"{asked}: expected a file, or one of {', '.join(shipped())}, got {error}"
        ) from error
    return read_record(given, asked, known) if path.suffix == ".jsonl" else read_scenario(given, asked, known)


def read_scenario(given: str, name: str, known: Known) -> Scenario:
    """A scenario from YAML; `name` is that of its file."""
    try:
        data, lines = read_yaml(given)
    except YamlInvalidError as error:
        raise ScenarioInvalidError(f"{name}:{error.line}: {error}") from error
    return _checked(data, name, known, lines.get)


def read_record(given: str, name: str, known: Known) -> Scenario:
    """The scenario that repeats the last run of a record, from its JSON lines."""
    rows = []
    for number_of, line in enumerate(given.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break  # cut off by the end of its process
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ScenarioInvalidError(f"{name}:{number_of}: expected a row of a record, got {line[:40]!r}") from error
    try:
        plan = plan_of(rows)
    except ControlInvalidError as error:
        raise ScenarioInvalidError(f"{name}: {error}") from error
    except (KeyError, TypeError) as error:
        raise ScenarioInvalidError(f"{name}: expected the rows of a run in their order, got {error!r}") from error
    return _checked(plan, name, known, lambda _: None)


def _checked(data: object, name: str, known: Known, line_of: Callable[[str], int | None]) -> Scenario:
    try:
        return Scenario(name, _steps(data, known))
    except ControlInvalidError as error:
        field = str(error).partition(": ")[0]
        line = line_of(field)
        while line is None and field:
            # A field that is missing has no line: that of what it should be in.
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
            line = line_of(field)
        raise ScenarioInvalidError(f"{name}:{line}: {error}" if line else f"{name}: {error}") from error


def _steps(data: object, known: Known) -> tuple[Step, ...]:
    given = read_object("", data, {"description": Field(text, ""), "steps": Field(_list)})["steps"]
    steps = [_step(f"steps[{place}]", one, known) for place, one in enumerate(given)]
    return tuple(sorted(steps, key=lambda step: step.at))


def _connections(name: str, given: object) -> Refusal | str:
    if isinstance(given, dict):
        return Refusal(read_object(name, given, {"refused": Field(number(0, _LONGEST, above=True))})["refused"])
    return str(one_of("cut", "close")(name, given))


def _list(name: str, given: object) -> list[object]:
    if not isinstance(given, list):
        raise invalid(name, "a list of steps", given)
    return given


def _step(name: str, given: object, known: Known) -> Step:
    actions = {
        "fault": Field(lambda where, one: parse_fault(where, one, known), None),
        "market": Field(lambda where, one: read_market_move(where, one, known.symbols), None),
        "account": Field(read_account_move, None),
        "connections": Field(_connections, None),
    }
    values = read_object(name, given, {"at": Field(number(0, _LONGEST))} | actions)
    chosen = [values[action] for action in actions if values[action] is not None]
    if len(chosen) != 1:
        raise ControlInvalidError(f"{name}: expected one of {', '.join(actions)}, got {len(chosen)}")
    assert isinstance(given, dict)  # noqa: S101, it was read
    return Step(values["at"], chosen[0], {member: one for member, one in given.items() if member != "at"})
