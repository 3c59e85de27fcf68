"""Who reaches the exchange from one address, and what it demanded of that address; pure but for what is remembered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from tradingbot_operator.inventory import BotKey, SeenBot, SeenPod

DEFAULT_GROUP: Final = "default"
RETURN_WEIGHT: Final = 60
"""Of a bot that comes back from a wait: it connects its streams anew and compares its books."""
RETURN_PART: Final = 0.6
"""Of the limit, for those that come back; the rest is for what reduces risk."""
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class EgressGroup:
    """Bots whose pods have all of these labels in their nodeSelector leave the cluster from one address."""

    name: str
    node_selector: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> EgressGroup:
        """From NAME=key=value[,key=value]; ValueError."""
        name, _, labels = text.partition("=")
        pairs = [label.partition("=") for label in labels.split(",")]
        if not _NAME.fullmatch(name) or not all(key and equals for key, equals, _ in pairs):
            raise ValueError(f"expected NAME=key=value[,key=value] with a name such as nat-1, got {text!r}")
        return cls(name, {key: value for key, _, value in pairs})


class Address(NamedTuple):
    """One address at one exchange: what the exchange limits and bans."""

    exchange: str
    """As names.exchange_name has it."""
    group: str


def address_of(bot: SeenBot, pod: SeenPod | None, groups: Sequence[EgressGroup]) -> Address:
    """Where a bot's requests come from: the first group that its pod's nodeSelector (without a pod the spec's)
    contains; one default for all others."""
    selector = pod.node_selector if pod is not None else (bot.spec.get("pod") or {}).get("nodeSelector") or {}
    group = next((group.name for group in groups if group.node_selector.items() <= selector.items()), DEFAULT_GROUP)
    return Address(bot.exchange, group)


class ExchangeWaits:
    """Until when each address sends nothing, or each account no entry, as its bots told."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], datetime] = {}

    def tell(self, address: tuple[str, str], until: datetime, now: datetime) -> bool:
        """A bot told of a wait; whether it was not known, or only a shorter one."""
        if until <= now or ((known := self._until.get(address)) is not None and until <= known):
            return False
        self._until[address] = until
        return True

    def until(self, address: tuple[str, str], now: datetime) -> datetime | None:
        """Until when the bots of an address must send nothing; None where they may."""
        until = self._until.get(address)
        return until if until is not None and until > now else None


def turns(bots: Iterable[tuple[BotKey, bool]], until: datetime, weight_per_minute: int) -> dict[BotKey, float]:
    """How many seconds after the end of a wait each bot, of which is known whether it holds a position, may come back.

    Those that hold one come first; the order of the others differs from wait to wait. A limit of 0 is not kept.
    """
    if weight_per_minute == 0:
        return {}
    step = RETURN_WEIGHT / (weight_per_minute * RETURN_PART / 60)
    ordered = sorted(bots, key=lambda bot: (not bot[1], hashlib.sha256(f"{bot[0]} {until}".encode()).digest()))
    return {key: place * step for place, (key, _) in enumerate(ordered)}
