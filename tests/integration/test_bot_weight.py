"""The request weight of an address is used up by whoever shares it: reads wait, an exit still goes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange
from support.bot_orders import SYMBOL, bot_side
from tradingbot.gateway.errors import NotSentError
from tradingbot.gateway.rate_limits import MINUTE_MS
from tradingbot.orders.types import ExitOutcome

pytestmark = pytest.mark.integration
LIMIT = 3_000
DEPTH_WEIGHT = 250


async def use_up(paper: PaperExchange, weight: int) -> None:
    """Somebody else at the bot's address."""
    for _ in range(weight // DEPTH_WEIGHT):
        url = f"{paper.base_url}/api/v3/depth"
        async with paper.session.get(url, params={"symbol": SYMBOL, "limit": "5000"}) as answer:
            assert answer.status == 200


async def test_with_a_used_up_budget_reads_wait_and_an_exit_still_goes(tmp_path: Path) -> None:
    shift = MINUTE_MS - wall_clock_ms() % MINUTE_MS  # the exchange's minute begins with the test
    options = Options(symbols=(SYMBOL,), weight_per_minute=LIMIT)
    async with running_paper_exchange(options, wall_ms=lambda: wall_clock_ms() + shift) as paper:
        account = await paper.create_account(USDT="10000")
        async with bot_side(paper, account, tmp_path / "bot.db") as bot:
            begun = time.monotonic()
            await bot.enter()
            await use_up(paper, LIMIT * 3 // 4)
            await bot.orders.reconcile()  # its answers tell the bot
            with pytest.raises(NotSentError, match="next minute's request weight"):
                await bot.exchange.candles(SYMBOL, "1m")
            with pytest.raises(NotSentError, match="next minute's request weight"):
                await bot.exchange.commission(SYMBOL)
            await bot.exchange.ping()  # nothing can be signed without the time
            calls = bot.exchange.counts.calls

            assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT

            assert time.monotonic() - begun < 50, "the minute ended before the test did"
            assert bot.exchange.counts.calls > calls
