"""A disk under SQLite that may forget, when power is lost, whatever was written to it and not synced."""

from __future__ import annotations

import _sqlite3
import ctypes
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Final

_SECTOR: Final = 512
# Paths are addresses: SQLite keeps them as long as a file is open.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)
_numbers = count(1)
_disks: list[ForgetfulDisk] = []
"""Kept: SQLite knows them by their addresses."""


class _Vfs(Structure):
    """sqlite3_vfs, up to what this module looks at; the rest is copied as it is."""

    _fields_ = (
        ("version", c_int), ("file_size", c_int), ("longest", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), ("open", _OPEN), ("delete", _DELETE), ("rest", c_void_p * 14),
    )  # fmt: skip


class _Methods(Structure):
    """sqlite3_io_methods."""

    _fields_ = (
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", _WRITE), ("truncate", _TRUNCATE),
        ("sync", _SYNC), ("rest", c_void_p * 13),
    )  # fmt: skip


class _File(Structure):
    """sqlite3_file."""

    _fields_ = (("methods", POINTER(_Methods)),)


Change = tuple[int, bytes | None]
"""What was written from an offset on; None cuts the file there."""


class ForgetfulDisk:
    """A file system of SQLite (a VFS) over the machine's own one; `connect` opens files through it.

    `heard` is called before each write, cut and sync with the name of the file, when power may be lost too.
    """

    def __init__(self, heard: Callable[[str], None] = lambda _: None) -> None:
        self._heard = heard
        _disks.append(self)
        self.synced: dict[str, bytearray] = {}
        """What a loss of power leaves for certain, by the name of the file."""
        self._unsynced: defaultdict[str, list[Change]] = defaultdict(list)
        self._names: dict[int, str] = {}
        self._methods: dict[int, _Methods] = {}
        self._name = f"forgetful-{next(_numbers)}"
        library = ctypes.CDLL(_sqlite3.__file__)
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self._base = library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._base.contents)
        self._vfs.name, self._vfs.next = self._name.encode(), None
        self._vfs.open, self._vfs.delete = _OPEN(self._open), _DELETE(self._delete)
        if library.sqlite3_vfs_register(ctypes.byref(self._vfs), 0):
            raise OSError("SQLite does not take another file system")

    def connect(
        self, path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection, **more: Any
    ) -> sqlite3.Connection:
        """As sqlite3.connect."""
        return factory(f"file:{path}?vfs={self._name}", uri=True, **more)

    def lose_power(self, target: Path, rng: Random) -> None:
        """Write what is left of the files into a new directory: what was synced, and of the rest any sectors."""
        target.mkdir()
        for name, synced in self.synced.items():
            content = bytearray(synced)
            for offset, data in self._unsynced[name]:
                if data is None:
                    if rng.random() < 0.5:
                        del content[offset:]
                    continue
                for start in range(0, len(data), _SECTOR):
                    if rng.random() < 0.5:
                        _put(content, offset + start, data[start : start + _SECTOR])
            (target / name).write_bytes(content)

    # -- what SQLite calls ---------------------------------------------------------------------------------------

    def _open(self, _: int, path: int | None, file: int, flags: int, out: int) -> int:
        result: int = self._base.contents.open(ctypes.addressof(self._base.contents), path, file, flags, out)
        if result == 0 and path is not None:
            opened_path = Path(ctypes.string_at(path).decode())
            name = self._names[file] = opened_path.name
            if name not in self.synced:
                self.synced[name] = bytearray(opened_path.read_bytes())
            opened = ctypes.cast(file, POINTER(_File)).contents
            opened.methods = ctypes.pointer(self._noted(ctypes.addressof(opened.methods.contents)))
        return result

    def _noted(self, address: int) -> _Methods:
        """The methods of a file at that address, with those between that change the file."""
        if address not in self._methods:
            base = _Methods.from_address(address)
            noted = _Methods.from_buffer_copy(base)
            noted.write = _WRITE(lambda *given: self._write(base, *given))
            noted.truncate = _TRUNCATE(lambda *given: self._truncate(base, *given))
            noted.sync = _SYNC(lambda file, _: self._sync(file))
            self._methods[address] = noted
        return self._methods[address]

    def _delete(self, _: int, path: int, sync: int) -> int:
        result: int = self._base.contents.delete(ctypes.addressof(self._base.contents), path, sync)
        name = Path(ctypes.string_at(path).decode()).name
        self.synced.pop(name, None)
        self._unsynced.pop(name, None)
        return result

    def _write(self, base: _Methods, file: int, data: int, size: int, offset: int) -> int:
        name = self._names[file]
        self._heard(name)
        self._unsynced[name].append((offset, ctypes.string_at(data, size)))
        return int(base.write(file, data, size, offset))

    def _truncate(self, base: _Methods, file: int, size: int) -> int:
        name = self._names[file]
        self._heard(name)
        self._unsynced[name].append((size, None))
        return int(base.truncate(file, size))

    def _sync(self, file: int) -> int:
        """Noted alone: what was synced is kept here, and nobody takes the power off the machine's own disk."""
        name = self._names[file]
        self._heard(name)
        for offset, data in self._unsynced.pop(name, []):
            if data is None:
                del self.synced[name][offset:]
            else:
                _put(self.synced[name], offset, data)
        return 0


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data
