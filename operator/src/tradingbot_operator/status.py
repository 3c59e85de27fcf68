"""Pure: from what was observed to the status, its conditions and phase, and when it is worth a write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from pydantic import BaseModel

from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, DrainPhase, DrainStatus, ImposedCause
from tradingbot_api.conditions import ConditionType as Type
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.v1alpha1 import Condition, DrainedStatus, PositionPolicy, SafeModeCause, TradingBotStatus
from tradingbot_operator.coverage import COVERED, Shortage
from tradingbot_operator.equality import Kept, Standing
from tradingbot_operator.inventory import BotKey, SeenBot, SeenPod

NO_NEW_ENTRIES: Final = "NoNewEntries"
REDUCE_ONLY: Final = "ReduceOnly"
_LEVELS: Final = ("Normal", NO_NEW_ENTRIES, REDUCE_ONLY, "Halted")
TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"

BOT_CONDITIONS: Final = (
    Type.BALANCE_SYNCED,
    Type.CAPITAL_COVERED,
    Type.CIRCUIT_CLOSED,
    Type.PROTECTED,
    Type.TRADING_ALLOWED,
)
"""What only the bot can judge; Unknown while it is silent."""

READY_NEEDS: Final = (
    Type.ACCEPTED,
    Type.CLAIM_HELD,
    Type.POD_READY,
    Type.BOT_REACHABLE,
    Type.BALANCE_SYNCED,
    Type.CONFIG_APPLIED,
)
POD_TROUBLE: Final = frozenset(
    {
        Reason.IMAGE_PULL_FAILED,
        Reason.CRASH_LOOP,
        Reason.UNSCHEDULABLE,
        Reason.VOLUME_PENDING,
        Reason.OUT_OF_MEMORY,
        Reason.NODE_LOST,
    }
)
STARTING_REASONS: Final = frozenset({Reason.STARTING, Reason.NOT_RECONCILED, Reason.UNKNOWN})
CONFIG_STILL_GOOD: Final = frozenset({Reason.CONFIG_PENDING, Reason.LOOSENING_NEEDS_SAFE_MODE})
PASSING: Final = frozenset({Reason.AWAITING_GRANT, Reason.DRAINING, Reason.PROCESS_GONE})
"""Reasons of safe mode that a start and an end bring along."""
NODE_GONE: Final = frozenset({"DeletionByPodGC", "DeletionByTaintManager"})
"""Why the control plane ends a pod of a node that does not answer."""
EXIT_TOLD_FOR: Final = timedelta(minutes=5)
"""A container that runs again and is not ready yet: how long its last end is the likely reason."""
IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
)


@dataclass(frozen=True)
class Finding:
    """The answer to one question: True, False or Unknown, why, and what to do."""

    status: str
    reason: str
    message: str = ""

    @classmethod
    def good(cls, message: str = "", reason: str = Reason.OK) -> Finding:
        """True."""
        return cls(TRUE, reason, message)

    @classmethod
    def bad(cls, reason: str, message: str) -> Finding:
        """False."""
        return cls(FALSE, reason, message)

    @classmethod
    def open(cls, reason: str, message: str) -> Finding:
        """Not known yet."""
        return cls(UNKNOWN, reason, message)

    @property
    def holds(self) -> bool:
        """True."""
        return self.status == TRUE


ConditionKind = TypeVar("ConditionKind", bound=StrEnum)

NO_POD: Final = Finding.open(Reason.POD_MISSING, "There is no pod.")


@dataclass(frozen=True)
class Gone:
    """Certainly no process of a bot runs."""

    over_in: float | None
    """Seconds until nothing of it on the exchange can add exposure, 0: now; None: a resting order is not ruled out."""


@dataclass(frozen=True)
class Observed:
    """All that a status is made of."""

    now: datetime
    bot: SeenBot
    accepted: Finding
    claim: Finding
    pod: SeenPod | None
    pod_missing: str
    """Why there is no pod, while there is none."""
    word: BotStatus | None
    """The bot's last word, while it is fresh."""
    reachable: Finding
    revision: int
    """Of the configuration that the bot should have; 0 while there is none."""
    refusal: Finding | None = None
    """Why the bot refused that revision."""
    paced: bool = False
    """It waits for its turn to start."""
    up_to_date: Finding = NO_POD
    drained: DrainStatus | None = None
    """Of a TradingBot that is deleted or suspended: how its bot ended."""
    vanished_pod: str | None = None
    """A pod whose end was not seen and may still run; empty where its UID is not known."""
    gone: Gone | None = None
    """Certainly no process of it runs; None: one may."""
    shortage: Shortage = COVERED
    """What its account lacks of what all its bots claim."""
    account: Standing | None = None
    """Whether its account is what the fills of all its bots made of it."""
    account_rest: Mapping[str, Decimal] | None = None
    """What of it should be no bot's."""
    split: tuple[BotKey, ...] = ()
    """TradingBots of the same account that another shard's operator serves."""
    egress_group: str | None = None
    too_many: tuple[int, int] | None = None
    """How many bots share its address, and how many that carries, where that is less."""
    acknowledged_after: float | None = None
    """Seconds from seeing the wish for safe mode to the bot's acknowledgement, once it came."""
    imposed: tuple[ImposedCause, ...] = ()
    """Causes of safe mode from outside the spec that its configuration has."""
    exposure_bound: Decimal | None = None
    """The most that it may have within the limits of its fleet, until it tells what it has."""
    fleet_limited: bool = False
    """By its configuration it needs a reservation for each entry."""


