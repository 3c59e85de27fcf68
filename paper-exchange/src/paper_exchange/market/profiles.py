"""What the generated market knows about each symbol: its grid, where its price begins, and how deep it is."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import to_decimal
from paper_exchange.market.events import SymbolUnknownError


@dataclass(frozen=True, slots=True)
class Profile:
    """`price` in quote, `tick` and `step` as in PRICE_FILTER and LOT_SIZE, `level_value` in quote per level."""

    price: Decimal
    tick: Decimal
    step: Decimal
    level_value: int


_OTHERS: Final = {
    "ADAUSDT": "0.8",
    "DOGEUSDT": "0.2",
    "TRXUSDT": "0.3",
    "LINKUSDT": "18",
    "LTCUSDT": "100",
    "BCHUSDT": "500",
    "AVAXUSDT": "35",
    "UNIUSDT": "9",
    "ATOMUSDT": "4.5",
    "DOTUSDT": "5",
    "XLMUSDT": "0.35",
    "ETCUSDT": "25",
    "FILUSDT": "4",
    "NEARUSDT": "4",
    "APTUSDT": "6",
    "ARBUSDT": "0.5",
    "OPUSDT": "0.8",
    "ICPUSDT": "6",
    "AAVEUSDT": "280",
    "ALGOUSDT": "0.22",
    "HBARUSDT": "0.2",
    "SUIUSDT": "3.5",
    "INJUSDT": "13",
    "GRTUSDT": "0.25",
    "SANDUSDT": "0.4",
    "MANAUSDT": "0.4",
    "AXSUSDT": "5",
    "THETAUSDT": "2",
    "EGLDUSDT": "30",
    "RUNEUSDT": "4",
    "CRVUSDT": "0.75",
    "LDOUSDT": "1.1",
    "IMXUSDT": "0.6",
    "DYDXUSDT": "0.7",
    "SNXUSDT": "2",
    "COMPUSDT": "60",
    "ZECUSDT": "50",
    "DASHUSDT": "30",
    "NEOUSDT": "8",
    "QTUMUSDT": "3",
    "KSMUSDT": "30",
    "GALAUSDT": "0.03",
    "FETUSDT": "0.7",
    "TIAUSDT": "3",
    "SEIUSDT": "0.35",
}
"""Where the prices of the further symbols begin."""

PROFILES = {
    "BTCUSDT": Profile(Decimal(60000), Decimal("0.01"), Decimal("0.00001"), 20_000),
    "ETHUSDT": Profile(Decimal(3000), Decimal("0.01"), Decimal("0.0001"), 15_000),
    "BNBUSDT": Profile(Decimal(600), Decimal("0.01"), Decimal("0.001"), 8_000),
    "SOLUSDT": Profile(Decimal(150), Decimal("0.01"), Decimal("0.001"), 8_000),
    "XRPUSDT": Profile(Decimal("2.5"), Decimal("0.0001"), Decimal("0.1"), 8_000),
    "BTCUSDC": Profile(Decimal(60000), Decimal("0.01"), Decimal("0.00001"), 12_000),
} | {
    symbol: Profile(Decimal(price), to_decimal(SYMBOLS[symbol].tick), to_decimal(SYMBOLS[symbol].step), 8_000)
    for symbol, price in _OTHERS.items()
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
