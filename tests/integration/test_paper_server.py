"""The paper exchange as a server: refusals, limits, faults, restarts and its command line, over real sockets."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange, spawn_paper_exchange

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
DEADLINE_SECONDS = 10.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module, on free ports; each test has an account of its own."""
    async with running_paper_exchange(Options(symbols=(SYMBOL,))) as running:
        yield running


def signed(secret: str, params: dict[str, str]) -> str:
    """A query with a signature over it."""
    query = urlencode(params)
    return f"{query}&signature={hmac.new(secret.encode(), query.encode(), hashlib.sha256).hexdigest()}"


async def call(
    exchange: PaperExchange, account: TestAccount, method: str, path: str, **params: str
) -> tuple[int, Any, Any]:
    """A signed request: status, body and headers."""
    query = signed(account.secret_key, params | {"timestamp": str(wall_clock_ms())})
    headers = {"X-MBX-APIKEY": account.api_key}
    async with exchange.session.request(method, f"{exchange.base_url}{path}?{query}", headers=headers) as answer:
        return answer.status, json.loads(await answer.text()), answer.headers


@pytest.mark.parametrize(
    ("headers", "query", "status", "code"),
    [
        pytest.param({}, "timestamp={now}", 401, -2014, id="no key"),
        pytest.param({"X-MBX-APIKEY": "wrong"}, "timestamp={now}", 401, -2014, id="no key at all"),
        pytest.param({"X-MBX-APIKEY": "w" * 64}, "timestamp={now}&signature=00", 401, -2015, id="nobody's key"),
        pytest.param({"X-MBX-APIKEY": "{key}"}, "timestamp={now}&signature=00", 400, -1022, id="wrong signature"),
        pytest.param({"X-MBX-APIKEY": "{key}"}, "timestamp={now}", 400, -1102, id="no signature"),
        pytest.param({"X-MBX-APIKEY": "{key}"}, "signature=00", 400, -1102, id="no timestamp"),
        pytest.param({"X-MBX-APIKEY": "{key}"}, "timestamp=1700000000000&signature=00", 400, -1021, id="long ago"),
    ],
)
async def test_an_unproven_request_is_refused(
    exchange: PaperExchange, headers: dict[str, str], query: str, status: int, code: int
) -> None:
    account = await exchange.create_account(USDT="1")
    sent = {name: value.format(key=account.api_key) for name, value in headers.items()}
    url = f"{exchange.base_url}/api/v3/account?{query.format(now=wall_clock_ms())}"
    async with exchange.session.get(url, headers=sent) as answer:
        assert (answer.status, (await answer.json())["code"]) == (status, code)


async def test_query_and_body_are_signed_as_one_text_without_a_separator(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="10000")
    query = f"symbol={SYMBOL}&side=BUY&type=LIMIT&timeInForce=GTC"
    body = f"quantity=0.01&price=40000&timestamp={wall_clock_ms()}"
    signature = hmac.new(account.secret_key.encode(), (query + body).encode(), hashlib.sha256).hexdigest()
    async with exchange.session.post(
        f"{exchange.base_url}/api/v3/order?{query}",
        data=f"{body}&signature={signature}",
        headers={"X-MBX-APIKEY": account.api_key, "Content-Type": "application/x-www-form-urlencoded"},
    ) as answer:
        assert (answer.status, (await answer.json())["status"]) == (200, "NEW")
        assert answer.headers["X-MBX-ORDER-COUNT-10S"] == "1"


async def test_weight_is_told_in_every_answer_and_a_placed_order_is_free(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="10000")
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    _, _, before = await call(exchange, account, "GET", "/api/v3/account")
    status, _, placed = await call(exchange, account, "POST", "/api/v3/order", price="40000", **order)
    assert status == 200
    refused, _, after = await call(exchange, account, "POST", "/api/v3/order", price="1", **order)
    assert refused == 400
    used = [int(headers["X-MBX-USED-WEIGHT-1M"]) for headers in (before, placed, after)]
    if used[0] <= used[1]:  # unless a new minute began meanwhile
        assert (used[1] - used[0], used[2] - used[1]) == (0, 1)


