"""The port of clients, which may be shut for a while as when an exchange is restarted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web


class FrontDoor:
    """Where an application listens; `open` before anything else."""

    def __init__(self, runner: web.AppRunner, host: str, port: int) -> None:
        """`runner` is set up; port 0 is chosen by the system and kept."""
        self._runner, self._host, self._port = runner, host, port
        self._site: web.TCPSite | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Listen; returns the port."""
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()
        self._port = int(self._runner.addresses[0][1])
        return self._port

    def shut(self, seconds: float) -> None:
        """End every connection without a word, and refuse new ones for so long."""
        before = self._opening
        self._opening = asyncio.create_task(self._shut(seconds, before))

    async def close(self) -> None:
        """Forget that it was to be opened again."""
        if self._opening is not None:
            self._opening.cancel()
            with suppress(asyncio.CancelledError):
                await self._opening

    async def _shut(self, seconds: float, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            before.cancel()
            with suppress(asyncio.CancelledError):
                await before
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for protocol in list(self._runner.server.connections) if self._runner.server is not None else []:
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.sleep(seconds)
        await self.open()
