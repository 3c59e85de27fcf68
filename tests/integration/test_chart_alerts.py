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
from metrics_page import registries
from prometheus_client import generate_latest

from support import chart

ALERTS = {"SafeModeActive", "CircuitBreakerOpen", "BalanceDrift", "PositionUnprotected", "BotDown", "OperatorDown"}


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    """What Prometheus would load from the chart."""
    objects = chart.render("--set", "prometheusRule.enabled=true")
    return dict(chart.one(objects, "PrometheusRule")["spec"])


def rules(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """All alerting rules."""
    return [rule for group in spec["groups"] for rule in group["rules"]]


def promtool(*arguments: str, directory: Path) -> None:
    """Runs promtool; its complaint is the test's."""
    done = subprocess.run(["promtool", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules_and_each_fires_stays_silent_and_resolves(
    spec: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    shutil.copy(chart.ROOT / "tests/support/alerts.test.yaml", tmp_path)
    promtool("check", "rules", "alerts.yaml", directory=tmp_path)
    promtool("test", "rules", "alerts.test.yaml", directory=tmp_path)


def test_every_alert_is_tried_by_promtool(spec: dict[str, Any]) -> None:
    table = yaml.safe_load((chart.ROOT / "tests/support/alerts.test.yaml").read_text(encoding="utf-8"))
    tried = [case for test in table["tests"] for case in test["alert_rule_test"]]
    assert {rule["alert"] for rule in rules(spec)} == ALERTS
    assert {case["alertname"] for case in tried if case["exp_alerts"]} == ALERTS
    assert {case["alertname"] for case in tried if not case["exp_alerts"]} == ALERTS


def test_every_alert_has_a_severity_a_summary_and_a_runbook_that_is_there(spec: dict[str, Any]) -> None:
    for rule in rules(spec):
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        page = chart.ROOT / rule["annotations"]["runbook_url"]
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"^## (.+)$", text, re.M) == ["Meaning", "Impact", "Diagnosis", "Mitigation"], page


def test_every_metric_of_the_rules_is_exported(spec: dict[str, Any]) -> None:
    texts = [text for rule in rules(spec) for text in (rule["expr"], *rule["annotations"].values())]
    asked = set(re.findall(r"\btradingbot_[a-z_]+\b", " ".join(texts)))
    families = [family for registry in registries() for family in registry.collect()]
    assert asked
    assert asked <= {sample.name for family in families for sample in family.samples}


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
