"""What replays came to, as one HTML page that needs nothing else: no script, no network, drawn as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from itertools import accumulate
from typing import Final

from tradingbot.lab.replay_figures import CurvePoint, Run
from tradingbot.lab.replay_report import Report, changed_text, moment, percent, price, rows, title
from tradingbot_api.base import canonical

WIDTH: Final = 1000
LEFT: Final = 70
RIGHT: Final = 10
GRID_LINES: Final = 4
DATES: Final = 6
STYLE: Final = """
:root { color-scheme: light dark; --line: #2563eb; --won: #15803d; --lost: #b91c1c; --grid: #8884; --held: #8888; }
body { font: 14px/1.45 system-ui, sans-serif; max-width: 1040px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; } h3 { font-size: .95rem; margin: 1rem 0 .2rem; }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 11px; fill: currentColor; opacity: .75; }
table { border-collapse: collapse; margin: .5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .7rem .15rem 0; text-align: left; vertical-align: top; } th { opacity: .7; font-weight: 600; }
td.n, th.n { text-align: right; } tr + tr td { border-top: 1px solid var(--grid); }
.scroll { max-height: 26rem; overflow: auto; } .won { color: var(--won); } .lost { color: var(--lost); }
.curve { fill: none; stroke: var(--line); stroke-width: 1.4; } .held { fill: none; stroke: var(--held); }
.fall { fill: var(--lost); opacity: .35; } .range { fill: var(--held); opacity: .35; } .rule { stroke: var(--grid); }
.buy { fill: var(--won); } .sell { fill: var(--lost); }
"""


def page(report: Report) -> str:
    """The whole page."""
    parts = [f"<h1>Replay: {len(report.runs)} of {_symbols(report)}</h1>", f"<p>Fills: {escape(report.model)}.</p>"]
    if len(report.runs) > 1:
        parts.append(_grid(report))
    if report.refused:
        left_out = [[escape(changed_text(changed)), escape(why)] for changed, why in report.refused]
        parts += ["<h2>Left out</h2>", _table([("combination", ""), ("why", "")], left_out)]
    parts += [_run(run) for run in report.details]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Replay of {_symbols(report)}</title><style>{STYLE}</style></head>"
    )
    return f"{head}<body>\n{chr(10).join(parts)}\n</body></html>\n"


def _symbols(report: Report) -> str:
    return escape(", ".join(dict.fromkeys(run.symbol for run in report.runs)))


def _grid(report: Report) -> str:
    columns = [("symbol", ""), ("varied", "")]
    columns += [(name, "n") for name in ("PnL", "return", "largest drawdown", "daily Sharpe", "trades", "won", "fees")]
    body = []
    for run in report.ranked:
        found, trades = run.figures, run.figures.trades
        body.append(
            [
                escape(run.symbol),
                escape(changed_text(run.changed)),
                _signed(f"{found.pnl:+.2f}"),
                percent(found.total_return),
                percent(found.max_drawdown),
                "-" if found.daily_sharpe is None else f"{found.daily_sharpe:.2f}",
                str(trades.total),
                percent(trades.win_rate, 0),
                f"{found.fees:.2f}",
            ]
        )
    return "<h2>All, by PnL</h2>" + _table(columns, body)


def _run(run: Run) -> str:
    parts = [f"<h2>{escape(title(run))}</h2>", _table([], [[f"<b>{escape(n)}</b>", escape(v)] for n, v in rows(run)])]
    detail = run.detail
    if detail is None or not detail.curve:
        return "".join(parts)
    curve = detail.curve
    peaks = list(accumulate((point.equity for point in curve), max))
    falls = [100 * min(0.0, point.worst / peak - 1) for point, peak in zip(curve, peaks, strict=True)]
    held = [curve[0].equity / curve[0].close * point.close for point in curve]
    parts += [
        "<h3>Equity (grey: bought at the start and held)</h3>",
        _equity(curve, held),
        "<h3>Drawdown, %</h3>",
        _drawdown(curve, falls),
        "<h3>Price, with purchases (green) and sales (red)</h3>",
        _price(run, curve),
        f"<h3>Trades: {len(detail.trades)}</h3>",
        _trades(run),
    ]
    return "\n".join(parts)


def _trades(run: Run) -> str:
    columns = [("opened", ""), ("closed", ""), ("closed by", "")]
    columns += [(name, "n") for name in ("quantity", "entry", "exit", "fees", "PnL", "return")]
    body = []
    for one in run.detail.trades if run.detail else ():
        trade, closed = one.trade, one.trade.closed_ms
        body.append(
            [
                moment(trade.opened_ms),
                "open" if closed is None else moment(closed),
                "" if closed is None else one.why.value,
                canonical(trade.bought),
                price(one.entry),
                "" if one.exit is None else price(one.exit),
                f"{trade.fees:.4f}",
                _signed(f"{trade.realized:+.4f}"),
                percent(trade.rate, 3),
            ]
        )
    return f'<div class="scroll">{_table(columns, body)}</div>'


def _signed(text: str) -> str:
    return f'<span class="{"lost" if text.startswith("-") else "won"}">{text}</span>'


def _table(columns: Sequence[tuple[str, str]], body: Iterable[Sequence[str]]) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        kinds = [kind for _, kind in columns] or [""] * len(row)
        return "".join(
            f"<{tag}{' class=n' if kind else ''}>{cell}</{tag}>" for cell, kind in zip(row, kinds, strict=True)
        )

    head = f"<tr>{cells('th', [name for name, _ in columns])}</tr>" if columns else ""
    lines = [f"<tr>{cells('td', row)}</tr>" for row in body]
    return f"<table>{head}{''.join(lines)}</table>"


# --- drawing ---


@dataclass(frozen=True, slots=True)
class _Plane:
    """A drawing area: time to the right, values upwards."""

    start: float
    end: float
    low: float
    high: float
    height: int

    @classmethod
    def over(cls, curve: Sequence[CurvePoint], values: Iterable[float], height: int) -> _Plane:
        known = list(values)
        low, high = min(known), max(known)
        room = (high - low) * 0.04 or abs(high) * 0.01 or 1.0
        return cls(curve[0].time_ms, curve[-1].time_ms, low - room, high + room, height)

    def x(self, time_ms: float) -> float:
        span = self.end - self.start or 1
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, (time_ms - self.start) / span))

    def y(self, value: float) -> float:
        return 5 + (self.height - 25) * (self.high - value) / (self.high - self.low)

    def line(self, curve: Sequence[CurvePoint], values: Iterable[float]) -> str:
        return " ".join(f"{self.x(p.time_ms):.1f},{self.y(v):.1f}" for p, v in zip(curve, values, strict=True))

    def drawn(self, inside: str, show: Callable[[float], str]) -> str:
        parts = []
        for number in range(GRID_LINES + 1):
            value = self.low + (self.high - self.low) * number / GRID_LINES
            y = self.y(value)
            parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{show(value)}</text>')
        for number in range(DATES):
            time_ms = self.start + (self.end - self.start) * number / (DATES - 1)
            day = datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%m-%d %H:%M")
            anchor = "start" if number == 0 else "end" if number == DATES - 1 else "middle"
            parts.append(f'<text x="{self.x(time_ms):.1f}" y="{self.height - 4}" text-anchor="{anchor}">{day}</text>')
        return f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img">{"".join(parts)}{inside}</svg>'


def _equity(curve: Sequence[CurvePoint], held: Sequence[float]) -> str:
    equity = [point.equity for point in curve]
    plane = _Plane.over(curve, [*equity, *held], 260)
    inside = (
        f'<polyline class="held" points="{plane.line(curve, held)}"/>'
        f'<polyline class="curve" points="{plane.line(curve, equity)}"/>'
    )
    return plane.drawn(inside, lambda value: f"{value:.2f}")


def _drawdown(curve: Sequence[CurvePoint], falls: Sequence[float]) -> str:
    plane = _Plane.over(curve, [*falls, 0.0], 130)
    zero = f"{plane.x(curve[-1].time_ms):.1f},{plane.y(0):.1f} {plane.x(curve[0].time_ms):.1f},{plane.y(0):.1f}"
    return plane.drawn(
        f'<polygon class="fall" points="{plane.line(curve, falls)} {zero}"/>', lambda value: f"{value:.2f}"
    )


def _price(run: Run, curve: Sequence[CurvePoint]) -> str:
    plane = _Plane.over(curve, [*(point.low for point in curve), *(point.high for point in curve)], 320)
    highs = plane.line(curve, [point.high for point in curve])
    lows = plane.line(curve[::-1], [point.low for point in reversed(curve)])
    parts = [
        f'<polygon class="range" points="{highs} {lows}"/>',
        f'<polyline class="curve" points="{plane.line(curve, [point.close for point in curve])}"/>',
    ]
    for time_ms, side, paid, why in run.detail.fills if run.detail else ():
        x, y, buys = plane.x(time_ms), plane.y(paid), side == "BUY"
        tip = 7 if buys else -7
        parts.append(
            f'<path class="{"buy" if buys else "sell"}" d="M{x:.1f} {y:.1f}l-4 {tip}h8z">'
            f"<title>{escape(f'{why} at {paid:g}, {moment(time_ms)}')}</title></path>"
        )
    return plane.drawn("".join(parts), lambda value: f"{value:.6g}")
