"""Promises of the notifications that need no receiver: what waits, what it becomes, what a spec may say."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from tradingbot.monitoring.alerts import LONGEST_ASKED, Note, Outbox, asked_wait, render
from tradingbot.orders.types import OrdersEventKind
from tradingbot_api.bot_http import BotIdentity
from tradingbot_api.v1alpha1 import TEMPLATE_WORDS, NotificationKind, Notifications

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LOST = Note(NotificationKind.PROTECTION_LOST, WHEN, "0.1 BTC held, 0 of it has a stop")
BOT = BotIdentity(namespace="desk", name="btcusdt", uid="u")


def test_of_each_kind_the_first_note_goes_at_once_and_the_last_of_the_rest_after_the_interval_with_their_number() -> (
    None
):
    outbox = Outbox()
    outbox.offer(LOST)
    assert outbox.take(100.0, 60) == LOST
    assert [outbox.offer(replace(LOST, message=str(number))) for number in range(3)] == [True, False, False]
    assert outbox.take(159.9, 60) is None
    assert outbox.wait(100.0, 60) == 60
    assert outbox.take(160.0, 60) == replace(LOST, message="2", suppressed=2)
    assert outbox.wait(160.0, 60) is None


def test_one_kind_does_not_hold_back_another_and_each_goes_in_its_turn() -> None:
    outbox = Outbox()
    outbox.offer(LOST)
    outbox.take(0.0, 60)
    outbox.offer(LOST)
    others = [replace(LOST, kind=kind) for kind in (NotificationKind.STOP_LOSS, NotificationKind.EXITED)]
    for note in others:
        outbox.offer(note)
    assert [outbox.take(1.0, 60), outbox.take(1.0, 60), outbox.take(1.0, 60)] == [*others, None]


def test_whatever_a_message_says_the_body_stays_json() -> None:
    note = replace(LOST, message='it said "no"\n\\ $kind \x00', suppressed=3)
    body = json.loads(render('{"text": "$bot/$symbol $kind: $message (+$suppressed) $time $$"}', note, BOT, "BTCUSDT"))
    assert body["text"] == f"btcusdt/BTCUSDT ProtectionLost: {note.message} (+3) 2026-01-02T03:04:05+00:00 $"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param('{"text": "$what"}', "expected words of bot, kind", id="an-unknown-word"),
        pytest.param('{"text": "$"}', "expected $word or $$", id="a-lone-dollar"),
        pytest.param("{text: $message}", "expected JSON once the words are replaced", id="no-json"),
    ],
)
def test_a_template_that_cannot_be_a_body_is_refused_with_its_field(template: str, message: str) -> None:
    with pytest.raises(ValidationError) as error:
        Notifications.model_validate({"template": template})
    (wrong,) = error.value.errors()
    assert wrong["loc"] == ("template",)
    assert message in wrong["msg"]


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        pytest.param("2.5", 2.5, id="seconds"),
        pytest.param("Fri, 02 Jan 2026 03:04:35 GMT", 30, id="date"),
        pytest.param("Fri, 02 Jan 2026 03:00:00 GMT", 0, id="past"),
        pytest.param("86400", LONGEST_ASKED, id="a-day"),
        pytest.param("-1", 0, id="negative"),
        pytest.param("", 0, id="absent"),
        pytest.param("soon", 0, id="a-word"),
        pytest.param("nan", 0, id="no-number"),
        pytest.param("inf", 0, id="for-ever"),
        pytest.param("Fri, 02 Jan 2026 03:04:35 -0000", 30, id="no-zone"),
        pytest.param("Fri, 02 Jan 2026 03:04:35 +99999999999999999999", 0, id="a-zone-of-nowhere"),
    ],
)
def test_a_receiver_gets_the_pause_that_it_asks_for_within_bounds(asked: str, seconds: float) -> None:
    assert asked_wait(asked, WHEN) == seconds


def test_whatever_happens_to_orders_can_be_told() -> None:
    told = {kind.value for kind in OrdersEventKind} - {OrdersEventKind.BOOKS_CHANGED.value}
    assert told <= {kind.value for kind in NotificationKind}


def test_the_page_names_each_kind_and_each_word() -> None:
    page = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ")]
    assert {word for row in rows for word in re.findall(r"[A-Z]\w+", row)} == {"Word", "Kind", *NotificationKind}
    assert {word for row in rows for word in re.findall(r"\$(\w+)", row)} == set(TEMPLATE_WORDS)
