"""API keys: what one is, what it may do, and the public keys that requests are checked with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

USER_DATA: Final = "USER_DATA"
TRADE: Final = "TRADE"
WITHDRAW: Final = "WITHDRAW"
PERMISSIONS: Final = (USER_DATA, TRADE)
"""What a key may do unless told otherwise, by the kinds of signed calls; a key without TRADE is read-only."""
GRANTABLE: Final = (*PERMISSIONS, WITHDRAW)
"""What a key may be given: there is no call that withdraws, and `apiRestrictions` tells of a key that could."""

PublicKey = Ed25519PublicKey | RSAPublicKey


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is to be: signed with a secret (no public key) or a pair, for which calls, and from where."""

    public_key: str = ""
    """PEM of an Ed25519 or RSA public key, or empty."""
    permissions: tuple[str, ...] = PERMISSIONS
    addresses: tuple[str, ...] = ()
    """The IP addresses it may be used from; any when empty."""


ANY_USE: Final = KeyTerms()
"""Signed with a secret, for every call, from anywhere."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account, with its HMAC secret where it has no public key."""

    api_key: str
    uid: int
    secret: str = ""
    created_ms: int = 0
    terms: KeyTerms = ANY_USE

    def answer(self) -> dict[str, Any]:
        """What its owner is told, once."""
        told: dict[str, Any] = {"uid": self.uid, "apiKey": self.api_key}
        return told | {"secretKey": self.secret} if self.secret else told

    def describe(self) -> dict[str, Any]:
        """What may be shown of it at any time."""
        return {
            "apiKey": self.api_key,
            "type": self.kind,
            "permissions": list(self.terms.permissions),
            "ipAddresses": list(self.terms.addresses),
            "createTime": self.created_ms,
        }

    @property
    def kind(self) -> str:
        """HMAC, RSA or ED25519."""
        if self.secret:
            return "HMAC"
        return "RSA" if isinstance(read_public_key(self.terms.public_key), RSAPublicKey) else "ED25519"

    def used_from(self, address: str) -> bool:
        """Whether it may be used from this address."""
        return not self.terms.addresses or address in self.terms.addresses


@lru_cache(maxsize=1000)
def read_public_key(pem: str) -> PublicKey:
    """The key of a PEM; ValueError for what is no Ed25519 or RSA public key. Kept: reading costs more than a check."""
    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, (Ed25519PublicKey, RSAPublicKey)):
        raise ValueError(f"a public key of kind {type(key).__name__}")
    return key


def write_keys(folder: Path, api_key: str, secret: str) -> None:
    """Files apiKey and apiSecret, as a Secret that is mounted has them, in a folder that is made if needed."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, value in (("apiKey", api_key), ("apiSecret", secret)):
        file = folder / name
        file.touch(mode=0o600)
        file.write_text(value, encoding="utf-8")
