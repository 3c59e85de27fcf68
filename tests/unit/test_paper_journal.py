"""The journal: each input of the engine is written before it is applied, and the same events follow from it again."""

from __future__ import annotations

import inspect
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.__main__ import main
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import AccountSettings
from paper_exchange.core.rates import CommissionRates, Rates
from paper_exchange.core.state import State
from paper_exchange.journal import INPUTS, JournalInvalidError, replay
from support.paper import SYMBOL, units
from support.paper_rest import RestDesk

NO_INPUTS = {"take_outputs", "take_changes", "keep_places", "forget_triggers"}
"""They hand over what happened or is to be stored, or let go of what nobody asks for any more."""


def lived(tmp_path: Path) -> tuple[Path, list[str]]:
    """A journal of a varied life with a restart, and each event of the first account as it was told then."""
    journal, heard = tmp_path / "journal.jsonl", list[str]()

    def hear(payload: dict[str, Any]) -> None:
        heard.append(json.dumps({"uid": desk.key.uid, "event": payload}, separators=(",", ":")))

    desk = RestDesk(directory=tmp_path / "exchange", journal=journal)
    desk.venue.subscribe(desk.key.uid, hear)
    other = desk.account(USDT="5000")
    rates = {SYMBOL: CommissionRates(standard=Rates(maker=0, taker=units("0.0005")))}
    desk.venue.exchange.change_account(other.uid, AccountSettings(commission=rates))
    first = desk.place(newClientOrderId="first")
    desk.place(type="MARKET", price=None, quantity="0.2")
    desk.place(price="1", newClientOrderId="too-low")
    desk.place(key=other, side="BUY", price="60001", quantity="0.01")
    pair = {"side": "SELL", "quantity": "0.1", "aboveType": "LIMIT_MAKER", "abovePrice": "61000"}
    desk.ask("POST", "/api/v3/orderList/oco", symbol=SYMBOL, belowType="STOP_LOSS", belowStopPrice="59000", **pair)
    desk.now += 10
    desk.trade("58990")
    cancelled = {"cancelReplaceMode": "ALLOW_FAILURE", "cancelOrigClientOrderId": "first"}
    desk.ask(
        "POST", "/api/v3/order/cancelReplace", symbol=SYMBOL, side="BUY", type="LIMIT", timeInForce="GTC",
        quantity="0.01", price="50001", **cancelled,
    )  # fmt: skip
    desk.venue.change_status(SYMBOL, "HALT")
    desk.place()
    desk.now += 60_000
    desk.restart()
    desk.venue.subscribe(desk.key.uid, hear)
    desk.place()
    desk.venue.change_status(SYMBOL, "TRADING")
    desk.venue.exchange.change_filters(SYMBOL, {"tick": units("0.1")})
    desk.place(price="50000.01")
    desk.venue.gap(SYMBOL, units("-3000"))
    desk.venue.gap(SYMBOL, units("3000"))
    last = desk.place(side="SELL", price="60500", quantity="0.3")
    desk.venue.exchange.push_trade(SYMBOL, units("60600"), desk.now)
    desk.venue.commit()
    desk.venue.reset({"USDT": units("7")}, drop_accounts=True)
    desk.close()
    assert first.status == last.status == 200
    return journal, heard


def test_a_replayed_journal_tells_the_same_events_byte_for_byte(tmp_path: Path) -> None:
    journal, heard = lived(tmp_path)
    lines: list[str] = []
    done = replay(journal, lines.append)
    assert not done.difference
    assert done.starts == 2
    assert done.outputs == len(lines)
    assert [line for line in lines if line.startswith('{"uid":100000001,')][-len(heard) :] == heard
    assert {json.loads(line)["x"] for line in _reports(heard)} >= {"NEW", "TRADE", "CANCELED", "EXPIRED"}


def _reports(heard: list[str]) -> list[str]:
    events = (json.loads(line)["event"] for line in heard)
    return [json.dumps(event) for event in events if event["e"] == "executionReport"]


