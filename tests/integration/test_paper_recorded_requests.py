"""What unmodified clients were recorded to send is answered, each request in the form in which it was sent.

Keys, signatures, times and ids are those of the test; everything else goes out byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import pytest_asyncio

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.signing import Sender, signature
from support.still_market import write_still_market

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
RECORDINGS: Final = Path(DATA or "") / "client-requests"
pytestmark = [
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        DATA is None or not RECORDINGS.is_dir(),
        reason="TRADINGBOT_TEST_DATA names no directory with recorded requests of clients",
    ),
]
DEADLINE_SECONDS: Final = 10.0
SYMBOL: Final = "BTCUSDT"

ORDER: Final = {"symbol", "orderId", "orderListId", "clientOrderId", "price", "origQty", "executedQty", "status"}
LIST: Final = {"orderListId", "contingencyType", "listClientOrderId", "transactionTime", "orders", "orderReports"}
ANSWERS: Final[dict[str, set[str]]] = {
    "GET /api/v3/ping": set(),
    "GET /api/v3/time": {"serverTime"},
    "GET /api/v3/exchangeInfo": {"timezone", "serverTime", "rateLimits", "exchangeFilters", "symbols"},
    "GET /api/v3/depth": {"lastUpdateId", "bids", "asks"},
    "POST /api/v3/order": ORDER | {"transactTime", "fills"},
    "GET /api/v3/order": ORDER | {"time", "updateTime", "isWorking", "stopPrice", "icebergQty"},
    "DELETE /api/v3/order": ORDER | {"transactTime", "origClientOrderId"},
    "GET /api/v3/account": {"balances", "commissionRates", "canTrade", "permissions", "uid"},
    "POST /api/v3/orderList/oco": LIST,
    "DELETE /api/v3/orderList": LIST,
    "GET /api/v3/account/commission": {"symbol", "standardCommission", "taxCommission", "discount"},
    "time": {"serverTime"},
    "order.place": ORDER | {"transactTime", "fills"},
    "userDataStream.subscribe.signature": {"subscriptionId"},
}
"""Fields that tell the right answer from another; the whole shapes are compared with recorded payloads elsewhere."""
LISTS: Final = {"GET /api/v3/openOrders", "GET /api/v3/myTrades", "GET /api/v3/klines", "DELETE /api/v3/openOrders"}

REFUSED: Final[list[tuple[str, str, int, Any, str]]] = [
    ("POST /api/v3/order/cancelReplace", "price=1&", 400, -1013, "a price of 1 is far from the market's"),
    ("POST /api/v3/orderList/oto", "", 400, -1102, "recorded without the parameters of an OTO"),
    ("POST /api/v3/cancelReplace", "", 404, None, "no such path: a mistake of the client's wrapper"),
    ("POST /api/v3/userDataStream", "", 410, None, "listen keys were removed"),
    ("GET /stats", "", 404, None, "asked of the recorder, not of Binance"),
    ("GET /apis", "", 404, None, "asked of the recorder, not of Binance"),
    ("GET /api", "", 404, None, "asked of the recorder, not of Binance"),
    ("userDataStream.unsubscribe", "again", 400, -2036, "the connection is a new one and has no subscription"),
]
"""What Binance itself rejects: request, a mark in it, HTTP status and code, and why."""


@dataclass
class Replay:
    """One recording on its way: what is open, and what was wrong."""

    sender: Sender
    sockets: dict[str, list[aiohttp.ClientWebSocketResponse]] = field(default_factory=dict)
    answered: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    subscribed: set[aiohttp.ClientWebSocketResponse] = field(default_factory=set)

    async def line(self, record: dict[str, Any]) -> None:
        """One line of the recording."""
        kind = record["kind"]
        if kind == "rest":
            await self.rest(record)
        elif kind == "ws-open":
            await self.open(record["path"], record["query"])
        elif kind == "ws-msg":
            await self.message(record["path"], json.loads(record["data"]))
        elif kind == "ws-close":
            await self.sockets[record["path"]].pop(0).close()

    async def rest(self, record: dict[str, Any]) -> None:
        """A request with the same texts, but for the ids, the time and the signature."""
        if record["path"] == "/api/v3/openOrders":
            await self.resting()
        query, body = await self.renewed(record["query"]), await self.renewed(record["body"])
        signed = "signature=" in query + body
        if signed:
            payload = (query + body).partition("&signature=")[0]
            digest = signature(self.sender.account.secret_key, payload)
            query, body = (re.sub(r"(?<=&signature=)\w+", digest, part) for part in (query, body))
        headers = {"X-MBX-APIKEY": self.sender.account.api_key} if record["key"] else {}
        if record["ct"]:
            headers["Content-Type"] = record["ct"]
        status, answer = await self.sender.raw(record["m"], record["path"], query, body, headers)
        self.judge(f"{record['m']} {record['path']}", query + body, status, answer)

    async def renewed(self, text: str) -> str:
        """The text of the time of now and of orders that exist."""
        text = re.sub(r"\b(timestamp|endTime)=\d+", rf"\1={wall_clock_ms()}", text)
        for name in ("orderId", "cancelOrderId"):
            if re.search(rf"\b{name}=", text):
                text = re.sub(rf"(?<=\b{name}=)\d+", str(await self.resting()), text)
        if "orderListId=" in text:
            lists = await self.sender.signed("GET", "/api/v3/openOrderList")
            text = re.sub(r"(?<=orderListId=)\d+", str(lists[0]["orderListId"]), text)
        return text

    async def resting(self) -> int:
        """The id of a new order far below the market."""
        order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
        placed = await self.sender.signed("POST", "/api/v3/order", **order, quantity="0.001", price="40000")
        return int(placed["orderId"])

    async def open(self, path: str, query: str) -> None:
        """A connection; one to a market stream is told of each of its streams."""
        url = self.sender.exchange.ws_url + path + (f"?{query}" if query else "")
        socket = await self.sender.exchange.session.ws_connect(url)
        self.sockets.setdefault(path, []).append(socket)
        self.answered += 1
        names = path.removeprefix("/ws/").split("/") if path.startswith("/ws/") else query[8:].split("/")
        for name in filter(None, names if path != "/ws-api/v3" else []):
            await self.told(socket, name, combined=path == "/stream")

    async def told(self, socket: aiohttp.ClientWebSocketResponse, name: str, combined: bool) -> None:
        """Wait for an event of a stream while the symbol is traded."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            for turn in range(1000):
                symbol, kind = name.upper().split("@")[0], name.split("@")[1].split("_", maxsplit=1)[0]
                price = float(await self.sender.exchange.last_price(symbol))
                await self.sender.exchange.push_trade(symbol, f"{price + (0.01 if turn % 2 else -0.01):.2f}")
                event = json.loads(await socket.receive_str())
                if combined and event["stream"] != name:
                    continue
                data = event["data"] if combined else event
                expected = {"trade": "trade", "aggTrade": "aggTrade", "kline": "kline", "depth": "depthUpdate"}
                if kind != "bookTicker" and data["e"] != expected[kind]:
                    self.wrong.append(f"{name}: {data}")
                return

    async def message(self, path: str, frame: dict[str, Any]) -> None:
        """A frame with the same members in the same order, but for key, time and signature."""
        socket = self.sockets[path][-1]
        params = frame["params"]
        if isinstance(params, dict) and "signature" in params:
            params |= {"apiKey": self.sender.account.api_key, "timestamp": wall_clock_ms()}
            payload = "&".join(f"{name}={params[name]}" for name in sorted(params) if name != "signature")
            params["signature"] = signature(self.sender.account.secret_key, payload)
        await socket.send_str(json.dumps(frame))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (answer := json.loads(await socket.receive_str())).get("id") != frame["id"]:
                pass
        method = frame["method"]
        if method == "SUBSCRIBE":
            self.judge_result(method, answer == {"result": None, "id": frame["id"]}, answer)
            await self.told(socket, params[0], combined=path == "/stream")
            return
        mark = "" if method != "userDataStream.unsubscribe" or socket in self.subscribed else "again"
        if method == "userDataStream.subscribe.signature":
            self.subscribed.add(socket)
        if "rateLimits" not in answer:
            self.wrong.append(f"{method}: no rateLimits in {answer}")
        self.judge(method, mark, answer["status"], answer.get("result", answer.get("error")))

    def judge(self, request: str, text: str, status: int, answer: Any) -> None:
        """Right if it is answered as Binance answers it."""
        for name, mark, wanted, code, _ in REFUSED:
            if name == request and mark in text:
                self.refused += 1
                told = answer.get("code") if isinstance(answer, dict) else None
                return self.judge_result(request, (status, told) == (wanted, code), (status, answer))
        if request in LISTS:
            return self.judge_result(request, status == 200 and bool(answer), (status, answer))
        fields = ANSWERS.get(request, set())
        return self.judge_result(request, status == 200 and fields <= set(answer), (status, answer))

    def judge_result(self, request: str, right: bool, answer: Any) -> None:
        self.answered += 1
        if not right:
            self.wrong.append(f"{request}: {str(answer)[:300]}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """An exchange whose BTCUSDT stands at 50000, as it did for the recorder."""
    market = write_still_market(tmp_path_factory.mktemp("market"), BTCUSDT="50000", ETHUSDT="3000")
    async with running_paper_exchange(Options(symbols=(SYMBOL, "ETHUSDT"), market=market)) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "requests", "refused"),
    [
        pytest.param("python_binance_1.0.37.jsonl", 68, 9, id="python-binance"),
        pytest.param("binance_sdk_spot_13.2.0.jsonl", 21, 0, id="binance-sdk-spot"),
    ],
)
async def test_each_recorded_request_is_answered(
    exchange: PaperExchange, name: str, requests: int, refused: int
) -> None:
    account = await exchange.create_account(USDT="1000000", BTC="10")
    replay = Replay(Sender(exchange, account))
    for line in (RECORDINGS / name).read_text().splitlines():
        await replay.line(json.loads(line))
    assert replay.wrong == []
    assert (replay.answered, replay.refused) == (requests, refused)
