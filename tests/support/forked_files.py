"""The files of a process that was forked: each side goes on with its own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from mmap import MAP_SHARED, PROT_READ, PROT_WRITE
from pathlib import Path
from typing import Final

_MAP_FIXED: Final = 0x10


def take_copies(former: Path, own: Path) -> None:
    """Copy a folder, and let each file of it that this process has open, or mapped, be the copy from now on.

    For a child, right after it was forked: else it would write into what its parent, and SQLite there, works with.
    """
    shutil.copytree(former, own)
    prefix = f"{former}/"
    for link in list(Path("/proc/self/fd").iterdir()):
        opened = os.readlink(link) if link.is_symlink() else ""
        if opened.startswith(prefix):
            number = int(link.name)
            copy = os.open(own / opened.removeprefix(prefix), fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE)
            os.lseek(copy, os.lseek(number, 0, os.SEEK_CUR), os.SEEK_SET)
            os.dup2(copy, number, inheritable=False)
            os.close(copy)
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        where, _, offset, _, _, *path = line.split(maxsplit=5)
        if path and path[0].startswith(prefix):
            start, end = (int(one, 16) for one in where.split("-"))
            copy = os.open(own / path[0].removeprefix(prefix), os.O_RDWR)
            flags = MAP_SHARED | _MAP_FIXED
            if library.mmap(start, end - start, PROT_READ | PROT_WRITE, flags, copy, int(offset, 16)) != start:
                raise OSError(ctypes.get_errno(), f"cannot map {path[0]}")
            os.close(copy)
