"""Generates docs/metrics.md: every metric of bot and operator, as the programs export them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from tradingbot.monitoring import metrics as bot
from tradingbot_api.bot_http import AssetClaim, BotStatus, GrantStatus, OrderCount, OrderUse
from tradingbot_api.v1alpha1 import (
    APIStatus,
    BalanceStatus,
    CircuitBreakerStatus,
    Condition,
    OrdersStatus,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    SafeModeCause,
    SafeModeStatus,
    TradesStatus,
)
from tradingbot_operator import metrics as operator

HEADER: Final = """<!-- Generated from the metrics of bot and operator by `make generate`. Do not edit. -->
# Metrics

What is not known has no sample. Counters begin at 0 with the process; money is in the quote asset, ages and durations
in seconds, times in UNIX seconds. Prometheus adds the labels of the target, among them `namespace` and `pod`.
"""
OF_SAMPLES: Final = {"le", "quantile"}
"""Labels of a histogram's samples, not of the metric."""
ONE: Final = Decimal(1)
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
CONDITIONS: Final = ("TradingAllowed", "BalanceSynced", "CapitalCovered", "Protected", "ConfigApplied")
STATUS: Final = BotStatus(
    bot_uid="uid",
    boot_id="boot",
    incarnation=1,
    sequence=1,
    applied_revision=1,
    time=NOON,
    version="1",
    ready=True,
    symbol="BTCUSDT",
    grant=GrantStatus(held=True, expires_in_seconds=60.0),
    conditions=[Condition(type=kind, status="True", reason="OK") for kind in CONDITIONS],
    circuit_breaker=CircuitBreakerStatus(state="Open", failures=5),
    safe_mode=SafeModeStatus(
        level="NoNewEntries",
        engaged=True,
        acknowledged=True,
        causes=[SafeModeCause(id="spec", source="Spec", reason="Spec", level="NoNewEntries")],
    ),
    balance=BalanceStatus(base=ONE, quote=ONE, drift=ONE, last_sync_time=NOON),
    position=PositionStatus(side="Long", quantity=ONE, average_price=ONE, value=ONE, validated=True),
    pnl=PnLStatus(realized=ONE, unrealized=ONE, total=ONE, fees={"BNB": ONE}, max_drawdown=ONE, sharpe=ONE),
    risk=RiskStatus(level="LOW", volatility=ONE, drawdown=ONE),
    orders=OrdersStatus(active=2, oco=1, foreign=1, last_check_time=NOON),
    trades=TradesStatus(total=2, successful=1, failed=1, win_rate=ONE, profit_factor=ONE),
    api=APIStatus(calls=1, errors=1),
    order_use=OrderUse(counts=[OrderCount(interval="10S", seconds=10, limit=100)], wanted=0, asks=False, allotted=None),
    quote_claim=AssetClaim(asset="USDT", claimed=ONE, held=ONE),
)
"""A bot that knows everything, in safe mode and in position."""
EXTRA: Final = bot.Extra(
    environment="Paper",
    equity=ONE,
    daily_loss=ONE,
    daily_loss_limit=ONE,
    drawdown_limit=ONE,
    position_seconds=1.0,
    time_in_market=ONE,
    stream_ages={"user": 1.0},
    task_ages={"decide": 1.0},
    weight_limit=6000,
    exchange_wait_end=1.0,
    clock_offset_seconds=0.1,
)
FLEET: Final = (
    operator.BotFigures("trading", "btcusdt", "Trading", 1.0, unacknowledged=True, unexplained={"USDT": Decimal(-7)}),
)


def registries() -> tuple[CollectorRegistry, CollectorRegistry]:
    """A bot's and an operator's, with a sample of each metric."""
    of_bot, of_operator = bot.Metrics(STATUS.symbol, lambda: (STATUS, EXTRA)), operator.Metrics()
    of_operator.fleet = lambda: FLEET
    of_operator.switches = lambda: [operator.SwitchFigures("KillSwitch", "trading", "incident", True, 3, 1)]
    of_operator.sets = lambda: [
        operator.SetFigures(
            "trading", "majors", {"Trading": 3}, False, {"maxDailyLoss": ONE}, {"maxDailyLoss": ONE}, False
        )
    ]
    for metrics in (of_bot, of_operator):
        for metric in vars(metrics).values():
            if isinstance(metric, MetricWrapperBase) and not any(family.samples for family in metric.collect()):
                metric.labels(*("example" for _ in metric._labelnames))
    return of_bot.registry, of_operator.registry


def _rows(registry: CollectorRegistry) -> Iterator[str]:
    for family in sorted(registry.collect(), key=lambda family: family.name):
        if not family.samples:
            raise ValueError(f"{family.name} has no sample: give it one in {Path(__file__).name}")
        labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name not in OF_SAMPLES)
        names = ", ".join(f"`{name}`" for name in labels)
        yield f"| `{_name(family)}` | {family.type} | {names} | {family.documentation} |"


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def render() -> str:
    """The Markdown page."""
    lines = [HEADER]
    for title, registry in zip(("A bot: port 8080", "The operator: port 9090"), registries(), strict=True):
        lines += [f"## {title}", "", "| Metric | Type | Labels | Meaning |", "|---|---|---|---|", *_rows(registry), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")
