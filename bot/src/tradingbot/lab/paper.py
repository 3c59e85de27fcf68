"""`tradingbot run --paper`: a paper exchange as a child process, an account on it, a bot, and what happens."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog
from pydantic import ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from paper_exchange.testing import write_keys
from tradingbot.app import BotApp, Options
from tradingbot.config import ConfigError
from tradingbot.engine.strategies import field_errors
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus
from tradingbot_api.v1alpha1 import BotSettings

START_SECONDS: Final = 30.0
SHOWN_EVENTS: Final = 18
DEPOSIT: Final = "10000"
QUOTE: Final = "USDT"


@dataclass(frozen=True, slots=True)
class PaperRun:
    """What to run."""

    symbol: str
    market: str = "synthetic"
    seed: int = 7
    duration: float | None = None
    flight_dir: Path | None = None
    """Where the bot records what it decides."""


def paper_settings(symbol: str, base_url: str) -> BotSettings:
    """Settings that trade often: one-second candles and stops of a tenth of a percent. ConfigError."""
    try:
        return BotSettings.model_validate(
            {
                "symbol": symbol,
                "exchange": {
                    "environment": "Paper",
                    "baseURL": base_url,
                    "credentialsSecretRef": {"name": "paper"},
                },
                "strategy": {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 12, "slow": 26}},
                "capital": "1000",
                "protection": {"stopLossRatio": "0.001", "takeProfitRatio": "0.002"},
                "risk": {"maxPositionValue": "500", "maxDailyLoss": "100", "cooldownSeconds": 5},
            }
        )
    except ValidationError as error:
        raise ConfigError("run --paper", field_errors(error, "")) from error


async def run_paper(run: PaperRun, console: Console) -> int:
    """Trade until Ctrl-C or the end of the duration; shows a live table, or lines where there is no terminal."""
    structlog.configure(processors=[drop_log])
    with tempfile.TemporaryDirectory(prefix="tradingbot-paper-") as directory:
        folder = Path(directory)
        async with _exchange(run, folder) as (base_url, control_url):
            keys = folder / "keys"
            await _make_account(control_url, keys)
            config = BotConfig(
                revision=1,
                bot=BotIdentity(namespace="paper", name=run.symbol.lower(), uid=f"local-paper-{run.symbol.lower()}"),
                settings=paper_settings(run.symbol, base_url),
            )
            screen = Screen(console, run)
            options = Options(
                config=config, credentials_dir=keys, state_dir=folder / "state", flight_dir=run.flight_dir
            )
            app = BotApp(options, screen.tell)
            await _show(app, screen, run.duration)
    return 0


def drop_log(_logger: Any, _name: str, _event: Any) -> Any:
    """The screen shows what happens; logs would tear the table."""
    raise structlog.DropEvent


async def _show(app: BotApp, screen: Screen, duration: float | None) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.stop)
    if duration is not None:
        loop.call_later(duration, app.stop)
    follow = asyncio.create_task(screen.follow(app))
    try:
        with screen:
            await app.run()
    finally:
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)
    screen.summary()


@asynccontextmanager
async def _exchange(run: PaperRun, folder: Path) -> AsyncIterator[tuple[str, str]]:
    """The exchange as a process of its own: its addresses (API, control)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paper_exchange",
        "serve",
        "--port=0",
        "--control-port=0",
        f"--data-dir={folder / 'exchange'}",
        f"--symbols={run.symbol}",
        f"--market={run.market}",
        f"--seed={run.seed}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the bot, which ends the exchange after itself
    )
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the paper exchange has no pipes")
    errors: deque[str] = deque(maxlen=5)
    drain = asyncio.create_task(_keep_last(process.stderr, errors))
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
        if not line:
            await asyncio.wait([drain], timeout=1)
            raise ConfigError.single("run --paper", "(paper exchange)", " ".join(errors) or "it did not start")
        listening = json.loads(line)
        yield listening["baseURL"], listening["controlURL"]
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
        await drain


async def _keep_last(stream: asyncio.StreamReader, lines: deque[str]) -> None:
    while line := await stream.readline():
        lines.append(line.decode(errors="replace").strip())


async def _make_account(control_url: str, keys: Path) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{control_url}/control/accounts", json={"deposits": {QUOTE: DEPOSIT}}) as answer,
    ):
        answer.raise_for_status()
        account = await answer.json()
    write_keys(keys, account["apiKey"], account["secretKey"])


class Screen:
    """A live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, run: PaperRun) -> None:
        self._console = console
        self._run = run
        self._events: deque[tuple[str, str, str]] = deque(maxlen=SHOWN_EVENTS)
        self._status: BotStatus | None = None
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, kind: str, figures: dict[str, Any]) -> None:
        """Something happened."""
        when = datetime.now(UTC).strftime("%H:%M:%S")
        text = str(figures.get("message", ""))
        if figures.get("quantity", "0") != "0":
            price = f" at {figures['price']}" if figures["price"] != "0" else ""
            text = f"{figures['quantity']}{price}  {text}"
        self._events.append((when, kind, text))
        if self._live is None:
            self._console.print(f"{when}  {kind:<20} {text}", highlight=False, soft_wrap=True)
        self._draw()

    async def follow(self, app: BotApp) -> None:
        """Take every status of the bot."""
        async for line in app.feed.lines():
            self._status = BotStatus.model_validate_json(line)
            self._draw()

    def summary(self) -> None:
        """The last figures."""
        self._console.print(self._figures())

    def _draw(self) -> None:
        if self._live is None:
            return
        events = Table("time", "what", "", expand=True)
        for row in self._events:
            events.add_row(*row)
        self._live.update(Group(self._figures(), events), refresh=True)

    def _figures(self) -> Table:
        columns = ("state", "circuit", "synced", "position", "average", "value", "PnL", "realized", "trades", "quote")
        table = Table(title=f"{self._run.symbol} on the paper exchange, {self._run.market} market")
        for name in columns:
            table.add_column(name, justify="right")
        status = self._status
        if status is None:
            table.add_row("starting")
            return table
        conditions = {condition.type: condition for condition in status.conditions}
        allowed = conditions["TradingAllowed"]
        position, pnl, trades = status.position, status.pnl, status.trades
        table.add_row(
            "trading" if allowed.status == "True" else allowed.reason,
            status.circuit_breaker.state if status.circuit_breaker else "",
            conditions["BalanceSynced"].reason,
            canonical(position.quantity) if position else "",
            canonical(position.average_price) if position else "",
            f"{position.value:.2f}" if position else "",
            f"{pnl.total:+.4f}" if pnl else "",
            f"{pnl.realized:+.4f}" if pnl else "",
            f"{trades.total} ({trades.successful} won)" if trades else "",
            f"{status.balance.quote:.2f}" if status.balance else "",
        )
        return table
