"""What an account goes through, as a run reports it: equity, drawdown, and the seconds without a stop."""

from __future__ import annotations

from decimal import Decimal

from paper_exchange.account_watch import AccountWatch
from paper_exchange.core.units import text
from support.paper import SYMBOL
from support.paper_rest import RestDesk


def test_a_position_counts_as_unprotected_until_a_stop_covers_it() -> None:
    desk = RestDesk()
    watch = AccountWatch(desk.venue, desk.key.uid)
    watch.look(100.0)
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


def test_the_deepest_fall_is_counted_from_the_highest_equity() -> None:
    desk = RestDesk()
    watch = AccountWatch(desk.venue, desk.key.uid)
    for price in ("60000", "60100", "59900", "60050", "59950"):
        desk.trade(price)
        watch.look(float(price))
    assert Decimal(text(watch.max_drawdown)) == 100 * 200
    assert Decimal(text(watch.equity - watch.first_equity)) == 100 * -50
