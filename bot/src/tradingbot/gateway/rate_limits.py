"""The budget of request weight: how much of the address's minute this bot may use, and for what; pure.

The exchange counts weight per address in minutes of its own clock, and tells the use of all in each answer. Reads of
the market are given up first, then those of the account and entries; cancels, protection and exits never wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final

from tradingbot.gateway.errors import NotSentError
from tradingbot.gateway.port import EndpointClass
from tradingbot_api.bot_http import FULL_PACE_WEIGHT, SHARED_PART, START_PART, START_WEIGHT

KEY_PERMISSIONS: Final = "account/apiRestrictions"
"""The one call of /sapi."""
MINUTE_MS: Final = 60_000
USUAL_LIMIT: Final = 6_000
"""Binance's limit, until exchangeInfo told it."""
PART: Final = {
    EndpointClass.MARKET: START_PART,
    EndpointClass.ACCOUNT: SHARED_PART,
    EndpointClass.ORDER: SHARED_PART,
}
"""Up to which part of the budget each class may be used; the rest is kept for what reduces risk."""
SLOWEST: Final = 6.0
"""How many times rarer looks become where the budget is small."""
SLOWING: Final = 1.4
"""Not all looks become rarer: the others more."""
START_SECONDS: Final = 20.0
"""So long a start may use more than what is allotted to it."""

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
    """Not sent: the weight of this minute is used up, but for what reduces risk. It may be sent after `seconds`."""

    code = "WeightUsedUp"

    def __init__(self, what: str, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"{what} waits for the next minute's request weight, in {seconds:.0f} s")


def weight_of(method: str, path: str, params: Mapping[str, object]) -> int:
    """What a request weighs (Binance Spot API, rest-api.md); `path` is behind /api/v3."""
    if method != "get":
        return SEND
    return OF_ONE_ORDER if path == "myTrades" and "orderId" in params else READS[path]


class WeightBudget:
    """What was used of this minute. Times are the exchange's, in ms, but for the end of an allotment (`monotonic`).

    `share` is the part of the limit, up to 1, that the user gives this bot; within it counts what the operator allots.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.limit = USUAL_LIMIT
        self.share = Decimal(1)
        self.suspended = False
        """Nothing waits: a position may be without protection until the bot is connected."""
        self._starting_until = float("-inf")
        """A start needs more at once than an allotment; the operator, or the bot itself, made it wait for its turn."""
        self.at_risk: Callable[[], bool] = lambda: True
        """Whether anything is held or may rest on the exchange: otherwise no read reduces a risk."""
        self.address_bots = 1
        """How many bots share the address, as was told last: who is told nothing any more keeps to an equal part."""
        self._allotted = 0
        self._allotted_until = float("-inf")
        self._minute = -1
        self._own = self._refused = 0
        self._observed = 0
        self._in_flight = 0
        self._last = (0, 0)

    def allot(self, weight: int, address_bots: int, seconds: float) -> None:
        """The operator's word, for so long."""
        self._allotted, self.address_bots = weight, address_bots
        self._allotted_until = self._monotonic() + seconds

    @property
    def mine(self) -> Decimal:
        """What of a minute is for all that does not reduce risk."""
        own = self.limit * self.share * SHARED_PART
        if self._monotonic() < self._allotted_until:
            return min(own, Decimal(self._allotted))
        return min(own, self.limit * SHARED_PART / self.address_bots)

    @property
    def slower(self) -> float:
        """How many times rarer than usual to look at what nothing depends on; 1 while anything is at risk."""
        if self.at_risk():
            return 1.0
        mine = max(1.0, float(self.mine))
        return 1.0 if mine >= FULL_PACE_WEIGHT else min(SLOWEST, SLOWING * FULL_PACE_WEIGHT / mine)

    @property
    def start_spread(self) -> float:
        """Seconds over which the bots of the address start where nobody paces them, as when a node comes back."""
        return (self.address_bots - 1) * START_WEIGHT / float(self.limit * (SHARED_PART - START_PART))

    def start(self) -> None:
        """A session begins."""
        self._starting_until = self._monotonic() + START_SECONDS

    def start_wait_ms(self, now_ms: int) -> int:
        """How long a start must wait by what the address has used; 0 where there is room for it."""
        self._turn(now_ms)
        room = self._address + START_WEIGHT <= self.limit * START_PART
        return 0 if room or self.suspended else MINUTE_MS - now_ms % MINUTE_MS

    def wait_ms(self, kind: EndpointClass, weight: int, now_ms: int, *, read: bool = False) -> int:
        """How long a call of that weight must wait; 0 where it may be sent. A `read` reduces no risk by itself."""
        self._turn(now_ms)
        if kind is EndpointClass.REDUCE and read and not self.at_risk():
            kind = EndpointClass.ACCOUNT
        part = PART.get(kind)
        if part is None or self.suspended:
            return 0
        within = self._own + weight <= self.mine * part / SHARED_PART or self._monotonic() < self._starting_until
        if within and self._address + weight <= self.limit * part:
            return 0
        self._refused += weight
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

    def last_minute(self, now_ms: int) -> tuple[int, int]:
        """What this bot used in the last whole minute, and what it wanted."""
        self._turn(now_ms)
        return self._last

    @property
    def _address(self) -> int:
        return max(self._observed + self._in_flight, self._own)

    def _turn(self, now_ms: int) -> None:
        minute = now_ms // MINUTE_MS
        if minute != self._minute:
            self._last = (self._own, self._own + self._refused) if minute == self._minute + 1 else (0, 0)
            self._minute = minute
            self._own = self._refused = self._observed = 0
