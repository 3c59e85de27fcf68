"""The flight recorder: what a bot took in and decided, in files that rotate and that `replay-flight` decides again.

A file is gzipped JSON lines. First what it is of (`{"flight": 1, ...}`), then the state of each object that decides
(`{"object": NAME, "state": ...}`), so that each file can be replayed alone; then each call of one
(`[NAME, METHOD, ARGUMENTS, OUTCOME]`), and notes for people. What the bot decides by comes in as arguments: candles,
ticks, equity, clock readings, whether it holds. Nothing of it is secret: keys never reach an object that decides.
"""

from __future__ import annotations

import asyncio
import errno
import pickle
import zlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic_core import to_json

from tradingbot.recorded import Recorded

FORMAT: Final = 1
FLUSH_SECONDS: Final = 1.0
SEGMENT_BYTES: Final = 4 << 20
LIMIT_BYTES: Final = 8 * SEGMENT_BYTES
"""All files together."""
MOST_FILES: Final = 100
"""A bot that starts again and again leaves small ones."""
STATE_BYTES: Final = 1 << 20
"""A state that is larger, as of a strategy that keeps all it ever saw, is not recorded."""
RETRY_SECONDS: Final = 60.0
"""After a file that could not be written."""
PATTERN: Final = "flight-*.jsonl.gz"
_GZIP: Final = 31


class _Segment:
    """One file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / name
        self._zip = zlib.compressobj(wbits=_GZIP)
        self.size = 0

    def write(self, lines: Sequence[bytes], *, end: bool = False) -> None:
        """Append, so that a process that is killed now has left it. OSError."""
        data = self._zip.compress(b"".join(line + b"\n" for line in lines))
        data += self._zip.flush(zlib.Z_FINISH if end else zlib.Z_SYNC_FLUSH)
        if not self.size:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _make_room(self._path.parent)
        with self._path.open("ab") as file:
            file.write(data)
        self.size += len(data)


class FlightRecorder:
    """Keeps the calls of what it watches. Run `run` beside them; a disk that fails costs the recording, never more."""

    def __init__(
        self, folder: Path, about: dict[str, Any], utc: Callable[[], datetime], segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self._folder = folder
        self._about = about
        self._utc = utc
        self._segment_bytes = segment_bytes
        self._watched: dict[str, Recorded] = {}
        self._within = False
        self._lines: list[bytes] = []
        self._count = 0
        self._segment = self._next_segment()
        self._log = structlog.get_logger("flight")

    # --- what it keeps ---

    def watch(self, name: str, thing: Recorded, parts: Sequence[str] = ()) -> None:
        """Keep the calls of `thing`, in the place of a former one of that name, and of these attributes of it."""
        if (former := self._watched.get(name)) is not None:
            former.record_no_more()
        self._watched[name] = thing
        thing.record(self, name)
        for part in parts:
            inner: Recorded = getattr(thing, part)
            inner.record(self, f"{name}.{part}")
        self._lines.append(_state(name, thing))

    def note(self, what: str, **figures: Any) -> None:
        """Something that people want to see beside the decisions; nothing is decided by it."""
        self._lines.append(_line({"note": what, **figures}))

    def begin(self) -> bool:
        """A call begins."""
        if self._within:
            return False
        self._within = True
        return True

    def end(self, name: str, method: str, arguments: Sequence[Any], outcome: str) -> None:
        """It is over."""
        self._within = False
        self._lines.append(_line([name, method, arguments, outcome]))

    # --- the files ---

    async def run(self) -> None:
        """Write each second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            if not await self.flush():
                await asyncio.sleep(RETRY_SECONDS)
                self._segment = self._next_segment()

    async def flush(self, *, end: bool = False) -> bool:
        """Write what was kept since the last time; False where that failed."""
        segment, lines = self._segment, self._lines
        self._lines = []
        full = segment.size >= self._segment_bytes
        if full:
            self._segment = self._next_segment()
        try:
            await asyncio.to_thread(segment.write, lines, end=end or full)
        except Exception as error:  # whatever it is, the bot trades on
            self._log.warning("what is decided is not recorded", error=str(error))
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:  # the books need the room
                await asyncio.to_thread(_remove, self._folder, 0, 0)
            return False
        return True

    def _next_segment(self) -> _Segment:
        """One that begins with how everything is now."""
        begun = self._utc()
        self._count += 1
        about = {"flight": FORMAT, "begun": begun, **self._about}
        self._lines = [_line(about), *(_state(name, thing) for name, thing in self._watched.items())]
        return _Segment(self._folder, f"flight-{begun:%Y%m%dT%H%M%S}-{self._count:04}.jsonl.gz")


def _line(entry: Any) -> bytes:
    try:
        return to_json(entry, fallback=repr)
    except ValueError as error:  # a strategy may be somebody else's, and say what is no text
        return to_json({"note": "not recorded", "error": ascii(error), "entry": ascii(entry)})


def _state(name: str, thing: Recorded) -> bytes:
    try:
        state = pickle.dumps(thing)
    except Exception as error:  # a strategy may hold what cannot be written down
        return _line({"object": name, "unknown": f"{type(error).__name__}: {error}"})
    if len(state) > STATE_BYTES:
        return _line({"object": name, "unknown": f"its state has {len(state)} bytes, {STATE_BYTES} are kept"})
    return _line({"object": name, "state": b64encode(state).decode()})


def _make_room(folder: Path) -> None:
    _remove(folder, LIMIT_BYTES - SEGMENT_BYTES, MOST_FILES - 1)


def _remove(folder: Path, most_bytes: int, most_files: int) -> None:
    """Remove the oldest files, until no more than that is left."""
    files = sorted(folder.glob(PATTERN))
    sizes = [path.stat().st_size for path in files]
    while files and (sum(sizes) > most_bytes or len(files) > most_files):
        files.pop(0).unlink()
        sizes.pop(0)
