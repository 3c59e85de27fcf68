"""The checked-in CustomResourceDefinition is what the models generate, and explains itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tradingbot_api import crd

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("crds", "charts/tradingbot-operator/crds")


def properties(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every named field of a schema with its path."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from properties(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from properties(schema[key], f"{path}[]")


each_kind = pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: kind.resource.kind)


def root_schema(kind: crd.Kind = crd.KINDS[0]) -> dict[str, Any]:
    """The schema of the one version."""
    (version,) = crd.custom_resource_definition(kind)["spec"]["versions"]
    return dict(version["schema"]["openAPIV3Schema"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_checked_in_crds_are_what_the_models_generate(folder: str) -> None:
    files = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / folder).glob("*.yaml")}
    assert files == {f"{kind.resource.plural}.yaml": crd.render(kind) for kind in crd.KINDS}, "run `make generate`"


@each_kind
def test_checked_in_reference_is_what_the_models_generate(kind: crd.Kind) -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert page == crd.render_reference(), "run `make generate`"
    _, _, own = page.partition(f"## {kind.resource.kind}: spec\n")
    spec, _, status = own.partition(f"## {kind.resource.kind}: status\n")
    for path, _ in properties(root_schema(kind), ""):
        part, _, field = path.removeprefix(".").partition(".")
        if part in ("spec", "status") and field and "[]" not in field:
            assert f"| `{field}` |" in (spec if part == "spec" else status)


def test_the_reference_tells_a_bound_on_one_side_alone() -> None:
    row = re.search(r"^\| `updateStrategy.maxUnavailable` .*", crd.render_reference(), re.M)
    assert row is not None
    assert row[0].endswith("| default `1`; at least 1 |")


def test_check_mode_names_a_stale_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stale = tmp_path / "killswitches.yaml"
    stale.write_text("kind: Other\n", encoding="utf-8")
    assert crd.main(["--check", str(stale)]) == 1
    assert "killswitches.yaml" in capsys.readouterr().err
    assert crd.main([str(stale)]) == 0
    assert crd.main(["--check", str(stale)]) == 0
    assert yaml.safe_load(stale.read_text(encoding="utf-8"))["spec"]["names"]["kind"] == "KillSwitch"
    with pytest.raises(ValueError, match=r"tradingbots\.yaml"):
        crd.main([str(tmp_path / "other.yaml")])


@each_kind
def test_every_field_has_a_description(kind: crd.Kind) -> None:
    fields = [(path, child) for part in ("spec", "status") for path, child in properties(root_schema(kind), "")
              if path.startswith(f".{part}")]  # fmt: skip
    assert len(fields) > 10
    assert [path for path, child in fields if not child.get("description", "").endswith(".")] == []


@each_kind
def test_every_rule_has_a_message_and_every_rule_of_an_object_names_its_field(kind: crd.Kind) -> None:
    schema = root_schema(kind)
    for path, child in [("", schema), *properties(schema, "")]:
        for rule in child.get("x-kubernetes-validations", []):
            assert rule.get("message"), path
            if child["type"] == "object" and rule["rule"].removeprefix("self == ") != "oldSelf":
                assert rule.get("fieldPath"), f"{path}: an error without a field path names <nil>"


def test_safe_mode_has_no_default_so_that_an_emergency_patch_survives_apply() -> None:
    assert "default" not in root_schema()["properties"]["spec"]["properties"]["safeMode"]


@each_kind
def test_status_has_no_enums_so_that_an_older_crd_takes_a_newer_operators_word(kind: crd.Kind) -> None:
    status = {path: child for path, child in properties(root_schema(kind), "") if path.startswith(".status")}
    assert [path for path, child in status.items() if "enum" in child] == []


def test_nothing_can_scale_a_bot() -> None:
    (version,) = crd.custom_resource_definition(crd.KINDS[0])["spec"]["versions"]
    assert version["subresources"] == {"status": {}}
    assert ".spec.replicas" not in dict(properties(root_schema(), ""))
