"""The TradingBotSet resource, version v1alpha1: the models from which its CRD is generated."""

from __future__ import annotations

import types
from copy import copy
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import Field, GetJsonSchemaHandler, StrictInt, WithJsonSchema, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from tradingbot_api.base import Amount, Model, SignedDecimal, WireModel
from tradingbot_api.v1alpha1 import Condition, Free, Symbol, TradingBotSpec

MOST_BOTS: Final = 1000
MOST_LISTED: Final = 50
"""Longest list of bots in a status; the counts beside it are of all."""
UNAVAILABLE_PATTERN: Final = r"^([1-9][0-9]{0,3}|([1-9][0-9]?|100)%)$"


class SetCondition(StrEnum):
    """Types of `status.conditions`."""

    ACCEPTED = "Accepted"
    """Every bot of the spec can be made as it is wanted."""
    READY = "Ready"
    """That, and every bot is Ready."""
    UP_TO_DATE = "UpToDate"
    """Every bot has the present template and runs with it."""
    PROGRESSING = "Progressing"
    """Something is being made, changed or drained."""
    STALLED = "Stalled"
    """The rollout has stopped."""
    FLEET_LIMITS_HELD = "FleetLimitsHeld"
    """All bots together are within spec.limits; only with limits."""


class SetReason(StrEnum):
    """Reasons of conditions and problems, beside those of a TradingBot that mean the same."""

    OK = "OK"
    INVALID_TEMPLATE = "InvalidTemplate"
    INVALID_OVERRIDES = "InvalidOverrides"
    NAME_TOO_LONG = "NameTooLong"
    FOREIGN_OBJECT = "ForeignObject"
    REFUSED = "Refused"
    RIGHTS_MISSING = "RightsMissing"
    BOTS_NOT_READY = "BotsNotReady"
    MISSING = "Missing"
    ROLLING_OUT = "RollingOut"
    AWAITING_FLAT = "AwaitingFlat"
    POD_OUTDATED = "PodOutdated"
    DRAINING = "Draining"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    LIMIT_REACHED = "LimitReached"
    LIMIT_EXCEEDED = "LimitExceeded"
    QUOTE_ASSETS_DIFFER = "QuoteAssetsDiffer"
    BOTS_UNHEARD = "BotsUnheard"


Unavailable = Annotated[
    int | str, WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": UNAVAILABLE_PATTERN, "minimum": 1})
]


def partial(model: type[Model], *without: str) -> type[Model]:
    """A model with the fields of another, but those `without`, none required, without defaults and without rules over
    several fields: of a part of a manifest, which is judged once it is whole."""
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        if name in without:
            continue
        field = copy(info)
        inner = _partial_type(info.annotation)
        field.annotation = Union[Annotated[inner, *info.metadata] if info.metadata else inner, None]  # type: ignore[assignment] # noqa: UP007
        field.metadata = []
        field.default, field.default_factory = None, None
        extra = {key: value for key, value in (info.json_schema_extra or {}).items() if key != "default"}  # type: ignore[union-attr]
        field.json_schema_extra = extra or None
        fields[name] = (field.annotation, field)
    return create_model(f"Partial{model.__name__}", __base__=Model, **fields)


def _partial_type(annotation: Any) -> Any:
    if get_origin(annotation) in {Union, types.UnionType}:
        members = [_partial_type(item) for item in get_args(annotation)]
        return Union[*members]
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return partial(annotation)
    return annotation


PARTIAL_SPEC: Final = partial(TradingBotSpec, "symbol")


class _PartialSpecSchema:
    """Gives a dictionary the schema of `PARTIAL_SPEC`: what was written is kept as it was written."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(PARTIAL_SPEC.__pydantic_core_schema__)


class TemplateMetadata(Model):
    """Labels and annotations of the set's TradingBots."""

    labels: dict[str, str] = Field(default_factory=dict, max_length=32, description="Labels of each TradingBot.")
    annotations: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="Annotations of each TradingBot."
    )


class Template(Model):
    """What the set's TradingBots have in common."""

    metadata: TemplateMetadata | None = Field(default=None, description="Labels and annotations of each TradingBot.")
    spec: Annotated[dict[str, Any], _PartialSpecSchema()] = Field(
        description="The spec of each TradingBot but for its symbol. What is required of a TradingBot may also come "
        "from overrides. Fields that are named nowhere are left to people: a patch of such a field stands."
    )


class BotOfSet(Model):
    """One TradingBot of the set."""

    symbol: Symbol = Field(
        description="Trading pair in Binance's spelling. The TradingBot is named SET-symbol, in lower case."
    )
    overrides: Free | None = Field(
        default=None,
        description="What differs from template.spec: any of its fields, merged into it as a JSON merge patch "
        "(RFC 7396): objects field by field, lists and values whole, null takes a field of the template away.",
    )


class SetUpdateStrategy(Model):
    """How a change of the template comes to the bots."""

    max_unavailable: Unavailable = Field(
        default=1,
        description="So many bots, or so many percent of all, rounded down and at least 1, may be in the middle of a "
        "change at once.",
    )
    progress_deadline_seconds: StrictInt = Field(
        default=600,
        ge=10,
        le=86400,
        description="A changed bot that is not Ready after this long stops the rollout: no further bot is changed "
        "until it is Ready or the set is.",
    )


