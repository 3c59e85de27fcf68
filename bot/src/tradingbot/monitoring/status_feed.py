"""The status stream: gives every status a number, sends changes of state at once and a heartbeat in between."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final

from tradingbot_api.bot_http import HEARTBEAT_SECONDS, BotStatus

TICK_SECONDS: Final = 0.5
"""How late a change is seen that comes with time alone (a grant or a circuit that expires)."""
REMEMBERED: Final = 64
"""Sequences whose time of sending is known: at the heartbeat's pace, several minutes."""


class StatusFeed:
    """Numbers statuses and hands them to whoever listens; a slow listener skips to the newest."""

    def __init__(
        self,
        build: Callable[[int], BotStatus],
        state_of: Callable[[BotStatus], object],
        monotonic: Callable[[], float],
    ) -> None:
        self._build = build
        self._state_of = state_of
        self._monotonic = monotonic
        self._sequence = 0
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._line = b""
        self._state: object = None
        self._published_at = float("-inf")
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()

    def wake(self) -> None:
        """Something may have changed: look now."""
        self._wake.set()

    def sent_at(self, sequence: int) -> float | None:
        """Monotonic time before the status `sequence` was sent; None where it is not known (any more)."""
        return self._sent.get(sequence)

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            status = self._build(self._sequence + 1)
            state = self._state_of(status)
            now = self._monotonic()
            if state != self._state or now - self._published_at >= HEARTBEAT_SECONDS:
                self._state = state
                await self._publish(status, now)
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    async def _publish(self, status: BotStatus, now: float) -> None:
        self._sequence = status.sequence
        self._sent[status.sequence] = self._published_at = now
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        # A strategy or the exchange may have said what is no text: it must not end the process.
        text = json.dumps(status.model_dump(mode="json", by_alias=True), ensure_ascii=False)
        self._line = text.encode(errors="replace") + b"\n"
        async with self._changed:
            self._changed.notify_all()

    async def lines(self) -> AsyncIterator[bytes]:
        """One status at once, then each that is published."""
        await self._publish(self._build(self._sequence + 1), self._monotonic())
        while True:
            sequence = self._sequence
            yield self._line
            async with self._changed:
                await self._changed.wait_for(lambda seen=sequence: self._sequence > seen)  # type: ignore[misc]
