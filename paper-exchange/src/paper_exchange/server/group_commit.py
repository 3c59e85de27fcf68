"""One transaction for all requests of a turn of the event loop: each waits for it before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class GroupCommit:
    """Calls `commit` once at the end of a turn, for whoever waits; its failure is everybody's."""

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit
        self._turn: asyncio.Future[None] | None = None

    async def done(self) -> None:
        """Return when all that was done until now is committed."""
        if self._turn is None:
            loop = asyncio.get_running_loop()
            self._turn = loop.create_future()
            loop.call_soon(self._end, self._turn)
        # The future is shared: a request that is cancelled must not take it from the others.
        await asyncio.shield(self._turn)

    def _end(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        try:
            self._commit()
        except Exception as error:
            turn.set_exception(error)
        else:
            turn.set_result(None)
