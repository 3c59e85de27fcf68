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

import kopf
import structlog

from tradingbot_api import names
from tradingbot_operator import handlers
from tradingbot_operator.bot_controller import BotController
from tradingbot_operator.bot_link import client_session
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.claims import Claims
from tradingbot_operator.cluster import Access, ApiError, Cluster
from tradingbot_operator.fleet import Fleet
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader, lease_name
from tradingbot_operator.metrics import Metrics, Servers
from tradingbot_operator.resync import Resync
from tradingbot_operator.safe_mode import SafeModeLane
from tradingbot_operator.settings import Settings
from tradingbot_operator.work_queue import WorkQueue

START_RETRY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


async def run(settings: Settings) -> None:
    """Works until SIGTERM or SIGINT; raises what made it end otherwise."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    listen()
    metrics = Metrics()
    authority = CertificateAuthority.load(settings.ca_dir)
    access = await Access.load(settings.kubeconfig)
    state = _State()
    async with AsyncExitStack() as stack:
        servers = Servers(metrics, healthy=state.healthy, ready=state.ready)
        ports = await servers.start(settings.probe_host, settings.probe_port, settings.metrics_port)
        stack.push_async_callback(servers.stop)
        log.info("listening", probe_port=ports[0], metrics_port=ports[1])
        cluster, fast = Cluster(access, metrics), Cluster(access, metrics)
        stack.push_async_callback(cluster.close)
        stack.push_async_callback(fast.close)
        leader = Leader(cluster, settings.claims_namespace, lease_name(settings.namespaces), settings.identity, utc_now)
        stack.push_async_callback(leader.release)
        if not await _unless(stop, _begin(cluster, leader)):
            return
        operator = _Operator(
            settings, cluster=cluster, fast=fast, authority=authority, leader=leader, metrics=metrics, stack=stack
        )
        state.resync = operator.resync
        if not await _unless(stop, _retry("the cluster cannot be listed", operator.resync.first)):
            return
        state.started = True
        async with asyncio.TaskGroup() as group:
            ready = asyncio.Event()
            kopf_stop = asyncio.Event()
            background = [
                group.create_task(coroutine)
                for coroutine in (leader.keep(), operator.resync.run(), operator.gauges(), *operator.workers())
            ]
            watching = group.create_task(
                kopf.operator(
                    registry=handlers.register(operator.watcher, access),
                    settings=handlers.settings(operator.random),
                    clusterwide=not settings.namespaces,
                    namespaces=settings.namespaces,
                    stop_flag=kopf_stop,
                    ready_flag=ready,
                )
            )
            await asyncio.wait({group.create_task(ready.wait()), watching}, return_when=asyncio.FIRST_COMPLETED)
            # kopf took the signals; the order of our own end is ours.
            listen()
            stopping = group.create_task(stop.wait())
            await asyncio.wait({stopping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                raise RuntimeError("watching ended by itself; see the log before this line")
            log.info("stopping")
            state.started = False
            # kopf leaves its watch generators to the loop's shutdown, which reports each as an error.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            for task in background:
                task.cancel()
            kopf_stop.set()


async def _begin(cluster: Cluster, leader: Leader) -> None:
    async def served() -> None:
        while not await cluster.served():
            log.warning(f"{names.PLURAL}.{names.GROUP} is not served; install the CRD")
            await asyncio.sleep(START_RETRY_SECONDS * 5)

    await _retry("the API server cannot be asked", served)
    await leader.acquire()


async def _retry(what: str, call: Any) -> None:
    while True:
        try:
            await call()
            return
        except ApiError as error:
            log.warning(what, error=str(error))
            await asyncio.sleep(START_RETRY_SECONDS)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
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
        """Alive while it waits for its Lease, and then while its view of the cluster is fresh."""
        return self.resync.trouble() if self.resync is not None and self.started else None

    def ready(self) -> str | None:
        """Ready once the Lease is held and the cluster was listed."""
        return None if self.started else "waiting for the Lease or for the API server"


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
        self._settings = settings
        self._metrics = metrics
        self._queue: WorkQueue[BotKey] = WorkQueue(self.random)
        self._fleet = Fleet()
        bots: Inventory[SeenBot] = Inventory()
        pods: Inventory[SeenPod] = Inventory()
        session = client_session()
        stack.push_async_callback(session.close)

        def enqueue(key: BotKey, urgent: bool) -> None:
            self._queue.add(key, urgent=urgent)

        self._controller = BotController(
            settings,
            cluster=cluster,
            bots=bots,
            pods=pods,
            fleet=self._fleet,
            claims=Claims(cluster, settings.claims_namespace),
            authority=authority,
            tls=authority.client_context(utc_now()),
            session=session,
            enqueue=enqueue,
            leader=leader,
            now=utc_now,
            random=self.random,
            metrics=metrics,
        )
        lane = SafeModeLane(fast, bots, self._fleet, lambda key: enqueue(key, True))
        stack.push_async_callback(lane.close)
        self.watcher = handlers.Watcher(bots=bots, pods=pods, controller=self._controller, lane=lane, enqueue=enqueue)
        self.resync = Resync(
            cluster, settings.namespaces, bots=bots, pods=pods, watcher=self.watcher, now=utc_now, metrics=metrics,
            also=self._controller.look_at_claims,
        )  # fmt: skip
        stack.callback(self._close_links)

    def _close_links(self) -> None:
        for memory in self._fleet:
            if memory.link is not None:
                memory.link.close()

    def workers(self) -> list[Coroutine[Any, Any, None]]:
        """What works the queue."""
        return [self._work() for _ in range(self._settings.workers)]

    async def gauges(self) -> None:
        """Keeps the figures that are counted rather than told."""
        while True:
            self._metrics.queue_length.set(len(self._queue))
            self._metrics.bots_reachable.set(sum(memory.word() is not None for memory in self._fleet))
            await asyncio.sleep(1.0)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = await self._queue.take()
            begun, again, failed = loop.time(), None, True
            try:
                again = await self._controller.step(key)
                failed = False
            except ApiError as error:
                log.warning("a step failed", bot=str(key), error=str(error))
            except Exception:
                # One bot's trouble must not end the others' operator.
                log.exception("a step failed", bot=str(key))
            finally:
                self._metrics.reconciles.labels("failed" if failed else "done").inc()
                self._metrics.reconcile_seconds.observe(loop.time() - begun)
                self._queue.done(key, failed=failed)
            if again is not None:
                self._queue.add_after(key, again)
