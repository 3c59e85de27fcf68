"""A bot whose store fails, is damaged, full or read-only, or whose exchange was reset, keeps its position protected."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import bot_side
from support.bot_process import (
    DAILY,
    BotProcess,
    bot_process,
    by_hand,
    config,
    enter,
    flat,
    hold,
    long,
    make,
    position,
    settings,
)
from support.waiting import until
from tradingbot.app import STORE_FILE, BotApp, Options
from tradingbot.gateway import binance
from tradingbot_api.bot_http import BotStatus
from tradingbot_api.v1alpha1 import Exchange

pytestmark = pytest.mark.integration


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000")


@contextmanager
def small_volume(path: Path) -> Iterator[Path]:
    """A file system of 2 MiB at `path`; the test is skipped where none can be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill_up(volume: Path) -> Path:
    """Take all the room that there is; returns the file that does."""
    filler = volume / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def causes(status: BotStatus) -> set[str]:
    return {cause.id for cause in status.safe_mode.causes}


async def protected_again(bot: BotProcess, exchange: PaperExchange, account: TestAccount) -> None:
    """The protection, taken off by hand, is restored."""
    async with by_hand(exchange, account) as hand:
        order = (await hand.open_orders("BTCUSDT"))[0]
        await hand.cancel_list("BTCUSDT", order.order_list_id, "hand-1", hand.stamp())
    deadline = time.monotonic() + 20
    while len(found := (await exchange.account(account.uid))["openOrders"]) < 2 or order.order_id in {
        one["orderId"] for one in found
    }:
        assert time.monotonic() < deadline, "".join(bot.log[-20:])
        await asyncio.sleep(0.1)


async def end(bot: BotProcess) -> None:
    """As a pod ends."""
    bot.process.terminate()
    assert await bot.process.wait() == 0


async def test_a_full_volume_stops_entries_and_nothing_else_until_there_is_room(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    with small_volume(folder.root / "state") as volume:
        async with bot_process(folder) as bot:
            held = await hold(bot, folder, exchange)
            filler = fill_up(volume)
            await protected_again(bot, exchange, account)
            status = await bot.until(lambda status: "store" in causes(status), 10)
            assert "full" in next(cause.clears for cause in status.safe_mode.causes if cause.id == "store")
            assert status.safe_mode.level == "NoNewEntries"
            filler.unlink()
            await bot.until(lambda status: "store" not in causes(status), 20)
            await bot.kill()
        async with bot_process(folder) as bot:
            assert position(await bot.until(lambda status: status.ready and long(status))) == held
            assert bot.condition("BalanceSynced") == ("True", "Exact")


def of_later_version(volume: Path) -> Callable[[], object]:
    file = volume / STORE_FILE
    content = file.read_bytes()
    file.write_bytes(content[:60] + (99).to_bytes(4, "big") + content[64:])  # where SQLite keeps user_version
    return lambda: file.write_bytes(content)


def full(volume: Path) -> Callable[[], object]:
    return fill_up(volume).unlink


def read_only(volume: Path) -> Callable[[], object]:
    def change(mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(volume)], check=True)

    change("ro")
    return lambda: change("rw")


async def test_a_start_without_its_store_looks_after_the_position_and_takes_the_store_up_when_it_is_back(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    with small_volume(folder.root / "state") as volume:
        async with bot_process(folder) as bot:
            held = await hold(bot, folder, exchange)
            await end(bot)
        for spoil in (of_later_version, full, read_only):
            mend = spoil(volume)
            async with bot_process(folder) as bot:
                await bot.until(lambda status: status.incarnation is not None and "store" in causes(status))
                assert bot.status.safe_mode.level != "ReduceOnly"
                await bot.grant()
                await bot.until(lambda status: causes(status) == {"store"}, 10)
                await protected_again(bot, exchange, account)
                assert position(await bot.until(long)) == held
                if spoil is not read_only:
                    await end(bot)
                mend()
                if spoil is read_only:
                    await bot.until(lambda status: status.ready and causes(status) == set() and long(status), 30)
                    assert bot.condition("BalanceSynced") == ("True", "Exact")
                    assert position(bot.status) == held


async def test_a_damaged_store_is_kept_beside_a_new_one_and_a_human_must_look(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        held = await hold(bot, folder, exchange)
        await end(bot)
    damaged = b"SQLite format 3\x00" + b"\xff" * 5000
    (folder.root / "state" / STORE_FILE).write_bytes(damaged)
    for _ in range(2):
        async with bot_process(folder) as bot:
            await bot.until(lambda status: status.incarnation is not None)
            await bot.grant()
            status = await bot.until(lambda status: causes(status) == {"store-lost"} and long(status))
            assert position(status) == held
            (kept,) = (folder.root / "state").glob("bot-*.db")
            assert kept.read_bytes() == damaged
            assert kept.name in status.safe_mode.causes[0].clears
            await bot.kill()


async def test_after_a_reset_of_the_exchange_a_human_lets_the_bot_begin_with_new_books(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        await hold(bot, folder, exchange)
        await exchange.reset(USDT="5000")
        await bot.until(lambda status: "exchange-reset" in causes(status), 60)
        assert bot.status.safe_mode.level == "Halted"
        anew = config(settings(exchange.base_url), 99).model_copy(update={"cleared_causes": ["exchange-reset"]})
        assert (await bot.call("PUT", "/v1/config", anew))[0] == 200
        await bot.until(lambda status: status.ready and flat(status) and "exchange-reset" not in causes(status))
        assert bot.condition("BalanceSynced") == ("True", "Exact")
        assert bot.status.pnl is not None
        assert bot.status.pnl.realized == 0
        assert len(list((folder.root / "state").glob("bot-*.db"))) == 1
        await enter(bot)


async def test_a_lost_store_on_live_lets_no_entry_through_until_a_human_confirms(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    paper = settings(exchange.base_url, strategy=DAILY)
    addresses = binance.endpoints(paper.exchange)
    monkeypatch.setattr(binance, "endpoints", lambda _: addresses)
    where = Exchange.model_validate(
        {"environment": "Live", "allowWithdrawKey": True, "credentialsSecretRef": {"name": "keys"}}
    )
    live = config(paper.model_copy(update={"exchange": where}))
    folder = make(tmp_path, exchange, account)
    async with bot_side(exchange, account, tmp_path / "former.db", stream=False) as former:
        await former.enter()
    for confirmed in (False, True):
        app = BotApp(Options(config=live, credentials_dir=folder.root / "keys", state_dir=folder.root / "state"))
        running = asyncio.create_task(app.run())
        await until("a session", lambda app=app: app.desk.session is not None or app.desk.connection_problem)
        assert app.desk.safe_mode.has("store-lost"), running
        assert app._forbidden() == "StoreFailed"
        if confirmed:
            app.desk.clear(["store-lost"])
            assert app._forbidden() is None
        app.stop()
        await running
