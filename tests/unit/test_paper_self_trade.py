"""Self-trade prevention on the paper exchange: what becomes of orders that must not trade with each other."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.administration import Administration
from paper_exchange.core import reports
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import AccountSettings, PreventedMatch, StpMode
from paper_exchange.core.rates import CommissionRates, Rates
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.keys import ApiKey
from paper_exchange.store import Store
from support.paper import SYMBOL, Desk, units
from support.paper_rest import RestDesk
from support.vectors import vectors

MAKER, TAKER = 1, 2
PUBLISHED_ONLY = {"orderId", "clientOrderId", "time", "updateTime", "transactTime", "workingTime", "makerOrderId"}
"""Fields of the published answers that name that exchange's own orders and times."""


@pytest.fixture
def desk() -> Desk:
    """Two accounts, a symbol that allows every mode and the small prices of the examples, and an empty book."""
    desk = Desk()
    rules = replace(SYMBOLS[SYMBOL], min_notional=0, stp_modes=tuple(StpMode))
    desk.exchange = Exchange([rules], desk.now)
    for uid in (MAKER, TAKER):
        desk.open(uid, USDT="20000", BTC="20000")
        desk.exchange.change_account(uid, AccountSettings(commission={"": CommissionRates(standard=Rates())}))
    return desk


def comparable(body: Any) -> Any:
    """An answer without what differs between exchanges; amounts with the same number of decimals."""
    if isinstance(body, dict):
        return {name: comparable(value) for name, value in body.items() if name not in PUBLISHED_ONLY}
    if isinstance(body, list):
        return [comparable(value) for value in body]
    if isinstance(body, str) and body.replace(".", "").isdigit() and "." in body:
        return f"{float(body):.8f}"
    return body


def first_match(expected: list[Any]) -> int:
    """The published id of the first prevented match; ours begin at 0."""
    ids = [row["json"].get("preventedMatchId") for row in expected]
    return min((found for found in ids if found is not None), default=0)


