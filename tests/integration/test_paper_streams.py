"""Market streams of the paper exchange over real sockets: what each tells, when, and in which form."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from paper_exchange.core import requests
from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.paper_ws import connected, trader

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
MINI = {"e", "E", "s", "c", "o", "h", "l", "v", "q"}
WINDOW = MINI | {"p", "P", "w", "O", "C", "F", "L", "n"}
FIELDS = {
    "btcusdt@trade": {"e", "E", "s", "t", "p", "q", "T", "m", "M"},
    "btcusdt@aggTrade": {"e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"},
    "btcusdt@kline_1m": {"e", "E", "s", "k"},
    "btcusdt@kline_1d@+08:00": {"e", "E", "s", "k"},
    "btcusdt@miniTicker": MINI,
    "btcusdt@ticker": WINDOW | {"x", "Q", "b", "B", "a", "A"},
    "btcusdt@ticker_1h": WINDOW,
    "btcusdt@ticker_4h": WINDOW,
    "btcusdt@ticker_1d": WINDOW,
    "btcusdt@bookTicker": {"u", "s", "b", "B", "a", "A"},
    "btcusdt@avgPrice": {"e", "E", "s", "i", "w", "T"},
    "btcusdt@referencePrice": {"e", "s", "r", "t"},
    "btcusdt@depth": {"e", "E", "s", "U", "u", "b", "a"},
    "btcusdt@depth@100ms": {"e", "E", "s", "U", "u", "b", "a"},
    "btcusdt@depth5": {"lastUpdateId", "bids", "asks"},
    "btcusdt@depth10@100ms": {"lastUpdateId", "bids", "asks"},
    "btcusdt@depth20@100ms": {"lastUpdateId", "bids", "asks"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange with two symbols for the module."""
    async with running_paper_exchange(Options(symbols=(SYMBOL, "ETHUSDT"))) as running:
        yield running


async def test_every_stream_tells_its_fields(exchange: PaperExchange) -> None:
    missing = dict(FIELDS)
    async with connected(exchange, f"/stream?streams={'/'.join(FIELDS)}") as talk:
        while missing:
            frame = await talk.next()
            wanted = missing.pop(frame["stream"], None)
            if wanted is not None:
                assert set(frame["data"]) == wanted, frame["stream"]
                if "depth" in frame["stream"] and "bids" in frame["data"]:
                    levels = int(frame["stream"].split("@")[1].removeprefix("depth"))
                    assert (len(frame["data"]["bids"]), len(frame["data"]["asks"])) == (levels, levels)
                if "kline" in frame["stream"]:
                    candle = frame["data"]["k"]
                    assert candle["L"] - candle["f"] + 1 == candle["n"]
                    assert frame["stream"].split("@kline_")[1].split("@")[0] == candle["i"]


async def test_tickers_of_all_symbols_come_in_a_list_of_those_that_traded(exchange: PaperExchange) -> None:
    names = ("!miniTicker@arr", "!ticker_1h@arr", "!ticker_4h@arr", "!ticker_1d@arr")
    seen: dict[str, set[str]] = {name: set() for name in names}
    async with connected(exchange, f"/stream?streams={'/'.join(names)}") as talk:
        while any(symbols != {SYMBOL, "ETHUSDT"} for symbols in seen.values()):
            frame = await talk.next()
            kind = "24hrMiniTicker" if "mini" in frame["stream"] else frame["stream"][len("!ticker_") :][:2] + "Ticker"
            assert {row["e"] for row in frame["data"]} == {kind}
            seen[frame["stream"]] |= {row["s"] for row in frame["data"]}


async def test_a_window_ticker_begins_with_a_minute(exchange: PaperExchange) -> None:
    async with connected(exchange, "/ws/btcusdt@ticker_1h") as talk:
        ticker = await talk.next()
    assert ticker["O"] % 60_000 == 0
    assert 3_600_000 <= ticker["C"] - ticker["O"] < 3_660_000


@pytest.mark.parametrize("speed", ["", "@100ms"])
async def test_depth_events_follow_on_each_other_and_tell_changes_only(exchange: PaperExchange, speed: str) -> None:
    events: list[dict[str, Any]] = []
    async with connected(exchange, f"/ws/btcusdt@depth{speed}") as talk:
        while len(events) < 4:
            events.append(await talk.next())
    for before, after in itertools.pairwise(events):
        assert after["U"] == before["u"] + 1
        # At most one in each interval of the clock; a busy machine tells one late, and the next one in time.
        every = 100 if speed else 1000
        assert after["E"] // every > before["E"] // every
        assert after["u"] >= after["U"]
    for event in events:
        assert event["b"] or event["a"]
        assert [Decimal(price) for price, _ in event["b"]] == sorted((Decimal(p) for p, _ in event["b"]), reverse=True)
        assert [Decimal(price) for price, _ in event["a"]] == sorted(Decimal(price) for price, _ in event["a"])


