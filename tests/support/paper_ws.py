"""WebSockets of a paper exchange: requests and events told apart, and signed as clients sign."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paper_exchange.server.app import wall_clock_ms
from paper_exchange.testing import PaperExchange

DEADLINE_SECONDS = 15.0


@dataclass(slots=True)
class Talk:
    """One WebSocket; answers are found by their id, and everything else waits in `events`."""

    socket: aiohttp.ClientWebSocketResponse
    events: list[Any] = field(default_factory=list)
    _ident: int = 0

    async def next(self) -> Any:
        """The next frame, whatever it is."""
        message = await self.socket.receive(DEADLINE_SECONDS)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        return json.loads(message.data)

    async def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The first event, told already or still to come, that is wanted; it is taken out."""
        for place, event in enumerate(self.events):
            if wanted(event):
                return self.events.pop(place)
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not wanted(event := await self.next()):
                self.events.append(event)
            return event

    async def send(self, **frame: Any) -> Any:
        """Send a frame under an id of its own and return its answer."""
        self._ident += 1
        ident = self._ident
        await self.socket.send_json({"id": ident} | frame)
        return await self.until(lambda event: isinstance(event, dict) and event.get("id") == ident)

    async def ask(self, method: str, params: Any = None) -> Any:
        """A request of the WebSocket API, or a command on a stream."""
        return await self.send(method=method, **({} if params is None else {"params": params}))

    async def closed(self) -> tuple[int | None, str]:
        """Code and reason with which the server closes; what it still tells is kept."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                message = await self.socket.receive()
                if message.type is aiohttp.WSMsgType.TEXT:
                    self.events.append(json.loads(message.data))
                elif message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
                    return self.socket.close_code, str(message.extra or "")


class Signer:
    """A key that signs the parameters of the WebSocket API: sorted by name, as they are in JSON."""

    def __init__(self, api_key: str, secret: str = "", private: Ed25519PrivateKey | None = None) -> None:
        self.api_key = api_key
        self._secret = secret
        self._private = private

    def signed(self, **params: Any) -> dict[str, Any]:
        """The parameters with key, time and signature."""
        full = {"apiKey": self.api_key, "timestamp": wall_clock_ms()} | params
        rendered = {name: json.dumps(value) if isinstance(value, bool) else value for name, value in full.items()}
        return full | {"signature": self.sign("&".join(f"{name}={rendered[name]}" for name in sorted(rendered)))}

    def sign(self, payload: str) -> str:
        """The signature of a text."""
        if self._private is not None:
            return base64.b64encode(self._private.sign(payload.encode())).decode()
        return hmac.new(self._secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


@asynccontextmanager
async def connected(exchange: PaperExchange, path: str = "/ws-api/v3", **options: Any) -> AsyncIterator[Talk]:
    """A WebSocket to a path."""
    async with exchange.session.ws_connect(exchange.ws_url + path, **options) as opened:
        yield Talk(opened)


@dataclass(frozen=True, slots=True)
class Trader:
    """An account and what signs for it."""

    uid: int
    key: Signer


async def trader(exchange: PaperExchange, **deposits: str) -> Trader:
    """A new account that signs with a secret."""
    account = await exchange.create_account(**deposits)
    return Trader(account.uid, Signer(account.api_key, account.secret_key))


async def ed25519_trader(exchange: PaperExchange, **deposits: str) -> Trader:
    """A new account that signs with a pair."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    body = {"deposits": deposits, "publicKey": public}
    async with exchange.session.post(f"{exchange.control_url}/control/accounts", json=body) as answer:
        made = await answer.json()
    return Trader(made["uid"], Signer(made["apiKey"], private=private))


async def rest(
    exchange: PaperExchange, who: Trader, method: str, path: str, timeout: float = DEADLINE_SECONDS, **params: str
) -> tuple[int, Any, Any]:
    """A signed request on a connection of its own: status, body and headers."""
    query = urlencode({"timestamp": wall_clock_ms()} | params)
    full = f"{query}&signature={who.key.sign(query)}"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(timeout)) as session,
        session.request(
            method, f"{exchange.base_url}{path}?{full}", headers={"X-MBX-APIKEY": who.key.api_key}
        ) as answer,
    ):
        text = await answer.text()
        return answer.status, json.loads(text) if answer.content_type == "application/json" else text, answer.headers


class TurnedClock:
    """A clock of ms that stands until a test turns it."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def __call__(self) -> int:
        """Ms since some moment."""
        return self.now_ms
