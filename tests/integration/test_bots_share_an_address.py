"""Many bots that start at once behind one address: no request of theirs is one too many for the exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from paper_exchange.virtual_loop import VirtualLoop
from support.shared_address import Address, on_virtual_time, shared_address
from tradingbot_api.bot_http import START_WEIGHT

pytestmark = pytest.mark.integration
BOTS, LIMIT = 4, 800


async def until(what: str, done: Callable[[], bool], loop: VirtualLoop, seconds: float) -> None:
    """Looks each virtual second."""
    end = loop.time() + seconds
    while not done():
        assert loop.time() < end, f"{what}: not in {seconds} s"
        await asyncio.sleep(1)


def known(it: Address) -> set[int]:
    """How many bots share the address, as the bots know."""
    return {app.desk.budget.address_bots for app in it.apps.values()}


def test_bots_that_start_at_once_paced_or_by_themselves_never_have_a_request_refused(tmp_path: Path) -> None:
    assert BOTS * START_WEIGHT > LIMIT, "all at once would be too much"

    async def scene(loop: VirtualLoop) -> None:
        async with shared_address(loop, tmp_path, LIMIT) as it:
            bots = [await it.make(number) for number in range(BOTS)]
            granting = loop.create_task(it.grant())
            starting = [loop.create_task(it.start_paced(bot)) for bot in bots]
            await until("all paced starts", lambda: it.connected() == BOTS, loop, 300)
            assert all(start.done() for start in starting)
            await until("their group to be known", lambda: known(it) == {BOTS}, loop, 60)

            # Their node comes back, and no operator is there: only their stores know of the others.
            granting.cancel()
            await it.stop()
            for bot in bots:
                it.start(bot)
            await until("all starts by themselves", lambda: it.connected() == BOTS, loop, 400)

            assert known(it) == {BOTS}
            assert not it.refused
            assert max(it.used.values()) <= LIMIT

    on_virtual_time(scene)
