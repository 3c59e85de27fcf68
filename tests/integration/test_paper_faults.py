"""Faults of the paper exchange as a client sees them, over real sockets: calls on REST and on the WebSocket API."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from paper_exchange.server.app import wall_clock_ms
from paper_exchange.testing import PaperExchange
from support.paper_ws import Trader, connected, rest, trader

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "20000"}


async def open_orders(exchange: PaperExchange, who: Trader) -> int:
    """How many orders of an account are open, as the exchange has it."""
    return len((await exchange.account(who.uid))["openOrders"])


@pytest.mark.parametrize(
    ("kind", "executed"),
    [pytest.param("lost_answer", 1, id="after"), pytest.param("lost_request", 0, id="before")],
)
async def test_a_connection_is_cut_before_or_after_an_order_is_executed(
    exchange: PaperExchange, kind: str, executed: int
) -> None:
    who, other = await trader(exchange, USDT="10000"), await trader(exchange, USDT="10000")
    await exchange.start_fault(kind, accounts=who.uid, endpoints=["POST /api/v3/order", "order.place"])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await rest(exchange, who, "POST", "/api/v3/order", **ORDER)
    assert await open_orders(exchange, who) == executed
    # Of another account nothing is lost, nor is another call.
    assert (await rest(exchange, other, "POST", "/api/v3/order", **ORDER))[0] == 200
    assert (await rest(exchange, who, "GET", "/api/v3/account"))[0] == 200
    async with connected(exchange) as talk:
        await talk.socket.send_json({"id": 1, "method": "order.place", "params": who.key.signed(**ORDER)})
        await talk.closed()
        assert talk.events == []
    assert await open_orders(exchange, who) == executed * 2


async def test_an_answer_never_comes_on_a_connection_that_stays_open(exchange: PaperExchange) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("lost_answer", accounts=who.uid, cut=False)
    with pytest.raises(TimeoutError):
        await rest(exchange, who, "POST", "/api/v3/order", timeout=0.2, **ORDER)
    async with connected(exchange) as talk:
        await talk.socket.send_json({"id": 1, "method": "order.place", "params": who.key.signed(**ORDER)})
        # What is asked later is answered.
        assert (await talk.ask("ping"))["status"] == 200
    assert await open_orders(exchange, who) == 2


@pytest.mark.parametrize(
    ("fault", "status", "code", "executed"),
    [
        pytest.param({"kind": "error"}, 500, -1000, 0, id="-1000"),
        pytest.param({"kind": "error", "code": -1001, "status": 503}, 503, -1001, 0, id="-1001"),
        pytest.param({"kind": "error", "code": -1008}, 503, -1008, 0, id="-1008"),
        pytest.param({"kind": "error_after", "code": -1006}, 500, -1006, 1, id="-1006 after acceptance"),
        pytest.param({"kind": "error_after"}, 504, -1007, 1, id="-1007 after acceptance"),
        pytest.param({"kind": "error_after", "code": -1000, "status": 502}, 502, -1000, 1, id="502 after acceptance"),
        pytest.param({"kind": "order_refused"}, 400, -2010, 0, id="-2010"),
        pytest.param({"kind": "order_refused", "code": -1013}, 400, -1013, 0, id="-1013"),
        pytest.param({"kind": "maintenance", "form": -1016}, 503, -1016, 0, id="-1016"),
    ],
)
async def test_an_error_is_answered_before_or_after_an_order_is_executed(
    exchange: PaperExchange, fault: dict[str, Any], status: int, code: int, executed: int
) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault(**fault, accounts=who.uid)
    told = await rest(exchange, who, "POST", "/api/v3/order", **ORDER)
    assert (told[0], told[1]["code"]) == (status, code)
    assert await open_orders(exchange, who) == executed
    async with connected(exchange) as talk:
        answer = await talk.ask("order.place", who.key.signed(**ORDER))
        assert (answer["status"], answer["error"]["code"]) == (status, code)
        assert answer["error"]["msg"] == told[1]["msg"]
    assert await open_orders(exchange, who) == executed * 2


@pytest.mark.parametrize("form", [403, 410])
async def test_maintenance_answers_with_a_page_of_html(exchange: PaperExchange, form: int) -> None:
    await exchange.start_fault("maintenance", form=form)
    async with exchange.session.get(exchange.base_url + "/api/v3/time") as answer:
        assert (answer.status, answer.content_type) == (form, "text/html")
    for path in ("/ws/btcusdt@trade", "/stream", "/ws-api/v3"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await exchange.session.ws_connect(exchange.ws_url + path)
        assert refused.value.status == form


@pytest.mark.parametrize(("kind", "status"), [("rate_limited", 429), ("banned", 418)])
async def test_a_limit_is_told_with_when_to_come_back(exchange: PaperExchange, kind: str, status: int) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault(kind, retryAfter=120, endpoints=["* /api/*", "order.place"])
    told, body, headers = await rest(exchange, who, "GET", "/api/v3/account")
    assert (told, body["code"], headers["Retry-After"]) == (status, -1003, "120")
    async with connected(exchange) as talk:
        error = (await talk.ask("order.place", who.key.signed(**ORDER)))["error"]
        assert error["data"]["retryAfter"] - error["data"]["serverTime"] == 120_000
        if kind == "banned":
            assert (await talk.closed())[0] == 1008
        else:
            assert (await talk.ask("ping"))["status"] == 200


async def test_a_late_call_is_measured_when_it_is_executed_and_a_late_answer_changes_nothing(
    exchange: PaperExchange,
) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("delay", seconds=0.3, accounts=who.uid, count=2)
    assert (await rest(exchange, who, "POST", "/api/v3/order", recvWindow="200", **ORDER))[1]["code"] == -1021
    async with connected(exchange) as talk:
        begun = time.monotonic()
        await talk.socket.send_json({"id": 8, "method": "order.place", "params": who.key.signed(**ORDER)})
        # A later request is not held up.
        assert (await talk.ask("ping"))["status"] == 200
        assert (await talk.until(lambda event: event.get("id") == 8))["status"] == 200
        assert time.monotonic() - begun >= 0.3
        await exchange.start_fault("answer_delay", seconds=1, accounts=who.uid)
        waiting = asyncio.create_task(rest(exchange, who, "POST", "/api/v3/order", **ORDER))
        await talk.socket.send_json({"id": 9, "method": "order.place", "params": who.key.signed(**ORDER)})
        begun = time.monotonic()
        while await open_orders(exchange, who) < 3:
            assert not waiting.done()
        assert (await talk.until(lambda event: event.get("id") == 9))["status"] == 200
        assert time.monotonic() - begun >= 0.9
        assert (await waiting)[0] == 200


async def test_a_clock_that_is_ahead_is_told_and_refuses_what_was_signed_by_a_right_one(
    exchange: PaperExchange,
) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("clock_skew", milliseconds=60_000)
    before = wall_clock_ms()
    async with exchange.session.get(exchange.base_url + "/api/v3/time") as answer:
        ahead = (await answer.json())["serverTime"]
    assert 60_000 <= ahead - before < 70_000
    assert (await rest(exchange, who, "POST", "/api/v3/order", **ORDER))[1]["code"] == -1021
    shifted = str(before + 60_000)
    status, body, _ = await rest(exchange, who, "POST", "/api/v3/order", timestamp=shifted, **ORDER)
    assert status == 200
    # The engine's time is the true one.
    assert abs(body["transactTime"] - before) < 10_000
    async with connected(exchange) as talk:
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["error"]["code"] == -1021
        assert (await talk.ask("time"))["result"]["serverTime"] - before >= 60_000
        placed = await talk.ask("order.place", who.key.signed(timestamp=int(shifted), **ORDER))
        assert placed["status"] == 200


async def test_a_protection_is_refused_after_its_entry_was_taken(exchange: PaperExchange) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("list_refused", code=-2010, count=1)
    entry = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    assert (await rest(exchange, who, "POST", "/api/v3/order", **entry))[1]["status"] == "FILLED"
    price = int(await exchange.last_price(SYMBOL))
    oco = {
        "symbol": SYMBOL,
        "side": "SELL",
        "quantity": "0.009",
        "aboveType": "LIMIT_MAKER",
        "abovePrice": str(price + 5000),
        "belowType": "STOP_LOSS",
        "belowStopPrice": str(price - 5000),
    }
    status, body, _ = await rest(exchange, who, "POST", "/api/v3/orderList/oco", **oco)
    assert (status, body["code"]) == (400, -2010)
    assert (await rest(exchange, who, "POST", "/api/v3/orderList/oco", **oco))[0] == 200


async def test_faults_are_shown_ended_one_by_one_and_counted(exchange: PaperExchange) -> None:
    first = await exchange.start_fault("error", endpoints="GET /api/v3/time", count=2)
    second = await exchange.start_fault("delay", seconds=0.001, endpoints="GET /api/v3/time")
    for status in (500, 500, 200):
        async with exchange.session.get(exchange.base_url + "/api/v3/time") as answer:
            assert answer.status == status
    async with exchange.session.get(exchange.control_url + "/control/faults") as answer:
        shown = (await answer.json())["faults"]
    assert [(one["id"], one["kind"], one["met"], one["applied"]) for one in shown] == [(second, "delay", 3, 3)]
    async with exchange.session.get(exchange.control_url + "/metrics") as answer:
        text = await answer.text()
    assert "paper_exchange_faults_active 1.0" in text
    assert 'paper_exchange_faults_applied_total{kind="delay"}' in text
    async with exchange.session.delete(f"{exchange.control_url}/control/faults/{first}") as answer:
        assert (answer.status, (await answer.json())["error"].split(":")[0]) == (404, "id")
    async with exchange.session.delete(f"{exchange.control_url}/control/faults/{second}") as answer:
        assert (answer.status, await answer.json()) == (200, {"faults": []})


async def test_a_run_writes_down_what_it_did_and_the_plan_does_it_again(exchange: PaperExchange) -> None:
    async def run(calls: int = 30) -> list[int]:
        statuses = []
        for _ in range(calls):
            async with exchange.session.get(exchange.base_url + "/api/v3/ping") as answer:
                statuses.append(answer.status)
        return statuses

    await exchange.start_fault("error", endpoints="GET /api/v3/ping", probability=0.5, seed=3)
    statuses = await run()
    await exchange.clear_faults()
    async with exchange.session.get(exchange.control_url + "/control/faults/plan") as answer:
        plan = [step["fault"] for step in (await answer.json())["steps"]][-1]
    await exchange.start_fault(**plan)
    assert await run() == statuses
    assert 200 in statuses
    assert 500 in statuses
    log = exchange.server.options.fault_log if exchange.server else None
    assert isinstance(log, Path)
    assert [json.loads(line) for line in log.read_text().splitlines()] == await exchange.fault_record()
