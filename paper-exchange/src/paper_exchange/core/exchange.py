"""The matching engine: accounts, orders and lists against an outside market, deterministic in its inputs.

Fill model: a taker takes the levels the market shows, and what it took stays taken until the market changes that
level; a resting order waits behind the outside quantity it found, and is filled by trades at its price after that
queue, by trades through its price, and by a book that crosses it; triggers follow the last traded price.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from paper_exchange.core import reports
from paper_exchange.core.account_filters import check_may_cancel
from paper_exchange.core.amending import amend
from paper_exchange.core.checks import check_entry, check_filters, check_funds
from paper_exchange.core.ending import cancel_order, expire_sibling
from paper_exchange.core.entering import work
from paper_exchange.core.errors import INSUFFICIENT_BALANCE, ExchangeError, neither, rejected, unknown_order_on_cancel
from paper_exchange.core.fills import print_trade
from paper_exchange.core.list_requests import NewOrderList
from paper_exchange.core.lists import activate, check_list, create_list
from paper_exchange.core.market import MarketState
from paper_exchange.core.model import Account, AccountSettings, Order, OrderList, Trade
from paper_exchange.core.money import restore_lock
from paper_exchange.core.outside import fill_crossed, forget_pushed, sweep, trade_with_resting
from paper_exchange.core.placing import check_order, place_order
from paper_exchange.core.replacing import cancel_target, replace_order
from paper_exchange.core.reports import Json
from paper_exchange.core.requests import AmendTarget, CancelTarget, NewOrder
from paper_exchange.core.state import Changes, Output, State, generated_id
from paper_exchange.core.triggers import forget_ended, wait
from paper_exchange.core.units import LARGEST, SCALE


class Exchange(State):
    """All accounts and markets; every input carries the exchange time in milliseconds."""

    # -- inputs ------------------------------------------------------------------------------------------------

    @contextmanager
    def _input(self, now: int, market: MarketState | None = None) -> Iterator[None]:
        """One input: time never runs back; at its end comes what its trades set off, then balances are told once."""
        self.now = max(now, self.now)
        self.fills = []
        self.prevented = []
        try:
            yield
            if market is not None:
                self._settle(market)
        finally:
            for uid, assets in self.touched.items():
                event = reports.account_position(self.accounts[uid], assets, self.now)
                self.tell(uid, event)
            self.touched = {}

    def take_outputs(self) -> list[Output]:
        """What happened since the last call, in order."""
        outputs, self.outputs = self.outputs, []
        return outputs

    def take_changes(self) -> Changes:
        """What has to be stored since the last call."""
        changes, self.changes = self.changes, Changes()
        return changes

    def open_account(self, uid: int, deposits: dict[str, int], now: int) -> Account:
        """A new account with what was paid in."""
        self.accounts[uid] = Account(uid)
        for asset, amount in deposits.items():
            self.deposit(uid, asset, amount, now)
        self.changes.accounts[uid] = self.accounts[uid]
        return self.accounts[uid]

    def deposit(self, uid: int, asset: str, amount: int, now: int) -> None:
        """Pay into an account."""
        with self._input(now):
            self.accounts[uid].balance(asset).free += amount
            self.tell(uid, reports.balance_update(asset, amount, self.now))
            self.touch(uid, asset)

    def withdraw(self, uid: int, asset: str, amount: int, now: int) -> None:
        """Pay out of what is free of an account; -2010 where that is less."""
        with self._input(now):
            if self.accounts[uid].balance(asset).free < amount:
                raise rejected(INSUFFICIENT_BALANCE)
            self.accounts[uid].balance(asset).free -= amount
            self.tell(uid, reports.balance_update(asset, -amount, self.now))
            self.touch(uid, asset)

    def change_account(self, uid: int, settings: AccountSettings) -> None:
        """What holds for an account from now on."""
        account = self.accounts[uid]
        for one in fields(settings):
            value = getattr(settings, one.name)
            if value is not None:
                setattr(account, one.name, value)
        self.changes.accounts[uid] = account

    def reset_account(self, uid: int, deposits: dict[str, int], now: int) -> None:
        """Begin anew: nothing open, and these balances; history stays."""
        account = self.accounts[uid]
        with self._input(now):
            for order in self.open_orders(uid):
                if order.open:
                    cancel_order(self, self.markets[order.symbol], order, None)
            for asset in sorted({*account.balances, *deposits}):
                delta = deposits.get(asset, 0) - account.balance(asset).free
                if delta:
                    account.balance(asset).free += delta
                    self.tell(uid, reports.balance_update(asset, delta, self.now))
                    self.touch(uid, asset)

    def change_status(self, symbol: str, status: str) -> None:
        """What clients may do with a symbol from now on; the market goes on whatever it is."""
        self.market(symbol).status = status

    def change_filters(self, symbol: str, changes: Mapping[str, int]) -> None:
        """Filters of a symbol from now on, by their names in its rules; what rests stays."""
        market = self.market(symbol)
        market.rules = replace(market.rules, **dict[str, Any](changes))

    def set_bnb_discount(self, uid: int, enabled: bool) -> None:
        """Whether BNB pays the account's commissions from now on."""
        self.accounts[uid].bnb_discount = enabled
        self.changes.accounts[uid] = self.accounts[uid]

    def seed(self, symbol: str, last: int, traded: Iterable[tuple[int, int, int]]) -> None:
        """History before the start: the last price, and (time ms, base, quote) for the average price."""
        market = self.market(symbol)
        market.last = last
        for time, base, quote in traded:
            market.record(time, base, quote)
            if base:
                market.reference.add(time, quote * SCALE // base)

    def on_book(
        self,
        symbol: str,
        bids: Sequence[tuple[int, int]],
        asks: Sequence[tuple[int, int]],
        snapshot: bool,
        now: int,
    ) -> None:
        """The outside book changed: absolute quantities, 0 removes a level; a snapshot replaces all."""
        market = self.market(symbol)
        with self._input(now, market):
            forget_pushed(market)
            for ladder, levels in ((market.bids, bids), (market.asks, asks)):
                if snapshot:
                    ladder.replace(levels)
                else:
                    for price, quantity in levels:
                        ladder.set_level(price, quantity)
            fill_crossed(self, market)

    def on_trade(self, symbol: str, price: int, quantity: int, buyer_is_maker: bool, now: int) -> None:
        """Outsiders traded: our orders that were better, or whose turn it was, take part."""
        market = self.market(symbol)
        with self._input(now, market):
            left = trade_with_resting(self, market, price, quantity, buyer_is_maker)
            if left:
                print_trade(self, market, price, left, buyer_is_maker)

    def push_trade(self, symbol: str, price: int, now: int) -> None:
        """An outside trade that sweeps the book to a price: ours up to it fill, better levels move to it.

        What the market offered at better prices stands at this price until its next update.
        """
        market = self.market(symbol)
        with self._input(now, market):
            forget_pushed(market)
            sweep(self, market, price)

    def gap(self, symbol: str, by: int, now: int) -> None:
        """The outside market jumps: its book stands elsewhere at once, and the next trade is there.

        Resting orders of ours that the book crosses fill at their own price.
        """
        market = self.market(symbol)
        price = (market.last or 0) + by
        with self._input(now, market):
            forget_pushed(market)
            for ladder in (market.bids, market.asks):
                ladder.replace(
                    [(level + by, quantity) for level, quantity in ladder.outside() if 0 < level + by <= LARGEST]
                )
            fill_crossed(self, market)
            left = trade_with_resting(self, market, price, market.rules.step, by < 0)
            if left:
                print_trade(self, market, price, left, by < 0)

    def place(self, uid: int, request: NewOrder, now: int, response: str = "") -> Json:
        """A new order; `response` is ACK, RESULT, FULL or empty for the default of its type."""
        market = self.market(request.symbol)
        with self._input(now, market):
            check_filters(self, market, uid, (request,))
            return place_order(self, market, uid, request, response)

    def test(self, uid: int, request: NewOrder, now: int) -> None:
        """Check a new order as `place` does, and leave it."""
        market = self.market(request.symbol)
        with self._input(now, market):
            check_filters(self, market, uid, (request,))
            check_order(self, market, uid, request)

    def place_list(self, uid: int, request: NewOrderList, now: int, response: str = "") -> Json:
        """A new OCO, OTO or OTOCO: all of it is accepted, or nothing."""
        market = self.market(request.symbol)
        with self._input(now, market):
            first = (request.working,) if request.working else request.legs
            later = request.legs if request.working else ()
            check_filters(self, market, uid, first, later, sized=not request.pays)
            check_list(self, market, uid, request)
            check_entry(self, market, uid, first, later)
            check_funds(self, market, uid, first, first[0].quantity)
            return create_list(self, market, uid, request, response)

    def cancel(
        self,
        uid: int,
        symbol: str,
        *,
        order_id: int | None,
        client_order_id: str | None,
        new_client_order_id: str | None = None,
        now: int,
        restriction: str = "",
    ) -> Json:
        """Cancel an order, and with it the list it belongs to."""
        market = self.market(symbol)
        with self._input(now, market):
            if order_id is None and client_order_id is None:
                raise neither("origClientOrderId", "orderId")
            target = CancelTarget(order_id, client_order_id, new_client_order_id, restriction)
            return cancel_target(self, market, uid, target)

    def cancel_replace(
        self,
        uid: int,
        target: CancelTarget,
        request: NewOrder,
        now: int,
        *,
        go_on: bool,
        response: str = "",
        excess: ExchangeError | None = None,
    ) -> Json:
        """Cancel an order, then place one; -2021 or -2022 with both results unless both succeed.

        Without `go_on` nothing is placed where nothing was cancelled; with an `excess` of orders nothing is placed.
        """
        market = self.market(request.symbol)
        with self._input(now, market):
            check_filters(self, market, uid, (request,))
            results = replace_order(self, market, uid, target, request, go_on=go_on, response=response, excess=excess)
        return results.answer()

    def amend(self, uid: int, symbol: str, target: AmendTarget, now: int) -> Json:
        """Reduce an open order, which keeps its place in the queue."""
        market = self.market(symbol)
        with self._input(now, market):
            return amend(self, market, uid, target)

    def cancel_list(
        self,
        uid: int,
        symbol: str,
        *,
        list_id: int | None,
        client_list_id: str | None,
        new_client_order_id: str | None = None,
        now: int,
    ) -> Json:
        """Cancel every open order of a list."""
        market = self.market(symbol)
        with self._input(now, market):
            if list_id is None and client_list_id is None:
                raise neither("listClientOrderId", "orderListId")
            check_may_cancel(self.accounts[uid], market)
            group = self.find_list(uid, list_id, client_list_id)
            if group is None or group.done or group.symbol != symbol:
                raise unknown_order_on_cancel()
            order = next(one for one in self.members(group) if one.open)
            return cancel_order(self, market, order, new_client_order_id)

    def cancel_all(self, uid: int, symbol: str, now: int) -> list[Json]:
        """Cancel all open orders and lists of a symbol."""
        market = self.market(symbol)
        with self._input(now, market):
            check_may_cancel(self.accounts[uid], market)
            mine = self.open_orders(uid, symbol)
            if not mine:
                raise unknown_order_on_cancel()
            ident = generated_id("cancel", self.next_execution_id)
            return [cancel_order(self, market, order, ident) for order in mine if order.open]

    def _settle(self, market: MarketState) -> None:
        """Do what trades set off, until nothing is left to do."""
        while market.todo:
            what, ident = market.todo.popleft()
            if what == "activate":
                activate(self, market, self.lists[ident])
                continue
            order = self.orders.get(ident)
            if order is not None and order.live and order.untriggered:
                expire_sibling(self, market, order)
                work(self, market, order)

    def keep_places(self) -> None:
        """Have those orders stored that came forward in their queues since the last time."""
        for market in self.markets.values():
            for ladder in (market.bids, market.asks):
                self.changes.orders |= {ident: order for ident, order in ladder.moved.items() if order.live}
                ladder.moved.clear()

    def forget_triggers(self) -> None:
        """Drop the stop prices of orders that are over."""
        for market in self.markets.values():
            forget_ended(self, market)

    # -- restart -----------------------------------------------------------------------------------------------

    def restore(
        self,
        accounts: Iterable[Account],
        orders: Iterable[Order],
        lists: Iterable[OrderList],
        trades: Iterable[Trade],
        *,
        last_ids: tuple[int, int] = (0, -1),
        last_traded: Mapping[str, int] | None = None,
        last_prevented: Mapping[str, int] | None = None,
        statuses: Mapping[str, str] | None = None,
    ) -> None:
        """Take over what was stored and is still at work, each in order of its id; orders go back to their places.

        `last_ids` are the highest ids of orders and lists that were given, `last_traded` and `last_prevented` those of
        trades and prevented matches by symbol, as far as trades themselves do not tell.
        """
        for symbol, market in self.markets.items():
            market.next_trade_id = max(market.next_trade_id, (last_traded or {}).get(symbol, 0) + 1)
            market.next_prevented_id = (last_prevented or {}).get(symbol, -1) + 1
            market.status = (statuses or {}).get(symbol, market.status)
        self.accounts = {account.uid: account for account in accounts}
        for trade in trades:
            self.trades.setdefault((trade.uid, trade.symbol), []).append(trade)
            if trade.symbol in self.markets:
                market = self.markets[trade.symbol]
                market.next_trade_id = max(market.next_trade_id, trade.trade_id + 1)
        for group in lists:
            self.lists[group.list_id] = group
            self.list_by_client[(group.uid, group.client_list_id)] = group.list_id
        self.next_list_id = max(last_ids[1], max(self.lists, default=-1)) + 1
        for order in orders:
            self.index(order)
            self.sequence = max(self.sequence, order.sequence)
        self.next_order_id = max(last_ids[0], max(self.orders, default=0)) + 1
        for order in self.orders.values():
            self._restore_order(order)

    def _restore_order(self, order: Order) -> None:
        market = self.markets.get(order.symbol)
        if not order.live or market is None:
            return
        if order.untriggered:
            wait(market, order)
        else:
            market.ladder(order.side).restore(order)
        restore_lock(self, order)
