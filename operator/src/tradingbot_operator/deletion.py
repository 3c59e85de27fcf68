"""The end of a TradingBot: drain by policy, until its deadline; then its claim and itself are let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog

from tradingbot_api.bot_http import DrainPhase, DrainStatus
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import PositionPolicy
from tradingbot_operator import desired
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.bot_talk import DRAIN_REPEAT_SECONDS, BotTalk, claimant_of
from tradingbot_operator.certainty import GRANT_OVER_SECONDS, Certainty
from tradingbot_operator.claims import Claims
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError, NotFoundError
from tradingbot_operator.desired import SpecError
from tradingbot_operator.fleet import ForeignObjectError, Memory
from tradingbot_operator.inventory import SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reporter import Reporter
from tradingbot_operator.status import Finding, Notice

STUCK_POD_SECONDS: Final = 60.0
DEFAULT_DEADLINE_SECONDS: Final = 120

log = structlog.get_logger(__name__)


class DeletionStep(StrEnum):
    """What a deletion does next."""

    DRAIN = "Drain"
    """Ask the bot to cancel its entries and, by policy, to sell."""
    MAKE_POD = "MakePod"
    """Its pod was lost before it drained: another one drains."""
    WAIT = "Wait"
    DELETE_POD = "DeletePod"
    RELEASE = "Release"
    """Give up the claim and let the TradingBot go."""


@dataclass(frozen=True)
class DeletionFacts:
    """What a deletion is decided on."""

    pod: bool
    pod_deleting: bool
    pod_terminated: bool
    reachable: bool
    drained: bool
    could_trade: bool
    """The bot once named its account or holds a claim; else nothing of it can be on the exchange."""
    overdue: float
    """Seconds since the deadline; negative before it."""
    claimed_by_other: bool
    """Another TradingBot holds the claim: position and orders on the exchange are its own to keep or sell."""
    gone_for_sure: bool
    """No process of it can add exposure: its end was seen, or its last grant ended."""


def deletion_step(facts: DeletionFacts) -> DeletionStep:
    """Pure: what to do next, so that each branch is a table row."""
    owes_drain = facts.could_trade and not facts.claimed_by_other and not facts.drained and facts.overdue < 0
    if not facts.pod or facts.pod_terminated:
        if not facts.gone_for_sure:
            return DeletionStep.WAIT
        if not owes_drain:
            return DeletionStep.RELEASE
        if facts.pod:
            return DeletionStep.WAIT if facts.pod_deleting else DeletionStep.DELETE_POD
        return DeletionStep.MAKE_POD
    if facts.pod_deleting:
        # A node that is lost never confirms the end: past its grant the process cannot add exposure.
        stuck = facts.overdue > STUCK_POD_SECONDS and facts.gone_for_sure
        return DeletionStep.RELEASE if stuck else DeletionStep.WAIT
    if facts.claimed_by_other or facts.drained or facts.overdue >= 0 or not (facts.could_trade or facts.reachable):
        return DeletionStep.DELETE_POD
    return DeletionStep.DRAIN if facts.reachable else DeletionStep.WAIT


def left_on_exchange(drained: DrainStatus) -> Notice:
    """The event of what a drain left: a warning where that is not what the policy leaves, or not known."""
    left = "; ".join(drained.remaining)
    if drained.position_policy is PositionPolicy.CLOSE_POSITION:
        return Notice("PositionNotClosed", f"Not everything was sold or cancelled in time: {left}.", warning=True)
    if any("unknown" in line for line in drained.remaining):
        return Notice("DeletionIncomplete", f"It is not known what stays on the exchange: {left}.", warning=True)
    return Notice("LeftOnExchange", f"Stays on the exchange: {left}")


class Deletion:
    """Carries the end of a TradingBot out, a step at a time."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        claims: Claims,
        certainty: Certainty,
        objects: BotObjects,
        talk: BotTalk,
        reporter: Reporter,
        now: Callable[[], datetime],
        metrics: Metrics,
    ) -> None:
        self._cluster = cluster
        self._claims = claims
        self._certainty = certainty
        self._objects = objects
        self._talk = talk
        self._reporter = reporter
        self._now = now
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()

    async def step(self, bot: SeenBot, memory: Memory) -> float | None:
        """Brings the end closer; when to come again, None: it is over."""
        if not bot.finalizing or bot.deleted is None or memory.released:
            # Others' finalizers hold it; ours is done.
            return None
        again: list[float] = []
        pod = self._objects.our_pod(bot)
        if pod is not None:
            memory.had_pod = True
        self._talk.tend_link(bot, memory, pod)
        word = memory.word()
        if word is not None and word.status.drain.phase is DrainPhase.DRAINED:
            memory.drained = word.status.drain
        named = word is not None and word.status.account_uid is not None
        deadline = bot.deleted + timedelta(
            seconds=int(bot.spec.get("deletionDeadlineSeconds", DEFAULT_DEADLINE_SECONDS))
        )
        overdue = (self._now() - deadline).total_seconds()
        gone_in = 0.0
        if pod is None:
            gone_in = await self._certainty.gone_in(bot, memory)
        elif not pod.terminated and memory.last_grant is not None:
            gone_in = memory.last_grant + GRANT_OVER_SECONDS - self._loop.time()
        could_trade = named or await self._certainty.could_trade(bot, memory)
        other = await self._claimed_by_other(bot, memory, word.status.account_uid if word is not None else None)
        facts = DeletionFacts(
            pod=pod is not None,
            pod_deleting=pod is not None and pod.deleting,
            pod_terminated=pod is not None and pod.terminated,
            reachable=word is not None,
            drained=memory.drained is not None,
            could_trade=could_trade,
            overdue=overdue,
            claimed_by_other=other,
            gone_for_sure=gone_in <= 0,
        )
        action = deletion_step(facts)
        if action is DeletionStep.RELEASE:
            await self._release(bot, memory, could_trade=could_trade and not other)
            return None
        if action is DeletionStep.DELETE_POD and pod is not None:
            await self._cluster.delete("pods", bot.key.namespace, bot.key.name, pod.uid)
        elif action is DeletionStep.MAKE_POD:
            pod = await self._pod_to_drain(bot, memory)
        elif action is DeletionStep.DRAIN:
            policy = PositionPolicy(bot.spec.get("deletionPolicy", PositionPolicy.HOLD))
            await self._talk.drain(bot, memory, policy, seconds_left=-overdue)
        if gone_in > 0:
            again.append(gone_in)
        again.append(-overdue if overdue < 0 else STUCK_POD_SECONDS - overdue if overdue < STUCK_POD_SECONDS else 10.0)
        again.append(DRAIN_REPEAT_SECONDS)
        left = "; ".join(memory.drained.remaining) if memory.drained is not None else ""
        message = f"Being deleted: {action}." + (f" Stays on the exchange: {left}." if left else "")
        await self._reporter.tell(bot, memory, Finding.bad(Reason.DELETING, message), pod, again)
        return max(0.05, min(again))

    async def _claimed_by_other(self, bot: SeenBot, memory: Memory, told: str | None) -> bool:
        if memory.claim.holds:
            return False
        account = bot.status.get("accountUID") or told
        if memory.claim.reason == Reason.CLAIMED_BY_OTHER or not account:
            return memory.claim.reason == Reason.CLAIMED_BY_OTHER
        # Not asked since this process started.
        holder = await self._claims.holder(claimant_of(bot, account, "", 0).lease_name)
        return holder not in {"", bot.uid}

    async def _pod_to_drain(self, bot: SeenBot, memory: Memory) -> SeenPod | None:
        """Makes the lost pod again; where that is refused, the deadline ends the deletion."""
        memory.drain_asked = None
        try:
            return await self._objects.make_pod(bot, desired.parse_spec(bot), memory)
        except (SpecError, ForeignObjectError, ApiError) as error:
            memory.pod_missing = f"The pod that should drain cannot be made: {error}"
            log.warning("no pod to drain", bot=str(bot.key), error=str(error))
            return None

    async def _release(self, bot: SeenBot, memory: Memory, *, could_trade: bool) -> None:
        drained = memory.drained
        if drained is not None and drained.remaining:
            notice = left_on_exchange(drained)
            if notice.warning:
                self._metrics.deletions_incomplete.inc()
            await self._reporter.post(bot, notice)
        elif drained is None and could_trade:
            self._metrics.deletions_incomplete.inc()
            position = (bot.status.get("position") or {}).get("quantity", "unknown")
            await self._reporter.post(
                bot,
                Notice(
                    "DeletionIncomplete",
                    "The TradingBot is let go although its bot had not finished. Look at the exchange account for open "
                    f"orders and a position of {bot.spec.get('symbol')} (last known quantity: {position}).",
                    warning=True,
                ),
            )
        await self._claims.release(bot.uid)
        try:
            await self._cluster.set_finalizer(bot, present=False)
        except (ConflictError, NotFoundError):
            log.info("the TradingBot is gone already", bot=str(bot.key))
        memory.released = True
