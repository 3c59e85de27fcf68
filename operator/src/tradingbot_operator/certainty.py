"""When a process whose end was not seen can certainly add no exposure any more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import GRANT_TTL_SECONDS, BotStatus, DrainStatus
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import Word
from tradingbot_operator.claims import Absences, Claim, Claims
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.fleet import Memory
from tradingbot_operator.inventory import SeenBot, SeenPod
from tradingbot_operator.leader import Leader
from tradingbot_operator.sharding import ALONE, Shard
from tradingbot_operator.status import Gone

GRANT_MARGIN_SECONDS: Final = 10.0
GRANT_OVER_SECONDS: Final = GRANT_TTL_SECONDS + GRANT_MARGIN_SECONDS
"""After a grant was given: nothing of it can be left."""

ENTRY_SETTLE_SECONDS: Final = 15.0
"""The longest recvWindow of an entry, 5 s, and a margin for its answer and for clocks."""

HANDOVER_SECONDS: Final = 90.0
"""After a TradingBot went from one shard to another: the former operator lists the cluster each minute, so that it
grants no longer than this though its watches hang."""

log = structlog.get_logger(__name__)


def confirmed_stopped(vanished: str, annotations: Mapping[str, str]) -> bool:
    """Whether a human says that the process of the vanished pod stopped. An older word, on another pod, does not count;
    so neither does any while the pod's UID is not known."""
    return bool(vanished) and annotations.get(names.CONFIRM_STOPPED_ANNOTATION) == vanished


def over_in(
    last: BotStatus | None,
    *,
    could_trade: bool,
    stood: bool,
    granted_since: bool,
    wished: bool,
    gone_for: float,
    imposed: bool = False,
) -> float | None:
    """Seconds until nothing that a process left on the exchange can add exposure; 0: now; None: that is not known.

    The process is certainly gone; `last` is what it said last of the exchange, `granted_since` whether it may have got
    a grant after that, `wished` whether spec.safeMode stands since then, `imposed` whether kill switches do, `stood`
    whether the status says that it acknowledged safe mode for a reason that stands.

    - Who never had a claim was never granted anything, and without a grant no entry is sent.
    - Who had acknowledged left nothing, unless it may have entered again: it had a grant, and no cause that only the
      operator ends, or its own end.
    - An entry is FOK: once its recvWindow is over it was filled, with its protection, or it is nothing. Only the order
      by which a start shows itself before its first entry rests, far below the market, until it is cancelled. So who
      has shown itself leaves no entry behind ENTRY_SETTLE_SECONDS after its end.
    - Of any other one an order may rest.
    """
    if not could_trade:
        return 0.0
    if last is None:
        return 0.0 if stood else None
    lasting = {Reason.DRAINING, *([Reason.SPEC] if wished else []), *([Reason.KILL_SWITCH] if imposed else [])}
    stays = any(cause.reason in lasting for cause in last.safe_mode.causes) or not (last.grant.held or granted_since)
    if last.safe_mode.engaged and last.safe_mode.acknowledged and stays:
        return 0.0
    return max(0.0, ENTRY_SETTLE_SECONDS - gone_for) if last.announced else None


def granted_after(last: Word, granted: float | None) -> bool:
    """Whether the grant that was sent at `granted` may have had its effect only after the process said `last`.

    A word that comes after the grant was sent, and knows of none, may have been under way before.
    """
    return granted is not None and last.received <= granted + (0.0 if last.status.grant.held else GRANT_TTL_SECONDS)


def stood(bot: SeenBot, *, imposed: bool = False) -> bool:
    """Whether the status says that it acknowledged, for a reason that no bot ends by itself."""
    acknowledged = statuses.condition(bot.told, ConditionType.SAFE_MODE_ACKNOWLEDGED)
    engaged = statuses.condition(bot.told, ConditionType.SAFE_MODE_ENGAGED)
    if acknowledged is None or engaged is None or acknowledged.status != statuses.TRUE:
        return False
    return (
        acknowledged.reason == Reason.PROCESS_GONE
        or (bot.safe_mode and engaged.reason == Reason.SPEC)
        or (imposed and engaged.reason == Reason.KILL_SWITCH)
    )


