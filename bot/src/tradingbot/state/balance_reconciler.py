"""The balance reconciler: compares the books with what the exchange says of own orders, own trades and the account."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from tradingbot.gateway import filters
from tradingbot.gateway.port import Exchange
from tradingbot.model import AccountSnapshot, Balance, SymbolRules
from tradingbot.orders.types import TrackedOrder
from tradingbot.state.foreign_base import ForeignBase
from tradingbot.state.ledger import LedgerState
from tradingbot_api.base import canonical


class VerdictKind(StrEnum):
    """How far the books agree with the exchange."""

    EXACT = "Exact"
    """Own trades sum to own orders, and the account's base is the position and what is known of others' base."""
    COVERED = "Covered"
    """Own trades sum to own orders, and the account holds the position, all but what could not be sold alone."""
    DRIFT = "Drift"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one comparison. `drift` = account base (free + locked) - position, in base.

    `unexplained` is what of it nothing is known of; None where the start of the books is not known.
    """

    kind: VerdictKind
    base: Balance
    quote: Balance
    position: Decimal
    drift: Decimal
    time_ms: int
    message: str = ""
    unexplained: Decimal | None = None
    uncovered: bool = False
    """The account lacks so much of the position that it could be sold alone."""

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
        foreign: ForeignBase,
        priceless: Collection[str] = (),
    ) -> Verdict:
        """Judge the books; `priceless` are assets of fees that have no market against the quote."""
        base = account.balance(self._rules.base_asset)
        quote = account.balance(self._rules.quote_asset)
        position = books.quantity
        drift, expected = base.total - position, foreign.expected(books)
        unexplained = None if expected is None else drift - expected
        uncovered = -drift >= filters.dust_limit(self._rules)
        asset, held = books.base_asset, canonical(base.total)
        known = foreign.changes(books)
        if foreign.locked_outside:
            known.append(f"{canonical(foreign.locked_outside)} locked outside of spot trading")
        if unexplained:
            known.append(f"{canonical(unexplained)} unexplained")
        why = f": {', '.join(known)}" if known else ""
        kind, message = VerdictKind.DRIFT, ""
        if mismatches:
            first = mismatches[0]
            executed, booked = canonical(first.executed), canonical(first.booked)
            message = f"order {first.client_order_id}: {executed} executed, its trades sum to {booked}"
        elif books.oversold > 0:
            message = f"{canonical(books.oversold)} {asset} sold that this bot never bought"
        elif uncovered:
            message = f"the account holds {held} {asset}, the position is {canonical(position)}{why}"
        elif drift < 0:
            kind = VerdictKind.COVERED
            message = f"{canonical(-drift)} {asset} of the position are not there, too little to be sold{why}"
        elif books.unvalued_fees:
            kind = VerdictKind.COVERED
            message = f"{books.unvalued_fees} fees have no value in {books.quote_asset} yet: the profit lacks them"
            if priceless:
                message += f"; no market tells the price of {', '.join(sorted(priceless))} in {books.quote_asset}"
        else:
            kind = VerdictKind.EXACT if unexplained == 0 else VerdictKind.COVERED
            if kind is VerdictKind.COVERED or known:
                message = f"of the {held} {asset} in the account, {canonical(drift)} are not this bot's{why}"
        return Verdict(kind, base, quote, position, drift, account.time_ms, message, unexplained, uncovered)

    async def reconcile_position(
        self,
        booked: Iterable[tuple[TrackedOrder, Decimal]],
        books: LedgerState,
        foreign: ForeignBase,
        priceless: Collection[str] = (),
    ) -> Verdict:
        """Read the account and judge; `booked` gives each own order with the sum of its fills in the books."""
        account, _, _ = await self.get_real_balances()
        return self.compare_with_saved_state(account, books, find_mismatches(booked), foreign, priceless)


def find_mismatches(booked: Iterable[tuple[TrackedOrder, Decimal]]) -> list[OrderMismatch]:
    """Own orders whose fills in the books do not sum to what the exchange says was executed."""
    return [
        OrderMismatch(order.client_order_id, order.executed_quantity, total)
        for order, total in booked
        if order.executed_quantity != total
    ]
