"""The lock on a state directory: one holder, and nothing that outlives it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tradingbot.state.lock import LOCK_FILE, StateInUseError, StateLock


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    lock = StateLock.take(tmp_path / "state")
    assert lock is not None
    with pytest.raises(StateInUseError, match=f"state is in use by process {os.getpid()} on "):
        StateLock.take(tmp_path / "state")
    lock.release()
    again = StateLock.take(tmp_path / "state")
    assert again is not None
    again.release()


def test_the_file_of_a_process_that_is_gone_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("process 1 on elsewhere")
    lock = StateLock.take(tmp_path)
    assert lock is not None
    assert f"process {os.getpid()} on " in (tmp_path / LOCK_FILE).read_text()
    lock.release()


def test_a_place_that_cannot_hold_a_lock_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert StateLock.take(tmp_path / "file") is None
