"""What people give to make and change an account, its money and keys: checked, and turned into what is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from ipaddress import ip_address
from typing import Any, Final

from paper_exchange.core.model import AccountSettings
from paper_exchange.core.rates import CommissionRates
from paper_exchange.core.symbols import STATUSES, SYMBOLS
from paper_exchange.core.units import LARGEST, SCALE, to_units
from paper_exchange.keys import GRANTABLE, PERMISSIONS, KeyTerms, read_public_key

DEFAULT_RATES: Final = "default"
"""The name of the rates of all symbols that have none of their own."""
_SETTINGS: Final = ("canTrade", "permissions", "maxAssets", "tradeGroupId", "commission")


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
    units = _units(amount)
    if units is None or not 0 < units <= LARGEST:
        raise ControlInvalidError(
            f'{name}: expected a decimal text above 0 with at most 8 decimals such as "10000.5", got {amount!r}'
        )
    return units


def _units(amount: object) -> int | None:
    """Units of a decimal text, None for anything else."""
    try:
        return to_units(Decimal(amount)) if isinstance(amount, str) else None
    except (InvalidOperation, ValueError, OverflowError):
        return None


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
    """Any of {"canTrade": false, "permissions": ["SPOT", "TRD_GRP_004"], "maxAssets": {"BTC": "2"}, "tradeGroupId": 7,
    "commission": {"default": {"standard": {"maker": "0.0002"}}}}."""
    if not _members("body", body, _SETTINGS):
        raise ControlInvalidError(f"body: expected an object with some of {', '.join(_SETTINGS)}, got none")
    can_trade = body.get("canTrade")
    if can_trade is not None and not isinstance(can_trade, bool):
        raise ControlInvalidError(f"canTrade: expected true or false, got {can_trade!r}")
    given, limits = body.get("permissions"), body.get("maxAssets")
    permissions = None if given is None else list(_texts("permissions", given, _is_group, "SPOT"))
    max_assets = limits if limits is None or limits == {} else _amounts("maxAssets", limits)
    group, rates = body.get("tradeGroupId"), body.get("commission")
    if group is not None and (type(group) is not int or not -1 <= group < 2**63):
        raise ControlInvalidError(f"tradeGroupId: expected a whole number such as 7, or -1 for none, got {group!r}")
    commission = None if rates is None else _commission(rates)
    return AccountSettings(can_trade, permissions, max_assets, group, commission)


def _commission(given: object) -> dict[str, CommissionRates]:
    """Rates by symbol, under "" those of every other; what is left out is as it is for a new account."""
    by_symbol = _members("commission", given, (DEFAULT_RATES, *SYMBOLS))
    return {
        "" if symbol == DEFAULT_RATES else symbol: _rates(f"commission.{symbol}", one)
        for symbol, one in by_symbol.items()
    }


def _rates(name: str, given: object) -> CommissionRates:
    usual = CommissionRates()
    changed: dict[str, Any] = {}
    for kind, value in _members(name, given, (*usual.parts(), "discount")).items():
        where = f"{name}.{kind}"
        if kind == "discount":
            changed[kind] = _share(where, value)
        else:
            part = _members(where, value, ("maker", "taker", "buyer", "seller"))
            shares = {who: _share(f"{where}.{who}", share) for who, share in part.items()}
            changed[kind] = replace(usual.parts()[kind], **shares)
    rates = replace(usual, **changed)
    if max(rates.full(maker=maker, buyer=buyer) for maker in (True, False) for buyer in (True, False)) > SCALE:
        raise ControlInvalidError(f"{name}: expected rates that are together at most 1, got {given!r}")
    return rates


def _share(name: str, given: object) -> int:
    units = _units(given)
    if units is None or not 0 <= units <= SCALE:
        raise ControlInvalidError(
            f'{name}: expected a decimal text from 0 to 1 with at most 8 decimals such as "0.001", got {given!r}'
        )
    return units


def _members(name: str, given: object, known: Sequence[str]) -> dict[str, object]:
    """An object that has none but known members."""
    if not isinstance(given, dict) or not all(member in known for member in given):
        raise ControlInvalidError(f"{name}: expected an object with some of {', '.join(known)}, got {given!r}")
    return given


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
    return given in GRANTABLE


def _is_group(given: str) -> bool:
    return given == "SPOT" or re.fullmatch(r"TRD_GRP_[0-9]{3}", given) is not None


def _is_address(given: str) -> bool:
    try:
        ip_address(given)
    except ValueError:
        return False
    return True
