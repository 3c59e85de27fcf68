"""Binance's own binance-sdk-spot, unmodified, trades on the paper exchange over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
import pytest_asyncio
from binance_common.configuration import (
    ConfigurationRestAPI,
    ConfigurationWebSocketAPI,
    ConfigurationWebSocketStreams,
)
from binance_common.errors import BadRequestError, UnauthorizedError
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_api.models import OutboundAccountPosition
from pydantic import BaseModel

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.signing import Sender
from support.spot_scene import SpotScene
from support.still_market import write_still_market

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL: Final = "BTCUSDT"
PRICE: Final = 50_000
DEADLINE_SECONDS: Final = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """One exchange for the module, where BTCUSDT stands at 50000."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT=str(PRICE))
    async with running_paper_exchange(Options(symbols=(SYMBOL,), market=market)) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def account(exchange: PaperExchange) -> TestAccount:
    """An account with money."""
    return await exchange.create_account(USDT="1000000", BTC="10")


def client_of(exchange: PaperExchange, account: TestAccount) -> Spot:
    """The client of an account; its addresses are the only thing that is set, beside how long it waits."""
    keys = {"api_key": account.api_key, "api_secret": account.secret_key}
    return Spot(
        config_rest_api=ConfigurationRestAPI(**keys, base_path=exchange.base_url, timeout=10_000),
        config_ws_api=ConfigurationWebSocketAPI(**keys, stream_url=exchange.ws_url + "/ws-api/v3"),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=exchange.ws_url + "/stream"),
    )


class Rest:
    """The REST half of the client, which blocks, called from threads."""

    def __init__(self, client: Spot) -> None:
        self._api = client.rest_api

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(**params: Any) -> Any:
            response = await asyncio.to_thread(getattr(self._api, name), **params)
            return response.data()

        return call


@pytest.fixture(scope="module")
def client(exchange: PaperExchange, account: TestAccount) -> Spot:
    return client_of(exchange, account)


@pytest.fixture(scope="module")
def rest(client: Spot) -> Rest:
    return Rest(client)


async def test_discovery_is_answered(rest: Rest) -> None:
    await rest.ping()
    assert (await rest.time()).server_time > 0
    info = await rest.exchange_info(symbol=SYMBOL)
    assert [(one.symbol, one.base_asset, one.status) for one in info.symbols] == [(SYMBOL, "BTC", "TRADING")]
    filters = {one.actual_instance.filter_type for one in info.symbols[0].filters}
    assert filters >= {"PRICE_FILTER", "LOT_SIZE", "NOTIONAL", "PERCENT_PRICE_BY_SIDE"}
    assert (await rest.depth(symbol=SYMBOL, limit=5)).bids[0][0] == f"{PRICE - 0.01:.8f}"
    assert len(await rest.klines(symbol=SYMBOL, interval="1m", limit=10)) == 10


async def test_the_account_is_told(exchange: PaperExchange, rest: Rest, account: TestAccount) -> None:
    told = await rest.get_account()
    kept = (await exchange.account(account.uid))["balances"]
    assert told.uid == account.uid
    assert {one.asset: one.free for one in told.balances} == {asset: one["free"] for asset, one in kept.items()}
    assert (await rest.account_commission(symbol=SYMBOL)).standard_commission.maker == "0.00100000"
    assert [one.interval for one in await rest.rate_limit_order()] == ["SECOND", "DAY"]


@pytest_asyncio.fixture(loop_scope="module")
async def no_orders(rest: Rest) -> None:
    """Nothing is open."""
    if await rest.get_open_orders(symbol=SYMBOL):
        await rest.delete_open_orders(symbol=SYMBOL)


GTC: Final = {"time_in_force": "GTC"}


