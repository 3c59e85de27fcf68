"""Who sends a request: API keys, signatures and timestamps, checked as Binance checks them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import unquote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from paper_exchange.core.errors import ExchangeError, illegal, missing
from paper_exchange.keys import ApiKey, read_public_key
from paper_exchange.time_units import microseconds

_KEY_FORMAT = re.compile(r"[A-Za-z0-9]{64}")
_STAMP = re.compile(r"[0-9]{1,20}")
_WINDOW = re.compile(r"[0-9]{1,8}(\.[0-9]{1,3})?")
_DEFAULT_WINDOW: Final = "5000"
_LONGEST_WINDOW: Final = 60_000_000
_AHEAD: Final = 1_000_000


def find_key(keys: Mapping[str, ApiKey], api_key: str | None) -> ApiKey:
    """The registered key; -2014 for one that is no key, -2015 for one nobody has."""
    if not api_key or not _KEY_FORMAT.fullmatch(api_key):
        raise ExchangeError(-2014, "API-key format invalid.", status=401)
    key = keys.get(api_key)
    if key is None:
        raise unauthorized()
    return key


def unauthorized() -> ExchangeError:
    """The key is nobody's, or may not be used like this."""
    return ExchangeError(-2015, "Invalid API-key, IP, or permissions for action.", status=401)


def check_time(params: Mapping[str, str], now_ms: int) -> None:
    """-1021 unless the request was signed within its window, which may have three decimals of a millisecond."""
    stamp = params.get("timestamp")
    if not stamp:
        raise missing("timestamp")
    if not _STAMP.fullmatch(stamp):
        raise illegal("timestamp", "^[0-9]{1,20}$")
    window_text = params.get("recvWindow", _DEFAULT_WINDOW)
    if not _WINDOW.fullmatch(window_text):
        raise illegal("recvWindow", "^[0-9]{1,8}(\\.[0-9]{1,3})?$")
    window = int(Decimal(window_text) * 1000)
    if window > _LONGEST_WINDOW:
        raise ExchangeError(-1131, "'recvWindow' must be less than 60000.")
    age = now_ms * 1000 - microseconds(int(stamp))
    if age <= -_AHEAD:
        raise ExchangeError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    if age > window:
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
    public_key = read_public_key(key.terms.public_key)
    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(public_key, RSAPublicKey):
            public_key.verify(raw, payload, PKCS1v15(), SHA256())
        else:
            public_key.verify(raw, payload)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def split_signature(raw: str) -> tuple[str, str | None]:
    """A raw query or form body without its signature, and the signature."""
    parts = raw.split("&") if raw else []
    signature = next((unquote(p.removeprefix("signature=")) for p in parts if p.startswith("signature=")), None)
    return "&".join(p for p in parts if not p.startswith("signature=")), signature
