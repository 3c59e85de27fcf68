"""Faults of streams as a client sees them: events lost, doubled, turned and late, silent streams, cut connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from paper_exchange.testing import PaperExchange
from support.paper_ws import Talk, Trader, connected, trader

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "20000"}


@asynccontextmanager
async def listening(exchange: PaperExchange, who: Trader) -> AsyncIterator[Talk]:
    """A connection that hears the events of an account."""
    async with connected(exchange) as talk:
        answer = await talk.ask("userDataStream.subscribe.signature", who.key.signed())
        assert answer["status"] == 200
        yield talk


def reported(kind: str) -> Any:
    """Whether an event is of a type."""
    return lambda event: event.get("event", {}).get("e") == kind


@pytest.mark.parametrize(
    ("fault", "steps"),
    [
        pytest.param({"kind": "drop_events", "nth": [[2, 3]]}, [3], id="dropped"),
        pytest.param({"kind": "duplicate_events", "nth": [2]}, [0], id="doubled"),
        pytest.param({"kind": "reorder_events", "nth": [2]}, [2, -1, 2], id="turned"),
    ],
)
async def test_trades_are_lost_doubled_and_turned_on_one_stream(
    exchange: PaperExchange, fault: dict[str, Any], steps: list[int]
) -> None:
    async with connected(exchange, "/ws/btcusdt@trade") as one:
        ids = [(await one.next())["t"]]
        await exchange.start_fault(**fault, streams="btcusdt@trade")
        # Another stream, also of the same connection, is not disturbed.
        await one.ask("SUBSCRIBE", ["btcusdt@aggTrade"])
        aggregates: list[int] = []
        for _ in range(6):  # an event waits for one that overtakes it for a second only
            await exchange.push_trade(SYMBOL, await exchange.last_price(SYMBOL))
        while len(ids) < 12 or len(aggregates) < 12:
            event = await one.until(lambda event: event.get("e") in ("trade", "aggTrade"))
            (ids.append(event["t"]) if event["e"] == "trade" else aggregates.append(event["a"]))
    # Trades have numbers without gaps: any other step than the next number is the fault's.
    assert [step for step in differences(ids) if step != 1] == steps
    assert set(differences(aggregates)) == {1}


def differences(ids: list[int]) -> list[int]:
    """By how much each number is larger than the one before."""
    return [later - earlier for earlier, later in pairwise(ids)]


async def test_a_user_stream_is_silent_while_its_connection_is_open_and_rest_tells_the_truth(
    exchange: PaperExchange,
) -> None:
    who, other = await trader(exchange, USDT="10000"), await trader(exchange, USDT="10000")
    fault = await exchange.start_fault("dead_stream", accounts=who.uid)
    async with listening(exchange, who) as talk, listening(exchange, other) as heard:
        for one, whose in ((talk, who), (heard, other)):
            assert (await one.ask("order.place", whose.key.signed(**ORDER)))["status"] == 200
        await heard.until(reported("executionReport"))
        # An answer comes behind all events that were sent before it.
        assert len((await talk.ask("openOrders.status", who.key.signed(symbol=SYMBOL)))["result"]) == 1
        assert talk.events == []
        async with exchange.session.delete(f"{exchange.control_url}/control/faults/{fault}") as answer:
            assert answer.status == 200
        await talk.ask("openOrders.cancelAll", who.key.signed(symbol=SYMBOL))
        assert (await talk.until(reported("executionReport")))["event"]["x"] == "CANCELED"


async def test_late_events_of_a_user_keep_their_order(exchange: PaperExchange) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("delay_events", accounts=who.uid, seconds=0.5, events="executionReport", count=1)
    async with listening(exchange, who) as talk:
        begun = time.monotonic()
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200
        assert (await talk.ask("openOrders.cancelAll", who.key.signed(symbol=SYMBOL)))["status"] == 200
        assert talk.events == []
        kinds = [(await talk.until(lambda event: "event" in event))["event"] for _ in range(4)]
        assert time.monotonic() - begun >= 0.5
    assert [event.get("x", event["e"]) for event in kinds] == [
        "NEW",
        "outboundAccountPosition",
        "CANCELED",
        "outboundAccountPosition",
    ]


async def test_a_connection_is_cut_instead_of_telling_an_event(exchange: PaperExchange) -> None:
    who = await trader(exchange, USDT="10000")
    await exchange.start_fault("cut_connection", accounts=who.uid, events="executionReport", count=1)
    async with listening(exchange, who) as first, listening(exchange, who) as second:
        async with connected(exchange) as talk:
            assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200
        # One event on one connection: the other one hears all of it.
        await first.closed()
        assert first.events == []
        assert (await second.until(reported("executionReport")))["event"]["x"] == "NEW"
    assert len((await exchange.account(who.uid))["openOrders"]) == 1