class SetLimits(Model):
    """Limits over all bots of the set together, though they act at the same moment."""

    max_position_value: Amount | None = Field(
        default=None,
        description="Largest value of all positions, at cost and with what entries under way may cost, in the quote "
        "asset, which must be the same for all bots.",
    )
    max_daily_loss: Amount | None = Field(
        default=None,
        description="Loss of all bots since 00:00 UTC, in the quote asset, at which entries stop until the next day.",
    )
    max_bots_in_position: StrictInt | None = Field(
        default=None, ge=1, le=MOST_BOTS, description="At most so many bots hold a position at once."
    )


class TradingBotSetSpec(Model):
    """What the user wants."""

    bots: list[BotOfSet] = Field(
        max_length=MOST_BOTS,
        description="The TradingBots, one a symbol. The TradingBot of a symbol that is taken out is deleted, which "
        "drains it as its deletionPolicy says.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["symbol"]},
    )
    template: Template = Field(description="What the TradingBots have in common.")
    update_strategy: SetUpdateStrategy = Field(
        default_factory=SetUpdateStrategy,
        json_schema_extra={"default": {}},
        description="How a change of the template or of overrides comes to bots that run.",
    )
    limits: SetLimits | None = Field(
        default=None,
        description="Limits over all bots of the set: no bot enters without room in them, which the operator reserves.",
    )


# --- status ---


class SetPnL(WireModel):
    """Sums of pnl over the bots whose figures are known."""

    realized: SignedDecimal = Field(description="Of closed quantity, after fees.")
    unrealized: SignedDecimal = Field(description="Of open positions at the best bid.")
    total: SignedDecimal = Field(description="realized + unrealized.")


class QuoteTotals(WireModel):
    """Sums over the bots that trade against one asset."""

    asset: str = Field(description="The quote asset.")
    known: str = Field(
        description="Of how many bots the sums are, such as 48 of 50: of the others the figures are not known now."
    )
    pnl: SetPnL = Field(description="Profit and loss.")
    exposure: SignedDecimal = Field(description="Value of the positions at the best bid.")


class WorstDrawdown(WireModel):
    """The bot that has fallen furthest from its peak equity."""

    bot: str = Field(description="Name of the TradingBot.")
    ratio: SignedDecimal = Field(description="Its present fall from its peak equity, a ratio.")


class BotInProgress(WireModel):
    """A bot that has the present template and is not yet Ready and up to date with it."""

    bot: str = Field(description="Name of the TradingBot.")
    since_time: datetime = Field(description="Since when.")


class BotProblem(WireModel):
    """Why a bot of the spec is not as the spec wants it."""

    symbol: str = Field(description="Its symbol.")
    reason: str = Field(description="CamelCase reason.")
    message: str = Field(description="The field, what was expected, and what to do.")


class SetLimitsStatus(WireModel):
    """What counts against spec.limits, in the quote asset; no amounts while the bots trade against different ones."""

    position_value: SignedDecimal | None = Field(
        default=None, description="What the positions cost, and what entries under way may cost, as the bots last told."
    )
    reserved: SignedDecimal | None = Field(
        default=None,
        description="What counts beside it: reservations, and the most that bots may have which have not told.",
    )
    bots_in_position: int = Field(default=0, description="Bots that hold a position or are entering one.")
    daily_pnl: SignedDecimal | None = Field(
        default=None,
        alias="dailyPnL",
        description="Change of the equity of all bots since 00:00 UTC, as they last told.",
    )
    unheard: int = Field(default=0, description="Bots that have not told this operator what they have.")
    daily_loss_reached: str | None = Field(
        default=None, description="The last day, in UTC, on which maxDailyLoss was reached."
    )


class TradingBotSetStatus(WireModel):
    """What is; counts and sums are of the TradingBots that the spec names."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec this status speaks of.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="The truth about this set: Accepted, Ready, UpToDate, Progressing, Stalled, FleetLimitsHeld.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    bots: int = Field(default=0, description="TradingBots that the spec names.")
    ready: int = Field(default=0, description="Of these, Ready.")
    updated: int = Field(default=0, description="Of these, at the present template, and running with it.")
    in_safe_mode: int = Field(default=0, description="Of these, known to be in safe mode.")
    in_position: int = Field(default=0, description="Of these, known to hold a position.")
    known: str | None = Field(
        default=None, description="Of how many bots position and figures are known now, such as 48 of 50."
    )
    phases: dict[str, int] = Field(default_factory=dict, description="How many are in each phase.")
    totals: list[QuoteTotals] = Field(
        default_factory=list,
        description="Profit and loss and exposure for each quote asset.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["asset"]},
    )
    worst_drawdown: WorstDrawdown | None = Field(
        default=None, description="The bot, of those that are known, that has fallen furthest from its peak equity."
    )
    limits: SetLimitsStatus | None = Field(default=None, description="What counts against spec.limits.")
    in_progress: list[BotInProgress] = Field(
        default_factory=list, description="The first 50 bots that are in the middle of a change."
    )
    draining: list[str] = Field(
        default_factory=list,
        description="The first 50 TradingBots of this set that are being deleted and have not finished.",
    )
    problems: list[BotProblem] = Field(
        default_factory=list, description="The first 50 bots that are not as the spec wants them, and why."
    )
