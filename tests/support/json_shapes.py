"""The shape of a JSON value: which fields there are, and of which JSON type each is."""

from __future__ import annotations

import re
from typing import Any

Shape = dict[str, set[str]]
"""Types by path; the elements of a list share the path `[]`, those of a row of several types (a candle) have places."""


def shape(value: Any, path: str = "") -> Shape:
    """The shape of a value as json.loads gives it."""
    found: Shape = {path: {_type(value)}}
    if isinstance(value, dict):
        parts = [(f"{path}.{name}" if path else name, part) for name, part in value.items()]
    elif isinstance(value, list):
        row = len({_type(part) for part in value}) > 1
        parts = [(f"{path}[{place}]" if row else f"{path}[]", part) for place, part in enumerate(value)]
    else:
        parts = []
    for where, part in parts:
        for name, types in shape(part, where).items():
            found.setdefault(name, set()).update(types)
    return found


def differences(wanted: Shape, told: Shape) -> set[str]:
    """What `told` lacks (-), has beyond (+) or has of another type (~).

    The parts of a missing part are not named, nor is what stands where `wanted` shows an empty object or list.
    """
    found = {f"~{path}" for path in wanted.keys() & told.keys() if not wanted[path] & told[path]}
    found |= {f"-{path}" for path in _tops(wanted.keys() - told.keys())}
    shown = {_parent(path) for path in wanted if path}
    more = _tops(told.keys() - wanted.keys())
    return found | {f"+{path}" for path in more if _parent(path) in shown or _parent(path) not in wanted}


def _parent(path: str) -> str:
    return re.sub(r"(^|\.)[^.\[]+$|\[\d*\]$", "", path)


def _tops(paths: set[str]) -> set[str]:
    return {path for path in paths if not any(path.startswith((f"{top}.", f"{top}[")) for top in paths)}


def _type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]
