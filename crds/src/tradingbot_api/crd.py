"""Generates the CustomResourceDefinitions (PLURAL.yaml) and the reference of all kinds (FILE.md) from the models.

`python -m tradingbot_api.crd [--check] FILE...`
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from tradingbot_api import names
from tradingbot_api.kill_switch import KillSwitchSpec, KillSwitchStatus
from tradingbot_api.sets import TradingBotSetSpec, TradingBotSetStatus
from tradingbot_api.v1alpha1 import LONGEST_NAME, TradingBotSpec, TradingBotStatus

HEADER: Final = "# Generated from tradingbot_api by `make generate`. Do not edit.\n"
REFERENCE_HEADER: Final = """<!-- Generated from tradingbot_api by `make generate`. Do not edit. -->
# All fields of all kinds

`kubectl explain tradingbot.spec` shows the same beside the cluster. Money and ratios are decimal strings.
"""
KEPT: Final = frozenset(
    {
        "type", "description", "default", "enum", "pattern", "format", "items", "properties", "required",
        "additionalProperties", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
        "minProperties", "maxProperties",
    }
)  # fmt: skip
Column = tuple[str, str, str, int, str]
"""Name, type, path, priority, description."""


@dataclass(frozen=True)
class Kind:
    """A kind, and what its CustomResourceDefinition is made of."""

    resource: names.Resource
    short_name: str
    description: str
    columns: tuple[Column, ...]
    spec: type[BaseModel]
    status: type[BaseModel]
    longest_name: int = 63


_AGE: Final[Column] = ("Age", "date", ".metadata.creationTimestamp", 0, "Age")
_BOT_COLUMNS: Final[tuple[Column, ...]] = (
    ("Symbol", "string", ".spec.symbol", 0, "Trading pair"),
    ("Phase", "string", ".status.phase", 0, "Summary of the conditions"),
    ("Safe", "string", ".status.safeMode.level", 0, "Safe-mode level"),
    ("Circuit", "string", ".status.circuitBreaker.state", 0, "Circuit breaker"),
    (
        "Synced",
        "string",
        ".status.conditions[?(@.type=='BalanceSynced')].status",
        0,
        "Books agree with the account",
    ),
    ("Position", "string", ".status.position.quantity", 0, "Base asset held"),
    ("PnL", "string", ".status.pnl.total", 0, "Profit and loss in the quote asset"),
    _AGE,
    ("Ready", "string", ".status.conditions[?(@.type=='Ready')].status", 1, "Condition Ready"),
    (
        "Protected",
        "string",
        ".status.conditions[?(@.type=='Protected')].reason",
        1,
        "Protection of the position",
    ),
    ("Realized", "string", ".status.pnl.realized", 1, "Realized profit and loss"),
    ("Trades", "integer", ".status.trades.total", 1, "Closed round trips"),
    ("Risk", "string", ".status.risk.level", 1, "Risk level"),
    ("Environment", "string", ".spec.exchange.environment", 1, "Exchange environment"),
)
_SET_COLUMNS: Final[tuple[Column, ...]] = (
    ("Bots", "integer", ".status.bots", 0, "TradingBots that the spec names"),
    ("Ready", "integer", ".status.ready", 0, "Of these, Ready"),
    ("Updated", "integer", ".status.updated", 0, "Of these, at the present template and running with it"),
    ("Safe", "integer", ".status.inSafeMode", 0, "Of these, in safe mode"),
    ("Position", "integer", ".status.inPosition", 0, "Of these, with a position"),
    ("Known", "string", ".status.known", 0, "Of how many the figures are known"),
    ("PnL", "string", ".status.totals[*].pnl.total", 0, "Profit and loss in each quote asset"),
    ("Exposure", "string", ".status.totals[*].exposure", 0, "Value of the positions in each quote asset"),
    _AGE,
    ("Assets", "string", ".status.totals[*].asset", 1, "The quote assets of PNL and EXPOSURE"),
    ("Drawdown", "string", ".status.worstDrawdown.ratio", 1, "Worst present drawdown of a bot"),
    ("Worst", "string", ".status.worstDrawdown.bot", 1, "That bot"),
    ("Accepted", "string", ".status.conditions[?(@.type=='Accepted')].reason", 1, "Whether all bots can be made"),
    ("Rollout", "string", ".status.conditions[?(@.type=='UpToDate')].reason", 1, "Where a change of the template is"),
)
_SWITCH_COLUMNS: Final[tuple[Column, ...]] = (
    ("Policy", "string", ".spec.policy", 0, "What happens to open positions"),
    ("Phase", "string", ".status.phase", 0, "Summary of the conditions"),
    ("Bots", "integer", ".status.bots", 0, "TradingBots that it is in force for"),
    ("Acknowledged", "integer", ".status.acknowledged", 0, "Bots that have no entry on the exchange"),
    ("Pending", "integer", ".status.unacknowledged", 0, "Bots that have not acknowledged"),
    ("Holding", "integer", ".status.holding", 0, "Bots that have a position"),
    ("Reason", "string", ".spec.reason", 0, "Why"),
    _AGE,
    # As text: a date is shown as how long ago it was.
    ("Expires", "string", ".spec.expiryTime", 1, "When it ends by itself"),
)
KINDS: Final = (
    Kind(
        names.TRADING_BOT,
        "tb",
        "A Binance Spot trading bot: one pod that trades one symbol.",
        _BOT_COLUMNS,
        TradingBotSpec,
        TradingBotStatus,
        LONGEST_NAME,
    ),
    Kind(
        names.TRADING_BOT_SET,
        "tbs",
        "TradingBots of many symbols with one template: made, changed a few at a time, and summed up.",
        _SET_COLUMNS,
        TradingBotSetSpec,
        TradingBotSetStatus,
        LONGEST_NAME,
    ),
    Kind(
        names.KILL_SWITCH,
        "ks",
        "Keeps the TradingBots of its namespace that it selects in safe mode.",
        _SWITCH_COLUMNS,
        KillSwitchSpec,
        KillSwitchStatus,
    ),
    Kind(
        names.CLUSTER_KILL_SWITCH,
        "cks",
        "Keeps the TradingBots of all namespaces that it selects in safe mode.",
        _SWITCH_COLUMNS,
        KillSwitchSpec,
        KillSwitchStatus,
    ),
)


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A structural OpenAPI v3 schema as Kubernetes wants it: no references, no unions with null, no titles."""
    if "$ref" in schema:
        target = definitions[schema["$ref"].rsplit("/", 1)[1]]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    if "anyOf" in schema:
        choices = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
        if len(choices) != 1:
            raise ValueError(f"a union of {len(choices)} types has no structural schema: {schema}")
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        return structural({**choices[0], **rest}, definitions)
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: structural(child, definitions) for name, child in value.items()}
        elif key == "items" or (key == "additionalProperties" and isinstance(value, dict)):
            out[key] = structural(value, definitions)
        elif key.startswith("x-kubernetes-") or (
            key in KEPT and value is not None and not (key == "additionalProperties" and isinstance(value, bool))
        ):
            out[key] = value
    # An empty map or list as default only makes the stored object larger.
    if out.get("default") in ({}, []) and not out.get("properties"):
        del out["default"]
    return out


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model, in its wire names."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return structural(schema, schema.get("$defs", {}))


