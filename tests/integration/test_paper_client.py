"""Unmodified python-binance trades on the paper exchange over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from binance import AsyncClient, BinanceSocketManager
from binance.exceptions import BinanceAPIException
from binance.ws.reconnecting_websocket import ReconnectingWebsocket
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.paper import brief

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
DEADLINE_SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module, on free ports; each test has an account of its own."""
    async with running_paper_exchange(Options(symbols=(SYMBOL,))) as running:
        yield running


@asynccontextmanager
async def client_of(
    exchange: PaperExchange, account: TestAccount, private_key: str | None = None
) -> AsyncIterator[Any]:
    """python-binance pointed at the exchange by its class attributes, as its base URLs are formatted on creation."""
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


async def test_an_ed25519_key_signs_rest_and_the_websocket_api(exchange: PaperExchange) -> None:
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    body = {"deposits": {"USDT": "10000"}, "publicKey": public}
    async with exchange.session.post(f"{exchange.control_url}/control/accounts", json=body) as answer:
        made = await answer.json()
    assert "secretKey" not in made
    async with client_of(exchange, TestAccount(made["uid"], made["apiKey"], ""), private_key=pem) as client:
        placed = await client.create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.001")
        found = await client.ws_get_order(symbol=SYMBOL, orderId=placed["orderId"])
        assert found["status"] == "FILLED"


@pytest_asyncio.fixture(loop_scope="module")
async def account(exchange: PaperExchange) -> TestAccount:
    """An account with quote only."""
    return await exchange.create_account(USDT="10000")


@pytest_asyncio.fixture(loop_scope="module")
async def client(exchange: PaperExchange, account: TestAccount) -> AsyncIterator[Any]:
    """The unmodified client of the account."""
    async with client_of(exchange, account) as connected:
        yield connected


