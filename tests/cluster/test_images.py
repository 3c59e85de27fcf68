"""The three images: small, without root, and with nothing in them that they must not have."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_kubernetes.basics import Progress
from local_kubernetes.images import build

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Built:
    """An image as it is in its archive."""

    size: int
    files: frozenset[str]
    user: str
    entrypoint: list[str]
    environment: dict[str, str]

    def has(self, package: str) -> bool:
        """Whether a Python package is installed in it."""
        return any(f"/site-packages/{package}/" in f"/{name}" for name in self.files)


def read(archive: Path) -> Built:
    """Reads what `docker save` writes."""
    with tarfile.open(archive) as outer:

        def document(name: str) -> bytes:
            member = outer.extractfile(name)
            assert member is not None
            return member.read()

        (manifest,) = json.loads(document("manifest.json"))
        config = json.loads(document(manifest["Config"]))["config"]
        files: set[str] = set()
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(layer)) as inner:
                files |= set(inner.getnames())
    environment = dict(line.split("=", 1) for line in config["Env"])
    return Built(archive.stat().st_size, frozenset(files), config["User"], config["Entrypoint"], environment)


@pytest.fixture(scope="module")
def images() -> dict[str, Built]:
    """All three, built where their inputs changed."""
    made = build(("operator", "bot", "paper-exchange"), os.environ, Progress.begin("images"))
    return {image.name.split("/")[1].split(":")[0]: read(image.archive) for image in made}


def test_images_are_small(images: dict[str, Built]) -> None:
    limits = {"operator": 220, "bot": 240, "paper-exchange": 190}
    assert {name: image.size < limits[name] * MEGABYTE for name, image in images.items()} == dict.fromkeys(limits, True)


def test_processes_are_not_root_and_have_a_user_name(images: dict[str, Built]) -> None:
    for image in images.values():
        assert image.user == "65532:65532"
        assert image.environment["USER"]


def test_each_image_starts_its_own_program(images: dict[str, Built]) -> None:
    programs = {"operator": "tradingbot-operator", "bot": "tradingbot", "paper-exchange": "paper-exchange"}
    for name, program in programs.items():
        assert images[name].entrypoint == [program]
        assert f"opt/venv/bin/{program}" in images[name].files


def test_no_image_holds_another_ones_program_or_tools_to_build(images: dict[str, Built]) -> None:
    assert not images["bot"].has("paper_exchange")
    assert not images["bot"].has("kopf")
    assert not images["operator"].has("binance")
    assert not images["paper-exchange"].has("tradingbot_api")
    for image in images.values():
        assert not image.has("uv")
        assert not image.has("pytest")
        assert not any(name.startswith(("build/", "root/.cache/")) for name in image.files)


def test_a_start_compiles_nothing_since_the_root_file_system_is_read_only(images: dict[str, Built]) -> None:
    packages = {"operator": "tradingbot_operator", "bot": "tradingbot", "paper-exchange": "paper_exchange"}
    site = "opt/venv/lib/python3.11/site-packages"
    for name, package in packages.items():
        assert f"{site}/{package}/__pycache__/__main__.cpython-311.pyc" in images[name].files
        assert f"{site}/aiohttp/__pycache__/web.cpython-311.pyc" in images[name].files
