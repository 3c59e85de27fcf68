"""Clients that mean no good: HTTP bytes, parameters, WebSocket frames and calls in a wrong order, all from a seed.

Each case is one connection from an address of its own, so that limits and bans of one do not spare the exchange the
next. What must hold: the exchange answers with its own refusals, never with an inner error, and goes on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import IO, Any, Final
from urllib.parse import quote, urlencode, urlsplit

from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange

CASES: Final = 20_000
"""Cases of the campaign."""
SEED: Final = 7
_READ_SECONDS: Final = 0.3
"""How long a case waits for more of an answer; to much of this there is none."""
_PATIENCE_SECONDS: Final = 20.0
"""How long a round of the other client may take, on a busy machine."""
_PATHS: Final = (
    "ping", "time", "exchangeInfo", "depth", "trades", "historicalTrades", "aggTrades", "klines", "uiKlines",
    "avgPrice", "ticker/24hr", "ticker/tradingDay", "ticker/price", "ticker/bookTicker", "ticker", "account",
    "account/commission", "order", "order/test", "order/cancelReplace", "order/amend/keepPriority",
    "order/amendments", "openOrders", "allOrders", "myTrades", "orderList", "orderList/oco", "orderList/oto",
    "orderList/otoco", "orderList/opo", "orderList/opoco", "openOrderList", "allOrderList", "rateLimit/order",
    "myPreventedMatches", "myFilters", "myAllocations", "userDataStream", "nosuch", "order/oco", "executionRules",
)  # fmt: skip
_METHODS: Final = (
    "ping", "time", "exchangeInfo", "depth", "klines", "ticker.24hr", "order.place", "order.test", "order.status",
    "order.cancel", "order.cancelReplace", "order.amend.keepPriority", "openOrders.status", "openOrders.cancelAll",
    "orderList.place.oco", "orderList.place.oto", "orderList.place.otoco", "orderList.status", "orderList.cancel",
    "openOrderLists.status", "allOrders", "allOrderLists", "myTrades", "account.status", "session.logon",
    "session.status", "session.logout", "userDataStream.subscribe", "userDataStream.subscribe.signature",
    "userDataStream.unsubscribe", "session.subscriptions", "nosuch", "",
)  # fmt: skip
_NAMES: Final = (
    "symbol", "symbols", "side", "type", "timeInForce", "quantity", "quoteOrderQty", "price", "stopPrice",
    "trailingDelta", "icebergQty", "newClientOrderId", "origClientOrderId", "orderId", "orderListId",
    "listClientOrderId", "limit", "interval", "startTime", "endTime", "fromId", "recvWindow", "timestamp",
    "newOrderRespType", "selfTradePreventionMode", "strategyId", "cancelRestrictions", "cancelReplaceMode",
    "aboveType", "abovePrice", "belowType", "belowStopPrice", "workingType", "workingPrice", "workingQuantity",
    "pendingType", "pendingQuantity", "newQty", "timeZone", "windowSize", "type", "computeCommissionRates",
)  # fmt: skip
_GOOD: Final = {
    "symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "40000",
    "limit": "5", "interval": "1m", "orderId": "1", "newOrderRespType": "FULL",
}  # fmt: skip
_ODD: Final = (
    "", "0", "-1", "1e5", "1E400", "NaN", "Infinity", "-0", "00000000000000000000001", "9" * 19, "9" * 20, "9" * 400,
    "0.000000001", "0." + "0" * 400 + "1", "1.", ".1", "1,5", " 1", "1 ", "0x10", "٣", "²", "true", "null", "[]", "{}",
    '["BTCUSDT"', '["BTCUSDT","BTCUSDT"]', "[1]", "btcusdt", "BTCUSDT\x00", "É", "\ud7ff", "💰", "%", "%zz", "%00",
    "a" * 5000, "../../etc/passwd", "' OR 1=1 --", "<script>", "\r\nX: y", "MARKET", "STOP_LOSS", "SELL", "IOC",
    "GTC", "1s", "1M", "9223372036854775807", "9223372036854775808", "18446744073709551616", "253402300800000",
)  # fmt: skip


@dataclass
class Fuzz:
    """What came of some cases."""

    cases: int = 0
    answers: int = 0
    """Cases that were answered at all."""
    codes: dict[str, int] = field(default_factory=dict)
    """How often each HTTP status, WebSocket close or kind of message came first."""
    rounds: int = 0
    """How often the other client placed, asked for and cancelled an order, and heard of all of it."""
    slowest: float = 0.0
    """Seconds that its slowest answer took."""
    findings: list[str] = field(default_factory=list)


class Fuzzer:
    """Draws cases and sends them; a case is known by its number."""

    def __init__(self, exchange: PaperExchange, account: TestAccount) -> None:
        address = urlsplit(exchange.base_url)
        self._host, self._port = str(address.hostname), address.port
        self._account = account
        self.found = Fuzz()

    async def run(self, number: int) -> None:
        """One case."""
        random = Random(f"{SEED}/{number}")
        kinds: tuple[Callable[[Random], bytes], ...] = (
            self._broken_http,
            self._rest_call,
            self._rest_call,
            self._ws_api,
            self._ws_api,
            self._streams,
        )
        sent = random.choice(kinds)(random)
        source = f"127.{1 + number // 62500 % 250}.{number // 250 % 250}.{1 + number % 250}"
        told = await self._send(sent, source, hang_up=random.random() < 0.2)
        self.found.cases += 1
        if told:
            self.found.answers += 1
            first = told.partition(b"\r\n")[0][:12].decode("latin-1")
            self.found.codes[first] = self.found.codes.get(first, 0) + 1
        if b"HTTP/1.1 500" in told or b'"code":-1000' in told or b'"code": -1000' in told or b"Traceback" in told:
            self.found.findings.append(f"case {number}: {sent[:200]!r}... was answered {told[-400:]!r}")

    async def _send(self, sent: bytes, source: str, *, hang_up: bool) -> bytes:
        """Send and read what comes for a moment; leave without a word where it hangs up."""
        reader, writer = await asyncio.open_connection(self._host, self._port, local_addr=(source, 0))
        told = b""
        try:
            writer.write(sent)
            if hang_up:
                writer.transport.abort()
                return b""
            with suppress(TimeoutError, ConnectionError):
                await writer.drain()
                # In all, for a stream never falls silent.
                async with asyncio.timeout(_READ_SECONDS):
                    while part := await reader.read(65536):
                        told += part
                        if b"\r\n\r\n" in told and b"HTTP/1.1 101" not in told and b"Upgrade" not in sent:
                            break
        except ConnectionError:
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        return told

    # -- HTTP --------------------------------------------------------------------------------------------------

    def _broken_http(self, random: Random) -> bytes:
        good = b"GET /api/v3/ticker/price?symbol=BTCUSDT HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"
        match random.randrange(12):
            case 0:
                return random.randbytes(random.randrange(1, 3000))
            case 1:
                return flipped(random, good)
            case 2:
                return good[: random.randrange(len(good))]
            case 3:
                return good * random.randrange(2, 20)
            case 4:
                return b"GET /" + b"a" * random.choice((8000, 100_000)) + b" HTTP/1.1\r\n\r\n"
            case 5:
                return b"GET / HTTP/1.1\r\n" + b"X-A: " + b"b" * random.choice((8200, 70_000)) + b"\r\n\r\n"
            case 6:
                length = random.choice((b"-1", b"99999999999999999999", b"abc", b"5", b"0x5", b"1000000000"))
                return b"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\nab"
            case 7:
                chunk = random.choice((b"zz\r\n", b"5\r\nab", b"FFFFFFFFFFFFFFFF\r\n", b"-1\r\n", b"0\r\n\r\n"))
                return b"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk
            case 8:
                return b"".join([b"GET / HTTP/1.1\r\n", *[b"X-%d: y\r\n" % n for n in range(500)], b"\r\n"])
            case 9:
                encoding = random.choice((b"gzip", b"deflate", b"br", b"identity", b"x"))
                return (
                    b"POST /api/v3/order HTTP/1.1\r\nHost: x\r\nContent-Encoding: "
                    + encoding
                    + b"\r\nContent-Type: application/x-www-form-urlencoded; charset=\xff\r\n"
                    + b"Content-Length: 4\r\n\r\n\x1f\x8b\x00\xff"
                )
            case 10:
                verb = random.choice((b"BREW", b"OPTIONS", b"HEAD", b"TRACE", b"CONNECT", b"PATCH", b"get"))
                return verb + b" /api/v3/order HTTP/1.1\r\nHost: x\r\n\r\n"
            case _:
                path = random.choice((b"//", b"/%2e%2e/", b"/api/v3/\xff", b"http://[::1", b"*", b"/?%", b"/ws/%00"))
                return b"GET " + path + b" HTTP/" + random.choice((b"1.1", b"1.0", b"9.9")) + b"\r\nHost: x\r\n\r\n"

    def _rest_call(self, random: Random) -> bytes:
        """A call that is proven, mostly, with parameters that nobody should send."""
        path = f"/api/v3/{random.choice(_PATHS)}"
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in self._params(random))
        if random.random() < 0.8:
            query += f"&recvWindow=60000&timestamp={time.time_ns() // 1_000_000}"
        if random.random() < 0.9:
            query += f"&signature={self._sign(query)}"
        verb = random.choice(("GET", "GET", "POST", "POST", "PUT", "DELETE"))
        head = f"X-MBX-APIKEY: {self._account.api_key}\r\n" if random.random() < 0.9 else "X-MBX-APIKEY: \xff\r\n"
        if random.random() < 0.1:
            head += f"X-MBX-TIME-UNIT: {random.choice(('MICROSECOND', 'MILLISECOND', 'fortnight', ''))}\r\n"
        if random.random() < 0.3 and verb != "GET":
            head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(query)}\r\n"
            return f"{verb} {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n{query}".encode("latin-1", "replace")
        return f"{verb} {path}?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{head}\r\n".encode("latin-1")

    def _params(self, random: Random) -> list[tuple[str, str]]:
        params = {name: value for name, value in _GOOD.items() if random.random() < 0.75}
        for _ in range(random.randrange(4)):
            params[random.choice(_NAMES)] = random.choice(_ODD)
        return list(params.items())

    def _sign(self, payload: str) -> str:
        return hmac.new(self._account.secret_key.encode(), payload.encode(), hashlib.sha256).hexdigest()

    # -- WebSockets --------------------------------------------------------------------------------------------

    def _ws_api(self, random: Random) -> bytes:
        return _handshake(random, "/ws-api/v3") + b"".join(
            frame(random, self._ws_message(random)) for _ in range(random.randrange(1, 6))
        )

    def _ws_message(self, random: Random) -> bytes:
        if random.random() < 0.25:
            return garbage(random)
        params: dict[str, Any] = dict(self._params(random))
        if random.random() < 0.8:
            params |= {"apiKey": self._account.api_key, "timestamp": time.time_ns() // 1_000_000, "recvWindow": 60000}
            told = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
            params["signature"] = self._sign(told.encode("utf-8", "replace").decode("utf-8", "replace"))
        if random.random() < 0.3:
            params[random.choice(_NAMES)] = odd_json(random)
        if random.random() < 0.1:
            params["returnRateLimits"] = odd_json(random)
        message = {"id": odd_json(random), "method": random.choice(_METHODS), "params": params}
        if random.random() < 0.1:
            message[random.choice(("id", "method", "params"))] = odd_json(random)
        return json.dumps(message).encode("utf-8", "surrogatepass")

    def _streams(self, random: Random) -> bytes:
        path = random.choice(
            (
                "/ws",
                "/stream",
                "/ws/btcusdt@trade",
                "/stream?streams=btcusdt@depth@100ms",
                "/ws/" + "a@b/" * 50,
                "/ws/%ff",
            )
        )
        messages = []
        for _ in range(random.randrange(1, 5)):
            names: Any = [random.choice(("btcusdt@trade", "btcusdt@kline_1m", "!miniTicker@arr", "x", *_ODD[:20]))]
            method = random.choice(
                ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY", 5)
            )
            message = {"method": method, "params": names if random.random() < 0.7 else odd_json(random), "id": 1}
            if random.random() < 0.3:
                message["id"] = odd_json(random)
            messages.append(json.dumps(message).encode() if random.random() < 0.8 else garbage(random))
        return _handshake(random, path) + b"".join(frame(random, message) for message in messages)


async def fuzz(numbers: Iterable[int], directory: Path, at_once: int = 8) -> Fuzz:
    """Cases by number against an exchange of their own, while another client trades on it."""
    with TemporaryFile() as log:
        found = await _fuzz(numbers, directory, at_once, log)
        log.seek(0)
        # Each line of the log is JSON; a trace of an error that nobody expected is not.
        found.findings += [
            f"the log has {line.decode(errors='replace')[:500]}"
            for line in log
            if not line.startswith(b"{") or b'"level": "error"' in line
        ][:20]
    return found


async def _fuzz(numbers: Iterable[int], directory: Path, at_once: int, log: IO[bytes]) -> Fuzz:
    async with spawn_paper_exchange(directory, symbols="BTCUSDT", log=log) as exchange:
        assert exchange.process is not None
        fuzzer = Fuzzer(exchange, await exchange.create_account(USDT="1000000", BTC="10"))
        other = asyncio.create_task(_other_client(exchange, fuzzer.found))
        waiting = iter(numbers)

        async def work() -> None:
            for number in waiting:
                if other.done() or exchange.process is None or exchange.process.returncode is not None:
                    return
                await fuzzer.run(number)

        await asyncio.gather(*(work() for _ in range(at_once)))
        if exchange.process.returncode is not None:
            fuzzer.found.findings.append(f"the exchange ended with {exchange.process.returncode}")
        rounds = fuzzer.found.rounds
        with suppress(TimeoutError):
            # It goes on after the last case, too.
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while fuzzer.found.rounds == rounds and not other.done():
                    await asyncio.wait([other], timeout=0.05)
        other.cancel()
        (outcome,) = await asyncio.gather(other, return_exceptions=True)
        if not isinstance(outcome, asyncio.CancelledError):
            fuzzer.found.findings.append(f"the other client was disturbed: {outcome!r}")
    return fuzzer.found


async def _other_client(exchange: PaperExchange, found: Fuzz) -> None:
    """Trades as one should, and expects right answers and events within moments."""
    account = await exchange.create_account(USDT="10000")

    def signed(params: dict[str, str]) -> dict[str, str]:
        params = params | {"timestamp": str(time.time_ns() // 1_000_000), "recvWindow": "60000"}
        told = urlencode(params)
        return params | {"signature": hmac.new(account.secret_key.encode(), told.encode(), hashlib.sha256).hexdigest()}

    async def call(method: str, params: dict[str, str]) -> Any:
        begun = time.monotonic()
        url, headers = f"{exchange.base_url}/api/v3/order", {"X-MBX-APIKEY": account.api_key}
        async with exchange.session.request(method, url, params=signed(params), headers=headers) as answer:
            body = await answer.json()
            assert answer.status == 200, body
        found.slowest = max(found.slowest, time.monotonic() - begun)
        return body

    async with asyncio.timeout(None) as patience, exchange.session.ws_connect(f"{exchange.ws_url}/ws-api/v3") as events:
        subscribe = dict(sorted({"apiKey": account.api_key, "timestamp": str(time.time_ns() // 1_000_000)}.items()))
        told = urlencode(subscribe).encode()
        subscribe["signature"] = hmac.new(account.secret_key.encode(), told, hashlib.sha256).hexdigest()
        await events.send_json({"id": 1, "method": "userDataStream.subscribe.signature", "params": subscribe})
        while True:
            patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE_SECONDS)
            order = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC"}
            placed = await call("POST", order | {"quantity": "0.001", "price": "40000"})
            which = {"symbol": "BTCUSDT", "orderId": str(placed["orderId"])}
            shown = await call("GET", which)
            assert (shown["status"], shown["clientOrderId"]) == ("NEW", placed["clientOrderId"])
            assert (await call("DELETE", which))["status"] == "CANCELED"
            heard: list[str] = []
            while heard != ["NEW", "CANCELED"]:
                event = (await events.receive_json()).get("event", {})
                if event.get("i") == placed["orderId"]:
                    heard.append(event["x"])
            found.rounds += 1
            # Within its own limit of orders, 100 in 10 s.
            await asyncio.sleep(0.15)


def _handshake(random: Random, path: str) -> bytes:
    key = base64.b64encode(random.randbytes(16)).decode()
    version = "13" if random.random() < 0.97 else "99"
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n\r\n"
    ).encode()


def frame(random: Random, payload: bytes) -> bytes:
    """A frame as a client sends it, and sometimes as none should."""
    opcode, masked, announced = 1, True, len(payload)
    first = 0x80
    wrong = random.random()
    if wrong < 0.04:
        opcode = random.choice((0, 2, 3, 7, 8, 9, 10, 11, 15))
    elif wrong < 0.06:
        first = random.choice((0x00, 0xC0, 0xF0, 0x90))
    elif wrong < 0.08:
        masked = False
    elif wrong < 0.10:
        announced = random.choice((2**63 - 1, 2**64 - 1, 2**31, announced + 10, max(0, announced - 1)))
    head = bytes([first | opcode])
    bit = 0x80 if masked else 0
    if announced < 126:
        head += bytes([bit | announced])
    elif announced < 65536:
        head += bytes([bit | 126]) + announced.to_bytes(2, "big")
    else:
        head += bytes([bit | 127]) + announced.to_bytes(8, "big")
    if not masked:
        return head + payload
    mask = random.randbytes(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def garbage(random: Random) -> bytes:
    """Text that is no JSON, or is JSON of a wrong kind."""
    return random.choice(
        (
            b"", b"{", b"null", b"[]", b"5", b'"x"', b"[" * 50_000, b'{"a":' * 20_000, b"\xff\xfe\x00", b'{"id":NaN}',
            b'{"id":1e999}', b'{"id":1,"id":2}', b'{"method":"time","params":[]}', b'{"method":null}',
            b'{"id":"\\ud800","method":"time"}', b"x" * 100_000, b'{"id":' + b"9" * 5000 + b',"method":"time"}',
        )
    )  # fmt: skip


def odd_json(random: Random) -> Any:
    """A JSON value where another was expected."""
    return random.choice(
        (
            None,
            True,
            False,
            0,
            -1,
            2**63,
            2**64,
            10**400,
            1.5,
            1e300,
            "",
            "x",
            "a" * 40,
            [],
            [1],
            {},
            {"a": [None]},
            *_ODD[:12],
        )
    )


def flipped(random: Random, message: bytes) -> bytes:
    """Some bytes are others."""
    changed = bytearray(message)
    for _ in range(random.randrange(1, 6)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)
