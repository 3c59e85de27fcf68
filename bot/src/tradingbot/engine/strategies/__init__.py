"""The built-in strategies by name, and how one is made from a TradingBot's `strategy` block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from tradingbot.engine.strategies.base import Strategy
from tradingbot.engine.strategies.bollinger_reversion import BollingerReversion
from tradingbot.engine.strategies.confirmed_signal import ConfirmedSignal
from tradingbot.engine.strategies.donchian_breakout import DonchianBreakout
from tradingbot.engine.strategies.ema_cross import EmaCross
from tradingbot.engine.strategies.rsi_reversion import RsiReversion
from tradingbot_api.bot_http import FieldError

BUILT_IN: Final[Mapping[str, type[Strategy]]] = {
    kind.name: kind for kind in (BollingerReversion, ConfirmedSignal, DonchianBreakout, EmaCross, RsiReversion)
}

PARAMETERS_PATH: Final = "spec.strategy.parameters"


class UnknownStrategyError(Exception):
    """No strategy of that name is built in."""

    code = "UnknownStrategy"

    def __init__(self, name: str) -> None:
        self.field = "spec.strategy.name"
        super().__init__(f"{self.field}: expected one of {', '.join(sorted(BUILT_IN))}, got {name!r}")


class StrategyParametersError(Exception):
    """Parameters that the strategy's own model refuses; `fields` has one entry for each."""

    code = "StrategyParametersInvalid"

    def __init__(self, fields: list[FieldError]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{field.field}: {field.message}" for field in fields))


def field_errors(error: ValidationError, prefix: str) -> list[FieldError]:
    """One FieldError for each complaint of pydantic, with the path below `prefix` and what came."""
    result = []
    for item in error.errors(include_url=False):
        path = ".".join((prefix, *(str(part) for part in item["loc"]))) if prefix else ".".join(map(str, item["loc"]))
        message = item["msg"].removeprefix("Value error, ")
        got = item.get("input")
        if isinstance(got, str | int) and item["type"] != "missing" and "got " not in message:
            message = f"{message}, got {got!r}"
        result.append(FieldError(field=path, message=message))
    return result


def build_strategy(name: str, parameters: Mapping[str, int | str]) -> Strategy:
    """The strategy `name` with `parameters`; raises UnknownStrategyError or StrategyParametersError."""
    kind = BUILT_IN.get(name)
    if kind is None:
        raise UnknownStrategyError(name)
    try:
        return kind(kind.Parameters.model_validate(dict(parameters)))
    except ValidationError as error:
        raise StrategyParametersError(field_errors(error, PARAMETERS_PATH)) from error
