"""`tradingbot sim`: a bot and a paper exchange in one process on virtual time; the same seed gives the same orders."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog
from rich.console import Console
from rich.progress import Progress, TimeRemainingColumn
from rich.table import Table

from paper_exchange.testing import Options as ExchangeOptions
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange, write_keys
from paper_exchange.virtual_loop import VirtualLoop
from tradingbot.app import BotApp, Options
from tradingbot.clocks import Clocks
from tradingbot.lab.paper import DEPOSIT, QUOTE, drop_log, paper_settings
from tradingbot.monitoring.health import ConditionClock
from tradingbot.monitoring.report import build_status
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus
from tradingbot_api.v1alpha1 import BotSettings

START: Final = datetime(2025, 1, 6, tzinfo=UTC)
"""When every simulation begins: a Monday, 00:00 UTC."""
LATENCY: Final = (0.001, 0.005)
"""Seconds that what one writes is under way to the other."""
_STEP_SECONDS: Final = 60.0
_HEARD_SECONDS: Final = 20 * LATENCY[1]
"""After so long the bot has heard, and done, what followed from the last change of its account."""
_LOOKS: Final = 100


@dataclass(frozen=True, slots=True)
class SimRun:
    """What to simulate."""

    symbol: str
    duration: timedelta
    market: str = "synthetic"
    seed: int = 7
    journal: Path | None = None
    """Where each input of the exchange is written."""
    settings: BotSettings | None = None
    """Of the bot, but for the exchange's address; None: those of `run --paper`."""


@dataclass(slots=True)
class SimReport:
    """What came of it."""

    simulated: timedelta = timedelta(0)
    took: float = 0.0
    """Seconds of the machine's clock."""
    events: Counter[str] = field(default_factory=Counter)
    """What the bot told of, by kind."""
    status: BotStatus | None = None
    account: dict[str, Any] = field(default_factory=dict)
    """What the exchange has of the account at the moment of the status."""


def run_sim(run: SimRun, console: Console) -> int:
    """Simulates with a progress bar and shows what came of it; errors as of `simulate`."""
    structlog.configure(processors=[drop_log])
    with Progress(*Progress.get_default_columns()[:-1], TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(f"{run.symbol}, {run.market} market", total=run.duration.total_seconds())
        report = simulate(run, lambda done: bar.update(task, completed=done.total_seconds()))
    console.print(_table(report))
    return 0


def _table(report: SimReport) -> Table:
    table = Table("what", "value", title=f"{report.simulated} simulated in {report.took:.1f} s")
    status = report.status
    if status is not None and status.pnl is not None and status.trades is not None and status.position is not None:
        pnl, trades = status.pnl, status.trades
        table.add_row("PnL", f"{pnl.total:+.4f} (realized {pnl.realized:+.4f})")
        table.add_row("fees", ", ".join(f"{amount} {asset}" for asset, amount in pnl.fees.items()) or "none")
        table.add_row("trades", f"{trades.total} ({trades.successful} won)")
        table.add_row("position", f"{canonical(status.position.quantity)}")
    for asset, held in report.account.get("balances", {}).items():
        table.add_row(f"{asset} at the exchange", f"{held['free']} free, {held['locked']} locked")
    table.add_row("told", ", ".join(f"{count} {kind}" for kind, count in report.events.most_common()) or "nothing")
    return table


def _settings(run: SimRun, base_url: str) -> BotSettings:
    usual = paper_settings(run.symbol, base_url)
    return usual if run.settings is None else run.settings.model_copy(update={"exchange": usual.exchange})


Beside = Callable[[PaperExchange, TestAccount], Coroutine[Any, Any, None]]
"""Runs beside the bot, on the same loop, until the end: what disturbs the exchange or looks at it."""


def simulate(run: SimRun, progress: Callable[[timedelta], None], beside: Beside | None = None) -> SimReport:
    """Runs it to its end, in this thread; `progress` is told how much is simulated each virtual minute.

    ConfigError for a symbol that cannot be, MarketError for a market that cannot be had, JournalFileError for a
    journal that cannot be written; what ends the bot or `beside` is raised.
    """
    loop = VirtualLoop(Random(f"{run.seed}/network"), LATENCY)  # noqa: S311, to be repeated is the aim
    try:
        return loop.run_until_complete(_simulate(loop, run, progress, beside))
    finally:
        loop.close()


async def _simulate(
    loop: VirtualLoop, run: SimRun, progress: Callable[[timedelta], None], beside: Beside | None
) -> SimReport:
    report, begun = SimReport(), time.monotonic()
    seconds = run.duration.total_seconds()

    def utc() -> datetime:
        return START + timedelta(seconds=loop.time())

    def steady_ms() -> int:
        return round(loop.time() * 1000)

    def wall_ms() -> int:
        return round(START.timestamp() * 1000) + steady_ms()

    def tell(kind: str, _figures: dict[str, Any]) -> None:
        report.events[kind] += 1

    options = ExchangeOptions(symbols=(run.symbol,), market=run.market, seed=run.seed, journal=run.journal)
    with tempfile.TemporaryDirectory(prefix="tradingbot-sim-") as directory:
        folder = Path(directory)
        async with running_paper_exchange(options, steady_ms, wall_ms) as exchange:
            account = await exchange.create_account(**{QUOTE: DEPOSIT})
            write_keys(folder / "keys", account.api_key, account.secret_key)
            config = BotConfig(
                revision=1,
                bot=BotIdentity(namespace="sim", name=run.symbol.lower(), uid=f"local-sim-{run.symbol.lower()}"),
                settings=_settings(run, exchange.base_url),
            )
            clocks = Clocks(loop.time, utc, Random(f"{run.seed}/bot"))  # noqa: S311, spreads retries
            app = BotApp(
                Options(config=config, credentials_dir=folder / "keys", state_dir=folder / "state"), tell, clocks
            )
            running = asyncio.create_task(app.run())
            other = asyncio.create_task(beside(exchange, account) if beside else asyncio.sleep(seconds))
            try:
                while loop.time() < seconds and not running.done():
                    await asyncio.wait([running], timeout=min(_STEP_SECONDS, seconds - loop.time()))
                    progress(timedelta(seconds=min(seconds, loop.time())))
                if running.done():
                    await running
                # Both at one moment, and one in which the bot has heard all that the exchange did.
                for _ in range(_LOOKS):
                    held, report.account = report.account, exchange.account_now(account.uid)
                    if held == report.account:
                        break
                    await asyncio.sleep(_HEARD_SECONDS)
                report.status = build_status(app.desk, ConditionClock(), 0)
                app.stop()
                await running
            finally:
                other.cancel()
                with suppress(asyncio.CancelledError):
                    await other
    report.simulated, report.took = timedelta(seconds=loop.time()), time.monotonic() - begun
    return report
