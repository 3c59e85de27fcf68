"""Single orders on the paper exchange: what they take, how they wait, and when they are filled."""

from __future__ import annotations

import pytest

from paper_exchange.core.errors import ExchangeError
from support.paper import Desk, brief

ALICE, BOB = 1, 2


@pytest.fixture
def desk() -> Desk:
    """Two accounts and a book of two levels a side around 60000."""
    desk = Desk()
    desk.open(ALICE, USDT="100000", BTC="5")
    desk.open(BOB, USDT="100000", BTC="5")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    desk.events(ALICE)
    return desk


def test_a_market_buy_walks_the_asks_and_pays_its_fee_in_the_bought_asset(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", "MARKET", quantity="1.5")
    assert answer["status"] == "FILLED"
    assert [(fill["price"], fill["qty"]) for fill in answer["fills"]] == [
        ("60001.00000000", "1.00000000"),
        ("60010.00000000", "0.50000000"),
    ]
    assert [fill["commission"] for fill in answer["fills"]] == ["0.00100000", "0.00050000"]
    assert desk.held(ALICE, "BTC") == ("6.4985", "0")
    assert desk.held(ALICE, "USDT") == ("9994", "0")


def test_a_market_sell_pays_its_fee_in_the_quote_asset(desk: Desk) -> None:
    answer = desk.place(ALICE, "SELL", "MARKET", quantity="1")
    assert answer["fills"][0]["commissionAsset"] == "USDT"
    assert desk.held(ALICE, "USDT") == ("159940", "0")


def test_a_market_buy_by_quote_spends_no_more_than_it_says(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", "MARKET", quoteOrderQty="100")
    assert (answer["status"], answer["origQuoteOrderQty"]) == ("FILLED", "100.00000000")
    assert answer["executedQty"] == "0.00166000"  # 100 / 60001 cut to the lot step


@pytest.mark.parametrize(
    ("amount", "sold"),
    [
        pytest.param("60.2", "0.00100000", id="nearer to the step below"),
        pytest.param("60.4", "0.00101000", id="nearer to the step above"),
    ],
)
def test_a_market_sell_by_quote_sells_the_steps_closest_to_its_amount(desk: Desk, amount: str, sold: str) -> None:
    answer = desk.place(ALICE, "SELL", "MARKET", quoteOrderQty=amount)
    assert (answer["status"], answer["executedQty"]) == ("FILLED", sold)


def test_a_market_buy_by_quote_on_a_thin_book_is_expired_with_what_it_got(desk: Desk) -> None:
    desk.book([], [("60001", "0.01")])
    answer = desk.place(ALICE, "BUY", "MARKET", quoteOrderQty="1000")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "0.01000000")


def test_a_market_order_on_a_thin_book_is_expired_with_what_it_got(desk: Desk) -> None:
    answer = desk.place(ALICE, "SELL", "MARKET", quantity="4")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "3.00000000")
    assert answer["expiryReason"] == "INSUFFICIENT_LIQUIDITY"


def test_events_of_a_market_order_come_as_new_then_trades_then_one_balance(desk: Desk) -> None:
    desk.place(ALICE, "BUY", "MARKET", quantity="1.5")
    assert brief(desk.events(ALICE)) == [
        "NEW 1 NEW",
        "TRADE 1 PARTIALLY_FILLED",
        "TRADE 1 FILLED",
        "outboundAccountPosition",
    ]


