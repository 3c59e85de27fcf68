"""Whether an exchange account has what all its bots claim of it: their positions, and their capitals by age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from tradingbot_api.base import canonical
from tradingbot_api.bot_http import AssetClaim
from tradingbot_operator.inventory import BotKey


@dataclass(frozen=True)
class Member:
    """A bot of an account and what it claims, as it last told."""

    key: BotKey
    uid: str
    born: tuple[object, ...]
    """Orders bots by age, the oldest first."""
    base: AssetClaim | None
    quote: AssetClaim | None
    heard: float


@dataclass(frozen=True)
class Shortage:
    """Why a bot sends no entries; empty where it has what it claims."""

    position: str = ""
    capital: str = ""

    def __bool__(self) -> bool:
        return bool(self.position or self.capital)


COVERED = Shortage()


def judge(members: Iterable[Member]) -> dict[str, Shortage]:
    """What each bot of one account lacks, by UID; pure.

    Positions are there or not, so whose it is that lacks cannot be said: all that hold the asset are told. Of capitals
    those count first that are older.
    """
    bots = sorted(members, key=lambda member: member.born)
    held: dict[str, tuple[float, Decimal]] = {}
    taken: dict[str, Decimal] = {}
    tolerated: dict[str, Decimal] = {}
    for bot in bots:
        for claim in (bot.base, bot.quote):
            if claim is not None and bot.heard >= held.get(claim.asset, (float("-inf"),))[0]:
                held[claim.asset] = bot.heard, claim.held
        if bot.base is not None:
            taken[bot.base.asset] = taken.get(bot.base.asset, Decimal(0)) + bot.base.claimed
            tolerated[bot.base.asset] = tolerated.get(bot.base.asset, Decimal(0)) + bot.base.least
    found = {bot.uid: COVERED for bot in bots}
    for bot in bots:
        base = bot.base
        if base is None or base.claimed <= 0:
            continue
        has, claimed = held[base.asset][1], taken[base.asset]
        if claimed - has > tolerated[base.asset]:
            message = _message(base.asset, "positions of its bots", claimed, has)
            found[bot.uid] = replace(found[bot.uid], position=f"{message} See each bot's BalanceSynced.")
    for bot in bots:
        if bot.quote is None:
            continue
        asset, has = bot.quote.asset, held[bot.quote.asset][1]
        taken[asset] = taken.get(asset, Decimal(0)) + max(bot.quote.claimed, Decimal(0))
        if taken[asset] > has:
            message = _message(asset, "capitals of this bot and older ones", taken[asset], has)
            found[bot.uid] = replace(found[bot.uid], capital=f"{message} Deposit, or lower spec.capital.")
    return found


def _message(asset: str, what: str, claimed: Decimal, has: Decimal) -> str:
    return f"The account has {canonical(has)} {asset}, the {what} need {canonical(claimed)}."


class Coverage:
    """What is known of all accounts; each is judged anew when a bot of it tells something else."""

    def __init__(self) -> None:
        self._accounts: dict[object, dict[str, Member]] = {}
        self._of: dict[str, object] = {}
        self._found: dict[str, Shortage] = {}

    def of(self, uid: str) -> Shortage:
        """What a bot lacks, as far as is known."""
        return self._found.get(uid, COVERED)

    def lacks(self, uid: str) -> bool:
        """Whether any bot of this one's account lacks something."""
        return any(self._found.get(other) for other in self._accounts.get(self._of.get(uid), {}))

    def see(self, account: object, member: Member) -> list[BotKey]:
        """Take what a bot told; the bots of its account for which something changed."""
        if self._of.get(member.uid, account) != account:
            self.forget(member.uid)
        self._of[member.uid] = account
        self._accounts.setdefault(account, {})[member.uid] = member
        return self._judge(account)

    def forget(self, uid: str) -> list[BotKey]:
        """A bot is gone; the bots of its account for which that changed something."""
        if uid not in self._of:
            return []
        account = self._of.pop(uid)
        del self._accounts[account][uid]
        self._found.pop(uid, None)
        changed = self._judge(account)
        if not self._accounts[account]:
            del self._accounts[account]
        return changed

    def _judge(self, account: object) -> list[BotKey]:
        members = self._accounts[account]
        found = judge(members.values())
        changed = [members[uid].key for uid, shortage in found.items() if bool(shortage) != bool(self.of(uid))]
        self._found |= found
        return changed
