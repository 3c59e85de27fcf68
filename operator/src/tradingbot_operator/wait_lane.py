"""The fast lane of a demanded wait: what the exchange tells one bot goes to all of its address or account at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final

import structlog

from tradingbot_api.bot_http import EPOCH_PAST, BotStatus, ExchangeWait
from tradingbot_operator.bot_link import BotCallError, BotRefusedError
from tradingbot_operator.egress import ExchangeWaits, turns
from tradingbot_operator.fleet import Fleet, Memory
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot
from tradingbot_operator.leader import Leader, LeaseLostError

AT_ONCE: Final = 64
"""Calls under way at the same time: more only take the loop's time from one another."""
RETRY_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class WaitLane:
    """A task for each bot that has to be told, past the work queue; each is told until it answers or is gone.

    What is told is level-based: whoever connects or restarts within the wait is told with its first word. `of_orders`:
    the wait is of an account's entries, after -1015, and `address_of` gives the account, None while it is not known.
    """

    def __init__(
        self,
        address_of: Callable[[SeenBot], tuple[str, str] | None],
        weight_per_minute: int,
        *,
        bots: Inventory[SeenBot],
        fleet: Fleet,
        leader: Leader,
        now: Callable[[], datetime],
        of_orders: bool = False,
    ) -> None:
        self._of_orders = of_orders
        self._address_of = address_of
        self._weight_per_minute = weight_per_minute
        self._bots = bots
        self._fleet = fleet
        self._leader = leader
        self._now = now
        self._waits = ExchangeWaits()
        self._turns: dict[tuple[str, str], dict[BotKey, float]] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[BotKey, asyncio.Task[None]] = {}

    def heard(self, bot: SeenBot, memory: Memory, status: BotStatus) -> bool:
        """A bot said something; whether it is the first to tell of a wait. Never waits."""
        address, now = self._address_of(bot), self._now()
        if address is None:
            return False
        news, told = False, self._told(status)
        if told is not None:
            # A bot whose clock is ahead would make the others wait for longer than it has to itself.
            told = min(told, now + max(timedelta(), told - status.time))
            news = self._waits.tell(address, told, now)
            if news:
                self._spread(address, told)
        until = self._waits.until(address, now)
        if until is not None and memory.wait_told.get(self._of_orders) != (status.boot_id, until):
            self._begin(bot.key)
        return news

    def saw(self, bot: SeenBot) -> None:
        """The status of another shard's bot was seen: its operator wrote what that bot told first. Never waits."""
        until = bot.told.api.wait_until_time if bot.told.api is not None else None
        if until is None:
            return
        address, now = self._address_of(bot), self._now()
        if address is not None and self._waits.tell(address, until, now):
            self._spread(address, until)

    def _told(self, status: BotStatus) -> datetime | None:
        if self._of_orders:
            return status.order_use.refused_until_time if status.order_use is not None else None
        return status.api.wait_until_time if status.api is not None else None

    def _spread(self, address: tuple[str, str], until: datetime) -> None:
        members = [(bot.key, self._holds(bot)) for bot in self._bots if self._address_of(bot) == address]
        if self._of_orders:
            log.warning("the exchange refuses orders of an account", bots=len(members), until=until.isoformat())
        else:
            log.warning("the exchange makes an address wait", address=" ".join(address), until=until.isoformat())
        self._turns[address] = turns(members, until, self._weight_per_minute)
        # Those that hold a position are told first too; who is of another shard, by its own operator.
        for key, _ in sorted(members, key=lambda member: not member[1]):
            if self._fleet.known(key) is not None:
                self._begin(key)

    def _holds(self, bot: SeenBot) -> bool:
        if (memory := self._fleet.known(bot.key)) is not None:
            return memory.told_position
        return bot.told_position

    def _begin(self, key: BotKey) -> None:
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._carry(key), name=f"wait {key}")

    async def _carry(self, key: BotKey) -> None:
        try:
            with suppress(LeaseLostError):
                while True:
                    if not await self._owes(key):
                        return
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._tasks.pop(key, None)

    async def _owes(self, key: BotKey) -> bool:
        """Tells a bot; whether it has to be told again."""
        async with self._slots:
            bot, memory = self._bots.get(key), self._fleet.known(key)
            word = memory.word() if memory is not None else None
            if bot is None or memory is None or memory.link is None or word is None or bot.uid != memory.uid:
                return False  # its next word begins anew
            address, now, boot = self._address_of(bot), self._now(), word.status.boot_id
            until = self._waits.until(address, now) if address is not None else None
            if address is None or until is None or memory.wait_told.get(self._of_orders) == (boot, until):
                return False
            seconds = (until - now).total_seconds()
            wait = ExchangeWait(
                bot_uid=bot.uid,
                boot_id=boot,
                epoch=self._leader.epoch,
                until_time=now if self._of_orders else until,
                seconds=0.0 if self._of_orders else seconds,
                turn_seconds=_turn(self._turns.get(address, {}), key),
                orders_until_time=until if self._of_orders else None,
                orders_seconds=seconds if self._of_orders else 0.0,
            )
            try:
                await memory.link.put_wait(wait)
            except BotRefusedError as error:
                log.warning("a bot refused to be told of a wait", bot=str(key), error=str(error))
                if error.reply.code == EPOCH_PAST:
                    return True  # a step raises the epoch
            except BotCallError as error:
                log.info("a bot is not told of a wait yet", bot=str(key), error=str(error))
                return True
            memory.wait_told[self._of_orders] = (boot, until)
            return self._waits.until(address, now) != until

    async def close(self) -> None:
        """Ends what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _turn(turns: Mapping[BotKey, float], key: BotKey) -> float:
    """Of a bot that came since the wait began, the last one."""
    return turns.get(key, max(turns.values(), default=0.0))
