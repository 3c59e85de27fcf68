"""Public market data: aggregates, time zones, windows, and what is answered to wrong parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.state import TradePrint
from paper_exchange.endpoint import Call
from paper_exchange.market import open_market, tape
from paper_exchange.market.events import MarketTrade
from paper_exchange.market.tape import Tape
from paper_exchange.market_data import MarketData
from paper_exchange.server.rest import Sent
from paper_exchange.store import Store
from paper_exchange.tickers import Figures
from paper_exchange.venue import Venue
from support.paper import START_MS, SYMBOL, Desk
from support.paper_rest import START_MS as MIDNIGHT_MS
from support.paper_rest import RestDesk

HOUR_MS, DAY_MS = 3_600_000, 86_400_000


class Quotes:
    """The public endpoints over a generated market of two symbols, after some seconds of it."""

    def __init__(self) -> None:
        self.now = START_MS
        symbols = (SYMBOL, "ETHUSDT")
        market = open_market("synthetic", symbols, 1, self.now)
        self.venue = Venue(symbols, market, Store(None), lambda: self.now, CollectorRegistry())
        self.data = MarketData(self.venue)
        self.outside: list[MarketTrade] = []
        for event, _ in zip(market.events(), range(400), strict=False):
            self.now = event.time_ms
            self.venue.feed(event)
            if isinstance(event, MarketTrade) and event.symbol == SYMBOL:
                self.outside.append(event)

    def get(self, path: str, **params: Any) -> Any:
        """The answer to a GET, for BTCUSDT unless told otherwise."""
        asked = {"symbol": SYMBOL} | {name: str(value) for name, value in params.items()}
        sent = {name: value for name, value in asked.items() if value != "None"}
        return self.data.routes["GET", f"/api/v3/{path}"].answer(Call(sent, 0, self.now))

    def weight(self, path: str, **params: str) -> int:
        """What a GET costs."""
        return self.data.routes["GET", f"/api/v3/{path}"].weight(params)


@pytest.fixture(scope="module")
def quotes() -> Iterator[Quotes]:
    """One market for all questions."""
    return Quotes()


def printed(trade_id: int, price: int, quantity: int = 5, taker: int = 0, time: int = START_MS) -> TradePrint:
    return TradePrint(SYMBOL, trade_id, price, quantity, False, time, taker)


def test_an_aggregate_is_what_one_taker_order_took_at_one_price() -> None:
    trades = Tape(10)
    made = trades.add([printed(1, 100), printed(2, 100), printed(3, 101), printed(4, 101, taker=7)])
    assert [(one.agg_id, one.price, one.quantity, one.first_id, one.last_id) for one in made] == [
        (10, 100, 10, 1, 2),
        (11, 101, 5, 3, 3),
        (12, 101, 5, 4, 4),
    ]
    assert [one.agg_id for one in trades.add([printed(5, 101, taker=7)])] == [13]  # another input is another order


def test_a_trade_names_the_order_that_took() -> None:
    desk = Desk()
    desk.open(1, USDT="100000")
    desk.book([("60000", "1")], [("60001", "1"), ("60002", "1")])
    order_id = desk.place(1, "BUY", "MARKET", quantity="1.5")["orderId"]
    desk.trade("60002")
    outputs = desk.exchange.take_outputs()
    assert [one.taker for one in outputs if isinstance(one, TradePrint)] == [order_id, order_id, 0]


def test_a_tape_forgets_its_oldest_trades_and_finds_the_rest_by_id_and_time() -> None:
    trades = Tape(0)
    count = 2 * tape.KEPT
    for ident in range(count):
        trades.add([printed(ident, 100 + ident % 2, time=START_MS + ident)])
    kept = trades.trades(10 * tape.KEPT)
    assert tape.KEPT <= len(kept) < 1.2 * tape.KEPT
    assert [one.trade_id for one in trades.trades(3, count - 5)] == [count - 5, count - 4, count - 3]
    assert [one.trade_id for one in trades.trades(2, 0)] == [kept[0].trade_id, kept[0].trade_id + 1]
    start, end = START_MS + count - 100, START_MS + count - 50
    assert [one.time for one in trades.aggregates_between(start, end, 2)] == [start, start + 1]
    assert [one.time for one in trades.aggregates_between(None, end, 2)] == [end - 1, end]
    assert len(trades.aggregates_between(start, end, 1000)) == 51


def test_trades_are_paged_by_id(quotes: Quotes) -> None:
    last = quotes.get("trades", limit=10)
    assert len(last) == 10
    assert quotes.get("historicalTrades", fromId=last[4]["id"], limit=3) == last[4:7]
    assert quotes.get("trades", limit=5000) == quotes.get("historicalTrades", limit=1000)
    aggregates = quotes.get("aggTrades")
    assert sum(Decimal(one["q"]) for one in aggregates) == sum(one.quantity for one in quotes.outside)
    assert quotes.get("aggTrades", fromId=aggregates[2]["a"], limit=2) == aggregates[2:4]
    assert quotes.get("aggTrades", startTime=aggregates[3]["T"], limit=1)[0]["T"] == aggregates[3]["T"]


@pytest.mark.parametrize("zone", ["8", "-1:00", "05:45", "+14:00", "0:17"])
@pytest.mark.parametrize("interval", ["1m", "30m", "1h", "4h", "1d", "3d", "1w", "1M"])
def test_a_candle_in_a_time_zone_is_the_sum_of_its_minutes(quotes: Quotes, zone: str, interval: str) -> None:
    sign = -1 if zone.startswith("-") else 1
    hours, _, minutes = zone.strip("+-").partition(":")
    offset = sign * (int(hours) * 60 + int(minutes or 0)) * 60_000
    minutes_all = quotes.get("klines", interval="1m", startTime=0, limit=1000)
    got = quotes.get("klines", interval=interval, startTime=0, timeZone=zone, limit=1000)
    assert got[0][0] <= minutes_all[0][0]
    for before, after in itertools.pairwise(got):
        assert before[6] + 1 == after[0]
    for row in got:
        within = [one for one in minutes_all if row[0] <= one[0] <= row[6]]
        assert (row[1], row[4]) == (within[0][1], within[-1][4])
        assert Decimal(row[5]) == sum(Decimal(one[5]) for one in within)
        assert row[8] == sum(one[8] for one in within)
    if interval == "1d":
        assert all((row[0] + offset) % DAY_MS == 0 for row in got)


def test_every_trade_is_in_the_candle_that_names_its_id(quotes: Quotes) -> None:
    book = quotes.venue.candles[SYMBOL]
    for interval in ("1s", "1m", "1d"):
        candles = [one for one in book.candles(interval, quotes.now, limit=1000) if one.trades]
        for one, after in itertools.pairwise(candles):
            assert (one.last_id - one.first_id + 1, after.first_id) == (one.trades, one.last_id + 1)
    assert book.latest("1d").last_id == quotes.get("trades", limit=1)[0]["id"]


def test_tickers_of_all_windows_agree_where_all_history_is_within(quotes: Quotes) -> None:
    day = quotes.get("ticker/24hr")
    for path, params in (("ticker", {"windowSize": "7d"}), ("ticker", {}), ("ticker", {"windowSize": "9h"})):
        rolling = quotes.get(path, **params)
        for field in ("openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume", "count", "lastId"):
            assert rolling[field] == day[field], (params, field)
    minute = quotes.get("ticker", windowSize="1m")
    assert minute["openTime"] == (quotes.now - 60_000) // 60_000 * 60_000
    assert minute["closeTime"] == quotes.now
    assert minute["count"] < day["count"]


def test_a_window_of_any_length_begins_with_a_minute_and_holds_every_trade_since() -> None:
    desk, random = RestDesk(), Random(7)
    trades: list[tuple[int, int]] = []
    for minute in range(0, 9 * 24 * 60, 3):
        desk.now = MIDNIGHT_MS + minute * 60_000 + random.randrange(60_000)
        trades.append((desk.now, 60_000 + random.randrange(1_000)))
        desk.trade(str(trades[-1][1]), "1")
    end = desk.now
    for desk.now in (end, end + 61_234, end + 59 * 60_000, end + 3 * HOUR_MS, end + 30 * HOUR_MS):
        for size, minutes in (("7m", 7), ("59m", 59), ("23h", 1380), ("1d", 1440), ("2d", 2880), ("7d", 10_080)):
            told = desk.send("GET", "/api/v3/ticker", f"symbol={SYMBOL}&windowSize={size}").body
            opened = (desk.now - minutes * 60_000) // 60_000 * 60_000
            prices = [price for time, price in trades if opened <= time]
            assert (told["openTime"], told["closeTime"], told["count"]) == (opened, desk.now, len(prices))
            if prices:
                shown = [Decimal(told[name]) for name in ("openPrice", "highPrice", "lowPrice", "lastPrice", "volume")]
                assert shown == [prices[0], max(prices), min(prices), prices[-1], len(prices)]
                assert Decimal(told["quoteVolume"]) == sum(prices)


def test_a_mini_ticker_has_the_same_figures_in_fewer_fields(quotes: Quotes) -> None:
    full, mini = quotes.get("ticker/24hr"), quotes.get("ticker/24hr", type="MINI")
    assert mini == {name: full[name] for name in mini}
    assert set(full) - set(mini) == {
        "priceChange",
        "priceChangePercent",
        "weightedAvgPrice",
        "prevClosePrice",
        "lastQty",
        "bidPrice",
        "bidQty",
        "askPrice",
        "askQty",
    }


def test_a_trading_day_begins_at_midnight_of_the_time_zone(quotes: Quotes) -> None:
    today = quotes.get("ticker/tradingDay", timeZone="8")
    assert (today["openTime"] + 8 * HOUR_MS) % DAY_MS == 0
    assert today["closeTime"] - today["openTime"] == DAY_MS - 1
    assert today["openTime"] <= quotes.now <= today["closeTime"]
    candle = quotes.get("klines", interval="1d", timeZone="8", limit=1)[0]
    assert (today["openPrice"], today["volume"], today["count"]) == (candle[1], candle[5], candle[8])


def test_figures_of_a_window_without_a_trade_stand_at_the_last_price(quotes: Quotes) -> None:
    book = quotes.venue.candles[SYMBOL]
    later = quotes.now + 7_200_000
    figures = Figures.of(book.candles("1m", later, later - 60_000))
    last = Decimal(quotes.get("ticker/price")["price"])
    assert (figures.open, figures.high, figures.low, figures.last) == (last,) * 4
    assert (figures.volume, figures.count, figures.first_id, figures.last_id) == (0, 0, -1, -1)


def test_several_symbols_are_answered_in_a_list(quotes: Quotes) -> None:
    both = '["ETHUSDT","BTCUSDT"]'
    for path in ("ticker", "ticker/24hr", "ticker/tradingDay", "ticker/price", "ticker/bookTicker"):
        rows = quotes.get(path, symbol=None, symbols=both)
        assert [row["symbol"] for row in rows] == ["ETHUSDT", "BTCUSDT"]
    assert len(quotes.get("ticker/price", symbol=None)) == 2


def test_an_average_price_names_its_last_trade(quotes: Quotes) -> None:
    assert quotes.get("avgPrice")["closeTime"] == quotes.get("trades", limit=1)[0]["time"]


@pytest.mark.parametrize(
    ("path", "params", "code", "message"),
    [
        ("depth", {"symbol": None}, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."),
        ("depth", {"symbol": "NOSUCH"}, -1121, "Invalid symbol."),
        (
            "depth",
            {"symbol": "btcusdt"},
            -1100,
            "Illegal characters found in parameter 'symbol'; legal range is '^[A-Z0-9-_.]{1,20}$'.",
        ),
        (
            "depth",
            {"limit": "-1"},
            -1100,
            "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'.",
        ),
        ("depth", {"limit": "0"}, -1130, "Data sent for parameter 'limit' is not valid."),
        (
            "klines",
            {},
            -1102,
            "Mandatory parameter 'interval' was not sent, was empty/null, or malformed.",
        ),
        ("klines", {"interval": "7m"}, -1120, "Invalid interval."),
        (
            "klines",
            {"interval": "1m", "timeZone": "15:00"},
            -1130,
            "Data sent for parameter 'timeZone' is not valid.",
        ),
        (
            "aggTrades",
            {"fromId": "1", "startTime": "1"},
            -1128,
            "Combination of optional parameters invalid.",
        ),
        ("ticker", {"windowSize": "60m"}, -1130, "Data sent for parameter 'windowSize' is not valid."),
        (
            "ticker",
            {"symbol": None},
            -1102,
            "Param 'symbol' or 'symbols' must be sent, but both were empty/null!",
        ),
        ("ticker/24hr", {"type": "HUGE"}, -1139, "Invalid ticker type."),
        ("ticker/24hr", {"symbols": '["BTCUSDT"]'}, -1128, "Combination of optional parameters invalid."),
        (
            "ticker/price",
            {"symbol": None, "symbols": '["BTCUSDT","BTCUSDT"]'},
            -1151,
            "Symbol is present multiple times in the list.",
        ),
        ("ticker/price", {"symbol": None, "symbols": "BTCUSDT"}, -1100, None),
    ],
)
def test_a_wrong_parameter_is_refused_in_binances_words(
    quotes: Quotes, path: str, params: dict[str, Any], code: int, message: str | None
) -> None:
    with pytest.raises(ExchangeError) as refused:
        quotes.get(path, **params)
    assert refused.value.code == code
    assert message is None or refused.value.message == message


def test_a_ticker_costs_by_the_number_of_symbols(quotes: Quotes) -> None:
    def named(count: int) -> str:
        return "[" + ",".join(f'"S{number}"' for number in range(count)) + "]"

    assert [quotes.weight("ticker/24hr", symbols=named(count)) for count in (1, 20, 21, 100, 101)] == [2, 2, 40, 40, 80]
    assert (quotes.weight("ticker/24hr"), quotes.weight("ticker/24hr", symbol=SYMBOL)) == (80, 2)
    assert [quotes.weight("ticker", symbols=named(count)) for count in (1, 2, 50, 99)] == [4, 8, 200, 200]
    assert [quotes.weight("depth", limit=limit) for limit in ("100", "500", "1000", "5000")] == [5, 25, 50, 250]


def test_a_wrong_clock_is_told_as_the_time_and_changes_nothing_else() -> None:
    desk = RestDesk()
    desk.trade("30000", "1")
    ask = f"symbol={SYMBOL}"
    queries = {"avgPrice": ask, "referencePrice": ask, "ticker/24hr": ask, "klines": f"{ask}&interval=1m"}

    def told(skew_ms: int = 0) -> list[Any]:
        return [
            desk.rest.respond(Sent("GET", f"/api/v3/{path}", query), skew_ms).body for path, query in queries.items()
        ]

    true = told()
    for skew_ms in (HOUR_MS, -HOUR_MS):
        for path in ("time", "exchangeInfo"):
            answer = desk.rest.respond(Sent("GET", f"/api/v3/{path}"), skew_ms).body
            assert answer["serverTime"] == desk.now + skew_ms
        assert told(skew_ms) == true
    assert told() == true
