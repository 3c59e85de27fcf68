"""Events on their way to a connection: which faults lose, double, turn or hold them up, and which are left alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_exchange.faults.engine import Engine
from paper_exchange.faults.line import Line
from paper_exchange.faults.model import Subject
from paper_exchange.faults.parsing import Known, parse_fault

KNOWN = Known(("BTCUSDT",), ("order.place",))
TRADE = Subject(stream="btcusdt@trade", event="trade", symbol="BTCUSDT")
REPORT = Subject(stream="user", event="executionReport", uid=1, symbol="BTCUSDT")


class Wire:
    """A line on a clock that a test turns."""

    def __init__(self, *bodies: dict[str, Any]) -> None:
        self.now = 50.0
        engine = Engine(1, lambda: self.now, lambda _: None)
        for body in bodies:
            engine.start(parse_fault("", body, KNOWN))
        self.line = Line(engine)

    def send(self, count: int, subject: Subject = TRADE, pause: float = 0.0) -> str:
        """What arrives of events 1, 2, 3..., as a text of digits."""
        arrived = ""
        for number in range(1, count + 1):
            arrived += b"".join(self.line.carry(str(number).encode(), subject)).decode()
            arrived += self.wait(pause)
        return arrived

    def wait(self, seconds: float) -> str:
        """What arrives because time passes."""
        self.now += seconds
        return b"".join(self.line.due()).decode()


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        pytest.param({"kind": "drop_events", "nth": [2, 4]}, "135", id="dropped"),
        pytest.param({"kind": "duplicate_events", "nth": [2]}, "122345", id="doubled"),
        pytest.param({"kind": "reorder_events", "nth": [2]}, "13245", id="overtaken"),
        pytest.param({"kind": "reorder_events", "nth": [[2, 3]]}, "13245", id="overtaken by one that was to be"),
        pytest.param({"kind": "dead_stream"}, "12345", id="another stream"),
        pytest.param({"kind": "drop_events", "streams": ["*@depth", "user"]}, "12345", id="other streams"),
        pytest.param({"kind": "drop_events", "streams": "btcusdt@*", "events": ["trade"]}, "", id="by type"),
        pytest.param({"kind": "drop_events", "events": "kline"}, "12345", id="of another type"),
    ],
)
def test_events_arrive_as_the_fault_says(fault: dict[str, Any], arrived: str) -> None:
    assert Wire(fault).send(5) == arrived


def test_a_dead_stream_loses_every_event_of_a_user() -> None:
    assert Wire({"kind": "dead_stream"}).send(5, REPORT) == ""
    assert Wire({"kind": "dead_stream", "accounts": 2}).send(5, REPORT) == "12345"


def test_an_event_that_nobody_overtakes_goes_on_after_a_second() -> None:
    wire = Wire({"kind": "reorder_events", "nth": [3]})
    assert wire.send(3) == "12"
    assert wire.wait(0.9) == ""
    assert wire.wait(0.1) == "3"
    assert wire.line.carry(b"4", TRADE) == [b"4"]


def test_only_an_event_of_the_same_stream_overtakes() -> None:
    line = Wire({"kind": "reorder_events", "nth": [1]}).line
    assert line.carry(b"1", TRADE) == []
    assert line.carry(b"other", REPORT) == [b"other"]
    assert line.carry(b"2", TRADE) == [b"2", b"1"]


def test_a_late_event_holds_up_what_comes_behind_it() -> None:
    wire = Wire({"kind": "delay_events", "seconds": 2, "nth": [2]})
    assert wire.send(5) == "1"
    assert not wire.line.free
    assert wire.wait(1.9) == ""
    assert wire.wait(0.1) == "2345"


def test_a_connection_is_cut_instead_of_getting_an_event() -> None:
    wire = Wire({"kind": "cut_connection", "skip": 2})
    assert wire.send(2) == "12"
    assert not wire.line.cut
    assert wire.send(1) == ""
    assert wire.line.cut


def test_a_line_is_free_again_when_the_fault_is_over() -> None:
    wire = Wire({"kind": "drop_events", "count": 1})
    assert not wire.line.free
    assert wire.send(3) == "23"
    assert wire.line.free


@given(
    st.lists(
        st.builds(
            lambda fault, probability, seed: fault | {"probability": probability, "seed": seed},
            st.sampled_from(
                [
                    {"kind": "duplicate_events"},
                    {"kind": "reorder_events"},
                    {"kind": "delay_events", "seconds": 0.7, "jitter": 3.0},
                ]
            ),
            st.floats(0.01, 1),
            st.integers(0, 1000),
        ),
        max_size=4,
    ),
    st.integers(0, 9),
    st.sampled_from([0.0, 0.3, 1.5]),
)
def test_nothing_is_lost_that_no_fault_drops(faults: list[dict[str, Any]], count: int, pause: float) -> None:
    wire = Wire(*faults)
    arrived = wire.send(count, pause=pause) + wire.wait(5) + wire.wait(5)
    assert set(arrived) == {str(number) for number in range(1, count + 1)}
    if not any(fault["kind"] == "duplicate_events" for fault in faults):
        assert len(arrived) == count
    if not any(fault["kind"] == "reorder_events" for fault in faults):
        assert list(arrived) == sorted(arrived)


@pytest.mark.parametrize(
    ("size", "most"), [pytest.param(1, 10_000, id="by number"), pytest.param(1 << 20, 8, id="by bytes")]
)
def test_a_connection_on_which_too_many_events_are_late_ends(size: int, most: int) -> None:
    wire = Wire({"kind": "delay_events", "seconds": 3600})
    for _ in range(2):  # those that went on count no more
        for _ in range(most):
            assert wire.line.carry(b"x" * size, TRADE) == []
        assert not wire.line.cut
        assert len(wire.wait(3600)) == most * size
    for _ in range(most + 1):
        assert wire.line.carry(b"x" * size, TRADE) == []
    assert wire.line.cut
    assert wire.line.carry(b"x", TRADE) == []
    assert wire.wait(7200) == ""
