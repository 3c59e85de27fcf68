"""Measures a bot on a paper exchange: start to ready, market event to order, memory with a history, memory over time.

make bench-bot; a part alone: make bench-bot PARTS="start soak" MINUTES=60
The machine's load stands beside each figure: the exchange and this program run on the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from pathlib import Path
from typing import Any

import aiohttp
import structlog
import uvloop

from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange
from performance.measure_paper_exchange import (
    SYMBOL,
    connections,
    load,
    resident_mib,
    signed,
)
from support.bot_process import BotFolder, BotProcess, bot_process, config, make, settings
from tradingbot.app import BotApp, Options
from tradingbot.gateway.streams import Streams
from tradingbot.model import Candle
from tradingbot.orders.tracker import MOST_DONE
from tradingbot.recovery.fence import ClientId, Purpose
from tradingbot.session import Session
from tradingbot.state.store import Store
from tradingbot_api import names

STARTS = 10
TRADES = 10_000
TAKER_RATE = Decimal("0.001")
NO_LIMIT = 10_000_000
"""Request weight: what is measured is not how long an address waits."""
IDLE = {"interval": "1d"}
WARM_UP = 0.2
"""Share of a soak that is not looked at; at least until as many orders are done as a bot remembers."""
WARM_UP_TRADES = MOST_DONE // 3
"""Round trips of so many orders: entry, stop, take-profit, and a sale or not."""
SAMPLE_SECONDS = 5.0
BLOCK_SECONDS = 60.0
"""A soak's samples are averaged over so long: neighbours in time are alike, and would narrow the bound."""


@asynccontextmanager
async def exchange_and_bot(**changes: Any) -> AsyncIterator[tuple[PaperExchange, TestAccount, BotFolder]]:
    """A paper exchange, an account there and the files of a bot."""
    with tempfile.TemporaryDirectory() as folder:
        async with spawn_paper_exchange(
            Path(folder) / "exchange", symbols=SYMBOL, weight_per_minute=NO_LIMIT, log=subprocess.DEVNULL
        ) as exchange:
            account = await exchange.create_account(USDT="1000000", BTC="10")
            yield exchange, account, make(Path(folder) / "bot", exchange, account, **changes)


async def until_ready(folder: BotFolder, look: Callable[[BotProcess], Awaitable[None]] | None = None) -> float:
    """Seconds from before a process is made until it says that it is ready; then `look` at it."""
    begun = time.monotonic()
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready, 120)
        took = time.monotonic() - begun
        if look is not None:
            await look(bot)
        return took


