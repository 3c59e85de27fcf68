"""Makes the objects that a TradingBot should have; another's object of that name is refused, never adopted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_api.v1alpha1 import TradingBotSpec
from tradingbot_operator import desired
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError, ExistsError, NotFoundError
from tradingbot_operator.desired import Identity
from tradingbot_operator.fleet import POD_BEING_MADE, SUSPENDED, ForeignObjectError, Memory
from tradingbot_operator.imposed import Impositions
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reporter import Reporter
from tradingbot_operator.reservations import Reservations
from tradingbot_operator.settings import Settings
from tradingbot_operator.shares import Shares
from tradingbot_operator.start_pace import StartPace
from tradingbot_operator.status import Notice
from tradingbot_operator.volumes import Volumes

ORPHAN_RETRY_SECONDS: Final = 1.0
TURN_LOOK_SECONDS: Final = 60.0
"""A bot that waits for its turn looks this often whether it comes earlier."""
TURN_CHANGE: Final = timedelta(minutes=2)
"""A time that was told is told anew only where it is wrong by more."""

log = structlog.get_logger(__name__)


def made_for_bot(pod: Manifest) -> bool:
    """Whether a pod was made for a TradingBot of its name, and belongs to nobody else; pure.

    Deleting with --cascade=orphan takes the owner off, and garbage collection, which ends what has a former owner,
    may be late.
    """
    metadata = pod["metadata"]
    labels = metadata.get("labels", {})
    return (
        all(owner["kind"] == names.KIND for owner in metadata.get("ownerReferences", ()))
        and names.BOT_UID_LABEL in labels
        and (labels.get(names.BOT_LABEL), labels.get(names.MANAGED_BY_LABEL)) == (metadata["name"], names.FIELD_MANAGER)
    )


class BotObjects:
    """ConfigMap, certificate, volume claim and pod of a TradingBot."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: Cluster,
        bots: Inventory[SeenBot],
        pods: Inventory[SeenPod],
        authority: CertificateAuthority,
        certainty: Certainty,
        reporter: Reporter,
        impositions: Impositions,
        shares: Shares,
        pace: StartPace,
        now: Callable[[], datetime],
        metrics: Metrics,
        reservations: Reservations,
    ) -> None:
        self._reservations = reservations
        self._settings = settings
        self._cluster = cluster
        self._bots = bots
        self._pods = pods
        self._authority = authority
        self._certainty = certainty
        self._reporter = reporter
        self._impositions = impositions
        self._shares = shares
        self._pace = pace
        self._now = now
        self._metrics = metrics
        self._volumes = Volumes(cluster, bots)

    def our_pod(self, bot: SeenBot) -> SeenPod | None:
        """The pod of that name where it is this TradingBot's."""
        pod = self._pods.get(bot.key)
        return pod if pod is not None and pod.owner_uid == bot.uid else None

    async def ensure_config(self, bot: SeenBot, memory: Memory) -> None:
        """Writes the ConfigMap where its content is another; SpecError, ForeignObjectError, ApiError."""
        ledger = await memory.wanted_config(bot, self._bots, self._cluster, self._impositions)
        before = ledger.fleet_limited if ledger.uid is not None else None
        ledger.limit(self._reservations.limited(bot.controller, before=before))
        revision = ledger.revision
        if ledger.stored_revision == revision:
            return
        manifest = desired.config_map(Identity.of(bot), ledger.config(bot))
        try:
            if ledger.uid is None:
                raw = await self._cluster.create("configmaps", manifest, whole=False)
            else:
                manifest["metadata"] |= {"uid": ledger.uid, "resourceVersion": ledger.version}
                raw = await self._cluster.apply("configmaps", manifest)
        except (ConflictError, NotFoundError):
            memory.drop_ledger()
            raise
        ledger.stored_revision = revision
        ledger.uid, ledger.version = raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]

    async def ensure_pod(
        self, bot: SeenBot, spec: TradingBotSpec, memory: Memory, again: list[float]
    ) -> SeenPod | None:
        """The pod, made where it is missing and may be made; ForeignObjectError, ApiError."""
        pod = self._pods.get(bot.key)
        if pod is not None:
            if pod.owner_uid != bot.uid:
                passing = pod.deleting or pod.terminated or await self._end_former(bot.key)
                raise ForeignObjectError("Pod", bot.key, bot.key.name, passing=passing)
            memory.had_pod, memory.paced_until = True, None
            self._pace.forget(bot.key)
            if pod.terminated and not pod.deleting:
                await self._reporter.tell_eviction(bot, memory, pod)
                await self._cluster.delete("pods", bot.key.namespace, bot.key.name, pod.uid)
            return pod
        wait = await self._certainty.gone_in(bot, memory)
        if wait > 0:
            # Nothing else brings a step once its process is certainly gone, and the status must say so.
            again.append(wait)
        if spec.suspend:
            self._pace.forget(bot.key)
            memory.pod_missing, memory.paced_until = SUSPENDED, None
            return None
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
            return None
        if (turn := self._turn(bot, memory)) > 0:
            again.append(min(turn, TURN_LOOK_SECONDS))
            return None
        return await self.make_pod(bot, spec, memory)

    def _turn(self, bot: SeenBot, memory: Memory) -> float:
        """Seconds until a bot may start, by the weight that its address has; people are told when that is about."""
        address = self._shares.address(bot)
        wait = self._pace.wait(
            bot.key, address, holding=memory.may_hold(bot), needed=self._shares.needed(address),
            now=asyncio.get_running_loop().time(), part=self._shares.part(address),
        )  # fmt: skip
        if wait == 0:
            memory.paced_until = None
            return wait
        at, told = self._now() + timedelta(seconds=wait), memory.paced_until
        if told is None or abs(at - told) > max(TURN_CHANGE, (at - self._now()) / 5):
            memory.paced_until = at
            memory.pod_missing = (
                f"Waits for its turn to start, at about {at:%H:%M} UTC: bots behind one address (egress group "
                f"{address.group}) start one after another, within the request weight that the exchange allows."
            )
        return wait

    async def end_orphan(self, key: BotKey) -> float | None:
        """Ends a bot's pod whose TradingBot was removed past this operator; when to look again, None: on news."""
        pod = self._pods.get(key)
        if pod is None or pod.deleting or not self._settings.shard.serves(pod):
            return None
        if await self._cluster.get(names.PLURAL, key.namespace, key.name) is not None:
            # Its watch event is on the way.
            return ORPHAN_RETRY_SECONDS
        await self._end_former(key)
        return None

    async def _end_former(self, key: BotKey) -> bool:
        """Ends the pod of a TradingBot that is gone; False where it is somebody else's."""
        raw = await self._cluster.get("pods", key.namespace, key.name)
        if raw is None or not made_for_bot(raw):
            return False
        log.warning("a pod whose TradingBot is gone is ended", bot=str(key))
        await self._cluster.delete("pods", key.namespace, key.name, raw["metadata"]["uid"])
        return True

    async def make_pod(self, bot: SeenBot, spec: TradingBotSpec, memory: Memory) -> SeenPod:
        """Makes the pod and what it mounts; ForeignObjectError, ApiError."""
        identity = Identity.of(bot)
        if memory.had_pod:
            # Somebody may have removed it since; the pod would wait for it without end.
            memory.drop_ledger()
            await self.ensure_config(bot, memory)
        await self._make_certificate(bot)
        await self._volumes.ensure(bot, spec)
        try:
            raw = await self._cluster.create("pods", self.pod_manifest(bot, spec))
        except ExistsError:
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
        if memory.had_pod and not memory.ended_on_purpose:
            self._metrics.pods_replaced.inc()
            await self._reporter.events.post(bot, Notice("PodReplaced", "The bot's pod was gone and is made again."))
        memory.had_pod, memory.ended_on_purpose = True, False
        return pod

    async def mend_certificate(self, bot: SeenBot) -> None:
        """Makes the Secret of a pod that may wait for it: that it is there cannot be read."""
        pod = self.our_pod(bot)
        if pod is None or not pod.may_wait_for_mounts:
            return
        try:
            await self._make_certificate(bot)
        except ApiError as error:
            log.warning("the certificate cannot be made", bot=str(bot.key), error=str(error))

    async def _make_certificate(self, bot: SeenBot) -> None:
        pair = self._authority.issue_bot(bot.uid, self._now())
        secret = desired.tls_secret(Identity.of(bot), pair, self._authority.pem)
        with suppress(ExistsError):
            await self._cluster.create("secrets", secret, whole=False)

    def pod_manifest(self, bot: SeenBot, spec: TradingBotSpec) -> Manifest:
        """The pod that the TradingBot should have."""
        settings = self._settings
        return desired.pod(
            Identity.of(bot), spec, settings.bot_image, settings.image_pull_policy,
            scraped=settings.scrape_annotations, shard=bot.shard,
        )  # fmt: skip
