"""The fast lane of safe mode: a wish goes to the bot at once, past the work queue and whatever fills it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

import aiohttp
import structlog

from tradingbot_api.bot_http import EPOCH_NOT_LEADER, EPOCH_PAST, STALE_REVISION
from tradingbot_api.conditions import Reason
from tradingbot_operator.bot_link import BotCallError, BotCalls, BotRefusedError, Peer
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.desired import SpecError
from tradingbot_operator.fleet import Fleet, ForeignObjectError, Memory
from tradingbot_operator.imposed import Impositions
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader, LeaseLostError
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.sharding import ALONE, Shard
from tradingbot_operator.status import has_cause

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 60.0
"""A standby's tries: by then there is a leader, or no grant is left."""
CROWD: Final = 64
"""So many of the bots that one wish is for are told at a time."""
STANDBY_CROWD: Final = 8
HEAD_START_SECONDS: Final = 2.0
"""A leader, which has its lines to the bots, tells a crowd before a standby begins to."""

HEAD_START_LOOK_SECONDS: Final = 0.1
PASS_SECONDS: Final = 0.3
"""So long other work waits for a wish: with a thousand bots taken over it would come between each two of its calls."""

log = structlog.get_logger(__name__)


class SafeModeLane:
    """One task for each TradingBot whose wish for safe mode changed, by its spec or by what is imposed on it; a
    tightening is handed over with the whole configuration.

    `cluster` is a client of this lane alone: it may have to read a ConfigMap while the other is busy. What
    fails in the leader (no pod, no answer) is left to the steps of the work queue, which repeat it until it holds.

    Of other shards' bots nothing is carried: their own operators, and standbys, do that.

    A standby carries a tightening too, as the leader may be dead, stopped or blind, and so does a leader that has not
    heard the bot yet: with the epoch of nobody, of which a bot takes the tightening alone. A standby writes nothing.
    A former leader says nothing: it may have been stopped for long, and its wish be one of then.
    A release is left to the leader's next step, which asks the API server first whether it is still wished.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        bots: Inventory[SeenBot],
        pods: Inventory[SeenPod],
        fleet: Fleet,
        leader: Leader,
        impositions: Impositions,
        tls: ssl.SSLContext,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        enqueue: Callable[[BotKey], None],
        shard: Shard = ALONE,
    ) -> None:
        self._shard = shard
        self._cluster = cluster
        self._bots = bots
        self._pods = pods
        self._fleet = fleet
        self._leader = leader
        self._impositions = impositions
        self._tls = tls
        self._session = session
        self._metrics = metrics
        self._enqueue = enqueue
        self._tasks: dict[BotKey, asyncio.Task[None]] = {}
        self._alone: dict[BotKey, tuple[float, asyncio.Task[None]]] = {}
        """Wishes for one bot that are under way, and since when."""
        self._tighter: set[BotKey] = set()
        """Whose tightening is not carried yet."""
        self._crowded: set[BotKey] = set()
        """Who is one of many that the same wish is for."""
        self._crowd, self._standby_crowd = asyncio.Semaphore(CROWD), asyncio.Semaphore(STANDBY_CROWD)

    def notice(self, bot: SeenBot) -> None:
        """spec.safeMode is another than before. Never waits."""
        if not self._shard.serves(bot):
            return
        memory = self._fleet.of(bot)
        memory.wish(asyncio.get_running_loop().time(), safe=bot.safe_mode or bool(memory.imposed))
        self._crowded.discard(bot.key)
        self._begin(bot, tighter=bot.safe_mode)

    def notice_imposed(self, bots: Iterable[SeenBot]) -> None:
        """Something may be wished or imposed on these bots that was not before. Never waits.

        Who says already that it has all of it is left out, as after a restart. Those that answer come first.
        """
        now = asyncio.get_running_loop().time()
        lacking = [(self._fleet.of(bot), bot) for bot in bots if self.lacks(bot)]
        for memory, bot in sorted(lacking, key=lambda item: item[0].word() is None):
            memory.wish(now, safe=True)
            if bot.key not in self._tasks:
                self._crowded.add(bot.key)
            self._begin(bot, tighter=True)

    def _begin(self, bot: SeenBot, *, tighter: bool) -> None:
        if tighter:
            self._tighter.add(bot.key)
        if bot.key not in self._tasks:
            self._tasks[bot.key] = task = asyncio.create_task(self._carry(bot.key), name=f"safe mode {bot.key}")
            if bot.key not in self._crowded:
                self._alone[bot.key] = asyncio.get_running_loop().time(), task

    async def let_pass(self) -> None:
        """Lets what is wished for single bots go before other work, but not for long: one of them may not answer."""
        now = asyncio.get_running_loop().time()
        waits = {task: left for since, task in self._alone.values() if (left := since + PASS_SECONDS - now) > 0}
        if waits:
            await asyncio.wait(waits, timeout=max(waits.values()))

    def lacks(self, bot: SeenBot) -> bool:
        """Whether a bot of ours has a status that does not tell of everything that is wished and imposed on it."""
        if not self._shard.serves(bot):
            return False
        safe = bot.told.safe_mode
        causes = safe.causes if safe is not None else []
        if bot.safe_mode and safe is not None and not any(cause.reason == Reason.SPEC for cause in causes):
            return True
        return any(not has_cause(causes, cause) for cause in self._impositions.on(bot))

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, key: BotKey) -> None:
        try:
            # The wish may change while it is carried: the last one counts.
            while (bot := self._bots.get(key)) is not None and key in self._tighter:
                self._tighter.discard(key)
                if self._wanted(bot) and not self._leader.valid():
                    await self._engage(bot)
                latest = self._bots.get(key)
                if self._leader.valid() and latest is not None and self._wanted(latest):
                    await self._hand_over(latest)
        finally:
            # Within the task, not after it: a wish that comes now finds none and starts another.
            self._tasks.pop(key, None)
            self._alone.pop(key, None)
            self._crowded.discard(key)
            self._tighter.discard(key)
            self._enqueue(key)

    def _wanted(self, bot: SeenBot) -> bool:
        return self._shard.serves(bot) and (bot.safe_mode or bool(self._impositions.on(bot)))

    def _turn(self, key: BotKey, crowd: asyncio.Semaphore) -> AbstractAsyncContextManager[None]:
        """One of many waits for its turn, so that a single one never waits for them."""
        return crowd if key in self._crowded else nullcontext()

    async def _hand_over(self, bot: SeenBot) -> None:
        memory = self._fleet.of(bot)
        try:
            async with self._turn(bot.key, self._crowd):
                if memory.word() is None and (pod := self._pods.get(bot.key)) is not None:
                    # A new leader has no line to this bot yet; it need not wait for its turn.
                    await self._told(bot, pod)
                    return
                await memory.wanted_config(bot, self._bots, self._cluster, self._impositions)
                await memory.hand_over(bot)
        except (ApiError, BotCallError, SpecError, ForeignObjectError, LeaseLostError) as error:
            log.warning("safe mode is not carried yet", bot=str(bot.key), error=str(error))

    async def _engage(self, bot: SeenBot) -> None:
        """Tells the bot as a standby, until it is told, the wish ends, there is no process to tell, or we lead."""
        loop = asyncio.get_running_loop()
        begun, delay = loop.time(), FIRST_RETRY_SECONDS
        head_start = begun + HEAD_START_SECONDS if bot.key in self._crowded else begun
        while loop.time() < head_start and not self._leader.valid():  # noqa: ASYNC110 - a Lease ends without an event
            await asyncio.sleep(HEAD_START_LOOK_SECONDS)
        while not (self._leader.valid() or self._leader.lapsed()) and loop.time() - begun < GIVE_UP_SECONDS:
            latest, pod = self._bots.get(bot.key), self._pods.get(bot.key)
            if latest is None or not self._wanted(latest) or pod is None or pod.owner_uid != latest.uid:
                return
            if not (latest.safe_mode or self.lacks(latest)):
                return
            try:
                async with self._turn(bot.key, self._standby_crowd):
                    told = await self._told(latest, pod)
                if told:
                    log.info("safe mode is carried by a standby", bot=str(bot.key))
                    return
            except (ApiError, BotCallError, SpecError, ForeignObjectError) as error:
                log.warning("safe mode is not carried by a standby yet", bot=str(bot.key), error=str(error))
            await asyncio.sleep(delay)
            delay = min(LONGEST_RETRY_SECONDS, delay * 2)

    async def _told(self, bot: SeenBot, pod: SeenPod) -> bool:
        peer = Peer.of(bot.uid, pod) if pod.owner_uid == bot.uid else None
        if peer is None:
            return False
        # Read anew each time: the leader goes on counting in the ConfigMap.
        ledger = await Memory(bot.uid, bot.key).load_ledger(bot, self._cluster)
        # Nothing is cleared: a former clearing under a new number would clear again what latched since.
        ledger.want_spec(bot, (), self._impositions.on(bot, ledger.imposed))
        calls = BotCalls(peer, self._session, self._tls, epoch=lambda: EPOCH_NOT_LEADER, metrics=self._metrics)
        try:
            await calls.put_config(ledger.config(bot))
        except BotRefusedError as error:
            # The refusal is of the rest: the tightening is taken before the numbers are compared.
            if error.reply.code not in {EPOCH_PAST, STALE_REVISION}:
                raise
        return True
