"""Sends each order once: intents before, outcomes after, questions where no answer came, and cancels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Final, TypeVar

from tradingbot.gateway.errors import AmbiguousError, ExchangeError, NotFoundError, NotSentError, RejectedError
from tradingbot.gateway.port import Stamp
from tradingbot.model import NO_LIST, OrderListReport, OrderReport
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.intents import Evidence, Intent, IntentKind, IntentState, judge
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.types import OrdersEventKind, TrackedOrder
from tradingbot.recovery.fence import Purpose, parse
from tradingbot.state.store import StoreFailedError

T = TypeVar("T", bound=OrderReport | OrderListReport)
ENTRY_PURPOSES: Final = frozenset({Purpose.ENTRY, Purpose.ANNOUNCE})
CANCEL_ANSWER_SECONDS: Final = 1.0
"""How long the answer to a cancel is waited for when the user stream may have told what became of its target."""


class Sender(OrderPart):
    """Sends what the parts above it decided; `intents` has those without a known outcome, by client id.

    While `halted` nothing is sent but cancels of entries. `entry_found` is awaited, with the client id and why, where
    an entry of unknown outcome turned out to be at the exchange.
    """

    def __init__(
        self,
        ctx: OrderContext,
        *,
        known: KnownOrders,
        fills: OwnFills,
        halted: Callable[[], bool],
        entry_found: Callable[[str, str], Awaitable[None]],
    ) -> None:
        super().__init__(ctx)
        self._known = known
        self._fills = fills
        self._halted = halted
        self._entry_found = entry_found
        self.intents: dict[str, Intent] = {}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Client ids of intents whose outcome is unknown; those in flight are not among them."""
        return tuple(i.client_id for i in self.intents.values() if i.state is IntentState.UNKNOWN and i.blocks_entries)

    async def cancel(self, orders: Iterable[TrackedOrder]) -> bool:
        """Cancel orders, lists as a whole; whether no cancel was refused.

        One that is refused was ended by something else: the exchange is asked how.
        """
        groups: dict[int | str, TrackedOrder] = {}
        for order in orders:
            groups.setdefault(order.group, order)
        accepted = True
        for order in groups.values():
            cancel_id = self._ids.make(self._ids.next_sequence(), Purpose.CANCEL)
            intent = self.intent(cancel_id, IntentKind.CANCEL, (order.client_order_id,), order.quantity, order.price)
            await self.commit(intent, reduce=True)
            accepted &= await self._cancel_one(intent, order, cancel_id)
        if self._known.open(lambda order: order.group in groups):
            await self._known.read_open()
        return accepted

    async def _cancel_one(self, intent: Intent, order: TrackedOrder, cancel_id: str) -> bool:
        """Whether it was not refused."""
        symbol = self._ctx.rules.symbol

        async def send() -> None:
            if order.order_list_id != NO_LIST:
                await self.send(
                    intent, lambda stamp: self._exchange.cancel_list(symbol, order.order_list_id, cancel_id, stamp)
                )
            else:
                await self.send(
                    intent,
                    lambda stamp: self._exchange.cancel_order(
                        symbol, order.client_order_id, cancel_id, stamp, order_id=order.order_id
                    ),
                )

        sending = asyncio.create_task(send())
        try:
            while not sending.done():
                await asyncio.wait({sending}, timeout=CANCEL_ANSWER_SECONDS)
                if not sending.done() and not self._known.open(lambda one: one.group == order.group):
                    # A position may be without its stop by now: nobody waits for an answer that tells nothing new.
                    sending.cancel()
                    await asyncio.wait({sending})
                    await self.finish(intent, IntentState.ACKNOWLEDGED, "its target ended meanwhile")
                    return True
            await sending
            return True
        except RejectedError as error:
            self._log.info("cancel refused", client_order_id=order.client_order_id, error=str(error))
            return False
        except AmbiguousError:
            # A cancel adds no exposure; what it did is read from its target, and a new one has a new id.
            self._known.doubt = True
            await self.finish(self.intents[cancel_id], IntentState.ACKNOWLEDGED, "its target is asked instead")
            raise
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def intent(
        self, client_id: str, kind: IntentKind, client_ids: tuple[str, ...], quantity: Decimal, price: Decimal
    ) -> Intent:
        """What is about to be sent under `client_id`, stamped now; it makes or concerns the orders `client_ids`."""
        stamp = self._exchange.stamp()
        return Intent(
            client_id=client_id,
            kind=kind,
            client_ids=client_ids,
            timestamp_ms=stamp.timestamp_ms,
            recv_window_ms=stamp.recv_window_ms,
            quantity=format(quantity, "f"),
            price=format(price, "f"),
            after_order_id=self._known.highest_id,
            signal_id=self._audit.trace.signal_id,
        )

    async def commit(self, intent: Intent, *, reduce: bool = False) -> None:
        """Commit before sending. What reduces the exposure goes on without a store: its ids are never used again."""
        self.intents[intent.client_id] = intent
        try:
            await self._store.put_intent(intent)
        except StoreFailedError:
            if not reduce:
                del self.intents[intent.client_id]
                raise
            self._log.error("sending without the store", client_id=intent.client_id)
        except BaseException:
            del self.intents[intent.client_id]  # cancelled before anything was sent
            raise
        self._audit.sent(intent)

    async def finish(self, intent: Intent, state: IntentState, message: str = "") -> None:
        """Record what became of it; one that is open stays among the `intents`."""
        done = replace(intent, state=state, message=message)
        if state.is_open:
            self.intents[intent.client_id] = done
        else:
            self.intents.pop(intent.client_id, None)
        self._audit.outcome(done)
        try:
            await self._store.put_intent(done)
        except StoreFailedError as error:
            self._log.error("intent not updated", client_id=intent.client_id, error=str(error))

    async def send(self, intent: Intent, send: Callable[[Stamp], Awaitable[T]]) -> T:
        """Send once, and record what is known of the outcome whatever happens."""
        stamp = Stamp(intent.timestamp_ms, intent.recv_window_ms)
        try:
            if self._halted() and not _cancels_entry(intent):
                raise NotSentError("halted: nothing is sent")
            answer = await send(stamp)
        except AmbiguousError as error:
            await self.finish(intent, IntentState.UNKNOWN, str(error))
            raise
        except ExchangeError as error:
            await self.finish(intent, IntentState.REJECTED, str(error))
            raise
        except BaseException as error:  # a cancelled task, or an answer that could not be read
            self.intents[intent.client_id] = replace(intent, state=IntentState.UNKNOWN, message=type(error).__name__)
            raise
        # Known as an order before it is no longer known as an intent: nothing of ours is in neither at any time.
        await self._known.absorb(answer.reports if isinstance(answer, OrderListReport) else (answer,))
        await self.finish(intent, IntentState.ACKNOWLEDGED)
        return answer

    async def resolve_unknown(self) -> None:
        """One round of questions about every intent whose outcome is unknown."""
        for intent in [i for i in self.intents.values() if i.state is IntentState.UNKNOWN]:
            if intent.kind is IntentKind.CANCEL:
                await self.finish(intent, IntentState.ACKNOWLEDGED, "its target is asked instead")
                continue
            evidence = await self._evidence(intent)
            judged = judge(intent, evidence)
            if judged.state is IntentState.ACKNOWLEDGED and not await self._take_made(intent, evidence):
                continue
            if judged.state.is_open:
                self.intents[intent.client_id] = judged
                continue
            await self.finish(judged, judged.state, judged.message)
            self._ctx.tell(OrdersEventKind.UNKNOWN_RESOLVED, f"{intent.client_id}: {judged.message}")
            if judged.state is IntentState.ACKNOWLEDGED:
                await self._fills.collect()
                if intent.kind is IntentKind.ENTRY:
                    await self._entry_found(intent.client_ids[0], "found after an unknown outcome")
                if intent.kind is IntentKind.ANNOUNCE:
                    await self.cancel(self._known.open(lambda order: order.purpose == Purpose.ANNOUNCE))

    async def _take_made(self, intent: Intent, evidence: Evidence) -> bool:
        """Take the orders that a found intent made; False while some of them cannot be read yet. ExchangeError.

        The intent stays open until then: a position without its entry, or without its legs, would be misjudged.
        """
        told = (evidence.report, *(evidence.listed or ()))
        await self._known.absorb([report for report in told if report is not None])
        listed = await self._exchange.all_orders(
            self._ctx.rules.symbol, from_order_id=intent.after_order_id + 1, urgent=True
        )
        await self._known.absorb([report for report in listed if self._known.is_own(report)])
        complete = all(self._tracker.get(client_id) is not None for client_id in intent.client_ids)
        return complete or evidence.time_ms > intent.decidable_ms

    async def _evidence(self, intent: Intent) -> Evidence:
        """What the exchange says of an intent's orders; a failed call raises and is no evidence."""
        symbol = self._ctx.rules.symbol
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
        trades = await self._exchange.trades(symbol, from_id=self._fills.books.last_trade_id + 1, urgent=True)
        unexplained = tuple(
            fill for fill in trades if fill.order_id not in explained and fill.order_id > intent.after_order_id
        )
        return Evidence(now, None, tuple(listed), unexplained)


def _cancels_entry(intent: Intent) -> bool:
    target = parse(intent.client_ids[0])
    return intent.kind is IntentKind.CANCEL and target is not None and target.purpose in ENTRY_PURPOSES
