"""What the operator remembers of each TradingBot between steps: the revision counter, the link, the last grant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from tradingbot_api import names
from tradingbot_api.bot_http import GRANT_RENEWAL_SECONDS, BotConfig, BotStatus, DrainStatus, ImposedCause
from tradingbot_api.conditions import Phase, Reason
from tradingbot_api.v1alpha1 import BotSettings, TradingBotStatus
from tradingbot_operator import desired
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_link import BotCallError, BotLink, Word
from tradingbot_operator.cluster import Cluster
from tradingbot_operator.imposed import NOBODY, Impositions
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot
from tradingbot_operator.metrics import BotFigures
from tradingbot_operator.status import NO_POD, Finding


class ForeignObjectError(Exception):
    """An object of a name that a TradingBot needs belongs to somebody else; it is left alone.

    `passing`: it is a former TradingBot's of that name, which Kubernetes is about to remove.
    """

    code = "ForeignObject"
    reason = Reason.FOREIGN_OBJECT

    def __init__(self, kind: str, key: BotKey, name: str, *, passing: bool = False) -> None:
        self.passing = passing
        super().__init__(
            f"{kind} {key.namespace}/{name} of the former TradingBot of that name is being removed."
            if passing
            else f"{kind} {key.namespace}/{name} exists and is not this TradingBot's; delete or rename it, "
            "or give the TradingBot another name."
        )


class Ledger:
    """The revisions of one bot's configuration: the counter grows exactly when the content differs.

    The ConfigMap keeps the counter over restarts of the operator. Where a bot has applied a greater revision
    than is known (handed over just before an operator ended), the counter goes past it.
    """

    def __init__(self, stored: BotConfig | None, uid: str | None, version: str | None) -> None:
        self.revision = stored.revision if stored is not None else 0
        self.settings: BotSettings | None = stored.settings if stored is not None else None
        self.cleared = tuple(stored.cleared_causes) if stored is not None else ()
        self.imposed = tuple(stored.imposed) if stored is not None else ()
        self.ended: set[str] = set()
        """Ids of causes that were imposed and are not any more, as this ledger knows."""
        self.fleet_limited = stored.fleet_limited if stored is not None else False
        self.stored_revision = self.revision
        self.uid = uid
        self.version = version

    @classmethod
    def of(cls, raw: Manifest) -> Ledger:
        """From a ConfigMap."""
        metadata = raw["metadata"]
        return cls(desired.decode(raw), metadata["uid"], metadata["resourceVersion"])

    def want(self, settings: BotSettings, cleared: tuple[str, ...] = (), imposed: tuple[ImposedCause, ...] = ()) -> int:
        """The revision of this content; `cleared` are the safe-mode causes that a human clears with it."""
        if (settings, cleared, imposed) != (self.settings, self.cleared, self.imposed):
            ids = {cause.id for cause in imposed}
            self.ended = (self.ended | {cause.id for cause in self.imposed}) - ids
            self.settings, self.cleared, self.imposed = settings, cleared, imposed
            self.revision += 1
        return self.revision

    def want_spec(self, bot: SeenBot, cleared: tuple[str, ...] = (), imposed: tuple[ImposedCause, ...] = ()) -> int:
        """The revision of what the spec wants; SpecError. Where it cannot be read, safe mode counts all the same: it is
        wanted with the settings that stood before."""
        try:
            settings = desired.settings_of(desired.parse_spec(bot))
        except desired.SpecError:
            if not (bot.safe_mode or imposed) or self.settings is None:
                raise
            settings = self.settings.model_copy(update={"safe_mode": True}) if bot.safe_mode else self.settings
        return self.want(settings, cleared, imposed)

    def adopt(self, cause: ImposedCause) -> None:
        """The bot has a cause that was imposed on it, as by a standby, and that nobody released."""
        self.imposed = (*self.imposed, cause)
        self.revision += 1

    def limit(self, limited: bool) -> None:
        """Whether limits over a fleet hold for the bot."""
        if limited != self.fleet_limited:
            self.fleet_limited = limited
            self.revision += 1

    def heard(self, applied: int) -> None:
        """The bot says which revision it applied."""
        if applied > self.revision:
            self.revision = applied + 1

    def outrun(self, applied: int) -> None:
        """The bot has other content at this revision or a greater one: ours must count above both."""
        self.revision = max(self.revision, applied) + 1

    def config(self, bot: SeenBot) -> BotConfig:
        """The configuration that the bot should have."""
        if self.settings is None:
            raise ValueError("no configuration was wanted yet")
        identity = desired.Identity.of(bot)
        config = desired.bot_config(identity, self.settings, self.revision, self.cleared, self.imposed)
        return config.model_copy(update={"fleet_limited": self.fleet_limited})


MARK_SECONDS: Final = 0.2
MOST_RELEASES: Final = 5
"""After so many errors of the server the claim stays, for others to take over."""
MOST_MARKS: Final = 20
HANDING_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
"""So long a bot that cannot be asked to drain is waited for; its end (SIGTERM) cancels its entries too."""
POD_BEING_MADE: Final = "The pod is being made."
SUSPENDED: Final = "Suspended: no process runs. A position keeps its protection on the exchange."
NO_ACCOUNT_YET: Final = Finding.open(
    Reason.AWAITING_ACCOUNT, "The bot has not named its exchange account yet; see BalanceSynced."
)


@dataclass(frozen=True)
class Asked:
    """Why the end of a pod is asked for, whether its bot answers, and since when, on the loop's clock."""

    wanted: str
    reachable: bool
    since: float

    def late(self, now: float, deadline: float) -> bool:
        """Whether it was waited for long enough; `deadline` is of a bot that answers, in seconds."""
        return now - self.since >= (deadline if self.reachable else SILENCE_SECONDS)


