"""HTTP answers that a fault replaces, and those that never come."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

from paper_exchange.faults.calls import Refusal

_LOOK_SECONDS: Final = 0.1


def refused(refusal: Refusal) -> web.Response:
    """The answer that a fault gives: a page of HTML, or a code."""
    headers = {} if refusal.retry_after is None else {"Retry-After": str(refusal.retry_after)}
    if refusal.page:
        return web.Response(text=refusal.page, status=refusal.status, headers=headers, content_type="text/html")
    body = {"code": refusal.code, "msg": refusal.message}
    return web.json_response(body, status=refusal.status, headers=headers)


async def lost(request: web.Request, *, cut: bool) -> web.Response:
    """No answer: the connection is cut, or stays open until the client leaves. What is returned reaches nobody."""
    transport = request.transport
    if transport is not None:
        if cut:
            transport.abort()
        while not transport.is_closing():  # noqa: ASYNC110, there is nothing to wait for but the client
            await asyncio.sleep(_LOOK_SECONDS)
    return web.Response()
