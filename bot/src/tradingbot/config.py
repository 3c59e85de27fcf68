"""The bot's configuration: where it is read from, and what of a change may be put in force."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import Field, ValidationError

from tradingbot.engine.strategies import field_errors
from tradingbot_api import names
from tradingbot_api.base import WireModel
from tradingbot_api.bot_http import BotConfig, BotIdentity, FieldError, ImposedCause
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy, Symbol, TradingBotSpec


class ConfigError(Exception):
    """A configuration that cannot be used; `fields` names what is wrong."""

    code = "ConfigInvalid"

    def __init__(self, source: str, fields: list[FieldError]) -> None:
        self.fields = fields
        super().__init__(f"{source}: " + "; ".join(f"{item.field}: {item.message}" for item in fields))

    @classmethod
    def single(cls, source: str, field: str, message: str) -> ConfigError:
        """An error of one field."""
        return cls(source, [FieldError(field=field, message=message)])


@dataclass(frozen=True, slots=True)
class Received:
    """A configuration of the operator, without the fields that this version does not know."""

    config: BotConfig
    unknown: tuple[FieldError, ...] = ()
    stand_in: bool = False
    """Not even that could be read: the settings are none of the user's, and `unknown` says why."""


@dataclass(frozen=True, slots=True)
class SafeModeWish:
    """What a configuration asks for of safe mode."""

    revision: int
    spec: bool = False
    """By spec.safeMode."""
    closes: bool = False
    """spec.safeMode sells the position."""
    imposed: tuple[ImposedCause, ...] = ()

    @classmethod
    def of(cls, config: BotConfig) -> SafeModeWish:
        """Of a configuration that could be read."""
        settings = config.settings
        closes = settings.safe_mode_policy is PositionPolicy.CLOSE_POSITION
        return cls(config.revision, bool(settings.safe_mode), bool(settings.safe_mode) and closes, (*config.imposed,))

    def __bool__(self) -> bool:
        """Whether it asks for any."""
        return self.spec or bool(self.imposed)


class _RawSafeMode(WireModel):
    safe_mode: bool | None = None
    safe_mode_policy: Any = None


class _RawConfig(WireModel):
    revision: int
    bot: BotIdentity
    settings: _RawSafeMode
    imposed: list[ImposedCause] = Field(default_factory=list)
    settings_safe_mode: bool | None = None


class _NamedSettings(WireModel):
    symbol: Symbol


class _Named(WireModel):
    revision: int = Field(ge=1)
    bot: BotIdentity
    settings: _NamedSettings


def safe_mode_wish(text: str | bytes, bot_uid: str) -> SafeModeWish | None:
    """What a configuration for that bot asks for of safe mode, however wrong the rest is; None: of nothing."""
    try:
        raw = _RawConfig.model_validate_json(text)
    except ValidationError:
        return None
    # Where the operator set it for the sake of older versions it is not the spec's.
    spec = bool(raw.settings.safe_mode) and "settings_safe_mode" not in raw.model_fields_set
    closes = spec and raw.settings.safe_mode_policy == PositionPolicy.CLOSE_POSITION
    wish = SafeModeWish(raw.revision, spec, closes, (*raw.imposed,))
    return wish if wish and raw.bot.uid == bot_uid else None


_NOBODYS: Final[Mapping[str, object]] = {
    "exchange": {"environment": "Paper", "baseURL": "http://nowhere.invalid", "credentialsSecretRef": {"name": "none"}},
    "strategy": {"name": "none", "interval": "1m"},
    "capital": "1",
    "protection": {"stopLossRatio": "0.01", "takeProfitRatio": "0.01"},
    "risk": {"maxPositionValue": "1", "maxDailyLoss": "1"},
}
"""Settings of a stand-in: with them nothing is connected, and nothing traded."""


def load_pod_config(path: Path) -> Received:
    """The configuration that the operator mounted, or a stand-in; ConfigError where it does not say whose it is."""
    text = _read(path)
    try:
        return parse_pod_config(text, str(path))
    except ConfigError as error:
        return _stand_in(text, error)


def _stand_in(text: str, error: ConfigError) -> Received:
    """For a file with a value that this version cannot read: a newer operator's, or edited by hand."""
    try:
        named = _Named.model_validate_json(text)
    except ValidationError:
        raise error from None
    wish = safe_mode_wish(text, named.bot.uid) or SafeModeWish(named.revision)
    policy = PositionPolicy.CLOSE_POSITION if wish.closes else None
    settings = BotSettings.model_validate(
        {**_NOBODYS, "symbol": named.settings.symbol, "safeMode": wish.spec or None, "safeModePolicy": policy}
    )
    config = BotConfig(revision=named.revision, bot=named.bot, settings=settings, imposed=[*wish.imposed])
    return Received(config, tuple(error.fields), True)


