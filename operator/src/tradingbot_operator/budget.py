"""The book of a fleet: what limits over several bots leave each of them, though all act at the same moment; pure.

A bot of the fleet asks before each entry, and is answered with how much exposure it may have in all: a reservation,
which ends by the bot's own clock. The book counts for a bot the most of what it told to have, and of what is reserved
for it and may still be used, so that lost, repeated and late messages in either direction only make it count too much.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Final

from tradingbot_api.base import canonical
from tradingbot_api.bot_http import RESERVATION_TTL_SECONDS, FleetReport, Reservation

NOTHING: Final = Decimal(0)
LOSS_LOOK_SECONDS: Final = 1.0
"""The sum over all bots is looked at once in this time, however many tell something."""
LOSS_HOLD_SECONDS: Final = 3.0
"""A loss counts as reached only when it was for this long, as in a bot: one bad quote must not stop a fleet."""
UNHEARD_HOLD_SECONDS: Final = 60.0
"""For so long where bots have not told a new leader yet: those that gained may be connected last."""


class Full(StrEnum):
    """Why nothing more is granted."""

    POSITION_VALUE = "PositionValue"
    BOTS_IN_POSITION = "BotsInPosition"
    DAILY_LOSS = "DailyLoss"
    QUOTE_ASSETS = "QuoteAssetsDiffer"
    OWN_BOUND = "OwnBound"
    """That of the bot alone."""


@dataclass(frozen=True)
class Limits:
    """What all bots of a fleet may have together; None: no limit. Amounts in the quote asset."""

    max_position_value: Decimal | None = None
    max_daily_loss: Decimal | None = None
    max_bots_in_position: int | None = None


UNLIMITED: Final = Limits()


@dataclass(frozen=True)
class Bound:
    """The most that a bot may have, and that may be granted to it, by its spec and its status.

    `value` is counted until the bot tells what it has; `blank`: it can have nothing, as it has never been the trader of
    its account and symbol, or is suspended and left nothing. Amounts are in `quote_asset`; None: it never told.
    """

    value: Decimal
    grantable: Decimal
    blank: bool = False
    quote_asset: str | None = None

    @classmethod
    def of(cls, allowed: Decimal, recorded: Decimal | str | None, *, blank: bool = False) -> Bound:
        """Of a bot with so much `allowed` by its spec, and `recorded` in its status. No more is granted than was
        recorded: so a leader that has not heard the bot knows the most that it was granted, whatever its spec says."""
        most = Decimal(recorded or NOTHING)
        return cls(max(allowed, most), min(allowed, most), blank)


def next_bound(allowed: Decimal, recorded: Decimal | str | None, known: Decimal | None) -> Decimal:
    """What is to be recorded of a bot. It follows a raised spec at once, and a tightened one when the bot is `known` to
    have no more, and to hold no reservation of more."""
    return allowed if known is not None and known <= allowed else max(allowed, Decimal(recorded or NOTHING))


@dataclass(frozen=True)
class Told:
    """What a process start said, as far as the book needs it."""

    bot_uid: str
    boot_id: str
    incarnation: int | None
    report: FleetReport


@dataclass(frozen=True)
class Figures:
    """Of a fleet, in the quote asset. `reserved` is beyond what the bots told to have. Amounts are None while the bots
    trade against different quote assets: they are never added."""

    position_value: Decimal | None
    reserved: Decimal | None
    bots_in_position: int
    bots_counted: int
    """As in position: those that may enter, and that did not tell, too."""
    daily_pnl: Decimal | None
    unheard: int
    """Bots that may have something and did not tell what: the most that they may have is among `reserved`."""
    full: Full | None
    daily_loss_reached: bool
    """Until 00:00 UTC."""


@dataclass
class _Member:
    """What is known of one bot by this leader."""

    bound: Bound
    boot: str = ""
    incarnation: int = 0
    told: FleetReport | None = None
    outstanding: dict[int, Reservation] = field(default_factory=dict)
    """Those that the bot may hold or still get, by number."""
    asked: int = 0
    """The last request that was answered."""

    @property
    def reserved(self) -> Decimal:
        # What it holds may be of a former book of this leader, of before the limits were taken out and came back.
        held = self.told.reserved if self.told is not None else NOTHING
        return max((held, *(one.exposure for one in self.outstanding.values())))

    @property
    def value(self) -> Decimal:
        """The most that it may have, as far as is known."""
        if self.told is None or self.told.exposure is None:
            return NOTHING if self.bound.blank else max(self.bound.value, self.reserved)
        return max(self.told.exposure, self.reserved)

    @property
    def quote_asset(self) -> str | None:
        return self.told.quote_asset if self.told is not None else self.bound.quote_asset

    @property
    def unheard(self) -> bool:
        """It may have something, and did not tell what."""
        return self.told is None and not self.bound.blank

    @property
    def in_position(self) -> bool:
        if self.told is None:
            return self.unheard
        return self.told.in_position or self.reserved > 0


class FleetBook:
    """Of one fleet and one leader, whose `epoch` is the transition count of its Lease, which may grow. A new leader
    begins with an empty one: who has not told yet what it has counts with the most that it may have."""

    def __init__(self, epoch: int, numbers: Iterator[int] | None = None) -> None:
        """`numbers` of its reservations: a bot takes no lower one of an epoch, whichever book of a leader gave it."""
        self._epoch = epoch
        self._limits = Limits()
        self._members: dict[str, _Member] = {}
        self._numbers = numbers or itertools.count(1)
        self._lost_day = ""
        self._losing_since: float | None = None
        self._looked_at = float("-inf")

    def lead(self, epoch: int) -> None:
        """The leader's epoch is this now. Where it was raised, as another operator's was greater, its bots may have
        obeyed that one: each counts as with a new leader until it tells anew, what it was given here besides."""
        if epoch != self._epoch:
            self._epoch = epoch
            for member in self._members.values():
                member.told = None

    def configure(self, limits: Limits, bounds: Mapping[str, Bound]) -> None:
        """The fleet has these limits and these bots, by UID. Who is not among them any more counts no longer: it is
        certainly gone, or never entered under these limits."""
        self._limits = limits
        if limits.max_daily_loss is None:
            self._lost_day = ""
        for uid in self._members.keys() - bounds.keys():
            del self._members[uid]
        for uid, bound in bounds.items():
            self._members.setdefault(uid, _Member(bound)).bound = bound

    def bind(self, uid: str, bound: Bound) -> None:
        """What one of its bots may have, as of now."""
        if uid in self._members:
            self._members[uid].bound = bound

    def known(self, uid: str) -> Decimal | None:
        """The most that a bot has or may still use; None while it has not told this leader what it has."""
        member = self._members.get(uid)
        return member.value if member is not None and member.told is not None else None

    def untold(self, uid: str) -> tuple[bool, Decimal]:
        """Of a bot what no status of it tells: whether it told this leader what it has, and what is reserved for it."""
        member = self._members.get(uid)
        return (False, NOTHING) if member is None else (member.told is not None, member.reserved)

    def hear(self, told: Told, now: float) -> Reservation | None:
        """Take what a bot tells, `now` on a monotonic clock; the reservation that is to be sent to it, if any.

        Late words of a former process, or of before another word, change nothing.
        """
        member, report = self._members.get(told.bot_uid), told.report
        if member is None or told.incarnation is None or report.exposure is None or report.epoch > self._epoch:
            return None
        if report.epoch < self._epoch:
            # It would still take what a former leader sent it: once it knows of this one, its word counts. Of a process
            # that is new to this one nothing is known until then.
            if told.boot_id != member.boot and told.incarnation > member.incarnation:
                member.told = None
            return self._reservation(told, None, NOTHING)
        if told.boot_id != member.boot:
            if told.incarnation <= member.incarnation:
                return None
            # The former process is gone: what it sent last is in what this one tells, and nobody holds what it held.
            member.boot, member.outstanding, member.asked, member.told = told.boot_id, {}, 0, None
        elif member.told is not None and report.clock < member.told.clock:
            return None
        member.incarnation, member.told = told.incarnation, report
        member.outstanding = {
            number: one
            for number, one in member.outstanding.items()
            if report.clock < one.clock + one.ttl_seconds
            and (number > report.number or (number == report.number and report.reserved > 0))
        }
        self._judge_loss(now)
        return self._answer(member, told)

    def _answer(self, member: _Member, told: Told) -> Reservation | None:
        request = told.report.request
        if request is None or request.id < member.asked:
            return None
        if request.id == member.asked:  # the answer was lost, or is on its way
            return next((one for one in member.outstanding.values() if one.request == request.id), None)
        member.asked = request.id
        full = self._full(member)
        room, has = self._room(member), told.report.exposure or NOTHING
        exposure = min(request.exposure, member.bound.grantable, room) if full is None else NOTHING
        if full is None and exposure <= has:
            full, exposure = (Full.OWN_BOUND if room > has else Full.POSITION_VALUE), NOTHING
        reservation = self._reservation(told, request.id, exposure, self._explain(full, member))
        if exposure > 0:
            member.outstanding[reservation.number] = reservation
        return reservation

    def _reservation(self, told: Told, request: int | None, exposure: Decimal, message: str = "") -> Reservation:
        return Reservation(
            bot_uid=told.bot_uid,
            boot_id=told.boot_id,
            epoch=self._epoch,
            number=next(self._numbers),
            request=request,
            exposure=exposure,
            clock=told.report.clock,
            ttl_seconds=RESERVATION_TTL_SECONDS,
            message=message,
        )

    def _room(self, member: _Member) -> Decimal:
        """What the limit on the value leaves to one bot, in all."""
        limit = self._limits.max_position_value
        if limit is None:
            return member.bound.grantable
        return limit - sum((one.value for one in self._members.values() if one is not member), NOTHING)

    def _full(self, member: _Member) -> Full | None:
        most = self._limits.max_bots_in_position
        others = sum(one.in_position for one in self._members.values() if one is not member)
        if self._amounts_matter and self._mixed:
            return Full.QUOTE_ASSETS
        if self.daily_loss_reached or self._loses:
            return Full.DAILY_LOSS
        return Full.BOTS_IN_POSITION if most is not None and others >= most else None

    @property
    def _amounts_matter(self) -> bool:
        return self._limits.max_position_value is not None or self._limits.max_daily_loss is not None

    @property
    def _quotes(self) -> set[str]:
        return {quote for member in self._members.values() if (quote := member.quote_asset) is not None}

    @property
    def _mixed(self) -> bool:
        """They trade against different quote assets, whose amounts are never added."""
        return len(self._quotes) > 1

    # --- the day ---

    @property
    def day(self) -> str:
        """The day by exchange time, as the bots told."""
        told = (member.told for member in self._members.values())
        return max((report.day for report in told if report is not None and report.day is not None), default="")

    @property
    def daily_pnl(self) -> Decimal:
        """Of the day; of a bot that does not answer any more what it told last."""
        told, day = (member.told for member in self._members.values()), self.day
        of_day = (report.daily_pnl for report in told if report is not None and report.day == day)
        return sum((pnl for pnl in of_day if pnl is not None), NOTHING)

    @property
    def _loses(self) -> bool:
        limit = self._limits.max_daily_loss
        return limit is not None and -self.daily_pnl >= limit and not self._mixed

    def _judge_loss(self, now: float) -> None:
        if now - self._looked_at < LOSS_LOOK_SECONDS:
            return
        self._looked_at = now
        if not self._loses:
            self._losing_since = None
            return
        self._losing_since = now if self._losing_since is None else self._losing_since
        unheard = any(member.unheard for member in self._members.values())
        if now - self._losing_since >= (UNHEARD_HOLD_SECONDS if unheard else LOSS_HOLD_SECONDS):
            self._lost_day = self.day

    @property
    def daily_loss_reached(self) -> bool:
        """The limit was reached today: it stays so until 00:00 UTC, even if the price comes back, and while no bot has
        told which day it is."""
        return self._lost_day != "" and self._lost_day >= self.day

    @property
    def lost_day(self) -> str:
        """The last day on which it was reached; empty: none."""
        return self._lost_day

    def recall_loss(self, day: str) -> bool:
        """A former leader saw it reached on that day; whether that was not known."""
        if self._limits.max_daily_loss is None or day <= self._lost_day:
            return False
        self._lost_day = day
        return True

    # --- what people are told ---

    @property
    def _told_value(self) -> Decimal:
        told = (member.told for member in self._members.values())
        return sum((one.exposure for one in told if one is not None and one.exposure is not None), NOTHING)

    @property
    def _counted(self) -> Decimal:
        return sum((member.value for member in self._members.values()), NOTHING)

    @property
    def figures(self) -> Figures:
        """As far as the bots told."""
        members = list(self._members.values())
        limits, full, told, counted = self._limits, None, self._told_value, self._counted
        slots, mixed = sum(m.in_position for m in members), self._mixed
        if self._amounts_matter and mixed:
            full = Full.QUOTE_ASSETS
        elif self.daily_loss_reached or self._loses:
            full = Full.DAILY_LOSS
        elif limits.max_bots_in_position is not None and slots >= limits.max_bots_in_position:
            full = Full.BOTS_IN_POSITION
        elif limits.max_position_value is not None and counted >= limits.max_position_value:
            full = Full.POSITION_VALUE
        return Figures(
            position_value=None if mixed else told,
            reserved=None if mixed else counted - told,
            bots_in_position=sum(m.told is not None and m.told.in_position for m in members),
            bots_counted=slots,
            daily_pnl=None if mixed else self.daily_pnl,
            unheard=sum(m.unheard for m in members),
            full=full,
            daily_loss_reached=self.daily_loss_reached,
        )

    def _explain(self, full: Full | None, member: _Member) -> str:
        if full is None:
            return ""
        limits = self._limits
        if full is Full.BOTS_IN_POSITION:
            slots = sum(member.in_position for member in self._members.values())
            return f"maxBotsInPosition={limits.max_bots_in_position} counted={slots}"
        if full is Full.DAILY_LOSS:
            return f"maxDailyLoss={limits.max_daily_loss} dailyPnL={canonical(self.daily_pnl)} until 00:00 UTC"
        if full is Full.QUOTE_ASSETS:
            return f"the bots trade against {', '.join(sorted(self._quotes))}: limits hold in one quote asset"
        if full is Full.OWN_BOUND:
            return (
                f"bound={canonical(member.bound.grantable)} of this bot alone: the least of spec.capital, "
                "spec.risk.maxPositionValue and status.exposureBound, which the operator writes first"
            )
        return (
            f"maxPositionValue={limits.max_position_value} positions={canonical(self._told_value)} "
            f"reserved={canonical(self._counted - self._told_value)}"
        )
