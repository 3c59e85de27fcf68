"""Fetches Binance's daily archives by name, checks them, and goes on where a download was cut off."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from paper_exchange.market.archive_files import ArchiveName
from paper_exchange.market.events import MarketError

_CHUNK: Final = 256 * 1024
_TIMEOUT_SECONDS: Final = 30
_CHECKSUM: Final = re.compile(rb"([0-9a-fA-F]{64})\s")

Progress = Callable[[str, int, int], None]
"""Told the name of a file, how many bytes of it are here, and how many it has."""


class FetchError(MarketError):
    """An archive cannot be fetched."""

    code = "FetchFailed"


def fetch(name: ArchiveName, directory: Path, base_url: str, progress: Progress) -> bool:
    """Put one archive into a directory; False where it was there already. FetchError says what to do.

    What came of it stays as `.part`: the next call asks for the rest. An archive has the published SHA-256.
    """
    target = directory / f"{name.stem}.zip"
    folder = name.kind if name.kind in ("trades", "aggTrades") else "klines"
    under = f"{name.symbol}/{name.kind}" if folder == "klines" else name.symbol
    url = f"{base_url.rstrip('/')}/data/spot/daily/{folder}/{under}/{target.name}"
    with _get(f"{url}.CHECKSUM") as answer:
        match = _CHECKSUM.match(answer.read(1024))
    if match is None:
        raise FetchError(f"{url}.CHECKSUM: expected a SHA-256 and the name of the file; check --base-url")
    wanted = match[1].decode().lower()
    if target.exists() and _sha256(target) == wanted:
        return False
    part = directory / f"{target.name}.part"
    resumed = part.exists()
    _download(url, part, target.name, progress)
    if resumed and _sha256(part) != wanted:  # the rest of another version, or what was here is broken
        part.unlink()
        _download(url, part, target.name, progress)
    if _sha256(part) != wanted:
        part.unlink()
        raise FetchError(f"{url}: expected the SHA-256 {wanted}, got another file; it was removed, fetch it again")
    part.replace(target)
    return True


def _download(url: str, part: Path, name: str, progress: Progress) -> None:
    """Get what is missing of a file."""
    here = part.stat().st_size if part.exists() else 0
    try:
        answer = _get(url, here)
    except _NothingMissingError:
        return
    with answer, part.open("ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file:
        here = file.tell()
        size = here + int(answer.headers.get("Content-Length") or 0)
        while chunk := _read(answer):
            file.write(chunk)
            here += len(chunk)
            progress(name, here, size)
    if here < size:
        raise FetchError(f"{url}: cut off after {here} of {size} bytes; fetch again, it goes on from there")


def _read(answer: http.client.HTTPResponse) -> bytes:
    """The next part of an answer, empty where there is no more or the connection ended."""
    try:
        return answer.read(_CHUNK)
    except (OSError, http.client.HTTPException):
        return b""


class _NothingMissingError(Exception):
    """All bytes of a file are here."""


def _get(url: str, first: int = 0) -> http.client.HTTPResponse:
    """The answer to a GET of what comes from a byte on."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-"} if first else {})  # noqa: S310, checked
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        error.close()
        if first and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise _NothingMissingError from error
        if error.code == http.HTTPStatus.NOT_FOUND:
            raise FetchError(
                f"{url}: not found; expected a symbol of Binance and a day before today: archives come on the day after"
            ) from error
        raise FetchError(f"{url}: answered {error.code} {error.reason}; fetch again later") from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(
            f"{url}: cannot be reached: {error}; check the network and --base-url, or put the files "
            "into the directory by hand"
        ) from error
    return answer


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
