"""A real limit of memory: a control group of a process's own, as a container has it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

LIMIT_MIB = 32
"""Less than the bot has, and no more than its greedy neighbour gets: of the two the kernel kills the bot first."""
_VERSIONS = (
    # where groups are made, the limit's file, the file that counts kills
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
    (Path("/sys/fs/cgroup"), "memory.max", "memory.events"),
)


@contextmanager
def _group(name: str) -> Iterator[tuple[Path, Path]]:
    """A group with the limit, and its file that counts kills; the test is skipped where none can be made."""
    for root, limit, kills in _VERSIONS:
        group = root / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / limit).exists():
                (group / limit).write_text(str(LIMIT_MIB << 20))
                yield group, group / kills
                return
        finally:
            group.rmdir()
    pytest.skip("no control group with a limit of memory can be made")


async def run_out_of_memory(process: asyncio.subprocess.Process) -> None:
    """Let the kernel kill the process, as it shares a group with one that takes more memory than there is."""
    with _group(f"tradingbot-test-{os.getpid()}-{process.pid}") as (group, kills):
        (group / "cgroup.procs").write_text(str(process.pid))
        greedy = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid())); bytearray(b'x') * (1 << 28)"
        neighbour = await asyncio.create_subprocess_exec(sys.executable, "-c", greedy)
        try:
            async with asyncio.timeout(20):
                await process.wait()
        finally:
            with suppress(ProcessLookupError):
                neighbour.kill()
            await neighbour.wait()
        assert "oom_kill 0" not in kills.read_text()
