"""The composition root and life cycle of an operator process."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any, Final

import structlog

from tradingbot_api import names
from tradingbot_api.clock import steady_clock
from tradingbot_operator import handlers
from tradingbot_operator.bot_controller import BotController
from tradingbot_operator.bot_link import client_session
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.claims import Claims
from tradingbot_operator.cluster import Access, ApiError, Cluster
from tradingbot_operator.fleet import Fleet
from tradingbot_operator.garbage import collect_now_and_then, spare_what_lasts
from tradingbot_operator.imposed import Impositions
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod, SeenSet, SetKey
from tradingbot_operator.kill_switch import KillSwitches, SeenClusterKillSwitch, SeenKillSwitch, SeenSwitch
from tradingbot_operator.leader import CALL_SECONDS, Leader, LeaseLostError, lease_name
from tradingbot_operator.metrics import BotFigures, Metrics, Servers
from tradingbot_operator.reservations import Reservations
from tradingbot_operator.resync import Resync
from tradingbot_operator.safe_mode import SafeModeLane
from tradingbot_operator.set_controller import SetController
from tradingbot_operator.settings import Settings
from tradingbot_operator.watching import watch
from tradingbot_operator.work_queue import WorkQueue

START_RETRY_SECONDS: Final = 1.0
LAG_SECONDS: Final = 0.1
LAG_LOOKS: Final = 10

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT; raises what made it end otherwise, LeaseLostError among it.

    Every replica watches, lists and has the fast lane of safe mode; the one that holds the Lease also works.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    listen()
    metrics = Metrics(settings.shard)
    authority = CertificateAuthority.load(settings.ca_dir)
    access = await Access.load(settings.kubeconfig)
    state = _State()
    async with AsyncExitStack() as stack:
        servers = Servers(metrics, healthy=state.healthy, ready=state.ready)
        ports = await servers.start(settings.probe_host, settings.probe_port, settings.metrics_port)
        stack.push_async_callback(servers.stop)
        log.info("listening", probe_port=ports[0], metrics_port=ports[1])
        lease = Cluster(access, metrics, seconds=CALL_SECONDS)
        leader = Leader(
            lease, settings.claims_namespace, lease_name(settings.namespaces, settings.shard.name),
            settings.identity, now=utc_now,
        )  # fmt: skip
        # A connection of its own for each, so that none waits behind another's calls.
        cluster, fast = Cluster(access, metrics, fence=leader.check), Cluster(access, metrics)
        for client in (cluster, fast, lease):
            stack.push_async_callback(client.close)
        stack.push_async_callback(leader.release)
        operator = _Operator(
            settings, cluster=cluster, fast=fast, authority=authority, leader=leader, metrics=metrics, stack=stack
        )
        state.resync = operator.resync
        if not await _unless(stop, _look_around(cluster, operator)):
            return
        async with asyncio.TaskGroup() as group:
            ready = asyncio.Event()
            leading = group.create_task(operator.lead())
            spare_what_lasts()
            background = [
                group.create_task(coroutine)
                for coroutine in (operator.resync.run(), operator.gauges(), collect_now_and_then())
            ]
            watching = group.create_task(
                watch(
                    lambda: handlers.register(operator.kinds, access, metrics),
                    lambda: handlers.settings(operator.random, inactivity_seconds=settings.watch_inactivity_seconds),
                    settings.namespaces,
                    ready=ready,
                    again=operator.watch_again,
                    begun=listen,  # the order of our own end is ours
                    failed=operator.resync.hurry,
                )
            )
            state.started = await _unless(stop, ready.wait())
            await stop.wait()
            log.info("stopping")
            state.started = False
            # First the work, then its Lease: the next one begins while this process still closes its watches.
            leading.cancel()
            await asyncio.wait({leading})
            operator.close_links()
            await leader.release()
            # kopf leaves its watch generators to the loop's shutdown, which reports each as an error.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            for task in (*background, watching):
                task.cancel()


async def _look_around(cluster: Cluster, operator: _Operator) -> None:
    async def served() -> None:
        while not await cluster.served():
            log.warning(f"{names.PLURAL}.{names.GROUP} is not served; install the CRD")
            await asyncio.sleep(START_RETRY_SECONDS * 5)

    await _retry("the API server cannot be asked", served)
    await _retry("the cluster cannot be listed", operator.resync.take_in)


async def _retry(what: str, call: Any) -> None:
    while True:
        try:
            await call()
            return
        except ApiError as error:
            log.warning(what, error=str(error))
            await asyncio.sleep(max(START_RETRY_SECONDS, error.retry_after))


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Awaits `work`, or gives it up when `stop` is set; whether it was done."""
    task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
    task.result()
    return True


