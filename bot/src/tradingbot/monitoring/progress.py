"""Which of the bot's main tasks is at work, and since when: one that never ends its work is seen by the probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

STUCK_SECONDS: Final = 300.0
"""Longer than any work that ends: an exit of six sales, each of which waits for its answer until the time-out."""


class Progress:
    """Tasks call `at` around what they do between two waits for something to do."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._since: dict[str, float] = {}

    @contextmanager
    def at(self, task: str) -> Iterator[None]:
        """The task is at work meanwhile; waiting for a lock is work."""
        self.note(task, at_work=True)
        try:
            yield
        finally:
            self.note(task, at_work=False)

    def note(self, task: str, *, at_work: bool) -> None:
        """Somebody who looks now and then finds the task at work, or not."""
        if at_work:
            self._since.setdefault(task, self._monotonic())
        else:
            self._since.pop(task, None)

    def ages(self) -> dict[str, float]:
        """For how many seconds each task that is at work has been at its piece."""
        now = self._monotonic()
        return {task: now - since for task, since in self._since.items()}

    def stuck(self) -> str | None:
        """The task that is at the same piece of work for too long, or None."""
        for task, age in self.ages().items():
            if age > STUCK_SECONDS:
                return f"{task} has made no progress for {age:.0f} s"
        return None
