"""A cluster in network, mount and process namespaces of its own: start, repair, look at, load images, remove.

Nothing but the state folder says that a cluster exists, and nothing but the process table says that it runs: there
is no pid file to be wrong. A restart after a crash is like the reboot of a node: etcd, images and volumes are kept.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import binaries, machine, packages, pki, plan
from .basics import ClusterError, Home, Progress, lock, run, wait_for

MARK = "tradingbot-cluster"
SUPERVISOR = Path(__file__).with_name("supervisor.py")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,28}[a-z0-9])?")
READY_SECONDS = 180.0
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Process:
    """A process of a cluster, as seen from outside; `first` is the first process inside, of the start that is valid."""

    pid: int
    first: bool


@dataclass(frozen=True)
class Network:
    """Where a program is beside the pods: the network namespace of `pid`; both ends of the link to the machine."""

    pid: int
    inside: str
    outside: str


class LocalCluster:
    """One cluster; many may run side by side, each on the standard ports of its own network."""

    def __init__(self, name: str, home: Home | None = None, *, manager_flags: tuple[str, ...] = ()) -> None:
        """`manager_flags` are further ones of the controller manager."""
        if not NAME.fullmatch(name):
            raise ClusterError(
                "BAD_NAME", f"CLUSTER_NAME is {name!r}; expected at most 30 of a-z, 0-9 and '-', as in 'demo'"
            )
        self.name = name
        self._manager_flags = manager_flags
        self._home = home or Home.of(os.environ)
        self._state = self._home.clusters / name
        self._lock = self._home.clusters / f".{name}.lock"
        self._inotify = self._home.clusters / ".inotify-limit"

    # ---- what users call

    def up(self, node: bool = True, fake_nodes: int = 0) -> Path:
        """Make it run with at least the given parts; returns the path of its kubeconfig."""
        progress = Progress.begin(self.name)
        if os.geteuid() != 0:
            raise ClusterError(
                "NOT_ROOT", "a local cluster needs root (namespaces, mounts, network): use sudo, or CLUSTER=kind"
            )
        packages.ensure(progress, packages.CONTROL_PLANE, packages.NODE if node else {})
        programs = binaries.ensure(self._home, progress)
        with lock(self._lock, lambda: progress.say("waiting: another process works on this cluster")):
            before = self._stored()
            if before is not None:  # more than what is asked for is fine, less is not
                node = node or before["node"]
                fake_nodes = max(fake_nodes, before["fake_nodes"])
            wanted = self._plan(programs, before["link_index"] if before else 0, node, fake_nodes)
            if not self._runs_as(wanted):
                wanted = self._start(programs, wanted, progress, again=before is not None)
            self._become_ready(wanted, programs, progress)
        return self._path

    def down(self) -> None:
        """Remove processes, links, control groups and files; returns when all are gone."""
        with lock(self._lock):
            self._token.unlink(missing_ok=True)
            self._stop()
            machine.drop_links(self._state)
            machine.drop_cgroups(self._state)
            if self._state.exists():
                # Under another name first: a kill in between must not leave half a state that looks whole.
                doomed = self._state.with_name(f".{self.name}.removed")
                shutil.rmtree(doomed, ignore_errors=True)
                self._state.rename(doomed)
            for doomed in self._home.clusters.glob(f".{self.name}.removed"):
                shutil.rmtree(doomed)
            if not any(path.is_dir() for path in self._home.clusters.iterdir()):
                machine.restore_inotify_limit(self._inotify)
        for folder in (self._home.clusters, self._home.clusters.parent):
            with contextlib.suppress(OSError):  # others' clusters are in it
                folder.rmdir()

    def status(self) -> tuple[bool, str]:
        """Whether it is ready, and a table of its programs."""
        stored, first = self._stored(), self._first()
        if stored is None:
            return False, f"{self.name}: no such cluster (make cluster-up makes it)"
        if first is None:
            return False, f"{self.name}: not running; its state is kept in {self._state}"
        children = _children(first.pid)
        rows = [f"{'PROGRAM':<26}{'PID':>8}{'MEMORY':>10}"]
        for component in stored["components"]:
            program = Path(component["argv"][0]).name
            pid = next((pid for pid, name in children.items() if name == program), None)
            rows.append(f"{component['name']:<26}{pid or '-':>8}{f'{_memory(pid)} MiB' if pid else 'not running':>10}")
        missing = self._not_ready(stored)
        rows += [
            f"address    https://{machine.Link(stored['link_index']).inside}:6443",
            f"kubeconfig {self._path}",
            f"audit log  {self.audit_log()}",
            f"logs       {self._state / 'logs'}",
        ]
        head = f"{self.name}: " + (f"not ready, waiting for {missing}" if missing else "ready")
        return missing is None, "\n".join([head, *rows])

    def kubeconfig(self) -> Path:
        """The path of the kubeconfig; raises ClusterError NOT_RUNNING."""
        self._require_first()
        return self._path

    def network(self) -> Network:
        """The way to pods, whose addresses only the cluster's network knows; raises ClusterError NOT_RUNNING."""
        first, stored = self._require_first(), self._stored()
        link = machine.Link(stored["link_index"] if stored else 0)
        return Network(first.pid, link.inside, link.outside)

    def program(self, name: str) -> int:
        """The process id of a program that keeps the cluster running; raises ClusterError NOT_RUNNING."""
        for pid, program in _children(self._require_first().pid).items():
            if program == name:
                return pid
        raise ClusterError("NOT_RUNNING", f"{name} of cluster {self.name!r} does not run: make cluster-up")

    def load(self, archives: Sequence[Path]) -> None:
        """Import images into the node's containerd, each unless it is there already."""
        progress = Progress.begin(self.name)
        first = self._require_first()
        note = self._state / "loaded.json"
        for archive in archives:
            names = _image_names(archive)
            now = archive.stat()
            print_ = f"{archive.resolve()} {now.st_size} {now.st_mtime_ns}"
            with lock(self._state / "loaded.lock"):
                loaded: dict[str, str] = json.loads(note.read_text()) if note.exists() else {}
                if all(loaded.get(name) == print_ for name in names):
                    progress.say(f"{', '.join(names)} is there already")
                    continue
                self._import(first, archive)
                note.write_text(json.dumps(loaded | dict.fromkeys(names, print_)))
            progress.say(f"loaded {', '.join(names)}, {now.st_size / 1e6:.0f} MB")

    def binaries(self) -> Path:
        """The folder with kubectl and helm; they are built where they are not there yet."""
        return binaries.ensure(self._home, Progress.begin(self.name))

    def audit_log(self) -> Path:
        """The API server's audit log, at level Metadata."""
        return self._state / "audit.log"

    def audit_events(self) -> Iterator[dict[str, Any]]:
        """All entries up to now; a last line that is still being written is left out."""
        with self.audit_log().open() as file:
            for line in file:
                if line.endswith("\n"):
                    yield json.loads(line)

    def kubectl(self, *words: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl against this cluster; what it printed."""
        return self._kubectl(binaries.folder(self._home), *words, stdin=stdin, check=check)

    def recycle_volumes(self) -> int:
        """Wipe volumes whose claim is gone, and offer them again; how many."""
        return self._offer_volumes(binaries.folder(self._home))

    def processes(self) -> list[Process]:
        """What keeps the cluster running: the first process inside, and who started it."""
        tail = f"\0{MARK}\0{self._state}\0".encode()
        # One of a start that was overtaken may become visible late, and is about to end: it is no running cluster.
        try:
            valid = b"\0" + self._token.read_bytes() + tail
        except FileNotFoundError:  # it is being removed
            valid = None
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it ended while we looked
                words = (folder / "cmdline").read_bytes()
                if words.endswith(tail):
                    status = (folder / "status").read_text()
                    pids = re.search(r"^NSpid:(.*)$", status, re.M)
                    inside = pids[1].split() if pids else []
                    first = valid is not None and words.endswith(valid) and len(inside) > 1 and inside[-1] == "1"
                    found.append(Process(int(folder.name), first))
        return found

    # ---- start and stop

    @property
    def _path(self) -> Path:
        return self._state / "kubeconfig"

    @property
    def _token(self) -> Path:
        return self._state / "token"

    def _first(self) -> Process | None:
        return next((process for process in self.processes() if process.first), None)

    def _require_first(self) -> Process:
        first = self._first()
        if first is None or not self._path.exists():
            raise ClusterError("NOT_RUNNING", f"cluster {self.name!r} does not run: make cluster-up")
        return first

    def _stored(self) -> dict[str, Any] | None:
        try:
            stored: dict[str, Any] = json.loads((self._state / "plan.json").read_text())
        except FileNotFoundError:
            return None
        return stored

    def _plan(self, programs: Path, index: int, node: bool, fake_nodes: int) -> plan.Plan:
        return plan.make(
            self._state, programs, machine.Link(index), node=node, fake_nodes=fake_nodes, manager=self._manager_flags
        )

    def _runs_as(self, wanted: plan.Plan) -> bool:
        links = [link.index for link in machine.own_links(self._state)]
        same = self._stored() == json.loads(wanted.to_json())
        return self._first() is not None and same and links == [wanted.link_index]

    def _start(self, programs: Path, wanted: plan.Plan, progress: Progress, *, again: bool) -> plan.Plan:
        progress.say("starting again with the state it had" if again else "starting")
        self._state.mkdir(parents=True, exist_ok=True)
        # Before the stop: a first process that an `up` left behind when it was killed may become visible only later,
        # and ends itself when this is not its token.
        token = uuid.uuid4().hex
        self._token.write_text(token)
        self._stop()
        machine.drop_links(self._state)
        machine.drop_cgroups(self._state)
        link = machine.take_link(self._state, wanted.link_index)
        wanted = self._plan(programs, link.index, wanted.node, wanted.fake_nodes)
        for name in ("logs", "volumes", "cni", "etcd"):
            (self._state / name).mkdir(parents=True, exist_ok=True)
        self._state.chmod(0o700)
        (self._state / "etcd").chmod(0o700)
        pki.write(self._state / "pki", link.inside)
        context = f"tradingbot-{self.name}"
        pki.write_host_kubeconfig(self._state / "pki", self._path, link.inside, context)
        for name, content in wanted.files.items():
            (self._state / name).write_text(content)
        machine.make_cgroups(self._state)
        machine.raise_inotify_limit(self._inotify)
        new = self._state / "plan.json.new"
        new.write_text(wanted.to_json())
        new.rename(self._state / "plan.json")
        self._spawn(token)
        return wanted

    def _spawn(self, token: str) -> None:
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        # setsid --fork: the cluster belongs to the machine, not to whoever started it.
        isolate = ["setsid", "--fork", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        with (self._state / "logs" / "supervisor.log").open("ab") as log:
            subprocess.run(
                [*isolate, "--mount-proc", python, "-I", str(SUPERVISOR), token, MARK, str(self._state)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": packages.SYSTEM_PATH, "HOME": "/root"},
                check=True,
            )
        wait_for("the cluster's first process", lambda: self._first() is not None, 10, pause=0.02)

    def _stop(self) -> None:
        """End every process; the kernel ends what is in the namespaces with the first one."""

        def all_gone() -> bool:
            left = self.processes()
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            return not left

        wait_for(f"the processes of cluster {self.name} to end", all_gone, 30, pause=0.05)

    # ---- readiness

    def _kubectl(self, programs: Path, *words: str, stdin: str | None = None, check: bool = True) -> str:
        environment = {key: value for key, value in os.environ.items() if key.lower() not in PROXIES}
        command: list[str | Path] = [programs / "kubectl", "--kubeconfig", self._path, *words]
        return run(command, stdin=stdin, check=check, environment=environment).stdout

    def _become_ready(self, wanted: plan.Plan, programs: Path, progress: Progress) -> None:
        first = self._require_first()
        machine.attach(machine.Link(wanted.link_index), first.pid)

        def until(what: str, condition: Callable[[], bool]) -> None:
            if condition():
                return
            before = progress.elapsed
            try:
                wait_for(what, lambda: self._first() is None or condition(), READY_SECONDS)
            except ClusterError as error:
                raise ClusterError("NOT_READY", f"{error}\n{self._log_ends()}") from error
            if self._first() is None:
                raise ClusterError("NOT_READY", f"the first process ended\n{self._log_ends()}")
            progress.say(f"{what}: {progress.elapsed - before:.1f} s")

        if wanted.node and not (self._state / "images-ready").exists():
            until("containerd", lambda: _socket(first).exists())
            self._import(first, programs / binaries.PAUSE_ARCHIVE)
        until("API server", lambda: self._kubectl(programs, "get", "--raw", "/readyz", check=False) == "ok")
        if wanted.node:
            (self._state / "images-ready").touch()
            self._offer_volumes(programs)
        if wanted.fake_nodes:
            self._add_fake_nodes(programs, wanted.fake_nodes)
        # The context's namespace is the user's, and may be gone.
        account = ("get", "serviceaccount", "default", "--namespace=default", "--output=name")
        until("controllers", lambda: bool(self._kubectl(programs, *account, check=False)))
        if wanted.node:
            until("node", lambda: self._node_ready(programs))
            until("DNS", lambda: _dns_ready(machine.Link(wanted.link_index)))
        progress.say(f"ready; kubeconfig: {self._path}")

    def _node_ready(self, programs: Path) -> bool:
        """After a restart the API still says Ready of the time before: the kubelet itself is asked, too."""
        asked = self._kubectl(programs, "get", "--raw", "/api/v1/nodes/node1/proxy/healthz", check=False)
        path = "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}"
        return asked == "ok" and self._kubectl(programs, "get", "node", "node1", path, check=False) == "True"

    def _not_ready(self, stored: dict[str, Any]) -> str | None:
        """The first part that does not answer."""
        programs = binaries.folder(self._home)
        if self._kubectl(programs, "get", "--raw", "/readyz", check=False) != "ok":
            return "the API server"
        if stored["node"] and not self._node_ready(programs):
            return "the node"
        if stored["node"] and not _dns_ready(machine.Link(stored["link_index"])):
            return "DNS"
        return None

    def _log_ends(self) -> str:
        ends = []
        for log in sorted((self._state / "logs").glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-3:]
            ends.append("\n".join([f"--- {log}", *(line[:300] for line in lines)]))
        return "\n".join(ends)

    # ---- images and objects

    def _import(self, first: Process, archive: Path) -> None:
        run(["ctr", "--address", _socket(first), "--namespace", "k8s.io", "images", "import", archive])

    def _offer_volumes(self, programs: Path) -> int:
        listed = json.loads(self._kubectl(programs, "get", "persistentvolumes", "--output=json"))["items"]
        phases = {item["metadata"]["name"]: item["status"].get("phase") for item in listed}
        used = [name for name, phase in phases.items() if phase in {"Released", "Failed"}]
        if used:
            self._kubectl(programs, "delete", "persistentvolume", *used)
        missing = [name for name in plan.volume_names() if name in used or name not in phases]
        if not missing:
            return 0
        for name in missing:
            folder = self._state / "volumes" / name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        objects = [plan.storage_class(), *(plan.volume(self._state, name) for name in missing)]
        self._apply(programs, objects)
        return len(used)

    def _add_fake_nodes(self, programs: Path, count: int) -> None:
        there = self._kubectl(programs, "get", "nodes", "--selector=type=fake", "--output=name").split()
        wanted = [plan.fake_node(number) for number in range(count)]
        missing = [item for item in wanted if f"node/{item['metadata']['name']}" not in there]  # type: ignore[index]
        if missing:
            self._apply(programs, missing)

    def _apply(self, programs: Path, objects: Sequence[dict[str, object]]) -> None:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        # Server-side: one request an object, and no copy of it in an annotation.
        self._kubectl(programs, "apply", "--server-side", "--filename=-", stdin=listed)


def _socket(first: Process) -> Path:
    """Containerd's socket lies in a folder that only the cluster sees; this is the way in."""
    return Path(f"/proc/{first.pid}/root{plan.CONTAINERD}")


def _dns_ready(link: machine.Link) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://{link.inside}:{plan.DNS_READY_PORT}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _children(pid: int) -> dict[int, str]:
    """The programs that a process started, by process id."""
    found = {}
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                program = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0]
                found[int(child)] = Path(program.decode()).name
    return found


def _memory(pid: int) -> int:
    """Resident memory in MiB."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmRSS:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
        return int(found[1]) // 1024 if found else 0
    return 0


def _image_names(archive: Path) -> list[str]:
    try:
        with tarfile.open(archive) as opened:
            manifest = opened.extractfile("manifest.json")
            listed = json.load(manifest) if manifest else []
        return [name.removeprefix("docker.io/") for image in listed for name in image["RepoTags"] or []]
    except (OSError, tarfile.TarError, KeyError) as error:
        raise ClusterError(
            "BAD_ARCHIVE", f"{archive} is no image archive as `docker save` writes it: {error}"
        ) from error