def left_no_entry(drained: DrainStatus | None) -> bool:
    """Whether a drain ended with every entry known to be gone; what it could not find out it says."""
    return drained is not None and not any("unknown" in line for line in drained.remaining)


class Certainty:
    """Answers by the last grant that this operator gave, or that a former one may have given."""

    def __init__(self, cluster: Cluster, claims: Claims, leader: Leader, shard: Shard = ALONE) -> None:
        self._handover = 0.0 if shard.alone else HANDOVER_SECONDS
        self._cluster = cluster
        self._claims = claims
        self._leader = leader
        self._loop = asyncio.get_running_loop()
        self._absences = Absences(GRANT_OVER_SECONDS + self._handover)

    async def gone_in(self, bot: SeenBot, memory: Memory) -> float:
        """Seconds until a process whose end was not seen can certainly add no exposure; 0: now."""
        vanished = memory.vanished_pod
        if vanished is None:
            return 0.0
        # Who drained enters no more: no process of it, as only a new one would.
        if confirmed_stopped(vanished, bot.annotations) or memory.drained is not None:
            return self._settled(memory)
        return await self.granted_for(bot, memory) or self._settled(memory)

    async def granted_for(self, bot: SeenBot, memory: Memory) -> float:
        """Seconds until the last grant that a process of it may have is certainly over; 0: now."""
        last = memory.last_grant if memory.last_grant is not None else self._former_grant(memory)
        wait = last + GRANT_OVER_SECONDS - self._loop.time()
        return wait if wait > 0 and await self.could_trade(bot, memory) else 0.0

    def _former_grant(self, memory: Memory) -> float:
        """Until when a former operator may have granted: until this one took its Lease; of another shard, until that
        one saw that the TradingBot is not its own any more."""
        return max(self._leader.since, memory.since) + self._handover if self._handover else self._leader.since

    @staticmethod
    def _settled(memory: Memory) -> float:
        memory.vanished_pod = None
        return 0.0

    async def gone(self, bot: SeenBot, memory: Memory, pod: SeenPod | None) -> Gone | None:
        """Whether certainly no process of it runs, and what of it may be left; None: one may run."""
        ended = pod is None or pod.terminated or (pod.never_ran and pod.unschedulable != "")
        if not ended or (pod is None and await self.gone_in(bot, memory) > 0):
            memory.gone_since = None
            return None
        now = self._loop.time()
        if memory.gone_since is None:
            memory.gone_since = now
        if left_no_entry(memory.drained):
            return Gone(0.0)
        last, wished_since = memory.last, memory.wanted_since
        since = wished_since is None or last is None or last.received >= wished_since
        return Gone(
            over_in(
                last.status if last is not None else None,
                could_trade=await self.could_trade(bot, memory),
                stood=stood(bot, imposed=bool(memory.imposed)),
                granted_since=last is not None and granted_after(last, memory.last_grant),
                wished=bot.safe_mode and since,
                imposed=bool(memory.imposed) and since,
                gone_for=now - memory.gone_since,
            )
        )

    async def could_trade(self, bot: SeenBot, memory: Memory) -> bool:
        """Whether the bot can ever have had an order: without a claim it was never granted anything."""
        if memory.last_grant is not None or memory.claim.holds or bot.told.account_uid:
            return True
        if memory.may_hold_claim is None:
            memory.may_hold_claim = await self._claims.any_of(bot.uid)
        return memory.may_hold_claim

    async def holder_gone(self, claim: Claim) -> bool:
        """Whether a claim's holder and its process are gone: its TradingBot and its pod do not exist any more."""
        namespace, _, name = claim.holder.partition("/")
        if not name:
            return False
        try:
            holder = await self._cluster.get(names.PLURAL, namespace, name)
            pod = await self._cluster.get("pods", namespace, name)
        except ApiError as error:
            # A namespace that this operator may not read: its bots are somebody else's.
            log.info("a claim's holder cannot be looked at", holder=claim.holder, error=str(error))
            return False
        there = holder is not None and holder["metadata"]["uid"] == claim.holder_uid
        runs = pod is not None and SeenPod.of(pod).owner_uid == claim.holder_uid
        return self._absences.certain(claim.holder_uid, absent=not (there or runs), now=self._loop.time())
