"""How much the paper exchange lets somebody ask: weight, bans, and new orders that nobody filled."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.units import text
from paper_exchange.limits import MAKER_CREDIT, Limits
from paper_exchange.server.rest import Reply
from support.paper import SYMBOL
from support.paper_rest import START_MS, RestDesk

MINUTE = 60_000


def vectors(name: str) -> Any:
    """A published table."""
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the published vectors")
    return json.loads((Path(os.environ["TRADINGBOT_TEST_DATA"]) / "vectors" / name).read_text())


def refused(limits: Limits, address: str, weight: int, now: int) -> ExchangeError:
    """The refusal of a request."""
    with pytest.raises(ExchangeError) as caught:
        limits.admit(address, weight, now)
    return caught.value


def test_weight_is_counted_per_address_in_minutes_of_the_clock() -> None:
    limits = Limits(100)
    limits.charge("a", 90, START_MS)
    limits.admit("a", 10, START_MS)
    error = refused(limits, "a", 11, START_MS + 45_000)
    assert (error.code, error.status, error.retry_at) == (-1003, 429, START_MS + MINUTE)
    assert error.message.startswith("Too much request weight used; current limit is 100 request weight per 1 MINUTE.")
    limits.admit("b", 100, START_MS + 45_000)
    limits.admit("a", 100, START_MS + MINUTE)


def test_who_goes_on_after_429_is_banned_twice_as_long_each_time_and_at_most_three_days() -> None:
    limits = Limits(100)
    now, lengths = START_MS, []
    for _ in range(14):
        limits.charge("a", 100, now)
        statuses = [refused(limits, "a", 1, now).status for _ in range(11)]
        assert statuses == [429] * 10 + [418]
        error = refused(limits, "a", 1, now)
        assert error.message.startswith(f"Way too much request weight used; IP banned until {error.retry_at}.")
        assert error.retry_at is not None
        lengths.append((error.retry_at - now) // MINUTE)
        assert refused(limits, "a", 1, error.retry_at - 1).status == 418
        limits.admit("b", 1, now)
        now = error.retry_at
        limits.admit("a", 1, now)
    assert lengths == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 4320, 4320]
    limits.charge("a", 100, now + 3 * 24 * 60 * MINUTE)
    assert [refused(limits, "a", 1, now + 3 * 24 * 60 * MINUTE).status for _ in range(11)][-1] == 418
    assert refused(limits, "a", 1, now + 3 * 24 * 60 * MINUTE).retry_at == now + 3 * 24 * 60 * MINUTE + 2 * MINUTE


def test_a_banned_address_gets_418_with_the_seconds_to_wait_from_every_endpoint() -> None:
    desk = RestDesk(limits=Limits(50))
    replies = [desk.send("GET", "/api/v3/exchangeInfo") for _ in range(13)]
    assert [reply.status for reply in replies] == [200, 200] + [429] * 10 + [418]
    assert replies[2].headers["Retry-After"] == "60"
    assert replies[-1].headers["Retry-After"] == "120"
    desk.now += MINUTE
    for method, path in (("GET", "/api/v3/ping"), ("POST", "/api/v3/order"), ("GET", "/nowhere")):
        reply = desk.send(method, path)
        assert (reply.status, reply.body["code"], reply.headers["Retry-After"]) == (418, -1003, "60")
    assert desk.send("GET", "/api/v3/ping", address="10.0.0.2").status == 200
    desk.now += MINUTE
    assert desk.send("GET", "/api/v3/ping").status == 200


def test_endpoints_of_sapi_have_limits_of_their_own_and_ban_nobody() -> None:
    desk = RestDesk(limits=Limits(50))
    heavy = [desk.ask("GET", "/sapi/v1/spot/delist-schedule") for _ in range(140)]
    assert [reply.status for reply in heavy] == [200] * 120 + [429] * 20
    assert heavy[-1].headers == {"X-SAPI-USED-IP-WEIGHT-1M": "12000", "Retry-After": "60"}
    assert (heavy[-1].body["code"], "12000 request weight per 1 MINUTE" in heavy[-1].body["msg"]) == (-1003, True)
    assert desk.ask("GET", "/sapi/v1/bnbBurn").headers == {"X-SAPI-USED-IP-WEIGHT-1M": "1"}
    assert desk.ask("POST", "/sapi/v1/bnbBurn").headers == {"X-SAPI-USED-IP-WEIGHT-1M": "1"}
    assert desk.ask("GET", "/sapi/v1/spot/delist-schedule", address="10.0.0.2").status == 200
    assert desk.send("GET", "/api/v3/ping").headers["X-MBX-USED-WEIGHT-1M"] == "1"
    assert [desk.send("GET", "/api/v3/exchangeInfo").status for _ in range(13)][-1] == 418
    assert desk.ask("GET", "/sapi/v1/bnbBurn").status == 200
    desk.now += MINUTE
    assert desk.ask("GET", "/sapi/v1/spot/delist-schedule").headers == {"X-SAPI-USED-IP-WEIGHT-1M": "100"}


def test_what_sapi_refuses_costs_its_weight_there() -> None:
    desk = RestDesk()
    reply = desk.send("GET", "/sapi/v1/capital/config/getall")
    assert (reply.status, reply.headers) == (401, {"X-SAPI-USED-IP-WEIGHT-1M": "10"})
    assert desk.send("GET", "/sapi/v1/nowhere").status == 404
    assert desk.send("GET", "/api/v3/ping").headers["X-MBX-USED-WEIGHT-1M"] == "1"


def test_raw_requests_are_limited_over_five_minutes() -> None:
    limits = Limits(10**9, raw_requests=300)
    for _ in range(300):
        limits.admit("a", 0, START_MS)
    error = refused(limits, "a", 0, START_MS + 1)
    assert (error.status, error.retry_at) == (429, START_MS + 5 * MINUTE)
    assert "300 raw requests per 5 MINUTE" in error.message
    limits.admit("a", 0, START_MS + 5 * MINUTE)


def test_exchange_info_tells_all_limits() -> None:
    rows = [(row["rateLimitType"], row["intervalNum"], row["interval"], row["limit"]) for row in Limits(6000).info()]
    assert rows == [
        ("REQUEST_WEIGHT", 1, "MINUTE", 6000),
        ("ORDERS", 10, "SECOND", 100),
        ("ORDERS", 1, "DAY", 200_000),
        ("RAW_REQUESTS", 5, "MINUTE", 300_000),
    ]


# -- new orders ------------------------------------------------------------------------------------------------


def unfilled(desk: RestDesk, window: int = 1) -> int:
    """The account's unfilled orders of the day, or of the ten seconds (0)."""
    rows = desk.ask("GET", "/api/v3/rateLimit/order").body
    assert [row["interval"] for row in rows] == ["SECOND", "DAY"]
    return int(rows[window]["count"])


