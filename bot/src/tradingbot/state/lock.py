"""The lock on a state directory: one process at a time works on one bot's store."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

LOCK_FILE: Final = "lock"


class StateInUseError(Exception):
    """Another process works on the directory; the text says which."""


class StateLock:
    """Held until `release`, or until the process ends in any way: the kernel takes it back, so no file can be stale."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, directory: Path) -> StateLock | None:
        """Lock the directory, made where it is missing; None where it can hold no lock. StateInUseError."""
        path = directory / LOCK_FILE
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            try:
                descriptor = os.open(path, os.O_RDONLY)  # the volume is read-only or full
            except OSError:
                return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 256, 0).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise StateInUseError(f"{directory} is in use by {holder}: end it, or use another directory") from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return None
        with suppress(OSError):  # for people; the lock holds without it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        return cls(descriptor)

    def release(self) -> None:
        """Let another process in."""
        os.close(self._descriptor)
