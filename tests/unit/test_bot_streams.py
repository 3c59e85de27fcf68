"""Promises of the live streams over time, on a virtual clock: demanded waits, and connections that age."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast

import pytest
from aiohttp import web

from paper_exchange.virtual_loop import VirtualLoop
from support.stream_server import StreamServer, book, kline, serving
from support.waiting import until
from tradingbot.gateway.connection_limits import LIMIT, WINDOW_SECONDS, ConnectionBudget
from tradingbot.gateway.market_watch import MarketWatch
from tradingbot.gateway.payloads import stream_book
from tradingbot.gateway.streams import ROTATE_AFTER, StreamName, Streams
from tradingbot.model import BookTicker
from tradingbot.recovery.circuit_breaker import BreakerPanel

START = datetime(2026, 3, 1, tzinfo=UTC)
LIFETIME = 3600
"""Seconds after which the exchange of these tests closes a connection."""
DAY = 24 * LIFETIME

BALANCES = {"e": "outboundAccountPosition", "E": 1, "B": [{"a": "BTC", "f": "1", "l": "0"}]}


def run(main: Coroutine[Any, Any, None]) -> None:
    """On virtual time: hours pass at once, and what never comes is not waited for in real time."""
    loop = VirtualLoop(Random(1), (0.001, 0.01))
    try:
        loop.run_until_complete(asyncio.wait_for(main, 2 * LIFETIME))
    finally:
        loop.close()


@dataclass
class Scene:
    """Streams of a bot, the exchange that they follow, and the wait that all of the bot keeps."""

    server: StreamServer
    streams: Streams
    panel: BreakerPanel

    @property
    def up(self) -> bool:
        """Whether both are connected."""
        return all(self.streams.health(name).connected for name in StreamName)

    async def tell(self, message: dict[str, object]) -> None:
        """Send it over every connection for market data."""
        for socket in self.server.markets:
            if not socket.closed:
                await socket.send_json(message)

    async def lose(self) -> None:
        """Close every connection."""
        for socket in (*self.server.users, *self.server.markets):
            await socket.close()


@asynccontextmanager
async def scene(address_bots: int = 1) -> AsyncIterator[Scene]:
    loop = asyncio.get_running_loop()
    panel = BreakerPanel(loop.time, lambda: START + timedelta(seconds=loop.time()))
    server = StreamServer()
    async with serving(server.handle) as url:
        streams = Streams(
            stream_url=url.replace("http", "ws", 1),
            ws_api_url=f"{url.replace('http', 'ws', 1)}/ws-api/v3",
            symbol="BTCUSDT",
            interval="1m",
            subscription=lambda: {"apiKey": "key", "timestamp": 1, "signature": "x"},
            wait=panel,
            connections=ConnectionBudget(lambda: address_bots, loop.time),
            monotonic=loop.time,
            random=Random(3),
            rotate_after=ROTATE_AFTER * LIFETIME / DAY,
        )
        task = asyncio.create_task(streams.run())
        made = Scene(server, streams, panel)
        try:
            await until("both streams", lambda: made.up)
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


# --- bans and limits ---


def test_no_stream_connects_within_a_wait_that_rest_was_told() -> None:
    async def main() -> None:
        async with scene() as it:
            it.panel.demand(600)
            await it.lose()
            await asyncio.sleep(599)
            assert it.server.handshakes == 2
            await until("both streams", lambda: it.up)
            assert it.server.handshakes == 4

    run(main())


@pytest.mark.parametrize("status", [418, 429])
def test_a_wait_demanded_at_the_handshake_is_kept_by_both_streams_and_told_to_all(status: int) -> None:
    async def main() -> None:
        async with scene() as it:
            it.server.refuse = lambda: web.Response(status=status, headers={"Retry-After": "300"})
            await it.lose()
            await until("a refusal", lambda: it.server.handshakes > 2)
            # The other stream may have asked in the same moment.
            await asyncio.sleep(290)
            assert it.server.handshakes <= 4
            assert 0 < it.panel.wait_seconds() <= 15
            it.server.refuse = lambda: None
            await until("both streams", lambda: it.up, 30)

    run(main())


@pytest.mark.parametrize("status", [418, 429])
def test_a_wait_demanded_by_an_answer_to_the_subscription_is_kept_and_told_to_all(status: int) -> None:
    error = {"code": -1003, "msg": "banned", "data": {"serverTime": 1_000_000, "retryAfter": 1_120_000}}

    async def main() -> None:
        async with scene() as it:
            it.server.refusal = {"status": status, "error": error}
            await it.server.users[0].close()
            await until("a refusal", lambda: it.server.subscriptions > 1)
            await asyncio.sleep(1)
            assert 118 < it.panel.wait_seconds() < 120
            await asyncio.sleep(110)
            assert it.server.subscriptions == 2
            it.server.refusal = None
            await until("both streams", lambda: it.up, 30)

    run(main())


@pytest.mark.parametrize("error", ["banned", [-1003], {"code": "banned"}, {"code": -1003, "data": "banned"}], ids=repr)
def test_a_refused_subscription_of_another_shape_than_documented_is_tried_again(error: object) -> None:
    async def main() -> None:
        async with scene() as it:
            it.server.refusal = {"status": 400, "error": error}
            await it.server.users[0].close()
            await until("a refusal", lambda: it.server.subscriptions > 1)
            it.server.refusal = None
            await until("both streams", lambda: it.up, 30)

    run(main())


def test_a_limit_told_on_a_ping_is_kept_without_losing_the_stream() -> None:
    error = {"code": -1003, "msg": "too much", "data": {"serverTime": 1_000_000, "retryAfter": 1_200_000}}

    async def main() -> None:
        async with scene() as it:
            it.server.refusal = {"status": 429, "error": error}
            await until("the wait", lambda: it.panel.wait_seconds() > 0, 30)
            it.server.refusal = None
            before = it.server.requests
            await asyncio.sleep(195)
            assert it.server.requests == before
            await until("the next ping", lambda: it.streams.user_alive, 10)
            assert it.server.handshakes == 2

    run(main())


def test_too_many_connections_without_a_time_keep_no_order_from_being_sent() -> None:
    async def main() -> None:
        async with scene() as it:
            it.server.refuse = lambda: web.Response(status=429)
            await it.lose()
            await until("a refusal", lambda: it.server.handshakes > 2)
            await asyncio.sleep(1)
            assert it.panel.wait_seconds() == 0

    run(main())


def test_an_exchange_that_refuses_for_long_is_asked_less_and_less() -> None:
    async def main() -> None:
        async with scene() as it:
            it.server.refuse = lambda: web.Response(status=503)
            await it.lose()
            await asyncio.sleep(600)
            before = it.server.handshakes
            await asyncio.sleep(1200)
            # Two streams, each after 30 s on average.
            assert 40 < it.server.handshakes - before < 120
            it.server.refuse = lambda: None
            await until("both streams", lambda: it.up, 61)

    run(main())


@pytest.mark.parametrize("bots", [6, 50, 150])
def test_bots_of_one_address_that_lose_every_connection_make_no_more_new_ones_than_it_may(bots: int) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with scene(bots) as it:
            begun, asked = loop.time(), [0.0]
            known = len(it.server.markets)
            while loop.time() < begun + 3 * WINDOW_SECONDS:
                await it.lose()
                await asyncio.sleep(0.1)
                asked += [loop.time() - begun] * (len(it.server.markets) - known)
                known = len(it.server.markets)
            most = max(sum(at <= other < at + WINDOW_SECONDS for other in asked) for at in asked)
            assert len(asked) > 2
            assert most * bots <= LIMIT

    run(main())


def test_who_must_wait_for_a_new_connection_says_so_and_for_how_long() -> None:
    async def main() -> None:
        async with scene(50) as it:
            for _ in range(5):
                await it.lose()
                await asyncio.sleep(2)
            assert "50 bots share the new connections" in (it.streams.health(StreamName.MARKET).last_error or "")
            await until("both streams", lambda: it.up, 120)

    run(main())


def test_a_connection_that_is_cut_within_its_handshake_is_made_anew() -> None:
    async def main() -> None:
        async with scene() as it:
            it.server.cuts = True
            await it.lose()
            await until("more tries", lambda: it.server.handshakes > 10, 300)
            it.server.cuts = False
            await until("both streams", lambda: it.up, 61)

    run(main())


def test_an_exchange_that_is_not_reached_counts_no_connection() -> None:
    async def main() -> None:
        loop, limits = asyncio.get_running_loop(), []
        budget = ConnectionBudget(lambda: 150, loop.time)
        for _ in range(20):
            budget.asked("market")
            limits.append(budget.wait_seconds("market"))
            budget.unheard("market")
        assert min(limits) > 300
        assert budget.wait_seconds("market") == 0
        assert budget.wait_seconds("user") == 0

    run(main())


# --- connected and silent ---


@dataclass
class Watched:
    """A market whose book the exchange answers, and its watch."""

    scene: Scene
    watch: MarketWatch = field(init=False)
    asked: int = 0
    bid: str = "100"

    async def ask(self) -> BookTicker:
        """As GET ticker/bookTicker."""
        self.asked += 1
        now = asyncio.get_running_loop().time()
        return stream_book(cast(dict[str, Any], book(self.bid)["data"]), now)


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    async with scene() as it:
        loop = asyncio.get_running_loop()
        made = Watched(it)
        made.watch = MarketWatch(it.streams, made.ask, loop.time)
        await it.tell(book(made.bid))
        task = asyncio.create_task(made.watch.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def test_a_market_stream_that_answers_pings_and_brings_nothing_is_rebuilt_and_the_price_goes_on() -> None:
    async def main() -> None:
        async with watched() as it:
            loop = asyncio.get_running_loop()
            it.bid = "99"
            await until("another connection", lambda: len(it.scene.server.markets) == 2, 35)
            # The next ones are no better: it is tried again and again, less and less.
            for second in range(590):
                it.bid = str(100 + second)
                await asyncio.sleep(1)
                known = it.watch.book
                assert known is not None
                assert loop.time() - known.received <= 11
            assert 9 <= len(it.scene.server.markets) <= 13
            assert not it.watch.alive
            await it.scene.tell(book("96"))
            await until("the stream", lambda: it.watch.alive, 5)

    run(main())


def test_a_quiet_market_is_alive_and_its_stream_kept() -> None:
    async def main() -> None:
        async with watched() as it:
            await asyncio.sleep(600)
            assert it.watch.alive
            assert len(it.scene.server.markets) == 1
            assert 50 < it.asked < 61
            # What just changed may be on its way when the exchange is asked.
            it.bid = "99"
            asked = it.asked
            await until("the next look", lambda: it.asked > asked, 11)
            await it.scene.tell(book("99"))
            await asyncio.sleep(60)
            assert it.watch.alive
            assert len(it.scene.server.markets) == 1

    run(main())


def test_a_market_that_is_heard_is_not_asked_for() -> None:
    async def main() -> None:
        async with watched() as it:
            for _ in range(100):
                await it.scene.tell(book("100"))
                await asyncio.sleep(5)
            assert it.asked == 0

    run(main())


# --- replaced before it ends ---


def test_connections_are_replaced_before_their_time_is_over_and_nothing_is_missed() -> None:
    async def end_of_life(socket: web.WebSocketResponse) -> None:
        await asyncio.sleep(LIFETIME)
        await socket.close()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with scene() as it:
            await it.streams.next()
            ends = [asyncio.create_task(end_of_life(socket)) for socket in (*it.server.users, *it.server.markets)]
            told = 0
            while loop.time() < LIFETIME + 600:
                told += 1
                await it.tell(kline(told * 60_000, closed=True))
                batch = await it.streams.next()
                assert [candle.open_ms for candle in batch.candles] == [told * 60_000]
                assert batch.reconnected == set()
                assert it.up
                await asyncio.sleep(60)
            assert (len(it.server.users), len(it.server.markets)) == (2, 2)
            assert all(end.done() for end in ends)

    run(main())


def test_streams_are_replaced_as_soon_as_the_exchange_says_that_it_shuts_down() -> None:
    async def main() -> None:
        async with scene() as it:
            await it.streams.next()
            await it.server.markets[0].send_json({"e": "serverShutdown", "E": 1})
            await it.server.users[0].send_json({"event": {"e": "serverShutdown", "E": 1}})
            await until("both successors", lambda: (len(it.server.users), len(it.server.markets)) == (2, 2), 5)
            # What the former one still tells is heard too.
            await it.server.users[0].send_json({"subscriptionId": 0, "event": BALANCES})
            assert len((await it.streams.next()).user) == 1
            await until("the former to be closed", lambda: it.server.users[0].closed and it.server.markets[0].closed)
            assert it.up
            await it.tell(book("100"))
            assert (await it.streams.next()).reconnected == set()

    run(main())


def test_a_connection_goes_on_while_none_can_follow_it() -> None:
    async def main() -> None:
        async with scene() as it:
            await it.streams.next()
            it.server.refuse = lambda: web.Response(status=503)
            await it.server.markets[0].send_json({"e": "serverShutdown", "E": 1})
            await asyncio.sleep(60)
            assert it.server.handshakes > 4
            await it.tell(book("100"))
            await it.streams.next()
            assert it.streams.book is not None
            it.server.refuse = lambda: None
            await until("the successor", lambda: len(it.server.markets) == 2, 61)

    run(main())


def test_a_connection_that_ends_before_its_successor_is_there_is_reported() -> None:
    async def main() -> None:
        async with scene() as it:
            await it.streams.next()
            it.panel.demand(60)
            await it.server.markets[0].send_json({"e": "serverShutdown", "E": 1})
            await asyncio.sleep(1)
            await it.server.markets[0].close()
            await until("the end", lambda: not it.streams.health(StreamName.MARKET).connected)
            await until("the successor", lambda: it.up, 70)
            assert (await it.streams.next()).reconnected == {StreamName.MARKET}

    run(main())


def test_an_interval_that_changes_while_the_streams_connect_is_followed() -> None:
    async def main() -> None:
        async with scene() as it:
            it.streams.change_interval("1s")
            await until("a second handshake", lambda: it.server.handshakes == 3, every=0.0001)
            it.streams.change_interval("5m")
            await until("the last one", lambda: len(it.server.markets) == 3, 10)
            assert "kline_5m" in it.server.paths[-1]

    run(main())


def test_an_older_book_of_the_connection_that_is_replaced_is_not_taken() -> None:
    async def main() -> None:
        async with scene() as it:
            await it.server.markets[0].send_json({"e": "serverShutdown", "E": 1})
            await until("the successor", lambda: len(it.server.markets) == 2, 5)
            for bid, market in (("1", 0), ("3", 1), ("2", 0)):
                await it.server.markets[market].send_json(book(bid))
                await asyncio.sleep(0.1)
            assert it.streams.book is not None
            assert it.streams.book.bid == 3

    run(main())
