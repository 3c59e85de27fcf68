"""What is seen of a fleet on a local cluster: its statuses, the bots' logs, and what the processes use."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final

LOOK_SECONDS: Final = 1.0
SAMPLE_SECONDS: Final = 15.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def now_ms() -> int:
    """The clock that exchange and cluster have, too."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class Seen:
    """A TradingBot as the API server told it."""

    at: int
    body: dict[str, Any]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason."""
        for one in self.body.get("status", {}).get("conditions", []):
            if one["type"] == kind:
                return one["status"], one["reason"]
        return "", ""

    @property
    def told(self) -> tuple[Decimal, Decimal] | None:
        """Position and realised profit, where the status says that its books are right."""
        status = self.body.get("status", {})
        if self.condition("BalanceSynced")[0] != "True" or "position" not in status or "pnl" not in status:
            return None
        return Decimal(status["position"]["quantity"]), Decimal(status["pnl"]["realized"])

    @property
    def safe(self) -> bool:
        """Whether safe mode as the spec has it now is acknowledged."""
        current = self.body["metadata"]["generation"] == self.body.get("status", {}).get("observedGeneration")
        wanted = self.body["spec"].get("safeMode") is True
        return wanted and current and self.condition("SafeModeAcknowledged")[0] == "True"

    @property
    def trades(self) -> bool:
        """Whether all is well: it trades, or waits for no more than the market."""
        allowed, reason = self.condition("TradingAllowed")
        return self.condition("Ready")[0] == "True" and (allowed == "True" or reason in {"Cooldown", "WarmingUp"})


class Statuses(threading.Thread):
    """Follows the TradingBots of a namespace; each state once, whatever happens to the API server."""

    def __init__(self, environment: Mapping[str, str], namespace: str) -> None:
        super().__init__(daemon=True)
        self.seen: defaultdict[str, list[Seen]] = defaultdict(list)
        self._environment, self._namespace = dict(environment), namespace
        self._ended = threading.Event()
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """Until `end`."""
        command = ["kubectl", "get", "tradingbots", "--namespace", self._namespace, "--watch", "--output-watch-events"]
        while not self._ended.is_set():
            self._process = subprocess.Popen(
                [*command, "-o", "json"],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert self._process.stdout is not None
            for line in self._process.stdout:
                with suppress(ValueError):  # the last one may be cut off
                    self._note(json.loads(line))
            self._process.wait()
            self._ended.wait(0.5)

    def _note(self, event: dict[str, Any]) -> None:
        body = event.get("object", {})
        name = body.get("metadata", {}).get("name")
        if event.get("type") not in {"ADDED", "MODIFIED"} or name is None:
            return
        known = self.seen[name]
        version = body["metadata"]["resourceVersion"]
        # After a new start of the watch the same state is told again, and it may be an old one.
        if not known or known[-1].body["metadata"]["resourceVersion"] != version:
            body["metadata"].pop("managedFields", None)
            known.append(Seen(now_ms(), body))

    def end(self) -> None:
        """No more."""
        self._ended.set()
        if self._process is not None:
            self._process.kill()


@dataclass
class Boot:
    """One run of a bot's container, by its log."""

    first: int = 0
    last: int = 0
    connected: int | None = None
    """Since when it has its books and orders."""


@dataclass
class BotLog:
    """What a bot's processes logged."""

    boots: list[Boot] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    """Of what was sent, by the client id of each order."""
    unknown: dict[str, list[list[float]]] = field(default_factory=dict)
    """From when to when nobody knew what became of a request."""
    trades: int = 0


@dataclass
class _File:
    stream: IO[bytes]
    log: BotLog
    boot: Boot
    rest: bytes = b""
    line: str = ""


