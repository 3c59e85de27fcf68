"""Every kopf registration: a handler records what was seen and enqueues, and never waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import kopf

from tradingbot_api import names
from tradingbot_operator.bot_controller import BotController
from tradingbot_operator.cluster import MANAGED, Access
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.safe_mode import SafeModeLane

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
        enqueue: Callable[[BotKey, bool], None],
    ) -> None:
        self._bots = bots
        self._pods = pods
        self._controller = controller
        self._lane = lane
        self._enqueue = enqueue

    def bot(self, raw: Manifest) -> None:
        """A TradingBot was seen."""
        bot = SeenBot.of(raw)
        before = self._bots.get(bot.key)
        if not self._bots.see(bot):
            return
        changed = before is not None and before.uid == bot.uid and before.safe_mode != bot.safe_mode
        if changed:
            self._lane.notice(bot)
        if before is None or before.uid != bot.uid or _wish(before) != _wish(bot):
            self._enqueue(bot.key, changed)

    def bot_gone(self, bot: SeenBot) -> None:
        """A TradingBot is gone."""
        if self._bots.gone(bot.key, bot.uid):
            self._enqueue(bot.key, False)

    def pod(self, raw: Manifest) -> None:
        """A pod of ours was seen."""
        pod = SeenPod.of(raw)
        if self._pods.see(pod):
            self._enqueue(pod.key, False)

    def pod_gone(self, pod: SeenPod) -> None:
        """A pod of ours is gone; `pod` is the last that was known of it."""
        if self._pods.gone(pod.key, pod.uid):
            self._controller.pod_gone(pod)


def _wish(bot: SeenBot) -> object:
    """What is worth a step. The operator's own status writes are known from their answers: another's is mended."""
    return bot.generation, bot.deleted, bot.finalizers, bot.annotations, bot.status


class EndlessBackoff:
    """Delays between kopf's tries at a request: growing, capped, jittered, without end."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * (0.5 + self._random.random())
            delay = min(10.0, delay * 1.6)


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
    return result


def register(watcher: Watcher, access: Access, metrics: Metrics) -> kopf.OperatorRegistry:
    """The registry of this operator."""
    registry = kopf.OperatorRegistry()
    logging.getLogger("kopf").setLevel(logging.WARNING)

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await access.for_kopf()

    @kopf.on.event(names.GROUP, names.VERSION, names.PLURAL, registry=registry)
    async def tradingbot(event: Any, **_: Any) -> None:
        metrics.last_watch_event.labels(names.PLURAL).set_to_current_time()
        if event["type"] == "DELETED":
            watcher.bot_gone(SeenBot.of(event["object"]))
        else:
            watcher.bot(event["object"])

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def pod(event: Any, **_: Any) -> None:
        metrics.last_watch_event.labels("pods").set_to_current_time()
        if event["type"] == "DELETED":
            watcher.pod_gone(SeenPod.of(event["object"]))
        else:
            watcher.pod(event["object"])

    return registry
