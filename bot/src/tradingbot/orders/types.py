"""What the order manager takes and gives: entry requests, outcomes, exposure, protection and the events it tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from tradingbot.model import NO_LIST, OrderStatus, OrderType, Side
from tradingbot_api.v1alpha1 import BotSettings


@dataclass(frozen=True, slots=True)
class Trace:
    """What an order goes back to: its signal, and its position by the client id of the entry; empty: not known."""

    signal_id: str = ""
    position: str = ""


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """Buy `quantity` (base) now; `reference_price` is the ask from which collar, stop and take-profit are measured."""

    quantity: Decimal
    reference_price: Decimal
    reason: str
    settings: BotSettings
    """What it was sized by; with other settings in force it is not sent."""
    priced_at: float
    """Monotonic seconds when the book was received; too long ago, it is not sent."""
    signal_id: str = ""
    """Joins the lines of the audit log."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """What it was decided by, for the audit log."""


class EntryOutcome(StrEnum):
    """What became of an entry."""

    FILLED = "Filled"
    EXPIRED = "Expired"
    """The book had too little inside the collar: nothing was bought."""
    REFUSED = "Refused"
    """Not sent, or refused by the exchange: nothing was bought."""
    UNKNOWN = "Unknown"
    """Nobody knows yet; entries are blocked until it is resolved."""


@dataclass(frozen=True, slots=True)
class EntryResult:
    """Outcome of an entry; `code` is stable (a refusal's code, or the outcome)."""

    outcome: EntryOutcome
    code: str
    message: str = ""


class ExitOutcome(StrEnum):
    """What became of an exit."""

    FLAT = "Flat"
    """Nothing that could be sold is left."""
    PARTIAL = "Partial"
    """Something is left (and protected again where it can be)."""
    FAILED = "Failed"
    """Nothing was sold; the protection is in place or being restored."""


@dataclass(frozen=True, slots=True)
class ExitResult:
    """Outcome of an exit."""

    outcome: ExitOutcome
    code: str
    message: str = ""


class ProtectionState(StrEnum):
    """Whether the open position has its orders on the exchange."""

    FLAT = "Flat"
    PROTECTED = "Protected"
    UNPROTECTED = "Unprotected"


@dataclass(frozen=True, slots=True)
class ProtectionStatus:
    """Protection of the open position; `since` is monotonic seconds when it was lost."""

    state: ProtectionState
    message: str = ""
    since: float | None = None


class OrdersEventKind(StrEnum):
    """What the order manager tells."""

    ENTRY_FILLED = "EntryFilled"
    ENTRY_EXPIRED = "EntryExpired"
    ENTRY_UNKNOWN = "EntryUnknown"
    TAKE_PROFIT = "TakeProfit"
    STOP_LOSS = "StopLoss"
    EXITED = "Exited"
    PROTECTION_LOST = "ProtectionLost"
    PROTECTION_RESTORED = "ProtectionRestored"
    BOOKS_CHANGED = "BooksChanged"
    TWO_TRADERS = "TwoTraders"
    UNKNOWN_RESOLVED = "UnknownResolved"
    FOREIGN_ORDER = "ForeignOrder"
    FOREIGN_ORDER_GONE = "ForeignOrderGone"


@dataclass(frozen=True, slots=True)
class OrdersEvent:
    """Something happened to the orders; times are exchange ms."""

    kind: OrdersEventKind
    time_ms: int
    message: str
    quantity: Decimal = Decimal(0)
    price: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class TrackedOrder:
    """One order of ours: what was asked and what the exchange last said of it."""

    client_order_id: str
    order_id: int | None
    order_list_id: int
    purpose: str
    side: Side
    type: OrderType
    status: OrderStatus
    quantity: Decimal
    executed_quantity: Decimal
    price: Decimal
    stop_price: Decimal
    created_ms: int
    updated_ms: int
    trade_ids: tuple[int, ...] = ()
    related_position: str = ""
    """Client id of the entry that made the position which the order makes, protects or sells; empty: not known."""
    signal_id: str = ""
    """Of the signal that the entry goes back to; empty: not known."""
    expiry_reason: str = ""
    """Why the exchange ended it, in its words; empty: it did not, or did not say."""
    working: bool = False
    """It came onto the book; a stop does when it is triggered."""

    @property
    def is_open(self) -> bool:
        """Whether the order can still be executed."""
        return self.status.is_open

    @property
    def group(self) -> int | str:
        """What is cancelled together: its list, or the order alone."""
        return self.order_list_id if self.order_list_id != NO_LIST else self.client_order_id


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What start-up or a reconciliation found and repaired, a line each."""

    lines: tuple[str, ...] = ()
    foreign_orders: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    rebuilt: bool = False
    """The store knew nothing of own orders that the exchange has: the books were made from the exchange alone."""
