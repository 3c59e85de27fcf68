"""Leads the books of fleets with limits: takes in what their bots tell, sends what is reserved for them, and imposes
safe mode on all of them where they reached their daily loss together."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

import structlog

from tradingbot_api import names
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotStatus, ImposedCause, Reservation
from tradingbot_api.conditions import Reason
from tradingbot_operator.bot_link import BotCallError, BotLink
from tradingbot_operator.budget import UNLIMITED, Bound, Figures, FleetBook, Limits, Told, next_bound
from tradingbot_operator.imposed import Held, Standing
from tradingbot_operator.inventory import BotKey, Controller, SeenBot
from tradingbot_operator.leader import Leader, LeaseLostError
from tradingbot_operator.metrics import Metrics

DAILY_LOSS_PREFIX: Final = "fleet-daily-loss/"
LARGEST: Final = str(10**15)
"""No amount of a spec is greater."""

log = structlog.get_logger(__name__)


def allowed_by(spec: Mapping[str, Any]) -> Decimal:
    """The most that a bot may have by its spec; pure."""
    return min(Decimal(text or LARGEST) for text in (spec.get("capital"), spec.get("risk", {}).get("maxPositionValue")))


def bound_of(bot: SeenBot) -> Bound:
    """The most that a bot may have, by its spec and by what its status tells; pure."""
    told = bot.told
    held = told.position.quantity * told.position.average_price if told.position is not None else Decimal(0)
    drained = told.drained if bot.suspended else None
    blank = not told.account_uid or (drained is not None and not drained.remaining)
    bound = Bound.of(allowed_by(bot.spec), told.exposure_bound, blank=blank)
    return replace(bound, value=max(bound.value, held), quote_asset=told.quote_asset)


@dataclass
class _Limited:
    """One fleet of this leader."""

    book: FleetBook
    news: Callable[[bool], None]
    """Is called when its figures are others, of which no bot's status tells; with True when the limit of the daily loss
    is reached, and when that day is over."""
    reached: bool = False
    """What the bots' configurations were last made with."""