# --- single questions ---


def pod_ready(
    pod: SeenPod | None, missing: str, now: datetime, *, suspended: bool = False, paced: bool = False
) -> Finding:
    """PodReady, from the pod's own status."""
    if pod is None:
        reason = Reason.START_PACED if paced else Reason.POD_MISSING
        return Finding.bad(Reason.SUSPENDED if suspended else reason, missing)
    container = pod.container
    if pod.disruption in NODE_GONE and not pod.terminated:
        return Finding.bad(
            Reason.NODE_LOST,
            f"Node {pod.node} does not answer; whether the process runs is not known. Once the machine is off: "
            f"kubectl delete node {pod.node}. An open position keeps its protection on the exchange.",
        )
    if pod.reason == "Evicted":
        return Finding.bad(
            Reason.EVICTED, f"The node evicted the pod: {pod.message or 'no reason told'} It is made again."
        )
    if pod.phase == "Succeeded" and not pod.deleting:
        # A container that ends by itself starts again. Where it ends at once and with 0 the kubelet forgets its reason.
        return Finding.bad(
            Reason.EVICTED,
            "The node ended the pod, as where it evicts it or shuts down: see kubectl get events "
            f"-n {pod.key.namespace} --field-selector involvedObject.name={pod.key.name}. It is made again.",
        )
    if pod.deleting:
        return Finding.bad(Reason.POD_NOT_READY, "The pod is being deleted.")
    if pod.ready:
        return Finding.good()
    if "persistentvolume" in pod.unschedulable.lower().replace(" ", ""):
        return Finding.bad(
            Reason.VOLUME_PENDING,
            f"The bot's volume is not there yet: {pod.unschedulable} See kubectl describe pvc -n {pod.key.namespace} "
            f"{names.volume_claim_name(pod.key.name)} and the cluster's storage classes.",
        )
    if pod.unschedulable:
        return Finding.bad(
            Reason.UNSCHEDULABLE, f"No node takes the pod: {pod.unschedulable} Change spec.pod or the nodes."
        )
    if container.waiting_reason in IMAGE_REASONS:
        return Finding.bad(
            Reason.IMAGE_PULL_FAILED,
            f"{container.waiting_reason}: {container.waiting_message or 'the image cannot be pulled'}. "
            "Correct spec.pod.image, or the operator's image of bots, and spec.pod.imagePullSecrets; "
            "the pod is then replaced.",
        )
    lately = container.exited is not None and now - container.exited < EXIT_TOLD_FOR
    if container.exit_reason == "OOMKilled" and (lately or not container.running):
        return Finding.bad(
            Reason.OUT_OF_MEMORY,
            f"The bot used more memory than its limit of {pod.memory_limit or 'the node'}, {container.restarts} "
            "restarts. Raise spec.pod.resources.limits.memory; see UpToDate for when that takes effect.",
        )
    if container.waiting_reason == "CrashLoopBackOff" or (container.exit_code is not None and not container.running):
        return Finding.bad(
            Reason.CRASH_LOOP,
            f"The bot ends with exit code {container.exit_code}, {container.restarts} restarts. "
            f"See kubectl logs -n {pod.key.namespace} {pod.key.name} --previous.",
        )
    if pod.phase == "Failed":
        return Finding.bad(Reason.POD_NOT_READY, f"The pod ended: {pod.reason or pod.phase}. It is made again.")
    if not container.running:
        detail = f"{container.waiting_reason}: {container.waiting_message}" if container.waiting_message else "starting"
        return Finding.bad(Reason.POD_PENDING, f"The pod is not running yet: {detail}.")
    return Finding.bad(Reason.POD_NOT_READY, "The bot runs and is not ready; the other conditions say why.")


