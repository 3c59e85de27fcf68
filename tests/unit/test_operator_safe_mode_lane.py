"""Promises of the fast lane of safe mode that need no bot: no wish is lost, whenever it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from support.operator_objects import seen_bot
from tradingbot_operator.fleet import Fleet
from tradingbot_operator.imposed import NOBODY
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot
from tradingbot_operator.safe_mode import PASS_SECONDS, SafeModeLane

OFF, ON = seen_bot(safeMode=None), seen_bot(safeMode=True)


class Looks(Inventory[SeenBot]):
    """Runs `at_last` from the event loop right after the lane looked for the last time."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.at_last: Any = None

    def get(self, key: BotKey) -> SeenBot | None:
        self.looks += 1
        if self.looks == 3:
            asyncio.get_running_loop().call_soon(self.at_last)
        return super().get(key)


def made(kind: type[SafeModeLane], bots: Inventory[SeenBot], enqueue: Callable[[BotKey], None]) -> SafeModeLane:
    """The lane of a standby that reaches neither cluster nor bots."""
    return kind(
        None, bots=bots, pods=Inventory(), fleet=Fleet(), leader=SimpleNamespace(valid=lambda: False),
        impositions=NOBODY, tls=None, session=None, metrics=None, enqueue=enqueue,
    )  # type: ignore[arg-type]  # fmt: skip


async def test_a_wish_that_comes_while_the_lane_ends_is_carried_too() -> None:
    bots, told = Looks(), []
    stepped: asyncio.Queue[BotKey] = asyncio.Queue()
    bots.see(ON)

    class Lane(SafeModeLane):
        async def _engage(self, bot: SeenBot) -> None:
            told.append(bot.safe_mode)

    lane = made(Lane, bots, stepped.put_nowait)

    def off_and_on() -> None:
        for bot in (OFF, ON):
            lane.notice(bot)

    bots.at_last = off_and_on
    lane.notice(ON)
    async with asyncio.timeout(5):
        assert [await stepped.get(), await stepped.get()] == [ON.key, ON.key]
    assert told == [True, True]


async def test_an_operator_that_begins_carries_at_once_what_nobody_told_a_bot_and_nothing_else() -> None:
    def told(*reasons: str) -> dict[str, Any]:
        causes = [{"id": "x", "source": "x", "reason": reason, "level": "NoNewEntries"} for reason in reasons]
        return {"safeMode": {"level": "Normal", "engaged": bool(reasons), "acknowledged": True, "causes": causes}}

    class Lane(SafeModeLane):
        async def _engage(self, bot: SeenBot) -> None:
            told_bots.append(bot.key.name)

    told_bots: list[str] = []
    seen = [
        seen_bot(metadata={"name": "lacks"}, status=told("AwaitingGrant"), safeMode=True),
        seen_bot(metadata={"name": "knows"}, status=told("Spec"), safeMode=True),
        seen_bot(metadata={"name": "never-spoke"}, status={}, safeMode=True),
        seen_bot(metadata={"name": "trades"}, status=told()),
    ]
    bots, stepped = Inventory[SeenBot](), asyncio.Queue[BotKey]()
    lane = made(Lane, bots, stepped.put_nowait)
    for bot in seen:
        bots.see(bot)
    lane.notice_imposed(seen)
    async with asyncio.timeout(5):
        assert (await stepped.get()).name == "lacks"
    assert told_bots == ["lacks"]
    await lane.close()


async def test_a_bot_whose_wish_cannot_be_carried_is_looked_at_by_a_step() -> None:
    bots = Looks()
    stepped: asyncio.Queue[BotKey] = asyncio.Queue()
    bots.see(ON)

    class Lane(SafeModeLane):
        async def _engage(self, bot: SeenBot) -> None:
            raise RuntimeError("unexpected")

    lane = made(Lane, bots, stepped.put_nowait)
    lane.notice(ON)
    async with asyncio.timeout(5):
        assert await stepped.get() == ON.key


async def test_other_work_lets_a_wish_for_one_bot_pass_and_waits_a_moment_only_for_one_that_does_not_answer() -> None:
    bots, answers, loop = Inventory[SeenBot](), asyncio.Event(), asyncio.get_running_loop()
    bots.see(ON)

    class Lane(SafeModeLane):
        async def _engage(self, bot: SeenBot) -> None:
            await answers.wait()

    silent, begun = made(Lane, bots, lambda _: None), loop.time()
    silent.notice(ON)
    await silent.let_pass()
    assert loop.time() - begun >= PASS_SECONDS
    begun = loop.time()
    await silent.let_pass()
    assert loop.time() - begun < PASS_SECONDS
    answering = made(Lane, bots, lambda _: None)
    answering.notice(ON)
    work = asyncio.create_task(answering.let_pass())
    await asyncio.sleep(0)
    assert not work.done()
    answers.set()
    await asyncio.sleep(0.01)
    assert work.done()
    await silent.close()