@dataclass
class Memory:
    """What is remembered of one TradingBot, by UID. Times are of the loop's clock."""

    uid: str
    key: BotKey
    ledger: Ledger | None = None
    above: int = -1
    """It came from another shard's operator, which knows no more of ours than this epoch: nothing is said below."""
    since: float = 0.0
    """When this operator made its first step for it."""
    counted: int = 0
    """The greatest revision of the ledgers that were dropped: the bot may have it."""
    loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    link: BotLink | None = None
    claim: Finding = NO_ACCOUNT_YET
    claim_asked: float = 0.0
    claim_recalled: bool = False
    """Whether the claim was looked at without a process to ask."""
    may_hold_claim: bool | None = None
    last_grant: float | None = None
    granted_boot: str = ""
    renewal_seconds: float = GRANT_RENEWAL_SECONDS
    """How long after the last grant the next one is due."""
    wait_told: dict[bool, tuple[str, datetime]] = field(default_factory=dict)
    """The boot that was told of a wait, and the end of that: of its address (False), and of its account's entries."""
    owes_wait: bool = False
    """It was the first to tell of a wait, which its status must tell the operators of other shards."""
    refusal: tuple[int, str, Finding] | None = None
    handed: tuple[int, str, float] | None = None
    """Revision, boot and time of the last configuration that went out; its effect comes over the stream."""
    confirmed: tuple[int, str] | None = None
    """Revision and boot of the last configuration that the bot answered to have: equal numbers alone prove nothing,
    as an operator may have ended between telling the bot and writing the ConfigMap."""
    vanished_pod: str | None = None
    """A pod that went away before its end was seen, until it is settled; empty where its UID is not known."""
    last: Word | None = None
    """The bot's last word that knew the exchange, however old: what it may have left."""
    gone_since: float | None = None
    """Since when no process of it can be running."""
    had_pod: bool = False
    ended_on_purpose: bool = False
    """Its pod was ended to suspend or update it: another one is no replacement of a lost one."""
    end_told: str = ""
    """UID of the pod whose end on purpose was posted: a watch that hangs goes on showing it."""
    asked: Asked | None = None
    up_to_date: Finding = NO_POD
    failures: int = 0
    """Steps that failed in a row."""
    stepped: bool = False
    """A step was made; the fast lane or a pod's end may have begun this memory before."""
    pod_missing: str = POD_BEING_MADE
    paced_until: datetime | None = None
    """When its turn to start comes, as was told, while it waits for that."""
    drain_asked: float | None = None
    drained: DrainStatus | None = None
    deletion_begun: tuple[datetime, float] | None = None
    """Since when its deadline counts, by the wall clock for people and by the loop's, which nobody sets."""
    namespace_going: bool = False
    """A pod was refused because the namespace is being deleted; that is never taken back."""
    farewell_said: bool = False
    marks: int = 0
    """Steps that tried to note in the status that it drained."""
    claim_refused: int = 0
    """Tries to release the claim that were refused."""
    released: bool = False
    """Our finalizer was taken off; the watch may still show it, and nothing may be made for the bot any more."""
    status_written: float | None = None
    status_conflicts: int = 0
    """In a row."""
    status_refused: tuple[str, float] | None = None
    """The version whose status could not be written, and until when it is not tried again; news do not shorten it."""
    trouble_posted: dict[str, float] = field(default_factory=dict)
    """When each reason of a pod's trouble was last posted as an event."""
    wanted_since: float | None = None
    engaged_seen: bool = False
    acknowledged_after: float | None = None
    phase: Phase | None = None
    unacknowledged: bool = False
    """Safe mode is wanted and was not acknowledged, by the last status."""
    told: TradingBotStatus | None = None
    """The status that the last step made, whether or not it was worth a write."""
    took_word: bool = False
    """A human's wish to take the account's word was followed: it stands until the bot has it too."""
    unexplained: Mapping[str, Decimal] = field(default_factory=dict)
    """What its account lacks, or has too much, though nobody told of it; by the last status."""

    @property
    def told_position(self) -> bool:
        """Whether its last word tells of a position."""
        position = self.last.status.position if self.last is not None else None
        return position is not None and position.quantity != 0

    def may_hold(self, bot: SeenBot) -> bool:
        """Whether a position of it may be open: its last word says so, or it ran before and nobody remembers."""
        if self.last is None:
            return bool(bot.told.account_uid)
        position = self.last.status.position
        return position is None or position.quantity != 0

    def marked(self, bot: SeenBot) -> bool:
        """Whether the status tells of the drain, before its pod ends; an older CRD has no field for it, and is not
        waited for."""
        if self.marks >= MOST_MARKS:
            return True
        told = bot.told.drained
        return self.drained is not None and told == statuses.drained_mark(self.drained)

    @property
    def imposed(self) -> tuple[ImposedCause, ...]:
        """The causes from outside the spec that its configuration has."""
        return self.ledger.imposed if self.ledger is not None else ()

    def word(self) -> Word | None:
        """The bot's last word, while it is fresh."""
        return self.link.fresh() if self.link is not None else None

    def figures(self) -> BotFigures:
        """What the operator's metrics tell of it."""
        age = self.link.silence() if self.link is not None else None
        return BotFigures(self.key.namespace, self.key.name, self.phase, age, self.unacknowledged, self.unexplained)

    def refused(self) -> Finding | None:
        """Why the bot refused the configuration that it should have."""
        refusal, ledger = self.refusal, self.ledger
        return refusal[2] if refusal is not None and ledger is not None and refusal[0] == ledger.revision else None

    def wish(self, at: float, *, safe: bool) -> None:
        """The wish for safe mode was seen to change: the clock of its acknowledgement starts, or is dropped."""
        self.wanted_since = at if safe else None
        self.engaged_seen = False
        self.acknowledged_after = None

    def has_current_config(self, status: BotStatus) -> bool:
        """Whether the bot applied the revision that it should have; see `has_confirmed`."""
        return self.ledger is not None and 0 < self.ledger.revision == status.applied_revision

    def has_confirmed(self, status: BotStatus) -> bool:
        """Whether this start of the bot answered to have exactly the configuration that it should have."""
        return self.has_current_config(status) and self.confirmed == (status.applied_revision, status.boot_id)

    async def hand_over(self, bot: SeenBot) -> None:
        """Gives the bot its configuration, unless that is under way: the fast lane and a step may both want it.

        BotCallError, BotRefusedError.
        """
        link, ledger = self.link, self.ledger
        if link is None or ledger is None:
            return
        boot = link.word.status.boot_id if link.word is not None else ""
        now = asyncio.get_running_loop().time()
        last = self.handed
        if last is not None and last[:2] == (ledger.revision, boot) and now - last[2] < HANDING_SECONDS:
            return
        self.handed = (ledger.revision, boot, now)
        config = ledger.config(bot)
        try:
            await link.put_config(config)
        except BotCallError:
            self.handed = None
            raise
        self.confirmed = (config.revision, boot)

    def drop_ledger(self) -> None:
        """The ConfigMap is not as it was written: it is read anew, and what the bot has is proved anew."""
        if self.ledger is not None:
            self.counted = max(self.counted, self.ledger.revision)
        self.ledger = self.handed = self.confirmed = None

    async def load_ledger(self, bot: SeenBot, cluster: Cluster) -> Ledger:
        """The ledger, read from the ConfigMap where it is not known; ForeignObjectError."""
        async with self.loading:
            if self.ledger is None:
                name = names.config_map_name(bot.key.name)
                raw = await cluster.get("configmaps", bot.key.namespace, name)
                if raw is None:
                    self.ledger = Ledger(None, None, None)
                elif not desired.owned_by(raw, bot.uid):
                    former = desired.formerly_owned(raw, desired.Identity.of(bot))
                    raise ForeignObjectError("ConfigMap", bot.key, name, passing=former)
                else:
                    self.ledger = Ledger.of(raw)
                self.ledger.heard(self.counted)
            return self.ledger

    async def wanted_config(
        self, bot: SeenBot, bots: Inventory[SeenBot], cluster: Cluster, impositions: Impositions = NOBODY
    ) -> Ledger:
        """The ledger after it heard what the spec wants and what is imposed now; SpecError, ForeignObjectError.

        The spec is looked up after the last wait: a step that began before a change of the spec must not
        count the former content as a newer revision.
        """
        ledger = await self.load_ledger(bot, cluster)
        latest = bots.get(bot.key)
        current = latest if latest is not None and latest.uid == bot.uid else bot
        imposed = impositions.on(current, ledger.imposed)
        ledger.want_spec(current, desired.cleared_causes(current), imposed)
        return ledger


