"""The WebSocket API of the paper exchange: sessions, user events, limits and the answers to wrong requests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.paper_ws import Talk, connected, ed25519_trader, trader

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "40000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module; each test has accounts of its own."""
    async with running_paper_exchange(Options(symbols=(SYMBOL, "ETHUSDT"))) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def talk(exchange: PaperExchange) -> AsyncIterator[Talk]:
    """A connection for one test."""
    async with connected(exchange) as opened:
        yield opened


def error_of(answer: dict[str, Any]) -> tuple[int, int, str]:
    """Status, code and message of a refusal."""
    return answer["status"], answer["error"]["code"], answer["error"]["msg"]


async def test_who_is_logged_on_signs_nothing_more(exchange: PaperExchange, talk: Talk) -> None:
    owner = await ed25519_trader(exchange, USDT="10000")
    before = (await talk.ask("session.status"))["result"]
    assert (before["apiKey"], before["authorizedSince"], before["userDataStream"]) == (None, None, False)
    on = (await talk.ask("session.logon", owner.key.signed()))["result"]
    assert on["apiKey"] == owner.key.api_key
    assert before["connectedSince"] == on["connectedSince"] <= on["authorizedSince"] <= on["serverTime"]
    assert (await talk.ask("session.status"))["result"]["authorizedSince"] == on["authorizedSince"]

    placed = await talk.ask("order.place", ORDER | {"timestamp": wall_clock_ms()})
    assert (placed["status"], placed["result"]["status"]) == (200, "NEW")
    stale = await talk.ask("account.status", {"timestamp": wall_clock_ms() - 60_000})
    assert error_of(stale) == (400, -1021, "Timestamp for this request is outside of the recvWindow.")
    other = await trader(exchange, USDT="5")
    named = await talk.ask("account.status", other.key.signed())
    assert named["result"]["uid"] == other.uid
    unsigned = await talk.ask("account.status", {"apiKey": owner.key.api_key, "timestamp": wall_clock_ms()})
    assert error_of(unsigned)[:2] == (400, -1102)

    off = (await talk.ask("session.logout"))["result"]
    assert (off["apiKey"], off["authorizedSince"]) == (None, None)
    refused = await talk.ask("order.place", ORDER | {"timestamp": wall_clock_ms()})
    assert error_of(refused) == (401, -2014, "API-key format invalid.")


async def test_only_an_ed25519_key_logs_on(exchange: PaperExchange, talk: Talk) -> None:
    owner = await trader(exchange, USDT="1")
    assert (await talk.ask("account.status", owner.key.signed()))["status"] == 200
    refused = await talk.ask("session.logon", owner.key.signed())
    assert error_of(refused) == (400, -1022, "Signature for this request is not valid.")
    assert (await talk.ask("session.status"))["result"]["apiKey"] is None


async def test_a_deleted_key_ends_its_streams_at_once_and_its_session_with_the_next_request(
    exchange: PaperExchange, talk: Talk
) -> None:
    owner = await ed25519_trader(exchange, USDT="10000")
    await talk.ask("session.logon", owner.key.signed())
    assert (await talk.ask("userDataStream.subscribe"))["result"] == {"subscriptionId": 0}
    path = f"/control/accounts/{owner.uid}/keys/{owner.key.api_key}"
    async with exchange.session.delete(exchange.control_url + path) as answer:
        assert answer.status == 200
    ended = await talk.next()
    assert (ended["subscriptionId"], ended["event"]["e"]) == (0, "eventStreamTerminated")
    await talk.socket.send_json({"id": 7, "method": "account.status", "params": {"timestamp": wall_clock_ms()}})
    revoked = {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}
    assert await talk.next() == {"id": None, "status": 401, "error": revoked}
    assert (await talk.ask("session.status"))["result"]["apiKey"] is None
    refused = await talk.ask("userDataStream.subscribe.signature", owner.key.signed())
    assert error_of(refused)[:2] == (401, -2015)


