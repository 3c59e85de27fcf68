"""Money as integers: every price, quantity and amount is a count of 1e-8 units inside the core."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from paper_exchange.core.errors import ExchangeError, illegal, overflowed

SCALE: Final = 10**8
LARGEST: Final = 2**63 - 1
"""Numbers on the wire are at most this, decimals in units."""
_DECIMAL = re.compile(r"([0-9]{1,20})(\.[0-9]{1,20})?")
DECIMAL_PATTERN: Final = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"


def to_units(amount: Decimal) -> int:
    """Units of a Decimal that has at most 8 decimals; ValueError otherwise."""
    scaled = amount * SCALE
    units = int(scaled)
    if units != scaled:
        raise ValueError(f"{amount} has more than 8 decimals")
    return units


def parse_units(name: str, text: str) -> int:
    """Units of a decimal parameter; -1100 for anything but a plain decimal, -1111 for more than 8 decimals."""
    if not _DECIMAL.fullmatch(text):
        raise illegal(name, DECIMAL_PATTERN)
    try:
        units = to_units(Decimal(text))
    except ValueError as error:
        raise ExchangeError(-1111, f"Parameter '{name}' has too much precision.") from error
    if units > LARGEST:
        raise overflowed(name)
    return units


def to_decimal(units: int) -> Decimal:
    """The Decimal value of a count of units."""
    return Decimal(units) / SCALE


def text(units: int) -> str:
    """A count of units as Binance writes it: a plain decimal with eight decimals."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), SCALE)
    return f"{sign}{whole}.{part:08d}"


def product(price: int, quantity: int) -> int:
    """Price times quantity in units, cut to 8 decimals (exact where tick x step is not finer than 1e-8)."""
    return price * quantity // SCALE
