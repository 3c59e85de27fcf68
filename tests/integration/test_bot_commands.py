"""Promises of `tradingbot status` and `tradingbot flatten`, beside a running bot and without one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_process import BotFolder, bot_process, by_hand, hold, make
from support.emergency import Emergency, run_emergency
from tradingbot.__main__ import main
from tradingbot.app import StartError
from tradingbot.commands.flatten import by_itself, is_done, is_flat, until_done
from tradingbot.monitoring.local_api import SOCKET_FILE

pytestmark = pytest.mark.integration
Call = Callable[..., Any]


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000")


@pytest.fixture
def folder(tmp_path: Path, exchange: PaperExchange, account: TestAccount) -> BotFolder:
    return make(tmp_path, exchange, account)


@pytest.fixture
def call(folder: BotFolder, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command on the folder: its exit code, what it said, and what it complained of."""

    async def run(command: str, *options: str) -> tuple[int, str, str]:
        paths = ["--state-dir", str(folder.root / "state"), "--credentials-dir", str(folder.root / "keys")]
        code = await asyncio.to_thread(main, [command, *paths, *options])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


async def held(exchange: PaperExchange, account: TestAccount) -> tuple[Decimal, list[int]]:
    """Base and open orders, by the exchange."""
    async with by_hand(exchange, account) as hand:
        orders = await hand.open_orders("BTCUSDT")
        return (await hand.account()).balance("BTC").total, sorted(order.order_id for order in orders)


async def test_a_running_bot_tells_its_status_and_flattens_when_it_is_asked_on_its_state_directory(
    folder: BotFolder, exchange: PaperExchange, account: TestAccount, call: Call
) -> None:
    async with bot_process(folder) as bot:
        position = await hold(bot, folder, exchange)
        code, out, _ = await call("status", "--json")
        told = json.loads(out)
        assert (code, told["running"]) == (0, True)
        assert told["status"]["bootId"] == bot.status.boot_id
        assert (folder.root / "state" / SOCKET_FILE).stat().st_mode & 0o077 == 0

        before = await held(exchange, account)
        code, _, err = await call("flatten")
        assert code == 2
        assert "expected a terminal to type BTCUSDT at, or --yes" in err
        assert await held(exchange, account) == before

        code, out, err = await call("flatten", "--yes")
        assert (code, err) == (0, "")
        base, orders = await held(exchange, account)
        assert orders == []
        assert base < Decimal("0.00001")
        assert f"sold {position.quantize(Decimal('0.00001'), ROUND_DOWN)} for" in out
        assert "flattened (ReduceOnly)" in out
        # It signals at each crossing, with a grant: safe mode alone keeps it flat.
        assert bot.status.safe_mode.level == "ReduceOnly"
        await bot.kill()
    code, out, _ = await call("status")
    assert code == 0
    assert "no bot runs: read from its store and the exchange" in out
    assert "flattened (ReduceOnly)" in out


# --- on virtual time, by the exchange's own books ---


def test_flatten_sells_at_once_and_nothing_is_bought_before_a_human_clears_it() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        await until_done(world.app.local.flatten, world.status, 60)
        assert world.flat
        assert world.resting == set()
        assert world.session.may_enter() == "Flattened"
        await world.stop()
        world.app, again = (bot := world.process()), asyncio.create_task(bot.run())
        await world.until("a bot that is flattened still", lambda: world.status.ready and world.causes == {"flattened"})
        world.app.stop()
        await again

    assert run_emergency(befall).unprotected < 1


def test_a_flatten_that_the_exchange_lets_wait_keeps_the_stop_and_is_done_later_by_any_process() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.fault("banned", **{"for": 300})
        after = await until_done(world.app.local.flatten, world.status, 30)
        assert not is_flat(after.status)
        assert world.stops() == [stop]
        await world.stop()
        assert world.stops() == [stop]
        world.app, again = (bot := world.process()), asyncio.create_task(bot.run())
        await world.until("no position", lambda: world.flat, 400)
        world.app.stop()
        await again

    assert run_emergency(befall).unprotected < 1


def test_where_no_bot_runs_a_look_changes_nothing_and_flatten_is_a_process_start_like_any() -> None:
    async def befall(world: Emergency) -> None:
        world.cancel_by_hand(await world.hold())
        await world.until("its protection again", world.stops)
        incarnation = world.status.incarnation
        assert incarnation is not None
        await world.stop()
        orders = world.orders
        seen = (await world.process().look()).status
        assert (position := seen.position) is not None
        assert position.quantity == world.held
        assert next(one for one in seen.conditions if one.type == "BalanceSynced").status == "True"
        assert [order.type for order in seen.open_orders] == ["STOP_LOSS", "LIMIT_MAKER"]

        world.cancel_by_hand(world.stops()[0])
        naked = await world.process().look()
        assert next(one for one in naked.status.conditions if one.type == "Protected").reason == "Unprotected"
        assert world.orders == orders  # a look repairs nothing

        after = await by_itself(world.process(flatten=True), naked.status, 60)
        assert is_done(after.status, naked.status)
        assert world.flat
        assert after.status.incarnation is not None
        assert after.status.incarnation > incarnation
        assert (await world.process().look()).status.safe_mode.level == "ReduceOnly"

    run_emergency(befall)


def test_a_look_while_nobody_buys_tells_no_loss() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        await world.stop()
        world.buyers = False
        world.quote()
        seen = (await world.process().look()).status
        assert seen.pnl is None or seen.pnl.unrealized > -1, seen.pnl

    run_emergency(befall)


def test_flatten_takes_no_part_where_another_process_has_the_state_directory() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        with pytest.raises(StartError, match="is in use by process"):
            await by_itself(world.process(flatten=True), world.status, 60)
        assert world.stops() == [stop]

    run_emergency(befall)
