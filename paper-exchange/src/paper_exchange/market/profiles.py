"""What the generated market knows about each symbol: its grid, where its price begins, and how deep it is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from paper_exchange.market.events import SymbolUnknownError


@dataclass(frozen=True, slots=True)
class Profile:
    """`price` in quote, `tick` and `step` as in PRICE_FILTER and LOT_SIZE, `level_value` in quote per level."""

    price: Decimal
    tick: Decimal
    step: Decimal
    level_value: int


PROFILES = {
    "BTCUSDT": Profile(Decimal(60000), Decimal("0.01"), Decimal("0.00001"), 20_000),
    "ETHUSDT": Profile(Decimal(3000), Decimal("0.01"), Decimal("0.0001"), 15_000),
    "BNBUSDT": Profile(Decimal(600), Decimal("0.01"), Decimal("0.001"), 8_000),
    "SOLUSDT": Profile(Decimal(150), Decimal("0.01"), Decimal("0.001"), 8_000),
    "XRPUSDT": Profile(Decimal("2.5"), Decimal("0.0001"), Decimal("0.1"), 8_000),
    "BTCUSDC": Profile(Decimal(60000), Decimal("0.01"), Decimal("0.00001"), 12_000),
}


def profile_of(symbol: str) -> Profile:
    """The profile of a symbol, or SymbolUnknownError naming those there are."""
    try:
        return PROFILES[symbol]
    except KeyError:
        known = ", ".join(PROFILES)
        raise SymbolUnknownError(
            f"symbol: expected one of {known}, got {symbol!r}; start with symbols from this list"
        ) from None
