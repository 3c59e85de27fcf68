"""Requests for order lists: which orders belong to each kind, and the codes for those that do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from paper_exchange.core.errors import ExchangeError, not_required
from paper_exchange.core.model import CONDITIONAL, OrderType, Side
from paper_exchange.core.requests import NewOrder, Params, client_id, parse_order, required, side_of, text_of
from paper_exchange.core.units import parse_units

_LEGS: Final = frozenset((OrderType.LIMIT_MAKER, *CONDITIONAL))
_WORKING: Final = frozenset((OrderType.LIMIT, OrderType.LIMIT_MAKER))


@dataclass(frozen=True, slots=True)
class NewOrderList:
    """An OCO (no working order, a pair), OTO (working and one pending) or OTOCO (working and a pair)."""

    symbol: str
    client_list_id: str | None
    working: NewOrder | None
    legs: tuple[NewOrder, ...]
    """An OCO pair has the stop loss first."""
    pays: bool = False
    """One pays the other: the quantity of the pending orders, 0 here, is what the working order receives."""

    @property
    def contingency(self) -> str:
        """What Binance calls the kind of list; an OTOCO is an OTO too."""
        return "OTO" if self.working else "OCO"


def _quantity(params: Params, name: str) -> int:
    return parse_units(name, required(params, name))


def _list_id(params: Params) -> str | None:
    return client_id(params, "listClientOrderId")


def _refuse_type(params: Params, name: str, allowed: frozenset[OrderType], refusal: ExchangeError) -> None:
    """Refuse a known order type that the place in the list does not take; unknown ones are refused as in any order."""
    if required(params, name) in set(OrderType) - allowed:
        raise refusal


def _pair(params: Params, above: str, below: str, side: Side, quantity: int) -> tuple[NewOrder, NewOrder]:
    """An OCO pair, the stop loss first; the codes say which leg is on the wrong side of the market."""
    for prefix in (above, below):
        _refuse_type(params, f"{prefix}Type", _LEGS, ExchangeError(-1158, "Order type not supported in OCO."))
        iceberg = f"{prefix}IcebergQty"
        if text_of(params, iceberg) is not None and params.get(f"{prefix}TimeInForce", "GTC") != "GTC":
            limits = "`aboveTimeInForce`/`belowTimeInForce`"
            raise ExchangeError(-1160, f"Parameter '{iceberg}' is not supported if {limits} is not GTC.")
    upper = parse_order(params, above, side, quantity, 0)
    lower = parse_order(params, below, side, quantity, 0)
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


def _working(params: Params) -> NewOrder:
    # The code was seen on Binance's test network; its documentation does not have it, so the text is a guess.
    _refuse_type(params, "workingType", _WORKING, ExchangeError(-1159, "Order type not supported in OTO."))
    return parse_order(params, "working", side_of(params, "workingSide"), _quantity(params, "workingQuantity"), 0)


def new_oco(params: Params) -> NewOrderList:
    """A one-cancels-the-other pair, as in `POST /api/v3/orderList/oco`."""
    symbol = required(params, "symbol")
    pair = _pair(params, "above", "below", side_of(params, "side"), _quantity(params, "quantity"))
    return NewOrderList(symbol, _list_id(params), None, pair)


def old_oco(params: Params) -> NewOrderList:
    """The same pair by the parameters of the deprecated `POST /api/v3/order/oco`: a limit and a stop leg."""
    required(params, "symbol")
    side = side_of(params, "side")
    for name in ("quantity", "price", "stopPrice"):
        _quantity(params, name)
    stop_limit = text_of(params, "stopLimitPrice")
    if stop_limit is not None:
        parse_units("stopLimitPrice", stop_limit)
        required(params, "stopLimitTimeInForce")
    elif text_of(params, "stopLimitTimeInForce") is not None:
        raise not_required("stopLimitTimeInForce")
    limit, stop = ("above", "below") if side is Side.SELL else ("below", "above")
    renamed = {
        "price": f"{limit}Price",
        "stopPrice": f"{stop}StopPrice",
        "stopLimitPrice": f"{stop}Price",
        "stopLimitTimeInForce": f"{stop}TimeInForce",
        "trailingDelta": f"{stop}TrailingDelta",
    }
    for old, new in (("limit", limit), ("stop", stop)):
        client_id(params, f"{old}ClientOrderId")
        for suffix in ("ClientOrderId", "StrategyId", "StrategyType", "IcebergQty"):
            renamed[f"{old}{suffix}"] = f"{new}{suffix}"
    kinds = {f"{limit}Type": "LIMIT_MAKER", f"{stop}Type": "STOP_LOSS" if stop_limit is None else "STOP_LOSS_LIMIT"}
    return new_oco({renamed.get(name, name): value for name, value in params.items()} | kinds)


def new_oto(params: Params) -> NewOrderList:
    """A working order and one that follows when it is filled, as in `POST /api/v3/orderList/oto`."""
    symbol = required(params, "symbol")
    working = _working(params)
    side = side_of(params, "pendingSide")
    pending = parse_order(params, "pending", side, _quantity(params, "pendingQuantity"), 0)
    return NewOrderList(symbol, _list_id(params), working, (pending,))


def new_otoco(params: Params) -> NewOrderList:
    """A working order and a pair that follows when it is filled, as in `POST /api/v3/orderList/otoco`."""
    symbol = required(params, "symbol")
    working = _working(params)
    side = side_of(params, "pendingSide")
    pair = _pair(params, "pendingAbove", "pendingBelow", side, _quantity(params, "pendingQuantity"))
    return NewOrderList(symbol, _list_id(params), working, pair)


def new_opo(params: Params) -> NewOrderList:
    """An OTO whose pending order sells what the working order bought, as in `POST /api/v3/orderList/opo`."""
    symbol, working, side = _paying(params)
    pending = parse_order(params, "pending", side, 0, 0)
    return NewOrderList(symbol, _list_id(params), working, (pending,), pays=True)


def new_opoco(params: Params) -> NewOrderList:
    """An OTOCO whose pair sells what the working order bought, as in `POST /api/v3/orderList/opoco`."""
    symbol, working, side = _paying(params)
    pair = _pair(params, "pendingAbove", "pendingBelow", side, 0)
    return NewOrderList(symbol, _list_id(params), working, pair, pays=True)


def _paying(params: Params) -> tuple[str, NewOrder, Side]:
    """Symbol, working order and side of the pending orders: a purchase, then sales without a quantity of their own."""
    symbol = required(params, "symbol")
    if text_of(params, "pendingQuantity") is not None:
        raise not_required("pendingQuantity")
    working = _working(params)
    if working.side is not Side.BUY:
        raise ExchangeError(-1222, "Working order in an OPO list must be a bid.")
    side = side_of(params, "pendingSide")
    if side is not Side.SELL:
        raise ExchangeError(-1223, "Pending orders in an OPO list must be asks.")
    return symbol, working, side
