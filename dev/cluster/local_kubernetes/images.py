"""Builds the project's images without a registry, each once per content of its inputs: `dev/images/build`."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import packages
from .basics import ClusterError, Home, Progress, lock, run
from .cluster import choose

ROOT = Path(__file__).resolve().parents[3]
INPUTS = ("Dockerfile", ".dockerignore", "pyproject.toml", "uv.lock", "crds", "operator", "bot", "paper-exchange")
SOURCES = {
    "operator": ("crds", "operator"),
    "bot": ("crds", "bot"),
    "paper-exchange": ("paper-exchange",),
}
TARGETS = tuple(SOURCES)
REPOSITORY = "tradingbot"
TAG = "dev"

# The base image: Debian's own Python and nothing more, where no registry is in reach.
SUITE = "bookworm"
INCLUDED = ("python3", "ca-certificates")
BASE = "localhost/python-base:local"
# Nobody reads manuals or other languages in a container.
SUPERFLUOUS = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "var/cache", "var/lib/apt/lists")
BUILDER = "tradingbot/builder:local"
BASE_RECIPE = f"{SUITE} {INCLUDED} {SUPERFLUOUS} 1"

# A machine may reach its package index only by its own settings. They are mounted, never copied into an image.
INSTALLER_FILES = ("/etc/pip.conf", "/etc/uv/uv.toml", "~/.config/pip/pip.conf", "~/.config/uv/uv.toml")
CERTIFICATES = "/etc/ssl/certs"


@dataclass(frozen=True)
class Image:
    """A built image and its archive."""

    name: str
    archive: Path


def build(targets: Sequence[str], environment: Mapping[str, str], progress: Progress) -> list[Image]:
    """Build what has changed; the archives lie in the cache, as `docker save` writes them."""
    home = Home.of(environment)
    folder = home.cache / "images"
    with lock(home.cache / "images.lock", lambda: progress.say("waiting: another process builds images")):
        folder.mkdir(parents=True, exist_ok=True)
        builder = _builder(environment, folder)
        images = []
        for target in targets:
            image = Image(f"{REPOSITORY}/{target}:{TAG}", folder / f"{target}-{digest(target, builder.key)}.tar")
            if image.archive.exists():
                progress.say(f"{image.name} is up to date, {_size(image.archive)}")
            else:
                progress.say(f"building {image.name}")
                partial = image.archive.with_suffix(".partial")
                partial.unlink(missing_ok=True)
                builder.build(target, image.name, partial, progress)
                for outdated in folder.glob(f"{target}-{'[0-9a-f]' * 16}.tar"):
                    outdated.unlink()
                partial.rename(image.archive)
                progress.say(f"built {image.name}, {_size(image.archive)}")
            images.append(image)
    return images


def build_from_ours(context: Path, name: str, environment: Mapping[str, str], progress: Progress) -> Image:
    """Somebody's image FROM the bot's, as docs/strategies.md has it: its Dockerfile has the arguments BASE and BOT."""
    (bot,) = build(("bot",), environment, progress)
    folder = Home.of(environment).cache / "images"
    with lock(folder.with_suffix(".lock"), lambda: progress.say("waiting: another process builds images")):
        image = Image(name, folder / f"{name.replace('/', '-').replace(':', '-')}.tar")
        image.archive.unlink(missing_ok=True)
        progress.say(f"building {name}")
        _builder(environment, folder).build_from(bot, context, image, progress)
        progress.say(f"built {name}, {_size(image.archive)}")
    return image


def _builder(environment: Mapping[str, str], folder: Path) -> _Docker | _Buildah:
    return _Docker() if environment.get("CLUSTER") == "kind" else _Buildah(folder)


def _size(archive: Path) -> str:
    return f"{archive.stat().st_size / 1e6:.0f} MB"


def digest(target: str, builder: str) -> str:
    """Of all that decides what is in the image."""
    digest = hashlib.sha256(f"{builder} {target}\0".encode())
    others = {name for sources in SOURCES.values() for name in sources} - set(SOURCES[target])
    for name in INPUTS:
        top = ROOT / name
        files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
        for file in files:
            relative = file.relative_to(ROOT)
            # Of the members that are not installed only the project file is read.
            unused = relative.parts[0] in others and relative.name != "pyproject.toml"
            if file.exists() and not unused and "__pycache__" not in relative.parts:
                digest.update(str(relative).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


class _Docker:
    """The builder where Docker runs; its base image comes from the registry that the Dockerfile names."""

    key = "docker"

    def build(self, target: str, name: str, archive: Path, progress: Progress) -> None:
        run(["docker", "build", "--target", target, "--tag", name, ROOT])
        run(["docker", "save", "--output", archive, name])

    def build_from(self, bot: Image, context: Path, image: Image, progress: Progress) -> None:
        run(["docker", "load", "--input", bot.archive])
        run(["docker", "build", "--build-arg", f"BOT={bot.name}", "--tag", image.name, context])
        run(["docker", "save", "--output", image.archive, image.name])


class _Buildah:
    """The builder without Docker and registry: the base image is made of Debian packages."""

    key = f"buildah {BASE_RECIPE}"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def build(self, target: str, name: str, archive: Path, progress: Progress) -> None:
        self._build_ours(target, name, progress)
        self._save(name, archive)

    def build_from(self, bot: Image, context: Path, image: Image, progress: Progress) -> None:
        # Debian's own Python has no pip; the first stage of ours has.
        self._build_ours("builder", BUILDER, progress)
        arguments = {"BASE": f"localhost/{BUILDER}", "BOT": f"docker-archive:{bot.archive}"}
        self._build(arguments, image.name, context)
        self._save(image.name, image.archive)

    def _build_ours(self, target: str, name: str, progress: Progress) -> None:
        packages.ensure(progress, packages.IMAGES)
        self._ensure_base(progress)
        self._build({"BASE": BASE}, name, ROOT, "--target", target)

    def _build(self, arguments: Mapping[str, str], name: str, context: Path, *more: str) -> None:
        command = ["buildah", "build", "--isolation", "chroot", "--network", "host", "--layers"]
        command += [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        command += [word for mount in self._mounts() for word in ("--volume", mount)]
        run([*command, *more, "--tag", f"localhost/{name}", "--file", context / "Dockerfile", context])

    def _save(self, name: str, archive: Path) -> None:
        # By its id: pushed by name, the archive would carry the name in this store, too.
        image = run(["buildah", "images", "--quiet", f"localhost/{name}"]).stdout.strip()
        run(["buildah", "push", "--quiet", image, f"docker-archive:{archive}:{name}"])

    def _mounts(self) -> list[str]:
        paths = [Path(name).expanduser() for name in (CERTIFICATES, *INSTALLER_FILES)]
        return [f"{path}:{path}:ro" for path in paths if path.exists()]

    def _ensure_base(self, progress: Progress) -> None:
        key = hashlib.sha256(BASE_RECIPE.encode()).hexdigest()[:16]
        label = '{{ index .OCIv1.Config.Labels "recipe" }}'
        said = run(["buildah", "inspect", "--type", "image", "--format", label, BASE], check=False)
        if said.stdout.strip() == key:
            return
        packed = self._folder / f"base-{key}.tar.gz"
        if not packed.exists():
            self._bootstrap(packed, progress)
        container = run(["buildah", "from", "scratch"]).stdout.strip()
        try:
            run(["buildah", "add", "--quiet", container, packed, "/"])
            run(["buildah", "config", "--label", f"recipe={key}", "--cmd", "python3", container])
            run(["buildah", "commit", "--quiet", container, BASE])
        finally:
            run(["buildah", "rm", container])

    def _bootstrap(self, packed: Path, progress: Progress) -> None:
        progress.say(f"making the base image from Debian packages ({', '.join(INCLUDED)}), once: about a minute")
        with tempfile.TemporaryDirectory(prefix="base-", dir=self._folder) as work:
            tree = Path(work) / "tree"
            run(["debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, tree])
            for name in SUPERFLUOUS:
                shutil.rmtree(tree / name, ignore_errors=True)
                (tree / name).mkdir(parents=True)
            partial = packed.with_suffix(".partial")
            run(["tar", "--create", "--gzip", "--one-file-system", "--directory", tree, "--file", partial, "."])
            partial.rename(packed)


def main() -> int:
    """Build all images or the named ones; prints the path of each archive."""
    parser = argparse.ArgumentParser(
        prog="build", description="Builds the images; prints the path of each archive. Progress goes to stderr."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--load", action="store_true", help="put them into the cluster (CLUSTER_NAME, CLUSTER), too")
    options = parser.parse_args(sys.argv[1:])
    targets = options.targets or TARGETS
    try:
        if unknown := [target for target in targets if target not in TARGETS]:
            raise ClusterError("BAD_TARGET", f"no image {', '.join(unknown)}; there are {', '.join(TARGETS)}")
        images = build(targets, os.environ, Progress.begin("images"))
        if options.load:
            choose(os.environ).load([image.archive for image in images])
        for image in images:
            print(image.archive)
    except ClusterError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    return 0
