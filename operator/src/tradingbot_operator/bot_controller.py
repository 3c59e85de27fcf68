"""One level-based step for a TradingBot: observe, decide, act; whatever called it, it does the same."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random
from typing import Final

import aiohttp
import structlog

from tradingbot_api import names
from tradingbot_api.bot_http import (
    GRANT_RENEWAL_SECONDS,
    GRANT_TTL_SECONDS,
    STALE_REVISION,
    BotStatus,
    DrainPhase,
    DrainRequest,
    DrainStatus,
    Grant,
    RaiseIncarnation,
)
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.v1alpha1 import PositionPolicy, TradingBotSpec, TradingBotStatus
from tradingbot_operator import desired
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import BotCallError, BotLink, BotRefusedError, Peer
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.claims import Absences, Claim, Claimant, Claims, Standing
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError, NotFoundError
from tradingbot_operator.desired import Identity, SpecError
from tradingbot_operator.fleet import HANDING_SECONDS, NO_ACCOUNT_YET, POD_BEING_MADE, Fleet, ForeignObjectError, Memory
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.settings import Settings
from tradingbot_operator.status import Change, Finding, Notice

GRANT_MARGIN_SECONDS: Final = 10.0
REGRANT_SECONDS: Final = 2.0
CLAIM_RETRY_SECONDS: Final = 5.0
CALL_RETRY_SECONDS: Final = 2.0
FOREIGN_RETRY_SECONDS: Final = 10.0
PASSING_RETRY_SECONDS: Final = 1.0
CONFLICT_RETRY_SECONDS: Final = 0.2
DRAIN_REPEAT_SECONDS: Final = 5.0
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


def confirmed_stopped(vanished: str, annotations: Mapping[str, str]) -> bool:
    """Whether a human says that the process of the vanished pod stopped. An older word, on another pod, does not count;
    so neither does any while the pod's UID is not known."""
    return bool(vanished) and annotations.get(names.CONFIRM_STOPPED_ANNOTATION) == vanished


def news(status: BotStatus) -> object:
    """What of a bot's word is worth a step at once; figures wait for the next one."""
    return (
        status.boot_id,
        status.incarnation,
        status.applied_revision,
        status.account_uid,
        status.grant.held,
        status.drain,
        [(item.type, item.status, item.reason) for item in status.conditions],
        status.position and (status.position.side, status.position.quantity),
        status.orders and (status.orders.active, status.orders.oco),
        status.trades,
    )