async def test_a_candle_ends_with_the_first_trade_after_it(exchange: PaperExchange) -> None:
    ended: list[dict[str, Any]] = []
    trades: dict[int, dict[str, Any]] = {}
    async with connected(exchange, "/stream?streams=btcusdt@kline_1s/btcusdt@trade") as talk:
        while len(ended) < 3:
            event = (await talk.next())["data"]
            if event["e"] == "trade":
                trades[event["t"]] = event
            elif event["k"]["x"]:
                ended.append(event)
        last = ended[-1]["k"]
        first_after = (await talk.until(lambda frame: frame["data"].get("t") == last["L"] + 1))["data"]
        trades[first_after["t"]] = first_after
    for event in ended[1:]:
        candle = event["k"]
        first_after = trades[candle["L"] + 1]
        assert (event["E"], first_after["T"] > candle["T"]) == (first_after["T"], True)
        within = [trades[ident] for ident in range(candle["f"], candle["L"] + 1)]
        assert all(candle["t"] <= one["T"] <= candle["T"] for one in within)
        assert (candle["o"], candle["c"], candle["n"]) == (within[0]["p"], within[-1]["p"], len(within))
        assert Decimal(candle["v"]) == sum(Decimal(one["q"]) for one in within)


async def test_what_one_order_takes_at_one_price_is_one_aggregate_of_several_trades(exchange: PaperExchange) -> None:
    assert exchange.server is not None
    venue = exchange.server.venue
    sellers = [await trader(exchange, BTC="1"), await trader(exchange, BTC="1")]
    buyer = await trader(exchange, USDT="100000000")
    async with connected(exchange, "/stream?streams=btcusdt@trade/btcusdt@aggTrade") as talk:
        await talk.ask("LIST_SUBSCRIPTIONS")
        # No pause between the orders: the market must not move.
        ask = venue.exchange.market(SYMBOL).asks.best()
        assert ask is not None
        price = f"{ask // 10**8}.{ask % 10**8:08d}"
        limit = {"symbol": SYMBOL, "type": "LIMIT", "timeInForce": "GTC", "price": price}
        for seller in sellers:
            order = requests.new_order(limit | {"side": "SELL", "quantity": "0.5"})
            venue.exchange.place(seller.uid, order, venue.now_ms())
            venue.commit()
        shown = venue.exchange.market(SYMBOL).asks.quantity(ask)
        first_id = venue.exchange.market(SYMBOL).next_trade_id
        taken = f"{shown // 10**8}.{shown % 10**8:08d}"
        order = requests.new_order(limit | {"side": "BUY", "quantity": taken})
        answer = venue.exchange.place(buyer.uid, order, venue.now_ms())
        venue.commit()
        assert answer["status"] == "FILLED"
        last_id = venue.exchange.market(SYMBOL).next_trade_id - 1
        whole = (await talk.until(lambda frame: frame["data"].get("f") == first_id))["data"]
        trades = [one["data"] for one in talk.events if first_id <= one["data"].get("t", 0) <= last_id]
    assert len(trades) >= 3  # the market's own quantity, and that of each seller
    assert (whole["l"], whole["q"], whole["m"]) == (last_id, taken, False)
    assert sum(Decimal(one["q"]) for one in trades) == Decimal(taken)
    assert {one["p"] for one in trades} == {whole["p"]}


async def test_the_form_of_messages_is_a_property(exchange: PaperExchange) -> None:
    async with connected(exchange, "/ws/btcusdt@bookTicker") as talk:
        assert (await talk.ask("GET_PROPERTY", ["combined"]))["result"] is False
        assert (await talk.ask("SET_PROPERTY", ["combined", True]))["result"] is None
        talk.events.clear()
        frame = await talk.next()
        assert (frame["stream"], frame["data"]["s"]) == ("btcusdt@bookTicker", SYMBOL)
        assert (await talk.ask("GET_PROPERTY", ["combined"]))["result"] is True
    async with connected(exchange, "/stream") as talk:
        assert (await talk.ask("GET_PROPERTY", ["combined"]))["result"] is True
        assert (await talk.ask("SET_PROPERTY", ["speed", True]))["error"] == {"code": 0, "msg": "Unknown property"}


async def test_a_stream_that_does_not_exist_stays_silent(exchange: PaperExchange) -> None:
    async with connected(exchange, "/ws/nosuch@trade/!ticker@arr") as talk:
        assert (await talk.ask("SUBSCRIBE", ["btcusdt@nosuch", "btcusdt@kline_1m@+08:00"]))["result"] is None
        listed = (await talk.ask("LIST_SUBSCRIPTIONS"))["result"]
        assert listed == ["nosuch@trade", "!ticker@arr", "btcusdt@nosuch", "btcusdt@kline_1m@+08:00"]
        assert (await talk.next())["k"]["i"] == "1m"
        assert all(event.get("e") == "kline" for event in talk.events)


async def test_times_are_told_in_microseconds_where_the_address_asks_for_it(exchange: PaperExchange) -> None:
    now = wall_clock_ms()
    async with (
        connected(exchange, "/stream?timeUnit=microsecond&streams=btcusdt@trade/btcusdt@kline_1s") as micro,
        connected(exchange, "/ws/btcusdt@trade") as milli,
    ):
        trade = (await micro.until(lambda frame: frame["data"]["e"] == "trade"))["data"]
        candle = (await micro.until(lambda frame: frame["data"]["e"] == "kline"))["data"]["k"]
        plain = await milli.next()
    assert (trade["T"] > now * 900, trade["E"] > now * 900, trade["t"] < trade["T"]) == (True, True, True)
    assert (candle["t"] % 1_000_000, candle["T"] - candle["t"]) == (0, 999_999)
    assert plain["T"] < now * 2