def test_a_journal_that_was_changed_is_told_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, _ = lived(tmp_path)
    rows = journal.read_text().splitlines(keepends=True)
    place = next(number for number, row in enumerate(rows) if '"place"' in row and '"first"' in row)
    rows[place] = rows[place].replace(f'"price":{units("50000")}', f'"price":{units("50002")}')
    journal.write_text("".join(rows))
    assert replay(journal, lambda _: None).difference.startswith(f"line {place + 2}: ")
    assert main(["replay", str(journal)]) == 1
    assert f"line {place + 2}: " in capsys.readouterr().err


def test_a_last_line_that_was_cut_off_is_left_out_and_written_over(tmp_path: Path) -> None:
    journal, _ = lived(tmp_path)
    whole = replay(journal, lambda _: None)
    with journal.open("ab") as file:
        file.write(b'{"input":"deposit","args":[1000')
    assert replay(journal, lambda _: None).inputs == whole.inputs
    RestDesk(journal=journal).close()
    again = replay(journal, lambda _: None)
    assert again.starts == whole.starts + 1
    assert not again.difference


@contextmanager
def full_disk(file: Path, left: int) -> Iterator[None]:
    """Files may be no longer than one is now, and so many bytes: then writing fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("row", [pytest.param(0, id="in the input"), pytest.param(1, id="in the digest")])
def test_what_a_full_disk_refused_is_written_once_when_there_is_room(tmp_path: Path, row: int) -> None:
    journal = tmp_path / "journal.jsonl"
    desk = RestDesk(journal=journal)
    heard: list[str] = []
    desk.venue.subscribe(desk.key.uid, lambda payload: heard.append(payload["e"]))
    desk.place()
    of_one = len(heard)
    placing = journal.read_bytes().splitlines(keepends=True)[-2:]
    with full_disk(journal, left=len(placing[0]) * row + 10):
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                desk.place()
    assert len(heard) == of_one
    desk.place()
    assert len(heard) == 5 * of_one
    desk.close()
    lines: list[str] = []
    done = replay(journal, lines.append)
    assert not done.difference
    assert done.outputs == len(lines)
    assert journal.read_text().count('{"input":"place"') == 5


def test_an_input_of_which_nothing_is_told_is_in_the_file_with_the_next_that_is_stored(tmp_path: Path) -> None:
    desk = RestDesk(journal=tmp_path / "journal.jsonl")
    desk.venue.exchange.change_filters(SYMBOL, {"tick": units("0.1")})
    desk.venue.save_market()
    exchange = replay(tmp_path / "journal.jsonl", lambda _: None).exchange
    assert exchange is not None
    assert exchange.market(SYMBOL).rules.tick == units("0.1")
    desk.close()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("nonsense", "line of a journal", id="no JSON"),
        pytest.param('{"input":"on_trade","args":[]}', "`begin` first", id="no begin"),
        pytest.param('{"begin":{"version":2,"symbols":[],"start":0}}', "version 1, got version 2", id="version"),
        pytest.param('{"begin":{"version":1,"symbols":["NOSUCH"],"start":0}}', "NOSUCH", id="symbol"),
    ],
)
def test_what_is_no_journal_is_refused_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    journal = tmp_path / "bad.jsonl"
    journal.write_text(line + "\n")
    with pytest.raises(JournalInvalidError, match=expected):
        replay(journal, lambda _: None)
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(journal)])
    assert ended.value.code == 2
    assert f"{journal}:1: " in capsys.readouterr().err


def test_every_change_of_an_exchange_is_an_input_of_the_journal() -> None:
    own = {name for name, _ in inspect.getmembers(Exchange, inspect.isfunction) if not name.startswith("_")}
    questions = {name for name, _ in inspect.getmembers(State, inspect.isfunction)}
    assert own - questions - NO_INPUTS | {"forget_all"} == set(INPUTS)
