"""Promises of the local Kubernetes: repairable after a kill at any point, many side by side, gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_kubernetes.basics import ClusterError, Home, wait_for
from local_kubernetes.local import LocalCluster
from local_kubernetes.machine import cgroup_name

pytestmark = pytest.mark.cluster
COMMAND = Path(__file__).resolve().parents[2] / "dev/cluster/cluster"
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sleeper"},
    "spec": {
        "terminationGracePeriodSeconds": 1,
        "containers": [
            {
                "name": "sleeper",
                "image": "pause:local",
                "imagePullPolicy": "Never",
                "resources": {"limits": {"memory": "32Mi"}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}

Make = Callable[[str], LocalCluster]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """State in a folder of the test's own; the binaries are everybody's."""
    return Home(cache=Home.of(os.environ).cache, clusters=tmp_path / "tradingbot" / "clusters")


@pytest.fixture
def make(home: Home) -> Iterator[Make]:
    """Makes clusters, and removes them whatever happens."""
    made: list[LocalCluster] = []

    def one(name: str) -> LocalCluster:
        made.append(LocalCluster(name, home))
        return made[-1]

    yield one
    for cluster in made:
        cluster.down()


def first_process(cluster: LocalCluster) -> int:
    return next(process.pid for process in cluster.processes() if process.first)


def traces(state: Path) -> dict[str, object]:
    """Everything on the machine that mentions a cluster, or that a cluster might change."""
    processes = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(state) in words:
                processes.append(words)
    settings = [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "net/ipv4/ip_forward",
    ]
    return {
        "processes": processes,
        "links": [
            alias.parent.name for alias in Path("/sys/class/net").glob("*/ifalias") if str(state) in alias.read_text()
        ],
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state) in line],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{cgroup_name(state)}")],
        "firewall": "tradingbot" in subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
        or "KUBE" in subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout,
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "settings": {name: Path("/proc/sys", name).read_text() for name in settings},
        "files": [str(path) for path in state.parent.glob("*")] if state.parent.exists() else [],
    }


def test_a_node_is_like_one_that_reboots_and_down_leaves_nothing(make: Make, home: Home) -> None:
    before = traces(home.clusters / "whole")
    cluster = make("whole")
    kubeconfig = cluster.up()
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert cluster.kubectl("config", "current-context").strip() == "tradingbot-whole"
    ready, text = cluster.status()
    assert ready, text

    cluster.kubectl(
        "apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": [CLAIM, POD]})
    )
    cluster.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
    volume = cluster.kubectl("get", "pvc", "data", "--output=jsonpath={.spec.volumeName}")
    note = home.clusters / "whole" / "volumes" / volume / "note"
    note.write_text("kept")

    os.kill(first_process(cluster), signal.SIGKILL)
    wait_for("the cluster to end", lambda: not cluster.processes(), 10)
    assert not cluster.status()[0]
    with pytest.raises(ClusterError, match="does not run"):
        cluster.kubeconfig()
    assert cluster.up() == kubeconfig
    restarts = "--output=jsonpath={.status.containerStatuses[0].restartCount}"
    wait_for("the pod to be restarted", lambda: cluster.kubectl("get", "pod", "sleeper", restarts) == "1", 60)
    cluster.kubectl("wait", "pod/sleeper", "--for=condition=Ready", "--timeout=60s")
    assert note.read_text() == "kept"

    # A claim that goes gives its volume back, empty.
    cluster.kubectl("delete", "pod/sleeper", "pvc/data", "--wait=true")
    phase = "--output=jsonpath={.status.phase}"
    wait_for("the volume to be released", lambda: cluster.kubectl("get", "pv", volume, phase) == "Released", 30)
    assert cluster.recycle_volumes() == 1
    assert not note.exists()
    wait_for("the volume to be offered", lambda: cluster.kubectl("get", "pv", volume, phase) == "Available", 30)

    cluster.down()
    assert traces(home.clusters / "whole") == before
    assert not home.clusters.exists()


def test_two_clusters_run_side_by_side(make: Make) -> None:
    one, other = make("one"), make("other")
    addresses = {cluster.up(node=False).read_text().split("server: ")[1].split()[0] for cluster in (one, other)}
    assert len(addresses) == 2
    one.kubectl("create", "namespace", "only-here")
    assert "only-here" in one.kubectl("get", "namespaces")
    assert "only-here" not in other.kubectl("get", "namespaces")
    one.down()
    assert other.status()[0]


def test_up_on_a_running_cluster_changes_nothing_and_is_quick(make: Make) -> None:
    cluster = make("again")
    cluster.up(node=False)
    before = first_process(cluster)
    cluster.kubectl("config", "set-context", "--current", "--namespace=that-is-gone")
    started = time.monotonic()
    cluster.up(node=False)
    assert time.monotonic() - started < 5
    assert first_process(cluster) == before


def test_a_program_that_dies_starts_again(make: Make) -> None:
    cluster = make("dying")
    cluster.up(node=False)
    cluster.kubectl("create", "namespace", "kept")
    children = Path(f"/proc/{first_process(cluster)}/task/{first_process(cluster)}/children").read_text().split()
    for child in map(int, children):
        os.kill(child, signal.SIGKILL)
    wait_for("the cluster to be ready again", lambda: cluster.status()[0], 60)
    assert "kept" in cluster.kubectl("get", "namespaces")


@pytest.mark.parametrize("after", ["the state folder", "the network link", "the plan", "the first process", "the API"])
def test_up_killed_at_any_point_is_repaired_by_the_next(make: Make, home: Home, after: str) -> None:
    cluster = make("killed")
    state = home.clusters / "killed"
    reached: dict[str, Callable[[], bool]] = {
        "the state folder": state.exists,
        "the network link": lambda: bool(traces(state)["links"]),
        "the plan": (state / "plan.json").exists,
        "the first process": lambda: bool(cluster.processes()),
        "the API": (state / "logs" / "kube-apiserver.log").exists,
    }
    environment = {
        **os.environ,
        "CLUSTER_NAME": "killed",
        "XDG_STATE_HOME": str(home.clusters.parents[1]),
        "XDG_CACHE_HOME": str(home.cache.parent),
    }
    with subprocess.Popen([COMMAND, "up", "--no-node"], env=environment, stderr=subprocess.DEVNULL) as up:
        wait_for(after, reached[after], 60, pause=0.001)
        up.kill()
    cluster.up(node=False)
    assert cluster.status()[0]
    assert sum(process.first for process in cluster.processes()) == 1


def test_a_start_that_was_overtaken_is_no_running_cluster(make: Make, home: Home) -> None:
    cluster = make("overtaken")
    state = home.clusters / "overtaken"
    state.mkdir(parents=True)
    (state / "kubeconfig").touch()
    (state / "token").write_text("of-the-next")
    waits = [sys.executable, "-c", "import time; time.sleep(60)"]
    isolate = ["unshare", "--pid", "--fork", "--kill-child"]
    with subprocess.Popen([*isolate, *waits, "of-the-killed", "tradingbot-cluster", str(state)]) as late:
        wait_for("its first process", lambda: len(cluster.processes()) == 2, 10)
        with pytest.raises(ClusterError, match="does not run"):
            cluster.kubeconfig()
        (state / "token").write_text("of-the-killed")
        assert cluster.kubeconfig() == state / "kubeconfig"
        late.kill()


def test_the_audit_log_says_who_wrote_what(api_cluster: LocalCluster, api_namespace: str) -> None:
    api_cluster.kubectl("create", "configmap", "audited", "--namespace", api_namespace)
    writes = [
        (event["verb"], event["user"]["username"])
        for event in api_cluster.audit_events()
        if event.get("objectRef", {}).get("name") == "audited" and event["objectRef"]["namespace"] == api_namespace
    ]
    assert writes == [("create", "admin")]


def test_fake_nodes_run_pods_that_do_nothing(make: Make) -> None:
    cluster = make("fake")
    cluster.up(node=False, fake_nodes=2)
    cluster.kubectl("wait", "node", "--selector=type=fake", "--for=condition=Ready", "--timeout=60s")
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pretender"},
        "spec": {
            "nodeSelector": {"type": "fake"},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "containers": [{"name": "none", "image": "none"}],
        },
    }
    cluster.kubectl("apply", "--filename=-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "pod/pretender", "--for=condition=Ready", "--timeout=60s")
