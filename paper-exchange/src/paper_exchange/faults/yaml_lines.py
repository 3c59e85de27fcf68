"""YAML whose fields are found again by line."""

from __future__ import annotations

from typing import Any

import yaml


class YamlInvalidError(Exception):
    """A text that is no YAML, or more than is understood of it here."""

    code = "YamlInvalid"

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def read_yaml(text: str) -> tuple[Any, dict[str, int]]:
    """What a text says, and the line of each field, as `steps[2].fault.kind`, counted from 1."""
    lines: dict[str, int] = {"": 1}
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise YamlInvalidError("expected YAML without aliases, got one", _line(event.start_mark))
        node = yaml.compose(text, yaml.SafeLoader)
        if node is not None:
            _walk(node, "", lines)
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        raise YamlInvalidError(f"expected YAML, got an error: {error.problem}", _line(error.problem_mark)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise YamlInvalidError(f"expected YAML, got an error: {error}", 1) from error


def _line(mark: Any) -> int:
    """The line of a place, counted from 1."""
    return 1 if mark is None else int(mark.line) + 1


def _walk(node: yaml.Node, field: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{field}.{key.value}" if field else str(key.value)
            if name in lines:
                raise YamlInvalidError(f"{name}: expected this field once, got it twice", _line(key.start_mark))
            lines[name] = _line(key.start_mark)
            _walk(key, name, lines)
            _walk(value, name, lines)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            name = f"{field}[{place}]"
            lines[name] = _line(value.start_mark)
            _walk(value, name, lines)
    else:
        try:
            # Python reads and writes no decimal number of more than 4300 digits.
            repr(yaml.SafeLoader("").construct_object(node))
        except (ArithmeticError, ValueError) as error:
            raise YamlInvalidError(
                f"{field or 'body'}: expected a value, got one that cannot be read: {error}", _line(node.start_mark)
            ) from error
