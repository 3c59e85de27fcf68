"""Compares the books with the account, and explains what others did with the base."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradingbot.model import BalanceChange
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.own_fills import CORRECTIONS, OwnFills
from tradingbot.orders.types import OrdersEventKind
from tradingbot.state.balance_reconciler import BalanceReconciler, Verdict, VerdictKind
from tradingbot.state.foreign_base import ForeignBase
from tradingbot.state.heard import Heard
from tradingbot.state.ledger import CorrectionFill

VERDICT_ATTEMPTS: Final = 3
FOREIGN_BASE: Final = "foreign_base"


class AccountCheck(OrderPart):
    """Compares; `foreign_base` is what of the account's base is not this bot's, `verdict` the last comparison."""

    def __init__(self, ctx: OrderContext, known: KnownOrders, fills: OwnFills) -> None:
        super().__init__(ctx)
        self._known = known
        self._fills = fills
        self._reconciler = BalanceReconciler(ctx.exchange, ctx.rules)
        self.foreign_base = ForeignBase(None)
        self.heard = Heard()
        self._balance_changes: deque[BalanceChange] = deque(maxlen=100)
        self._looked_for: Decimal | None = None
        """The unexplained base for which trades of others were looked at."""
        self.verdict: Verdict | None = None

    async def take_change(self, event: BalanceChange) -> None:
        """Remember what came or went besides trades; two streams may tell it, while one takes over."""
        if event in self._balance_changes:
            return
        self._balance_changes.append(event)
        self.heard.take_change(event)
        if event.asset == self._ctx.rules.base_asset:
            self.foreign_base = self.foreign_base.after_change(event)
            await self._ctx.note(FOREIGN_BASE, self.foreign_base)

    async def compare(self) -> Verdict:
        """Compare with the account; a fill between two reads is no drift, so a difference is looked at again."""
        for attempt in range(VERDICT_ATTEMPTS):
            booked = [(order, self._fills.booked(order)) for order in self._tracker]
            verdict = await self._reconciler.reconcile_position(
                booked, self._fills.books, self.foreign_base, self._fills.priceless
            )
            if self._ctx.reset is not None:
                verdict = replace(verdict, kind=VerdictKind.DRIFT, message=self._ctx.reset)
                break
            if verdict.kind is VerdictKind.EXACT:
                self.foreign_base = self.foreign_base.looked_until(self._fills.books.last_trade_id)
            if verdict.kind is VerdictKind.EXACT or attempt == VERDICT_ATTEMPTS - 1:
                break
            if verdict.unexplained and await self._look_at_trades_of_others(verdict.unexplained):
                continue
            if verdict.kind is VerdictKind.COVERED and self.verdict is not None and verdict.drift == self.verdict.drift:
                break
            await asyncio.sleep(0.3)
            self._known.unlisted |= verdict.kind is VerdictKind.DRIFT
            await self._known.refresh()
            await self._fills.collect()
        self.verdict = verdict
        return verdict

    async def adopt(self, verdict: Verdict, bid: Decimal | None) -> None:
        """Take the account's word: what it lacks of the position leaves the books at that price. StoreFailedError."""
        books, next_trade = self._fills.books, await self.next_trade()
        correction = CorrectionFill(
            after_trade_id=max(books.last_trade_id, next_trade - 1),  # a fill that was missed comes before it
            time_ms=self._exchange.exchange_ms(),
            quantity=max(-verdict.drift, Decimal(0)),
            price=bid or books.average_price,
        )
        corrections, corrected = self._fills.corrected(correction)
        foreign = self.foreign_base.adopted(corrected, verdict.base.total, next_trade)
        await self._store.put_all({CORRECTIONS: corrections, FOREIGN_BASE: foreign})
        self._fills.correct(corrections, corrected)
        self.foreign_base = foreign
        self._ctx.tell(OrdersEventKind.BOOKS_CHANGED, "correction", correction.quantity, correction.price)

    async def next_trade(self) -> int:
        """A trade id above that of every trade of the account on the symbol."""
        newest = await self._exchange.trades(self._ctx.rules.symbol, from_id=None)
        return max((fill.trade_id + 1 for fill in newest), default=0)

    async def _look_at_trades_of_others(self, unexplained: Decimal) -> bool:
        """Look once at what may explain that much base; True where something was found."""
        if unexplained == self._looked_for:
            return False
        self._looked_for = unexplained
        symbol, base_asset = self._ctx.rules.symbol, self._ctx.rules.base_asset
        first = self.foreign_base.next_trade
        if first is None:  # an older version recorded the start: all that is known to come after it are own trades
            first = self._fills.first_trade_id
        trades = [] if first is None else await self._exchange.trades(symbol, from_id=first)
        if not trades:
            return False
        foreign = await self._fills.others(trades)
        if foreign:
            await self._known.list_all()  # one of our own that nobody told of is no trade of others
            await self._fills.collect()
        own = {order.order_id for order in self._tracker}
        foreign = [fill for fill in foreign if fill.order_id not in own]
        self.foreign_base = self.foreign_base.after_trades(foreign, trades[-1].trade_id + 1, base_asset)
        await self._ctx.note(FOREIGN_BASE, self.foreign_base)
        return bool(foreign)
