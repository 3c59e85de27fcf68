"""What the exchange says of orders: the bot's own, those of others, and those it no longer knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tradingbot.gateway.errors import NotFoundError, OrderArchivedError
from tradingbot.model import NO_LIST, OrderReport, OrderStatus, OrderUpdate, Side
from tradingbot.orders.cleanup import foreign_orders
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.intents import SETTLE_MS
from tradingbot.orders.oco_monitor import OCOMonitor, OcoState
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.types import OrdersEventKind, TrackedOrder
from tradingbot.recovery.fence import parse
from tradingbot.state.store import StoreFailedError

VANISHED_WAITS: Final = (0.0, 1.0, 2.0)
"""Seconds before each question for an order that the exchange told of and does not find any more."""
READABLE_MS: Final = 5_000 + SETTLE_MS
"""An order that the exchange told of this long ago can be read there."""
FRESH_MS: Final = 5_000
"""An entry needs open orders that were read within this time: they show a second trader."""
LIST_EVERY_MS: Final = 5_000
"""Between two looks at all orders, while more than the known ones may be there: each weighs 20."""


class KnownOrders(OrderPart):
    """Reads orders, takes what the streams tell of them, and sees a second trader or an exchange that was reset."""

    def __init__(self, ctx: OrderContext, fills: OwnFills) -> None:
        super().__init__(ctx)
        self._fills = fills
        self.ocos = OCOMonitor(ctx.tracker)
        self.highest_id = 0
        self.listed_id, self.listed_ms = 0, 0
        self.unlisted = False
        """An order of this bot's key that another process made, a user stream that was connected, or books that differ,
        say that more may be unknown."""
        self.foreign: dict[str, OrderReport] = {}
        self._foreign_meanwhile: dict[str, OrderReport] = {}
        self.last_check_ms: int | None = None
        self.two_traders: str | None = None
        self.former_ms = 0
        """Until then the exchange may still execute what a former process sent, whose store is lost; 0: nothing."""
        self.doubt = False
        """An answer was lost: open orders must be read before they are relied upon."""

    def _check_is_due(self) -> bool:
        """While a position is held, its protection is looked at often enough to be restored within its deadline.

        The user stream may be dead without having said so.
        """
        if self._fills.held == 0 or self.last_check_ms is None:
            return False
        age_ms = self._exchange.exchange_ms() - self.last_check_ms
        return age_ms > self._settings().protection.deadline_seconds * 1000 // 2

    async def on_update(self, event: OrderUpdate) -> None:
        """Take what the user stream tells of an order, and its fill."""
        report = self._by_its_name(event.report)
        if report.symbol != self._ctx.rules.symbol:
            return
        if not self.is_own(report):
            self._foreign_meanwhile[report.client_order_id] = report
            self._take_foreign(self.foreign | {report.client_order_id: report})
            return
        await self.absorb([report])
        if event.fill is not None:
            await self._fills.take([event.fill], {event.fill.order_id: report.client_order_id})

    def open(self, wanted: Callable[[TrackedOrder], bool]) -> list[TrackedOrder]:
        """This bot's open orders for which that is true."""
        return [order for order in self._tracker.active_orders if wanted(order)]

    async def read(self, client_ids: Iterable[str]) -> list[OrderReport]:
        """Those of the orders that the exchange knows. ExchangeError."""
        found = []
        for client_id in client_ids:
            try:
                found.append(await self._exchange.order(self._ctx.rules.symbol, client_id, urgent=True))
            except (NotFoundError, OrderArchivedError):
                self._log.info("order not readable", client_order_id=client_id)
        return found

    def _by_its_name(self, report: OrderReport) -> OrderReport:
        """With the client id that this bot gave it: who makes an order smaller gives it another, or lets one be made
        up. After a reset another order may have its number."""
        if parse(report.client_order_id) is not None:
            return report
        names = (order.client_order_id for order in self._tracker if _same(order, report))
        return replace(report, client_order_id=next(names, report.client_order_id))

    def is_own(self, report: OrderReport) -> bool:
        """Whether the order is of this bot's key; sees a second trader."""
        client_id = parse(report.client_order_id)
        if client_id is None or client_id.key != self._ids.key:
            return False
        current = self._ids.incarnation
        if 0 < current < client_id.incarnation:
            self._fence_lost(f"order {report.client_order_id} is of a later process start than {current}")
        elif current == client_id.incarnation:
            known = self._tracker.get(report.client_order_id)
            another = known is not None and known.order_id not in {None, report.order_id}
            if another or not self._ids.gave(client_id):
                self._fence_lost(f"order {report.client_order_id} is of this process start, which never made it")
        return True

    def _fence_lost(self, message: str) -> None:
        if self.two_traders is None:
            self.two_traders = message
            self._log.error("two traders", message=message)
            self._ctx.tell(OrdersEventKind.TWO_TRADERS, message)

    async def absorb(self, reports: Iterable[OrderReport]) -> None:
        """Take orders as the exchange reports them; the fills come by `OwnFills.take` and `collect`."""
        changed: list[TrackedOrder] = []
        for report in map(self._by_its_name, reports):
            client_id = parse(report.client_order_id)
            if client_id is None or client_id.key != self._ids.key:
                continue
            before, after = self._tracker.absorb(report, client_id.purpose, self._audit.trace_of(report))
            self.highest_id = max(self.highest_id, report.order_id)
            if before == after:
                continue
            changed.append(after)
            self._audit.order(after)
            self.unlisted |= before is None and not self._ids.gave(client_id)
            self.watch_list(after)
            self._report_leg(before, after)
        if changed:
            await self._fills.record(changed, [])

    def watch_list(self, order: TrackedOrder) -> None:
        """An own order is known: its protection pair is watched."""
        if order.order_list_id != NO_LIST and order.side is Side.SELL and order.is_open:
            self.ocos.track_oco_order(order.order_list_id, order)

    def _report_leg(self, before: TrackedOrder | None, after: TrackedOrder) -> None:
        if after.side is not Side.SELL:
            return
        price = after.stop_price if after.type.is_stop else after.price
        verdict = self.ocos.handle_oco_execution(after.order_list_id)
        if verdict is not None:
            self._log.info("protection pair", state=verdict.state.value, order_list_id=after.order_list_id)
            if verdict.state is OcoState.TAKE_PROFIT:
                self._ctx.tell(OrdersEventKind.TAKE_PROFIT, "take-profit filled", after.executed_quantity, price)
            elif verdict.state is OcoState.STOP_LOSS:
                self._ctx.tell(OrdersEventKind.STOP_LOSS, "stop filled", after.executed_quantity, price)
        elif (
            after.order_list_id == NO_LIST
            and after.type.is_stop
            and after.status is OrderStatus.FILLED
            and (before is None or before.status is not OrderStatus.FILLED)
        ):
            self._ctx.tell(OrdersEventKind.STOP_LOSS, "stop filled", after.executed_quantity, price)

    async def refresh(self) -> None:
        """Read open orders, and all where there may be unknown ones."""
        if self._listing_is_due():
            await self.list_all()
        await self.read_open()

    async def read_open(self) -> None:
        """Read open orders; ask for each of ours that is no longer open."""
        symbol = self._ctx.rules.symbol
        self._foreign_meanwhile.clear()
        reports = [self._by_its_name(one) for one in await self._exchange.open_orders(symbol, urgent=True)]
        self.last_check_ms = self._exchange.exchange_ms()
        listed_foreign = {order.client_order_id: order for order in foreign_orders(reports, self._ids.key)}
        self._take_foreign(listed_foreign | self._foreign_meanwhile)  # an answer may be older than what was told
        await self.absorb([report for report in reports if self.is_own(report)])
        listed = {report.client_order_id for report in reports}
        for order in self._tracker.active_orders:
            if order.client_order_id in listed or self._ctx.reset is not None:
                continue
            try:
                report = await self._ask(order)
            except OrderArchivedError:
                done = replace(order, status=OrderStatus.EXPIRED)
                self._tracker.add_order(done)
                await self._fills.record([done], [])
                continue
            if report is None:
                self._take_reset(order)
            else:
                await self.absorb([report])
        self.doubt = False

    def _take_foreign(self, found: Mapping[str, OrderReport]) -> None:
        """Tell of the orders of others that came and went; they are not touched."""
        before, self.foreign = self.foreign, {key: order for key, order in found.items() if order.is_open}
        for client_id in sorted(self.foreign.keys() - before.keys()):
            self._ctx.tell(OrdersEventKind.FOREIGN_ORDER, f"order {client_id} is not this bot's and is left alone")
        for client_id in sorted(before.keys() - self.foreign.keys()):
            self._ctx.tell(OrdersEventKind.FOREIGN_ORDER_GONE, f"order {client_id}, not this bot's, is no longer open")

    async def _ask(self, order: TrackedOrder) -> OrderReport | None:
        """An order that the exchange told of before; None where it never heard of it: it was reset.

        ExchangeError, also of a new order that may only not be readable yet.
        """
        symbol = self._ctx.rules.symbol
        for wait in VANISHED_WAITS:
            await asyncio.sleep(wait)
            with suppress(NotFoundError):
                return await self._exchange.order(symbol, order.client_order_id, urgent=True)
        listed = await self._exchange.all_orders(symbol, from_order_id=order.order_id or 0, urgent=True)
        named = map(self._by_its_name, listed)
        found = next((report for report in named if report.client_order_id == order.client_order_id), None)
        if found is None and self._exchange.exchange_ms() - order.created_ms <= READABLE_MS:
            raise NotFoundError(f"order {order.client_order_id} is not readable yet")
        return found

    async def look_for_reset(self) -> None:
        """Ask for the newest order that the exchange told of, and the newest that bought what is held.

        After a reset new protection may be there, of base that was given with it.
        """
        known = sorted(self._tracker, key=lambda order: order.order_id or 0)
        holding = self._fills.held > 0  # walks through all of them
        bought = [order for order in known if holding and order.side is Side.BUY and order.executed_quantity > 0]
        newest = known[-1] if known else await self._store.newest_order()
        for order in dict.fromkeys((newest, *bought[-1:])):
            if order is None or self._ctx.reset is not None:
                return
            with suppress(OrderArchivedError):
                if await self._ask(order) is None:
                    self._take_reset(order)

    def _take_reset(self, vanished: TrackedOrder) -> None:
        """Nothing of the books is at the exchange any more. In memory only: a restart asks the exchange again."""
        self._ctx.reset = f"the exchange no longer knows order {vanished.client_order_id}: its data were reset"
        self._log.error("exchange reset", client_order_id=vanished.client_order_id)
        for order in self._tracker.active_orders:
            self._tracker.add_order(replace(order, status=OrderStatus.EXPIRED))

    async def take_former(self) -> None:
        """Read what a former process, whose store is lost, may have sent last, once it is certainly executed."""
        if self.former_ms == 0 or self._exchange.exchange_ms() <= self.former_ms:
            return
        await self.list_all()
        with suppress(StoreFailedError):
            await self._store.restored()
        self.former_ms, self.doubt = 0, True

    def look_is_due(self, *, entry_near: bool) -> bool:
        """Whether open orders, or all, must be read anew; before an entry, so that it need not wait for that."""
        due = self.doubt or self._check_is_due() or self._listing_is_due()
        return due or (entry_near and not self.read_within(FRESH_MS // 2))

    def read_within(self, milliseconds: int) -> bool:
        """Whether open orders were read so lately."""
        return self.last_check_ms is not None and self._exchange.exchange_ms() - self.last_check_ms <= milliseconds

    def _listing_is_due(self) -> bool:
        return self.unlisted and self._exchange.exchange_ms() - self.listed_ms > LIST_EVERY_MS

    async def list_all(self) -> None:
        """Read every order since the last such look, be it the start's.

        Not since the highest known: the user stream may have told of another process's later order and not of one that
        came between the start's look and the stream.
        """
        listed = await self._exchange.all_orders(self._ctx.rules.symbol, from_order_id=self.listed_id + 1, urgent=True)
        await self.absorb([report for report in map(self._by_its_name, listed) if self.is_own(report)])
        self.listed_id = max((report.order_id for report in listed), default=self.listed_id)
        self.listed_ms, self.unlisted = self._exchange.exchange_ms(), False


def _same(order: TrackedOrder, report: OrderReport) -> bool:
    return order.order_id == report.order_id and (
        (order.order_list_id, order.side, order.type, order.price, order.stop_price)
        == (report.order_list_id, report.side, report.type, report.price, report.stop_price)
    )
