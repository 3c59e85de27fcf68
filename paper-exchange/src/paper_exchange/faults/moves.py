"""What a scenario does to a market or an account, as it is written and checked."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from paper_exchange.amounts import ControlInvalidError, parse_deposits, parse_settings, positive_units
from paper_exchange.core.model import AccountSettings, Side
from paper_exchange.core.symbols import STATUSES
from paper_exchange.faults.fields import Field, Read, invalid, one_of, read_object, whole

_PERCENT: Final = re.compile(r"[+-][0-9]{1,4}(\.[0-9]{1,4})?%")

FILTERS: Final = {
    "tickSize": "tick",
    "stepSize": "step",
    "minPrice": "min_price",
    "maxPrice": "max_price",
    "minQty": "min_quantity",
    "maxQty": "max_quantity",
    "minNotional": "min_notional",
    "maxNotional": "max_notional",
}
"""Names in exchangeInfo, and in the rules of a symbol, of what can be changed of the filters."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price in units, or a share of the last price by which another one lies above it."""

    units: int = 0
    share: Decimal | None = None

    def from_last(self, last: int) -> int:
        """The price in units, of which a market takes the next one that is on its tick."""
        return self.units if self.share is None else int(last * (1 + self.share))


@dataclass(frozen=True, slots=True)
class OutsideTrade:
    """A trade between outsiders: who takes, how much, and where."""

    side: Side
    quantity: int
    price: Price


@dataclass(frozen=True, slots=True)
class Fill:
    """An outsider fills a share of the best resting order of a side."""

    side: Side
    share: Decimal


@dataclass(frozen=True, slots=True)
class MarketMove:
    """One thing that happens to a symbol."""

    symbol: str
    status: str | None = None
    push: Price | None = None
    gap: Price | None = None
    trade: OutsideTrade | None = None
    fill: Fill | None = None
    filters: Mapping[str, int] | None = None
    """Units by the name in the rules."""


@dataclass(frozen=True, slots=True)
class AccountMove:
    """One thing that happens to an account, or to all of them."""

    uid: int | None = None
    deposit: Mapping[str, int] | None = None
    withdraw: Mapping[str, int] | None = None
    reset: Mapping[str, int] | None = None
    set: AccountSettings | None = None


def read_market_move(name: str, given: object, symbols: Collection[str]) -> MarketMove:
    """{"symbol": "BTCUSDT", "gap": "-8%"}; ControlInvalidError names the field."""
    actions = {
        "status": Field(one_of(*STATUSES), None),
        "push": Field(_price, None),
        "gap": Field(_price, None),
        "trade": Field(_trade, None),
        "fill": Field(_fill, None),
        "filters": Field(_filters, None),
    }
    values = read_object(name, given, {"symbol": Field(one_of(*symbols))} | actions)
    _one(name, values, actions)
    return MarketMove(**values)


def read_account_move(name: str, given: object) -> AccountMove:
    """{"uid": 100000001, "withdraw": {"BTC": "0.5"}}; without `uid` it happens to every account."""
    amounts = Field(lambda where, one: parse_deposits(one, where), None)
    actions = {"deposit": amounts, "withdraw": amounts, "reset": amounts, "set": Field(_settings, None)}
    values = read_object(name, given, {"uid": Field(whole(1, 2**63 - 1), None)} | actions)
    _one(name, values, actions)
    return AccountMove(**values)


def _one(name: str, values: Mapping[str, Any], actions: Collection[str]) -> None:
    chosen = [action for action in actions if values[action] is not None]
    if len(chosen) != 1:
        raise ControlInvalidError(f"{name}: expected one of {', '.join(actions)}, got {' and '.join(chosen) or 'none'}")


def _price(name: str, given: object) -> Price:
    if isinstance(given, str) and _PERCENT.fullmatch(given):
        share = Decimal(given[:-1]) / 100
        if share > -1:
            return Price(share=share)
    elif isinstance(given, str):
        return Price(units=positive_units(name, given))
    raise invalid(name, 'a price such as "59000.5", or how far from the last one such as "-8%"', given)


def _share(name: str, given: object) -> Decimal:
    if isinstance(given, str) and re.fullmatch(r"(0\.[0-9]{1,8}|1)", given) and Decimal(given):
        return Decimal(given)
    raise invalid(name, 'a decimal text above 0 and at most 1 such as "0.4"', given)


def _side(name: str, given: object) -> Side:
    return Side(one_of(*(side.value for side in Side))(name, given))


def _trade(name: str, given: object) -> OutsideTrade:
    members = {"side": Field(_side), "quantity": Field(positive_units), "price": Field(_price)}
    return OutsideTrade(**read_object(name, given, members))


def _fill(name: str, given: object) -> Fill:
    return Fill(**read_object(name, given, {"side": Field(_side), "share": Field(_share)}))


def _filters(name: str, given: object) -> dict[str, int]:
    read: Read = positive_units
    values = read_object(name, given, {known: Field(read, None) for known in FILTERS})
    return {FILTERS[known]: units for known, units in values.items() if units is not None}


def _settings(name: str, given: object) -> AccountSettings:
    if not isinstance(given, dict):
        raise invalid(name, 'an object such as {"canTrade": false}', given)
    try:
        return parse_settings(given)
    except ControlInvalidError as error:
        raise ControlInvalidError(f"{name}.{error}") from error
