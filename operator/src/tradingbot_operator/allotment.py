"""How an address's request weight is shared out among its bots by need; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from tradingbot_api.bot_http import FULL_PACE_WEIGHT, LEAST_WEIGHT

K = TypeVar("K")
SPARE_PART: Final = 10
"""A tenth of the budget is allotted to nobody: whoever comes gets its first part from it."""


@dataclass(frozen=True)
class Need:
    """What one bot needs of a minute's weight."""

    wanted: int
    """What it used and what waited, lately."""
    holding: bool
    """It holds a position, and looks after it at the usual pace."""


def carries(budget: int) -> int:
    """How many bots that hold nothing a budget is enough for."""
    return budget // LEAST_WEIGHT


def allot(budget: int, needs: Mapping[K, Need]) -> dict[K, int]:
    """The part of each bot; all parts together are at most the budget.

    First what each needs at least, then what lets those with a position and then all others work at their usual pace,
    then what each wanted, each in proportion where there is not enough; of the rest, all but a spare part equally.
    """
    parts = dict.fromkeys(needs, 0)
    left = budget
    for members, mark in (
        (needs, lambda _: LEAST_WEIGHT),
        ({key: need for key, need in needs.items() if need.holding}, lambda _: FULL_PACE_WEIGHT),
        (needs, lambda _: FULL_PACE_WEIGHT),
        (needs, lambda need: need.wanted),
    ):
        gaps = {key: gap for key, need in members.items() if (gap := mark(need) - parts[key]) > 0}
        total = sum(gaps.values())
        for key, gap in gaps.items():
            parts[key] += gap if total <= left else gap * left // total
        if total > left:
            return parts
        left -= total
    equal = max(0, left - budget // SPARE_PART) // max(1, len(parts))
    return {key: part + equal for key, part in parts.items()}