@pytest.mark.usefixtures("no_orders")
@pytest.mark.parametrize(
    ("kind", "params", "status"),
    [
        pytest.param("LIMIT", {"price": 49_000.0, **GTC}, "NEW", id="limit"),
        pytest.param("LIMIT", {"price": 50_100.0, "side": "BUY", **GTC}, "FILLED", id="limit that takes"),
        pytest.param("LIMIT", {"price": 51_000.0, "time_in_force": "IOC"}, "EXPIRED", id="IOC"),
        pytest.param("LIMIT", {"price": 51_000.0, "time_in_force": "FOK"}, "EXPIRED", id="FOK"),
        pytest.param("LIMIT", {"price": 51_000.0, "iceberg_qty": 0.001, **GTC}, "NEW", id="iceberg"),
        pytest.param("LIMIT_MAKER", {"price": 51_000.0}, "NEW", id="limit maker"),
        pytest.param("MARKET", {}, "FILLED", id="market"),
        pytest.param("MARKET", {"quantity": None, "quote_order_qty": 100.0}, "FILLED", id="market by quote"),
        pytest.param("STOP_LOSS", {"stop_price": 49_000.0}, "NEW", id="stop loss"),
        pytest.param(
            "STOP_LOSS_LIMIT", {"stop_price": 49_000.0, "price": 48_900.0, **GTC}, "NEW", id="stop loss limit"
        ),
        pytest.param("TAKE_PROFIT", {"stop_price": 51_000.0}, "NEW", id="take profit"),
        pytest.param(
            "TAKE_PROFIT_LIMIT", {"stop_price": 51_000.0, "price": 51_000.0, **GTC}, "NEW", id="take profit limit"
        ),
        pytest.param("STOP_LOSS", {"trailing_delta": 100}, "NEW", id="trailing"),
    ],
)
async def test_every_type_of_order_is_placed_and_found(
    rest: Rest, kind: str, params: dict[str, Any], status: str
) -> None:
    side = "BUY" if status == "NEW" and kind == "LIMIT" and "iceberg_qty" not in params else "SELL"
    order = {"symbol": SYMBOL, "side": side, "quantity": 0.01, "new_order_resp_type": "FULL"} | params
    placed = await rest.new_order(type=kind, **order)
    found = await rest.get_order(symbol=SYMBOL, order_id=placed.order_id)
    assert (placed.status, found.status, found.type) == (status, status, kind)
    opened = [one.order_id for one in await rest.get_open_orders(symbol=SYMBOL)]
    assert (placed.order_id in opened) == (status == "NEW")
    assert placed.order_id in [one.order_id for one in await rest.all_orders(symbol=SYMBOL)]
    if status == "FILLED":
        trades = await rest.my_trades(symbol=SYMBOL, order_id=placed.order_id)
        assert sum(float(one.qty) for one in trades) == pytest.approx(float(found.executed_qty))


@pytest.mark.usefixtures("no_orders")
async def test_an_order_is_tested_replaced_amended_and_cancelled(rest: Rest) -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 0.01}
    await rest.order_test(price=40_000.0, **order)
    placed = await rest.new_order(price=40_000.0, **order)
    replaced = await rest.order_cancel_replace(
        price=41_000.0, cancel_replace_mode="STOP_ON_FAILURE", cancel_order_id=placed.order_id, **order
    )
    new = replaced.new_order_response
    assert (replaced.cancel_result, replaced.new_order_result, new.price) == ("SUCCESS", "SUCCESS", "41000.00000000")
    amended = await rest.order_amend_keep_priority(symbol=SYMBOL, order_id=new.order_id, new_qty=0.005)
    assert (amended.amended_order.order_id, amended.amended_order.qty) == (new.order_id, "0.00500000")
    assert [one.new_qty for one in await rest.order_amendments(symbol=SYMBOL, order_id=new.order_id)] == ["0.00500000"]
    assert (await rest.delete_order(symbol=SYMBOL, order_id=new.order_id)).status == "CANCELED"
    with pytest.raises(BadRequestError) as refused:
        await rest.delete_order(symbol=SYMBOL, order_id=new.order_id)
    assert "Unknown order sent." in str(refused.value)


PAIR: Final = {
    "above_type": "LIMIT_MAKER",
    "above_price": 55_000.0,
    "below_type": "STOP_LOSS_LIMIT",
    "below_stop_price": 45_500.0,
    "below_price": 45_000.0,
    "below_time_in_force": "GTC",
}
WORKING: Final = {
    "working_type": "LIMIT",
    "working_side": "BUY",
    "working_price": 40_000.0,
    "working_quantity": 0.01,
    "working_time_in_force": "GTC",
}


