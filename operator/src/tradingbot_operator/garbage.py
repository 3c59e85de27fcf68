"""Python's collector of cycles, kept from standing in the way: a full pass over a thousand bots stops all for 0.3 s."""

from __future__ import annotations

import asyncio
import gc
from typing import Final

YOUNG: Final = 5_000
"""Objects more than before that make a pass over the new ones, which takes a millisecond."""
NEVER: Final = 2**30
FULL_PASS_SECONDS: Final = 3600.0


def spare_what_lasts() -> None:
    """What outlives one pass mostly lasts, as all that is kept of bots: it is not looked at again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, NEVER, NEVER)


async def collect_now_and_then() -> None:
    """What became garbage only after it had lasted; until cancelled."""
    while True:
        await asyncio.sleep(FULL_PASS_SECONDS)
        gc.collect()
