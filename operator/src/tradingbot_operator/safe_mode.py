"""The fast lane of spec.safeMode: it goes to the bot at once, past the work queue and whatever fills it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

import aiohttp
import structlog

from tradingbot_api.bot_http import EPOCH_NOT_LEADER, EPOCH_PAST, STALE_REVISION
from tradingbot_operator.bot_link import BotCallError, BotCalls, BotRefusedError, Peer
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.desired import SpecError
from tradingbot_operator.fleet import Fleet, ForeignObjectError, Memory
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader, LeaseLostError
from tradingbot_operator.metrics import Metrics

FIRST_RETRY_SECONDS: Final = 0.5
LONGEST_RETRY_SECONDS: Final = 5.0
GIVE_UP_SECONDS: Final = 60.0
"""A standby's tries: by then there is a leader, or no grant is left."""

log = structlog.get_logger(__name__)


class SafeModeLane:
    """One task for each TradingBot whose safeMode changed; a tightening is handed over with the whole configuration.

    `cluster` is a client of this lane alone: it may have to read a ConfigMap while the other is busy. What
    fails in the leader (no pod, no answer) is left to the steps of the work queue, which repeat it until it holds.

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
        tls: ssl.SSLContext,
        session: aiohttp.ClientSession,
        metrics: Metrics,
        enqueue: Callable[[BotKey], None],
    ) -> None:
        self._cluster = cluster
        self._bots = bots
        self._pods = pods
        self._fleet = fleet
        self._leader = leader
        self._tls = tls
        self._session = session
        self._metrics = metrics
        self._enqueue = enqueue
        self._tasks: dict[BotKey, asyncio.Task[None]] = {}

    def notice(self, bot: SeenBot) -> None:
        """spec.safeMode is another than before. Never waits."""
        self._fleet.of(bot).wish(asyncio.get_running_loop().time(), safe=bot.safe_mode)
        if bot.key not in self._tasks:
            self._tasks[bot.key] = asyncio.create_task(self._carry(bot.key), name=f"safe mode {bot.key}")

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, key: BotKey) -> None:
        carried: bool | None = None
        try:
            # The wish may change while it is carried: the last one counts.
            while (bot := self._bots.get(key)) is not None and bot.safe_mode is not carried:
                carried = bot.safe_mode
                if carried:
                    await (self._hand_over(bot) if self._leader.valid() else self._engage(bot))
        finally:
            # Within the task, not after it: a wish that comes now finds none and starts another.
            self._tasks.pop(key, None)
            self._enqueue(key)

    async def _hand_over(self, bot: SeenBot) -> None:
        memory = self._fleet.of(bot)
        try:
            if memory.word() is None and (pod := self._pods.get(bot.key)) is not None:
                # A new leader has no line to this bot yet; it need not wait for its turn.
                await self._told(bot, pod)
                return
            await memory.wanted_config(bot, self._bots, self._cluster)
            await memory.hand_over(bot)
        except (ApiError, BotCallError, SpecError, ForeignObjectError, LeaseLostError) as error:
            log.warning("safe mode is not carried yet", bot=str(bot.key), error=str(error))

    async def _engage(self, bot: SeenBot) -> None:
        """Tells the bot as a standby, until it is told, the wish ends, or there is no process to tell."""
        loop = asyncio.get_running_loop()
        begun, delay = loop.time(), FIRST_RETRY_SECONDS
        while not (self._leader.valid() or self._leader.lapsed()) and loop.time() - begun < GIVE_UP_SECONDS:
            latest, pod = self._bots.get(bot.key), self._pods.get(bot.key)
            if latest is None or not latest.safe_mode or pod is None or pod.owner_uid != latest.uid:
                return
            try:
                if await self._told(latest, pod):
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
        ledger.want_spec(bot)
        calls = BotCalls(peer, self._session, self._tls, epoch=EPOCH_NOT_LEADER, metrics=self._metrics)
        try:
            await calls.put_config(ledger.config(bot))
        except BotRefusedError as error:
            # The refusal is of the rest: the tightening is taken before the numbers are compared.
            if error.reply.code not in {EPOCH_PAST, STALE_REVISION}:
                raise
        return True
