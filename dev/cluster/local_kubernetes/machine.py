"""What a cluster borrows from the machine outside its namespaces: a network link, control groups, a limit."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from .basics import ClusterError, lock, run, wait_for

# Each cluster takes the first /30 whose link is free: .1 is the machine, .2 the cluster.
RANGE = ipaddress.ip_network("10.90.128.0/17")
ALLOCATION = Path("/run/lock/tradingbot-cluster-links")
LINKS = Path("/sys/class/net")
INSIDE_NAME = "host0"
INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_WANTED = 1024  # Debian's 128 is used up by two clusters


@dataclass(frozen=True)
class Link:
    """A pair of virtual network cards between the machine and a cluster."""

    index: int

    @property
    def name(self) -> str:
        """The card that stays outside."""
        return f"tbk{self.index}"

    @property
    def peer(self) -> str:
        """The other card, until it is moved inside."""
        return f"tbk{self.index}p"

    @property
    def outside(self) -> str:
        """The machine's address on the link."""
        return str(RANGE[4 * self.index + 1])

    @property
    def inside(self) -> str:
        """The cluster's address on the link."""
        return str(RANGE[4 * self.index + 2])


def _owner(link: Link) -> str | None:
    try:
        return (LINKS / link.name / "ifalias").read_text().strip()
    except (FileNotFoundError, OSError):
        return None


def own_links(state: Path) -> list[Link]:
    """The links that belong to the cluster whose state is there."""
    links = [Link(int(path.name[3:])) for path in LINKS.glob("tbk*") if path.name[3:].isdigit()]
    return [link for link in links if _owner(link) == str(state)]


def take_link(state: Path, preferred: int) -> Link:
    """A new link for this cluster; the preferred one where it is free, so that addresses stay."""
    with lock(ALLOCATION):
        candidates = [preferred, *range(RANGE.num_addresses // 4)]
        taken = next((index for index in candidates if not (LINKS / Link(index).name).exists()), None)
        if taken is None:
            raise ClusterError("NO_ADDRESS", f"every network of {RANGE} is taken; take another cluster down")
        link = Link(taken)
        run(["ip", "link", "add", link.name, "type", "veth", "peer", "name", link.peer])
        run(["ip", "link", "set", link.name, "alias", str(state)])
    run(["ip", "address", "add", f"{link.outside}/30", "dev", link.name])
    run(["ip", "link", "set", link.name, "up"])
    return link


def attach(link: Link, pid: int) -> None:
    """Move the peer into the cluster's network; done already if it is not outside any more."""
    if (LINKS / link.peer).exists():
        run(["ip", "link", "set", link.peer, "netns", str(pid), "name", INSIDE_NAME])


def drop_links(state: Path) -> None:
    """Remove the cluster's links, and wait until they are gone."""
    for link in own_links(state):
        run(["ip", "link", "delete", link.name], check=False)  # the kernel may have been faster
        path = LINKS / link.name
        wait_for(f"the network link {link.name} to vanish", lambda path=path: not path.exists(), 10)  # type: ignore[misc]


def cgroup_name(state: Path) -> str:
    """The cluster's own control group; two users may have clusters of one name."""
    return f"tradingbot-{state.name}-{hashlib.sha256(str(state).encode()).hexdigest()[:6]}"


def _hierarchies() -> list[tuple[Path, bool]]:
    """Where control groups are mounted, and whether it is the unified kind (version 2)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted({(Path(mount[1]), mount[2] == "cgroup2") for mount in mounts if mount[2] in {"cgroup", "cgroup2"}})


def make_cgroups(state: Path) -> None:
    """Create the control group below which the kubelet puts all pods."""
    hierarchies = _hierarchies()
    for root, unified in hierarchies:
        group = root / cgroup_name(state)
        group.mkdir(exist_ok=True)
        if unified and len(hierarchies) == 1:  # beside version 1 it has no controllers
            wanted = {"cpu", "cpuset", "io", "memory", "pids", "hugetlb"}
            available = wanted & set((root / "cgroup.controllers").read_text().split())
            (root / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(available)))
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not unified and (root / name).exists():
                (group / name).write_text((root / name).read_text())


def drop_cgroups(state: Path) -> None:
    """Remove the control group with all below it; its processes must be gone."""
    for root, _ in _hierarchies():
        group = root / cgroup_name(state)

        def removed(group: Path = group) -> bool:
            try:
                for path in sorted(group.rglob("*/"), key=lambda path: -len(path.parts)):
                    path.rmdir()
                group.rmdir()
            except FileNotFoundError:
                return not group.exists()
            except OSError:  # busy until the kernel has buried the last process
                return False
            return True

        if group.exists():
            wait_for(f"the control group {group} to become empty", removed, 20)


def raise_inotify_limit(note: Path) -> None:
    """Kubelet and containerd watch many files. The limit is the machine's; the note keeps the old one."""
    now = int(INOTIFY.read_text())
    if now < INOTIFY_WANTED:
        note.write_text(f"{now}\n")
        INOTIFY.write_text(f"{INOTIFY_WANTED}\n")


def restore_inotify_limit(note: Path) -> None:
    """Put the limit back as it was; called when the last cluster goes."""
    if note.exists():
        if int(INOTIFY.read_text()) == INOTIFY_WANTED:  # else somebody has changed it meanwhile
            INOTIFY.write_text(note.read_text())
        note.unlink()
