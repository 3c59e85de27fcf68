"""What a step says to a running bot: configuration, claim and grant in this order, and the drain."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from random import Random
from typing import Final

import aiohttp
import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import (
    EPOCH_PAST,
    GRANT_RENEWAL_SECONDS,
    GRANT_TTL_SECONDS,
    STALE_REVISION,
    BotStatus,
    DrainPhase,
    DrainRequest,
    Grant,
    ImposedCause,
    RaiseIncarnation,
)
from tradingbot_api.conditions import Reason
from tradingbot_api.kill_switch import CAUSE_PREFIXES
from tradingbot_api.v1alpha1 import PositionPolicy, SafeModeCause
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import BotCallError, BotLink, BotRefusedError, Opening, Peer
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.claims import Claimant, Claims
from tradingbot_operator.claims import Standing as ClaimStanding
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.coverage import Coverage
from tradingbot_operator.equality import Equality
from tradingbot_operator.fleet import HANDING_SECONDS, NO_ACCOUNT_YET, Ledger, Memory
from tradingbot_operator.imposed import Impositions, Standing
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.order_shares import OrderShares
from tradingbot_operator.sharding import ALONE, Shard, account_of
from tradingbot_operator.shares import Shares
from tradingbot_operator.status import Finding

REGRANT_SECONDS: Final = 2.0
CLAIM_RETRY_SECONDS: Final = 5.0
CALL_RETRY_SECONDS: Final = 2.0
WISH_RETRY_SECONDS: Final = 0.5
DRAIN_REPEAT_SECONDS: Final = 5.0
KILL_SWITCHES: Final = frozenset(kind.kind for kind in CAUSE_PREFIXES)
"""Sources of causes that a standby imposes, too."""

log = structlog.get_logger(__name__)


class Record(StrEnum):
    """How a process start stands to the claim before it is asked to drain."""

    DONE = "Done"
    """The claim names it, or is not to be had: a drain adds no exposure, and the fence on the exchange holds."""
    RAISED = "Raised"
    """Another start had its number; it takes a greater one first."""
    NOT_YET = "NotYet"
    """It has not named its account although the TradingBot once did: it is not connected, and cannot drain yet."""
    OTHER_ACCOUNT = "OtherAccount"
    """Its keys are of another account: what it would drain is not this TradingBot's."""


