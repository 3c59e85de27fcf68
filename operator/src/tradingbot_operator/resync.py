"""Finds what no watch event told: a first whole list, then a metadata-only list a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import structlog

from tradingbot_operator.cluster import ApiError, Cluster, NotFoundError
from tradingbot_operator.inventory import BotKey, Manifest, Watched, newer
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.settings import RESYNC_SECONDS

SETTLE_SECONDS: Final = 3.0
MISSES_IN_A_ROW: Final = 3
LATE_SECONDS: Final = 180.0

log = structlog.get_logger(__name__)


class WentBackError(Exception):
    """The cluster is older than what was seen of it, as where a backup was restored: what was seen is true no more.

    A process that begins anew sees what is there.
    """

    code = "StoreWentBack"


class Resync:
    """Compares the API server's lists with what was seen; misses in several rounds mean that a watch is dead."""

    def __init__(
        self,
        cluster: Cluster,
        namespaces: tuple[str, ...],
        kinds: Sequence[Watched[Any]],
        *,
        now: Callable[[], datetime],
        metrics: Metrics,
        also: Callable[[], Awaitable[None]] | None = None,
        served_late: Callable[[], None] = lambda: None,
        period: float = RESYNC_SECONDS,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        """`also` is done once a round: what else must not be believed for longer; `served_late` where the CRD of a kind
        came only after the start. `period` and `settle`, for which an event may be on its way, are in seconds."""
        self._period = period
        self._settle = settle
        self._cluster = cluster
        self._namespaces = namespaces
        self._kinds = kinds
        self._now = now
        self._metrics = metrics
        self._also = also
        self._served_late = served_late
        self._unserved: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._rounds_with_misses = 0
        self._hurried = asyncio.Event()

    def trouble(self) -> str | None:
        """What is wrong with the view of the cluster; None when all is well."""
        if self._rounds_with_misses >= MISSES_IN_A_ROW:
            return f"watch events were missed in {self._rounds_with_misses} rounds in a row"
        late = self._loop.time() - self._last
        return f"no list of the cluster for {late:.0f} s" if late > LATE_SECONDS else None

    async def take_in(self) -> None:
        """Takes everything in, kind by kind, at the start and before a standby works: its watches may hang.

        WentBackError.
        """
        for kind in self._kinds:
            await self._take_in(kind)
        self._done()

    async def _take_in(self, kind: Watched[Any]) -> None:
        listed, older = await self._list(kind)
        _refuse(kind.plural, older)
        for raw in listed:
            if kind.inventory.is_news(BotKey.of(raw), raw["metadata"]["resourceVersion"]):
                kind.see(raw)
                # A thousand at once would keep everything else waiting.
                await asyncio.sleep(0)
        there = {BotKey.of(raw) for raw in listed}
        for known in kind.inventory:
            if known.key not in there:
                await self._mend(kind, known.key)

    async def run(self) -> None:
        """One round a minute, without end; WentBackError."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._period):
                    await self._hurried.wait()
            self._hurried.clear()
            try:
                await self.round()
            except ApiError as error:
                log.warning("the cluster cannot be listed", error=str(error))

    def hurry(self) -> None:
        """Asks for a round now: from here on what is seen is acted upon."""
        self._hurried.set()

    def _done(self) -> None:
        self._last = self._loop.time()
        self._metrics.last_resync.set(self._now().timestamp())

    async def round(self) -> int:
        """Compares once and mends; how many were missed. WentBackError."""
        missed = 0
        for kind in reversed(self._kinds):
            suspects, older = await self._differing(kind)
            if suspects or older:
                # An event may be on its way: only what still differs then was missed.
                await asyncio.sleep(self._settle)
                still, still_older = await self._differing(kind)
                suspects &= still
                _refuse(kind.plural, older & still_older)
            for key in suspects:
                await self._mend(kind, key)
                self._metrics.resync_misses.labels(kind.plural).inc()
            missed += len(suspects)
        if self._also is not None:
            await self._also()
        if missed:
            log.warning("watch events were missed", count=missed)
        self._rounds_with_misses = self._rounds_with_misses + 1 if missed else 0
        self._done()
        return missed

    async def _list(self, kind: Watched[Any], *, metadata_only: bool = False) -> tuple[list[Manifest], set[BotKey]]:
        """All objects, and those that are older than what was known before the API server was asked."""
        before = {known.key: known.resource_version for known in kind.inventory}
        try:
            listed = await self._cluster.list_all(kind.plural, self._namespaces, metadata_only=metadata_only)
        except NotFoundError:
            if not kind.optional:
                raise
            listed = []
            self._unserved.add(kind.plural)
        else:
            if kind.plural in self._unserved:
                self._unserved.discard(kind.plural)
                log.info("a kind is served now", kind=kind.plural)
                self._served_late()
        versions = {BotKey.of(raw): raw["metadata"]["resourceVersion"] for raw in listed}
        return listed, {key for key in versions.keys() & before if newer(before[key], versions[key])}

    async def _differing(self, kind: Watched[Any]) -> tuple[set[BotKey], set[BotKey]]:
        """What was missed, and what went back."""
        found, older = await self._list(kind, metadata_only=True)
        listed = {BotKey.of(raw): (raw["metadata"]["uid"], raw["metadata"]["resourceVersion"]) for raw in found}
        differing = set()
        for key, (uid, version) in listed.items():
            known = kind.inventory.get(key)
            if known is None or known.uid != uid or newer(version, known.resource_version):
                differing.add(key)
        return differing | {known.key for known in kind.inventory if known.key not in listed}, older

    async def _mend(self, kind: Watched[Any], key: BotKey) -> None:
        raw = await self._cluster.get(kind.plural, key.namespace, key.name)
        if raw is not None:
            kind.see(raw)
        elif (known := kind.inventory.get(key)) is not None:
            kind.gone(known)


def _refuse(resource: str, older: set[BotKey]) -> None:
    if older:
        some = ", ".join(str(key) for key in sorted(older)[:3])
        raise WentBackError(
            f"{len(older)} {resource} are older than what was seen of them ({some}): was a backup restored?"
        )
