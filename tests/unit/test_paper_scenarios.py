"""Scenarios of the paper exchange: how they are read, and what their steps do to markets and accounts."""

from __future__ import annotations

import ast
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.amounts import ControlInvalidError, positive_units
from paper_exchange.core.units import LARGEST
from paper_exchange.faults.control import Faults
from paper_exchange.faults.director import Director
from paper_exchange.faults.kinds import KINDS
from paper_exchange.faults.model import Subject
from paper_exchange.faults.parsing import Known
from paper_exchange.faults.scenario import ScenarioInvalidError, open_scenario, read_scenario, shipped
from paper_exchange.faults.stagehand import Stagehand
from paper_exchange.market.events import BookUpdate, MarketTrade
from support.paper import SYMBOL, units
from support.paper_rest import START_MS, RestDesk

REPOSITORY = Path(__file__).parents[2]
KNOWN = Known(
    (SYMBOL,),
    ("POST /api/v3/order", "POST /api/v3/orderList/oco", "GET /api/v3/ping", "order.place", "orderList.place.oco"),
)


class Scene:
    """A standing market whose scenarios go on when a test turns the clock of seconds."""

    def __init__(self, known: Known = KNOWN) -> None:
        self.desk = RestDesk()
        self.uid = self.desk.key.uid
        self.seconds = 0.0
        self.told: list[dict[str, Any]] = []
        self.desk.venue.subscribe(self.uid, self.told.append)
        self.known = known
        self.faults = Faults(known, seed=1, clock=lambda: self.seconds, now_ms=self.desk.read_clock)
        self.happened: list[str] = []
        self.refused: list[float] = []
        connections = {name: self._note(name) for name in ("cut", "close")}
        self.director = Director(
            self.faults, Stagehand(self.desk.venue), connections, self.refused.append, lambda: self.seconds
        )

    def _note(self, name: str) -> Any:
        def note() -> int:
            self.happened.append(name)
            return 0

        return note

    def begin(self, *steps: dict[str, Any]) -> None:
        """Begin a scenario of these steps."""
        self.director.begin(read_scenario(json.dumps({"steps": list(steps)}), "test", self.known))

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.seconds += seconds
        self.director.tick()

    def errors(self) -> list[str]:
        """What steps were refused with."""
        return [row["error"] for row in self.faults.record.rows if "error" in row]

    def balance(self, asset: str) -> tuple[int, int]:
        """Free and locked."""
        balance = self.desk.venue.exchange.accounts[self.uid].balance(asset)
        return balance.free, balance.locked


GOOD = """
description: A test.
steps:
  - at: 5
    connections: cut
  - at: 0
    fault: {kind: error, endpoints: [GET /api/v3/ping], for: 3}
  - at: 2.5
    market:
      symbol: BTCUSDT
      status: HALT
"""


def test_steps_happen_in_the_order_of_their_times_and_are_written_down() -> None:
    scene = Scene()
    scene.director.begin(read_scenario(GOOD, "good", KNOWN))
    assert scene.faults.calls.before(Subject("GET /api/v3/ping")).ends
    assert scene.director.describe()["steps"][0]["in"] == 2.5
    scene.wait(2.5)
    assert scene.desk.place().body["msg"] == "Market is closed."
    assert scene.happened == []
    scene.wait(2.5)
    assert scene.happened == ["cut"]
    assert scene.director.describe() == {"name": None, "steps": []}
    rows = [row for row in scene.faults.record.rows if "step" in row]
    assert [(row["at"], row["step"]) for row in rows] == [
        (2.5, {"market": {"symbol": "BTCUSDT", "status": "HALT"}}),
        (5.0, {"connections": "cut"}),
    ]


def test_a_scenario_takes_the_place_of_the_one_before_and_ends_when_told() -> None:
    scene = Scene()
    scene.begin({"at": 1, "connections": "cut"})
    scene.begin({"at": 2, "connections": "close"})
    scene.wait(2)
    assert scene.happened == ["close"]
    scene.begin({"at": 1, "connections": "cut"})
    scene.director.stop()
    scene.wait(2)
    assert scene.happened == ["close"]