async def imports_mib() -> float:
    """Memory of an interpreter that has imported the bot and does nothing."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import tradingbot.__main__; input()", stdin=asyncio.subprocess.PIPE
    )
    await asyncio.sleep(5)
    mib = resident_mib(process.pid)
    await process.communicate(b"\n")
    return mib


async def measure_start(_minutes: float) -> None:
    """Start to ready, and memory of a bot that only watches."""
    idle = 0.0

    async def look(bot: BotProcess) -> None:
        nonlocal idle
        await asyncio.sleep(20)
        idle = resident_mib(bot.process.pid)

    async with exchange_and_bot(strategy=IDLE) as (_, _, folder):
        times = sorted([await until_ready(folder) for _ in range(STARTS)])
        row("start to ready", f"{statistics.median(times):.2f} s median, {times[-1]:.2f} s at most", f"{STARTS} starts")
        await until_ready(folder, look)
    bare = await imports_mib()
    row("memory when idle", f"{idle:.1f} MiB, {idle - bare:.1f} MiB over the imports", f"imports {bare:.1f} MiB")


@dataclass
class Reactions:
    """Seconds from a candle's frame to the first order that follows from it, and of its commit; by kind of decision."""

    heard: dict[int, float] = field(default_factory=dict)
    """Monotonic time at which the candle that opened at that time was heard."""
    candle: float | None = None
    """When the candle that is being decided was heard; None once its first order went."""
    committed: float = 0.0
    seen: list[tuple[str, float, float]] = field(default_factory=list)
    """Entry or exit, in total, the commit."""

    def watch(self) -> None:
        """Look at the moments in this process."""
        take, decide, put = Streams._take_candle, Session._on_candle, Store.put_intent
        send = aiohttp.ClientRequest.send

        def heard(streams: Streams, candle: Candle) -> None:
            self.heard[candle.open_ms] = time.monotonic()
            take(streams, candle)

        async def decided(session: Session, loop: Any, candle: Candle) -> None:
            self.candle, self.committed = self.heard.get(candle.open_ms), 0.0
            await decide(session, loop, candle)
            self.candle = None

        async def commit(store: Store, intent: Any) -> None:
            begun = time.monotonic()
            await put(store, intent)
            self.committed += time.monotonic() - begun

        async def sent(request: aiohttp.ClientRequest, conn: Any) -> Any:
            orders = request.url.path.startswith(("/api/v3/order", "/api/v3/orderList"))
            if self.candle is not None and orders and request.method in {"POST", "DELETE"}:
                kind = "exit" if request.method == "DELETE" else "entry"  # an exit cancels the protection first
                self.seen.append((kind, time.monotonic() - self.candle, self.committed))
                self.candle = None
            return await send(request, conn)

        Streams._take_candle, Session._on_candle = heard, decided  # type: ignore[method-assign]
        Store.put_intent, aiohttp.ClientRequest.send = commit, sent  # type: ignore[method-assign]


async def measure_reaction(minutes: float) -> None:
    """The last frame of a candle to the first byte of the order, of entries and exits, with the commit before it."""
    reactions = Reactions()
    reactions.watch()
    async with exchange_and_bot() as (exchange, _, folder):
        app = BotApp(
            Options(
                config=config(settings(exchange.base_url)),
                credentials_dir=folder.root / "keys",
                state_dir=folder.root / "state",
            )
        )
        running = asyncio.create_task(app.run())
        await asyncio.sleep(minutes * 60)
        app.stop()
        await running
    for kind in ("entry", "exit"):
        times = [(total, commit) for which, total, commit in reactions.seen if which == kind]
        totals, commits = sorted(total for total, _ in times), sorted(commit for _, commit in times)
        row(f"candle to order on the wire, {kind}", quantiles(totals), f"{len(totals)} orders")
        row("of that the commit", quantiles(commits), "")
        row("of that all else", quantiles(sorted(total - commit for total, commit in times)), "")


