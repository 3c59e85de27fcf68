"""Stands between a client and a Binance-compatible server: passes everything on, and spoils streams on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web


@dataclass
class MessageProxy:
    """Switches to be set at any time; `async with message_proxy(base_url) as proxy`."""

    target: str
    base_url: str = ""
    drop: str = ""
    """Messages of streams whose name ends so never arrive, as many as `drops` says."""
    drops: int = 0
    slowdown: float = 0.0
    """Seconds by which each message is later than the one before; those that come meanwhile queue up behind it."""
    duplicate: bool = False
    """Each message comes twice."""
    refuse: int = 0
    """The status of every call and connection, where it is not 0."""
    refuse_calls_only: bool = False
    """Whether connections are not refused."""
    redirect: str = ""
    """Where every call is sent instead."""
    refused: int = 0
    """How many were."""
    rest_calls: list[str] = field(default_factory=list)
    sockets: int = 0
    """Connections made so far."""
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, what comes is held, and then passed on."""

    def __post_init__(self) -> None:
        self.flowing.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One call or connection."""
        if self.refuse and not (self.refuse_calls_only and request.path == "/stream"):
            self.refused += 1
            return web.Response(status=self.refuse, headers={"Retry-After": "1"})
        async with aiohttp.ClientSession() as session:
            if request.path == "/stream":
                return await self._stream(request, session)
            self.rest_calls.append(request.path)
            if self.redirect:
                return web.Response(status=302, headers={"Location": self.redirect})
            async with session.get(self.target + request.path_qs) as answer:
                return web.Response(body=await answer.read(), status=answer.status, content_type="application/json")

    async def _stream(self, request: web.Request, session: aiohttp.ClientSession) -> web.WebSocketResponse:
        self.sockets += 1
        client = web.WebSocketResponse()
        await client.prepare(request)
        async with session.ws_connect(self.target.replace("http", "ws", 1) + request.path_qs) as server:
            passing = asyncio.create_task(self._pass_on(server, client))
            async for _ in client:
                pass
            passing.cancel()
        return client

    async def _pass_on(self, server: aiohttp.ClientWebSocketResponse, client: web.WebSocketResponse) -> None:
        async for message in server:
            await self.flowing.wait()
            name: Any = json.loads(message.data)["stream"]
            if self.drops and self.drop and name.endswith(self.drop):
                self.drops -= 1
                continue
            await asyncio.sleep(self.slowdown)
            for _ in range(2 if self.duplicate else 1):
                await client.send_str(message.data)
        await client.close()


@asynccontextmanager
async def message_proxy(target: str) -> AsyncIterator[MessageProxy]:
    """A proxy on a free port of the loopback in front of the server at `target`."""
    proxy = MessageProxy(target)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    proxy.base_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        proxy.flowing.set()
        await runner.cleanup()
