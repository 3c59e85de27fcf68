"""Whether an exchange account is what the fills of all its bots made of it, and what it had besides, exactly.

What is no bot's, the rest, is what the account has less what the fills of its bots changed there. It changes only by
deposits, withdrawals and trades of others, which the bots' user streams tell. The bots speak at different times, so
they are compared only at quiet moments, and a difference counts only once it stood for long.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Context, Decimal, localcontext
from typing import Final

from tradingbot_api import names
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import STALE_AFTER_SECONDS, AccountBooks
from tradingbot_operator.inventory import BotKey

APART: Final = timedelta(seconds=120)
"""A difference counts once every bot has read the account again so much later: two of its rounds, and longer than a
user stream may be dead without being noticed."""
QUIET_SECONDS: Final = 1.0
"""Every bot told again so long after the last news of any: what the exchange tells reaches all bots sooner."""
EQUAL_LIFE_SECONDS: Final = 180.0
"""An account counts as compared for three rounds of its bots."""
JUDGE_SECONDS: Final = 1.0
"""An account is looked at so often at most."""
UNTRUSTED_BOOKS: Final = "untrusted-books"
"""Cleared by a human who takes the account's word."""
ADVICE: Final = (
    "; put it back, or, once you know where it went, take the account's word: annotate one of its TradingBots "
    f"{names.CLEAR_ANNOTATION}={UNTRUSTED_BOOKS}"
)
DIGITS: Final = Context(prec=60)

Amounts = Mapping[str, Decimal]
"""By asset."""


@dataclass(frozen=True)
class View:
    """What a bot last told of its account; `heard` is of the operator's clock, in seconds."""

    uid: str
    key: str
    """In the client ids of its orders."""
    base: str
    boot_id: str
    books: AccountBooks
    heard: float

    @property
    def listening(self) -> tuple[str, int] | None:
        """Names the time since which it heard everything; None where it may have missed something."""
        since = self.books.listening_since
        return None if since is None else (self.boot_id, since)

    def says_as(self, other: View) -> bool:
        """Whether it tells the same, but for when it read the account."""
        mine = self.books.model_copy(update={"compared_time": other.books.compared_time})
        return (self.boot_id, mine) == (other.boot_id, other.books)

    @property
    def assets(self) -> set[str]:
        """What it holds or has traded."""
        return {*self.books.held, *self.books.flows}


@dataclass(frozen=True)
class Mark:
    """A quiet moment at which the account was as it should be, or was taken as it was."""

    rest: Amounts
    views: Mapping[str, View]
    gaps: frozenset[str] = frozenset()
    """Keys of bots that joined since with fills: some of these may be younger than the mark."""

    def with_flows(self, books: AccountBooks, sign: int) -> dict[str, Decimal]:
        """The rest where what those fills changed counts as no bot's, or (-1) no longer does."""
        with localcontext(DIGITS):
            return {asset: rest + sign * books.flows.get(asset, Decimal(0)) for asset, rest in self.rest.items()}

    def joined(self, view: View) -> Mark:
        """With one more bot: what its fills changed until now was no bot's before."""
        gaps = self.gaps | {view.key} if view.books.fills else self.gaps
        return Mark(self.with_flows(view.books, -1), {**self.views, view.uid: view}, gaps)

    def left(self, view: View) -> Mark:
        """Without a bot: what its fills changed is no bot's from now on."""
        views = {uid: other for uid, other in self.views.items() if uid != view.uid}
        return Mark(self.with_flows(view.books, 1), views, self.gaps)


def rest_of(views: Iterable[View]) -> dict[str, Decimal] | None:
    """What of each asset is no bot's; None while the bots do not agree on what is there. Pure."""
    held: dict[str, Decimal] = {}
    rounded: set[str] = set()
    flows: dict[str, Decimal] = {}
    for view in views:
        rounded.update(view.books.rounded)
        _add(flows, view.books.flows)
        for asset, amount in view.books.held.items():
            if held.setdefault(asset, amount) != amount:
                return None
    nothing = Decimal(0)
    return {
        asset: DIGITS.subtract(amount, flows.get(asset, nothing))
        for asset, amount in held.items()
        if asset not in rounded
    }


