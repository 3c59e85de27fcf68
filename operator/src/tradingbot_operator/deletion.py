"""The end of a TradingBot: drain by policy, until its deadline; then its claim and itself are let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import structlog

from tradingbot_api.bot_http import BotStatus, DrainPhase
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import PositionPolicy
from tradingbot_operator import desired
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.bot_talk import DRAIN_REPEAT_SECONDS, BotTalk, Record, claimant_of
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.claims import Claims
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.desired import SpecError
from tradingbot_operator.fleet import MARK_SECONDS, MOST_RELEASES, ForeignObjectError, Memory
from tradingbot_operator.inventory import SeenBot, SeenPod
from tradingbot_operator.leftovers import farewell
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reporter import Reporter
from tradingbot_operator.status import Finding

STUCK_POD_SECONDS: Final = desired.TERMINATION_SECONDS + 10.0
"""Past the deadline: how long the kubelet is waited for to end the pod."""
DEFAULT_DEADLINE_SECONDS: Final = 120

log = structlog.get_logger(__name__)


class DeletionStep(StrEnum):
    """What a deletion does next."""

    DRAIN = "Drain"
    """Ask the bot to cancel its entries and, by policy, to sell."""
    MAKE_POD = "MakePod"
    """Its pod was lost before it drained: another one drains."""
    WAIT = "Wait"
    MARK = "Mark"
    """Write into the status that the bot drained, before its pod ends: an operator that begins now must know."""
    DELETE_POD = "DeletePod"
    RELEASE = "Release"
    """Give up the claim and let the TradingBot go."""
    LET_GO = "LetGo"
    """Let the TradingBot go and its claim stand: a process may still run. Who wants the claim gets it when the last
    grant has surely ended."""


@dataclass(frozen=True)
class DeletionFacts:
    """What a deletion is decided on."""

    pod: bool
    pod_deleting: bool
    pod_terminated: bool
    reachable: bool
    drained: bool
    marked: bool
    """The status says that it drained, and what it left."""
    could_trade: bool
    """The bot once named its account or holds a claim; else nothing of it can be on the exchange."""
    overdue: float
    """Seconds since the deadline; negative before it."""
    claimed_by_other: bool
    """Another TradingBot holds the claim: position and orders on the exchange are its own to keep or sell."""
    gone_for_sure: bool
    """No process of it can add exposure: its end was seen, or its last grant ended, or it drained."""
    namespace_going: bool
    """Its namespace is being deleted: no pod can be made in it any more."""


def deletion_step(facts: DeletionFacts) -> DeletionStep:
    """Pure: what to do next, so that each branch is a table row.

    Past the deadline the only wait is for the kubelet to end a pod that still exists, and that is bounded too: a
    namespace, or a lost node, must not hang on a bot that does not answer.
    """
    late = facts.overdue >= 0
    owes_drain = facts.could_trade and not facts.claimed_by_other and not facts.drained and not late
    end = DeletionStep.RELEASE if facts.gone_for_sure else DeletionStep.LET_GO
    if not facts.pod or facts.pod_terminated:
        if not facts.gone_for_sure:
            return DeletionStep.LET_GO if late else DeletionStep.WAIT
        if not owes_drain or facts.namespace_going:
            return DeletionStep.RELEASE
        if facts.pod:
            return DeletionStep.WAIT if facts.pod_deleting else DeletionStep.DELETE_POD
        return DeletionStep.MAKE_POD
    if facts.pod_deleting:
        # A node that is lost never confirms the end.
        stuck = facts.overdue > STUCK_POD_SECONDS or (late and facts.namespace_going)
        return end if stuck else DeletionStep.WAIT
    if late:
        return DeletionStep.DELETE_POD
    if facts.drained:
        return DeletionStep.DELETE_POD if facts.marked else DeletionStep.MARK
    if facts.claimed_by_other or not (facts.could_trade or facts.reachable):
        return DeletionStep.DELETE_POD
    return DeletionStep.DRAIN if facts.reachable else DeletionStep.WAIT


@dataclass(frozen=True)
class Wish:
    """How a TradingBot is to end; the CRD's defaults where its spec cannot be read."""

    policy: PositionPolicy
    seconds: int
    readable: bool

    @classmethod
    def of(cls, bot: SeenBot) -> Wish:
        """From the spec."""
        try:
            spec = desired.parse_spec(bot)
        except SpecError:
            return cls(PositionPolicy.HOLD, DEFAULT_DEADLINE_SECONDS, readable=False)
        return cls(spec.deletion_policy, spec.deletion_deadline_seconds, readable=True)


