"""The operator's Lease: one process works at a time, and its transition count orders what operators tell bots.

A small loop of our own: the client library's keeps a dead leader's Lease alive, does not wait for cancelled
work, and has no deadline on its calls.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError
from tradingbot_operator.inventory import Manifest

LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0
RENEW_DEADLINE_SECONDS: Final = 10.0
"""Shorter than the Lease: who could not renew stops before another may begin."""
RETRY_SECONDS: Final = 1.0

COUNTED_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Another process may work now; this one must end at once."""

    code = "LeaseLost"


def lease_name(namespaces: tuple[str, ...]) -> str:
    """Operators of the same namespaces exclude each other; others do not."""
    if not namespaces:
        return names.FIELD_MANAGER
    return f"{names.FIELD_MANAGER}-{hashlib.sha256('|'.join(namespaces).encode()).hexdigest()[:8]}"


def first_epoch(now: datetime) -> int:
    """Where a new Lease begins to count: above any former Lease of that name, which bots may remember.

    Seconds, as transitions are rarer than that; a Lease's count has 32 bits, which last until 2088.
    """
    return int((now - COUNTED_SINCE).total_seconds())


@dataclass(frozen=True)
class _Sighting:
    """A foreign holder's Lease and when, on our own clock, it was first seen to stand like this."""

    mark: tuple[str, str]
    since: float


class Leader:
    """Takes, renews and gives up the Lease. Its age is judged by our own clock, not by the times written in it."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, identity: str, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._now = now
        self._lease: Manifest | None = None
        self._sighting: _Sighting | None = None
        self.since = asyncio.get_running_loop().time()
        """When, on the loop's clock, the Lease was taken: until then a former holder may have worked."""

    @property
    def epoch(self) -> int:
        """Grows whenever the Lease changes hands, also over its deletion."""
        return int(self._lease["spec"]["leaseTransitions"]) if self._lease is not None else 0

    async def acquire(self) -> None:
        """Returns once the Lease is ours."""
        told = False
        while True:
            try:
                if await self._try():
                    self.since = asyncio.get_running_loop().time()
                    log.info("the Lease is held", lease=self._name, epoch=self.epoch)
                    return
            except ApiError as error:
                log.warning("the Lease cannot be taken", lease=self._name, error=str(error))
            if not told and self._sighting is not None:
                told = True
                log.info("waiting for the Lease", lease=self._name, holder=self._sighting.mark[0])
            await asyncio.sleep(RETRY_SECONDS)

    async def _try(self) -> bool:
        loop = asyncio.get_running_loop()
        raw = await self._cluster.get("leases", self._namespace, self._name)
        if raw is None:
            empty: Manifest = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"namespace": self._namespace, "name": self._name},
                "spec": {},
            }
            try:
                self._lease = await self._cluster.create("leases", self._held(empty, taken=True))
            except ConflictError:
                return False
            return True
        holder = raw["spec"].get("holderIdentity", "")
        if holder not in {"", self._identity}:
            mark = (holder, raw["metadata"]["resourceVersion"])
            if self._sighting is None or self._sighting.mark != mark:
                self._sighting = _Sighting(mark, loop.time())
            if loop.time() - self._sighting.since < raw["spec"].get("leaseDurationSeconds", LEASE_SECONDS):
                return False
        try:
            self._lease = await self._cluster.replace("leases", self._held(raw, taken=True))
        except ConflictError:
            return False
        return True

    async def keep(self) -> None:
        """Renews without end; LeaseLostError as soon as the Lease is another's or could not be renewed in time."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(RENEW_SECONDS if loop.time() - renewed < RENEW_SECONDS else RETRY_SECONDS)
            begun = loop.time()
            try:
                async with asyncio.timeout(max(0.1, renewed + RENEW_DEADLINE_SECONDS - begun)):
                    await self._renew()
                renewed = begun
            except (ApiError, TimeoutError) as error:
                log.warning("the Lease is not renewed", lease=self._name, error=str(error))
                if loop.time() - renewed >= RENEW_DEADLINE_SECONDS:
                    raise LeaseLostError(
                        f"Lease {self._name} could not be renewed for {RENEW_DEADLINE_SECONDS} s"
                    ) from error

    async def _renew(self) -> None:
        if self._lease is None:
            raise LeaseLostError(f"Lease {self._name} was never held")
        try:
            self._lease = await self._cluster.replace("leases", self._held(self._lease, taken=False))
        except ConflictError:
            raw = await self._cluster.get("leases", self._namespace, self._name)
            holder = raw["spec"].get("holderIdentity") if raw is not None else None
            if raw is None or holder != self._identity or raw["spec"].get("leaseTransitions") != self.epoch:
                raise LeaseLostError(f"Lease {self._name} is held by {holder or 'nobody'}") from None
            # A renewal whose answer did not come, or a label that somebody added.
            self._lease = raw

    async def release(self) -> None:
        """Lets the next one begin at once; best effort."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        try:
            await self._cluster.replace("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        except ApiError as error:
            log.info("the Lease is not given up", lease=self._name, error=str(error))

    def _held(self, raw: Manifest, *, taken: bool) -> Manifest:
        spec = dict(raw["spec"])
        time = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if taken:
            spec["leaseTransitions"] = spec.get("leaseTransitions", first_epoch(self._now())) + 1
            spec["acquireTime"] = time
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": time}
        return {**raw, "spec": spec}