def difference_of(mark: Mark, rest: Amounts, views: Mapping[str, View]) -> dict[str, Decimal]:
    """How the rest differs from what it should be since the mark (below 0: something lacks). Pure.

    Of what several bots heard to come or go that counts which explains most: one of them may have missed some of it.
    """
    with localcontext(DIGITS):
        changed = {asset: rest[asset] - before for asset, before in mark.rest.items() if asset in rest}
        told = {
            frozenset(_sum(now.books.moved, {asset: -amount for asset, amount in then.books.moved.items()}).items())
            for then, now in _witnesses(mark, views)
        }
        found = [
            {asset: amount for asset, total in changed.items() if (amount := total - moved.get(asset, Decimal(0)))}
            for moved in map(dict, told or {frozenset()})
        ]
    return min(found, key=len)


def all_told(mark: Mark, views: Mapping[str, View]) -> bool:
    """Whether a bot heard all since the mark, and nobody but the bots traded: nothing known changes the rest. Pure."""
    witnesses = _witnesses(mark, views)
    known = {view.key for view in views.values()} - mark.gaps
    return bool(witnesses) and not any(_others_traded(then.books, now.books, known) for then, now in witnesses)


def _witnesses(mark: Mark, views: Mapping[str, View]) -> list[tuple[View, View]]:
    """Bots that heard all that the exchange told since the mark, as they were then and as they are."""
    pairs = ((mark.views.get(uid), now) for uid, now in views.items())
    return [
        (then, now)
        for then, now in pairs
        if then is not None and then.listening is not None and then.listening == now.listening
    ]


def _others_traded(then: AccountBooks, now: AccountBooks, known: set[str]) -> bool:
    return now.trades_by_hand != then.trades_by_hand or any(
        count != then.trades_by_bots.get(key, 0) for key, count in now.trades_by_bots.items() if key not in known
    )


def _add(total: dict[str, Decimal], amounts: Amounts) -> None:
    for asset, amount in amounts.items():
        total[asset] = DIGITS.add(total.get(asset, Decimal(0)), amount)


def _sum(left: Amounts, right: Amounts) -> dict[str, Decimal]:
    with localcontext(DIGITS):
        total = {asset: left.get(asset, Decimal(0)) + right.get(asset, Decimal(0)) for asset in {**left, **right}}
    return {asset: amount for asset, amount in total.items() if amount}


@dataclass(frozen=True)
class Kept:
    """What the status of a bot tells of its account, for an operator that begins."""

    rest: Amounts = field(default_factory=dict)
    differs: str = ""
    """Why the account was not as it should be."""
    equal: bool = False


@dataclass(frozen=True)
class Standing:
    """What is said of its account to a bot. `equal`: as it should be; `differs`: more than a lack that is explained."""

    equal: bool
    differs: bool = False
    message: str = ""
    unexplained: Amounts = field(default_factory=dict)
    others_hold_base: bool = False
    """What of its base is not its own is other bots', and its books lack nothing."""


@dataclass(frozen=True)
class _Doubt:
    difference: Amounts
    read: Mapping[str, datetime | None]
    """When each bot had last read the account as it was first seen."""

    def stood(self, views: Mapping[str, View]) -> bool:
        """Whether every bot has read the account again since, long after."""
        reads = [(self.read.get(uid), view.books.compared_time) for uid, view in views.items()]
        return all(then is not None and now is not None and now - then >= APART for then, now in reads)


