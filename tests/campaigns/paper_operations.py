"""What traders, the market and the machine do to a paper exchange, drawn by Hypothesis; mostly what the exchange takes.

Two kinds of values get their meaning when they are sent, so that it does not matter what is cut out of a failing
sequence before them: a price is told as its distance from the last one, `@-20.5`, and an order or a list by its place
among those that are open, `#0`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeVar

from hypothesis import strategies as st

from paper_exchange.core.symbols import ORDER_TYPES

T = TypeVar("T", bound=Hashable)

TRADERS: Final = (0, 1, 2)
SYMBOL: Final = "BTCUSDT"
FIRST_PRICE: Final = 60_000
_QUANTITIES: Final = ("0.001", "0.001", "0.01", "0.01", "0.02", "0.02", "0.05", "0.05", "0.12345", "0.35", "0.777")
_ODD_QUANTITIES: Final = ("40", "0.00001", "0.000001", "0")
_TIMES_IN_FORCE: Final = ("GTC", "GTC", "GTC", "IOC", "FOK")
_SIDES: Final = st.sampled_from(("BUY", "SELL"))
_STP: Final = ("EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
_STOPS: Final = ("STOP_LOSS", "STOP_LOSS_LIMIT")
_PROFITS: Final = ("TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
_NAMES: Final = ("price", "quantity", "quoteOrderQty", "stopPrice", "trailingDelta", "icebergQty")
_WEIGHTS: Final = {
    "wait": 3, "restart": 2, "push": 5, "trade": 14, "deposit": 3, "withdraw": 2, "book": 5, "levels": 10,
    "cancel all": 2, "cancel list": 3, "cancel": 10, "amend": 4, "test": 3, "order": 40, "replace": 5, "oco": 7,
    "oto": 5, "otoco": 7, "opo": 3, "opoco": 3,
}  # fmt: skip
"""How often each kind of operation is drawn; a failing sequence is told with the first ones where they will do."""
KINDS: Final = frozenset(_WEIGHTS)
STILL: Final = frozenset(("wait", "test"))
"""Kinds that change no order."""
_MARKETS: Final = frozenset(("wait", "restart", "push", "trade", "book", "levels"))
"""Kinds in which no trader takes part."""


@dataclass(frozen=True)
class Operation:
    """One input: what it is, who does it, and Binance's parameters."""

    what: str
    trader: int = 0
    params: dict[str, str] = field(default_factory=dict)


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    """One operation; each kind as often as its weight says."""
    kind = draw(_of(*(kind for kind, weight in _WEIGHTS.items() for _ in range(weight))))
    params: dict[str, str] = {}
    match kind:
        case "order" | "test":
            params = _single(draw)
        case "oco":
            side = draw(_SIDES)
            params = {"side": side, "quantity": _quantity(draw)} | _pair(draw, side, "above", "below")
        case "oto" | "opo":
            params = _working(draw, kind)
            pending = draw(_of("LIMIT", "LIMIT_MAKER", *_STOPS, *_PROFITS, "MARKET"))
            params |= {"pendingType": pending} | _terms(draw, "pending", pending, draw(_of(-1, 1)))
        case "otoco" | "opoco":
            params = _working(draw, kind)
            params |= _pair(draw, params["pendingSide"], "pendingAbove", "pendingBelow")
        case "cancel":
            params = {"orderId": _place(draw)}
            params |= _seldom(draw, 5, "cancelRestrictions", "ONLY_NEW", "ONLY_PARTIALLY_FILLED")
        case "cancel list":
            params = {"orderListId": _place(draw)}
        case "replace":
            params = {"cancelOrderId": _place(draw)}
            params |= {"cancelReplaceMode": draw(_of("STOP_ON_FAILURE", "ALLOW_FAILURE"))} | _single(draw)
        case "amend":
            params = {"orderId": _place(draw), "newQty": draw(_of(*_QUANTITIES))}
        case "deposit" | "withdraw":
            params = {"asset": draw(_of("USDT", "BTC", "BNB")), "amount": draw(_of("0.00000001", "3", "700"))}
        case "trade":
            params = {"price": _near(draw, 0, 12), "quantity": _quantity(draw), "maker": draw(_SIDES)}
        case "push":
            params = {"price": _near(draw, 0, 60)}
        case "book" | "levels":
            bid, spread = draw(_of(0, 0, -1, 1, -15, 15)), draw(_of(1, 1, 2, 10))
            params = {"bid": f"@{bid}", "ask": f"@{bid + spread}"}
            params |= {"quantity": draw(_of("0.002", "0.05", "0.5", "3")), "levels": str(draw(_of(*range(7))))}
        case "wait":
            params = {"seconds": draw(_of("1", "70", "400"))}
        case _:
            pass
    if kind in ("oco", "oto", "otoco", "opo", "opoco"):
        params |= _seldom(draw, 10, "listClientOrderId", "list-0", "list-1", "list-2")
    trader = 0 if kind in _MARKETS else draw(_of(*TRADERS))
    return Operation(kind, trader, params)


