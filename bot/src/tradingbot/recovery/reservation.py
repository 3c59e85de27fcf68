"""The reservation: how much exposure the operator lets this bot have within the limits of its fleet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from tradingbot_api.bot_http import RESERVATION_TTL_SECONDS, Reservation, ReservationRequest

NOTHING: Final = Decimal(0)


class Room(NamedTuple):
    """What was reserved for an entry: the exposure that the bot may have in all, in quote; and why it is no more."""

    exposure: Decimal
    message: str


class ReservationKeeper:
    """Holds the present reservation. Unless `required` there is none, and none is needed.

    A reservation is held for the request that it answers, until `give_back` or its end.
    """

    def __init__(self, required: Callable[[], bool], monotonic: Callable[[], float]) -> None:
        self._required = required
        self._monotonic = monotonic
        self._asked = 0
        self._held = NOTHING
        self._expires_at = float("-inf")
        self._room = Room(NOTHING, "")
        self._answered = asyncio.Event()
        self.request: ReservationRequest | None = None
        """The one that is not answered yet."""
        self.seen: tuple[int, int] = (-1, 0)
        """Epoch and number of the newest reservation that came, whether it was of use or not."""

    @property
    def required(self) -> bool:
        """Whether an entry needs a reservation."""
        return self._required()

    @property
    def exposure(self) -> Decimal:
        """What the reservation allows now."""
        return self._held if self._monotonic() < self._expires_at else NOTHING

    def covers(self, exposure: Decimal | None) -> bool:
        """Whether an entry may be sent with which the exposure is so; None: it is not known."""
        return not self.required or (exposure is not None and exposure <= self.exposure)

    def ask(self, exposure: Decimal) -> ReservationRequest:
        """Have the operator asked for a reservation of so much; a former request is given up."""
        self.give_back()
        self._asked += 1
        self._answered.clear()
        self.request = ReservationRequest(id=self._asked, exposure=exposure)
        return self.request

    async def answer(self, seconds: float) -> Room | None:
        """The answer to the request, waited for so long; None where none came. A later one is of no use."""
        try:
            async with asyncio.timeout(seconds):
                await self._answered.wait()
        except TimeoutError:
            self.give_back()
            return None
        return self._room

    def take(self, reservation: Reservation) -> float:
        """See a reservation that is for this process; the seconds left of it, 0 where it is of no use."""
        word = (reservation.epoch, reservation.number)
        if word <= self.seen:  # lost ones are sent again, late ones overtaken
            return self._left
        self.seen = word
        request, self._held = self.request, NOTHING
        if request is not None and reservation.request == request.id:
            self.request, self._held = None, reservation.exposure
            self._expires_at = reservation.clock + min(reservation.ttl_seconds, RESERVATION_TTL_SECONDS)
            self._room = Room(self.exposure, reservation.message)
            self._answered.set()
        return self._left

    @property
    def _left(self) -> float:
        return max(0.0, self._expires_at - self._monotonic()) if self._held > 0 else 0.0

    def give_back(self) -> None:
        """The entry is over, or not made: what was bought is exposure, the rest others may have."""
        self.request, self._held = None, NOTHING
