"""Rate limits: request weight per address and new orders per account, in fixed windows of the clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from paper_exchange.core.errors import ExchangeError

ORDERS_10S: Final = 100
ORDERS_DAY: Final = 200_000
_MINUTE, _TEN_SECONDS, _DAY = 60_000, 10_000, 86_400_000


@dataclass(slots=True)
class _Window:
    length: int
    index: int = -1
    counts: dict[Any, int] = field(default_factory=dict)

    def add(self, who: Any, amount: int, now_ms: int) -> int:
        index = now_ms // self.length
        if index != self.index:
            self.index, self.counts = index, {}
        self.counts[who] = self.counts.get(who, 0) + amount
        return self.counts[who]

    def seconds_left(self, now_ms: int) -> int:
        return max(1, -(-(self.length - now_ms % self.length) // 1000))


class Limits:
    """What has been used of each limit."""

    def __init__(self, weight_per_minute: int) -> None:
        self.weight_per_minute = weight_per_minute
        self._weight = _Window(_MINUTE)
        self._orders_10s = _Window(_TEN_SECONDS)
        self._orders_day = _Window(_DAY)

    def charge(self, address: str, weight: int, now_ms: int) -> int:
        """Count weight against an address; returns what the minute has used."""
        return self._weight.add(address, weight, now_ms)

    def refuse_excess(self, address: str, weight: int, now_ms: int) -> None:
        """HTTP 429 when the address may not spend this weight in the running minute."""
        if self._weight.add(address, 0, now_ms) + weight > self.weight_per_minute:
            raise ExchangeError(
                -1003,
                f"Too much request weight used; current limit is {self.weight_per_minute} request weight per 1 MINUTE. "
                "Please use WebSocket Streams for live updates to avoid polling the API.",
                status=429,
                retry_after=self._weight.seconds_left(now_ms),
            )

    def count_orders(self, uid: int, orders: int, now_ms: int) -> tuple[int, int]:
        """Count new orders of an account: used in ten seconds and in the day; HTTP 429 over the limit."""
        if self._orders_10s.add(uid, 0, now_ms) + orders > ORDERS_10S:
            raise _too_many(ORDERS_10S, "10 SECOND", self._orders_10s.seconds_left(now_ms))
        if self._orders_day.add(uid, 0, now_ms) + orders > ORDERS_DAY:
            raise _too_many(ORDERS_DAY, "1 DAY", self._orders_day.seconds_left(now_ms))
        return self._orders_10s.add(uid, orders, now_ms), self._orders_day.add(uid, orders, now_ms)

    def orders(self, uid: int, now_ms: int) -> list[dict[str, Any]]:
        """The order limits and their use, as `GET /api/v3/rateLimit/order` tells them."""
        return [
            _row("ORDERS", "SECOND", 10, ORDERS_10S) | {"count": self._orders_10s.add(uid, 0, now_ms)},
            _row("ORDERS", "DAY", 1, ORDERS_DAY) | {"count": self._orders_day.add(uid, 0, now_ms)},
        ]

    def weight(self, address: str, now_ms: int) -> dict[str, Any]:
        """The weight limit and its use, as the WebSocket API adds it to answers."""
        row = _row("REQUEST_WEIGHT", "MINUTE", 1, self.weight_per_minute)
        return row | {"count": self._weight.add(address, 0, now_ms)}

    def info(self) -> list[dict[str, Any]]:
        """The limits, as exchangeInfo tells them."""
        return [
            _row("REQUEST_WEIGHT", "MINUTE", 1, self.weight_per_minute),
            _row("ORDERS", "SECOND", 10, ORDERS_10S),
            _row("ORDERS", "DAY", 1, ORDERS_DAY),
        ]


def _row(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _too_many(limit: int, interval: str, retry_after: int) -> ExchangeError:
    return ExchangeError(
        -1015,
        f"Too many new orders; current limit is {limit} orders per {interval}.",
        status=429,
        retry_after=retry_after,
    )
