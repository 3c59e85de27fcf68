"""One level-based step for a TradingBot: observe, decide, act; whatever called it, it does the same."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Final

import aiohttp
import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus
from tradingbot_api.conditions import Reason
from tradingbot_operator import desired
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import Word
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.bot_talk import BotTalk
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.claims import Claims
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.coverage import Coverage, Member
from tradingbot_operator.deletion import Deletion
from tradingbot_operator.desired import SpecError
from tradingbot_operator.equality import UNTRUSTED_BOOKS, Equality, View
from tradingbot_operator.fleet import Fleet, ForeignObjectError, Ledger, Memory
from tradingbot_operator.imposed import Impositions
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.order_shares import OrderShares
from tradingbot_operator.reporter import Reporter
from tradingbot_operator.reservations import Reservations
from tradingbot_operator.restarts import Restarts
from tradingbot_operator.settings import Settings
from tradingbot_operator.sharding import Account, OtherShards, account_of
from tradingbot_operator.shares import Shares
from tradingbot_operator.start_pace import StartPace
from tradingbot_operator.status import Change, Finding
from tradingbot_operator.wait_lane import WaitLane
from tradingbot_operator.work_queue import LONGEST_RETRY_SECONDS

FOREIGN_RETRY_SECONDS: Final = 10.0
PASSING_RETRY_SECONDS: Final = 1.0
STALLED_AFTER: Final = 5
"""Steps that failed in a row: with the queue's back-off, some six seconds."""

log = structlog.get_logger(__name__)


def news(status: BotStatus) -> object:
    """What of a bot's word is worth a step at once; figures wait for the next one."""
    safe = status.safe_mode
    return (
        (safe.level, safe.engaged, safe.acknowledged),
        status.boot_id,
        status.incarnation,
        status.applied_revision,
        status.account_uid,
        status.grant.held,
        status.drain,
        [(item.type, item.status, item.reason) for item in status.conditions],
        status.position and (status.position.side, status.position.quantity),
        status.orders and (status.orders.active, status.orders.oco, status.orders.foreign),
        status.trades,
        status.order_use and status.order_use.asks,
    )


def claims(status: BotStatus) -> object:
    """What of a bot's word may end a shortage: a balance is told after the fill that changed it."""
    return status.base_claim, status.quote_claim


def alarm(status: BotStatus) -> object:
    """What of a bot's word goes before all other steps. Not that it waits for a grant, or has one: so do all of them
    after an operator's absence, and who is in danger would stand in their line."""
    safe, circuit = status.safe_mode, status.circuit_breaker
    causes = [(cause.id, cause.level) for cause in safe.causes if cause.reason != Reason.AWAITING_GRANT]
    return causes, causes and (safe.engaged, safe.acknowledged), circuit and circuit.state


def stalled(failures: int, error: Exception) -> Finding | None:
    """What is told of steps that failed in a row; None while they are few."""
    if failures < STALLED_AFTER:
        return None
    what = str(error) if isinstance(error, ApiError) else f"{type(error).__name__}: {error}"
    return Finding.open(
        Reason.STALLED,
        f"The operator cannot go on with this TradingBot: {what[:300]}. It is tried again about every "
        f"{LONGEST_RETRY_SECONDS:.0f} s; see the operator's log.",
    )


