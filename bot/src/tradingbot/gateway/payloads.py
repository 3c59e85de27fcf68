"""Binance's JSON turned into the bot's types; the only place that knows the field names.

Shapes: Binance Spot API documentation, rest-api.md, web-socket-streams.md and user-data-stream.md. Numbers stay exact:
they are decimal strings on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from tradingbot.gateway.order_limits import OrderLimit
from tradingbot.gateway.port import Commission, KeyPermissions
from tradingbot.model import (
    NO_LIST,
    AccountSnapshot,
    Balance,
    BalanceChange,
    BalancesUpdate,
    BookTicker,
    Candle,
    ListStatus,
    ListUpdate,
    LotFilter,
    NotionalFilter,
    OrderListReport,
    OrderReport,
    OrderStatus,
    OrderType,
    OrderUpdate,
    PercentPriceFilter,
    PriceFilter,
    Side,
    SymbolRules,
    TimeInForce,
    TradeFill,
    TrailingFilter,
    UserEvent,
)

UNIT_MS: Final = {"SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}
Json = Mapping[str, Any]
UNREADABLE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a message of another shape than documented raises."""


def _number(text: str) -> Decimal:
    """Any number; ValueError or ArithmeticError of what is none."""
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(f"expected a number, got {text!r}")
    return number


def _amount(text: str) -> Decimal:
    """A quantity, or the price of a side of the book or of an order: none is below 0."""
    number = _number(text)
    if number < 0:
        raise ValueError(f"expected 0 or more, got {text!r}")
    return number


def _traded(text: str) -> Decimal:
    """The price or the quantity of what was traded."""
    number = _number(text)
    if number <= 0:
        raise ValueError(f"expected more than 0, got {text!r}")
    return number


def weight_limit(data: Json) -> int:
    """The request weight that an address may use in a minute, of exchangeInfo."""
    minute = ("REQUEST_WEIGHT", "MINUTE", 1)
    found = [
        int(limit["limit"])
        for limit in data["rateLimits"]
        if (limit["rateLimitType"], limit["interval"], limit["intervalNum"]) == minute
    ]
    return found[0]


def order_limits(data: Json) -> dict[str, OrderLimit]:
    """How many new orders an account may send, of exchangeInfo; by the names that headers have for the intervals."""
    return {
        f"{limit['intervalNum']}{limit['interval'][0]}": OrderLimit(
            int(limit["limit"]), int(limit["intervalNum"]) * UNIT_MS[limit["interval"]]
        )
        for limit in data["rateLimits"]
        if limit["rateLimitType"] == "ORDERS"
    }


def rules_of(data: Json, symbol: str) -> SymbolRules | None:
    """Those of one symbol, of exchangeInfo; None where it has none."""
    found = next((item for item in data["symbols"] if item["symbol"] == symbol), None)
    return None if found is None else symbol_rules(found)


def symbol_rules(data: Json) -> SymbolRules:
    """One entry of exchangeInfo's `symbols`."""
    filters: dict[str, Json] = {item["filterType"]: item for item in data["filters"]}

    def number(kind: str, name: str) -> Decimal:
        return _amount(filters.get(kind, {}).get(name, "0"))

    def count(kind: str, name: str) -> int | None:
        return int(filters[kind][name]) if kind in filters else None

    def lot(kind: str) -> LotFilter:
        return LotFilter(number(kind, "minQty"), number(kind, "maxQty"), number(kind, "stepSize"))

    band = filters.get("PERCENT_PRICE_BY_SIDE")
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {}
    known = {item.value for item in OrderType}
    return SymbolRules(
        symbol=data["symbol"],
        status=data["status"],
        base_asset=data["baseAsset"],
        quote_asset=data["quoteAsset"],
        base_precision=int(data.get("baseAssetPrecision", 8)),
        quote_precision=int(data.get("quoteAssetPrecision", 8)),
        order_types=frozenset(OrderType(item) for item in data["orderTypes"] if item in known),
        oco_allowed=bool(data.get("ocoAllowed", False)),
        oto_allowed=bool(data.get("otoAllowed", False)),
        price=PriceFilter(
            number("PRICE_FILTER", "minPrice"), number("PRICE_FILTER", "maxPrice"), number("PRICE_FILTER", "tickSize")
        ),
        lot=lot("LOT_SIZE"),
        market_lot=lot("MARKET_LOT_SIZE"),
        notional=NotionalFilter(
            min_notional=_amount(notional.get("minNotional", "0")),
            apply_min_to_market=bool(notional.get("applyMinToMarket", notional.get("applyToMarket", False))),
            max_notional=_amount(notional.get("maxNotional", "0")),
            apply_max_to_market=bool(notional.get("applyMaxToMarket", False)),
        ),
        percent_price=None if band is None else _percent_price(band),
        max_orders=count("MAX_NUM_ORDERS", "maxNumOrders"),
        max_algo_orders=count("MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders"),
        max_order_lists=count("MAX_NUM_ORDER_LISTS", "maxNumOrderLists"),
        max_position=number("MAX_POSITION", "maxPosition") or None,
        permission_sets=tuple(frozenset(names) for names in data.get("permissionSets", ())),
        trailing_delta=_trailing(filters["TRAILING_DELTA"])
        if data.get("allowTrailingStop") and "TRAILING_DELTA" in filters
        else None,
    )