def address_suffices(group: str | None, too_many: tuple[int, int] | None) -> Finding:
    """AddressSuffices: whether the exchange's limit of an address is enough for the bots behind it."""
    if too_many is None:
        return Finding.good()
    bots, carried = too_many
    return Finding.bad(
        Reason.TOO_MANY_BOTS,
        f"{bots} bots share the address of egress group {group}, whose request weight is enough for about {carried}: "
        "their books may not be compared in time. Spread them over nodes with addresses of their own "
        "(spec.pod.nodeSelector, egressGroups).",
    )


def config_applied(word: BotStatus | None, revision: int, refusal: Finding | None) -> Finding:
    """ConfigApplied: the operator's view of what the bot says of its configuration."""
    if word is None:
        return Finding.open(Reason.UNKNOWN, "The bot cannot be asked.")
    if refusal is not None:
        return refusal
    told = _told(word, Type.CONFIG_APPLIED)
    if told is not None and told.status == FALSE:
        return told
    if word.applied_revision < revision:
        return Finding.bad(
            Reason.CONFIG_PENDING, f"The bot has revision {word.applied_revision}, revision {revision} is on its way."
        )
    return told or Finding.good()


def _config(seen: Observed) -> Finding:
    applied = config_applied(seen.word, seen.revision, seen.refusal)
    if seen.fleet_limited and applied.holds and seen.word is not None and seen.word.fleet is None:
        return Finding.bad(
            Reason.POD_OUTDATED,
            f"The bot's version {seen.word.version} knows no limits over a fleet, which its TradingBotSet has: it is "
            "granted no entry, and counts with the most that its spec allows. Update its image: spec.pod.image, or the "
            "operator's image of bots; UpToDate says when that takes effect.",
        )
    return (credentials_mounted(seen.pod, seen.bot) or applied) if applied.holds else applied


def credentials_mounted(pod: SeenPod | None, bot: SeenBot) -> Finding | None:
    """Why the configuration is not whole while the pod mounts another Secret than the spec names; else None."""
    wanted = bot.spec.get("exchange", {}).get("credentialsSecretRef", {}).get("name")
    if pod is None or pod.credentials is None or wanted in {None, pod.credentials}:
        return None
    return Finding.bad(
        Reason.CONFIG_PENDING,
        f"The pod mounts Secret {pod.credentials}, spec.exchange.credentialsSecretRef names {wanted}: a pod's volumes "
        f"cannot change, so it must be replaced: kubectl delete pod -n {pod.key.namespace} {pod.key.name}. An open "
        "position keeps its protection on the exchange meanwhile.",
    )


ON_ITS_WAY: Final = "Safe mode is on its way to the bot."


