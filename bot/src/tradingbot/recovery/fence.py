"""The fence on the exchange: client ids that name the bot, its process start and the purpose of each order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LAST_SEQUENCE: Final = 36**6 - 1
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_PATTERN: Final = re.compile(r"tb-([a-z2-7]{10})-([0-9a-z]{7})-([0-9a-z]{6})-([a-z]{2})")


class Purpose(StrEnum):
    """What an order, list or cancel is for; two letters at the end of its client id."""

    ENTRY = "en"
    ENTRY_LIST = "el"
    TAKE_PROFIT = "tp"
    STOP_LOSS = "sl"
    PROTECTION_LIST = "pl"
    EXIT = "xt"
    CANCEL = "cx"
    ANNOUNCE = "an"


@dataclass(frozen=True, slots=True)
class ClientId:
    """A parsed client id."""

    key: str
    incarnation: int
    sequence: int
    purpose: Purpose

    def __str__(self) -> str:
        return f"tb-{self.key}-{_base36(self.incarnation, 7)}-{_base36(self.sequence, 6)}-{self.purpose.value}"


def parse(text: str) -> ClientId | None:
    """A client id of any bot; None where the order is not a bot's."""
    match = _PATTERN.fullmatch(text)
    if match is None:
        return None
    key, incarnation, sequence, purpose = match.groups()
    try:
        return ClientId(key, int(incarnation, 36), int(sequence, 36), Purpose(purpose))
    except ValueError:
        return None


def propose_incarnation(exchange_ms: int, *known: int) -> int:
    """The number of a new process start: the exchange's time in seconds, raised above every known one."""
    return max(exchange_ms // 1000, *(number + 1 for number in known))


class ClientIds:
    """Gives client ids of one incarnation; a sequence number is never given twice.

    `sequence` is where the numbers begin, drawn at random: two processes that start in the same second have the same
    incarnation, and must not give the same ids.
    """

    def __init__(self, key: str, incarnation: int, sequence: int) -> None:
        self.key = key
        self.incarnation = incarnation
        self.sequence = sequence
        self._first = sequence

    @property
    def used(self) -> bool:
        """Whether any was given."""
        return self.sequence > self._first

    def gave(self, client_id: ClientId) -> bool:
        """Whether these gave that id: no other process start has numbers of their range."""
        return client_id.incarnation == self.incarnation and self._first < client_id.sequence <= self.sequence

    def next_sequence(self) -> int:
        """A new sequence number; the orders of one request share it."""
        self.sequence += 1
        return self.sequence

    def make(self, sequence: int, purpose: Purpose) -> str:
        """The client id of that sequence number and purpose."""
        return str(ClientId(self.key, self.incarnation, sequence, purpose))


def _base36(number: int, width: int) -> str:
    if not 0 <= number < 36**width:
        raise ValueError(f"expected a number below 36^{width}, got {number}")
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits.rjust(width, "0")