def _trailing(data: Json) -> TrailingFilter:
    return TrailingFilter(int(data["minTrailingBelowDelta"]), int(data["maxTrailingBelowDelta"]))


def _percent_price(data: Json) -> PercentPriceFilter:
    return PercentPriceFilter(
        bid_up=_amount(data["bidMultiplierUp"]),
        bid_down=_amount(data["bidMultiplierDown"]),
        ask_up=_amount(data["askMultiplierUp"]),
        ask_down=_amount(data["askMultiplierDown"]),
    )


def account(data: Json) -> AccountSnapshot:
    """GET account."""
    rates = data["commissionRates"]
    return AccountSnapshot(
        uid=str(data["uid"]),
        can_trade=bool(data.get("canTrade", True)),
        permissions=frozenset(data.get("permissions", ())),
        balances={item["asset"]: Balance(_number(item["free"]), _number(item["locked"])) for item in data["balances"]},
        maker_rate=_number(rates["maker"]),
        taker_rate=_number(rates["taker"]),
        time_ms=int(data.get("updateTime", 0)),
    )


def key_permissions(data: Json) -> KeyPermissions:
    """GET /sapi/v1/account/apiRestrictions."""
    return KeyPermissions(trade=bool(data["enableSpotAndMarginTrading"]), withdraw=bool(data["enableWithdrawals"]))


def commission(data: Json) -> Commission:
    """GET account/commission: standard, special and tax commissions add up; the BNB discount is left out."""
    groups = [data[name] for name in ("standardCommission", "specialCommission", "taxCommission") if name in data]

    def total(*names: str) -> Decimal:
        return sum((_number(group.get(name, "0")) for group in groups for name in names), Decimal(0))

    return Commission(maker=total("maker", "buyer"), taker=total("taker", "buyer"))


def order(data: Json) -> OrderReport:
    """An order of any REST answer; of a cancel, `origClientOrderId` is the order's own id."""
    symbol, order_id, side = data["symbol"], int(data["orderId"]), Side(data.get("side", "SELL"))
    time_ms = int(data.get("updateTime") or data.get("transactTime") or data.get("time") or 0)
    fills = tuple(
        TradeFill(
            symbol=symbol,
            trade_id=int(item["tradeId"]),
            order_id=order_id,
            side=side,
            price=_traded(item["price"]),
            quantity=_traded(item["qty"]),
            commission=_number(item["commission"]),
            commission_asset=item["commissionAsset"],
            is_maker=False,  # the fills of a placement's answer are those it took
            time_ms=time_ms,
        )
        for item in data.get("fills", ())
    )
    return OrderReport(
        symbol=symbol,
        order_id=order_id,
        order_list_id=int(data.get("orderListId", NO_LIST)),
        client_order_id=data.get("origClientOrderId") or data["clientOrderId"],
        side=side,
        type=OrderType(data["type"]),
        status=OrderStatus(data["status"]),
        time_in_force=TimeInForce(data.get("timeInForce", "GTC")),
        price=_amount(data["price"]),
        stop_price=_amount(data.get("stopPrice", "0")),
        quantity=_amount(data["origQty"]),
        executed_quantity=_amount(data["executedQty"]),
        time_ms=time_ms,
        fills=fills,
        expiry_reason=data.get("expiryReason"),
        working=int(data.get("workingTime", -1)) >= 0,
    )


def cancelled_order(data: Json, client_order_id: str) -> OrderReport:
    """The answer to the cancel of an order: of one of a list it is the whole list."""
    reports = {report.client_order_id: report for report in map(order, data.get("orderReports", ()))}
    return reports[client_order_id] if reports else order(data)


def order_list(data: Json) -> OrderListReport:
    """An order list of any REST answer."""
    return OrderListReport(
        symbol=data["symbol"],
        order_list_id=int(data["orderListId"]),
        list_client_order_id=data["listClientOrderId"],
        status=ListStatus(data["listOrderStatus"]),
        order_ids=tuple(int(item["orderId"]) for item in data["orders"]),
        client_order_ids=tuple(item["clientOrderId"] for item in data["orders"]),
        time_ms=int(data["transactionTime"]),
        reports=tuple(order(item) for item in data.get("orderReports", ())),
    )


