"""Runs one strategy on the same candles by tradingbot, freqtrade and nautilus_trader, and compares trades and speed.

make bench-peers. The other two are installed in environments of their own under the cache, in the versions that the
files beside their programs pin; each program runs as a process of its own, in turn, on one core.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from support.bot_process import exchange_process

PEERS = Path(__file__).parent / "peers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tradingbot" / "peers"
DATA = "market/klines/BTCUSDT_1m_20230301_20230321.csv.gz"
SETTLED = 1_000
"""Candles after which it does not matter how an average was seeded: 25/27 to the power of as many is below 1e-33."""
TOLERANCE = 1e-6
"""Quote, by trade: one program counts in binary floats, one rounds each fee to 8 decimals."""
MANIFEST = """
apiVersion: tradingbot.dev/v1alpha1
kind: TradingBot
metadata: {name: btcusdt}
spec:
  symbol: BTCUSDT
  exchange: {environment: Testnet, credentialsSecretRef: {name: none}}
  strategy: {name: ema-cross, interval: 1m, parameters: {fast: 12, slow: 26}}
  capital: "1000000"
  entry: {maxSlippageRatio: "0.00000001"}
  protection: {stopLossRatio: "0.01", takeProfitRatio: "0.01"}
  risk: {riskPerTradeRatio: "0.5", maxPositionValue: "1000", maxDailyLoss: "1000000", maxDrawdownRatio: "0.99"}
