"""The operator's Lease: one process works at a time, and its transition count orders what operators tell bots.

A small loop of our own: the client library's keeps a dead leader's Lease alive, does not wait for cancelled
work, and has no deadline on its calls.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_api.clock import steady_clock
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError
from tradingbot_operator.inventory import Manifest

LEASE_SECONDS: Final = 10
"""A killed leader's bots get their next grant within this and a second or two: less than a quarter of a grant."""
RENEW_SECONDS: Final = 2.0
RENEW_DEADLINE_SECONDS: Final = 6.0
"""Two renewals may fail. Shorter than the Lease by four seconds, for the calls that are under way when it ends."""
CALL_SECONDS: Final = 2.5
"""A call that hangs on a dead connection is given up in time for another one on a new connection."""
OUTRUN_SECONDS: Final = 5.0
"""From one raise of the epoch to the next."""
LOOK_SECONDS: Final = 0.5
"""How often a standby looks: a Lease that is given up is taken at once."""

COUNTED_SINCE: Final = datetime(2020, 1, 1, tzinfo=UTC)

log = structlog.get_logger(__name__)


class LeaseLostError(Exception):
    """Another process may work now; this one must end at once."""

    code = "LeaseLost"


def lease_name(namespaces: tuple[str, ...], shard: str = "") -> str:
    """Operators of the same namespaces and shard exclude each other; others do not."""
    watched = f"-{hashlib.sha256('|'.join(namespaces).encode()).hexdigest()[:8]}" if namespaces else ""
    return f"{names.FIELD_MANAGER}{watched}{f'-shard-{shard}' if shard else ''}"


def next_epoch(last: int, now: datetime) -> int:
    """What a Lease counts when it is taken, `last` before: above all that bots may remember, also of a Lease that was
    deleted, that an old backup brought back, or of another name (other namespaces were watched for a while).

    Seconds, as transitions are rarer than that; a Lease's count has 32 bits, which last until 2088.
    """
    return max(last, int((now - COUNTED_SINCE).total_seconds())) + 1


@dataclass(frozen=True)
class _Sighting:
    """A foreign holder's Lease and when, on our own clock, it was first seen to stand like this."""

    mark: tuple[str, str]
    since: float