def parse_pod_config(text: str | bytes, source: str) -> Received:
    """A BotConfig from JSON, of any version of the operator; raises ConfigError."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(source, [FieldError(field="(file)", message=f"expected JSON: {error}")]) from error
    try:
        return Received(BotConfig.model_validate(data))
    except ValidationError as error:
        unknown = [item["loc"] for item in error.errors(include_url=False) if item["type"] == "extra_forbidden"]
        if not unknown:
            raise ConfigError(source, _as_written(error)) from error
    for *parents, name in unknown:
        holder = data
        for part in parents:
            holder = holder[part]
        del holder[name]
    try:
        config = BotConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, _as_written(error)) from error
    told = [
        FieldError(
            field=".".join(("spec", *map(str, path[1:]))),
            message="this bot's version does not know it; update spec.pod.image",
        )
        for path in unknown
    ]
    return Received(config, tuple(told))


def _as_written(error: ValidationError) -> list[FieldError]:
    """Complaints with the paths of the manifest, where the settings are the spec."""
    return [
        item.model_copy(update={"field": f"spec.{item.field.removeprefix('settings.')}"})
        if item.field.startswith("settings.")
        else item
        for item in field_errors(error, "")
    ]


def load_manifest(path: Path) -> BotConfig:
    """The configuration of a process without an operator, from a TradingBot manifest; raises ConfigError.

    Its uid is made of namespace and name, so that the same manifest is the same bot after a restart.
    """
    source = str(path)
    try:
        data = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise ConfigError(source, [FieldError(field="(file)", message=f"expected YAML: {error}")]) from error
    if not isinstance(data, dict):
        raise ConfigError(source, [FieldError(field="(file)", message="expected one TradingBot manifest")])
    wrong = [
        FieldError(field=key, message=f"expected {expected}, got {data.get(key)!r}")
        for key, expected in (("apiVersion", names.API_VERSION), ("kind", names.KIND))
        if data.get(key) != expected
    ]
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not name:
        wrong.append(FieldError(field="metadata.name", message="expected a name"))
    if wrong:
        raise ConfigError(source, wrong)
    try:
        spec = TradingBotSpec.model_validate(data.get("spec") or {})
    except ValidationError as error:
        raise ConfigError(source, field_errors(error, "spec")) from error
    namespace = metadata.get("namespace") or "default" if isinstance(metadata, dict) else "default"
    identity = BotIdentity(namespace=namespace, name=str(name), uid=f"local-{namespace}-{name}")
    return BotConfig(revision=1, bot=identity, settings=settings_of(spec))


def settings_of(spec: TradingBotSpec) -> BotSettings:
    """The part of a spec that the bot acts on."""
    return BotSettings.model_validate({field: getattr(spec, field) for field in BotSettings.model_fields})


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [FieldError(field="(file)", message=f"cannot be read: {error}")]) from error


@dataclass(frozen=True, slots=True)
class _Limit:
    field: str
    path: str
    looser_is_more: bool


_LIMITS: Final = (
    _Limit("capital", "spec.capital", True),
    _Limit("entry.max_slippage_ratio", "spec.entry.maxSlippageRatio", True),
    _Limit("entry.max_spread_ratio", "spec.entry.maxSpreadRatio", True),
    _Limit("entry.max_data_age_seconds", "spec.entry.maxDataAgeSeconds", True),
    _Limit("entry.max_per_minute", "spec.entry.maxPerMinute", True),
    _Limit("entry.max_age_seconds", "spec.entry.maxAgeSeconds", True),
    _Limit("protection.stop_loss_ratio", "spec.protection.stopLossRatio", True),
    _Limit("protection.deadline_seconds", "spec.protection.deadlineSeconds", True),
    _Limit("risk.risk_per_trade_ratio", "spec.risk.riskPerTradeRatio", True),
    _Limit("risk.max_position_value", "spec.risk.maxPositionValue", True),
    _Limit("risk.max_daily_loss", "spec.risk.maxDailyLoss", True),
    _Limit("risk.max_drawdown_ratio", "spec.risk.maxDrawdownRatio", True),
    _Limit("risk.volatility.high_threshold", "spec.risk.volatility.highThreshold", True),
    _Limit("risk.cooldown_seconds", "spec.risk.cooldownSeconds", False),
    _Limit("circuit_breaker.failure_threshold", "spec.circuitBreaker.failureThreshold", True),
    _Limit("circuit_breaker.recovery_timeout_seconds", "spec.circuitBreaker.recoveryTimeoutSeconds", False),
)


def _get(settings: BotSettings, limit: _Limit) -> Any:
    return attrgetter(limit.field)(settings)


@dataclass(frozen=True, slots=True)
class Change:
    """What a new configuration does to the one in force; paths as the user writes them."""

    immutable: tuple[str, ...]
    """Fields that may never change: the whole configuration is refused."""
    loosened: tuple[str, ...]
    tightened: tuple[str, ...]
    tightened_only: BotSettings
    """The new settings with every loosened limit at its old value."""


def classify_change(old: BotSettings, new: BotSettings) -> Change:
    """Compare two configurations limit by limit; pure."""
    immutable = []
    if new.symbol != old.symbol:
        immutable.append("spec.symbol")
    if new.exchange.environment != old.exchange.environment:
        immutable.append("spec.exchange.environment")
    loosened: list[_Limit] = []
    tightened: list[str] = []
    for limit in _LIMITS:
        before, after = _get(old, limit), _get(new, limit)
        if before == after:
            continue
        if (after > before) == limit.looser_is_more:
            loosened.append(limit)
        else:
            tightened.append(limit.path)
    return Change(
        immutable=tuple(immutable),
        loosened=tuple(limit.path for limit in loosened),
        tightened=tuple(tightened),
        tightened_only=_with_old_limits(old, new, loosened),
    )


def _with_old_limits(old: BotSettings, new: BotSettings, kept: list[_Limit]) -> BotSettings:
    result = new
    for limit in kept:
        result = _with_field(result, limit.field.split("."), _get(old, limit))
    return result


def _with_field(model: Any, path: list[str], value: object) -> Any:
    name, *rest = path
    return model.model_copy(update={name: _with_field(getattr(model, name), rest, value) if rest else value})
