"""What each bot is told that its entries may send of its account's new orders, so that all that is told fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tradingbot_api import names
from tradingbot_api.bot_http import (
    ENTRY_ORDERS,
    ENTRY_ORDERS_PART,
    GRANT_RENEWAL_SECONDS,
    GRANT_TTL_SECONDS,
    ORDER_SETTLE_SECONDS,
    OrderCount,
    OrderUse,
)
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.sharding import Account

KEPT_PART: Final = 0.75
"""Of the budget, up to which each bot has an entry's orders without asking; the rest is for who asks for more."""
ASKED_SECONDS: Final = 5
"""So long a part lasts where bots have none without asking: others ask too."""
TURN_SECONDS: Final = 5.0
"""So long what becomes free is kept for who asked in vain, before who had a part later."""
PRUNE_SECONDS: Final = 5.0
ASKER_SECONDS: Final = 30.0
"""So long who asked counts among those that share the budget."""


class OrderShare(NamedTuple):
    """What one grant tells, for how long."""

    orders: int
    seconds: int


def order_part(budget: int, bots: int, askers: int, wanted: int) -> OrderShare:
    """The part of a bot whose entries want so many orders, if nobody else had any; pure.

    Where the budget has an entry for each bot, all have one at any time. Else, and for more, by need: up to an equal
    part among those that lately asked, and no less than an entry.
    """
    all_fit = bots * ENTRY_ORDERS <= budget * KEPT_PART
    most = max(ENTRY_ORDERS, budget // max(1, askers))
    orders = max(ENTRY_ORDERS if all_fit else 0, min(wanted, most))
    return OrderShare(orders, GRANT_TTL_SECONDS if all_fit and orders <= ENTRY_ORDERS else ASKED_SECONDS)


@dataclass
class AccountShares:
    """One account. Times are of the loop's clock."""

    since: float
    """When a bot of it was first heard."""
    told: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """By bot's UID, what it was told that it may still go by, and until when orders of it may count."""
    heard: dict[str, float] = field(default_factory=dict)
    """When each bot was last heard of."""
    asked: dict[str, float] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)
    """When each was last told of a part."""
    counts: dict[str, OrderCount] = field(default_factory=dict)
    """By interval, what the exchange told last."""

    pruned: float = float("-inf")

    def prune(self, now: float) -> None:
        """Drops what is over, and bots that are gone."""
        self.pruned = now
        self.heard = {uid: at for uid, at in self.heard.items() if now - at < GRANT_TTL_SECONDS}
        self.given = {uid: at for uid, at in self.given.items() if uid in self.heard}
        self.asked = {uid: at for uid, at in self.asked.items() if now - at < ASKER_SECONDS}
        self.told = {
            uid: left
            for uid, told in self.told.items()
            if (left := [(orders, until) for orders, until in told if until > now])
        }

    def in_force(self, now: float, *, but: str = "") -> int:
        """What all bots, `but` one, may go by at most."""
        return sum(
            max((orders for orders, until in told if until > now), default=0)
            for uid, told in self.told.items()
            if uid != but
        )

    def kept(self, uid: str, now: float) -> int:
        """What is kept from a bot that asks for others that asked lately and have waited for longer."""
        had = self.given.get(uid, float("-inf"))
        return ENTRY_ORDERS * sum(
            now - at < TURN_SECONDS and other not in self.told and self.given.get(other, float("-inf")) < had
            for other, at in self.asked.items()
        )

    def used(self, count: OrderCount, now: datetime) -> int:
        """What the account used of the interval of now, as far as is known."""
        if count.told_time is None:
            return 0
        length = timedelta(seconds=count.seconds)
        since = datetime.min.replace(tzinfo=now.tzinfo)
        return count.used if (count.told_time - since) // length == (now - since) // length else 0


class OrderShares:
    """The parts of all accounts. `others` tells how many bots of an account other operators serve: each operator allots
    the part that its own are of all, an entry's orders at least. `expected`: how many it serves, as statuses tell."""

    def __init__(
        self,
        time: Callable[[], float],
        now: Callable[[], datetime],
        others: Callable[[Account], int] = lambda _: 0,
        expected: Callable[[Account], int] = lambda _: 0,
    ) -> None:
        self._expected = expected
        self._others = others
        self._time = time
        self._now = now
        self._accounts: dict[Account, AccountShares] = {}

    def hear(self, account: Account, uid: str, use: OrderUse) -> None:
        """What a bot tells of its account; one that another leader told of a part may go by that for a while."""
        now = self._time()
        shared = self._accounts.setdefault(account, AccountShares(now))
        if uid not in shared.heard and use.allotted:
            shared.told[uid] = [(use.allotted, now + GRANT_TTL_SECONDS + ORDER_SETTLE_SECONDS)]
        shared.heard[uid] = now
        if use.asks:
            shared.asked[uid] = now
        for count in use.counts:
            known = shared.counts.get(count.interval)
            if (
                known is None
                or known.told_time is None
                or (count.told_time is not None and count.told_time >= known.told_time)
            ):
                shared.counts[count.interval] = count

    def grant(self, account: Account, uid: str, use: OrderUse) -> OrderShare:
        """What a bot's entries may send with a grant that it gets now."""
        self.hear(account, uid, use)
        shared, now = self._accounts[account], self._time()
        if now - shared.pruned >= PRUNE_SECONDS:
            shared.prune(now)
        shortest = min(use.counts, key=lambda count: count.seconds)
        budget, others = int(shortest.limit * ENTRY_ORDERS_PART), self._others(account)
        if others:
            budget = max(min(ENTRY_ORDERS, budget), budget * len(shared.heard) // (len(shared.heard) + others))
        # The first that a new leader hears would have an entry unasked, and those that ask none.
        expected = self._expected(account) if now - shared.since < GRANT_RENEWAL_SECONDS else 0
        wanted, seconds = order_part(budget, max(expected, len(shared.heard)), len(shared.asked), use.wanted)
        orders = min(wanted, budget - shared.in_force(now, but=uid) - (shared.kept(uid, now) if use.asks else 0))
        if orders < ENTRY_ORDERS or any(
            shared.used(count, self._now()) >= count.limit * ENTRY_ORDERS_PART
            for count in shared.counts.values()
            if count.seconds > shortest.seconds
        ):
            orders = 0
        if orders:
            shared.given[uid] = now
        if orders or uid in shared.told:
            # Should it not arrive, the bot goes by what it was told before.
            shared.told.setdefault(uid, []).append((orders, now + seconds + ORDER_SETTLE_SECONDS))
        return OrderShare(orders, seconds)

    def arrived(self, account: Account, uid: str) -> None:
        """The bot answered to the grant: it sends by nothing else any more, though what it sent still counts."""
        told = self._accounts[account].told.get(uid, [])
        settled = self._time() + ORDER_SETTLE_SECONDS
        told[:-1] = [(orders, min(until, settled)) for orders, until in told[:-1]]

    def measure(self, metrics: Metrics) -> None:
        """Sets the gauges of all accounts."""
        now, wall = self._time(), self._now()
        for account, shared in self._accounts.items():
            labels = account[0], names.account_key(*account)
            for count in shared.counts.values():
                metrics.account_orders.labels(*labels, count.interval, "limit").set(count.limit)
                metrics.account_orders.labels(*labels, count.interval, "used").set(shared.used(count, wall))
            if shared.counts:
                shortest = min(shared.counts.values(), key=lambda count: count.seconds)
                metrics.account_orders.labels(*labels, shortest.interval, "allotted").set(shared.in_force(now))
