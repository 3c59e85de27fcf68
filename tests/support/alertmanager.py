"""A real Alertmanager for the tests that need to see what becomes of an alert."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from support.waiting import until

TEMPLATES: Final = Path("/usr/share/prometheus/alertmanager")
"""Where Debian's Alertmanager looks for templates, whatever its configuration says."""


def _command() -> list[str]:
    program = shutil.which("prometheus-alertmanager")
    assert program is not None, "no prometheus-alertmanager on the PATH: run `make setup`"
    if TEMPLATES.is_dir():
        return [program]
    # It was unpacked and not installed: its files are put where it looks for them, for this process alone.
    script = 'mount -t tmpfs none /usr/share && ln -s "$0" /usr/share/prometheus && exec "$@"'
    files = Path(program).parents[1] / "share/prometheus"
    return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(files), program]


@asynccontextmanager
async def running_alertmanager(config: Path, folder: Path) -> AsyncIterator[str]:
    """Its address, http://HOST:PORT; `folder` takes its data and its log."""
    log = folder / "alertmanager.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *_command(), f"--config.file={config}", f"--storage.path={folder}", "--web.listen-address=127.0.0.1:0",
            "--cluster.listen-address=", stderr=output,
        )  # fmt: skip
    ended = asyncio.create_task(process.wait())
    try:
        found = await until(
            "Alertmanager listens",
            lambda: ended.done() or re.search(r'"Listening on" address=(\S+)', log.read_text(encoding="utf-8")),
        )
        assert not ended.done(), log.read_text(encoding="utf-8")
        yield f"http://{found[1]}"
    finally:
        if not ended.done():
            process.terminate()
        await ended