def fault_line(text: str) -> str:
    """A scenario whose fourth line is this."""
    return f"# A comment\nsteps:\n  - at: 0\n    {text}\n"


BAD = [
    ("steps: [", 1, "", "no YAML"),
    ("steps:\n  - at: 0\n   fault: {}\n", 3, "", "wrong indentation"),
    ("", 1, "body", "nothing"),
    ("description: x\n", 1, "steps", "no steps"),
    ("steps: 5\n", 1, "steps", "steps that are none"),
    ("steps:\n  - at: 0\nseps: []\n", 3, "seps", "unknown field"),
    ("a: &a [1]\nsteps: *a\n", 2, "", "alias"),
    (fault_line("fault: {kind: fire}"), 4, "steps[0].fault.kind", "unknown kind"),
    (fault_line("fault: {kind: delay}"), 4, "steps[0].fault.seconds", "missing parameter"),
    (fault_line("fault:\n      kind: error\n      symbols: [X]"), 6, "steps[0].fault.symbols[0]", "symbol"),
    (fault_line("fault: {kind: error, kind: delay}"), 4, "steps[0].fault.kind", "field twice"),
    (fault_line("market: {symbol: BTCUSDT}"), 4, "steps[0].market", "no action"),
    (fault_line("market: {symbol: BTCUSDT, gap: '-100%'}"), 4, "steps[0].market.gap", "all of the price"),
    (fault_line("market: {symbol: BTCUSDT, gap: -5}"), 4, "steps[0].market.gap", "number for a price"),
    (fault_line("market: {symbol: BTCUSDT, fill: {side: BOTH, share: '1'}}"), 4, "steps[0].market.fill.side", "side"),
    (fault_line("market: {symbol: BTCUSDT, filters: {tick: '1'}}"), 4, "steps[0].market.filters.tick", "filter"),
    (fault_line("account: {deposit: {USDT: 5}}"), 4, "steps[0].account.deposit.USDT", "number for money"),
    (fault_line("account: {set: {canTrade: 1}}"), 4, "steps[0].account.set.canTrade", "no flag"),
    (fault_line("connections: open"), 4, "steps[0].connections", "unknown action"),
    (fault_line("connections: {refused: 0}"), 4, "steps[0].connections.refused", "no time to refuse for"),
    ("steps:\n  - at: 0\n    connections: cut\n  - at: -1\n    connections: cut\n", 4, "steps[1].at", "time"),
    ("steps:\n  - at: 0\n", 2, "steps[0]", "no action at all"),
    (fault_line(f"fault: {{kind: delay, seconds: {'9' * 400}}}"), 4, "steps[0].fault.seconds", "400 digits"),
    (fault_line(f"fault: {{kind: delay, seconds: {'9' * 5000}}}"), 4, "steps[0].fault.seconds", "5000 digits"),
    (fault_line(f"fault: {{kind: delay, seconds: 0x{'f' * 5000}}}"), 4, "steps[0].fault.seconds", "5000 hex digits"),
    (fault_line(f"fault: {{kind: delay, seconds: {'1:' * 300}0.5}}"), 4, "steps[0].fault.seconds", "300 sixties"),
    (fault_line("fault: {kind: delay, seconds: .nan}"), 4, "steps[0].fault.seconds", "no number"),
    (fault_line("fault: {kind: delay, seconds: .inf}"), 4, "steps[0].fault.seconds", "endless"),
    (fault_line("fault: {kind: delay, seconds: 2026-99-99}"), 4, "steps[0].fault.seconds", "no date"),
    (fault_line("2026-99-99: 1"), 4, "steps[0].2026-99-99", "no date as a field"),
]


@pytest.mark.parametrize(("text", "line", "field"), [pytest.param(*bad[:3], id=bad[3]) for bad in BAD])
def test_a_bad_scenario_names_file_line_and_field(text: str, line: int, field: str) -> None:
    with pytest.raises(ScenarioInvalidError) as raised:
        read_scenario(text, "bad.yaml", KNOWN)
    message = str(raised.value)
    assert message.startswith(f"bad.yaml:{line}: {field}"), message
    assert "expected " in message
    assert "got " in message


