"""The fast lane of spec.safeMode: a change goes to the bot at once, past the work queue and whatever fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tradingbot_operator.bot_link import BotCallError
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.desired import SpecError
from tradingbot_operator.fleet import Fleet, ForeignObjectError
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot

log = structlog.get_logger(__name__)


class SafeModeLane:
    """One task for each TradingBot whose safeMode changed; it hands the whole configuration over and ends.

    `cluster` is a client of this lane alone: it may have to read a ConfigMap while the other is busy. What
    fails here (no pod, no answer) is left to the steps of the work queue, which repeat it until it holds.
    """

    def __init__(
        self, cluster: Cluster, bots: Inventory[SeenBot], fleet: Fleet, enqueue: Callable[[BotKey], None]
    ) -> None:
        self._cluster = cluster
        self._bots = bots
        self._fleet = fleet
        self._enqueue = enqueue
        self._tasks: dict[BotKey, asyncio.Task[None]] = {}

    def notice(self, bot: SeenBot) -> None:
        """spec.safeMode is another than before. Never waits."""
        self._fleet.of(bot).wish(asyncio.get_running_loop().time(), safe=bot.safe_mode)
        if bot.key not in self._tasks:
            task = asyncio.create_task(self._carry(bot.key), name=f"safe mode {bot.key}")
            self._tasks[bot.key] = task
            task.add_done_callback(lambda _: self._tasks.pop(bot.key, None))

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, key: BotKey) -> None:
        carried: bool | None = None
        # The wish may change while it is carried: the last one counts.
        while (bot := self._bots.get(key)) is not None and bot.safe_mode is not carried:
            carried = bot.safe_mode
            memory = self._fleet.of(bot)
            try:
                await memory.wanted_config(bot, self._bots, self._cluster)
                await memory.hand_over(bot)
            except (ApiError, BotCallError, SpecError, ForeignObjectError) as error:
                log.warning("safe mode is not carried yet", bot=str(key), safe_mode=carried, error=str(error))
        self._enqueue(key)
