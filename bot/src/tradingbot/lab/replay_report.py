"""What replays came to, as text and as JSON; the same replays give the same JSON byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from tradingbot.clocks import from_ms
from tradingbot.lab.replay_figures import ClosedBy, Run
from tradingbot_api.base import canonical

SHOWN_RUNS: Final = 20
SHOWN_TRADES: Final = 10


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told of some replays."""

    model: str
    runs: Sequence[Run]
    refused: Sequence[tuple[Mapping[str, str], str]] = ()
    """Combinations that were left out, and why."""
    details: Sequence[Run] = field(default_factory=tuple)
    """Those that are shown with trades and equity over time: all, or the best of each symbol in a grid."""

    @property
    def ranked(self) -> list[Run]:
        """By profit, the best first; equals in the order in which they were asked for."""
        return sorted(self.runs, key=lambda run: -run.figures.pnl)


def best_of_each_symbol(runs: Sequence[Run]) -> list[int]:
    """Where in the list the most profitable run of each symbol is."""
    best: dict[str, int] = {}
    for number, run in enumerate(runs):
        if run.symbol not in best or run.figures.pnl > runs[best[run.symbol]].figures.pnl:
            best[run.symbol] = number
    return list(best.values())


def moment(time_ms: int) -> str:
    """A time for people, in UTC."""
    return from_ms(time_ms).strftime("%Y-%m-%d %H:%M")


def percent(ratio: Decimal | None, places: int = 2) -> str:
    """A ratio for people."""
    return "-" if ratio is None else f"{ratio * 100:.{places}f} %"


def price(value: Decimal) -> str:
    """A price for people: seven digits."""
    return f"{float(value):.7g}"


def changed_text(changed: Mapping[str, str]) -> str:
    """What varies, for people."""
    return " ".join(f"{name}={value}" for name, value in changed.items())


def to_json(report: Report) -> str:
    """Amounts and ratios as decimal strings, times in ISO 8601 UTC."""
    body = {
        "fillModel": report.model,
        "runs": [_run(run) for run in report.runs],
        "best": [_run(run) for run in report.details if run not in report.runs],
        "refused": [{"changed": dict(changed), "why": why} for changed, why in report.refused],
    }
    return json.dumps(body, indent=2) + "\n"


def _text(value: Decimal | None) -> str | None:
    return None if value is None else canonical(value)


def _run(run: Run) -> dict[str, Any]:
    found, trades, strategy = run.figures, run.figures.trades, run.settings.strategy
    body: dict[str, Any] = {
        "symbol": run.symbol,
        "strategy": strategy.name,
        "interval": strategy.interval.value,
        "parameters": dict(strategy.parameters),
        "changed": dict(run.changed),
        "from": from_ms(found.start_ms).isoformat(),
        "to": from_ms(found.end_ms + 1).isoformat(),
        "candles": run.candles,
        "gaps": run.gaps,
        "startEquity": _text(found.start_equity),
        "endEquity": _text(found.end_equity),
        "pnl": _text(found.pnl),
        "realized": _text(found.realized),
        "unrealized": _text(found.unrealized),
        "fees": _text(found.fees),
        "totalReturn": _text(found.total_return),
        "marketReturn": _text(run.market_return),
        "maxDrawdown": _text(found.max_drawdown),
        "dailySharpe": _text(found.daily_sharpe),
        "exposure": _text(found.exposure),
        "trades": {
            "total": trades.total,
            "successful": trades.successful,
            "failed": trades.failed,
            "winRate": _text(trades.win_rate),
            "profitFactor": _text(trades.profit_factor),
            "sharpe": _text(trades.sharpe),
        },
        "held": _text(run.held),
        "refusals": dict(run.refusals),
        "stopped": {"why": run.stopped, "time": from_ms(run.stopped_ms).isoformat()} if run.stopped else None,
    }
    if run.detail is not None:
        body["tradeList"] = [_trade(one) for one in run.detail.trades]
    return body


def _trade(one: ClosedBy) -> dict[str, Any]:
    trade = one.trade
    return {
        "opened": from_ms(trade.opened_ms).isoformat(),
        "closed": None if trade.closed_ms is None else from_ms(trade.closed_ms).isoformat(),
        "bought": _text(trade.bought),
        "entryPrice": _text(one.entry),
        "exitPrice": _text(one.exit),
        "fees": _text(trade.fees),
        "realized": _text(trade.realized),
        "return": _text(trade.rate),
        "closedBy": None if trade.closed_ms is None else one.why.value,
    }


