"""What an account goes through, as a run reports it: profit, drawdown, and the seconds without a stop."""

from __future__ import annotations

from decimal import Decimal

from paper_exchange.account_watch import AccountWatch
from paper_exchange.core.units import text
from support.paper import SYMBOL, units
from support.paper_rest import START_MS, RestDesk

OTHER = "BTCUSDC"


def watched(desk: RestDesk) -> AccountWatch:
    return AccountWatch(desk.venue, desk.key.uid, 100.0)


def profit(watch: AccountWatch, now: float) -> Decimal:
    watch.look(now)
    return Decimal(text(watch.profit))


def test_a_position_counts_as_unprotected_until_a_stop_covers_it() -> None:
    desk = RestDesk()
    watch = watched(desk)
    watch.look(101.0)
    # 100 BTC were there at the start: nobody bought them.
    assert watch.unprotected_seconds == 0.0
    desk.place(type="MARKET", price=None, quantity="0.2")
    watch.look(102.0)
    watch.look(105.0)
    assert (watch.unprotected_seconds, watch.longest_unprotected) == (4.0, 4.0)
    pair = {"side": "SELL", "aboveType": "LIMIT_MAKER", "abovePrice": "61000"}
    pair |= {"belowType": "STOP_LOSS", "belowStopPrice": "59000"}
    desk.ask("POST", "/api/v3/orderList/oco", symbol=SYMBOL, quantity="0.1", **pair)
    watch.look(106.0)
    assert watch.unprotected_seconds == 5.0
    desk.ask("POST", "/api/v3/orderList/oco", symbol=SYMBOL, quantity="0.1", **pair)
    watch.look(110.0)
    desk.ask("DELETE", "/api/v3/openOrders", symbol=SYMBOL)
    watch.look(111.0)
    assert (watch.unprotected_seconds, watch.longest_unprotected) == (6.0, 5.0)


def test_a_take_profit_and_a_stop_limit_that_was_triggered_protect_nothing() -> None:
    desk = RestDesk()
    watch = watched(desk)
    desk.place(type="MARKET", price=None, quantity="0.2")
    desk.place(side="SELL", type="TAKE_PROFIT", price=None, stopPrice="61000", quantity="0.2")
    watch.look(101.0)
    assert watch.unprotected_seconds == 1.0
    limit = {"stopPrice": "59990", "timeInForce": "GTC"}
    placed = desk.place(side="SELL", type="STOP_LOSS_LIMIT", price="60500", quantity="0.2", **limit)
    assert placed.status == 200
    watch.look(102.0)
    assert watch.unprotected_seconds == 1.0
    desk.trade("59980")
    watch.look(103.0)
    assert watch.unprotected_seconds == 2.0


def test_stops_of_every_market_of_an_asset_protect_what_was_bought_of_it() -> None:
    desk = RestDesk((SYMBOL, OTHER))
    desk.venue.exchange.on_trade(OTHER, units("60000"), units("0.001"), True, START_MS)
    watch = watched(desk)
    desk.place(type="MARKET", price=None, quantity="0.2")
    for symbol in (SYMBOL, OTHER):
        watch.look(101.0)
        assert watch.unprotected_seconds == 1.0
        stop = desk.place(symbol=symbol, side="SELL", type="STOP_LOSS", price=None, stopPrice="59000", quantity="0.1")
        assert stop.status == 200
    watch.look(102.0)
    assert watch.unprotected_seconds == 1.0


def test_what_is_paid_in_or_out_is_neither_profit_nor_drawdown_nor_a_position() -> None:
    desk = RestDesk()
    exchange, uid = desk.venue.exchange, desk.key.uid
    watch = watched(desk)
    exchange.deposit(uid, "USDT", units("5000"), START_MS)
    exchange.deposit(uid, "BTC", units("2"), START_MS)
    desk.venue.commit()
    assert profit(watch, 101.0) == 0
    # 102 BTC were never sold: what they gain counts, from the price at which the last two came.
    desk.trade("60100")
    assert profit(watch, 102.0) == 102 * 100
    exchange.withdraw(uid, "BTC", units("50"), START_MS)
    exchange.withdraw(uid, "USDT", units("900000"), START_MS)
    desk.venue.commit()
    assert profit(watch, 103.0) == 102 * 100
    assert watch.max_drawdown == 0
    exchange.reset_account(uid, {"USDT": units("7")}, START_MS)
    desk.venue.commit()
    assert profit(watch, 104.0) == 102 * 100
    assert Decimal(text(watch.equity)) == 7
    assert watch.unprotected_seconds == 0.0


def test_what_was_bought_and_then_paid_out_needs_no_stop() -> None:
    desk = RestDesk()
    exchange, uid = desk.venue.exchange, desk.key.uid
    exchange.withdraw(uid, "BTC", units("100"), START_MS)
    desk.venue.commit()
    watch = watched(desk)
    desk.place(type="MARKET", price=None, quantity="0.2")
    exchange.withdraw(uid, "BTC", exchange.accounts[uid].balance("BTC").free, START_MS)
    desk.venue.commit()
    watch.look(101.0)
    assert watch.unprotected_seconds == 0.0


def test_the_deepest_fall_is_counted_from_the_highest_profit() -> None:
    desk = RestDesk()
    watch = watched(desk)
    for price in ("60000", "60100", "59900", "60050", "59950"):
        desk.trade(price)
        watch.look(float(price))
    assert Decimal(text(watch.max_drawdown)) == 100 * 200
    assert Decimal(text(watch.profit)) == 100 * -50
