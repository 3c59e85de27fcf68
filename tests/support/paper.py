"""A trading desk for tests of the exchange's core: orders as texts, a book by hand, and what came of it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from paper_exchange.core import list_requests, requests
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.state import TradePrint, UserEvent
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import to_decimal, to_units

START_MS = 1_700_000_000_000
SYMBOL = "BTCUSDT"
Levels = list[tuple[str, str]]


def units(amount: str) -> int:
    """Units of a decimal text."""
    return to_units(Decimal(amount))


class Desk:
    """One exchange with one market, BTCUSDT, and a clock that goes on by a millisecond with every input."""

    def __init__(self) -> None:
        self.exchange = Exchange([SYMBOLS[SYMBOL]], START_MS)
        self.now = START_MS

    def tick(self) -> int:
        """The time of the next input."""
        self.now += 1
        return self.now

    def open(self, uid: int, **deposits: str) -> None:
        """An account with money."""
        self.exchange.open_account(uid, {a: units(v) for a, v in deposits.items()}, self.tick())

    def book(self, bids: Levels, asks: Levels, snapshot: bool = True) -> None:
        """The outside book."""
        self.exchange.on_book(SYMBOL, _levels(bids), _levels(asks), snapshot, self.tick())

    def trade(self, price: str, quantity: str = "0.00001", seller_takes: bool = True) -> None:
        """A trade between outsiders."""
        self.exchange.on_trade(SYMBOL, units(price), units(quantity), seller_takes, self.tick())

    def push(self, price: str) -> None:
        """An outside trade that sweeps the book."""
        self.exchange.push_trade(SYMBOL, units(price), self.tick())

    def place(self, uid: int, side: str, kind: str = "LIMIT", response: str = "FULL", **params: str) -> dict[str, Any]:
        """A single order; a LIMIT is GTC unless told otherwise."""
        if kind == "LIMIT":
            params.setdefault("timeInForce", "GTC")
        request = requests.new_order({"symbol": SYMBOL, "side": side, "type": kind, **params})
        return self.exchange.place(uid, request, self.tick(), response)

    def bracket(self, uid: int, quantity: str, limit: str, stop: str, profit: str, **params: str) -> dict[str, Any]:
        """An OTOCO: buy at a limit (FOK unless told otherwise), then a stop loss and a take profit."""
        request = list_requests.new_otoco(
            {
                "symbol": SYMBOL,
                "workingType": "LIMIT",
                "workingSide": "BUY",
                "workingPrice": limit,
                "workingQuantity": quantity,
                "workingTimeInForce": "FOK",
                "pendingSide": "SELL",
                "pendingQuantity": quantity,
                "pendingAboveType": "LIMIT_MAKER",
                "pendingAbovePrice": profit,
                "pendingBelowType": "STOP_LOSS",
                "pendingBelowStopPrice": stop,
                **params,
            }
        )
        return self.exchange.place_list(uid, request, self.tick())

    def oco(self, uid: int, quantity: str, stop: str, profit: str, **params: str) -> dict[str, Any]:
        """A sell OCO: a stop loss below and a take profit above."""
        request = list_requests.new_oco(
            {
                "symbol": SYMBOL,
                "side": "SELL",
                "quantity": quantity,
                "aboveType": "LIMIT_MAKER",
                "abovePrice": profit,
                "belowType": "STOP_LOSS",
                "belowStopPrice": stop,
                **params,
            }
        )
        return self.exchange.place_list(uid, request, self.tick())

    def cancel(self, uid: int, order_id: int) -> dict[str, Any]:
        """Cancel by order id."""
        return self.exchange.cancel(uid, SYMBOL, order_id=order_id, client_order_id=None, now=self.tick())

    def status(self, order_id: int) -> tuple[str, str, str | None]:
        """Status, executed quantity and expiry reason of an order."""
        order = self.exchange.orders[order_id]
        return order.status.value, f"{to_decimal(order.executed).normalize():f}", order.expiry_reason

    def held(self, uid: int, asset: str) -> tuple[str, str]:
        """Free and locked of an asset."""
        balance = self.exchange.accounts[uid].balance(asset)
        return f"{to_decimal(balance.free).normalize():f}", f"{to_decimal(balance.locked).normalize():f}"

    def events(self, uid: int) -> list[dict[str, Any]]:
        """The user events of an account since the last look, and nothing more of the others."""
        outputs = self.exchange.take_outputs()
        return [out.payload for out in outputs if isinstance(out, UserEvent) and out.uid == uid]

    def prints(self) -> list[tuple[str, str]]:
        """Price and quantity of the public trades since the last look."""
        outputs = self.exchange.take_outputs()
        return [
            (f"{to_decimal(out.price).normalize():f}", f"{to_decimal(out.quantity).normalize():f}")
            for out in outputs
            if isinstance(out, TradePrint)
        ]


def brief(events: list[dict[str, Any]]) -> list[str]:
    """User events in a word each: what happened, to which order, and how it stands."""
    told = []
    for event in events:
        if event["e"] == "executionReport":
            told.append(f"{event['x']} {event['i']} {event['X']}")
        elif event["e"] == "listStatus":
            told.append(f"list {event['L']}")
        else:
            told.append(event["e"])
    return told


def _levels(levels: Levels) -> list[tuple[int, int]]:
    return [(units(price), units(quantity)) for price, quantity in levels]


def desk_of(uid: int) -> Desk:
    """A desk whose account has both assets, and a book around 60000; its events so far are taken."""
    desk = Desk()
    desk.open(uid, USDT="100000", BTC="5")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.events(uid)
    return desk
