"""Safe mode by an annotation on the pod, read from the file that the kubelet keeps: it needs no operator."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tradingbot_api import names

KEY: Final = names.SAFE_MODE_ANNOTATION.encode() + b"="
NOT_WISHED: Final = frozenset({b'""', b'"false"'})


def safe_mode_wished(annotations: bytes) -> bool:
    """Whether annotations, a line `key="escaped value"` each, ask for safe mode: any value but an empty one and false.

    A line break inside of a value is escaped, so a line begins with a key.
    """
    return any(
        line.startswith(KEY) and line.removeprefix(KEY).strip() not in NOT_WISHED for line in annotations.splitlines()
    )


class PodAnnotations:
    """Looks at the file; it is read only where the kubelet put another one in its place."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / names.ANNOTATIONS_FILE
        self._seen: object = None
        self._wished = False

    def safe_mode_wished(self) -> bool:
        """What the file says now; False where there is none, the last answer where it cannot be read."""
        try:
            stat = self._path.stat()
            mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if mark != self._seen:
                self._wished = safe_mode_wished(self._path.read_bytes())
                self._seen = mark
        except FileNotFoundError:
            self._seen, self._wished = None, False
        except OSError:
            pass
        return self._wished
