"""The status page of the control port: one file, which runs nothing but what is in it."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from aiohttp import web

_PAGE = files("paper_exchange.server").joinpath("status_page.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    """The source expression that allows the one inline element of this name."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", _PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
    "connect-src 'self'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


async def status_page(_request: web.Request) -> web.Response:
    """The page, with a policy by which even a text that became markup could run nothing and call nobody else."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_HEADERS)
