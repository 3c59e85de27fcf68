"""The exchange's clock: the offset of its time to ours, from the middles of timed requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Final

SAMPLES: Final = 5


class ExchangeClock:
    """Estimates the exchange's time as the local monotonic clock plus the median of the last five samples.

    The monotonic clock, so that a step of the wall clock does not touch signatures.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    @property
    def synced(self) -> bool:
        """Whether there is any sample."""
        return bool(self._samples)

    def now_ms(self) -> int:
        """The exchange's time now, in ms. Needs a sample."""
        if not self._samples:
            raise RuntimeError("the exchange's clock was never read: call sync_clock first")
        return int(self._monotonic() * 1000 + median(self._samples))

    def about_ms(self) -> int:
        """The same; any time that goes on where there is no sample yet."""
        return self.now_ms() if self.synced else int(self._monotonic() * 1000)

    async def sample(self, server_time: Callable[[], Awaitable[int]]) -> int:
        """Ask the exchange's time once and remember the offset; returns its answer in ms."""
        answer, offset = await self._measure(server_time)
        self._samples.append(offset)
        return answer

    async def sync(self, server_time: Callable[[], Awaitable[int]]) -> int:
        """Measure anew, since the exchange said that the samples are wrong; they stay where it cannot be asked."""
        measured = [await self._measure(server_time) for _ in range(SAMPLES)]
        self._samples = deque((offset for _, offset in measured), maxlen=SAMPLES)
        return measured[-1][0]

    async def _measure(self, server_time: Callable[[], Awaitable[int]]) -> tuple[int, float]:
        before = self._monotonic()
        answer = await server_time()
        after = self._monotonic()
        return answer, answer - (before + after) / 2 * 1000
