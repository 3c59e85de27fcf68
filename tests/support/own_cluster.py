"""A cluster that a test may break, with the CRD and a namespace; removed at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local_kubernetes.local import LocalCluster

NAMESPACE = "trading"


@contextmanager
def own_cluster(purpose: str, *manager_flags: str) -> Iterator[LocalCluster]:
    """API server, controllers and scheduler; `manager_flags` are further ones of the controller manager."""
    started = LocalCluster(f"{purpose}-{os.getpid()}", manager_flags=manager_flags)
    started.up(node=False)
    try:
        started.kubectl("apply", "--server-side", "-f", str(Path(__file__).resolve().parents[2] / "crds"))
        started.kubectl("wait", "--for=condition=Established", "crd", "--all")
        started.kubectl("create", "namespace", NAMESPACE)
        yield started
    finally:
        started.down()
