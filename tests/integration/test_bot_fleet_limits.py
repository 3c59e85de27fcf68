"""Promise of limits over a fleet, with whole bots on a paper exchange: bots that signal in the same moment stay within
them at every trade, by the exchange's own record, though messages between bots and operator are lost, late and repeated
and another leader takes over."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_process import BotFolder, by_hand, settings
from tradingbot.app import BotApp, Options
from tradingbot.model import Side, TradeFill
from tradingbot.monitoring.http_api import ControlError
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus, Grant, Reservation
from tradingbot_operator.budget import Bound, FleetBook, Limits, Told

pytestmark = pytest.mark.integration
SYMBOL = "BTCUSDT"
BOTS = 3
MOST_VALUE = Decimal(800)
MOST_BOTS = 2
BOUND = Decimal(500)
"""Each bot wants so much: two of them do not fit."""
DUST = Decimal(11)
DEADLINE = 120.0


class Operator:
    """The leaders' books, one after another, and the lines to the bots, which lose, delay and repeat messages."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._apps: list[BotApp] = []
        self._epoch = 0
        self.granted: list[Reservation] = []
        self.refused: list[Reservation] = []
        self.lead()

    def lead(self) -> None:
        """Another leader with an empty memory."""
        self._epoch += 1
        self.book = FleetBook(self._epoch)
        self._configure()

    def _configure(self) -> None:
        bounds = {app.desk.identity.uid: Bound(BOUND, BOUND) for app in self._apps}
        self.book.configure(Limits(MOST_VALUE, None, MOST_BOTS), bounds)

    async def follow(self, app: BotApp) -> None:
        """One bot's stream, for as long as it runs."""
        self._apps.append(app)
        self._configure()
        granted_at = 0.0
        async with asyncio.TaskGroup() as group:
            async for line in app.control.status_lines():
                status = BotStatus.model_validate_json(line)
                if status.incarnation is None or self._random.random() < 0.2:
                    continue
                if status.fleet is not None:
                    told = Told(status.bot_uid, status.boot_id, status.incarnation, status.fleet)
                    answer = self.book.hear(told, time.monotonic())
                    if answer is not None:
                        self._note(answer)
                        for _ in range(self._random.choice((0, 1, 1, 1, 2))):
                            group.create_task(self._send(app, answer))
                if time.monotonic() - granted_at > 20:
                    grant = Grant(
                        bot_uid=status.bot_uid, boot_id=status.boot_id, incarnation=status.incarnation,
                        revision=status.applied_revision, status_sequence=status.sequence, epoch=self._epoch,
                    )  # fmt: skip
                    with suppress(ControlError):  # the next line is another try
                        await app.control.put_grant(grant)
                        granted_at = time.monotonic()

    def _note(self, answer: Reservation) -> None:
        if answer.request is not None:
            (self.granted if answer.exposure > 0 else self.refused).append(answer)

    async def _send(self, app: BotApp, answer: Reservation) -> None:
        await asyncio.sleep(self._random.choice((0.0, 0.0, 0.3)))
        with suppress(ControlError):  # of a former leader, late
            await app.control.put_reservation(answer)


def make(root: Path, exchange: PaperExchange, account: TestAccount, number: int) -> BotApp:
    """A bot of a limited fleet whose account is its own."""
    risk = {"riskPerTradeRatio": "0.5"}
    identity = BotIdentity(namespace="test", name=f"bot-{number}", uid=f"uid-{number}")
    config = BotConfig(
        revision=1, bot=identity, settings=settings(exchange.base_url, risk=risk), fleet_limited=True
    )  # fmt: skip
    folder = BotFolder.make(root, config)
    folder.write_keys(account)
    return BotApp(
        Options(
            config=config, credentials_dir=root / "keys", state_dir=root / "state", tls_dir=root / "tls",
        )
    )  # fmt: skip


def check(trades: list[tuple[int, TradeFill]]) -> tuple[Decimal, int]:
    """Follows the cost of what each account holds from trade to trade; the most value and bots that there were."""
    held = [Decimal(0)] * BOTS
    cost = [Decimal(0)] * BOTS
    most_value, most_bots = Decimal(0), 0
    for number, fill in sorted(trades, key=lambda item: item[1].trade_id):
        if fill.side is Side.BUY:
            held[number] += fill.quantity - (fill.commission if fill.commission_asset == "BTC" else 0)
            cost[number] += fill.quantity * fill.price
        else:
            cost[number] *= 1 - fill.quantity / held[number]
            held[number] -= fill.quantity
        most_value = max(most_value, sum(cost, Decimal(0)))
        most_bots = max(most_bots, sum(one > DUST for one in cost))
    return most_value, most_bots


async def test_bots_that_signal_in_the_same_moment_stay_within_the_limits_of_their_fleet(
    tmp_path: Path, exchange_beside: PaperExchange
) -> None:
    exchange, operator = exchange_beside, Operator(Random(1))
    accounts = [await exchange.create_account(USDT="10000") for _ in range(BOTS)]
    apps = [make(tmp_path / str(number), exchange, account, number) for number, account in enumerate(accounts)]
    async with AsyncExitStack() as stack:
        running = [asyncio.create_task(app.run()) for app in apps]
        lines = [asyncio.create_task(operator.follow(app)) for app in apps]
        try:
            deadline, leads = time.monotonic() + DEADLINE, 1
            while len(operator.granted) < 8 or len(operator.refused) < 4:
                assert time.monotonic() < deadline, (len(operator.granted), len(operator.refused))
                assert [task for task in running + lines if task.done()] == []
                if leads == 1 and len(operator.granted) >= 4:
                    operator.lead()
                    leads += 1
                await asyncio.sleep(0.2)
        finally:
            for app in apps:
                app.stop()
            await asyncio.gather(*running)
            for task in lines:
                task.cancel()
            await asyncio.gather(*lines, return_exceptions=True)
        hands = [await stack.enter_async_context(by_hand(exchange, account)) for account in accounts]
        trades = [(n, fill) for n, hand in enumerate(hands) for fill in await hand.trades(SYMBOL, from_id=0)]
    most_value, most_bots = check(trades)
    print(f"{len(trades)} trades, at most {most_value} of {MOST_VALUE} in {most_bots} bots; "
          f"{len(operator.granted)} granted, {len(operator.refused)} refused")  # fmt: skip
    assert most_value <= MOST_VALUE
    assert most_bots <= MOST_BOTS
    # Bots did share the limits, and one of them got less than it asked for.
    assert most_bots == MOST_BOTS
    assert most_value > BOUND
    assert any(0 < one.exposure < Decimal(400) for one in operator.granted)
