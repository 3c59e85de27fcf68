"""Measures `tradingbot replay`: candles a second on one core by how often is traded, reading, start, and what limits.

make bench-replay; CPU seconds of the best of several runs, so that what else the machine does counts little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from performance.measure_paper_exchange import load
from support.recordings import binance_rows, manifest, random_recording, replay_settings
from tradingbot.lab.candle_exchange import FillModel
from tradingbot.lab.recording import Recording, read_recordings
from tradingbot.lab.replay import Outcome, replay
from tradingbot_api.v1alpha1 import BotSettings

RUNS = 5
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("donchian-breakout", {"entry": 1440, "exit": 720}),
    ("donchian-breakout", {"entry": 240, "exit": 120}),
    ("ema-cross", {"fast": 60, "slow": 240}),
    ("rsi-reversion", {}),
    ("ema-cross", {"fast": 12, "slow": 26}),
)
LIMITS = (
    ("the strategy and the engine", ("/engine/",)),
    ("candles made from their columns", ("/lab/recording",)),
    ("the exchange's core", ("/paper_exchange/",)),
    ("books, risk and plans", ("/state/", "/risk/", "/orders/", "/gateway/")),
    ("the replay itself", ("/lab/",)),
)
"""Parts of the time by where a function is, the first that fits; what is built in goes to who called it."""


def settings(strategy: str, parameters: dict[str, Any]) -> BotSettings:
    """Stops that are met now and then."""
    protection = {"stopLossRatio": "0.02", "takeProfitRatio": "0.05"}
    return replay_settings(strategy, parameters=parameters, protection=protection)


def best(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of the fastest of several runs, and what it gave."""
    fastest, result = float("inf"), None
    for _ in range(RUNS):
        begun = time.process_time()
        result = work()
        fastest = min(fastest, time.process_time() - begun)
    return fastest, result


def shares(profile: cProfile.Profile) -> list[tuple[str, float]]:
    """Which part of the time each group of LIMITS took."""
    times = dict.fromkeys((name for name, _ in LIMITS), 0.0)

    def add(path: str, seconds: float) -> None:
        for name, parts in LIMITS:
            if any(part in path for part in parts):
                times[name] += seconds
                return

    for (path, _, _), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if path == "~":
            for (caller, _, _), (_, _, part, _) in callers.items():
                add(caller, part)
        else:
            add(path, own)
    whole = sum(times.values())
    return [(name, seconds / whole) for name, seconds in times.items()]


def measure(path: Path | None) -> None:
    """Prints the figures of the recorded candles at `path`, or of made ones."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder) / "BTCUSDT-1m-made.csv"
            path.write_text(binance_rows(random_recording(1, 30_240, swing=0.0005)))
        seconds, found = best(lambda: read_recordings([path]))
        recording: Recording = found["BTCUSDT"]
        count = len(recording)
        print(f"{count:,} candles of {path.name}; {load()}, CPU seconds")
        print(f"read          {count / seconds:>9,.0f} candles/s ({seconds:.2f} s)")
        for strategy, parameters in CASES:
            chosen = settings(strategy, parameters)
            seconds, outcome = best(lambda chosen=chosen: replay(recording, chosen, FillModel()))  # type: ignore[misc]
            _tell(strategy, parameters, seconds, outcome)
        chosen = settings(*CASES[1])
        for name, each in (("seldom", CASES[1]), ("often", CASES[-1])):
            with cProfile.Profile() as profile:
                replay(recording, settings(*each), FillModel())
            parts = ", ".join(f"{share:.0%} {part}" for part, share in shares(profile))
            print(f"where ({name}): {parts}")
        _command(path, chosen, Path(folder), count)
        print(f"RSS of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB at most")


def _tell(strategy: str, parameters: dict[str, Any], seconds: float, outcome: Outcome) -> None:
    count, trades = outcome.end - outcome.first, outcome.books.round_trips.total
    given = " ".join(f"{name}={value}" for name, value in parameters.items())
    print(f"replay        {count / seconds:>9,.0f} candles/s, {trades:>4} trades: {strategy} {given}")


def _command(path: Path, chosen: BotSettings, folder: Path, count: int) -> None:
    """The whole command, with the start of Python and reading: wall time and CPU."""
    bot = folder / "bot.yaml"
    bot.write_text(yaml.safe_dump(manifest(chosen)))
    command = [sys.executable, "-m", "tradingbot", "replay", str(bot), "--candles", str(path), "--workers", "1"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    took, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rss = after.ru_maxrss / 1024
    print(f"whole command {count / cpu:>9,.0f} candles/s ({cpu:.2f} s, {took:.2f} s by the clock), RSS {rss:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=Path, help="a file of BTCUSDT minutes (default: made ones)")
    measure(parser.parse_args().candles)


if __name__ == "__main__":
    main()
