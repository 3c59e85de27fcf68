"""Promises of the figures that `make bench` prints."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from performance.scale.lab import requests
from performance.scale.tables import percentile, spread, table
from tradingbot_api import names


def entry(verb: str, resource: str, name: str = "bot-1", agent: str = names.FIELD_MANAGER, **more: Any) -> str:
    reference = {"resource": resource, "name": name, **more}
    line = {"stage": "ResponseComplete", "verb": verb, "userAgent": agent, "objectRef": reference}
    return json.dumps(line, separators=(",", ":"))


def test_only_what_operators_ask_is_counted_and_events_and_their_own_lease_apart(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    lines = [
        entry("create", "pods"),
        entry("patch", "tradingbots", subresource="status"),
        entry("patch", "tradingbots", subresource="status"),
        entry("create", "leases", "claim-btcusdt-1"),
        entry("update", "leases", "tradingbot-operator"),
        entry("create", "events"),
        entry("list", "pods", agent="kopf/1.45"),
        entry("create", "pods", agent="kube-controller-manager/v1.36"),
    ]
    log.write_text("\n".join(lines) + "\n" + entry("create", "pods")[:40])
    found = requests(SimpleNamespace(audit_log=lambda: log))  # type: ignore[arg-type]
    assert found.writes == {"create pods": 1, "patch tradingbots/status": 2, "create leases": 1}
    assert (found.events, found.reads) == (1, {"list pods": 1})


def test_a_percentile_is_a_value_that_was_measured_and_no_smaller_one_covers_as_much() -> None:
    values = [float(number) for number in range(1, 201)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (100.0, 198.0, 200.0)
    assert percentile([3.0], 0.99) == 3.0


def test_several_runs_are_told_by_median_and_range_in_a_markdown_table() -> None:
    assert spread([3.0]) == "3.0"
    assert spread([5.0, 1.0, 3.0]) == "3.0 (1.0 to 5.0)"
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
