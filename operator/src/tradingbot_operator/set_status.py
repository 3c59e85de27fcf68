"""Pure: from what is known of a set's TradingBots to the set's status, and when it is worth a write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal, Inexact, localcontext
from typing import Final

from tradingbot_api.base import canonical
from tradingbot_api.conditions import ConditionType as Type
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.sets import (
    MOST_LISTED,
    BotInProgress,
    BotProblem,
    QuoteTotals,
    SetCondition,
    SetLimitsStatus,
    SetPnL,
    SetReason,
    TradingBotSetSpec,
    TradingBotSetStatus,
    WorstDrawdown,
)
from tradingbot_api.v1alpha1 import UpdateStrategy
from tradingbot_operator import status as statuses
from tradingbot_operator.budget import UNLIMITED, Full, Limits
from tradingbot_operator.budget import Figures as FleetFigures
from tradingbot_operator.inventory import BotKey, SeenBot
from tradingbot_operator.metrics import SetFigures
from tradingbot_operator.rollout import Rollout
from tradingbot_operator.set_desired import Problem
from tradingbot_operator.status import Change, Finding, Notice

EXACT: Final = Context(prec=80, traps=[Inexact])
"""Sums of a thousand figures of 38 digits are exact in it, or raise."""
NAMED: Final = 3
"""So many bots are named in a message."""


@dataclass(frozen=True)
class Figures:
    """What a bot tells of its money, in its quote asset."""

    asset: str
    realized: Decimal
    unrealized: Decimal
    total: Decimal
    exposure: Decimal
    drawdown: Decimal | None


@dataclass(frozen=True)
class BotFacts:
    """What a set looks at in a TradingBot's status."""

    name: str
    phase: str
    ready: bool
    why: str
    """Reason of Ready, and what it says; empty while nothing was told."""
    suspended: bool
    """Its pod has ended as it is asked to be."""
    settled: bool
    """Ready, and all that its spec says is in force in its process; or suspended."""
    up_to_date: bool
    awaits: str
    """AwaitingFlat or AwaitingTurn: what the restart for another pod waits for; else empty."""
    paced: bool
    """Its pod waits for its turn to be made, by the weight of its address."""
    flat: bool
    in_position: bool
    safe_mode: bool
    deleting: bool
    asset: str | None
    """Its quote asset; None: it never told."""
    figures: Figures | None
    """None: not known now."""

    @property
    def available(self) -> bool:
        """Ready, or suspended as it is asked to be."""
        return self.ready or self.suspended

    @property
    def state(self) -> object:
        """What of it is worth a new status of its set at once."""
        return (
            self.phase, self.ready, self.settled, self.up_to_date, self.in_position, self.safe_mode, self.deleting,
            self.figures is None,
        )  # fmt: skip


def facts_of(bot: SeenBot) -> BotFacts:
    """From a TradingBot as it was last seen."""
    status = bot.told
    conditions = {item.type: item for item in status.conditions}
    observed = (status.observed_generation or 0) >= bot.generation
    told = conditions.get(Type.READY)
    ready = statuses.holds(status, Type.READY)
    up_to_date = conditions.get(Type.UP_TO_DATE)
    latest = up_to_date is not None and up_to_date.status == statuses.TRUE
    outdated = up_to_date.reason if up_to_date is not None and up_to_date.status == statuses.FALSE else ""
    manual = bot.spec.get("updateStrategy", UpdateStrategy.MANUAL) == UpdateStrategy.MANUAL
    left_to_people = outdated == Reason.POD_OUTDATED and manual
    suspended = bot.suspended and status.phase == Phase.SUSPENDED
    deleting = bot.deleted is not None
    engaged, pod = conditions.get(Type.SAFE_MODE_ENGAGED), conditions.get(Type.POD_READY)
    position, pnl = status.position, status.pnl
    figures = None
    if position is not None and pnl is not None and status.quote_asset is not None:
        figures = Figures(
            status.quote_asset, pnl.realized, pnl.unrealized, pnl.total, position.value,
            status.risk.drawdown if status.risk is not None else None,
        )  # fmt: skip
    return BotFacts(
        name=bot.key.name,
        phase=status.phase or Phase.PENDING,
        ready=ready,
        why=f"{told.reason}: {told.message}" if told is not None else "",
        suspended=suspended,
        settled=observed and not deleting and (suspended or (ready and (latest or left_to_people))),
        up_to_date=observed and (latest or suspended),
        awaits=outdated if observed and outdated in {Reason.AWAITING_FLAT, Reason.AWAITING_TURN} else "",
        paced=pod is not None and pod.reason == Reason.START_PACED,
        flat=position is not None and position.quantity == 0,
        in_position=position is not None and position.quantity != 0,
        safe_mode=engaged is not None
        and engaged.status == statuses.TRUE
        and engaged.reason not in statuses.PASSING,
        deleting=deleting,
        asset=status.quote_asset,
        figures=figures,
    )  # fmt: skip


