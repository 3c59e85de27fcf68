"""Random walks of a paper exchange with its store: three traders, a market and restarts, and what must hold after
each operation. Hypothesis draws the operations, and cuts a failing sequence down to those that it needs.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from prometheus_client import CollectorRegistry

from campaigns.paper_ledger import OPEN, Json, Ledger, promise, units
from campaigns.paper_operations import FIRST_PRICE, STILL, SYMBOL, Operation, operations
from paper_exchange.api import SpotApi
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.units import to_units
from paper_exchange.endpoint import Call
from paper_exchange.limits import Limits
from paper_exchange.market.events import BookUpdate, Candle, MarketTrade
from paper_exchange.store import Store
from paper_exchange.venue import Venue

WALKS: Final = 20
"""Walks of the campaign."""
_RUNS: Final = 5
"""Runs of Hypothesis in a walk, each with a seed of its own."""
_SETTINGS: Final = settings(
    # From ten examples on, most are near copies of those before them.
    max_examples=9,
    # Of longer sequences Hypothesis gives up the cutting before its end.
    stateful_step_count=100,
    phases=(Phase.generate, Phase.shrink),
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
_START_MS: Final = 1_700_000_000_000
_DEPOSITS: Final = ({"USDT": "50000", "BTC": "2"}, {"USDT": "9000", "BTC": "0.5", "BNB": "1"}, {"USDT": "1000000"})
_LIST_PATHS: Final = {kind: f"/api/v3/orderList/{kind}" for kind in ("oco", "oto", "otoco", "opo", "opoco")}
_KEPT: Final = 3
"""Orders and lists that are over and stay in memory: few, so that most are found in the store."""


@dataclass
class Walk:
    """What came of a walk."""

    seed: int
    operations: int = 0
    seconds: float = 0.0
    executions: Counter[str] = field(default_factory=Counter)
    """How often each execution type and list status was told."""
    done: Counter[str] = field(default_factory=Counter)
    """How many operations of each kind were accepted."""
    refused: Counter[str] = field(default_factory=Counter)
    violation: str = ""


class _Market:
    """History before the start, which ends at a price."""

    def __init__(self, price: Decimal) -> None:
        self._price = price

    def history(self, _symbol: str) -> list[Candle]:
        price, one = self._price, Decimal(1)
        return [Candle(_START_MS - 1000, 1000, price, price, price, price, one, price, 1, one, price)]

    def events(self) -> Iterator[BookUpdate | MarketTrade]:
        return iter(())


class World:
    """A paper exchange over a store in a directory, and what each trader knows of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.now = _START_MS
        self._bids: dict[Decimal, Decimal] = {}
        self._asks: dict[Decimal, Decimal] = {}
        self.heard: dict[int, list[Json]] = {}
        self._open(Decimal(FIRST_PRICE))
        keys = [self.venue.create_account({a: units(v) for a, v in one.items()}) for one in _DEPOSITS]
        self.uids = [key.uid for key in keys]
        self._keys = {key.uid: key.api_key for key in keys}
        self.ledgers: dict[int, Ledger] = {}
        for uid, deposits in zip(self.uids, _DEPOSITS, strict=True):
            held = {asset: units(amount) for asset, amount in deposits.items()}
            self.ledgers[uid] = Ledger(owned=dict(held), balances={a: (v, 0) for a, v in held.items()})
        self._listen()
        self._snapshot(Decimal(FIRST_PRICE), Decimal(FIRST_PRICE + 1), Decimal(1), 3)

    def _open(self, price: Decimal) -> None:
        self.store = Store(self._directory)
        self.venue = Venue((SYMBOL,), _Market(price), self.store, lambda: self.now, CollectorRegistry(), kept=_KEPT)
        self.api = SpotApi(self.venue, Limits(1_000_000))

    def _listen(self) -> None:
        for uid in self.uids:
            self.heard[uid] = []
            self.venue.subscribe(uid, self.heard[uid].append)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def call(self, method: str, path: str, uid: int, params: dict[str, str]) -> Any:
        """One request of REST, after its sender was proven."""
        route = self.api.routes.get((method, path))
        if route is None:
            raise ExchangeError(0, "there is no such endpoint yet", status=404)
        return route.answer(Call(params, uid, self.now, self._keys.get(uid, "")))

    # -- operations --------------------------------------------------------------------------------------------

    def act(self, operation: Operation) -> None:
        """One operation; ExchangeError when the exchange refuses it."""
        self.now += 1
        try:
            self._act(operation, self.uids[operation.trader])
        finally:
            self.venue.commit()

    def _act(self, operation: Operation, uid: int) -> None:
        params = {"symbol": SYMBOL}
        params |= {name: self._meant(uid, name, value) for name, value in operation.params.items()}
        what = operation.what
        match what:
            case "order":
                self.call("POST", "/api/v3/order", uid, params)
            case "test":
                self.call("POST", "/api/v3/order/test", uid, params)
            case "oco" | "oto" | "otoco" | "opo" | "opoco":
                self.call("POST", _LIST_PATHS[what], uid, params)
            case "cancel":
                self.call("DELETE", "/api/v3/order", uid, params)
            case "cancel list":
                self.call("DELETE", "/api/v3/orderList", uid, params)
            case "cancel all":
                self.call("DELETE", "/api/v3/openOrders", uid, params)
            case "replace":
                self.call("POST", "/api/v3/order/cancelReplace", uid, params)
            case "amend":
                self.call("PUT", "/api/v3/order/amend/keepPriority", uid, params)
            case "deposit":
                self.venue.exchange.deposit(uid, params["asset"], units(params["amount"]), self.now)
            case "withdraw":
                self.venue.exchange.withdraw(uid, params["asset"], units(params["amount"]), self.now)
            case "trade":
                price, quantity = Decimal(params["price"]), Decimal(params["quantity"])
                self.venue.feed(MarketTrade(SYMBOL, self.now, price, quantity, params["maker"] == "BUY"))
            case "push":
                self.venue.exchange.push_trade(SYMBOL, units(params["price"]), self.now)
            case "book" | "levels":
                bid, ask, quantity = (Decimal(params[name]) for name in ("bid", "ask", "quantity"))
                change = self._snapshot if what == "book" else self._levels
                change(bid, ask, quantity, int(params["levels"]))
            case "wait":
                self.now += int(params["seconds"]) * 1000
            case "restart":
                self._restart()

    def _meant(self, uid: int, name: str, value: str) -> str:
        """What a distance from the last price, or a place among what is open, stands for now."""
        match value[:1]:
            case "@":
                last = Decimal(self.venue.exchange.market(SYMBOL).last or 0) / 10**8
                return str(max(Decimal(100), last + Decimal(value[1:])))
            case "#" if name == "orderListId":
                return _at(value, [ident for ident, one in self.ledgers[uid].lists.items() if one["L"] == "EXECUTING"])
            case "#":
                orders = self.ledgers[uid].orders
                return _at(value, [ident for ident, one in orders.items() if one["X"] in OPEN] or list(orders))
        return value

    def _snapshot(self, bid: Decimal, ask: Decimal, quantity: Decimal, levels: int) -> None:
        self._bids = {bid - 5 * n: quantity * (n + 1) for n in range(levels)}
        self._asks = {ask + 5 * n: quantity * (n + 1) for n in range(levels)}
        self._tell_book(self._bids, self._asks, snapshot=True)

    def _levels(self, bid: Decimal, ask: Decimal, quantity: Decimal, levels: int) -> None:
        """Some levels change, as in a depth event: what the new best prices cross is gone."""
        bids = {price: Decimal(0) for price in self._bids if price >= ask} | {bid - n: quantity for n in range(levels)}
        asks = {price: Decimal(0) for price in self._asks if price <= bid} | {ask + n: quantity for n in range(levels)}
        for side, changed in ((self._bids, bids), (self._asks, asks)):
            side.update(changed)
            for price in [price for price, held in side.items() if not held]:
                del side[price]
        self._tell_book(bids, asks, snapshot=False)

    def _tell_book(self, bids: dict[Decimal, Decimal], asks: dict[Decimal, Decimal], *, snapshot: bool) -> None:
        below, above = (tuple((to_units(at), to_units(held)) for at, held in side.items()) for side in (bids, asks))
        self.venue.feed(BookUpdate(SYMBOL, self.now, below, above, snapshot))

    def _restart(self) -> None:
        """The process ends and another one opens the store; the market goes on where it was."""
        last = self.venue.exchange.market(SYMBOL).last or 0
        self.store.close()
        self._open(Decimal(last) / 10**8)
        self._listen()
        self._check_state(deep=True)
        self._tell_book(self._bids, self._asks, snapshot=True)

    # -- promises ----------------------------------------------------------------------------------------------

    def check(self, *, refused: bool, deep: bool) -> Iterator[Json]:
        """Everything that must hold between two operations; gives the events since the last look.

        Deep: all orders, trades and lists are compared, not only the open ones.
        """
        told: list[tuple[int, Json]] = []
        for uid, heard in self.heard.items():
            events, heard[:] = list(heard), []
            told += [(uid, event) for event in events]
            self.ledgers[uid].take(events)
        promise(not (refused and told), "what is refused changes nothing", told)
        _check_both_sides([event for _, event in told])
        self._check_state(deep=deep)
        return (event for _, event in told)

    def _check_state(self, *, deep: bool) -> None:
        still: list[Json] = []
        for uid, ledger in self.ledgers.items():
            symbol = {"symbol": SYMBOL}
            rows = self.call("GET", "/api/v3/openOrders", uid, symbol)
            still += rows
            ledger.compare_orders(rows, only_open=True)
            balances = self.call("GET", "/api/v3/account", uid, {})["balances"]
            ledger.compare_balances(balances)
            ledger.compare_locks(rows, balances)
            ledger.compare_lists(self.call("GET", "/api/v3/openOrderList", uid, {}), only_open=True)
            if deep:
                every = symbol | {"limit": "1000"}
                ledger.compare_orders(self.call("GET", "/api/v3/allOrders", uid, every), only_open=False)
                ledger.compare_trades(self.call("GET", "/api/v3/myTrades", uid, every))
                ledger.compare_lists(self.call("GET", "/api/v3/allOrderList", uid, {"limit": "1000"}), only_open=False)
        resting = [row for row in still if row["isWorking"] and row["status"] != "PENDING_NEW"]
        highest = max((units(row["price"]) for row in resting if row["side"] == "BUY"), default=0)
        lowest = min((units(row["price"]) for row in resting if row["side"] == "SELL"), default=None)
        promise(lowest is None or highest < lowest, "own orders do not cross", highest, lowest)
        book = self.call("GET", "/api/v3/depth", 0, {"symbol": SYMBOL, "limit": "1"})
        if book["bids"] and book["asks"]:
            promise(units(book["bids"][0][0]) < units(book["asks"][0][0]), "the book does not cross", book)


