"""Builds Kubernetes, etcd, CoreDNS, kwok and Helm from pinned Go modules into a cache, once per machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections import deque
from pathlib import Path

from .basics import ClusterError, Home, Progress, lock, run

SOURCE = Path(__file__).resolve().parent.parent

# Kept in step with go.mod (a test compares them).
KUBERNETES = "1.36.3"
HELM = "4.2.4"
PROGRAMS = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
    "coredns": "./coredns",
    "kwok": "sigs.k8s.io/kwok/cmd/kwok",
    "helm": "helm.sh/helm/v4/cmd/helm",
    "pause": "./pause",
}
STAGES = (
    "node/fast/node-initialize.yaml",
    "node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "pod/fast/pod-ready.yaml",
    "pod/fast/pod-complete.yaml",
    "pod/fast/pod-delete.yaml",
)
INPUTS = ("go.mod", "go.sum", "coredns/main.go", "pause/main.go", "local_kubernetes/binaries.py")
PAUSE_ARCHIVE = "pause.tar"
PAUSE_IMAGE = "pause:local"
STAGE_FILE = "stages.yaml"
COLD_MINUTES = 11  # measured on 2 cores with a fast network


def folder(home: Home) -> Path:
    """Where the binaries of this version are, or will be."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update(name.encode() + b"\0" + (SOURCE / name).read_bytes() + b"\0")
    return home.cache / "kubernetes" / digest.hexdigest()[:16] / "bin"


def ensure(home: Home, progress: Progress) -> Path:
    """The folder with all programs; builds them where they are not there yet."""
    target = folder(home)
    if target.is_dir():
        return target
    with lock(home.cache / "kubernetes.lock", lambda: progress.say("waiting: another process builds the binaries")):
        if not target.is_dir():
            _build(home, target, progress)
    return target


def _build(home: Home, target: Path, progress: Progress) -> None:
    _require_go()
    free = shutil.disk_usage(home.cache).free
    if free < 7 * 2**30:
        raise ClusterError(
            "DISK_FULL", f"the build needs about 7 GiB below {home.cache}; {free / 2**30:.1f} GiB are free"
        )
    progress.say(
        f"building Kubernetes {KUBERNETES} and its tools from source, once: about {COLD_MINUTES} minutes on "
        "2 cores, less than a minute where Go's cache is warm"
    )
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    packages = list(PROGRAMS.values())
    tags = ["-tags", "selinux,notest,grpcnotrace"]
    package = r"^[a-z][^ ]*$"
    listing = ["go", "list", "-deps", *tags, *packages]
    total = _follow(listing, environment, progress, package, "reading sources")
    target.parent.mkdir(parents=True, exist_ok=True)
    for leftover in target.parent.glob("build-*"):  # of a build that was killed; we hold the lock
        shutil.rmtree(leftover)
    work = Path(tempfile.mkdtemp(prefix="build-", dir=target.parent))
    build = ["go", "build", "-v", "-trimpath", *tags, "-ldflags", _linker_flags(), "-o", f"{work}/", *packages]
    _follow(build, environment, progress, package, f"compiling, {{count}} of at most {total} packages")
    (work / "server").rename(work / "etcd")  # go names it after the last element of its path
    if absent := [name for name in PROGRAMS if not (work / name).is_file()]:
        raise ClusterError("BUILD_FAILED", f"go built no {', '.join(absent)}; see its output above")
    _write_pause_image(work)
    _write_stages(work, environment)
    work.rename(target)
    size = sum(file.stat().st_size for file in target.iterdir()) / 1e6
    progress.say(f"built {len(PROGRAMS)} programs, {size:.0f} MB, in {target}")


def _require_go() -> None:
    wanted = (1, 26)
    if shutil.which("go") is None:
        raise ClusterError("GO_MISSING", "Go 1.26 or newer is needed on the PATH: https://go.dev/dl/")
    said = run(["go", "version"]).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < wanted:
        raise ClusterError(
            "GO_TOO_OLD", f"Go 1.26 or newer is needed, `go version` says: {said.strip()}; see https://go.dev/dl/"
        )


def _linker_flags() -> str:
    major, minor, _ = KUBERNETES.split(".")
    values = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    stamps = [
        f"-X {package}.{name}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for name, value in values.items()
    ]
    return " ".join(["-s -w", *stamps, f"-X helm.sh/helm/v4/internal/version.version=v{HELM}"])


def _follow(command: list[str], environment: dict[str, str], progress: Progress, counted: str, what: str) -> int:
    """Run a go command and tell every ten seconds how far it is; the number of lines that match `counted`."""
    count = downloads = 0
    said: deque[str] = deque([""], maxlen=20)
    pattern = re.compile(counted)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(10):
            fetched = f", {downloads} modules fetched" if downloads else ""
            progress.say(what.format(count=count) + fetched + f"; last: {said[-1].removeprefix('go: ')}")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    with subprocess.Popen(
        command, cwd=SOURCE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            downloads += line.startswith("go: downloading")
            count += pattern.match(line) is not None
            said.append(line.strip())
    ended.set()
    teller.join()
    if process.returncode != 0:
        raise ClusterError("BUILD_FAILED", f"`{' '.join(command[:3])} ...` failed:\n" + "\n".join(said))
    return count


def _write_pause_image(work: Path) -> None:
    """The image of the process that holds a pod's namespaces, as `docker save` would write it."""

    def add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(content), mode
        archive.addfile(entry, io.BytesIO(content))

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        add(archive, "pause", (work / "pause").read_bytes(), 0o755)
    configuration = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(work / PAUSE_ARCHIVE, mode="w") as archive:
        add(archive, "layer.tar", layer.getvalue(), 0o644)
        add(archive, "config.json", json.dumps(configuration).encode(), 0o644)
        add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def _write_stages(work: Path, environment: dict[str, str]) -> None:
    """What kwok does with nodes and pods that run nothing: its own stage files, joined."""
    kwok = run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"], cwd=SOURCE, environment=environment
    ).stdout.strip()
    stages = [(Path(kwok) / "kustomize/stage" / name).read_text() for name in STAGES]
    (work / STAGE_FILE).write_text("\n---\n".join(stages))