def has_cause(causes: Sequence[SafeModeCause], wanted: ImposedCause) -> bool:
    """Whether a bot tells a cause at the level that is wanted, or a stricter one."""
    level = _LEVELS.index(wanted.level)
    return any(cause.id == wanted.id and cause.level in _LEVELS[level:] for cause in causes)


def obeys(causes: Sequence[SafeModeCause], wanted: ImposedCause) -> bool:
    """Whether a bot that was told a cause obeys it. One of a former release takes it for spec.safeMode: it sends no
    entry, and sells nothing."""
    as_spec = wanted.level == NO_NEW_ENTRIES and any(cause.reason == Reason.SPEC for cause in causes)
    return as_spec or has_cause(causes, wanted)


def safe_mode_engaged(word: BotStatus | None, wanted: bool, gone: Gone | None = None) -> Finding:
    """SafeModeEngaged: no entry is sent from now on."""
    if word is None and gone is not None:
        return Finding.good("No process of it runs; every start begins in safe mode.", Reason.PROCESS_GONE)
    if word is None:
        return Finding.open(Reason.BOT_UNREACHABLE, "The bot cannot be asked. Its grant ends within a minute.")
    if not word.safe_mode.engaged:
        return Finding.bad(Reason.NOT_ENGAGED, ON_ITS_WAY if wanted else "Entries are allowed.")
    causes = ", ".join(
        f"{cause.reason} ({'; '.join(filter(None, (cause.message, cause.clears or cause.source)))})"
        for cause in word.safe_mode.causes
    )
    return Finding.good(f"No entry is sent: {causes or word.safe_mode.level}.", _main_cause(word.safe_mode.causes))


def safe_mode_acknowledged(
    word: BotStatus | None,
    reachable: Finding,
    wanted: bool,
    revision: int,
    seconds: float | None,
    *,
    refused: bool = False,
    gone: Gone | None = None,
    imposed: Sequence[ImposedCause] = (),
) -> Finding:
    """SafeModeAcknowledged: engaged, and no entry of ours is working, in flight or unknown on the exchange.

    While it is `wanted`, by spec.safeMode or `imposed`, only the word of a bot that has that configuration counts: a
    bot that is engaged for a reason that may end at any moment has not acknowledged anything. Where it `refused` that
    configuration for another field, it has engaged nevertheless, and says so with the cause.

    A bot whose process is certainly `gone` says nothing any more: what it may have left decides (certainty.over_in).
    """
    if word is None and gone is not None:
        return _acknowledged_by_end(gone)
    if word is None:
        return Finding.bad(Reason.BOT_UNREACHABLE, f"The bot has not acknowledged: {reachable.message}")
    if not word.safe_mode.engaged:
        return Finding.bad(Reason.NOT_ENGAGED, "Safe mode is not engaged.")
    causes = word.safe_mode.causes
    lacking = [cause for cause in imposed if not obeys(causes, cause)]
    engaged_by_it = refused and not lacking and (imposed or any(cause.reason == Reason.SPEC for cause in causes))
    if wanted and word.applied_revision < revision and not engaged_by_it:
        return Finding.bad(Reason.CONFIG_PENDING, ON_ITS_WAY)
    if lacking:
        return Finding.bad(
            Reason.POD_OUTDATED,
            f"It sends no entry, but does not know {lacking[0].id}: its version is older, and will not sell its "
            "position. Update its image, or sell by hand.",
        )
    if not word.safe_mode.acknowledged:
        return Finding.bad(
            Reason.ENTRIES_WORKING, "Engaged; an entry is still working, in flight or unknown on the exchange."
        )
    took = (
        f" {seconds:.3f} s after {'the wish' if imposed else 'spec.safeMode'} was seen"
        if wanted and seconds is not None
        else ""
    )
    return Finding.good(f"No entry of this bot is on the exchange{took}.")