def test_a_scenario_is_a_file_a_shipped_one_or_the_record_of_a_run(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)
    assert len(open_scenario(str(file), KNOWN).steps) == 3
    with pytest.raises(ScenarioInvalidError, match=r"nosuch: expected a file, or one of .*ban.*, got"):
        open_scenario("nosuch", KNOWN)
    scene = Scene()
    scene.begin({"at": 1, "fault": {"kind": "error", "skip": 1, "count": 1}}, {"at": 1, "connections": "cut"})
    scene.wait(1)
    ends = [scene.faults.calls.before(Subject("order.place")).ends for _ in range(3)]
    record = tmp_path / "faults.jsonl"
    earlier = {"time": 0, "at": 0.0, "run": {"seed": 7}}
    rows = [earlier, {"time": 0, "at": 0.0, "step": {"connections": "close"}}, *scene.faults.record.rows]
    # The process was killed while it wrote the last one.
    record.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"time": 0, "st')
    again = Scene()
    again.director.begin(open_scenario(str(record), KNOWN))
    again.wait(1)
    assert [again.faults.calls.before(Subject("order.place")).ends for _ in range(3)] == ends == [False, True, False]
    assert again.happened == ["cut"]
    record.write_text("{\n")
    with pytest.raises(ScenarioInvalidError, match=r"faults.jsonl:1: expected a row"):
        open_scenario(str(record), KNOWN)


# -- markets -----------------------------------------------------------------------------------------------------


def last_price(desk: RestDesk) -> str:
    """The price of the last trade."""
    return str(desk.send("GET", "/api/v3/ticker/price", f"symbol={SYMBOL}").body["price"])


def test_the_whole_market_stands_elsewhere_after_a_gap() -> None:
    scene = Scene()
    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "gap": "-10%"}})
    book = scene.desk.send("GET", "/api/v3/depth", f"symbol={SYMBOL}").body
    assert [level[0] for side in ("bids", "asks") for level in book[side]] == ["54000.00000000", "54001.00000000"]
    assert last_price(scene.desk) == "54000.00000000"


@pytest.mark.parametrize(
    ("gap", "price"),
    [
        pytest.param("-99.9999%", "0.06000000", id="deep"),
        pytest.param("0.001", "0.01000000", id="below a tick"),
        pytest.param("59000.119", "59000.11000000", id="off the tick"),
        pytest.param("+9999%", "6059400.00000000", id="far up"),
    ],
)
def test_a_gap_leaves_prices_on_the_tick_and_above_0(gap: str, price: str) -> None:
    scene = Scene()
    desk = scene.desk

    def shown() -> list[Decimal]:
        book = desk.send("GET", "/api/v3/depth", f"symbol={SYMBOL}").body
        prices = [level[0] for side in ("bids", "asks") for level in book[side]]
        return [Decimal(one) for one in [*prices, last_price(desk)]]

    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "gap": gap}})
    assert last_price(desk) == price
    # The market that is fed falls by more than is left.
    levels = [((units("59000"), units("1")),), ((units("59001"), units("1")), (units("70000"), units("1")))]
    desk.venue.feed(BookUpdate(SYMBOL, desk.now, *levels, snapshot=True))
    desk.venue.feed(MarketTrade(SYMBOL, desk.now, Decimal("59000"), Decimal("0.1"), buyer_is_maker=True))
    assert all(one >= Decimal("0.01") and one % Decimal("0.01") == 0 for one in shown())
    desk.venue.feed(MarketTrade(SYMBOL, desk.now, Decimal("61000"), Decimal("0.1"), buyer_is_maker=True))
    assert Decimal(last_price(desk)) == Decimal(price) + 1000
    desk.venue.save_market()


