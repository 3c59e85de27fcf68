"""The matching engine: accounts, orders and lists against an outside market, deterministic in its inputs.

Fill model: a taker takes the levels the market shows, and what it took stays taken until the market changes that
level; a resting order waits behind the outside quantity it found, and is filled by trades at its price after that
queue, by trades through its price, and by a book that crosses it; triggers follow the last traded price.
"""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from heapq import heappop, heappush
from typing import Any, Final

from paper_exchange.core import reports
from paper_exchange.core.errors import (
    BAD_OCO_PRICES,
    INSUFFICIENT_BALANCE,
    WOULD_MATCH,
    ExchangeError,
    bad_symbol,
    filter_failure,
    missing,
    no_such_order,
    rejected,
    unknown_order_on_cancel,
)
from paper_exchange.core.filters import check_static, check_trigger, triggers_rising, would_trigger
from paper_exchange.core.ladder import Ladder
from paper_exchange.core.model import (
    Account,
    Order,
    OrderList,
    OrderStatus,
    OrderType,
    Side,
    StpMode,
    TimeInForce,
    Trade,
)
from paper_exchange.core.reports import Json
from paper_exchange.core.requests import NewOrder, NewOrderList
from paper_exchange.core.symbols import SymbolRules
from paper_exchange.core.units import SCALE, product, to_units

COMMISSION: Final = Decimal("0.001")
"""Share of the received asset that each fill costs, maker and taker alike."""
_COMMISSION_UNITS: Final = to_units(COMMISSION)
_PUSHED_STEPS: Final = 100_000
"""Least quantity, in lot steps, that stands at the price of a pushed trade."""


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


Output = UserEvent | TradePrint


@dataclass(slots=True)
class Changes:
    """What must be stored before anybody hears of it."""

    accounts: dict[int, Account] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    lists: dict[int, OrderList] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.accounts or self.orders or self.lists or self.trades)


class MarketState:
    """One symbol: its book, last price, waiting triggers and the trades of the last minutes."""

    def __init__(self, rules: SymbolRules, next_trade_id: int) -> None:
        self.rules = rules
        self.bids = Ladder(Side.BUY)
        self.asks = Ladder(Side.SELL)
        self.last: int | None = None
        self.next_trade_id = next_trade_id
        self.rising: list[tuple[int, int]] = []
        """(trigger price, order id) of orders that wait for the price to rise."""
        self.falling: list[tuple[int, int]] = []
        """(minus trigger price, order id) of orders that wait for the price to fall."""
        self.todo: deque[tuple[str, int]] = deque()
        """Triggered orders and lists whose pending orders come to life, in order."""
        self.pushed: tuple[Ladder, int, int] | None = None
        """The level that a pushed trade left, and what the market had reported there."""
        self._traded: deque[tuple[int, int, int]] = deque()
        self._traded_base = 0
        self._traded_quote = 0

    def ladder(self, side: Side) -> Ladder:
        """The resting orders of a side."""
        return self.bids if side is Side.BUY else self.asks

    def record(self, time: int, base: int, quote: int) -> None:
        """Count traded amounts into the average price."""
        second = time // 1000
        if self._traded and self._traded[-1][0] == second:
            _, had_base, had_quote = self._traded.pop()
            self._traded.append((second, had_base + base, had_quote + quote))
        else:
            self._traded.append((second, base, quote))
        self._traded_base += base
        self._traded_quote += quote

    def average(self, now: int) -> int | None:
        """Volume-weighted price of the last minutes, else the last price."""
        oldest = now // 1000 - self.rules.average_minutes * 60
        while self._traded and self._traded[0][0] <= oldest:
            _, base, quote = self._traded.popleft()
            self._traded_base -= base
            self._traded_quote -= quote
        if self._traded_base:
            return self._traded_quote * SCALE // self._traded_base
        return self.last