async def test_too_much_weight_is_answered_with_429_and_when_to_come_back() -> None:
    async with running_paper_exchange(Options(symbols=(SYMBOL,), weight_per_minute=50)) as exchange:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            async with exchange.session.get(f"{exchange.base_url}/api/v3/exchangeInfo") as answer:
                if answer.status == 429:
                    assert 1 <= int(answer.headers["Retry-After"]) <= 60
                    assert (await answer.json())["code"] == -1003
                    return
        pytest.fail("no answer was a 429")


@pytest.mark.parametrize("path", ["/api/v3/nosuch", "/api/v1/ping", "/sapi/v1/nosuch", "/api", "/"])
async def test_an_unknown_path_is_a_json_404_except_for_a_browser(exchange: PaperExchange, path: str) -> None:
    async with exchange.session.get(exchange.base_url + path) as answer:
        assert (answer.status, (await answer.json())["path"]) == (404, path)
    browser = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
    async with exchange.session.get(exchange.base_url + path, headers=browser) as answer:
        assert (answer.status, answer.content_type) == (404, "text/html")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_listen_keys_are_gone_with_a_page_of_html(exchange: PaperExchange, method: str) -> None:
    url = f"{exchange.base_url}/api/v3/userDataStream"
    async with exchange.session.request(method, url, headers={"X-MBX-APIKEY": "k" * 64}) as answer:
        assert (answer.status, answer.content_type) == (410, "text/html")


async def test_a_fault_answers_every_call_until_it_ends_and_executes_nothing(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="10000")
    order = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    await exchange.start_fault("rest_status", status=503, seconds=60)
    status, body, _ = await call(exchange, account, "POST", "/api/v3/order", **order)
    assert (status, body["code"]) == (503, -1000)
    assert (await exchange.account(account.uid))["trades"] == []
    await exchange.clear_faults()
    assert (await call(exchange, account, "POST", "/api/v3/order", **order))[0] == 200
    await exchange.fail_rest(429, seconds=0.3)
    status, _, headers = await call(exchange, account, "GET", "/api/v3/account")
    assert (status, headers["Retry-After"]) == (429, "1")
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (await call(exchange, account, "GET", "/api/v3/account"))[0] != 200:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        pytest.param("/control/accounts", {"deposits": {"USDT": 5}}, "deposits.USDT", id="a number"),
        pytest.param("/control/accounts", {}, "deposits", id="no deposit"),
        pytest.param("/control/faults", {"kind": "fire"}, "kind", id="unknown fault"),
        pytest.param(
            "/control/faults", {"kind": "rest_status", "status": 200, "seconds": 1}, "status", id="no failure"
        ),
        pytest.param("/control/faults", {"kind": "rest_status", "status": 503}, "seconds", id="no end"),
        pytest.param("/control/trades", {"symbol": "X", "price": "1"}, "symbol", id="unknown symbol"),
        pytest.param("/control/trades", {"symbol": SYMBOL, "price": "-1"}, "price", id="negative price"),
    ],
)
async def test_a_bad_control_request_names_its_field(
    exchange: PaperExchange, path: str, body: dict[str, Any], field: str
) -> None:
    async with exchange.session.post(exchange.control_url + path, json=body) as answer:
        assert (answer.status, (await answer.json())["error"].split(":")[0]) == (400, field)


async def test_probes_and_metrics_are_on_the_control_port(exchange: PaperExchange) -> None:
    await exchange.fail_rest(503, seconds=60)
    for path in ("/healthz", "/readyz"):
        async with exchange.session.get(exchange.control_url + path) as answer:
            assert answer.status == 200
    async with exchange.session.get(exchange.base_url + "/api/v3/ping") as answer:
        assert answer.status == 503
    async with exchange.session.get(exchange.control_url + "/metrics") as answer:
        text = await answer.text()
    assert 'paper_exchange_requests_total{path="/api/v3/ping",status="503"} 1.0' in text
    assert "paper_exchange_faults_active 1.0" in text
    await exchange.clear_faults()
    assert "process_resident_memory_bytes" in text
    for family in text_string_to_metric_families(text):
        # By the rules of Prometheus: base units and what is counted in the name, a word on each.
        assert family.name.startswith(("paper_exchange_", "process_")), family.name
        assert family.documentation, family.name
        if family.type == "counter":
            assert all(sample.name.endswith(("_total", "_created")) for sample in family.samples), family.name
        elif family.type == "histogram":
            assert family.name.endswith(("_seconds", "_bytes")), family.name