class _State:
    """What the probes answer."""

    def __init__(self) -> None:
        self.started = False
        self.resync: Resync | None = None

    def healthy(self) -> str | None:
        """Alive while it waits for the API server, and then while its view of the cluster is fresh."""
        return self.resync.trouble() if self.resync is not None and self.started else None

    def ready(self) -> str | None:
        """Ready once the cluster was listed and is watched, with or without the Lease."""
        return None if self.started else "waiting for the API server"


class _Operator:
    """The rooms, connected."""

    def __init__(
        self,
        settings: Settings,
        *,
        cluster: Cluster,
        fast: Cluster,
        authority: CertificateAuthority,
        leader: Leader,
        metrics: Metrics,
        stack: AsyncExitStack,
    ) -> None:
        self.random: Random = SystemRandom()
        self.watch_again = asyncio.Event()
        self._settings = settings
        self._metrics = metrics
        self._queue: WorkQueue[BotKey | SetKey] = WorkQueue(self.random)
        self._fleet = Fleet()
        bots: Inventory[SeenBot] = Inventory()
        pods: Inventory[SeenPod] = Inventory()
        switches: dict[type[SeenSwitch], Inventory[SeenSwitch]] = {SeenKillSwitch: Inventory()}
        if not settings.namespaces:
            switches[SeenClusterKillSwitch] = Inventory()
        self._leader = leader
        self._bots, self._pods = bots, pods
        self._leading = False
        session = client_session(leader.check)
        stack.push_async_callback(session.close)
        tls = authority.client_context(utc_now())

        def enqueue(key: BotKey | SetKey, urgent: bool) -> None:
            # A standby has no use for a queue: whoever takes over looks at every bot.
            if self._leading and self._concerns(key):
                self._queue.add(key, urgent=urgent, may_wait=self._may_wait(key))

        def enqueue_after(key: SetKey, seconds: float) -> None:
            if self._leading:
                self._queue.add_after(key, seconds)

        def has_turn(bot: SeenBot) -> bool:
            return self._set_controller.has_turn(bot)

        async def look_around() -> None:
            if self._leading:
                await self._controller.look_around()

        self._switches = KillSwitches(
            cluster, switches, bots=bots, fleet=self._fleet, enqueue=enqueue, now=utc_now, identity=settings.identity,
            random=self.random, shard=settings.shard, pods=pods, namespaces=settings.namespaces,
        )  # fmt: skip
        reservations = Reservations(leader, metrics)
        self._impositions = Impositions(self._switches, reservations)
        stack.callback(reservations.close)
        self._controller = BotController(
            settings,
            reservations=reservations,
            cluster=cluster,
            bots=bots,
            pods=pods,
            fleet=self._fleet,
            claims=Claims(cluster, settings.claims_namespace),
            authority=authority,
            tls=tls,
            session=session,
            enqueue=enqueue,
            has_turn=has_turn,
            leader=leader,
            impositions=self._impositions,
            now=utc_now,
            random=self.random,
            metrics=metrics,
        )
        stack.push_async_callback(self._controller.close)
        self._lane = lane = SafeModeLane(
            fast, bots=bots, pods=pods, fleet=self._fleet, leader=leader, impositions=self._impositions, tls=tls,
            session=session, metrics=metrics, enqueue=lambda key: enqueue(key, True), shard=settings.shard,
        )  # fmt: skip
        stack.push_async_callback(lane.close)
        watcher = handlers.Watcher(
            bots=bots, pods=pods, controller=self._controller, lane=lane, switches=switches,
            switched=self._switches.hurry, enqueue=enqueue, shard=settings.shard,
        )  # fmt: skip
        self._sets: Inventory[SeenSet] = Inventory()
        self._set_controller = SetController(
            cluster, sets=self._sets, bots=bots, saw_bot=watcher.bot,
            restart=lambda key: enqueue(key, False), enqueue=enqueue, enqueue_after=enqueue_after,
            identity=settings.identity, now=utc_now, random=self.random, reservations=reservations,
            shard=settings.shard,
        )  # fmt: skip
        bots.followers.append(self._set_controller.bot_changed)
        self.kinds = (*watcher.watched(), self._set_controller.watched())
        self.resync = Resync(
            cluster, settings.namespaces, self.kinds, now=utc_now, metrics=metrics,
            also=look_around, served_late=self.watch_again.set, period=settings.resync_seconds,
        )  # fmt: skip
        metrics.fleet = self._figures
        metrics.switches = lambda: self._switches.figures() if self._leading else []
        metrics.sets = lambda: self._set_controller.figures() if self._leading else []
        stack.callback(self.close_links)

    def _concerns(self, key: BotKey | SetKey) -> bool:
        """Whether it is this operator's to step: it serves the object, or has to let go of it."""
        if isinstance(key, SetKey) or self._fleet.known(key) is not None:
            return True
        seen = self._bots.get(key) or self._pods.get(key)
        return seen is None or self._settings.shard.serves(seen)

    def _may_wait(self, key: BotKey | SetKey) -> bool:
        """A TradingBot without a pod lets those go first that have a process."""
        return isinstance(key, BotKey) and self._pods.get(key) is None

    def close_links(self) -> None:
        """Ends the lines to the bots; nothing is awaited."""
        for memory in self._fleet:
            if memory.link is not None:
                memory.link.close()

    def _figures(self) -> list[BotFigures]:
        # A standby knows no phases, and hears only of safe mode.
        return [memory.figures() for memory in self._fleet] if self._leading else []

    async def lead(self) -> None:
        """Waits for the Lease, takes over what is known, and works until cancelled; LeaseLostError."""
        await self._leader.acquire()
        # What was remembered as a standby was not acted upon: it is looked at as after a restart.
        self._fleet.begin_anew()
        self._switches.begin()
        self._leading = True
        self._metrics.leader.set(1)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._leader.keep())
                # Watches may have hung: what a former leader carried out must not be undone by what was seen before.
                await _retry("the cluster cannot be listed", self.resync.take_in)
                await _retry("what a former leader left cannot be listed", self._controller.begin)
                # A pod whose TradingBot is gone needs a step too.
                for key in dict.fromkeys([*(bot.key for bot in self._bots), *(pod.key for pod in self._pods)]):
                    if not self._concerns(key):
                        continue
                    # Safe mode may have been set while nobody worked.
                    urgent = (bot := self._bots.get(key)) is not None and self._lane.lacks(bot)
                    self._queue.add(key, urgent=urgent, may_wait=self._may_wait(key))
                    await asyncio.sleep(0)
                for seen in self._sets:
                    self._queue.add(SetKey(*seen.key))
                self.resync.hurry()
                group.create_task(self._switches.run())
                for _ in range(self._settings.workers):
                    group.create_task(self._work())
        finally:
            self._leading = False
            self._metrics.leader.set(0)

    async def gauges(self) -> None:
        """Keeps the figures that are counted rather than told, and looks how late the event loop comes round."""
        while True:
            self._metrics.queue_length.set(len(self._queue))
            self._controller.measure()
            self._metrics.bots_reachable.set(sum(memory.word() is not None for memory in self._fleet))
            for _ in range(LAG_LOOKS):
                begun = steady_clock()
                await asyncio.sleep(LAG_SECONDS)
                self._metrics.event_loop_lag_seconds.observe(max(0.0, steady_clock() - begun - LAG_SECONDS))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            # Steps that wait for nothing would follow one another, and keep the loop to themselves.
            await asyncio.sleep(0)
            await self._lane.let_pass()
            key = await self._queue.take()
            begun, again, failed = loop.time(), None, True
            try:
                again = await (
                    self._set_controller.step(key) if isinstance(key, SetKey) else self._controller.step(key)
                )
                failed = False
            except ApiError as error:
                log.warning("a step failed", key=str(key), error=str(error))
            except LeaseLostError:
                raise
            except Exception:
                # One bot's trouble must not end the others' operator.
                log.exception("a step failed", key=str(key))
            finally:
                self._metrics.reconciles.labels("failed" if failed else "done").inc()
                self._metrics.reconcile_seconds.observe(loop.time() - begun)
                self._queue.done(key, failed=failed)
            if again is not None:
                self._queue.add_after(key, again)
