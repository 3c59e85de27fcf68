"""What traders, the market and the machine do to a paper exchange, drawn at random; plain data, so that a failing
sequence can be cut down and run again."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from paper_exchange.core.symbols import ORDER_TYPES

TRADERS: Final = (0, 1, 2)
SYMBOL: Final = "BTCUSDT"
FIRST_PRICE: Final = 60_000
_QUANTITIES: Final = ("0.001", "0.001", "0.01", "0.01", "0.02", "0.02", "0.05", "0.05", "0.12345", "0.35", "0.777")
_ODD_QUANTITIES: Final = ("40", "0.00001", "0.000001", "0")
_TIMES_IN_FORCE: Final = ("GTC", "GTC", "GTC", "IOC", "FOK")
_STP: Final = ("EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
_STOPS: Final = ("STOP_LOSS", "STOP_LOSS_LIMIT")
_PROFITS: Final = ("TAKE_PROFIT", "TAKE_PROFIT_LIMIT")
_NAMES: Final = ("price", "quantity", "quoteOrderQty", "stopPrice", "trailingDelta", "icebergQty")


@dataclass(frozen=True)
class Operation:
    """One input: what it is, who does it, Binance's parameters, and which of the open orders or lists is meant.

    A price is told as its distance from the last one, `@-20.5`: what is cut away before it does not matter then.
    """

    what: str
    trader: int = 0
    params: dict[str, str] = field(default_factory=dict)
    pick: int = 0


def draw(random: Random, count: int) -> list[Operation]:
    """A sequence of operations."""
    return [_operation(random) for _ in range(count)]


def _operation(random: Random) -> Operation:
    kind = random.choices(*zip(*_WEIGHTS.items(), strict=True))[0]
    trader, pick = random.choice(TRADERS), random.randrange(1_000_000)
    params: dict[str, str] = {}
    match kind:
        case "order" | "test":
            params = _single(random)
        case "oco":
            side = _side(random)
            params = {"side": side, "quantity": _quantity(random)} | _pair(random, side, "above", "below")
        case "oto" | "opo":
            params = _working(random, kind)
            pending = random.choice(("LIMIT", "LIMIT_MAKER", *_STOPS, *_PROFITS, "MARKET"))
            params |= {"pendingType": pending} | _terms(random, "pending", pending, random.choice((-1, 1)))
        case "otoco" | "opoco":
            params = _working(random, kind)
            params |= _pair(random, params["pendingSide"], "pendingAbove", "pendingBelow")
        case "cancel":
            if random.random() < 0.2:
                params = {"cancelRestrictions": random.choice(("ONLY_NEW", "ONLY_PARTIALLY_FILLED"))}
        case "replace":
            params = {"cancelReplaceMode": random.choice(("STOP_ON_FAILURE", "ALLOW_FAILURE"))}
            params |= _single(random)
        case "amend":
            params = {"newQty": random.choice(_QUANTITIES)}
        case "deposit" | "withdraw":
            params = {
                "asset": random.choice(("USDT", "BTC", "BNB")),
                "amount": random.choice(("0.00000001", "3", "700")),
            }
        case "trade":
            params = {"price": _near(random, 0, 12), "quantity": _quantity(random), "maker": _side(random)}
        case "push":
            params = {"price": _near(random, 0, 60)}
        case "book" | "levels":
            spread = random.choice((1, 1, 2, 10))
            bid = random.choice((0, 0, -1, 1, -15, 15))
            params = {"bid": f"@{bid}", "ask": f"@{bid + spread}"}
            params |= {"quantity": random.choice(("0.002", "0.05", "0.5", "3")), "levels": str(random.randint(0, 6))}
        case "wait":
            params = {"seconds": random.choice(("1", "70", "400"))}
        case _:
            pass
    if kind in ("oco", "oto", "otoco", "opo", "opoco") and random.random() < 0.1:
        params["listClientOrderId"] = f"list-{random.randrange(3)}"
    return Operation(kind, trader, params, pick)


_WEIGHTS: Final = {
    "order": 40, "test": 2, "oco": 7, "oto": 5, "otoco": 7, "opo": 3, "opoco": 3, "cancel": 10, "cancel list": 3,
    "cancel all": 2, "replace": 5, "amend": 4, "deposit": 3, "withdraw": 2, "trade": 14, "push": 5, "book": 5,
    "levels": 10, "wait": 2, "restart": 2,
}  # fmt: skip


def _single(random: Random) -> dict[str, str]:
    """A single order of any type, mostly with what its type asks for."""
    kind = random.choice(("LIMIT", "LIMIT", "MARKET", *ORDER_TYPES))
    params = {"side": _side(random), "type": kind} | _terms(random, "", kind, random.choice((-1, 1)))
    if kind == "MARKET" and random.random() < 0.5:
        params["quoteOrderQty"] = random.choice(("50", "3000", "123.456", "90000"))
    else:
        params["quantity"] = _quantity(random)
    if random.random() < 0.3:
        params["newOrderRespType"] = random.choice(("ACK", "RESULT", "FULL"))
    if random.random() < 0.1:
        params["newClientOrderId"] = f"mine-{random.randrange(4)}"
    if random.random() < 0.05:
        params[random.choice(_NAMES)] = "1"
    if random.random() < 0.5:
        params["selfTradePreventionMode"] = random.choice(_STP)
    return params


def _working(random: Random, kind: str) -> dict[str, str]:
    side = _side(random)
    pending = side if random.random() < 0.2 else "SELL" if side == "BUY" else "BUY"
    params = {"workingType": random.choice(("LIMIT", "LIMIT", "LIMIT_MAKER")), "workingSide": side}
    quantity = _quantity(random)
    params["pendingSide"] = pending
    params |= {"workingQuantity": quantity} | _terms(random, "working", params["workingType"], 0)
    if not kind.startswith("opo"):
        params["pendingQuantity"] = random.choice((quantity, _quantity(random)))
    return params


def _pair(random: Random, side: str, above: str, below: str) -> dict[str, str]:
    """The two orders of a pair, mostly of the kinds that fit their places."""
    profits, stops = (*_PROFITS, *["LIMIT_MAKER"] * 3), _STOPS
    upper, lower = (profits, stops) if side == "SELL" else (stops, profits)
    if random.random() < 0.1:
        upper, lower = lower, upper
    terms: dict[str, str] = {}
    for prefix, kinds, where in ((above, upper, 1), (below, lower, -1)):
        kind = random.choice(kinds)
        terms |= {f"{prefix}Type": kind} | _terms(random, prefix, kind, where)
    return terms


def _terms(random: Random, prefix: str, kind: str, where: int) -> dict[str, str]:
    """Price, trigger, time in force and the like of an order of a type."""
    terms: dict[str, str] = {}
    distance = where * random.choice((0, 4, 5, 8, 20, 60))
    if kind in ("LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        terms["price"] = _near(random, distance, 4)
    if kind in ("LIMIT", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"):
        terms["timeInForce"] = random.choice(_TIMES_IN_FORCE)
    if kind.startswith(("STOP", "TAKE")):
        trailing = random.random()
        if trailing < 0.9:
            terms["stopPrice"] = _near(random, distance, 4)
        if trailing > 0.8:
            terms["trailingDelta"] = str(random.choice((10, 25, 100)))
    if random.random() < 0.06:
        terms["icebergQty"] = random.choice(("0.001", "0.01", "0.1"))
    if random.random() < 0.05:
        terms |= {"strategyId": "7", "strategyType": "1000001"}
    return {(prefix + name[0].upper() + name[1:] if prefix else name): value for name, value in terms.items()}


def _side(random: Random) -> str:
    return random.choice(("BUY", "SELL"))


def _quantity(random: Random) -> str:
    return random.choice(_ODD_QUANTITIES if random.random() < 0.03 else _QUANTITIES)


def _near(random: Random, distance: int, reach: int) -> str:
    return f"@{distance + random.randint(-reach, reach)}{random.choice(('', '', '', '.5', '.01'))}"
