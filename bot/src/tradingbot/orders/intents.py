"""Intents: what is about to be sent, committed before it is sent, and the rules for what became of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tradingbot.model import OrderReport, TradeFill

SETTLE_MS: Final = 10_000
"""Beyond the window of a request, how long the exchange may still be working on it (-1007 comes after 10 s)."""
NOT_FOUND_ANSWERS: Final = 3
"""Answers -2013 after which, with nothing in any listing, an order does not exist."""


class IntentState(StrEnum):
    """What is known of an intent."""

    SENDING = "Sending"
    """Committed; it may or may not have been sent."""
    ACKNOWLEDGED = "Acknowledged"
    REJECTED = "Rejected"
    """Refused by the exchange, or certainly not sent."""
    UNKNOWN = "Unknown"
    NOT_FOUND = "NotFound"
    """Proven not to exist."""

    @property
    def is_open(self) -> bool:
        """Whether the outcome is not known."""
        return self in {IntentState.SENDING, IntentState.UNKNOWN}


class IntentKind(StrEnum):
    """What an intent sends."""

    ENTRY = "Entry"
    """OTOCO: the buy and its protection pair; or the buy alone, of a book too thin for all of it."""
    PROTECTION = "Protection"
    """OCO."""
    STOP = "Stop"
    """A stop alone."""
    EXIT = "Exit"
    CANCEL = "Cancel"
    ANNOUNCE = "Announce"


@dataclass(frozen=True, slots=True)
class Intent:
    """One request that changes something at the exchange.

    `client_ids` are the ids of the orders it makes, the first one the order to ask for; of a cancel, the order (or
    list, by its orders) that it cancels. Times are exchange ms as signed.
    """

    client_id: str
    kind: IntentKind
    client_ids: tuple[str, ...]
    timestamp_ms: int
    recv_window_ms: int
    quantity: str
    price: str
    after_order_id: int
    """The highest order id known when it was committed: what it makes has a higher one."""
    state: IntentState = IntentState.SENDING
    not_found: int = 0
    message: str = ""
    signal_id: str = ""
    """Of the signal that it goes back to."""

    @property
    def blocks_entries(self) -> bool:
        """Whether nobody knows what it did; not of a cancel, which adds no exposure and is resolved by its target."""
        return self.state.is_open and self.kind is not IntentKind.CANCEL

    @property
    def decidable_ms(self) -> int:
        """Exchange time from which "not found" counts."""
        return self.timestamp_ms + self.recv_window_ms + SETTLE_MS


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the exchange answered about an intent's orders, at exchange time `time_ms`.

    `report` is None where the order query said -2013; `listed` (open and all orders) and `unexplained` (trades of
    orders that no listing has) are None where they were not asked.
    """

    time_ms: int
    report: OrderReport | None
    listed: tuple[OrderReport, ...] | None = None
    unexplained: tuple[TradeFill, ...] | None = None


def judge(intent: Intent, evidence: Evidence) -> Intent:
    """What the evidence makes of an open intent. Only answers of the exchange are evidence, never a failed call."""
    if evidence.report is not None:
        return replace(intent, state=IntentState.ACKNOWLEDGED, message="found at the exchange")
    if any(order.client_order_id in intent.client_ids for order in evidence.listed or ()):
        return replace(intent, state=IntentState.ACKNOWLEDGED, message="found in a listing")
    if evidence.time_ms <= intent.decidable_ms:
        return intent  # a new order may not be readable yet, and the request may still be executed
    answers = min(intent.not_found + 1, NOT_FOUND_ANSWERS)
    intent = replace(intent, not_found=answers)
    if answers < NOT_FOUND_ANSWERS or evidence.listed is None or evidence.unexplained is None or evidence.unexplained:
        return intent
    return replace(intent, state=IntentState.NOT_FOUND, message="the exchange never had it")