@dataclass(frozen=True)
class ObservedSet:
    """All that a set's status is made of. Problems are by symbol, facts by the TradingBot's name."""

    now: datetime
    generation: int
    wanted: Sequence[str]
    """Names of the TradingBots of the spec."""
    bots: Mapping[str, BotFacts]
    """Those of them that are there and the set's."""
    current: frozenset[str]
    """Those whose spec is that of the present template."""
    problems: Mapping[str, Problem]
    rollout: Rollout
    since: Mapping[str, float]
    """Since when bots are in the middle of a change, in seconds since 1970."""
    draining: Sequence[str]
    """TradingBots of the set that are being deleted."""
    deadline: int
    """Seconds."""
    before: TradingBotSetStatus
    limits: Limits = UNLIMITED
    fleet: FleetFigures | None = None
    """What the bots have together; None without limits, or while nobody counts it."""
    lost_day: str = ""
    """The last day on which the limit of the daily loss was reached."""


def limits_of(spec: TradingBotSetSpec) -> Limits:
    """The limits over all bots of a set."""
    limits = spec.limits
    if limits is None:
        return UNLIMITED
    return Limits(limits.max_position_value, limits.max_daily_loss, limits.max_bots_in_position)


def lost_day(status: TradingBotSetStatus) -> str:
    """The last day, as was written, on which the limit of the daily loss was reached."""
    return (status.limits.daily_loss_reached if status.limits is not None else None) or ""


def compose(seen: ObservedSet) -> TradingBotSetStatus:
    """The status that should stand."""
    total = len(seen.wanted)
    bots = [seen.bots[name] for name in seen.wanted if name in seen.bots]
    known = [bot for bot in bots if bot.figures is not None]
    updated = sum(bot.up_to_date and bot.name in seen.current for bot in bots)
    found = {
        SetCondition.ACCEPTED: _accepted(seen, total),
        SetCondition.UP_TO_DATE: _up_to_date(seen, updated, total),
        SetCondition.PROGRESSING: _progressing(seen, total),
        SetCondition.STALLED: _stalled(seen),
    }
    if (held := _limits_held(seen)) is not None:
        found[SetCondition.FLEET_LIMITS_HELD] = held
    found[SetCondition.READY] = _ready(seen, found[SetCondition.ACCEPTED])
    phases = Counter(bot.phase for bot in bots)
    if missing := total - len(bots):
        phases[SetReason.MISSING] = missing
    return TradingBotSetStatus(
        observed_generation=seen.generation,
        conditions=statuses.dated(found, seen.before.conditions, seen.now, seen.generation),
        bots=total,
        ready=sum(bot.ready for bot in bots),
        updated=updated,
        in_safe_mode=sum(bot.safe_mode for bot in bots),
        in_position=sum(bot.in_position for bot in bots),
        known=f"{len(known)} of {total}",
        phases=dict(sorted(phases.items())),
        totals=totals(bots, total - len(bots)),
        worst_drawdown=worst_drawdown(known),
        limits=_limits(seen),
        in_progress=[
            BotInProgress(bot=name, since_time=datetime.fromtimestamp(seen.since[name], UTC))
            for name in seen.rollout.in_progress[:MOST_LISTED]
            if name in seen.since
        ],
        draining=sorted(seen.draining)[:MOST_LISTED],
        problems=[
            BotProblem(symbol=symbol, reason=problem.reason, message=problem.message)
            for symbol, problem in sorted(seen.problems.items())[:MOST_LISTED]
        ],
    )


def _limits(seen: ObservedSet) -> SetLimitsStatus | None:
    fleet = seen.fleet
    if fleet is None:
        return None
    return SetLimitsStatus(
        position_value=fleet.position_value,
        reserved=fleet.reserved,
        bots_in_position=fleet.bots_in_position,
        daily_pnl=fleet.daily_pnl,
        unheard=fleet.unheard,
        daily_loss_reached=seen.lost_day or None,
    )


