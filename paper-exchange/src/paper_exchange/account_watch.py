"""What an account goes through: equity and drawdown, and how long what it bought was without a stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from paper_exchange.core.model import Side
from paper_exchange.core.units import SCALE, product
from paper_exchange.overview import equity_of
from paper_exchange.venue import Venue

_DUST: Final = 10 * SCALE
"""What is worth no more, in quote, could not be sold."""


@dataclass(slots=True)
class AccountWatch:
    """Looks at one account again and again; `look` is told the seconds of a clock that only goes forward."""

    venue: Venue
    uid: int
    first_equity: int = 0
    equity: int = 0
    peak: int = 0
    max_drawdown: int = 0
    """The deepest fall of the equity below its highest, in units of the quote asset."""
    unprotected_seconds: float = 0.0
    """How long a position was without a stop, all together."""
    longest_unprotected: float = 0.0
    _paid_in: dict[str, int] = field(default_factory=dict)
    _looked: float | None = None
    _since: float | None = None

    def look(self, now: float) -> None:
        """Take the account as it is now; between two looks it counts as it was found at the second one."""
        self.equity = equity_of(self.venue, self.uid)
        if self._looked is None:
            self.first_equity = self.peak = self.equity
            balances = self.venue.exchange.accounts[self.uid].balances
            self._paid_in = {asset: held.free + held.locked for asset, held in balances.items()}
        self.peak = max(self.peak, self.equity)
        self.max_drawdown = max(self.max_drawdown, self.peak - self.equity)
        if self._naked():
            since = self._looked if self._looked is not None else now
            self._since = since if self._since is None else self._since
            self.unprotected_seconds += now - since
            self.longest_unprotected = max(self.longest_unprotected, now - self._since)
        else:
            self._since = None
        self._looked = now

    def _naked(self) -> bool:
        """Whether more was bought of anything than stops would sell, and than could not be sold anyhow."""
        exchange = self.venue.exchange
        account = exchange.accounts[self.uid]
        for symbol, market in exchange.markets.items():
            held = account.balances.get(market.rules.base)
            if held is None or market.last is None:
                continue
            bought = held.free + held.locked - self._paid_in.get(market.rules.base, 0)
            orders = exchange.open_orders(self.uid, symbol)
            stopped = sum(one.remaining for one in orders if one.side is Side.SELL and one.stop_price)
            if product(market.last, bought - stopped) > _DUST:
                return True
        return False
