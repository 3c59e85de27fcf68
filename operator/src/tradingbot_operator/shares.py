"""What each bot is told that it may use of its address's request weight, so that all that is told fits together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tradingbot_api.bot_http import GRANT_RENEWAL_SECONDS, GRANT_TTL_SECONDS, LEAST_WEIGHT, SHARED_PART, BotStatus
from tradingbot_operator.allotment import Need, allot, carries
from tradingbot_operator.egress import Address, EgressGroup, address_of
from tradingbot_operator.inventory import Inventory, SeenBot, SeenPod
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.sharding import ALONE, Shard

COUNT_SECONDS: Final = 5.0
"""How old the parts of an address may be that are granted: to work them out takes a look at all its bots."""
KEEP: Final = 0.8
"""A need falls by at most a fifth with each look, so that parts do not follow every quiet minute."""
STEP: Final = 30
"""Needs are rounded up to it: parts do not change with every request."""


@dataclass(frozen=True)
class Share:
    """What one grant tells."""

    weight: int
    address_bots: int


@dataclass
class AddressShares:
    """One address. Times are of the loop's clock."""

    since: float
    """When this operator first granted a bot of it."""
    needs: dict[str, Need] = field(default_factory=dict)
    """Of each bot that was granted, by UID."""
    told: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What each was last told, and until when that counts."""
    sum_told: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    bots: int = 1
    budget: int = 0
    """Of all bots of the address."""
    own_budget: int = 0
    """Of those that this operator serves."""
    limit: int = 0
    used: int = 0
    counted: float = float("-inf")

    def running(self, now: float, uid: str = "") -> dict[str, Need]:
        """The needs of the bots whose last grant stands, and of one that gets its first."""
        return {one: need for one, need in self.needs.items() if one == uid or self.told.get(one, (0, now))[1] > now}

    def tell(self, uid: str, weight: int, until: float) -> None:
        """What a bot goes by from now on."""
        self.sum_told += weight - self.told.get(uid, (0, 0.0))[0]
        self.told[uid] = (weight, until)


@dataclass
class Sharing:
    """Who shares an address."""

    own: set[str] = field(default_factory=set)
    """UIDs of the bots that this operator serves."""
    running: dict[str, Need] = field(default_factory=dict)
    """Of those that have a pod: what each needs as far as its status tells."""
    others: int = 0
    """How many other bots there are."""

    @property
    def part(self) -> float:
        """What its own bots are of all; whoever asks has one there, which may be newer than the look."""
        own = max(1, len(self.own))
        return own / (own + self.others)


class Shares:
    """The parts of all addresses. `weight_per_minute` is the limit of an address; 0: nothing is shared out."""

    def __init__(
        self,
        groups: Sequence[EgressGroup],
        weight_per_minute: int,
        *,
        bots: Inventory[SeenBot],
        pods: Inventory[SeenPod],
        time: Callable[[], float],
        shard: Shard = ALONE,
    ) -> None:
        """With several shards each operator allots the part of an address's weight that its bots are of all there."""
        self._shard = shard
        self._sharing: Mapping[Address, Sharing] = {}
        self._looked = float("-inf")
        self._groups = groups
        self._weight_per_minute = weight_per_minute
        self._bots = bots
        self._pods = pods
        self._time = time
        self._addresses: dict[Address, AddressShares] = {}

    def grant(self, bot: SeenBot, status: BotStatus) -> Share | None:
        """What a bot may use for as long as a grant that it gets now."""
        if self._weight_per_minute == 0:
            return None
        address = self.address(bot)
        now, use = self._time(), status.weight
        shared = self._addresses.setdefault(address, AddressShares(now))
        shared.limit = min(self._weight_per_minute, use.limit if use is not None else self._weight_per_minute)
        shared.used = use.address_used if use is not None else shared.used
        holding = status.position is not None and status.position.quantity != 0
        wanted = -(-(use.wanted if use is not None else 0) // STEP) * STEP
        former = shared.needs.get(bot.uid)
        shared.needs[bot.uid] = Need(max(wanted, int(former.wanted * KEEP) if former is not None else 0), holding)
        if now - shared.counted >= COUNT_SECONDS or bot.uid not in shared.parts:
            self._count(address, shared, now, bot.uid)
        former_weight, until = shared.told.get(bot.uid, (0, now))
        former_weight = former_weight if until > now else 0
        weight = max(0, min(shared.parts[bot.uid], shared.own_budget - (shared.sum_told - former_weight)))
        # Should it not arrive, the bot goes by what it was told before.
        shared.tell(bot.uid, max(weight, former_weight), now + GRANT_TTL_SECONDS)
        return Share(weight, shared.bots)

    def arrived(self, bot: SeenBot, share: Share) -> None:
        """The bot answered to the grant: it goes by nothing else any more."""
        shared = self._addresses.get(self.address(bot))
        if shared is not None and bot.uid in shared.told:
            shared.tell(bot.uid, share.weight, shared.told[bot.uid][1])

    def address(self, bot: SeenBot) -> Address:
        """Where its requests come from."""
        return address_of(bot, self._pods.get(bot.key), self._groups)

    def part(self, address: Address) -> float:
        """How much of an address's weight this operator has to give: what its bots are of all there."""
        return 1.0 if self._shard.alone else self._who_shares(address).part

    def _who_shares(self, address: Address, uid: str | None = None) -> Sharing:
        """Who shares it, with the bot `uid` among them. All bots are looked at once for all addresses: a new leader
        grants a thousand within seconds."""
        now = self._time()
        if now - self._looked >= COUNT_SECONDS or (
            uid is not None and uid not in self._sharing.get(address, Sharing()).own
        ):
            self._looked, self._sharing = now, self._look()
        return self._sharing.get(address) or Sharing()

    def _look(self) -> Mapping[Address, Sharing]:
        found: defaultdict[Address, Sharing] = defaultdict(Sharing)
        for bot in self._bots:
            if bot.suspended:
                continue
            sharing = found[self.address(bot)]
            if self._shard.serves(bot):
                sharing.own.add(bot.uid)
                if self._pods.get(bot.key) is not None:
                    sharing.running[bot.uid] = Need(0, bot.told_position)
            else:
                sharing.others += 1
        return dict(found)

    def needed(self, address: Address) -> int:
        """What the bots of an address that run need of a minute at least."""
        shared = self._addresses.get(address)
        if shared is None:
            return 0
        running = shared.running(self._time()).values()
        return sum(max(need.wanted, LEAST_WEIGHT) if need.holding else LEAST_WEIGHT for need in running)

    def too_many(self, bot: SeenBot) -> tuple[int, int] | None:
        """How many bots share its address, and how many it carries, where that is less."""
        shared = self._addresses.get(self.address(bot))
        if shared is None or shared.bots <= carries(shared.budget):
            return None
        return shared.bots, carries(shared.budget)

    def measure(self, metrics: Metrics) -> None:
        """Sets the gauges of all addresses."""
        for address, shared in self._addresses.items():
            for part, weight in (("limit", shared.limit), ("allotted", shared.sum_told), ("used", shared.used)):
                metrics.address_weight.labels(*address, part).set(weight)
            for which, bots in (("sharing", shared.bots), ("carried", carries(shared.budget))):
                metrics.address_bots.labels(*address, which).set(bots)

    def _count(self, address: Address, shared: AddressShares, now: float, uid: str) -> None:
        """Works out the parts anew, for one more bot too; what was told lately counts until it is told anew or ends."""
        sharing = self._who_shares(address, uid)
        uids = sharing.own | {uid}
        shared.needs = {one: need for one, need in shared.running(now, uid).items() if one in uids}
        shared.told = {one: told for one, told in shared.told.items() if told[1] > now}
        shared.sum_told = sum(weight for weight, _ in shared.told.values())
        own = len(uids)
        shared.bots = own + sharing.others
        shared.budget = int(shared.limit * SHARED_PART)
        shared.own_budget = shared.budget * own // shared.bots
        # Who is granted first by a new leader must not have what a former one gave all others.
        unheard = sharing.running if now - shared.since < GRANT_RENEWAL_SECONDS else {}
        shared.parts = allot(shared.own_budget, {**unheard, **shared.needs})
        shared.counted = now
