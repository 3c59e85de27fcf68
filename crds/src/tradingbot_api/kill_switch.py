"""KillSwitch and ClusterKillSwitch, version v1alpha1: safe mode of many bots at once."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AwareDatetime, ConfigDict, Field, StrictBool, StringConstraints

from tradingbot_api import names
from tradingbot_api.base import Model, WireModel
from tradingbot_api.selector import LabelSelector
from tradingbot_api.v1alpha1 import Condition, PositionPolicy

CAUSE_PREFIXES: Final = {names.KILL_SWITCH: "kill-switch/", names.CLUSTER_KILL_SWITCH: "cluster-kill-switch/"}
"""The id of the cause that one imposes on a bot is this and its name; the cause's source is its kind."""
PENDING_SHOWN: Final = 50
"""So many bots are named that have not acknowledged; the count says how many there are."""


class SwitchCondition(StrEnum):
    """Types of `status.conditions`."""

    ACTIVE = "Active"
    """It is in force, or some bot has it still."""
    ACKNOWLEDGED = "Acknowledged"
    """Every bot that it selects has acknowledged."""


class SwitchPhase(StrEnum):
    """The display column PHASE, derived from the conditions."""

    ENGAGING = "Engaging"
    ENGAGED = "Engaged"
    NO_BOTS = "NoBots"
    """In force, and it selects none."""
    RELEASING = "Releasing"
    RELEASED = "Released"
    EXPIRED = "Expired"


class KillSwitchSpec(Model):
    """Which bots may not enter, and why."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(oldSelf.release) || !oldSelf.release || (has(self.release) && self.release)",
                    "fieldPath": ".release",
                    "message": "what was released stays released: make another kill switch",
                },
                {
                    # Who may make one, and not release it, would end what bots have of one of that name.
                    "rule": "oldSelf.hasValue() || !has(self.release) || !self.release",
                    "optionalOldSelf": True,
                    "fieldPath": ".release",
                    "message": "a kill switch cannot be made released: leave it out, and set it later",
                },
            ]
        }
    )

    selector: LabelSelector = Field(
        default_factory=LabelSelector,
        description="Selects TradingBots by their labels, also those that are made or labelled later; empty: all. "
        "Immutable. A bot that was selected stays so, whatever its labels become.",
        json_schema_extra={
            "default": {},
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "message": "selector is immutable: make another kill switch"}
            ],
        },
    )
    policy: PositionPolicy = Field(
        default=PositionPolicy.HOLD,
        description="No entry is sent and resting entries are cancelled either way; Hold keeps an open position, "
        "protected, ClosePosition sells it.",
    )
    reason: Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"\S")] = Field(
        description="Why, for whoever looks at the bots."
    )
    expiry_time: AwareDatetime | None = Field(
        default=None, description="When it ends by itself, for example 2026-01-31T18:00:00Z; absent: it does not."
    )
    release: StrictBool | None = Field(
        default=None,
        description="true: the bots are released, for good. Deleting a kill switch that was not released does not "
        "release them: it stays, and in force, until this is set.",
    )


# --- status: no enums in the schema, as in TradingBots ---


class PendingBot(WireModel):
    """A bot that has not acknowledged."""

    namespace: str = Field(description="Its namespace.")
    name: str = Field(description="Its name.")
    reason: str = Field(description="CamelCase reason.")
    message: str = Field(default="", description="What is known, and what to do.")


class KillSwitchStatus(WireModel):
    """How far it is."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec this status speaks of.")
    phase: str | None = Field(default=None, description="Engaging, Engaged, NoBots, Releasing, Released or Expired.")
    bots: int = Field(default=0, description="TradingBots that it is in force for.")
    engaged: int = Field(default=0, description="Of these, how many send no entry.")
    acknowledged: int = Field(
        default=0, description="Of these, how many have no entry working, in flight or unknown on the exchange."
    )
    unacknowledged: int = Field(default=0, description="bots - acknowledged.")
    holding: int = Field(default=0, description="Of these, how many have a position, as far as it is known.")
    pending: list[PendingBot] = Field(
        default_factory=list, description=f"The first {PENDING_SHOWN} that have not acknowledged, and why."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        description="Active: it is in force, or some bot has it still. Acknowledged: every bot has acknowledged.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
