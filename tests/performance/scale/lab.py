"""A cluster of kwok nodes with operators as processes, the bots' double, and what watches them; removed at the end."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from local_kubernetes.basics import wait_for
from local_kubernetes.local import LocalCluster

from support.kube import BOTS, Json, Kube
from support.operator_process import OperatorProcess, make_authority
from support.waiting import until
from tradingbot_api import names

ROOT = Path(__file__).resolve().parents[3]
NAMESPACE = "trading"
FAKE_NODES = 20
FAKE_SHAPE: Json = {
    "nodeSelector": {"type": "fake"},
    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}],
}
"""What a pod must say to come to a kwok node."""
TICK = os.sysconf("SC_CLK_TCK")
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


LAG = re.compile(r'^tradingbot_operator_event_loop_lag_seconds_bucket\{le="(.+)"\} (.+)$', re.M)


@dataclass(frozen=True)
class Lateness:
    """How many looks at an event loop came at most so many seconds late."""

    looks: Mapping[float, float]

    def since(self, before: Lateness) -> Lateness:
        """Of the time since an earlier one."""
        return Lateness({bound: count - before.looks[bound] for bound, count in self.looks.items()})

    def within(self, share: float) -> float:
        """The bound within which so large a share came."""
        total = max(self.looks.values())
        return min(bound for bound, count in self.looks.items() if count >= share * total)


@contextmanager
def fresh_cluster(*manager_flags: str) -> Iterator[LocalCluster]:
    """An empty cluster of kwok nodes with the CRD and the namespace; flags are of the controller manager."""
    cluster = LocalCluster(f"scale-{os.getpid()}", manager_flags=manager_flags)
    try:
        cluster.up(node=False, fake_nodes=FAKE_NODES)
        cluster.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        cluster.kubectl("create", "namespace", NAMESPACE)
        path = BOTS.format(NAMESPACE)
        # A kind that is new is refused (429) while its storage is made.
        wait_for("TradingBots to be listed", lambda: bool(cluster.kubectl("get", "--raw", path, check=False)), 30)
        yield cluster
    finally:
        cluster.down()


class BotsProcess:
    """The process that plays all bots, and what it told."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.engaged: dict[str, list[float]] = defaultdict(list)
        """When safe mode came to be engaged, by bot."""
        self.granted: dict[int, dict[str, float]] = defaultdict(dict)
        """When each bot was first granted by a leader, by its epoch."""
        self.listening: dict[str, float] = {}
        self._begun = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def start(cls, kubeconfig: Path) -> AsyncIterator[BotsProcess]:
        """Runs it until the end."""
        module = "performance.scale.light_bots"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, str(kubeconfig), NAMESPACE, stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        bots = cls(process)
        try:
            async with asyncio.timeout(60):
                await bots._begun.wait()
            yield bots
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await bots._reader

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            match told:
                case {"engaged": name, "at": at}:
                    self.engaged[name].append(at)
                case {"granted": name, "epoch": epoch, "at": at}:
                    self.granted[epoch][name] = at
                case {"listening": name, "at": at}:
                    self.listening[name] = at
            self._begun.set()


class Watched:
    """The objects of one kind as a watch shows them, and when each first was as `ready` says."""

    def __init__(self, ready: Callable[[Json], bool]) -> None:
        self._ready = ready
        self.ready: dict[str, float] = {}
        self.acknowledged: dict[str, float] = {}
        """When SafeModeAcknowledged last came to be true of the present generation's wish."""
        self.seen: dict[str, Json] = {}

    async def follow(self, kube: Kube, path: str) -> None:
        """Until cancelled."""
        async for event, raw in kube.follow(path):
            name = raw["metadata"]["name"]
            if event == "DELETED":
                self.seen.pop(name, None)
                continue
            self.seen[name] = raw
            if name not in self.ready and self._ready(raw):
                self.ready[name] = time.monotonic()
            if raw.get("spec", {}).get("safeMode") is not True:
                self.acknowledged.pop(name, None)
            elif name not in self.acknowledged and acknowledged(raw):
                self.acknowledged[name] = time.monotonic()


def condition(raw: Json, kind: str) -> Json:
    """A condition of a TradingBot's status; empty where it has none."""
    found = (item for item in raw.get("status", {}).get("conditions", ()) if item["type"] == kind)
    return next(found, {})


def bot_ready(raw: Json) -> bool:
    """Ready by its status."""
    return bool(condition(raw, "Ready").get("status") == "True")


def acknowledged(raw: Json) -> bool:
    """Safe mode is acknowledged, as the present spec wishes."""
    found = condition(raw, "SafeModeAcknowledged")
    return found.get("status") == "True" and found.get("observedGeneration") == raw["metadata"]["generation"]


