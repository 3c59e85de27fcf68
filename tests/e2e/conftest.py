"""The cluster of this tier: left running for the next run, or removed with TRADINGBOT_KEEP_CLUSTER=0."""

from __future__ import annotations

import os

import pytest
from local_kubernetes.local import LocalCluster

CLUSTER_NAME = "e2e"


@pytest.fixture(scope="session")
def cluster_environment() -> dict[str, str]:
    """The environment in which the demo works on this tier's cluster."""
    return {**os.environ, "CLUSTER_NAME": CLUSTER_NAME}


def pytest_sessionfinish() -> None:
    """Remove the cluster where nobody will use it again."""
    if os.environ.get("TRADINGBOT_KEEP_CLUSTER") == "0":
        LocalCluster(CLUSTER_NAME).down()