class Account:
    """The bots of one exchange account, and what was found of it."""

    def __init__(self, begun: float) -> None:
        self.bots: dict[str, BotKey] = {}
        """By UID; all that are known to be of the account."""
        self.views: dict[str, View] = {}
        self.kept: dict[str, Kept] = {}
        self.differed: dict[str, str] = {}
        """Why it was not as it should be, of those whose status tells so."""
        self.mark: Mark | None = None
        self.unexplained: Amounts = {}
        """What came to the rest, or went, and nobody told of."""
        self.differs = False
        """Of that something lacks although a bot would have heard of it."""
        self._doubt: _Doubt | None = None
        self._concerned: Counter[str] = Counter()
        """How many bots hold or have traded each asset."""
        self._changed = self._equal = self._begun = begun
        self._judged = begun - JUDGE_SECONDS

    def expect(self, uid: str, kept: Kept) -> None:
        """A bot that has not told anything yet; `kept` is what its status tells."""
        self.kept[uid] = kept
        if kept.differs:
            self.differed[uid] = kept.differs

    def tell(self, view: View) -> None:
        """A bot told."""
        former = self.views.get(view.uid)
        self.views[view.uid] = view
        self._concern(former, view)
        if former is None or not view.says_as(former):
            self._changed = view.heard
        if self.mark is None:
            return
        then = self.mark.views.get(view.uid)
        if then is None:
            self.mark = self.mark.joined(view)
        elif view.books.fills < then.books.fills:
            self.mark = None  # books that began anew say nothing of what was before
            self.take_as_it_is()

    def drop(self, uid: str) -> None:
        """A bot is not of the account any more."""
        self.bots.pop(uid, None)
        self.kept.pop(uid, None)
        self.differed.pop(uid, None)
        last = self.views.pop(uid, None)
        self._concern(last, None)
        if self.mark is not None and last is not None and uid in self.mark.views:
            self.mark = self.mark.left(last)
            self._explain(self.unexplained, {asset for view in self.views.values() for asset in view.books.held})

    def _concern(self, former: View | None, view: View | None) -> None:
        self._concerned.subtract(former.assets if former is not None else ())
        self._concerned.update(view.assets if view is not None else ())

    def _explain(self, unexplained: Amounts, assets: Iterable[str]) -> None:
        """Keep what is unexplained of the assets that are still compared."""
        self.unexplained = {asset: unexplained[asset] for asset in assets if asset in unexplained}
        self.differs = self.differs and bool(self.unexplained)

    def take_as_it_is(self) -> None:
        """What is there is right."""
        self.unexplained, self.differs, self.kept, self.differed, self._doubt = {}, False, {}, {}, None

    def judge(self, now: float) -> bool:
        """Look whether it is as it should be; whether that changed what is said of it."""
        if now - self._judged < JUDGE_SECONDS or not self._quiet(now):
            return False
        self._judged = now
        before = self.mark is None, self.unexplained, self.differs
        if self.mark is None:
            self._begin(now)
        else:
            self._compare(self.mark, now)
        return before != (self.mark is None, self.unexplained, self.differs)

    def _quiet(self, now: float) -> bool:
        views = self.views
        return len(views) == len(self.bots) and all(
            view.books.settled
            and now - view.heard <= STALE_AFTER_SECONDS
            and view.heard - self._changed >= QUIET_SECONDS
            for view in views.values()
        )

    def _begin(self, now: float) -> None:
        rest = rest_of(self.views.values())
        if rest is None:
            return
        told: dict[str, list[Decimal]] = {}
        new: dict[str, Decimal] = {}
        for kept in self.kept.values():
            for asset, amount in kept.rest.items():
                told.setdefault(asset, []).append(amount)
        for uid, view in self.views.items():
            # What was written counts the fills of these bots alone.
            if uid not in self.kept or not self.kept[uid].rest:
                _add(new, view.books.flows)
        found: dict[str, Decimal] = {}
        for asset, amounts in told.items():
            if asset not in rest:
                continue
            with localcontext(DIGITS):
                differences = [rest[asset] + new.get(asset, Decimal(0)) - amount for amount in amounts]
            if all(differences):
                found[asset] = differences[0]
        self.mark, self._equal = Mark(rest, dict(self.views)), now
        self.unexplained = found
        self.differs = bool(found) and bool(self.differed)

    def _compare(self, mark: Mark, now: float) -> None:
        rest = rest_of(self.views.values())
        if rest is None:
            return
        difference = difference_of(mark, rest, self.views)
        unexplained = _sum(self.unexplained, difference)
        if difference and unexplained:
            doubt = self._doubt
            if doubt is None or doubt.difference != difference or doubt.read.keys() != self.views.keys():
                self._doubt = _Doubt(difference, {uid: view.books.compared_time for uid, view in self.views.items()})
                return
            if not doubt.stood(self.views):
                return
            # More than there should be is no harm, as with what others have of a bot's base.
            self.differs |= min(difference.values()) < 0 and all_told(mark, self.views)
        self.mark, self._equal, self._doubt = Mark(rest, dict(self.views)), now, None
        self._explain(unexplained, rest)

    def rest(self, uid: str) -> dict[str, Decimal] | None:
        """What should be no bot's of the assets of a bot; None where that is not known."""
        if self.mark is None or uid not in self.mark.views:
            return None
        mark = self.mark
        with localcontext(DIGITS):
            return {
                asset: mark.rest[asset] - self.unexplained.get(asset, Decimal(0))
                for asset in mark.views[uid].books.held
                if asset in mark.rest
            }

    def standing(self, uid: str, now: float) -> Standing | None:
        """What is said of it to a bot; None while nothing is known."""
        if self.mark is None:
            return self._former(uid, now)
        mine = self.views.get(uid)
        shared = mine is not None and mine.books.complete and self._concerned[mine.base] > (mine.base in mine.assets)
        if self.unexplained:
            return Standing(False, self.differs, self._message(), self.unexplained, shared)
        if now - self._equal <= EQUAL_LIFE_SECONDS:
            return Standing(True, others_hold_base=shared)
        away = [str(key) for bot, key in self.bots.items() if bot not in self.views
                or now - self.views[bot].heard > STALE_AFTER_SECONDS]  # fmt: skip
        why = f": {', '.join(sorted(away)[:3])} does not tell" if away else ""
        return Standing(False, message=f"the account was not compared with its bots' books for three minutes{why}")

    def _former(self, uid: str, now: float) -> Standing | None:
        if self.differed:
            return Standing(False, True, next(iter(self.differed.values())))
        kept = self.kept.get(uid)
        equal = kept is not None and kept.equal and now - self._begun <= EQUAL_LIFE_SECONDS
        return Standing(True, others_hold_base=True) if equal else None

    def _message(self) -> str:
        parts = []
        for asset, amount in self.unexplained.items():
            found = next(view.books.held[asset] for view in self.views.values() if asset in view.books.held)
            with localcontext(DIGITS):
                parts.append(f"it has {canonical(found)} {asset}, expected {canonical(found - amount)}")
        return f"the account is not what the fills of its bots made of it: {', '.join(parts)}{self.differs * ADVICE}"


