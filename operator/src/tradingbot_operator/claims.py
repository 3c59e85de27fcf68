"""Leases that say which TradingBot may trade an account and symbol, and by which process start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from tradingbot_api import names
from tradingbot_operator.cluster import Cluster, ExistsError
from tradingbot_operator.inventory import BotKey, Manifest

HOLDER: Final = f"{names.GROUP}/holder"
BOOT: Final = f"{names.GROUP}/boot-id"
INCARNATION: Final = f"{names.GROUP}/incarnation"
INCARNATIONS_END: Final = 36**7
"""An incarnation has seven digits of base 36 in client ids: nobody could go above a greater one."""
Mark = tuple[str, str, int]
"""What is remembered of a held claim: the Lease's name, the boot and its incarnation."""


@dataclass(frozen=True)
class Claimant:
    """A bot's process that wants to trade."""

    key: BotKey
    uid: str
    exchange: str
    """As names.exchange_name makes it."""
    account_uid: str
    symbol: str
    boot_id: str
    incarnation: int

    @property
    def lease_name(self) -> str:
        """The Lease that it needs."""
        return names.claim_name(self.exchange, self.account_uid, self.symbol)


@dataclass(frozen=True)
class Claim:
    """A Lease as it was read."""

    holder_uid: str
    holder: str
    boot_id: str
    incarnation: int

    @classmethod
    def of(cls, raw: Manifest) -> Claim:
        """From a Lease; marks that someone broke count as absent."""
        marks = raw["metadata"].get("annotations", {})
        incarnation = marks.get(INCARNATION, "")
        number = int(incarnation) if incarnation.isdecimal() and len(incarnation) <= 20 else 0
        return cls(
            holder_uid=raw.get("spec", {}).get("holderIdentity", ""),
            holder=marks.get(HOLDER, ""),
            boot_id=marks.get(BOOT, ""),
            incarnation=number if number < INCARNATIONS_END else 0,
        )


class Standing(StrEnum):
    """How a claimant stands to a claim that exists."""

    HELD = "Held"
    """The claim is its own and names this very process start: it may be granted."""
    RECORD = "Record"
    """The claim is its own; the new incarnation must be written into it before a grant."""
    RAISE = "Raise"
    """The claim is its own, but another start had this incarnation or a greater one: the bot must take a greater."""
    FOREIGN = "Foreign"
    """Another TradingBot holds it."""


def standing(claim: Claim, claimant: Claimant) -> Standing:
    """How the claimant stands. Pure, so that every branch is a table row."""
    if claim.holder_uid != claimant.uid:
        return Standing.FOREIGN
    if claimant.incarnation > claim.incarnation:
        return Standing.RECORD
    if claim.boot_id == claimant.boot_id and claim.incarnation == claimant.incarnation:
        return Standing.HELD
    return Standing.RAISE


def lost(held: Mapping[str, Mark], leases: Iterable[Manifest]) -> set[str]:
    """UIDs among `held` whose claim is absent or stands for another bot or start; pure."""
    stand = {raw["metadata"]["name"]: Claim.of(raw) for raw in leases}
    return {
        uid
        for uid, (name, boot, incarnation) in held.items()
        if (claim := stand.get(name)) is None
        or (claim.holder_uid, claim.boot_id, claim.incarnation) != (uid, boot, incarnation)
    }


@dataclass(frozen=True)
class Verdict:
    """What a claim says to a claimant; `holder` is namespace/name of the other one."""

    standing: Standing
    incarnation: int
    holder: str = ""