def begun(bot: SeenBot, seen: datetime) -> datetime:
    """Since when the deadline counts: from when an operator that was there took the deletion up.

    Counted from the deletion itself, a bot that outlived a long absence of the operator would not be drained at all.
    The status keeps the time over restarts of the operator; `seen` is when this one saw the deletion first.
    """
    for condition in bot.told.conditions:
        if condition.reason == Reason.DELETING and condition.last_transition_time is not None:
            seen = min(seen, condition.last_transition_time)
    return max(seen, bot.deleted) if bot.deleted is not None else seen


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
        wish = Wish.of(bot)
        pod = self._objects.our_pod(bot)
        if pod is not None:
            memory.had_pod = True
        self._talk.tend_link(bot, memory, pod)
        since, counted_from = memory.deletion_begun = memory.deletion_begun or self._begun(bot)
        deadline = since + timedelta(seconds=wish.seconds)
        overdue = self._loop.time() - counted_from - wish.seconds
        standing = await self._talk.record(bot, memory, again) if wish.readable else Record.DONE
        word = memory.word() if standing is not Record.OTHER_ACCOUNT else None
        self._look_for_drain(bot, memory, wish, word.status if word is not None else None)
        gone_in = 0.0
        if pod is None:
            gone_in = await self._certainty.gone_in(bot, memory)
        elif not pod.terminated:
            gone_in = await self._certainty.granted_for(bot, memory)
        named = word is not None and word.status.account_uid is not None
        could_trade = named or await self._certainty.could_trade(bot, memory)
        other = wish.readable and await self._claimed_by_other(
            bot, memory, word.status.account_uid if word is not None else None
        )
        facts = DeletionFacts(
            pod=pod is not None,
            pod_deleting=pod is not None and pod.deleting,
            pod_terminated=pod is not None and pod.terminated,
            reachable=word is not None and standing not in {Record.RAISED, Record.NOT_YET},
            drained=memory.drained is not None,
            marked=memory.marked(bot),
            could_trade=could_trade,
            overdue=overdue,
            claimed_by_other=other,
            gone_for_sure=gone_in <= 0 or memory.drained is not None,
            namespace_going=memory.namespace_going,
        )
        action = deletion_step(facts)
        if action is DeletionStep.MAKE_POD:
            pod = await self._pod_to_drain(bot, memory)
            if memory.namespace_going:
                action = DeletionStep.RELEASE
        if action in {DeletionStep.RELEASE, DeletionStep.LET_GO}:
            await self._say_farewell(bot, memory, owes_word=could_trade and not other)
            await self._let_go(bot, memory, claim=action is DeletionStep.RELEASE)
            return None
        if action is DeletionStep.DELETE_POD and pod is not None:
            await self._cluster.delete("pods", bot.key.namespace, bot.key.name, pod.uid)
        elif action is DeletionStep.MARK:
            memory.marks += 1
        elif action is DeletionStep.DRAIN:
            await self._talk.drain(bot, memory, wish.policy, seconds_left=-overdue)
        if gone_in > 0:
            again.append(gone_in)
        again.append(-overdue if overdue < 0 else STUCK_POD_SECONDS - overdue if overdue < STUCK_POD_SECONDS else 10.0)
        again.append(MARK_SECONDS if action is DeletionStep.MARK else DRAIN_REPEAT_SECONDS)
        left = "; ".join(memory.drained.remaining) if memory.drained is not None else ""
        message = f"Being deleted: {action}, until {deadline:%H:%M:%SZ} at the latest." + (
            f" Stays on the exchange: {left}." if left else ""
        )
        await self._reporter.tell(bot, memory, Finding.bad(Reason.DELETING, message), pod, again)
        return max(0.05, min(again))

    def _begun(self, bot: SeenBot) -> tuple[datetime, float]:
        now = self._now()
        since = begun(bot, now)
        return since, self._loop.time() - max(0.0, (now - since).total_seconds())

    @staticmethod
    def _look_for_drain(bot: SeenBot, memory: Memory, wish: Wish, status: BotStatus | None) -> None:
        """Takes the bot's word that it drained as it was to, or a former operator's note of it."""
        if status is not None and status.drain.phase is DrainPhase.DRAINED:
            memory.drained = status.drain
        elif memory.drained is None:
            memory.drained = statuses.noted_drain(bot)
        # Drained for an update or a suspension, or before the policy was edited: that one may have kept its position.
        if memory.drained is not None and memory.drained.position_policy is not wish.policy:
            memory.drained = None

    async def _claimed_by_other(self, bot: SeenBot, memory: Memory, told: str | None) -> bool:
        if memory.claim.holds:
            return False
        account = bot.told.account_uid or told
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
            memory.namespace_going = isinstance(error, ApiError) and error.namespace_going
            memory.pod_missing = f"The pod that should drain cannot be made: {error}"
            log.warning("no pod to drain", bot=str(bot.key), error=str(error))
            return None

    async def _say_farewell(self, bot: SeenBot, memory: Memory, *, owes_word: bool) -> None:
        """Tells once what is left; in a namespace that is being deleted only the log and the metric are heard."""
        if memory.farewell_said or (memory.drained is None and not owes_word):
            return
        told = farewell(bot, memory.drained, memory.last.status if memory.last is not None else None)
        memory.farewell_said = True
        if told is None:
            return
        notice, left = told
        level = log.warning if notice.warning else log.info
        level(
            "left on the exchange", bot=str(bot.key), reason=notice.reason, left=list(left.lines), source=left.source,
            look_for=left.look_for,
        )  # fmt: skip
        if notice.warning:
            self._metrics.deletions_incomplete.inc()
        await self._reporter.events.post(bot, notice)

    async def _let_go(self, bot: SeenBot, memory: Memory, *, claim: bool) -> None:
        """Releases the claim and takes our finalizer off; ApiError where either is to be tried again."""
        if claim:
            try:
                await self._claims.release(bot.uid)
            except ApiError as error:
                if error.passing:
                    raise
                memory.claim_refused += 1
                if error.status >= 500 and memory.claim_refused < MOST_RELEASES:
                    raise
                # Somebody's permissions or policy: the claim can be taken over later, the TradingBot must not hang.
                log.warning("the claim stays", bot=str(bot.key), error=str(error))
        try:
            await self._cluster.set_finalizer(bot, present=False)
        except ApiError as error:
            if not error.other_object:
                raise
            log.info("the TradingBot is gone already", bot=str(bot.key))
        memory.released = True