@pytest.mark.usefixtures("no_orders")
@pytest.mark.parametrize(
    ("method", "params", "legs"),
    [
        pytest.param("order_list_oco", {"side": "SELL", "quantity": 0.01, **PAIR}, 2, id="OCO"),
        pytest.param(
            "order_list_oto",
            WORKING | {"pending_type": "MARKET", "pending_side": "SELL", "pending_quantity": 0.01},
            2,
            id="OTO",
        ),
        pytest.param(
            "order_list_otoco",
            WORKING
            | {"pending_side": "SELL", "pending_quantity": 0.01}
            | {f"pending_{name}": value for name, value in PAIR.items()},
            3,
            id="OTOCO",
        ),
        pytest.param("order_list_opo", WORKING | {"pending_type": "MARKET", "pending_side": "SELL"}, 2, id="OPO"),
        pytest.param(
            "order_list_opoco",
            WORKING | {"pending_side": "SELL"} | {f"pending_{name}": value for name, value in PAIR.items()},
            3,
            id="OPOCO",
        ),
    ],
)
async def test_every_order_list_is_placed_found_and_cancelled(
    rest: Rest, method: str, params: dict[str, Any], legs: int
) -> None:
    placed = await getattr(rest, method)(symbol=SYMBOL, **params)
    assert (len(placed.orders), len(placed.order_reports)) == (legs, legs)
    found = await rest.get_order_list(order_list_id=placed.order_list_id)
    assert found.list_order_status == "EXECUTING"
    assert placed.order_list_id in [one.order_list_id for one in await rest.open_order_list()]
    gone = await rest.delete_order_list(symbol=SYMBOL, order_list_id=placed.order_list_id)
    assert (gone.list_order_status, len(gone.order_reports)) == ("ALL_DONE", legs)
    assert placed.order_list_id in [one.order_list_id for one in await rest.all_order_list()]


METHODS: Final = {
    "account_commission": "GET /api/v3/account/commission",
    "agg_trades": "GET /api/v3/aggTrades",
    "all_order_list": "GET /api/v3/allOrderList",
    "all_orders": "GET /api/v3/allOrders",
    "avg_price": "GET /api/v3/avgPrice",
    "delete_open_orders": "DELETE /api/v3/openOrders",
    "delete_order": "DELETE /api/v3/order",
    "delete_order_list": "DELETE /api/v3/orderList",
    "depth": "GET /api/v3/depth",
    "exchange_info": "GET /api/v3/exchangeInfo",
    "execution_rules": "GET /api/v3/executionRules",
    "get_account": "GET /api/v3/account",
    "get_open_orders": "GET /api/v3/openOrders",
    "get_order": "GET /api/v3/order",
    "get_order_list": "GET /api/v3/orderList",
    "get_trades": "GET /api/v3/trades",
    "historical_block_trades": "GET /api/v3/historicalBlockTrades",
    "historical_trades": "GET /api/v3/historicalTrades",
    "klines": "GET /api/v3/klines",
    "my_allocations": "GET /api/v3/myAllocations",
    "my_filters": "GET /api/v3/myFilters",
    "my_prevented_matches": "GET /api/v3/myPreventedMatches",
    "my_trades": "GET /api/v3/myTrades",
    "new_order": "POST /api/v3/order",
    "open_order_list": "GET /api/v3/openOrderList",
    "order_amend_keep_priority": "PUT /api/v3/order/amend/keepPriority",
    "order_amendments": "GET /api/v3/order/amendments",
    "order_cancel_replace": "POST /api/v3/order/cancelReplace",
    "order_list_oco": "POST /api/v3/orderList/oco",
    "order_list_oto": "POST /api/v3/orderList/oto",
    "order_list_otoco": "POST /api/v3/orderList/otoco",
    "order_test": "POST /api/v3/order/test",
    "ping": "GET /api/v3/ping",
    "rate_limit_order": "GET /api/v3/rateLimit/order",
    "reference_price": "GET /api/v3/referencePrice",
    "reference_price_calculation": "GET /api/v3/referencePrice/calculation",
    "ticker": "GET /api/v3/ticker",
    "ticker24hr": "GET /api/v3/ticker/24hr",
    "ticker_book_ticker": "GET /api/v3/ticker/bookTicker",
    "ticker_price": "GET /api/v3/ticker/price",
    "ticker_trading_day": "GET /api/v3/ticker/tradingDay",
    "time": "GET /api/v3/time",
    "ui_klines": "GET /api/v3/uiKlines",
}
UNKNOWN: Final = {"delete_order_list": {"order_reports.selfTradePreventionMode"}}
"""Fields that the client's models forgot; the documentation shows them."""


