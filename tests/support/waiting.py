"""Waits for what comes true at some time, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any


async def until(what: str, probe: Callable[[], Any], seconds: float = 15.0, every: float = 0.05) -> Any:
    """The first truthy value of a `probe`, async or not; AssertionError with the last one after `seconds`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        value = probe()
        if isawaitable(value):
            value = await value
        if value:
            return value
        if loop.time() > deadline:
            raise AssertionError(f"waited {seconds} s for: {what}; last seen: {value!r}")
        await asyncio.sleep(every)
