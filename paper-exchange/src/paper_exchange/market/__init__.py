"""Where market data comes from: generated, or replayed from a recording or an archive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from paper_exchange.market.archive import ArchiveMarket
from paper_exchange.market.capture import CaptureMarket
from paper_exchange.market.events import Market, MarketSpecInvalidError
from paper_exchange.market.moods import MOODS, USUAL
from paper_exchange.market.repeated import Recorded, RepeatedMarket
from paper_exchange.market.synthetic import SyntheticMarket

_Open = Callable[[Path, Sequence[str], Callable[[str], Random], int], Recorded]
_RECORDED: Final[dict[str, _Open]] = {"capture": CaptureMarket, "archive": ArchiveMarket}


def open_market(spec: str, symbols: Sequence[str], seed: int, start_ms: int, *, loop: bool = False) -> Market:
    """The market that `spec` names, `synthetic[:MOOD]`, `capture:DIR` or `archive:DIR`, beginning at `start_ms` (ms).

    A recording ends, or begins again and again where it is to `loop`. The same arguments give the same market, and a
    symbol's data do not depend on the other symbols. MarketError says what is wrong with
    the spec, the symbols or the recording.
    """

    def randomness(name: str) -> Random:
        return Random(f"{seed}/{name}")  # noqa: S311, a market to be repeated is the aim

    kind, colon, what = spec.partition(":")
    if spec == "synthetic" or (kind == "synthetic" and what in MOODS):
        return SyntheticMarket(symbols, randomness, start_ms, MOODS[what] if colon else USUAL)
    if kind in _RECORDED and what:
        recorded = _RECORDED[kind](Path(what), symbols, randomness, start_ms)
        return RepeatedMarket(recorded, start_ms) if loop else recorded
    raise MarketSpecInvalidError(
        f"market: expected `synthetic`, `synthetic:{'|'.join(MOODS)}`, `capture:DIR`, `archive:DIR` or "
        f"`live:BASE_URL`, got {spec!r}; for a recording, name its directory"
    )
