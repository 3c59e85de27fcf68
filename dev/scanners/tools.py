"""Makes the scanners available: pinned, in the cache, apart from the project's own environment."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local_kubernetes import binaries
from local_kubernetes.basics import Home, Progress, lock

FOLDER: Final = Path(__file__).parent
GO_TOOLS: Final = {
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
    "kube-score": "github.com/zegl/kube-score/cmd/kube-score@v1.20.0",
}


@dataclass(frozen=True)
class Tools:
    """The commands; checkov is a module of an interpreter of its own.

    `openapi`: the folder of what the API server of the local Kubernetes publishes, a file each API version.
    """

    helm: Path
    kubeconform: Path
    kube_score: Path
    python_of_checkov: Path
    openapi: Path


def ensure(progress: Progress) -> Tools:
    """All tools; what is not in the cache is built or installed: about two minutes on two cores, once a machine."""
    home = Home.of(os.environ)
    helm = binaries.ensure(home, progress) / "helm"
    cache = home.cache / "scanners"
    with lock(home.cache / "scanners.lock", lambda: progress.say("waiting: another process installs the scanners")):
        built = [cache / package.replace("/", "_") / name for name, package in GO_TOOLS.items()]
        for program, package in zip(built, GO_TOOLS.values(), strict=True):
            if not program.is_file():
                progress.say(f"building {program.name} from source, once")
                _run(["go", "install", package], {"GOBIN": str(program.parent), "GOFLAGS": "-buildvcs=false"})
        pinned = (FOLDER / "checkov.txt").read_bytes()
        python = cache / f"checkov-{hashlib.sha256(pinned).hexdigest()[:16]}"
        if not (python / "complete").is_file():
            progress.say("installing checkov, once")
            _run(["uv", "venv", "--quiet", "--clear", str(python)])
            _run(["uv", "pip", "install", "--quiet", f"--python={python}", "-r", "checkov.txt"])
            (python / "complete").touch()
    return Tools(helm, *built, python / "bin/python", _openapi())


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    environment = {**os.environ, "GOWORK": "off", **(environment or {})}
    # Its errors go to the person who waits.
    done = subprocess.run(command, cwd=FOLDER, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def _openapi() -> Path:
    """From the source of the local API server. What a running one serves has the allowed values besides."""
    said = json.loads(_run(["go", "mod", "download", "-json", f"k8s.io/kubernetes@v{binaries.KUBERNETES}"]))
    return Path(said["Dir"]) / "api/openapi-spec/v3"