"""


@dataclass(frozen=True)
class Trade:
    """One round trip; minutes since 1970, base and quote."""

    opened: int
    closed: int
    quantity: float
    entry: float
    exit: float
    pnl: float


@dataclass
class Measured:
    """What the runs of a program took, in seconds, with the memory of the last one in MiB.

    Processor times beside those of the clock: on a busy machine they tell more.
    """

    name: str
    start: list[float] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    trade: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    """Of the whole run."""
    trading: list[float] = field(default_factory=list)
    """Processor time without start and load."""
    memory: float = 0.0
    trades: list[Trade] = field(default_factory=list)


def run(measured: Measured, command: Sequence[str | Path], folder: Path) -> str:
    """Run a program to its end; its output. SystemExit where it fails."""
    out, errors = folder / "out", folder / "errors"
    begun = time.monotonic()
    with out.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=stderr, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
    measured.whole.append(time.monotonic() - begun)
    measured.processor.append(usage.ru_utime + usage.ru_stime)
    measured.memory = usage.ru_maxrss / 1024
    if status != 0:
        raise SystemExit(f"{measured.name} failed: {errors.read_text(errors='replace')[-2000:]}")
    return out.read_text()


def environment(name: str) -> Path:
    """The interpreter of a program's own environment, made where it is not as pinned."""
    pinned, folder = PEERS / f"{name}.txt", CACHE / name
    installed = folder / "installed.txt"
    python = folder / "bin" / "python"
    if installed.exists() and installed.read_text() == pinned.read_text():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["uv", "venv", "--quiet", "--python", _interpreter(), folder], check=True)
    install = ["uv", "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "-r", pinned]
    subprocess.run(install, check=True)
    installed.write_text(pinned.read_text())
    return python


def _interpreter() -> str:
    """PEERS_PYTHON, one of pyenv's, whose shims uv does not get by, or whatever uv finds or fetches."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.13.*/bin/python3"))
    return os.environ.get("PEERS_PYTHON") or (str(pyenv[-1]) if pyenv else "3.13")


def peer(measured: Measured, command: Sequence[str | Path], folder: Path) -> None:
    """Run a program of the peers' folder."""
    output = run(measured, command, folder)
    told = json.loads(output)
    for name in ("start", "load", "trade"):
        getattr(measured, name).append(told[name])
    measured.trading.append(told["processor"])
    measured.trades = [
        Trade(one["opened"] // 60_000, one["closed"] // 60_000, one["quantity"], one["entry"], one["exit"], one["pnl"])
        for one in told["trades"]
        if one["why"] != "force_exit"  # at the last candle, which closes nothing elsewhere
    ]


def own(measured: Measured, candles: Path, folder: Path, fills: str) -> None:
    """Run `tradingbot replay`."""
    manifest, report = folder / "bot.yaml", folder / "report.json"
    manifest.write_text(MANIFEST)
    command: list[str | Path] = [Path(sys.executable).parent / "tradingbot", "replay", manifest, "--candles", candles]
    command += ["--fills", fills, "--json", report]
    idle = Measured(measured.name)
    run(idle, [*command, "--to", (first_open(candles) + timedelta(minutes=2)).isoformat()], folder)
    output = run(measured, command, folder)
    measured.trading.append(measured.processor[-1] - idle.processor[-1])
    figures = re.search(r"candles in ([\d.]+) s.*read in ([\d.]+) s", " ".join(output.split()))
    assert figures is not None, output
    trade, load = float(figures[1]), float(figures[2])
    measured.trade.append(trade)
    measured.load.append(load)
    measured.start.append(measured.whole[-1] - trade - load)
    found = json.loads(report.read_text())["runs"][0]["tradeList"]
    measured.trades = [_own_trade(one) for one in found if one["closed"] is not None]


def _own_trade(told: dict[str, Any]) -> Trade:
    minutes = (int(datetime.fromisoformat(told[name]).timestamp() // 60) for name in ("opened", "closed"))
    figures = (float(told[name]) for name in ("bought", "entryPrice", "exitPrice", "realized"))
    return Trade(*minutes, *figures)  # type: ignore[misc]


def differences(ours: Sequence[Trade], theirs: Sequence[Trade]) -> list[str]:
    """What differs, a line each; both from the same first trade on."""
    found = []
    both = {opened: list(group) for opened, group in groupby(sorted([*ours, *theirs], key=_opened), key=_opened)}
    mine, others = set(map(_opened, ours)), set(map(_opened, theirs))
    for opened, pair in both.items():
        if opened not in mine or opened not in others:
            found.append(f"only {'ours' if opened in mine else 'theirs'}: {pair[0]}")
            continue
        one, other = pair
        same = one.closed == other.closed and all(
            abs(getattr(one, name) - getattr(other, name)) <= TOLERANCE for name in ("quantity", "entry", "exit", "pnl")
        )
        if not same:
            found.append(f"{one} and {other}")
    return found


def _opened(trade: Trade) -> int:
    return trade.opened


def main() -> int:
    """Measure, print, and tell whether trades and PnL agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--candles",
        type=Path,
        help="a CSV file in gzip, its header as in our test data, its name as BTCUSDT_1m_... "
        f"(default: {DATA} of TRADINGBOT_TEST_DATA)",
    )
    parser.add_argument("--repeat", type=int, default=3, help="runs of each (default %(default)s)")
    options = parser.parse_args()
    candles = options.candles or Path(os.environ.get("TRADINGBOT_TEST_DATA", "")) / DATA
    if not candles.is_file():
        raise SystemExit(f"no candles at {candles}: expected --candles FILE, or TRADINGBOT_TEST_DATA")
    candles = candles.resolve()
    programs = {name: environment(name) for name in ("freqtrade", "nautilus_trader")}
    with tempfile.TemporaryDirectory(prefix="tradingbot-peers-") as where:
        folder = Path(where)
        # What freqtrade takes the symbol's filters from.
        with exchange_process("--symbols=BTCUSDT") as (address, _):
            (folder / "config.json").write_text(json.dumps(freqtrade_config(address)))
            found = measure(programs, candles, folder, options.repeat)
    return report(found, candles)


def freqtrade_config(exchange: str) -> dict[str, Any]:
    """For one pair on the paper exchange at that address, by its own client."""
    api = f"{exchange}/api/v3"
    urls = {"api": {"public": api, "private": api, "sapi": f"{exchange}/sapi/v1", "sapiV3": f"{exchange}/sapi/v3"}}
    ccxt = {"urls": urls, "options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}}
    return {
        "stake_currency": "USDT",
        "stake_amount": 100,
        "max_open_trades": 1,
        "exchange": {
            "name": "binance",
            "pair_whitelist": ["BTC/USDT"],
            "ccxt_config": ccxt,
            "ccxt_async_config": ccxt,
            "enable_ws": False,
        },
        "pairlists": [{"method": "StaticPairList"}],
        "entry_pricing": {"price_side": "other", "use_order_book": False},
        "exit_pricing": {"price_side": "other", "use_order_book": False},
        "dataformat_ohlcv": "feather",
    }


def measure(programs: dict[str, Path], candles: Path, folder: Path, repeat: int) -> list[Measured]:
    """Each program in turn, so often."""
    ours, exact = Measured("tradingbot"), Measured("tradingbot, own fills")
    freqtrade, nautilus = Measured("freqtrade"), Measured("nautilus_trader")
    turns: list[Callable[[], None]] = [
        lambda: own(ours, candles, folder, "next-open"),
        lambda: own(exact, candles, folder, "exchange"),
        lambda: peer(
            freqtrade,
            [programs["freqtrade"], PEERS / "freqtrade_run.py", folder, candles],
            folder,
        ),
        lambda: peer(nautilus, [programs["nautilus_trader"], PEERS / "nautilus_run.py", candles], folder),
    ]
    for _ in range(repeat):
        for turn in turns:
            turn()
    return [ours, exact, freqtrade, nautilus]


def report(found: Sequence[Measured], candles: Path) -> int:
    """Print the tables; 1 where trades or PnL differ."""
    console = Console(width=120)
    ours, _, *peers = found
    count = _count(candles)
    first = min(trade.opened for trade in ours.trades) + SETTLED
    table = Table("program", "trades", "PnL", "differences", title=f"trades opened after {SETTLED} candles")
    red = False
    for one in (ours, *peers):
        trades = [trade for trade in one.trades if trade.opened >= first]
        lacks = differences([trade for trade in ours.trades if trade.opened >= first], trades)
        red = red or bool(lacks)
        table.add_row(one.name, str(len(trades)), f"{sum(trade.pnl for trade in trades):.6f}", str(len(lacks)))
        for line in lacks[:3]:
            console.print(line)
    console.print(table)
    columns = (
        "program",
        "start s",
        "load s",
        "trade s",
        "candles/s",
        "of CPU",
        "all in s",
        "of CPU",
        "MiB",
    )
    table = Table(*columns, title=f"{count:,} candles, median of {len(ours.whole)}, load {os.getloadavg()[0]:.1f}")
    for one in found:
        trade = statistics.median(one.trade)
        table.add_row(
            one.name,
            f"{statistics.median(one.start):.2f}",
            f"{statistics.median(one.load):.2f}",
            f"{trade:.2f} ({min(one.trade):.2f}-{max(one.trade):.2f})",
            f"{count / trade:,.0f}",
            f"{count / statistics.median(one.trading):,.0f}",
            f"{statistics.median(one.whole):.2f}",
            f"{statistics.median(one.processor):.2f}",
            f"{one.memory:.0f}",
        )
    console.print(table)
    return int(red)


def first_open(candles: Path) -> datetime:
    """When the first candle opens."""
    with gzip.open(candles, "rt") as lines:
        next(lines)
        return datetime.fromisoformat(next(lines).partition(",")[0])


def _count(candles: Path) -> int:
    with gzip.open(candles, "rt") as lines:
        return sum(1 for _ in lines) - 1


if __name__ == "__main__":
    sys.exit(main())
