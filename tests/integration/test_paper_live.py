"""One paper exchange follows another: the same book and trades, and nothing from old data when they are cut apart."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from aiohttp import web

from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import to_decimal
from paper_exchange.market.live import UpstreamError
from paper_exchange.market.tape import AggTrade
from paper_exchange.server.app import Options, PaperExchangeServer
from paper_exchange.server.connections import ConnectionLimits
from paper_exchange.server.live import LiveFeed, LiveTimes
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.message_proxy import MessageProxy, message_proxy
from support.signing import Sender
from support.still_market import write_still_market
from support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
BTC = (SYMBOL,)
SHORT = LiveTimes(stale=0.6)
Sides = tuple[list[tuple[int, int]], list[tuple[int, int]]]


@dataclass
class Record:
    """The book of one symbol after each update of the followed exchange, and the public trades, as they happened."""

    server: PaperExchangeServer
    update_id: Callable[[], int | None]
    symbol: str = SYMBOL
    books: dict[int, Sides] = field(default_factory=dict)
    trades: list[tuple[int, int, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server.venue.listeners.append(self)

    def on_print(self, trade: TradePrint) -> None:
        if trade.symbol == self.symbol:
            self.trades.append((trade.price, trade.quantity, trade.buyer_is_maker))

    def on_aggregates(self, symbol: str, aggregates: Sequence[AggTrade]) -> None:
        """Not of interest."""

    def on_book(self, symbol: str) -> None:
        ident = self.update_id()
        if symbol == self.symbol and ident is not None:
            market = self.server.venue.exchange.market(symbol)
            self.books[ident] = market.bids.levels(5000), market.asks.levels(5000)


def server_of(exchange: PaperExchange) -> PaperExchangeServer:
    assert exchange.server is not None
    return exchange.server


def feed_of(exchange: PaperExchange) -> LiveFeed:
    live = server_of(exchange).live
    assert live is not None
    return live


def leader(exchange: PaperExchange, symbol: str = SYMBOL) -> Record:
    server = server_of(exchange)
    return Record(server, lambda: server.venue.book_ids[symbol], symbol)


def follower(exchange: PaperExchange, symbol: str = SYMBOL) -> Record:
    book = feed_of(exchange).followers[symbol].book
    return Record(server_of(exchange), lambda: book.update_id, symbol)


def followed(url: str, symbols: tuple[str, ...] = BTC, times: LiveTimes = LiveTimes()) -> Options:  # noqa: B008, frozen
    return Options(symbols=symbols, market=f"live:{url}", live=times)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def first() -> AsyncIterator[PaperExchange]:
    """A generated market, which tests follow one after the other: more snapshots than its limits would allow."""
    plenty = Options(symbols=("BTCUSDT", "ETHUSDT"), weight_per_minute=10**6, connections=ConnectionLimits(10**4))
    async with running_paper_exchange(plenty) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def still(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """A market that stands still at 50000."""
    market = write_still_market(tmp_path_factory.mktemp("still"), BTCUSDT="50000")
    plenty = Options(symbols=BTC, market=market, weight_per_minute=10**6, connections=ConnectionLimits(10**4))
    async with running_paper_exchange(plenty) as running:
        yield running


@asynccontextmanager
async def chained(first: PaperExchange, times: LiveTimes = SHORT) -> AsyncIterator[tuple[MessageProxy, PaperExchange]]:
    """A proxy, and an exchange that follows the first through it."""
    async with (
        message_proxy(first.base_url) as proxy,
        running_paper_exchange(followed(proxy.base_url, times=times)) as second,
    ):
        await until("the book is followed", lambda: feed_of(second).problem() is None)
        try:
            yield proxy, second
        finally:
            listeners = server_of(first).venue.listeners
            listeners[:] = [one for one in listeners if not isinstance(one, Record)]


async def same_again(first: PaperExchange, second: PaperExchange, updates: int = 3) -> None:
    """From now on the books agree at every update that both tell of."""
    theirs, ours = leader(first), follower(second)
    await until("books are told", lambda: len(ours.books.keys() & theirs.books.keys()) >= updates)
    differing = [ident for ident, book in ours.books.items() if theirs.books.get(ident, book) != book]
    assert differing == []


def in_a_row(some: list[Any], many: list[Any]) -> bool:
    """Whether some trades are among many without one left out."""
    return any(some == many[at : at + len(some)] for at in range(len(many)))


async def readiness(exchange: PaperExchange) -> tuple[int, str]:
    async with exchange.session.get(exchange.control_url + "/readyz") as answer:
        return answer.status, await answer.text()


async def trader(exchange: PaperExchange, **deposits: str) -> Sender:
    return Sender(exchange, await exchange.create_account(**(deposits or {"USDT": "100000", "BTC": "5"})))


def limit(side: str, price: Decimal | str, quantity: str = "0.01") -> dict[str, str]:
    order = {"symbol": SYMBOL, "side": side, "type": "LIMIT", "timeInForce": "GTC"}
    return order | {"price": str(price), "quantity": quantity}


async def order(sender: Sender, placed: dict[str, Any]) -> dict[str, Any]:
    found = await sender.signed("GET", "/api/v3/order", symbol=SYMBOL, orderId=placed["orderId"])
    return dict(found)


async def refusal(sender: Sender, **params: str) -> str:
    with pytest.raises(AssertionError) as refused:
        await sender.signed("POST", "/api/v3/order", **params)
    return str(refused.value)


async def test_books_and_trades_are_those_of_the_followed_exchange(first: PaperExchange) -> None:
    symbols = ("BTCUSDT", "ETHUSDT")
    theirs = [leader(first, symbol) for symbol in symbols]
    async with running_paper_exchange(followed(first.base_url, symbols)) as second:
        ours = [follower(second, symbol) for symbol in symbols]
        await until("enough was told", lambda: all(len(r.books) > 12 and len(r.trades) > 5 for r in ours))
    for their, our in zip(theirs, ours, strict=True):
        # The first one may be older than the record of it.
        assert len(our.books.keys() & their.books.keys()) > 11
        assert {ident: their.books.get(ident, book) for ident, book in our.books.items()} == our.books
        assert in_a_row(our.trades, their.trades)


async def test_candles_before_the_start_are_those_of_the_followed_exchange(first: PaperExchange) -> None:
    async with chained(first) as (_, second):
        for interval, count in (("1m", 400), ("1s", 900), ("1h", 8)):
            asked = {"symbol": SYMBOL, "interval": interval, "limit": str(count)}
            rows = []
            for exchange in (first, second):
                async with exchange.session.get(f"{exchange.base_url}/api/v3/klines", params=asked) as answer:
                    # The last ones still form, the oldest begin with the history.
                    rows.append({row[0]: row[:11] for row in (await answer.json())[2:-3]})
            same = rows[0].keys() & rows[1].keys()
            assert len(same) >= min(count, 8) - 6
            assert {key: rows[0][key] for key in same} == {key: rows[1][key] for key in same}


async def test_an_order_is_filled_at_its_price_when_the_followed_exchange_trades_through_it(
    first: PaperExchange,
) -> None:
    async with chained(first) as (_, second):
        mine = await trader(second)
        price = (await first.last_price(SYMBOL)) - 100
        placed = await mine.signed("POST", "/api/v3/order", **limit("BUY", price))
        assert placed["status"] == "NEW"
        await first.push_trade(SYMBOL, price - 50)
        venue = server_of(second).venue.exchange
        await until("it is filled", lambda: not venue.orders[placed["orderId"]].open)
        filled = await order(mine, placed)
        assert (filled["status"], Decimal(filled["cummulativeQuoteQty"])) == ("FILLED", price * Decimal("0.01"))


async def test_a_connection_that_is_cut_is_made_again_and_the_book_read_anew(first: PaperExchange) -> None:
    async with chained(first) as (_, second):
        feed, market = feed_of(second), server_of(second).venue.exchange.market(SYMBOL)
        for cut in (1, 2):
            # It may be followed again before the answer to the drop is here: somebody looks meanwhile, all the time.
            noticed = asyncio.create_task(
                until("the cut is noticed", lambda: feed.problem() is not None and market.status, every=0)
            )
            assert await first.drop_connections() >= 1
            assert await noticed == "CANCEL_ONLY"
            await until("it is followed again", lambda: feed.problem() is None)
            assert market.status == "TRADING"
            await same_again(first, second)
            async with second.session.get(second.control_url + "/metrics") as answer:
                metrics = await answer.text()
            assert f"paper_exchange_live_reconnects_total {cut}.0" in metrics
            assert f'paper_exchange_live_resyncs_total{{symbol="BTCUSDT"}} {cut + 1}.0' in metrics


async def test_a_followed_market_has_no_speed(first: PaperExchange) -> None:
    async with chained(first) as (_, second):
        url = second.control_url + "/control/market"
        async with second.session.patch(url, json={"speed": 60}) as answer:
            assert answer.status == 400
            assert "speed: expected 1, for live:http" in (await answer.json())["error"]
        async with second.session.get(url) as answer:
            assert (await answer.json())["speed"] is None


async def test_while_the_followed_exchange_is_down_orders_rest_none_is_taken_and_all_can_be_cancelled() -> None:
    async with AsyncExitStack() as stack:
        async with running_paper_exchange(Options(symbols=BTC)) as first:
            port = urlsplit(first.base_url).port or 0
            price = await first.last_price(SYMBOL)
            exchange = await stack.enter_async_context(running_paper_exchange(followed(first.base_url)))
            await until("the book is followed", lambda: feed_of(exchange).problem() is None)
        await until("the cut is noticed", lambda: feed_of(exchange).problem() is not None)
        mine = await trader(exchange)
        status, why = await readiness(exchange)
        assert status == 503
        assert first.base_url in why
        async with exchange.session.get(exchange.control_url + "/healthz") as answer:
            assert answer.status == 200  # a restart would not bring the other exchange back
        for params in (
            limit("BUY", price - 5000),
            {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "1"},
        ):
            refused = await refusal(mine, **params)
            assert "-2010" in refused
            assert "Market is closed." in refused
        async with running_paper_exchange(Options(symbols=BTC, port=port, seed=2)) as again:
            await until("it is followed again", lambda: feed_of(exchange).problem() is None)
            await same_again(again, exchange)
            assert (await readiness(exchange))[0] == 200
            kept = await mine.signed("POST", "/api/v3/order", **limit("BUY", price - 5000))
        await until("the second cut is noticed", lambda: feed_of(exchange).problem() is not None)
        assert (await order(mine, kept))["status"] == "NEW"
        cancelled = await mine.signed("DELETE", "/api/v3/order", symbol=SYMBOL, orderId=kept["orderId"])
        assert cancelled["status"] == "CANCELED"


async def test_a_stream_that_dies_silently_is_noticed_by_the_clock_and_nothing_is_filled_from_what_it_held(
    first: PaperExchange,
) -> None:
    async with chained(first) as (proxy, second):
        mine = await trader(second)
        price = (await first.last_price(SYMBOL)) - 100
        placed = await mine.signed("POST", "/api/v3/order", **limit("BUY", price))
        proxy.flowing.clear()
        proxy.refuse = 503
        await first.push_trade(SYMBOL, price - 50)
        await until("the silence is noticed", lambda: feed_of(second).problem() is not None)
        assert "Market is closed." in await refusal(mine, **limit("BUY", price))
        proxy.flowing.set()
        proxy.refuse = 0
        await until("it is followed again", lambda: feed_of(second).problem() is None)
        # Nobody here saw that trade when it happened, and the book does not cross the order.
        assert (await order(mine, placed))["status"] == "NEW"
        taken = await mine.signed("POST", "/api/v3/order", symbol=SYMBOL, side="BUY", type="MARKET", quantity="0.01")
        assert taken["status"] == "FILLED"
        await mine.signed("DELETE", "/api/v3/openOrders", symbol=SYMBOL)
        await same_again(first, second)


async def test_events_that_come_too_late_are_not_taken_though_they_keep_coming(first: PaperExchange) -> None:
    async with chained(first) as (proxy, second):
        feed = feed_of(second)
        proxy.slowdown = 0.2
        await until("the delay is noticed", lambda: feed.problem() is not None)
        # On a busy machine the next event is so late that nothing was heard.
        told = r"its events of BTCUSDT are 0\.[6-9] s old|nothing was heard of BTCUSDT for 0\.[6-9] s"
        assert re.search(told, str(feed.problem()))
        proxy.slowdown = 0.0
        await until("it is followed again", lambda: feed.problem() is None)
        await same_again(first, second)


async def test_streams_that_fail_in_every_way_give_no_book_and_no_trade_that_was_not_there(
    first: PaperExchange,
) -> None:
    async with chained(first, LiveTimes(stale=0.5)) as (_, second):
        theirs, ours = leader(first), follower(second)
        changes = feed_of(second).resyncs.labels(SYMBOL)
        mine: dict[str, Any] = {"streams": ["btcusdt@*"]}
        for kind in ("drop_events", "duplicate_events", "reorder_events"):
            await first.start_fault(kind, probability=0.1, **mine)
        await first.start_fault("delay_events", probability=0.05, seconds=0.1, jitter=0.8, **mine)
        await first.start_fault("cut_connection", probability=0.02, **mine)
        await until("the book was lost and found", lambda: changes._value.get() >= 6)
        await first.clear_faults()
        await until("it is followed again", lambda: feed_of(second).problem() is None)
        known = {ident: book for ident, book in ours.books.items() if ident in theirs.books}
        assert known
        assert known == {ident: theirs.books[ident] for ident in known}
        told = iter(theirs.trades)
        assert all(trade in told for trade in ours.trades)
        await same_again(first, second)


async def test_a_book_whose_events_were_dropped_is_read_anew(first: PaperExchange) -> None:
    async with chained(first, LiveTimes()) as (proxy, second):
        feed = feed_of(second)
        proxy.drop, proxy.drops = "@depth@100ms", 3
        await until("they are gone", lambda: proxy.drops == 0)
        resyncs = feed.resyncs.labels(SYMBOL)
        await until("the book is read anew", lambda: resyncs._value.get() == 2)
        await same_again(first, second)
        assert feed.reconnects._value.get() == 0


async def test_messages_that_come_twice_change_nothing(first: PaperExchange) -> None:
    async with chained(first, LiveTimes()) as (proxy, second):
        proxy.duplicate = True
        theirs, ours = leader(first), follower(second)
        await until("trades are told", lambda: len(ours.trades) >= 4)
        assert feed_of(second).resyncs.labels(SYMBOL)._value.get() == 1
        assert in_a_row(ours.trades, theirs.trades)
        proxy.duplicate = False
        await same_again(first, second)


async def test_trades_without_a_book_mean_that_the_book_is_old(first: PaperExchange) -> None:
    async with chained(first) as (proxy, second):
        proxy.drop, proxy.drops = "@depth@100ms", 1_000_000
        await until("it is noticed", lambda: "nothing was heard of BTCUSDT" in str(feed_of(second).problem()))
        proxy.drop = ""
        await until("it is followed again", lambda: feed_of(second).problem() is None)
        await same_again(first, second)


async def test_a_quiet_market_is_not_an_old_one(still: PaperExchange) -> None:
    async with chained(still) as (proxy, second):
        feed = feed_of(second)
        proxy.rest_calls.clear()
        await until("it was asked for thrice", lambda: proxy.rest_calls.count("/api/v3/depth") >= 3)
        assert feed.problem() is None
        assert feed.reconnects._value.get() == 0


async def test_a_book_that_comes_back_crossed_fills_at_the_price_of_the_order(still: PaperExchange) -> None:
    async with chained(still) as (proxy, second):
        mine, seller = await trader(second), await trader(still, BTC="100")
        placed = await mine.signed("POST", "/api/v3/order", **limit("BUY", "49999.95"))
        proxy.refuse = 503
        await still.drop_connections()
        await until("the cut is noticed", lambda: feed_of(second).problem() is not None)
        await seller.signed("POST", "/api/v3/order", **limit("SELL", "49999.90", "60"))
        assert (await order(mine, placed))["status"] == "NEW"
        proxy.refuse = 0
        venue = server_of(second).venue.exchange
        await until("it is filled", lambda: not venue.orders[placed["orderId"]].open)
        assert Decimal((await order(mine, placed))["cummulativeQuoteQty"]) == Decimal("499.9995")


async def test_connections_are_replaced_before_their_end_without_a_gap(first: PaperExchange) -> None:
    async with chained(first, LiveTimes(lifetime=0.4, overlap=0.3)) as (proxy, second):
        feed = feed_of(second)
        theirs, ours = leader(first), follower(second)
        await until("connections were replaced", lambda: proxy.sockets >= 4 and len(ours.trades) >= 4)
        assert feed.resyncs.labels(SYMBOL)._value.get() == 1
        assert feed.reconnects._value.get() == 0
        assert in_a_row(ours.trades, theirs.trades)
        await same_again(first, second)


@pytest.mark.parametrize("calls_only", [pytest.param(False, id="connections"), pytest.param(True, id="calls")])
async def test_a_server_that_tells_to_stay_away_is_left_alone_as_long_as_it_says(
    first: PaperExchange, calls_only: bool
) -> None:
    async with chained(first) as (proxy, _):
        proxy.refuse, proxy.refuse_calls_only = 429, calls_only
        await first.drop_connections()
        await until("it was refused", lambda: proxy.refused == 1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await until("it comes again", lambda: proxy.refused == 2)
        assert loop.time() - begun > 0.9


async def test_what_the_operator_said_of_a_symbol_holds_when_the_market_comes_back(first: PaperExchange) -> None:
    async with chained(first) as (_, second):
        async with second.session.patch(
            f"{second.control_url}/control/symbols/{SYMBOL}", json={"status": "HALT"}
        ) as answer:
            assert answer.status == 200
        market = server_of(second).venue.exchange.market(SYMBOL)
        await first.drop_connections()
        await until("the cut is noticed", lambda: feed_of(second).problem() is not None)
        assert market.status == "HALT"
        await until("it is followed again", lambda: feed_of(second).problem() is None)
        assert market.status == "HALT"


async def test_after_a_restart_prices_are_those_of_the_followed_exchange(
    first: PaperExchange, still: PaperExchange, tmp_path: Path
) -> None:
    for url, price in ((first.base_url, await first.last_price(SYMBOL)), (still.base_url, Decimal(50000))):
        async with running_paper_exchange(replace(followed(url), data_dir=tmp_path)) as second:
            await until("the book is followed", lambda: feed_of(second).problem() is None)
            assert abs(await second.last_price(SYMBOL) - price) < price / 50
            bid = server_of(second).venue.exchange.market(SYMBOL).bids.best()
            assert bid is not None
            assert abs(to_decimal(bid) - price) < price / 50


async def test_a_server_whose_market_cannot_be_reached_does_not_start() -> None:
    server = PaperExchangeServer(followed("http://127.0.0.1:1"))
    with pytest.raises(UpstreamError, match=r"expected to reach http://127\.0\.0\.1:1"):
        await server.start()
    await server.stop()


async def test_only_the_addresses_that_were_given_are_called(first: PaperExchange) -> None:
    called: list[str] = []

    async def note(request: web.Request) -> web.Response:
        called.append(request.path)
        return web.json_response({})

    elsewhere = web.Application()
    elsewhere.router.add_route("*", "/{path:.*}", note)
    runner = web.AppRunner(elsewhere)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with message_proxy(first.base_url) as proxy:
        proxy.redirect = f"http://127.0.0.1:{runner.addresses[0][1]}/elsewhere"
        server = PaperExchangeServer(followed(proxy.base_url))
        with pytest.raises(UpstreamError, match="sends to another address"):
            await server.start()
        await server.stop()
    await runner.cleanup()
    assert called == []