@pytest.mark.usefixtures("no_orders")
@pytest.mark.parametrize("method", METHODS)
async def test_the_clients_models_know_each_field_and_type_of_an_answer(
    exchange: PaperExchange, account: TestAccount, rest: Rest, method: str
) -> None:
    params = await SpotScene(Sender(exchange, account)).params(METHODS[method])
    data = await getattr(rest, method)(**{snake(name): value for name, value in params.items()})
    assert unknown_fields(data) == UNKNOWN.get(method, set())


def snake(name: str) -> str:
    return re.sub(r"(?=[A-Z])", "_", name).lower()


def unknown_fields(data: Any, path: str = "") -> set[str]:
    """Fields of an answer that its model does not have; the model itself refuses a wrong type."""
    if isinstance(data, list):
        return set().union(*(unknown_fields(one, path) for one in data))
    if getattr(data, "actual_instance", None) is not None:
        return unknown_fields(data.actual_instance, path)
    if not isinstance(data, BaseModel):
        return set()
    parts = {name: getattr(data, name) for name in type(data).model_fields}
    more = parts.pop("additional_properties", None) or {}
    where = f"{path}." if path else ""
    return {where + name for name in more}.union(*(unknown_fields(v, where + n) for n, v in parts.items()))


async def test_a_wrong_secret_and_a_wrong_key_are_recognised(exchange: PaperExchange, account: TestAccount) -> None:
    wrong = TestAccount(account.uid, account.api_key, "x" * 64)
    with pytest.raises(BadRequestError):
        await Rest(client_of(exchange, wrong)).get_account()
    with pytest.raises(UnauthorizedError):
        await Rest(client_of(exchange, TestAccount(0, "y" * 64, "x" * 64))).get_account()


@asynccontextmanager
async def connection_of(part: Any) -> AsyncIterator[Any]:
    """A connection of the WebSocket API or the streams."""
    connection = await part.create_connection()
    try:
        yield connection
    finally:
        await connection.close_connection(close_session=True)


async def test_market_streams_tell_of_the_symbol(exchange: PaperExchange, client: Spot) -> None:
    async with connection_of(client.websocket_streams) as connection:
        told: asyncio.Queue[Any] = asyncio.Queue()
        for method, params in (
            ("agg_trade", {}),
            ("trade", {}),
            ("book_ticker", {}),
            ("kline", {"interval": "1m"}),
            ("diff_book_depth", {"update_speed": "100ms"}),
            ("partial_book_depth", {"levels": "5", "update_speed": "100ms"}),
            ("mini_ticker", {}),
        ):
            stream = await getattr(connection, method)(symbol=SYMBOL.lower(), **params)
            stream.on("message", told.put_nowait)
            await exchange.push_trade(SYMBOL, f"{PRICE - 0.01}")
            await exchange.push_trade(SYMBOL, f"{PRICE + 0.01}")
            assert await asyncio.wait_for(told.get(), DEADLINE_SECONDS)
            await stream.unsubscribe()
            while not told.empty():
                told.get_nowait()


async def test_user_events_come_and_come_again_after_the_server_dropped_the_socket(
    exchange: PaperExchange, client: Spot
) -> None:
    for _ in range(2):
        connection = await client.websocket_api.create_connection()
        told: asyncio.Queue[Any] = asyncio.Queue()
        closed = asyncio.Event()
        connection.on_connection("close", closed.set)
        subscribed = await connection.user_data_stream_subscribe_signature()
        subscribed.stream.on("message", told.put_nowait)
        placed = await connection.order_place(symbol=SYMBOL, side="BUY", type="MARKET", quantity=0.01)
        events = []
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not events or not isinstance(events[-1], OutboundAccountPosition):
                events.append((await told.get()).actual_instance)
        order_id = placed.data().result.order_id
        assert [(one.x, one.X, one.i) for one in events[:-1]] == [
            ("NEW", "NEW", order_id),
            ("TRADE", "FILLED", order_id),
        ]
        assert await exchange.drop_connections() > 0
        await asyncio.wait_for(closed.wait(), DEADLINE_SECONDS)
        await connection.close_connection(close_session=True)
