"""Kill switches: which bots they hold, when that ends, and what their status tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from random import Random
from typing import Final

import structlog
from pydantic import ValidationError

from tradingbot_api import names
from tradingbot_api.bot_http import ImposedCause
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.kill_switch import (
    CAUSE_PREFIXES,
    PENDING_SHOWN,
    KillSwitchSpec,
    KillSwitchStatus,
    PendingBot,
    SwitchCondition,
    SwitchPhase,
)
from tradingbot_api.v1alpha1 import PositionPolicy, TradingBotStatus
from tradingbot_operator import desired
from tradingbot_operator import status as statuses
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError, NotFoundError
from tradingbot_operator.events import Events
from tradingbot_operator.fleet import Fleet, Memory
from tradingbot_operator.imposed import Held, Standing
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod, SeenResource
from tradingbot_operator.metrics import SwitchFigures
from tradingbot_operator.sharding import ALONE, Shard
from tradingbot_operator.status import Finding, Notice

LOOK_SECONDS: Final = 1.0
IDLE_LOOK_SECONDS: Final = 5.0
"""While no kill switch is on its way to bots, or from them."""
LEAST_LOOK_SECONDS: Final = 0.1
FIGURES_SECONDS: Final = 2.0
"""From one status write to the next where no state changed: a thousand bots are not a thousand writes."""
BREATH: Final = 200
"""So many bots are looked at before others have their turn."""

log = structlog.get_logger(__name__)


MOVING: Final = frozenset({SwitchPhase.ENGAGING, SwitchPhase.RELEASING})


class SeenSwitch(SeenResource):
    """A kill switch as the API server last showed it."""

    finalizer = names.RELEASE_FINALIZER
    status_model = KillSwitchStatus
    told: KillSwitchStatus

    @cached_property
    def wanted(self) -> KillSwitchSpec | None:
        """The typed spec; None where this version cannot read it: then it holds all bots, as if it had no selector."""
        try:
            return KillSwitchSpec.model_validate(self.spec, extra="ignore")
        except ValidationError:
            return None

    @property
    def cause_id(self) -> str:
        """The id of the cause that it imposes."""
        return f"{CAUSE_PREFIXES[self.resource]}{self.key.name}"

    @property
    def level(self) -> str:
        """Of the cause that it imposes."""
        closes = self.wanted is not None and self.wanted.policy is PositionPolicy.CLOSE_POSITION
        return statuses.REDUCE_ONLY if closes else statuses.NO_NEW_ENTRIES

    def ended(self, now: datetime) -> SwitchPhase | None:
        """Whether it was released or is past; None while it is in force."""
        if self.spec.get("release") is True:
            return SwitchPhase.RELEASED
        expiry = self.wanted.expiry_time if self.wanted is not None else None
        return SwitchPhase.EXPIRED if expiry is not None and expiry <= now else None

    @property
    def past_when_made(self) -> bool:
        """Its expiry was past when it was made: it never held a bot, and ends nothing that one of its name imposed."""
        expiry = self.wanted.expiry_time if self.wanted is not None else None
        return self.generation == 1 and expiry is not None and expiry <= self.created

    def covers(self, bot: SeenBot) -> bool:
        """Whether the bot is of its namespace; one without a namespace covers all."""
        return self.key.namespace in {"", bot.key.namespace}

    def selects(self, bot: SeenBot) -> bool:
        """Whether it selects the bot."""
        return self.covers(bot) and (self.wanted is None or self.wanted.selector.matches(bot.labels))

    @cached_property
    def cause(self) -> ImposedCause:
        """What it imposes."""
        name, wanted = self.resource.kind, self.wanted
        expiry = f", or wait until {wanted.expiry_time:%Y-%m-%dT%H:%M:%SZ}" if wanted and wanted.expiry_time else ""
        namespace = f"-n {self.key.namespace} " if self.key.namespace else ""
        return ImposedCause(
            id=self.cause_id,
            source=name,
            reason=Reason.KILL_SWITCH,
            level=self.level,
            message=str(self.spec.get("reason", "")),
            clears=f"kubectl patch {name.lower()} {namespace}{self.key.name} --type merge "
            f"""-p '{{"spec":{{"release":true}}}}'{expiry}""",
        )


class SeenKillSwitch(SeenSwitch):
    """Of one namespace."""

    resource = names.KILL_SWITCH


class SeenClusterKillSwitch(SeenSwitch):
    """Of all namespaces."""

    resource = names.CLUSTER_KILL_SWITCH


def orphaned(cause: ImposedCause) -> ImposedCause:
    """A cause whose kill switch does not hold the bot any more though nobody released it; pure."""
    return cause.model_copy(
        update={
            "clears": f"{cause.source} {cause.id.partition('/')[2]} is gone, or selects this bot no more, and was not "
            f"released: kubectl annotate tradingbot NAME {names.CLEAR_ANNOTATION}={cause.id}"
        }
    )


def imposed_by(
    switches: Iterable[SeenSwitch],
    bot: SeenBot,
    held: Held,
    *,
    now: datetime,
    confirmed: Callable[[SeenSwitch], bool],
) -> Iterator[ImposedCause]:
    """What kill switches impose on a bot; pure.

    A bot that was held stays so until the switch is `confirmed` to have ended, or a human clears the cause of one that
    is gone or selects the bot no more: neither a label that is taken off nor a switch that vanishes releases it.
    """
    cleared = desired.cleared_causes(bot)
    known = {switch.cause_id: switch for switch in switches if switch.covers(bot) and not switch.past_when_made}
    for cause_id, switch in known.items():
        if switch.ended(now) is not None:
            if cause_id in held and not confirmed(switch):
                yield switch.cause
        elif switch.selects(bot):
            yield switch.cause
        elif cause_id in held and cause_id not in cleared:
            yield orphaned(switch.cause)
    for cause_id, cause in held.items():
        if cause_id not in known and cause_id not in cleared:
            yield orphaned(cause)


@dataclass(frozen=True)
class Answer:
    """What one bot says to one kill switch."""

    key: BotKey
    engaged: bool
    acknowledged: Finding
    holding: bool


def answer(switch: SeenSwitch, bot: SeenBot, told: TradingBotStatus | None, *, holding: bool) -> Answer:
    """What a bot says to a kill switch, by the status that a step made after it was told; pure."""
    if told is None:
        unseen = Finding.open(Reason.STARTING, "The operator has not told it yet.")
        return Answer(bot.key, False, unseen, holding)
    found = {item.type: item for item in told.conditions}
    engaged, acknowledged = found[ConditionType.SAFE_MODE_ENGAGED], found[ConditionType.SAFE_MODE_ACKNOWLEDGED]
    gone = Reason.PROCESS_GONE in {acknowledged.reason, engaged.reason}
    causes = told.safe_mode.causes if told.safe_mode is not None else []
    has = gone or statuses.obeys(causes, switch.cause)
    finding = Finding(acknowledged.status, acknowledged.reason, acknowledged.message)
    if finding.holds and not has:
        finding = Finding.bad(Reason.CONFIG_PENDING, "The kill switch is on its way to the bot.")
    return Answer(bot.key, has and engaged.status == statuses.TRUE, finding, holding)


def told_by(bot: SeenBot, pod: SeenPod | None) -> TradingBotStatus | None:
    """What the status says of a bot that another shard's operator serves; None where nothing of it counts. Pure.

    That no process runs is of no worth where a pod is there: one may have begun since that was written.
    """
    told = bot.told
    engaged = statuses.condition(told, ConditionType.SAFE_MODE_ENGAGED)
    acknowledged = statuses.condition(told, ConditionType.SAFE_MODE_ACKNOWLEDGED)
    if engaged is None or acknowledged is None:
        return None
    ended = Reason.PROCESS_GONE in {engaged.reason, acknowledged.reason}
    return None if ended and pod is not None and not pod.terminated else told


def _tells(bot: SeenBot, cause_id: str) -> bool:
    safe_mode = bot.told.safe_mode
    return safe_mode is not None and any(cause.id == cause_id for cause in safe_mode.causes)


def compose(switch: SeenSwitch, answers: list[Answer], now: datetime) -> KillSwitchStatus:
    """The status that should stand; `answers` of the bots that it holds. Pure."""
    pending = sorted((item for item in answers if not item.acknowledged.holds), key=lambda item: item.key)
    ended = switch.ended(now)
    if ended is not None:
        phase = SwitchPhase.RELEASING if answers else ended
    elif not answers:
        phase = SwitchPhase.NO_BOTS
    else:
        phase = SwitchPhase.ENGAGING if pending else SwitchPhase.ENGAGED
    active = Finding.good(f"{len(answers)} TradingBots are held: {switch.spec.get('reason', '')}", phase)
    if ended is not None:
        active = Finding.bad(ended, "It holds no TradingBot.")
        if answers:
            active = Finding.good(f"{ended}; {len(answers)} TradingBots are to be released still.", phase)
    elif switch.deleted is not None:
        active = Finding.good(
            "It was deleted and not released, so it stays, and in force. Release it: " + switch.cause.clears, phase
        )
    if ended is not None:
        acknowledged = Finding.bad(ended, "It asks for nothing any more.")
    elif not answers:
        acknowledged = Finding.open(phase, "It selects no TradingBot that there is: is its selector right?")
    elif pending:
        acknowledged = Finding.bad(pending[0].acknowledged.reason, f"{len(pending)} of {len(answers)} have not yet.")
    else:
        acknowledged = Finding.good(f"All {len(answers)} have acknowledged.")
    findings = {SwitchCondition.ACTIVE: active, SwitchCondition.ACKNOWLEDGED: acknowledged}
    return KillSwitchStatus(
        observed_generation=switch.generation,
        phase=phase,
        bots=len(answers),
        engaged=sum(item.engaged for item in answers),
        acknowledged=len(answers) - len(pending),
        unacknowledged=len(pending),
        holding=sum(item.holding for item in answers),
        pending=[
            PendingBot(
                namespace=item.key.namespace,
                name=item.key.name,
                reason=item.acknowledged.reason,
                message=item.acknowledged.message,
            )
            for item in pending[:PENDING_SHOWN]
        ],
        conditions=statuses.dated(findings, switch.told.conditions, now, switch.generation),
    )


def spacing(old: KillSwitchStatus, new: KillSwitchStatus) -> float | None:
    """Seconds from the last write to one of `new`, by what changed; None: nothing that is worth one. Pure."""
    if _state(old) != _state(new):
        return 0.0
    return None if _figures(old) == _figures(new) else FIGURES_SECONDS


def _state(status: KillSwitchStatus) -> object:
    # Of the pending the reason alone may come and go with each bot.
    active = statuses.condition(status, SwitchCondition.ACTIVE)
    told = active and (active.status, active.message if "deleted" in active.message else "")
    return status.observed_generation, status.phase, told, [(item.type, item.status) for item in status.conditions]


def _figures(status: KillSwitchStatus) -> object:
    pending = [(item.namespace, item.name, item.reason) for item in status.pending]
    return status.bots, status.engaged, status.acknowledged, status.holding, pending


def _was_told(switch: SeenSwitch, memory: Memory) -> bool:
    return any((cause.id, cause.level) == (switch.cause_id, switch.level) for cause in memory.imposed)


def holds_position(memory: Memory | None) -> bool:
    """Whether a bot has a position, as far as it is known."""
    if memory is None:
        return False
    if memory.drained is not None:
        return any(line.startswith("position ") for line in memory.drained.remaining)
    return memory.told_position


class KillSwitches:
    """All kill switches that are seen, as an imposer of causes; and the leader's work on them."""

    def __init__(
        self,
        cluster: Cluster,
        kinds: Mapping[type[SeenSwitch], Inventory[SeenSwitch]],
        *,
        bots: Inventory[SeenBot],
        fleet: Fleet,
        enqueue: Callable[[BotKey, bool], None],
        now: Callable[[], datetime],
        identity: str,
        random: Random,
        pods: Inventory[SeenPod],
        namespaces: tuple[str, ...] = (),
        shard: Shard = ALONE,
    ) -> None:
        self._pods = pods
        self._namespaces = namespaces
        self._shard = shard
        self._cluster = cluster
        self._kinds = kinds
        self._bots = bots
        self._fleet = fleet
        self._enqueue = enqueue
        self._now = now
        self._events = Events(cluster, identity, now, random)
        self._loop = asyncio.get_running_loop()
        self._hurried = asyncio.Event()
        self._confirmed: dict[tuple[str, BotKey], tuple[str, int]] = {}
        """UID and generation of those that the API server said to have ended."""
        self._written: dict[str, float] = {}
        self._figures: dict[str, SwitchFigures] = {}

    def __iter__(self) -> Iterator[SeenSwitch]:
        for inventory in self._kinds.values():
            yield from inventory

    # --- an imposer ---

    def imposes(self, bot: SeenBot, held: Held) -> Iterator[ImposedCause]:
        """What they impose on a bot."""
        return imposed_by(self, bot, held, now=self._now(), confirmed=self._is_confirmed)

    def owns(self, cause_id: str) -> bool:
        """Whether a cause is of a kill switch."""
        return cause_id.startswith(tuple(CAUSE_PREFIXES.values()))

    async def standing(self, bot: SeenBot, cause_id: str) -> Standing:
        """How it is with a kill switch by the API server's word, which is taken in; ApiError."""
        for kind in self._kinds:
            prefix = CAUSE_PREFIXES[kind.resource]
            if cause_id.startswith(prefix):
                namespace = bot.key.namespace if kind.resource.namespaced else ""
                return await self._ask(kind, BotKey(namespace, cause_id.removeprefix(prefix)))
        return Standing.GONE

    async def _ask(self, kind: type[SeenSwitch], key: BotKey) -> Standing:
        raw = await self._cluster.get(kind.resource.plural, key.namespace, key.name)
        if raw is None:
            return Standing.GONE
        latest = kind.of(raw)
        self._kinds[kind].see(latest)
        if latest.ended(self._now()) is None:
            return Standing.IN_FORCE
        if latest.past_when_made:
            return Standing.GONE
        self._confirmed[kind.resource.plural, key] = latest.uid, latest.generation
        return Standing.ENDED

    def _is_confirmed(self, switch: SeenSwitch) -> bool:
        known = self._confirmed.get((switch.resource.plural, switch.key))
        return known == (switch.uid, switch.generation)

    # --- the leader's work ---

    def hurry(self) -> None:
        """Asks for a look now: a kill switch is another than before."""
        self._hurried.set()

    def begin(self) -> None:
        """This process leads: what was confirmed before may be long ago."""
        self._confirmed.clear()
        self._written.clear()

    def figures(self) -> list[SwitchFigures]:
        """What the operator's metrics tell of them."""
        return list(self._figures.values())

    async def run(self) -> None:
        """Confirms ends, and keeps finalizers and statuses, until cancelled. LeaseLostError."""
        while True:
            switches = list(self)
            for switch in switches:
                try:
                    await self._look(switch)
                except ApiError as error:
                    log.warning("a kill switch is not looked after", switch=str(switch.key), error=str(error))
            gone = self._figures.keys() - {switch.uid for switch in switches}
            for uid in gone:
                del self._figures[uid]
                self._written.pop(uid, None)
            await asyncio.sleep(LEAST_LOOK_SECONDS)
            with suppress(TimeoutError):
                moving = any(switch.told.phase in MOVING for switch in self)
                async with asyncio.timeout(LOOK_SECONDS if moving else IDLE_LOOK_SECONDS):
                    await self._hurried.wait()
            self._hurried.clear()

    async def _look(self, switch: SeenSwitch) -> None:
        now = self._now()
        ended = switch.ended(now)
        if ended is None and not switch.finalizing and switch.deleted is None and self._shard.is_main:
            switch = self._saw(await self._cluster.set_finalizer(switch, present=True))
        if ended is not None and not switch.past_when_made and not self._is_confirmed(switch):
            if await self._ask(type(switch), switch.key) is not Standing.ENDED:
                return
            log.info("a kill switch has ended", switch=str(switch.key), how=ended)
            for bot in self._bots:
                if switch.covers(bot):
                    self._enqueue(bot.key, False)
        if not self._shard.is_main:
            return  # the main operator counts the bots of all shards
        answers, unknown = [], False
        for count, bot in enumerate(self._bots):
            if count % BREATH == BREATH - 1:
                await asyncio.sleep(0)
            if not self._shard.serves(bot):
                if self._holds_other(switch, bot, ended=ended is not None):
                    told = told_by(bot, self._pods.get(bot.key))
                    answers.append(answer(switch, bot, told, holding=bot.told_position))
                continue
            memory = self._fleet.known(bot.key)
            holds, certain = self._holds(switch, bot, memory, ended=ended is not None)
            if holds:
                told = memory.told if memory is not None and _was_told(switch, memory) else None
                answers.append(answer(switch, bot, told, holding=holds_position(memory)))
            unknown = unknown or not certain
        fresh = compose(switch, answers, self._now())
        self._figures[switch.uid] = SwitchFigures(
            switch.resource.kind, switch.key.namespace, switch.key.name, ended is None or bool(answers),
            fresh.bots, fresh.unacknowledged if ended is None else 0,
        )  # fmt: skip
        await self._tell(switch, fresh)
        # Who is being deleted drains whatever is imposed: a namespace that goes must not wait for a release.
        staying = any(seen.deleted is None for item in answers if (seen := self._bots.get(item.key)) is not None)
        over = not answers and not unknown if ended is not None else switch.deleted is not None and not staying
        if switch.finalizing and over and not (ended is not None and await self._is_written_elsewhere(switch)):
            await self._cluster.set_finalizer(switch, present=False)

    @staticmethod
    def _holds_other(switch: SeenSwitch, bot: SeenBot, *, ended: bool) -> bool:
        """Whether it holds a bot of another shard, by its status."""
        if not switch.covers(bot) or switch.past_when_made:
            return False
        told = _tells(bot, switch.cause_id)
        return told and bot.deleted is None if ended else told or switch.selects(bot)

    async def _is_written_elsewhere(self, switch: SeenSwitch) -> bool:
        """Whether the configuration of a bot of another shard has its cause still: a status may not tell, as of a bot
        that is suspended. Were the switch gone by then, its cause would stay until a human clears it. ApiError."""
        if self._shard.alone or switch.past_when_made:
            return False
        for raw in await self._cluster.list_all("configmaps", self._namespaces):
            config = desired.decode(raw)
            if config is None or all(cause.id != switch.cause_id for cause in config.imposed):
                continue
            bot = self._bots.get(BotKey(config.bot.namespace, config.bot.name))
            of_bot = bot is not None and bot.uid == config.bot.uid and bot.deleted is None
            if bot is not None and of_bot and switch.covers(bot) and not self._shard.serves(bot):
                return True
        return False

    def _holds(self, switch: SeenSwitch, bot: SeenBot, memory: Memory | None, *, ended: bool) -> tuple[bool, bool]:
        """Whether it holds a bot, and whether that is known."""
        if not switch.covers(bot) or switch.past_when_made:
            return False, True
        ledger = memory.ledger if memory is not None else None
        held = ledger is not None and any(cause.id == switch.cause_id for cause in ledger.imposed)
        if ended:
            written = ledger is not None and ledger.stored_revision == ledger.revision
            return held and bot.deleted is None, written or bot.deleted is not None
        return held or switch.selects(bot), True

    async def _tell(self, switch: SeenSwitch, fresh: KillSwitchStatus) -> None:
        stands = switch.told
        wait = spacing(stands, fresh)
        if wait is None or self._loop.time() < self._written.get(switch.uid, 0.0) + wait:
            return
        try:
            self._saw(await self._cluster.apply_status(switch, fresh))
        except (ConflictError, NotFoundError):
            return  # the watch tells what is now
        self._written[switch.uid] = self._loop.time()
        if stands.phase != fresh.phase and fresh.phase is not None:
            message = (
                f"{fresh.acknowledged} of {fresh.bots} TradingBots have acknowledged; {fresh.holding} have a position"
            )
            notice = Notice(str(fresh.phase), message, warning=fresh.phase == SwitchPhase.ENGAGING)
            await self._events.post(switch, notice)

    def _saw(self, switch: SeenSwitch) -> SeenSwitch:
        self._kinds[type(switch)].see(switch)
        return switch
