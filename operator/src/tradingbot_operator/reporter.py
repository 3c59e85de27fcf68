"""What people see of a TradingBot: its status, written where it differs enough and its time came, and its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus
from tradingbot_api.conditions import ConditionType, Phase, Reason
from tradingbot_api.v1alpha1 import TradingBotStatus
from tradingbot_operator import status as statuses
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.cluster import Cluster, ConflictError, NotFoundError
from tradingbot_operator.coverage import Coverage
from tradingbot_operator.equality import Equality
from tradingbot_operator.events import Events
from tradingbot_operator.fleet import SUSPENDED, Memory
from tradingbot_operator.inventory import Inventory, SeenBot, SeenPod, read_status
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reservations import Reservations
from tradingbot_operator.sharding import OtherShards, account_of
from tradingbot_operator.shares import Shares
from tradingbot_operator.status import Change, Finding, Notice
from tradingbot_operator.work_queue import LONGEST_RETRY_SECONDS

CONFLICT_RETRY_SECONDS: Final = 0.2
REPEAT_SECONDS: Final = 600.0
"""A pod's trouble is posted again after so long at the earliest: a crash loop comes and goes with every restart."""

log = structlog.get_logger(__name__)


def conflict_wait(conflicts: int) -> float:
    """Seconds until a status is tried again after so many conflicts before this one: the watch may lag or hang."""
    return min(CONFLICT_RETRY_SECONDS * 2.0 ** min(conflicts, 10), LONGEST_RETRY_SECONDS)