def _acknowledged_by_end(gone: Gone) -> Finding:
    if gone.over_in is None:
        return Finding.bad(
            Reason.UNKNOWN_ORDER,
            "No process of it runs, and it did not say before its end whether an order of it rests on the exchange. "
            "Look there for open BUY orders whose client order id ends in -an and cancel them, or let the bot start: "
            "it does so first.",
        )
    if gone.over_in > 0:
        return Finding.bad(
            Reason.ENTRIES_WORKING,
            "No process of it runs; an entry that was on its way is filled or refused within seconds.",
        )
    return Finding.good("No process of it runs, and no entry of it can be on the exchange.", Reason.PROCESS_GONE)


def _main_cause(causes: list[SafeModeCause]) -> str:
    """The reason that people see first: their own wish, then what the bot found, then a start's."""
    order = {str(Reason.SPEC): 0, str(Reason.KILL_SWITCH): 0, str(Reason.AWAITING_GRANT): 2}
    return min((cause.reason for cause in causes), key=lambda reason: order.get(reason, 1), default=Reason.ENGAGED)


def balance_synced(told: Finding, account: Standing | None) -> Finding:
    """BalanceSynced: what the bot says of its books, and what its account says of the books of all its bots."""
    if account is None or not told.holds:
        return told
    if account.differs:
        return Finding.bad(Reason.UNEXPLAINED, account.message)
    if not account.equal:
        return Finding.good("; ".join(filter(None, (told.message, account.message))), Reason.COVERED)
    if told.reason == Reason.COVERED and account.others_hold_base:
        return Finding.good("the account is what the fills of its bots made of it", Reason.EXACT)
    return told


def of_split_account(told: Finding, others: Sequence[BotKey]) -> Finding:
    """BalanceSynced and CapitalCovered where bots of the account are of another shard: nobody hears all of them."""
    if not told.holds:
        return told
    some = ", ".join(str(key) for key in others[:3])
    return Finding.open(
        Reason.ACCOUNT_SPLIT,
        f"{len(others)} TradingBots of the same exchange account are of another shard ({some}), so the account is not "
        f"compared with the books and capitals of all its bots. Give them the same label {names.SHARD_LABEL}. The bot "
        "trades on by its own books.",
    )


def kept(status: TradingBotStatus) -> Kept:
    """What a status tells of its account, for an operator that begins."""
    synced = condition(status, Type.BALANCE_SYNCED)
    if synced is None:
        return Kept(status.account_rest or {})
    return Kept(
        status.account_rest or {},
        synced.message if synced.reason == Reason.UNEXPLAINED else "",
        synced.reason == Reason.EXACT,
    )


def _told(word: BotStatus, kind: Type) -> Finding | None:
    for condition in word.conditions:
        if condition.type == kind:
            return Finding(condition.status, condition.reason, condition.message)
    return None


def phase(deleting: bool, found: Mapping[Type, Finding], *, suspended: bool = False) -> Phase:
    """The display column, from the conditions and what is asked for."""
    if deleting:
        return Phase.DRAINING
    if found[Type.ACCEPTED].status == FALSE:
        return Phase.INVALID
    if found[Type.ACCEPTED].reason == Reason.STALLED:
        return Phase.DEGRADED
    if suspended:
        return Phase.SUSPENDED if found[Type.POD_READY].reason == Reason.SUSPENDED else Phase.DRAINING
    reachable = found[Type.BOT_REACHABLE]
    if not reachable.holds:
        pod = found[Type.POD_READY]
        if pod.reason in POD_TROUBLE:
            return Phase.DEGRADED
        if reachable.status == FALSE:
            return Phase.UNREACHABLE
        waits = {Reason.POD_PENDING, Reason.POD_MISSING, Reason.START_PACED}
        return Phase.PENDING if pod.reason in waits else Phase.STARTING
    synced, config = found[Type.BALANCE_SYNCED], found[Type.CONFIG_APPLIED]
    trouble = (
        found[Type.CLAIM_HELD].status == FALSE
        or (synced.status == FALSE and synced.reason not in STARTING_REASONS)
        or (config.status == FALSE and config.reason not in CONFIG_STILL_GOOD)
        or found[Type.PROTECTED].status == FALSE
    )
    if trouble:
        return Phase.DEGRADED
    engaged = found[Type.SAFE_MODE_ENGAGED]
    if engaged.holds and engaged.reason != Reason.AWAITING_GRANT:
        return Phase.SAFE_MODE
    books = synced.holds or synced.reason == Reason.ACCOUNT_SPLIT
    if engaged.holds or not books or found[Type.TRADING_ALLOWED].status == UNKNOWN:
        return Phase.STARTING
    return Phase.TRADING if found[Type.TRADING_ALLOWED].holds else Phase.PAUSED