def _limits_held(seen: ObservedSet) -> Finding | None:
    """Whether the limits over all bots hold; None without any."""
    limits, fleet = seen.limits, seen.fleet
    if fleet is None:
        return None
    over, value = [], fleet.position_value
    if limits.max_position_value is not None and value is not None and value > limits.max_position_value:
        over.append(f"positions={canonical(value)} maxPositionValue={limits.max_position_value}")
    if limits.max_bots_in_position is not None and fleet.bots_in_position > limits.max_bots_in_position:
        over.append(f"botsInPosition={fleet.bots_in_position} maxBotsInPosition={limits.max_bots_in_position}")
    if over:
        told = "; ".join(over)
        return Finding.bad(SetReason.LIMIT_EXCEEDED, f"{told}: no bot enters until positions are closed.")
    if fleet.full is Full.QUOTE_ASSETS:
        return Finding.bad(
            SetReason.QUOTE_ASSETS_DIFFER,
            "The bots trade against different quote assets, whose amounts are not added: no bot enters. Make a set for "
            "each quote asset, or leave maxPositionValue and maxDailyLoss out.",
        )
    if fleet.unheard:
        return Finding.open(
            SetReason.BOTS_UNHEARD,
            f"{fleet.unheard} bots have not told what they have; each counts with the most that it may have.",
        )
    if fleet.full is Full.DAILY_LOSS:
        return Finding.good("The daily loss is reached: no bot enters until 00:00 UTC.", SetReason.LIMIT_REACHED)
    if fleet.full is not None:
        return Finding.good("The limits leave no room for another position.", SetReason.LIMIT_REACHED)
    return Finding.good()


def set_figures(key: BotKey, told: TradingBotSetStatus, limits: Limits, fleet: FleetFigures | None) -> SetFigures:
    """What the operator's metrics tell of a set: `told` as last composed, its fleet as it is now."""
    amounts = {
        "maxPositionValue": limits.max_position_value,
        "maxDailyLoss": limits.max_daily_loss,
        "maxBotsInPosition": limits.max_bots_in_position,
    }
    counted: dict[str, Decimal] = {}
    if fleet is not None:
        counted["maxBotsInPosition"] = Decimal(fleet.bots_counted)
        if fleet.position_value is not None and fleet.reserved is not None:
            counted["maxPositionValue"] = fleet.position_value + fleet.reserved
        if fleet.daily_pnl is not None:
            counted["maxDailyLoss"] = -fleet.daily_pnl
    return SetFigures(
        namespace=key.namespace,
        name=key.name,
        phases=told.phases,
        rollout_stopped=statuses.holds(told, SetCondition.STALLED),
        limits={name: Decimal(amount) for name, amount in amounts.items() if amount is not None},
        counted=counted,
        daily_loss_reached=fleet is not None and fleet.daily_loss_reached,
    )


def totals(bots: Iterable[BotFacts], missing: int) -> list[QuoteTotals]:
    """Exact sums for each quote asset, and over how many of the bots that may trade against it."""
    by_asset: dict[str, list[Figures]] = {}
    counted: Counter[str] = Counter()
    unknown = missing
    for bot in bots:
        if bot.asset is None:
            unknown += 1
            continue
        counted[bot.asset] += 1
        by_asset.setdefault(bot.asset, [])
        if bot.figures is not None:
            by_asset[bot.asset].append(bot.figures)
    with localcontext(EXACT):
        return [
            QuoteTotals(
                asset=asset,
                known=f"{len(figures)} of {counted[asset] + unknown}",
                pnl=SetPnL(
                    realized=sum((item.realized for item in figures), Decimal(0)),
                    unrealized=sum((item.unrealized for item in figures), Decimal(0)),
                    total=sum((item.total for item in figures), Decimal(0)),
                ),
                exposure=sum((item.exposure for item in figures), Decimal(0)),
            )
            for asset, figures in sorted(by_asset.items())
        ]


def worst_drawdown(bots: Iterable[BotFacts]) -> WorstDrawdown | None:
    """The bot furthest below its peak; the first by name of equals."""
    fallen = [
        (bot.figures.drawdown, bot.name)
        for bot in bots
        if bot.figures is not None and bot.figures.drawdown is not None
    ]  # fmt: skip
    if not fallen:
        return None
    ratio, name = min(fallen, key=lambda item: (-item[0], item[1]))
    return WorstDrawdown(bot=name, ratio=ratio)


def _some(items: Sequence[str]) -> str:
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _accepted(seen: ObservedSet, total: int) -> Finding:
    if not seen.problems:
        return Finding.good()
    first = next(iter(sorted(seen.problems.items())))[1]
    others = len(seen.problems) - 1
    more = f" And {others} more: see status.problems." if others else ""
    return Finding.bad(
        first.reason, f"{len(seen.problems)} of {total} bots are not as the spec wants them: {first.message}{more}"
    )


def _ready(seen: ObservedSet, accepted: Finding) -> Finding:
    lacking = [
        f"{name} ({seen.bots[name].why.split(':')[0] or Reason.STARTING if name in seen.bots else SetReason.MISSING})"
        for name in seen.wanted
        if name not in seen.bots or not seen.bots[name].ready
    ]
    if lacking:
        return Finding.bad(
            SetReason.BOTS_NOT_READY,
            f"{len(seen.wanted) - len(lacking)} of {len(seen.wanted)} bots are Ready; not {_some(lacking)}.",
        )
    return Finding.good() if accepted.holds else Finding.bad(accepted.reason, accepted.message)


