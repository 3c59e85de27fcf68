"""The clusters of this tier: made once, shared by all workers, and left running for the next run.

pytest leaves them, since a start costs more than most tests; with TRADINGBOT_KEEP_CLUSTER=0, as `make test` has it,
they are removed at the end, and `CLUSTER_NAME=test dev/cluster/cluster down` does it by hand. A cluster that does not
start is a failure, never a skip.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from local_kubernetes.local import LocalCluster

from support.operator_scene import Scene, operator_scene

WITH_NODE = os.environ.get("CLUSTER_NAME", "test")
API_ONLY = f"{WITH_NODE}-api"


@pytest.fixture(scope="session")
def cluster() -> LocalCluster:
    """A cluster with a node: pods run, volumes and Services work."""
    started = LocalCluster(WITH_NODE)
    started.up()
    return started


@pytest.fixture(scope="session")
def api_cluster() -> LocalCluster:
    """API server, controllers and scheduler; pods stay Pending. For what needs the API alone."""
    started = LocalCluster(API_ONLY)
    started.up(node=False)
    return started


@pytest.fixture(scope="session")
def served_cluster(api_cluster: LocalCluster) -> LocalCluster:
    """`api_cluster` with the CRDs."""
    crds = Path(__file__).resolve().parents[2] / "crds"
    api_cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crds))
    api_cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
    return api_cluster


def _namespace(of: LocalCluster) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    of.kubectl("create", "namespace", name)
    yield name
    of.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def namespace(cluster: LocalCluster) -> Iterator[str]:
    """A namespace of the test's own in `cluster`; its volumes are wiped afterwards."""
    yield from _namespace(cluster)
    cluster.recycle_volumes()


@pytest.fixture
def api_namespace(api_cluster: LocalCluster) -> Iterator[str]:
    """A namespace of the test's own in `api_cluster`."""
    yield from _namespace(api_cluster)


@pytest.fixture
async def scene(served_cluster: LocalCluster, api_namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    """An operator at work in a namespace of the test's own, with doubles for the kubelet and the bots."""
    async with operator_scene(served_cluster, api_namespace, tmp_path) as made:
        yield made


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the clusters where nobody will use them again."""
    worker = hasattr(session.config, "workerinput")
    if os.environ.get("TRADINGBOT_KEEP_CLUSTER") == "0" and not worker:
        for name in (WITH_NODE, API_ONLY):
            LocalCluster(name).down()
