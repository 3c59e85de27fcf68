"""The OCO monitor: what has become of each protection pair, from its two legs.

Binance ends one leg when the other becomes active, not when it is filled: a take-profit that is filled in part leaves
the rest without a stop, and a stop that was triggered may expire on a thin book (order lists, user-data-stream.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tradingbot.model import OrderStatus
from tradingbot.orders.tracker import OrderTracker
from tradingbot.orders.types import TrackedOrder

OTHER_LEG: Final = "OCO_TRIGGER"
"""Expiry reason of a leg that ended because the other one became active."""


class OcoState(StrEnum):
    """State of a protection pair."""

    PENDING = "Pending"
    """Waits for its entry to be filled."""
    WORKING = "Working"
    STOP_TRIGGERED = "StopTriggered"
    """The stop is on the book, the take-profit is gone."""
    TAKE_PROFIT = "TakeProfit"
    STOP_LOSS = "StopLoss"
    PARTLY_TAKEN = "PartlyTaken"
    """The take-profit was filled in part: the rest has no stop."""
    PARTLY_STOPPED = "PartlyStopped"
    """The stop sold a part and expired: the rest has nothing."""
    STOP_EXPIRED = "StopExpired"
    """The stop was triggered, which ended the take-profit, and expired without a sale."""
    GONE = "Gone"
    """Canceled or expired without an execution."""

    @property
    def ended(self) -> bool:
        """Whether neither leg will do anything any more, or the pair no longer protects."""
        return self not in {OcoState.PENDING, OcoState.WORKING, OcoState.STOP_TRIGGERED}


@dataclass(frozen=True, slots=True)
class OcoPair:
    """A protection pair by the client ids of its legs."""

    oco_id: int
    stop_id: str
    take_profit_id: str


@dataclass(frozen=True, slots=True)
class OcoVerdict:
    """What has become of a pair."""

    pair: OcoPair
    state: OcoState


class OCOMonitor:
    """Knows the pairs of this bot that have not ended."""

    def __init__(self, tracker: OrderTracker) -> None:
        self._tracker = tracker
        self._pairs: dict[int, OcoPair] = {}
        self._states: dict[int, OcoState] = {}

    def track_oco_order(self, oco_id: int, leg: TrackedOrder) -> None:
        """Take a leg of the list `oco_id`; with both legs it is a pair."""
        pair = self._pairs.get(oco_id, OcoPair(oco_id, "", ""))
        if leg.type.is_stop:
            pair = OcoPair(oco_id, leg.client_order_id, pair.take_profit_id)
        else:
            pair = OcoPair(oco_id, pair.stop_id, leg.client_order_id)
        self._pairs[oco_id] = pair

    def check_oco_status(self) -> list[OcoVerdict]:
        """State of every pair that has not ended."""
        return [OcoVerdict(pair, state) for pair in self._pairs.values() if (state := self._judge(pair)) is not None]

    def handle_oco_execution(self, oco_id: int) -> OcoVerdict | None:
        """After an order of the list changed: the verdict where it is a new one; an ended pair is dropped."""
        pair = self._pairs.get(oco_id)
        state = None if pair is None else self._judge(pair)
        if pair is None or state is None:
            return None
        new = self._states.get(oco_id) is not state
        self._states[oco_id] = state
        if state.ended and not self._any_open(pair):  # the legs end one after the other, and the second is no news
            del self._pairs[oco_id]
            del self._states[oco_id]
        return OcoVerdict(pair, state) if new else None

    def _any_open(self, pair: OcoPair) -> bool:
        legs = (self._tracker.get(pair.stop_id), self._tracker.get(pair.take_profit_id))
        return any(leg is not None and leg.is_open for leg in legs)

    def _judge(self, pair: OcoPair) -> OcoState | None:
        stop, target = self._tracker.get(pair.stop_id), self._tracker.get(pair.take_profit_id)
        return None if stop is None or target is None else judge_pair(stop, target)


def judge_pair(stop: TrackedOrder, target: TrackedOrder) -> OcoState:
    """State of a pair from its legs."""
    if target.status is OrderStatus.FILLED:
        return OcoState.TAKE_PROFIT
    if stop.status is OrderStatus.FILLED:
        return OcoState.STOP_LOSS
    if target.executed_quantity > 0:
        return OcoState.PARTLY_TAKEN
    if stop.is_open:
        if stop.status is OrderStatus.PENDING_NEW:
            return OcoState.PENDING
        return OcoState.WORKING if target.is_open else OcoState.STOP_TRIGGERED
    if stop.executed_quantity > 0:
        return OcoState.PARTLY_STOPPED
    return OcoState.STOP_EXPIRED if target.expiry_reason == OTHER_LEG else OcoState.GONE
