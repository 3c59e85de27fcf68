"""Who sends a request: API keys, signatures and timestamps, checked as Binance checks them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from paper_exchange.core.errors import ExchangeError, illegal, missing
from paper_exchange.store import ApiKey

_KEY_FORMAT = re.compile(r"[A-Za-z0-9]{64}")
_MICROSECONDS_FROM: Final = 10**14
_WINDOW = re.compile(r"[0-9]{1,8}(\.[0-9]{1,3})?")


def find_key(keys: Mapping[str, ApiKey], api_key: str | None) -> ApiKey:
    """The registered key; -2014 for one that is no key, -2015 for one nobody has."""
    if not api_key or not _KEY_FORMAT.fullmatch(api_key):
        raise ExchangeError(-2014, "API-key format invalid.", status=401)
    key = keys.get(api_key)
    if key is None:
        raise ExchangeError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)
    return key


def check_time(params: Mapping[str, str], now_ms: int) -> None:
    """-1021 unless the request was signed within its window; timestamps in ms or µs."""
    stamp = params.get("timestamp")
    if not stamp:
        raise missing("timestamp")
    if not stamp.isascii() or not stamp.isdigit():
        raise illegal("timestamp", "^[0-9]{1,20}$")
    sent = int(stamp) / 1000 if int(stamp) >= _MICROSECONDS_FROM else float(stamp)
    window_text = params.get("recvWindow", "5000")
    if not _WINDOW.fullmatch(window_text):
        raise illegal("recvWindow", "^[0-9]{1,8}(\\.[0-9]{1,3})?$")
    window = float(window_text)
    if window > 60_000:
        raise ExchangeError(-1131, "recvWindow must be less than 60000.")
    if sent >= now_ms + 1000:
        raise ExchangeError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if now_ms - sent > window:
        raise ExchangeError(-1021, "Timestamp for this request is outside of the recvWindow.")


def check_signature(key: ApiKey, payloads: Sequence[bytes], signature: str | None) -> None:
    """-1022 unless the signature is right for one of the payloads (which differ in their encoding only)."""
    if not signature:
        raise missing("signature")
    if not any(_verifies(key, payload, signature) for payload in payloads):
        raise ExchangeError(-1022, "Signature for this request is not valid.")


def _verifies(key: ApiKey, payload: bytes, signature: str) -> bool:
    if key.secret:
        wanted = hmac.new(key.secret.encode(), payload, hashlib.sha256).hexdigest()
        return hmac.compare_digest(wanted.encode(), signature.lower().encode())
    public_key = load_pem_public_key(key.public_key.encode())
    if not isinstance(public_key, Ed25519PublicKey):
        return False
    try:
        public_key.verify(base64.b64decode(signature, validate=True), payload)
    except (InvalidSignature, binascii.Error):
        return False
    return True


def split_signature(raw: str) -> tuple[str, str | None]:
    """A raw query or form body without its signature, and the signature."""
    parts = raw.split("&") if raw else []
    signature = next((unquote(p.removeprefix("signature=")) for p in parts if p.startswith("signature=")), None)
    return "&".join(p for p in parts if not p.startswith("signature=")), signature
