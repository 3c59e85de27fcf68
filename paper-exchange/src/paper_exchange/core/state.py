"""All that the exchange knows, the questions to it, and what it has to store and to tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from paper_exchange.core import reports
from paper_exchange.core.errors import ExchangeError, bad_symbol, neither, no_such_order
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Account, Order, OrderList, OrderType, PreventedMatch, Trade
from paper_exchange.core.reports import Json
from paper_exchange.core.symbols import ExchangeRules, SymbolRules


@dataclass(frozen=True, slots=True)
class UserEvent:
    """An event for the owner of an account."""

    uid: int
    payload: Json


@dataclass(frozen=True, slots=True)
class TradePrint:
    """A public trade; amounts in units."""

    symbol: str
    trade_id: int
    price: int
    quantity: int
    buyer_is_maker: bool
    time: int
    taker: int = 0
    """The order that took, 0 for an outsider's."""


Output = UserEvent | TradePrint


@dataclass(slots=True)
class Changes:
    """What must be stored before anybody hears of it."""

    accounts: dict[int, Account] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    lists: dict[int, OrderList] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    prevented: list[PreventedMatch] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.accounts or self.orders or self.lists or self.trades or self.prevented)


_ARCHIVED_AFTER_MS: Final = 90 * 86_400_000


class Ended(Protocol):
    """Finds orders and lists that are over and no longer in memory."""

    def order_of_id(self, order_id: int) -> Order | None:
        """An order, whoever owns it."""

    def order_named(self, uid: int, symbol: str, client_order_id: str) -> Order | None:
        """The newest order that an account gave a name."""

    def list_of_id(self, list_id: int) -> OrderList | None:
        """A list, whoever owns it."""

    def list_named(self, uid: int, client_list_id: str) -> OrderList | None:
        """The newest list that an account gave a name."""


