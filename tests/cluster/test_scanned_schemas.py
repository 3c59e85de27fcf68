"""Manifests against the schemas that the running API server serves; `make scan` takes those of its source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import findings
import matrix
import scan
import schemas
import tools
from local_kubernetes.basics import Progress
from local_kubernetes.local import LocalCluster


def test_all_manifests_have_the_schemas_that_the_api_server_serves(
    served_cluster: LocalCluster, tmp_path: Path
) -> None:
    tool = tools.ensure(Progress.begin("scan"))
    files = matrix.write(tool.helm, tmp_path)
    versions = {one["apiVersion"] for path in files for one in matrix.documents(path)}
    for version in versions - {"monitoring.coreos.com/v1"}:
        path = f"apis/{version}" if "/" in version else f"api/{version}"
        served = served_cluster.kubectl("get", "--raw", f"/openapi/v3/{path}")
        schemas.file(tmp_path, version).write_text(served, encoding="utf-8")
    found = scan.kubeconform(dataclasses.replace(tool, openapi=tmp_path), files)
    judged = findings.parse(scan.JUDGED.read_text(encoding="utf-8"))
    assert findings.complaints(found, [one for one in judged if one.scanner == "kubeconform"]) == []
