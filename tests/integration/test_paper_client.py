"""Unmodified python-binance trades on the paper exchange over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from binance import BinanceSocketManager
from binance.exceptions import BinanceAPIException
from binance.ws.reconnecting_websocket import WSListenerState
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.paper import brief
from support.python_binance import client_of

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
DEADLINE_SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module, on free ports; each test has an account of its own."""
    async with running_paper_exchange(Options(symbols=(SYMBOL,))) as running:
        yield running


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
    """What the market asks now, once it traded by itself after the push of an earlier test and asks about that."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    (pushed,) = await client.get_recent_trades(symbol=SYMBOL, limit=1)
    while True:
        ask = Decimal((await client.get_orderbook_ticker(symbol=SYMBOL))["askPrice"])
        (last,) = await client.get_recent_trades(symbol=SYMBOL, limit=1)
        if last["id"] > pushed["id"] and abs(ask - Decimal(last["price"])) < 50:
            return ask
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


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
                assert event["E"] > event["k"]["T"]
                closed.append(event["k"])
    # A second without a trade is in no message.
    assert [one["t"] for one in closed] == sorted({one["t"] for one in closed})
    kept = await client.get_klines(symbol=SYMBOL, interval="1s", startTime=closed[0]["t"], endTime=closed[-1]["t"])
    told = {one["t"]: [one["o"], one["h"], one["l"], one["c"], one["v"]] for one in closed}
    assert {row[0]: row[1:6] for row in kept if row[8]} == told


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


GTC = {"timeInForce": "GTC"}


@pytest.mark.parametrize(
    ("order", "status"),
    [
        pytest.param({"type": "LIMIT", "price": +1000, **GTC}, "NEW", id="limit"),
        pytest.param({"type": "LIMIT", "price": +1000, "timeInForce": "IOC"}, "EXPIRED", id="IOC"),
        pytest.param({"type": "LIMIT", "price": +1000, "timeInForce": "FOK"}, "EXPIRED", id="FOK"),
        pytest.param({"type": "LIMIT", "price": +1000, "icebergQty": "0.001", **GTC}, "NEW", id="iceberg"),
        pytest.param({"type": "LIMIT_MAKER", "price": +1000}, "NEW", id="limit maker"),
        pytest.param({"type": "MARKET"}, "FILLED", id="market"),
        pytest.param({"type": "STOP_LOSS", "stopPrice": -1000}, "NEW", id="stop loss"),
        pytest.param({"type": "STOP_LOSS_LIMIT", "stopPrice": -1000, "price": -1010, **GTC}, "NEW", id="stop limit"),
        pytest.param({"type": "TAKE_PROFIT", "stopPrice": +1000}, "NEW", id="take profit"),
        pytest.param({"type": "TAKE_PROFIT_LIMIT", "stopPrice": +1000, "price": +990, **GTC}, "NEW", id="profit limit"),
        pytest.param({"type": "STOP_LOSS", "trailingDelta": 100}, "NEW", id="trailing"),
    ],
)
async def test_every_type_of_order_is_placed_and_found(
    exchange: PaperExchange, order: dict[str, Any], status: str
) -> None:
    async with client_of(exchange, await exchange.create_account(BTC="1")) as client:
        price = int(await ask_price(client))
        prices = {name: str(price + order[name]) for name in ("price", "stopPrice") if name in order}
        params = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.01"} | order | prices
        placed = await client.create_order(**params)
        found = await client.get_order(symbol=SYMBOL, orderId=placed["orderId"])
        assert (found["status"], found["type"]) == (status, order["type"])
        opened = [one["orderId"] for one in await client.get_open_orders(symbol=SYMBOL)]
        assert opened == ([placed["orderId"]] if status == "NEW" else [])


async def test_a_market_order_spends_a_sum(client: Any) -> None:
    answer = await client.create_order(symbol=SYMBOL, side="BUY", type="MARKET", quoteOrderQty="100")
    assert answer["status"] == "FILLED"
    assert 99 < Decimal(answer["cummulativeQuoteQty"]) <= 100


async def test_an_order_is_replaced_by_another(client: Any) -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    placed = await client.create_order(price="40000", **order)
    replaced = await client.cancel_replace_order(
        cancelReplaceMode="STOP_ON_FAILURE", cancelOrderId=placed["orderId"], price="41000", **order
    )
    assert (replaced["cancelResult"], replaced["newOrderResult"]) == ("SUCCESS", "SUCCESS")
    opened = await client.get_open_orders(symbol=SYMBOL)
    assert [one["orderId"] for one in opened] == [replaced["newOrderResponse"]["orderId"]]


async def test_an_oto_is_placed_found_and_cancelled(client: Any) -> None:
    placed = await client.v3_post_order_list_oto(
        symbol=SYMBOL,
        workingType="LIMIT",
        workingSide="BUY",
        workingPrice="40000",
        workingQuantity="0.01",
        workingTimeInForce="GTC",
        pendingType="MARKET",
        pendingSide="SELL",
        pendingQuantity="0.01",
    )
    assert await statuses(client, placed) == ["NEW", "PENDING_NEW"]
    listed = await client.v3_get_all_order_list()
    assert [one["orderListId"] for one in listed] == [placed["orderListId"]]
    await client.v3_delete_order_list(symbol=SYMBOL, orderListId=placed["orderListId"])
    assert await statuses(client, placed) == ["CANCELED", "CANCELED"]


async def test_a_stream_comes_back_after_the_server_dropped_it(exchange: PaperExchange, client: Any) -> None:
    async with BinanceSocketManager(client).trade_socket(SYMBOL) as trades, asyncio.timeout(DEADLINE_SECONDS):
        assert (await trades.recv())["e"] == "trade"
        assert await exchange.drop_connections() > 0
        while (await trades.recv())["e"] != "error":
            pass
        while (await trades.recv())["e"] != "trade":
            pass


async def test_user_events_come_again_when_asked_for_anew(exchange: PaperExchange, client: Any) -> None:
    for _ in range(2):
        socket = BinanceSocketManager(client).user_socket()
        await socket.connect()
        await client.create_order(symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.001")
        while (await socket.recv())["e"] != "outboundAccountPosition":
            pass
        assert await exchange.drop_connections() > 0
        while (await socket.recv()).get("type") != "BinanceWebsocketClosed":
            pass
        # The client comes back by itself, and must not be closed while it does; it does not subscribe again.
        deadline = time.monotonic() + DEADLINE_SECONDS
        while client.ws_api.ws_state != WSListenerState.STREAMING:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
