"""Generates the chart's Grafana dashboards: fleet, sets, one bot, operator. A metric's own help says what it means."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from metrics_page import registries

BOT: Final = '{namespace="$namespace", pod="$pod"}'
PER_BOT: Final = "max by (namespace, pod, symbol)"
NAME: Final = "{{namespace}}/{{pod}}"
WIDTH: Final = 8
HEIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries with their legends; `unit` is Grafana's word."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page of panels; `variables` are labels to choose, each with the query of its values."""

    uid: str
    title: str
    panels: Sequence[Panel]
    variables: Sequence[tuple[str, str]] = ()


def _of_bot(title: str, *metrics: str, unit: str = "short") -> Panel:
    queries = [(f"max by (pod) (tradingbot_{metric}{BOT})", metric.replace("_", " ")) for metric in metrics]
    return Panel(title, queries, unit)


FLEET: Final = Dashboard(
    "tradingbot-fleet",
    "TradingBots: fleet",
    (
        Panel("Profit and loss", [("environment_quote:tradingbot_pnl:sum", "{{environment}} {{quote}}")], kind="stat"),
        Panel(
            "Exposure", [("environment_quote:tradingbot_position_value:sum", "{{environment}} {{quote}}")], kind="stat"
        ),
        Panel("Bots by phase", [("sum by (phase) (tradingbot_operator_bots) > 0", "{{phase}}")]),
        Panel("Equity", [("environment_quote:tradingbot_equity:sum", "{{environment}} {{quote}}")]),
        Panel("Bots in safe mode", [("count by (reason) (tradingbot_safe_mode == 1)", "{{reason}}")]),
        Panel("Bots without an answer", [('count(up{job="tradingbot"} == 0) or vector(0)', "down")]),
        Panel("Worst profit and loss", [(f"bottomk(10, {PER_BOT} (tradingbot_pnl))", NAME)]),
        Panel("Deepest drawdown", [(f"topk(10, {PER_BOT} (tradingbot_drawdown))", NAME)], "percentunit"),
        Panel(
            "Daily loss, part of its limit",
            [(f"topk(10, {PER_BOT} (tradingbot_daily_loss / tradingbot_daily_loss_limit))", NAME)],
            "percentunit",
        ),
        Panel("Without protection", [(f"topk(10, {PER_BOT} (tradingbot_unprotected_now_seconds))", NAME)], "s"),
        Panel("Request weight used", [(f"topk(10, {PER_BOT} (tradingbot_api_used_weight))", NAME)]),
        Panel("Failed requests", [(f"topk(10, {PER_BOT} (rate(tradingbot_api_errors_total[5m])))", NAME)], "reqps"),
    ),
)
ONE_BOT: Final = Dashboard(
    "tradingbot-bot",
    "TradingBots: one bot",
    (
        _of_bot("Profit and loss", "pnl", "pnl_realized", "pnl_unrealized"),
        _of_bot("Equity", "equity"),
        _of_bot("Position", "position_value"),
        _of_bot("Daily loss", "daily_loss", "daily_loss_limit"),
        _of_bot("Drawdown", "drawdown", "drawdown_max", "drawdown_limit", unit="percentunit"),
        _of_bot("Volatility", "volatility", unit="percentunit"),
        Panel("Safe mode", [(f"max by (reason) (tradingbot_safe_mode{BOT})", "{{reason}}")]),
        _of_bot("State", "ready", "trading_allowed", "balance_synced", "capital_covered", "protected"),
        Panel("Circuit breaker", [(f"max by (state) (tradingbot_circuit_breaker_state{BOT})", "{{state}}")]),
        _of_bot("Without protection", "unprotected_now_seconds", "protection_deadline_seconds", unit="s"),
        _of_bot("Orders", "orders_active", "order_lists_active", "foreign_orders"),
        Panel("Entries", [(f"sum by (outcome) (increase(tradingbot_entries_total{BOT}[1h]))", "{{outcome}}")]),
        Panel(
            "Refused entries", [(f"sum by (code) (increase(tradingbot_entries_refused_total{BOT}[1h]))", "{{code}}")]
        ),
        Panel(
            "Time of a request, p99",
            [
                (
                    "histogram_quantile(0.99, "
                    f"sum by (le, call) (rate(tradingbot_api_request_seconds_bucket{BOT}[5m])))",
                    "{{call}}",
                )
            ],
            "s",
        ),
        Panel(
            "Failed requests",
            [(f"sum by (call, code) (increase(tradingbot_api_request_failures_total{BOT}[5m]))", "{{call}} {{code}}")],
        ),
        _of_bot("Request weight", "api_used_weight", "api_weight_limit"),
        Panel("Age of streams", [(f"max by (stream) (tradingbot_stream_age_seconds{BOT})", "{{stream}}")], "s"),
        _of_bot("Clock and loop", "clock_offset_seconds", "loop_lag_seconds", unit="s"),
        _of_bot("Grant", "grant_seconds", unit="s"),
        Panel("Memory", [(f"max by (pod) (process_resident_memory_bytes{BOT})", "resident")], "bytes"),
        Panel("CPU", [(f"sum by (pod) (rate(process_cpu_seconds_total{BOT}[5m]))", "cores")]),
    ),
    (
        ("namespace", "label_values(tradingbot_ready, namespace)"),
        ("pod", 'label_values(tradingbot_ready{namespace="$namespace"}, pod)'),
    ),
)


