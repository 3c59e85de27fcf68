"""`paper-exchange run`: drives somebody's bot through a scenario, and reports what its account went through."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from paper_exchange.account_watch import AccountWatch
from paper_exchange.core.units import text
from paper_exchange.keys import write_keys
from paper_exchange.overview import VALUED_IN
from paper_exchange.server.app import PaperExchangeServer

_LOOK_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 30.0
_TRADES: Final = 1_000_000
_COUNTED: Final = {
    "paper_exchange_requests": ("path", "status"),
    "paper_exchange_ws_requests": ("method", "status"),
    "paper_exchange_refusals": ("code",),
    "paper_exchange_faults_applied": ("kind",),
}


@dataclass(frozen=True, slots=True)
class BotRun:
    """What to run: a command, what its account has, and how long (None: until the command ends)."""

    command: Sequence[str]
    deposits: Mapping[str, int]
    duration: float | None = None


@dataclass(slots=True)
class BotReport:
    """What came of it; amounts as decimal texts in the asset that accounts are valued in."""

    exit_code: int
    seconds: float
    fills: int
    fees: dict[str, str]
    equity: str
    profit: str
    """Without what was paid in or out, each at the price of its moment."""
    max_drawdown: str
    """The deepest fall of the profit."""
    unprotected_seconds: float
    longest_unprotected: float
    open_orders: int
    requests: dict[str, int] = field(default_factory=dict)
    """How often each path or method was asked, by status."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Requests that broke a rule of the exchange, by Binance's code; faults are not among them."""
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind of fault befell something."""

    def lines(self) -> list[str]:
        """The report for people."""

        def told(counts: Mapping[str, int]) -> str:
            return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"

        return [
            f"command      ended with {self.exit_code} after {self.seconds:.1f} s",
            f"equity       {self.equity} {VALUED_IN}, profit {self.profit}, deepest fall {self.max_drawdown}",
            f"fills        {self.fills}, fees {', '.join(f'{v} {k}' for k, v in self.fees.items()) or 'none'}",
            f"unprotected  {self.unprotected_seconds:.1f} s, longest {self.longest_unprotected:.1f} s",
            f"left open    {self.open_orders} orders",
            f"requests     {told(self.requests)}",
            f"refusals     {told(self.refusals)}",
            f"faults       {told(self.faults)}",
        ]


async def run_bot(server: PaperExchangeServer, run: BotRun) -> BotReport:
    """Starts the exchange, makes an account, runs the command to its end, and stops the exchange.

    The command finds the addresses and the folder with the files apiKey and apiSecret in PAPER_EXCHANGE_URL,
    PAPER_EXCHANGE_WS_URL and PAPER_EXCHANGE_CREDENTIALS, or where it has {url}, {ws} and {credentials}. After the
    duration, or when this process is interrupted, it is ended with SIGTERM.
    FileNotFoundError or PermissionError where it cannot be started, another OSError where the exchange cannot listen,
    MarketError where its market is not reached.
    """
    await server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="paper-exchange-run-") as directory:
            key = server.venue.create_account(run.deposits)
            folder = Path(directory)
            write_keys(folder, key.api_key, key.secret)
            begun = time.monotonic()
            watch = AccountWatch(server.venue, key.uid, begun)
            code = await _run_command(server.base_url, folder, run, watch)
            return _report(server, watch, code, time.monotonic() - begun)
    finally:
        await server.stop()


async def _run_command(url: str, folder: Path, run: BotRun, watch: AccountWatch) -> int:
    known = {"url": url, "ws": url.replace("http", "ws", 1), "credentials": str(folder)}
    command = [_filled(part, known) for part in run.command]
    names = {"url": "PAPER_EXCHANGE_URL", "ws": "PAPER_EXCHANGE_WS_URL", "credentials": "PAPER_EXCHANGE_CREDENTIALS"}
    process = await asyncio.create_subprocess_exec(
        *command, env=dict(os.environ) | {names[one]: value for one, value in known.items()}
    )
    ending = asyncio.create_task(process.wait())
    until = math.inf if run.duration is None else time.monotonic() + run.duration
    # Who does not hear the first one gets the second.
    signals = iter((signal.SIGTERM, signal.SIGKILL))
    interrupted = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    try:
        while not ending.done():
            await asyncio.wait({ending}, timeout=_LOOK_SECONDS)
            watch.look(time.monotonic())
            if (interrupted.is_set() or time.monotonic() >= until) and not ending.done():
                interrupted.clear()
                until = time.monotonic() + _GRACE_SECONDS
                process.send_signal(next(signals, signal.SIGKILL))
        return await ending
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _filled(part: str, known: Mapping[str, str]) -> str:
    for name, value in known.items():
        part = part.replace("{" + name + "}", value)
    return part


def _report(server: PaperExchangeServer, watch: AccountWatch, code: int, seconds: float) -> BotReport:
    venue = server.venue
    trades = venue.store.history.trades(watch.uid, None, limit=_TRADES)
    fees: Counter[str] = Counter()
    for trade in trades:
        fees[trade.commission_asset] += trade.commission
    counts = _counts(server)
    return BotReport(
        exit_code=code,
        seconds=seconds,
        fills=len(trades),
        fees={asset: text(amount) for asset, amount in sorted(fees.items())},
        equity=text(watch.equity),
        profit=text(watch.profit),
        max_drawdown=text(watch.max_drawdown),
        unprotected_seconds=round(watch.unprotected_seconds, 1),
        longest_unprotected=round(watch.longest_unprotected, 1),
        open_orders=len(venue.exchange.open_orders(watch.uid)),
        requests=counts["paper_exchange_requests"] | counts["paper_exchange_ws_requests"],
        refusals=counts["paper_exchange_refusals"],
        faults=counts["paper_exchange_faults_applied"],
    )


def _counts(server: PaperExchangeServer) -> dict[str, dict[str, int]]:
    found: dict[str, Any] = {name: {} for name in _COUNTED}
    for metric in server.registry.collect():
        labels = _COUNTED.get(metric.name)
        for sample in metric.samples if labels else ():
            if sample.name.endswith("_total"):
                found[metric.name][" ".join(sample.labels[label] for label in labels or ())] = int(sample.value)
    return found