async def bracket(client: Any, price: Decimal, distance: int = 300) -> dict[str, Any]:
    """Buy 0.01 BTC whatever it costs up to 1 % more, with a stop loss below and a take profit above."""
    whole = int(price)
    return dict(
        await client.v3_post_order_list_otoco(
            symbol=SYMBOL,
            workingType="LIMIT",
            workingSide="BUY",
            workingPrice=str(whole + whole // 100),
            workingTimeInForce="FOK",
            workingQuantity="0.01",
            pendingSide="SELL",
            pendingQuantity="0.00999",
            pendingAboveType="LIMIT_MAKER",
            pendingAbovePrice=str(whole + distance),
            pendingBelowType="STOP_LOSS",
            pendingBelowStopPrice=str(whole - distance),
        )
    )


async def ask_price(client: Any) -> Decimal:
    """What the market asks now."""
    return Decimal((await client.get_orderbook_ticker(symbol=SYMBOL))["askPrice"])


async def statuses(client: Any, answer: dict[str, Any]) -> list[str]:
    """How the orders of a list stand."""
    found = [await client.get_order(symbol=SYMBOL, orderId=one["orderId"]) for one in answer["orders"]]
    return [one["status"] for one in found]


async def test_the_account_has_what_was_deposited(client: Any, account: TestAccount) -> None:
    told = await client.get_account()
    assert told["uid"] == account.uid
    assert told["balances"] == [{"asset": "USDT", "free": "10000.00000000", "locked": "0.00000000"}]


async def test_five_hundred_candles_of_history_are_served(client: Any) -> None:
    for interval, length in (("1s", 1_000), ("1m", 60_000)):
        candles = await client.get_klines(symbol=SYMBOL, interval=interval, limit=500)
        assert len(candles) == 500
        assert {after[0] - before[0] for before, after in itertools.pairwise(candles)} == {length}
        assert all(Decimal(low) <= Decimal(close) <= Decimal(high) for _, _, high, low, close, *_ in candles)


async def test_a_market_order_fills_and_is_in_the_trades(client: Any) -> None:
    answer = await client.create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.01")
    assert answer["status"] == "FILLED"
    trades = await client.get_my_trades(symbol=SYMBOL)
    assert sum(Decimal(trade["qty"]) for trade in trades) == Decimal("0.01")
    btc = await client.get_asset_balance(asset="BTC")
    assert Decimal(btc["free"]) == Decimal("0.01") - sum(Decimal(trade["commission"]) for trade in trades)


async def test_a_limit_order_rests_is_seen_and_is_cancelled(client: Any) -> None:
    answer = await client.create_order(
        symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="40000"
    )
    assert (answer["status"], answer["fills"]) == ("NEW", [])
    assert [one["orderId"] for one in await client.get_open_orders(symbol=SYMBOL)] == [answer["orderId"]]
    gone = await client.cancel_order(symbol=SYMBOL, orderId=answer["orderId"])
    assert (gone["status"], gone["origClientOrderId"]) == ("CANCELED", answer["clientOrderId"])
    assert await client.get_open_orders(symbol=SYMBOL) == []
    assert (await client.get_all_orders(symbol=SYMBOL))[0]["status"] == "CANCELED"
    with pytest.raises(BinanceAPIException) as refused:
        await client.cancel_order(symbol=SYMBOL, orderId=answer["orderId"])
    assert (refused.value.code, refused.value.message) == (-2011, "Unknown order sent.")


@pytest.mark.parametrize(
    ("move", "ends"),
    [
        pytest.param(-300, ["FILLED", "FILLED", "EXPIRED"], id="stop loss"),
        pytest.param(+300, ["FILLED", "EXPIRED", "FILLED"], id="take profit"),
    ],
)
async def test_a_bracket_ends_with_the_leg_that_the_price_meets(
    exchange: PaperExchange, client: Any, account: TestAccount, move: int, ends: list[str]
) -> None:
    price = await ask_price(client)
    answer = await bracket(client, price)
    assert [one["status"] for one in answer["orderReports"]] == ["FILLED", "PENDING_NEW", "PENDING_NEW"]
    assert await statuses(client, answer) == ["FILLED", "NEW", "NEW"]
    await exchange.push_trade(SYMBOL, str(int(price) + move))
    assert await statuses(client, answer) == ends
    listed = await client.v3_get_order_list(orderListId=answer["orderListId"])
    assert listed["listOrderStatus"] == "ALL_DONE"
    assert (await exchange.account(account.uid))["balances"]["BTC"] == {"free": "0.00000000", "locked": "0.00000000"}


async def test_user_events_tell_the_life_of_a_bracket_in_order(exchange: PaperExchange, client: Any) -> None:
    price = await ask_price(client)
    told: list[dict[str, Any]] = []
    async with BinanceSocketManager(client).user_socket() as socket:
        first = (await bracket(client, price))["orders"][0]["orderId"]
        await exchange.push_trade(SYMBOL, str(int(price) - 300))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not any(one.get("L") == "ALL_DONE" for one in told):
            told.append(await asyncio.wait_for(socket.recv(), deadline - time.monotonic()))
        told.append(await asyncio.wait_for(socket.recv(), deadline - time.monotonic()))
    for one in told:
        if "i" in one:
            one["i"] -= first - 1
    assert [one for one in brief(told) if not one.endswith("PARTIALLY_FILLED")] == [
        "NEW 2 PENDING_NEW",
        "NEW 3 PENDING_NEW",
        "list EXECUTING",
        "NEW 1 NEW",
        "TRADE 1 FILLED",
        "NEW 2 NEW",
        "NEW 3 NEW",
        "outboundAccountPosition",
        "EXPIRED 3 EXPIRED",
        "NEW 2 NEW",
        "TRADE 2 FILLED",
        "list ALL_DONE",
        "outboundAccountPosition",
    ]


async def test_an_oco_is_placed_and_cancelled_as_one(client: Any) -> None:
    await client.create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.01")
    price = int(await ask_price(client))
    answer = await client.create_oco_order(
        symbol=SYMBOL,
        side="SELL",
        quantity="0.005",
        aboveType="LIMIT_MAKER",
        abovePrice=str(price + 500),
        belowType="STOP_LOSS_LIMIT",
        belowStopPrice=str(price - 500),
        belowPrice=str(price - 510),
        belowTimeInForce="GTC",
    )
    assert [one["orderListId"] for one in await client.get_open_oco_orders()] == [answer["orderListId"]]
    gone = await client.v3_delete_order_list(symbol=SYMBOL, orderListId=answer["orderListId"])
    assert gone["listOrderStatus"] == "ALL_DONE"
    assert await client.get_open_orders() == []


@pytest.mark.parametrize(
    ("socket_name", "arguments", "kind"),
    [
        pytest.param("kline_socket", (SYMBOL, "1s"), "kline", id="kline"),
        pytest.param("trade_socket", (SYMBOL,), "trade", id="trade"),
        pytest.param("aggtrade_socket", (SYMBOL,), "aggTrade", id="aggTrade"),
        pytest.param("depth_socket", (SYMBOL, None, 100), "depthUpdate", id="depth"),
        pytest.param("symbol_miniticker_socket", (SYMBOL,), "24hrMiniTicker", id="miniTicker"),
        pytest.param("symbol_ticker_socket", (SYMBOL,), "24hrTicker", id="ticker"),
    ],
)
async def test_market_streams_tell_of_the_symbol(
    client: Any, socket_name: str, arguments: tuple[Any, ...], kind: str
) -> None:
    make: Callable[..., Any] = getattr(BinanceSocketManager(client), socket_name)
    async with make(*arguments) as socket:
        event = await asyncio.wait_for(socket.recv(), DEADLINE_SECONDS)
    assert (event["e"], event["s"]) == (kind, SYMBOL)


async def test_one_second_candles_close_one_after_the_other(client: Any) -> None:
    closed: list[dict[str, Any]] = []
    async with BinanceSocketManager(client).kline_socket(SYMBOL, "1s") as socket:
        while len(closed) < 3:
            event = await asyncio.wait_for(socket.recv(), DEADLINE_SECONDS)
            if event["k"]["x"]:
                assert 0 <= event["E"] - event["k"]["T"] < 500
                closed.append(event["k"])
    assert [one["t"] - closed[0]["t"] for one in closed] == [0, 1000, 2000]
    kept = await client.get_klines(symbol=SYMBOL, interval="1s", startTime=closed[0]["t"], limit=3)
    assert [row[1:6] for row in kept] == [[one["o"], one["h"], one["l"], one["c"], one["v"]] for one in closed]


async def test_the_websocket_api_places_finds_and_cancels(client: Any) -> None:
    assert (await client.ws_get_time())["serverTime"] > 0
    placed = await client.ws_create_order(
        symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price="40000"
    )
    found = await client.ws_get_order(symbol=SYMBOL, orderId=placed["orderId"])
    assert found["status"] == "NEW"
    assert (await client.ws_cancel_order(symbol=SYMBOL, orderId=placed["orderId"]))["status"] == "CANCELED"
    with pytest.raises(BinanceAPIException) as refused:
        await client.ws_cancel_order(symbol=SYMBOL, orderId=placed["orderId"])
    assert (refused.value.code, refused.value.status_code) == (-2011, 400)
