"""Every Spot method of unmodified python-binance is called once, and is answered as Binance answers it."""

from __future__ import annotations

import csv
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
from binance.exceptions import BinanceAPIException

from paper_exchange.server.app import Options
from paper_exchange.testing import running_paper_exchange
from support.python_binance import client_of
from support.signing import Sender
from support.spot_scene import REST_NAMES, SYMBOL, SpotScene
from support.still_market import write_still_market

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
METHODS_FILE: Final = Path(DATA or "") / "client-requests/python_binance_1.0.37_spot_methods.csv"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        DATA is None or not METHODS_FILE.is_file(),
        reason="TRADINGBOT_TEST_DATA names no directory with the methods of python-binance",
    ),
]

REFUSED: Final = {
    "POST /api/v3/userDataStream": (410, 0, "listen keys were removed"),
    "PUT /api/v3/userDataStream": (410, 0, "listen keys were removed"),
    "DELETE /api/v3/userDataStream": (410, 0, "listen keys were removed"),
    "POST /api/v3/cancelReplace": (404, None, "no such path: a mistake of the client's wrapper"),
    "POST /api/v3/sor/order": (400, -1013, "no symbol has smart order routing"),
    "POST /api/v3/sor/order/test": (400, -1013, "no symbol has smart order routing"),
}
"""What is refused: HTTP status and code, and why."""
NOTHING: Final[dict[str, Any]] = {}
PARAMS: Final = {
    "stream_keepalive": {"listenKey": "x"},
    "stream_close": {"listenKey": "x"},
    "get_exchange_info": NOTHING,
    "get_all_tickers": NOTHING,
}
"""Of methods that take others than their endpoint does."""
MAY_BE_EMPTY: Final = {"GET /api/v3/ping", "POST /api/v3/order/test", "GET /api/v3/myAllocations"}


def methods() -> list[Any]:
    """Each row as a parameter: the method and what it asks for, by its REST name."""
    if DATA is None or not METHODS_FILE.is_file():
        return []
    rows = list(csv.DictReader(METHODS_FILE.read_text().splitlines()))
    named = []
    for row in rows:
        asked = row["path_or_ws_method"]
        endpoint = REST_NAMES[asked] if row["verb"] == "WS-API" else f"{row['verb']} {asked}"
        named.append(pytest.param(row["method"], endpoint, id=row["method"]))
    return named


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SpotScene]:
    """An account with money where the market stands still."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT="50000")
    async with running_paper_exchange(Options(symbols=(SYMBOL,), market=market)) as exchange:
        account = await exchange.create_account(USDT="1000000", BTC="10")
        yield SpotScene(Sender(exchange, account))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(scene: SpotScene) -> AsyncIterator[Any]:
    """The unmodified client of the account."""
    async with client_of(scene.sender.exchange, scene.sender.account) as connected:
        yield connected


@pytest.mark.parametrize(("method", "endpoint"), methods())
async def test_a_method_of_the_client_is_answered(scene: SpotScene, client: Any, method: str, endpoint: str) -> None:
    await scene.clear()
    params = PARAMS[method] if method in PARAMS else await scene.params(endpoint)
    call = getattr(client, method)
    if endpoint in REFUSED:
        status, code, _ = REFUSED[endpoint]
        with pytest.raises(BinanceAPIException) as refused:
            await call(**params)
        assert (refused.value.status_code, refused.value.code) == (status, code)
    else:
        assert await call(**params) or endpoint in MAY_BE_EMPTY
