"""The gateway on the wire: what is signed, what is never sent twice, and streams that come back by themselves."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from urllib.parse import parse_qs, unquote

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.bot_orders import bot_settings
from support.stream_server import StreamServer, book, kline, serving
from support.waiting import until
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.connection_limits import ConnectionBudget
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.errors import AmbiguousError, ClockSkewError, UnreachableError
from tradingbot.gateway.port import NewOrder, OpenGuard, Stamp
from tradingbot.gateway.streams import StreamName, Streams
from tradingbot.model import OrderType, Side

pytestmark = pytest.mark.integration

SECRET = "s" * 64
HMAC = Credentials("key", SECRET)
ORDER = NewOrder("BTCUSDT", "id-1", Side.SELL, OrderType.MARKET, Decimal("0.5"))
ORDER_ANSWER = {
    "symbol": "BTCUSDT",
    "orderId": 1,
    "clientOrderId": "id-1",
    "transactTime": 1,
    "price": "0",
    "origQty": "0.5",
    "executedQty": "0.5",
    "status": "FILLED",
    "type": "MARKET",
    "side": "SELL",
}
Answering = Callable[[web.Request, str], Awaitable[web.StreamResponse]]


@dataclass
class Wire:
    """A server that records requests as raw text and answers as told."""

    url: str
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    offset_ms: int = 0

    def sent(self, path: str) -> list[str]:
        """Raw query and body of every request to that path."""
        return [payload for _, where, payload in self.requests if where.endswith(path)]


@asynccontextmanager
async def wire(answer: Answering) -> AsyncIterator[Wire]:
    recorder = Wire("")

    async def handle(request: web.Request) -> web.StreamResponse:
        payload = request.rel_url.raw_query_string + (await request.text())
        recorder.requests.append((request.method, request.path, payload))
        if request.path.endswith("/time"):
            return web.json_response({"serverTime": int(time.time() * 1000) + recorder.offset_ms})
        return await answer(request, payload)

    async with serving(handle) as url:
        recorder.url = url
        yield recorder


@asynccontextmanager
async def gateway(url: str, credentials: Credentials) -> AsyncIterator[BinanceExchange]:
    exchange = BinanceExchange.create(bot_settings(url).exchange, credentials, OpenGuard(), time.monotonic)
    try:
        yield exchange
    finally:
        await exchange.close()


async def answer_order(_request: web.Request, _payload: str) -> web.StreamResponse:
    return web.json_response(ORDER_ANSWER)


async def answer_orders(_request: web.Request, _payload: str) -> web.StreamResponse:
    return web.json_response([])


async def test_an_order_is_signed_with_the_timestamp_of_its_intent() -> None:
    async with wire(answer_order) as server, gateway(server.url, HMAC) as exchange:
        await exchange.place_order(ORDER, Stamp(1_700_000_000_123, 4_000))

    (payload,) = server.sent("/order")
    fields = parse_qs(payload)
    assert fields["timestamp"] == ["1700000000123"]
    assert fields["recvWindow"] == ["4000"]
    assert fields["quantity"] == ["0.5"]
    unsigned, signature = payload.split("&signature=")
    assert hmac.new(SECRET.encode(), unsigned.encode(), hashlib.sha256).hexdigest() == signature


@pytest.mark.parametrize("verb", ["post", "get"])
async def test_an_ed25519_key_signs_what_goes_over_the_wire(verb: str) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    answer = answer_order if verb == "post" else answer_orders
    async with wire(answer) as server, gateway(server.url, Credentials("key", None, pem)) as exchange:
        await exchange.sync_clock()
        if verb == "post":
            await exchange.place_order(ORDER, Stamp(1, 5_000))
        else:
            await exchange.open_orders("BTCUSDT")

    payload = server.sent("/order" if verb == "post" else "/openOrders")[0]
    unsigned, signature = payload.split("&signature=")
    key.public_key().verify(base64.b64decode(unquote(signature)), unsigned.encode())


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"{}"), (200, b"[]"), (200, b"null"), (200, b""), (200, b"\xe9"), (502, b"[]"), (502, b"\xe9")],
)
async def test_an_answer_of_another_shape_than_documented_is_an_error_of_the_exchange_and_never_means_nothing(
    status: int, body: bytes
) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        headers = {"X-MBX-USED-WEIGHT-1M": "²", "X-MBX-ORDER-COUNT-10S": "²"}
        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    async with serving(answer) as url, gateway(url, HMAC) as exchange:
        with pytest.raises(AmbiguousError):
            await exchange.ping()
        exchange._clock._samples.append(0.0)
        told = [
            exchange.rules("BTCUSDT"),
            exchange.last_price("BTCUSDT"),
            exchange.book_ticker("BTCUSDT"),
            exchange.account(),
            exchange.order("BTCUSDT", "id-1"),
            exchange.place_order(ORDER, Stamp(1, 5_000)),
            exchange.cancel_order("BTCUSDT", "id-1", "id-2", Stamp(1, 5_000)),
        ]
        if body != b"[]" or status != 200:
            told += [
                exchange.open_orders("BTCUSDT"),
                exchange.all_orders("BTCUSDT", from_order_id=0),
                exchange.trades("BTCUSDT", from_id=0),
                exchange.candles("BTCUSDT", "1m"),
            ]
        for call in told:
            with pytest.raises(AmbiguousError):
                await call


async def test_an_exchange_that_tells_no_limit_of_orders_is_taken_to_have_the_usual() -> None:
    weight = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
    symbol = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}

    async def answer(_request: web.Request, _payload: str) -> web.StreamResponse:
        rows = [symbol | {"orderTypes": [], "filters": []}]
        return web.json_response({"rateLimits": [weight], "symbols": rows})

    async with wire(answer) as server, gateway(server.url, HMAC) as exchange:
        await exchange.rules("BTCUSDT")
        assert exchange.spare_orders == 100


async def test_an_order_whose_connection_drops_is_sent_once_and_its_outcome_is_unknown() -> None:
    async def drop(request: web.Request, _payload: str) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with wire(drop) as server, gateway(server.url, HMAC) as exchange:
        with pytest.raises(AmbiguousError):
            await exchange.place_order(ORDER, Stamp(1, 5_000))
        assert len(server.sent("/order")) == 1
        assert exchange.counts.errors == 1


async def test_an_exchange_that_nobody_serves_is_unreachable_and_nothing_was_sent() -> None:
    async with wire(answer_order) as server:
        pass  # its port is free again
    async with gateway(server.url, HMAC) as exchange:
        with pytest.raises(UnreachableError):
            await exchange.place_order(ORDER, Stamp(1, 5_000))


async def test_a_wrong_clock_is_measured_again_and_the_read_repeated_once() -> None:
    answers = [web.json_response({"code": -1021, "msg": "ahead"}, status=400), web.json_response([])]

    async def skewed(_request: web.Request, _payload: str) -> web.StreamResponse:
        return answers.pop(0)

    async with wire(skewed) as server, gateway(server.url, HMAC) as exchange:
        await exchange.sync_clock()
        server.offset_ms = 60_000
        assert await exchange.open_orders("BTCUSDT") == []

        first, second = (int(parse_qs(payload)["timestamp"][0]) for payload in server.sent("/openOrders"))
        assert second - first > 55_000


async def test_an_order_with_a_wrong_clock_is_not_repeated() -> None:
    async def skewed(_request: web.Request, _payload: str) -> web.StreamResponse:
        return web.json_response({"code": -1021, "msg": "ahead"}, status=400)

    async with wire(skewed) as server, gateway(server.url, HMAC) as exchange:
        with pytest.raises(ClockSkewError):
            await exchange.place_order(ORDER, Stamp(1, 5_000))
        assert len(server.sent("/order")) == 1


async def test_used_weight_is_read_from_the_answers() -> None:
    async def weighted(_request: web.Request, _payload: str) -> web.StreamResponse:
        return web.json_response([], headers={"X-MBX-USED-WEIGHT-1M": "42"})

    async with wire(weighted) as server, gateway(server.url, HMAC) as exchange:
        await exchange.open_orders("BTCUSDT")
        assert exchange.counts.used_weight == 42


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirect_carries_neither_key_nor_order_to_another_host(status: int) -> None:
    async with wire(answer_order) as other:

        async def redirect(request: web.Request, _payload: str) -> web.StreamResponse:
            return web.Response(status=status, headers={"Location": other.url + request.path_qs})

        async with wire(redirect) as server, gateway(server.url, HMAC) as exchange:
            with pytest.raises(AmbiguousError):
                await exchange.place_order(ORDER, Stamp(1, 5_000))
            with pytest.raises(AmbiguousError):
                await exchange.open_orders("BTCUSDT")
            assert len(server.sent("/order")) == 1
        assert other.requests == []


# --- streams ---


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[StreamServer, Streams]]:
    server = StreamServer()
    async with serving(server.handle) as url, running_streams(url) as streams:
        await until("both streams", lambda: streams.user_alive and bool(server.markets))
        yield server, streams


@asynccontextmanager
async def running_streams(url: str) -> AsyncIterator[Streams]:
    socket_url = url.replace("http", "ws", 1)
    streams = Streams(
        stream_url=socket_url,
        ws_api_url=f"{socket_url}/ws-api/v3",
        symbol="BTCUSDT",
        interval="1m",
        subscription=lambda: {"apiKey": "key", "timestamp": 1, "signature": "x"},
        wait=OpenGuard(),
        connections=ConnectionBudget(lambda: 1, time.monotonic),
        monotonic=time.monotonic,
        random=Random(3),
    )
    task = asyncio.create_task(streams.run())
    try:
        yield streams
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_streams_follow_no_redirect() -> None:
    async with wire(answer_order) as other:

        async def redirect(request: web.Request, _payload: str) -> web.StreamResponse:
            return web.Response(status=307, headers={"Location": other.url + request.path_qs})

        async with wire(redirect) as server, running_streams(server.url) as streams:
            await until(
                "both to be refused",
                lambda: all("redirect" in (streams.health(name).last_error or "") for name in StreamName),
            )
        assert other.requests == []


async def test_a_closed_user_stream_is_subscribed_again_and_reported() -> None:
    async with streaming() as (server, streams):
        assert StreamName.USER in (await streams.next()).reconnected
        await server.users[0].close()
        await until("another subscription", lambda: server.subscriptions == 2 and streams.user_alive)

        assert StreamName.USER in (await streams.next()).reconnected
        assert streams.health(StreamName.USER).connects == 2


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": 1}}, id="terminated"),
        pytest.param({"event": {"e": "serverShutdown", "E": 1}}, id="server-shutdown"),
        pytest.param({"id": None, "status": 401, "error": {"code": -2015, "msg": "revoked"}}, id="revoked"),
    ],
)
async def test_a_user_stream_that_ended_in_words_is_rebuilt(message: dict[str, object]) -> None:
    async with streaming() as (server, streams):
        await server.users[0].send_json(message)
        await until("another subscription", lambda: server.subscriptions == 2 and streams.user_alive)


async def test_a_user_connection_that_answers_nothing_is_rebuilt_although_its_frames_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tradingbot.gateway.streams.PING_EVERY", 0.1)
    monkeypatch.setattr("tradingbot.gateway.streams.USER_ANSWER_AGE", 0.5)
    async with streaming() as (server, streams):
        server.answers_pings = False
        async with asyncio.timeout(10):
            while server.subscriptions < 2:
                with suppress(ConnectionError):
                    await server.users[0].ping()
                await asyncio.sleep(0.05)
        server.answers_pings = True
        await until("the user stream", lambda: streams.user_alive)


async def test_a_slow_reader_loses_no_closed_candle_and_sees_only_the_last_book() -> None:
    async with streaming() as (server, streams):
        await streams.next()
        for number in range(300):
            await server.markets[0].send_json(book(str(number)))
            await server.markets[0].send_json(kline(number * 60_000, closed=False))
            await server.markets[0].send_json(kline(number * 60_000, closed=True))
        await until("the last book", lambda: streams.book is not None and streams.book.bid == 299)
        await until("all candles", lambda: len(streams._batch.candles) == 300)
        batch = await streams.next()

        assert [candle.open_ms for candle in batch.candles] == [number * 60_000 for number in range(300)]
        assert batch.book is not None
        assert batch.book.bid == 299


async def test_a_changed_interval_rebuilds_the_market_stream() -> None:
    async with streaming() as (server, streams):
        streams.change_interval("1s")
        await until("another connection", lambda: len(server.markets) == 2)
        await until("the market stream", lambda: streams.health(StreamName.MARKET).connected)
