"""What the user stream told of the account besides this bot's own orders, since it tells everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

from tradingbot.model import BalanceChange, OrderReport
from tradingbot.recovery.fence import parse


@dataclass(slots=True)
class Heard:
    """Sums and counts; begun anew with each connection that may have missed something."""

    since_ms: int | None = None
    """Exchange time; None before the first connection."""
    moved: dict[str, Decimal] = field(default_factory=dict)
    """Deposits and transfers less withdrawals, by asset."""
    by_hand: int = 0
    """Executions of orders that no bot made."""
    by_bots: dict[str, int] = field(default_factory=dict)
    """Executions of orders of other bots, by the key in their client ids."""

    def begin(self, now_ms: int) -> None:
        """From now on everything is told."""
        self.since_ms, self.moved, self.by_hand, self.by_bots = now_ms, {}, 0, {}

    def take_change(self, change: BalanceChange) -> None:
        """Something came or went besides trades; what is only locked is there still."""
        if not change.outside_lock:
            self.moved[change.asset] = self.moved.get(change.asset, Decimal(0)) + change.amount

    def take_trade(self, report: OrderReport, own_key: str) -> None:
        """An order was executed; `own_key` is in the client ids of this bot."""
        client_id = parse(report.client_order_id)
        if client_id is None:
            self.by_hand += 1
        elif client_id.key != own_key:
            self.by_bots[client_id.key] = self.by_bots.get(client_id.key, 0) + 1