# --- the whole ---


def compose(seen: Observed) -> TradingBotStatus:
    """The status that should stand. Of a silent bot nothing is kept that only it knows."""
    word, bot = seen.word, seen.bot
    wanted = bot.safe_mode or bool(seen.imposed)
    found: dict[Type, Finding] = {
        Type.ACCEPTED: seen.accepted,
        Type.CLAIM_HELD: seen.claim,
        Type.POD_READY: pod_ready(seen.pod, seen.pod_missing, seen.now, suspended=bot.suspended, paced=seen.paced),
        Type.BOT_REACHABLE: seen.reachable,
        Type.CONFIG_APPLIED: _config(seen),
        Type.SAFE_MODE_ENGAGED: safe_mode_engaged(word, wanted, seen.gone),
        Type.SAFE_MODE_ACKNOWLEDGED: safe_mode_acknowledged(
            word,
            seen.reachable,
            wanted,
            seen.revision,
            seen.acknowledged_after,
            refused=seen.refusal is not None,
            gone=seen.gone,
            imposed=seen.imposed,
        ),
        Type.UP_TO_DATE: seen.up_to_date,
        Type.ADDRESS_SUFFICES: address_suffices(seen.egress_group, seen.too_many),
    }
    for kind in BOT_CONDITIONS:
        told = _told(word, kind) if word is not None else None
        found[kind] = told or Finding.open(
            Reason.STARTING if word is not None else Reason.UNKNOWN,
            "The bot has not said yet." if word is not None else "The bot cannot be asked.",
        )
    # What the bot finds itself says more.
    if seen.shortage.capital and found[Type.CAPITAL_COVERED].holds:
        found[Type.CAPITAL_COVERED] = Finding.bad(Reason.CAPITAL_NOT_COVERED, seen.shortage.capital)
    if seen.shortage.position and found[Type.BALANCE_SYNCED].holds:
        found[Type.BALANCE_SYNCED] = Finding.bad(Reason.DRIFT, seen.shortage.position)
    found[Type.BALANCE_SYNCED] = balance_synced(found[Type.BALANCE_SYNCED], seen.account)
    if seen.split:
        for kind in (Type.BALANCE_SYNCED, Type.CAPITAL_COVERED):
            found[kind] = of_split_account(found[kind], seen.split)
    lacking = [kind for kind in READY_NEEDS if not found[kind].holds]
    found[Type.READY] = (
        Finding.bad(found[lacking[0]].reason, f"Not yet: {', '.join(lacking)}.") if lacking else Finding.good()
    )
    before = bot.told
    lost = before.pod_name if seen.vanished_pod is not None else None
    account_uid = before.account_uid or (word.account_uid if word is not None else None)
    return TradingBotStatus(
        observed_generation=bot.generation,
        phase=phase(bot.deleted is not None, found, suspended=bot.suspended),
        conditions=dated(found, before.conditions, seen.now, bot.generation),
        # A former operator wrote no podUID: the name alone must tell the next one that a pod vanished.
        pod_name=seen.pod.key.name if seen.pod is not None else lost,
        pod_uid=seen.pod.uid if seen.pod is not None else (seen.vanished_pod or None),
        # Facts that outlive a silence: the claim stands on them.
        incarnation=word.incarnation if word is not None and word.incarnation is not None else before.incarnation,
        account_uid=account_uid,
        exposure_bound=seen.exposure_bound if account_uid is not None else None,
        quote_asset=word.quote_claim.asset if word is not None and word.quote_claim is not None else before.quote_asset,
        account_rest=dict(seen.account_rest) if seen.account_rest is not None else before.account_rest,
        circuit_breaker=word.circuit_breaker if word is not None else None,
        safe_mode=word.safe_mode if word is not None else None,
        balance=word.balance if word is not None else None,
        position=word.position if word is not None else None,
        pnl=word.pnl if word is not None else None,
        risk=word.risk if word is not None else None,
        orders=word.orders if word is not None else None,
        trades=word.trades if word is not None else None,
        api=word.api.model_copy(update={"egress_group": seen.egress_group}) if word is not None and word.api else None,
        usage=word.usage if word is not None else None,
        drained=drained_mark(seen.drained) if seen.drained is not None and (bot.deleted or bot.suspended) else None,
    )