class Table:
    """A published table of actions, done on an exchange: orders rest below each other until the table fills them."""

    def __init__(self, maker_credit: int) -> None:
        self.desk = RestDesk(limits=Limits(10**9, maker_credit))
        self.orders: dict[str, int] = {}

    def place(self, name: str, kind: str, at_once: str) -> None:
        """Place an order that is filled at once (`partially filled`, `fully filled`) or not (anything else)."""
        number = len(self.orders)
        params = {"quantity": "0.1", "price": str(59_999 - number)}
        if "filled" in at_once:
            params["price"] = str(60_010 + number)
            self.desk.book("60000", params["price"], "0.05" if "partially" in at_once else "5")
        if kind == "LIMIT FOK":
            params["timeInForce"] = "FOK"
        order = params if kind != "MARKET" else {"type": "MARKET", "price": None, "quantity": "0.1"}
        reply = self.desk.place(**order)
        assert reply.status == 200
        self.orders[name] = reply.body["orderId"]
        self.told = int(reply.headers["X-MBX-ORDER-COUNT-1D"])

    def fill(self, name: str, part: int) -> None:
        """An outsider sells one part of what is left of a resting order."""
        order = self.desk.venue.exchange.orders[self.orders[name]]
        self.desk.venue.exchange.on_trade(SYMBOL, order.price, order.remaining // part, True, self.desk.now)
        self.desk.venue.commit()

    def do(self, row: dict[str, str], following: str) -> int:
        """One row; returns how many unfilled orders the exchange tells of then."""
        action = row["action"].strip("()")
        at_once = following.strip("()") if following.startswith("(") else ""
        if one := re.fullmatch(r"Place (LIMIT|LIMIT FOK|MARKET) order (\w)", action):
            self.place(one[2], one[1], at_once)
            return self.told
        if many := re.fullmatch(r"Place \d+ orders: (\d+)(?:\.\.|, )(\d+)", action):
            for number in range(int(many[1]), int(many[2]) + 1):
                self.place(str(number), "LIMIT", "")
        elif cancel := re.fullmatch(r"Cancel order (\w)", action):
            reply = self.desk.ask("DELETE", "/api/v3/order", symbol=SYMBOL, orderId=self.orders[cancel[1]])
            assert reply.status == 200
        elif filled := re.fullmatch(r"orders (\d+)\.\.(\d+) are filled", action):
            for number in range(int(filled[1]), int(filled[2]) + 1):
                self.fill(str(number), 1)
        elif row["time"] and (filled := re.fullmatch(r"order (\w) (partially )?filled", action)):
            self.fill(filled[1], 2 if filled[2] else 1)
        else:
            assert not row["time"] or action in ("", "rate limit interval reset")
        return unfilled(self.desk)


def moment(time: str) -> int:
    """The time of a row in ms; the tables without a date are those of one day."""
    text = time if "-" in time else f"2024-01-01 {time}"
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("number", "maker_credit"),
    [
        pytest.param(0, MAKER_CREDIT, id="taker"),
        pytest.param(1, MAKER_CREDIT, id="maker"),
        pytest.param(2, MAKER_CREDIT, id="cancelled and expired"),
        # This table takes one off for each order, where the second takes five; it "only gives a general idea".
        pytest.param(3, 1, id="filled the next day"),
    ],
)
def test_fills_give_back_what_new_orders_used_as_in_the_published_tables(number: int, maker_credit: int) -> None:
    rows = vectors("order_count_decrement.json")["tables"][number]
    table = Table(maker_credit)
    for row, after in zip(rows, [*rows[1:], {"time": "-", "action": ""}], strict=True):
        if row["time"]:
            table.desk.now = moment(row["time"])
        # A fill without a time of its own is that of the order placed in the row before.
        following = after["action"] if not after["time"] else ""
        assert table.do(row, following) == row["unfilled"], row


