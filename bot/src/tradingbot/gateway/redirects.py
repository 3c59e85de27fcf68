"""No connection follows a redirect: a 307 or 308 would carry the key, the signature and the order to another host."""

from __future__ import annotations

import aiohttp


class RedirectRefusedError(aiohttp.ClientError):
    """The exchange answered with a redirect; what became of the request is unknown."""


def refuse_redirects() -> aiohttp.TraceConfig:
    """A hook for a client's session that ends a request at its first redirect, the handshake of a WebSocket too.

    The hook, because aiohttp's `ws_connect` has no `allow_redirects`.
    """

    async def refuse(_session: object, _context: object, params: aiohttp.TraceRequestRedirectParams) -> None:
        params.response.close()
        raise RedirectRefusedError(f"HTTP {params.response.status}: redirects are not followed")

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config
