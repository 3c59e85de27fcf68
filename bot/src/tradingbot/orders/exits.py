"""Sells the position: protection goes last, and what cannot be sold keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from tradingbot.gateway import filters
from tradingbot.gateway.errors import AmbiguousError, AuthRejectedError, ExchangeError, RateLimitedError, RejectedError
from tradingbot.model import Side
from tradingbot.orders.audit import for_its_reason
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.intents import IntentKind
from tradingbot.orders.known_orders import KnownOrders
from tradingbot.orders.own_fills import OwnFills
from tradingbot.orders.planning import sale_order
from tradingbot.orders.protection import stopped_quantity
from tradingbot.orders.protection_watch import ProtectionWatch
from tradingbot.orders.sender import Sender
from tradingbot.orders.types import ExitOutcome, ExitResult, OrdersEventKind, TrackedOrder
from tradingbot.recovery.fence import Purpose

EXIT_ATTEMPTS: Final = 6
SETTLE_WAITS: Final = (0.2, 0.3, 0.5, 1.0, 1.0, 2.0, 2.0, 3.0)
"""Seconds between questions about a request that got no answer, while its outcome is waited for."""
SALE_WEIGHT: Final = 300
"""Request weight for a sale and, where it is refused, new protection: some 150, and as much again for doubts."""
SALE_ORDERS: Final = 3
"""New orders for the same: the sale and a pair."""
REFUSED_WAITS: Final = (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0)
"""Seconds for which the protection stays after a refused sale, and after the next ones in a row."""
LIMIT_SALES: Final = 3
"""Slices of an exit that are sold inside the slippage collar; the next ones are sold at the market."""
REFUSED_SALES: Final = 2
"""Refusals that end an exit: the second came at the market, with the balance read anew."""
STOP_PASSED: Final = "StopPassed"


class Exits(OrderPart):
    """Sells in slices inside the slippage collar, then at the market, and keeps the protection where no sale can be."""

    def __init__(
        self, ctx: OrderContext, *, sender: Sender, known: KnownOrders, fills: OwnFills, watch: ProtectionWatch
    ) -> None:
        super().__init__(ctx)
        self._sender = sender
        self._known = known
        self._fills = fills
        self._watch = watch
        self._keep_until, self._kept_because = 0.0, ""
        """Until then the protection is not taken off for a sale, which was refused."""
        self._refusals = 0

    @for_its_reason
    async def sell_position(self, reason: str, *, at_market: bool = False, whole: bool = True) -> ExitResult:
        """Sell the position; not `whole`: what of it has no stop.

        Balance and book are read first and the protection is taken off last, so that only its cancel and the sale
        itself lie between protected and sold.
        """
        await self._sender.resolve_unknown()
        if self._ctx.reset is not None:
            return ExitResult(ExitOutcome.FAILED, "ExchangeReset", self._ctx.reset)
        if not await self.may_sell():
            return ExitResult(ExitOutcome.FAILED, "UnknownOrder", "the outcome of an order is not known yet")
        cancelled = self._known.open(lambda order: order.side is Side.SELL) if whole else self._watch.useless()
        available, bid = await self._read_for_sale(cancelled, protected=whole and bool(cancelled))
        if whole and self._fills.held == 0:  # also by changed filters: what cannot be sold any more keeps its stop
            return ExitResult(ExitOutcome.FLAT, "Nothing")
        if whole and self._known.former_ms > 0 and self._fills.held > stopped_quantity(self._tracker):
            # A former process may have taken the protection off to sell: only who takes it off may.
            return ExitResult(ExitOutcome.FAILED, "ProtectedFirst", "the position is protected before it is sold")
        refused_cancel = not await self._sender.cancel(cancelled)
        if refused_cancel:
            await self._known.list_all()
            await self._fills.collect()
        kept = Decimal(0) if whole else stopped_quantity(self._tracker)
        if refused_cancel and self._fills.held > kept:
            # Whoever ended the protection may be about to sell, as another process of this bot does by the same signal:
            # what is held is protected again, as a sale could take what is another's.
            return ExitResult(ExitOutcome.FAILED, "CancelRefused", "something else ended the protection")
        started, code, refusals = self._fills.quantity, "Sold", 0
        for attempt in range(EXIT_ATTEMPTS):
            quantity = filters.floor_quantity(self._ctx.rules, min(self._fills.held - kept, available))
            if quantity <= 0:
                if attempt == 0 and self._fills.held > kept:
                    code, self._watch.refused = RejectedError.code, f"no free {self._ctx.rules.base_asset} to sell"
                break
            before, refused = self._fills.quantity, ""
            market = at_market or attempt >= LIMIT_SALES or refusals > 0
            try:
                await self._sell(quantity, bid=None if market else bid, reason=reason)
                await self._ctx.tolerate(self._fills.collect())
                if market and self._fills.quantity == before:
                    refused = "a sale at the market expired: the book is empty, or too far from the reference price"
            except RejectedError as error:
                refused = str(error)
            except AmbiguousError as error:
                # Not sent again here: what is not sold is protected before it is tried once more.
                code, self._watch.refused = error.code, f"a sale got no answer: {error}"
                await self._ctx.tolerate(self._fills.collect())
                break
            if refused:
                code, refusals, self._watch.refused = RejectedError.code, refusals + 1, refused
                self._log.warning("exit refused", error=refused, attempt=attempt)
                if refusals == REFUSED_SALES:
                    break
                await self._known.read_open()
                available = await self.sellable(())
                continue
            available -= before - self._fills.quantity
            bid = await self.bid()
        sold = started - self._fills.quantity
        if sold > 0:
            self._refusals = 0
            kind = OrdersEventKind.STOP_LOSS if reason == STOP_PASSED else OrdersEventKind.EXITED
            self._ctx.tell(kind, reason, sold)
        if self._fills.held == 0:
            self._watch.update()
            return ExitResult(ExitOutcome.FLAT, code)
        if sold == 0 and code in {RejectedError.code, AmbiguousError.code}:
            self._keep_protection(f"the sale was refused: {self._watch.refused}")
        return ExitResult(ExitOutcome.PARTIAL if sold > 0 else ExitOutcome.FAILED, code, "something is left to sell")

    async def _read_for_sale(
        self, cancelled: Iterable[TrackedOrder], *, protected: bool
    ) -> tuple[Decimal, Decimal | None]:
        """What can be sold and the best bid, read at once.

        Raises where the protection must stay, as no sale could take its place: RejectedError while the symbol does not
        trade, and for a while after a refused sale; RateLimitedError where the address has not the request weight, or
        the account not the new orders, for all that is to come: a 429 in between would leave the position naked.
        """
        if not protected:
            return await asyncio.gather(self.sellable(cancelled), self.bid())
        wait = self._keep_until - self._monotonic()
        if wait > 0:
            raise RejectedError(f"the protection stays for {wait:.0f} s: {self._kept_because}")
        _, available, bid = await asyncio.gather(self._check_replaceable(), self.sellable(cancelled), self.bid())
        return available, bid

    async def _check_replaceable(self) -> None:
        try:
            await self.check_trading()
        except RejectedError as error:
            self._keep_protection(str(error))
            raise
        for what, spare, needed in (
            ("request weight", self._exchange.spare_weight, SALE_WEIGHT),
            ("the account's new orders", self._exchange.spare_orders, SALE_ORDERS),
        ):
            if spare >= needed:
                continue
            self._keep_protection(f"{spare} of {what} is left, {needed} are kept for a sale")
            message = f"the protection stays: {self._kept_because}"
            raise RateLimitedError(message, retry_after=self._keep_until - self._monotonic())

    async def check_trading(self) -> None:
        """Read what the exchange says of the symbol. RejectedError where it does not trade."""
        symbol = self._ctx.rules.symbol
        self._ctx.rules = await self._exchange.rules(symbol, urgent=True)
        if not self._ctx.rules.trading:
            self._watch.refused = f"{symbol} is {self._ctx.rules.status}"
            raise RejectedError(self._watch.refused)

    def _keep_protection(self, why: str) -> None:
        wait = REFUSED_WAITS[min(self._refusals, len(REFUSED_WAITS) - 1)]
        self._refusals, self._keep_until, self._kept_because = self._refusals + 1, self._monotonic() + wait, why

    async def may_sell(self) -> bool:
        """Whether a sale cannot sell what is not this bot's, although the outcome of another may be unknown.

        It cannot where the account has no base beyond the position: the exchange lets nobody sell more than there is.
        """
        if self._known.former_ms > 0:
            # A process whose store this is not may have sold since the start read its orders.
            await self._known.list_all()
            await self._fills.collect()
        unknown = [intent for intent in self._sender.intents.values() if intent.kind is not IntentKind.CANCEL]
        if not unknown:
            return True
        if any(intent.kind is IntentKind.ENTRY for intent in unknown):
            return False
        account = await self._exchange.account(urgent=True)
        others = account.balance(self._ctx.rules.base_asset).total - self._fills.books.quantity
        return others < filters.dust_limit(self._ctx.rules)

    async def sellable(self, cancelled: Iterable[TrackedOrder]) -> Decimal:
        """Free base, and what is free once those own orders are cancelled; the position where nobody can say."""
        locked: dict[int | str, Decimal] = {}
        for order in cancelled:  # the legs of a pair lock the same base
            rest = order.quantity - order.executed_quantity
            locked[order.group] = max(rest, locked.get(order.group, rest))
        try:
            account = await self._exchange.account(urgent=True)
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            if {order.group for order in cancelled} & self._watch.stopping():
                raise  # the protection is not taken off for a sale of nobody knows how much
            self._log.warning("selling without the balance", error=str(error))
            return self._fills.held
        return account.balance(self._ctx.rules.base_asset).free + sum(locked.values(), Decimal(0))

    async def bid(self) -> Decimal | None:
        """The best bid; None where nobody buys, or it cannot be read: then the market takes what it is given."""
        try:
            return (await self._exchange.book_ticker(self._ctx.rules.symbol, urgent=True)).bid or None
        except AuthRejectedError:
            raise
        except ExchangeError as error:
            self._log.warning("no price could be read", error=str(error))
            return None

    async def _sell(self, quantity: Decimal, *, bid: Decimal | None, reason: str) -> None:
        """One slice of an exit, without a bid at the market. AmbiguousError once its outcome was looked for a while."""
        client_id = self._ids.make(self._ids.next_sequence(), Purpose.EXIT)
        slippage = self._settings().entry.max_slippage_ratio
        order = sale_order(self._ctx.rules, client_id, quantity, bid=bid, max_slippage_ratio=slippage)
        price = order.price or Decimal(0)
        intent = self._sender.intent(client_id, IntentKind.EXIT, (client_id,), order.quantity, price)
        await self._sender.commit(intent, reduce=True)
        try:
            report = await self._sender.send(
                intent, lambda stamp: self._exchange.place_order(order, stamp, urgent=True)
            )
        except AmbiguousError:
            await self._settle(intent.client_id)
            raise
        await self._fills.take(report.fills, {report.order_id: client_id})

    async def _settle(self, client_id: str) -> None:
        """Wait a while for the outcome of a request that got no answer."""
        for wait in SETTLE_WAITS:
            await asyncio.sleep(wait * self._random.uniform(0.8, 1.2))
            self._watch.update()
            try:
                await self._sender.resolve_unknown()
            except ExchangeError as error:
                self._log.warning("still unknown", client_id=client_id, error=str(error))
            if client_id not in self._sender.intents:
                return
