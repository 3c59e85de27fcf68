"""What the documents for people name is there: pages and their parts, metrics, fields, files, targets of make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import metrics_page
import pytest

from tradingbot.__main__ import main
from tradingbot_api import crd, names

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
METRICS = {"tradingbot_api", "tradingbot_operator", *re.findall(r"^\| `(\w+)` \|", metrics_page.render(), re.M)}
"""With the names of two packages, which look alike."""
SCHEMAS: list[dict[str, Any]] = [
    crd.custom_resource_definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind in crd.KINDS
]
OTHERS_FIELDS = {"spec.holderIdentity", "spec.renewTime", "spec.nodeName", "spec.versions", "status.storedVersions"}
"""Of Leases, pods and CRDs."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path, *, prose: bool = False) -> str:
    """Of a page; `prose` without its examples."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S) if prose else text


def anchors(page: Path) -> set[str]:
    """What a link to a part of the page may name: its headings, as GitHub makes anchors of them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text_of(page, prose=True), re.M)
    }


def links(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Each link of a page to a file, with the file and the part that it names."""
    for link in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text_of(page, prose=True)):
        path, _, part = link.partition("#")
        if "://" not in link:
            yield link, (page.parent / path).resolve() if path else page, part


def has_field(schema: dict[str, Any], path: list[str]) -> bool:
    """Whether a field is in a schema, be it in the items of a list or below keys of anybody's choice."""
    if not path or schema.get("x-kubernetes-preserve-unknown-fields"):
        return True
    if path[0] in schema.get("properties", {}):
        return has_field(schema["properties"][path[0]], path[1:])
    if "items" in schema:
        return has_field(schema["items"], path)
    return "additionalProperties" in schema and has_field(schema["additionalProperties"], path[1:])


@each_page
def test_every_link_leads_to_a_page_and_a_part_that_are_there(page: Path) -> None:
    for link, target, part in links(page):
        assert target.exists(), link
        assert not part or part in anchors(target), link


def test_every_page_is_found_from_the_readme() -> None:
    found, look = set[Path](), [ROOT / "README.md"]
    while look:
        page = look.pop()
        found.add(page)
        look += {target for _, target, _ in links(page) if target.suffix == ".md"} - found
    assert set(PAGES) <= found


@each_page
def test_every_metric_that_is_named_exists(page: Path) -> None:
    for name in set(re.findall(r"\btradingbot_[a-z_]+", text_of(page))):
        assert name in METRICS or any(name.endswith("_") and other.startswith(name) for other in METRICS), name


@each_page
def test_every_field_that_is_named_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("it tells of fields that are gone, too")
    named = set(re.findall(r"(?<![\w.])\.?((?:spec|status)(?:\.[A-Za-z]+(?:\[[^\]]*\])?)+)", text_of(page)))
    for field in named - OTHERS_FIELDS:
        path = re.sub(r"\[[^\]]*\]", "", field).split(".")
        assert any(has_field(schema, path) for schema in SCHEMAS), field


@each_page
def test_every_label_annotation_and_finalizer_that_is_named_exists(page: Path) -> None:
    known = {value for value in vars(names).values() if isinstance(value, str)}
    # What kubectl answers has the kind and group before an object's name.
    ours = re.findall(r"(?<![\w.])tradingbot\.dev/[a-z0-9-]+", text_of(page))
    assert set(ours) <= known


@each_page
def test_every_file_and_target_of_make_that_is_named_exists(page: Path) -> None:
    text = text_of(page)
    for path in re.findall(r"`((?:charts|crds|dev|docs|examples|tests)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    makefiles = [ROOT / "Makefile", *ROOT.glob("dev/*/*.mk")]
    targets = {name for file in makefiles for line in re.findall(r"^([a-z][a-z0-9 -]*):", text_of(file), re.M)
               for name in line.split()}  # fmt: skip
    for target in re.findall(r"(?:^ {4}|`|\$ )make ([a-z][a-z0-9-]*)", text, re.M):
        assert target in targets, target


def test_every_command_has_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    ([a-z][a-z-]+)", capsys.readouterr().out, re.M)
    assert re.findall(r"^\| `([a-z-]+)` \|", text_of(ROOT / "docs/commands.md"), re.M) == commands