async def test_a_book_kept_from_the_depth_stream_equals_the_exchanges(exchange: PaperExchange) -> None:
    url = f"{exchange.ws_url}/stream?streams=btcusdt@depth@100ms"
    async with exchange.session.ws_connect(url) as socket:
        first = json.loads((await socket.receive(DEADLINE_SECONDS)).data)["data"]
        book, last = await snapshot(exchange)
        event = first
        applied = 0
        while applied < 10:
            if event["u"] > last:
                assert event["U"] <= last + 1
                for side, changed in (("bids", event["b"]), ("asks", event["a"])):
                    for price, quantity in changed:
                        book[side][price] = quantity
                last = event["u"]
                applied += 1
            event = json.loads((await socket.receive(DEADLINE_SECONDS)).data)["data"]
        kept = {side: {p: q for p, q in levels.items() if float(q)} for side, levels in book.items()}
        while True:
            truth, ident = await snapshot(exchange)
            if ident == last:
                assert kept == truth
                return
            while last < ident:
                if event["u"] > last:
                    for side, changed in (("bids", event["b"]), ("asks", event["a"])):
                        kept[side] |= dict(changed)
                    kept = {s: {p: q for p, q in levels.items() if float(q)} for s, levels in kept.items()}
                    last = event["u"]
                if last < ident:
                    event = json.loads((await socket.receive(DEADLINE_SECONDS)).data)["data"]


async def snapshot(exchange: PaperExchange) -> tuple[dict[str, dict[str, str]], int]:
    """The whole book as REST tells it, and its update id."""
    params = {"symbol": SYMBOL, "limit": "5000"}
    async with exchange.session.get(f"{exchange.base_url}/api/v3/depth", params=params) as answer:
        body = await answer.json()
    return {side: dict(body[side]) for side in ("bids", "asks")}, body["lastUpdateId"]


async def test_streams_are_subscribed_listed_and_unsubscribed_by_frames(exchange: PaperExchange) -> None:
    async def ask(socket: aiohttp.ClientWebSocketResponse, method: str, ident: int, *names: str) -> Any:
        await socket.send_json({"method": method, "params": list(names), "id": ident})
        while True:
            frame = json.loads((await socket.receive(DEADLINE_SECONDS)).data)
            if frame.get("id") == ident:
                return frame.get("result")

    async with exchange.session.ws_connect(f"{exchange.ws_url}/ws") as socket:
        assert await ask(socket, "SUBSCRIBE", 1, "btcusdt@bookTicker", "btcusdt@depth5@100ms") is None
        assert await ask(socket, "LIST_SUBSCRIPTIONS", 2) == ["btcusdt@bookTicker", "btcusdt@depth5@100ms"]
        event = json.loads((await socket.receive(DEADLINE_SECONDS)).data)
        assert {"u", "lastUpdateId"} & set(event)
        await ask(socket, "UNSUBSCRIBE", 3, "btcusdt@bookTicker", "btcusdt@depth5@100ms")
        assert await ask(socket, "LIST_SUBSCRIPTIONS", 4) == []


