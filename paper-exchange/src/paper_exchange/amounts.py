"""Amounts of money as people type them: checked, and turned into units."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

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
