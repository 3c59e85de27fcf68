"""Unmodified python-binance, pointed at a paper exchange."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from binance import AsyncClient, BinanceSocketManager
from binance.ws.reconnecting_websocket import ReconnectingWebsocket

from paper_exchange.testing import PaperExchange, TestAccount


@asynccontextmanager
async def client_of(
    exchange: PaperExchange, account: TestAccount, private_key: str | None = None
) -> AsyncIterator[Any]:
    """A client of an account, by its class attributes, as its base URLs are formatted on creation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AsyncClient, "API_URL", exchange.base_url + "/api")
        patch.setattr(AsyncClient, "MARGIN_API_URL", exchange.base_url + "/sapi")
        patch.setattr(AsyncClient, "WS_API_URL", exchange.ws_url + "/ws-api/v3")
        # How long its reader waits before it looks whether it should end: closing waits for that.
        patch.setattr(ReconnectingWebsocket, "TIMEOUT", 1)
        patch.setattr(BinanceSocketManager, "STREAM_URL", exchange.ws_url + "/")
        client = await AsyncClient.create(account.api_key, account.secret_key, private_key=private_key)
        try:
            yield client
        finally:
            await client.close_connection()
