"""One symbol's book as a client keeps it: a REST snapshot, and depth events that begin where the last ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paper_exchange.market.events import Level


@dataclass(frozen=True, slots=True)
class BookChange:
    """Absolute quantities of levels; 0 removes one, a snapshot replaces the whole book."""

    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool


class BookGapError(Exception):
    """Depth events are missing: the book is unknown until a newer snapshot comes."""

    code = "BookGap"

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"expected a depth event that begins at update {expected}, got {got}")


class LocalBook:
    """Follows one book by Binance's rules (web-socket-streams.md, "How to manage a local order book correctly").

    Depth events up to the snapshot's id are dropped, the first that counts spans the id after it, and each one begins
    where the last ended; after a gap only a newer snapshot can go on. Data are as Binance sends them: KeyError,
    TypeError and ValueError tell that they are not.
    """

    def __init__(self) -> None:
        self.update_id: int | None = None
        """The last update that is in the book; None while there is none."""
        self._waiting: list[Mapping[str, Any]] = []

    def forget(self) -> None:
        """There is no book until the next snapshot."""
        self.update_id = None
        self._waiting = []

    def continues(self, event: Mapping[str, Any]) -> bool:
        """Whether a depth event can be taken without a gap."""
        return self.update_id is not None and event["U"] <= self.update_id + 1

    def snapshot(self, answer: Mapping[str, Any]) -> list[BookChange]:
        """The answer of GET depth with what came before it; nothing where the book is newer.

        BookGapError where the snapshot is older than the first event that waits for one: ask again.
        """
        last = answer["lastUpdateId"]
        if self.update_id is not None and last <= self.update_id:
            return []
        changes = [BookChange(levels(answer["bids"]), levels(answer["asks"]), True)]
        for event in self._waiting:
            if event["u"] > last:
                if event["U"] > last + 1:
                    raise BookGapError(last + 1, event["U"])
                last = event["u"]
                changes.append(_change(event))
        self.update_id, self._waiting = last, []
        return changes

    def event(self, event: Mapping[str, Any]) -> list[BookChange]:
        """A depth event; it waits where there is no snapshot yet. BookGapError where it does not continue the book."""
        if self.update_id is None:
            self._waiting.append(event)
            return []
        if event["u"] <= self.update_id:
            return []
        if not self.continues(event):
            expected = self.update_id + 1
            self.update_id, self._waiting = None, [event]
            raise BookGapError(expected, event["U"])
        change = _change(event)
        self.update_id = event["u"]
        return [change]


def _change(event: Mapping[str, Any]) -> BookChange:
    return BookChange(levels(event["b"]), levels(event["a"]), False)


def levels(raw: Sequence[Sequence[str]]) -> tuple[Level, ...]:
    """Price levels in units from Binance's decimal texts."""
    return tuple((_units(price), _units(quantity)) for price, quantity in raw)


def _units(text: str) -> int:
    """Units of a decimal text with at most 8 decimals, faster than by a Decimal; ValueError otherwise."""
    whole, _, part = text.partition(".")
    if len(part) > 8:
        raise ValueError(f"{text} has more than 8 decimals")
    return int(whole + part.ljust(8, "0"))