class BotController:
    """Makes the steps. Holds no lock: the work queue gives a key to one worker at a time."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: Cluster,
        bots: Inventory[SeenBot],
        pods: Inventory[SeenPod],
        fleet: Fleet,
        claims: Claims,
        authority: CertificateAuthority,
        tls: ssl.SSLContext,
        session: aiohttp.ClientSession,
        enqueue: Callable[[BotKey, bool], None],
        has_turn: Callable[[SeenBot], bool],
        leader: Leader,
        impositions: Impositions,
        now: Callable[[], datetime],
        random: Random,
        metrics: Metrics,
        reservations: Reservations,
    ) -> None:
        self._cluster = cluster
        self._reservations = reservations
        self._namespaces = settings.namespaces
        self._bots = bots
        self._pods = pods
        self._fleet = fleet
        fleet.followers.append(self._dropped)
        self._claims = claims
        self._leader = leader
        self._enqueue = enqueue
        self._metrics = metrics
        self._shard = shard = settings.shard
        self._others = OtherShards(shard, self._split_changed)
        if not shard.alone:
            bots.followers.append(self._others.follow)
        self._shares = shares = Shares(
            settings.egress_groups, settings.exchange_weight, bots=bots, pods=pods,
            time=asyncio.get_running_loop().time, shard=shard,
        )  # fmt: skip
        self._waits = WaitLane(shares.address, settings.exchange_weight, bots=bots, fleet=fleet, leader=leader, now=now)
        self._orders = orders = OrderShares(
            asyncio.get_running_loop().time, now, others=lambda account: len(self._others.on(account)),
            expected=lambda account: len(self._equality.bots_of(account)),
        )  # fmt: skip
        self._order_waits = WaitLane(
            self._account_of, 0, bots=bots, fleet=fleet, leader=leader, now=now, of_orders=True
        )
        self._pace = StartPace(settings.exchange_weight)
        self._coverage = coverage = Coverage()
        self._equality = equality = Equality()
        certainty = Certainty(cluster, claims, leader, shard)
        self._certainty = certainty
        self._reporter = Reporter(
            cluster, bots, certainty, coverage, equality, reservations=reservations, shares=shares,
            identity=settings.identity, now=now, random=random, metrics=metrics, others=self._others,
        )  # fmt: skip
        self._objects = BotObjects(
            settings, cluster=cluster, bots=bots, pods=pods, authority=authority, certainty=certainty,
            reporter=self._reporter, impositions=impositions, reservations=reservations, shares=shares,
            pace=self._pace, now=now, metrics=metrics,
        )  # fmt: skip
        self._talk = BotTalk(
            cluster=cluster, bots=bots, claims=claims, certainty=certainty, coverage=coverage, equality=equality,
            leader=leader, impositions=impositions, tls=tls, session=session, heard=self.heard, enqueue=enqueue,
            now=now, random=random, metrics=metrics, shares=shares, orders=orders, shard=shard,
        )  # fmt: skip
        self._restarts = Restarts(
            cluster, certainty=certainty, objects=self._objects, talk=self._talk, reporter=self._reporter,
            has_turn=has_turn,
        )  # fmt: skip
        self._deletion = Deletion(
            cluster=cluster, claims=claims, certainty=certainty, objects=self._objects, talk=self._talk,
            reporter=self._reporter, now=now, metrics=metrics,
        )  # fmt: skip

    async def close(self) -> None:
        """Ends what is under way beside the steps."""
        await self._waits.close()
        await self._order_waits.close()

    def measure(self) -> None:
        """Sets the gauges of what bots share."""
        self._shares.measure(self._metrics)
        self._orders.measure(self._metrics)
        for address, waiting in self._pace.waiting().items():
            self._metrics.address_bots.labels(*address, "waiting").set(waiting)

    # --- what comes in from outside a step; nothing here waits ---

    async def begin(self) -> None:
        """This process leads: statuses tell which bots share an account, and what was found of it, ConfigMaps and
        claims what a former leader left. ApiError."""
        self._reservations.begin()
        await self._claims.begin()
        listed = await self._cluster.list_all("configmaps", self._namespaces)
        stored = {(raw["metadata"]["namespace"], raw["metadata"]["name"]): raw for raw in listed}
        for bot in self._bots:
            if not self._shard.serves(bot):
                continue
            self._expect(bot)
            raw = stored.get((bot.key.namespace, names.config_map_name(bot.key.name)))
            if raw is not None and desired.owned_by(raw, bot.uid):
                memory = self._fleet.of(bot)
                memory.ledger = memory.ledger or Ledger.of(raw)
                await asyncio.sleep(0)

    def _expect(self, bot: SeenBot) -> None:
        """Its account is to be compared with its books too, from what its status tells on."""
        if (account := account_of(bot, bot.told.account_uid)) is not None:
            kept = statuses.kept(bot.told)
            self._equality.expect(account, bot.key, bot.uid, kept, asyncio.get_running_loop().time())

    def _split_changed(self, account: Account) -> None:
        """Whether an account has bots of other shards too is another than before: its own bots tell."""
        for key in self._equality.bots_of(account):
            self._enqueue(key, False)

    def came(self, bot: SeenBot) -> None:
        """Its label moved to this shard. The bot remembers the epoch of its former operator, who may still believe to
        serve it: ours must be greater, not equal, before anything is said."""
        self._fleet.of(bot).above = self._leader.epoch
        self._leader.outrun()

    def saw(self, bot: SeenBot) -> None:
        """A TradingBot was seen; what another shard's tells of its address, its operator tells by the status alone."""
        if not self._shard.serves(bot):
            self._waits.saw(bot)

    def heard(self, key: BotKey, before: BotStatus | None, after: BotStatus | None) -> None:
        """A link told something, or lost its bot (`after` is None)."""
        memory = self._fleet.known(key)
        if after is None or memory is None:
            self._enqueue(key, False)
            return
        if after.position is not None:
            # A start that has not come to the exchange knows nothing and can have left nothing.
            memory.last = Word(after, asyncio.get_running_loop().time())
        self._reporter.time_safe_mode(memory, after)
        bot = self._bots.get(key)
        if bot is not None and bot.uid == memory.uid:
            self._reservations.hear(bot, memory.link, after)
            self._hear_books(bot, memory, after)
            if self._waits.heard(bot, memory, after) and not self._shard.alone:
                # The other shards' operators hear of it by the status.
                memory.owes_wait = True
                self._enqueue(key, True)
            self._order_waits.heard(bot, memory, after)
            account = account_of(bot, after.account_uid)
            if account is not None and after.order_use is not None:
                self._orders.hear(account, bot.uid, after.order_use)
        if before is None:
            self._enqueue(key, bot is not None and bool(bot.safe_mode or memory.imposed))
        elif alarm(before) != alarm(after):
            self._enqueue(key, True)
        elif news(before) != news(after) or (claims(before) != claims(after) and self._coverage.lacks(memory.uid)):
            self._enqueue(key, False)

    def _hear_books(self, bot: SeenBot, memory: Memory, status: BotStatus) -> None:
        """What a bot tells of its account; one that another keeps from its symbol would count the other's fills."""
        books, account = status.account_books, account_of(bot, status.account_uid)
        if books is None or account is None or not memory.claim.holds or self._others.on(account):
            return
        now = asyncio.get_running_loop().time()
        base = status.base_claim.asset if status.base_claim is not None else ""
        view = View(bot.uid, names.bot_key(account[1], status.symbol), base, status.boot_id, books, now)
        for other in self._equality.hear(account, bot.key, view, now):
            self._enqueue(other, False)

    def pod_gone(self, pod: SeenPod) -> None:
        """A pod's object is gone. Unless its end was told, its process may still run (a forced deletion)."""
        bot = self._bots.get(pod.key)
        if bot is None or pod.owner_uid != bot.uid or not self._shard.serves(bot):
            return
        memory = self._fleet.of(bot)
        memory.had_pod = True
        if not (pod.terminated or pod.never_ran):
            memory.vanished_pod = pod.uid
        self._enqueue(pod.key, False)

    async def look_around(self) -> None:
        """What no watch tells: claims that somebody deleted or took, so that their bots are not granted again, and
        ConfigMaps and certificates that somebody changed or deleted, so that they are written anew."""
        await self._look_at_config_maps()
        gone = await self._claims.look()
        for memory in self._fleet:
            if memory.uid in gone:
                memory.claim = Finding.open(Reason.STARTING, "The claim was removed or taken; it is looked at again.")
                log.warning("a claim is lost", bot=str(memory.key))
                self._enqueue(memory.key, False)
        for bot in self._bots:
            if self._shard.serves(bot):
                await self._objects.mend_certificate(bot)

    async def _look_at_config_maps(self) -> None:
        """A list may be older than what was written meanwhile: then it is read, and the bot told, once more."""
        listed = await self._cluster.list_all("configmaps", self._namespaces, metadata_only=True)
        versions = {(raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]) for raw in listed}
        for memory in self._fleet:
            ledger = memory.ledger
            if ledger is not None and ledger.uid is not None and (ledger.uid, ledger.version) not in versions:
                memory.drop_ledger()
                log.warning("a ConfigMap is not as it was written", bot=str(memory.key))
                self._enqueue(memory.key, False)

    # --- the step ---

    async def step(self, key: BotKey) -> float | None:
        """Brings one TradingBot closer to its spec. Returns when to come again, in seconds; None: on news.

        What it raises is the caller's to back off from; people are told once it happened several times in a row.
        """
        try:
            again_in = await self._step(key)
        except Exception as error:
            await self._stalled(key, error)
            raise
        if (memory := self._fleet.known(key)) is not None:
            memory.failures = 0
        return again_in

    async def _stalled(self, key: BotKey, error: Exception) -> None:
        bot, memory = self._bots.get(key), self._fleet.known(key)
        if bot is None or memory is None:
            return
        memory.failures += 1
        finding = stalled(memory.failures, error)
        if finding is None:
            return
        try:
            await self._reporter.tell(bot, memory, finding, self._objects.our_pod(bot), [])
        except ApiError as trouble:
            log.warning("a stalled TradingBot cannot be told", bot=str(key), error=str(trouble))

    async def _step(self, key: BotKey) -> float | None:
        bot = self._bots.get(key)
        if bot is None:
            self._forget(key)
            return await self._objects.end_orphan(key)
        if not self._shard.serves(bot):
            # Its label moved: from now on another operator has the line to it.
            self._forget(key)
            return None
        memory = self._fleet.of(bot)
        takes_word = UNTRUSTED_BOOKS in desired.cleared_causes(bot)
        if takes_word and not memory.took_word:
            self._equality.take_as_it_is(bot.uid)
        memory.took_word = takes_word
        if not memory.claim_recalled and self._pods.get(key) is None:
            # The pod of a suspended bot may have been at its end when this process began to look.
            await self._talk.recall_claim(bot, memory)
            memory.claim_recalled = True
        if not memory.stepped:
            memory.stepped, memory.since = True, asyncio.get_running_loop().time()
            if not self._equality.knows(bot.uid):
                self._expect(bot)
            if self._pods.get(key) is None and not memory.had_pod and await self._had_pod(bot, memory):
                # How that one ended was not seen.
                memory.vanished_pod, memory.had_pod = bot.told.pod_uid or "", True
        if bot.deleted is not None:
            self._pace.forget(key)
            again_in = await self._deletion.step(bot, memory)
            if not bot.finalizing:
                # Others' finalizers hold it; ours is seen to be off. Until then it is remembered that it drained.
                self._forget(key)
            return again_in
        again: list[float] = []
        pod = self._objects.our_pod(bot)
        spec = None
        refused: ApiError | None = None
        try:
            spec = desired.parse_spec(bot)
            if not bot.finalizing:
                bot = await self._cluster.set_finalizer(bot, present=True)
                self._bots.see(bot)
                # Nothing was ever made for it.
                memory.ledger = memory.ledger or Ledger(None, None, None)
            await self._objects.ensure_config(bot, memory)
            pod = await self._objects.ensure_pod(bot, spec, memory, again)
            accepted = Finding.good(desired.unknown_fields(bot))
        except SpecError as error:
            accepted = Finding.bad(Reason.INVALID_SPEC, f"The spec cannot be read: {error}. Correct it.")
            again += await self._keep_safe(bot, memory)
        except ForeignObjectError as error:
            reason = Finding.open(Reason.STARTING, str(error))
            accepted = reason if error.passing else Finding.bad(error.reason, str(error))
            again.append(PASSING_RETRY_SECONDS if error.passing else FOREIGN_RETRY_SECONDS)
        except ApiError as error:
            if error.passing:
                raise
            # A quota, a webhook, or a spec.pod that the API server does not take: people must be told.
            accepted, refused = stalled(memory.failures + 1, error) or Finding.good(), error
            memory.pod_missing = (
                f"The API server refuses what the bot needs: {error}. Mend spec.pod, a quota, a policy or a webhook; "
                "it is tried again."
            )
        self._talk.tend_link(bot, memory, pod)
        if self._leader.epoch <= memory.above:
            again.append(PASSING_RETRY_SECONDS)
        self._see_claims(bot, memory)
        if spec is None and (bot.safe_mode or memory.imposed):
            await self._talk.talk(bot, memory, again, readable=False)
        if spec is not None and (accepted.holds or refused is not None):
            await self._talk.talk(bot, memory, again)
            await self._restarts.step(bot, spec, memory, pod, again)
        await self._reporter.tell(bot, memory, accepted, pod, again)
        if refused is not None:
            raise refused
        if memory.word() is not None:
            # Figures are no news, and without a grant nothing else brings the next step.
            again.append(statuses.SPACING[Change.FIGURES])
        return min(again) if again else None

    async def _had_pod(self, bot: SeenBot, memory: Memory) -> bool:
        """Whether it had a pod before this process looked, by its status; by its claim where an operator that began
        with it did not come to write a first one."""
        told = bot.told
        if told.phase is None and bot.finalizing:
            return await self._certainty.could_trade(bot, memory)
        return bool(told.pod_uid or told.pod_name)

    def _see_claims(self, bot: SeenBot, memory: Memory) -> None:
        """What a bot claims of its account, as it last told; one that is suspended claims its position alone, and one
        that another keeps from its symbol nothing."""
        if memory.claim.status == statuses.FALSE:
            self._equality.forget(bot.uid)
            for key in self._coverage.forget(bot.uid):
                self._enqueue(key, False)
            return
        last = memory.last
        account = account_of(bot, last.status.account_uid) if last is not None else None
        if last is None or account is None:
            return
        status = last.status
        self._equality.join(account, bot.key, bot.uid, asyncio.get_running_loop().time())
        member = Member(
            bot.key, bot.uid, (bot.created, bot.uid), status.base_claim,
            None if bot.suspended else status.quote_claim, last.received,
        )  # fmt: skip
        for key in self._coverage.see(account, member):
            self._enqueue(key, False)

    async def _keep_safe(self, bot: SeenBot, memory: Memory) -> list[float]:
        """Writes safe mode of a spec that cannot be read, with the settings that stood before; when to try again."""
        try:
            await self._objects.ensure_config(bot, memory)
        except SpecError:
            if bot.safe_mode:
                log.info("safe mode needs a spec that can be read: none ever was", bot=str(bot.key))
        except ForeignObjectError as error:
            log.warning("safe mode is not written", bot=str(bot.key), error=str(error))
            return [FOREIGN_RETRY_SECONDS]
        return []

    def _forget(self, key: BotKey) -> None:
        self._pace.forget(key)
        memory = self._fleet.forget(key)
        if memory is not None:
            self._reporter.count_phase(memory, None)

    def _dropped(self, memory: Memory) -> None:
        """Of a TradingBot that is gone, or another shard's, nothing counts any more in its account."""
        self._claims.forget(memory.uid)
        self._equality.forget(memory.uid)
        for other in self._coverage.forget(memory.uid):
            self._enqueue(other, False)

    def _account_of(self, bot: SeenBot) -> Account | None:
        """The account that a bot named last."""
        memory = self._fleet.known(bot.key)
        word = memory.word() if memory is not None else None
        return account_of(bot, word.status.account_uid if word is not None else None)