def drained_mark(drained: DrainStatus) -> DrainedStatus:
    """A drain as the status tells it."""
    return DrainedStatus(position_policy=drained.position_policy or "", remaining=list(drained.remaining))


def noted_drain(bot: SeenBot) -> DrainStatus | None:
    """The drain that the status tells of, as the bot said it: the operator that heard it may have ended since."""
    mark = bot.told.drained
    if mark is None:
        return None
    policy = PositionPolicy(mark.position_policy) if mark.position_policy in set(PositionPolicy) else None
    return DrainStatus(phase=DrainPhase.DRAINED, position_policy=policy, remaining=list(mark.remaining))


def encode(status: BaseModel) -> dict[str, Any]:
    """As JSON for the API server."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def dated(
    found: Mapping[ConditionKind, Finding], before: Iterable[Condition], now: datetime, generation: int
) -> list[Condition]:
    """The conditions of what was found, with the time since which each status stands, by those `before`; what is as
    before is the same object."""
    earlier = {condition.type: condition for condition in before}
    return [_condition(kind, finding, earlier.get(kind), now, generation) for kind, finding in found.items()]


def _condition(kind: str, finding: Finding, last: Condition | None, now: datetime, generation: int) -> Condition:
    since = _since(last, finding)
    if last is not None and since is not None:
        said = last.reason, last.message, last.observed_generation
        if said == (finding.reason, finding.message, generation):
            return last
    return Condition(
        type=kind,
        status=finding.status,
        reason=finding.reason,
        message=finding.message,
        last_transition_time=since or now.replace(microsecond=0),
        observed_generation=generation,
    )


def _since(last: Condition | None, finding: Finding) -> datetime | None:
    """Since when the finding stands already; a deletion's deadline counts from it, whatever was False before."""
    if last is None or last.status != finding.status:
        return None
    same = (last.reason == Reason.DELETING) == (finding.reason == Reason.DELETING)
    return last.last_transition_time if same else None


# --- when to write ---


class Change(StrEnum):
    """How a status differs from the one that stands, and so how soon it is written."""

    NONE = "None"
    """Nothing, or only what rides along: counts of calls, CPU, times of reading, volatility."""
    FIGURES = "Figures"
    STARTING = "Starting"
    """A step of a start-up that goes well: nobody acts on it."""
    POSITION = "Position"
    STATE = "State"


FIRST_SECONDS: Final = 3.0
"""A start that goes well is told after so long at the earliest: a bot that is up by then needs one write less."""
SPACING: Final = {Change.FIGURES: 60.0, Change.STARTING: 5.0, Change.POSITION: 2.0, Change.STATE: 0.0}
"""Seconds from the last write to the next, by what changed."""


def change(old: TradingBotStatus, new: TradingBotStatus) -> Change:
    """What changed."""
    if _quiet(old) == _quiet(new):
        return Change.NONE
    if _state(old) != _state(new):
        starting = {Phase.PENDING, Phase.STARTING}
        first = old.phase is None and old.observed_generation is None
        same = old.phase in starting and old.observed_generation == new.observed_generation
        calm = new.phase in starting and (first or same)
        return Change.STARTING if calm else Change.STATE
    if _position(old) != _position(new):
        return Change.POSITION
    return Change.FIGURES


