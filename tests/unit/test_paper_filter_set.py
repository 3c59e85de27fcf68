"""Every filter that Binance documents: what passes it, what it refuses, and that it is off at 0."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from paper_exchange.core.symbols import SYMBOLS, ExchangeRules, rules_of
from paper_exchange.server.rest import Reply
from support.paper import SYMBOL, units
from support.paper_rest import RestDesk

MARKET = {"type": "MARKET", "price": None}
STOP = {"side": "SELL", "type": "STOP_LOSS", "price": None, "quantity": "0.01", "stopPrice": "50000"}
TRAIL = STOP | {"stopPrice": None}
ICEBERG = {"quantity": "1", "icebergQty": "0.5"}


@pytest.fixture
def desk() -> RestDesk:
    """An exchange whose market stands at 60000."""
    return RestDesk()


def use(desk: RestDesk, **rules: Any) -> None:
    """Change the filters of BTCUSDT."""
    market = desk.venue.exchange.market(SYMBOL)
    market.rules = replace(market.rules, **rules)


@pytest.mark.parametrize(
    ("rules", "order", "failure"),
    [
        pytest.param({}, {"price": "50000.01"}, None, id="on the tick"),
        pytest.param({}, {"price": "50000.001"}, "PRICE_FILTER", id="off the tick"),
        pytest.param({"tick": 0}, {"price": "50000.001"}, None, id="no tick"),
        pytest.param({"min_price": units("55000")}, {}, "PRICE_FILTER", id="below the least price"),
        pytest.param({"max_price": units("49999")}, {}, "PRICE_FILTER", id="above the highest price"),
        pytest.param({"max_price": 0}, {}, None, id="no highest price"),
        pytest.param({}, STOP | {"stopPrice": "50000.001"}, "PRICE_FILTER", id="a trigger off the tick"),
        pytest.param({"min_quantity": units("0.003")}, {"quantity": "0.004"}, None, id="no multiple above the least"),
        pytest.param({"min_quantity": units("0.02")}, {}, "LOT_SIZE", id="below the least quantity"),
        pytest.param({"max_quantity": units("0.009")}, {}, "LOT_SIZE", id="above the largest quantity"),
        pytest.param({}, ICEBERG | {"icebergQty": "0.500001"}, "LOT_SIZE", id="a part off the step"),
        pytest.param({"max_market_quantity": units("0.05")}, MARKET | {"quantity": "0.05"}, None, id="at market"),
        pytest.param(
            {"max_market_quantity": units("0.05")},
            MARKET | {"quantity": "0.06"},
            "MARKET_LOT_SIZE",
            id="much at market",
        ),
        pytest.param({"max_market_quantity": units("0.05")}, {"quantity": "0.06"}, None, id="much at a limit"),
        pytest.param({"market_step": units("0.1")}, MARKET | {"quantity": "0.06"}, "MARKET_LOT_SIZE", id="market step"),
        pytest.param(
            {"max_market_quantity": units("0.05")},
            MARKET | {"quantity": None, "quoteOrderQty": "6000"},
            "MARKET_LOT_SIZE",
            id="much at market by quote",
        ),
        pytest.param({}, {"quantity": "0.0001"}, None, id="exactly the least notional"),
        pytest.param({}, {"quantity": "0.00009"}, "NOTIONAL", id="less than the least notional"),
        pytest.param({}, MARKET | {"quantity": "0.00008"}, "NOTIONAL", id="little at market, by the average price"),
        pytest.param({"max_notional": units("499")}, {}, "NOTIONAL", id="more than the largest notional"),
        pytest.param({"max_notional": units("499")}, MARKET, None, id="the largest notional is not for MARKET"),
        pytest.param({"only_min_notional": units("501")}, {}, "MIN_NOTIONAL", id="MIN_NOTIONAL"),
        pytest.param({}, {"price": "12000"}, None, id="a fifth of the average"),
        pytest.param({}, {"price": "11999.99"}, "PERCENT_PRICE_BY_SIDE", id="below a fifth of the average"),
        pytest.param({"bid_multiplier_down": Decimal("0.9")}, {}, "PERCENT_PRICE_BY_SIDE", id="a bid too low"),
        pytest.param({"ask_multiplier_down": Decimal("0.9")}, {}, None, id="what is for asks is not for bids"),
        pytest.param(
            {"ask_multiplier_up": Decimal("1.1")},
            {"side": "SELL", "price": "66001"},
            "PERCENT_PRICE_BY_SIDE",
            id="an ask too high",
        ),
        pytest.param(
            {"percent_up": Decimal("1.1"), "percent_down": Decimal("0.9")}, {}, "PERCENT_PRICE", id="PERCENT_PRICE"
        ),
        pytest.param({"max_iceberg_parts": 2}, ICEBERG, None, id="as many parts as may be"),
        pytest.param({"max_iceberg_parts": 2}, ICEBERG | {"icebergQty": "0.49"}, "ICEBERG_PARTS", id="too many parts"),
        pytest.param({}, TRAIL | {"trailingDelta": "10"}, None, id="the smallest trailing delta"),
        pytest.param({}, TRAIL | {"trailingDelta": "9"}, "TRAILING_DELTA", id="too small a trailing delta"),
        pytest.param({}, TRAIL | {"trailingDelta": "2001"}, "TRAILING_DELTA", id="too large a trailing delta"),
    ],
)
def test_a_filter_of_the_order_refuses_it_before_the_engine(
    desk: RestDesk, rules: dict[str, Any], order: dict[str, Any], failure: str | None
) -> None:
    use(desk, **rules)
    reply = desk.place(**order)
    if failure is None:
        assert reply.status == 200, reply.body
    else:
        assert reply.body == {"code": -1013, "msg": f"Filter failure: {failure}"}


def refused_by_engine(reply: Reply, failure: str) -> bool:
    """Whether the engine refused by a filter of the account."""
    return bool(reply.body == {"code": -2010, "msg": f"Filter failure: {failure}"})


@pytest.mark.parametrize(
    ("rules", "order", "failure"),
    [
        pytest.param({"max_orders": 2}, {}, "MAX_NUM_ORDERS", id="orders"),
        pytest.param({"max_algo_orders": 2}, STOP, "MAX_NUM_ALGO_ORDERS", id="algo orders"),
        pytest.param({"max_iceberg_orders": 2}, ICEBERG, "MAX_NUM_ICEBERG_ORDERS", id="icebergs"),
        pytest.param({"max_position": units("100.02")}, {}, "MAX_POSITION", id="position"),
    ],
)
def test_the_third_of_two_that_may_be_open_is_refused_by_the_engine(
    desk: RestDesk, rules: dict[str, Any], order: dict[str, Any], failure: str
) -> None:
    use(desk, **rules)
    first = desk.place(**order)
    assert (first.status, desk.place(**order).status) == (200, 200)
    assert refused_by_engine(desk.place(**order), failure)
    told = desk.ask("GET", "/api/v3/myFilters", symbol=SYMBOL).body["symbolFilters"]
    assert failure in {row["filterType"] for row in told}
    cancel = {"symbol": SYMBOL, "orderId": first.body["orderId"]}
    assert desk.ask("DELETE", "/api/v3/order", **cancel).status == 200
    assert desk.place(**order).status == 200


@pytest.mark.parametrize(
    ("rules", "order", "failure"),
    [
        pytest.param(ExchangeRules(max_orders=2), {}, "EXCHANGE_MAX_NUM_ORDERS", id="orders"),
        pytest.param(ExchangeRules(max_algo_orders=2), STOP, "EXCHANGE_MAX_NUM_ALGO_ORDERS", id="algo orders"),
        pytest.param(ExchangeRules(max_iceberg_orders=2), ICEBERG, "EXCHANGE_MAX_NUM_ICEBERG_ORDERS", id="icebergs"),
    ],
)
def test_filters_of_the_exchange_count_over_all_symbols(
    rules: ExchangeRules, order: dict[str, Any], failure: str
) -> None:
    desk = RestDesk((SYMBOL, "BTCUSDC"))
    desk.venue.exchange.rules = rules
    desk.venue.exchange.deposit(desk.key.uid, "USDC", units("1000000"), desk.now)
    assert (desk.place(**order).status, desk.place(symbol="BTCUSDC", **order).status) == (200, 200)
    assert refused_by_engine(desk.place(**order), failure)
    told = desk.send("GET", "/api/v3/exchangeInfo").body["exchangeFilters"]
    assert [row["filterType"] for row in told] == [failure]


@pytest.mark.parametrize("scope", ["", "EXCHANGE_"])
def test_no_more_order_lists_are_open_than_may_be(desk: RestDesk, scope: str) -> None:
    if scope:
        desk.venue.exchange.rules = ExchangeRules(max_lists=1)
    else:
        use(desk, max_lists=1)
    oco = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.1", "aboveType": "LIMIT_MAKER", "abovePrice": "65000"}
    oco |= {"belowType": "STOP_LOSS", "belowStopPrice": "55000"}
    assert desk.ask("POST", "/api/v3/orderList/oco", **oco).status == 200
    assert refused_by_engine(desk.ask("POST", "/api/v3/orderList/oco", **oco), f"{scope}MAX_NUM_ORDER_LISTS")


def test_an_account_may_have_a_largest_amount_of_an_asset_for_one_order(desk: RestDesk) -> None:
    account = desk.venue.exchange.accounts[desk.key.uid]
    account.max_assets = {"BTC": units("0.5"), "USDT": units("20000"), "ETH": units("1")}
    assert desk.place(quantity="0.4").status == 200
    for order in ({"quantity": "0.6"}, {"quantity": "0.41"}, MARKET | {"quantity": None, "quoteOrderQty": "20001"}):
        assert desk.place(**order).body == {"code": -1013, "msg": "Filter failure: MAX_ASSET"}
    told = desk.ask("GET", "/api/v3/myFilters", symbol=SYMBOL).body
    assert told["assetFilters"] == [
        {"filterType": "MAX_ASSET", "asset": "BTC", "limit": "0.50000000"},
        {"filterType": "MAX_ASSET", "asset": "USDT", "limit": "20000.00000000"},
    ]
    assert told["symbolFilters"] == desk.send("GET", "/api/v3/exchangeInfo").body["symbols"][0]["filters"]


def test_the_average_price_is_of_the_last_minutes_and_over_none_the_last_price(desk: RestDesk) -> None:
    def average() -> Decimal:
        return Decimal(desk.send("GET", "/api/v3/avgPrice", f"symbol={SYMBOL}").body["price"])

    desk.trade("40000", "1000")
    assert 40000 < average() < 40200
    desk.now += 6 * 60_000
    desk.trade("60000", "1")
    assert average() == 60000
    use(desk, average_minutes=0)
    desk.trade("40000", "0.001")
    assert average() == 40000


def test_production_filters_are_all_told() -> None:
    told = [row["filterType"] for row in SYMBOLS[SYMBOL].filters()]
    production = {"PRICE_FILTER", "LOT_SIZE", "ICEBERG_PARTS", "MARKET_LOT_SIZE", "TRAILING_DELTA"}
    production |= {"PERCENT_PRICE_BY_SIDE", "NOTIONAL", "MAX_NUM_ORDERS", "MAX_NUM_ORDER_LISTS"}
    assert sorted(told) == sorted(production | {"MAX_NUM_ALGO_ORDERS", "MAX_NUM_ORDER_AMENDS"})


@pytest.mark.parametrize(
    ("query", "symbols"),
    [
        pytest.param("", [SYMBOL, "ETHUSDT"], id="all that a SPOT account may trade"),
        pytest.param("permissions=TRD_GRP_007", ["BNBUSDT"], id="by one permission"),
        pytest.param("permissions=%5B%22SPOT%22%2C%22TRD_GRP_007%22%5D", [SYMBOL, "ETHUSDT", "BNBUSDT"], id="by two"),
        pytest.param("symbolStatus=HALT", ["ETHUSDT"], id="by status"),
        pytest.param("symbol=BNBUSDT", ["BNBUSDT"], id="by name"),
    ],
)
def test_exchange_info_shows_the_symbols_asked_for(query: str, symbols: list[str]) -> None:
    desk = RestDesk((SYMBOL, "ETHUSDT", "BNBUSDT"))
    desk.venue.exchange.market("ETHUSDT").status = "HALT"
    market = desk.venue.exchange.market("BNBUSDT")
    market.rules = replace(market.rules, permission_sets=(("TRD_GRP_007",),))
    told = desk.send("GET", "/api/v3/exchangeInfo", query).body["symbols"]
    assert [row["symbol"] for row in told] == symbols
    hidden = desk.send("GET", "/api/v3/exchangeInfo", "showPermissionSets=false").body["symbols"]
    assert {str(row["permissionSets"]) for row in hidden} == {"[]"}


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_rules_of_what_exchange_info_tells_are_the_same_again(symbol: str) -> None:
    usual = SYMBOLS[symbol]
    others = replace(
        usual,
        percent_up=Decimal("1.2"),
        percent_down=Decimal("0.8"),
        only_min_notional=units("7"),
        max_iceberg_orders=3,
        max_position=units("12"),
        market_step=units("0.01"),
        market_min_quantity=units("0.02"),
        average_minutes=3,
        max_trailing_delta=900,
    )
    for rules in (usual, others):
        assert rules_of(rules.info("TRADING")) == rules