def test_too_many_unfilled_orders_are_refused_until_the_ten_seconds_are_over() -> None:
    desk = RestDesk()
    replies = [desk.place(price=str(50_000 + number)) for number in range(101)]
    assert [reply.status for reply in replies] == [200] * 100 + [429]
    assert replies[99].headers["X-MBX-ORDER-COUNT-10S"] == "100"
    assert replies[100].body == {
        "code": -1015,
        "msg": "Too many new orders; current limit is 100 orders per 10 SECOND.",
    }
    assert replies[100].headers["Retry-After"] == "10"
    assert desk.place(key=desk.account(USDT="10000")).headers["X-MBX-ORDER-COUNT-10S"] == "1"
    desk.now += 10_000
    again = desk.place().headers
    assert (again["X-MBX-ORDER-COUNT-10S"], again["X-MBX-ORDER-COUNT-1D"]) == ("1", "101")


def test_unfilled_orders_count_on_after_a_restart(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path)
    placed = [desk.place(price=str(50_000 + number)) for number in range(7)]
    assert desk.place(quantity="100").body["code"] == -2010
    desk.restart()
    assert (unfilled(desk), unfilled(desk, window=0)) == (8, 8)
    order = desk.venue.exchange.orders[placed[-1].body["orderId"]]
    desk.trade("50006", text(order.quantity))
    desk.venue.keep()
    desk.restart()
    assert unfilled(desk) == 8 - MAKER_CREDIT
    desk.now += 10_000
    desk.restart()
    again = desk.place().headers
    assert (again["X-MBX-ORDER-COUNT-10S"], again["X-MBX-ORDER-COUNT-1D"]) == ("1", "4")
    desk.now += 24 * 60 * MINUTE
    desk.restart()
    assert desk.place().headers["X-MBX-ORDER-COUNT-1D"] == "1"


def test_a_restart_ends_bans(tmp_path: Path) -> None:
    desk = RestDesk(directory=tmp_path, limits=Limits(50))
    assert [desk.send("GET", "/api/v3/exchangeInfo").status for _ in range(13)][-1] == 418
    desk.restart()
    assert desk.send("GET", "/api/v3/exchangeInfo").status == 200


def test_an_order_that_the_engine_refuses_counts_and_one_that_never_reached_it_does_not() -> None:
    desk = RestDesk()
    refused_by_api = desk.place(price="0.001")
    assert (refused_by_api.body["code"], "X-MBX-ORDER-COUNT-10S" in refused_by_api.headers) == (-1013, False)
    refused_by_engine = desk.place(quantity="100")
    assert (refused_by_engine.body["code"], refused_by_engine.headers["X-MBX-ORDER-COUNT-10S"]) == (-2010, "1")


def test_orders_that_succeed_cost_no_weight_and_those_that_fail_do() -> None:
    desk = RestDesk()

    def used(reply: Reply) -> int:
        assert reply.headers["X-MBX-USED-WEIGHT"] == reply.headers["X-MBX-USED-WEIGHT-1M"]
        return int(reply.headers["X-MBX-USED-WEIGHT-1M"])

    placed = desk.place()
    assert (placed.status, used(placed)) == (200, 0)
    cancel = {"symbol": SYMBOL, "orderId": placed.body["orderId"]}
    assert used(desk.ask("DELETE", "/api/v3/order", **cancel)) == 0
    assert used(desk.ask("DELETE", "/api/v3/order", **cancel)) == 1
    assert used(desk.place(price="0.001")) == 2
    assert used(desk.send("POST", "/api/v3/order")) == 3
    assert used(desk.send("GET", "/api/v3/nowhere")) == 4
    assert used(desk.ask("GET", "/api/v3/account")) == 24
    desk.now += MINUTE
    assert used(desk.send("GET", "/api/v3/ping")) == 1