class Leader:
    """Takes, renews and gives up the Lease. Its age is judged by our own clock, not by the times written in it.

    `cluster` is a client of the Lease alone, with short deadlines.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float] = steady_clock,
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._now = now
        self._clock = clock
        self._lease: Manifest | None = None
        self._sighting: _Sighting | None = None
        self._valid_until = -math.inf
        self.epoch = 0
        """The Lease's transition count: grows whenever it changes hands, whatever became of the Lease meanwhile, and
        with `outrun`. A standby knows the one that it last saw."""
        self._outrun = False
        self._outran = -math.inf
        self._written = 0
        """The count of the last raise that was tried: its answer may not have come."""
        self.since = asyncio.get_running_loop().time()
        """When, on the loop's clock, the Lease was taken: until then a former holder may have worked."""

    def valid(self) -> bool:
        """Whether nobody else can hold the Lease now, whatever happened to this process meanwhile."""
        return self._clock() < self._valid_until

    def lapsed(self) -> bool:
        """Whether this process led and does no more: it is about to end, and what it knows may be old."""
        return self._lease is not None and not self.valid()

    def check(self) -> None:
        """LeaseLostError unless `valid`: asked just before anything is sent that only the leader may say."""
        if not self.valid():
            raise LeaseLostError(f"Lease {self._name} is not held, or was not renewed for {RENEW_DEADLINE_SECONDS} s")

    async def acquire(self) -> None:
        """Returns once the Lease is ours."""
        told = False
        while True:
            begun, wait = self._clock(), LOOK_SECONDS
            try:
                if await self._try():
                    self._valid_until = begun + RENEW_DEADLINE_SECONDS
                    self.since = asyncio.get_running_loop().time()
                    log.info("the Lease is held", lease=self._name, epoch=self.epoch)
                    return
            except ApiError as error:
                log.warning("the Lease cannot be taken", lease=self._name, error=str(error))
                wait = max(RENEW_SECONDS, error.retry_after)
            if not told and self._sighting is not None:
                told = True
                log.info("waiting for the Lease", lease=self._name, holder=self._sighting.mark[0])
            await asyncio.sleep(wait)

    async def _try(self) -> bool:
        raw = await self._cluster.get("leases", self._namespace, self._name)
        if raw is None:
            empty: Manifest = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"namespace": self._namespace, "name": self._name},
                "spec": {},
            }
            try:
                self._hold(await self._cluster.create("leases", self._held(empty, taken=True)))
            except ConflictError:
                return False
            return True
        self.epoch = raw["spec"].get("leaseTransitions", 0)
        holder = raw["spec"].get("holderIdentity", "")
        if holder not in {"", self._identity}:
            mark = (holder, raw["metadata"]["resourceVersion"])
            if self._sighting is None or self._sighting.mark != mark:
                self._sighting = _Sighting(mark, self._clock())
            if self._clock() - self._sighting.since < raw["spec"].get("leaseDurationSeconds", LEASE_SECONDS):
                return False
        try:
            self._hold(await self._cluster.replace("leases", self._held(raw, taken=True)))
        except ConflictError:
            return False
        return True

    def _hold(self, lease: Manifest) -> None:
        self._lease = lease
        self.epoch = int(lease["spec"]["leaseTransitions"])

    async def keep(self) -> None:
        """Renews without end; LeaseLostError as soon as the Lease is another's or could not be renewed in time."""
        wait = RENEW_SECONDS
        while True:
            await asyncio.sleep(wait)
            self.check()
            begun = self._clock()
            try:
                async with asyncio.timeout(self._valid_until - begun):
                    await self._renew()
                self._valid_until, wait = begun + RENEW_DEADLINE_SECONDS, RENEW_SECONDS
            except (ApiError, TimeoutError) as error:
                log.warning("the Lease is not renewed", lease=self._name, error=str(error))
                wait = LOOK_SECONDS

    def outrun(self) -> None:
        """A bot remembers a greater epoch, as of the operator of another shard that served it before: the next renewal
        counts above it."""
        self._outrun = True

    async def _renew(self) -> None:
        if self._lease is None:
            raise LeaseLostError(f"Lease {self._name} was never held")
        now = self._clock()
        if self._outrun and now - self._outran >= OUTRUN_SECONDS:
            self._outrun, self._outran = False, now
            self._written = next_epoch(self.epoch, self._now())
            log.info("the epoch is raised above another operator's", lease=self._name)
        try:
            await self._write(self._lease)
        except ConflictError:
            # A renewal whose answer did not come, or a label that somebody added: it is still ours. Others count from
            # what they saw then, so that it is renewed only once it is written.
            self._hold(raw := await self._still_ours())
            await self._write(raw)

    async def _write(self, lease: Manifest) -> None:
        fresh = self._held(lease, taken=False)
        # A raise whose answer did not come may have had its effect, or not: it is written again.
        fresh["spec"]["leaseTransitions"] = max(self.epoch, self._written)
        self._hold(await self._cluster.replace("leases", fresh))

    async def _still_ours(self) -> Manifest:
        raw = await self._cluster.get("leases", self._namespace, self._name)
        holder = raw["spec"].get("holderIdentity") if raw is not None else None
        ours = {self.epoch, self._written}
        if raw is None or holder != self._identity or raw["spec"].get("leaseTransitions") not in ours:
            raise LeaseLostError(f"Lease {self._name} is held by {holder or 'nobody'}")
        return raw

    async def release(self) -> None:
        """Lets the next one begin at once; best effort. What only the leader may say was stopped before."""
        valid, self._valid_until = self.valid(), -math.inf
        if self._lease is None or not valid:
            return
        lease, self._lease = self._lease, None
        try:
            try:
                await self._give_up(lease)
            except ConflictError:
                # A renewal was under way when we were told to end.
                await self._give_up(await self._still_ours())
        except (ApiError, LeaseLostError) as error:
            log.info("the Lease is not given up", lease=self._name, error=str(error))

    async def _give_up(self, lease: Manifest) -> None:
        await self._cluster.replace("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})

    def _held(self, raw: Manifest, *, taken: bool) -> Manifest:
        spec = dict(raw["spec"])
        time = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if taken:
            spec["leaseTransitions"] = next_epoch(spec.get("leaseTransitions", 0), self._now())
            spec["acquireTime"] = time
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": time}
        return {**raw, "spec": spec}
