"""What a fill costs on the paper exchange: rates per account and symbol, and BNB at a discount."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Account, AccountSettings
from paper_exchange.core.rates import CommissionRates, Rates
from paper_exchange.core.requests import new_order
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, units

ALICE = 1


@pytest.fixture
def desk() -> Desk:
    """An account, BTCUSDT around 35000, and BNB at 260."""
    desk = Desk()
    desk.exchange = Exchange([SYMBOLS[SYMBOL], SYMBOLS["BNBUSDT"]], desk.now)
    desk.open(ALICE, USDT="100000", BTC="5", BNB="10")
    desk.book([("35000", "1"), ("34990", "9")], [("35000.01", "1"), ("35010", "9")])
    desk.trade("35000")
    desk.exchange.on_book("BNBUSDT", [(units("260"), units("90"))], [(units("260.01"), units("90"))], True, desk.tick())
    desk.exchange.on_trade("BNBUSDT", units("260"), units("1"), True, desk.tick())
    return desk


@pytest.fixture
def published() -> dict[str, Any]:
    """The worked example of Binance's documentation."""
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the published vectors")
    folder = Path(os.environ["TRADINGBOT_TEST_DATA"])
    found: dict[str, Any] = json.loads((folder / "vectors" / "commission.json").read_text())
    return found


def charge(desk: Desk, uid: int, rates: CommissionRates) -> None:
    """Let an account pay these rates, whatever it trades."""
    desk.exchange.change_account(uid, AccountSettings(commission={"": rates}))


def fees(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Commission and asset of each fill."""
    return [(fill["commission"], fill["commissionAsset"]) for fill in answer["fills"]]


@pytest.mark.parametrize(
    ("expected", "kinds", "in_bnb"),
    [
        pytest.param("standard_usdt", ["standard"], False, id="standard"),
        pytest.param("tax_usdt", ["tax"], False, id="tax"),
        pytest.param("special_usdt", ["special"], False, id="special"),
        pytest.param("standard_bnb_discounted", ["standard"], True, id="standard in BNB"),
        pytest.param("tax_bnb", ["tax"], True, id="tax in BNB"),
        pytest.param("special_bnb", ["special"], True, id="special in BNB"),
        pytest.param("total_bnb", ["standard", "special", "tax"], True, id="all in BNB"),
    ],
)
def test_commission_is_what_the_published_example_computes(
    desk: Desk, published: dict[str, Any], expected: str, kinds: list[str], in_bnb: bool
) -> None:
    rates = published["rates"]
    parts = {kind: Rates(**{who: units(rate) for who, rate in rates[kind].items()}) for kind in kinds}
    # The example multiplies by its discount of 0.25; so does this rate, at another value.
    given = CommissionRates(**{"standard": Rates(), **parts}, discount=units(rates["discount"]))
    charge(desk, ALICE, given)
    desk.exchange.set_bnb_discount(ALICE, in_bnb)
    order = published["order"]
    answer = desk.place(ALICE, order["side"], order["type"], quantity=order["quantity"])
    assert Decimal(answer["cummulativeQuoteQty"]) == Decimal(published["expected"]["notional"])
    ((fee, asset),) = fees(answer)
    assert asset == ("BNB" if in_bnb else "USDT")
    wanted = Decimal(published["expected"][expected].split()[0])
    # The example rounds what is cut here.
    assert abs(Decimal(fee) - wanted) <= Decimal("0.00000001")


def test_binance_charges_three_quarters_of_the_standard_rate_in_bnb(desk: Desk) -> None:
    desk.exchange.set_bnb_discount(ALICE, True)
    request = new_order({"symbol": "BNBUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.02"})
    assert fees(desk.exchange.place(ALICE, request, desk.tick())) == [("0.00001500", "BNB")]
    assert desk.held(ALICE, "BNB") == ("10.019985", "0")
    answer = desk.place(ALICE, "BUY", "MARKET", quantity="0.1")
    # 3500.001 USDT x 0.00075, at the 260.01 of the trade before.
    assert fees(answer) == [("0.01009576", "BNB")]
    assert desk.held(ALICE, "BTC") == ("5.1", "0")


def test_bnb_is_decided_fill_by_fill(desk: Desk) -> None:
    desk.exchange.set_bnb_discount(ALICE, True)
    desk.exchange.accounts[ALICE].balance("BNB").free = units("0.11")
    answer = desk.place(ALICE, "BUY", "MARKET", quantity="1.5")
    assert fees(answer) == [("0.10096156", "BNB"), ("0.00050000", "BTC")]
    told = desk.events(ALICE)[-1]
    assert {row["a"] for row in told["B"]} == {"BNB", "BTC", "USDT"}


def test_bnb_that_is_being_sold_does_not_pay(desk: Desk) -> None:
    desk.exchange.set_bnb_discount(ALICE, True)
    request = new_order({"symbol": "BNBUSDT", "side": "SELL", "type": "MARKET", "quantity": "10"})
    assert fees(desk.exchange.place(ALICE, request, desk.tick())) == [("2.60000000", "USDT")]
    assert desk.held(ALICE, "BNB") == ("0", "0")


def test_without_a_market_for_bnb_the_full_rate_is_paid_in_what_is_received() -> None:
    desk = Desk()
    desk.open(ALICE, USDT="100000", BNB="10")
    desk.book([], [("35000", "1")])
    desk.exchange.set_bnb_discount(ALICE, True)
    assert fees(desk.place(ALICE, "BUY", "MARKET", quantity="1")) == [("0.00100000", "BTC")]


def test_rates_of_a_symbol_come_before_those_of_the_account() -> None:
    account = Account(ALICE)
    assert account.rates(SYMBOL) == CommissionRates()
    account.commission[""] = replace(CommissionRates(), standard=Rates(maker=1))
    account.commission["ETHUSDT"] = replace(CommissionRates(), standard=Rates(maker=2))
    assert (account.rates(SYMBOL).standard.maker, account.rates("ETHUSDT").standard.maker) == (1, 2)


def test_maker_and_buyer_pay_their_own_rates(desk: Desk) -> None:
    desk.open(2, BTC="1")
    charge(desk, ALICE, CommissionRates(Rates(maker=units("0.001"), buyer=units("0.002"))))
    charge(desk, 2, CommissionRates(Rates(taker=units("0.01"), seller=units("0.02"))))
    desk.place(ALICE, "BUY", price="35000", quantity="1")
    desk.book([], [("35000.01", "1")])
    desk.place(2, "SELL", price="35000", quantity="1")
    (bought,), (sold,) = desk.exchange.trades[ALICE, SYMBOL], desk.exchange.trades[2, SYMBOL]
    assert (bought.commission, bought.commission_asset) == (units("0.003"), "BTC")
    assert (sold.commission, sold.commission_asset) == (units("1050"), "USDT")


def test_rates_groups_and_the_discount_survive_a_restart(tmp_path: Path, desk: Desk) -> None:
    rates = {SYMBOL: CommissionRates(tax=Rates(buyer=7))}
    desk.exchange.change_account(ALICE, AccountSettings(commission=rates, trade_group_id=4))
    desk.exchange.set_bnb_discount(ALICE, True)
    store = Store(tmp_path)
    store.save(desk.exchange.take_changes())
    (found,) = store.accounts()
    store.close()
    assert found.commission == {SYMBOL: CommissionRates(tax=Rates(buyer=7))}
    assert (found.trade_group_id, found.bnb_discount) == (4, True)
