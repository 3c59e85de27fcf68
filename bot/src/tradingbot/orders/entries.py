"""Buys with protection in one request, after this process start has shown itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Final

from tradingbot.gateway import filters
from tradingbot.gateway.errors import AmbiguousError, ExchangeError
from tradingbot.gateway.port import NewOrder, NewOtoco, Stamp
from tradingbot.model import OrderListReport, OrderReport, OrderType, Side, TimeInForce
from tradingbot.orders.account_check import AccountCheck
from tradingbot.orders.audit import because
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.intents import IntentKind, IntentState
from tradingbot.orders.known_orders import FRESH_MS, KnownOrders
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.planning import EntryPlan, entry_order, plan_entry, protection_pair
from tradingbot.orders.protection_repair import ProtectionRepair
from tradingbot.orders.protection_watch import ProtectionWatch
from tradingbot.orders.sender import Sender
from tradingbot.orders.types import EntryOutcome, EntryRequest, EntryResult, OrdersEventKind
from tradingbot.recovery.fence import Purpose
from tradingbot.state.store import StoreFailedError

ANNOUNCED_SECONDS: Final = 1.0
"""Between showing itself and its first entry: an earlier process on the same account hears it and halts."""
ANNOUNCE_AGAIN_SECONDS: Final = 60.0
"""After a try that failed: the account may have too little quote; the first entry tries it anew."""


class Entries(OrderPart):
    """Decides whether an entry may be sent, sends it, and sees its protection in place.

    `may_enter` and `may_announce` are asked immediately before sending: None, or the code of why not.
    """

    def __init__(
        self,
        ctx: OrderContext,
        *,
        protection: ProtectionRepair,
        watch: ProtectionWatch,
        sender: Sender,
        known: KnownOrders,
        fills: OwnFills,
        check: AccountCheck,
        may_enter: Callable[[], str | None],
        may_announce: Callable[[], str | None],
        announced_seconds: float,
    ) -> None:
        super().__init__(ctx)
        self._protection = protection
        self._watch = watch
        self._sender = sender
        self._known = known
        self._fills = fills
        self._check = check
        self._may_enter = may_enter
        self._may_announce = may_announce
        self._announced_seconds = announced_seconds
        self.announced = False
        self._announced_at = self._announce_after = 0.0

    async def enter(self, request: EntryRequest) -> EntryResult:
        """See `OrderManager.enter`. ExchangeError, StoreFailedError."""
        refusal = self._refuse_entry()
        if refusal is not None:
            return EntryResult(EntryOutcome.REFUSED, refusal)
        self._audit.begin(request.signal_id, request.figures)
        plan = plan_entry(
            self._ctx.rules,
            self._settings(),
            quantity=request.quantity,
            ask=request.reference_price,
            taker_rate=self._ctx.taker_rate,
            held=self._fills.books.quantity,
        )
        if not isinstance(plan, EntryPlan):
            return EntryResult(EntryOutcome.REFUSED, plan.code, plan.message)
        if not self._known.read_within(FRESH_MS):
            await self._known.refresh()
        base = self._fills.books.quantity if self._check.verdict is None else self._check.verdict.base.total
        full = filters.check_room(self._ctx.rules, list(self._known.foreign.values()), base, plan.quantity)
        if full is not None:
            return EntryResult(EntryOutcome.REFUSED, full.code, full.message)
        if not self.announced:
            await self._announce(request.reference_price)
        await asyncio.sleep(max(0.0, self._announced_at + self._announced_seconds - self._monotonic()))
        sequence = self._ids.next_sequence()
        entry_id, list_id = self._ids.make(sequence, Purpose.ENTRY), self._ids.make(sequence, Purpose.ENTRY_LIST)
        pair = protection_pair(plan.protection, partial(self._ids.make, sequence))
        legs = (pair.stop_client_id, pair.take_profit_client_id)
        entry = entry_order(self._ctx.rules.symbol, entry_id, plan, TimeInForce.FOK)
        otoco = NewOtoco(entry.symbol, list_id, entry, pair)
        result = await self._buy(
            request, plan, list_id, (entry_id, *legs), lambda stamp: self._exchange.place_otoco(otoco, stamp)
        )
        if result.outcome is EntryOutcome.EXPIRED and await self._part_can_be_sold(plan):
            return await self._enter_in_part(request, plan)
        return result

    @because("BookTooThin")
    async def _enter_in_part(self, request: EntryRequest, plan: EntryPlan) -> EntryResult:
        """Buy what the book has inside the collar; the pair over it follows at once, as a lost one does."""
        entry_id = self._ids.make(self._ids.next_sequence(), Purpose.ENTRY)
        order = entry_order(self._ctx.rules.symbol, entry_id, plan, TimeInForce.IOC)
        return await self._buy(
            request, plan, entry_id, (entry_id,), lambda stamp: self._exchange.place_order(order, stamp)
        )

    async def _part_can_be_sold(self, plan: EntryPlan) -> bool:
        """Whether the best ask alone offers enough for a position that can be protected."""
        book = await self._exchange.book_ticker(self._ctx.rules.symbol)
        part = plan_entry(
            self._ctx.rules,
            self._settings(),
            quantity=min(plan.quantity, book.ask_quantity),
            ask=book.ask,
            taker_rate=self._ctx.taker_rate,
            held=self._fills.books.quantity,
        )
        return book.ask <= plan.limit_price and isinstance(part, EntryPlan)

    async def _buy(
        self,
        request: EntryRequest,
        plan: EntryPlan,
        client_id: str,
        client_ids: tuple[str, ...],
        send: Callable[[Stamp], Awaitable[OrderReport | OrderListReport]],
    ) -> EntryResult:
        """Send an entry whose request has that id and whose orders, the entry first, have those."""
        entry_id = client_ids[0]
        self._audit.enter(entry_id)
        intent = self._sender.intent(client_id, IntentKind.ENTRY, client_ids, plan.quantity, plan.limit_price)
        await self._sender.commit(intent)
        refusal = self._refuse_entry(intent.client_id) or self._outdated(request)
        if refusal is not None:  # safe mode or a lost grant between decision and send wins
            await self._sender.finish(intent, IntentState.REJECTED, f"not sent: {refusal}")
            return EntryResult(EntryOutcome.REFUSED, refusal)
        try:
            await self._sender.send(intent, send)
        except AmbiguousError as error:
            self._ctx.tell(OrdersEventKind.ENTRY_UNKNOWN, f"{entry_id}: {error}", plan.quantity, plan.limit_price)
            return EntryResult(EntryOutcome.UNKNOWN, error.code, str(error))
        try:
            return await self.after_entry(entry_id, request.reason)
        except ExchangeError as error:  # it was executed; what of it is not known before it can be read
            self._known.doubt = True
            self._ctx.tell(OrdersEventKind.ENTRY_UNKNOWN, f"{entry_id}: {error}", plan.quantity, plan.limit_price)
            return EntryResult(EntryOutcome.UNKNOWN, error.code, str(error))

    async def after_entry(self, entry_id: str, reason: str) -> EntryResult:
        """An entry is known at the exchange: book its fills, see its protection in place."""
        await self._known.refresh()
        await self._fills.collect()
        entry = self._tracker.get(entry_id)
        if entry is None or entry.executed_quantity == 0:
            self._ctx.tell(OrdersEventKind.ENTRY_EXPIRED, "the book had too little inside the collar")
            return EntryResult(EntryOutcome.EXPIRED, "Expired", "the book had too little inside the collar")
        price = self._fills.books.average_price
        self._ctx.tell(OrdersEventKind.ENTRY_FILLED, reason, entry.executed_quantity, price)
        self._watch.update()
        await self._protection.repair()
        return EntryResult(EntryOutcome.FILLED, "Filled")

    def _refuse_entry(self, own_intent: str = "") -> str | None:
        """The stable code of why no entry may be sent now."""
        if (code := self._refuse_buy()) is not None:
            return code
        if self._known.former_ms > 0:
            return "StoreNew"
        if any(i.client_id != own_intent and i.blocks_entries for i in self._sender.intents.values()):
            return "UnknownOrder"
        if self._fills.held > 0:
            return "PositionOpen"
        if self._tracker.active_orders:
            return "OrdersOpen"
        return self._may_enter()

    def _refuse_buy(self) -> str | None:
        """The stable code of why nothing to buy may be sent now, be it an announcement."""
        if self._known.two_traders is not None:
            return "TwoTraders"
        if self._ctx.reset is not None:
            return "ExchangeReset"
        if self._store.failed is not None:
            return StoreFailedError.code
        return None

    def _outdated(self, request: EntryRequest) -> str | None:
        """The stable code of why the entry would not be decided like this any more."""
        settings = self._settings()
        if request.settings != settings:
            return "SettingsChanged"
        if self._monotonic() - request.priced_at > settings.entry.max_data_age_seconds:
            return "DataTooOld"
        return None

    async def announce_early(self) -> None:
        """Show this process start as soon as it may, so that nobody waits for it at the first entry."""
        if self.announced or self._monotonic() < self._announce_after:
            return
        if (self._refuse_buy() or self._may_announce()) is not None:
            return
        self._announce_after = self._monotonic() + ANNOUNCE_AGAIN_SECONDS
        bid = (await self._exchange.book_ticker(self._ctx.rules.symbol)).bid
        if bid > 0:  # while nobody buys there is nothing to be far below
            await self._announce(bid)

    @because("Announce")
    async def _announce(self, price: Decimal) -> None:
        """Show this incarnation at the exchange by a LIMIT_MAKER far below the market, and cancel it."""
        band = self._ctx.rules.percent_price
        lowest = price * band.bid_down * Decimal("1.1") if band is not None else Decimal(0)
        far = filters.ceil_price(self._ctx.rules, max(price / 2, lowest))
        step = self._ctx.rules.lot.step or Decimal("0.00000001")
        least = max(self._ctx.rules.notional.min_notional * Decimal("1.01") / far, self._ctx.rules.lot.min_quantity)
        quantity = filters.floor_quantity(self._ctx.rules, least) + step
        sequence = self._ids.next_sequence()
        client_id = self._ids.make(sequence, Purpose.ANNOUNCE)
        intent = self._sender.intent(client_id, IntentKind.ANNOUNCE, (client_id,), quantity, far)
        await self._sender.commit(intent)
        refusal = self._refuse_buy() or self._may_announce()
        if refusal is not None:
            await self._sender.finish(intent, IntentState.REJECTED, f"not sent: {refusal}")
            return
        order = NewOrder(self._ctx.rules.symbol, client_id, Side.BUY, OrderType.LIMIT_MAKER, quantity, price=far)
        await self._sender.send(intent, lambda stamp: self._exchange.place_order(order, stamp))
        await self._sender.cancel(self._known.open(lambda tracked: tracked.client_order_id == client_id))
        self.announced, self._announced_at = True, self._monotonic()
