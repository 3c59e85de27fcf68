"""Values of faults and scenarios as people write them: each is checked, and the error names its field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from paper_exchange.amounts import ControlInvalidError

Read = Callable[[str, object], Any]
"""Turns what was given for a field into its value, or raises ControlInvalidError."""

REQUIRED: Final = object()
"""In place of a default: the field must be given."""


@dataclass(frozen=True, slots=True)
class Field:
    """One member of an object: how it is read, and what it is when it is left out."""

    read: Read
    default: Any = REQUIRED


def invalid(name: str, expected: str, given: object) -> ControlInvalidError:
    """The error for a value."""
    return ControlInvalidError(f"{name}: expected {expected}, got {given!r}")


def read_object(name: str, given: object, known: Mapping[str, Field]) -> dict[str, Any]:
    """The members of an object with their defaults; `name` is empty for the outermost."""
    where = f"{name}." if name else ""
    if not isinstance(given, dict):
        raise invalid(name or "body", f"an object with some of {', '.join(known)}", given)
    for member in given:
        if member not in known:
            raise ControlInvalidError(f"{where}{member}: expected one of {', '.join(known)}, got this field")
    values: dict[str, Any] = {}
    for member, field in known.items():
        if member in given:
            values[member] = field.read(where + member, given[member])
        elif field.default is REQUIRED:
            raise ControlInvalidError(f"{where}{member}: expected this field, got none")
        else:
            values[member] = field.default
    return values


def whole(low: int, high: int) -> Read:
    """A whole number within bounds."""

    def read(name: str, given: object) -> int:
        if type(given) is not int or not low <= given <= high:
            raise invalid(name, f"a whole number from {low} to {high}", given)
        return given

    return read


def number(low: float, high: float, *, above: bool = False) -> Read:
    """A number within bounds; with `above`, larger than the lower one."""

    def read(name: str, given: object) -> float:
        fits = (
            not isinstance(given, bool)
            and isinstance(given, (int, float))
            and low <= given <= high
            and not (above and given == low)
        )
        if not fits:
            expected = f"a number above {low:g} and at most {high:g}" if above else f"a number from {low:g} to {high:g}"
            raise invalid(name, expected, given)
        assert isinstance(given, (int, float))  # noqa: S101, seen above
        return given

    return read


def flag(name: str, given: object) -> bool:
    """True or false."""
    if not isinstance(given, bool):
        raise invalid(name, "true or false", given)
    return given


def text(name: str, given: object) -> str:
    """A text that is not empty."""
    if not isinstance(given, str) or not given or len(given) > 1000:
        raise invalid(name, "a text of 1 to 1000 characters", given)
    return given


def one_of(*known: str) -> Read:
    """One of some words."""

    def read(name: str, given: object) -> str:
        if not isinstance(given, str) or given not in known:
            raise invalid(name, f"one of {', '.join(known)}", given)
        return given

    return read


def choice(*known: int) -> Read:
    """One of some whole numbers."""

    def read(name: str, given: object) -> int:
        if type(given) is not int or given not in known:
            raise invalid(name, f"one of {', '.join(map(str, known))}", given)
        return given

    return read


def some(read_one: Read) -> Read:
    """One value, or a list of them that is not empty."""

    def read(name: str, given: object) -> tuple[Any, ...]:
        if not isinstance(given, list):
            return (read_one(name, given),)
        if not given:
            raise invalid(name, "a value or a list of them", given)
        return tuple(read_one(f"{name}[{place}]", one) for place, one in enumerate(given))

    return read
