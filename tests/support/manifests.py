"""The table of manifests that the API takes or refuses, for the tests of the models and of the API server."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("tradingbot_manifests.yaml")


@dataclass(frozen=True)
class Case:
    """One manifest, and the update of it where that is what is tried."""

    id: str
    manifest: dict[str, Any]
    update: dict[str, Any] | None = None
    field: str = ""
    message: str = ""
    in_models: bool = True
    """Whether the pydantic models have the rule too."""

    def __str__(self) -> str:
        return self.id


def changed(manifest: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A copy with the values of `set` at their dotted paths and without the fields of `remove`."""
    result = copy.deepcopy(manifest)
    for path, value in change.get("set", {}).items():
        *parents, last = path.split(".")
        node = result
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = value
    for path in change.get("remove", []):
        *parents, last = path.split(".")
        node = result
        for name in parents:
            node = node[name]
        del node[last]
    return result


def cases(kind: str) -> list[Case]:
    """The cases `accepted` or `refused`, each with a name of its own unless the name is the case."""
    table = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    result = []
    for row in table[kind]:
        manifest = changed(table["base"], row)
        if manifest["metadata"]["name"] == table["base"]["metadata"]["name"]:
            manifest["metadata"]["name"] = row["id"]
        result.append(
            Case(
                id=row["id"],
                manifest=manifest,
                update=changed(manifest, row["then"]) if "then" in row else None,
                field=row.get("field", ""),
                message=row.get("message", ""),
                in_models=row.get("model", True),
            )
        )
    return result
