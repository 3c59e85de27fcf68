"""The entry point of the command `tradingbot`: it can be told to end before the rest of it is even imported."""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> int:
    """As `tradingbot.__main__.main`; 143 where SIGTERM comes before the command takes it.

    To process 1, as in a container, a signal without a handler is as if it never came: told to end while its imports
    last, a bot would trade on until it is killed.
    """
    signal.signal(signal.SIGTERM, _end)
    from tradingbot.__main__ import main as command

    return command()


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)