def _single(draw: st.DrawFn) -> dict[str, str]:
    """A single order of any type, mostly with what its type asks for."""
    kind = draw(_of("LIMIT", "LIMIT", "MARKET", *ORDER_TYPES))
    params = {"side": draw(_SIDES), "type": kind} | _terms(draw, "", kind, draw(_of(-1, 1)))
    if kind == "MARKET" and _once_in(draw, 2):
        params["quoteOrderQty"] = draw(_of("50", "3000", "123.456", "90000"))
    else:
        params["quantity"] = _quantity(draw)
    params |= _seldom(draw, 3, "newOrderRespType", "ACK", "RESULT", "FULL")
    params |= _seldom(draw, 10, "newClientOrderId", "mine-0", "mine-1", "mine-2", "mine-3")
    params |= _seldom(draw, 2, "selfTradePreventionMode", *_STP)
    if odd := draw(_of(*[""] * 19 * len(_NAMES), *_NAMES)):
        params[odd] = "1"
    return params


def _working(draw: st.DrawFn, kind: str) -> dict[str, str]:
    side = draw(_SIDES)
    pending = side if _once_in(draw, 5) else "SELL" if side == "BUY" else "BUY"
    params = {"workingType": draw(_of("LIMIT", "LIMIT", "LIMIT_MAKER")), "workingSide": side}
    quantity = _quantity(draw)
    params["pendingSide"] = pending
    params |= {"workingQuantity": quantity} | _terms(draw, "working", params["workingType"], 0)
    if not kind.startswith("opo"):
        params["pendingQuantity"] = _quantity(draw) if _once_in(draw, 2) else quantity
    return params


def _pair(draw: st.DrawFn, side: str, above: str, below: str) -> dict[str, str]:
    """The two orders of a pair, mostly of the kinds that fit their places."""
    profits, stops = (*["LIMIT_MAKER"] * 3, *_PROFITS), _STOPS
    upper, lower = (profits, stops) if side == "SELL" else (stops, profits)
    if _once_in(draw, 10):
        upper, lower = lower, upper
    terms: dict[str, str] = {}
    for prefix, kinds, where in ((above, upper, 1), (below, lower, -1)):
        kind = draw(_of(*kinds))
        terms |= {f"{prefix}Type": kind} | _terms(draw, prefix, kind, where)
    return terms


def _terms(draw: st.DrawFn, prefix: str, kind: str, where: int) -> dict[str, str]:
    """Price, trigger, time in force and the like of an order of a type."""
    terms: dict[str, str] = {}
    distance = where * draw(_of(0, 4, 5, 8, 20, 60))
    if kind in ("LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        terms["price"] = _near(draw, distance, 4)
    if kind in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        terms["timeInForce"] = draw(_of(*_TIMES_IN_FORCE))
    if kind.startswith(("STOP", "TAKE")):
        triggers = draw(_of(*["stop"] * 8, "both", "trailing"))
        if triggers != "trailing":
            terms["stopPrice"] = _near(draw, distance, 4)
        if triggers != "stop":
            terms["trailingDelta"] = draw(_of("10", "25", "100"))
    terms |= _seldom(draw, 16, "icebergQty", "0.001", "0.01", "0.1")
    if _seldom(draw, 20, "strategyId", "7"):
        terms |= {"strategyId": "7", "strategyType": "1000001"}
    return {(prefix + name[0].upper() + name[1:] if prefix else name): value for name, value in terms.items()}


def _quantity(draw: st.DrawFn) -> str:
    return str(draw(_of(*_QUANTITIES * 12, *_ODD_QUANTITIES)))


def _near(draw: st.DrawFn, distance: int, reach: int) -> str:
    """A price not farther than reach from the one in that distance of the last one."""
    return f"@{distance + draw(st.integers(-reach, reach))}{draw(_of('', '', '', '.5', '.01'))}"


def _place(draw: st.DrawFn) -> str:
    return f"#{draw(_of(*range(10)))}"


def _seldom(draw: st.DrawFn, times: int, name: str, *values: str) -> dict[str, str]:
    """A parameter that is given once in so many times."""
    value = draw(_of(*[""] * (times - 1) * len(values), *values))
    return {name: value} if value else {}


def _once_in(draw: st.DrawFn, times: int) -> bool:
    return bool(draw(_of(*[False] * (times - 1), True)))


@cache
def _of(*values: T) -> st.SearchStrategy[T]:
    """One of these. Kept, because to make a strategy takes longer than to draw from it."""
    return st.sampled_from(values)
