"""Whether an exchange account has what all its bots claim of it: their positions, and their capitals by age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Context, Decimal
from typing import Final

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
DIGITS: Final = Context(prec=60)


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


class _Account:
    """The bots of one exchange account, and what they need in all: where that is there, nobody lacks anything.

    So a bot that tells something costs as much among a thousand others as alone.
    """

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        """By UID."""
        self._needed: dict[str, Decimal] = {}
        self._held: dict[str, tuple[float, Decimal]] = {}
        """When each asset was last heard of, and what there is of it."""
        self._short: set[str] = set()
        """Assets of which less is there than is needed."""
        self.lacking = False
        """Somebody lacks something."""

    def put(self, uid: str, member: Member | None) -> dict[str, Shortage] | None:
        """Takes what a bot told, or (None) drops it; what each one lacks now, None: nothing, as before."""
        former = self.members.pop(uid, None)
        if member is not None:
            self.members[uid] = member
        left, come = self._count(former, -1), self._count(member, 1)
        for asset in left - come:
            # What was last told of it is not told any more.
            self._held.pop(asset, None)
        for other in self.members.values() if left - come else filter(None, (member,)):
            for claim in _claims(other):
                if other.heard >= self._held.get(claim.asset, (float("-inf"),))[0]:
                    self._held[claim.asset] = other.heard, claim.held
        for asset in left | come:
            needed = self._needed[asset]
            enough = needed <= 0 or (asset in self._held and needed <= self._held[asset][1])
            (self._short.discard if enough else self._short.add)(asset)
        if not self._short and not self.lacking:
            return None
        found = judge(self.members.values())
        self.lacking = any(found.values())
        return found

    def _count(self, member: Member | None, sign: int) -> set[str]:
        """Counts its claims (or with -1 no more); the assets."""
        claims = _claims(member) if member is not None else []
        for claim in claims:
            needed = claim.claimed if member is not None and claim is member.base else max(claim.claimed, Decimal(0))
            self._needed[claim.asset] = DIGITS.add(self._needed.get(claim.asset, Decimal(0)), sign * needed)
        return {claim.asset for claim in claims}


def _claims(member: Member) -> list[AssetClaim]:
    return [claim for claim in (member.base, member.quote) if claim is not None]


class Coverage:
    """What is known of all accounts; each is judged anew when a bot of it tells something else."""

    def __init__(self) -> None:
        self._accounts: dict[object, _Account] = {}
        self._of: dict[str, object] = {}
        self._found: dict[str, Shortage] = {}
        """Of those that lack something, by UID."""

    def of(self, uid: str) -> Shortage:
        """What a bot lacks, as far as is known."""
        return self._found.get(uid, COVERED)

    def lacks(self, uid: str) -> bool:
        """Whether any bot of this one's account lacks something."""
        known = self._accounts.get(self._of.get(uid))
        return known is not None and known.lacking

    def see(self, account: object, member: Member) -> list[BotKey]:
        """Take what a bot told; the bots of its account for which something changed."""
        if self._of.get(member.uid, account) != account:
            self.forget(member.uid)
        self._of[member.uid] = account
        known = self._accounts.setdefault(account, _Account())
        return self._take(known, known.put(member.uid, member))

    def forget(self, uid: str) -> list[BotKey]:
        """A bot is gone; the bots of its account for which that changed something."""
        if uid not in self._of:
            return []
        account = self._of.pop(uid)
        known = self._accounts[account]
        self._found.pop(uid, None)
        changed = self._take(known, known.put(uid, None))
        if not known.members:
            del self._accounts[account]
        return changed

    def _take(self, known: _Account, found: Mapping[str, Shortage] | None) -> list[BotKey]:
        if found is None:
            return []
        changed = [known.members[uid].key for uid, shortage in found.items() if bool(shortage) != bool(self.of(uid))]
        for uid, shortage in found.items():
            if shortage:
                self._found[uid] = shortage
            else:
                self._found.pop(uid, None)
        return changed
