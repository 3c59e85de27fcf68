"""Promises of the local cluster's parts that need no cluster."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from local_kubernetes import binaries, images, plan
from local_kubernetes.basics import ClusterError, Home, lock, run, wait_for
from local_kubernetes.cluster import choose
from local_kubernetes.foreign import ExistingCluster, KindCluster
from local_kubernetes.local import LocalCluster
from local_kubernetes.machine import Link, cgroup_name


def test_versions_in_the_code_are_those_that_are_pinned() -> None:
    pinned = (binaries.SOURCE / "go.mod").read_text()
    assert f"k8s.io/kubernetes v{binaries.KUBERNETES}" in pinned
    assert f"helm.sh/helm/v4 v{binaries.HELM}" in pinned
    assert f"k8s.io/api => k8s.io/api v{binaries.KUBERNETES.replace('1.', '0.', 1)}" in pinned


def test_binaries_lie_outside_the_work_tree_in_a_folder_of_their_version() -> None:
    home = Home.of({"HOME": "/home/me", "XDG_CACHE_HOME": "/elsewhere/cache"})
    folder = binaries.folder(home)
    assert str(folder).startswith("/elsewhere/cache/tradingbot/kubernetes/")
    assert folder == binaries.folder(home)
    assert home.clusters == Path("/home/me/.local/state/tradingbot/clusters")


def test_clusters_of_one_name_in_two_homes_do_not_share_control_groups() -> None:
    assert cgroup_name(Path("/a/demo")) != cgroup_name(Path("/b/demo"))


def test_no_two_links_overlap() -> None:
    links = [Link(index) for index in range(8192)]
    assert len({address for link in links for address in (link.outside, link.inside)}) == 2 * len(links)
    assert all(len(link.peer) <= 15 for link in links)  # the kernel's limit


def test_equal_options_give_equal_plans_and_a_node_adds_its_programs() -> None:
    state, programs = Path("/state/demo"), Path("/bin")
    without = plan.make(state, programs, Link(3), node=False, fake_nodes=0)
    assert without == plan.make(state, programs, Link(3), node=False, fake_nodes=0)
    assert [component.name for component in without.components] == [
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
    ]
    whole = plan.make(state, programs, Link(3), node=True, fake_nodes=1)
    assert {"containerd", "kubelet", "kube-proxy", "coredns", "kwok"} < {
        component.name for component in whole.components
    }
    assert json.loads(whole.to_json())["inside"] == "10.90.128.14/30"


def test_a_lock_lets_one_in_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / ".lock"
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with lock(path):
                inside.append(number)
                most.append(len(inside))
                inside.pop()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(most) == 80
    assert max(most) == 1
    assert not path.exists()


def test_the_user_chooses_the_kind_of_cluster() -> None:
    assert isinstance(choose({"HOME": "/h"}), LocalCluster)
    assert choose({"HOME": "/h"}).name == "tradingbot"
    assert choose({"HOME": "/h", "CLUSTER_NAME": "mine"}).name == "mine"
    assert isinstance(choose({"HOME": "/h", "CLUSTER": "kind"}), KindCluster)
    assert isinstance(choose({"HOME": "/h", "CLUSTER": "existing"}), ExistingCluster)
    with pytest.raises(ClusterError, match="CLUSTER is 'docker'; it may be local, kind or existing"):
        choose({"HOME": "/h", "CLUSTER": "docker"})


@pytest.mark.parametrize("name", ["", "Demo", "-demo", "a/b", "..", "x" * 31])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="CLUSTER_NAME is"):
        LocalCluster(name, Home.of({"HOME": "/h"}))


def test_errors_say_what_failed() -> None:
    with pytest.raises(ClusterError, match="no-such-program is not on the PATH"):
        run(["no-such-program"])
    with pytest.raises(ClusterError, match=r"`sh -c echo why >&2; exit 3` ended with 3: why"):
        run(["sh", "-c", "echo why >&2; exit 3"])
    with pytest.raises(ClusterError, match=r"waited 0\.01 s for a miracle"):
        wait_for("a miracle", lambda: False, 0.01, pause=0.001)


def test_an_image_is_built_again_only_when_its_own_sources_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("crds/src/a.py", "operator/src/a.py", "bot/src/a.py", "paper-exchange/src/a.py", "Dockerfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    monkeypatch.setattr(images, "ROOT", tmp_path)

    def digests() -> list[str]:
        return [images.digest(target, "builder") for target in ("operator", "bot", "paper-exchange")]

    before = digests()
    assert digests() == before
    (tmp_path / "operator/src/a.py").write_text("2")
    assert [old == new for old, new in zip(before, digests(), strict=True)] == [False, True, True]
    (tmp_path / "Dockerfile").write_text("2")
    assert not set(before) & set(digests())
