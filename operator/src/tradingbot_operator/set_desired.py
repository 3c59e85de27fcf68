"""Pure: from a TradingBotSet's spec to the TradingBots that it should have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tradingbot_api import names
from tradingbot_api.sets import SetReason, Template
from tradingbot_api.v1alpha1 import LONGEST_NAME, TradingBotSpec
from tradingbot_operator.inventory import BotKey, Manifest

STOPS: Final = ("safeMode", "suspend")
"""What stops a bot where it is true. False is never written: it would take back what people set on a TradingBot."""


@dataclass(frozen=True)
class Problem:
    """Why a TradingBot cannot be as its set wants it."""

    reason: str
    message: str


@dataclass(frozen=True)
class Wanted:
    """One TradingBot as its set wants it."""

    key: BotKey
    symbol: str
    spec: Mapping[str, Any]
    """Of the fields that the set names, without `STOPS`."""
    stops: frozenset[str]
    metadata: Mapping[str, Mapping[str, str]]
    digest: str
    """Of `spec` and `metadata`."""
    typed: TradingBotSpec = field(repr=False)


@dataclass(frozen=True)
class Owner:
    """The set that a TradingBot belongs to."""

    namespace: str
    name: str
    uid: str
    shard: str = ""
    """That its TradingBots are of, as the set itself: limits over them are one operator's to keep."""


def bot_name(set_name: str, symbol: str) -> str:
    """Of the set's TradingBot for a symbol."""
    return f"{set_name}-{symbol.lower()}"


def merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396); neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def wanted(owner: Owner, template: Template, symbol: str, overrides: Mapping[str, Any]) -> Wanted | Problem:
    """The TradingBot of one item of spec.bots, or what is wrong with it."""
    name = bot_name(owner.name, symbol)
    if len(name) > LONGEST_NAME:
        return Problem(
            SetReason.NAME_TOO_LONG,
            f"bots[{symbol}]: the TradingBot's name {name} has {len(name)} characters, at most {LONGEST_NAME} are "
            "allowed; give the set a shorter name.",
        )
    if "symbol" in overrides:
        return Problem(
            SetReason.INVALID_OVERRIDES,
            f"bots[{symbol}].overrides.symbol: a bot's symbol is that of its item; remove it.",
        )
    whole = merged(template.spec, overrides)
    try:
        typed = TradingBotSpec.model_validate({**whole, "symbol": symbol})
    except ValidationError as error:
        return _problem(error, symbol, template, overrides)
    spec = {"symbol": symbol, **{key: value for key, value in whole.items() if key not in STOPS}}
    labels = template.metadata.labels if template.metadata else {}
    metadata = {
        # Not the shard's: that goes to all bots at once, not to a few at a time.
        "labels": {
            **{key: value for key, value in labels.items() if key != names.SHARD_LABEL},
            names.SET_LABEL: owner.name,
        },
        "annotations": dict(template.metadata.annotations) if template.metadata else {},
    }
    return Wanted(
        BotKey(owner.namespace, name), symbol, spec, _stops_in(whole), metadata, digest(spec, metadata), typed,
    )  # fmt: skip


def _stops_in(spec: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(stop for stop in STOPS if spec.get(stop) is True)


def stops(set_name: str, spec: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """What a set's spec stops its TradingBots by, by name, whether or not the rest of it can be read."""
    template = (spec.get("template") or {}).get("spec") or {}
    return {
        bot_name(set_name, bot["symbol"]): _stops_in({**template, **(bot.get("overrides") or {})})
        for bot in spec.get("bots", ())
    }


def _problem(error: ValidationError, symbol: str, template: Template, overrides: Mapping[str, Any]) -> Problem:
    lines = []
    alone = {_field(item) for item in _errors_of({**template.spec, "symbol": symbol})}
    overridden = False
    for item in error.errors():
        name = _field(item)
        # A field of the template, unless the overrides name it or break what holds without them.
        of_template = not _names(overrides, name) and (name in alone or not overrides)
        overridden = overridden or not of_template
        where = f"template.spec.{name}" if of_template else f"bots[{symbol}].overrides.{name}"
        lines.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    return Problem(
        SetReason.INVALID_OVERRIDES if overridden else SetReason.INVALID_TEMPLATE, f"{'; '.join(lines)}. Correct it."
    )


def _errors_of(spec: Mapping[str, Any]) -> list[ErrorDetails]:
    try:
        TradingBotSpec.model_validate(spec)
    except ValidationError as error:
        return error.errors()
    return []


def _field(item: ErrorDetails) -> str:
    """The path of the field: a rule over several fields names the one at fault at the start of its message."""
    parts = [str(part) for part in item["loc"]]
    if item["type"] == "value_error":
        first = item["msg"].removeprefix("Value error, ").split(" ")[0]
        if first[:1].islower() and first not in {"must", "expected"}:
            parts.append(first)
    return ".".join(parts)


def _names(overrides: Mapping[str, Any], path: str) -> bool:
    node: Any = overrides
    for part in path.split("."):
        if not isinstance(node, Mapping):
            return True
        if part not in node:
            return False
        node = node[part]
    return True


def digest(spec: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """The same for the same wish, whatever the order of its fields."""
    text = json.dumps([spec, metadata], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def contains(there: Any, wanted_value: Any) -> bool:
    """Whether all that is wanted is there; what is there besides is others'."""
    if isinstance(wanted_value, Mapping):
        return isinstance(there, Mapping) and all(
            key in there and contains(there[key], value) for key, value in wanted_value.items()
        )
    return bool(there == wanted_value)


# --- what is applied ---


def manifest(owner: Owner, bot: Wanted) -> Manifest:
    """All fields of a TradingBot that its set owns, but for what `stopping` applies."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "namespace": bot.key.namespace,
            "name": bot.key.name,
            "labels": {**bot.metadata["labels"], **({names.SHARD_LABEL: owner.shard} if owner.shard else {})},
            "annotations": {**bot.metadata["annotations"], names.SET_TEMPLATE_ANNOTATION: bot.digest},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.TRADING_BOT_SET.kind,
                    "name": owner.name,
                    "uid": owner.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": dict(bot.spec),
    }


def stopping(key: BotKey, stops: Iterable[str]) -> Manifest:
    """What stops a TradingBot, applied by a field manager of its own: it goes to all bots at once, while the rest of a
    changed template goes to a few at a time."""
    held = sorted(stops)
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            **({"annotations": {names.SET_STOPS_ANNOTATION: ",".join(held)}} if held else {}),
        },
        "spec": dict.fromkeys(held, True),
    }


def stops_wanted(spec: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    """Which stops a set's spec names for which symbol (empty: the template), whether or not the rest can be read."""

    def named(of: Any, symbol: str) -> Iterator[tuple[str, str]]:
        if isinstance(of, Mapping):
            yield from ((symbol, stop) for stop in STOPS if of.get(stop) is True)

    found = set(named((spec.get("template") or {}).get("spec"), ""))
    for bot in spec.get("bots", ()):
        found.update(named(bot.get("overrides"), bot["symbol"]))
    return frozenset(found)
