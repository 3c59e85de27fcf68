"""Order requests: parameters as they come on the wire, checked for shape and turned into typed requests."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from paper_exchange.core.errors import (
    ExchangeError,
    illegal,
    missing,
    neither,
    not_required,
    overflowed,
    stp_not_allowed,
)
from paper_exchange.core.model import OrderType, Side, StpMode, TimeInForce
from paper_exchange.core.units import LARGEST, parse_units

Params = Mapping[str, str]

_CLIENT_ID_PATTERN: Final = "^[a-zA-Z0-9-_]{1,36}$"
_CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}")
_INTEGER_PATTERN: Final = "^[0-9]{1,20}$"
_INTEGER = re.compile(r"[0-9]{1,20}")

_LEAST_STRATEGY_TYPE: Final = 1_000_000

_E = TypeVar("_E", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """One order that somebody wants to place; absent prices and quantities are 0."""

    symbol: str
    side: Side
    type: OrderType
    time_in_force: TimeInForce
    price: int
    quantity: int
    quote_quantity: int
    stop_price: int
    iceberg_quantity: int
    trailing_delta: int
    client_order_id: str | None
    stp: StpMode | None
    """None is the default of the symbol."""
    strategy_id: int | None
    strategy_type: int | None


@dataclass(frozen=True, slots=True)
class CancelTarget:
    """An order to cancel: by either id, how the cancel is called, and how the order must stand for it."""

    order_id: int | None
    client_order_id: str | None
    new_client_order_id: str | None = None
    restriction: str = ""
    """ONLY_NEW, ONLY_PARTIALLY_FILLED or nothing."""


@dataclass(frozen=True, slots=True)
class AmendTarget:
    """An order to reduce: by either id, to which quantity, and its client order id from then on."""

    order_id: int | None
    client_order_id: str | None
    quantity: int
    new_client_order_id: str | None = None


def text_of(params: Params, name: str) -> str | None:
    """A parameter that may be absent; -1105 when it is there and empty."""
    value = params.get(name)
    if value == "":
        raise ExchangeError(-1105, f"Parameter '{name}' was empty.")
    return value


def required(params: Params, name: str) -> str:
    """A parameter that must be there."""
    value = params.get(name)
    if not value:
        raise missing(name)
    return value


def integer(params: Params, name: str) -> int | None:
    """A whole number, or None when absent."""
    value = text_of(params, name)
    if value is None:
        return None
    if not _INTEGER.fullmatch(value):
        raise illegal(name, _INTEGER_PATTERN)
    number = int(value)
    if number > LARGEST:
        raise overflowed(name)
    return number


def flag(params: Params, name: str, absent: bool = False) -> bool:
    """true or false, in any case of letters."""
    value = text_of(params, name)
    if value is None:
        return absent
    if value.lower() not in ("true", "false"):
        raise illegal(name, "^(true|false)$")
    return value.lower() == "true"


def client_id(params: Params, name: str) -> str | None:
    """A client's own order id, or None when absent."""
    value = text_of(params, name)
    if value is not None and not _CLIENT_ID.fullmatch(value):
        raise illegal(name, _CLIENT_ID_PATTERN)
    return value


def _units(params: Params, name: str) -> int:
    value = text_of(params, name)
    return 0 if value is None else parse_units(name, value)


def _choice(kind: type[_E], value: str, refusal: ExchangeError) -> _E:
    try:
        return kind(value)
    except ValueError:
        raise refusal from None


def side_of(params: Params, name: str) -> Side:
    """BUY or SELL; -1117 for anything else."""
    return _choice(Side, required(params, name), ExchangeError(-1117, "Invalid side."))


def _strategy_type(params: Params, name: str) -> int | None:
    value = integer(params, name)
    if value is not None and value < _LEAST_STRATEGY_TYPE:
        raise ExchangeError(-1134, "`strategyType` was less than 1000000.")
    return value


def _stp(params: Params) -> StpMode | None:
    value = text_of(params, "selfTradePreventionMode")
    return None if value is None else _choice(StpMode, value, stp_not_allowed())


