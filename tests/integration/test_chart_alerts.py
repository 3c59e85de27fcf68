"""The alerting rules of the rendered chart: Prometheus takes them, they fire and resolve, and they ask for metrics
that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboards import DASHBOARDS
from metrics_page import registries
from prometheus_client import generate_latest

from support import chart

CASES = chart.ROOT / "tests/support/alerts"
ALERTS = {
    "ApiErrorRate", "BalanceDrift", "BotDown", "CapitalNotCovered", "CircuitBreakerOpen", "ClockSkew", "DailyLossNear",
    "DrawdownNear", "ExchangeBan", "FleetDailyLossReached", "GrantExpired", "HeartbeatStale", "LeaderMissing",
    "OperatorDown", "OrderRejections", "PositionUnprotected", "ReconcileErrors", "RolloutStopped", "SafeModeActive",
    "SafeModeNotAcknowledged", "TwoTraders", "WeightBudgetLow",
}  # fmt: skip


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """What Prometheus would load from the chart."""
    objects = chart.render("--set", "prometheusRule.enabled=true")
    return dict(chart.one(objects, "PrometheusRule")["spec"])


def rules(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All alerting rules."""
    return [rule for group in spec["groups"] for rule in group["rules"] if "alert" in rule]


def promtool(*arguments: str, directory: Path) -> None:
    """Runs promtool; its complaint is the test's."""
    done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cases", sorted(path.name for path in CASES.iterdir()))
def test_alerts_fire_stay_silent_resolve_and_go_on_over_restarts(
    spec: dict[str, Any], cases: str, tmp_path: Path
) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    shutil.copy(CASES / cases, tmp_path)
    promtool("test", "rules", cases, directory=tmp_path)


def test_every_alert_is_tried_by_promtool(spec: dict[str, Any]) -> None:
    tables = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in CASES.iterdir()]
    tried = [case for table in tables for test in table["tests"] for case in test.get("alert_rule_test", ())]
    assert {rule["alert"] for rule in rules(spec)} == ALERTS
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == ALERTS
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == ALERTS


def test_every_alert_has_a_severity_a_summary_with_a_figure_a_name_or_a_reason_and_its_runbook(
    spec: dict[str, Any],
) -> None:
    page = (chart.ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    for rule in rules(spec):
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert "{{" in rule["annotations"]["summary"], rule["alert"]
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", rule["alert"]).lower()
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{name}.md"
        text = (chart.ROOT / "docs/runbooks" / f"{name}.md").read_text(encoding="utf-8")
        assert text.startswith(f"# {rule['alert']}\n")
        assert re.findall(r"^## (.+)$", text, re.M) == ["Meaning", "Impact", "Diagnosis", "Mitigation"], name
        assert "\nkubectl " in text, name
        row = re.search(rf"^\| \[{rule['alert']}\]\(runbooks/{name}.md\) \| (.*?) \|", page, re.M)
        assert row is not None, name
        assert rule["labels"]["severity"] in row[1], name


def test_thresholds_are_values_and_each_is_in_force_and_documented(spec: dict[str, Any]) -> None:
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text(encoding="utf-8"))["prometheusRule"]["thresholds"]
    page = (chart.ROOT / "docs/alerts.md").read_text(encoding="utf-8")
    others = {name: "61s" if name.endswith("For") else 0.123 for name in values}
    options = [f"prometheusRule.thresholds.{name}={value}" for name, value in others.items()]
    changed = chart.one(
        chart.render("--set", "prometheusRule.enabled=true", "--set", ",".join(options)), "PrometheusRule"
    )["spec"]
    assert not values.keys() - set(re.findall(r"`(\w+)`", page))
    for rule, former in zip(rules(changed), rules(spec), strict=True):
        for field in ("for", "keep_firing_for"):
            assert rule.get(field) == ("61s" if field in former else None), rule["alert"]
    exprs = " ".join(rule["expr"] for rule in rules(changed))
    assert exprs.count("> 0.123") == sum(not name.endswith("For") for name in values)


def test_a_threshold_that_is_taken_away_is_told_by_helm() -> None:
    with pytest.raises(chart.ChartError, match=r"prometheusRule.thresholds lacks a value of rules/money.yaml"):
        chart.render("--set", "prometheusRule.enabled=true", "--set", "prometheusRule.thresholds.drawdownRatio=null")


def test_a_prometheus_without_its_operator_gets_the_same_rules(spec: dict[str, Any]) -> None:
    objects = chart.render("--set", "prometheusRule.configMap=true")
    found = chart.one(objects, "ConfigMap", "tradingbot-operator-rules")
    assert yaml.safe_load(found["data"]["tradingbot.rules.yaml"]) == spec
    assert not [item for item in objects if item["kind"] == "PrometheusRule"]


def test_every_metric_of_the_rules_is_exported(spec: dict[str, Any]) -> None:
    exprs = [rule["expr"] for group in spec["groups"] for rule in group["rules"]]
    texts = [text for rule in rules(spec) for text in rule["annotations"].values()]
    asked = set(re.findall(r"(?<!:)\btradingbot_[a-z_]+\b", " ".join([*exprs, *texts])))
    families = [family for registry in registries() for family in registry.collect()]
    assert asked
    assert asked <= {sample.name for family in families for sample in family.samples}


def test_prometheus_can_read_every_query_of_the_dashboards(tmp_path: Path) -> None:
    queries = [expr for page in DASHBOARDS for panel in page.panels for expr, _ in panel.queries]
    group = {"name": "queries", "rules": [{"record": f"query_{i}", "expr": expr} for i, expr in enumerate(queries)]}
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    promtool("check", "rules", "queries.yaml", directory=tmp_path)


def test_prometheus_finds_nothing_to_complain_about_in_names_and_help() -> None:
    for text in map(generate_latest, registries()):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_runbooks_are_linked_where_they_are_published() -> None:
    objects = chart.render(
        "--set", "prometheusRule.enabled=true", "--set", "prometheusRule.runbookBaseURL=https://runbooks.example/tb/"
    )
    for rule in rules(chart.one(objects, "PrometheusRule")["spec"]):
        assert rule["annotations"]["runbook_url"].startswith("https://runbooks.example/tb/")
        assert "//" not in rule["annotations"]["runbook_url"].removeprefix("https://")
