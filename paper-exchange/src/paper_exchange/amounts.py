"""What people give to make an account, money and keys: checked, and turned into what the exchange keeps."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from paper_exchange.core.units import to_units


class ControlInvalidError(Exception):
    """A control request that is not understood; the message names the field, what was expected and what came."""

    code = "ControlInvalid"


def parse_deposits(deposits: object) -> dict[str, int]:
    """Units by asset from {"USDT": "10000"}; ControlInvalidError names the field."""
    if not isinstance(deposits, dict) or not deposits:
        raise ControlInvalidError(f'deposits: expected an object such as {{"USDT": "10000"}}, got {deposits!r}')
    result: dict[str, int] = {}
    for asset, amount in deposits.items():
        if not (isinstance(asset, str) and asset.isascii() and asset.isalnum() and asset == asset.upper()):
            raise ControlInvalidError(f"deposits: expected an asset such as USDT, got {asset!r}")
        result[asset] = positive_units(f"deposits.{asset}", amount)
    return result


def positive_units(name: str, amount: object) -> int:
    """Units of a decimal text above 0; ControlInvalidError names the field."""
    try:
        units = to_units(Decimal(amount)) if isinstance(amount, str) else 0
    except (InvalidOperation, ValueError, OverflowError):
        units = 0
    if units <= 0:
        raise ControlInvalidError(
            f'{name}: expected a decimal text above 0 with at most 8 decimals such as "10000.5", got {amount!r}'
        )
    return units


def check_public_key(pem: object) -> str:
    """An Ed25519 public key in PEM, or "" for none; ControlInvalidError for anything else."""
    refusal = f"publicKey: expected an Ed25519 public key in PEM (openssl pkey -pubout), got {str(pem)[:40]!r}"
    if not isinstance(pem, str):
        raise ControlInvalidError(refusal)
    if pem:
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ControlInvalidError(refusal) from error
        if not isinstance(key, Ed25519PublicKey):
            raise ControlInvalidError(refusal)
    return pem
