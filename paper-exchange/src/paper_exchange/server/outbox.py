"""What waits to be sent on one WebSocket: bounded, so that a client that does not read is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import WSCloseCode, web

_LIMIT: Final = 10_000
_PING_SECONDS: Final = 20.0
"""Binance pings each 20 s and gives the client a minute; a dead peer is found within 30 s here."""


class Outbox:
    """The sending side of one connection; messages keep their order."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self.socket = socket
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._ended = False

    @classmethod
    @asynccontextmanager
    async def open(cls, request: web.Request, registry: set[Outbox]) -> AsyncIterator[Outbox]:
        """Accept a connection and send from a task of its own until the block ends."""
        socket = web.WebSocketResponse(heartbeat=_PING_SECONDS, max_msg_size=1 << 20, compress=False)
        await socket.prepare(request)
        outbox = cls(socket)
        registry.add(outbox)
        sender = asyncio.create_task(outbox._run())
        try:
            yield outbox
        finally:
            registry.discard(outbox)
            sender.cancel()
            with suppress(asyncio.CancelledError):
                await sender

    def send(self, text: str) -> None:
        """Queue a message; a connection whose queue is full is closed."""
        if self._queue.qsize() >= _LIMIT:
            self.end()
        elif not self._ended:
            self._queue.put_nowait(text)

    def end(self) -> None:
        """Close the connection after what was queued."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(None)

    async def _run(self) -> None:
        while (text := await self._queue.get()) is not None:
            try:
                await self.socket.send_str(text)
            except (ConnectionError, RuntimeError):
                return
        await self.socket.close(code=WSCloseCode.GOING_AWAY)
