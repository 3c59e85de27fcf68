"""What people give to make an account, money and keys: checked, and turned into what the exchange keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address

from paper_exchange.core.model import AccountSettings
from paper_exchange.core.symbols import STATUSES
from paper_exchange.core.units import to_units
from paper_exchange.keys import PERMISSIONS, KeyTerms, read_public_key


class ControlInvalidError(Exception):
    """A control request that is not understood; the message names the field, what was expected and what came."""

    code = "ControlInvalid"


def parse_deposits(deposits: object, name: str = "deposits") -> dict[str, int]:
    """Units by asset from {"USDT": "10000"}; ControlInvalidError names the field."""
    return _amounts(name, deposits)


def _amounts(name: str, given: object) -> dict[str, int]:
    if not isinstance(given, dict) or not given:
        raise ControlInvalidError(f'{name}: expected an object such as {{"USDT": "10000"}}, got {given!r}')
    result: dict[str, int] = {}
    for asset, amount in given.items():
        if not (isinstance(asset, str) and asset.isascii() and asset.isalnum() and asset == asset.upper()):
            raise ControlInvalidError(f"{name}: expected an asset such as USDT, got {asset!r}")
        result[asset] = positive_units(f"{name}.{asset}", amount)
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


def parse_terms(body: Mapping[str, object]) -> KeyTerms:
    """The terms of a key from {"publicKey": PEM, "permissions": [...], "ipAddresses": [...]}, all optional."""
    public_key = body.get("publicKey", "")
    if public_key:
        try:
            if not isinstance(public_key, str):
                raise ValueError
            read_public_key(public_key)
        except ValueError as error:
            raise ControlInvalidError(
                "publicKey: expected an Ed25519 or RSA public key in PEM (openssl pkey -pubout), "
                f"got {str(public_key)[:40]!r}"
            ) from error
    permissions = _texts("permissions", body.get("permissions", list(PERMISSIONS)), _is_permission, "USER_DATA")
    addresses = _texts("ipAddresses", body.get("ipAddresses", []), _is_address, "127.0.0.1")
    return KeyTerms(str(public_key or ""), permissions, addresses)


def parse_settings(body: Mapping[str, object]) -> AccountSettings:
    """Any of {"canTrade": false, "permissions": ["SPOT", "TRD_GRP_004"], "maxAssets": {"BTC": "2"}}."""
    can_trade = body.get("canTrade")
    if can_trade is not None and not isinstance(can_trade, bool):
        raise ControlInvalidError(f"canTrade: expected true or false, got {can_trade!r}")
    given, limits = body.get("permissions"), body.get("maxAssets")
    permissions = None if given is None else list(_texts("permissions", given, _is_group, "SPOT"))
    if can_trade is None and given is None and limits is None:
        raise ControlInvalidError(f"body: expected some of canTrade, permissions, maxAssets, got {sorted(body)!r}")
    max_assets = limits if limits is None or limits == {} else _amounts("maxAssets", limits)
    return AccountSettings(can_trade, permissions, max_assets)


def parse_status(body: Mapping[str, object]) -> str:
    """The trading status of a symbol from {"status": "HALT"}."""
    status = body.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise ControlInvalidError(f"status: expected one of {', '.join(STATUSES)}, got {status!r}")
    return status


def _texts(name: str, given: object, valid: Callable[[str], bool], example: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(one, str) and valid(one) for one in given):
        raise ControlInvalidError(f'{name}: expected a list such as ["{example}"], got {given!r}')
    return tuple(dict.fromkeys(given))


def _is_permission(given: str) -> bool:
    return given in PERMISSIONS


def _is_group(given: str) -> bool:
    return given == "SPOT" or re.fullmatch(r"TRD_GRP_[0-9]{3}", given) is not None


def _is_address(given: str) -> bool:
    try:
        ip_address(given)
    except ValueError:
        return False
    return True