def _refuse_peg(params: Params, name: Callable[[str], str]) -> None:
    """No symbol takes pegged orders; what is no peg is told first."""
    price_type, offset_type = text_of(params, name("pegPriceType")), text_of(params, name("pegOffsetType"))
    if price_type not in (None, "PRIMARY_PEG", "MARKET_PEG"):
        raise ExchangeError(-1210, "Invalid pegPriceType.")
    if offset_type not in (None, "PRICE_LEVEL"):
        raise ExchangeError(-1211, "Invalid pegOffsetType.")
    if price_type is not None:
        raise ExchangeError(-1013, "Pegged orders are not supported for this symbol.")
    for lone in ("pegOffsetType", "pegOffsetValue"):
        if text_of(params, name(lone)) is not None:
            raise not_required(name(lone))


def parse_order(params: Params, prefix: str, side: Side, quantity: int, quote_quantity: int) -> NewOrder:
    """One order whose parameters begin with `prefix` ("" for a single order), with the rules per type."""

    def name(suffix: str) -> str:
        return prefix + suffix[0].upper() + suffix[1:] if prefix else suffix

    _refuse_peg(params, name)
    kind_text = required(params, name("type"))
    kind = _choice(OrderType, kind_text, ExchangeError(-1116, "Invalid orderType."))
    price = _units(params, name("price"))
    stop_price = _units(params, name("stopPrice"))
    tif_text = text_of(params, name("timeInForce"))
    if kind in (OrderType.LIMIT, OrderType.STOP_LOSS_LIMIT, OrderType.TAKE_PROFIT_LIMIT):
        if tif_text is None:
            raise missing(name("timeInForce"))
        tif = _choice(TimeInForce, tif_text, ExchangeError(-1115, "Invalid timeInForce."))
    else:
        if tif_text is not None:
            raise not_required(name("timeInForce"))
        tif = TimeInForce.GTC
    if kind.priced and not price:
        raise missing(name("price"))
    if not kind.priced and text_of(params, name("price")) is not None:
        raise not_required(name("price"))
    trailing_delta = integer(params, name("trailingDelta")) or 0
    if kind.conditional and not stop_price and not trailing_delta:
        raise neither(name("stopPrice"), name("trailingDelta"))
    if not kind.conditional:
        for absent in (name("stopPrice"), name("trailingDelta")):
            if text_of(params, absent) is not None:
                raise not_required(absent)
    iceberg_quantity = _units(params, name("icebergQty"))
    if iceberg_quantity and tif is not TimeInForce.GTC and prefix in ("above", "below"):
        text = f"Parameter '{name('icebergQty')}' is not supported if"
        raise ExchangeError(-1160, f"{text} `aboveTimeInForce`/`belowTimeInForce` is not GTC.")
    if iceberg_quantity and (not kind.priced or tif is not TimeInForce.GTC):
        raise not_required(name("icebergQty"))
    order_id_name = name("clientOrderId") if prefix else "newClientOrderId"
    return NewOrder(
        symbol=required(params, "symbol"),
        side=side,
        type=kind,
        time_in_force=tif,
        price=price,
        quantity=quantity,
        quote_quantity=quote_quantity,
        stop_price=stop_price,
        iceberg_quantity=iceberg_quantity,
        trailing_delta=trailing_delta,
        client_order_id=client_id(params, order_id_name),
        stp=_stp(params),
        strategy_id=integer(params, name("strategyId")),
        strategy_type=_strategy_type(params, name("strategyType")),
    )


def cancel_restriction(params: Params) -> str:
    """How an order must stand to be cancelled, or nothing."""
    value = text_of(params, "cancelRestrictions")
    if value not in (None, "ONLY_NEW", "ONLY_PARTIALLY_FILLED"):
        raise ExchangeError(-1145, "`cancelRestrictions` has to be either `ONLY_NEW` or `ONLY_PARTIALLY_FILLED`.")
    return value or ""


def new_order(params: Params) -> NewOrder:
    """A single order, as in `POST /api/v3/order`."""
    required(params, "symbol")
    side = side_of(params, "side")
    kind = required(params, "type")
    quantity = _units(params, "quantity")
    quote_quantity = _units(params, "quoteOrderQty")
    if text_of(params, "quoteOrderQty") is not None:
        if kind != OrderType.MARKET:
            raise not_required("quoteOrderQty")
        if text_of(params, "quantity") is not None:
            raise not_required("quoteOrderQty")
    elif text_of(params, "quantity") is None:
        raise missing("quantity")
    return parse_order(params, "", side, quantity, quote_quantity)