class Reporter:
    """Writes statuses and events, and the figures that follow from them."""

    def __init__(
        self,
        cluster: Cluster,
        bots: Inventory[SeenBot],
        certainty: Certainty,
        coverage: Coverage,
        equality: Equality,
        *,
        reservations: Reservations,
        shares: Shares,
        identity: str,
        now: Callable[[], datetime],
        random: Random,
        metrics: Metrics,
        others: OtherShards,
    ) -> None:
        """`identity` is the reporting instance of events."""
        self._others = others
        self._cluster = cluster
        self._bots = bots
        self._certainty = certainty
        self._coverage = coverage
        self._equality = equality
        self._reservations = reservations
        self._shares = shares
        self._now = now
        self.events = Events(cluster, identity, now, random)
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()

    async def tell(
        self, bot: SeenBot, memory: Memory, accepted: Finding, pod: SeenPod | None, again: list[float]
    ) -> None:
        """Writes the status where it differs enough and its time has come."""
        word = memory.word()
        gone = await self._certainty.gone(bot, memory, pod)
        if gone is not None and gone.over_in:
            again.append(gone.over_in)
        reachable = self._reachable(memory)
        if memory.link is not None and reachable.status == statuses.UNKNOWN:
            again.append(max(0.1, memory.link.silent_at() - self._loop.time()))
        account = self._equality.of(bot.uid, self._loop.time())
        split = self._others.on(account_of(bot, self._account_uid(bot, memory)))
        memory.unexplained = account.unexplained if account is not None and account.differs else {}
        fresh = statuses.compose(
            statuses.Observed(
                now=self._now(),
                bot=bot,
                accepted=accepted,
                claim=memory.claim,
                pod=pod,
                pod_missing=memory.pod_missing,
                paced=memory.paced_until is not None,
                word=word.status if word is not None and reachable.holds else None,
                reachable=reachable,
                revision=memory.ledger.revision if memory.ledger is not None else 0,
                refusal=memory.refused(),
                acknowledged_after=memory.acknowledged_after,
                shortage=self._coverage.of(bot.uid),
                account=account,
                # Of a split account it would count the other shards' fills as nobody's.
                account_rest=None if split else self._equality.rest(bot.uid),
                split=tuple(split),
                up_to_date=memory.up_to_date,
                drained=memory.drained,
                vanished_pod=memory.vanished_pod,
                gone=gone,
                egress_group=self._shares.address(bot).group,
                too_many=self._shares.too_many(bot),
                imposed=memory.imposed,
                exposure_bound=self._reservations.exposure_bound(bot),
                fleet_limited=memory.ledger is not None and memory.ledger.fleet_limited,
            )
        )
        memory.told = fresh
        self.count_phase(memory, fresh)
        wanted = bot.safe_mode or bool(memory.imposed)
        memory.unacknowledged = wanted and not statuses.holds(fresh, ConditionType.SAFE_MODE_ACKNOWLEDGED)
        if self._cluster.undeclared:
            # What the CRD cannot hold is no difference.
            fresh = read_status(TradingBotStatus, self._cluster.declared(statuses.encode(fresh)))
        stands = bot.told
        change = statuses.change(stands, fresh)
        if memory.owes_wait and fresh.api is not None and fresh.api.wait_until_time is not None:
            change = Change.STATE
        if change is Change.NONE:
            return
        awaits_word = memory.link is not None or memory.above >= 0
        unheard = awaits_word and reachable.status == statuses.UNKNOWN
        if memory.status_written is None and pod is not None and pod.ready and unheard:
            # A new operator has not heard the bot yet: what the former one wrote stands for these seconds.
            return
        due = 0.0
        if memory.status_written is not None:
            due = memory.status_written + statuses.SPACING[change]
        elif change is Change.STARTING and stands.phase is None and pod is not None:
            due = memory.since + statuses.FIRST_SECONDS
        if (wait := due - self._loop.time()) > 0:
            again.append(wait)
            return
        if memory.status_refused is not None:
            version, until = memory.status_refused
            if version == bot.resource_version and (wait := until - self._loop.time()) > 0:
                again.append(wait)
                return
        try:
            self._bots.see(await self._cluster.apply_status(bot, fresh))
        except (ConflictError, NotFoundError):
            # It changed, or went, since it was seen; the watch tells what is now.
            wait = conflict_wait(memory.status_conflicts)
            again.append(wait)
            memory.status_conflicts += 1
            memory.status_refused = (bot.resource_version, self._loop.time() + wait)
            return
        memory.status_written, memory.status_conflicts, memory.owes_wait = self._loop.time(), 0, False
        log.debug("status written", bot=str(bot.key), change=change, phase=fresh.phase)
        for notice in statuses.notices(stands, fresh):
            if notice.reason in statuses.POD_TROUBLE:
                await self._post_trouble(bot, memory, notice)
            else:
                await self.events.post(bot, notice)

    async def tell_eviction(self, bot: SeenBot, memory: Memory, pod: SeenPod) -> None:
        """Posts that a pod was evicted. By who ends it, not from the status: that waits while a bot starts, and an
        evicted pod is gone in a moment."""
        found = statuses.pod_ready(pod, memory.pod_missing, self._now())
        if found.reason == Reason.EVICTED:
            await self._post_trouble(bot, memory, Notice(found.reason, found.message, warning=True))

    async def _post_trouble(self, bot: SeenBot, memory: Memory, notice: Notice) -> None:
        last = memory.trouble_posted.get(notice.reason)
        if last is None or last <= self._loop.time() - REPEAT_SECONDS:
            memory.trouble_posted[notice.reason] = self._loop.time()
            await self.events.post(bot, notice)

    @staticmethod
    def _account_uid(bot: SeenBot, memory: Memory) -> str | None:
        told = memory.last.status.account_uid if memory.last is not None else None
        return bot.told.account_uid or told

    def _reachable(self, memory: Memory) -> Finding:
        link = memory.link
        if link is None and memory.pod_missing == SUSPENDED:
            return Finding.open(Reason.SUSPENDED, SUSPENDED)
        if link is None:
            return Finding.open(Reason.STARTING, "There is no running process yet.")
        if link.mismatch:
            return Finding.bad(Reason.IDENTITY_MISMATCH, f"Not this TradingBot's process: {link.mismatch}.")
        if link.fresh() is not None:
            return Finding.good()
        if link.word is None and self._loop.time() < link.silent_at():
            return Finding.open(Reason.STARTING, "The bot has not answered yet.")
        return Finding.bad(
            Reason.NO_HEARTBEAT,
            f"No word from the bot: {link.trouble or 'silence'}. See its log, and whether the operator may reach "
            f"port {names.CONTROL_PORT} of its pod.",
        )

    def count_phase(self, memory: Memory, fresh: TradingBotStatus | None) -> None:
        """Keeps the gauge of phases; None: the TradingBot is gone."""
        phase = Phase(fresh.phase) if fresh is not None and fresh.phase else None
        if phase is memory.phase:
            return
        if memory.phase is not None:
            self._metrics.bots.labels(memory.phase).dec()
        if phase is not None:
            self._metrics.bots.labels(phase).inc()
        memory.phase = phase

    def time_safe_mode(self, memory: Memory, status: BotStatus) -> None:
        """Takes the times from seeing spec.safeMode true to the bot's word that it holds."""
        if memory.wanted_since is None or memory.acknowledged_after is not None:
            return
        if not (memory.has_current_config(status) and status.safe_mode.engaged):
            return
        seconds = self._loop.time() - memory.wanted_since
        if not memory.engaged_seen:
            memory.engaged_seen = True
            self._metrics.safe_mode_engaged_seconds.observe(seconds)
        if status.safe_mode.acknowledged:
            memory.acknowledged_after = seconds
            self._metrics.safe_mode_acknowledged_seconds.observe(seconds)