def trade(data: Json) -> TradeFill:
    """An entry of GET myTrades."""
    return TradeFill(
        symbol=data["symbol"],
        trade_id=int(data["id"]),
        order_id=int(data["orderId"]),
        side=Side.BUY if data["isBuyer"] else Side.SELL,
        price=_traded(data["price"]),
        quantity=_traded(data["qty"]),
        commission=_number(data["commission"]),
        commission_asset=data["commissionAsset"],
        is_maker=bool(data["isMaker"]),
        time_ms=int(data["time"]),
    )


def last_price(data: Json) -> Decimal:
    """GET ticker/price; of a symbol that was never traded there is none."""
    return _traded(data["price"])


def candle(symbol: str, interval: str, row: Sequence[Any], now_ms: int) -> Candle:
    """A row of GET klines; it is closed when the exchange's time is past its end."""
    return Candle(
        symbol=symbol,
        interval=interval,
        open_ms=int(row[0]),
        close_ms=int(row[6]),
        open=_traded(row[1]),
        high=_traded(row[2]),
        low=_traded(row[3]),
        close=_traded(row[4]),
        volume=_amount(row[5]),
        trades=int(row[8]),
        closed=now_ms > int(row[6]),
    )


def book_ticker(data: Json, received: float) -> BookTicker:
    """GET ticker/bookTicker."""
    return BookTicker(
        symbol=data["symbol"],
        bid=_amount(data["bidPrice"]),
        bid_quantity=_amount(data["bidQty"]),
        ask=_amount(data["askPrice"]),
        ask_quantity=_amount(data["askQty"]),
        received=received,
    )


def stream_book(data: Json, received: float) -> BookTicker:
    """A bookTicker message."""
    return BookTicker(
        symbol=data["s"],
        bid=_amount(data["b"]),
        bid_quantity=_amount(data["B"]),
        ask=_amount(data["a"]),
        ask_quantity=_amount(data["A"]),
        received=received,
    )


def stream_candle(data: Json) -> Candle:
    """A kline message."""
    row = data["k"]
    return Candle(
        symbol=row["s"],
        interval=row["i"],
        open_ms=int(row["t"]),
        close_ms=int(row["T"]),
        open=_traded(row["o"]),
        high=_traded(row["h"]),
        low=_traded(row["l"]),
        close=_traded(row["c"]),
        volume=_amount(row["v"]),
        trades=int(row["n"]),
        closed=bool(row["x"]),
    )


def user_event(data: Json) -> UserEvent | None:
    """An event of the user data stream; None for kinds that the bot has no use for."""
    match data.get("e"):
        case "executionReport":
            return _order_update(data)
        case "listStatus":
            return ListUpdate(
                symbol=data["s"],
                order_list_id=int(data["g"]),
                list_client_order_id=data["C"],
                status=ListStatus(data["L"]),
                client_order_ids=tuple(item["c"] for item in data["O"]),
                event_ms=int(data["E"]),
            )
        case "outboundAccountPosition":
            return BalancesUpdate(
                balances={item["a"]: Balance(_number(item["f"]), _number(item["l"])) for item in data["B"]},
                event_ms=int(data["E"]),
            )
        case "balanceUpdate" | "externalLockUpdate" as kind:
            return BalanceChange(data["a"], _number(data["d"]), kind == "externalLockUpdate", int(data["E"]))
        case _:
            return None


def _order_update(data: Json) -> OrderUpdate:
    symbol, order_id, side = data["s"], int(data["i"]), Side(data["S"])
    fill = None
    if data["x"] == "TRADE":
        fill = TradeFill(
            symbol=symbol,
            trade_id=int(data["t"]),
            order_id=order_id,
            side=side,
            price=_traded(data["L"]),
            quantity=_traded(data["l"]),
            commission=_number(data["n"] or "0"),
            commission_asset=data["N"] or "",
            is_maker=bool(data["m"]),
            time_ms=int(data["T"]),
        )
    report = OrderReport(
        symbol=symbol,
        order_id=order_id,
        order_list_id=int(data["g"]),
        client_order_id=data["C"] or data["c"],  # on a cancel c is the cancel's id and C the order's own
        side=side,
        type=OrderType(data["o"]),
        status=OrderStatus(data["X"]),
        time_in_force=TimeInForce(data["f"]),
        price=_amount(data["p"]),
        stop_price=_amount(data["P"]),
        quantity=_amount(data["q"]),
        executed_quantity=_amount(data["z"]),
        time_ms=int(data["T"]),
        expiry_reason=data.get("eR"),
        working="W" in data,
    )
    reason = data.get("r", "NONE")
    return OrderUpdate(report, data["x"], None if reason == "NONE" else reason, fill, int(data["E"]))
