"""What the bot's store said is committed is there after a loss of power at any write, cut or sync of its files."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest

from support.forgetful_disk import ForgetfulDisk
from tradingbot.orders.intents import Intent, IntentKind, IntentState
from tradingbot.state.store import Store

pytestmark = pytest.mark.integration

COMMITS = 450
"""Enough for SQLite to move the log into the file, and to begin the log anew."""
LOSSES = 80


def intent(number: int) -> Intent:
    ids = (f"id-{number}-en", f"id-{number}-sl")
    return Intent(f"id-{number}", IntentKind.ENTRY, ids, number, 5_000, "0.01000000", "50000.00", number)


async def test_what_was_committed_is_there_after_a_loss_of_power_at_any_moment(tmp_path: Path) -> None:
    rng = Random(1)
    acknowledged: list[Intent] = []
    losses: list[tuple[Path, str, list[Intent]]] = []

    def heard(file: str) -> None:
        # The moments at which the log is moved are few and delicate.
        if rng.random() < (LOSSES / (COMMITS * 6) if file.endswith("-wal") else 0.3):
            left = tmp_path / f"left-{len(losses)}"
            disk.lose_power(left, rng)
            losses.append((left, file, list(acknowledged)))

    disk = ForgetfulDisk(heard)
    with patch("sqlite3.connect", disk.connect):
        store = Store.open(tmp_path / "state" / "bot.db")
        for number in range(COMMITS):
            await store.put_intent(intent(number))
            acknowledged.append(intent(number))
            if number % 3 == 0:
                done = replace(acknowledged.pop(rng.randrange(len(acknowledged))), state=IntentState.ACKNOWLEDGED)
                await store.put_intent(done)
    assert len(losses) >= LOSSES / 2
    assert sum(not file.endswith("-wal") for _, file, _ in losses) >= 5, "the log was never moved into the file"

    for left, file, expected in losses:
        survived = Store.open(left / "bot.db")
        there = {one.client_id for one in await survived.open_intents()}
        await survived.close()
        wanted = {one.client_id for one in expected}
        # What was being committed may be there or not: nobody was told.
        assert len(wanted ^ there) <= 1, f"power was lost at {file}: {sorted(wanted ^ there)}"
        shutil.rmtree(left)
    await store.close()
