"""`tradingbot replay`: reads what is asked for, makes the replays with a progress bar, and writes the reports."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from paper_exchange.core.symbols import SYMBOLS, SymbolRules, rules_of
from tradingbot.clocks import from_ms
from tradingbot.config import ConfigError, load_manifest
from tradingbot.lab.candle_exchange import FillModel
from tradingbot.lab.recording import Recording, RecordingError, read_recordings
from tradingbot.lab.replay_figures import Run
from tradingbot.lab.replay_grid import Grid, Variation, plan_grid, run_grid
from tradingbot.lab.replay_page import page
from tradingbot.lab.replay_report import Report, best_of_each_symbol, show, to_json
from tradingbot_api.v1alpha1 import BotSettings

STANDARD_OUTPUT = Path("-")


@dataclass(frozen=True, slots=True)
class ReplayOrder:
    """What to replay, and where the reports go; times in ms UTC."""

    manifest: Path
    candles: tuple[Path, ...]
    symbols: tuple[str, ...] = ()
    """None: the manifest's; `all`: all there are candles of."""
    strategy: str | None = None
    variations: tuple[str, ...] = ()
    start_ms: int | None = None
    end_ms: int | None = None
    workers: int = 1
    json_file: Path | None = None
    html_file: Path | None = None
    exchange_info: Path | None = None
    """The answer of exchangeInfo, for symbols that the paper exchange does not have."""
    model: FillModel = field(default_factory=FillModel)


def run_replay(order: ReplayOrder, console: Console) -> int:
    """Replays and reports; ConfigError, RecordingError, GridError, and OSError where a report cannot be written."""
    begun = time.monotonic()
    settings = load_manifest(order.manifest).settings
    variations = [Variation.parse(text) for text in order.variations]
    if order.strategy is not None:
        settings = _with_strategy(settings, order.strategy)
    recordings = _recordings(order, settings)
    grid = plan_grid(settings, recordings, variations, lambda recording: _span(order, recording))
    single = len(grid.jobs) == len({job.recording.symbol for job in grid.jobs})
    jobs = [replace(job, detailed=single) for job in grid.jobs]
    loaded = time.monotonic()
    with _progress(console) as bar:
        task = bar.add_task(f"{len(jobs)} replays", total=grid.candles)
        runs = run_grid(jobs, order.model, order.workers, lambda done: bar.update(task, completed=done))
        bar.update(task, completed=grid.candles)
    took = time.monotonic() - loaded
    details = runs if single else _again(grid, runs, order)
    report = Report(order.model.describe(), runs, grid.refused, details)
    show(report, console)
    console.print(
        f"{grid.candles:,} candles in {took:.2f} s: {grid.candles / max(took, 1e-9):,.0f} a second "
        f"on {min(order.workers, len(jobs))} of the cores, read in {loaded - begun:.2f} s"
    )
    if order.json_file == STANDARD_OUTPUT:
        sys.stdout.write(to_json(report))
    elif order.json_file is not None:
        order.json_file.write_text(to_json(report), encoding="utf-8")
    if order.html_file is not None:
        order.html_file.write_text(page(report), encoding="utf-8")
    return 0


def _with_strategy(settings: BotSettings, name: str) -> BotSettings:
    """Another strategy, with its own parameters as they are by default."""
    strategy = settings.strategy.model_copy(update={"name": name, "parameters": {}})
    return settings.model_copy(update={"strategy": strategy})


def _rules(order: ReplayOrder) -> Mapping[str, SymbolRules]:
    """Of all symbols that can be replayed, by name."""
    if order.exchange_info is None:
        return SYMBOLS
    source = str(order.exchange_info)
    try:
        told = json.loads(order.exchange_info.read_bytes())
        return SYMBOLS | {row["symbol"]: rules_of(row) for row in told["symbols"]}
    except OSError as error:
        raise ConfigError.single(source, "(file)", f"cannot be read: {error}") from error
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        text = f"expected the answer of GET /api/v3/exchangeInfo, with all filters of each symbol, lacks {error}"
        raise ConfigError.single(source, "symbols", text) from error


def _recordings(order: ReplayOrder, settings: BotSettings) -> dict[str, tuple[Recording, SymbolRules]]:
    rules = _rules(order)
    wanted = order.symbols or (settings.symbol,)
    everything = wanted == ("all",)
    named = None if everything or len(wanted) > 1 else wanted[0]
    found = read_recordings(order.candles, named, None if everything else wanted)
    names = sorted(found) if everything else list(wanted)
    for name in names:
        if name not in rules:
            text = f"expected some of {', '.join(rules)}, got {name!r}; --exchange-info brings the filters of others"
            raise ConfigError.single("replay", "--symbol", text)
        if name not in found:
            raise RecordingError(f"--candles: expected candles of {name}, found {', '.join(sorted(found)) or 'none'}")
    return {name: (found[name], rules[name]) for name in names}


def _span(order: ReplayOrder, recording: Recording) -> tuple[int, int]:
    first = 0 if order.start_ms is None else recording.index_at(order.start_ms)
    end = len(recording) if order.end_ms is None else recording.index_at(order.end_ms)
    if end - first < 2:
        begins, ends = from_ms(recording.open_ms[0]), from_ms(recording.open_ms[-1] + recording.width)
        raise RecordingError(
            f"--from, --to: expected at least two candles of {recording.symbol} between them; "
            f"the recording goes from {begins.isoformat()} to {ends.isoformat()}"
        )
    return first, end


def _again(grid: Grid, runs: list[Run], order: ReplayOrder) -> list[Run]:
    """The best of each symbol with trades and equity over time, which would be too much to keep of all."""
    jobs = [replace(grid.jobs[number], detailed=True) for number in best_of_each_symbol(runs)]
    ignore: Callable[[int], None] = lambda _: None  # noqa: E731
    return run_grid(jobs, order.model, order.workers, ignore)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
