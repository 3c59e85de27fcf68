"""How often somebody may ask: requests and weight per address with its bans, new orders per account, /sapi apart.

All intervals are fixed windows of the clock: the minute's weight is forgotten when the next minute begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.model import Account

ORDERS_10S: Final = 100
ORDERS_DAY: Final = 200_000
RAW_REQUESTS: Final = 300_000
SAPI_WEIGHT: Final = 12_000
"""Of one address, for each endpoint of /sapi by itself; all that are here are limited by address."""
TAKER_CREDIT: Final = 1
MAKER_CREDIT: Final = 5
"""What the first fill of an order takes off the account's count, as in the examples of Binance's documentation."""
REFUSALS_BEFORE_BAN: Final = 10
"""Requests that are answered 429 in one minute before the address is banned; Binance does not tell its number."""
_SECOND, _MINUTE, _DAY = 1000, 60_000, 86_400_000
_SHORTEST_BAN: Final = 2 * _MINUTE
_LONGEST_BAN: Final = 3 * _DAY


@dataclass(slots=True)
class _Window:
    """One interval of the clock and what each has used of it."""

    kind: str
    interval: str
    number: int
    length: int
    limit: int
    index: int = -1
    counts: dict[Any, int] = field(default_factory=dict)

    def used(self, who: Any, now_ms: int) -> int:
        index = now_ms // self.length
        if index != self.index:
            self.index, self.counts = index, {}
        return self.counts.get(who, 0)

    def add(self, who: Any, amount: int, now_ms: int) -> int:
        """What is used after `amount` more, or less: never below zero."""
        used = max(0, self.used(who, now_ms) + amount)
        self.counts[who] = used
        return used

    def left(self, now_ms: int) -> int:
        """Milliseconds until the next interval."""
        return self.length - now_ms % self.length

    def row(self) -> dict[str, Any]:
        return {
            "rateLimitType": self.kind,
            "interval": self.interval,
            "intervalNum": self.number,
            "limit": self.limit,
        }

    def row_of(self, who: Any, now_ms: int) -> dict[str, Any]:
        return self.row() | {"count": self.used(who, now_ms)}


class _OrderWindow(_Window):
    """One interval of which the accounts themselves keep what they have used: it is stored with them."""

    def used(self, who: Account, now_ms: int) -> int:
        index, used = who.new_orders.get(self.interval, (-1, 0))
        return used if index == now_ms // self.length else 0

    def add(self, who: Account, amount: int, now_ms: int) -> int:
        used = max(0, self.used(who, now_ms) + amount)
        who.new_orders[self.interval] = (now_ms // self.length, used)
        return used


@dataclass(slots=True)
class _Ban:
    """The last ban of an address: it is over at `until`, and lasted `length`."""

    until: int
    length: int


class Limits:
    """What has been used of each limit, and who is banned."""

    def __init__(
        self,
        weight_per_minute: int,
        maker_credit: int = MAKER_CREDIT,
        raw_requests: int = RAW_REQUESTS,
        orders_10s: int = ORDERS_10S,
    ) -> None:
        self._maker_credit = maker_credit
        self._weight = _Window("REQUEST_WEIGHT", "MINUTE", 1, _MINUTE, weight_per_minute)
        self._raw = _Window("RAW_REQUESTS", "MINUTE", 5, 5 * _MINUTE, raw_requests)
        self._orders_10s = _OrderWindow("ORDERS", "SECOND", 10, 10 * _SECOND, orders_10s)
        self._orders_day = _OrderWindow("ORDERS", "DAY", 1, _DAY, ORDERS_DAY)
        self._sapi = _Window("REQUEST_WEIGHT", "MINUTE", 1, _MINUTE, SAPI_WEIGHT)
        self._refusals = _Window("", "MINUTE", 1, _MINUTE, REFUSALS_BEFORE_BAN)
        self._bans: dict[str, _Ban] = {}

    def forget(self) -> None:
        """As after a restart: nobody is banned and no weight is used. What accounts keep of orders stays."""
        for window in (self._weight, self._raw, self._sapi, self._refusals):
            window.counts.clear()
        self._bans.clear()

    # -- addresses ---------------------------------------------------------------------------------------------

    def admit(self, address: str, weight: int, now_ms: int) -> None:
        """Count a request; 429 when the address may not spend its weight now, 418 while the address is banned.

        An address that goes on after 429 is banned: two minutes, then twice as long as the last time, at most three
        days. Three days without a ban make it new again.
        """
        ban = self._bans.get(address)
        if ban is not None and now_ms < ban.until:
            raise _banned(ban.until)
        requests = self._raw.add(address, 1, now_ms)
        over = self._weight if self._weight.used(address, now_ms) + weight > self._weight.limit else None
        if requests > self._raw.limit:
            over = self._raw
        if over is None:
            return
        if self._refusals.add(address, 1, now_ms) > self._refusals.limit:
            known = ban is not None and now_ms - ban.until < _LONGEST_BAN
            length = min(2 * ban.length, _LONGEST_BAN) if ban is not None and known else _SHORTEST_BAN
            self._bans[address] = _Ban(now_ms + length, length)
            raise _banned(now_ms + length)
        raise _too_much(over, now_ms)

    def charge(self, address: str, weight: int, now_ms: int) -> int:
        """Count weight against an address; returns what the minute has used."""
        return self._weight.add(address, weight, now_ms)

    def used_weight(self, address: str, now_ms: int) -> int:
        """What an address has used of the minute's weight."""
        return self._weight.used(address, now_ms)

    def weight(self, address: str, now_ms: int) -> dict[str, Any]:
        """The weight limit and its use, as the WebSocket API adds it to answers."""
        return self._weight.row_of(address, now_ms)

    # -- endpoints of /sapi, `who` is an address and one of them ------------------------------------------------

    def admit_sapi(self, who: tuple[str, ...], weight: int, now_ms: int) -> None:
        """429 when an address may not spend its weight on an endpoint now; nobody is banned, and bans do not count."""
        if self._sapi.used(who, now_ms) + weight > self._sapi.limit:
            raise _too_much(self._sapi, now_ms)

    def charge_sapi(self, who: tuple[str, ...], weight: int, now_ms: int) -> None:
        """Count weight against an address and endpoint."""
        self._sapi.add(who, weight, now_ms)

    def sapi_weight(self, who: tuple[str, ...], now_ms: int) -> int:
        """What an address has used of an endpoint's weight in this minute."""
        return self._sapi.used(who, now_ms)

    # -- accounts ----------------------------------------------------------------------------------------------

    def refuse_orders(self, account: Account, orders: int, now_ms: int) -> None:
        """429 when an account may not place this many new orders now."""
        for window in (self._orders_10s, self._orders_day):
            if window.used(account, now_ms) + orders > window.limit:
                raise ExchangeError(
                    -1015,
                    f"Too many new orders; current limit is {window.limit} orders per {_interval(window)}.",
                    status=429,
                    retry_at=now_ms + window.left(now_ms),
                )

    def count_orders(self, account: Account, orders: int, now_ms: int) -> tuple[int, int]:
        """Count new orders of an account: unfilled in these ten seconds and on this day (UTC)."""
        return self._orders_10s.add(account, orders, now_ms), self._orders_day.add(account, orders, now_ms)

    def credit_fill(self, account: Account, maker: bool, now_ms: int) -> None:
        """The first fill of an order: it counts no longer, however long ago it was placed."""
        self.count_orders(account, -self._maker_credit if maker else -TAKER_CREDIT, now_ms)

    def orders(self, account: Account, now_ms: int) -> list[dict[str, Any]]:
        """The order limits and their use, as `GET /api/v3/rateLimit/order` tells them."""
        return [window.row_of(account, now_ms) for window in (self._orders_10s, self._orders_day)]

    def info(self) -> list[dict[str, Any]]:
        """The limits, as exchangeInfo tells them."""
        return [window.row() for window in (self._weight, self._orders_10s, self._orders_day, self._raw)]


def _interval(window: _Window) -> str:
    return f"{window.number} {window.interval}"


def _too_much(window: _Window, now_ms: int) -> ExchangeError:
    what = "request weight" if window.kind == "REQUEST_WEIGHT" else "raw requests"
    return ExchangeError(
        -1003,
        f"Too much {what} used; current limit is {window.limit} {what} per {_interval(window)}. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
        status=429,
        retry_at=now_ms + window.left(now_ms),
    )


def _banned(until: int) -> ExchangeError:
    return ExchangeError(
        -1003,
        f"Way too much request weight used; IP banned until {until}. "
        "Please use WebSocket Streams for live updates to avoid bans.",
        status=418,
        retry_at=until,
    )
