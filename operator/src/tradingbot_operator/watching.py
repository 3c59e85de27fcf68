"""Keeps kopf watching: one watch that fails ends all of kopf, which is no reason to end this process and its Lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from typing import Any, Final

import kopf
import structlog
from kopf._cogs.aiokits.aiotasks import guard

AGAIN_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


async def watch(
    registry: Callable[[], kopf.OperatorRegistry],
    settings: Callable[[], kopf.OperatorSettings],
    namespaces: Collection[str],
    *,
    ready: asyncio.Event,
    again: asyncio.Event,
    begun: Callable[[], None],
    failed: Callable[[], None],
) -> None:
    """Until cancelled; `ready` is set once kopf has begun. Where `again` is set it begins anew: kopf looks once which
    kinds are served.

    `begun` is called each time, as kopf takes the signals; `failed` when it begins anew: events may have been missed.
    `kopf.run_tasks` would do the same once, and in its end cancel every task of the process.
    """
    for name in ("orchestration", "running"):
        # What ends there is told here, and is no error.
        logging.getLogger(f"kopf._core.reactor.{name}").setLevel(logging.CRITICAL)
    while True:
        stop = asyncio.Event()
        tasks = await kopf.spawn_tasks(
            registry=registry(), settings=settings(), clusterwide=not namespaces, namespaces=namespaces,
            stop_flag=stop, ready_flag=ready,
        )  # fmt: skip
        begun()
        asked = asyncio.create_task(again.wait())
        try:
            done, _ = await asyncio.wait([*tasks, asked], return_when=asyncio.FIRST_COMPLETED)
            error = next((task.exception() for task in done if not task.cancelled()), None)
            log.warning("watching ended and begins anew", error=str(error))
        finally:
            asked.cancel()
            again.clear()
            # Unless it was told to stop, kopf kills the process some minutes after its tasks were cancelled.
            stop.set()
            await _end(tasks)
            await _end(_left())
        await asyncio.sleep(AGAIN_SECONDS)
        failed()


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        # A request that is just being made may swallow it.
        await asyncio.wait(pending, timeout=AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)


def _left() -> list[asyncio.Task[Any]]:
    """The other watches, which kopf leaves when one fails. What each of them began it ends itself, in its own order."""
    return [task for task in asyncio.all_tasks() if _is_guarded(task)]


def _is_guarded(task: asyncio.Task[Any]) -> bool:
    """Whether it is one of those that kopf begins to last, by the code that it runs."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is guard.__code__
