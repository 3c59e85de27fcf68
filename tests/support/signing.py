"""Requests as clients send them: signed over the very text that goes out, and sent as it is."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from yarl import URL

from paper_exchange.server.app import wall_clock_ms
from paper_exchange.testing import PaperExchange, TestAccount


def signature(secret: str, payload: str) -> str:
    """HMAC-SHA256 in hexadecimal."""
    return hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


class Sender:
    """One account's requests to one exchange."""

    def __init__(self, exchange: PaperExchange, account: TestAccount) -> None:
        self.exchange = exchange
        self.account = account

    async def raw(
        self, method: str, path: str, query: str = "", body: str = "", headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body (JSON where it is JSON) of a request whose texts are sent byte for byte."""
        url = URL(self.exchange.base_url + path + (f"?{query}" if query else ""), encoded=True)
        async with self.exchange.session.request(method, url, data=body or None, headers=headers) as answer:
            text = await answer.text()
            return answer.status, json.loads(text) if answer.content_type == "application/json" else text

    async def public(self, path: str, **params: Any) -> Any:
        """The answer to a request without a key; fails on a refusal."""
        status, body = await self.raw("GET", path, urlencode(params))
        assert status == 200, (path, body)
        return body

    async def signed(self, method: str, path: str, **params: Any) -> Any:
        """The answer to a signed request; fails on a refusal."""
        query = urlencode(params | {"timestamp": wall_clock_ms()})
        query += f"&signature={signature(self.account.secret_key, query)}"
        status, body = await self.raw(method, path, query, headers={"X-MBX-APIKEY": self.account.api_key})
        assert status == 200, (method, path, params, body)
        return body

    def frame(self, method: str, params: Mapping[str, Any], ident: Any = "1") -> str:
        """A signed frame of the WebSocket API: the values joined by name, as clients do."""
        whole = dict(params) | {"apiKey": self.account.api_key, "timestamp": wall_clock_ms()}
        payload = "&".join(f"{name}={_text(value)}" for name, value in sorted(whole.items()))
        whole["signature"] = signature(self.account.secret_key, payload)
        return json.dumps({"id": ident, "method": method, "params": whole})


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)
