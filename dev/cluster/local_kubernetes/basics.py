"""What every other module here uses: errors with a code, progress for humans, places on disk, locks, commands."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO


class ClusterError(Exception):
    """Something the user has to know; `code` is stable, the message says what to do next."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Progress:
    """Prints what happens, each line with the seconds since the start."""

    what: str
    started: float
    stream: TextIO

    @classmethod
    def begin(cls, what: str) -> Progress:
        return cls(what, time.monotonic(), sys.stderr)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def say(self, text: str) -> None:
        """One line for the human who waits."""
        print(f"[{self.what} {self.elapsed:6.1f} s] {text}", file=self.stream, flush=True)


@dataclass(frozen=True)
class Home:
    """Where things outlive the work tree: what can be made again, and what runs now."""

    cache: Path
    clusters: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Home:
        user = Path(environment.get("HOME") or "/root")
        cache = Path(environment.get("XDG_CACHE_HOME") or user / ".cache")
        state = Path(environment.get("XDG_STATE_HOME") or user / ".local/state")
        return cls(cache=(cache / "tradingbot").resolve(), clusters=(state / "tradingbot" / "clusters").resolve())


@contextlib.contextmanager
def lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock; the file is gone afterwards. `waiting` is called once if somebody else has it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the holder's clean-up took the folder between our two calls
            continue
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            # The previous holder removed its file: a lock on that one protects nothing any more.
            try:
                if os.fstat(handle).st_ino != path.stat().st_ino:
                    continue
            except FileNotFoundError:
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def wait_for(what: str, condition: Callable[[], bool], seconds: float, pause: float = 0.1) -> None:
    """Poll until the condition holds; raises ClusterError TIMEOUT after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError("TIMEOUT", f"waited {seconds:g} s for {what}")
        time.sleep(pause)


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it said; raises ClusterError COMMAND_FAILED with its words."""
    command = [str(word) for word in argv]
    try:
        done = subprocess.run(
            command,
            input=stdin,
            env=None if environment is None else dict(environment),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError("PROGRAMS_MISSING", f"{command[0]} is not on the PATH; install it first") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise ClusterError("COMMAND_FAILED", f"`{' '.join(command)}` ended with {done.returncode}: {said}")
    return done
