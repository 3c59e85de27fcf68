"""Who waits with whom: bots that reach the exchange from one address share what it demands of one of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tradingbot_operator.inventory import SeenBot

Group = tuple[str, str, str]
"""Environment, address of a paper exchange, and the name that the specs give their common address."""


def group_of(spec: Mapping[str, Any]) -> Group | None:
    """The egress group of a spec; None where it names none."""
    exchange = spec.get("exchange") or {}
    name = exchange.get("egressGroup")
    return (exchange.get("environment", ""), exchange.get("baseURL", ""), name) if name else None


class EgressWaits:
    """Until when each group sends nothing, as its bots told."""

    def __init__(self) -> None:
        self._until: dict[Group, datetime] = {}

    def tell(self, bot: SeenBot, until: datetime | None) -> bool:
        """The exchange demanded of a bot to wait so long; whether its group did not know yet."""
        group = group_of(bot.spec)
        if group is None or until is None:
            return False
        known = self._until.get(group)
        if known is not None and until <= known:
            return False
        self._until[group] = until
        return True

    def until(self, bot: SeenBot, now: datetime) -> datetime | None:
        """Until when a bot must send nothing; None where it may."""
        group = group_of(bot.spec)
        until = self._until.get(group) if group is not None else None
        return until if until is not None and until > now else None


def same_group(bots: Iterable[SeenBot], bot: SeenBot) -> list[SeenBot]:
    """The others that share a bot's address."""
    group = group_of(bot.spec)
    return [other for other in bots if other.key != bot.key and group is not None and group_of(other.spec) == group]
