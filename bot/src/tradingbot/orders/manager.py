"""The order manager: the only room that sends, cancels or repairs an order; it owns position and protection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Final, TypeVar

import structlog

from tradingbot.gateway import filters
from tradingbot.gateway.errors import (
    AmbiguousError,
    AuthRejectedError,
    ExchangeError,
    NotFoundError,
    NotSentError,
    OrderArchivedError,
    RateLimitedError,
    RejectedError,
    UnknownSymbolError,
)
from tradingbot.gateway.port import Exchange, NewOco, NewOrder, NewOtoco, NewProtection, Stamp
from tradingbot.model import (
    NO_LIST,
    BalanceChange,
    BalancesUpdate,
    ListUpdate,
    OrderListReport,
    OrderReport,
    OrderStatus,
    OrderType,
    OrderUpdate,
    Side,
    SymbolRules,
    TimeInForce,
    TradeFill,
    UserEvent,
)
from tradingbot.orders.audit import AuditLog, because, for_its_reason
from tradingbot.orders.cleanup import StaleOrder, entry_of, foreign_orders, stale_orders
from tradingbot.orders.intents import SETTLE_MS, Evidence, Intent, IntentKind, IntentState, judge
from tradingbot.orders.oco_monitor import OCOMonitor, OcoState, OcoVerdict
from tradingbot.orders.planning import EntryPlan, ProtectionPlan, plan_entry, plan_protection
from tradingbot.orders.protection import (
    Unbooked,
    UnprotectedTime,
    held_quantity,
    judge_protection,
    stopped_quantity,
    stopping_orders,
)
from tradingbot.orders.tracker import OrderTracker
from tradingbot.orders.trailing import highest_since, place_again
from tradingbot.orders.types import (
    EntryOutcome,
    EntryRequest,
    EntryResult,
    ExitOutcome,
    ExitResult,
    OrdersEvent,
    OrdersEventKind,
    ProtectionState,
    ProtectionStatus,
    RecoveryReport,
    TrackedOrder,
)
from tradingbot.recovery.fence import LAST_SEQUENCE, ClientIds, Purpose, parse, propose_incarnation
from tradingbot.recovery.retry import retry_read, retryable
from tradingbot.state.balance_reconciler import BalanceReconciler, Verdict, VerdictKind
from tradingbot.state.foreign_base import ForeignBase
from tradingbot.state.ledger import BookedFill, CorrectionFill, LedgerState, book, extend, fold
from tradingbot.state.position_validator import Correction, PositionValidator, Validation
from tradingbot.state.store import Store, StoreFailedError
from tradingbot_api import names
from tradingbot_api.base import canonical
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy

T = TypeVar("T", bound=OrderReport | OrderListReport)
R = TypeVar("R")
EXIT_ATTEMPTS: Final = 6
SUSPICION_SECONDS: Final = 2.0
"""An exit takes the protection off for a moment; one that takes longer is told as a loss of it."""
CANCEL_ANSWER_SECONDS: Final = 1.0
"""How long the answer to a cancel is waited for when the user stream may have told what became of its target."""
FRESH_ORDERS_MS: Final = 5_000
"""An entry needs open orders that were read within this time: they show a second trader."""
KEEP_ORDERS_MS: Final = 24 * 3_600_000
SETTLE_WAITS: Final = (0.2, 0.3, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0)
"""Seconds between questions about a request that got no answer, while its outcome is waited for."""
FILL_WAITS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 1.0)
"""Trades of an order may be readable later than the order itself."""
VANISHED_WAITS: Final = (0.0, 1.0, 2.0)
"""Seconds before each question for an order that the exchange told of and does not find any more."""
READABLE_MS: Final = 5_000 + SETTLE_MS
"""An order that the exchange told of this long ago can be read there."""
VERDICT_ATTEMPTS: Final = 3
SALE_WEIGHT: Final = 300
"""Request weight for a sale and, where it is refused, new protection: some 150, and as much again for doubts."""
REFUSED_WAITS: Final = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds for which the protection stays after a refused sale, and after the next ones in a row."""
NAKED_WAITS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds until the next try to protect or sell what has no stop, after refusals in a row."""
LIMIT_SALES: Final = 3
"""Slices of an exit that are sold inside the slippage collar; the next ones are sold at the market."""
REFUSED_SALES: Final = 2
"""Refusals that end an exit: the second came at the market, with the balance read anew."""
LIST_EVERY_MS: Final = 5_000
"""Between two looks at all orders, while more than the known ones may be there: each weighs 20."""
BULK_TRADES: Final = 5
"""From this many orders with missing fills on, all trades are read at once."""
PEAK_SECONDS: Final = 2.0
"""For reading the highest price before a stop that follows it is placed again: the position has no stop meanwhile."""
ENTRY_PURPOSES: Final = frozenset({Purpose.ENTRY, Purpose.ANNOUNCE})
ANNOUNCED_SECONDS: Final = 1.0
"""Between showing itself and its first entry: an earlier process on the same account hears it and halts."""
ANNOUNCE_AGAIN_SECONDS: Final = 60.0
"""After a try that failed: the account may have too little quote; the first entry tries it anew."""
STOP_PASSED: Final = "StopPassed"
INCARNATION: Final = "incarnation"
INHERITED: Final = "inherited"
CHECKPOINT: Final = "checkpoint"
CHECKPOINT_FILLS: Final = 100
"""The checkpoint moves over so many fills at once."""
FOREIGN_BASE: Final = "foreign_base"
CORRECTIONS: Final = "corrections"
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
        self._exchange = exchange
        self._store = store
        self._rules = rules
        self._account_uid = account_uid
        self._settings = settings
        self._may_enter = may_enter
        self._may_announce = may_announce
        self._announced_seconds = announced_seconds
        self._proven = proven
        self._halted = halted
        self._notify = notify
        self._monotonic = monotonic
        self._random = random
        self._log = structlog.get_logger("orders").bind(symbol=rules.symbol)
        self.ending = False
        """No sale is begun any more, but by the protection's deadline: it would take the protection off first."""
        self._lock = asyncio.Lock()
        self.audit = AuditLog(rules.symbol)
        self._tracker = OrderTracker()
        self._ocos = OCOMonitor(self._tracker)
        self._reconciler = BalanceReconciler(exchange, rules)
        self._validator = PositionValidator(rules.symbol, rules.notional.min_notional)
        self._ids = ClientIds(names.bot_key(account_uid, rules.symbol), 0, random.randrange(LAST_SEQUENCE // 2))
        self._intents: dict[str, Intent] = {}
        self._fills: dict[int, BookedFill] = {}
        """Those after the checkpoint, by trade id."""
        self._checkpoint = self._no_books()
        """The books of all fills before them, which only the store has."""
        self._books = self._checkpoint
        self._corrections: list[CorrectionFill] = []
        self._highest_order_id = 0
        self._listed_id, self._listed_ms = 0, 0
        self._unlisted = False
        """An order of this bot's key that another process made, or books that differ, say that more may be unknown."""
        self._foreign_base = ForeignBase(None)
        self._balance_changes: deque[BalanceChange] = deque(maxlen=100)
        self._looked_for: Decimal | None = None
        """The unexplained base for which trades of others were looked at."""
        self._priceless: set[str] = set()
        """Assets of fees that have no market against the quote, as far as this process asked."""
        self._foreign: dict[str, OrderReport] = {}
        self._foreign_meanwhile: dict[str, OrderReport] = {}
        self._verdict: Verdict | None = None
        self._last_check_ms: int | None = None
        self._two_traders: str | None = None
        self._exchange_reset: str | None = None
        self._former_ms = 0
        """Until then the exchange may still execute what a former process sent, whose store is lost; 0: nothing."""
        self._inherited = False
        """The exchange has orders of a process start that the store does not know: the position may be another's."""
        self._taker_rate = Decimal(0)
        self._announced = False
        self._announced_at = self._announce_after = 0.0
        self._protection = ProtectionStatus(ProtectionState.FLAT)
        self._suspected: float | None = None
        self._unprotected = unprotected or UnprotectedTime(monotonic())
        self._doubt = False
        """An answer was lost: open orders must be read before they are relied upon."""
        self._repair_after = 0.0
        self._repair_failures = 0
        self._refused = ""
        """Why the exchange refused the last sale or protection."""
        self._sale_failed = False
        """The last try to sell what has no stop failed."""
        self._keep_until, self._kept_because = 0.0, ""
        """Until then the protection is not taken off for a sale, which was refused."""
        self._refusals = 0

    # --- what is ---

    @property
    def rules(self) -> SymbolRules:
        """What the exchange last said of the symbol."""
        return self._rules

    @rules.setter
    def rules(self, rules: SymbolRules) -> None:
        self._rules = rules
        self._validator = PositionValidator(rules.symbol, rules.notional.min_notional)

    @property
    def incarnation(self) -> int:
        """Number of this process start; 0 before `start`."""
        return self._ids.incarnation

    @property
    def entries_quiet(self) -> bool:
        """No entry is working, in flight or unknown, of this process or, with a new store, of a former one."""
        return (
            self._former_ms == 0
            and not any(i.kind in {IntentKind.ENTRY, IntentKind.ANNOUNCE} for i in self._intents.values())
            and not any(order.purpose in ENTRY_PURPOSES for order in self._tracker.active_orders)
        )

    @property
    def announced(self) -> bool:
        """This incarnation has shown itself and cancelled that order; it sends no other that would rest as an entry."""
        return self._announced

    @property
    def unknown(self) -> tuple[str, ...]:
        """Client ids of intents whose outcome is unknown; those in flight are not among them."""
        return tuple(i.client_id for i in self._intents.values() if i.state is IntentState.UNKNOWN and i.blocks_entries)

    @property
    def two_traders(self) -> str | None:
        """Why the fence is lost, or None; the bot must halt."""
        return self._two_traders

    @property
    def held_back(self) -> bool:
        """Nothing is sent: the position may be that of another process, until this one is named the trader."""
        return self._inherited and not self._proven()

    @property
    def halted(self) -> bool:
        """Nothing is sent but cancels of entries: another process looks after the position, or people must."""
        return self._two_traders is not None or self._halted() or self.held_back

    @property
    def exchange_reset(self) -> str | None:
        """Which order the exchange no longer knows, or None; the books are worth nothing and the bot must halt."""
        return self._exchange_reset

    @property
    def books(self) -> LedgerState:
        """Position, cost, fees and profit, folded from this bot's fills."""
        return self._books

    @property
    def held(self) -> Decimal:
        """What can be sold of the position, in base; executions count although their trades could not be read yet."""
        return held_quantity(self._rules, self._books, self._unbooked())

    @property
    def _quantity(self) -> Decimal:
        """The position to the last decimal, in base, as far as its trades could be read."""
        return self._books.quantity + self._unbooked().quantity

    @property
    def verdict(self) -> Verdict | None:
        """The last comparison with the account."""
        return self._verdict

    @property
    def protection(self) -> ProtectionStatus:
        """Protection of the open position."""
        return self._protection

    @property
    def naked(self) -> bool:
        """Whether a position is without protection, or may be after an answer was lost."""
        return self._protection.state is ProtectionState.UNPROTECTED or (self._doubt and self.held > 0)

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
        return self._ocos.check_oco_status()

    @property
    def foreign_orders(self) -> tuple[str, ...]:
        """Client ids of open orders on the symbol that are not this bot's, when last read."""
        return tuple(sorted(self._foreign))

    @property
    def last_order_check_ms(self) -> int | None:
        """Exchange time at which open orders were last read."""
        return self._last_check_ms

    @property
    def taker_rate(self) -> Decimal:
        """The account's taker commission for the symbol, as a ratio."""
        return self._taker_rate

    def validate(self, price: Decimal) -> Validation:
        """Whether the position is covered by the account (as last compared), protected, and more than dust."""
        # What the account lacks is tolerated where it is too little to be sold.
        lacks = -self._verdict.drift if self._verdict is not None and self._verdict.uncovered else Decimal(0)
        return self._validator.validate_position(
            self._books.quantity,
            price,
            account_total=self._books.quantity - lacks,
            protected=self._protection.state is not ProtectionState.UNPROTECTED,
            oversold=self._books.oversold,
        )

    def suggest_correction(self, price: Decimal, *, compared_again: bool) -> Correction:
        """What would make the position right."""
        return self._validator.suggest_correction(self.validate(price), compared_again=compared_again)

    # --- life cycle ---

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
        self._taker_rate = (await self._read(lambda: self._exchange.commission(self._rules.symbol))).taker
        stored = await self._store.get(INCARNATION, int) or 0
        recorded = await self._store.get(FOREIGN_BASE, ForeignBase)
        for order in await self._store.orders(since_ms=self._exchange.exchange_ms() - KEEP_ORDERS_MS):
            self._tracker.add_order(order)
            self._watch_list(order)
        self._highest_order_id = await self._store.highest_order_id()
        checkpoint = await self._store.get(CHECKPOINT, LedgerState)
        if checkpoint is not None:
            self._checkpoint = replace(checkpoint, dust_limit=filters.dust_limit(self._rules))
        fills = await self._store.fills(after=self._checkpoint.last_trade_id)
        self._fills = {booked.fill.trade_id: booked for booked in fills}
        self._corrections = await self._store.get(CORRECTIONS, list[CorrectionFill]) or []
        self._books = self._extended(fills)
        await self._look_for_reset()
        open_intents = await self._store.open_intents()
        self.audit.restore(self._tracker, open_intents)
        # What an open intent made has a higher order id than any known when it was committed.
        known = [intent.after_order_id for intent in open_intents] or [self._highest_order_id]
        lost = bool(self._store.unreadable)
        if lost:
            known = [0]
        self._listed_ms = read_ms = self._exchange.exchange_ms()
        listed = await self._read(
            lambda: self._exchange.all_orders(self._rules.symbol, from_order_id=min(known) + 1, urgent=True)
        )
        listed += await self._read(lambda: self._exchange.open_orders(self._rules.symbol, urgent=True))
        own = [report for report in listed if self._is_own(report)]
        seen = [client_id.incarnation for report in own if (client_id := parse(report.client_order_id)) is not None]
        self._inherited = bool(await self._store.get(INHERITED, bool)) or max(seen, default=0) > stored
        if self._inherited:  # before the incarnation, which hides it from the next start
            await self._note(INHERITED, True)
        incarnation = propose_incarnation(self._exchange.exchange_ms(), stored, *seen)
        await self._note(INCARNATION, incarnation)
        await self._note(ACCOUNT_UID, self._account_uid)
        self._ids.incarnation = incarnation
        if recorded is None and own:
            # Committed before the orders are: however this start ends, the next one knows it too.
            recorded = ForeignBase(None, self._quiet_ms())
            await self._note(FOREIGN_BASE, recorded)
            lines.append(f"the store was new, {len(own)} own orders found at the exchange: books made from its trades")
        rebuilt = recorded is not None and recorded.base is None
        if lost:
            lines.append("rows of the store could not be read: all orders were read from the exchange")
            self._former_ms = self._quiet_ms()
        elif recorded is not None and recorded.quiet_ms > read_ms:
            self._former_ms = recorded.quiet_ms
        await self._absorb(own)
        for intent in open_intents:
            # The process that sent it is gone; SENDING and UNKNOWN are the same to the next one.
            self._intents[intent.client_id] = replace(intent, state=IntentState.UNKNOWN)
        await self._resolve_unknown()
        lines += [f"outcome of {client_id} is not known yet" for client_id in self.unknown]
        await self._refresh()
        await self._collect_fills()
        if recorded is None:
            # What is held before the first order is not this bot's.
            account = await self._exchange.account(urgent=True)
            total = account.balance(self._rules.base_asset).total
            recorded = ForeignBase(total, next_trade=await self._next_trade())
            await self._note(FOREIGN_BASE, recorded)
        self._foreign_base = recorded
        await self._tidy(lines)
        self._update_protection()
        await self._repair()
        verdict = await self._compare()
        lines += [self._exchange_reset] if self._exchange_reset is not None else []
        lines.append(f"position {canonical(self._books.quantity)} {self._rules.base_asset}, books {verdict.kind}")
        return RecoveryReport(tuple(lines), self.foreign_orders, self.unknown, rebuilt)

    def _quiet_ms(self) -> int:
        """Exchange time until which it may still execute what was sent before now."""
        return self._exchange.exchange_ms() + self._exchange.stamp().recv_window_ms + SETTLE_MS

    async def reconcile(self) -> Verdict:
        """Read account, open orders and trades, repair what differs; call each 60 s, after reconnects and on doubt."""
        async with self._lock:
            if self._inherited and self._proven():
                self._inherited = False
                await self._note(INHERITED, False)
            await self._look_for_reset()
            await self._take_former()
            await self._resolve_unknown()
            await self._refresh()
            await self._collect_fills()
            await self._value_fees()
            await self._tidy([])
            self._update_protection()
            await self._repair()
            keep = {order.client_order_id for order in self._missing_fills()}
            for client_id in self._tracker.cleanup_old_orders(self._exchange.exchange_ms(), keep=keep):
                self._log.debug("order forgotten", client_order_id=client_id)
            await self._move_checkpoint()
            return await self._compare()

    async def adopt(self) -> Verdict:
        """A human takes the account's word: what it lacks of the position leaves the books at the best bid.

        Nothing is corrected while an outcome is unknown or trades are missing. ExchangeError, StoreFailedError.
        """
        async with self._lock:
            verdict = await self._compare()
            if verdict.synced or self._intents or self._missing_fills():
                return verdict
            if self._two_traders is not None or self._exchange_reset is not None:
                return verdict
            next_trade = await self._next_trade()
            correction = CorrectionFill(
                after_trade_id=max(self._books.last_trade_id, next_trade - 1),  # a fill that was missed comes before it
                time_ms=self._exchange.exchange_ms(),
                quantity=max(-verdict.drift, Decimal(0)),
                price=await self._bid() or self._books.average_price,
            )
            corrections = [*self._corrections, correction]
            books = extend(self._checkpoint, self._fills.values(), corrections)
            foreign = self._foreign_base.adopted(books, verdict.base.total, next_trade)
            await self._store.put_all({CORRECTIONS: corrections, FOREIGN_BASE: foreign})
            self._corrections, self._books, self._foreign_base = corrections, books, foreign
            self._update_protection()
            self._tell(OrdersEventKind.BOOKS_CHANGED, "correction", correction.quantity, correction.price)
            return await self._compare()

    @property
    def acting(self) -> bool:
        """Whether an action is under way, or waited for."""
        return self._lock.locked()

    async def tick(self) -> None:
        """Do what is due: resolve unknown intents, restore protection. Call about each second.

        AuthRejectedError where the keys are refused: nothing can be done with them, and people must be told.
        """
        if self._lock.locked():
            # An action is under way and looks after the same things. Where it waits long for an answer, what the user
            # stream told meanwhile counts.
            since = self._suspected
            late = since is not None and self._monotonic() - since > SUSPICION_SECONDS
            self._update_protection(certain=late)
            return
        async with self._lock:
            try:
                await self._repair()  # before any look at something else, which may wait long for its answer
                await self._try(self._take_former())
                await self._try(self._resolve_unknown())
                if self._doubt or self._missing_fills() or self._check_is_due() or self._listing_is_due():
                    await self._try(self._refresh())
                    await self._try(self._collect_fills())
                self._update_protection()
                await self._repair()
                if self._stale_orders():
                    await self._try(self._sweep())
                if self._protection.state is not ProtectionState.UNPROTECTED:
                    await self._try(self._announce_early())
            finally:
                self._update_protection()

    async def _try(self, work: Awaitable[None]) -> None:
        """Do it as far as it can be done: what follows must not wait for it. AuthRejectedError."""
        try:
            await work
        except AuthRejectedError:
            raise
        except (ExchangeError, StoreFailedError) as error:
            self._log.warning("not done", error=str(error))

    def _check_is_due(self) -> bool:
        """While a position is held, its protection is looked at often enough to be restored within its deadline.

        The user stream may be dead without having said so.
        """
        if self.held == 0 or self._last_check_ms is None:
            return False
        age_ms = self._exchange.exchange_ms() - self._last_check_ms
        return age_ms > self._settings().protection.deadline_seconds * 1000 // 2

    async def idle(self) -> None:
        """Returns once no action is under way: in the middle of one a position may be without protection."""
        async with self._lock:
            pass

    async def on_user_event(self, event: UserEvent) -> None:
        """Take an event of the user stream."""
        if isinstance(event, BalancesUpdate | ListUpdate):
            return  # orders and fills come as order updates; balances are compared by `reconcile`
        if isinstance(event, BalanceChange):
            await self._take_change(event)
            return
        await self._on_order_update(event)
        if not self._lock.locked():
            self._update_protection(certain=False)

    def missed_events(self) -> None:
        """The user stream was connected: another process may have sent what neither it nor the last look told of."""
        self._unlisted = True

    async def _take_change(self, event: BalanceChange) -> None:
        """Remember base that came or went besides trades; two streams may tell it, while one takes over."""
        if event.asset == self._rules.base_asset and event not in self._balance_changes:
            self._balance_changes.append(event)
            self._foreign_base = self._foreign_base.after_change(event)
            await self._note(FOREIGN_BASE, self._foreign_base)

    async def _on_order_update(self, event: OrderUpdate) -> None:
        report = event.report
        if report.symbol != self._rules.symbol:
            return
        if not self._is_own(report):
            self._foreign_meanwhile[report.client_order_id] = report
            self._take_foreign(self._foreign | {report.client_order_id: report})
            return
        await self._absorb([event.report])
        if event.fill is not None:
            await self._book([event.fill], {event.fill.order_id: event.report.client_order_id})

    async def raise_incarnation(self, minimum: int) -> bool:
        """Take `minimum` or more and commit it; False after the first order of this process. StoreFailedError."""
        if minimum <= self._ids.incarnation:
            return True
        if self._ids.used:
            return False
        await self._store.put(INCARNATION, minimum)
        self._ids.incarnation = minimum
        return True

    # --- entry ---

    async def enter(self, request: EntryRequest) -> EntryResult:
        """Buy with protection in one request; where the book is too thin, what there is, protected right after."""
        async with self._lock:
            try:
                return await self._enter(request)
            except StoreFailedError as error:
                return EntryResult(EntryOutcome.REFUSED, error.code, str(error))
            except ExchangeError as error:
                return EntryResult(EntryOutcome.REFUSED, error.code, str(error))
            finally:
                self._update_protection()

    async def _enter(self, request: EntryRequest) -> EntryResult:
        refusal = self._refuse_entry()
        if refusal is not None:
            return EntryResult(EntryOutcome.REFUSED, refusal)
        self.audit.begin(request.signal_id, request.figures)
        plan = plan_entry(
            self._rules,
            self._settings(),
            quantity=request.quantity,
            ask=request.reference_price,
            taker_rate=self._taker_rate,
            held=self._books.quantity,
        )
        if not isinstance(plan, EntryPlan):
            return EntryResult(EntryOutcome.REFUSED, plan.code, plan.message)
        checked = self._last_check_ms
        if checked is None or self._exchange.exchange_ms() - checked > FRESH_ORDERS_MS:
            await self._refresh()
        base = self._books.quantity if self._verdict is None else self._verdict.base.total
        full = filters.check_room(self._rules, list(self._foreign.values()), base, plan.quantity)
        if full is not None:
            return EntryResult(EntryOutcome.REFUSED, full.code, full.message)
        if not self._announced:
            await self._announce(request.reference_price)
        await asyncio.sleep(max(0.0, self._announced_at + self._announced_seconds - self._monotonic()))
        sequence = self._ids.next_sequence()
        entry_id, list_id = self._ids.make(sequence, Purpose.ENTRY), self._ids.make(sequence, Purpose.ENTRY_LIST)
        pair = self._pair(sequence, plan.protection)
        legs = (pair.stop_client_id, pair.take_profit_client_id)
        entry = self._entry_order(entry_id, plan, TimeInForce.FOK)
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
        order = self._entry_order(entry_id, plan, TimeInForce.IOC)
        return await self._buy(
            request, plan, entry_id, (entry_id,), lambda stamp: self._exchange.place_order(order, stamp)
        )

    async def _part_can_be_sold(self, plan: EntryPlan) -> bool:
        """Whether the best ask alone offers enough for a position that can be protected."""
        book = await self._exchange.book_ticker(self._rules.symbol)
        part = plan_entry(
            self._rules,
            self._settings(),
            quantity=min(plan.quantity, book.ask_quantity),
            ask=book.ask,
            taker_rate=self._taker_rate,
            held=self._books.quantity,
        )
        return book.ask <= plan.limit_price and isinstance(part, EntryPlan)

    def _entry_order(self, entry_id: str, plan: EntryPlan, time_in_force: TimeInForce) -> NewOrder:
        return NewOrder(
            self._rules.symbol,
            entry_id,
            Side.BUY,
            OrderType.LIMIT,
            plan.quantity,
            price=plan.limit_price,
            time_in_force=time_in_force,
        )

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
        self.audit.enter(entry_id)
        intent = self._intent(client_id, IntentKind.ENTRY, client_ids, plan.quantity, plan.limit_price)
        await self._commit(intent)
        refusal = self._refuse_entry(intent.client_id) or self._outdated(request)
        if refusal is not None:  # safe mode or a lost grant between decision and send wins
            await self._finish(intent, IntentState.REJECTED, f"not sent: {refusal}")
            return EntryResult(EntryOutcome.REFUSED, refusal)
        try:
            await self._sending(intent, send)
        except AmbiguousError as error:
            self._tell(OrdersEventKind.ENTRY_UNKNOWN, f"{entry_id}: {error}", plan.quantity, plan.limit_price)
            return EntryResult(EntryOutcome.UNKNOWN, error.code, str(error))
        try:
            return await self._after_entry(entry_id, request.reason)
        except ExchangeError as error:  # it was executed; what of it is not known before it can be read
            self._doubt = True
            self._tell(OrdersEventKind.ENTRY_UNKNOWN, f"{entry_id}: {error}", plan.quantity, plan.limit_price)
            return EntryResult(EntryOutcome.UNKNOWN, error.code, str(error))

    async def _after_entry(self, entry_id: str, reason: str) -> EntryResult:
        """An entry is known at the exchange: book its fills, see its protection in place."""
        await self._refresh()
        await self._collect_fills()
        entry = self._tracker.get(entry_id)
        if entry is None or entry.executed_quantity == 0:
            self._tell(OrdersEventKind.ENTRY_EXPIRED, "the book had too little inside the collar")
            return EntryResult(EntryOutcome.EXPIRED, "Expired", "the book had too little inside the collar")
        price = self._books.average_price
        self._tell(OrdersEventKind.ENTRY_FILLED, reason, entry.executed_quantity, price)
        self._update_protection()
        await self._repair()
        return EntryResult(EntryOutcome.FILLED, "Filled")

    def _refuse_entry(self, own_intent: str = "") -> str | None:
        """The stable code of why no entry may be sent now."""
        if (code := self._refuse_buy()) is not None:
            return code
        if self._former_ms > 0:
            return "StoreNew"
        if any(i.client_id != own_intent and i.blocks_entries for i in self._intents.values()):
            return "UnknownOrder"
        if self.held > 0:
            return "PositionOpen"
        if self._tracker.active_orders:
            return "OrdersOpen"
        return self._may_enter()

    def _refuse_buy(self) -> str | None:
        """The stable code of why nothing to buy may be sent now, be it an announcement."""
        if self._two_traders is not None:
            return "TwoTraders"
        if self._exchange_reset is not None:
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

    async def _announce_early(self) -> None:
        """Show this process start as soon as it may, so that nobody waits for it at the first entry."""
        if self._announced or self._monotonic() < self._announce_after:
            return
        if (self._refuse_buy() or self._may_announce()) is not None:
            return
        self._announce_after = self._monotonic() + ANNOUNCE_AGAIN_SECONDS
        await self._announce((await self._exchange.book_ticker(self._rules.symbol)).bid)

    @because("Announce")
    async def _announce(self, price: Decimal) -> None:
        """Show this incarnation at the exchange by a LIMIT_MAKER far below the market, and cancel it."""
        band = self._rules.percent_price
        lowest = price * band.bid_down * Decimal("1.1") if band is not None else Decimal(0)
        far = filters.ceil_price(self._rules, max(price / 2, lowest))
        step = self._rules.lot.step or Decimal("0.00000001")
        least = max(self._rules.notional.min_notional * Decimal("1.01") / far, self._rules.lot.min_quantity)
        quantity = filters.floor_quantity(self._rules, least) + step
        sequence = self._ids.next_sequence()
        client_id = self._ids.make(sequence, Purpose.ANNOUNCE)
        intent = self._intent(client_id, IntentKind.ANNOUNCE, (client_id,), quantity, far)
        await self._commit(intent)
        refusal = self._refuse_buy() or self._may_announce()
        if refusal is not None:
            await self._finish(intent, IntentState.REJECTED, f"not sent: {refusal}")
            return
        order = NewOrder(self._rules.symbol, client_id, Side.BUY, OrderType.LIMIT_MAKER, quantity, price=far)
        await self._sending(intent, lambda stamp: self._exchange.place_order(order, stamp))
        await self._cancel(self._open(lambda tracked: tracked.client_order_id == client_id))
        self._announced, self._announced_at = True, self._monotonic()

    # --- exit ---

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
                result = await self._exit(reason)
            except ExchangeError as error:
                result = ExitResult(ExitOutcome.FAILED, error.code, str(error))
                self._doubt = True
            self._update_protection()
            await self._repair()  # what could not be sold is protected again
            return result

    @for_its_reason
    async def _exit(self, reason: str, *, at_market: bool = False, whole: bool = True) -> ExitResult:
        """Sell the position; not `whole`: what of it has no stop.

        Balance and book are read first and the protection is taken off last, so that only its cancel and the sale
        itself lie between protected and sold.
        """
        await self._resolve_unknown()
        if self._exchange_reset is not None:
            return ExitResult(ExitOutcome.FAILED, "ExchangeReset", self._exchange_reset)
        if not await self._may_sell():
            return ExitResult(ExitOutcome.FAILED, "UnknownOrder", "the outcome of an order is not known yet")
        if whole:
            await self._check_replaceable()
            if self.held == 0:  # also where filters were changed: what cannot be sold any more keeps its stop
                return ExitResult(ExitOutcome.FLAT, "Nothing")
        cancelled = self._open(lambda order: order.side is Side.SELL) if whole else self._useless()
        available, bid = await self._sellable(cancelled), await self._bid()
        await self._cancel(cancelled)
        kept = Decimal(0) if whole else stopped_quantity(self._tracker)
        started, code, refusals = self._quantity, "Sold", 0
        for attempt in range(EXIT_ATTEMPTS):
            quantity = filters.floor_quantity(self._rules, min(self.held - kept, available))
            if quantity <= 0:
                if attempt == 0 and self.held > kept:
                    code, self._refused = RejectedError.code, f"no free {self._rules.base_asset} to sell"
                break
            before, refused = self._quantity, ""
            market = at_market or attempt >= LIMIT_SALES or refusals > 0
            try:
                await self._sell(quantity, bid=None if market else bid, reason=reason)
                await self._try(self._collect_fills())
                if market and self._quantity == before:
                    refused = "a sale at the market expired: the book is empty, or too far from the reference price"
            except RejectedError as error:
                refused = str(error)
            except AmbiguousError as error:
                # Not sent again here: what is not sold is protected before it is tried once more.
                code, self._refused = error.code, f"a sale got no answer: {error}"
                await self._try(self._collect_fills())
                break
            if refused:
                code, refusals, self._refused = RejectedError.code, refusals + 1, refused
                self._log.warning("exit refused", error=refused, attempt=attempt)
                if refusals == REFUSED_SALES:
                    break
                await self._read_open_orders()
                available = await self._sellable(())
                continue
            available -= before - self._quantity
            bid = await self._bid()
        sold = started - self._quantity
        if sold > 0:
            self._refusals = 0
            kind = OrdersEventKind.STOP_LOSS if reason == STOP_PASSED else OrdersEventKind.EXITED
            self._tell(kind, reason, sold)
        if self.held == 0:
            self._update_protection()
            return ExitResult(ExitOutcome.FLAT, code)
        if sold == 0 and code in {RejectedError.code, AmbiguousError.code}:
            self._keep_protection(f"the sale was refused: {self._refused}")
        return ExitResult(ExitOutcome.PARTIAL if sold > 0 else ExitOutcome.FAILED, code, "something is left to sell")

    async def _check_replaceable(self) -> None:
        """Raises where the protection must stay, as no sale could take its place.

        RejectedError while the symbol does not trade, and for a while after a refused sale; RateLimitedError where the
        address has not the request weight for all that is to come: a 429 in between would leave the position naked.
        """
        if not self._open(lambda order: order.side is Side.SELL):
            return
        wait = self._keep_until - self._monotonic()
        if wait > 0:
            raise RejectedError(f"the protection stays for {wait:.0f} s: {self._kept_because}")
        try:
            await self._check_trading()
        except RejectedError as error:
            self._keep_protection(str(error))
            raise
        spare = self._exchange.spare_weight
        if spare < SALE_WEIGHT:
            self._keep_protection(f"{spare} of request weight is left, {SALE_WEIGHT} are kept for a sale")
            message = f"the protection stays: {self._kept_because}"
            raise RateLimitedError(message, retry_after=self._keep_until - self._monotonic())

    async def _check_trading(self) -> None:
        symbol = self._rules.symbol
        self.rules = await self._exchange.rules(symbol, urgent=True)
        if not self._rules.trading:
            self._refused = f"{symbol} is {self._rules.status}"
            raise RejectedError(self._refused)

    def _keep_protection(self, why: str) -> None:
        wait = REFUSED_WAITS[min(self._refusals, len(REFUSED_WAITS) - 1)]
        self._refusals, self._keep_until, self._kept_because = self._refusals + 1, self._monotonic() + wait, why

    async def _may_sell(self) -> bool:
        """Whether a sale cannot sell what is not this bot's, although the outcome of another may be unknown.

        It cannot where the account has no base beyond the position: the exchange lets nobody sell more than there is.
        """
        if self._former_ms > 0:
            # A process whose store this is not may have sold since the start read its orders.
            await self._list_orders()
            await self._collect_fills()
        unknown = [intent for intent in self._intents.values() if intent.kind is not IntentKind.CANCEL]
        if not unknown:
            return True
        if any(intent.kind is IntentKind.ENTRY for intent in unknown):
            return False
        account = await self._exchange.account(urgent=True)
        others = account.balance(self._rules.base_asset).total - self._books.quantity
        return others < filters.dust_limit(self._rules)

    async def _sellable(self, cancelled: Iterable[TrackedOrder]) -> Decimal:
        """Free base, and what is free once those own orders are cancelled; the position where nobody can say."""
        locked: dict[int | str, Decimal] = {}
        for order in cancelled:  # the legs of a pair lock the same base
            rest = order.quantity - order.executed_quantity
            locked[_group(order)] = max(rest, locked.get(_group(order), rest))
        try:
            account = await self._exchange.account(urgent=True)
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            if {_group(order) for order in cancelled} & self._stopping():
                raise  # the protection is not taken off for a sale of nobody knows how much
            self._log.warning("selling without the balance", error=str(error))
            return self.held
        return account.balance(self._rules.base_asset).free + sum(locked.values(), Decimal(0))

    async def _bid(self) -> Decimal | None:
        """The best bid; None where it cannot be read: then the market takes what it is given."""
        try:
            return (await self._exchange.book_ticker(self._rules.symbol, urgent=True)).bid
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            self._log.warning("no price could be read", error=str(error))
            return None

    async def _sell(self, quantity: Decimal, *, bid: Decimal | None, reason: str) -> None:
        """One slice of an exit, without a bid at the market. AmbiguousError once its outcome was looked for a while."""
        price: Decimal | None = None
        if bid is None:
            quantity = filters.floor_market_quantity(self._rules, quantity)
        else:
            price = filters.floor_price(self._rules, bid * (1 - self._settings().entry.max_slippage_ratio))
        client_id = self._ids.make(self._ids.next_sequence(), Purpose.EXIT)
        intent = self._intent(client_id, IntentKind.EXIT, (client_id,), quantity, price or Decimal(0))
        await self._commit(intent, reduce=True)
        order = NewOrder(
            self._rules.symbol,
            client_id,
            Side.SELL,
            OrderType.MARKET if price is None else OrderType.LIMIT,
            quantity,
            price=price,
            time_in_force=None if price is None else TimeInForce.IOC,
        )
        try:
            report = await self._sending(intent, lambda stamp: self._exchange.place_order(order, stamp, urgent=True))
        except AmbiguousError:
            await self._settle(intent.client_id)
            raise
        await self._book(report.fills, {report.order_id: client_id})

    # --- cancel and drain ---

    @because("EntriesCanceled")
    async def cancel_entries(self) -> None:
        """Cancel every working entry; after it `entries_quiet` tells whether none is left. Raises ExchangeError."""
        if self.entries_quiet or self.held_back:
            return
        async with self._lock:
            try:
                await self._resolve_unknown()
                await self._cancel(self._open(lambda order: order.purpose in ENTRY_PURPOSES))
                await self._refresh()
                await self._collect_fills()
                self._update_protection()
                await self._repair()
            finally:
                self._update_protection()

    async def drain(self, policy: PositionPolicy) -> list[str]:
        """Cancel entries, with ClosePosition sell; returns what stays on the exchange, a line each. Idempotent.

        Raises ExchangeError where the exchange cannot be asked: call it again.
        """
        await self.cancel_entries()
        if policy is PositionPolicy.CLOSE_POSITION and self.held > 0:
            await self.exit("Drain")
        async with self._lock:
            await self._refresh()
            await self._collect_fills()
            self._update_protection()
            await self._repair()
        return self.remaining()

    def remaining(self) -> list[str]:
        """What is on the exchange as far as is known now, a line each: what has no outcome, position, open orders."""
        remaining = [f"outcome of {client_id} is unknown" for client_id in self.unknown]
        if self.held > 0:
            state = self._protection.state.value.lower()
            remaining.append(f"position {canonical(self._books.quantity)} {self._rules.base_asset}, {state}")
        return remaining + [
            f"{order.side} {order.type} {canonical(order.quantity)} stop={canonical(order.stop_price)} "
            f"price={canonical(order.price)} list={order.order_list_id} {order.client_order_id}"
            for order in self.open_orders
        ]

    def _open(self, wanted: Callable[[TrackedOrder], bool]) -> list[TrackedOrder]:
        return [order for order in self._tracker.active_orders if wanted(order)]

    async def _cancel(self, orders: Iterable[TrackedOrder]) -> None:
        """Cancel orders, lists as a whole. One that is refused ended by itself: the exchange is asked how."""
        groups: dict[int | str, TrackedOrder] = {}
        for order in orders:
            groups.setdefault(_group(order), order)
        for order in groups.values():
            cancel_id = self._ids.make(self._ids.next_sequence(), Purpose.CANCEL)
            intent = self._intent(cancel_id, IntentKind.CANCEL, (order.client_order_id,), order.quantity, order.price)
            await self._commit(intent, reduce=True)
            await self._cancel_one(intent, order, cancel_id)
        if self._open(lambda order: _group(order) in groups):
            await self._read_open_orders()

    async def _cancel_one(self, intent: Intent, order: TrackedOrder, cancel_id: str) -> None:
        symbol = self._rules.symbol

        async def send() -> None:
            if order.order_list_id != NO_LIST:
                await self._sending(
                    intent, lambda stamp: self._exchange.cancel_list(symbol, order.order_list_id, cancel_id, stamp)
                )
            else:
                await self._sending(
                    intent, lambda stamp: self._exchange.cancel_order(symbol, order.client_order_id, cancel_id, stamp)
                )

        sending = asyncio.create_task(send())
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=CANCEL_ANSWER_SECONDS)
                if not sending.done() and not self._open(lambda one: _group(one) == _group(order)):
                    # A position may be without its stop by now: nobody waits for an answer that tells nothing new.
                    sending.cancel()
                    await asyncio.wait({sending})
                    await self._finish(intent, IntentState.ACKNOWLEDGED, "its target ended meanwhile")
                    return
            await sending
        except RejectedError as error:
            self._log.info("cancel refused", client_order_id=order.client_order_id, error=str(error))
            return
        except AmbiguousError:
            # A cancel adds no exposure; what it did is read from its target, and a new one has a new id.
            self._doubt = True
            await self._finish(self._intents[cancel_id], IntentState.ACKNOWLEDGED, "its target is asked instead")
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    # --- protection ---

    @because("ProtectionLost")
    async def _repair(self) -> None:
        """Restore a lost protection: a pair, else a stop alone, else sell; past the deadline sell at once."""
        if self._protection.state is not ProtectionState.UNPROTECTED or self._monotonic() < self._repair_after:
            return
        if self.halted or self._exchange_reset is not None:
            return
        try:
            if not await self._may_sell():
                return
            await self._restore_protection()
            self._repair_failures, self._refused = 0, ""
        except ExchangeError as error:
            failures = self._repair_failures
            refused = isinstance(error, RejectedError)
            wait = NAKED_WAITS[min(failures, len(NAKED_WAITS) - 1)] if refused else min(5.0, 0.5 * 2**failures)
            self._repair_failures, self._repair_after = failures + 1, self._monotonic() + wait
            self._log.warning("protection not restored", error=str(error), failures=failures + 1)
        finally:
            self._update_protection()

    async def _restore_protection(self) -> None:
        """Protect what has no stop; what has one keeps it. RejectedError where it can neither be protected nor sold."""
        if self._repair_failures > 0:
            await self._check_trading()
        await self._read_open_orders()
        self._update_protection()
        since = self._protection.since
        if since is None:
            return
        late = self._monotonic() - since > self._settings().protection.deadline_seconds
        # What was only told late is protected; where the sale fails as well, both are tried in turn.
        if late and self._repair_failures > 0 and not self._sale_failed:
            await self._sell_naked("ProtectionDeadline", at_market=True)
            return
        self._sale_failed = False
        await self._try(self._collect_fills())
        useless = self._useless()
        available, bid = await self._sellable(useless), await self._bid()
        peak = await self._peak()
        plan = place_again(self._rules, self._plan(available), peak, bid)
        if bid is not None and bid <= plan.stop_price:
            await self._sell_naked(STOP_PASSED, at_market=True)
            return
        if bid is not None and bid >= plan.take_profit_price:
            await self._sell_naked("TakeProfitPassed")
            return
        if useless:
            await self._cancel(useless)
            # One of them may have sold something meanwhile.
            plan = place_again(self._rules, self._plan(available), peak, bid)
        if await self._attempt(lambda: self._place_pair(plan)):
            return
        if await self._attempt(lambda: self._place_stop(plan)):
            return
        await self._sell_naked("ProtectionRefused", at_market=True)

    def _plan(self, available: Decimal) -> ProtectionPlan:
        naked = self.held - stopped_quantity(self._tracker)
        quantity = filters.floor_quantity(self._rules, min(naked, available))
        if quantity <= 0:  # the base is not free: somebody else's order or withdrawal holds it
            raise RejectedError(f"no free {self._rules.base_asset} to protect")
        price = self._books.average_price or self._unbooked().price
        return plan_protection(self._rules, self._settings(), quantity, price)

    async def _peak(self) -> Decimal:
        """The highest price since the entry, for a stop that follows it; the entry's own where none can be read."""
        entry, price = self._tracker.get(self.audit.trace.position), self._books.average_price
        if self._settings().protection.trailing_ratio is None or entry is None:
            return price
        try:
            async with asyncio.timeout(PEAK_SECONDS):
                return max(price, await highest_since(self._exchange, self._rules.symbol, entry.updated_ms))
        except (ExchangeError, TimeoutError) as error:
            self._log.warning("stop placed again without the highest price", error=str(error))
        return price

    async def _sell_naked(self, reason: str, *, at_market: bool = False) -> None:
        result = await self._exit(reason, at_market=at_market, whole=False)
        if result.outcome is ExitOutcome.FAILED:
            self._sale_failed = True
            kind = AmbiguousError if result.code == AmbiguousError.code else RejectedError
            raise kind(self._refused or result.message)

    def _useless(self) -> list[TrackedOrder]:
        """Orders to sell that no stop belongs to: they hold base that has to be protected."""
        stopping = self._stopping()
        return self._open(lambda order: order.side is Side.SELL and _group(order) not in stopping)

    def _stopping(self) -> set[int | str]:
        """What of the open orders protects, as `_group` calls it."""
        return {_group(order) for order in stopping_orders(self._tracker)}

    async def _attempt(self, place: Callable[[], Awaitable[None]]) -> bool:
        """Whether the exchange did not refuse; an unknown outcome is not a refusal, it is resolved later."""
        try:
            await place()
        except RejectedError as error:
            self._refused = str(error)
            self._log.warning("protection refused", error=str(error))
            return False
        except AmbiguousError as error:
            self._log.warning("protection unknown", error=str(error))
        return True

    async def _place_pair(self, plan: ProtectionPlan) -> None:
        sequence = self._ids.next_sequence()
        list_id = self._ids.make(sequence, Purpose.PROTECTION_LIST)
        pair = self._pair(sequence, plan)
        legs = (pair.stop_client_id, pair.take_profit_client_id)
        intent = self._intent(list_id, IntentKind.PROTECTION, legs, plan.quantity, plan.stop_price)
        await self._commit(intent, reduce=True)
        order = NewOco(self._rules.symbol, list_id, pair)
        await self._sending(intent, lambda stamp: self._exchange.place_oco(order, stamp))

    async def _place_stop(self, plan: ProtectionPlan) -> None:
        client_id = self._ids.make(self._ids.next_sequence(), Purpose.STOP_LOSS)
        intent = self._intent(client_id, IntentKind.STOP, (client_id,), plan.quantity, plan.stop_price)
        await self._commit(intent, reduce=True)
        limited = plan.stop_limit_price is not None
        order = NewOrder(
            self._rules.symbol,
            client_id,
            Side.SELL,
            OrderType.STOP_LOSS_LIMIT if limited else OrderType.STOP_LOSS,
            plan.quantity,
            price=plan.stop_limit_price,
            stop_price=plan.stop_price if plan.trailing_delta is None else None,
            trailing_delta=plan.trailing_delta,
            time_in_force=TimeInForce.GTC if limited else None,
        )
        await self._sending(intent, lambda stamp: self._exchange.place_order(order, stamp, urgent=True))

    def _pair(self, sequence: int, plan: ProtectionPlan) -> NewProtection:
        return NewProtection(
            quantity=plan.quantity,
            take_profit_client_id=self._ids.make(sequence, Purpose.TAKE_PROFIT),
            take_profit_price=plan.take_profit_price,
            stop_client_id=self._ids.make(sequence, Purpose.STOP_LOSS),
            stop_price=plan.stop_price,
            stop_limit_price=plan.stop_limit_price,
            trailing_delta=plan.trailing_delta,
        )

    def _update_protection(self, *, certain: bool = True) -> None:
        """Judge anew. Between the events of one execution (a leg expires, the other fills) a loss is only suspected:
        it is told by the next certain judgement, and counts from when the exchange took the protection off.
        """
        state, message = judge_protection(self._rules, self._books, self._tracker, self._unbooked())
        before, now = self._protection, self._monotonic()
        message = f"{message}; refused: {self._refused}" if message and self._refused else message
        if state is not ProtectionState.UNPROTECTED:
            self._suspected = None
            self._unprotected.end(now)
            self._protection = ProtectionStatus(state, message)
            if before.since is not None and state is ProtectionState.PROTECTED:
                self._tell(OrdersEventKind.PROTECTION_RESTORED, message, self._books.quantity)
            return
        if before.since is not None:
            self._protection = replace(before, message=message)
            return
        self._suspected = self._last_change() if self._suspected is None else self._suspected
        if certain:
            self._protection = ProtectionStatus(state, message, self._unprotected.begin(self._suspected))
            self._suspected = None
            self._tell(OrdersEventKind.PROTECTION_LOST, message, self._books.quantity)

    def _last_change(self) -> float:
        """Monotonic time at which an own order changed last: it may be told late, as by a user stream that is dead."""
        now_ms = self._exchange.exchange_ms()
        changed_ms = max((order.updated_ms for order in self._tracker), default=now_ms)
        return self._monotonic() - max(0, now_ms - changed_ms) / 1000

    # --- intents ---

    def _intent(
        self, client_id: str, kind: IntentKind, client_ids: tuple[str, ...], quantity: Decimal, price: Decimal
    ) -> Intent:
        stamp = self._exchange.stamp()
        return Intent(
            client_id=client_id,
            kind=kind,
            client_ids=client_ids,
            timestamp_ms=stamp.timestamp_ms,
            recv_window_ms=stamp.recv_window_ms,
            quantity=format(quantity, "f"),
            price=format(price, "f"),
            after_order_id=self._highest_order_id,
            signal_id=self.audit.trace.signal_id,
        )

    async def _commit(self, intent: Intent, *, reduce: bool = False) -> None:
        """Commit before sending. What reduces the exposure goes on without a store: its ids are never used again."""
        self._intents[intent.client_id] = intent
        try:
            await self._store.put_intent(intent)
        except StoreFailedError:
            if not reduce:
                del self._intents[intent.client_id]
                raise
            self._log.error("sending without the store", client_id=intent.client_id)
        except BaseException:
            del self._intents[intent.client_id]  # cancelled before anything was sent
            raise
        self.audit.sent(intent)

    async def _finish(self, intent: Intent, state: IntentState, message: str = "") -> None:
        done = replace(intent, state=state, message=message)
        if state.is_open:
            self._intents[intent.client_id] = done
        else:
            self._intents.pop(intent.client_id, None)
        self.audit.outcome(done)
        try:
            await self._store.put_intent(done)
        except StoreFailedError as error:
            self._log.error("intent not updated", client_id=intent.client_id, error=str(error))

    async def _sending(self, intent: Intent, send: Callable[[Stamp], Awaitable[T]]) -> T:
        """Send once, and record what is known of the outcome whatever happens."""
        stamp = Stamp(intent.timestamp_ms, intent.recv_window_ms)
        try:
            if self.halted and not _cancels_entry(intent):
                raise NotSentError("halted: nothing is sent")
            answer = await send(stamp)
        except AmbiguousError as error:
            await self._finish(intent, IntentState.UNKNOWN, str(error))
            raise
        except ExchangeError as error:
            await self._finish(intent, IntentState.REJECTED, str(error))
            raise
        except BaseException as error:  # a cancelled task, or an answer that could not be read
            self._intents[intent.client_id] = replace(intent, state=IntentState.UNKNOWN, message=type(error).__name__)
            raise
        # Known as an order before it is no longer known as an intent: nothing of ours is in neither at any time.
        await self._absorb(answer.reports if isinstance(answer, OrderListReport) else (answer,))
        await self._finish(intent, IntentState.ACKNOWLEDGED)
        return answer

    async def _resolve_unknown(self) -> None:
        """One round of questions about every intent whose outcome is unknown."""
        for intent in [i for i in self._intents.values() if i.state is IntentState.UNKNOWN]:
            if intent.kind is IntentKind.CANCEL:
                await self._finish(intent, IntentState.ACKNOWLEDGED, "its target is asked instead")
                continue
            evidence = await self._evidence(intent)
            judged = judge(intent, evidence)
            if judged.state is IntentState.ACKNOWLEDGED and not await self._take_made(intent, evidence):
                continue
            if judged.state.is_open:
                self._intents[intent.client_id] = judged
                continue
            await self._finish(judged, judged.state, judged.message)
            self._tell(OrdersEventKind.UNKNOWN_RESOLVED, f"{intent.client_id}: {judged.message}")
            if judged.state is IntentState.ACKNOWLEDGED:
                await self._collect_fills()
                if intent.kind is IntentKind.ENTRY:
                    await self._after_entry(intent.client_ids[0], "found after an unknown outcome")
                if intent.kind is IntentKind.ANNOUNCE:
                    await self._cancel(self._open(lambda order: order.purpose == Purpose.ANNOUNCE))

    async def _take_made(self, intent: Intent, evidence: Evidence) -> bool:
        """Take the orders that a found intent made; False while some of them cannot be read yet. ExchangeError.

        The intent stays open until then: a position without its entry, or without its legs, would be misjudged.
        """
        await self._absorb([report for report in (evidence.report, *(evidence.listed or ())) if report is not None])
        listed = await self._exchange.all_orders(
            self._rules.symbol, from_order_id=intent.after_order_id + 1, urgent=True
        )
        await self._absorb([report for report in listed if self._is_own(report)])
        complete = all(self._tracker.get(client_id) is not None for client_id in intent.client_ids)
        return complete or evidence.time_ms > intent.decidable_ms

    async def _settle(self, client_id: str) -> None:
        """Wait a while for the outcome of a request that got no answer."""
        for wait in SETTLE_WAITS:
            await asyncio.sleep(wait * self._random.uniform(0.8, 1.2))
            self._update_protection()
            try:
                await self._resolve_unknown()
            except ExchangeError as error:
                self._log.warning("still unknown", client_id=client_id, error=str(error))
            if client_id not in self._intents:
                return

    async def _evidence(self, intent: Intent) -> Evidence:
        """What the exchange says of an intent's orders; a failed call raises and is no evidence."""
        symbol = self._rules.symbol
        try:
            report: OrderReport | None = await self._exchange.order(symbol, intent.client_ids[0], urgent=True)
        except NotFoundError:
            report = None
        now = self._exchange.exchange_ms()
        if report is not None or now <= intent.decidable_ms:
            return Evidence(now, report)
        listed = await self._exchange.open_orders(symbol, urgent=True)
        listed += await self._exchange.all_orders(symbol, from_order_id=intent.after_order_id + 1, urgent=True)
        explained = {order.order_id for order in listed} | {order.order_id for order in self._tracker}
        trades = await self._exchange.trades(symbol, from_id=self._books.last_trade_id + 1, urgent=True)
        unexplained = tuple(
            fill for fill in trades if fill.order_id not in explained and fill.order_id > intent.after_order_id
        )
        return Evidence(now, None, tuple(listed), unexplained)

    async def _reports(self, client_ids: Iterable[str]) -> list[OrderReport]:
        found = []
        for client_id in client_ids:
            try:
                found.append(await self._exchange.order(self._rules.symbol, client_id, urgent=True))
            except (NotFoundError, OrderArchivedError):
                self._log.info("order not readable", client_order_id=client_id)
        return found

    # --- what the exchange says ---

    def _is_own(self, report: OrderReport) -> bool:
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
        if self._two_traders is None:
            self._two_traders = message
            self._log.error("two traders", message=message)
            self._tell(OrdersEventKind.TWO_TRADERS, message)

    async def _absorb(self, reports: Iterable[OrderReport]) -> None:
        """Take orders as the exchange reports them; the fills come by `_book` and `_collect_fills`."""
        changed: list[TrackedOrder] = []
        for report in reports:
            client_id = parse(report.client_order_id)
            if client_id is None or client_id.key != self._ids.key:
                continue
            before, after = self._tracker.absorb(report, client_id.purpose, self.audit.trace_of(report))
            self._highest_order_id = max(self._highest_order_id, report.order_id)
            if before == after:
                continue
            changed.append(after)
            self.audit.order(after)
            self._unlisted |= before is None and not self._ids.gave(client_id)
            self._watch_list(after)
            self._report_leg(before, after)
        if changed:
            await self._record(changed, [])

    def _watch_list(self, order: TrackedOrder) -> None:
        if order.order_list_id != NO_LIST and order.side is Side.SELL and order.is_open:
            self._ocos.track_oco_order(order.order_list_id, order)

    def _report_leg(self, before: TrackedOrder | None, after: TrackedOrder) -> None:
        if after.side is not Side.SELL:
            return
        price = after.stop_price if after.type.is_stop else after.price
        verdict = self._ocos.handle_oco_execution(after.order_list_id)
        if verdict is not None:
            self._log.info("protection pair", state=verdict.state.value, order_list_id=after.order_list_id)
            if verdict.state is OcoState.TAKE_PROFIT:
                self._tell(OrdersEventKind.TAKE_PROFIT, "take-profit filled", after.executed_quantity, price)
            elif verdict.state is OcoState.STOP_LOSS:
                self._tell(OrdersEventKind.STOP_LOSS, "stop filled", after.executed_quantity, price)
        elif (
            after.order_list_id == NO_LIST
            and after.type.is_stop
            and after.status is OrderStatus.FILLED
            and (before is None or before.status is not OrderStatus.FILLED)
        ):
            self._tell(OrdersEventKind.STOP_LOSS, "stop filled", after.executed_quantity, price)

    async def _refresh(self) -> None:
        """Read open orders, and all where there may be unknown ones."""
        if self._listing_is_due():
            await self._list_orders()
        await self._read_open_orders()

    async def _read_open_orders(self) -> None:
        """Read open orders; ask for each of ours that is no longer open."""
        symbol = self._rules.symbol
        self._foreign_meanwhile.clear()
        reports = await self._exchange.open_orders(symbol, urgent=True)
        self._last_check_ms = self._exchange.exchange_ms()
        listed_foreign = {order.client_order_id: order for order in foreign_orders(reports, self._ids.key)}
        self._take_foreign(listed_foreign | self._foreign_meanwhile)  # an answer may be older than what was told
        await self._absorb([report for report in reports if self._is_own(report)])
        listed = {report.client_order_id for report in reports}
        for order in self._tracker.active_orders:
            if order.client_order_id in listed or self._exchange_reset is not None:
                continue
            try:
                report = await self._ask(order)
            except OrderArchivedError:
                done = replace(order, status=OrderStatus.EXPIRED)
                self._tracker.add_order(done)
                await self._record([done], [])
                continue
            if report is None:
                self._take_reset(order)
            else:
                await self._absorb([report])
        self._doubt = False

    def _take_foreign(self, found: Mapping[str, OrderReport]) -> None:
        """Tell of the orders of others that came and went; they are not touched."""
        before, self._foreign = self._foreign, {key: order for key, order in found.items() if order.is_open}
        for client_id in sorted(self._foreign.keys() - before.keys()):
            self._tell(OrdersEventKind.FOREIGN_ORDER, f"order {client_id} is not this bot's and is left alone")
        for client_id in sorted(before.keys() - self._foreign.keys()):
            self._tell(OrdersEventKind.FOREIGN_ORDER_GONE, f"order {client_id}, not this bot's, is no longer open")

    async def _ask(self, order: TrackedOrder) -> OrderReport | None:
        """An order that the exchange told of before; None where it never heard of it: it was reset.

        ExchangeError, also of a new order that may only not be readable yet.
        """
        symbol = self._rules.symbol
        for wait in VANISHED_WAITS:
            await asyncio.sleep(wait)
            with suppress(NotFoundError):
                return await self._exchange.order(symbol, order.client_order_id, urgent=True)
        listed = await self._exchange.all_orders(symbol, from_order_id=order.order_id or 0, urgent=True)
        found = next((report for report in listed if report.client_order_id == order.client_order_id), None)
        if found is None and self._exchange.exchange_ms() - order.created_ms <= READABLE_MS:
            raise NotFoundError(f"order {order.client_order_id} is not readable yet")
        return found

    async def _look_for_reset(self) -> None:
        """Ask for the newest order that the exchange told of, and the newest that bought what is held.

        After a reset new protection may be there, of base that was given with it.
        """
        known = sorted(self._tracker, key=lambda order: order.order_id or 0)
        bought = [order for order in known if order.side is Side.BUY and order.executed_quantity > 0 and self.held > 0]
        newest = known[-1] if known else await self._store.newest_order()
        for order in dict.fromkeys((newest, *bought[-1:])):
            if order is None or self._exchange_reset is not None:
                return
            with suppress(OrderArchivedError):
                if await self._ask(order) is None:
                    self._take_reset(order)

    def _take_reset(self, vanished: TrackedOrder) -> None:
        """Nothing of the books is at the exchange any more. In memory only: a restart asks the exchange again."""
        self._exchange_reset = f"the exchange no longer knows order {vanished.client_order_id}: its data were reset"
        self._log.error("exchange reset", client_order_id=vanished.client_order_id)
        for order in self._tracker.active_orders:
            self._tracker.add_order(replace(order, status=OrderStatus.EXPIRED))

    async def _take_former(self) -> None:
        """Read what a former process, whose store is lost, may have sent last, once it is certainly executed."""
        if self._former_ms == 0 or self._exchange.exchange_ms() <= self._former_ms:
            return
        await self._list_orders()
        with suppress(StoreFailedError):
            await self._store.restored()
        self._former_ms, self._doubt = 0, True

    def _listing_is_due(self) -> bool:
        return self._unlisted and self._exchange.exchange_ms() - self._listed_ms > LIST_EVERY_MS

    async def _list_orders(self) -> None:
        """Read every order since the last such look, in this process.

        Not since the highest known: the user stream may have told of another process's later order and not of one that
        came between the start's look and the stream.
        """
        listed = await self._exchange.all_orders(self._rules.symbol, from_order_id=self._listed_id + 1, urgent=True)
        await self._absorb([report for report in listed if self._is_own(report)])
        self._listed_id = max((report.order_id for report in listed), default=self._listed_id)
        self._listed_ms, self._unlisted = self._exchange.exchange_ms(), False

    async def _collect_fills(self) -> None:
        """Read the trades of every own order whose fills in the books are not yet its executed quantity."""
        for wait in (*FILL_WAITS, None):
            missing = self._missing_fills()
            if not missing or self._exchange_reset is not None:
                return
            owners = {order.order_id: order.client_order_id for order in self._tracker if order.order_id is not None}
            if len(missing) >= BULK_TRADES:
                fills = await self._exchange.trades(self._rules.symbol, from_id=0, urgent=True)
            else:
                fills = []
                for order in missing:
                    if order.order_id is not None:
                        fills += await self._exchange.order_trades(self._rules.symbol, order.order_id, urgent=True)
            await self._book([fill for fill in fills if fill.order_id in owners], owners)
            if wait is not None and self._missing_fills():
                await asyncio.sleep(wait)

    def _missing_fills(self) -> list[TrackedOrder]:
        return [order for order in self._tracker if order.executed_quantity != self._booked(order)]

    def _unbooked(self) -> Unbooked:
        """What was executed and is not in the books yet; of a purchase what its fee leaves, if taken in base."""
        quantity, price = Decimal(0), Decimal(0)
        for order in self._missing_fills():
            missing = order.executed_quantity - self._booked(order)
            quantity += missing * (1 - self._taker_rate) if order.side is Side.BUY else -missing
            price = order.price or price
        return Unbooked(quantity, price)

    def _booked(self, order: TrackedOrder) -> Decimal:
        booked = (self._fills.get(trade_id) for trade_id in order.trade_ids)
        return sum((item.fill.quantity for item in booked if item is not None), Decimal(0))

    async def _book(self, fills: Iterable[TradeFill], owners: Mapping[int, str]) -> None:
        """Put fills of own orders into the books; one that is there already changes nothing."""
        fills = list(fills)
        if any(fill.trade_id <= self._checkpoint.last_trade_id for fill in fills):
            await self._drop_checkpoint()
        valued = [await self._value(fill) for fill in fills]
        orders: dict[str, TrackedOrder] = {}
        booked: list[BookedFill] = []
        # No await in here: an event and an answer with the same trade may come at the same time.
        for item in sorted(valued, key=lambda one: one.fill.trade_id):
            trade_id, client_id = item.fill.trade_id, owners[item.fill.order_id]
            order = self._tracker.note_trade(client_id, trade_id)
            if order is not None:
                orders[client_id] = order
            if trade_id in self._fills:
                continue
            late = trade_id <= self._books.last_trade_id
            self._fills[trade_id] = item
            self._books = self._extended() if late else extend(self._books, [item])
            booked.append(item)
            self.audit.fill(item, self._tracker.get(client_id))
        if orders or booked:
            await self._record(orders.values(), booked)
        if booked:
            last = booked[-1].fill
            self._tell(OrdersEventKind.BOOKS_CHANGED, f"{last.side} fill", last.quantity, last.price)

    async def _value(self, fill: TradeFill) -> BookedFill:
        """The fill with its fee's value; a fee in a third asset is valued at that asset's last price."""
        base, quote = self._rules.base_asset, self._rules.quote_asset
        known = self._fills.get(fill.trade_id)
        if known is not None:
            return known
        if fill.commission == 0 or fill.commission_asset in {base, quote}:
            return book(fill, base, quote)
        price = None
        if fill.commission_asset not in self._priceless:
            try:
                price = await self._exchange.last_price(f"{fill.commission_asset}{quote}")
            except ExchangeError as error:
                self._without_value(fill, error)
        return book(fill, base, quote, price)

    async def _value_fees(self) -> None:
        """Value the fees whose asset had no price that could be read, at the price of the minute of the fill."""
        valued: list[BookedFill] = []
        for booked in [item for item in self._fills.values() if item.fee_value is None]:
            fill, quote = booked.fill, self._rules.quote_asset
            if fill.commission_asset in self._priceless:
                continue
            try:
                candles = await self._exchange.candles(
                    f"{fill.commission_asset}{quote}", "1m", limit=1, start_ms=fill.time_ms - fill.time_ms % 60_000
                )
            except UnknownSymbolError as error:
                self._without_value(fill, error)
                continue
            except ExchangeError as error:
                self._without_value(fill, error)
                break
            if candles:
                valued.append(book(fill, self._rules.base_asset, quote, candles[0].close))
        if valued:
            self._fills |= {item.fill.trade_id: item for item in valued}
            self._books = self._extended()
            await self._record([], valued)

    def _no_books(self) -> LedgerState:
        rules = self._rules
        return fold((), rules.base_asset, rules.quote_asset, filters.dust_limit(rules))

    async def _move_checkpoint(self) -> None:
        """Keep of old fills only what they sum to. Those stay whose order is known or whose fee has no value yet."""
        if self._missing_fills() or self._store.failed is not None:
            return
        needed = {trade_id for order in self._tracker for trade_id in order.trade_ids}
        needed |= {trade_id for trade_id, booked in self._fills.items() if booked.fee_value is None}
        first = min(needed, default=self._books.last_trade_id + 1)
        old = [booked for trade_id, booked in self._fills.items() if trade_id < first]
        if len(old) < CHECKPOINT_FILLS:
            return
        corrections = [one for one in self._corrections if one.after_trade_id < first]
        checkpoint = extend(self._checkpoint, old, corrections)
        with suppress(StoreFailedError):  # all of them stay
            await self._store.put(CHECKPOINT, checkpoint)
            self._checkpoint = checkpoint
            for booked in old:
                del self._fills[booked.fill.trade_id]

    async def _drop_checkpoint(self) -> None:
        """A fill from before the checkpoint is met again: all are needed to know whether it is in the books."""
        stored = {booked.fill.trade_id: booked for booked in await self._store.fills()}
        self._fills, self._checkpoint = stored | self._fills, self._no_books()
        self._books = self._extended()

    def _extended(self, fills: Iterable[BookedFill] | None = None) -> LedgerState:
        """The checkpoint with the fills after it, and what people corrected."""
        return extend(self._checkpoint, self._fills.values() if fills is None else fills, self._corrections)

    def _without_value(self, fill: TradeFill, error: ExchangeError) -> None:
        """An asset without a market is asked for once in a connection: it would be asked for ever."""
        if isinstance(error, UnknownSymbolError):
            self._priceless.add(fill.commission_asset)
        self._log.warning("fee without a value", asset=fill.commission_asset, error=str(error))

    async def _record(self, orders: Iterable[TrackedOrder], fills: Iterable[BookedFill]) -> None:
        try:
            unsettled = {order.client_order_id for order in self._missing_fills()}
            await self._store.record(orders, fills, unsettled=unsettled)
        except StoreFailedError as error:  # the exchange has it all; entries stop, the rest goes on
            self._log.error("not recorded", error=str(error))

    async def _note(self, name: str, value: object) -> None:
        """Commit a fact; where that fails, entries stop and the position is looked after all the same."""
        try:
            await self._store.put(name, value)
        except StoreFailedError as error:
            self._log.error("not recorded", fact=name, error=str(error))

    @because("Stale")
    async def _sweep(self) -> None:
        """Cancel what serves nothing, by what the exchange says now: it could sell what is another's."""
        await self._refresh()
        await self._collect_fills()
        await self._tidy([])

    async def _tidy(self, lines: list[str]) -> None:
        """Cancel own orders that serve nothing; only with books that agree with the exchange."""
        if self.halted or self._exchange_reset is not None:
            return
        if self._intents or self._missing_fills():
            return
        stale = self._stale_orders()
        # Books without an entry would call its protection stale: the exchange is asked for it before.
        entries = {entry for item in stale if (entry := entry_of(item.order)) and self._tracker.get(entry) is None}
        if entries:
            await self._absorb(await self._reports(entries))
            await self._collect_fills()
            if self._missing_fills():
                return
            stale = self._stale_orders()
        for item in stale:
            lines.append(f"canceled {item.order.client_order_id}: {item.reason}")
            self._log.info("stale order", client_order_id=item.order.client_order_id, reason=item.reason)
        if stale:
            await self._cancel(item.order for item in stale)
            await self._refresh()

    def _stale_orders(self) -> list[StaleOrder]:
        return stale_orders(
            self._tracker,
            flat=self.held == 0,
            position=self._quantity,
            now_ms=self._exchange.exchange_ms(),
            entry_seconds=self._settings().entry.max_age_seconds,
        )

    async def _compare(self) -> Verdict:
        """Compare with the account; a fill between two reads is no drift, so a difference is looked at again."""
        for attempt in range(VERDICT_ATTEMPTS):
            booked = [(order, self._booked(order)) for order in self._tracker]
            verdict = await self._reconciler.reconcile_position(
                booked, self._books, self._foreign_base, self._priceless
            )
            if self._exchange_reset is not None:
                verdict = replace(verdict, kind=VerdictKind.DRIFT, message=self._exchange_reset)
                break
            if verdict.kind is VerdictKind.EXACT:
                self._foreign_base = self._foreign_base.looked_until(self._books.last_trade_id)
            if verdict.kind is VerdictKind.EXACT or attempt == VERDICT_ATTEMPTS - 1:
                break
            if verdict.unexplained and await self._look_at_trades_of_others(verdict.unexplained):
                continue
            if (
                verdict.kind is VerdictKind.COVERED
                and self._verdict is not None
                and verdict.drift == self._verdict.drift
            ):
                break
            await asyncio.sleep(0.3)
            self._unlisted |= verdict.kind is VerdictKind.DRIFT
            await self._refresh()
            await self._collect_fills()
        self._verdict = verdict
        return verdict

    async def _next_trade(self) -> int:
        """A trade id above that of every trade of the account on the symbol."""
        newest = await self._exchange.trades(self._rules.symbol, from_id=None)
        return max((fill.trade_id + 1 for fill in newest), default=0)

    async def _look_at_trades_of_others(self, unexplained: Decimal) -> bool:
        """Look once at what may explain that much base; True where something was found."""
        if unexplained == self._looked_for:
            return False
        self._looked_for = unexplained
        symbol, base_asset = self._rules.symbol, self._rules.base_asset
        first = self._foreign_base.next_trade
        if first is None:  # an older version recorded the start: all that is known to come after it are own trades
            first = min(self._fills, default=None)
        trades = [] if first is None else await self._exchange.trades(symbol, from_id=first)
        if not trades:
            return False
        booked = self._fills.keys() | {
            item.fill.trade_id for item in await self._store.fills(after=trades[0].trade_id - 1)
        }
        foreign = [fill for fill in trades if fill.trade_id not in booked]
        if foreign:
            await self._list_orders()  # one of our own that nobody told of is no trade of others
            await self._collect_fills()
        own = {order.order_id for order in self._tracker}
        foreign = [fill for fill in foreign if fill.order_id not in own]
        self._foreign_base = self._foreign_base.after_trades(foreign, trades[-1].trade_id + 1, base_asset)
        await self._note(FOREIGN_BASE, self._foreign_base)
        return bool(foreign)

    def _tell(
        self, kind: OrdersEventKind, message: str, quantity: Decimal = Decimal(0), price: Decimal = Decimal(0)
    ) -> None:
        self._notify(OrdersEvent(kind, self._exchange.exchange_ms(), message, quantity, price))


def _cancels_entry(intent: Intent) -> bool:
    target = parse(intent.client_ids[0])
    return intent.kind is IntentKind.CANCEL and target is not None and target.purpose in ENTRY_PURPOSES


def _group(order: TrackedOrder) -> int | str:
    """What is cancelled together: a list, or an order alone."""
    return order.order_list_id if order.order_list_id != NO_LIST else order.client_order_id
