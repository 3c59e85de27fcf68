"""Foreign base: what of the account's base asset is not this bot's, and what is known of where it came from; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from tradingbot.model import BalanceChange, Side, TradeFill
from tradingbot.state.ledger import LedgerState
from tradingbot_api.base import canonical


@dataclass(frozen=True, slots=True)
class ForeignBase:
    """Amounts in base. It is a fact of the store: a field that is added needs a default."""

    base: Decimal | None
    """At the bot's first start, or when a human adopted the account; None where its orders were there before its store.
    """
    quiet_ms: int = 0
    """Exchange time until which it may still execute what a former process sent."""
    moved: Decimal = Decimal(0)
    """Deposits less withdrawals since, as far as the user stream told them."""
    traded: Decimal = Decimal(0)
    """What orders of others bought less what they sold on the symbol since, after their fees in base."""
    locked_outside: Decimal = Decimal(0)
    """Held by something that is no order of the account."""
    next_trade: int | None = None
    """The first trade id of the symbol that was not looked at; None before the first look."""

    def expected(self, books: LedgerState) -> Decimal | None:
        """What the account should have beyond the position; None where that is not known."""
        return None if self.base is None else self.base + self.moved + self.traded - books.foreign_fees

    def changes(self, books: LedgerState) -> list[str]:
        """What changed it since the start, a few words each."""
        words = (
            (self.moved, "deposited", "withdrawn"),
            (self.traded, "bought by orders of others", "sold by orders of others"),
            (-books.foreign_fees, "", "paid as fees of this bot"),
        )
        return [f"{canonical(abs(amount))} {more if amount > 0 else less}" for amount, more, less in words if amount]

    def after_change(self, change: BalanceChange) -> ForeignBase:
        """With what came or went besides trades."""
        if change.outside_lock:
            return replace(self, locked_outside=self.locked_outside + change.amount)
        return replace(self, moved=self.moved + change.amount)

    def after_trades(self, foreign: Iterable[TradeFill], next_trade: int, base_asset: str) -> ForeignBase:
        """With the trades of others before `next_trade`."""
        bought = sum((_gained(fill, base_asset) for fill in foreign), Decimal(0))
        return replace(self, traded=self.traded + bought, next_trade=next_trade)

    def adopted(self, books: LedgerState, account_base: Decimal, next_trade: int) -> ForeignBase:
        """As a human takes it to be: all that the account has beyond the position."""
        base = account_base - books.quantity + books.foreign_fees
        return replace(self, base=base, moved=Decimal(0), traded=Decimal(0), next_trade=next_trade)

    def looked_until(self, trade_id: int) -> ForeignBase:
        """With nothing to be found in trades up to that one."""
        return self if self.next_trade is None else replace(self, next_trade=max(self.next_trade, trade_id + 1))


def _gained(fill: TradeFill, base_asset: str) -> Decimal:
    fee = fill.commission if fill.commission_asset == base_asset else Decimal(0)
    return (fill.quantity if fill.side is Side.BUY else -fill.quantity) - fee
