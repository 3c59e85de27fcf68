"""Order requests: parameters as they come on the wire, checked for shape and turned into typed requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from paper_exchange.core.errors import ExchangeError, illegal, missing, not_required
from paper_exchange.core.model import OrderType, Side, StpMode, TimeInForce
from paper_exchange.core.units import parse_units

Params = Mapping[str, str]

_CLIENT_ID_PATTERN: Final = "^[a-zA-Z0-9-_]{1,36}$"
_CLIENT_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}")
_INTEGER_PATTERN: Final = "^[0-9]{1,20}$"
_INTEGER = re.compile(r"[0-9]{1,19}")
_UNSUPPORTED: Final = {
    "icebergQty": "Iceberg orders are not supported for this symbol.",
    "trailingDelta": "Trailing stop orders are not supported for this symbol.",
    "pegPriceType": "Pegged orders are not supported for this symbol.",
}

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
    client_order_id: str | None
    stp: StpMode
    strategy_id: int | None
    strategy_type: int | None


@dataclass(frozen=True, slots=True)
class NewOrderList:
    """An OCO (no working order, a pair), OTO (working and one pending) or OTOCO (working and a pair)."""

    symbol: str
    client_list_id: str | None
    working: NewOrder | None
    legs: tuple[NewOrder, ...]
    """An OCO pair has the stop loss first."""

    @property
    def contingency(self) -> str:
        """What Binance calls the kind of list; an OTOCO is an OTO too."""
        return "OTO" if self.working else "OCO"


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
    return int(value)


def flag(params: Params, name: str) -> bool:
    """true or false; false when absent."""
    value = text_of(params, name)
    if value is None:
        return False
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


def _side(params: Params, name: str) -> Side:
    return _choice(Side, required(params, name), ExchangeError(-1117, "Invalid side."))


def _stp(params: Params) -> StpMode:
    value = text_of(params, "selfTradePreventionMode")
    if value is None:
        return StpMode.EXPIRE_MAKER
    refusal = ExchangeError(-1013, "This symbol does not allow the specified self-trade prevention mode.")
    return _choice(StpMode, value, refusal)


def _order(params: Params, prefix: str, side: Side, quantity: int, quote_quantity: int) -> NewOrder:
    """One order whose parameters begin with `prefix` ("" for a single order), with the rules per type."""

    def name(suffix: str) -> str:
        return prefix + suffix[0].upper() + suffix[1:] if prefix else suffix

    for absent, message in _UNSUPPORTED.items():
        if text_of(params, name(absent)) is not None:
            raise ExchangeError(-1013, message)
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
    if kind.conditional and not stop_price:
        raise missing(name("stopPrice"))
    if not kind.conditional and text_of(params, name("stopPrice")) is not None:
        raise not_required(name("stopPrice"))
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
        client_order_id=client_id(params, order_id_name),
        stp=_stp(params),
        strategy_id=integer(params, name("strategyId")),
        strategy_type=integer(params, name("strategyType")),
    )


def new_order(params: Params) -> NewOrder:
    """A single order, as in `POST /api/v3/order`."""
    required(params, "symbol")
    side = _side(params, "side")
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
    return _order(params, "", side, quantity, quote_quantity)


def _pair(params: Params, above: str, below: str, side: Side, quantity: int) -> tuple[NewOrder, NewOrder]:
    """An OCO pair, the stop loss first; the codes say which leg is on the wrong side of the market."""
    upper = _order(params, above, side, quantity, 0)
    lower = _order(params, below, side, quantity, 0)
    allowed = {OrderType.LIMIT_MAKER, *(t for t in OrderType if t.conditional)}
    if upper.type not in allowed or lower.type not in allowed:
        raise ExchangeError(-1158, "Order type not supported in OCO.")
    if upper.type is OrderType.LIMIT_MAKER and lower.type is OrderType.LIMIT_MAKER:
        raise ExchangeError(-1168, "At least one OCO order must be contingent.")
    if side is Side.SELL:
        if lower.type is OrderType.LIMIT_MAKER:
            raise ExchangeError(-1166, "A limit order in a sell OCO must be above.")
        if upper.type.stop:
            raise ExchangeError(-1197, "A stop loss order in a sell OCO must be below.")
        if not lower.type.stop:
            raise ExchangeError(-1199, "A take profit order in a sell OCO must be above.")
        return lower, upper
    if upper.type is OrderType.LIMIT_MAKER:
        raise ExchangeError(-1165, "A limit order in a buy OCO must be below.")
    if lower.type.stop:
        raise ExchangeError(-1196, "A stop loss order in a buy OCO must be above.")
    if not upper.type.stop:
        raise ExchangeError(-1198, "A take profit order in a buy OCO must be below.")
    return upper, lower


def _quantity(params: Params, name: str) -> int:
    required(params, name)
    return _units(params, name)


def _working(params: Params) -> NewOrder:
    working = _order(
        params, "working", _side(params, "workingSide"), _quantity(params, "workingQuantity"), quote_quantity=0
    )
    if working.type not in (OrderType.LIMIT, OrderType.LIMIT_MAKER):
        raise ExchangeError(-1116, "Invalid orderType.")
    return working


def new_oco(params: Params) -> NewOrderList:
    """A one-cancels-the-other pair, as in `POST /api/v3/orderList/oco`."""
    symbol = required(params, "symbol")
    pair = _pair(params, "above", "below", _side(params, "side"), _quantity(params, "quantity"))
    return NewOrderList(symbol, client_id(params, "listClientOrderId"), None, pair)


def new_oto(params: Params) -> NewOrderList:
    """A working order and one that follows when it is filled, as in `POST /api/v3/orderList/oto`."""
    symbol = required(params, "symbol")
    working = _working(params)
    side = _side(params, "pendingSide")
    pending = _order(params, "pending", side, _quantity(params, "pendingQuantity"), 0)
    return NewOrderList(symbol, client_id(params, "listClientOrderId"), working, (pending,))


def new_otoco(params: Params) -> NewOrderList:
    """A working order and a pair that follows when it is filled, as in `POST /api/v3/orderList/otoco`."""
    symbol = required(params, "symbol")
    working = _working(params)
    side = _side(params, "pendingSide")
    quantity = _quantity(params, "pendingQuantity")
    pair = _pair(params, "pendingAbove", "pendingBelow", side, quantity)
    return NewOrderList(symbol, client_id(params, "listClientOrderId"), working, pair)
