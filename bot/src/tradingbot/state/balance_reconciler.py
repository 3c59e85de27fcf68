"""The balance reconciler: compares the books with what the exchange says of own orders, own trades and the account."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tradingbot.gateway.port import Exchange
from tradingbot.model import AccountSnapshot, Balance, SymbolRules
from tradingbot.orders.types import TrackedOrder
from tradingbot.state.ledger import LedgerState
from tradingbot_api.base import canonical


class VerdictKind(StrEnum):
    """How far the books agree with the exchange."""

    EXACT = "Exact"
    """Own trades sum to own orders, and the account's base equals what it was at the start plus the position."""
    COVERED = "Covered"
    """Own trades sum to own orders, and the account holds at least the position."""
    DRIFT = "Drift"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one comparison. `drift` = account base (free + locked) - position, in base."""

    kind: VerdictKind
    base: Balance
    quote: Balance
    position: Decimal
    drift: Decimal
    time_ms: int
    message: str = ""

    @property
    def synced(self) -> bool:
        """Whether BalanceSynced is True."""
        return self.kind is not VerdictKind.DRIFT


@dataclass(frozen=True, slots=True)
class OrderMismatch:
    """An own order whose trades do not sum to its executed quantity."""

    client_order_id: str
    executed: Decimal
    booked: Decimal


class BalanceReconciler:
    """Compares the account with the books of one symbol."""

    def __init__(self, exchange: Exchange, rules: SymbolRules) -> None:
        self._exchange = exchange
        self._rules = rules

    async def get_real_balances(self) -> tuple[AccountSnapshot, Balance, Balance]:
        """The account with its base and quote balances."""
        account = await self._exchange.account(urgent=True)
        return account, account.balance(self._rules.base_asset), account.balance(self._rules.quote_asset)

    def compare_with_saved_state(
        self,
        account: AccountSnapshot,
        books: LedgerState,
        mismatches: list[OrderMismatch],
        foreign_base: Decimal | None,
    ) -> Verdict:
        """Judge the books. `foreign_base` is the base asset that was not the bot's at the first start, if recorded."""
        base = account.balance(self._rules.base_asset)
        quote = account.balance(self._rules.quote_asset)
        position = books.quantity
        drift = base.total - position
        asset, held = books.base_asset, canonical(base.total)
        kind, message = VerdictKind.DRIFT, ""
        if mismatches:
            first = mismatches[0]
            executed, booked = canonical(first.executed), canonical(first.booked)
            message = f"order {first.client_order_id}: {executed} executed, its trades sum to {booked}"
        elif books.oversold > 0:
            message = f"{canonical(books.oversold)} {asset} sold that this bot never bought"
        elif drift < 0:
            message = f"the account holds {held} {asset}, the position is {canonical(position)}"
        elif books.unvalued_fees:
            kind = VerdictKind.COVERED
            message = f"{books.unvalued_fees} fees have no value in {books.quote_asset} yet: the profit lacks them"
        elif foreign_base is not None and drift == foreign_base - books.foreign_fees:
            kind = VerdictKind.EXACT
        else:
            kind = VerdictKind.COVERED
            message = f"of the {held} {asset} in the account, {canonical(drift)} are not this bot's"
        return Verdict(kind, base, quote, position, drift, account.time_ms, message)

    async def reconcile_position(
        self, booked: Iterable[tuple[TrackedOrder, Decimal]], books: LedgerState, foreign_base: Decimal | None
    ) -> Verdict:
        """Read the account and judge; `booked` gives each own order with the sum of its fills in the books."""
        account, _, _ = await self.get_real_balances()
        return self.compare_with_saved_state(account, books, find_mismatches(booked), foreign_base)


def find_mismatches(booked: Iterable[tuple[TrackedOrder, Decimal]]) -> list[OrderMismatch]:
    """Own orders whose fills in the books do not sum to what the exchange says was executed."""
    return [
        OrderMismatch(order.client_order_id, order.executed_quantity, total)
        for order, total in booked
        if order.executed_quantity != total
    ]