async def test_nothing_is_lost_by_kill_and_restart(tmp_path: Path) -> None:
    async with spawn_paper_exchange(tmp_path, symbols=SYMBOL) as exchange:
        account = await exchange.create_account(USDT="10000")
        await call(
            exchange, account, "POST", "/api/v3/order", symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.01"
        )
        price = int(await exchange.last_price(SYMBOL))
        status, _, _ = await call(
            exchange,
            account,
            "POST",
            "/api/v3/orderList/oco",
            symbol=SYMBOL,
            side="SELL",
            quantity="0.005",
            aboveType="LIMIT_MAKER",
            abovePrice=str(price + 5000),
            belowType="STOP_LOSS",
            belowStopPrice=str(price - 5000),
        )
        assert status == 200
        before = await exchange.account(account.uid)
        last = await exchange.last_price(SYMBOL)
        await exchange.kill()
    async with spawn_paper_exchange(tmp_path, symbols=SYMBOL) as exchange:
        assert await exchange.account(account.uid) == before
        assert abs(await exchange.last_price(SYMBOL) - last) < last / 100
        status, told, _ = await call(exchange, account, "GET", "/api/v3/account")
        assert (status, told["uid"]) == (200, account.uid)
        assert before["openOrderLists"][0]["orderListId"] == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "paper_exchange", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


async def test_the_command_line_makes_accounts_on_a_running_exchange_and_on_its_directory(tmp_path: Path) -> None:
    offline = run("account", "create", "--deposit", "USDT=50", "--data-dir", str(tmp_path), "--output", "json")
    assert offline.returncode == 0, offline.stderr
    async with spawn_paper_exchange(tmp_path, symbols=SYMBOL) as exchange:
        uid = json.loads(offline.stdout)["uid"]
        assert (await exchange.account(uid))["balances"] == {"USDT": {"free": "50.00000000", "locked": "0.00000000"}}
        online = await asyncio.to_thread(
            run, "account", "create", "--deposit", "BTC=1", "--control-url", exchange.control_url
        )
        assert online.returncode == 0, online.stderr
        assert [line.split()[0] for line in online.stdout.splitlines()] == ["uid", "apiKey", "secretKey"]
        assert exchange.process is not None
        exchange.process.terminate()
        assert await asyncio.wait_for(exchange.process.wait(), DEADLINE_SECONDS) == 0


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        pytest.param(("serve", "--symbols", "NOSUCH"), "--symbols", id="unknown symbol"),
        pytest.param(("serve", "--market", "dreams"), "--market", id="unknown market"),
        pytest.param(("serve", "--market", "capture:/nonexistent"), "--market", id="no recording"),
        pytest.param(("serve", "--port", "99999"), "--port", id="no port"),
        pytest.param(("serve", "--data-dir", "/proc/nonexistent"), "--data-dir", id="no directory"),
        pytest.param(("account", "create", "--deposit", "lots"), "--deposit", id="no amount"),
        pytest.param(
            ("account", "create", "--deposit", "USDT=1", "--control-url", "http://127.0.0.1:9"),
            "--control-url",
            id="nobody answers",
        ),
    ],
)
async def test_bad_input_names_its_option(arguments: tuple[str, ...], option: str) -> None:
    result = await asyncio.to_thread(run, *arguments)
    assert result.returncode == 2
    assert f"argument {option}:" in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_reset_ends_what_is_open_and_keeps_the_keys() -> None:
    async with running_paper_exchange(Options(symbols=(SYMBOL,))) as exchange:
        account = await exchange.create_account(USDT="10000")
        order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
        _, before, _ = await call(exchange, account, "POST", "/api/v3/order", price="40000", **order)
        async with exchange.session.post(
            f"{exchange.control_url}/control/reset", json={"deposits": {"USDT": "500"}}
        ) as answer:
            assert await answer.json() == {"accounts": 1}
        lost, told, _ = await call(
            exchange, account, "GET", "/api/v3/order", symbol=SYMBOL, orderId=str(before["orderId"])
        )
        assert (lost, told["code"]) == (400, -2013)
        _, held, _ = await call(exchange, account, "GET", "/api/v3/account", omitZeroBalances="true")
        assert [(one["free"], one["locked"]) for one in held["balances"]] == [("500.00000000", "0.00000000")]
        _, after, _ = await call(exchange, account, "POST", "/api/v3/order", price="40000", **order)
        assert after["orderId"] > before["orderId"]
        async with exchange.session.post(f"{exchange.control_url}/control/reset", json={"deposits": {}}) as answer:
            assert answer.status == 400
            assert "deposits" in (await answer.json())["error"]
