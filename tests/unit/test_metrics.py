"""Promises of the metrics: each is documented, each field of the status is one, and labels stay few."""

from __future__ import annotations

import re
from pathlib import Path

import metrics_page
import pytest

from tradingbot.gateway.port import CallKind
from tradingbot.monitoring import metrics as bot
from tradingbot_operator import metrics as operator

ROOT = Path(__file__).resolve().parents[2]
OF_STATUS = {
    "status": "tradingbot_operator_bot_phase",
    "position": "tradingbot_position_value",
    "qty": "tradingbot_position_quantity",
    "avg_price": "tradingbot_position_average_price",
    "active_orders": "tradingbot_orders_active",
    "oco_orders": "tradingbot_order_lists_active",
    "last_order_check": "tradingbot_order_check_timestamp_seconds",
    "position_validated": "tradingbot_position_validated",
    "balance_synced": "tradingbot_balance_synced",
    "risk_level": "tradingbot_risk_level",
    "volatility": "tradingbot_volatility",
    "drawdown": "tradingbot_drawdown",
    "safe_mode": "tradingbot_safe_mode",
    "circuit_breaker_state": "tradingbot_circuit_breaker_state",
    "total_trades": "tradingbot_trades_total",
    "successful_trades": "tradingbot_trades_successful_total",
    "failed_trades": "tradingbot_trades_failed_total",
    "total_pnl": "tradingbot_pnl",
    "max_drawdown": "tradingbot_drawdown_max",
    "sharpe_ratio": "tradingbot_sharpe",
    "api_calls_count": "tradingbot_api_calls_total",
    "api_errors_count": "tradingbot_api_errors_total",
    "last_api_error": "tradingbot_api_request_failures_total",
    "memory_usage": "process_resident_memory_bytes",
    "cpu_usage": "process_cpu_seconds_total",
}
BOUNDED = {
    "symbol", "asset", "quote", "version", "environment",  # one, or as many as its account pays fees in
    "call", "code", "kind", "level", "outcome", "phase", "reason", "result", "state", "stream", "task",  # words of ours
    "verb", "resource",  # of Kubernetes, those that are used
    "bot_namespace", "bot",  # as many as there are TradingBots
    "exchange", "egress_group", "part", "bots",  # as many as there are addresses
    "account", "interval",  # as many as there are accounts, and of the exchange's limits
    "shard",  # as many as there are operators
    "switch_kind", "switch_namespace", "switch",  # as many as there are kill switches
    "set_namespace", "set", "limit",  # as many as there are TradingBotSets
    "implementation", "major", "minor", "patchlevel",  # of Python
    "how",
}  # fmt: skip


def test_the_page_of_metrics_is_what_the_code_generates() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == metrics_page.render(), "run `make generate`"


@pytest.mark.parametrize("metric", OF_STATUS.values(), ids=OF_STATUS.keys())
def test_every_field_of_the_status_is_a_metric(metric: str) -> None:
    assert f"| `{metric}` |" in metrics_page.render()


def test_no_label_takes_values_without_bound() -> None:
    rows = re.findall(r"^\| `\w+` \| \w+ \| (.*?) \|", metrics_page.render(), re.M)
    assert {label for row in rows for label in re.findall(r"`(\w+)`", row)} <= BOUNDED


def test_refusals_and_failed_steps_are_counted_from_0_so_that_a_rate_sees_the_first() -> None:
    (of_bot, _), of_operator = metrics_page.registries(), operator.Metrics()
    refused = {"symbol": "BTCUSDT", "call": "order", "code": "Rejected"}
    assert of_bot.get_sample_value("tradingbot_api_request_failures_total", refused) == 0
    assert of_operator.registry.get_sample_value("tradingbot_operator_reconciles_total", {"result": "failed"}) == 0
    for name, label, word in (
        ("tradingbot_entries_refused_total", "code", "Cooldown"),
        ("tradingbot_entries_total", "outcome", "Filled"),
    ):
        assert of_bot.get_sample_value(name, {"symbol": "BTCUSDT", label: word}) == 0, name
    for kind in ("tradingbots", "pods"):
        assert of_operator.registry.get_sample_value("tradingbot_operator_resync_misses_total", {"kind": kind}) == 0


def test_a_request_is_timed_and_its_failure_counted_by_code() -> None:
    metrics = bot.Metrics("BTCUSDT", lambda: (metrics_page.STATUS, metrics_page.EXTRA))
    metrics.request(CallKind.ORDER, 0.2, "")
    metrics.request(CallKind.ORDER, 0.4, "Rejected")
    order = {"symbol": "BTCUSDT", "call": "order"}
    value = metrics.registry.get_sample_value
    assert value("tradingbot_api_request_seconds_count", order) == 2
    assert value("tradingbot_api_request_seconds_sum", order) == pytest.approx(0.6)
    assert value("tradingbot_api_request_failures_total", {**order, "code": "Rejected"}) == 1


def test_a_wait_that_the_exchange_does_not_demand_has_no_end() -> None:
    metrics = bot.Metrics("BTCUSDT", lambda: (metrics_page.STATUS, bot.Extra()))
    assert b"\ntradingbot_exchange_wait_end_timestamp_seconds{" not in metrics.render()


def test_an_operator_that_knows_a_bots_phase_and_not_its_heartbeat_tells_what_it_knows() -> None:
    metrics = operator.Metrics()
    metrics.fleet = lambda: [operator.BotFigures("trading", "btc", "Pending", None, unacknowledged=False)]
    key = {"bot_namespace": "trading", "bot": "btc"}
    value = metrics.registry.get_sample_value
    assert value("tradingbot_operator_bot_phase", {**key, "phase": "Pending"}) == 1
    assert value("tradingbot_operator_bot_heartbeat_age_seconds", key) is None
    assert value("tradingbot_operator_bot_safe_mode_unacknowledged", key) == 0
