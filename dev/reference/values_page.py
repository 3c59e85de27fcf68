"""Generates docs/values.md: every value of the chart with its default and the comment above it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

VALUES: Final = Path(__file__).resolve().parents[2] / "charts/tradingbot-operator/values.yaml"
HEADER: Final = """<!-- Generated from charts/tradingbot-operator/values.yaml by `make generate`. Do not edit. -->
# Values of the chart

Set them in a file (`helm upgrade --values`) or one by one (`--set`); what is unknown or of another type is refused.

| Value | Default | Meaning |
|---|---|---|
"""


def _comment(lines: list[str], line: int) -> str:
    """The comment that ends right above a line."""
    first = line
    while first > 0 and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(text.strip().removeprefix("#").strip() for text in lines[first:line])


def _rows(node: yaml.MappingNode, path: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    for key, value in node.value:
        name, meaning = f"{path}{key.value}", _comment(lines, key.start_mark.line)
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            if meaning:
                yield name, "", meaning
            yield from _rows(value, f"{name}.", lines)
        else:
            default = yaml.safe_load(yaml.serialize(value))
            yield name, default if isinstance(default, str) and default else json.dumps(default), meaning


def rows() -> list[tuple[str, str, str]]:
    """Path, default (empty for what only holds others) and meaning of each."""
    text = VALUES.read_text(encoding="utf-8")
    node = yaml.compose(text)
    if not isinstance(node, yaml.MappingNode):
        raise TypeError(f"{VALUES}: expected a mapping")
    return list(_rows(node, "", text.splitlines()))


def render() -> str:
    """The Markdown page."""
    table = ((f"`{path}`", f"`{default}`" if default else "", meaning) for path, default, meaning in rows())
    return HEADER + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in table)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