class Reservations:
    """Of the leader alone: another one begins with empty books, and counts who has not told with all that he may have.

    A fleet is named by the UID of the object whose limits they are, a bot by its own.
    """

    def __init__(self, leader: Leader, metrics: Metrics) -> None:
        self._leader = leader
        self._metrics = metrics
        self._fleets: dict[str, _Limited | None] = {}
        """None: known, and without limits."""
        self._fleet_of: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._sending: set[asyncio.Task[None]] = set()

    def begin(self) -> None:
        """This process leads from now on: what it heard before was told to another leader."""
        self._fleets.clear()
        self._fleet_of.clear()

    def configure(
        self, fleet: str, limits: Limits, bounds: Mapping[str, Bound], *, lost_day: str, news: Callable[[bool], None]
    ) -> bool:
        """The fleet has these limits and these bots, and reached its daily loss last on that day as far as was written;
        `news` is called when its figures change, with True at once. Whether its bots need another configuration."""
        before = self._fleets.get(fleet)
        limited, reached = limits != UNLIMITED, before is not None and before.reached
        if not limited:
            self.forget(fleet)
            self._fleets[fleet] = None
        else:
            entry = before or _Limited(FleetBook(self._leader.epoch, self._numbers), news)
            entry.book.configure(limits, bounds)
            entry.book.recall_loss(lost_day)
            self._fleets[fleet] = entry
            entry.reached = entry.book.daily_loss_reached
            for bot in bounds:
                self._fleet_of[bot] = fleet
            if entry.reached != reached:
                return True
        return limited != (before is not None)

    def forget(self, fleet: str) -> None:
        """The fleet is gone."""
        self._fleets.pop(fleet, None)
        self._fleet_of = {bot: other for bot, other in self._fleet_of.items() if other != fleet}

    def limited(self, owner: Controller | None, *, before: bool | None) -> bool:
        """Whether a bot of that owner needs reservations; as `before` while this leader does not know the fleet. None:
        it had no configuration before; one of a set so needs them until the set is known."""
        if owner is None:
            return False
        if owner.uid in self._fleets:
            return self._fleets[owner.uid] is not None
        return owner.kind == names.TRADING_BOT_SET.kind if before is None else before

    def exposure_bound(self, bot: SeenBot) -> Decimal | None:
        """What the status of a bot must tell as its bound; None where it needs no reservations."""
        if bot.controller is None:
            return None
        if bot.controller.uid not in self._fleets:
            return bot.told.exposure_bound
        fleet = self._fleets[bot.controller.uid]
        if fleet is None:
            return None
        return next_bound(allowed_by(bot.spec), bot.told.exposure_bound, fleet.book.known(bot.uid))

    def hear(self, bot: SeenBot, link: BotLink | None, status: BotStatus) -> None:
        """A bot told something; its answer, if it waits for one, is sent beside. Never waits."""
        fleet = self._fleets.get(self._fleet_of.get(status.bot_uid, ""))
        if fleet is None or link is None or status.fleet is None:
            return
        # By what is seen of it now: a bound that is written to follow a tightened spec must hold for this answer.
        fleet.book.bind(bot.uid, bound_of(bot))
        key = bot.key
        told = Told(status.bot_uid, status.boot_id, status.incarnation, status.fleet)
        before, untold = fleet.book.daily_loss_reached, fleet.book.untold(bot.uid)
        fleet.book.lead(self._leader.epoch)
        answer = fleet.book.hear(told, asyncio.get_running_loop().time())
        if fleet.book.daily_loss_reached != before:
            log.warning("the daily loss of a fleet", bot=str(key), reached=not before, day=fleet.book.day)
            fleet.news(True)
        elif fleet.book.untold(bot.uid) != untold:
            fleet.news(False)
        if answer is not None:
            task = asyncio.create_task(self._send(key, link, answer), name=f"reservation {key}")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send(self, key: BotKey, link: BotLink, answer: Reservation) -> None:
        if answer.request is not None:
            self._metrics.reservations.labels("granted" if answer.exposure > 0 else "refused").inc()
            log.info("reservation", bot=str(key), exposure=canonical(answer.exposure), message=answer.message)
        try:
            await link.put_reservation(answer)
        except (BotCallError, LeaseLostError) as error:
            # It asks again with its next word, or gives up; until then it counts as if it had it.
            log.warning("a reservation was not sent", bot=str(key), error=str(error))

    def figures(self, fleet: str) -> Figures | None:
        """What its bots have together; None without limits."""
        known = self._fleets.get(fleet)
        return known.book.figures if known is not None else None

    def lost_day(self, fleet: str) -> str:
        """The last day on which the limit of the daily loss was reached; empty: none that is known."""
        known = self._fleets.get(fleet)
        return known.book.lost_day if known is not None else ""

    # --- an imposer ---

    def imposes(self, bot: SeenBot, held: Held) -> Iterable[ImposedCause]:
        """Safe mode for the rest of the day, on each bot of a fleet that reached its daily loss."""
        owner = bot.controller
        if owner is None:
            return ()
        return self._loss(owner, held) if owner.uid in self._fleets else held.values()

    def _loss(self, owner: Controller, held: Collection[str]) -> tuple[ImposedCause, ...]:
        """What is imposed on a bot that holds causes of these ids."""
        fleet, prefix = self._fleets[owner.uid], f"{DAILY_LOSS_PREFIX}{owner.name}/"
        if fleet is None:
            return ()
        for day in (cause_id.removeprefix(prefix) for cause_id in held if cause_id.startswith(prefix)):
            # A former leader may have ended after it told its bots, and before it wrote it into the set's status.
            if fleet.book.recall_loss(day):
                fleet.news(True)
        if not fleet.book.daily_loss_reached:
            return ()
        cause = ImposedCause(
            id=f"{prefix}{fleet.book.lost_day}",
            source="Operator",
            reason=Reason.DAILY_LOSS,
            level="NoNewEntries",
            message=f"the bots of {owner.kind} {owner.name} reached spec.limits.maxDailyLoss together",
            clears="ends at 00:00 UTC, or with spec.limits.maxDailyLoss taken out",
        )
        return (cause,)

    def owns(self, cause_id: str) -> bool:
        """Whether a cause is a fleet's daily loss."""
        return cause_id.startswith(DAILY_LOSS_PREFIX)

    async def standing(self, bot: SeenBot, cause_id: str) -> Standing:
        """Whether it is imposed, as far as the fleet is known."""
        owner = bot.controller
        if owner is not None and owner.uid not in self._fleets:
            return Standing.GONE
        imposed = owner is not None and any(cause.id == cause_id for cause in self._loss(owner, (cause_id,)))
        return Standing.IN_FORCE if imposed else Standing.ENDED

    def close(self) -> None:
        """Ends what is under way; nothing is awaited."""
        for task in self._sending:
            task.cancel()
