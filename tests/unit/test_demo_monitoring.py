"""What stands beside the examples where Prometheus watches a local cluster: targets, times, queries of dashboards."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from monitoring import EXAMPLES, QUICK, dashboard_queries, targets_of

POD: dict[str, Any] = {
    "metadata": {"namespace": "trading", "name": "btcusdt", "uid": "u1", "labels": {"tradingbot.dev/bot": "btcusdt"}},
    "spec": {
        "nodeName": "node1",
        "containers": [
            {"name": "bot", "ports": [{"name": "probes", "containerPort": 8080}, {"containerPort": 8443}]},
            {"name": "beside"},
        ],
    },
    "status": {"podIP": "10.244.0.7", "phase": "Running"},
}


def test_a_pod_is_told_port_by_port_with_the_labels_that_the_example_asks_for() -> None:
    first, second = targets_of(POD)
    assert first["targets"] == ["10.244.0.7:8080"]
    assert second["targets"] == ["10.244.0.7:8443"]
    assert (
        first["labels"]
        | {
            "__meta_kubernetes_namespace": "trading",
            "__meta_kubernetes_pod_name": "btcusdt",
            "__meta_kubernetes_pod_container_port_name": "probes",
            "__meta_kubernetes_pod_label_tradingbot_dev_bot": "btcusdt",
            "__meta_kubernetes_pod_labelpresent_tradingbot_dev_bot": "true",
        }
        == first["labels"]
    )
    operator = {**POD, "metadata": {**POD["metadata"], "labels": {"app.kubernetes.io/name": "tradingbot-operator"}}}
    known = first["labels"].keys() | targets_of(operator)[0]["labels"].keys()
    config = yaml.safe_load((EXAMPLES / "prometheus.yaml").read_text(encoding="utf-8"))
    rules = [rule for job in config["scrape_configs"] for rule in job["relabel_configs"]]
    assert {label for rule in rules for label in rule["source_labels"]} <= known


def test_a_pod_without_an_address_is_no_target() -> None:
    assert targets_of({**POD, "status": {"phase": "Pending"}}) == []


@pytest.mark.parametrize("name", QUICK)
def test_each_time_that_is_made_short_is_in_the_examples(name: str) -> None:
    assert f"{name}: " in "".join(path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.yaml"))


def test_queries_of_the_dashboards_are_asked_about_one_bot() -> None:
    queries = dashboard_queries("trading", "btcusdt")
    assert not [expr for _, expr in queries if "$" in expr]
    assert 'max by (pod) (tradingbot_equity{namespace="trading", pod="btcusdt"})' in dict(queries).values()
