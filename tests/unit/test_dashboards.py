"""Promises of the Grafana dashboards: they are what the code generates, and ask for what is exported or recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from dashboards import DASHBOARDS, Dashboard, render
from metrics_page import registries

CHART = Path(__file__).resolve().parents[2] / "charts/tradingbot-operator"
EACH = pytest.mark.parametrize("page", DASHBOARDS, ids=lambda page: str(page.uid))


@EACH
def test_a_dashboard_is_what_the_code_generates(page: Dashboard) -> None:
    assert (CHART / f"dashboards/{page.uid}.json").read_text(encoding="utf-8") == render(page), "run `make generate`"


@EACH
def test_every_query_asks_for_what_is_exported_or_recorded(page: Dashboard) -> None:
    exported = {sample.name for registry in registries() for family in registry.collect() for sample in family.samples}
    fleet = yaml.safe_load((CHART / "rules/fleet.yaml").read_text(encoding="utf-8"))
    recorded = {rule["record"] for group in fleet["groups"] for rule in group["rules"]}
    for expr in [expr for panel in page.panels for expr, _ in panel.queries] + [query for _, query in page.variables]:
        asked = set(re.findall(r"\b(?:[a-z_]+:)?(?:tradingbot|process)_[a-z_]+(?::[a-z]+)?\b", expr))
        assert asked <= exported | recorded, expr
        assert asked or "up{" in expr, expr


@EACH
def test_every_panel_says_what_its_metrics_mean_and_none_lies_over_another(page: Dashboard) -> None:
    panels = json.loads(render(page))["panels"]
    assert [panel["title"] for panel in panels if not panel["description"] and "up{" not in str(panel)] == []
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