def _quantile(metric: str, share: str = "0.99") -> str:
    return f"histogram_quantile({share}, sum by (le) (rate(tradingbot_operator_{metric}_bucket[5m])))"


OPERATOR: Final = Dashboard(
    "tradingbot-operator",
    "TradingBots: operator",
    (
        Panel("Leader", [("max by (namespace, pod) (tradingbot_operator_leader)", NAME)]),
        Panel("Bots by phase", [("sum by (phase) (tradingbot_operator_bots) > 0", "{{phase}}")]),
        Panel("Bots heard", [("max(tradingbot_operator_bots_reachable)", "reachable")]),
        Panel("Steps", [("sum by (result) (rate(tradingbot_operator_reconciles_total[5m]))", "{{result}}")], "ops"),
        Panel("Time of a step, p99", [(_quantile("reconcile_seconds"), "p99")], "s"),
        Panel("Queue", [("max by (namespace, pod) (tradingbot_operator_queue_length)", NAME)]),
        Panel(
            "Safe mode: from the spec to the bot's word, p99",
            [
                (_quantile("safe_mode_engaged_seconds"), "engaged"),
                (_quantile("safe_mode_acknowledged_seconds"), "acknowledged"),
            ],
            "s",
        ),
        Panel(
            "Oldest word of a bot",
            [("topk(10, max by (bot_namespace, bot) (tradingbot_operator_bot_heartbeat_age_seconds))",
              "{{bot_namespace}}/{{bot}}")],
            "s",
        ),
        Panel("Calls to bots", [("sum by (call, result) (rate(tradingbot_operator_bot_calls_total[5m]))",
                                 "{{call}} {{result}}")], "ops"),
        Panel("Requests to the API server", [
            ("sum by (verb, code) (rate(tradingbot_operator_api_requests_total[5m]))", "{{verb}} {{code}}")], "reqps"),
        Panel("Time of a request to the API server, p99", [(_quantile("api_seconds"), "p99")], "s"),
        Panel("Lag of the event loop, p99", [(_quantile("event_loop_lag_seconds"), "p99")], "s"),
        Panel("Age of the view of the cluster", [
            ("time() - max by (pod) (tradingbot_operator_last_resync_timestamp_seconds)", "list, {{pod}}"),
            ("time() - max by (pod, kind) (tradingbot_operator_watch_event_timestamp_seconds)", "{{kind}}, {{pod}}"),
        ], "s"),
        Panel("Missed watch events", [
            ("sum by (kind) (increase(tradingbot_operator_resync_misses_total[1h]))", "{{kind}}")]),
        Panel("Refused claims, replaced pods, incomplete deletions", [
            ("sum(increase(tradingbot_operator_claims_refused_total[1h]))", "claims refused"),
            ("sum(increase(tradingbot_operator_pods_replaced_total[1h]))", "pods replaced"),
            ("sum(increase(tradingbot_operator_deletions_incomplete_total[1h]))", "deletions incomplete"),
        ]),
        Panel("Memory", [
            ('max by (pod) (process_resident_memory_bytes{job="tradingbot-operator"})', "{{pod}}")], "bytes"),
    ),
)  # fmt: skip