@asynccontextmanager
async def watching(kube: Kube, path: str, ready: Callable[[Json], bool]) -> AsyncIterator[Watched]:
    """Follows the objects of a path."""
    watched = Watched(ready)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(watched.follow(kube, path))
        try:
            yield watched
        finally:
            task.cancel()


@dataclass
class Lab:
    """What the measurements work with."""

    cluster: LocalCluster
    kube: Kube
    bots: BotsProcess
    tradingbots: Watched
    authority: Path
    options: tuple[str, ...]
    operators: list[OperatorProcess] = field(default_factory=list)

    async def start_operator(self, identity: str) -> OperatorProcess:
        """One more replica."""
        operator = await OperatorProcess.start(
            self.cluster.kubeconfig(), self.authority, NAMESPACE, "--identity", identity, *self.options, everywhere=True
        )
        self.operators.append(operator)
        return operator

    async def ready(self, operator: OperatorProcess) -> bool:
        """Whether it watches."""
        url = f"http://127.0.0.1:{operator.ports['probe']}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status == 200

    async def lateness(self, operator: OperatorProcess) -> Lateness:
        """How late its event loop came round so far."""
        url = f"http://127.0.0.1:{operator.ports['metrics']}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            found = LAG.findall(await response.text())
        return Lateness({float(bound): float(count) for bound, count in found})

    async def all_trade(self, count: int, seconds: float) -> None:
        """Until so many TradingBots are in phase Trading."""

        def trading() -> bool:
            phases = [raw.get("status", {}).get("phase") for raw in self.tradingbots.seen.values()]
            return phases.count("Trading") >= count

        await until(f"{count} TradingBots to trade", trading, seconds, every=0.2)

    async def stop(self, operator: OperatorProcess, number: int) -> None:
        """Ends a replica."""
        self.operators.remove(operator)
        await operator.stop(number)


@asynccontextmanager
async def lab(cluster: LocalCluster, folder: Path, options: tuple[str, ...]) -> AsyncIterator[Lab]:
    """The bots' double beside a cluster, no operator yet; `options` are further arguments of each operator."""
    kube = await Kube.of(cluster.kubeconfig())
    make_authority(folder / "authority")
    try:
        async with (
            BotsProcess.start(cluster.kubeconfig()) as bots,
            watching(kube, BOTS.format(NAMESPACE), bot_ready) as tradingbots,
        ):
            made = Lab(cluster, kube, bots, tradingbots, folder / "authority", options)
            try:
                yield made
            finally:
                for operator in made.operators:
                    await operator.stop(9)
    finally:
        await kube.close()


# --- what the machine and the API server tell ---


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_mib(pid: int, kind: str = "VmRSS") -> float:
    """Resident memory of a process; `VmHWM`: the most that it had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{kind}:")) / 1024


def programs(cluster: LocalCluster) -> dict[str, int]:
    """The processes of a cluster, by the first 15 characters of the program's name."""
    first = next(process.pid for process in cluster.processes() if process.first)
    children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in children}


def pid_of(cluster: LocalCluster, program: str) -> int:
    """The process of one of the cluster's programs."""
    return programs(cluster)[program[:15]]


def cpu_of_all(pids: Mapping[str, int]) -> Counter[str]:
    """CPU seconds of some processes so far, by name."""
    return Counter({name: cpu_seconds(pid) for name, pid in pids.items()})


@dataclass(frozen=True)
class Requests:
    """What operators asked of the API server, by verb and resource; writes apart from Events and their own Lease."""

    writes: Counter[str]
    events: int
    reads: Counter[str]


def requests(cluster: LocalCluster, since: int = 0) -> Requests:
    """Of all operators by the audit log from a place in it on; refused writes count as those that had their effect."""
    writes: Counter[str] = Counter()
    reads: Counter[str] = Counter()
    events = 0
    with cluster.audit_log().open(encoding="utf-8") as file:
        file.seek(since)
        for line in file:
            if not line.endswith("\n") or '"stage":"ResponseComplete"' not in line:
                continue
            if f'"userAgent":"{names.FIELD_MANAGER}"' not in line and '"userAgent":"kopf/' not in line:
                continue
            event = json.loads(line)
            reference = event.get("objectRef", {})
            resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
            if reference.get("resource") == "leases" and not reference.get("name", "").startswith("claim-"):
                continue
            if event["verb"] not in WRITES:
                reads[f"{event['verb']} {resource}"] += 1
            elif resource == "events":
                events += 1
            else:
                writes[f"{event['verb']} {resource}"] += 1
    return Requests(writes, events, reads)