class Fleet:
    """The memories of all TradingBots."""

    def __init__(self) -> None:
        self._memories: dict[BotKey, Memory] = {}
        self.followers: list[Callable[[Memory], None]] = []
        """Are told of each memory that is dropped, also where another TradingBot of its name came at once."""

    def of(self, bot: SeenBot) -> Memory:
        """The memory of a TradingBot; a new TradingBot of an old name starts with an empty one."""
        memory = self._memories.get(bot.key)
        if memory is None or memory.uid != bot.uid:
            former = self.forget(bot.key)
            # The gauge of phases counts the former one until the new one's phase is told.
            phase = former.phase if former is not None else None
            memory = self._memories[bot.key] = Memory(bot.uid, bot.key, phase=phase)
        return memory

    def known(self, key: BotKey) -> Memory | None:
        """The memory of that name, if there is one."""
        return self._memories.get(key)

    def begin_anew(self) -> None:
        """Forgets all but since when safe mode is wanted."""
        for memory in self:
            self.forget(memory.key)
            if memory.wanted_since is not None:
                fresh = self._memories[memory.key] = Memory(memory.uid, memory.key)
                fresh.wanted_since = memory.wanted_since

    def forget(self, key: BotKey) -> Memory | None:
        """Drops a memory and closes its link; gives back what was dropped."""
        memory = self._memories.pop(key, None)
        if memory is not None:
            if memory.link is not None:
                memory.link.close()
            for follow in self.followers:
                follow(memory)
        return memory

    def __iter__(self) -> Iterator[Memory]:
        return iter(list(self._memories.values()))