def test_a_market_cannot_be_made_dearer_than_the_store_can_tell() -> None:
    scene = Scene()
    for _ in range(5):
        scene.begin({"at": 0, "market": {"symbol": SYMBOL, "gap": "+9999%"}})
    scene.desk.venue.feed(MarketTrade(SYMBOL, START_MS, Decimal("90000"), Decimal("0.1"), buyer_is_maker=True))
    scene.desk.venue.save_market()
    assert 0 < units(last_price(scene.desk)) <= LARGEST


def test_outsiders_trade_on_the_tick_and_above_0() -> None:
    scene = Scene()
    moves = [{"gap": "0.05"}, {"push": "-99%"}, {"trade": {"side": "SELL", "quantity": "1", "price": "-99%"}}]
    moves += [{"push": "60000.119"}, {"trade": {"side": "SELL", "quantity": "1", "price": "59000.119"}}]
    seen = []
    for move in moves:
        scene.begin({"at": 0, "market": {"symbol": SYMBOL} | move})
        seen.append(last_price(scene.desk)[:-6])
    assert seen == ["0.05", "0.01", "0.01", "60000.11", "59000.11"]
    assert not scene.errors()


def test_a_gap_goes_through_a_stop_limit_that_rests_unfilled() -> None:
    scene = Scene()
    stop = {"side": "SELL", "type": "STOP_LOSS_LIMIT", "stopPrice": "58000", "price": "57900", "timeInForce": "GTC"}
    placed = scene.desk.place(quantity="0.5", **stop).body
    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "gap": "-8%"}})
    query = {"symbol": SYMBOL, "orderId": placed["orderId"]}
    order = scene.desk.ask("GET", "/api/v3/order", **query).body
    assert (order["status"], order["executedQty"], order["isWorking"]) == ("NEW", "0.00000000", True)
    assert [event["x"] for event in scene.told if event["e"] == "executionReport"] == ["NEW", "NEW"]


def test_a_stop_beyond_the_price_range_expires_when_the_price_gaps() -> None:
    scene = Scene()
    scene.desk.place(quantity="0.5", side="SELL", type="STOP_LOSS", stopPrice="58000", price=None)
    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "gap": "-20%"}})
    last = [event for event in scene.told if event["e"] == "executionReport"][-1]
    assert (last["X"], last["eR"]) == ("EXPIRED", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")


def test_a_take_profit_is_filled_in_part_and_its_stop_ends() -> None:
    scene = Scene()
    pair = {"symbol": SYMBOL, "side": "SELL", "quantity": "1", "aboveType": "LIMIT_MAKER", "abovePrice": "63000"}
    pair |= {"belowType": "STOP_LOSS", "belowStopPrice": "57000"}
    assert scene.desk.ask("POST", "/api/v3/orderList/oco", **pair).status == 200
    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "fill": {"side": "SELL", "share": "0.4"}}})
    ends = {event["o"]: (event["X"], event["z"]) for event in scene.told if event["e"] == "executionReport"}
    assert ends == {"LIMIT_MAKER": ("PARTIALLY_FILLED", "0.40000000"), "STOP_LOSS": ("EXPIRED", "0.00000000")}


def test_outsiders_trade_and_sweep_the_book_to_a_price() -> None:
    scene = Scene()
    scene.desk.place(side="SELL", quantity="1", price="61000")
    trade = {"side": "BUY", "quantity": "0.3", "price": "61001"}
    scene.begin(
        {"at": 0, "market": {"symbol": SYMBOL, "trade": trade}},
        {"at": 1, "market": {"symbol": SYMBOL, "push": "+3%"}},
    )
    filled = [event["z"] for event in scene.told if event.get("x") == "TRADE"]
    assert filled == ["0.30000000"]
    scene.wait(1)
    assert [event["z"] for event in scene.told if event.get("x") == "TRADE"] == ["0.30000000", "1.00000000"]
    assert last_price(scene.desk) == "62830.00000000"