def custom_resource_definition(kind: Kind) -> dict[str, Any]:
    """The CRD of a kind as a JSON object."""
    resource = kind.resource
    columns = [
        {
            "name": name,
            "type": type_,
            "jsonPath": path,
            "description": text,
            **({"priority": 1} if priority else {}),
        }
        for name, type_, path, priority, text in kind.columns
    ]
    name_schema = {
        "type": "string",
        "maxLength": kind.longest_name,
        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{names.GROUP}"},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [kind.short_name],
                "categories": ["trading"],
            },
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "description": kind.description,
                            "required": ["spec"],
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object", "properties": {"name": name_schema}},
                                "spec": schema_of(kind.spec),
                                "status": schema_of(kind.status),
                            },
                        }
                    },
                }
            ],
        },
    }


def render(kind: Kind) -> str:
    """The CRD of a kind as the YAML text that is checked in."""
    definition = custom_resource_definition(kind)
    return HEADER + yaml.safe_dump(definition, sort_keys=False, width=110, allow_unicode=True)


def _rules(schema: dict[str, Any], *, required: bool) -> str:
    """What a value must satisfy, in words."""
    words = ["required"] if required else []
    if "default" in schema and schema["default"] != {}:
        default = schema["default"]
        words.append(f"default `{default if default and isinstance(default, str) else json.dumps(default)}`")
    if "enum" in schema:
        words.append("one of " + ", ".join(f"`{value}`" for value in schema["enum"]))
    match schema:
        case {"minimum": least, "maximum": most}:
            words.append(f"{least} to {most}")
        case {"minimum": least}:
            words.append(f"at least {least}")
    words += [str(rule["message"]) for rule in schema.get("x-kubernetes-validations", ())]
    return "; ".join(words)


def _rows(schema: dict[str, Any], path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        kind = "int or string" if child.get("x-kubernetes-int-or-string") else child["type"]
        rules = _rules(child, required=name in schema.get("required", ()))
        yield f"| `{path}{name}` | {kind} | {child['description']} | {rules} |".replace("|  |", "| |")
        yield from _rows(child, f"{path}{name}.")
        for key, mark in (("items", "[]"), ("additionalProperties", "[*]")):
            yield from _rows(child.get(key, {}), f"{path}{name}{mark}.")


def render_reference() -> str:
    """The Markdown page of all fields."""
    lines = [REFERENCE_HEADER]
    for kind in KINDS:
        lines += [f"## {kind.resource.kind}", "", kind.description, ""]
        for title, model in (("spec", kind.spec), ("status", kind.status)):
            schema = schema_of(model)
            lines += [f"### {kind.resource.kind}: {title}", ""]
            rules = [f"- {rule['message']}" for rule in schema.get("x-kubernetes-validations", ())]
            lines += [*rules, ""] if rules else []
            lines += ["| Field | Type | Meaning | Rules |", "|---|---|---|---|", *_rows(schema, ""), ""]
    return "\n".join(lines)


def generated(file: Path) -> str:
    """What a file of that name holds; ValueError where no kind has its plural."""
    if file.suffix == ".md":
        return render_reference()
    for kind in KINDS:
        if kind.resource.plural == file.stem:
            return render(kind)
    raise ValueError(f"{file}: expected a file named {', '.join(f'{kind.resource.plural}.yaml' for kind in KINDS)}")


def main(arguments: list[str] | None = None) -> int:
    """Writes each FILE; with --check only compares and returns 1 where one differs."""
    parser = argparse.ArgumentParser(prog="python -m tradingbot_api.crd", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    options = parser.parse_args(arguments)
    stale = []
    for file in options.files:
        text = generated(file)
        if options.check:
            if not file.exists() or file.read_text() != text:
                stale.append(str(file))
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    if stale:
        sys.stderr.write(f"not what the models generate: {', '.join(stale)}; run `make generate`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
