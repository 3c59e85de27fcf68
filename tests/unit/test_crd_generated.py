"""The checked-in CustomResourceDefinition is what the models generate, and explains itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tradingbot_api import crd

ROOT = Path(__file__).resolve().parents[2]
COPIES = ("crds/tradingbots.yaml", "charts/tradingbot-operator/crds/tradingbots.yaml")


def properties(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every named field of a schema with its path."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from properties(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from properties(schema[key], f"{path}[]")


def root_schema() -> dict[str, Any]:
    """The schema of the one version."""
    (version,) = crd.custom_resource_definition()["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("copy", COPIES)
def test_checked_in_crd_is_what_the_models_generate(copy: str) -> None:
    assert (ROOT / copy).read_text(encoding="utf-8") == crd.render(), "run `make generate`"


def test_checked_in_reference_is_what_the_models_generate() -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert page == crd.render_reference(), "run `make generate`"
    spec, status = page.split("## status")
    for path, _ in properties(root_schema(), ""):
        part, _, field = path.removeprefix(".").partition(".")
        if part in ("spec", "status") and field and "[]" not in field:
            assert f"| `{field}` |" in (spec if part == "spec" else status)


def test_check_mode_names_a_stale_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "stale.yaml"
    stale.write_text("kind: Other\n", encoding="utf-8")
    assert crd.main(["--check", str(stale)]) == 1
    assert "stale.yaml" in capsys.readouterr().err
    assert crd.main([str(stale)]) == 0
    assert crd.main(["--check", str(stale)]) == 0
    assert yaml.safe_load(stale.read_text(encoding="utf-8")) == crd.custom_resource_definition()


def test_every_field_has_a_description() -> None:
    fields = [(path, child) for part in ("spec", "status") for path, child in properties(root_schema(), "")
              if path.startswith(f".{part}")]  # fmt: skip
    assert len(fields) > 80
    assert [path for path, child in fields if not child.get("description", "").endswith(".")] == []


def test_every_rule_has_a_message_and_every_rule_of_an_object_names_its_field() -> None:
    schema = root_schema()
    for path, child in [("", schema), *properties(schema, "")]:
        for rule in child.get("x-kubernetes-validations", []):
            assert rule.get("message"), path
            if child["type"] == "object":
                assert rule.get("fieldPath"), f"{path}: an error without a field path names <nil>"


def test_safe_mode_has_no_default_so_that_an_emergency_patch_survives_apply() -> None:
    assert "default" not in root_schema()["properties"]["spec"]["properties"]["safeMode"]


def test_status_has_no_enums_so_that_an_older_crd_takes_a_newer_operators_word() -> None:
    status = {path: child for path, child in properties(root_schema(), "") if path.startswith(".status")}
    assert [path for path, child in status.items() if "enum" in child] == []


def test_nothing_can_scale_a_bot() -> None:
    (version,) = crd.custom_resource_definition()["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert ".spec.replicas" not in dict(properties(root_schema(), ""))