class Absences:
    """Since when holders of claims are gone: after a forced deletion the process lives on with its last grant."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def certain(self, holder_uid: str, *, absent: bool, now: float) -> bool:
        """Whether the holder has been gone for so long that no grant of it can be left."""
        if not absent:
            self._since.pop(holder_uid, None)
            return False
        return now - self._since.setdefault(holder_uid, now) >= self._seconds


class Claims:
    """The claims in one namespace, shared by all operators of a cluster."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._held: dict[str, Mark] = {}

    def holds(self, claimant: Claimant) -> bool:
        """Whether this process start is known to hold its claim; asks nobody."""
        return self._held.get(claimant.uid) == (claimant.lease_name, claimant.boot_id, claimant.incarnation)

    async def begin(self) -> None:
        """Takes in what TradingBots hold, before the first one is asked for: a thousand are not read one by one."""
        for raw in await self._all():
            claim = Claim.of(raw)
            self._held.setdefault(claim.holder_uid, (raw["metadata"]["name"], claim.boot_id, claim.incarnation))

    async def look(self) -> set[str]:
        """Looks at all claims and drops what is not held any more; UIDs of the TradingBots that lost theirs."""
        before = dict(self._held)
        leases = await self._all()
        # What was taken while the list was on its way is newer than it.
        gone = {uid for uid in lost(before, leases) if self._held.get(uid) == before[uid]}
        for uid in gone:
            del self._held[uid]
        return gone

    async def _all(self) -> list[Manifest]:
        return await self._cluster.claims_of(
            self._namespace, f"{names.MANAGED_BY_LABEL}={names.FIELD_MANAGER},{names.BOT_UID_LABEL}"
        )

    async def take(self, claimant: Claimant, now: datetime, gone: Gone, *, first: bool = False) -> Verdict:
        """Takes the claim or says who has it. A claim whose holder and process are gone for good is taken over.

        `first`: most likely nobody has it, so it is not read before it is made.
        """
        raw = None if first else await self._cluster.get("leases", self._namespace, claimant.lease_name)
        if raw is None:
            try:
                await self._cluster.create("leases", self._fresh(claimant, now), whole=False)
            except ExistsError:
                if first:
                    return await self.take(claimant, now, gone)
                return Verdict(Standing.FOREIGN, 0, "another bot that came at the same moment")
            return self._hold(claimant)
        claim = Claim.of(raw)
        found = standing(claim, claimant)
        if found is Standing.FOREIGN and await gone(claim):
            found = Standing.RECORD if claimant.incarnation > claim.incarnation else Standing.RAISE
        if found is Standing.RECORD:
            # The version that was read goes with it: of two operators that write, one is refused.
            await self._cluster.replace("leases", self._marked(raw, claimant, now))
            return self._hold(claimant)
        if found is Standing.HELD:
            return self._hold(claimant)
        return Verdict(found, claim.incarnation, claim.holder)

    async def holder(self, lease_name: str) -> str:
        """UID of the TradingBot that holds a claim; empty where nobody does."""
        raw = await self._cluster.get("leases", self._namespace, lease_name)
        return "" if raw is None else Claim.of(raw).holder_uid

    async def recall(self, uid: str, lease_name: str) -> bool:
        """Whether a TradingBot holds a claim; `look` keeps an eye on it from then on, as on one that was taken."""
        raw = await self._cluster.get("leases", self._namespace, lease_name)
        if raw is None or (claim := Claim.of(raw)).holder_uid != uid:
            return False
        self._held[uid] = (lease_name, claim.boot_id, claim.incarnation)
        return True

    async def any_of(self, uid: str) -> bool:
        """Whether a TradingBot holds a claim: only then it can ever have been granted anything."""
        return bool(await self._of(uid))

    async def release(self, uid: str) -> None:
        """Gives up all that a TradingBot holds; its process must be gone."""
        self._held.pop(uid, None)
        for raw in await self._of(uid):
            metadata = raw["metadata"]
            await self._cluster.delete(
                "leases", self._namespace, metadata["name"], metadata["uid"], metadata["resourceVersion"]
            )

    def forget(self, uid: str) -> None:
        """Drops what is remembered of a TradingBot."""
        self._held.pop(uid, None)

    async def _of(self, uid: str) -> list[Manifest]:
        found = await self._cluster.claims_of(self._namespace, f"{names.BOT_UID_LABEL}={uid}")
        return [raw for raw in found if Claim.of(raw).holder_uid == uid]

    def _hold(self, claimant: Claimant) -> Verdict:
        self._held[claimant.uid] = (claimant.lease_name, claimant.boot_id, claimant.incarnation)
        return Verdict(Standing.HELD, claimant.incarnation)

    def _fresh(self, claimant: Claimant, now: datetime) -> Manifest:
        empty: Manifest = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"namespace": self._namespace, "name": claimant.lease_name},
            "spec": {},
        }
        return self._marked(empty, claimant, now)

    @staticmethod
    def _marked(raw: Manifest, claimant: Claimant, now: datetime) -> Manifest:
        metadata, spec = raw["metadata"], raw["spec"]
        marks = {HOLDER: str(claimant.key), BOOT: claimant.boot_id, INCARNATION: str(claimant.incarnation)}
        time = now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            **raw,
            "metadata": {
                **metadata,
                "labels": {
                    **metadata.get("labels", {}),
                    names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
                    names.BOT_UID_LABEL: claimant.uid,
                },
                "annotations": {**metadata.get("annotations", {}), **marks},
            },
            "spec": {
                **spec,
                "holderIdentity": claimant.uid,
                "acquireTime": time,
                "leaseTransitions": spec.get("leaseTransitions", 0)
                + (1 if spec.get("holderIdentity", claimant.uid) != claimant.uid else 0),
            },
        }


class Gone(Protocol):
    """Says whether the holder of a claim and its process are gone for good."""

    async def __call__(self, claim: Claim) -> bool:
        """True only where that is certain."""
        ...
