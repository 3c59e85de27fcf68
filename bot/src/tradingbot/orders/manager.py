"""The order manager: the only room that sends, cancels or repairs an order; it owns position and protection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Final, TypeVar

from tradingbot.gateway.errors import ExchangeError
from tradingbot.gateway.port import Exchange
from tradingbot.model import BalanceChange, BalancesUpdate, ListUpdate, SymbolRules, UserEvent
from tradingbot.orders.account_check import FOREIGN_BASE, AccountCheck
from tradingbot.orders.audit import because
from tradingbot.orders.cleanup import StaleOrder, entry_of, stale_orders
from tradingbot.orders.context import OrderContext
from tradingbot.orders.entries import ANNOUNCED_SECONDS, Entries
from tradingbot.orders.exits import SALE_WEIGHT, Exits
from tradingbot.orders.exposure import Exposure, measure_exposure
from tradingbot.orders.intents import SETTLE_MS, IntentKind, IntentState
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.oco_monitor import OcoVerdict
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.protection import UnprotectedTime
from tradingbot.orders.protection_repair import ProtectionRepair
from tradingbot.orders.protection_watch import ProtectionWatch
from tradingbot.orders.sender import ENTRY_PURPOSES, Sender
from tradingbot.orders.types import (
    EntryOutcome,
    EntryRequest,
    EntryResult,
    ExitOutcome,
    ExitResult,
    OrdersEvent,
    ProtectionState,
    ProtectionStatus,
    RecoveryReport,
    TrackedOrder,
)
from tradingbot.recovery.fence import parse, propose_incarnation
from tradingbot.recovery.retry import retry_read, retryable
from tradingbot.state.balance_reconciler import Verdict
from tradingbot.state.foreign_base import ForeignBase
from tradingbot.state.heard import Heard
from tradingbot.state.ledger import LedgerState
from tradingbot.state.position_validator import Correction, PositionValidator, Validation
from tradingbot.state.store import Store, StoreFailedError
from tradingbot_api.base import canonical
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy

R = TypeVar("R")
SUSPICION_SECONDS: Final = 2.0
"""An exit takes the protection off for a moment; one that takes longer is told as a loss of it."""
KEEP_ORDERS_MS: Final = 24 * 3_600_000
INCARNATION: Final = "incarnation"
INHERITED: Final = "inherited"
ACCOUNT_UID: Final = "account_uid"


class OrderManager:
    """Every order of one bot.

    `may_enter` is asked immediately before an entry is sent, after its intent is committed: it returns None, or the
    code of why not; `may_announce` likewise before the order that shows this process start, which is sent as soon as it
    may be, `announced_seconds` before the first entry. `settings` gives the settings in force. `notify` is called
    synchronously and must not block.
    `proven` says whether somebody who knows all traders named this process the one of its account and symbol.
    While `halted` nothing is sent but cancels of entries.
    One lock serialises whatever sends; events of the user stream are taken in between.
    """

    def __init__(
        self,
        *,
        exchange: Exchange,
        store: Store,
        rules: SymbolRules,
        account_uid: str,
        settings: Callable[[], BotSettings],
        may_enter: Callable[[], str | None],
        may_announce: Callable[[], str | None],
        notify: Callable[[OrdersEvent], None],
        monotonic: Callable[[], float],
        random: Random,
        proven: Callable[[], bool] = lambda: True,
        halted: Callable[[], bool] = lambda: False,
        announced_seconds: float = ANNOUNCED_SECONDS,
        unprotected: UnprotectedTime | None = None,
    ) -> None:
        self._ctx = ctx = OrderContext(
            exchange=exchange,
            store=store,
            rules=rules,
            account_uid=account_uid,
            settings=settings,
            notify=notify,
            monotonic=monotonic,
            random=random,
        )
        self._exchange = exchange
        self._store = store
        self._account_uid = account_uid
        self._settings = settings
        self._proven = proven
        self._told_to_halt = halted
        self._monotonic = monotonic
        self._random = random
        self._log = ctx.log
        self._ids = ctx.ids
        self._tracker = ctx.tracker
        self.audit = ctx.audit
        self._lock = asyncio.Lock()
        self.ending = False
        """No sale is begun any more, but by the protection's deadline: it would take the protection off first."""
        self._inherited = False
        """The exchange has orders of a process start that the store does not know: the position may be another's."""
        self._fills = fills = OwnFills(ctx)
        self._known = known = KnownOrders(ctx, fills)
        self._sender = sender = Sender(
            ctx, known=known, fills=fills, halted=lambda: self.halted, entry_found=self._entry_found
        )
        self._check = check = AccountCheck(ctx, known, fills)
        self._unprotected = unprotected or UnprotectedTime(monotonic())
        self._watch = watch = ProtectionWatch(ctx, known, fills, unprotected=self._unprotected)
        self._exits = exits = Exits(ctx, sender=sender, known=known, fills=fills, watch=watch)
        self._protection = protection = ProtectionRepair(
            ctx, exits=exits, sender=sender, known=known, fills=fills, watch=watch, halted=lambda: self.halted
        )
        self._entries = Entries(
            ctx,
            protection=protection,
            watch=watch,
            sender=sender,
            known=known,
            fills=fills,
            check=check,
            may_enter=may_enter,
            may_announce=may_announce,
            announced_seconds=announced_seconds,
        )

    @property
    def rules(self) -> SymbolRules:
        """What the exchange last said of the symbol."""
        return self._ctx.rules

    @rules.setter
    def rules(self, rules: SymbolRules) -> None:
        self._ctx.rules = rules

    @property
    def incarnation(self) -> int:
        """Number of this process start; 0 before `start`."""
        return self._ids.incarnation

    @property
    def entries_quiet(self) -> bool:
        """No entry is working, in flight or unknown, of this process or, with a new store, of a former one."""
        return (
            self._known.former_ms == 0
            and not any(i.kind in {IntentKind.ENTRY, IntentKind.ANNOUNCE} for i in self._sender.intents.values())
            and not any(order.purpose in ENTRY_PURPOSES for order in self._tracker.active_orders)
        )

    @property
    def announced(self) -> bool:
        """This incarnation has shown itself and cancelled that order; it sends no other that would rest as an entry."""
        return self._entries.announced

    @property
    def unknown(self) -> tuple[str, ...]:
        """Client ids of intents whose outcome is unknown; those in flight are not among them."""
        return self._sender.unknown

    @property
    def two_traders(self) -> str | None:
        """Why the fence is lost, or None; the bot must halt."""
        return self._known.two_traders

    @property
    def held_back(self) -> bool:
        """Nothing is sent: the position may be that of another process, until this one is named the trader."""
        return self._inherited and not self._proven()

    @property
    def halted(self) -> bool:
        """Nothing is sent but cancels of entries: another process looks after the position, or people must."""
        return self._known.two_traders is not None or self._told_to_halt() or self.held_back

    @property
    def exchange_reset(self) -> str | None:
        """Which order the exchange no longer knows, or None; the books are worth nothing and the bot must halt."""
        return self._ctx.reset

    @property
    def books(self) -> LedgerState:
        """Position, cost, fees and profit, folded from this bot's fills."""
        return self._fills.books

    async def books_at(self, time_ms: int) -> LedgerState:
        """The books as they were at a time of the exchange. StoreFailedError."""
        return await self._fills.books_at(time_ms)

    async def highest_realized(self) -> Decimal:
        """The most that was won whenever nothing was held. StoreFailedError."""
        return await self._fills.highest_realized()

    @property
    def held(self) -> Decimal:
        """What can be sold of the position, in base; executions count although their trades could not be read yet."""
        return self._fills.held

    @property
    def holding(self) -> bool:
        """Whether there is a position that can be sold."""
        return self.held > 0

    @property
    def verdict(self) -> Verdict | None:
        """The last comparison with the account."""
        return self._check.verdict

    @property
    def heard(self) -> Heard:
        """What the user stream told of the account besides this bot's orders."""
        return self._check.heard

    @property
    def settled(self) -> bool:
        """No outcome is awaited, and all that own orders executed is in the books."""
        return not self._sender.intents and not self._fills.missing()

    @property
    def exposure(self) -> Exposure | None:
        """What was bought or may be being bought; None while a former process, whose store is lost, may still buy."""
        if self._known.former_ms > 0:
            return None
        orders = {order.client_order_id: order for order in (*self._tracker.active_orders, *self._fills.missing())}
        return measure_exposure(
            self.books,
            self._sender.intents.values(),
            (order.client_order_id for order in self._tracker),
            ((order, self._fills.booked(order)) for order in orders.values()),
        )

    @property
    def protection(self) -> ProtectionStatus:
        """Protection of the open position."""
        return self._watch.status

    @property
    def highest_order_id(self) -> int:
        """Of all orders that this bot knows to be its own."""
        return self._known.highest_id

    @property
    def naked(self) -> bool:
        """Whether a position is without protection, or may be after an answer was lost."""
        return self._watch.naked

    @property
    def unprotected_seconds(self) -> float:
        """Seconds that a position has been without protection, summed since the process started."""
        return self._unprotected.seconds(self._monotonic())

    @property
    def open_orders(self) -> tuple[TrackedOrder, ...]:
        """This bot's open orders, oldest first."""
        return self._tracker.active_orders

    @property
    def open_lists(self) -> int:
        """Number of this bot's open order lists."""
        return len(self._tracker.oco_orders)

    @property
    def pairs(self) -> list[OcoVerdict]:
        """What has become of each protection pair that has not ended."""
        return self._known.ocos.check_oco_status()

    @property
    def foreign_orders(self) -> tuple[str, ...]:
        """Client ids of open orders on the symbol that are not this bot's, when last read."""
        return tuple(sorted(self._known.foreign))

    @property
    def last_order_check_ms(self) -> int | None:
        """Exchange time at which open orders were last read."""
        return self._known.last_check_ms

    @property
    def taker_rate(self) -> Decimal:
        """The account's taker commission for the symbol, as a ratio."""
        return self._ctx.taker_rate

    def validate(self, price: Decimal) -> Validation:
        """Whether the position is covered by the account (as last compared), protected, and more than dust."""
        # What the account lacks is tolerated where it is too little to be sold.
        verdict = self._check.verdict
        lacks = -verdict.drift if verdict is not None and verdict.uncovered else Decimal(0)
        return self._validator().validate_position(
            self._fills.books.quantity,
            price,
            account_total=self._fills.books.quantity - lacks,
            protected=self._watch.status.state is not ProtectionState.UNPROTECTED,
            oversold=self._fills.books.oversold,
        )

    def _validator(self) -> PositionValidator:
        return PositionValidator(self.rules.symbol, self.rules.notional.min_notional)

    def suggest_correction(self, price: Decimal, *, compared_again: bool) -> Correction:
        """What would make the position right."""
        return self._validator().suggest_correction(self.validate(price), compared_again=compared_again)

    async def start(self) -> RecoveryReport:
        """Start-up and crash recovery, one path: load intents, ask the exchange, fold, compare, repair.

        Raises ExchangeError where the exchange cannot be asked (call it again), StoreError where the store cannot.
        """
        async with self._lock:
            return await self._start()

    async def _read(self, read: Callable[[], Awaitable[R]]) -> R:
        """A read of the start, which would begin anew for one lost answer."""
        return await retry_read(read, retryable=retryable, rng=self._random)

    async def _start(self) -> RecoveryReport:
        lines: list[str] = []
        await self._exchange.sync_clock()
        self._ctx.taker_rate = (await self._read(lambda: self._exchange.commission(self._ctx.rules.symbol))).taker
        stored = await self._store.get(INCARNATION, int) or 0
        recorded = await self._store.get(FOREIGN_BASE, ForeignBase)
        for order in await self._store.orders(since_ms=self._exchange.exchange_ms() - KEEP_ORDERS_MS):
            self._tracker.add_order(order)
            self._known.watch_list(order)
        self._known.highest_id = await self._store.highest_order_id()
        await self._fills.load()
        await self._known.look_for_reset()
        open_intents = await self._store.open_intents()
        self.audit.restore(self._tracker, open_intents)
        # What an open intent made has a higher order id than any known when it was committed.
        known = [intent.after_order_id for intent in open_intents] or [self._known.highest_id]
        lost = bool(self._store.unreadable)
        if lost:
            known = [0]
        self._known.listed_ms = read_ms = self._exchange.exchange_ms()
        listed = await self._read(
            lambda: self._exchange.all_orders(self._ctx.rules.symbol, from_order_id=min(known) + 1, urgent=True)
        )
        self._known.listed_id = max((report.order_id for report in listed), default=min(known))
        listed += await self._read(lambda: self._exchange.open_orders(self._ctx.rules.symbol, urgent=True))
        own = [report for report in listed if self._known.is_own(report)]
        seen = [client_id.incarnation for report in own if (client_id := parse(report.client_order_id)) is not None]
        self._inherited = bool(await self._store.get(INHERITED, bool)) or max(seen, default=0) > stored
        if self._inherited:  # before the incarnation, which hides it from the next start
            await self._ctx.note(INHERITED, True)
        incarnation = propose_incarnation(self._exchange.exchange_ms(), stored, *seen)
        await self._ctx.note(INCARNATION, incarnation)
        await self._ctx.note(ACCOUNT_UID, self._account_uid)
        self._ids.incarnation = incarnation
        if recorded is None and own:
            # Committed before the orders are: however this start ends, the next one knows it too.
            recorded = ForeignBase(None, self._quiet_ms())
            await self._ctx.note(FOREIGN_BASE, recorded)
            lines.append(f"the store was new, {len(own)} own orders found at the exchange: books made from its trades")
        rebuilt = recorded is not None and recorded.base is None
        if lost:
            lines.append("rows of the store could not be read: all orders were read from the exchange")
            self._known.former_ms = self._quiet_ms()
        elif recorded is not None and recorded.quiet_ms > read_ms:
            self._known.former_ms = recorded.quiet_ms
        await self._known.absorb(own)
        for intent in open_intents:
            # The process that sent it is gone; SENDING and UNKNOWN are the same to the next one.
            self._sender.intents[intent.client_id] = replace(intent, state=IntentState.UNKNOWN)
        await self._sender.resolve_unknown()
        lines += [f"outcome of {client_id} is not known yet" for client_id in self.unknown]
        await self._known.refresh()
        await self._fills.collect()
        if recorded is None:
            # What is held before the first order is not this bot's.
            account = await self._exchange.account(urgent=True)
            total = account.balance(self._ctx.rules.base_asset).total
            recorded = ForeignBase(total, next_trade=await self._check.next_trade())
            await self._ctx.note(FOREIGN_BASE, recorded)
        self._check.foreign_base = recorded
        await self._tidy(lines)
        self._watch.update()
        await self._protection.repair()
        verdict = await self._check.compare()
        lines += [self._ctx.reset] if self._ctx.reset is not None else []
        lines.append(f"position {canonical(self.books.quantity)} {self.rules.base_asset}, books {verdict.kind}")
        return RecoveryReport(tuple(lines), self.foreign_orders, self.unknown, rebuilt)

    def _quiet_ms(self) -> int:
        """Exchange time until which it may still execute what was sent before now."""
        return self._exchange.exchange_ms() + self._exchange.stamp().recv_window_ms + SETTLE_MS

    async def reconcile(self) -> Verdict:
        """Read account, open orders and trades, repair what differs; call each 60 s, after reconnects and on doubt."""
        async with self._lock:
            if self._inherited and self._proven():
                self._inherited = False
                await self._ctx.note(INHERITED, False)
            await self._known.look_for_reset()
            await self._known.take_former()
            await self._sender.resolve_unknown()
            self._known.unlisted = True  # a user stream that is silent, and says so to nobody, told of no second trader
            await self._known.refresh()
            await self._fills.collect()
            await self._fills.value_fees()
            await self._tidy([])
            self._watch.update()
            await self._protection.repair()
            keep = {order.client_order_id for order in self._fills.missing()}
            for client_id in self._tracker.cleanup_old_orders(self._exchange.exchange_ms(), keep=keep):
                self._log.debug("order forgotten", client_order_id=client_id)
            await self._fills.move_checkpoint()
            return await self._check.compare()

    async def adopt(self) -> Verdict:
        """A human takes the account's word: what it lacks of the position leaves the books at the best bid.

        Nothing is corrected while an outcome is unknown or trades are missing. ExchangeError, StoreFailedError.
        """
        async with self._lock:
            verdict = await self._check.compare()
            if verdict.synced or not self.settled:
                return verdict
            if self._known.two_traders is not None or self._ctx.reset is not None:
                return verdict
            await self._check.adopt(verdict, await self._exits.bid())
            self._watch.update()
            return await self._check.compare()

    @property
    def acting(self) -> bool:
        """Whether an action is under way, or waited for."""
        return self._lock.locked()

    async def tick(self, *, entry_near: bool = False) -> None:
        """Do what is due: resolve unknown intents, restore protection. Call about each second.

        With `entry_near` an entry may follow within the next two: what it needs is read before.

        AuthRejectedError where the keys are refused: nothing can be done with them, and people must be told.
        """
        if self._lock.locked():
            # An action is under way and looks after the same things. Where it waits long for an answer, what the user
            # stream told meanwhile counts.
            since = self._watch.suspected
            late = since is not None and self._monotonic() - since > SUSPICION_SECONDS
            self._watch.update(certain=late)
            return
        async with self._lock:
            try:
                await self._protection.repair()  # before any look at something else, which may wait long for its answer
                await self._ctx.tolerate(self._known.take_former())
                await self._ctx.tolerate(self._sender.resolve_unknown())
                spare = self._exchange.spare_weight >= SALE_WEIGHT
                if self._known.look_is_due(entry_near=entry_near and spare) or self._fills.missing():
                    await self._ctx.tolerate(self._known.refresh())
                    await self._ctx.tolerate(self._fills.collect())
                self._watch.update()
                await self._protection.repair()
                if self._stale_orders():
                    await self._ctx.tolerate(self._sweep())
                if self._watch.status.state is not ProtectionState.UNPROTECTED:
                    await self._ctx.tolerate(self._entries.announce_early())
            finally:
                self._watch.update()

    async def _entry_found(self, entry_id: str, why: str) -> None:
        await self._entries.after_entry(entry_id, why)

    async def idle(self) -> None:
        """Returns once no action is under way: in the middle of one a position may be without protection."""
        async with self._lock:
            pass

    async def on_user_event(self, event: UserEvent) -> None:
        """Take an event of the user stream."""
        if isinstance(event, BalancesUpdate | ListUpdate):
            return  # orders and fills come as order updates; balances are compared by `reconcile`
        if isinstance(event, BalanceChange):
            await self._check.take_change(event)
            return
        if event.fill is not None:
            self._check.heard.take_trade(event.report, self._ids.key)
        await self._known.on_update(event)
        if not self._lock.locked():
            self._watch.update(certain=False)

    def missed_events(self) -> None:
        """The user stream was connected: another process may have sent what neither it nor the last look told of."""
        self._known.unlisted = True
        self._check.heard.begin(self._exchange.exchange_ms())

    async def raise_incarnation(self, minimum: int) -> bool:
        """Take `minimum` or more and commit it; False after the first order of this process. StoreFailedError."""
        if minimum <= self._ids.incarnation:
            return True
        if self._ids.used:
            return False
        await self._store.put(INCARNATION, minimum)
        self._ids.incarnation = minimum
        return True

    async def enter(self, request: EntryRequest) -> EntryResult:
        """Buy with protection in one request; where the book is too thin, what there is, protected right after."""
        async with self._lock:
            try:
                return await self._entries.enter(request)
            except StoreFailedError as error:
                return EntryResult(EntryOutcome.REFUSED, error.code, str(error))
            except ExchangeError as error:
                return EntryResult(EntryOutcome.REFUSED, error.code, str(error))
            finally:
                self._watch.update()

    async def exit(self, reason: str) -> ExitResult:
        """Sell the position: cancel its protection, then sell what is held."""
        if self.held_back:
            return ExitResult(ExitOutcome.FAILED, "AwaitingGrant", "the position may be another process's")
        async with self._lock:
            if self.ending:
                return ExitResult(ExitOutcome.FAILED, "Stopping", "the connection is being ended")
            if self.halted:
                return ExitResult(ExitOutcome.FAILED, "Halted", "nothing is sent")
            try:
                result = await self._exits.sell_position(reason)
            except ExchangeError as error:
                result = ExitResult(ExitOutcome.FAILED, error.code, str(error))
                self._known.doubt = True
            self._watch.update()
            await self._protection.repair()  # what could not be sold is protected again
            return result

    @because("EntriesCanceled")
    async def cancel_entries(self) -> None:
        """Cancel every working entry; after it `entries_quiet` tells whether none is left. Raises ExchangeError."""
        if self.entries_quiet or self.held_back:
            return
        async with self._lock:
            try:
                await self._sender.resolve_unknown()
                await self._sender.cancel(self._known.open(lambda order: order.purpose in ENTRY_PURPOSES))
                await self._known.refresh()
                await self._fills.collect()
                self._watch.update()
                await self._protection.repair()
            finally:
                self._watch.update()

    async def drain(self, policy: PositionPolicy) -> list[str]:
        """Cancel entries, with ClosePosition sell; returns what stays on the exchange, a line each. Idempotent.

        Raises ExchangeError where the exchange cannot be asked: call it again.
        """
        await self.cancel_entries()
        if policy is PositionPolicy.CLOSE_POSITION and self.holding:
            await self.exit("Drain")
        async with self._lock:
            await self._known.refresh()
            await self._fills.collect()
            self._watch.update()
            await self._protection.repair()
        return self.remaining()

    def remaining(self) -> list[str]:
        """What is on the exchange as far as is known now, a line each: what has no outcome, position, open orders."""
        remaining = [f"outcome of {client_id} is unknown" for client_id in self.unknown]
        if self.holding:
            state = self._watch.status.state.value.lower()
            remaining.append(f"position {canonical(self._fills.books.quantity)} {self._ctx.rules.base_asset}, {state}")
        return remaining + [
            f"{order.side} {order.type} {canonical(order.quantity)} stop={canonical(order.stop_price)} "
            f"price={canonical(order.price)} list={order.order_list_id} {order.client_order_id}"
            for order in self.open_orders
        ]

    @because("Stale")
    async def _sweep(self) -> None:
        """Cancel what serves nothing, by what the exchange says now: it could sell what is another's."""
        await self._known.refresh()
        await self._fills.collect()
        await self._tidy([])

    async def _tidy(self, lines: list[str]) -> None:
        """Cancel own orders that serve nothing; only with books that agree with the exchange."""
        if self.halted or self._ctx.reset is not None:
            return
        if not self.settled:
            return
        stale = self._stale_orders()
        # Books without an entry would call its protection stale: the exchange is asked for it before.
        entries = {entry for item in stale if (entry := entry_of(item.order)) and self._tracker.get(entry) is None}
        if entries:
            await self._known.absorb(await self._known.read(sorted(entries)))
            await self._fills.collect()
            if self._fills.missing():
                return
            stale = self._stale_orders()
        for item in stale:
            lines.append(f"canceled {item.order.client_order_id}: {item.reason}")
            self._log.info("stale order", client_order_id=item.order.client_order_id, reason=item.reason)
        if stale:
            await self._sender.cancel(item.order for item in stale)
            await self._known.refresh()

    def _stale_orders(self) -> list[StaleOrder]:
        return stale_orders(
            self._tracker,
            flat=self.held == 0,
            position=self._fills.quantity,
            now_ms=self._exchange.exchange_ms(),
            entry_seconds=self._settings().entry.max_age_seconds,
        )