class Exchange:
    """All accounts and markets; every input carries the exchange time in milliseconds."""

    def __init__(self, symbols: Iterable[SymbolRules], start_ms: int) -> None:
        # Public trades are not stored: identifiers that grow faster than they are used (100 a second) stay unique
        # and rising over restarts.
        self.markets = {rules.symbol: MarketState(rules, start_ms // 10) for rules in symbols}
        self.accounts: dict[int, Account] = {}
        self.orders: dict[int, Order] = {}
        self.lists: dict[int, OrderList] = {}
        self.trades: dict[tuple[int, str], list[Trade]] = {}
        self.next_order_id = 1
        self.next_list_id = 0
        self._next_execution_id = 1
        self._open: dict[tuple[int, str], dict[int, Order]] = {}
        self._by_client: dict[tuple[int, str, str], int] = {}
        self._history: dict[tuple[int, str], list[int]] = {}
        self._list_by_client: dict[tuple[int, str], int] = {}
        self._locks: dict[int, int] = {}
        self._sequence = 0
        self._now = start_ms
        self._outputs: list[Output] = []
        self._changes = Changes()
        self._touched: dict[int, set[str]] = {}
        self._fills: list[Trade] = []

    # -- inputs ------------------------------------------------------------------------------------------------

    @contextmanager
    def _input(self, now: int) -> Iterator[None]:
        """One input: time never runs back, and balances are told once at its end."""
        self._now = max(now, self._now)
        self._fills = []
        try:
            yield
        finally:
            for uid, assets in self._touched.items():
                event = reports.account_position(self.accounts[uid], assets, self._now)
                self._outputs.append(UserEvent(uid, event))
            self._touched = {}

    def take_outputs(self) -> list[Output]:
        """What happened since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def take_changes(self) -> Changes:
        """What has to be stored since the last call."""
        changes, self._changes = self._changes, Changes()
        return changes

    def open_account(self, uid: int, deposits: dict[str, int], now: int) -> Account:
        """A new account with what was paid in."""
        self.accounts[uid] = Account(uid)
        for asset, amount in deposits.items():
            self.deposit(uid, asset, amount, now)
        self._changes.accounts[uid] = self.accounts[uid]
        return self.accounts[uid]

    def deposit(self, uid: int, asset: str, amount: int, now: int) -> None:
        """Pay into an account."""
        with self._input(now):
            self.accounts[uid].balance(asset).free += amount
            self._outputs.append(UserEvent(uid, reports.balance_update(asset, amount, self._now)))
            self._touch(uid, asset)

    def seed(self, symbol: str, last: int, traded: Iterable[tuple[int, int, int]]) -> None:
        """History before the start: the last price, and (time ms, base, quote) for the average price."""
        market = self.market(symbol)
        market.last = last
        for time, base, quote in traded:
            market.record(time, base, quote)

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
        with self._input(now):
            self._forget_pushed(market)
            for ladder, levels in ((market.bids, bids), (market.asks, asks)):
                if snapshot:
                    ladder.replace(levels)
                else:
                    for price, quantity in levels:
                        ladder.set_level(price, quantity)
            self._fill_crossed(market)
            self._settle(market)

    def on_trade(self, symbol: str, price: int, quantity: int, buyer_is_maker: bool, now: int) -> None:
        """Outsiders traded: our orders that were better, or whose turn it was, take part."""
        market = self.market(symbol)
        with self._input(now):
            left = self._trade_with_resting(market, price, quantity, buyer_is_maker)
            if left:
                self._print(market, price, left, buyer_is_maker)
            self._settle(market)

    def push_trade(self, symbol: str, price: int, now: int) -> None:
        """An outside trade that sweeps the book to a price: ours up to it fill, better levels move to it.

        What the market offered at better prices stands at this price until its next update.
        """
        market = self.market(symbol)
        with self._input(now):
            self._forget_pushed(market)
            bid, ask = market.bids.best(), market.asks.best()
            buyer_is_maker = price <= bid if bid is not None else ask is None or price < ask
            ladder = market.bids if buyer_is_maker else market.asks
            standing = _PUSHED_STEPS * market.rules.step
            for level in list(ladder.prices()):
                if not ladder.reaches(level, price):
                    break
                for maker in list(ladder.own.get(level, ())):
                    if maker.open:
                        self._fill_maker(market, maker, maker.remaining)
                quantity = ladder.available(level)
                if level != price and quantity:
                    self._print(market, level, quantity, buyer_is_maker)
                    ladder.take(level, quantity)
                    standing += quantity
            market.pushed = (ladder, price, ladder.reported(price))
            ladder.set_level(price, ladder.available(price) + standing)
            self._print(market, price, market.rules.step, buyer_is_maker)
            self._settle(market)

    def _forget_pushed(self, market: MarketState) -> None:
        """The level that a pushed trade left is again what the market reported."""
        if market.pushed is not None:
            ladder, price, quantity = market.pushed
            ladder.set_level(price, quantity)
            market.pushed = None

    def place(self, uid: int, request: NewOrder, now: int, response: str = "") -> Json:
        """A new order; `response` is ACK, RESULT, FULL or empty for the default of its type."""
        market = self.market(request.symbol)
        with self._input(now):
            self._check(market, uid, (request,), ())
            check_trigger(request, market.last)
            quantity = self._market_quantity(market, request)
            self._check_funds(market, uid, (request,), quantity)
            order = self._create(market, uid, request, quantity)
            self._accept(market, order)
            body = self._answer(order, response)
            self._settle(market)
            return body

    def test(self, uid: int, request: NewOrder, now: int) -> None:
        """Check a new order as `place` does, and leave it."""
        market = self.market(request.symbol)
        with self._input(now):
            self._check(market, uid, (request,), ())
            check_trigger(request, market.last)
            self._check_funds(market, uid, (request,), self._market_quantity(market, request))

    def place_list(self, uid: int, request: NewOrderList, now: int, response: str = "") -> Json:
        """A new OCO, OTO or OTOCO: all of it is accepted, or nothing."""
        market = self.market(request.symbol)
        with self._input(now):
            first = (request.working,) if request.working else request.legs
            self._check_list(market, uid, request)
            self._check(market, uid, first, request.legs if request.working else ())
            self._check_funds(market, uid, first, first[0].quantity)
            return self._create_list(market, uid, request, response)

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
        with self._input(now):
            if order_id is None and client_order_id is None:
                raise ExchangeError(
                    -1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!"
                )
            order = self._find(uid, symbol, order_id, client_order_id)
            if order is None or not order.open:
                raise unknown_order_on_cancel()
            if client_order_id is not None and order.client_order_id != client_order_id:
                raise unknown_order_on_cancel()
            wanted = {"ONLY_NEW": OrderStatus.NEW, "ONLY_PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED}
            if restriction and restriction not in wanted:
                raise ExchangeError(
                    -1145, "`cancelRestrictions` has to be either `ONLY_NEW` or `ONLY_PARTIALLY_FILLED`."
                )
            if restriction and order.status is not wanted[restriction]:
                raise ExchangeError(-2011, "Order was not canceled due to cancel restrictions.")
            body = self._cancel(market, order, new_client_order_id)
            self._settle(market)
            return body

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
        with self._input(now):
            group = self.find_list(uid, list_id, client_list_id)
            if group is None or group.done or group.symbol != symbol:
                raise unknown_order_on_cancel()
            order = next(one for one in self.members(group) if one.open)
            body = self._cancel(market, order, new_client_order_id)
            self._settle(market)
            return body

    def cancel_all(self, uid: int, symbol: str, now: int) -> list[Json]:
        """Cancel all open orders and lists of a symbol."""
        market = self.market(symbol)
        with self._input(now):
            mine = self.open_orders(uid, symbol)
            if not mine:
                raise unknown_order_on_cancel()
            answers = [self._cancel(market, order, None) for order in mine if order.open]
            self._settle(market)
            return answers

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
        return [order for one in symbols for order in self._open.get((uid, one), {}).values()]

    def history(self, uid: int, symbol: str) -> list[Order]:
        """Every order of an account and symbol by id."""
        return [self.orders[order_id] for order_id in self._history.get((uid, symbol), [])]

    def find_order(self, uid: int, symbol: str, order_id: int | None, client_order_id: str | None) -> Order:
        """An order by either id; -2013 when it does not exist, -2039 when the ids do not belong together."""
        self.market(symbol)
        if order_id is None and client_order_id is None:
            raise ExchangeError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        order = self._find(uid, symbol, order_id, client_order_id)
        if order is None:
            raise no_such_order()
        if client_order_id is not None and order.client_order_id != client_order_id:
            raise ExchangeError(-2039, "Client order ID is not correct for this order ID.")
        return order

    def _find(self, uid: int, symbol: str, order_id: int | None, client_order_id: str | None) -> Order | None:
        if order_id is None:
            order_id = self._by_client.get((uid, symbol, client_order_id or ""), -1)
        order = self.orders.get(order_id)
        return order if order is not None and order.uid == uid and order.symbol == symbol else None

    def find_list(self, uid: int, list_id: int | None, client_list_id: str | None) -> OrderList | None:
        """A list by either id, or None."""
        if list_id is None and client_list_id is None:
            raise missing("orderListId")
        if list_id is not None:
            group = self.lists.get(list_id)
            return group if group is not None and group.uid == uid else None
        matches = [g for g in self.lists.values() if g.uid == uid and g.client_list_id == client_list_id]
        return matches[-1] if matches else None

    def members(self, group: OrderList) -> list[Order]:
        """The orders of a list in the order of their ids."""
        return [self.orders[order_id] for order_id in group.order_ids]

    def list_body(self, group: OrderList, time: int | None = None) -> Json:
        """A list as queries answer it."""
        return reports.order_list(group, self.members(group), time)

    # -- checks ------------------------------------------------------------------------------------------------

    def _check(self, market: MarketState, uid: int, now: Sequence[NewOrder], later: Sequence[NewOrder]) -> None:
        """What can be refused without looking at money, for orders that work now and those that are pending."""
        average = market.average(self._now)
        requests = (*now, *later)
        seen: set[str] = set()
        for request in requests:
            check_static(market.rules, request, average)
            ident = request.client_order_id
            if ident is not None:
                known = self._by_client.get((uid, market.rules.symbol, ident))
                if ident in seen or (known is not None and self.orders[known].open):
                    raise rejected("Duplicate order sent.")
                seen.add(ident)
        for request in now:
            if request.type is OrderType.LIMIT_MAKER and self._crosses(market, request.side, request.price):
                raise rejected(WOULD_MATCH)
        mine = self._open.get((uid, market.rules.symbol), {})
        if all(request.type is OrderType.MARKET for request in requests):
            return
        if len(mine) + len(requests) > market.rules.max_orders:
            raise filter_failure("MAX_NUM_ORDERS", engine=True)
        algos = sum(request.type.conditional for request in requests)
        if algos and algos + sum(one.untriggered for one in mine.values()) > market.rules.max_algo_orders:
            raise filter_failure("MAX_NUM_ALGO_ORDERS", engine=True)

    def _check_list(self, market: MarketState, uid: int, request: NewOrderList) -> None:
        """What concerns a list as a whole: its id, its number and the relation of the prices of a pair."""
        known = self._list_by_client.get((uid, request.client_list_id or ""))
        if known is not None and not self.lists[known].done:
            raise rejected("Duplicate order sent.")
        mine = self._open.get((uid, market.rules.symbol), {})
        if len({one.list_id for one in mine.values()} - {-1}) >= market.rules.max_lists:
            raise filter_failure("MAX_NUM_ORDER_LISTS", engine=True)
        if len(request.legs) != 2:
            return
        stop, profit = request.legs
        stop_at = stop.stop_price
        profit_at = profit.stop_price or profit.price
        low, high = (stop_at, profit_at) if stop.side is Side.SELL else (profit_at, stop_at)
        if low >= high:
            raise rejected(BAD_OCO_PRICES)
        if request.working is None and market.last is not None and not low < market.last < high:
            raise rejected(BAD_OCO_PRICES)

    def _check_funds(self, market: MarketState, uid: int, requests: Sequence[NewOrder], quantity: int) -> None:
        """-2010 unless the free balance covers what the orders lock or, at market, cost."""
        account = self.accounts[uid]
        rules = market.rules
        request = requests[0]
        if request.side is Side.SELL:
            asset, needed = rules.base, quantity
        elif request.type is OrderType.MARKET:
            asset, needed = rules.quote, request.quote_quantity or self._cost(market, quantity)
        else:
            asset = rules.quote
            needed = max(product(one.price or one.stop_price, one.quantity) for one in requests)
        if account.balance(asset).free < needed:
            raise rejected(INSUFFICIENT_BALANCE)

    def _cost(self, market: MarketState, quantity: int) -> int:
        """Quote that a market buy of a quantity costs on the book as it stands."""
        cost = 0
        for price, shown in market.asks.depth_within(None):
            part = min(quantity, shown)
            cost += product(price, part)
            quantity -= part
            if not quantity:
                break
        return cost

    def _market_quantity(self, market: MarketState, request: NewOrder) -> int:
        """The quantity of an order; of one by quote amount, what the book gives for at most that amount."""
        if not request.quote_quantity:
            return request.quantity
        step = market.rules.step
        left = request.quote_quantity
        quantity = price = 0
        for price, shown in market.ladder(request.side.opposite).depth_within(None):
            part = min(left * SCALE // price // step * step, shown)
            quantity += part
            left -= product(price, part)
            if part < shown:
                break
        else:
            if not quantity:
                raise rejected("Order book liquidity is less than symbol minimum quantity.")
            # The book ends before the amount does: the rest cannot be filled, and the order will say so.
            quantity += left * SCALE // price // step * step
        if quantity < market.rules.min_quantity:
            raise filter_failure("LOT_SIZE")
        return quantity

    def _crosses(self, market: MarketState, side: Side, price: int) -> bool:
        ladder = market.ladder(side.opposite)
        best = ladder.best()
        return best is not None and ladder.reaches(best, price)

    # -- life of an order --------------------------------------------------------------------------------------

    def _create(self, market: MarketState, uid: int, request: NewOrder, quantity: int, list_id: int = -1) -> Order:
        """Make an order, with an id derived from its number where the client gave none."""
        order_id = self.next_order_id
        self.next_order_id += 1
        order = Order(
            order_id=order_id,
            uid=uid,
            symbol=market.rules.symbol,
            client_order_id=request.client_order_id or _generated_id("order", order_id),
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force,
            price=request.price,
            quantity=quantity,
            quote_quantity=request.quote_quantity,
            stop_price=request.stop_price,
            stp=request.stp,
            time=self._now,
            update_time=self._now,
            list_id=list_id,
            strategy_id=request.strategy_id,
            strategy_type=request.strategy_type,
        )
        self._index(order)
        return order

    def _index(self, order: Order) -> None:
        key = (order.uid, order.symbol)
        self.orders[order.order_id] = order
        self._history.setdefault(key, []).append(order.order_id)
        self._by_client[(*key, order.client_order_id)] = order.order_id
        if order.open:
            self._open.setdefault(key, {})[order.order_id] = order

    def _accept(self, market: MarketState, order: Order) -> None:
        """The order enters the engine: it waits for its trigger, or works."""
        order.status = OrderStatus.NEW
        order.update_time = self._now
        self._relock(market, order)
        if order.type.conditional:
            self._wait(market, order)
            self._report(order, "NEW")
        else:
            self._work(market, order)

    def _wait(self, market: MarketState, order: Order) -> None:
        if triggers_rising(order.type, order.side):
            heappush(market.rising, (order.stop_price, order.order_id))
        else:
            heappush(market.falling, (-order.stop_price, order.order_id))

    def _work(self, market: MarketState, order: Order) -> None:
        """The order becomes active: it takes what it may, and rests or expires."""
        order.working_time = order.update_time = self._now
        self._report(order, "NEW")
        at_market = not order.type.priced
        limit = None if at_market else order.price
        if order.time_in_force is TimeInForce.FOK and not self._fillable(market, order):
            self._end(market, order, OrderStatus.EXPIRED, "UNFILLED_FOK_ORDER_EXPIRED")
            return
        self._relock(market, order)
        self._match(market, order, limit)
        if not order.open:
            return
        if at_market:
            self._end(market, order, OrderStatus.EXPIRED, "INSUFFICIENT_LIQUIDITY")
        elif order.time_in_force is TimeInForce.GTC:
            self._sequence += 1
            order.sequence = self._sequence
            market.ladder(order.side).add(order)
        else:
            self._end(market, order, OrderStatus.EXPIRED, "UNFILLED_IOC_QUANTITY_EXPIRED")

    def _fillable(self, market: MarketState, order: Order) -> bool:
        """Whether the book can fill the whole order at its limit without meeting the same account."""
        left = order.quantity
        ladder = market.ladder(order.side.opposite)
        for price, shown in ladder.depth_within(order.price):
            left -= shown - sum(one.remaining for one in ladder.own.get(price, ()) if one.uid == order.uid)
            if left <= 0:
                return True
        return False

    def _end(self, market: MarketState, order: Order, status: OrderStatus, reason: str | None = None) -> None:
        """The order is over without a (further) fill."""
        self._leave_book(market, order)
        order.status = status
        order.expiry_reason = reason
        order.update_time = self._now
        execution = {OrderStatus.CANCELED: "CANCELED", OrderStatus.EXPIRED_IN_MATCH: "TRADE_PREVENTION"}
        self._report(order, execution.get(status, "EXPIRED"))
        self._finish(market, order)

    def _leave_book(self, market: MarketState, order: Order) -> None:
        ladder = market.ladder(order.side)
        if order in ladder.own.get(order.price, ()):
            ladder.remove(order)

    def _finish(self, market: MarketState, order: Order) -> None:
        """After the end of an order: release its money and move on with its list."""
        self._open[(order.uid, order.symbol)].pop(order.order_id, None)
        self._relock(market, order)
        if order.list_id < 0:
            return
        group = self.lists[order.list_id]
        others = [one for one in self.members(group) if one.open]
        if order.order_id == group.working_id and others:
            if order.status is OrderStatus.FILLED:
                market.todo.append(("activate", group.list_id))
                return
            for pending in others:
                self._end(market, pending, OrderStatus.EXPIRED, "OTO_PHASE_ONE_EXPIRED")
            return
        if (
            order.status in (OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH)
            and order.expiry_reason not in ("OCO_TRIGGER", "OTO_PHASE_ONE_EXPIRED", "REJECTED")
            and others
        ):
            for other in others:
                self._end(market, other, OrderStatus.EXPIRED, "OCO_TRIGGER")
            return
        if not others and not group.done:
            group.done = True
            self._tell_list(group)

    def _expire_sibling(self, market: MarketState, order: Order) -> None:
        """One of a pair became active: the other expires."""
        sibling = self.orders.get(order.sibling)
        if sibling is not None and sibling.open:
            self._end(market, sibling, OrderStatus.EXPIRED, "OCO_TRIGGER")

    def _cancel(self, market: MarketState, order: Order, new_client_order_id: str | None) -> Json:
        """Cancel an order or the whole list it is in; the answer has the shape of what was cancelled."""
        ident = new_client_order_id or _generated_id("cancel", self._next_execution_id)
        if order.list_id < 0:
            order.cancel_client_id = ident
            self._end(market, order, OrderStatus.CANCELED)
            return reports.canceled(order)
        group = self.lists[order.list_id]
        canceled = [one for one in self.members(group) if one.open]
        for one in canceled:
            # All are marked before any is told: the end of one must not expire the others.
            self._leave_book(market, one)
            one.cancel_client_id = ident
            one.status = OrderStatus.CANCELED
            one.update_time = self._now
        for one in canceled:
            self._report(one, "CANCELED")
        for one in canceled:
            self._finish(market, one)
        return self.list_body(group, self._now) | {"orderReports": [reports.canceled(one) for one in canceled]}

    # -- lists -------------------------------------------------------------------------------------------------

    def _create_list(self, market: MarketState, uid: int, request: NewOrderList, response: str) -> Json:
        list_id = self.next_list_id
        self.next_list_id += 1
        working = None
        if request.working:
            working = self._create(market, uid, request.working, request.working.quantity, list_id)
        legs = [self._create(market, uid, leg, leg.quantity, list_id) for leg in request.legs]
        if len(legs) == 2:
            legs[0].sibling, legs[1].sibling = legs[1].order_id, legs[0].order_id
        members = [working, *legs] if working else legs
        group = OrderList(
            list_id=list_id,
            uid=uid,
            symbol=market.rules.symbol,
            client_list_id=request.client_list_id or _generated_id("list", list_id),
            contingency=request.contingency,
            order_ids=[one.order_id for one in members],
            working_id=working.order_id if working else 0,
            time=self._now,
        )
        self.lists[list_id] = group
        self._list_by_client[(uid, group.client_list_id)] = list_id
        if working is None:
            for leg in legs:
                self._accept(market, leg)
            self._tell_list(group)
        else:
            for leg in legs:
                leg.status = OrderStatus.PENDING_NEW
                self._report(leg, "NEW")
            self._tell_list(group)
            self._accept(market, working)
        # Pending orders come to life only after the answer was made: it shows them as PENDING_NEW.
        body = self.list_body(group) | {"orderReports": [self._answer(one, response or "RESULT") for one in members]}
        self._settle(market)
        return body

    def _activate(self, market: MarketState, group: OrderList) -> None:
        """The working order is filled: its pending orders are accepted, or expire as rejected."""
        pending = [one for one in self.members(group) if one.status is OrderStatus.PENDING_NEW]
        account = self.accounts[group.uid]
        first = pending[0]
        selling = first.side is Side.SELL
        asset = market.rules.base if selling else market.rules.quote
        needed = max(one.quantity if selling else product(one.price or one.stop_price, one.quantity) for one in pending)
        refused = account.balance(asset).free < needed
        for one in pending:
            if one.type.conditional and market.last is not None:
                refused = refused or would_trigger(one.type, one.side, one.stop_price, market.last)
            if one.type is OrderType.LIMIT_MAKER:
                refused = refused or self._crosses(market, one.side, one.price)
        for one in pending:
            if refused:
                self._end(market, one, OrderStatus.EXPIRED, "REJECTED")
            else:
                self._accept(market, one)

    def _tell_list(self, group: OrderList) -> None:
        self._changes.lists[group.list_id] = group
        self._outputs.append(UserEvent(group.uid, reports.list_status(group, self.members(group), self._now)))

    # -- matching ----------------------------------------------------------------------------------------------

    def _match(self, market: MarketState, taker: Order, limit: int | None) -> None:
        """Take from the other side, best price first, as far as limit and money reach."""
        ladder = market.ladder(taker.side.opposite)
        while taker.open and taker.remaining:
            price = ladder.best()
            if price is None or (limit is not None and not ladder.reaches(price, limit)):
                return
            if not self._match_level(market, ladder, price, taker):
                return

    def _match_level(self, market: MarketState, ladder: Ladder, price: int, taker: Order) -> bool:
        """Take from one level in the order of time; False when the taker cannot pay for more."""
        consumed = 0
        for maker in list(ladder.own.get(price, ())):
            if not maker.open:
                continue
            wanted = self._wanted(market, taker, price)
            queue = min(max(0, maker.ahead - consumed), ladder.available(price), wanted)
            if queue:
                self._take_outside(market, ladder, price, queue, taker)
                consumed += queue
            wanted = self._wanted(market, taker, price)
            if not wanted:
                break
            if maker.uid == taker.uid:
                if taker.stp is not StpMode.EXPIRE_TAKER:
                    self._end(market, maker, OrderStatus.EXPIRED_IN_MATCH)
                if taker.stp is not StpMode.EXPIRE_MAKER:
                    self._end(market, taker, OrderStatus.EXPIRED_IN_MATCH)
                    return False
                continue
            quantity = min(wanted, maker.remaining)
            trade_id = self._print(market, price, quantity, taker.side is Side.SELL)
            self._fill(market, maker, price, quantity, trade_id, maker=True)
            self._fill(market, taker, price, quantity, trade_id, maker=False)
        rest = min(self._wanted(market, taker, price), ladder.available(price)) if taker.open else 0
        if rest:
            self._take_outside(market, ladder, price, rest, taker)
            consumed += rest
        for maker in ladder.own.get(price, ()):
            maker.ahead = max(0, maker.ahead - consumed)
        return taker.open and self._wanted(market, taker, price) > 0

    def _wanted(self, market: MarketState, taker: Order, price: int) -> int:
        """Open quantity, of a market buy only what the free balance pays."""
        if taker.type.priced or taker.side is Side.SELL:
            return taker.remaining
        budget = self.accounts[taker.uid].balance(market.rules.quote).free
        if taker.quote_quantity:
            budget = min(budget, taker.quote_quantity - taker.quote_executed)
        return min(taker.remaining, budget * SCALE // price // market.rules.step * market.rules.step)

    def _take_outside(self, market: MarketState, ladder: Ladder, price: int, quantity: int, taker: Order) -> None:
        ladder.take(price, quantity)
        trade_id = self._print(market, price, quantity, taker.side is Side.SELL)
        self._fill(market, taker, price, quantity, trade_id, maker=False)

    def _fill_maker(self, market: MarketState, maker: Order, quantity: int) -> None:
        """A resting order trades at its price with an outsider."""
        trade_id = self._print(market, maker.price, quantity, maker.side is Side.BUY)
        self._fill(market, maker, maker.price, quantity, trade_id, maker=True)

    def _trade_with_resting(self, market: MarketState, price: int, quantity: int, buyer_is_maker: bool) -> int:
        """Let our resting orders take part in an outside trade; what is left is between outsiders."""
        ladder = market.ladder(Side.BUY if buyer_is_maker else Side.SELL)
        left = quantity
        for level in ladder.own_prices():
            if not ladder.reaches(level, price):
                break
            consumed = 0
            for maker in list(ladder.own.get(level, ())):
                if not maker.open:
                    continue
                if level == price:
                    queue = min(max(0, maker.ahead - consumed), left)
                    consumed += queue
                    left -= queue
                part = min(left, maker.remaining)
                if part:
                    left -= part
                    self._fill_maker(market, maker, part)
            for maker in ladder.own.get(level, ()):
                maker.ahead = max(0, maker.ahead - consumed)
            if level == price:
                left += consumed
        return left

    def _fill_crossed(self, market: MarketState) -> None:
        """The outside book crossed resting orders of ours: they fill at their own price."""
        for side in Side:
            ladder, other = market.ladder(side), market.ladder(side.opposite)
            for price in ladder.own_prices():
                for maker in list(ladder.own.get(price, ())):
                    while maker.open:
                        best = other.best_outside()
                        if best is None or not other.reaches(best, price):
                            break
                        quantity = min(maker.remaining, other.available(best))
                        other.take(best, quantity)
                        self._fill_maker(market, maker, quantity)

    def _print(self, market: MarketState, price: int, quantity: int, buyer_is_maker: bool) -> int:
        """Publish a trade; orders whose trigger it meets are queued. Returns the trade id."""
        trade_id = market.next_trade_id
        market.next_trade_id += 1
        market.last = price
        market.record(self._now, quantity, product(price, quantity))
        self._outputs.append(TradePrint(market.rules.symbol, trade_id, price, quantity, buyer_is_maker, self._now))
        while market.rising and market.rising[0][0] <= price:
            market.todo.append(("trigger", heappop(market.rising)[1]))
        while market.falling and -market.falling[0][0] >= price:
            market.todo.append(("trigger", heappop(market.falling)[1]))
        return trade_id

    def _settle(self, market: MarketState) -> None:
        """Do what trades set off, until nothing is left to do."""
        while market.todo:
            what, ident = market.todo.popleft()
            if what == "activate":
                self._activate(market, self.lists[ident])
                continue
            order = self.orders[ident]
            if order.live and order.untriggered:
                self._expire_sibling(market, order)
                self._work(market, order)

    def _fill(
        self, market: MarketState, order: Order, price: int, quantity: int, trade_id: int, *, maker: bool
    ) -> None:
        """Book one fill: order, balances, commission in the received asset, trade and event."""
        rules = market.rules
        self._expire_sibling(market, order)
        quote = product(price, quantity)
        order.executed += quantity
        order.quote_executed += quote
        order.update_time = self._now
        order.status = OrderStatus.PARTIALLY_FILLED if order.remaining else OrderStatus.FILLED
        if maker:
            if order.remaining:
                market.ladder(order.side).changed(order)
            else:
                market.ladder(order.side).remove(order)
        self._relock(market, order)
        account = self.accounts[order.uid]
        buying = order.side is Side.BUY
        paid, received = (quote, quantity) if buying else (quantity, quote)
        paid_asset, received_asset = (rules.quote, rules.base) if buying else (rules.base, rules.quote)
        commission = product(received, _COMMISSION_UNITS)
        account.balance(paid_asset).free -= paid
        account.balance(received_asset).free += received - commission
        trade = Trade(
            trade_id=trade_id,
            uid=order.uid,
            symbol=order.symbol,
            order_id=order.order_id,
            list_id=order.list_id,
            price=price,
            quantity=quantity,
            quote=quote,
            commission=commission,
            commission_asset=received_asset,
            time=self._now,
            buyer=buying,
            maker=maker,
        )
        self.trades.setdefault((order.uid, order.symbol), []).append(trade)
        self._changes.trades.append(trade)
        self._fills.append(trade)
        self._report(order, "TRADE", trade)
        if not order.remaining:
            self._finish(market, order)

    # -- money and messages ------------------------------------------------------------------------------------

    def _lock_of(self, order: Order) -> int:
        """What one order needs kept aside of the asset it pays with."""
        if not order.live:
            return 0
        if order.side is Side.SELL:
            return order.remaining if order.type.priced or order.untriggered else 0
        if order.type.priced:
            return product(order.price, order.remaining)
        return product(order.stop_price, order.remaining) if order.untriggered else 0

    def _relock(self, market: MarketState, order: Order) -> None:
        """Bring the locked balance in step with an order; a pair locks the larger of its two needs once."""
        sibling = self.orders.get(order.sibling)
        key = min(order.order_id, order.sibling) if sibling else order.order_id
        needed = max(self._lock_of(order), self._lock_of(sibling) if sibling else 0)
        delta = needed - self._locks.get(key, 0)
        if needed:
            self._locks[key] = needed
        else:
            self._locks.pop(key, None)
        rules = market.rules
        balance = self.accounts[order.uid].balance(rules.base if order.side is Side.SELL else rules.quote)
        balance.free -= delta
        balance.locked += delta
        self._touch(order.uid, rules.base)
        self._touch(order.uid, rules.quote)

    def _touch(self, uid: int, asset: str) -> None:
        account = self.accounts[uid]
        account.update_time = self._now
        self._changes.accounts[uid] = account
        self._touched.setdefault(uid, set()).add(asset)

    def _report(self, order: Order, execution: str, fill: Trade | None = None) -> None:
        self._changes.orders[order.order_id] = order
        event = reports.execution_report(order, execution, self._now, self._next_execution_id, fill)
        self._next_execution_id += 1
        self._outputs.append(UserEvent(order.uid, event))

    def _answer(self, order: Order, response: str) -> Json:
        """The answer to a new order in the form asked for."""
        if not response:
            response = "FULL" if order.type in (OrderType.MARKET, OrderType.LIMIT) else "ACK"
        if response == "ACK":
            return reports.ack(order)
        if response == "RESULT":
            return reports.result(order)
        return reports.full(order, [fill for fill in self._fills if fill.order_id == order.order_id])

    # -- restart -----------------------------------------------------------------------------------------------

    def restore(
        self,
        accounts: Iterable[Account],
        orders: Iterable[Order],
        lists: Iterable[OrderList],
        trades: Iterable[Trade],
    ) -> None:
        """Take over what was stored, each in order of its id; open orders go back to their places."""
        self.accounts = {account.uid: account for account in accounts}
        for trade in trades:
            self.trades.setdefault((trade.uid, trade.symbol), []).append(trade)
            if trade.symbol in self.markets:
                market = self.markets[trade.symbol]
                market.next_trade_id = max(market.next_trade_id, trade.trade_id + 1)
        for group in lists:
            self.lists[group.list_id] = group
            self._list_by_client[(group.uid, group.client_list_id)] = group.list_id
        self.next_list_id = max(self.lists, default=-1) + 1
        for order in orders:
            self._index(order)
            self._sequence = max(self._sequence, order.sequence)
        self.next_order_id = max(self.orders, default=0) + 1
        for order in self.orders.values():
            self._restore_order(order)

    def _restore_order(self, order: Order) -> None:
        market = self.markets.get(order.symbol)
        if not order.live or market is None:
            return
        if order.untriggered:
            self._wait(market, order)
        else:
            market.ladder(order.side).restore(order)
        sibling = self.orders.get(order.sibling)
        key = min(order.order_id, order.sibling) if sibling else order.order_id
        self._locks[key] = max(self._lock_of(order), self._locks.get(key, 0))


def _generated_id(kind: str, number: int) -> str:
    """A client id for who gave none: 22 characters that follow from what it names."""
    digest = hashlib.sha256(f"{kind}/{number}".encode()).digest()
    return base64.b32encode(digest).decode()[:22]


def decode_order(row: dict[str, Any]) -> Order:
    """An order from its stored fields."""
    return Order(
        **row
        | {
            "side": Side(row["side"]),
            "type": OrderType(row["type"]),
            "time_in_force": TimeInForce(row["time_in_force"]),
            "status": OrderStatus(row["status"]),
            "stp": StpMode(row["stp"]),
        }
    )
