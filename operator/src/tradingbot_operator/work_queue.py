"""The queue of TradingBots that need a step: keyed, deduplicating, with delays and a back-off per key."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from random import Random
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS = 0.25
LONGEST_RETRY_SECONDS = 30.0


class WorkQueue(Generic[K]):
    """Gives each key to one worker at a time; a key added while it is worked on comes again afterwards.

    `add` is cheap and never waits, so event handlers may call it. Urgent keys are taken first, in their order, and one
    that may wait after all others: what is begun is finished first, and a burst of beginnings keeps nobody waiting.
    Of several delays of one key the earliest counts. Time is `loop.time` and the jitter comes from `random`.
    """

    def __init__(self, random: Random, time: Callable[[], float] | None = None) -> None:
        self._random = random
        self._time = time
        self._lines: tuple[deque[K], ...] = (deque(), deque(), deque())
        """Urgent, ready, and what may wait."""
        self._waiting: dict[K, int] = {}
        """In which of the lines each key waits."""
        self._working: set[K] = set()
        self._again: dict[K, bool] = {}
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = itertools.count()
        self._failures: dict[K, int] = {}
        self._wake = asyncio.Event()

    def _now(self) -> float:
        return self._time() if self._time is not None else asyncio.get_running_loop().time()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K, *, urgent: bool = False, may_wait: bool = False) -> None:
        """Asks for a step now, or where it may wait, once nothing else does."""
        if key in self._working:
            self._again[key] = self._again.get(key, False) or urgent
            return
        line = 0 if urgent else 2 if may_wait else 1
        if (stands := self._waiting.get(key)) is not None:
            if stands <= line:
                return
            self._lines[stands].remove(key)
        self._due.pop(key, None)
        self._waiting[key] = line
        self._lines[line].append(key)
        self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Asks for a step after `seconds`, unless one is due sooner."""
        due = self._now() + max(0.0, seconds)
        if key in self._waiting or self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._wake.set()

    async def take(self) -> K:
        """The next key; the caller owes `done` for it."""
        while True:
            self._promote()
            if (line := next((line for line in self._lines if line), None)) is not None:
                key = line.popleft()
                del self._waiting[key]
                self._working.add(key)
                return key
            self._wake.clear()
            timeout = self._heap[0][0] - self._now() if self._heap else None
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _promote(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    def done(self, key: K, *, failed: bool = False) -> None:
        """Ends the work on a key; after a failure it comes again with a growing, jittered delay."""
        self._working.discard(key)
        if failed:
            count = self._failures[key] = self._failures.get(key, 0) + 1
            ceiling = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(count - 1, 16))
            self.add_after(key, ceiling * (0.5 + self._random.random() / 2))
        else:
            self._failures.pop(key, None)
        if key in self._again:
            self.add(key, urgent=self._again.pop(key))
        # Another worker may be asleep with nothing but this key's delay to wait for.
        self._wake.set()
