"""Every kopf registration: a handler records what was seen and enqueues, and never waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, Final

import kopf

from tradingbot_api import names
from tradingbot_operator.bot_controller import BotController
from tradingbot_operator.cluster import MANAGED, Access
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod, Watched
from tradingbot_operator.kill_switch import SeenSwitch
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.safe_mode import SafeModeLane
from tradingbot_operator.sharding import Shard

OWN_FINALIZER: Final = f"{names.GROUP}/kopf-unused"


class Watcher:
    """Takes watch events and resync findings in."""

    def __init__(
        self,
        *,
        bots: Inventory[SeenBot],
        pods: Inventory[SeenPod],
        controller: BotController,
        lane: SafeModeLane,
        switches: Mapping[type[SeenSwitch], Inventory[SeenSwitch]],
        switched: Callable[[], None],
        enqueue: Callable[[BotKey, bool], None],
        shard: Shard,
    ) -> None:
        self._shard = shard
        self._bots = bots
        self._pods = pods
        self._controller = controller
        self._lane = lane
        self._switches = switches
        for inventory in switches.values():
            inventory.followers.append(self._follow_switch)
        self._switched = switched
        self._enqueue = enqueue

    def watched(self) -> tuple[Watched[Any], ...]:
        """The kinds, in the order in which they are listed: a TradingBot whose pod is not known yet would get another
        one, and a pod is made with what kill switches impose on it."""
        switches = [
            Watched(
                names.GROUP, kind.resource.plural, inventory, kind.of, partial(self.switch, kind),
                partial(self.switch_gone, kind), optional=True,
            )
            for kind, inventory in self._switches.items()
        ]  # fmt: skip
        return (
            Watched("", "pods", self._pods, SeenPod.of, self.pod, self.pod_gone),
            *switches,
            Watched(names.GROUP, names.PLURAL, self._bots, SeenBot.of, self.bot, self.bot_gone),
        )

    def bot(self, raw: Manifest) -> None:
        """A TradingBot was seen."""
        key = BotKey.of(raw)
        if not self._bots.is_news(key, raw["metadata"]["resourceVersion"]):
            return
        before, bot = self._bots.get(key), SeenBot.of(raw)
        self._bots.see(bot)
        self._controller.saw(bot)
        changed = before is not None and before.uid == bot.uid and before.safe_mode != bot.safe_mode
        moved = before is not None and self._shard.serves(before) != self._shard.serves(bot)
        if moved and self._shard.serves(bot):
            self._controller.came(bot)
        if changed:
            self._lane.notice(bot)
        if before is None or before.labels != bot.labels:
            self._lane.notice_imposed([bot])
        if before is None or before.uid != bot.uid or _wish(before) != _wish(bot):
            self._enqueue(bot.key, changed or moved)

    def bot_gone(self, bot: SeenBot) -> None:
        """A TradingBot is gone."""
        if self._bots.gone(bot.key, bot.uid):
            self._enqueue(bot.key, False)

    def switch(self, kind: type[SeenSwitch], raw: Manifest) -> None:
        """A kill switch was seen."""
        self._switches[kind].see(kind.of(raw))

    def switch_gone(self, kind: type[SeenSwitch], switch: SeenSwitch) -> None:
        """A kill switch is gone."""
        self._switches[kind].gone(switch.key, switch.uid)

    def _follow_switch(self, before: SeenSwitch | None, after: SeenSwitch | None) -> None:
        """One is another than before, whoever saw it first: this process may have read it past its watch."""
        if after is None:
            # Who is held still is told what to do.
            for bot in self._bots:
                if before is not None and before.covers(bot):
                    self._enqueue(bot.key, False)
        elif before is None or before.spec != after.spec:
            self._lane.notice_imposed(bot for bot in self._bots if after.selects(bot))
            self._switched()

    def pod(self, raw: Manifest) -> None:
        """A pod of ours was seen."""
        pod = SeenPod.of(raw)
        before = self._pods.get(pod.key)
        if self._pods.see(pod):
            if before is not None and before.uid != pod.uid:
                self._controller.pod_gone(before)
            self._enqueue(pod.key, False)

    def pod_gone(self, pod: SeenPod) -> None:
        """A pod of ours is gone; `pod` is the last that was known of it."""
        if self._pods.gone(pod.key, pod.uid):
            self._controller.pod_gone(pod)


def _wish(bot: SeenBot) -> object:
    """What is worth a step. The operator's own status writes are known from their answers: another's is mended."""
    return bot.generation, bot.deleted, bot.finalizers, bot.labels, bot.annotations, bot.told


class EndlessBackoff:
    """Delays between kopf's tries at a request: growing, capped, jittered, without end."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * (0.5 + self._random.random())
            delay = min(10.0, delay * 1.6)


class NoDiffBase(kopf.DiffBaseStorage):
    """kopf copies each object whole to find what changed; here nothing is handled, only recorded."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Nothing is compared."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        """Nothing was handled."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is written."""


def settings(random: Random, *, inactivity_seconds: float) -> kopf.OperatorSettings:
    """kopf as an observer: it writes nothing, and a watch that is silent for `inactivity_seconds` ends."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.peering.standalone = True
    result.scanning.disabled = True
    result.watching.server_timeout = 300
    result.watching.client_timeout = 310
    result.watching.connect_timeout = 10
    result.watching.inactivity_timeout = inactivity_seconds
    result.watching.chunk_size = 500
    result.watching.label_selectors["", "v1", "pods"] = MANAGED
    result.networking.request_timeout = 15
    result.networking.error_backoffs = EndlessBackoff(random)
    # With on.event handlers alone kopf takes the finalizer of this name off: it must not be ours.
    result.persistence.finalizer = OWN_FINALIZER
    result.persistence.diffbase_storage = NoDiffBase()
    return result


def register(kinds: Sequence[Watched[Any]], access: Access, metrics: Metrics) -> kopf.OperatorRegistry:
    """The registry of this operator."""
    registry = kopf.OperatorRegistry()
    logging.getLogger("kopf").setLevel(logging.WARNING)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await access.for_kopf()

    for kind in kinds:
        _watch(kind, registry, metrics)
    return registry


def _watch(kind: Watched[Any], registry: kopf.OperatorRegistry, metrics: Metrics) -> None:
    version = names.VERSION if kind.group == names.GROUP else "v1"

    @kopf.on.event(kind.group, version, kind.plural, id=kind.plural, registry=registry)
    async def seen(event: Any, **_: Any) -> None:
        metrics.last_watch_event.labels(kind.plural).set_to_current_time()
        if event["type"] == "DELETED":
            kind.gone(kind.of(event["object"]))
        else:
            kind.see(event["object"])