def _up_to_date(seen: ObservedSet, updated: int, total: int) -> Finding:
    if updated == total:
        return Finding.good()
    told = f"{updated} of {total} bots are at the present template and run with it"
    if seen.rollout.late:
        return Finding.bad(SetReason.PROGRESS_DEADLINE_EXCEEDED, f"{told}; the rollout has stopped, see Stalled.")
    if seen.rollout.awaiting_flat and not set(seen.rollout.in_progress) - set(seen.rollout.awaiting_flat):
        return Finding.bad(
            SetReason.AWAITING_FLAT, f"{told}; until they hold no position wait {_some(seen.rollout.awaiting_flat)}."
        )
    if seen.rollout.in_progress or seen.rollout.remaining or seen.rollout.give:
        return Finding.bad(SetReason.ROLLING_OUT, f"{told}.")
    outdated = [name for name in seen.wanted if name in seen.current and not seen.bots[name].up_to_date]
    if outdated:
        return Finding.bad(
            SetReason.POD_OUTDATED,
            f"{told}; updateStrategy Manual leaves the restart to people: kubectl delete pod {' '.join(outdated[:3])}.",
        )
    return Finding.bad(SetReason.ROLLING_OUT, f"{told}.")


def _progressing(seen: ObservedSet, total: int) -> Finding:
    if seen.rollout.late:
        return Finding.bad(SetReason.PROGRESS_DEADLINE_EXCEEDED, "The rollout has stopped, see Stalled.")
    parts = []
    moving = [name for name in seen.rollout.in_progress if name not in seen.rollout.awaiting_flat]
    if moving:
        told = [f"{name} ({_why(seen, name)})" for name in moving]
        parts.append(f"in the middle of a change: {_some(told)}")
    if seen.rollout.awaiting_flat:
        parts.append(f"until they hold no position wait {_some(seen.rollout.awaiting_flat)}")
    if seen.rollout.remaining:
        parts.append(f"{seen.rollout.remaining} of {total} bots do not have the present template yet")
    if seen.draining:
        parts.append(f"drains: {_some(sorted(seen.draining))}")
    if not parts:
        return Finding.bad(SetReason.OK, "Nothing is being changed.")
    reason = SetReason.ROLLING_OUT
    if not moving:
        reason = SetReason.AWAITING_FLAT if seen.rollout.awaiting_flat else SetReason.ROLLING_OUT
        if not seen.rollout.remaining and not seen.rollout.awaiting_flat:
            reason = SetReason.DRAINING
    text = "; ".join(parts)
    return Finding.good(f"{text[0].upper()}{text[1:]}.", reason)


def _why(seen: ObservedSet, name: str) -> str:
    bot = seen.bots.get(name)
    return (bot.why.split(":")[0] if bot is not None else "") or Reason.STARTING


def _stalled(seen: ObservedSet) -> Finding:
    if not seen.rollout.late:
        return Finding.bad(SetReason.OK, "")
    told = []
    for name in seen.rollout.late:
        bot = seen.bots.get(name)
        told.append(f"{name}: {bot.why if bot is not None and bot.why else 'not made yet'}")
    kept = f" {seen.rollout.remaining} bots keep what they had." if seen.rollout.remaining else ""
    return Finding.good(
        f"Not Ready within {seen.deadline} s after a change: {_some(told)}{kept} Correct the template or the bot's "
        "overrides; the rollout goes on by itself once it is Ready.",
        SetReason.PROGRESS_DEADLINE_EXCEEDED,
    )


# --- what stands, and when to write ---


def change(old: TradingBotSetStatus, new: TradingBotSetStatus) -> Change:
    """What changed: figures alone, or more."""
    if old == new:
        return Change.NONE
    return Change.FIGURES if _state(old) == _state(new) else Change.STATE


def _state(status: TradingBotSetStatus) -> object:
    conditions = [(item.type, item.status, item.reason) for item in status.conditions]
    limits = (status.limits.daily_loss_reached, status.limits.unheard) if status.limits is not None else None
    return status.model_copy(
        update={"conditions": conditions, "totals": [], "worst_drawdown": None, "limits": limits}
    )  # the figures, and the words of the conditions


def notices(old: TradingBotSetStatus, new: TradingBotSetStatus) -> list[Notice]:
    """Events of a change of status: what people must act on."""
    before = {item.type: (item.status, item.reason) for item in old.conditions}
    bad = {SetCondition.ACCEPTED: statuses.FALSE, SetCondition.STALLED: statuses.TRUE}
    return [
        Notice(item.reason, item.message, warning=True)
        for item in new.conditions
        if bad.get(SetCondition(item.type)) == item.status and before.get(item.type) != (item.status, item.reason)
    ]