def _of_set(metric: str, *labels: str) -> str:
    return f"max by ({', '.join(('set_namespace', 'set', *labels))}) (tradingbot_operator_set_{metric})"


OF_SET: Final = "{{set_namespace}}/{{set}}"
SETS: Final = Dashboard(
    "tradingbot-sets",
    "TradingBots: sets",
    (
        Panel("Bots by phase", [(_of_set("bots", "phase"), f"{OF_SET} {{{{phase}}}}")]),
        Panel("Rollouts that stopped", [(_of_set("rollout_stopped"), OF_SET)]),
        Panel("Daily loss reached", [(_of_set("daily_loss_reached"), OF_SET)]),
        Panel(
            "Part of the limit that is used",
            [(f"{_of_set('counted', 'limit')} / {_of_set('limit', 'limit')}", f"{OF_SET} {{{{limit}}}}")],
            "percentunit",
        ),
        Panel(
            "Positions and reservations, and their limit",
            [
                ('max by (set_namespace, set) (tradingbot_operator_set_counted{limit="maxPositionValue"})', OF_SET),
                (
                    'max by (set_namespace, set) (tradingbot_operator_set_limit{limit="maxPositionValue"})',
                    f"{OF_SET} limit",
                ),
            ],
        ),
        Panel(
            "Loss of the day, and its limit",
            [
                ('max by (set_namespace, set) (tradingbot_operator_set_counted{limit="maxDailyLoss"})', OF_SET),
                (
                    'max by (set_namespace, set) (tradingbot_operator_set_limit{limit="maxDailyLoss"})',
                    f"{OF_SET} limit",
                ),
            ],
        ),
    ),
)
DASHBOARDS: Final = (FLEET, SETS, ONE_BOT, OPERATOR)


def _helps() -> dict[str, str]:
    """What each sample means, by its name."""
    families = [family for registry in registries() for family in registry.collect()]
    return {sample.name: family.documentation for family in families for sample in family.samples}


def _panel(panel: Panel, place: int, helps: dict[str, str]) -> dict[str, Any]:
    names = dict.fromkeys(name for expr, _ in panel.queries for name in re.findall(r"\b[a-z]+_[a-z_]+\b", expr))
    told = dict.fromkeys(helps[name] for name in names if name in helps)
    return {
        "id": place + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": " ".join(told),
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "gridPos": {
            "x": place % 3 * WIDTH,
            "y": place // 3 * HEIGHT,
            "w": WIDTH,
            "h": HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": expr, "legendFormat": legend}
            for number, (expr, legend) in enumerate(panel.queries)
        ],
    }


def _variables(dashboard: Dashboard) -> list[dict[str, Any]]:
    source: dict[str, Any] = {"name": "datasource", "type": "datasource", "query": "prometheus"}
    return [source] + [
        {
            "name": name,
            "type": "query",
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "query": {"query": query, "refId": name},
            "refresh": 2,
            "sort": 1,
        }
        for name, query in dashboard.variables
    ]


def render(dashboard: Dashboard) -> str:
    """Grafana's JSON."""
    helps = _helps()
    body = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["tradingbot"],
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": _variables(dashboard)},
        "panels": [_panel(panel, place, helps) for place, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(body, indent=1) + "\n"


if __name__ == "__main__":
    for page in DASHBOARDS:
        (Path(sys.argv[1]) / f"{page.uid}.json").write_text(render(page), encoding="utf-8")
