"""What an account goes through: profit and drawdown, and how long what it bought was without a stop."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core.units import SCALE, product, to_units
from paper_exchange.overview import equity_of, value_of
from paper_exchange.venue import Venue

_DUST: Final = 10 * SCALE
"""What is worth no more, in quote, could not be sold."""


class AccountWatch:
    """Looks at one account again and again; money in units of the asset accounts are valued in."""

    def __init__(self, venue: Venue, uid: int, now: float) -> None:
        """`now`, here and later, is in seconds of a clock that only goes forward."""
        self.uid = uid
        self._venue = venue
        self._first_equity = self.equity = equity_of(venue, uid)
        self._transferred = 0
        """What was paid in since then, less what was paid out, each at the price of its moment."""
        self._peak = 0
        self.max_drawdown = 0
        """The deepest fall of the profit below its highest."""
        self.unprotected_seconds = 0.0
        """How long a position was without a stop, all together."""
        self.longest_unprotected = 0.0
        balances = venue.exchange.accounts[uid].balances
        self._not_bought = Counter({asset: held.free + held.locked for asset, held in balances.items()})
        self._looked = now
        self._since: float | None = None
        venue.subscribe(uid, self._on_event)

    @property
    def profit(self) -> int:
        """What the account gained, without what was paid in or out."""
        return self.equity - self._first_equity - self._transferred

    def look(self, now: float) -> None:
        """Take the account as it is now; since the look before it counts as it is found at this one."""
        self.equity = equity_of(self._venue, self.uid)
        self._peak = max(self._peak, self.profit)
        self.max_drawdown = max(self.max_drawdown, self._peak - self.profit)
        if self._naked():
            self._since = self._looked if self._since is None else self._since
            self.unprotected_seconds += now - self._looked
            self.longest_unprotected = max(self.longest_unprotected, now - self._since)
        else:
            self._since = None
        self._looked = now

    def _on_event(self, event: dict[str, Any]) -> None:
        if event["e"] == "balanceUpdate":
            asset, amount = event["a"], to_units(Decimal(event["d"]))
            self._not_bought[asset] += amount
            self._transferred += value_of(self._venue, asset, amount) or 0

    def _naked(self) -> bool:
        """Whether more was bought of anything than stop losses would sell, and than could not be sold anyhow."""
        exchange = self._venue.exchange
        stopped: Counter[str] = Counter()
        for order in exchange.open_orders(self.uid):
            if order.protects:
                stopped[exchange.market(order.symbol).rules.base] += order.remaining
        prices = {market.rules.base: market.last for market in exchange.markets.values() if market.last is not None}
        for asset, held in exchange.accounts[self.uid].balances.items():
            there = held.free + held.locked
            bought = min(there, there - self._not_bought[asset])
            if asset in prices and product(prices[asset], bought - stopped[asset]) > _DUST:
                return True
        return False
