"""The strategies by name, and how one is made from a TradingBot's `strategy` block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, SupportsIndex

from pydantic import ValidationError

from tradingbot.engine.strategies.base import Strategy
from tradingbot.engine.strategies.bollinger_reversion import BollingerReversion
from tradingbot.engine.strategies.catalogue import Catalogue
from tradingbot.engine.strategies.confirmed_signal import ConfirmedSignal
from tradingbot.engine.strategies.donchian_breakout import DonchianBreakout
from tradingbot.engine.strategies.ema_cross import EmaCross
from tradingbot.engine.strategies.rsi_reversion import RsiReversion
from tradingbot_api.bot_http import FieldError

BUILT_IN: Final = (BollingerReversion, ConfirmedSignal, DonchianBreakout, EmaCross, RsiReversion)
CATALOGUE: Final = Catalogue(BUILT_IN)
"""What this process can trade by: like the modules that are imported, one for the process."""
NAME_PATH: Final = "spec.strategy.name"
PARAMETERS_PATH: Final = "spec.strategy.parameters"


class UnknownStrategyError(Exception):
    """There is no strategy of that name."""

    code = "UnknownStrategy"

    def __init__(self, name: str) -> None:
        self.field = NAME_PATH
        text = f"{self.field}: expected one of {', '.join(sorted(CATALOGUE.strategies))}, got {name!r}"
        super().__init__("; ".join([text, *CATALOGUE.problems]))


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
    offered = CATALOGUE.strategies.get(name)
    if offered is None:
        raise UnknownStrategyError(name)
    try:
        checked = offered.kind.Parameters.model_validate(dict(parameters))
    except ValidationError as error:
        raise StrategyParametersError(field_errors(error, PARAMETERS_PATH)) from error
    try:
        made = offered.kind(checked)
        if not isinstance(made.warmup, SupportsIndex):
            raise TypeError(f"warmup: expected a number of candles, got {made.warmup!r}")
    except Exception as error:
        # Somebody else's code: what it raises is told, and the bot goes on with its last good configuration.
        message = f"{offered.source} cannot be made of them: {type(error).__name__}: {error}"
        raise StrategyParametersError([FieldError(field=PARAMETERS_PATH, message=message)]) from error
    return made
