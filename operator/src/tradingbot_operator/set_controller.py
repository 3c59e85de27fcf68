"""One level-based step for a TradingBotSet: its bots are made, stopped, changed a few at a time, and taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Final

import structlog
from pydantic import ValidationError

from tradingbot_api import names
from tradingbot_api.conditions import Reason
from tradingbot_api.sets import SetReason, TradingBotSetSpec, TradingBotSetStatus
from tradingbot_api.v1alpha1 import UpdateStrategy
from tradingbot_operator import desired, rollout, set_desired, set_status
from tradingbot_operator.budget import UNLIMITED
from tradingbot_operator.cluster import ApiError, Cluster, ConflictError, NotFoundError
from tradingbot_operator.events import Events
from tradingbot_operator.inventory import BotKey, Controller, Inventory, Manifest, SeenBot, SeenSet, SetKey, Watched
from tradingbot_operator.metrics import SetFigures
from tradingbot_operator.reservations import Reservations, bound_of
from tradingbot_operator.rollout import Member
from tradingbot_operator.set_desired import Owner, Problem, Wanted
from tradingbot_operator.set_status import BotFacts, ObservedSet
from tradingbot_operator.sharding import Shard
from tradingbot_operator.status import SPACING, Change

COALESCE_SECONDS: Final = 0.2
"""News of many bots make one step."""
FIGURES_SECONDS: Final = 5.0
STATE_SECONDS: Final = 1.0
"""Between two writes of a status whose state changed: a thousand bots that start are not a thousand writes."""
AT_ONCE: Final = 8
"""Calls under way for one set."""
MADE_IN_A_STEP: Final = 50
"""Then others have their turn."""
PARSED_IN_A_ROW: Final = 20
"""Then the event loop has its turn."""
NO_VERSION: Final = "1"
"""A resourceVersion that no object has: the store's first revision is its own."""
CONFLICT_RETRY_SECONDS: Final = 0.2
FOREIGN_RETRY_SECONDS: Final = 10.0
REFUSED_RETRY_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass
class _Memory:
    """What is remembered of one set, by UID."""

    uid: str
    generation: int = 0
    """That `wanted` and `problems` are of."""
    names: dict[str, str] = field(default_factory=dict)
    """Symbols by the names of the TradingBots that the spec wants."""
    wanted: dict[str, Wanted] = field(default_factory=dict)
    """By name; without those that cannot be."""
    stops: dict[str, frozenset[str]] = field(default_factory=dict)
    """What each bot of the spec is stopped by, by name; with those that cannot be."""
    problems: dict[str, Problem] = field(default_factory=dict)
    """Of the spec, by symbol."""
    spec: TradingBotSetSpec | None = None
    refused: dict[str, tuple[str, Problem, float]] = field(default_factory=dict)
    """By name: the digest of what was refused, why, and until when on the loop's clock it is not tried again."""
    since: dict[str, float] = field(default_factory=dict)
    """Since when bots are in the middle of a change, in seconds since 1970."""
    turns: set[str] = field(default_factory=set)
    """Of these, those that were given it: who is merely not Ready may not restart. A new operator gives turns anew."""
    equal: dict[str, tuple[str, int, str]] = field(default_factory=dict)
    """By name: UID and generation of a TradingBot that was found to be as the wish of this digest has it. To compare is
    the most of a step."""
    written: float | None = None
    """When the status was last written, on the loop's clock."""
    told: TradingBotSetStatus | None = None
    """As the last step found it, written or not."""


@dataclass(frozen=True)
class _There:
    """A TradingBot that is stopped or placed though the rest of what its set wants of it cannot be read."""

    key: BotKey
    symbol: str
    digest: str = ""


