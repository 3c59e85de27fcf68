"""Restores a lost protection: a pair, else a stop alone, else a sale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import Final

from tradingbot.gateway import filters
from tradingbot.gateway.errors import AmbiguousError, ExchangeError, RejectedError
from tradingbot.gateway.port import NewOco
from tradingbot.orders.audit import because
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.exits import STOP_PASSED, Exits
from tradingbot.orders.intents import IntentKind
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.planning import ProtectionPlan, plan_protection, protection_pair, stop_order
from tradingbot.orders.protection import stopped_quantity
from tradingbot.orders.protection_watch import ProtectionWatch
from tradingbot.orders.sender import Sender
from tradingbot.orders.trailing import highest_since, place_again
from tradingbot.orders.types import ExitOutcome, ProtectionState
from tradingbot.recovery.fence import Purpose

NAKED_WAITS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
"""Seconds until the next try to protect or sell what has no stop, after refusals in a row."""
PEAK_SECONDS: Final = 2.0
"""For reading the highest price before a stop that follows it is placed again: the position has no stop meanwhile."""


class ProtectionRepair(OrderPart):
    """Protects or sells what has no stop, with waits after refusals; while `halted` it sends nothing."""

    def __init__(
        self,
        ctx: OrderContext,
        *,
        exits: Exits,
        sender: Sender,
        known: KnownOrders,
        fills: OwnFills,
        watch: ProtectionWatch,
        halted: Callable[[], bool],
    ) -> None:
        super().__init__(ctx)
        self._exits = exits
        self._sender = sender
        self._known = known
        self._fills = fills
        self._watch = watch
        self._halted = halted
        self._after = 0.0
        self._failures = 0
        self._sale_failed = False
        """The last try to sell what has no stop failed."""

    @because("ProtectionLost")
    async def repair(self) -> None:
        """Restore a lost protection: a pair, else a stop alone, else sell; past the deadline sell at once."""
        if self._watch.status.state is not ProtectionState.UNPROTECTED or self._monotonic() < self._after:
            return
        if self._halted() or self._ctx.reset is not None:
            return
        try:
            if not await self._exits.may_sell():
                return
            await self._restore()
            self._failures, self._watch.refused = 0, ""
        except ExchangeError as error:
            failures = self._failures
            refused = isinstance(error, RejectedError)
            wait = NAKED_WAITS[min(failures, len(NAKED_WAITS) - 1)] if refused else min(5.0, 0.5 * 2**failures)
            self._failures, self._after = failures + 1, self._monotonic() + wait
            self._log.warning("protection not restored", error=str(error), failures=failures + 1)
        finally:
            self._watch.update()

    async def _restore(self) -> None:
        """Protect what has no stop; what has one keeps it. RejectedError where it can neither be protected nor sold."""
        if self._failures > 0:
            await self._exits.check_trading()
        await self._known.read_open()
        self._watch.update()
        since = self._watch.status.since
        if since is None:
            return
        late = self._monotonic() - since > self._settings().protection.deadline_seconds
        # What was only told late is protected; where the sale fails as well, both are tried in turn.
        if late and self._failures > 0 and not self._sale_failed:
            await self._sell_naked("ProtectionDeadline", at_market=True)
            return
        self._sale_failed = False
        await self._ctx.tolerate(self._fills.collect())
        useless = self._watch.useless()
        available, bid = await self._exits.sellable(useless), await self._exits.bid()
        peak = await self._peak()
        plan = place_again(self._ctx.rules, self._plan(available), peak, bid)
        if bid is not None and bid <= plan.stop_price:
            await self._sell_naked(STOP_PASSED, at_market=True)
            return
        if bid is not None and bid >= plan.take_profit_price:
            await self._sell_naked("TakeProfitPassed")
            return
        if useless:
            await self._sender.cancel(useless)
            # One of them may have sold something meanwhile.
            plan = place_again(self._ctx.rules, self._plan(available), peak, bid)
        if await self._attempt(lambda: self._place_pair(plan)):
            return
        if await self._attempt(lambda: self._place_stop(plan)):
            return
        await self._sell_naked("ProtectionRefused", at_market=True)

    def _plan(self, available: Decimal) -> ProtectionPlan:
        naked = self._fills.held - stopped_quantity(self._tracker)
        quantity = filters.floor_quantity(self._ctx.rules, min(naked, available))
        if quantity <= 0:  # the base is not free: somebody else's order or withdrawal holds it
            raise RejectedError(f"no free {self._ctx.rules.base_asset} to protect")
        price = self._fills.books.average_price or self._fills.unbooked().price
        return plan_protection(self._ctx.rules, self._settings(), quantity, price)

    async def _peak(self) -> Decimal:
        """The highest price since the entry, for a stop that follows it; the entry's own where none can be read."""
        entry, price = self._tracker.get(self._audit.trace.position), self._fills.books.average_price
        if self._settings().protection.trailing_ratio is None or entry is None:
            return price
        try:
            async with asyncio.timeout(PEAK_SECONDS):
                return max(price, await highest_since(self._exchange, self._ctx.rules.symbol, entry.updated_ms))
        except (ExchangeError, TimeoutError) as error:
            self._log.warning("stop placed again without the highest price", error=str(error))
        return price

    async def _sell_naked(self, reason: str, *, at_market: bool = False) -> None:
        result = await self._exits.sell_position(reason, at_market=at_market, whole=False)
        if result.outcome is ExitOutcome.FAILED:
            self._sale_failed = True
            kind = AmbiguousError if result.code == AmbiguousError.code else RejectedError
            raise kind(self._watch.refused or result.message)

    async def _attempt(self, place: Callable[[], Awaitable[None]]) -> bool:
        """Whether the exchange did not refuse; an unknown outcome is not a refusal, it is resolved later."""
        try:
            await place()
        except RejectedError as error:
            self._watch.refused = str(error)
            self._log.warning("protection refused", error=str(error))
            return False
        except AmbiguousError as error:
            self._log.warning("protection unknown", error=str(error))
        return True

    async def _place_pair(self, plan: ProtectionPlan) -> None:
        sequence = self._ids.next_sequence()
        list_id = self._ids.make(sequence, Purpose.PROTECTION_LIST)
        pair = protection_pair(plan, partial(self._ids.make, sequence))
        legs = (pair.stop_client_id, pair.take_profit_client_id)
        intent = self._sender.intent(list_id, IntentKind.PROTECTION, legs, plan.quantity, plan.stop_price)
        await self._sender.commit(intent, reduce=True)
        order = NewOco(self._ctx.rules.symbol, list_id, pair)
        await self._sender.send(intent, lambda stamp: self._exchange.place_oco(order, stamp))

    async def _place_stop(self, plan: ProtectionPlan) -> None:
        client_id = self._ids.make(self._ids.next_sequence(), Purpose.STOP_LOSS)
        intent = self._sender.intent(client_id, IntentKind.STOP, (client_id,), plan.quantity, plan.stop_price)
        await self._sender.commit(intent, reduce=True)
        order = stop_order(self._ctx.rules.symbol, client_id, plan)
        await self._sender.send(intent, lambda stamp: self._exchange.place_order(order, stamp, urgent=True))
