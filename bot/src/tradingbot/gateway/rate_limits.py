"""The budget of request weight: how much of the address's minute this bot may use, and for what; pure.

The exchange counts weight per address in minutes of its own clock, and tells the use of all in each answer. Reads of
the market are given up first, then those of the account and entries; cancels, protection and exits never wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from tradingbot.gateway.errors import NotSentError
from tradingbot.gateway.port import EndpointClass

KEY_PERMISSIONS: Final = "account/apiRestrictions"
"""The one call of /sapi."""
MINUTE_MS: Final = 60_000
USUAL_LIMIT: Final = 6_000
"""Binance's limit, until exchangeInfo told it."""
PART: Final = {
    EndpointClass.MARKET: Decimal("0.6"),
    EndpointClass.ACCOUNT: Decimal("0.8"),
    EndpointClass.ORDER: Decimal("0.8"),
}
"""Up to which part of the budget each class may be used; the rest is kept for what reduces risk."""
LEAST_SHARE: Final = 400
"""No share is smaller: with less a bot could not even connect, which takes about 130."""


READS: Final = {
    "time": 1,
    "exchangeInfo": 20,
    "ticker/bookTicker": 2,
    "ticker/price": 2,
    "klines": 2,
    "account": 20,
    "account/commission": 20,
    "order": 4,
    "orderList": 4,
    "openOrders": 6,
    "allOrders": 20,
    "myTrades": 20,
    KEY_PERMISSIONS: 0,
}
"""Weight of each read; /sapi has limits of its own, which this bot does not come near."""
OF_ONE_ORDER: Final = 5
SEND: Final = 1
"""Of a request that is not executed; since 2026-04 one that is costs nothing."""


class WeightBudgetError(NotSentError):
    """Not sent: the weight of this minute is used up, but for what reduces risk."""

    code = "WeightUsedUp"


def weight_of(method: str, path: str, params: Mapping[str, object]) -> int:
    """What a request weighs (Binance Spot API, rest-api.md); `path` is behind /api/v3."""
    if method != "get":
        return SEND
    return OF_ONE_ORDER if path == "myTrades" and "orderId" in params else READS[path]


class WeightBudget:
    """What was used of this minute. Times are the exchange's, in ms; `share` is the part of the limit, up to 1."""

    def __init__(self) -> None:
        self.limit = USUAL_LIMIT
        self.share = Decimal(1)
        self.suspended = False
        """Nothing waits: a position may be without protection until the bot is connected."""
        self._minute = -1
        self._own = 0
        self._observed = 0
        self._in_flight = 0

    def wait_ms(self, kind: EndpointClass, weight: int, now_ms: int) -> int:
        """How long a call of that weight must wait; 0 where it may be sent."""
        self._turn(now_ms)
        part = PART.get(kind)
        if part is None or self.suspended:
            return 0
        mine = max(self.limit * self.share, Decimal(LEAST_SHARE))
        if self._own + weight <= mine * part and self._address + weight <= self.limit * part:
            return 0
        return MINUTE_MS - now_ms % MINUTE_MS

    def sent(self, weight: int, now_ms: int) -> None:
        """A call of that weight is under way."""
        self._turn(now_ms)
        self._own += weight
        self._in_flight += weight

    def answered(self, weight: int) -> None:
        """A call of that weight ended, be it without an answer."""
        self._in_flight -= weight

    def observe(self, used: int, now_ms: int) -> None:
        """The exchange says how much the address has used in this minute: it counts those before us, and others."""
        self._turn(now_ms)
        self._observed = used

    def used(self, now_ms: int) -> int:
        """What the address has used of the minute, as far as is known."""
        self._turn(now_ms)
        return self._address

    @property
    def _address(self) -> int:
        return max(self._observed + self._in_flight, self._own)

    def _turn(self, now_ms: int) -> None:
        if now_ms // MINUTE_MS != self._minute:
            self._minute = now_ms // MINUTE_MS
            self._own = self._observed = 0