class SetController:
    """Makes the steps. The work queue gives a key to one worker at a time."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        sets: Inventory[SeenSet],
        bots: Inventory[SeenBot],
        saw_bot: Callable[[Manifest], None],
        restart: Callable[[BotKey], None],
        enqueue: Callable[[BotKey | SetKey, bool], None],
        enqueue_after: Callable[[SetKey, float], None],
        identity: str,
        now: Callable[[], datetime],
        random: Random,
        reservations: Reservations,
        shard: Shard,
    ) -> None:
        """`saw_bot` takes in a TradingBot as a write answered it, as a watch event would; `restart` asks for a step of
        one that has its turn."""
        self._restart = restart
        self._shard = shard
        self._cluster = cluster
        self._sets = sets
        self._bots = bots
        self._saw_bot = saw_bot
        self._enqueue = enqueue
        self._enqueue_after = enqueue_after
        self._now = now
        self._events = Events(cluster, identity, now, random)
        self._reservations = reservations
        self._memories: dict[SetKey, _Memory] = {}
        self._owned: dict[str, dict[BotKey, BotFacts]] = {}
        """By the UID of the owner."""

    # --- what comes in from outside a step; nothing here waits ---

    def set_seen(self, raw: Manifest) -> None:
        """A set was seen."""
        seen = SeenSet.of(raw)
        before = self._sets.get(seen.key)
        if not self._sets.see(seen):
            return
        if before is None or before.uid != seen.uid or _wish(before) != _wish(seen):
            stops = set_desired.stops_wanted(seen.spec)
            urgent = not stops <= (set_desired.stops_wanted(before.spec) if before is not None else frozenset())
            self._enqueue(SetKey(*seen.key), urgent)

    def set_gone(self, seen: SeenSet) -> None:
        """A set is gone."""
        if self._sets.gone(seen.key, seen.uid):
            self._enqueue(SetKey(*seen.key), False)

    def watched(self) -> Watched[SeenSet]:
        """How sets are watched and listed."""
        resource = names.TRADING_BOT_SET
        return Watched(
            names.GROUP, resource.plural, self._sets, SeenSet.of, self.set_seen, self.set_gone, optional=True
        )  # fmt: skip

    def bot_changed(self, before: SeenBot | None, after: SeenBot | None) -> None:
        """What is known of a TradingBot is another than before."""
        former, owner = _set_of(before), _set_of(after)
        if before is not None and former is not None and former != owner:
            bots = self._owned.get(former.uid, {})
            bots.pop(before.key, None)
            if not bots:
                self._owned.pop(former.uid, None)
            self._enqueue_after(SetKey(before.key.namespace, former.name), COALESCE_SECONDS)
        if after is None or owner is None:
            return
        bots, facts = self._owned.setdefault(owner.uid, {}), set_status.facts_of(after)
        known = bots.get(after.key)
        bots[after.key] = facts
        news = known is None or known.state != facts.state or before is None or before.generation != after.generation
        self._enqueue_after(SetKey(after.key.namespace, owner.name), COALESCE_SECONDS if news else FIGURES_SECONDS)

    def has_turn(self, bot: SeenBot) -> bool:
        """Whether a TradingBot may be restarted for another pod now: one of a set, in its turn alone."""
        owner = _set_of(bot)
        seen = self._sets.get(BotKey(bot.key.namespace, owner.name)) if owner is not None else None
        if owner is None or seen is None or seen.uid != owner.uid or seen.deleted is not None:
            return True
        memory = self._memories.get(SetKey(*seen.key))
        return memory is not None and memory.uid == owner.uid and bot.key.name in memory.turns

    def figures(self) -> list[SetFigures]:
        """What the operator's metrics tell of the sets that it works on."""
        return [
            set_status.set_figures(
                BotKey(key.namespace, key.name),
                memory.told,
                set_status.limits_of(memory.spec) if memory.spec is not None else UNLIMITED,
                self._reservations.figures(memory.uid),
            )
            for key, memory in self._memories.items()
            if memory.told is not None
        ]

    # --- the step ---

    async def step(self, key: SetKey) -> float | None:
        """Brings one set closer to its spec. Returns when to come again, in seconds; None: on news."""
        seen = self._sets.get(BotKey(key.namespace, key.name))
        if seen is None or seen.deleted is not None or not self._shard.serves(seen):
            # Garbage collection deletes its bots, which drain, or leaves them to trade on under their names. One of
            # another shard, and the limits over its bots, are its operator's.
            if (former := self._memories.pop(key, None)) is not None:
                self._reservations.forget(former.uid)
            return None
        memory = self._memories.get(key)
        if memory is None or memory.uid != seen.uid:
            memory = self._memories[key] = _recalled(seen)
        await self._read(seen, memory)
        work = _Step(self._cluster, seen, memory, self._bots, saw_bot=self._saw_bot, restart=self._restart)
        if memory.spec is not None:
            self._limit(seen, memory.spec)
        await work.stop(self._mine(seen))
        await work.place(self._mine(seen))
        if memory.spec is not None:
            await work.make(self._mine(seen))
            await work.take_out(self._mine(seen))
        facts = {bot.name: bot for bot in self._owned.get(seen.uid, {}).values()}
        plan = work.plan(facts, self._now().timestamp())
        if plan.give:
            await work.give(plan.give, self._now().timestamp())
        await self._tell(seen, memory, work, plan)
        return min(work.again, default=None)

    def _limit(self, seen: SeenSet, spec: TradingBotSetSpec) -> None:
        """The limits over all bots of the set, with the bots as they are now."""
        mine, key = self._mine(seen), SetKey(*seen.key)
        changed = self._reservations.configure(
            seen.uid,
            set_status.limits_of(spec),
            {bot.uid: bound_of(bot) for bot in mine},
            lost_day=set_status.lost_day(seen.told),
            news=lambda urgent: self._enqueue(key, True) if urgent else self._enqueue_after(key, COALESCE_SECONDS),
        )
        for bot in mine if changed else ():
            self._enqueue(bot.key, False)

    def _mine(self, seen: SeenSet) -> list[SeenBot]:
        found = (self._bots.get(key) for key in list(self._owned.get(seen.uid, ())))
        return [bot for bot in found if bot is not None]

    async def _read(self, seen: SeenSet, memory: _Memory) -> None:
        if memory.generation == seen.generation:
            return
        names_, wanted, problems = {}, {}, {}
        spec = None
        try:
            spec = TradingBotSetSpec.model_validate(seen.spec, extra="ignore")
        except ValidationError as error:
            lines = (f"spec.{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            problems[""] = Problem(SetReason.INVALID_TEMPLATE, f"{'; '.join(lines)}. Correct it.")
        if spec is not None:
            owner = _owner(seen)
            for index, bot in enumerate(spec.bots):
                if index % PARSED_IN_A_ROW == 0:
                    await asyncio.sleep(0)
                found = set_desired.wanted(owner, spec.template, bot.symbol, bot.overrides or {})
                name = set_desired.bot_name(seen.key.name, bot.symbol)
                names_[name] = bot.symbol
                if isinstance(found, Problem):
                    problems[bot.symbol] = found
                else:
                    wanted[name] = found
        memory.generation, memory.spec = seen.generation, spec
        memory.names, memory.wanted, memory.problems = names_, wanted, problems
        memory.stops = set_desired.stops(seen.key.name, seen.spec)
        memory.refused = {name: value for name, value in memory.refused.items() if name in names_}

    async def _tell(self, seen: SeenSet, memory: _Memory, work: _Step, plan: rollout.Rollout) -> None:
        owned = self._owned.get(seen.uid, {})
        facts = {bot.name: bot for bot in owned.values()}
        stands = seen.told
        problems = {
            **work.kept,
            **memory.problems,
            **{memory.names.get(name, name): item[1] for name, item in memory.refused.items()},
        }
        fresh = set_status.compose(
            ObservedSet(
                now=self._now(),
                generation=seen.generation,
                wanted=tuple(memory.names),
                bots={name: facts[name] for name in memory.names if name in facts},
                current=work.current,
                problems=problems,
                rollout=plan,
                since=memory.since,
                draining=[bot.name for bot in owned.values() if bot.deleting],
                deadline=memory.spec.update_strategy.progress_deadline_seconds if memory.spec is not None else 0,
                before=stands,
                limits=set_status.limits_of(memory.spec) if memory.spec is not None else UNLIMITED,
                fleet=self._reservations.figures(seen.uid),
                lost_day=self._reservations.lost_day(seen.uid),
            )
        )
        memory.told = fresh
        change = set_status.change(stands, fresh)
        if change is Change.NONE:
            return
        loop = asyncio.get_running_loop()
        spacing = SPACING[Change.FIGURES] if change is Change.FIGURES else STATE_SECONDS
        if memory.written is not None and (wait := memory.written + spacing - loop.time()) > 0:
            work.again.append(wait)
            return
        latest = self._sets.get(seen.key)
        if latest is None or latest.uid != seen.uid or latest.generation != seen.generation:
            return
        try:
            written = await self._cluster.apply_status(latest, fresh)
        except (ConflictError, NotFoundError):
            work.again.append(CONFLICT_RETRY_SECONDS)
            return
        self._sets.see(written)
        memory.written = loop.time()
        for notice in set_status.notices(stands, fresh):
            await self._events.post(seen, notice)


def _set_of(bot: SeenBot | None) -> Controller | None:
    """The set that a TradingBot belongs to."""
    owner = bot.controller if bot is not None else None
    return owner if owner is not None and owner.kind == names.TRADING_BOT_SET.kind else None


def _owner(seen: SeenSet) -> Owner:
    return Owner(seen.key.namespace, seen.key.name, seen.uid, seen.shard)


def _wish(seen: SeenSet) -> object:
    return seen.generation, seen.deleted, seen.told, seen.shard


def _recalled(seen: SeenSet) -> _Memory:
    """What a former operator wrote: since when bots are in the middle of this change."""
    status = seen.told
    memory = _Memory(seen.uid)
    if status.observed_generation == seen.generation:
        memory.since = {item.bot: item.since_time.timestamp() for item in status.in_progress}
    return memory


def _held(bot: SeenBot) -> frozenset[str]:
    """What its set stops it by."""
    return frozenset(filter(None, bot.annotations.get(names.SET_STOPS_ANNOTATION, "").split(",")))


def _is_current(memory: _Memory, bot: SeenBot, wanted: Wanted) -> bool:
    """It is as its set wants it, and nothing of that was changed by hand."""
    if bot.annotations.get(names.SET_TEMPLATE_ANNOTATION) != wanted.digest or _held(bot) != wanted.stops:
        return False
    compared = (bot.uid, bot.generation, wanted.digest)
    if memory.equal.get(bot.key.name) == compared:
        return True
    if not set_desired.contains(bot.spec, wanted.spec):
        return False
    memory.equal[bot.key.name] = compared
    return True


def _is_stopped(bot: SeenBot, stops: frozenset[str]) -> bool:
    return stops <= _held(bot) and all(bot.spec.get(stop) is True for stop in stops)


def _restarts_flat(bot: SeenBot, wanted: Wanted, fact: BotFacts) -> bool:
    """Whether the change needs another pod, which is made only while the bot is flat."""
    strategy = wanted.spec.get("updateStrategy", bot.spec.get("updateStrategy"))
    if fact.awaits == Reason.AWAITING_FLAT:
        return True
    return strategy == UpdateStrategy.WHEN_FLAT and desired.needs_other_pod(bot, wanted.typed)


def _refusal(key: BotKey, symbol: str, error: ApiError) -> Problem:
    if error.status == 403 and "User " in error.message:
        return Problem(
            SetReason.RIGHTS_MISSING,
            f"bots[{symbol}]: the operator may not write TradingBots: {error.message}. Install its chart with "
            "sets.enabled=true.",
        )
    return Problem(
        SetReason.REFUSED,
        f"bots[{symbol}]: the API server refuses TradingBot {key}: {error.message}. Mend the template, the overrides, "
        "a quota, a policy or a webhook; it is tried again.",
    )


class _Step:
    """The writes of one step. What the API server refuses for one bot is remembered for it alone."""

    def __init__(
        self,
        cluster: Cluster,
        seen: SeenSet,
        memory: _Memory,
        bots: Inventory[SeenBot],
        *,
        saw_bot: Callable[[Manifest], None],
        restart: Callable[[BotKey], None],
    ) -> None:
        self._restart = restart
        self._cluster = cluster
        self._seen = seen
        self._owner = _owner(seen)
        self._memory = memory
        self._bots = bots
        self._saw_bot = saw_bot
        self._loop = asyncio.get_running_loop()
        self.again: list[float] = []
        self.current: frozenset[str] = frozenset()
        self.kept: dict[str, Problem] = {}
        """By symbol: TradingBots that should be deleted and were not."""

    async def place(self, mine: Iterable[SeenBot]) -> None:
        """All bots are of the set's own shard, at once, whoever labelled them otherwise and whatever cannot be read."""
        shard = self._owner.shard
        await self._all([(self._whose(bot), self._placing(bot)) for bot in mine if bot.shard != shard])

    async def _placing(self, bot: SeenBot) -> None:
        self._saw_bot(await self._cluster.set_shard(bot, self._owner.shard))

    async def stop(self, mine: Iterable[SeenBot]) -> None:
        """Safe mode and suspend of the template go to all bots at once, also where the rest of it cannot be read."""
        stopped: list[tuple[Wanted | _There, Awaitable[None]]] = []
        for bot in mine:
            stops = self._memory.stops.get(bot.key.name, frozenset())
            if bot.deleted is None and not _is_stopped(bot, stops):
                stopped.append((self._whose(bot), self._stopping(bot, stops | _held(bot))))
        await self._all(stopped)

    def _whose(self, bot: SeenBot) -> Wanted | _There:
        symbol = str(bot.spec.get("symbol", bot.key.name))
        return self._memory.wanted.get(bot.key.name) or _There(bot.key, symbol)

    async def make(self, mine: Iterable[SeenBot]) -> None:
        """TradingBots that are not there yet. One of that name that is not the set's is never touched."""
        there = {bot.key.name for bot in mine}
        missing = [wanted for name, wanted in self._memory.wanted.items() if name not in there]
        due = []
        for wanted in missing:
            other = self._bots.get(wanted.key)
            if other is not None:
                self._foreign(wanted, other)
            elif self._may_try(wanted):
                due.append(wanted)
        await self._all([(wanted, self._create(wanted)) for wanted in due[:MADE_IN_A_STEP]])
        if len(due) > MADE_IN_A_STEP:
            self.again.append(0.0)

    async def take_out(self, mine: Iterable[SeenBot]) -> None:
        """TradingBots whose symbol is not in the spec any more are deleted, which drains them."""
        surplus = [bot for bot in mine if bot.key.name not in self._memory.names and bot.deleted is None]
        if surplus and not await self._still():
            return
        for bot in surplus:
            try:
                await self._cluster.delete(names.PLURAL, bot.key.namespace, bot.key.name, bot.uid)
            except ApiError as error:
                if error.passing:
                    raise
                self.kept[str(bot.spec.get("symbol", bot.key.name))] = _refusal(bot.key, str(bot.key.name), error)
                self.again.append(REFUSED_RETRY_SECONDS)

    async def _still(self) -> bool:
        """Whether the set is as it was seen: a watch that hangs must not end a bot."""
        raw = await self._cluster.get(names.TRADING_BOT_SET.plural, *self._seen.key)
        latest = SeenSet.of(raw) if raw is not None else None
        same = latest is not None and (latest.uid, latest.generation, latest.deleted) == (
            self._seen.uid, self._seen.generation, None,
        )  # fmt: skip
        if not same:
            self.again.append(FOREIGN_RETRY_SECONDS)
        return same

    def plan(self, facts: dict[str, BotFacts], now: float) -> rollout.Rollout:
        """Who is given the present template next; `now` in seconds since 1970."""
        memory, members, current = self._memory, [], set()
        for name, wanted in memory.wanted.items():
            bot, fact = self._bots.get(wanted.key), facts.get(name)
            if bot is None or fact is None:
                if name not in memory.refused:
                    members.append(Member(name, current=True, available=False, settled=False, flat=True,
                                          in_position=False, since=memory.since.setdefault(name, now)))  # fmt: skip
                continue
            as_wanted = _is_current(memory, bot, wanted)
            if as_wanted:
                current.add(name)
                memory.refused.pop(name, None)
            queues = fact.awaits == Reason.AWAITING_TURN and name not in memory.turns
            if queues or (fact.awaits == Reason.AWAITING_FLAT and fact.available):
                # It runs on with a former pod, and is given its turn as one that has not the template.
                as_wanted = False
            as_wanted = as_wanted or fact.deleting
            # The pace of starts makes no bot late.
            moves = as_wanted and not (fact.settled or fact.paced)
            if not moves:
                memory.since.pop(name, None)
                memory.turns.discard(name)
            members.append(
                Member(
                    name,
                    current=as_wanted,
                    available=fact.available,
                    settled=fact.settled,
                    flat=fact.flat,
                    in_position=fact.in_position,
                    restarts_flat=not as_wanted and fact.in_position and _restarts_flat(bot, wanted, fact),
                    refused=not (as_wanted or self._may_try(wanted)),
                    since=memory.since.setdefault(name, now) if moves else now,
                )
            )
        for name in memory.since.keys() - memory.wanted.keys():
            del memory.since[name]
        memory.turns &= memory.since.keys()
        self.current = frozenset(current)
        strategy = memory.spec.update_strategy if memory.spec is not None else None
        if strategy is None:
            return rollout.next_step((), 1, 0, now)
        most = rollout.most_unavailable(strategy.max_unavailable, len(memory.names))
        plan = rollout.next_step(members, most, strategy.progress_deadline_seconds, now)
        if plan.again_in is not None:
            self.again.append(plan.again_in)
        return plan

    async def give(self, chosen: Iterable[str], now: float) -> None:
        """The present template goes to these bots."""
        due = []
        for name in chosen:
            wanted = self._memory.wanted[name]
            bot = self._bots.get(wanted.key)
            if bot is not None:
                self._memory.since[name] = now
                self._memory.turns.add(name)
                if _is_current(self._memory, bot, wanted):
                    self._restart(bot.key)
                else:
                    due.append((wanted, self._change(bot, wanted)))
        await self._all(due)
        # What came of it is looked at anew.
        self.again.append(COALESCE_SECONDS)

    async def _create(self, wanted: Wanted) -> None:
        manifest = set_desired.manifest(self._owner, wanted)
        # No object has this version: one of that name is refused, whosever it is.
        manifest["metadata"]["resourceVersion"] = NO_VERSION
        if wanted.stops:
            # Not a moment without them; their own field manager takes them over, or the next step finds them here.
            manifest["spec"] |= dict.fromkeys(wanted.stops, True)
            manifest["metadata"]["annotations"][names.SET_TEMPLATE_ANNOTATION] = "new"
        raw = await self._cluster.apply(names.PLURAL, manifest, manager=names.SET_FIELD_MANAGER)
        self._saw_bot(raw)
        if wanted.stops:
            bot = SeenBot.of(raw)
            await self._stopping(bot, wanted.stops)
            await self._change(bot, wanted)

    async def _change(self, bot: SeenBot, wanted: Wanted) -> None:
        latest = self._bots.get(bot.key) or bot
        manifest = set_desired.manifest(self._owner, wanted)
        # As it was seen: one that was orphaned meanwhile must not become the set's again.
        manifest["metadata"] |= {"uid": latest.uid, "resourceVersion": latest.resource_version}
        self._saw_bot(await self._cluster.apply(names.PLURAL, manifest, manager=names.SET_FIELD_MANAGER))
        if _held(latest) != wanted.stops:
            await self._stopping(bot, wanted.stops)

    async def _stopping(self, bot: SeenBot, stops: Iterable[str]) -> None:
        manifest = set_desired.stopping(bot.key, stops)
        manifest["metadata"]["uid"] = bot.uid
        self._saw_bot(await self._cluster.apply(names.PLURAL, manifest, manager=names.SET_STOPS_FIELD_MANAGER))

    # --- refusals ---

    def _may_try(self, wanted: Wanted) -> bool:
        digest, _, until = self._memory.refused.get(wanted.key.name, ("", None, 0.0))
        wait = until - self._loop.time()
        if digest == wanted.digest and wait > 0:
            self.again.append(wait)
            return False
        return True

    def _refuse(self, wanted: Wanted | _There, problem: Problem, seconds: float) -> None:
        self._memory.refused[wanted.key.name] = (wanted.digest, problem, self._loop.time() + seconds)
        self.again.append(seconds)

    def _foreign(self, wanted: Wanted, other: SeenBot) -> None:
        owner = other.controller
        if owner is not None and (owner.kind, owner.name) == (names.TRADING_BOT_SET.kind, self._owner.name):
            what = f"TradingBot {wanted.key} of the former set of that name is being removed."
        else:
            what = (
                f"TradingBot {wanted.key} exists and is not this set's; it is left alone. Delete it, take "
                f"{wanted.symbol} out of the set, or give the set another name."
            )
        self._refuse(wanted, Problem(SetReason.FOREIGN_OBJECT, what), FOREIGN_RETRY_SECONDS)

    async def _all(self, works: Sequence[tuple[Wanted | _There, Awaitable[None]]]) -> None:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(wanted: Wanted | _There, work: Awaitable[None]) -> None:
            async with gate:
                await self._tried(wanted, work)

        results = await asyncio.gather(*(one(wanted, work) for wanted, work in works), return_exceptions=True)
        for failure in results:
            if failure is not None:
                raise failure

    async def _tried(self, wanted: Wanted | _There, work: Awaitable[None]) -> None:
        try:
            await work
        except ConflictError:
            # The watch is late, or somebody was faster.
            raw = await self._cluster.get(names.PLURAL, wanted.key.namespace, wanted.key.name)
            if raw is not None:
                self._saw_bot(raw)
            self.again.append(CONFLICT_RETRY_SECONDS)
        except ApiError as error:
            if error.passing:
                raise
            self._refuse(wanted, _refusal(wanted.key, wanted.symbol, error), REFUSED_RETRY_SECONDS)
        else:
            self._memory.refused.pop(wanted.key.name, None)
