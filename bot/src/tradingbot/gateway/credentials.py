"""The exchange keys, read from the files of a mounted Secret and never shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


class CredentialsMissingError(Exception):
    """A key file is missing or empty; the text names the file, never a value."""

    code: ClassVar[str] = "CredentialsMissing"


@dataclass(frozen=True, slots=True)
class Credentials:
    """HMAC keys, or an Ed25519 private key (PEM); hidden from repr."""

    api_key: str = field(repr=False)
    api_secret: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)


def load_credentials(directory: Path) -> Credentials:
    """Read apiKey and apiSecret, or apiKey and privateKey, from `directory`. CredentialsMissingError."""
    api_key, api_secret, private_key = (_read(directory / name) for name in ("apiKey", "apiSecret", "privateKey"))
    if api_key is None:
        raise CredentialsMissingError("the credentials have no apiKey: expected the keys apiKey and apiSecret")
    if api_secret is None and private_key is None:
        raise CredentialsMissingError("the credentials have neither apiSecret (HMAC) nor privateKey (Ed25519)")
    return Credentials(api_key, api_secret, private_key if api_secret is None else None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
