"""WebSocket connections: pings, their lifetime, limits, slow readers and the end of the server."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from random import Random
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio

from paper_exchange.core.units import SCALE
from paper_exchange.server.app import Options
from paper_exchange.server.connections import ConnectionLimits
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.paper_ws import DEADLINE_SECONDS, Talk, TurnedClock, connected, trader

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
PATHS = [pytest.param("/ws/btcusdt@trade", id="streams"), pytest.param("/ws-api/v3", id="WebSocket API")]


@pytest.fixture(scope="module")
def clock() -> TurnedClock:
    """The clock on which connections of the module's exchange age."""
    return TurnedClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange(clock: TurnedClock) -> AsyncIterator[PaperExchange]:
    """One paper exchange whose connections age when a test says so."""
    async with running_paper_exchange(Options(symbols=(SYMBOL,)), clock) as running:
        yield running


async def ping_of(talk: Talk) -> bytes:
    """The payload of the next ping; what else comes is passed over."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while (message := await talk.socket.receive()).type is not aiohttp.WSMsgType.PING:
            assert message.type is aiohttp.WSMsgType.TEXT, message
        return bytes(message.data)


@pytest.mark.parametrize("path", PATHS)
async def test_who_does_not_answer_a_ping_within_a_minute_is_disconnected(
    exchange: PaperExchange, clock: TurnedClock, path: str
) -> None:
    method = "ping" if path == "/ws-api/v3" else "LIST_SUBSCRIPTIONS"
    async with connected(exchange, path, autoping=False) as silent, connected(exchange, path) as answering:
        for _ in range(3):
            clock.now_ms += 20_000
            assert await ping_of(silent) == str(clock.now_ms).encode()
            await silent.socket.pong(b"unsolicited")
            # The first answer comes after the ping, the second after the pong has come back.
            await answering.ask(method)
            await answering.ask(method)
        clock.now_ms += 20_000
        assert await silent.closed() == (1008, "Pong timeout")
        assert "error" not in await answering.ask(method)


@pytest.mark.parametrize("path", PATHS)
async def test_a_connection_lives_for_a_day(exchange: PaperExchange, clock: TurnedClock, path: str) -> None:
    async with connected(exchange, path) as talk:
        clock.now_ms += 24 * 3_600_000
        assert (await talk.closed())[0] == 1001


async def test_more_than_five_messages_in_a_second_end_a_stream_connection(
    exchange: PaperExchange, clock: TurnedClock
) -> None:
    async with connected(exchange, "/ws") as talk:
        for _ in range(5):
            assert (await talk.ask("LIST_SUBSCRIPTIONS"))["result"] == []
        clock.now_ms += 1000
        for number in range(5):
            await talk.socket.ping(str(number).encode())
        await talk.socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 6})
        assert await talk.closed() == (1008, "Too many requests")


async def test_the_websocket_api_counts_weight_and_not_messages(exchange: PaperExchange) -> None:
    async with connected(exchange, "/ws-api/v3") as talk:
        for _ in range(20):
            assert (await talk.ask("ping"))["status"] == 200


async def test_an_address_opens_a_number_of_connections_in_five_minutes() -> None:
    clock = TurnedClock()
    options = Options(symbols=(SYMBOL,), connections=ConnectionLimits(attempts=3))
    async with running_paper_exchange(options, clock) as exchange:
        for path in ("/ws", "/stream", "/ws", "/ws-api/v3"):
            async with connected(exchange, path):
                pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(exchange, "/ws"):
                pass
        assert refused.value.status == 429
        clock.now_ms += 5 * 60_000
        async with connected(exchange, "/ws") as talk:
            assert (await talk.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_a_connection_listens_to_at_most_1024_streams(exchange: PaperExchange) -> None:
    async with connected(exchange, "/ws") as talk:
        names = [f"symbol{number}@trade" for number in range(1024)]
        assert (await talk.ask("SUBSCRIBE", names))["result"] is None
        assert "error" in await talk.ask("SUBSCRIBE", ["btcusdt@trade"])
        assert len((await talk.ask("LIST_SUBSCRIPTIONS"))["result"]) == 1024
        assert (await talk.ask("UNSUBSCRIBE", names[:1]))["result"] is None
        assert (await talk.ask("SUBSCRIBE", ["btcusdt@trade"]))["result"] is None


async def slow_client(exchange: PaperExchange, path: str) -> socket.socket:
    """A client that opens a WebSocket with a small buffer and then reads nothing more."""
    host, port = exchange.base_url.removeprefix("http://").split(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    await loop.sock_sendall(client, f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    assert b"101" in await loop.sock_recv(client, 200)
    return client


async def test_a_slow_reader_costs_itself_and_nobody_else() -> None:
    options = Options(symbols=(SYMBOL,), connections=ConnectionLimits(queued_bytes=200_000))
    async with running_paper_exchange(options) as exchange:
        assert exchange.server is not None
        venue = exchange.server.venue
        async with connected(exchange, "/ws/btcusdt@trade") as talk:
            slow = await slow_client(exchange, "/ws/btcusdt@trade")
            price = venue.exchange.market(SYMBOL).last
            assert price is not None
            sent = 0
            async with asyncio.timeout(60):
                while await connections(exchange) == 2:
                    for _ in range(500):
                        venue.exchange.push_trade(SYMBOL, price // SCALE * SCALE, venue.now_ms())
                        venue.commit()
                        sent += 1
                    await asyncio.sleep(0)
            last = venue.tapes[SYMBOL].last_trade
            assert last is not None
            told: list[int] = []
            while not told or told[-1] < last.trade_id:
                told.append((await talk.next())["t"])
            assert told == list(range(told[0], told[0] + len(told)))
            assert len(told) >= sent
        slow.close()


async def connections(exchange: PaperExchange) -> int:
    """How many WebSockets the server counts as open."""
    async with exchange.session.get(exchange.control_url + "/metrics") as answer:
        line = next(one for one in (await answer.text()).splitlines() if one.startswith("paper_exchange_connections "))
    return int(float(line.split()[1]))


async def test_everybody_is_told_that_the_server_shuts_down() -> None:
    running = running_paper_exchange(Options(symbols=(SYMBOL,)))
    exchange = await running.__aenter__()
    async with aiohttp.ClientSession() as session:
        talks = {
            path: Talk(await session.ws_connect(exchange.ws_url + path)) for path in ("/ws", "/stream", "/ws-api/v3")
        }
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        for talk in talks.values():
            assert (await talk.closed())[0] == 1001
        await stopping
    plain, wrapped, api = (talk.events[-1] for talk in talks.values())
    assert (plain["e"], list(plain)) == ("serverShutdown", ["e", "E"])
    assert (wrapped["stream"], wrapped["data"]["e"]) == ("!serverShutdown", "serverShutdown")
    assert (list(api), api["event"]["e"]) == (["event"], "serverShutdown")


@pytest.mark.parametrize("path", PATHS)
async def test_who_leaves_before_the_handshake_is_no_error_of_the_server(
    exchange: PaperExchange, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    address = urlsplit(exchange.base_url)
    handshake = (
        f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as leaving:
        # The server's loop is this test's: it finds the request and the end together.
        leaving.sendall(handshake.encode())
        leaving.shutdown(socket.SHUT_RDWR)
    async with connected(exchange, path) as other:
        await other.ask("ping" if path == "/ws-api/v3" else "LIST_SUBSCRIPTIONS")
    assert not [record for record in caplog.records if record.exc_info]


async def test_nothing_that_a_client_sends_stops_the_server(exchange: PaperExchange, clock: TurnedClock) -> None:
    owner = await trader(exchange, USDT="1000")
    frames: list[str | bytes] = [
        "",
        "null",
        "[]",
        "{",
        '{"id":1}',
        '{"id":1,"method":null}',
        '{"id":1,"method":"order.place","params":[1]}',
        '{"id":1,"method":"order.place","params":{"symbol":{"a":[1]}}}',
        '{"id":1,"method":"order.place","params":{"apiKey":"\\ud800"}}',
        '{"id":1,"method":"ping","params":{"a":NaN}}',
        '{"id":1,"method":"userDataStream.unsubscribe","params":{"subscriptionId":"1e3"}}',
        '{"id":1,"method":"SUBSCRIBE","params":[[]]}',
        '{"id":1,"method":"SUBSCRIBE","params":{"a":1}}',
        '{"id":1,"method":["SUBSCRIBE"]}',
        "[" * 100_000,
        "9" * 10_000,
        b"\x00\xff\xfe",
        os.urandom(200),
        json.dumps({"id": 1, "method": "depth", "params": owner.key.signed(symbol="x" * 100_000)}),
    ]
    for path in ("/ws", "/ws-api/v3"):
        async with connected(exchange, path) as talk:
            for frame in frames:
                clock.now_ms += 1000
                await (talk.socket.send_bytes(frame) if isinstance(frame, bytes) else talk.socket.send_str(frame))
                answer = await talk.next()
                assert "error" in answer, (path, frame[:100], answer)
        # What is no WebSocket frame costs the connection alone; the server may wait for the rest of it.
        async with connected(exchange, path, timeout=aiohttp.ClientWSTimeout(ws_close=0.2)) as talk:
            for junk in (b"\x81\x7e", b"\xff" * 50):
                transport = talk.socket.get_extra_info("socket")
                assert transport is not None
                os.write(transport.fileno(), junk)
    async with connected(exchange, "/ws-api/v3") as talk:
        assert (await talk.ask("time"))["status"] == 200


@pytest.mark.parametrize("path", ["/ws", "/ws-api/v3"])
async def test_a_spoiled_frame_is_answered_and_never_breaks_the_server(
    exchange: PaperExchange, clock: TurnedClock, path: str
) -> None:
    random = Random(7)
    owner = await trader(exchange, USDT="100000", BTC="1")
    order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    frames = [
        {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1d@+08:00", "!ticker_1h@arr"], "id": 1},
        {"method": "SET_PROPERTY", "params": ["combined", False], "id": "two"},
        {"method": "order.place", "params": owner.key.signed(**order, price="60000"), "id": 3},
        {"method": "klines", "params": {"symbol": SYMBOL, "interval": "1m", "timeZone": "5:45", "limit": 2}, "id": 4},
        {"method": "userDataStream.subscribe.signature", "params": owner.key.signed(), "id": 5},
    ]
    async with connected(exchange, path) as talk:
        for _ in range(400):
            text = json.dumps(random.choice(frames))
            for _ in range(random.randrange(1, 4)):
                at = random.randrange(len(text))
                text = text[:at] + random.choice(["", '"', "\\", "{", "]", ",", "0", "-", "é"]) + text[at + 1 :]
            clock.now_ms += 1000
            await talk.socket.send_str(text)
            # Tickers of all symbols come as a list.
            answer = await talk.until(lambda frame: isinstance(frame, dict) and bool({"id", "error"} & set(frame)))
            assert answer.get("status", 200) < 500, text
        talk.events.clear()
    async with connected(exchange, path) as talk:
        assert (await talk.ask("LIST_SUBSCRIPTIONS" if path == "/ws" else "time"))["id"] == 1
