"""Files of lines that one process after another writes on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Final

_BLOCK: Final = 65_536


def open_lines(path: Path) -> IO[bytes]:
    """Open a file to write behind its last whole line; it and its directory are made when needed. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    _leave_out_half_a_line(file)
    return file


def _leave_out_half_a_line(file: IO[bytes]) -> None:
    """What a killed process wrote last may be cut off."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            file.truncate(start + newline + 1)
            return
        end = start
    file.truncate(0)