def quantiles(values: list[float]) -> str:
    """The median and p99, in milliseconds; values in order."""
    if not values:
        return "none"
    p50, p99 = (values[min(len(values) - 1, int(len(values) * share))] * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


async def measure_trades(_minutes: float) -> None:
    """Start and memory of a bot that has traded: first with its store lost, then with it."""
    after = 0.0

    async def look(bot: BotProcess) -> None:
        nonlocal after
        await bot.until(lambda status: status.trades is not None and status.trades.total >= TRADES // 2, 120)
        await asyncio.sleep(75)  # a reconciliation, which forgets what is old
        after = resident_mib(bot.process.pid)

    async with exchange_and_bot(strategy=IDLE) as (exchange, account, folder):
        await trade(exchange, account)
        lost = await until_ready(folder, look)
        row(f"start to ready after {TRADES:,} trades, store lost", f"{lost:.2f} s", "all is read from the exchange")
        row("memory after that", f"{after:.1f} MiB", "")
        kept = await until_ready(folder, look)
        bare = await imports_mib()
        row(f"start to ready after {TRADES:,} trades", f"{kept:.2f} s", "")
        row("memory after that", f"{after:.1f} MiB, {after - bare:.1f} MiB over the imports", f"imports {bare:.1f} MiB")


async def trade(exchange: PaperExchange, account: TestAccount) -> None:
    """Purchases and sales under the client ids of a former process of the bot."""
    key = names.bot_key(str(account.uid), SYMBOL)
    async with connections(exchange, 1) as opened:
        (connection,) = opened
        held = Decimal(0)
        for number in range(TRADES):
            if number % 2 == 0:
                side, purpose, quantity = "BUY", Purpose.ENTRY, Decimal("0.002")
                held += quantity * (1 - TAKER_RATE)
            else:  # what the fee left, but for dust
                side, purpose, quantity = "SELL", Purpose.EXIT, held.quantize(Decimal("0.00001"), ROUND_DOWN)
                held -= quantity
            client_id = ClientId(key, 1, number, purpose)
            order = f"side={side}&type=MARKET&quantity={quantity}&newClientOrderId={client_id}"
            status = await connection.exchange(signed(exchange, account, order))
            if status != 200:
                raise RuntimeError(f"an order of the history was answered {status}")


async def measure_soak(minutes: float) -> None:
    """Memory of a bot that trades, and how fast it grows after the warm-up."""
    samples: list[tuple[float, float]] = []
    warm = math.inf
    async with exchange_and_bot() as (_, _, folder), bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        begun = time.monotonic()
        granted = -math.inf
        while (age := time.monotonic() - begun) < minutes * 60:
            if age - granted > 20:
                await bot.grant()
                granted = age
            bot.statuses[:-1], bot.log[:] = [], []
            samples.append((age, resident_mib(bot.process.pid)))
            if math.isinf(warm) and bot.status.trades and bot.status.trades.total >= WARM_UP_TRADES:
                warm = max(age, minutes * 60 * WARM_UP)
            await asyncio.sleep(SAMPLE_SECONDS)
        trades = bot.status.trades.total if bot.status.trades else 0
    late = [sample for sample in samples if sample[0] >= warm]
    if not late:
        row("growth", "not measured", f"{trades} round trips, and {WARM_UP_TRADES} are warm-up")
        return
    per_hour, bound = slope(late)
    row(
        f"growth over {minutes:.0f} min, warm-up of {warm / 60:.0f} min left out",
        f"{per_hour:+.2f} MiB/h, with 95 % below {per_hour + bound:+.2f}",
        f"{late[0][1]:.1f} to {late[-1][1]:.1f} MiB, {trades} round trips",
    )


def slope(samples: list[tuple[float, float]]) -> tuple[float, float]:
    """Growth per hour by least squares over the means of blocks, and what to add for its one-sided 95 % bound."""
    blocks: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        blocks.setdefault(int(sample[0] // BLOCK_SECONDS), []).append(sample)
    means = [(statistics.fmean(t for t, _ in part), statistics.fmean(m for _, m in part)) for part in blocks.values()]
    if len(means) < 4:
        return math.nan, math.nan
    times, values = zip(*means, strict=True)
    line = statistics.linear_regression(times, values)
    middle = statistics.fmean(times)
    spread = sum((value - line.slope * at - line.intercept) ** 2 for at, value in means) / (len(means) - 2)
    error = math.sqrt(spread / sum((at - middle) ** 2 for at in times))
    return line.slope * 3600, 1.645 * (1 + 1.5 / (len(means) - 2)) * error * 3600


def row(what: str, figure: str, detail: str) -> None:
    """A row of the table."""
    print(f"| {what} | {figure} | {', '.join(part for part in (detail, load()) if part)} |", flush=True)


PARTS: dict[str, Callable[[float], Awaitable[None]]] = {
    "start": measure_start,
    "reaction": measure_reaction,
    "trades": measure_trades,
    "soak": measure_soak,
}


async def main() -> None:
    """The parts asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which figures (default: all)")
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="how long to react and to soak (default %(default)s)"
    )
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    print("| What | Figure | Under |\n|---|---|---|", flush=True)
    for part in options.parts or PARTS:
        await PARTS[part](options.minutes)


if __name__ == "__main__":
    uvloop.run(main())
