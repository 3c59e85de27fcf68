"""What is done on a decision: an entry that nothing hinders and risk sizes, or the sale of the position."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from decimal import ROUND_UP, Decimal
from typing import Final, NamedTuple

import structlog
from structlog.contextvars import bound_contextvars

from tradingbot.clocks import from_ms
from tradingbot.engine.trading_loop import Decision, Enter, Exit
from tradingbot.gateway.port import Exchange
from tradingbot.gateway.streams import Streams
from tradingbot.model import Balance, BookTicker
from tradingbot.orders.intents import IntentKind
from tradingbot.orders.manager import OrderManager
from tradingbot.orders.sizing import size_entry
from tradingbot.orders.types import EntryOutcome, EntryRequest, ExitOutcome, Trace
from tradingbot.parts import Parts
from tradingbot.recovery.safe_mode import Level
from tradingbot.risk.risk_manager import Refusal, Refused, Size
from tradingbot_api.base import canonical

RESERVATION_WAIT_SECONDS: Final = 2.0
"""A signal waits for the operator's answer at most so long: its price gets old."""
ORDERS_WAIT_SECONDS: Final = 2.0
"""The same for the room that an entry needs among the account's new orders."""
RESERVED_STEP: Final = Decimal("1e-8")


class Hindrance(NamedTuple):
    """Why no entry may be sent: a stable code, and what there is to say of it."""

    code: str
    detail: str = ""


class Seen(NamedTuple):
    """What a decision was made on."""

    signal_id: str
    price: Decimal
    at_ms: int
    """When it was so, by the exchange's clock."""