class State:
    """Accounts, orders, lists, trades and markets, each found by the ids that lead to it."""

    def __init__(self, symbols: Iterable[SymbolRules], start_ms: int) -> None:
        # Public trades and executions are not stored: identifiers that grow faster than they are used (100 trades,
        # 10,000 executions a second) stay unique and rising over restarts.
        self.markets = {rules.symbol: MarketState(rules, start_ms // 10) for rules in symbols}
        self.rules = ExchangeRules()
        self.accounts: dict[int, Account] = {}
        self.orders: dict[int, Order] = {}
        self.lists: dict[int, OrderList] = {}
        self.trades: dict[tuple[int, str], list[Trade]] = {}
        self.next_order_id = 1
        self.next_list_id = 0
        self.next_execution_id = start_ms * 10
        self.opened: dict[tuple[int, str], dict[int, Order]] = {}
        """Open orders by account and symbol, then by id."""
        self.by_client: dict[tuple[int, str, str], int] = {}
        """The newest order of each account, symbol and client order id."""
        self.list_by_client: dict[tuple[int, str], int] = {}
        self.locks: dict[int, int] = {}
        """What an order keeps aside, or a pair under the lower of its two ids."""
        self.sequence = 0
        """The place in the queue that was given last."""
        self.now = start_ms
        self.fills: list[Trade] = []
        """Fills since the input began."""
        self.prevented: list[PreventedMatch] = []
        """Prevented matches since then."""
        self.outputs: list[Output] = []
        self.changes = Changes()
        self.touched: dict[int, set[str]] = {}
        """Assets whose balances the input may have changed, by account."""
        self.ended: Ended | None = None
        """Asked for what was forgotten."""

    # -- questions ---------------------------------------------------------------------------------------------

    def market(self, symbol: str) -> MarketState:
        """The state of a symbol; -1121 when it is not traded here."""
        try:
            return self.markets[symbol]
        except KeyError:
            raise bad_symbol() from None

    def open_orders(self, uid: int, symbol: str | None = None) -> list[Order]:
        """Open orders by id, of one symbol or all."""
        symbols = [symbol] if symbol is not None else list(self.markets)
        return [order for one in symbols for order in self.opened.get((uid, one), {}).values()]

    def find_order(self, uid: int, symbol: str, order_id: int | None, client_order_id: str | None) -> Order:
        """An order by either id; -2013 when it does not exist, -2039 when the ids do not belong together."""
        self.market(symbol)
        if order_id is None and client_order_id is None:
            raise neither("origClientOrderId", "orderId")
        order = self.find(uid, symbol, order_id, client_order_id)
        if order is None:
            raise no_such_order()
        if client_order_id is not None and order.client_order_id != client_order_id:
            raise ExchangeError(-2039, "Client order ID is not correct for this order ID.")
        if not order.open and not order.executed and self.now - order.update_time > _ARCHIVED_AFTER_MS:
            raise ExchangeError(
                -2026, "Order was canceled or expired with no executed qty over 90 days ago and has been archived."
            )
        return order

    def find(self, uid: int, symbol: str, order_id: int | None, client_order_id: str | None) -> Order | None:
        if order_id is None:
            order_id = self.by_client.get((uid, symbol, client_order_id or ""), -1)
            order = self.orders.get(order_id)
            if order is None and self.ended is not None:
                order = self.ended.order_named(uid, symbol, client_order_id or "")
        else:
            order = self.orders.get(order_id)
            if order is None and self.ended is not None:
                order = self.ended.order_of_id(order_id)
        return order if order is not None and order.uid == uid and order.symbol == symbol else None

    def find_list(self, uid: int, list_id: int | None, client_list_id: str | None) -> OrderList | None:
        """A list by either id, or None; of both ids, the second must be that of the list with the first."""
        if list_id is None:
            group = self.lists.get(self.list_by_client.get((uid, client_list_id or ""), -1))
            if group is None and self.ended is not None:
                group = self.ended.list_named(uid, client_list_id or "")
        else:
            group = self.lists.get(list_id)
            if group is None and self.ended is not None:
                group = self.ended.list_of_id(list_id)
        if group is None or group.uid != uid or client_list_id not in (None, group.client_list_id):
            return None
        return group

    def members(self, group: OrderList) -> list[Order]:
        """The orders of a list in the order of their ids."""
        if group.list_id not in self.lists and self.ended is not None:
            found = (self.ended.order_of_id(order_id) for order_id in group.order_ids)
            return [order for order in found if order is not None]
        return [self.orders[order_id] for order_id in group.order_ids]

    def list_body(self, group: OrderList, time: int | None = None) -> Json:
        """A list as queries answer it."""
        return reports.order_list(group, self.members(group), time)

    def answer(self, order: Order, response: str) -> Json:
        """The answer to a new order in the form asked for."""
        if not response:
            response = "FULL" if order.type in (OrderType.MARKET, OrderType.LIMIT) else "ACK"
        if response == "ACK":
            return reports.ack(order)
        body = reports.result(order)
        if response == "FULL":
            body |= reports.fills(fill for fill in self.fills if fill.order_id == order.order_id)
        matches = [one for one in self.prevented if one.taker_order_id == order.order_id]
        if matches:
            body |= reports.prevented_matches(matches)
        return body

    # -- changes -----------------------------------------------------------------------------------------------

    def index(self, order: Order) -> None:
        key = (order.uid, order.symbol)
        self.orders[order.order_id] = order
        self.by_client[(*key, order.client_order_id)] = order.order_id
        if order.open:
            self.opened.setdefault(key, {})[order.order_id] = order

    def forget(self, over: Order | OrderList) -> None:
        """An order that is over and in no list, or a list that is done and its orders, leave the memory."""
        if isinstance(over, OrderList):
            self.lists.pop(over.list_id, None)
            if self.list_by_client.get((over.uid, over.client_list_id)) == over.list_id:
                del self.list_by_client[(over.uid, over.client_list_id)]
        for order_id in over.order_ids if isinstance(over, OrderList) else (over.order_id,):
            order = self.orders.pop(order_id, None)
            if order is not None:
                name = (order.uid, order.symbol, order.client_order_id)
                if self.by_client.get(name) == order_id:
                    del self.by_client[name]

    def rename(self, order: Order, client_order_id: str) -> None:
        """From now on an order has another client order id; the old one finds nothing."""
        del self.by_client[(order.uid, order.symbol, order.client_order_id)]
        order.client_order_id = client_order_id
        self.by_client[(order.uid, order.symbol, client_order_id)] = order.order_id

    def forget_all(self, *, drop_accounts: bool = False) -> None:
        """All orders and lists leave the memory; none may be open. Ids go on, so that no two are ever the same."""
        if drop_accounts:
            self.accounts.clear()
        for one in (self.orders, self.lists, self.by_client, self.list_by_client, self.trades):
            one.clear()

    def touch(self, uid: int, asset: str) -> None:
        account = self.accounts[uid]
        account.update_time = self.now
        self.changes.accounts[uid] = account
        self.touched.setdefault(uid, set()).add(asset)

    def report(
        self,
        order: Order,
        execution: str,
        fill: Trade | None = None,
        *,
        prevented: PreventedMatch | None = None,
        replaced: str = "",
    ) -> None:
        """Store an order and tell its owner what happened; `replaced` is the client order id it had before."""
        self.changes.orders[order.order_id] = order
        event = reports.execution_report(order, execution, self.now, self.next_execution_id, fill)
        if prevented is not None:
            event |= reports.prevention(order, prevented)
        self.next_execution_id += 1
        self.tell(order.uid, event | {"C": replaced} if replaced else event)

    def report_list(self, group: OrderList, *, updated: bool = False) -> None:
        """Store a list and tell its owner how it stands, or that an order of it has a new client order id."""
        self.changes.lists[group.list_id] = group
        event = reports.list_status(group, self.members(group), self.now)
        self.tell(group.uid, event | {"l": "UPDATED"} if updated else event)

    def tell(self, uid: int, payload: Json) -> None:
        """An event for the owner of an account."""
        self.outputs.append(UserEvent(uid, payload))


def generated_id(kind: str, number: int) -> str:
    """A client id for who gave none: 22 characters that follow from what it names."""
    return hashlib.sha256(f"{kind}/{number}".encode()).hexdigest()[:22]