async def test_events_of_several_accounts_come_under_the_numbers_of_their_subscriptions(
    exchange: PaperExchange, talk: Talk
) -> None:
    one, two = await ed25519_trader(exchange, USDT="1"), await trader(exchange, USDT="1")
    refused = await talk.ask("userDataStream.subscribe")
    assert refused["status"] == 401
    await talk.ask("session.logon", one.key.signed())
    assert (await talk.ask("userDataStream.subscribe"))["result"] == {"subscriptionId": 0}
    again = await talk.ask("userDataStream.subscribe.signature", one.key.signed())
    assert error_of(again) == (400, -2035, "User Data Stream subscription already active.")
    second = await talk.ask("userDataStream.subscribe.signature", two.key.signed())
    assert second["result"] == {"subscriptionId": 1}
    listed = await talk.ask("session.subscriptions")
    assert listed["result"] == [{"subscriptionId": 0}, {"subscriptionId": 1}]

    for number, owner in enumerate((one, two)):
        await deposit(exchange, owner.uid, "BTC", "2")
        told = [await talk.next(), await talk.next()]
        assert [(event["subscriptionId"], event["event"]["e"]) for event in told] == [
            (number, "balanceUpdate"),
            (number, "outboundAccountPosition"),
        ]
        assert told[1]["event"]["B"] == [{"a": "BTC", "f": "2.00000000", "l": "0.00000000"}]

    # The end of a session ends what it subscribed, not what was subscribed by signature.
    await talk.ask("session.logout")
    ended = await talk.next()
    assert (ended["subscriptionId"], ended["event"]["e"]) == (0, "eventStreamTerminated")
    assert (await talk.ask("session.status"))["result"]["userDataStream"] is True
    unknown = await talk.ask("userDataStream.unsubscribe", {"subscriptionId": 0})
    assert error_of(unknown) == (400, -2036, "User Data Stream subscription not active.")
    assert (await talk.ask("userDataStream.unsubscribe", {"subscriptionId": 1}))["result"] == {}
    assert (await talk.next())["event"]["e"] == "eventStreamTerminated"
    await deposit(exchange, two.uid, "BTC", "1")
    assert (await talk.ask("session.subscriptions"))["result"] == []
    third = await talk.ask("userDataStream.subscribe.signature", two.key.signed())
    assert third["result"] == {"subscriptionId": 2}
    await talk.ask("userDataStream.subscribe.signature", one.key.signed())
    assert (await talk.ask("userDataStream.unsubscribe"))["result"] == {}
    ends = [await talk.next(), await talk.next()]
    assert [event["subscriptionId"] for event in ends] == [2, 3]
    assert talk.events == []


async def deposit(exchange: PaperExchange, uid: int, asset: str, amount: str) -> None:
    """Pay into an account."""
    path = f"{exchange.control_url}/control/accounts/{uid}/deposits"
    async with exchange.session.post(path, json={"deposits": {asset: amount}}) as answer:
        assert answer.status == 200


async def test_an_answer_goes_before_the_events_it_causes(exchange: PaperExchange, talk: Talk) -> None:
    owner = await trader(exchange, USDT="10000")
    await talk.ask("userDataStream.subscribe.signature", owner.key.signed())
    placed = await talk.ask("order.place", owner.key.signed(**ORDER, newClientOrderId="first"))
    assert talk.events == []
    told = [(await talk.next())["event"] for _ in range(2)]
    assert [event["e"] for event in told] == ["executionReport", "outboundAccountPosition"]
    assert (told[0]["x"], told[0]["i"], told[0]["c"]) == ("NEW", placed["result"]["orderId"], "first")
    assert told[0]["E"] <= told[1]["E"]
    gone = await talk.ask("order.cancel", owner.key.signed(symbol=SYMBOL, orderId=placed["result"]["orderId"]))
    assert gone["result"]["status"] == "CANCELED"
    told = [(await talk.next())["event"] for _ in range(2)]
    assert [(event["e"], event.get("x")) for event in told] == [
        ("executionReport", "CANCELED"),
        ("outboundAccountPosition", None),
    ]


async def test_the_events_of_an_order_list_tell_its_start_and_its_end(exchange: PaperExchange, talk: Talk) -> None:
    owner = await trader(exchange, BTC="1")
    await talk.ask("userDataStream.subscribe.signature", owner.key.signed())
    price = int(await exchange.last_price(SYMBOL))
    listed = await talk.ask(
        "orderList.place.oco",
        owner.key.signed(
            symbol=SYMBOL,
            side="SELL",
            quantity="0.01",
            aboveType="LIMIT_MAKER",
            abovePrice=str(price + 5000),
            belowType="STOP_LOSS",
            belowStopPrice=str(price - 5000),
        ),
    )
    assert listed["status"] == 200
    statuses = []
    await talk.ask("orderList.cancel", owner.key.signed(symbol=SYMBOL, orderListId=listed["result"]["orderListId"]))
    while statuses[-1:] != ["ALL_DONE"]:
        event = (await talk.until(lambda frame: frame["event"]["e"] == "listStatus"))["event"]
        statuses.append(event["L"])
    assert statuses == ["EXECUTING", "ALL_DONE"]