def _quiet(status: TradingBotStatus) -> TradingBotStatus:
    updates: dict[str, Any] = {"api": None, "usage": None}
    if status.balance is not None:
        updates["balance"] = status.balance.model_copy(update={"last_sync_time": None})
    if status.orders is not None:
        updates["orders"] = status.orders.model_copy(update={"last_check_time": None})
    if status.risk is not None:
        updates["risk"] = status.risk.model_copy(update={"volatility": None})
    return status.model_copy(update=updates)


def _state(status: TradingBotStatus) -> object:
    safe, circuit = status.safe_mode, status.circuit_breaker
    return (
        status.observed_generation,
        status.phase,
        status.pod_name,
        status.pod_uid,
        status.drained,
        status.account_uid,
        status.exposure_bound,
        status.incarnation,
        [(item.type, item.status, item.reason) for item in status.conditions],
        circuit and circuit.state,
        safe and (safe.level, safe.engaged, safe.acknowledged, [cause.id for cause in safe.causes]),
        status.risk and status.risk.level,
    )


def _position(status: TradingBotStatus) -> object:
    position, orders, trades = status.position, status.orders, status.trades
    return (
        position and (position.side, position.quantity, position.validated),
        orders and (orders.active, orders.oco),
        trades,
    )


# --- what is worth an event ---


@dataclass(frozen=True)
class Notice:
    """A Kubernetes event."""

    reason: str
    message: str
    warning: bool = False


def notices(old: TradingBotStatus, new: TradingBotStatus) -> list[Notice]:
    """Events of a change of status: few, and none for a start-up that goes well or a process that ends."""
    before = {item.type: item for item in old.conditions}
    result = []
    for item in new.conditions:
        last = before.get(item.type)
        if last is not None and (last.status, last.reason) == (item.status, item.reason):
            continue
        changed = last is None or last.status != item.status
        was_true, was_false = last is not None and last.status == TRUE, last is not None and last.status == FALSE
        match item.type, item.status:
            case Type.SAFE_MODE_ENGAGED, "True" if item.reason not in PASSING:
                result.append(Notice("SafeModeEngaged", item.message))
            case Type.SAFE_MODE_ENGAGED, "False" if was_true and last and last.reason not in PASSING:
                result.append(Notice("SafeModeReleased", item.message))
            case Type.SAFE_MODE_ACKNOWLEDGED, "True" if changed and _reason(new, Type.SAFE_MODE_ENGAGED) not in PASSING:
                result.append(Notice("SafeModeAcknowledged", item.message))
            case Type.CIRCUIT_CLOSED, "False" if changed:
                result.append(Notice("CircuitOpened", item.message, warning=True))
            case Type.CIRCUIT_CLOSED, "True" if was_false:
                result.append(Notice("CircuitClosed", item.message or "The exchange answers again."))
            case Type.POD_READY, "False" if item.reason in POD_TROUBLE:
                result.append(Notice(item.reason, item.message, warning=True))
            case Type.ACCEPTED, _ if item.reason == Reason.STALLED:
                result.append(Notice("Stalled", item.message, warning=True))
            case ((Type.CLAIM_HELD | Type.PROTECTED | Type.ACCEPTED), "False") if item.reason != Reason.DELETING:
                result.append(Notice(item.reason, item.message, warning=True))
            case _:
                pass
    return result


class HasConditions(Protocol):
    """A status of one of our kinds."""

    @property
    def conditions(self) -> list[Condition]:
        """One a question."""


def condition(status: HasConditions, kind: str) -> Condition | None:
    """A condition of a status; None where it is not told."""
    return next((item for item in status.conditions if item.type == kind), None)


def holds(status: HasConditions, kind: str) -> bool:
    """Whether a condition is True."""
    found = condition(status, kind)
    return found is not None and found.status == TRUE


def _reason(status: HasConditions, kind: str) -> str | None:
    found = condition(status, kind)
    return found.reason if found is not None else None