def test_filters_change_for_new_orders_and_are_told() -> None:
    scene = Scene()
    assert scene.desk.place(price="50000.01").status == 200
    scene.begin({"at": 0, "market": {"symbol": SYMBOL, "filters": {"tickSize": "0.1", "minNotional": "600"}}})
    assert scene.desk.place(price="50000.01").body["msg"] == "Filter failure: PRICE_FILTER"
    assert scene.desk.place(price="50000.1").body["msg"] == "Filter failure: NOTIONAL"
    info = scene.desk.send("GET", "/api/v3/exchangeInfo", f"symbol={SYMBOL}").body["symbols"][0]["filters"]
    assert info[0]["tickSize"] == "0.10000000"
    assert len(scene.desk.ask("GET", "/api/v3/openOrders").body) == 1


# -- accounts ----------------------------------------------------------------------------------------------------


def test_money_comes_and_goes_and_who_lacks_it_is_written_down() -> None:
    scene = Scene()
    other = scene.desk.account(USDT="1")
    free, _ = scene.balance("BTC")
    scene.begin(
        {"at": 0, "account": {"withdraw": {"BTC": "40"}}},
        {"at": 1, "account": {"uid": scene.uid, "deposit": {"BTC": "1"}}},
        {"at": 2, "account": {"uid": 7, "deposit": {"BTC": "1"}}},
        {"at": 3, "account": {"set": {"canTrade": False}}},
    )
    assert scene.balance("BTC") == (free - units("40"), 0)
    assert scene.errors() == [f"{other.uid}: -2010 Account has insufficient balance for requested action."]
    scene.wait(1)
    assert scene.balance("BTC") == (free - units("39"), 0)
    assert [event["d"] for event in scene.told if event["e"] == "balanceUpdate"] == ["-40.00000000", "1.00000000"]
    scene.wait(2)
    assert scene.errors()[1].startswith("uid: expected one of")
    assert scene.desk.place().body["code"] == -2010


def test_a_wipe_leaves_accounts_and_keys_and_nothing_else() -> None:
    scene = Scene()
    scene.desk.place()
    scene.begin({"at": 0, "account": {"reset": {"USDT": "10000"}}})
    assert scene.desk.ask("GET", "/api/v3/allOrders", symbol=SYMBOL).body == []
    assert scene.balance("USDT") == (units("10000"), 0)
    assert scene.balance("BTC") == (0, 0)


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the page of faults below a heading: the name that each begins with, and its other cells."""
    page = (REPOSITORY / "docs/paper-exchange-faults.md").read_text()
    part = page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_-]+)`([^|]*)\|(.*)\|$", part, re.MULTILINE)
    names = [name for name, *_ in rows]
    assert len(set(names)) == len(names), names
    return {name: [cell.strip() for cell in rest.split("|")] for name, _, rest in rows}


def test_every_kind_of_fault_has_a_row_with_what_the_client_sees_and_a_test_that_shows_it() -> None:
    rows = table("Kinds")
    assert rows.keys() == KINDS.keys()
    tests: dict[str, str] = {}
    for path in REPOSITORY.glob("tests/integration/test_paper_*.py"):
        whole = path.read_text()
        tests |= {
            part.name: "\n".join(ast.unparse(one) for one in (*part.decorator_list, part))
            for part in ast.parse(whole).body
            if isinstance(part, ast.AsyncFunctionDef)
        }
    for kind, (seen, test) in rows.items():
        assert seen, kind
        assert repr(kind) in tests[test.strip("`")], f"{test} does not put {kind} in force"


def test_every_shipped_scenario_has_a_row() -> None:
    assert table("Scenarios").keys() >= set(shipped())


def test_every_shipped_scenario_is_understood() -> None:
    scene = Scene()
    rest = [f"{method} {path}" for method, path in scene.desk.api.routes]
    known = Known((SYMBOL,), [*rest, "order.place", "orderList.place"])
    for name in shipped():
        assert open_scenario(name, known).steps, name


def test_a_price_stays_within_what_can_be_stored() -> None:
    with pytest.raises(ControlInvalidError, match="price: expected a decimal text above 0"):
        positive_units("price", "99999999999999")