def test_a_limit_takes_better_prices_and_the_rest_waits_on_the_book(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", price="60005", quantity="1.5")
    assert (answer["status"], answer["executedQty"]) == ("PARTIALLY_FILLED", "1.00000000")
    assert desk.held(ALICE, "USDT") == ("9996.5", "30002.5")
    assert desk.exchange.market("BTCUSDT").bids.levels(1) == [(60005 * 10**8, 5 * 10**7)]


def test_an_ioc_takes_what_is_there_and_expires(desk: Desk) -> None:
    answer = desk.place(ALICE, "BUY", price="60005", quantity="1.5", timeInForce="IOC")
    assert (answer["status"], answer["executedQty"]) == ("EXPIRED", "1.00000000")
    assert answer["expiryReason"] == "UNFILLED_IOC_QUANTITY_EXPIRED"
    assert desk.held(ALICE, "USDT") == ("39999", "0")


def test_a_fok_is_filled_whole_or_not_at_all(desk: Desk) -> None:
    missed = desk.place(ALICE, "BUY", price="60005", quantity="1.00001", timeInForce="FOK")
    assert (missed["status"], missed["executedQty"], missed["fills"]) == ("EXPIRED", "0.00000000", [])
    assert desk.held(ALICE, "USDT") == ("100000", "0")
    filled = desk.place(ALICE, "BUY", price="60005", quantity="1", timeInForce="FOK")
    assert filled["status"] == "FILLED"


def test_a_limit_maker_never_takes(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-2010 Order would immediately match and take"):
        desk.place(ALICE, "BUY", "LIMIT_MAKER", price="60001", quantity="1")
    assert desk.place(ALICE, "BUY", "LIMIT_MAKER", price="60000.99", quantity="1", response="RESULT")["status"] == "NEW"


def test_what_was_taken_stays_taken_until_the_level_changes(desk: Desk) -> None:
    desk.place(ALICE, "BUY", "MARKET", quantity="1")
    desk.book([], [("60001", "1")], snapshot=False)  # the market repeats itself
    assert desk.place(ALICE, "BUY", "MARKET", quantity="0.1")["fills"][0]["price"] == "60010.00000000"
    desk.book([], [("60001", "0.9")], snapshot=False)  # the market changes the level
    assert desk.place(ALICE, "BUY", "MARKET", quantity="0.1")["fills"][0]["price"] == "60001.00000000"


def test_a_touched_order_waits_for_the_queue_ahead_of_it(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000", quantity="0.5")["orderId"]
    desk.trade("60000", "0.6")
    assert desk.status(order)[:2] == ("NEW", "0")
    desk.trade("60000", "0.6")  # 0.4 of it were ahead
    assert desk.status(order)[:2] == ("PARTIALLY_FILLED", "0.2")
    desk.trade("60000", "1")
    assert desk.status(order)[:2] == ("FILLED", "0.5")


def test_a_shrinking_level_moves_the_queue_up(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000", quantity="0.5")["orderId"]
    desk.book([("60000", "0.1")], [], snapshot=False)
    desk.trade("60000", "0.6")
    assert desk.status(order)[0] == "FILLED"


def test_what_comes_or_is_cancelled_at_a_level_counts_as_behind_while_it_can_be(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000", quantity="0.5")["orderId"]  # 1 is ahead
    desk.book([("60000", "5")], [], snapshot=False)
    desk.book([("60000", "1.2")], [], snapshot=False)
    desk.trade("60000", "1")
    assert desk.status(order)[:2] == ("NEW", "0")
    desk.trade("60000", "0.1")
    assert desk.status(order)[:2] == ("PARTIALLY_FILLED", "0.1")


def test_nobody_is_ahead_where_the_level_was_gone(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000", quantity="0.5")["orderId"]
    desk.book([("60000", "0")], [], snapshot=False)
    desk.book([("60000", "9")], [], snapshot=False)
    desk.trade("60000", "0.5")
    assert desk.status(order)[0] == "FILLED"


def test_a_trade_through_the_price_fills_as_much_as_was_traded(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000", quantity="0.5")["orderId"]
    desk.trade("59999", "0.3")
    assert desk.status(order)[:2] == ("PARTIALLY_FILLED", "0.3")
    trade = desk.exchange.trades[ALICE, "BTCUSDT"][0]
    assert (trade.price, trade.maker) == (60000 * 10**8, True)


def test_a_book_that_crosses_a_resting_order_fills_it_at_its_own_price(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="60000.5", quantity="0.5")["orderId"]
    desk.events(ALICE)
    desk.book([], [("60000.4", "0.2")], snapshot=False)
    assert desk.status(order)[:2] == ("PARTIALLY_FILLED", "0.2")
    assert desk.prints() == [("60000.5", "0.2")]


def test_public_trades_are_not_counted_twice_when_ours_took_part(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="60000.5", quantity="0.5")
    desk.prints()
    desk.trade("60000", "0.7")
    assert desk.prints() == [("60000.5", "0.5"), ("60000", "0.2")]


def test_two_accounts_trade_with_each_other_in_price_and_time_priority(desk: Desk) -> None:
    desk.open(3, BTC="1")
    first = desk.place(ALICE, "SELL", price="60000.5", quantity="0.1")["orderId"]
    second = desk.place(3, "SELL", price="60000.5", quantity="0.1")["orderId"]
    answer = desk.place(BOB, "BUY", price="60000.5", quantity="0.15")
    assert answer["status"] == "FILLED"
    assert desk.status(first)[:2] == ("FILLED", "0.1")
    assert desk.status(second)[:2] == ("PARTIALLY_FILLED", "0.05")
    sold = desk.exchange.trades[ALICE, "BTCUSDT"][0]
    bought = desk.exchange.trades[BOB, "BTCUSDT"][0]
    assert sold.trade_id == bought.trade_id
    assert (sold.maker, bought.maker) == (True, False)


@pytest.mark.parametrize(
    ("kind", "side", "stop", "push"),
    [
        pytest.param("STOP_LOSS", "SELL", "59900", "59900", id="sell stop"),
        pytest.param("TAKE_PROFIT", "SELL", "60100", "60100", id="sell take profit"),
        pytest.param("STOP_LOSS", "BUY", "60100", "60100", id="buy stop"),
        pytest.param("TAKE_PROFIT", "BUY", "59900", "59900", id="buy take profit"),
    ],
)
def test_a_conditional_order_waits_for_the_last_price_to_meet_its_trigger(
    desk: Desk, kind: str, side: str, stop: str, push: str
) -> None:
    answer = desk.place(ALICE, side, kind, quantity="0.1", stopPrice=stop, response="RESULT")
    assert (answer["status"], answer["workingTime"]) == ("NEW", -1)
    desk.trade("60000.5")
    assert desk.status(answer["orderId"])[0] == "NEW"
    desk.push(push)
    assert desk.status(answer["orderId"])[:2] == ("FILLED", "0.1")


def test_a_stop_that_would_trigger_at_once_is_refused(desk: Desk) -> None:
    with pytest.raises(ExchangeError, match="-2010 Order would trigger immediately"):
        desk.place(ALICE, "SELL", "STOP_LOSS", quantity="0.1", stopPrice="60000")


def test_a_stop_limit_after_a_gap_rests_unfilled(desk: Desk) -> None:
    answer = desk.place(
        ALICE, "SELL", "STOP_LOSS_LIMIT", quantity="0.1", stopPrice="59950", price="59940", timeInForce="GTC"
    )
    desk.push("59000")
    order = desk.exchange.orders[answer["orderId"]]
    assert (order.status, order.executed, order.working_time > 0) == ("NEW", 0, True)
    assert desk.exchange.market("BTCUSDT").asks.own


def test_an_order_meeting_one_of_its_own_account_expires_the_resting_one(desk: Desk) -> None:
    resting = desk.place(ALICE, "SELL", price="60000.5", quantity="0.1")["orderId"]
    answer = desk.place(ALICE, "BUY", price="60001", quantity="0.1")
    assert desk.status(resting)[0] == "EXPIRED_IN_MATCH"
    assert answer["fills"][0]["price"] == "60001.00000000"


@pytest.mark.parametrize(
    ("mode", "resting", "taking"),
    [
        pytest.param("EXPIRE_MAKER", "EXPIRED_IN_MATCH", "NEW", id="maker"),
        pytest.param("EXPIRE_TAKER", "NEW", "EXPIRED_IN_MATCH", id="taker"),
        pytest.param("EXPIRE_BOTH", "EXPIRED_IN_MATCH", "EXPIRED_IN_MATCH", id="both"),
    ],
)
def test_self_trade_prevention_follows_the_takers_mode(desk: Desk, mode: str, resting: str, taking: str) -> None:
    maker = desk.place(ALICE, "SELL", price="60000.5", quantity="0.1")["orderId"]
    taker = desk.place(ALICE, "BUY", price="60000.7", quantity="0.1", selfTradePreventionMode=mode)["orderId"]
    assert (desk.status(maker)[0], desk.status(taker)[0]) == (resting, taking)


def test_a_cancel_swaps_the_client_ids_and_frees_the_money(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="59000", quantity="0.1", newClientOrderId="mine")["orderId"]
    assert desk.held(ALICE, "USDT") == ("94100", "5900")
    answer = desk.exchange.cancel(
        ALICE, "BTCUSDT", order_id=order, client_order_id="mine", new_client_order_id="bye", now=desk.tick()
    )
    assert (answer["origClientOrderId"], answer["clientOrderId"], answer["status"]) == ("mine", "bye", "CANCELED")
    assert desk.held(ALICE, "USDT") == ("100000", "0")
    with pytest.raises(ExchangeError, match="-2011 Unknown order sent"):
        desk.cancel(ALICE, order)


def test_nobody_reaches_the_orders_of_another_account(desk: Desk) -> None:
    order = desk.place(ALICE, "BUY", price="59000", quantity="0.1")["orderId"]
    with pytest.raises(ExchangeError, match="-2011"):
        desk.cancel(BOB, order)
    with pytest.raises(ExchangeError, match="-2013 Order does not exist"):
        desk.exchange.find_order(BOB, "BTCUSDT", order, None)


def test_a_client_id_is_unique_among_open_orders_only(desk: Desk) -> None:
    desk.place(ALICE, "BUY", price="59000", quantity="0.1", newClientOrderId="one")
    with pytest.raises(ExchangeError, match="-2010 Duplicate order sent"):
        desk.place(ALICE, "BUY", price="59000", quantity="0.1", newClientOrderId="one")
    desk.place(BOB, "BUY", price="59000", quantity="0.1", newClientOrderId="one")
    desk.exchange.cancel(ALICE, "BTCUSDT", order_id=None, client_order_id="one", now=desk.tick())
    again = desk.place(ALICE, "BUY", price="59000", quantity="0.1", newClientOrderId="one")["orderId"]
    assert desk.exchange.find_order(ALICE, "BTCUSDT", None, "one").order_id == again


def test_a_pushed_trade_fills_everything_of_ours_up_to_its_price(desk: Desk) -> None:
    low = desk.place(ALICE, "SELL", price="60050", quantity="0.1")["orderId"]
    high = desk.place(ALICE, "SELL", price="60200", quantity="0.1")["orderId"]
    desk.push("60100")
    assert (desk.status(low)[0], desk.status(high)[0]) == ("FILLED", "NEW")
    assert desk.exchange.market("BTCUSDT").last == 60100 * 10**8
    assert desk.place(BOB, "BUY", "MARKET", quantity="0.5")["fills"][0]["price"] == "60100.00000000"