class Execution:
    """Of one connection; one entry or sale at a time.

    `hindrance` says what keeps entries from being sent now, `balance` what the account has of an asset. `doubt` lets
    the books be compared soon; `doubt_admission` is told each code of an end: it may be a refusal of the exchange.
    """

    def __init__(
        self,
        parts: Parts,
        exchange: Exchange,
        streams: Streams,
        manager: OrderManager,
        *,
        hindrance: Callable[[], Hindrance | None],
        balance: Callable[[str], Balance],
        doubt: Callable[[], None],
        doubt_admission: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._exchange = exchange
        self._streams = streams
        self._manager = manager
        self._hindrance = hindrance
        self._balance = balance
        self._doubt = doubt
        self._doubt_admission = doubt_admission
        self._acting = asyncio.Lock()
        self._log = structlog.get_logger("execution").bind(symbol=manager.rules.symbol)

    async def follow(self, decision: Decision, seen: Seen) -> None:
        """Do what was decided on what was seen."""
        if isinstance(decision, Enter):
            self._parts.tell("Signal", {"message": f"enter: {decision.reason}", "price": f"{seen.price:f}"})
            with bound_contextvars(signal_id=seen.signal_id, reason="Signal"):
                await self._enter(decision, seen)
        elif isinstance(decision, Exit):
            await self.leave(decision)

    async def leave(self, decision: Exit) -> None:
        """Sell as the strategy says; while Halted nothing is sent."""
        if self._parts.safe_mode.level < Level.HALTED:
            await self.exit("Signal", decision.reason)

    async def _enter(self, decision: Enter, seen: Seen) -> None:
        parts, settings, signal_id = self._parts, self._parts.settings(), seen.signal_id
        if self._hindrance() is None:
            await parts.orders.wait(ORDERS_WAIT_SECONDS, parts.changed)
        book = self._streams.book
        figures = {"signal": decision.reason, **self._figures(book)}
        hindrance = self._hindrance()
        parts.note("may enter", signal_id=signal_id, refused=hindrance and hindrance.code)
        if hindrance is None and (unfit := parts.risk.check_market_conditions(book, parts.monotonic())) is not None:
            hindrance = Hindrance(unfit.code.value, unfit.detail)
        if hindrance is not None or book is None:
            self._refuse(hindrance or Hindrance("NoMarket"), signal_id, figures)
            return
        size = self._size(book, settings.capital)
        if isinstance(size, Size) and parts.reservations.required:
            book, size = await self._reserve(size, book, settings.capital, figures)
        if isinstance(size, Refused):
            parts.reservations.give_back()
            self._refuse(Hindrance(size.code.value, size.detail), signal_id, figures)
            parts.changed()
            return
        figures["size"] = size.detail
        try:
            async with self._acting:
                result = await self._manager.enter(
                    EntryRequest(size.quantity, book.ask, decision.reason, settings, book.received, signal_id, figures)
                )
        finally:
            parts.reservations.give_back()
            parts.changed()
        age = (self._exchange.exchange_ms() - seen.at_ms) / 1000
        parts.metrics.entry(result.outcome.value, age)
        if result.outcome is EntryOutcome.REFUSED:
            self._refuse(Hindrance(result.code, result.message), signal_id, figures)
            self._doubt_admission(result.code)
        else:
            parts.risk.record_entry(parts.monotonic())
            self._log.info("entry", outcome=result.outcome.value, code=result.code, size=size.detail)
        parts.changed()

    def _size(self, book: BookTicker, capital: Decimal, fleet_room: Decimal | None = None) -> Size | Refused:
        return size_entry(
            self._parts.risk,
            self._manager.rules,
            self._manager.books,
            capital=capital,
            quote_free=self._balance(self._manager.rules.quote_asset).free,
            book=book,
            taker_rate=self._manager.taker_rate,
            now=from_ms(self._exchange.exchange_ms()),
            fleet_room=fleet_room,
        )

    async def _reserve(
        self, size: Size, book: BookTicker, capital: Decimal, figures: dict[str, str]
    ) -> tuple[BookTicker, Size | Refused]:
        """Ask the operator for the room that an entry of this size needs, and size it anew by what is granted and by
        the best ask of then."""
        exposure = self._manager.exposure
        if exposure is None:
            return book, Refused(Refusal.FLEET_LIMIT, "exposure=unknown: a former process may still buy")
        asked = (exposure.value + size.quantity * size.price).quantize(RESERVED_STEP, ROUND_UP)
        figures["reservation_asked"] = canonical(asked)
        self._parts.reservations.ask(asked)
        self._parts.changed()
        room = await self._parts.reservations.answer(RESERVATION_WAIT_SECONDS)
        if room is None:
            detail = f"asked={canonical(asked)}: the operator did not answer within {RESERVATION_WAIT_SECONDS:g} s"
            return book, Refused(Refusal.FLEET_LIMIT, detail)
        figures["reservation"] = canonical(room.exposure)
        self._log.info("reservation", asked=canonical(asked), granted=canonical(room.exposure), message=room.message)
        left = room.exposure - exposure.value
        book = self._streams.book or book
        if left <= 0:
            return book, Refused(Refusal.FLEET_LIMIT, f"asked={canonical(asked)} granted=0: {room.message}")
        return book, self._size(book, capital, left)

    def _figures(self, book: BookTicker | None) -> dict[str, str]:
        """What an entry is decided by, for the audit log."""
        settings, drawdown, books = self._parts.settings(), self._parts.risk.drawdown, self._manager.books
        quote = self._balance(self._manager.rules.quote_asset)
        figures = {
            "capital": settings.capital,
            "position_quantity": books.quantity,
            "position_cost": books.cost,
            "quote_free": quote.free,
            "quote_locked": quote.locked,
            "max_position_value": settings.risk.max_position_value,
            "equity": drawdown.equity or Decimal(0),
            "daily_loss": drawdown.daily_loss,
            "max_daily_loss": settings.risk.max_daily_loss,
            "drawdown": drawdown.drawdown,
            "max_drawdown": settings.risk.max_drawdown_ratio,
        }
        if book is not None:
            figures |= {"bid": book.bid, "ask": book.ask}
        return {name: canonical(value) for name, value in figures.items()}

    def _refuse(self, why: Hindrance, signal_id: str, figures: Mapping[str, str]) -> None:
        self._parts.metrics.refused(why.code)
        self._manager.audit.refused(IntentKind.ENTRY, why.code, why.detail, Trace(signal_id), figures)
        self._parts.tell("Refused", {"message": f"{why.code} {why.detail}".strip()})

    async def exit(self, why: str, detail: str) -> None:
        """Sell the position; the order manager protects again what could not be sold."""
        async with self._acting:
            if not self._manager.holding or self._manager.ending:
                return
            self._parts.tell("Signal", {"message": f"exit ({why}): {detail}"})
            audit = self._manager.audit
            with bound_contextvars(signal_id=audit.trace.signal_id, reason=why, signal=detail):
                result = await self._manager.exit(why)
                if result.outcome is ExitOutcome.FAILED:
                    audit.refused(IntentKind.EXIT, result.code, result.message, audit.trace, {})
        if result.outcome is not ExitOutcome.FLAT:
            self._doubt()
        self._doubt_admission(result.code)
        self._log.info("exit", why=why, outcome=result.outcome.value, code=result.code, message=result.message)
        self._parts.changed()