async def test_rate_limits_are_told_unless_nobody_wants_them(exchange: PaperExchange, talk: Talk) -> None:
    owner = await trader(exchange, USDT="10000")
    weights = (await talk.ask("time"))["rateLimits"]
    assert [(one["rateLimitType"], one["interval"], one["intervalNum"]) for one in weights] == [
        ("REQUEST_WEIGHT", "MINUTE", 1)
    ]
    for params in (ORDER, ORDER | {"price": "0"}):
        answer = await talk.ask("order.place", owner.key.signed(**params))
        kinds = [(one["rateLimitType"], one["interval"], one["count"] > 0) for one in answer["rateLimits"]]
        assert kinds == [
            ("ORDERS", "SECOND", True),
            ("ORDERS", "DAY", True),
            ("REQUEST_WEIGHT", "MINUTE", True),
        ], answer
    assert "rateLimits" not in await talk.ask("time", {"returnRateLimits": False})
    assert "rateLimits" not in await talk.ask("account.status", owner.key.signed(returnRateLimits=False))
    async with connected(exchange, "/ws-api/v3?returnRateLimits=false") as quiet:
        assert "rateLimits" not in await quiet.ask("time")
        assert "rateLimits" in await quiet.ask("time", {"returnRateLimits": True})
        assert (await quiet.ask("session.status"))["result"]["returnRateLimits"] is False


async def test_who_spends_too_much_weight_is_told_when_to_come_back_and_then_banned() -> None:
    async with (
        running_paper_exchange(Options(symbols=(SYMBOL,), weight_per_minute=50)) as exchange,
        connected(exchange) as talk,
    ):
        while (answer := await talk.ask("exchangeInfo"))["status"] == 200:
            pass
        data = answer["error"]["data"]
        assert (answer["status"], answer["error"]["code"]) == (429, -1003)
        assert data["serverTime"] < data["retryAfter"] <= data["serverTime"] + 60_000
        while answer["status"] == 429:
            answer = await talk.ask("exchangeInfo")
        assert answer["status"] == 418
        assert answer["error"]["data"]["retryAfter"] >= answer["error"]["data"]["serverTime"] + 110_000
        assert (await talk.closed())[0] == 1008


async def test_times_are_told_in_microseconds_where_the_address_asks_for_it(exchange: PaperExchange) -> None:
    owner = await trader(exchange, USDT="10000")
    async with connected(exchange, "/ws-api/v3?timeUnit=MICROSECOND") as talk:
        now = wall_clock_ms()
        assert (await talk.ask("time"))["result"]["serverTime"] >= now * 1000
        assert (await talk.ask("session.status"))["result"]["connectedSince"] > now * 999
        kline = (await talk.ask("klines", {"symbol": SYMBOL, "interval": "1m", "limit": 1}))["result"][0]
        assert (kline[0] % 60_000_000, kline[6] - kline[0]) == (0, 59_999_999)
        await talk.ask("userDataStream.subscribe.signature", owner.key.signed(timestamp=wall_clock_ms() * 1000))
        placed = (await talk.ask("order.place", owner.key.signed(**ORDER)))["result"]
        report = (await talk.next())["event"]
        assert (report["T"], report["O"], report["W"]) == (placed["transactTime"],) * 3
        assert report["T"] > now * 999
        assert (await talk.next())["event"]["u"] > now * 999


