"""The lock on a state directory: one holder, and nothing that outlives it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
from pathlib import Path

import pytest

from tradingbot.state.lock import LOCK_FILE, StateInUseError, StateLock


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "not-there" / "state"
    lock = StateLock.take(folder)
    assert lock is not None
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(
        StateInUseError, match=f"^{re.escape(str(folder))} is in use by {holder}: end it, or use another directory"
    ):
        StateLock.take(folder)
    (folder / LOCK_FILE).write_bytes(b"\xff")
    with pytest.raises(StateInUseError, match="is in use by \N{REPLACEMENT CHARACTER}: "):
        StateLock.take(folder)
    (folder / LOCK_FILE).write_text("")
    with pytest.raises(StateInUseError, match="is in use by another process: "):
        StateLock.take(folder)
    lock.release()
    again = StateLock.take(folder)
    assert again is not None
    again.release()


def test_the_file_of_a_process_that_is_gone_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("process 1 on " + "elsewhere" * 99)
    lock = StateLock.take(tmp_path)
    assert lock is not None
    assert (tmp_path / LOCK_FILE).read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    lock.release()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    lock = StateLock.take(tmp_path)
    assert lock is not None
    assert (tmp_path / LOCK_FILE).stat().st_mode & 0o777 == 0o600
    lock.release()


def test_a_place_that_cannot_hold_a_lock_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert StateLock.take(tmp_path / "file") is None


def test_a_file_that_can_only_be_read_holds_the_lock_all_the_same(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).mkdir()  # as on a volume that is read-only, nothing can be written to it
    lock = StateLock.take(tmp_path)
    assert lock is not None
    other = os.open(tmp_path / LOCK_FILE, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_a_file_system_without_locks_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert StateLock.take(tmp_path) is None
