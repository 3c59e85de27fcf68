"""Which of several operators serves what: each sees all TradingBots and works on those of its own label."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from tradingbot_operator.inventory import BotKey, SeenBot

LONGEST_NAME: Final = 20
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")

Account = tuple[str, str]
"""An exchange, as names.exchange_name makes it, and an account's uid there."""


def parse_name(text: str) -> str:
    """The name of a shard; ValueError."""
    if len(text) > LONGEST_NAME or not _NAME.fullmatch(text):
        raise ValueError(f"expected at most {LONGEST_NAME} of a-z, 0-9 and - (not at an end), such as a; got {text!r}")
    return text


class Labelled(Protocol):
    """An object that may be of a shard."""

    @property
    def shard(self) -> str:
        """What its label says; empty where it has none."""


@dataclass(frozen=True)
class Shard:
    """What one operator serves. With a `name` the objects of that label; without one, as the main operator, all whose
    label names none of the `others`, so that a label which nobody knows leaves no bot unserved."""

    name: str = ""
    others: frozenset[str] = frozenset()

    @property
    def alone(self) -> bool:
        """Whether it knows of no other operator: it serves everything."""
        return not self.name and not self.others

    @property
    def is_main(self) -> bool:
        """Whether it keeps what is of all shards, as the status of a kill switch."""
        return not self.name

    def serves(self, seen: Labelled) -> bool:
        """Whether a TradingBot, its set or its pod is this operator's to work on; asked wherever work begins."""
        return seen.shard == self.name if self.name else seen.shard not in self.others


ALONE: Final = Shard()


def account_of(bot: SeenBot, account_uid: str | None) -> Account | None:
    """The account that a TradingBot trades on; None where it is not known."""
    if not account_uid or not bot.spec.get("exchange") or "symbol" not in bot.spec:
        return None
    return bot.exchange, account_uid


class OtherShards:
    """Which TradingBots of other operators are on which account, by their statuses.

    `changed` is called for an account that came to be split over operators, or is no more.
    """

    def __init__(self, shard: Shard, changed: Callable[[Account], None]) -> None:
        self._shard = shard
        self._changed = changed
        self._account_of: dict[BotKey, Account] = {}
        self._bots: dict[Account, set[BotKey]] = {}

    def follow(self, before: SeenBot | None, after: SeenBot | None) -> None:
        """A TradingBot is another than before; `inventory.Inventory.followers`."""
        seen = after or before
        if seen is None:
            return
        foreign = after is not None and not self._shard.serves(after)
        account = account_of(after, after.told.account_uid) if after is not None and foreign else None
        former = self._account_of.get(seen.key)
        if account == former:
            return
        if former is not None:
            del self._account_of[seen.key]
            self._bots[former].discard(seen.key)
            if not self._bots[former]:
                del self._bots[former]
                self._changed(former)
        if account is not None:
            self._account_of[seen.key] = account
            bots = self._bots.setdefault(account, set())
            bots.add(seen.key)
            if len(bots) == 1:
                self._changed(account)

    def on(self, account: Account | None) -> list[BotKey]:
        """TradingBots of other operators on an account."""
        return sorted(self._bots.get(account, ())) if account is not None else []
