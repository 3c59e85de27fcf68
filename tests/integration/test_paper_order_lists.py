"""Unmodified python-binance replaces, amends and lists orders over real sockets, by REST and by the WebSocket API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

import pytest
import pytest_asyncio
from binance import BinanceSocketManager
from binance.exceptions import BinanceAPIException

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.python_binance import client_of
from support.signing import Sender
from support.still_market import write_still_market

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL: Final = "BTCUSDT"
PRICE: Final = 50_000
DEADLINE_SECONDS: Final = 10.0
RESTING: Final = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "price": "40000"}
WORKING: Final = {
    "symbol": SYMBOL,
    "workingType": "LIMIT",
    "workingSide": "BUY",
    "workingPrice": "40000",
    "workingQuantity": "0.01",
    "workingTimeInForce": "GTC",
    "pendingSide": "SELL",
}
ONE: Final = {"pendingType": "LIMIT_MAKER", "pendingPrice": "60000"}
PAIR: Final = {
    "pendingAboveType": "LIMIT_MAKER",
    "pendingAbovePrice": "60000",
    "pendingBelowType": "STOP_LOSS",
    "pendingBelowStopPrice": "39000",
}
OCO: Final = {
    "symbol": SYMBOL,
    "side": "SELL",
    "quantity": "0.01",
    "aboveType": "TAKE_PROFIT_LIMIT",
    "aboveStopPrice": "60000",
    "abovePrice": "59990",
    "aboveTimeInForce": "GTC",
    "belowType": "STOP_LOSS",
    "belowStopPrice": "45000",
}
OLD_OCO: Final = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.01", "price": "60000", "stopPrice": "45000"}
QUANTITY: Final = {"pendingQuantity": "0.01"}
LISTS: Final[dict[str, tuple[str, str, dict[str, str], int]]] = {
    "old oco": ("order/oco", "orderList.place", OLD_OCO, 2),
    "oco": ("orderList/oco", "orderList.place.oco", OCO, 2),
    "oto": ("orderList/oto", "orderList.place.oto", {**WORKING, **ONE, **QUANTITY}, 2),
    "otoco": ("orderList/otoco", "orderList.place.otoco", {**WORKING, **PAIR, **QUANTITY}, 3),
    "opo": ("orderList/opo", "orderList.place.opo", {**WORKING, **ONE}, 2),
    "opoco": ("orderList/opoco", "orderList.place.opoco", {**WORKING, **PAIR}, 3),
}
"""REST path, WebSocket method, parameters and number of orders of each kind."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """One exchange for the module, where BTCUSDT stands at 50000."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT=str(PRICE))
    async with running_paper_exchange(Options(symbols=(SYMBOL,), market=market)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(exchange: PaperExchange) -> AsyncIterator[Any]:
    """The client of a new account."""
    account: TestAccount = await exchange.create_account(USDT="100000", BTC="10")
    async with client_of(exchange, account) as connected:
        yield connected


async def refused(call: Awaitable[Any]) -> tuple[int, int]:
    """HTTP status and code of a refusal."""
    with pytest.raises(BinanceAPIException) as caught:
        await call
    return caught.value.status_code, caught.value.code


async def statuses(client: Any, listed: dict[str, Any]) -> set[str]:
    """How the orders of a list stand."""
    found = [await client.get_order(symbol=SYMBOL, orderId=one["orderId"]) for one in listed["orders"]]
    return {one["status"] for one in found}


@pytest.mark.parametrize("kind", LISTS)
async def test_each_list_is_placed_found_and_cancelled_by_rest(client: Any, kind: str) -> None:
    path, _, params, count = LISTS[kind]
    placed = await client._request_api("post", path, True, data=dict(params))
    assert len(placed["orderReports"]) == count
    found = await client.v3_get_order_list(orderListId=placed["orderListId"])
    assert found["orders"] == placed["orders"]
    assert [one["orderListId"] for one in await client.get_open_oco_orders()] == [placed["orderListId"]]
    gone = await client.v3_delete_order_list(symbol=SYMBOL, listClientOrderId=placed["listClientOrderId"])
    assert (gone["listOrderStatus"], await statuses(client, gone)) == ("ALL_DONE", {"CANCELED"})
    assert [one["listStatusType"] for one in await client.v3_get_all_order_list()] == ["ALL_DONE"]


@pytest.mark.parametrize("kind", LISTS)
async def test_each_list_is_placed_found_and_cancelled_by_the_websocket_api(client: Any, kind: str) -> None:
    _, method, params, count = LISTS[kind]
    placed = await client._ws_api_request(method, True, dict(params))
    assert len(placed["orderReports"]) == count
    ident = placed["orderListId"]
    assert (await client.ws_get_oco_order(orderListId=ident))["orders"] == placed["orders"]
    assert [one["orderListId"] for one in await client.ws_get_oco_open_orders()] == [ident]
    gone = await client.ws_cancel_oco_order(symbol=SYMBOL, orderListId=ident)
    assert (gone["listOrderStatus"], await statuses(client, gone)) == ("ALL_DONE", {"CANCELED"})
    assert [one["orderListId"] for one in await client._ws_api_request("allOrderLists", True, {})] == [ident]


async def test_an_order_is_replaced_by_both_apis(client: Any) -> None:
    order_id = (await client.create_order(**RESTING, quantity="0.01"))["orderId"]
    wanted = {**RESTING, "price": "41000", "quantity": "0.01", "cancelReplaceMode": "STOP_ON_FAILURE"}
    first = await client.cancel_replace_order(**wanted, cancelOrderId=order_id)
    assert (first["cancelResult"], first["newOrderResult"]) == ("SUCCESS", "SUCCESS")
    order_id = first["newOrderResponse"]["orderId"]
    second = await client.ws_cancel_and_replace_order(**wanted, cancelOrderId=order_id)
    assert second["cancelResponse"]["orderId"] == order_id
    assert len(await client.get_open_orders(symbol=SYMBOL)) == 1
    assert await refused(client.cancel_replace_order(**wanted, cancelOrderId=order_id)) == (400, -2022)
    assert await refused(client.ws_cancel_and_replace_order(**wanted, cancelOrderId=order_id)) == (400, -2022)
    order_id = second["newOrderResponse"]["orderId"]
    too_much = wanted | {"quantity": "100"}
    assert await refused(client.cancel_replace_order(**too_much, cancelOrderId=order_id)) == (409, -2021)
    assert await client.get_open_orders(symbol=SYMBOL) == []


async def test_the_websocket_api_tells_both_halves_of_a_replacement(exchange: PaperExchange) -> None:
    sender = Sender(exchange, await exchange.create_account(USDT="100000"))
    order = {**RESTING, "quantity": "0.01", "cancelReplaceMode": "ALLOW_FAILURE", "cancelOrderId": 1}
    async with exchange.session.ws_connect(exchange.ws_url + "/ws-api/v3") as socket:
        await socket.send_str(sender.frame("order.cancelReplace", order))
        answer = await socket.receive_json(timeout=DEADLINE_SECONDS)
    assert (answer["status"], answer["error"]["code"]) == (409, -2021)
    data = answer["error"]["data"]
    assert (data["cancelResult"], data["newOrderResult"]) == ("FAILURE", "SUCCESS")
    assert data["cancelResponse"] == {"code": -2011, "msg": "Unknown order sent."}
    assert data["newOrderResponse"]["status"] == "NEW"


async def test_an_order_is_amended_by_both_apis_and_its_owner_told(client: Any) -> None:
    told: list[dict[str, Any]] = []
    async with BinanceSocketManager(client).user_socket() as socket:
        order_id = (await client.create_order(**RESTING, quantity="0.03"))["orderId"]
        target = {"symbol": SYMBOL, "orderId": order_id}
        answer = await client._request_api("put", "order/amend/keepPriority", True, data=target | {"newQty": "0.02"})
        assert (answer["amendedOrder"]["orderId"], answer["amendedOrder"]["qty"]) == (order_id, "0.02000000")
        await client._ws_api_request("order.amend.keepPriority", True, target | {"newQty": "0.01"})
        listed = await client._request_api("get", "order/amendments", True, data=dict(target))
        assert [(one["origQty"], one["newQty"]) for one in listed] == [
            ("0.03000000", "0.02000000"),
            ("0.02000000", "0.01000000"),
        ]
        assert await client._ws_api_request("order.amendments", True, dict(target)) == listed
        deadline = time.monotonic() + DEADLINE_SECONDS
        while sum(one.get("x") == "REPLACED" for one in told) < 2:
            told.append(await asyncio.wait_for(socket.recv(), deadline - time.monotonic()))
    replaced = [one for one in told if one.get("x") == "REPLACED"]
    assert [(one["i"], one["q"]) for one in replaced] == [(order_id, "0.02000000"), (order_id, "0.01000000")]
    more = client._request_api("put", "order/amend/keepPriority", True, data=target | {"newQty": "0.5"})
    assert await refused(more) == (400, -2038)


async def test_all_is_cancelled_at_once(client: Any) -> None:
    assert await refused(client.cancel_all_open_orders(symbol=SYMBOL)) == (400, -2011)
    for cancel in (client.cancel_all_open_orders, client.ws_cancel_all_open_orders):
        await client.create_order(**RESTING, quantity="0.01")
        await client.create_oco_order(**OCO)
        assert ["orderReports" in one for one in await cancel(symbol=SYMBOL)] == [False, True]
        assert await client.get_open_orders(symbol=SYMBOL) == []


async def test_no_symbol_has_smart_order_routing(client: Any) -> None:
    order = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    assert await refused(client.v3_post_sor_order(**order)) == (400, -1013)
    assert await refused(client.v3_post_sor_order_test(**order)) == (400, -1013)
    assert await client.v3_get_my_allocations(symbol=SYMBOL) == []
