"""Faults of the paper exchange: whom they befall and when, what they make of a call, and how a run is repeated."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_exchange.amounts import ControlInvalidError
from paper_exchange.faults import record as records
from paper_exchange.faults.control import Faults
from paper_exchange.faults.model import Stage, Subject
from paper_exchange.faults.parsing import Known, parse_fault, write_fault
from paper_exchange.faults.record import Record, open_record, plan_of
from paper_exchange.faults.scenario import ScenarioInvalidError, open_scenario

KNOWN = Known(("BTCUSDT", "ETHUSDT"), ("POST /api/v3/order", "GET /api/v3/account", "GET /api/v3/time", "order.place"))
ORDER = Subject("POST /api/v3/order", uid=1, symbol="BTCUSDT")


class Scene:
    """Faults on a clock that a test turns."""

    def __init__(self, *bodies: dict[str, Any], seed: int = 1) -> None:
        self.now = 100.0
        self.told: list[str] = []
        self.faults = Faults(
            KNOWN, seed=seed, clock=lambda: self.now, now_ms=lambda: int(self.now * 1000), count=self.told.append
        )
        for body in bodies:
            self.faults.start(body)

    def befallen(self, count: int, subject: Subject = ORDER) -> list[int]:
        """Which of so many calls are refused, counted from 1."""
        return [number for number in range(1, count + 1) if self.faults.calls.before(subject).ends]


def test_a_fault_happens_as_often_as_it_is_told_and_after_how_many() -> None:
    assert Scene({"kind": "error", "skip": 2, "count": 3}).befallen(10) == [3, 4, 5]


def test_a_fault_happens_within_its_time_only() -> None:
    scene = Scene({"kind": "error", "from": 5, "for": 10, "skip": 1})
    assert scene.befallen(2) == []
    scene.now += 5
    # The two before its time count for nothing.
    assert scene.befallen(3) == [2, 3]
    scene.now += 9.9
    assert scene.befallen(1) == [1]
    scene.now += 0.1
    assert scene.befallen(1) == []
    assert scene.faults.describe() == []


@pytest.mark.parametrize(
    ("filters", "subject", "met"),
    [
        pytest.param({}, ORDER, True, id="no filter"),
        pytest.param({"accounts": 1}, ORDER, True, id="one account"),
        pytest.param({"accounts": [2, 1]}, ORDER, True, id="several accounts"),
        pytest.param({"accounts": [2]}, ORDER, False, id="another account"),
        pytest.param({"symbols": "BTCUSDT"}, ORDER, True, id="symbol"),
        pytest.param({"symbols": "ETHUSDT"}, ORDER, False, id="another symbol"),
        pytest.param({"endpoints": "POST /api/v3/order"}, ORDER, True, id="endpoint"),
        pytest.param({"endpoints": ["GET /api/*", "order.place"]}, ORDER, False, id="other endpoints"),
        pytest.param({"endpoints": ["GET *", "order.*"]}, Subject("order.place"), True, id="method by a pattern"),
        pytest.param({"endpoints": "POST *", "accounts": 2}, ORDER, False, id="one filter of two"),
    ],
)
def test_all_filters_must_be_met_each_by_one_of_its_values(
    filters: dict[str, Any], subject: Subject, met: bool
) -> None:
    assert Scene({"kind": "error"} | filters).befallen(1, subject) == ([1] if met else [])


def test_the_seed_decides_what_is_left_to_chance() -> None:
    often = {"kind": "error", "probability": 0.3}
    one, again, other = (Scene(often, seed=seed).befallen(1000) for seed in (1, 1, 2))
    assert one == again != other
    assert 250 < len(one) < 350
    # Two faults in one exchange do not happen together by chance.
    assert Scene(often | {"seed": 7}, seed=1).befallen(50) == Scene(often | {"seed": 7}, seed=2).befallen(50)


def test_the_oldest_refusal_answers_and_the_others_do_not_meet_the_call() -> None:
    scene = Scene({"kind": "banned", "count": 1}, {"kind": "maintenance", "count": 1}, {"kind": "lost_answer"})
    statuses = [scene.faults.calls.before(ORDER).refusal for _ in range(3)]
    assert [None if one is None else one.status for one in statuses] == [418, 403, None]
    assert scene.faults.calls.after(ORDER, accepted=True).lost
    assert scene.told == ["banned", "maintenance", "lost_answer"]


def test_delays_add_up_and_what_was_refused_by_the_exchange_keeps_its_answer() -> None:
    scene = Scene({"kind": "answer_delay", "seconds": 1}, {"kind": "answer_delay", "seconds": 2, "jitter": 1})
    scene.faults.start({"kind": "lost_answer", "cut": False})
    refused, accepted = (scene.faults.calls.after(ORDER, accepted=accepted) for accepted in (False, True))
    assert not refused.ends
    assert 3 <= refused.seconds <= 4
    assert (accepted.lost, accepted.cut) == (True, False)


def test_clocks_that_are_wrong_are_wrong_together() -> None:
    scene = Scene({"kind": "clock_skew", "milliseconds": 5000}, {"kind": "clock_skew", "milliseconds": -2000})
    assert scene.faults.calls.before(ORDER).skew_ms == 3000


def test_a_limit_tells_when_to_come_back() -> None:
    scene = Scene({"kind": "rate_limited", "for": 7.5, "count": 1}, {"kind": "banned", "retryAfter": 300})
    limited, refusal = (scene.faults.calls.before(ORDER).refusal for _ in range(2))
    assert limited is not None
    assert refusal is not None
    assert (limited.status, limited.code, limited.retry_after) == (429, -1003, 8)
    assert (refusal.status, refusal.code, refusal.retry_after) == (418, -1003, 300)
    assert refusal.error(1000).retry_at == 301_000


def test_a_rest_status_takes_the_place_of_the_one_before() -> None:
    status = {"kind": "rest_status", "status": 503, "seconds": 20}
    scene = Scene(status, {"kind": "error", "endpoints": "order.place"}, status | {"status": 429})
    assert [one["kind"] for one in scene.faults.describe()] == ["error", "rest_status"]
    assert scene.faults.describe()[1]["secondsLeft"] == 20.0
    assert scene.befallen(1, Subject("GET /sapi/v1/system/status")) == []


BAD: list[tuple[Any, str, str]] = [
    ([], "body", "a list"),
    ({"kind": "fire"}, "kind", "unknown kind"),
    ({}, "kind", "no kind"),
    ({"kind": "error", "sybmols": "BTCUSDT"}, "sybmols", "unknown field"),
    ({"kind": "error", "symbols": "XRPUSDT"}, "symbols", "unknown symbol"),
    ({"kind": "error", "symbols": ["BTCUSDT", 5]}, "symbols[1]", "symbol that is none"),
    ({"kind": "error", "accounts": []}, "accounts", "empty list"),
    ({"kind": "error", "endpoints": "POST /api/v3/ordr"}, "endpoints", "endpoint that is none"),
    ({"kind": "error", "streams": "user"}, "streams", "streams of a call"),
    ({"kind": "error", "probability": 0}, "probability", "never"),
    ({"kind": "error", "probability": True}, "probability", "no number"),
    ({"kind": "error", "count": 0}, "count", "no time"),
    ({"kind": "error", "for": -1}, "for", "past"),
    ({"kind": "error", "code": 5}, "code", "code that is none"),
    ({"kind": "error", "status": 200}, "status", "no failure"),
    ({"kind": "delay"}, "seconds", "no length"),
    ({"kind": "delay", "seconds": float("nan")}, "seconds", "no number at all"),
    ({"kind": "maintenance", "form": 404}, "form", "no such form"),
    ({"kind": "lost_answer", "cut": "no"}, "cut", "no flag"),
    ({"kind": "error", "nth": [[3]]}, "nth[0]", "half a pair"),
]


@pytest.mark.parametrize(("body", "field"), [pytest.param(*bad[:2], id=bad[2]) for bad in BAD])
def test_a_bad_fault_names_its_field_what_was_expected_and_what_came(body: Any, field: str) -> None:
    with pytest.raises(ControlInvalidError) as raised:
        parse_fault("", body, KNOWN)
    name, _, rest = str(raised.value).partition(": ")
    assert name == field
    assert "expected " in rest
    assert "got " in rest


KINDS_OF_CALLS = [
    {"kind": "rest_status", "status": 503, "seconds": 5.0},
    {"kind": "error", "code": -1001},
    {"kind": "rate_limited", "retryAfter": 5},
    {"kind": "banned"},
    {"kind": "maintenance", "form": 410},
    {"kind": "order_refused", "code": -2010},
    {"kind": "lost_request"},
    {"kind": "lost_answer", "cut": False},
    {"kind": "error_after", "code": -1006},
    {"kind": "delay", "seconds": 0.5},
    {"kind": "answer_delay", "seconds": 0.5, "jitter": 2.0},
    {"kind": "clock_skew", "milliseconds": -5},
]
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "probability": st.floats(0.1, 1),
        "count": st.integers(1, 5),
        "skip": st.integers(0, 5),
        "from": st.floats(0, 5),
        "for": st.floats(0.1, 20),
        "symbols": st.sampled_from(["BTCUSDT", ["ETHUSDT"]]),
        "accounts": st.integers(1, 2),
    },
)
FAULT = st.builds(
    lambda kind, when: kind | {name: value for name, value in when.items() if name != "for" or "seconds" not in kind},
    st.sampled_from(KINDS_OF_CALLS),
    WHEN,
)
LASTING = FAULT.filter(lambda body: body["kind"] != "rest_status")
"""Faults that do not take the place of others."""
CALLS = st.lists(
    st.tuples(
        st.builds(
            Subject, st.sampled_from(KNOWN.endpoints), uid=st.integers(1, 2), symbol=st.sampled_from(KNOWN.symbols)
        ),
        st.booleans(),
    ),
    max_size=30,
)


@given(FAULT)
def test_a_fault_is_told_as_it_is_given(body: dict[str, Any]) -> None:
    fault = parse_fault("", body, KNOWN)
    assert parse_fault("", write_fault(fault), KNOWN) == fault
    assert json.loads(json.dumps(write_fault(fault))) == write_fault(fault)


@given(
    st.lists(FAULT.filter(lambda body: body["kind"] != "rest_status"), max_size=5),
    CALLS,
    st.integers(0, 3),
    st.floats(0, 3),
)
def test_the_record_of_a_run_is_the_plan_of_the_same_run(
    bodies: list[dict[str, Any]], calls: list[tuple[Subject, bool]], seed: int, pause: float
) -> None:
    def run(scene: Scene, pause: float) -> list[Any]:
        made = []
        for subject, accepted in calls:
            scene.now += pause
            before = scene.faults.calls.before(subject)
            made.append((before, None if before.ends else scene.faults.calls.after(subject, accepted=accepted)))
        return [(_timeless(before), after and _timeless(after)) for before, after in made]

    first = Scene(*bodies, seed=seed)
    disturbed = run(first, pause)
    rows = [json.loads(json.dumps(row)) for row in first.faults.record.rows]
    again = Scene(seed=99)
    for step in plan_of(rows)["steps"]:
        again.faults.engine.start(parse_fault("", step["fault"], KNOWN))
    # Neither the seed nor the time of the calls decides any more.
    assert run(again, pause * 2) == disturbed


def _timeless(disturbance: Any) -> Any:
    """Without the Retry-After that tells how long a fault still lasts."""
    refusal = disturbance.refusal
    return disturbance.seconds, refusal and (refusal.status, refusal.code), disturbance.lost, disturbance.skew_ms


def test_the_record_tells_what_each_fault_befell() -> None:
    scene = Scene({"kind": "error", "count": 1})
    scene.now += 1.5
    scene.befallen(2)
    begun, applied = list(scene.faults.record.rows)[1:]
    assert (begun["fault"], begun["is"]["kind"], begun["at"]) == (1, "error", 0.0)
    assert applied == {
        "time": 101_500,
        "at": 1.5,
        "applied": 1,
        "nth": 1,
        "kind": "error",
        "endpoint": "POST /api/v3/order",
        "uid": 1,
        "symbol": "BTCUSDT",
    }


def test_a_record_that_lost_rows_makes_no_plan() -> None:
    scene = Scene({"kind": "clock_skew", "milliseconds": 1})
    scene.befallen(10_000)
    with pytest.raises(ControlInvalidError, match="plan: expected"):
        scene.faults.record.plan()


def test_at_most_a_thousand_faults_are_in_force() -> None:
    scene = Scene(*[{"kind": "error", "count": 1}] * 1000)
    with pytest.raises(ControlInvalidError, match="faults: expected at most 1000"):
        scene.faults.start({"kind": "error"})
    assert scene.faults.stop(1000)
    assert not scene.faults.stop(1000)
    scene.faults.clear()
    assert not scene.faults.engine.any(*Stage)


def test_a_disk_that_is_full_takes_the_record_from_the_file_and_holds_nothing_up() -> None:
    class FullDisk(io.BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(28, "No space left on device")

    record = Record(lambda: 5, lambda: 1.5, FullDisk())
    record.begin(7)
    record.ended(3)
    assert [row.get("run") or row.get("ended") for row in record.rows] == [{"seed": 7}, 3]


def new_record(file: Path) -> Record:
    """A record that writes a file."""
    return Record(lambda: 5, lambda: 1.5, open_record(file))


def test_a_record_goes_on_behind_the_last_whole_row_of_a_killed_process(tmp_path: Path) -> None:
    file = tmp_path / "faults.jsonl"
    file.write_text('{"run":{"seed":1}}\n{"ended":1')
    new_record(file).begin(7)
    assert [json.loads(line)["run"] for line in file.read_text().splitlines()] == [{"seed": 1}, {"seed": 7}]


def test_a_record_takes_no_more_memory_than_it_may() -> None:
    record = Record(lambda: 5, lambda: 1.5)
    for _ in range(20):
        record.step({"market": "x" * 1_000_000}, None)
    assert len(record.rows) == 8
    assert record.written == 20


def test_a_file_that_is_full_ends_with_a_row_that_says_so_and_makes_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGEST_FILE", 1000)
    file = tmp_path / "faults.jsonl"
    record = new_record(file)
    record.begin(7)
    for _ in range(100):
        record.ended(3)
    assert file.stat().st_size < 1100
    assert len(record.rows) == 101
    assert json.loads(file.read_text().splitlines()[-1])["full"]
    with pytest.raises(ScenarioInvalidError, match=r"faults.jsonl: plan: expected all rows"):
        open_scenario(str(file), Known(("BTCUSDT",), ()))
    new_record(file).begin(8)
    assert json.loads(file.read_text())["run"] == {"seed": 8}
    assert '"full"' in (tmp_path / "faults.jsonl.1").read_text()
