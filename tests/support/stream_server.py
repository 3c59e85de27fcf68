"""Both WebSocket endpoints of an exchange, served by hand: it does and says what a test wants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web

PING_SECONDS: Final = 20.0
"""How often Binance pings."""


@asynccontextmanager
async def serving(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """Serve every path on a free port; gives the address."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class StreamServer:
    """Hand `handle` to `serving`; the sockets of each endpoint are those of all connections so far."""

    requests: int = 0
    subscriptions: int = 0
    answers_pings: bool = True
    users: list[web.WebSocketResponse] = field(default_factory=list)
    markets: list[web.WebSocketResponse] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Of connections asked for, the refused ones too."""
    refuse: Callable[[], web.Response | None] = lambda: None
    """The answer to a handshake that is not accepted."""
    cuts: bool = False
    """Whether each connection is cut as soon as it is accepted."""
    refusal: dict[str, Any] | None = None
    """What requests are answered with instead of a result."""

    @property
    def handshakes(self) -> int:
        """How many connections were asked for."""
        return len(self.paths)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection until it closes."""
        self.paths.append(request.path_qs)
        if (refused := self.refuse()) is not None:
            return refused
        socket = web.WebSocketResponse(heartbeat=PING_SECONDS)
        await socket.prepare(request)
        if self.cuts and request.transport is not None:
            request.transport.abort()
        user = request.path.endswith("/ws-api/v3")
        (self.users if user else self.markets).append(socket)
        async for frame in socket:
            if frame.type is WSMsgType.TEXT:
                message = json.loads(frame.data)
                self.requests += 1
                self.subscriptions += message["method"].startswith("userDataStream.subscribe")
                if message["method"] == "ping" and not self.answers_pings:
                    continue
                answer = self.refusal or {"status": 200, "result": {"subscriptionId": 0}}
                await socket.send_json({"id": message["id"], **answer})
        return socket


def kline(open_ms: int, *, closed: bool) -> dict[str, object]:
    """A message of a candle of one minute."""
    row = {"t": open_ms, "T": open_ms + 59_999, "s": "BTCUSDT", "i": "1m", "o": "1", "c": "2", "h": "3", "l": "1"}
    return {"stream": "btcusdt@kline_1m", "data": {"e": "kline", "k": {**row, "v": "5", "n": 1, "x": closed}}}


def book(bid: str) -> dict[str, object]:
    """A message of the best bid and ask."""
    return {"stream": "btcusdt@bookTicker", "data": {"s": "BTCUSDT", "b": bid, "B": "1", "a": "101", "A": "1"}}
