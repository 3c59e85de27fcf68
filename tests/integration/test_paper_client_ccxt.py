"""Unmodified ccxt trades on the paper exchange over real sockets: its addresses are the only thing that is set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import ccxt
import ccxt.pro
import pytest
import pytest_asyncio

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.still_market import write_still_market

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PAIR: Final = "BTC/USDT"
PRICE: Final = 50_000
DEADLINE_SECONDS: Final = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """One exchange for the module, where BTCUSDT stands at 50000."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT=str(PRICE), ETHUSDT="3000")
    async with running_paper_exchange(Options(symbols=("BTCUSDT", "ETHUSDT"), market=market)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def account(exchange: PaperExchange) -> TestAccount:
    """An account with money."""
    return await exchange.create_account(USDT="1000000", BTC="10")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(exchange: PaperExchange, account: TestAccount) -> AsyncIterator[Any]:
    """The client of the account."""
    options = {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}
    keys = {"apiKey": account.api_key, "secret": account.secret_key}
    made = ccxt.pro.binance({**keys, "options": options, "enableRateLimit": False})
    api = made.urls["api"]
    api |= {"public": exchange.base_url + "/api/v3", "private": exchange.base_url + "/api/v3"}
    api |= {"sapi": exchange.base_url + "/sapi/v1", "sapiV3": exchange.base_url + "/sapi/v3"}
    api["ws"] |= {"spot": exchange.ws_url + "/ws", "ws-api": {"spot": exchange.ws_url + "/ws-api/v3"}}
    try:
        yield made
    finally:
        await made.close()


async def test_discovery_finds_markets_currencies_fees_and_a_system_that_works(client: Any) -> None:
    markets = await client.load_markets()
    assert sorted(markets) == [PAIR, "ETH/USDT"]
    market = markets[PAIR]
    assert (market["spot"], market["margin"], market["active"]) == (True, False, True)
    assert (market["precision"]["price"], market["precision"]["amount"]) == (0.01, 0.00001)
    assert market["limits"]["cost"]["min"] == 5
    assert set(client.currencies) >= {"BTC", "ETH", "USDT"}
    assert (await client.fetch_status())["status"] == "ok"
    assert abs(await client.fetch_time() - client.milliseconds()) < 60_000
    fees = await client.fetch_trading_fees()
    assert (fees[PAIR]["maker"], fees[PAIR]["taker"]) == (0.001, 0.001)


async def test_market_data_is_understood(client: Any) -> None:
    book = await client.fetch_order_book(PAIR, limit=5)
    assert (book["bids"][0][0], len(book["asks"])) == (PRICE - 0.01, 5)
    assert (await client.fetch_ticker(PAIR))["bid"] == PRICE - 0.01
    assert set(await client.fetch_tickers()) == {PAIR, "ETH/USDT"}
    assert (await client.fetch_bids_asks())[PAIR]["ask"] == PRICE + 0.01
    candles = await client.fetch_ohlcv(PAIR, "1m", limit=100)
    assert len(candles) == 100
    await client.create_order(PAIR, "market", "buy", 0.001)
    assert (await client.fetch_trades(PAIR, limit=1))[0]["price"] == PRICE + 0.01


async def test_the_account_is_told(exchange: PaperExchange, client: Any, account: TestAccount) -> None:
    told = await client.fetch_balance()
    kept = (await exchange.account(account.uid))["balances"]
    assert {asset: (told[asset]["free"], told[asset]["used"]) for asset in kept} == {
        asset: (float(one["free"]), float(one["locked"])) for asset, one in kept.items()
    }


@pytest_asyncio.fixture(loop_scope="module")
async def no_orders(client: Any) -> None:
    """Nothing is open."""
    if await client.fetch_open_orders(PAIR):
        await client.cancel_all_orders(PAIR)


@pytest.mark.usefixtures("no_orders")
@pytest.mark.parametrize(
    ("order", "status"),
    [
        pytest.param(("limit", "buy", 49_000.0, {}), "open", id="limit"),
        pytest.param(("limit", "buy", 50_100.0, {}), "closed", id="limit that takes"),
        pytest.param(("limit", "buy", 49_000.0, {"timeInForce": "IOC"}), "expired", id="IOC"),
        pytest.param(("limit", "buy", 49_000.0, {"timeInForce": "FOK"}), "expired", id="FOK"),
        pytest.param(("limit", "sell", 51_000.0, {"postOnly": True}), "open", id="limit maker"),
        pytest.param(("limit", "sell", 51_000.0, {"icebergQty": "0.001"}), "open", id="iceberg"),
        pytest.param(("market", "sell", None, {}), "closed", id="market"),
        pytest.param(("market", "buy", None, {"cost": 100}), "closed", id="market by cost"),
        pytest.param(("market", "sell", None, {"stopLossPrice": 49_000}), "open", id="stop loss"),
        pytest.param(("limit", "sell", 48_900.0, {"stopLossPrice": 49_000}), "open", id="stop loss limit"),
        pytest.param(("market", "sell", None, {"takeProfitPrice": 51_000}), "open", id="take profit"),
        pytest.param(("limit", "sell", 51_000.0, {"takeProfitPrice": 51_000}), "open", id="take profit limit"),
        pytest.param(
            ("market", "sell", None, {"trailingPercent": 1, "stopLossOrTakeProfit": "stopLoss"}), "open", id="trailing"
        ),
    ],
)
async def test_every_type_of_order_is_placed_and_found(client: Any, order: tuple[Any, ...], status: str) -> None:
    kind, side, price, params = order
    placed = await client.create_order(PAIR, kind, side, 0.01, price, params)
    found = await client.fetch_order(placed["id"], PAIR)
    assert found["status"] == status
    assert (found["id"] in [one["id"] for one in await client.fetch_open_orders(PAIR)]) == (status == "open")
    assert found["id"] in [one["id"] for one in await client.fetch_orders(PAIR)]
    if status == "closed":
        trades = await client.fetch_order_trades(placed["id"], PAIR)
        assert sum(trade["amount"] for trade in trades) == pytest.approx(found["filled"])
        assert all(trade["fee"]["cost"] > 0 for trade in trades)


@pytest.mark.usefixtures("no_orders")
async def test_an_order_is_tested_edited_and_cancelled(client: Any) -> None:
    assert (await client.create_order(PAIR, "limit", "buy", 0.01, 40_000, {"test": True}))["id"] is None
    placed = await client.create_order(PAIR, "limit", "buy", 0.01, 40_000)
    edited = await client.edit_order(placed["id"], PAIR, "limit", "buy", 0.02, 41_000)
    assert (edited["price"], edited["amount"], edited["status"]) == (41_000, 0.02, "open")
    assert (await client.fetch_order(placed["id"], PAIR))["status"] == "canceled"
    assert (await client.cancel_order(edited["id"], PAIR))["status"] == "canceled"
    with pytest.raises(ccxt.OrderNotFound):
        await client.cancel_order(edited["id"], PAIR)
    for price in (40_000, 41_000):
        await client.create_order(PAIR, "limit", "buy", 0.01, price)
    assert len(await client.cancel_all_orders(PAIR)) == 2
    assert await client.fetch_open_orders(PAIR) == []


@pytest.mark.usefixtures("no_orders")
async def test_order_lists_are_placed_found_and_cancelled(client: Any) -> None:
    oco = await client.private_post_orderlist_oco(
        {
            "symbol": "BTCUSDT",
            "side": "SELL",
            "quantity": "0.01",
            "aboveType": "LIMIT_MAKER",
            "abovePrice": "55000",
            "belowType": "STOP_LOSS",
            "belowStopPrice": "45000",
        }
    )
    lists = await client.private_get_openorderlist()
    assert [one["orderListId"] for one in lists] == [oco["orderListId"]]
    assert len(await client.fetch_open_orders(PAIR)) == 2
    gone = await client.private_delete_orderlist({"symbol": "BTCUSDT", "orderListId": oco["orderListId"]})
    assert gone["listOrderStatus"] == "ALL_DONE"


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        pytest.param(lambda c: c.create_order(PAIR, "limit", "buy", 100, 40_000), ccxt.InsufficientFunds, id="funds"),
        pytest.param(lambda c: c.create_order(PAIR, "limit", "buy", 0.0001, 40_000), ccxt.BadRequest, id="notional"),
        pytest.param(
            lambda c: c.create_order(PAIR, "limit", "buy", 0.01, 51_000, {"postOnly": True}),
            ccxt.OrderImmediatelyFillable,
            id="post only",
        ),
        pytest.param(lambda c: c.fetch_order("999999", PAIR), ccxt.OrderNotFound, id="no such order"),
    ],
)
async def test_refusals_are_recognised(
    client: Any, refused: Callable[[Any], Awaitable[Any]], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await refused(client)


async def watched(wanted: Callable[[Any], bool], watch: Callable[[], Awaitable[Any]]) -> Any:
    """What a watching method gives, once it is as wanted."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not wanted(seen := await watch()):
            pass
    return seen


async def test_streams_tell_of_the_market(exchange: PaperExchange, client: Any) -> None:
    async def stir() -> None:
        for turn in range(1000):
            await exchange.push_trade("BTCUSDT", f"{PRICE + (0.01 if turn % 2 else -0.01):.2f}")
            await asyncio.sleep(0.05)

    await client.load_markets()
    stirring = asyncio.create_task(stir())
    try:
        for watch in (
            lambda: client.watch_trades(PAIR),
            lambda: client.watch_ticker(PAIR),
            lambda: client.watch_ohlcv(PAIR, "1m"),
            lambda: client.watch_bids_asks([PAIR]),
        ):
            assert await watched(bool, watch)
        book = await watched(lambda one: bool(one["bids"]), lambda: client.watch_order_book(PAIR))
        assert book["bids"][0][0] < book["asks"][0][0]
    finally:
        stirring.cancel()


async def test_user_events_come_and_come_again_after_the_server_dropped_the_socket(
    exchange: PaperExchange, client: Any
) -> None:
    await client.load_markets()
    for _ in range(2):
        await client.authenticate({"type": "spot"})
        opened = asyncio.create_task(client.watch_orders(PAIR))
        placed = await client.create_order_ws(PAIR, "limit", "buy", 0.01, 40_000)
        seen = (await asyncio.wait_for(opened, DEADLINE_SECONDS))[-1]
        assert (seen["id"], seen["status"]) == (placed["id"], "open")
        ended = asyncio.create_task(client.watch_orders(PAIR))
        await client.cancel_order_ws(placed["id"], PAIR)
        seen = (await asyncio.wait_for(ended, DEADLINE_SECONDS))[-1]
        assert (seen["id"], seen["status"]) == (placed["id"], "canceled")
        bought = asyncio.create_task(client.watch_my_trades(PAIR))
        balance = asyncio.create_task(client.watch_balance())
        placed = await client.create_order_ws(PAIR, "market", "buy", 0.01)
        assert (await asyncio.wait_for(bought, DEADLINE_SECONDS))[-1]["order"] == placed["id"]
        assert (await asyncio.wait_for(balance, DEADLINE_SECONDS))["BTC"]["free"] > 0
        dropped = asyncio.create_task(client.watch_orders(PAIR))
        await asyncio.sleep(0)
        assert await exchange.drop_connections() > 0
        with pytest.raises(ccxt.NetworkError):
            await asyncio.wait_for(dropped, DEADLINE_SECONDS)