class BotTalk:
    """Keeps the link to each bot that runs, and speaks over it."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        bots: Inventory[SeenBot],
        claims: Claims,
        certainty: Certainty,
        coverage: Coverage,
        equality: Equality,
        leader: Leader,
        impositions: Impositions,
        tls: ssl.SSLContext,
        session: aiohttp.ClientSession,
        heard: Callable[[BotKey, BotStatus | None, BotStatus | None], None],
        enqueue: Callable[[BotKey, bool], None],
        now: Callable[[], datetime],
        random: Random,
        metrics: Metrics,
        shares: Shares,
        orders: OrderShares,
        shard: Shard = ALONE,
    ) -> None:
        self._shard = shard
        self._cluster = cluster
        self._bots = bots
        self._claims = claims
        self._certainty = certainty
        self._coverage = coverage
        self._equality = equality
        self._leader = leader
        self._impositions = impositions
        self._tls = tls
        self._session = session
        self._heard = heard
        self._enqueue = enqueue
        self._now = now
        self._random = random
        self._metrics = metrics
        self._shares = shares
        self._orders = orders
        self._loop = asyncio.get_running_loop()
        self._opening = Opening()

    def tend_link(self, bot: SeenBot, memory: Memory, pod: SeenPod | None) -> None:
        peer = Peer.of(bot.uid, pod)
        if memory.link is not None and memory.link.peer != peer:
            memory.link.close()
            memory.link = None
        if peer is not None and memory.link is None and self._leader.epoch > memory.above:
            memory.link = BotLink(
                peer, self._session, self._tls, heard=self._heard, random=self._random, metrics=self._metrics,
                epoch=lambda: self._leader.epoch, opening=self._opening,
            )  # fmt: skip

    async def talk(self, bot: SeenBot, memory: Memory, again: list[float], *, readable: bool = True) -> None:
        """Configuration, claim and grant, in this order: nothing is granted to a bot that lacks the first two.

        Of a spec that is not `readable` only the configuration, which has its safe mode.
        """
        word, link, ledger = memory.word(), memory.link, memory.ledger
        if word is None or link is None or ledger is None:
            return
        status = word.status
        try:
            await self._configure(bot, memory, status, again)
            if readable:
                await self._claim(bot, memory, status, link, again)
                await self._grant(bot, memory, status, link, again)
        except BotRefusedError as error:
            log.warning("the bot refused", bot=str(bot.key), error=str(error))
            again.append(CALL_RETRY_SECONDS)
            await self._outrun(bot, error)
        except BotCallError as error:
            log.info("the bot did not answer", bot=str(bot.key), error=str(error))
            again.append(CALL_RETRY_SECONDS)

    async def _outrun(self, bot: SeenBot, error: BotRefusedError) -> None:
        """A bot that came from another shard may remember its operator's greater epoch: ours is raised above it.

        Whose the bot is says the API server: a label may have moved that no watch told of yet, and two operators must
        not outrun each other. How far is never taken from the bot, which runs others' strategies.
        """
        if error.reply.code != EPOCH_PAST:
            return
        raw = await self._cluster.get(names.PLURAL, bot.key.namespace, bot.key.name)
        latest = SeenBot.of(raw) if raw is not None else None
        if latest is None or latest.uid != bot.uid:
            return
        if self._shard.serves(latest):
            self._leader.outrun()
        elif self._bots.see(latest):
            self._enqueue(bot.key, True)

    async def _configure(self, bot: SeenBot, memory: Memory, status: BotStatus, again: list[float]) -> None:
        ledger = memory.ledger
        if ledger is None or ledger.settings is None:
            return
        if await self._releases_unasked(bot, ledger, status):
            self._enqueue(bot.key, True)
            return
        if status.applied_revision > ledger.revision:
            if not await self._wish_stands(bot, memory):
                again.append(WISH_RETRY_SECONDS)
                return
            ledger.heard(status.applied_revision)
            # The ConfigMap must not stay behind what the bot has.
            self._enqueue(bot.key, False)
            return
        sources = {cause.source for cause in status.safe_mode.causes}
        # A bot of a former release takes what is imposed on it for the spec's.
        imposed = {cause.id for cause in ledger.imposed}
        as_spec = bool(imposed) and not any(cause.id in imposed for cause in status.safe_mode.causes)
        releases = not ledger.settings.safe_mode and "Spec" in sources and not as_spec
        if releases and not await self._wish_stands(bot, memory):
            again.append(WISH_RETRY_SECONDS)
            return
        if memory.has_confirmed(status):
            if releases or _foreign(ledger, status):
                # A standby engaged it, and that wish ended since: a newer configuration releases it.
                ledger.outrun(status.applied_revision)
                self._enqueue(bot.key, True)
                return
            memory.refusal = None
            if ledger.cleared and names.CLEAR_ANNOTATION in bot.annotations:
                # Done, once: what latches again later must be cleared again.
                await self._cluster.remove_annotation(bot, names.CLEAR_ANNOTATION)
            return
        if memory.refusal is not None and memory.refusal[:2] == (ledger.revision, status.boot_id):
            return
        revision = ledger.revision
        # The stream tells the effect; should it not, once more.
        again.append(HANDING_SECONDS)
        try:
            await memory.hand_over(bot)
            memory.refusal = None
        except BotRefusedError as error:
            if error.reply.code == STALE_REVISION:
                ledger.outrun(status.applied_revision)
                self._enqueue(bot.key, False)
                return
            if error.status != 422:
                raise
            known = error.reply.code in set(Reason)
            finding = Finding.bad(error.reply.code if known else Reason.CONFIG_INVALID, _explain(error))
            memory.refusal = (revision, status.boot_id, finding)

    async def _releases_unasked(self, bot: SeenBot, ledger: Ledger, status: BotStatus) -> bool:
        """Whether the bot has a cause that the configuration would end though nobody released it: one that a standby
        imposed, whose origin this process has not seen. It is taken in, and the configuration is made anew."""
        for cause in _foreign(ledger, status):
            if cause.id in ledger.ended:
                continue
            standing = await self._impositions.standing(bot, cause.id)
            # What a former leader ended is ended by the revision that it wrote: the bot has not heard of it yet.
            heard = status.applied_revision >= ledger.revision
            if standing is Standing.IN_FORCE or (standing is Standing.GONE and heard):
                fields = cause.model_dump(include={"id", "source", "reason", "level", "clears"})
                ledger.adopt(ImposedCause(**fields, message=cause.message or ""))
                log.warning("a cause that a standby imposed is kept", bot=str(bot.key), cause=cause.id)
                return True
            ledger.ended.add(cause.id)
        return False

    async def _wish_stands(self, bot: SeenBot, memory: Memory) -> bool:
        """Whether spec.safeMode still is what was seen: the API server is asked, as a watch may lag or hang. Of a
        TradingBot that is gone nothing stands."""
        raw = await self._cluster.get(names.PLURAL, bot.key.namespace, bot.key.name)
        latest = SeenBot.of(raw) if raw is not None else None
        if latest is None or latest.uid != bot.uid:
            return False
        if latest.safe_mode == bot.safe_mode:
            return True
        if self._bots.see(latest):
            memory.wish(self._loop.time(), safe=latest.safe_mode)
        return False

    async def recall_claim(self, bot: SeenBot, memory: Memory) -> None:
        """Looks at the claim of a bot that has no process to ask, as when it is suspended: an operator that begins."""
        account = bot.told.account_uid
        if memory.claim != NO_ACCOUNT_YET or not account or "exchange" not in bot.spec or "symbol" not in bot.spec:
            return
        if await self._claims.recall(bot.uid, claimant_of(bot, account, "", 0).lease_name):
            memory.claim = Finding.good()

    async def record(self, bot: SeenBot, memory: Memory, again: list[float]) -> Record:
        """Writes a process start into the claim, as before a grant: its drain sends orders with its number too."""
        word, link = memory.word(), memory.link
        if word is None or link is None:
            return Record.DONE
        try:
            await self._claim(bot, memory, word.status, link, again)
        except BotCallError as error:
            log.warning("the claim is not recorded", bot=str(bot.key), error=str(error))
            return Record.DONE
        if memory.claim.reason == Reason.ACCOUNT_CHANGED:
            return Record.OTHER_ACCOUNT
        nameless = word.status.account_uid is None or word.status.incarnation is None
        if nameless and bot.told.account_uid and memory.granted_boot != word.status.boot_id:
            return Record.NOT_YET
        return Record.RAISED if memory.claim.reason == Reason.STARTING else Record.DONE

    async def _claim(self, bot: SeenBot, memory: Memory, status: BotStatus, link: BotLink, again: list[float]) -> None:
        if status.account_uid is None or status.incarnation is None:
            if not memory.claim.holds:
                memory.claim = NO_ACCOUNT_YET
            return
        claimed = bot.told.account_uid
        if claimed and claimed != status.account_uid:
            memory.claim = Finding.bad(
                Reason.ACCOUNT_CHANGED,
                "The keys are of another exchange account than the one that this TradingBot began with. Put the "
                "former account's keys back, or delete the TradingBot and create it anew.",
            )
            return
        claimant = claimant_of(bot, status.account_uid, status.boot_id, status.incarnation)
        if self._claims.holds(claimant):
            memory.claim = Finding.good()
            return
        waited = self._loop.time() - memory.claim_asked
        if memory.claim.status == statuses.FALSE and waited < CLAIM_RETRY_SECONDS:
            again.append(CLAIM_RETRY_SECONDS - waited)
            return
        memory.claim_asked = self._loop.time()
        try:
            verdict = await self._claims.take(claimant, self._now(), self._certainty.holder_gone, first=not claimed)
        except ApiError as error:
            if error.passing:
                raise
            memory.claim = Finding.bad(
                Reason.CLAIM_REFUSED, f"The API server refuses the Lease of the claim: {error}. Nothing is granted."
            )
            log.warning("a claim is refused", bot=str(bot.key), error=str(error))
            again.append(CLAIM_RETRY_SECONDS)
            return
        if verdict.standing is ClaimStanding.HELD:
            memory.claim = Finding.good()
        elif verdict.standing is ClaimStanding.RAISE:
            memory.claim = Finding.open(
                Reason.STARTING, f"Another start had incarnation {verdict.incarnation}; the bot takes a greater one."
            )
            await link.raise_incarnation(
                RaiseIncarnation(bot_uid=bot.uid, boot_id=status.boot_id, minimum=verdict.incarnation + 1)
            )
        else:
            if memory.claim.reason != Reason.CLAIMED_BY_OTHER:
                self._metrics.claims_refused.inc()
            memory.claim = Finding.bad(
                Reason.CLAIMED_BY_OTHER,
                f"TradingBot {verdict.holder} trades this symbol on the same exchange account. Delete one of the two, "
                "or use keys of another account.",
            )
            again.append(CLAIM_RETRY_SECONDS)

    async def _grant(self, bot: SeenBot, memory: Memory, status: BotStatus, link: BotLink, again: list[float]) -> None:
        ledger = memory.ledger
        allowed = (
            memory.claim.holds
            and not bot.suspended
            and memory.has_confirmed(status)
            and status.incarnation is not None
            and status.drain.phase is DrainPhase.NONE
            # A version that knows of no reservations would enter without one.
            and (status.fleet is not None or ledger is None or not ledger.fleet_limited)
            and not self._coverage.of(bot.uid)
            and not self._equality.differs(bot.uid)
        )
        if not allowed or ledger is None or status.incarnation is None:
            return
        # A pod that somebody made by hand in the place of one whose end nobody saw: both would trade.
        if (wait := await self._certainty.gone_in(bot, memory)) > 0:
            again.append(wait)
            return
        now = self._loop.time()
        if memory.last_grant is not None and memory.granted_boot == status.boot_id:
            due = memory.last_grant + (memory.renewal_seconds if status.grant.held else REGRANT_SECONDS)
            if status.order_use is not None and status.order_use.asks:
                due = now
            if now < due:
                again.append(due - now)
                return
        # Before it is sent: what has no answer may have had its effect.
        memory.last_grant, memory.granted_boot = now, status.boot_id
        again.append(REGRANT_SECONDS)
        share, use, account = self._shares.grant(bot, status), status.order_use, account_of(bot, status.account_uid)
        orders = self._orders.grant(account, bot.uid, use) if account is not None and use and use.counts else None
        await link.put_grant(
            Grant(
                bot_uid=bot.uid,
                boot_id=status.boot_id,
                incarnation=status.incarnation,
                revision=ledger.revision,
                status_sequence=status.sequence,
                epoch=self._leader.epoch,
                weight_per_minute=share.weight if share is not None else None,
                address_bots=share.address_bots if share is not None else None,
                entry_orders=orders.orders if orders is not None else None,
                entry_orders_seconds=orders.seconds if orders is not None else GRANT_TTL_SECONDS,
            )
        )
        if account is not None and orders is not None:
            self._orders.arrived(account, bot.uid)
        if share is not None:
            self._shares.arrived(bot, share)
        # What an entry asked for ends sooner than the grant.
        again[-1] = memory.renewal_seconds = float(min(GRANT_RENEWAL_SECONDS, orders.seconds if orders else math.inf))

    async def drain(self, bot: SeenBot, memory: Memory, policy: PositionPolicy, *, seconds_left: float) -> None:
        """Asks the bot to end trading, once until it has begun; progress comes over its stream."""
        word, link = memory.word(), memory.link
        if word is None or link is None:
            return
        asked = memory.drain_asked
        progress = word.status.drain
        working = progress.phase is not DrainPhase.NONE and progress.position_policy is policy
        if asked is not None and (working or self._loop.time() - asked < DRAIN_REPEAT_SECONDS):
            return
        memory.drain_asked = self._loop.time()
        request = DrainRequest(
            bot_uid=bot.uid,
            boot_id=word.status.boot_id,
            position_policy=policy,
            deadline_seconds=max(1, int(seconds_left)),
            account_known=bool(bot.told.account_uid) or memory.claim.holds or memory.last_grant is not None,
            claimed_incarnation=self._claimed(bot, word.status),
            epoch=self._leader.epoch,
        )
        try:
            await link.drain(request)
        except BotRefusedError as error:
            log.warning("the bot refused to drain", bot=str(bot.key), error=str(error))
            await self._outrun(bot, error)
        except BotCallError as error:
            log.warning("the drain is not begun", bot=str(bot.key), error=str(error))

    def _claimed(self, bot: SeenBot, status: BotStatus) -> int | None:
        """The incarnation of this process start, where the claim names it."""
        if status.account_uid is None or status.incarnation is None:
            return None
        claimant = claimant_of(bot, status.account_uid, status.boot_id, status.incarnation)
        return status.incarnation if self._claims.holds(claimant) else None


def _foreign(ledger: Ledger, status: BotStatus) -> list[SafeModeCause]:
    """Causes that the operator imposed on the bot and that its configuration does not have."""
    own = {cause.id for cause in ledger.imposed}
    return [cause for cause in status.safe_mode.causes if cause.source in KILL_SWITCHES and cause.id not in own]


def claimant_of(bot: SeenBot, account_uid: str, boot_id: str, incarnation: int) -> Claimant:
    return Claimant(
        key=bot.key,
        uid=bot.uid,
        exchange=bot.exchange,
        account_uid=account_uid,
        symbol=str(bot.spec["symbol"]),
        boot_id=boot_id,
        incarnation=incarnation,
    )


def _explain(error: BotRefusedError) -> str:
    fields = "; ".join(f"{item.field}: {item.message}" for item in error.reply.fields)
    return f"{error.reply.message} {fields}".strip() + ". The last good configuration stays; correct the spec."