class BotLogs:
    """Reads the logs as the container runtime writes them; a file that is open stays readable once it is removed."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self.of: defaultdict[str, BotLog] = defaultdict(BotLog)
        self._folder, self._namespace = folder, namespace
        self._files: dict[int, _File] = {}

    def read(self) -> None:
        """What is new."""
        for path in sorted(self._folder.glob(f"{self._namespace}_*/bot/*.log"), key=lambda path: path.name):
            with suppress(OSError):
                inode = path.stat().st_ino
                if inode not in self._files:
                    log = self.of[path.parts[-3].split("_")[1]]
                    boot = Boot()
                    log.boots.append(boot)
                    self._files[inode] = _File(path.open("rb"), log, boot)
        for file in self._files.values():
            *lines, file.rest = (file.rest + file.stream.read()).split(b"\n")
            for line in lines:
                self._take(file, line.decode(errors="replace"))

    def _take(self, file: _File, line: str) -> None:
        stamp, _, rest = line.partition(" ")
        _, _, rest = rest.partition(" ")
        flag, _, text = rest.partition(" ")
        file.line += text
        if flag == "P":
            return
        whole, file.line = file.line, ""
        at = round(datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00").timestamp() * 1000)
        boot, log = file.boot, file.log
        boot.first, boot.last = boot.first or at, at
        if not whole.startswith("{"):
            return
        with suppress(ValueError):
            told = json.loads(whole)
            what = told.get("event")
            if what == "connected" and boot.connected is None:
                boot.connected = at
            elif told.get("logger") == "tradingbot.audit":
                self._audit(log, what, told, at)

    @staticmethod
    def _audit(log: BotLog, what: str, told: dict[str, Any], at: int) -> None:
        if what == "send":
            # An entry goes back to a signal, too.
            good = told.get("reason") and (told["kind"] != "Entry" or told.get("signal_id"))
            log.reasons |= dict.fromkeys(told["client_ids"] if good else (), told["reason"])
        elif what == "outcome":
            spans = log.unknown.setdefault(told["client_id"], [])
            if spans and spans[-1][1] == float("inf"):
                spans[-1][1] = at
            if told["state"] == "Unknown":
                spans.append([at, float("inf")])
        elif what == "trade":
            log.trades += 1


@dataclass(frozen=True)
class Sample:
    """What a process used; `cpu` are seconds since it began."""

    at: float
    mib: float
    files: int
    cpu: float


class Processes:
    """The processes in a cluster's pods, by the pod's name and their own start."""

    def __init__(self, cgroup: str) -> None:
        """`cgroup` is in the path of the control group of each of them."""
        self._cgroup = cgroup
        self.samples: defaultdict[tuple[str, int], list[Sample]] = defaultdict(list)

    def find(self) -> dict[str, list[int]]:
        """The process ids by pod, without the one that keeps the pod."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, StopIteration):
                if self._cgroup not in (folder / "cgroup").read_text():
                    continue
                variables = (folder / "environ").read_bytes().split(b"\0")
                pod = next(one for one in variables if one.startswith(b"HOSTNAME="))
                if b"python" in (folder / "cmdline").read_bytes().split(b"\0")[0]:
                    found[pod.removeprefix(b"HOSTNAME=").decode()].append(int(folder.name))
        return found

    def sample(self) -> None:
        """Of each that is there."""
        for pod, ids in self.find().items():
            for pid in ids:
                with suppress(OSError):
                    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                    files = len(os.listdir(f"/proc/{pid}/fd"))
                    self.samples[pod, int(fields[19])].append(
                        Sample(
                            time.monotonic(),
                            int(fields[21]) * _PAGE / 2**20,
                            files,
                            (int(fields[11]) + int(fields[12])) / _TICKS,
                        )
                    )


class Looker(threading.Thread):
    """Reads logs and samples processes beside what is done."""

    def __init__(self, logs: BotLogs, processes: Processes) -> None:
        super().__init__(daemon=True)
        self.lock = threading.Lock()
        self._logs, self._processes = logs, processes
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `end`."""
        sampled = 0.0
        while not self._ended.wait(LOOK_SECONDS):
            self.look()
            if time.monotonic() - sampled > SAMPLE_SECONDS:
                sampled = time.monotonic()
                self._processes.sample()

    def look(self) -> None:
        """Reads the logs now."""
        with self.lock:
            self._logs.read()

    def end(self) -> None:
        """No more."""
        self._ended.set()
