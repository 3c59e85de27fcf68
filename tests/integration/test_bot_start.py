"""A bot that has hardly begun ends when it is told to, also as the first process of a container."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
COMMAND = Path(sys.executable).with_name("tradingbot")
HANDLED = 1 << (signal.SIGTERM - 1)


def _child(pid: int) -> int | None:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(found[0]) if found else None


def _takes_sigterm(pid: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) & HANDLED)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a process the first of its namespace")
def test_a_bot_that_is_told_to_end_while_its_imports_last_does_not_begin() -> None:
    command = ("unshare", "--pid", "--fork", "--kill-child", COMMAND, "run", "--paper", "--duration", "60")
    with subprocess.Popen(command) as bot:
        try:
            deadline = time.monotonic() + 20
            while (first := _child(bot.pid)) is None or not _takes_sigterm(first):
                assert time.monotonic() < deadline
                time.sleep(0.001)
            os.kill(first, signal.SIGTERM)
            assert bot.wait(20) == 128 + signal.SIGTERM
        finally:
            bot.kill()