@pytest.mark.parametrize("unit", ["NANOSECOND", "Millisecond"])
async def test_another_unit_of_time_is_refused(exchange: PaperExchange, unit: str) -> None:
    for path in ("/ws-api/v3", "/ws", "/stream"):
        async with exchange.session.get(f"{exchange.base_url}{path}?timeUnit={unit}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (400, -1194)


async def test_the_methods_answer_what_rest_answers(exchange: PaperExchange, talk: Talk) -> None:
    for method, path, params in (
        ("exchangeInfo", "exchangeInfo", {"symbols": ["ETHUSDT"]}),
        ("trades.historical", "historicalTrades", {"symbol": SYMBOL, "fromId": 1, "limit": 1}),
        ("klines", "klines", {"symbol": SYMBOL, "interval": "1h", "startTime": 0, "limit": 3, "timeZone": "8"}),
        ("ticker.tradingDay", "ticker/tradingDay", {"symbols": ["ETHUSDT", SYMBOL], "type": "MINI"}),
    ):
        answer = await talk.ask(method, params)
        assert answer["status"] == 200, answer
        query = {
            name: json.dumps(value, separators=(",", ":")) if isinstance(value, list) else str(value)
            for name, value in params.items()
        }
        async with exchange.session.get(f"{exchange.base_url}/api/v3/{path}", params=query) as rest:
            told = await rest.json()
        if method == "exchangeInfo":
            assert answer["result"]["symbols"] == told["symbols"]
        elif method == "ticker.tradingDay":
            assert [row["symbol"] for row in answer["result"]] == [row["symbol"] for row in told]
        else:
            assert answer["result"] == told
    assert (await talk.ask("v3/ticker.book", {"symbol": SYMBOL}))["result"]["symbol"] == SYMBOL


@pytest.mark.parametrize(
    ("frame", "ident", "code", "message"),
    [
        pytest.param("{", None, -1135, "Invalid JSON Request", id="no JSON"),
        pytest.param("[]", None, -1135, "Invalid JSON Request", id="a list"),
        pytest.param(
            '{"method":"ping"}',
            None,
            -1102,
            "Mandatory parameter 'id' was not sent, was empty/null, or malformed.",
            id="no id",
        ),
        pytest.param(
            '{"id":1.5,"method":"ping"}', None, -1130, "Data sent for parameter 'id' is not valid.", id="a fraction"
        ),
        pytest.param(
            '{"id":9223372036854775808,"method":"ping"}',
            None,
            -1130,
            "Data sent for parameter 'id' is not valid.",
            id="more than 64 bits",
        ),
        pytest.param(
            '{"id":"' + 37 * "x" + '","method":"ping"}',
            None,
            -1130,
            "Data sent for parameter 'id' is not valid.",
            id="too long",
        ),
        pytest.param(
            '{"id":"a"}',
            "a",
            -1102,
            "Mandatory parameter 'method' was not sent, was empty/null, or malformed.",
            id="no method",
        ),
        pytest.param(
            '{"id":1,"method":"no.such"}', 1, -1020, "This operation is not supported.", id="an unknown method"
        ),
        pytest.param(
            '{"id":1,"method":"time","params":[]}',
            1,
            -1135,
            "JSON sent for parameter 'params' is not valid",
            id="parameters in a list",
        ),
        pytest.param(
            '{"id":null,"method":"depth","params":{"symbol":5}}', None, -1121, "Invalid symbol.", id="a number"
        ),
        pytest.param(
            '{"id":-9223372036854775808,"method":"depth","params":{"symbol":null}}',
            -9223372036854775808,
            -1102,
            "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.",
            id="null",
        ),
    ],
)
async def test_a_wrong_request_is_refused_under_its_id(
    talk: Talk, frame: str, ident: Any, code: int, message: str
) -> None:
    await talk.socket.send_str(frame)
    answer = await talk.next()
    assert (answer["id"], *error_of(answer)) == (ident, 400, code, message)


async def test_a_signature_covers_every_parameter(exchange: PaperExchange, talk: Talk) -> None:
    owner = await trader(exchange, USDT="1")
    signed = owner.key.signed(omitZeroBalances=True)
    assert (await talk.ask("account.status", signed))["status"] == 200
    forged = await talk.ask("account.status", signed | {"omitZeroBalances": False})
    assert error_of(forged) == (400, -1022, "Signature for this request is not valid.")


async def test_requests_are_counted_by_method_and_status(exchange: PaperExchange, talk: Talk) -> None:
    await talk.ask("avgPrice", {"symbol": SYMBOL})
    await talk.ask("x" * 50)
    async with exchange.session.get(exchange.control_url + "/metrics") as answer:
        text = await answer.text()
    assert 'paper_exchange_ws_requests_total{method="avgPrice",status="200"}' in text
    assert 'paper_exchange_ws_requests_total{method="other",status="400"}' in text
    assert "xxx" not in text
