"""Clusters that are not ours: one made by kind where Docker runs, or the one of the current kubeconfig."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .basics import ClusterError, Home, Progress, run


class _Foreign:
    """What both kinds share: kubectl from the PATH, no audit log, storage of their own."""

    def __init__(self, name: str, home: Home) -> None:
        self.name = name
        self._path = home.clusters / f"{name}.kubeconfig"

    def binaries(self) -> Path | None:
        """None: kubectl and helm come from the PATH."""
        return None

    def kubeconfig(self) -> Path:
        """The path of the kubeconfig; raises ClusterError NOT_RUNNING."""
        if not self._path.exists():
            raise ClusterError("NOT_RUNNING", f"cluster {self.name!r} is not there: make cluster-up")
        return self._path

    def status(self) -> tuple[bool, str]:
        """Whether the API server answers, and what kubectl says of it."""
        kubeconfig = self.kubeconfig()
        done = run(["kubectl", "--kubeconfig", kubeconfig, "get", "nodes"], check=False)
        return done.returncode == 0, f"{done.stdout}{done.stderr}kubeconfig {kubeconfig}"

    def audit_log(self) -> Path:
        """Raises ClusterError UNSUPPORTED: their audit log is not ours to configure."""
        raise ClusterError("UNSUPPORTED", "only CLUSTER=local has an audit log at a known place")

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """Raises ClusterError UNSUPPORTED."""
        self.audit_log()
        yield from ()

    def recycle_volumes(self) -> int:
        """Their provisioner does that."""
        return 0

    def _write(self, text: str) -> Path:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.touch(mode=0o600)
        self._path.write_text(text)
        return self._path

    def _require(self, *programs: str) -> None:
        if absent := [program for program in programs if shutil.which(program) is None]:
            raise ClusterError("PROGRAMS_MISSING", f"not on the PATH: {', '.join(absent)}; install them first")


class KindCluster(_Foreign):
    """Kubernetes in Docker."""

    def up(self, node: bool = True, fake_nodes: int = 0) -> Path:
        """Create it unless it is there."""
        self._require("docker", "kind", "kubectl", "helm")
        if run(["docker", "info"], check=False).returncode != 0:
            raise ClusterError(
                "DOCKER_MISSING", "`docker info` fails; start Docker, or use CLUSTER=local as root on Debian"
            )
        if fake_nodes:
            raise ClusterError("UNSUPPORTED", "fake nodes need CLUSTER=local")
        progress = Progress.begin(self.name)
        if self.name not in run(["kind", "get", "clusters"]).stdout.split():
            progress.say("kind creates the cluster")
            run(["kind", "create", "cluster", "--name", self.name, "--wait", "180s", "--kubeconfig", os.devnull])
        self._write(run(["kind", "get", "kubeconfig", "--name", self.name]).stdout)
        progress.say(f"ready; kubeconfig: {self._path}")
        return self._path

    def down(self) -> None:
        """Delete it."""
        self._require("kind")
        run(["kind", "delete", "cluster", "--name", self.name, "--kubeconfig", os.devnull])
        self._path.unlink(missing_ok=True)

    def load(self, archives: Sequence[Path]) -> None:
        """Load images into its node."""
        for archive in archives:
            run(["kind", "load", "image-archive", archive, "--name", self.name])


class ExistingCluster(_Foreign):
    """The cluster of the current kubeconfig, which its owner must agree to."""

    def __init__(self, name: str, home: Home, *, assume_yes: bool) -> None:
        super().__init__(name, home)
        self._assume_yes = assume_yes

    def up(self, node: bool = True, fake_nodes: int = 0) -> Path:
        """Ask, then keep a copy of the current context."""
        self._require("kubectl", "helm")
        if fake_nodes:
            raise ClusterError("UNSUPPORTED", "fake nodes need CLUSTER=local")
        view = ["kubectl", "config", "view", "--minify"]
        context = run(["kubectl", "config", "current-context"]).stdout.strip()
        server = run([*view, "--output=jsonpath={.clusters[0].cluster.server}"]).stdout
        if not self._assume_yes:
            print(f"Install into context {context!r} at {server}? [y/N] ", end="", file=sys.stderr, flush=True)
            if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
                raise ClusterError("REFUSED", "nothing was changed; a yes, or ASSUME_YES=1, is needed")
        return self._write(run([*view, "--flatten", "--raw", "--output=yaml"]).stdout)

    def down(self) -> None:
        """Forget the copy of the kubeconfig; the cluster stays as it is."""
        self._path.unlink(missing_ok=True)

    def load(self, archives: Sequence[Path]) -> None:
        """Raises ClusterError UNSUPPORTED: its nodes are not ours."""
        raise ClusterError("UNSUPPORTED", "push the images to a registry that the cluster reads, and name them there")