def alarm(status: BotStatus) -> object:
    """What of a bot's word goes before all other steps."""
    safe, circuit = status.safe_mode, status.circuit_breaker
    causes = [cause.id for cause in safe.causes]
    return safe.level, safe.engaged, safe.acknowledged, causes, circuit and circuit.state


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
        epoch: int,
        now: Callable[[], datetime],
        random: Random,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._bots = bots
        self._pods = pods
        self._fleet = fleet
        self._claims = claims
        self._authority = authority
        self._tls = tls
        self._session = session
        self._enqueue = enqueue
        self._epoch = epoch
        self._now = now
        self._random = random
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._absences = Absences(GRANT_TTL_SECONDS + GRANT_MARGIN_SECONDS)

    # --- what comes in from outside a step; nothing here waits ---

    def heard(self, key: BotKey, before: BotStatus | None, after: BotStatus | None) -> None:
        """A link told something, or lost its bot (`after` is None)."""
        memory = self._fleet.known(key)
        if after is None or memory is None:
            self._enqueue(key, False)
            return
        self._time_safe_mode(memory, after)
        if before is None or alarm(before) != alarm(after):
            self._enqueue(key, True)
        elif news(before) != news(after):
            self._enqueue(key, False)

    def pod_gone(self, pod: SeenPod) -> None:
        """A pod's object is gone. Unless its end was told, its process may still run (a forced deletion)."""
        bot = self._bots.get(pod.key)
        if bot is None or pod.owner_uid != bot.uid:
            return
        memory = self._fleet.of(bot)
        memory.had_pod = True
        if not (pod.terminated or pod.never_ran):
            memory.vanished_pod = pod.uid
        self._enqueue(pod.key, False)

    async def look_at_claims(self) -> None:
        """Claims that somebody deleted or took since they were looked at: their bots are not granted again."""
        gone = await self._claims.look()
        for memory in self._fleet:
            if memory.uid in gone:
                memory.claim = Finding.open(Reason.STARTING, "The claim was removed or taken; it is looked at again.")
                log.warning("a claim is lost", bot=str(memory.key))
                self._enqueue(memory.key, False)

    def _time_safe_mode(self, memory: Memory, status: BotStatus) -> None:
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

    # --- the step ---

    async def step(self, key: BotKey) -> float | None:
        """Brings one TradingBot closer to its spec. Returns when to come again, in seconds; None: on news."""
        bot = self._bots.get(key)
        if bot is None:
            self._forget(key)
            return None
        memory = self._fleet.of(bot)
        if not memory.stepped:
            memory.stepped = True
            if self._pods.get(key) is None and bot.status.get("podName") and not memory.had_pod:
                # It had a pod before this process looked: how that one ended was not seen.
                memory.vanished_pod, memory.had_pod = "", True
        if bot.deleted is not None:
            return await self._deletion(bot, memory)
        again: list[float] = []
        pod = self._our_pod(bot)
        refused: ApiError | None = None
        try:
            spec = desired.parse_spec(bot)
            if not bot.finalizing:
                bot = self._saw(await self._cluster.set_finalizer(bot, present=True))
            await self._ensure_config(bot, memory)
            pod = await self._ensure_pod(bot, spec, memory, again)
            accepted = Finding.good()
        except SpecError as error:
            accepted = Finding.bad(Reason.INVALID_SPEC, f"The spec cannot be read: {error}. Correct it.")
        except ForeignObjectError as error:
            reason = Finding.open(Reason.STARTING, str(error))
            accepted = reason if error.passing else Finding.bad(Reason.FOREIGN_OBJECT, str(error))
            again.append(PASSING_RETRY_SECONDS if error.passing else FOREIGN_RETRY_SECONDS)
        except ApiError as error:
            if error.passing:
                raise
            # A quota, a webhook, or a spec.pod that the API server does not take: people must be told.
            accepted, refused = Finding.good(), error
            memory.pod_missing = (
                f"The API server refuses what the bot needs: {error}. Mend spec.pod, a quota, a policy or a webhook; "
                "it is tried again."
            )
        self._tend_link(bot, memory, pod)
        if accepted.holds:
            await self._talk(bot, memory, again)
        await self._tell(bot, memory, accepted, pod, again)
        if refused is not None:
            raise refused
        if memory.word() is not None:
            # Figures are no news, and without a grant nothing else brings the next step.
            again.append(statuses.SPACING[Change.FIGURES])
        return min(again) if again else None

    def _forget(self, key: BotKey) -> None:
        memory = self._fleet.forget(key)
        if memory is not None:
            self._claims.forget(memory.uid)
            self._count_phase(memory, None)

    def _saw(self, raw: Manifest) -> SeenBot:
        bot = SeenBot.of(raw)
        self._bots.see(bot)
        return bot

    def _our_pod(self, bot: SeenBot) -> SeenPod | None:
        pod = self._pods.get(bot.key)
        return pod if pod is not None and pod.owner_uid == bot.uid else None

    # --- objects ---

    async def _ensure_config(self, bot: SeenBot, memory: Memory) -> None:
        ledger = await memory.wanted_config(bot, self._bots, self._cluster)
        revision = ledger.revision
        if ledger.stored_revision == revision:
            return
        manifest = desired.config_map(Identity.of(bot), ledger.config(bot))
        try:
            if ledger.uid is None:
                raw = await self._cluster.create("configmaps", manifest)
            else:
                manifest["metadata"] |= {"uid": ledger.uid, "resourceVersion": ledger.version}
                raw = await self._cluster.apply("configmaps", manifest)
        except (ConflictError, NotFoundError):
            memory.ledger = None
            raise
        ledger.stored_revision = revision
        ledger.uid, ledger.version = raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]

    async def _ensure_pod(
        self, bot: SeenBot, spec: TradingBotSpec, memory: Memory, again: list[float]
    ) -> SeenPod | None:
        pod = self._pods.get(bot.key)
        if pod is not None:
            if pod.owner_uid != bot.uid:
                raise ForeignObjectError("Pod", bot.key, bot.key.name, passing=pod.deleting or pod.terminated)
            memory.had_pod = True
            if pod.terminated and not pod.deleting:
                await self._cluster.delete("pods", bot.key.namespace, bot.key.name, pod.uid)
            return pod
        wait = await self._gone_in(bot, memory)
        if wait > 0:
            memory.pod_missing = (
                "The pod vanished before its end was seen; its process may still run. A new one is made when its "
                "last grant has ended"
            ) + (
                f", or at once after kubectl annotate tradingbot {bot.key.name} "
                f"{names.CONFIRM_STOPPED_ANNOTATION}={memory.vanished_pod} where you know that it stopped."
                if memory.vanished_pod
                else "."
            )
            again.append(wait)
            return None
        return await self._make_pod(bot, spec, memory)

    async def _make_pod(self, bot: SeenBot, spec: TradingBotSpec, memory: Memory) -> SeenPod:
        identity = Identity.of(bot)
        if memory.had_pod:
            # Somebody may have removed it since; the pod would wait for it without end.
            memory.ledger = None
            await self._ensure_config(bot, memory)
        pair = self._authority.issue_bot(bot.uid, self._now())
        try:
            await self._cluster.create("secrets", desired.tls_secret(identity, pair, self._authority.pem))
        except ConflictError:
            log.debug("the certificate exists", bot=str(bot.key))
        claim = desired.volume_claim(identity, spec)
        if claim is not None:
            await self._ensure_volume(identity, claim)
        manifest = desired.pod(identity, spec, self._settings.bot_image, self._settings.image_pull_policy)
        try:
            raw = await self._cluster.create("pods", manifest)
        except ConflictError:
            found = await self._cluster.get("pods", bot.key.namespace, bot.key.name)
            if found is None:
                raise
            if SeenPod.of(found).owner_uid != bot.uid:
                former = desired.formerly_owned(found, identity)
                raise ForeignObjectError("Pod", bot.key, bot.key.name, passing=former) from None
            raw = found
        pod = SeenPod.of(raw)
        self._pods.see(pod)
        memory.vanished_pod, memory.pod_missing = None, POD_BEING_MADE
        if memory.had_pod:
            self._metrics.pods_replaced.inc()
            await self._post(bot, Notice("PodReplaced", "The bot's pod was gone and is made again."))
        memory.had_pod = True
        return pod

    async def _ensure_volume(self, identity: Identity, claim: Manifest) -> None:
        name = claim["metadata"]["name"]
        raw = await self._cluster.get("persistentvolumeclaims", identity.namespace, name)
        if raw is None:
            await self._cluster.create("persistentvolumeclaims", claim)
        elif not desired.adoptable(raw, identity):
            former = desired.formerly_owned(raw, identity)
            raise ForeignObjectError(
                "PersistentVolumeClaim", BotKey(identity.namespace, identity.name), name, passing=former
            )

    async def _gone_in(self, bot: SeenBot, memory: Memory) -> float:
        """Seconds until a process whose end was not seen can certainly add no exposure; 0: now."""
        vanished = memory.vanished_pod
        if vanished is None:
            return 0.0
        if confirmed_stopped(vanished, bot.annotations):
            return 0.0
        # A former operator may have granted until this one took its Lease.
        last = memory.last_grant if memory.last_grant is not None else self._started
        wait = last + GRANT_TTL_SECONDS + GRANT_MARGIN_SECONDS - self._loop.time()
        if wait <= 0 or not await self._could_trade(bot, memory):
            return 0.0
        return wait

    async def _could_trade(self, bot: SeenBot, memory: Memory) -> bool:
        """Whether the bot can ever have had an order: without a claim it was never granted anything."""
        if memory.last_grant is not None or memory.claim.holds or bot.status.get("accountUID"):
            return True
        if memory.may_hold_claim is None:
            memory.may_hold_claim = await self._claims.any_of(bot.uid)
        return memory.may_hold_claim

    # --- the bot ---

    def _tend_link(self, bot: SeenBot, memory: Memory, pod: SeenPod | None) -> None:
        peer = None
        if pod is not None and pod.ip and pod.container.running and not pod.terminated:
            peer = Peer(bot.key, bot.uid, pod.uid, pod.ip)
        if memory.link is not None and memory.link.peer != peer:
            memory.link.close()
            memory.link = None
        if peer is not None and memory.link is None:
            memory.link = BotLink(
                peer, self._session, self._tls, heard=self.heard, random=self._random, metrics=self._metrics,
                epoch=self._epoch,
            )  # fmt: skip

    async def _talk(self, bot: SeenBot, memory: Memory, again: list[float]) -> None:
        """Configuration, claim and grant, in this order: nothing is granted to a bot that lacks the first two."""
        word, link, ledger = memory.word(), memory.link, memory.ledger
        if word is None or link is None or ledger is None:
            return
        status = word.status
        try:
            await self._configure(bot, memory, status, again)
            await self._claim(bot, memory, status, link, again)
            await self._grant(bot, memory, status, link, again)
        except BotRefusedError as error:
            log.warning("the bot refused", bot=str(bot.key), error=str(error))
            again.append(CALL_RETRY_SECONDS)
        except BotCallError as error:
            log.info("the bot did not answer", bot=str(bot.key), error=str(error))
            again.append(CALL_RETRY_SECONDS)

    async def _configure(self, bot: SeenBot, memory: Memory, status: BotStatus, again: list[float]) -> None:
        ledger = memory.ledger
        if ledger is None or ledger.settings is None:
            return
        if status.applied_revision > ledger.revision:
            ledger.heard(status.applied_revision)
            # The ConfigMap must not stay behind what the bot has.
            self._enqueue(bot.key, False)
            return
        if memory.has_confirmed(status):
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

    async def _claim(self, bot: SeenBot, memory: Memory, status: BotStatus, link: BotLink, again: list[float]) -> None:
        if status.account_uid is None or status.incarnation is None:
            if not memory.claim.holds:
                memory.claim = NO_ACCOUNT_YET
            return
        claimed = bot.status.get("accountUID")
        if claimed and claimed != status.account_uid:
            memory.claim = Finding.bad(
                Reason.ACCOUNT_CHANGED,
                "The keys are of another exchange account than the one that this TradingBot began with. Put the "
                "former account's keys back, or delete the TradingBot and create it anew.",
            )
            return
        claimant = _claimant(bot, status.account_uid, status.boot_id, status.incarnation)
        if self._claims.holds(claimant):
            memory.claim = Finding.good()
            return
        waited = self._loop.time() - memory.claim_asked
        if memory.claim.status == statuses.FALSE and waited < CLAIM_RETRY_SECONDS:
            again.append(CLAIM_RETRY_SECONDS - waited)
            return
        memory.claim_asked = self._loop.time()
        try:
            verdict = await self._claims.take(claimant, self._now(), self._holder_gone)
        except ApiError as error:
            if error.passing:
                raise
            memory.claim = Finding.bad(
                Reason.CLAIM_REFUSED, f"The API server refuses the Lease of the claim: {error}. Nothing is granted."
            )
            log.warning("a claim is refused", bot=str(bot.key), error=str(error))
            again.append(CLAIM_RETRY_SECONDS)
            return
        if verdict.standing is Standing.HELD:
            memory.claim = Finding.good()
        elif verdict.standing is Standing.RAISE:
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

    async def _holder_gone(self, claim: Claim) -> bool:
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

    async def _grant(self, bot: SeenBot, memory: Memory, status: BotStatus, link: BotLink, again: list[float]) -> None:
        ledger = memory.ledger
        allowed = (
            memory.claim.holds
            and memory.has_confirmed(status)
            and status.incarnation is not None
            and status.drain.phase is DrainPhase.NONE
        )
        if not allowed or ledger is None or status.incarnation is None:
            return
        now = self._loop.time()
        if memory.last_grant is not None and memory.granted_boot == status.boot_id:
            due = memory.last_grant + (GRANT_RENEWAL_SECONDS if status.grant.held else REGRANT_SECONDS)
            if now < due:
                again.append(due - now)
                return
        # Before it is sent: what has no answer may have had its effect.
        memory.last_grant, memory.granted_boot = now, status.boot_id
        again.append(REGRANT_SECONDS)
        await link.put_grant(
            Grant(
                bot_uid=bot.uid,
                boot_id=status.boot_id,
                incarnation=status.incarnation,
                revision=ledger.revision,
                status_sequence=status.sequence,
                epoch=self._epoch,
            )
        )
        again[-1] = GRANT_RENEWAL_SECONDS

    # --- the status ---

    def _reachable(self, memory: Memory) -> Finding:
        link = memory.link
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

    async def _tell(
        self, bot: SeenBot, memory: Memory, accepted: Finding, pod: SeenPod | None, again: list[float]
    ) -> None:
        """Writes the status where it differs enough and its time has come."""
        word = memory.word()
        reachable = self._reachable(memory)
        if memory.link is not None and reachable.status == statuses.UNKNOWN:
            again.append(max(0.1, memory.link.silent_at() - self._loop.time()))
        fresh = statuses.compose(
            statuses.Observed(
                now=self._now(),
                bot=bot,
                accepted=accepted,
                claim=memory.claim,
                pod=pod,
                pod_missing=memory.pod_missing,
                word=word.status if word is not None and reachable.holds else None,
                reachable=reachable,
                revision=memory.ledger.revision if memory.ledger is not None else 0,
                refusal=memory.refused(),
                acknowledged_after=memory.acknowledged_after,
            )
        )
        self._count_phase(memory, fresh)
        stands = statuses.previous(bot.status)
        change = statuses.change(stands, fresh)
        if change is Change.NONE:
            return
        unheard = memory.link is not None and reachable.status == statuses.UNKNOWN
        if memory.status_written is None and pod is not None and pod.ready and unheard:
            # A new operator has not heard the bot yet: what the former one wrote stands for these seconds.
            return
        if memory.status_written is not None:
            wait = memory.status_written + statuses.SPACING[change] - self._loop.time()
            if wait > 0:
                again.append(wait)
                return
        try:
            self._saw(await self._cluster.apply_status(bot, statuses.encode(fresh)))
        except (ConflictError, NotFoundError):
            # It changed, or went, since it was seen; the watch tells what is now.
            again.append(CONFLICT_RETRY_SECONDS)
            return
        memory.status_written = self._loop.time()
        log.debug("status written", bot=str(bot.key), change=change, phase=fresh.phase)
        for notice in statuses.notices(stands, fresh):
            await self._post(bot, notice)

    async def _post(self, bot: SeenBot, notice: Notice) -> None:
        level = log.warning if notice.warning else log.info
        level("event", bot=str(bot.key), reason=notice.reason, message=notice.message)
        name = f"{bot.key.name}.{self._random.getrandbits(64):016x}"
        try:
            await self._cluster.create_event(bot, name, notice, now=self._now(), reporter=self._settings.identity)
        except ApiError as error:
            log.warning("an event could not be posted", bot=str(bot.key), error=str(error))

    def _count_phase(self, memory: Memory, fresh: TradingBotStatus | None) -> None:
        phase = Phase(fresh.phase) if fresh is not None and fresh.phase else None
        if phase is memory.phase:
            return
        if memory.phase is not None:
            self._metrics.bots.labels(memory.phase).dec()
        if phase is not None:
            self._metrics.bots.labels(phase).inc()
        memory.phase = phase

    # --- the end ---

    async def _deletion(self, bot: SeenBot, memory: Memory) -> float | None:
        if not bot.finalizing or bot.deleted is None:
            # Others' finalizers hold it; ours is done.
            self._forget(bot.key)
            return None
        again: list[float] = []
        pod = self._our_pod(bot)
        if pod is not None:
            memory.had_pod = True
        self._tend_link(bot, memory, pod)
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
            gone_in = await self._gone_in(bot, memory)
        elif not pod.terminated and memory.last_grant is not None:
            gone_in = memory.last_grant + GRANT_TTL_SECONDS + GRANT_MARGIN_SECONDS - self._loop.time()
        could_trade = named or await self._could_trade(bot, memory)
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
            await self._drain(bot, memory, seconds_left=-overdue)
        if gone_in > 0:
            again.append(gone_in)
        again.append(-overdue if overdue < 0 else STUCK_POD_SECONDS - overdue if overdue < STUCK_POD_SECONDS else 10.0)
        again.append(DRAIN_REPEAT_SECONDS)
        left = "; ".join(memory.drained.remaining) if memory.drained is not None else ""
        message = f"Being deleted: {action}." + (f" Stays on the exchange: {left}." if left else "")
        await self._tell(bot, memory, Finding.bad(Reason.DELETING, message), pod, again)
        return max(0.05, min(again))

    async def _claimed_by_other(self, bot: SeenBot, memory: Memory, told: str | None) -> bool:
        if memory.claim.holds:
            return False
        account = bot.status.get("accountUID") or told
        if memory.claim.reason == Reason.CLAIMED_BY_OTHER or not account:
            return memory.claim.reason == Reason.CLAIMED_BY_OTHER
        # Not asked since this process started.
        holder = await self._claims.holder(_claimant(bot, account, "", 0).lease_name)
        return holder not in {"", bot.uid}

    async def _pod_to_drain(self, bot: SeenBot, memory: Memory) -> SeenPod | None:
        """Makes the lost pod again; where that is refused, the deadline ends the deletion."""
        memory.drain_asked = None
        try:
            return await self._make_pod(bot, desired.parse_spec(bot), memory)
        except (SpecError, ForeignObjectError, ApiError) as error:
            memory.pod_missing = f"The pod that should drain cannot be made: {error}"
            log.warning("no pod to drain", bot=str(bot.key), error=str(error))
            return None

    async def _drain(self, bot: SeenBot, memory: Memory, *, seconds_left: float) -> None:
        word, link = memory.word(), memory.link
        if word is None or link is None:
            return
        asked = memory.drain_asked
        working = word.status.drain.phase is not DrainPhase.NONE
        if asked is not None and (working or self._loop.time() - asked < DRAIN_REPEAT_SECONDS):
            return
        memory.drain_asked = self._loop.time()
        request = DrainRequest(
            bot_uid=bot.uid,
            boot_id=word.status.boot_id,
            position_policy=PositionPolicy(bot.spec.get("deletionPolicy", PositionPolicy.HOLD)),
            deadline_seconds=max(1, int(seconds_left)),
            account_known=bool(bot.status.get("accountUID")) or memory.claim.holds or memory.last_grant is not None,
            epoch=self._epoch,
        )
        try:
            await link.drain(request)
        except BotCallError as error:
            log.warning("the drain is not begun", bot=str(bot.key), error=str(error))

    async def _release(self, bot: SeenBot, memory: Memory, *, could_trade: bool) -> None:
        drained = memory.drained
        if drained is not None and drained.remaining:
            notice = left_on_exchange(drained)
            if notice.warning:
                self._metrics.deletions_incomplete.inc()
            await self._post(bot, notice)
        elif drained is None and could_trade:
            self._metrics.deletions_incomplete.inc()
            position = (bot.status.get("position") or {}).get("quantity", "unknown")
            await self._post(
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
        self._forget(bot.key)


def _claimant(bot: SeenBot, account_uid: str, boot_id: str, incarnation: int) -> Claimant:
    exchange = bot.spec["exchange"]
    return Claimant(
        key=bot.key,
        uid=bot.uid,
        exchange=names.exchange_name(str(exchange["environment"]), exchange.get("baseURL"), bot.key.namespace),
        account_uid=account_uid,
        symbol=str(bot.spec["symbol"]),
        boot_id=boot_id,
        incarnation=incarnation,
    )


def _explain(error: BotRefusedError) -> str:
    fields = "; ".join(f"{item.field}: {item.message}" for item in error.reply.fields)
    return f"{error.reply.message} {fields}".strip() + ". The last good configuration stays; correct the spec."