class Equality:
    """What is known of all accounts."""

    def __init__(self) -> None:
        self._accounts: dict[object, Account] = {}
        self._of: dict[str, object] = {}

    def expect(self, account: object, bot: BotKey, uid: str, kept: Kept, now: float) -> None:
        """A bot is of the account, though it has not told anything yet; `kept` is what its status tells."""
        self._join(account, bot, uid, now).expect(uid, kept)

    def join(self, account: object, bot: BotKey, uid: str, now: float) -> None:
        """A bot is of the account, whether it tells of it or, as older ones, does not."""
        self._join(account, bot, uid, now)

    def hear(self, account: object, bot: BotKey, view: View, now: float) -> list[BotKey]:
        """A bot told of its account; the bots for which something changed."""
        known = self._join(account, bot, view.uid, now)
        known.tell(view)
        return list(known.bots.values()) if known.judge(now) else []

    def knows(self, uid: str) -> bool:
        """Whether a bot is known to be of an account."""
        return uid in self._of

    def bots_of(self, account: object) -> list[BotKey]:
        """The bots of an account."""
        known = self._accounts.get(account)
        return list(known.bots.values()) if known is not None else []

    def forget(self, uid: str) -> None:
        """A bot is gone, or another keeps it from its symbol."""
        account = self._of.pop(uid, None)
        if account is not None:
            known = self._accounts[account]
            known.drop(uid)
            if not known.bots:
                del self._accounts[account]

    def take_as_it_is(self, uid: str) -> None:
        """A human takes the account's word."""
        if (known := self._account(uid)) is not None:
            known.take_as_it_is()

    def of(self, uid: str, now: float) -> Standing | None:
        """What is said of its account to a bot; None while nothing is known."""
        known = self._account(uid)
        return None if known is None else known.standing(uid, now)

    def differs(self, uid: str) -> bool:
        """Whether something lacks in its account that nobody told of."""
        known = self._account(uid)
        return known is not None and (known.differs if known.mark is not None else bool(known.differed))

    def rest(self, uid: str) -> dict[str, Decimal] | None:
        """What of the account should be no bot's, of the assets of a bot; None where that is not known."""
        known = self._account(uid)
        return None if known is None else known.rest(uid)

    def _account(self, uid: str) -> Account | None:
        return self._accounts.get(self._of.get(uid))

    def _join(self, account: object, bot: BotKey, uid: str, now: float) -> Account:
        if self._of.get(uid, account) != account:
            self.forget(uid)
        self._of[uid] = account
        known = self._accounts.get(account)
        if known is None:
            known = self._accounts[account] = Account(now)
        known.bots[uid] = bot
        return known
