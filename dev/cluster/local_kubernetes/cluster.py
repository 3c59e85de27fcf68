"""What every kind of cluster can do, and which kind the user chose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .basics import ClusterError, Home


class Cluster(Protocol):
    """A Kubernetes to test on."""

    name: str

    def up(self, node: bool = True, fake_nodes: int = 0) -> Path:
        """Make it run; returns the path of its kubeconfig. Quick if it runs already."""

    def down(self) -> None:
        """Remove it and all that belongs to it."""

    def status(self) -> tuple[bool, str]:
        """Whether it is ready, and a text for humans."""

    def kubeconfig(self) -> Path:
        """The path of its kubeconfig; raises ClusterError NOT_RUNNING."""

    def load(self, archives: Sequence[Path]) -> None:
        """Put images into the node, from archives as `docker save` writes them."""

    def binaries(self) -> Path | None:
        """The folder with kubectl and helm; None: the ones on the PATH."""

    def audit_log(self) -> Path:
        """The API server's audit log, one JSON object a line; raises ClusterError UNSUPPORTED where there is none."""

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """All entries of the audit log up to now."""

    def recycle_volumes(self) -> int:
        """Wipe volumes whose claim is gone, and offer them again; how many."""


def choose(environment: Mapping[str, str], name: str | None = None) -> Cluster:
    """The cluster named by CLUSTER (local, kind or existing) and CLUSTER_NAME."""
    from .foreign import ExistingCluster, KindCluster
    from .local import LocalCluster

    home = Home.of(environment)
    chosen = name or environment.get("CLUSTER_NAME") or "tradingbot"
    kind = environment.get("CLUSTER") or "local"
    if kind == "local":
        return LocalCluster(chosen, home)
    if kind == "kind":
        return KindCluster(chosen, home)
    if kind == "existing":
        return ExistingCluster(chosen, home, assume_yes=environment.get("ASSUME_YES") == "1")
    raise ClusterError("BAD_CLUSTER", f"CLUSTER is {kind!r}; it may be local, kind or existing")