def show(report: Report, console: Console) -> None:
    """For people."""
    if len(report.runs) > 1:
        console.print(_grid(report))
        left = len(report.runs) - SHOWN_RUNS
        if left > 0:
            console.print(f"{left} more are in --json and --html")
    if report.refused:
        console.print(f"{len(report.refused)} combinations left out, such as {report.refused[0][1]}")
    for run in report.details:
        console.print(_figures(run))
        console.print(_trades(run))
    console.print(f"fills: {report.model}")


def _grid(report: Report) -> Table:
    table = Table(title=f"{len(report.runs)} replays, by PnL", box=SIMPLE, pad_edge=False)
    table.add_column("symbol", no_wrap=True)
    table.add_column("with")
    for column in ("PnL", "return", "fall", "Sharpe", "trades", "won", "fees"):
        table.add_column(column, justify="right", no_wrap=True)
    for run in report.ranked[:SHOWN_RUNS]:
        found, trades = run.figures, run.figures.trades
        table.add_row(
            run.symbol,
            changed_text(run.changed),
            f"{found.pnl:+.2f}",
            percent(found.total_return),
            percent(found.max_drawdown),
            "-" if found.daily_sharpe is None else f"{found.daily_sharpe:.2f}",
            str(trades.total),
            percent(trades.win_rate, 0),
            f"{found.fees:.2f}",
        )
    return table


def rows(run: Run) -> list[tuple[str, str]]:
    """The figures of one replay for people: name and value."""
    found, trades = run.figures, run.figures.trades
    told = [
        ("from, to", f"{moment(found.start_ms)} - {moment(found.end_ms + 1)} UTC, {run.candles:,} candles"),
        ("equity", f"{found.start_equity:.2f} -> {found.end_equity:.2f}, {percent(found.total_return)}"),
        ("held from the start", percent(run.market_return)),
        ("PnL", f"{found.pnl:+.4f} (realized {found.realized:+.4f}, unrealized {found.unrealized:+.4f})"),
        ("fees", f"{found.fees:.4f}"),
        ("largest drawdown", percent(found.max_drawdown)),
        ("daily Sharpe ratio", "-" if found.daily_sharpe is None else f"{found.daily_sharpe:.3f}"),
        ("trades", f"{trades.total}, {trades.successful} won ({percent(trades.win_rate)})"),
        ("profit factor", "-" if trades.profit_factor is None else f"{trades.profit_factor:.3f}"),
        ("time in position", percent(found.exposure)),
        ("entries refused", ", ".join(f"{count} {code}" for code, count in run.refusals.items()) or "none"),
    ]
    if run.held:
        told.append(("held at the end", f"{canonical(run.held)}"))
    if run.gaps:
        told.append(("gaps in the candles", f"{run.gaps}: the strategy saw the candle after each as the next"))
    if run.stopped:
        told.append(("no entries since", f"{moment(run.stopped_ms)}: {run.stopped}"))
    return told


def title(run: Run) -> str:
    """What was replayed."""
    strategy = run.settings.strategy
    parameters = " ".join(f"{name}={value}" for name, value in strategy.parameters.items())
    others = changed_text({name: value for name, value in run.changed.items() if name not in strategy.parameters})
    return " ".join(filter(None, (run.symbol, strategy.interval.value, strategy.name, parameters, others)))


def _figures(run: Run) -> Table:
    table = Table("figure", "value", title=title(run), box=SIMPLE)
    for name, value in rows(run):
        table.add_row(name, value)
    return table


def _trades(run: Run) -> Table:
    closed = [] if run.detail is None else run.detail.trades
    last = closed[-SHOWN_TRADES:]
    table = Table(title=f"last {len(last)} of {len(closed)} trades", box=SIMPLE, pad_edge=False)
    for column in ("opened", "closed", "closed by"):
        table.add_column(column, no_wrap=True)
    for column in ("entry", "exit", "PnL", "return"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in last:
        trade = one.trade
        table.add_row(
            moment(trade.opened_ms)[5:],
            "open" if trade.closed_ms is None else moment(trade.closed_ms)[5:],
            "" if trade.closed_ms is None else one.why.value,
            price(one.entry),
            "" if one.exit is None else price(one.exit),
            f"{trade.realized:+.2f}",
            percent(trade.rate, 3),
        )
    return table
