"""The budget of new orders: how many of its account's a bot may send for entries; pure.

The exchange counts orders that were not filled yet, by account, in intervals of its own clock, and tells the counts in
each answer to a new order (Binance, faqs/order_count_decrement.md: the first fill takes an order off, a cancel does
not). Between answers the user stream tells of the orders of others. Both are too late where all bots of the account act
at once: for that the operator allots. What reduces risk is counted and never waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from tradingbot.gateway.errors import NotSentError
from tradingbot_api.bot_http import ENTRY_ORDERS, ENTRY_ORDERS_PART, ORDER_SETTLE_SECONDS, OrderCount, OrderUse

HEADER: Final = "X-MBX-ORDER-COUNT-"
ORDERS: Final = {"order": 1, "orderList/oco": 2, "orderList/otoco": 3}
"""How many orders a request makes, by its path."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OrderLimit:
    """How many new orders an account may send in an interval."""

    orders: int
    length_ms: int


USUAL_LIMITS: Final = {"10S": OrderLimit(100, 10_000), "1D": OrderLimit(200_000, 86_400_000)}
"""Binance's, until exchangeInfo told them."""


class OrderBudgetError(NotSentError):
    """An entry was not sent: the account's new orders that are for entries are used up."""

    code = "OrdersUsedUp"


def orders_of(method: str, path: str) -> int:
    """How many new orders a request makes; `path` is behind /api/v3."""
    return ORDERS.get(path, 0) if method == "post" else 0


class OrderBudget:
    """What is known of one account's new orders. Times are the exchange's, in ms, where they are named so."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.limits: Mapping[str, OrderLimit] = USUAL_LIMITS
        self._told: dict[str, tuple[int, int]] = {}
        """By interval: the count of the last answer, and when that came."""
        self._heard: dict[str, tuple[int, int]] = {}
        """By interval: new orders of others since the last answer, and when the newest was."""
        self._in_flight = 0
        self._entries: deque[tuple[float, int]] = deque()
        """When this bot sent orders of entries, and how many."""
        self._allotted: int | None = None
        self._allotted_until = self._held_until = float("-inf")
        self._refused_until: datetime | None = None
        self._asks = False
        self._room = asyncio.Event()

    # --- what others tell ---

    def observe(self, headers: Mapping[str, str], now_ms: int) -> None:
        """An answer, which may tell the account's counts."""
        for name in self.limits:
            if (count := headers.get(HEADER + name, "")).isdecimal():
                self._told[name] = (int(count), now_ms)
                self._heard.pop(name, None)

    def hear(self, at_ms: int) -> None:
        """The user stream tells of a new order of another bot or program of the account. One of before the last answer
        counts twice until the next one."""
        for name, limit in self.limits.items():
            heard = self._heard.get(name, (0, at_ms))
            newest = max(at_ms, heard[1])  # an older one comes late over a connection that is replaced
            self._heard[name] = (_count_in(heard, limit, newest) + 1, newest)

    def allot(self, orders: int | None, seconds: float) -> None:
        """The operator's word, for so long; then this bot has none of them. None: the operator allots none."""
        self._allotted, self._allotted_until = orders, self._monotonic() + seconds
        if self._lacking(ENTRY_ORDERS) == 0:
            self._room.set()

    def refuse(self, seconds: float, now_ms: int) -> None:
        """The exchange refused an order of ours as too many."""
        self.hold(_time(now_ms) + timedelta(seconds=seconds), seconds)

    def hold(self, until: datetime, seconds: float) -> None:
        """It refused one of this account's; `until` is told on as it is, so that it does not grow as it goes round."""
        self._refused_until = max(until, self._refused_until or until)
        self._held_until = max(self._held_until, self._monotonic() + seconds)

    # --- what is sent ---

    def check(self, orders: int, now_ms: int, *, allotted: bool = True) -> None:
        """OrderBudgetError where so many must not be sent now, of an entry, or of what needs no allotment."""
        if (held := self._held_until - self._monotonic()) > 0:
            raise OrderBudgetError(f"the exchange refused an order of the account (-1015): entries wait {held:.0f} s")
        for name, limit in self.limits.items():
            used, most = max(self._used(name, now_ms) + self._in_flight, self._own), limit.orders * ENTRY_ORDERS_PART
            if used + orders > most:
                seconds = (limit.length_ms - now_ms % limit.length_ms) / 1000
                raise OrderBudgetError(
                    f"the account sent {used} orders of {limit.orders} in {name}, {most:.0f} are for entries; "
                    f"they go on in {seconds:.0f} s"
                )
        if allotted and self._lacking(orders) > 0:
            raise OrderBudgetError(f"{self._part} of the account's new orders are allotted, {self._own} were sent")

    async def wait(self, seconds: float, changed: Callable[[], None]) -> None:
        """Have the operator asked for what an entry needs where it is not allotted, and wait so long at most."""
        if self._lacking(ENTRY_ORDERS) == 0:
            return
        self._asks = True
        self._room.clear()
        changed()
        try:
            async with asyncio.timeout(seconds):
                await self._room.wait()
        except TimeoutError:
            pass  # what is sent is checked
        finally:
            self._asks = False
            changed()

    def sent(self, orders: int, *, allotted: bool) -> None:
        """So many are under way, of an entry or not."""
        self._in_flight += orders
        if allotted and orders:
            self._entries.append((self._monotonic(), orders))

    def answered(self, orders: int) -> None:
        """They are not any more, be it without an answer."""
        self._in_flight -= orders

    # --- what is told ---

    def spare(self, now_ms: int) -> int:
        """What the limits leave, as far as is known."""
        return min(limit.orders - self._used(name, now_ms) - self._in_flight for name, limit in self.limits.items())

    def use(self, now_ms: int) -> OrderUse:
        """For the operator."""
        held = self._monotonic() < self._held_until
        return OrderUse(
            counts=[
                OrderCount(
                    interval=name,
                    seconds=limit.length_ms // 1000,
                    limit=limit.orders,
                    used=self._used(name, now_ms),
                    told_time=_time(self._told[name][1]) if name in self._told else None,
                )
                for name, limit in self.limits.items()
            ],
            wanted=self._own + (ENTRY_ORDERS if self._asks else 0),
            asks=self._asks,
            allotted=self._part,
            refused_until_time=self._refused_until if held else None,
        )

    @property
    def _part(self) -> int | None:
        """What is allotted now; None: nobody allots."""
        return self._allotted if self._allotted is None or self._monotonic() < self._allotted_until else 0

    @property
    def _own(self) -> int:
        """What this bot's entries sent that may count in the exchange's shortest interval of now."""
        while self._entries and self._monotonic() - self._entries[0][0] >= ORDER_SETTLE_SECONDS:
            self._entries.popleft()
        return sum(orders for _, orders in self._entries)

    def _lacking(self, orders: int) -> int:
        part = self._part
        return 0 if part is None else max(0, self._own + orders - part)

    def _used(self, name: str, now_ms: int) -> int:
        limit = self.limits[name]
        return _count_in(self._told.get(name), limit, now_ms) + _count_in(self._heard.get(name), limit, now_ms)


def _count_in(counted: tuple[int, int] | None, limit: OrderLimit, at_ms: int) -> int:
    """What was counted, where that was in the interval of this time."""
    return counted[0] if counted is not None and counted[1] // limit.length_ms == at_ms // limit.length_ms else 0


def _time(ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=ms)