def expected_orders(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The published answers about orders: makers first, the taker last."""
    return [one["json"] for one in row["expected"] if "orderId" in one["json"]]


def as_published(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The orders of a scenario; H gives them in its text only."""
    if row["id"] != "H":
        return list(row["orders"])
    common = {"type": "LIMIT", "price": "0.2", "selfTradePreventionMode": "TRANSFER"}
    return [
        {"role": "maker", "side": "BUY", "quantity": "0.6", **common},
        {"role": "taker", "side": "SELL", "quantity": "0.2", **common},
    ]


@pytest.mark.parametrize("row", vectors("stp_scenarios", "scenarios"))
def test_orders_that_must_not_trade_end_as_published(desk: Desk, row: dict[str, Any]) -> None:
    expected = expected_orders(row)
    grouped = any("tradeGroupId" in body for body in expected)
    taker_uid = TAKER if row["id"] == "H" else MAKER
    if grouped:
        for uid in {MAKER, taker_uid}:
            desk.exchange.change_account(uid, AccountSettings(trade_group_id=1))
    answers = []
    for order in as_published(row):
        uid = taker_uid if order["role"] == "taker" else MAKER
        params = {name: order[name] for name in ("quantity", "price", "selfTradePreventionMode") if name in order}
        answers.append(desk.place(uid, order["side"], order["type"], **params))
    assert len(answers) == len(expected)
    shift = first_match(row["expected"])
    for answer, wanted in zip(answers, expected, strict=True):
        if "transactTime" in wanted:  # the answer to the placing, else to a query
            got = answer
            got["preventedMatches"] = answer.get("preventedMatches", [])
            wanted.setdefault("preventedMatches", [])
            if row["id"] != "A":
                wanted["preventedMatches"] = [
                    {"makerSymbol": SYMBOL} | one | {"preventedMatchId": one["preventedMatchId"] - shift}
                    for one in wanted["preventedMatches"]
                ]
            wanted.setdefault("origQuoteOrderQty", "0.00000000")
            if wanted["status"] == "EXPIRED":  # the examples are older than this field
                wanted["expiryReason"] = "INSUFFICIENT_LIQUIDITY"
        else:
            got = reports.order_status(desk.exchange.orders[answer["orderId"]])
            if "preventedMatchId" in wanted:
                wanted["preventedMatchId"] -= shift
            if row["id"] == "G":  # the example shows the maker with another mode than it was placed with
                wanted["selfTradePreventionMode"] = got["selfTradePreventionMode"]
        published, ours = comparable(wanted), comparable(got)
        for fill in published.get("fills", []) + ours.get("fills", []):
            del fill["tradeId"]
        assert ours == published
    if row["id"] == "H":
        after = [one["json"]["balances"] for one in row["expected"] if "balances" in one["json"]][2:]
        for uid, balances in zip((MAKER, TAKER), after, strict=True):
            for balance in balances:
                held = desk.exchange.accounts[uid].balance(balance["asset"])
                assert (held.free, held.locked) == (units(balance["free"]), units(balance["locked"]))


def reports_of(desk: Desk, uid: int) -> list[dict[str, Any]]:
    """The executionReports of prevented trades since the last look."""
    return [event for event in desk.events(uid) if event.get("x") == "TRADE_PREVENTION"]


def test_a_prevented_trade_is_told_to_those_who_lose_by_it(desk: Desk) -> None:
    desk.exchange.change_account(MAKER, AccountSettings(trade_group_id=7))
    maker = desk.place(MAKER, "BUY", price="2", quantity="6")["orderId"]
    desk.events(MAKER)
    taker = desk.place(MAKER, "SELL", price="1", quantity="2", selfTradePreventionMode="DECREMENT")["orderId"]
    first, second = reports_of(desk, MAKER)
    told = ("i", "X", "v", "A", "B", "u", "U", "Cs", "pl", "pL", "pY", "l", "L", "Y", "t")
    assert [first[name] for name in told] == [
        maker,
        "NEW",
        0,
        "2.00000000",
        "2.00000000",
        7,
        taker,
        SYMBOL,
        "2.00000000",
        "2.00000000",
        "4.00000000",
        "0.00000000",
        "0.00000000",
        "0.00000000",
        -1,
    ]
    assert [second[name] for name in ("i", "X", "A", "B", "U")] == [
        taker,
        "EXPIRED_IN_MATCH",
        "2.00000000",
        "2.00000000",
        maker,
    ]


def test_makers_expire_one_by_one_until_a_stranger_is_met(desk: Desk) -> None:
    own = [desk.place(MAKER, "SELL", price=price, quantity="1")["orderId"] for price in ("10", "11")]
    desk.place(TAKER, "SELL", price="12", quantity="1")
    answer = desk.place(MAKER, "BUY", "MARKET", quantity="1")
    assert (answer["status"], answer["fills"][0]["price"]) == ("FILLED", "12.00000000")
    assert [desk.status(order)[0] for order in own] == ["EXPIRED_IN_MATCH"] * 2
    assert [one["makerOrderId"] for one in answer["preventedMatches"]] == own
    assert desk.held(MAKER, "BTC")[1] == "0"


@pytest.mark.parametrize(
    ("maker_mode", "told"),
    [pytest.param("TRANSFER", "TRANSFER", id="both"), pytest.param("EXPIRE_MAKER", "DECREMENT", id="the taker alone")],
)
def test_a_transfer_needs_both(desk: Desk, maker_mode: str, told: str) -> None:
    for uid in (MAKER, TAKER):
        desk.exchange.change_account(uid, AccountSettings(trade_group_id=3))
    desk.place(MAKER, "BUY", price="2", quantity="1", selfTradePreventionMode=maker_mode)
    desk.place(TAKER, "SELL", price="2", quantity="1", selfTradePreventionMode="TRANSFER")
    (match,) = desk.exchange.prevented
    assert match.mode == told
    moved = "20001" if told == "TRANSFER" else "20000"
    assert desk.held(MAKER, "BTC") == (moved, "0")


def test_accounts_without_a_group_trade_with_each_other(desk: Desk) -> None:
    desk.place(MAKER, "BUY", price="2", quantity="1")
    assert desk.place(TAKER, "SELL", price="2", quantity="1")["status"] == "FILLED"


def test_fill_or_kill_does_not_count_what_it_must_not_take(desk: Desk) -> None:
    desk.place(MAKER, "SELL", price="2", quantity="1")
    desk.place(TAKER, "SELL", price="2", quantity="1")
    answer = desk.place(MAKER, "BUY", price="2", quantity="2", timeInForce="FOK")
    assert (answer["status"], answer["expiryReason"]) == ("EXPIRED", "UNFILLED_FOK_ORDER_EXPIRED")


def test_what_a_prevented_match_left_of_an_order_is_there_after_a_restart(tmp_path: Path, desk: Desk) -> None:
    desk.place(MAKER, "BUY", price="2", quantity="3")
    desk.place(MAKER, "SELL", price="2", quantity="1", selfTradePreventionMode="DECREMENT")
    store = Store(tmp_path)
    store.save(desk.exchange.take_changes())
    store.close()
    again = Store(tmp_path)
    fresh = Exchange([market.rules for market in desk.exchange.markets.values()], desk.now)
    again.restore(fresh)
    again.close()
    assert fresh.market(SYMBOL).next_prevented_id == 1
    assert fresh.market(SYMBOL).bids.levels(1) == [(units("2"), units("2"))]
    assert fresh.locks == desk.exchange.locks


# -- questions -------------------------------------------------------------------------------------------------


def meet(desk: RestDesk, key: ApiKey) -> tuple[int, int]:
    """Two orders of an account that must not trade with each other, maker and taker, by id."""
    maker = desk.place(key, side="SELL", price="60000.5").body
    taker = desk.place(key, price="60000.5", timeInForce="IOC").body
    assert taker["preventedMatches"][0]["makerOrderId"] == maker["orderId"]
    return maker["orderId"], taker["orderId"]


def told(desk: RestDesk, key: ApiKey, **params: Any) -> list[int]:
    """The ids of the prevented matches that an account is told of."""
    reply = desk.ask("GET", "/api/v3/myPreventedMatches", key=key, symbol=SYMBOL, **params)
    assert reply.status == 200, reply.body
    return [row["preventedMatchId"] for row in reply.body]


def test_prevented_matches_are_found_by_id_and_by_order_and_after_a_restart(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    mine, other = desk.key, desk.account(USDT="100000", BTC="10")
    orders = [meet(desk, mine) for _ in range(3)]
    meet(desk, other)
    for _ in range(2):
        assert told(desk, mine, preventedMatchId=1) == [1]
        assert [told(desk, mine, orderId=order) for pair in orders for order in pair] == [[0], [0], [1], [1], [2], [2]]
        assert told(desk, mine, preventedMatchId=3) == told(desk, other, orderId=orders[0][0]) == []
        assert told(desk, other, preventedMatchId=3) == [3]
        desk.restart()
    meet(desk, mine)
    assert told(desk, mine, preventedMatchId=4) == [4]


def test_prevented_matches_of_an_order_are_told_page_by_page() -> None:
    desk = RestDesk()
    for number in range(3):
        desk.place(side="SELL", price=f"60000.{number + 1}")
    taker = desk.place(price="60000.9", quantity="0.03", timeInForce="IOC").body
    assert [one["preventedMatchId"] for one in taker["preventedMatches"]] == [0, 1, 2]
    assert told(desk, desk.key, orderId=taker["orderId"], limit=2) == [0, 1]
    assert told(desk, desk.key, orderId=taker["orderId"], fromPreventedMatchId=1) == [1, 2]


def test_accounts_that_were_given_a_group_do_not_trade_and_both_are_told_of_the_match(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    other = desk.account(USDT="100000", BTC="10")
    for key in (desk.key, other):
        Administration(desk.venue).actions["change_account"]({"uid": str(key.uid)}, {"tradeGroupId": 7})
    desk.restart()
    maker = desk.place(side="SELL", price="60000.5").body["orderId"]
    taker = desk.place(other, price="60000.5").body["orderId"]
    assert told(desk, desk.key, orderId=maker) == told(desk, other, orderId=taker) == [0]


def test_a_reset_forgets_prevented_matches() -> None:
    desk = RestDesk()
    maker, _ = meet(desk, desk.key)
    desk.venue.reset({"USDT": units("1")})
    assert told(desk, desk.key, orderId=maker) == []


def test_prevented_matches_do_not_fill_the_memory() -> None:
    desk = RestDesk()
    for _ in range(20):
        meet(desk, desk.key)
        desk.now += 10_000
    gc.collect()
    assert sum(isinstance(one, PreventedMatch) for one in gc.get_objects()) < 5
