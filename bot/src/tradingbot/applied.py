"""Which configuration is committed and which is in force: limits are tightened at once, loosened only in safe mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from pydantic import ValidationError

from tradingbot.config import classify_change
from tradingbot.engine.strategies import StrategyParametersError, UnknownStrategyError, build_strategy
from tradingbot.monitoring.health import Problem
from tradingbot_api.bot_http import BotConfig, FieldError
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings


class ConfigRefusedError(Exception):
    """A configuration that cannot be taken; `stale` where it is not newer, else `fields` says what is wrong."""

    def __init__(self, reason: Reason, message: str, fields: list[FieldError], *, stale: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.fields = fields
        self.stale = stale


@dataclass(frozen=True, slots=True)
class Applied:
    """The committed configuration and what of it is in force."""

    committed: BotConfig
    in_force: BotSettings
    loosened: tuple[str, ...] = ()
    """Limits that wait for safe mode, as the user writes them."""
    stand_in: bool = False
    """No configuration could be read yet: it says neither where to trade nor what to compare another one with."""

    @classmethod
    def fresh(cls, config: BotConfig) -> Self:
        """A first configuration: all of it is in force."""
        return cls(config, config.settings)

    def to_json(self) -> dict[str, Any]:
        """For the store; an older version can read it where no new field is used."""
        return {
            "committed": self.committed.sparse(),
            "inForce": self.in_force.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True),
            "loosened": list(self.loosened),
        }

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """The inverse of to_json; None where a former version wrote something else."""
        try:
            return cls(
                BotConfig.model_validate(data["committed"]),
                BotSettings.model_validate(data["inForce"]),
                tuple(data["loosened"]),
            )
        except (KeyError, TypeError, ValidationError):
            return None


def check_strategy(settings: BotSettings) -> None:
    """Raise ConfigRefusedError where the strategy is not known or refuses its parameters."""
    try:
        build_strategy(settings.strategy.name, settings.strategy.parameters)
    except UnknownStrategyError as error:
        fields = [FieldError(field=error.field, message=str(error))]
        raise ConfigRefusedError(Reason.UNKNOWN_STRATEGY, str(error), fields) from error
    except StrategyParametersError as error:
        raise ConfigRefusedError(Reason.STRATEGY_PARAMETERS_INVALID, str(error), error.fields) from error


def check_known(unknown: Sequence[FieldError]) -> None:
    """Raise ConfigRefusedError where the user has set a field that this version does not know: it would not act."""
    if unknown:
        text = "; ".join(f"{item.field}: {item.message}" for item in unknown)
        raise ConfigRefusedError(Reason.CONFIG_INVALID, text, list(unknown))


def advance(present: Applied, new: BotConfig, *, in_safe_mode: bool, unknown: Sequence[FieldError] = ()) -> Applied:
    """What is committed and in force after `new`; pure. ConfigRefusedError where it cannot be taken.

    `in_safe_mode` says that a human has engaged safe mode: only then are limits loosened. `unknown` are fields that
    were left out of `new`, since this version does not know them.
    """
    old = present.committed
    # Who told it is no part of the content.
    new = new.model_copy(update={"epoch": max(old.epoch, new.epoch)})
    if new.revision < old.revision or (
        new.revision == old.revision and new != old.model_copy(update={"epoch": new.epoch})
    ):
        text = f"revision: expected more than {old.revision}, got {new.revision}"
        raise ConfigRefusedError(Reason.CONFIG_INVALID, text, [], stale=True)
    check_known(unknown)
    if present.stand_in:
        check_strategy(new.settings)
        return Applied.fresh(new)
    change = classify_change(present.in_force, new.settings)
    if change.immutable:
        fields = [FieldError(field=path, message="is immutable: delete the bot instead") for path in change.immutable]
        text = "; ".join(f"{item.field}: {item.message}" for item in fields)
        raise ConfigRefusedError(Reason.CONFIG_INVALID, text, fields)
    check_strategy(new.settings)
    if in_safe_mode or new.settings.safe_mode or not change.loosened:
        return Applied(new, new.settings)
    return Applied(new, change.tightened_only, change.loosened)


@dataclass(frozen=True, slots=True)
class StartConfig:
    """What a process starts with; `usable` is false where no strategy can be made of it."""

    applied: Applied
    usable: bool
    problem: Problem | None
    revision: int
    """The revision that is applied; 0 where none is."""


def choose_at_start(
    file: BotConfig, stored: Applied | None, unknown: Sequence[FieldError] = (), *, stand_in: bool = False
) -> StartConfig:
    """The higher revision of file and store counts; a file that cannot be taken leaves the store's in force.

    `unknown` are fields that were left out of `file`; with `stand_in` they are why none of its settings could be read.
    """
    if stored is None or stored.committed.bot.uid != file.bot.uid:
        applied = replace(Applied.fresh(file), stand_in=stand_in)
        try:
            check_known(unknown)
            check_strategy(file.settings)
        except ConfigRefusedError as error:
            return StartConfig(applied, False, Problem(error.reason, str(error)), 0)
        return StartConfig(applied, True, None, file.revision)
    try:
        applied = advance(stored, file, in_safe_mode=bool(stored.in_force.safe_mode), unknown=unknown)
    except ConfigRefusedError as error:
        problem = None if error.stale else Problem(error.reason, str(error))
        return StartConfig(stored, True, problem, stored.committed.revision)
    return StartConfig(applied, True, None, file.revision)
