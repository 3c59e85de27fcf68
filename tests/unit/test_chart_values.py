"""Promises of the chart's values: each is in the table of docs/values.md, with its meaning."""

from __future__ import annotations

from pathlib import Path

import values_page

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_values_is_what_the_chart_says() -> None:
    assert (ROOT / "docs/values.md").read_text(encoding="utf-8") == values_page.render(), "run `make generate`"


def test_every_value_at_the_top_says_what_it_is() -> None:
    told = {path.partition(".")[0] for path, _, meaning in values_page.rows() if meaning}
    assert told == {path.partition(".")[0] for path, _, _ in values_page.rows()}
