"""When the close of a candle is overdue, and when the exchange is asked for it again; pure."""

from __future__ import annotations

from typing import Final

CLOSE_WAIT_MS: Final = 2_000
"""After its end a close is waited for so long: what the exchange then answers is still fresh enough to trade on."""
LONGEST_WAIT_MS: Final = 60_000
"""Between two times that the exchange is asked in vain."""


class CloseWatch:
    """Times are the exchange's, in ms."""

    def __init__(self) -> None:
        self._vain = 0
        self._again_ms = 0
        self._last_open_ms: int | None = None

    def due_in(self, last_open_ms: int | None, width_ms: int, now_ms: int) -> int | None:
        """How long the close after the candle `last_open_ms` may still take, 0 where it is overdue.

        None without a candle.
        """
        if last_open_ms is None:
            return None
        if last_open_ms != self._last_open_ms:
            self._last_open_ms, self._vain, self._again_ms = last_open_ms, 0, 0
        return max(0, last_open_ms + 2 * width_ms + CLOSE_WAIT_MS - now_ms, self._again_ms - now_ms)

    def asked_in_vain(self, now_ms: int) -> None:
        """The exchange has no such candle, or did not answer: it is asked less and less often."""
        self._again_ms = now_ms + min(LONGEST_WAIT_MS, CLOSE_WAIT_MS << min(self._vain, 16))
        self._vain += 1
