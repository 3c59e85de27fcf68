"""The Spot API without a transport: every endpoint as a function of its parameters, for REST and WebSocket alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from paper_exchange.core import reports, requests
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.core.fills import COMMISSION
from paper_exchange.core.state import TradePrint
from paper_exchange.core.units import SCALE, text, to_units
from paper_exchange.limits import Limits
from paper_exchange.market.events import Candle, IntervalUnknownError
from paper_exchange.venue import Venue

Params = Mapping[str, str]
_RESPONSES: Final = ("ACK", "RESULT", "FULL")
_DAY_MS: Final = 86_400_000


class Security(Enum):
    """What a request must carry."""

    NONE = "nothing"
    SIGNED = "a key and a signature"


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose sender is known: `uid` is 0 where none is needed."""

    params: Params
    uid: int
    now: int
    api_key: str = ""

    def limit(self, default: int, maximum: int) -> int:
        """The parameter `limit`, cut to what the endpoint gives at most."""
        asked = requests.integer(self.params, "limit")
        return default if asked is None else max(1, min(asked, maximum))


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: its answer, its weight, what it needs, and how many new orders it counts as."""

    answer: Callable[[Call], Any]
    weight: Callable[[Params], int]
    security: Security = Security.NONE
    orders: int = 0
    trade: bool = False
    """Places or cancels: costs no weight when it succeeds."""


class SpotApi:
    """The endpoints over one venue; answers are what json.dumps takes."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self._limits = limits
        fixed = _fixed
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/ping"): Route(lambda _: {}, fixed(1)),
            ("GET", "/api/v3/time"): Route(lambda call: {"serverTime": call.now}, fixed(1)),
            ("GET", "/api/v3/exchangeInfo"): Route(self._exchange_info, fixed(20)),
            ("GET", "/api/v3/depth"): Route(self._depth, _depth_weight),
            ("GET", "/api/v3/trades"): Route(self._trades, fixed(25)),
            ("GET", "/api/v3/aggTrades"): Route(self._agg_trades, fixed(4)),
            ("GET", "/api/v3/klines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/uiKlines"): Route(self._klines, fixed(2)),
            ("GET", "/api/v3/avgPrice"): Route(self._average, fixed(2)),
            ("GET", "/api/v3/ticker/24hr"): Route(self._per_symbol(self.ticker), _by_symbol(2, 80)),
            ("GET", "/api/v3/ticker/price"): Route(self._per_symbol(self._price), _by_symbol(2, 4)),
            ("GET", "/api/v3/ticker/bookTicker"): Route(self._per_symbol(self._book_ticker), _by_symbol(2, 4)),
            ("GET", "/api/v3/account"): _read(self._account, fixed(20)),
            ("GET", "/api/v3/account/commission"): _read(self._commission, fixed(20)),
            ("GET", "/api/v3/order"): _read(self._order, fixed(4)),
            ("POST", "/api/v3/order"): _trade(self._place, orders=1),
            ("DELETE", "/api/v3/order"): _trade(self._cancel),
            ("POST", "/api/v3/order/test"): _read(self._test, fixed(1)),
            ("GET", "/api/v3/openOrders"): _read(self._open_orders, _by_symbol(6, 80)),
            ("DELETE", "/api/v3/openOrders"): _trade(self._cancel_all),
            ("GET", "/api/v3/allOrders"): _read(self._all_orders, fixed(20)),
            ("GET", "/api/v3/myTrades"): _read(self._my_trades, lambda p: 5 if "orderId" in p else 20),
            ("GET", "/api/v3/orderList"): _read(self._order_list, fixed(4)),
            ("DELETE", "/api/v3/orderList"): _trade(self._cancel_list),
            ("POST", "/api/v3/orderList/oco"): _trade(self._placing(requests.new_oco), orders=2),
            ("POST", "/api/v3/orderList/oto"): _trade(self._placing(requests.new_oto), orders=2),
            ("POST", "/api/v3/orderList/otoco"): _trade(self._placing(requests.new_otoco), orders=3),
            ("GET", "/api/v3/openOrderList"): _read(self._open_lists, fixed(6)),
            ("GET", "/api/v3/allOrderList"): _read(self._all_lists, fixed(20)),
            ("GET", "/api/v3/rateLimit/order"): _read(lambda call: limits.orders(call.uid, call.now), fixed(40)),
            ("GET", "/sapi/v1/account/apiRestrictions"): _read(self._restrictions, fixed(1)),
        }

    # -- market data -------------------------------------------------------------------------------------------

    def _exchange_info(self, call: Call) -> Any:
        symbols = self._symbols(call.params)
        return {
            "timezone": "UTC",
            "serverTime": call.now,
            "rateLimits": self._limits.info(),
            "exchangeFilters": [],
            "symbols": [self._exchange.market(symbol).rules.info() for symbol in symbols],
        }

    def _symbols(self, params: Params) -> list[str]:
        """The symbols asked for by `symbol` or `symbols`, else all."""
        one = requests.text_of(params, "symbol")
        if one is not None:
            self._exchange.market(one)
            return [one]
        several = requests.text_of(params, "symbols")
        if several is None:
            return list(self._exchange.markets)
        try:
            names = json.loads(several)
        except ValueError:
            names = None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$')
        for name in names:
            self._exchange.market(name)
        return names

    def _per_symbol(self, row: Callable[[str, int], Any]) -> Callable[[Call], Any]:
        """An endpoint that answers one row for `symbol` and a list otherwise."""

        def answer(call: Call) -> Any:
            symbols = self._symbols(call.params)
            if "symbol" in call.params:
                return row(symbols[0], call.now)
            return [row(symbol, call.now) for symbol in symbols]

        return answer

    def depth(self, symbol: str, limit: int) -> dict[str, Any]:
        """The best levels of both sides with the update id of the book."""
        market = self._exchange.market(symbol)
        return {
            "lastUpdateId": self._venue.book_ids[symbol],
            "bids": [[text(price), text(quantity)] for price, quantity in market.bids.levels(limit)],
            "asks": [[text(price), text(quantity)] for price, quantity in market.asks.levels(limit)],
        }

    def _depth(self, call: Call) -> Any:
        return self.depth(requests.required(call.params, "symbol"), call.limit(100, 5000))

    def _prints(self, call: Call) -> list[TradePrint]:
        symbol = requests.required(call.params, "symbol")
        self._exchange.market(symbol)
        return list(self._venue.prints[symbol])

    def _trades(self, call: Call) -> Any:
        return [
            {
                "id": one.trade_id,
                "price": text(one.price),
                "qty": text(one.quantity),
                "quoteQty": text(one.price * one.quantity // SCALE),
                "time": one.time,
                "isBuyerMaker": one.buyer_is_maker,
                "isBestMatch": True,
            }
            for one in self._prints(call)[-call.limit(500, 1000) :]
        ]

    def _agg_trades(self, call: Call) -> Any:
        """Aggregate trades; here each trade is its own aggregate."""
        rows = self._prints(call)
        from_id = requests.integer(call.params, "fromId")
        start, end = _period(call.params)
        rows = [
            one
            for one in rows
            if (from_id is None or one.trade_id >= from_id)
            and (start is None or one.time >= start)
            and (end is None or one.time <= end)
        ]
        limit = call.limit(500, 1000)
        rows = rows[:limit] if from_id is not None or start is not None else rows[-limit:]
        return [agg_trade(one) for one in rows]

    def _klines(self, call: Call) -> Any:
        symbol = requests.required(call.params, "symbol")
        self._exchange.market(symbol)
        interval = requests.required(call.params, "interval")
        start, end = _period(call.params)
        book = self._venue.candles[symbol]
        try:
            found = book.candles(interval, call.now, start, end, call.limit(500, 1000))
        except IntervalUnknownError:
            raise ExchangeError(-1120, "Invalid interval.") from None
        return [_kline(candle) for candle in found]

    def _average(self, call: Call) -> Any:
        market = self._exchange.market(requests.required(call.params, "symbol"))
        price = market.average(call.now) or 0
        return {"mins": market.rules.average_minutes, "price": text(price), "closeTime": call.now}

    def _price(self, symbol: str, _now: int) -> Any:
        return {"symbol": symbol, "price": text(self._exchange.market(symbol).last or 0)}

    def best(self, symbol: str) -> tuple[str, str, str, str]:
        """Best bid and ask: (bid price, bid quantity, ask price, ask quantity) as texts."""
        market = self._exchange.market(symbol)
        bid = next(iter(market.bids.levels(1)), (0, 0))
        ask = next(iter(market.asks.levels(1)), (0, 0))
        return text(bid[0]), text(bid[1]), text(ask[0]), text(ask[1])

    def _book_ticker(self, symbol: str, _now: int) -> Any:
        bid, bid_quantity, ask, ask_quantity = self.best(symbol)
        return {"symbol": symbol, "bidPrice": bid, "bidQty": bid_quantity, "askPrice": ask, "askQty": ask_quantity}

    def ticker(self, symbol: str, now: int) -> dict[str, Any]:
        """The figures of the last 24 hours, as far as there are candles."""
        minutes = self._venue.candles[symbol].candles("1m", now, now - _DAY_MS, None, _DAY_MS // 60_000 + 1)
        volume = sum((candle.volume for candle in minutes), Decimal(0))
        quote = sum((candle.quote_volume for candle in minutes), Decimal(0))
        first, last = minutes[0].open, minutes[-1].close
        prints = self._venue.prints[symbol]
        bid, bid_quantity, ask, ask_quantity = self.best(symbol)
        return {
            "symbol": symbol,
            "priceChange": _eight(last - first),
            "priceChangePercent": f"{(last - first) / first * 100:.3f}",
            "weightedAvgPrice": _eight(quote / volume if volume else last),
            "prevClosePrice": _eight(first),
            "lastPrice": _eight(last),
            "lastQty": text(prints[-1].quantity if prints else 0),
            "bidPrice": bid,
            "bidQty": bid_quantity,
            "askPrice": ask,
            "askQty": ask_quantity,
            "openPrice": _eight(first),
            "highPrice": _eight(max(candle.high for candle in minutes)),
            "lowPrice": _eight(min(candle.low for candle in minutes)),
            "volume": _eight(volume),
            "quoteVolume": _eight(quote),
            "openTime": now - _DAY_MS,
            "closeTime": now,
            "firstId": prints[0].trade_id if prints else -1,
            "lastId": prints[-1].trade_id if prints else -1,
            "count": sum(candle.trades for candle in minutes),
        }

    # -- account -----------------------------------------------------------------------------------------------

    def _account(self, call: Call) -> Any:
        rate = text(to_units(COMMISSION))
        omit = call.params.get("omitZeroBalances") == "true"
        held = self._exchange.accounts[call.uid]
        return reports.account(
            held, rate, rate, omit, permissions={"canTrade": True, "canWithdraw": False, "canDeposit": False}
        )

    def _commission(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        zero = {"maker": text(0), "taker": text(0), "buyer": text(0), "seller": text(0)}
        rate = text(to_units(COMMISSION))
        return {
            "symbol": symbol,
            "standardCommission": zero | {"maker": rate, "taker": rate},
            "specialCommission": zero,
            "taxCommission": zero,
            "discount": {
                "enabledForAccount": False,
                "enabledForSymbol": False,
                "discountAsset": "BNB",
                "discount": "0.75000000",
            },
        }

    def _restrictions(self, call: Call) -> Any:
        return {
            "ipRestrict": False,
            "createTime": self._venue.keys[call.api_key].created_ms,
            "enableReading": True,
            "enableSpotAndMarginTrading": True,
            "enableWithdrawals": False,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": False,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enablePortfolioMarginTrading": False,
        }

    # -- orders ------------------------------------------------------------------------------------------------

    def _place(self, call: Call) -> Any:
        return self._exchange.place(call.uid, requests.new_order(call.params), call.now, _response(call.params))

    def _test(self, call: Call) -> Any:
        self._exchange.test(call.uid, requests.new_order(call.params), call.now)
        return {}

    def _placing(self, parse: Callable[[Params], requests.NewOrderList]) -> Callable[[Call], Any]:
        def answer(call: Call) -> Any:
            return self._exchange.place_list(call.uid, parse(call.params), call.now, _response(call.params))

        return answer

    def _cancel(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel(
            call.uid,
            requests.required(params, "symbol"),
            order_id=requests.integer(params, "orderId"),
            client_order_id=requests.text_of(params, "origClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
            restriction=params.get("cancelRestrictions", ""),
        )

    def _cancel_all(self, call: Call) -> Any:
        return self._exchange.cancel_all(call.uid, requests.required(call.params, "symbol"), call.now)

    def _cancel_list(self, call: Call) -> Any:
        params = call.params
        return self._exchange.cancel_list(
            call.uid,
            requests.required(params, "symbol"),
            list_id=requests.integer(params, "orderListId"),
            client_list_id=requests.text_of(params, "listClientOrderId"),
            new_client_order_id=requests.client_id(params, "newClientOrderId"),
            now=call.now,
        )

    def _order(self, call: Call) -> Any:
        order = self._exchange.find_order(
            call.uid,
            requests.required(call.params, "symbol"),
            requests.integer(call.params, "orderId"),
            requests.text_of(call.params, "origClientOrderId"),
        )
        return reports.order_status(order)

    def _open_orders(self, call: Call) -> Any:
        symbol = requests.text_of(call.params, "symbol")
        if symbol is not None:
            self._exchange.market(symbol)
        return [reports.order_status(order) for order in self._exchange.open_orders(call.uid, symbol)]

    def _all_orders(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        start, end = _period(call.params)
        from_id = requests.integer(call.params, "orderId")
        orders = [
            order
            for order in self._exchange.history(call.uid, symbol)
            if (from_id is None or order.order_id >= from_id)
            and (start is None or order.time >= start)
            and (end is None or order.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = orders[:limit] if from_id is not None or start is not None else orders[-limit:]
        return [reports.order_status(order) for order in chosen]

    def _my_trades(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        start, end = _period(call.params)
        order_id = requests.integer(call.params, "orderId")
        from_id = requests.integer(call.params, "fromId")
        trades = [
            trade
            for trade in self._exchange.trades.get((call.uid, symbol), [])
            if (order_id is None or trade.order_id == order_id)
            and (from_id is None or trade.trade_id >= from_id)
            and (start is None or trade.time >= start)
            and (end is None or trade.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = trades[:limit] if from_id is not None or start is not None else trades[-limit:]
        return [reports.my_trade(trade) for trade in chosen]

    def _order_list(self, call: Call) -> Any:
        group = self._exchange.find_list(
            call.uid,
            requests.integer(call.params, "orderListId"),
            requests.text_of(call.params, "origClientOrderId"),
        )
        if group is None:
            raise ExchangeError(-2018, "Order list does not exist.")
        return self._exchange.list_body(group)

    def _open_lists(self, call: Call) -> Any:
        lists = self._exchange.lists.values()
        return [self._exchange.list_body(one) for one in lists if one.uid == call.uid and not one.done]

    def _all_lists(self, call: Call) -> Any:
        start, end = _period(call.params)
        from_id = requests.integer(call.params, "fromId")
        mine = [
            one
            for one in self._exchange.lists.values()
            if one.uid == call.uid
            and (from_id is None or one.list_id >= from_id)
            and (start is None or one.time >= start)
            and (end is None or one.time <= end)
        ]
        limit = call.limit(500, 1000)
        chosen = mine[:limit] if from_id is not None or start is not None else mine[-limit:]
        return [self._exchange.list_body(one) for one in chosen]


def agg_trade(one: TradePrint) -> dict[str, Any]:
    """An aggregate trade that consists of one trade."""
    return {
        "a": one.trade_id,
        "p": text(one.price),
        "q": text(one.quantity),
        "f": one.trade_id,
        "l": one.trade_id,
        "T": one.time,
        "m": one.buyer_is_maker,
        "M": True,
    }


def _fixed(weight: int) -> Callable[[Params], int]:
    return lambda _: weight


def _by_symbol(one: int, all_symbols: int) -> Callable[[Params], int]:
    return lambda params: one if "symbol" in params else all_symbols


def _depth_weight(params: Params) -> int:
    limit = requests.integer(params, "limit") or 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _read(answer: Callable[[Call], Any], weight: Callable[[Params], int]) -> Route:
    return Route(answer, weight, Security.SIGNED)


def _trade(answer: Callable[[Call], Any], orders: int = 0) -> Route:
    return Route(answer, _fixed(1), Security.SIGNED, orders, trade=True)


def _response(params: Params) -> str:
    asked = requests.text_of(params, "newOrderRespType")
    if asked is None:
        return ""
    if asked not in _RESPONSES:
        raise illegal("newOrderRespType", "^(ACK|RESULT|FULL)$")
    return asked


def _period(params: Params) -> tuple[int | None, int | None]:
    return requests.integer(params, "startTime"), requests.integer(params, "endTime")


def _eight(amount: Decimal) -> str:
    return f"{amount:.8f}"


def _kline(candle: Candle) -> list[Any]:
    return [
        candle.open_time_ms,
        _eight(candle.open),
        _eight(candle.high),
        _eight(candle.low),
        _eight(candle.close),
        _eight(candle.volume),
        candle.close_time_ms,
        _eight(candle.quote_volume),
        candle.trades,
        _eight(candle.taker_base),
        _eight(candle.taker_quote),
        "0",
    ]