def _at(place: str, idents: Sequence[int]) -> str:
    """The id in a place from the newest on, or one that does not exist."""
    return str(idents[-1 - min(int(place[1:]), len(idents) - 1)] if idents else 999_999)


def _check_both_sides(events: list[Json]) -> None:
    """A trade between two traders is the same on both sides, and nobody trades with himself."""
    sides: dict[int, list[Json]] = {}
    for event in events:
        if event["e"] == "executionReport" and event["x"] == "TRADE":
            sides.setdefault(event["t"], []).append(event)
    for pair in sides.values():
        promise(len(pair) <= 2, "a trade has two sides", pair)
        if len(pair) == 2:
            one, other = pair
            same = all(one[name] == other[name] for name in "lLYT") and one["m"] != other["m"]
            promise(same and one["S"] != other["S"], "both sides of a trade agree", pair)


class Walking(RuleBasedStateMachine):
    """One sequence of operations in a world of its own."""

    walk: ClassVar[Walk]

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory(prefix="paper-walk-")
        self._world = World(Path(self._folder.name))

    @rule(operation=operations())
    def act(self, operation: Operation) -> None:
        """An operation, which the exchange may refuse; then everything holds that must."""
        refused = False
        self.walk.operations += 1
        try:
            self._world.act(operation)
            self.walk.done[operation.what] += 1
        except ExchangeError as error:
            self.walk.refused[f"{operation.what} {error.code}"] += 1
            # A replacement that is refused after the cancel leaves the cancel.
            refused = error.code not in (-2021, -2022)
        # Not after so many operations: what is found then could not be cut down to fewer.
        events = self._world.check(refused=refused, deep=operation.what in STILL)
        self.walk.executions.update(event.get("x") or event["e"] for event in events)

    def teardown(self) -> None:
        """The end; where nothing failed before, everything is compared once more."""
        try:
            if sys.exc_info()[0] is None:
                self._world.check(refused=False, deep=True)
        finally:
            self._world.close()
            self._folder.cleanup()


def walk(number: int) -> Walk:
    """All sequences of a seed; a violation tells the operations that are needed for it."""
    found, begun = Walk(number), time.monotonic()
    try:
        for run in range(_RUNS):
            machine = seed(number * _RUNS + run)(type("Walking", (Walking,), {"walk": found}))
            run_state_machine_as_test(machine, settings=_SETTINGS)
    except Exception:
        found.violation = traceback.format_exc()
    found.seconds = time.monotonic() - begun
    return found
