"""The clock by which operator and bot count grants and the Lease: one that goes on while either sleeps."""

from __future__ import annotations

import time


def steady_clock() -> float:
    """Seconds that never jump, and that count while the machine sleeps where the system has such a clock.

    An event loop's own clock stands still within a callback: a process that was stopped there would not notice.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
