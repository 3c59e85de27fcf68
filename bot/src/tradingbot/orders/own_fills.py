"""The fills of the bot's own orders: read, valued, folded into the books, and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Final

from tradingbot.gateway.errors import ExchangeError, UnknownSymbolError
from tradingbot.gateway.port import MOST_CANDLES
from tradingbot.model import Side, TradeFill
from tradingbot.orders.context import OrderContext, OrderPart
from tradingbot.orders.protection import Unbooked, held_quantity
from tradingbot.orders.types import OrdersEventKind, TrackedOrder
from tradingbot.state.ledger import BookedFill, CorrectionFill, LedgerState, book, extend, steps
from tradingbot.state.store import StoreFailedError

FILL_WAITS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 1.0)
"""Trades of an order may be readable later than the order itself."""
BULK_TRADES: Final = 5
"""From this many orders with missing fills on, all trades are read at once."""
CORRECTIONS: Final = "corrections"
CHECKPOINT: Final = "checkpoint-4"
"""Under another name than that of former versions, whose sums are others: without one all fills are folded."""
CHECKPOINT_FILLS: Final = 100
"""The checkpoint moves over so many fills at once."""


class OwnFills(OrderPart):
    """Keeps `books` equal to what the exchange says of own orders; old fills are only summed, in a checkpoint."""

    def __init__(self, ctx: OrderContext) -> None:
        super().__init__(ctx)
        self._by_id: dict[int, BookedFill] = {}
        """Those after the checkpoint, by trade id."""
        self._checkpoint = self._no_books()
        """The books of all fills before them, which only the store has."""
        self.books = self._checkpoint
        self._corrections: list[CorrectionFill] = []
        self._settled: dict[str, TrackedOrder] = {}
        """Orders, as they were known, whose fills in the books are what they executed: asked for all of them often."""
        self.priceless: set[str] = set()
        """Assets of fees that have no market against the quote, as far as this process asked."""
        self._fee_prices: dict[str, tuple[int, list[tuple[int, Decimal]]]] = {}
        """By market, since when minutes were last read, and the opening and the price of each, in their order."""

    async def load(self) -> None:
        """What the store has of them. StoreFailedError."""
        checkpoint = await self._store.get(CHECKPOINT, LedgerState)
        if checkpoint is not None:
            empty = self._no_books()
            self._checkpoint = replace(checkpoint, dust_limit=empty.dust_limit, dust_value=empty.dust_value)
        fills = await self._store.fills(after=self._checkpoint.last_trade_id)
        self._by_id = {booked.fill.trade_id: booked for booked in fills}
        self._corrections = await self._store.get(CORRECTIONS, list[CorrectionFill]) or []
        self.books = self._extended()

    @property
    def first_trade_id(self) -> int | None:
        """Of the fills after the checkpoint; None without one."""
        return min(self._by_id, default=None)

    async def others(self, trades: list[TradeFill]) -> list[TradeFill]:
        """Which of these trades of the account are not in the books; `trades` are in order of id."""
        booked = self._by_id.keys() | {
            item.fill.trade_id for item in await self._store.fills(after=trades[0].trade_id - 1)
        }
        return [fill for fill in trades if fill.trade_id not in booked]

    def corrected(self, correction: CorrectionFill) -> tuple[list[CorrectionFill], LedgerState]:
        """All corrections and the books with one more."""
        corrections = [*self._corrections, correction]
        return corrections, extend(self._checkpoint, self._by_id.values(), corrections)

    def correct(self, corrections: list[CorrectionFill], books: LedgerState) -> None:
        """What `corrected` returned holds from now on."""
        self._corrections, self.books = corrections, books

    @property
    def held(self) -> Decimal:
        """What can be sold of the position, in base; executions count although their trades could not be read yet."""
        return held_quantity(self._ctx.rules, self.books, self.unbooked())

    @property
    def quantity(self) -> Decimal:
        """The position to the last decimal, in base, as far as its trades could be read."""
        return self.books.quantity + self.unbooked().quantity

    async def collect(self) -> None:
        """Read the trades of every own order whose fills in the books are not yet its executed quantity."""
        for wait in (*FILL_WAITS, None):
            missing = self.missing()
            if not missing or self._ctx.reset is not None:
                return
            owners = {order.order_id: order.client_order_id for order in self._tracker if order.order_id is not None}
            if len(missing) >= BULK_TRADES:
                fills = await self._exchange.trades(self._ctx.rules.symbol, from_id=0, urgent=True)
            else:
                fills = []
                for order in missing:
                    if order.order_id is not None:
                        fills += await self._exchange.order_trades(self._ctx.rules.symbol, order.order_id, urgent=True)
            await self.take([fill for fill in fills if fill.order_id in owners], owners)
            if wait is not None and self.missing():
                await asyncio.sleep(wait)

    def missing(self) -> list[TrackedOrder]:
        """Own orders that executed more or less than the books have of them."""
        settled = self._settled
        return [
            order
            for order in self._tracker
            if settled.get(order.client_order_id) is not order and not self._settle(order)
        ]

    def _settle(self, order: TrackedOrder) -> bool:
        if order.executed_quantity != self.booked(order):
            return False
        if all(trade_id in self._by_id for trade_id in order.trade_ids):
            self._settled[order.client_order_id] = order
        return True

    def unbooked(self) -> Unbooked:
        """What was executed and is not in the books yet; of a purchase what its fee leaves, if taken in base."""
        quantity, price = Decimal(0), Decimal(0)
        for order in self.missing():
            missing = order.executed_quantity - self.booked(order)
            quantity += missing * (1 - self._ctx.taker_rate) if order.side is Side.BUY else -missing
            price = order.price or price
        return Unbooked(quantity, price)

    def booked(self, order: TrackedOrder) -> Decimal:
        """Base of the order that is in the books."""
        booked = (self._by_id.get(trade_id) for trade_id in order.trade_ids)
        return sum((item.fill.quantity for item in booked if item is not None), Decimal(0))

    async def take(self, fills: Iterable[TradeFill], owners: Mapping[int, str]) -> None:
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
            if trade_id in self._by_id:
                continue
            former, late = self.books, trade_id <= self.books.last_trade_id
            self._by_id[trade_id] = item
            self.books = self._extended() if late else extend(former, [item])
            booked.append(item)
            self._audit.fill(item, self._tracker.get(client_id))
            if self.books.last_trade is not None and self.books.last_trade != former.last_trade:
                self._audit.trade(self.books.last_trade)
        if orders or booked:
            await self.record(orders.values(), booked)
        if booked:
            last = booked[-1].fill
            self._ctx.tell(OrdersEventKind.BOOKS_CHANGED, f"{last.side} fill", last.quantity, last.price)

    async def _value(self, fill: TradeFill) -> BookedFill:
        """The fill with its fee's value; a fee in a third asset is valued at that asset's price when it was paid."""
        base, quote = self._ctx.rules.base_asset, self._ctx.rules.quote_asset
        known = self._by_id.get(fill.trade_id)
        if known is not None:
            return known
        if fill.commission == 0 or fill.commission_asset in {base, quote}:
            return book(fill, base, quote)
        price = None
        if fill.commission_asset not in self.priceless:
            try:
                price = await self._fee_price(fill)
            except ExchangeError as error:
                self._without_value(fill, error)
        return book(fill, base, quote, price)

    async def _fee_price(self, fill: TradeFill) -> Decimal | None:
        """Of the fee's asset, in the minute of the fill; None where nobody traded it. ExchangeError."""
        market, minute = f"{fill.commission_asset}{self._ctx.rules.quote_asset}", fill.time_ms - fill.time_ms % 60_000
        if self._exchange.exchange_ms() < minute + 60_000:
            return await self._exchange.last_price(market)
        start, closes = self._fee_prices.get(market, (minute, []))
        if not closes or not start <= minute <= closes[-1][0]:
            # After a lost store there may be thousands of fills, and a position waits for them with its stop.
            read = await self._exchange.candles(market, "1m", limit=MOST_CANDLES, start_ms=minute)
            closes = [(candle.open_ms, candle.close) for candle in read if candle.closed]
            self._fee_prices[market] = minute, closes
        return next((close for open_ms, close in closes if open_ms >= minute), None)

    async def value_fees(self) -> None:
        """Value the fees whose asset had no price that could be read."""
        valued: list[BookedFill] = []
        for booked in [item for item in self._by_id.values() if item.fee_value is None]:
            fill = booked.fill
            if fill.commission_asset in self.priceless:
                continue
            try:
                price = await self._fee_price(fill)
            except UnknownSymbolError as error:
                self._without_value(fill, error)
                continue
            except ExchangeError as error:
                self._without_value(fill, error)
                break
            if price is not None:
                valued.append(book(fill, self._ctx.rules.base_asset, self._ctx.rules.quote_asset, price))
        if valued:
            self._by_id |= {item.fill.trade_id: item for item in valued}
            self.books = self._extended()
            await self.record([], valued)

    async def books_at(self, time_ms: int) -> LedgerState:
        """The books as they were at a time of the exchange. StoreFailedError."""
        start, fills = self._checkpoint, list(self._by_id.values())
        if start.last_fill_ms >= time_ms:
            start, fills = self._no_books(), await self._store.fills()
        corrections = [one for one in self._corrections if one.time_ms < time_ms]
        return extend(start, [one for one in fills if one.fill.time_ms < time_ms], corrections)

    async def highest_realized(self) -> Decimal:
        """The most, in quote after fees, that was won whenever nothing was held; at least 0. StoreFailedError."""
        all_books = steps(self._no_books(), await self._store.fills(), self._corrections)
        return max([Decimal(0), *(books.realized for books in all_books if books.flat)])

    def _no_books(self) -> LedgerState:
        return LedgerState.empty(self._ctx.rules)

    async def move_checkpoint(self) -> None:
        """Keep of old fills only what they sum to. Those stay whose order is known or whose fee will have a value."""
        if self.missing() or self._store.failed is not None:
            return
        self._settled = {name: order for name, order in self._settled.items() if self._tracker.get(name) is order}
        needed = {trade_id for order in self._tracker for trade_id in order.trade_ids}
        for trade_id, booked in self._by_id.items():
            if booked.fee_value is None and booked.fill.commission_asset not in self.priceless:
                needed.add(trade_id)
        first = min(needed, default=self.books.last_trade_id + 1)
        old = [booked for trade_id, booked in self._by_id.items() if trade_id < first]
        if len(old) < CHECKPOINT_FILLS:
            return
        corrections = [one for one in self._corrections if one.after_trade_id < first]
        checkpoint = extend(self._checkpoint, old, corrections)
        with suppress(StoreFailedError):  # all of them stay
            await self._store.put(CHECKPOINT, checkpoint)
            self._checkpoint = checkpoint
            for booked in old:
                del self._by_id[booked.fill.trade_id]

    async def _drop_checkpoint(self) -> None:
        """A fill from before the checkpoint is met again: all are needed to know whether it is in the books."""
        stored = {booked.fill.trade_id: booked for booked in await self._store.fills()}
        self._by_id, self._checkpoint = stored | self._by_id, self._no_books()
        self.books = self._extended()

    def _extended(self, fills: Iterable[BookedFill] | None = None) -> LedgerState:
        """The checkpoint with the fills after it, and what people corrected."""
        return extend(self._checkpoint, self._by_id.values() if fills is None else fills, self._corrections)

    def _without_value(self, fill: TradeFill, error: ExchangeError) -> None:
        """An asset without a market is asked for once in a connection: it would be asked for ever."""
        if isinstance(error, UnknownSymbolError):
            self.priceless.add(fill.commission_asset)
        self._log.warning("fee without a value", asset=fill.commission_asset, error=str(error))

    async def record(self, orders: Iterable[TrackedOrder], fills: Iterable[BookedFill]) -> None:
        """Commit orders and fills; where that fails, entries stop and the rest goes on."""
        try:
            unsettled = {order.client_order_id for order in self.missing()}
            await self._store.record(orders, fills, unsettled=unsettled)
        except StoreFailedError as error:  # the exchange has it all
            self._log.error("not recorded", error=str(error))
