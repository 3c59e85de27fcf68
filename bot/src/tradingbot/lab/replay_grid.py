"""Which replays there are to make, of a manifest and its variations, and making them on all cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import product
from typing import Any, Final

from pydantic import ValidationError

from paper_exchange.core.symbols import SymbolRules
from tradingbot.candle_reader import INTERVAL_MS
from tradingbot.config import ConfigError
from tradingbot.engine.strategies import StrategyParametersError, UnknownStrategyError, build_strategy, field_errors
from tradingbot.lab.candle_exchange import FillModel
from tradingbot.lab.recording import Recording
from tradingbot.lab.replay import replay
from tradingbot.lab.replay_figures import Run, summarise
from tradingbot_api.base import canonical
from tradingbot_api.v1alpha1 import BotSettings

LARGEST_GRID: Final = 100_000
LOOK_SECONDS: Final = 0.2


class GridError(Exception):
    """A variation, or a combination of them, that cannot be replayed; the text names the option."""

    code = "GridInvalid"


@dataclass(frozen=True, slots=True)
class Variation:
    """A field of the spec and the values that it is to have; without a dot it is a parameter of the strategy."""

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Variation:
        """`fast=8..20:4`, `fast=8,12,16` or `protection.stopLossRatio=0.01`; GridError."""
        name, equals, given = text.partition("=")
        if not (name and equals and given):
            raise GridError(f"--set: expected NAME=VALUE, NAME=A,B or NAME=FROM..TO[:STEP], got {text!r}")
        values = [value for part in given.split(",") for value in _expand(name, part.strip())]
        return cls(name.removeprefix("spec."), tuple(dict.fromkeys(values)))


def _expand(name: str, text: str) -> list[str]:
    if ".." not in text:
        if not text:
            raise GridError(f"--set {name}: expected a value between the commas, got none")
        return [text]
    first, _, rest = text.partition("..")
    last, colon, step_text = rest.partition(":")
    try:
        start, end, step = Decimal(first), Decimal(last), Decimal(step_text) if colon else Decimal(1)
    except InvalidOperation:
        raise GridError(f"--set {name}: expected FROM..TO[:STEP] of numbers, got {text!r}") from None
    if not (start.is_finite() and end.is_finite() and step.is_finite()) or step <= 0 or end < start:
        raise GridError(f"--set {name}: expected FROM not above TO and a STEP above 0, got {text!r}")
    count = int((end - start) / step) + 1
    if count > LARGEST_GRID:
        raise GridError(f"--set {name}: expected at most {LARGEST_GRID} values, got {count}")
    return [canonical(start + step * number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Job:
    """One replay: the candles from index `first` to before `end` of a recording."""

    recording: Recording
    rules: SymbolRules
    settings: BotSettings
    changed: Mapping[str, str]
    """What varies, and its value here."""
    first: int
    end: int
    detailed: bool = False
    """Whether trades and equity over time are wanted, too."""


@dataclass(slots=True)
class Grid:
    """All replays, and what of the combinations was left out, with the reason of each."""

    jobs: list[Job] = field(default_factory=list)
    refused: list[tuple[Mapping[str, str], str]] = field(default_factory=list)

    @property
    def candles(self) -> int:
        """How many candles all replays decide on."""
        return sum(job.end - job.first for job in self.jobs)


def plan_grid(
    settings: BotSettings,
    recordings: Mapping[str, tuple[Recording, SymbolRules]],
    variations: Sequence[Variation],
    span: Callable[[Recording], tuple[int, int]],
) -> Grid:
    """Each combination of the variations on each recording; `span` gives the candles to trade of one.

    A combination that the settings or the strategy refuse is left out; ConfigError where they refuse all, GridError
    where there are too many.
    """
    grid = Grid()
    count = len(recordings)
    for variation in variations:
        count *= len(variation.values)
    if count > LARGEST_GRID:
        raise GridError(f"--set: expected at most {LARGEST_GRID} replays, got {count}")
    names = [variation.name for variation in variations]
    first_error: ConfigError | None = None
    for values in product(*(variation.values for variation in variations)):
        changed = dict(zip(names, values, strict=True))
        for symbol, (recording, rules) in recordings.items():
            try:
                job_settings = vary(settings, {**changed, "symbol": symbol}, recording)
            except ConfigError as error:
                first_error = first_error or error
                grid.refused.append(({"symbol": symbol, **changed}, str(error)))
                continue
            first, end = span(recording)
            _check_candles(recording, job_settings, first, end)
            grid.jobs.append(Job(recording, rules, job_settings, changed, first, end))
    if not grid.jobs and first_error is not None:
        raise first_error
    return grid


def _check_candles(recording: Recording, settings: BotSettings, first: int, end: int) -> None:
    """ConfigError where the strategy would see less than two candles between the recorded ones `first` and `end`."""
    interval = settings.strategy.interval
    width = INTERVAL_MS[interval]
    count = (recording.open_ms[end - 1] + recording.width) // width + recording.open_ms[first] // -width
    if count < 2:
        text = f"expected at least two whole candles in what is to be traded, got {count} of {interval.value}"
        raise ConfigError.single("replay", "spec.strategy.interval", text)


def vary(settings: BotSettings, changed: Mapping[str, str], recording: Recording) -> BotSettings:
    """The settings with some fields changed; ConfigError, also where the strategy refuses them."""
    spec = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    for name, value in changed.items():
        *parents, last = name.split(".")
        top = not parents and name in ("symbol", "capital")
        holder: Any = spec if top or parents else spec["strategy"].setdefault("parameters", {})
        for parent in parents:
            holder = holder.setdefault(parent, {}) if isinstance(holder, dict) else None
        if not isinstance(holder, dict):
            raise ConfigError.single("--set", f"spec.{name}", "there is no such field")
        holder[last] = int(value) if _is_whole(value) and not isinstance(holder.get(last), str) else value
    try:
        result = BotSettings.model_validate(spec)
    except ValidationError as error:
        raise ConfigError("replay", field_errors(error, "spec")) from error
    try:
        build_strategy(result.strategy.name, result.strategy.parameters)
    except UnknownStrategyError as error:
        raise ConfigError.single("replay", error.field, str(error).removeprefix(f"{error.field}: ")) from error
    except StrategyParametersError as error:
        raise ConfigError("replay", error.fields) from error
    if INTERVAL_MS[result.strategy.interval] % recording.width:
        raise ConfigError.single(
            "replay",
            "spec.strategy.interval",
            f"expected whole candles of {recording.interval.value}, which were recorded, got "
            f"{result.strategy.interval.value}; --set strategy.interval={recording.interval.value} takes those",
        )
    return result


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdigit() and text.isascii()


# --- making them ---

_jobs: Sequence[Job] = ()
_model = FillModel()
_done: Any = None
"""What the processes of a pool inherit, and the counter of candles that they share."""


def run_grid(jobs: Sequence[Job], model: FillModel, workers: int, progress: Callable[[int], None]) -> list[Run]:
    """Makes all replays on so many processes, 1 being this one; what they come to is in the order of the jobs.

    Nothing in a replay is drawn or asked of a clock, so that the number of processes changes nothing of them.
    `progress` is told how many candles are done.
    """
    global _jobs, _model, _done
    workers = min(workers, len(jobs))
    if workers <= 1:
        return list(_run_here(jobs, model, progress))
    context = multiprocessing.get_context("fork")  # recordings are inherited, not copied
    _jobs, _model, _done = jobs, model, context.Value("q", 0)
    try:
        with context.Pool(workers) as pool:
            running = pool.map_async(_run_job, range(len(jobs)), chunksize=1)
            while not running.ready():
                running.wait(LOOK_SECONDS)
                progress(_done.value)
            return list(running.get())
    finally:
        _jobs, _done = (), None


def _run_here(jobs: Sequence[Job], model: FillModel, progress: Callable[[int], None]) -> Iterator[Run]:
    before = 0
    for job in jobs:
        yield _run(job, model, lambda done, before=before: progress(before + done))  # type: ignore[misc]
        before += job.end - job.first


def _run_job(number: int) -> Run:
    told = 0

    def progress(done: int) -> None:
        nonlocal told
        with _done.get_lock():
            _done.value += done - told
        told = done

    return _run(_jobs[number], _model, progress)


def _run(job: Job, model: FillModel, progress: Callable[[int], None]) -> Run:
    outcome = replay(
        job.recording, job.settings, model, rules=job.rules, first=job.first, end=job.end, progress=progress
    )
    return summarise(outcome, job.recording, job.changed, detailed=job.detailed)
