"""The port of clients, which may be shut for a while as when an exchange is restarted."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from paper_exchange.server.http_log import http_logger


class FrontDoor:
    """Where an application listens, between `open` and `close`."""

    def __init__(self, application: web.Application, host: str, port: int) -> None:
        """Port 0 is chosen by the system and kept."""
        self._runner = web.AppRunner(application, access_log=None, logger=http_logger(), shutdown_timeout=2)
        self._host, self._port = host, port
        self._site: web.TCPSite | None = None
        self._opening: asyncio.Task[None] | None = None

    async def open(self) -> int:
        """Listen; returns the port."""
        await self._runner.setup()
        return await self._listen()

    async def _listen(self) -> int:
        self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
        await self._site.start()
        self._port = int(self._runner.addresses[0][1])
        return self._port

    def shut(self, seconds: float) -> None:
        """End every connection without a word, and refuse new ones for so long."""
        self._opening = asyncio.create_task(self._shut(seconds, self._opening))

    async def close(self) -> None:
        """Stop for good, in order."""
        await _cancel(self._opening)
        await self._runner.cleanup()

    async def _shut(self, seconds: float, before: asyncio.Task[None] | None) -> None:
        await _cancel(before)
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for protocol in list(self._runner.server.connections) if self._runner.server is not None else []:
            if protocol.transport is not None:
                protocol.transport.abort()
        await asyncio.sleep(seconds)
        await self._listen()


async def _cancel(opening: asyncio.Task[None] | None) -> None:
    if opening is not None and not opening.done():
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
