"""One TradingBot's whole life through the fault proxy, with a real bot on a real paper exchange, and what must hold.

A fault spoils the k-th write, or the k-th watch event, that the operator makes or sees after a step began. A step ends
in the undisturbed state, so a case may have a fault in every step, and each is a fault of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from local_kubernetes.local import LocalCluster

from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange
from support.fault_proxy import Fault, FaultKind, FaultProxy, WatchFault, WatchFaultKind
from support.kube import BOTS, LEASES, Json, Kube, KubeError
from support.kubelet_processes import KubeletProcesses, node_name
from support.operator_process import OperatorProcess, make_authority
from support.waiting import until
from tradingbot.recovery.fence import Purpose, parse
from tradingbot_api import names
from tradingbot_operator.cluster import Access

SYMBOL: Final = "BTCUSDT"
NAME: Final = "btcusdt"
KEYS: Final = "binance"
DUST: Final = Decimal(10)
"""Value in the quote asset below which nothing can be sold, and so nothing be protected."""
QUIET_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 10.0
"""Within which a refused write is tried again, unless it is no longer needed."""
PRICE_SECONDS: Final = 5.0
"""A price only tells dust from a position."""
UNPROTECTED_SECONDS: Final = 12.0
"""The spec's protection.deadlineSeconds and a slow machine."""
PATIENCE: Final = 180.0
"""For a waypoint; an operator starts anew in three seconds, and a stalled bot is tried again within thirty, but
machines are slow at times."""
BLIND_PATIENCE: Final = 240.0
"""Where a watch is spoiled: the look at everything comes each 60 s, a silent watch ends after 70."""

STEPS: Final = ("create", "configure", "safe-mode", "release", "crash", "update", "suspend", "resume", "delete")


@dataclass(frozen=True)
class StepFault:
    """A fault; `at` counts from a step's beginning, from 1."""

    kind: FaultKind | WatchFaultKind
    at: int
    step: str = ""
    """Only in this step; empty: in every one."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.at}" + (f"@{self.step}" if self.step else "")

    @classmethod
    def parse(cls, text: str) -> StepFault:
        """From its name."""
        rest, _, step = text.partition("@")
        kind, _, at = rest.partition(":")
        kinds: dict[str, FaultKind | WatchFaultKind] = {item.value: item for item in (*FaultKind, *WatchFaultKind)}
        return cls(kinds[kind], int(at), step)


@dataclass(frozen=True)
class Case:
    """The faults of one life, at most one in each step; none: undisturbed."""

    faults: tuple[StepFault, ...] = ()

    def __str__(self) -> str:
        return "+".join(map(str, self.faults)) or "undisturbed"

    @classmethod
    def parse(cls, text: str) -> Case:
        """From its name, as a failure prints it."""
        return cls(tuple(StepFault.parse(item) for item in text.split("+")))

    def fault_of(self, step: str) -> StepFault | None:
        """The fault of a step."""
        return next((fault for fault in self.faults if fault.step in {"", step}), None)


@dataclass
class Outcome:
    """What a run of the life showed."""

    case: Case
    seconds: float = 0.0
    fired: list[str] = field(default_factory=list)
    """The steps in which the fault came."""
    entries: int = 0
    violations: list[str] = field(default_factory=list)
    waypoints: dict[str, Json] = field(default_factory=dict)
    """The masked state at each step's end."""
    writes: dict[str, int] = field(default_factory=dict)
    """Writes of the operator in each step."""
    events: dict[str, int] = field(default_factory=dict)
    """Watch events in each step."""
    times: dict[str, float] = field(default_factory=dict)
    """Seconds of each step."""
    dump: str = ""


# --- the world that cases share ---


@dataclass
class World:
    """A cluster without nodes, a paper exchange and a kubelet, for any number of cases one after another or at once."""

    cluster: LocalCluster
    kube: Kube
    access: Access
    exchange: PaperExchange
    kubelet: KubeletProcesses
    folder: Path


@asynccontextmanager
async def world(cluster: LocalCluster, folder: Path) -> AsyncIterator[World]:
    """Starts what cases share."""
    kubeconfig = cluster.kubeconfig()
    kube = await Kube.of(kubeconfig)
    kubelet = KubeletProcesses(kube, node_name("campaign"), folder / "pods")
    # The bots of all lives have one address here; what limits a bot there is not what a life tries.
    async with spawn_paper_exchange(folder / "exchange", symbols=SYMBOL, seed=7, weight_per_minute=60_000) as exchange:
        await kubelet.start()
        try:
            yield World(cluster, kube, await Access.load(str(kubeconfig)), exchange, kubelet, folder)
        finally:
            await kubelet.stop()
            await kube.close()


# --- what the exchange says ---


def eager_spec(exchange: PaperExchange, kubelet: KubeletProcesses, **more: Any) -> Json:
    """The spec of a bot that enters at the first crossing; its keys are in the Secret `KEYS`."""
    return {
        "symbol": SYMBOL,
        "exchange": {
            "environment": "Paper",
            "baseURL": exchange.base_url,
            "credentialsSecretRef": {"name": KEYS},
        },
        "strategy": {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 1, "slow": 2}},
        "capital": "1000",
        "entry": {"maxPerMinute": 60, "maxSlippageRatio": "0.01", "maxSpreadRatio": "0.01"},
        "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "500", "cooldownSeconds": 0},
        "pod": kubelet.shape(),
        **more,
    }


def volume_for(namespace: str) -> Json:
    """A volume that only the bot's claim in a namespace binds.

    Never mounted: the kubelet that tests play keeps volumes in a folder of its own.
    """
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": namespace},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "claimRef": {"namespace": namespace, "name": names.volume_claim_name(NAME)},
            "hostPath": {"path": "/nowhere"},
        },
    }


ORDERS_EVERY: Final = 2.0
"""Between two looks at all orders: each weighs 20 of the 6000 a minute of an address."""


async def all_orders(exchange: PaperExchange, account: TestAccount) -> list[Json]:
    """Every order of the account, from the exchange's own records, by the exchange's time."""
    query = urlencode({"symbol": SYMBOL, "limit": 1000, "timestamp": int(time.time() * 1000), "recvWindow": 5000})
    signature = hmac.new(account.secret_key.encode(), query.encode(), hashlib.sha256).hexdigest()
    url = f"{exchange.base_url}/api/v3/allOrders?{query}&signature={signature}"
    # From an address of its own: what is looked at here must not use up the bots' request weight.
    own = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with (
        aiohttp.ClientSession(connector=own) as session,
        session.get(url, headers={"X-MBX-APIKEY": account.api_key}) as answer,
    ):
        orders = await answer.json()
        assert answer.status == 200, orders
    return sorted(orders, key=lambda order: (order["time"], order["orderId"]))


def entries(orders: list[Json]) -> list[tuple[int, int, str]]:
    """Time, incarnation and client id of every entry."""
    found = []
    for order in orders:
        name = parse(order["clientOrderId"])
        if name is not None and name.purpose is Purpose.ENTRY:
            found.append((order["time"], name.incarnation, order["clientOrderId"]))
    return found


class Watchman:
    """Looks at the account several times a second: a position must not be without its stop for long."""

    def __init__(self, exchange: PaperExchange, account: TestAccount, step: Callable[[], str]) -> None:
        self.worst = 0.0
        self.worst_step = ""
        """The step in which that was."""
        self.held = Decimal(0)
        """Value of the position in the quote asset."""
        self._exchange = exchange
        self._account = account
        self._step = step
        self._since: float | None = None

    async def run(self) -> None:
        """Without end."""
        loop = asyncio.get_running_loop()
        price, asked = Decimal(0), -PRICE_SECONDS
        while True:
            if loop.time() - asked > PRICE_SECONDS:
                price, asked = await self._exchange.last_price(SYMBOL), loop.time()
            account = await self._exchange.account(self._account.uid)
            balance = account["balances"].get("BTC", {"free": "0", "locked": "0"})
            held = Decimal(balance["free"]) + Decimal(balance["locked"])
            stops = [
                Decimal(order["origQty"]) - Decimal(order["executedQty"])
                for order in account["openOrders"]
                if order["side"] == "SELL" and order["type"].startswith("STOP_LOSS")
            ]
            self.held = held * price
            if (held - sum(stops, Decimal(0))) * price < DUST:
                self._since = None
            elif self._since is None:
                self._since = loop.time()
            elif loop.time() - self._since > self.worst:
                self.worst, self.worst_step = loop.time() - self._since, self._step()
            await asyncio.sleep(0.2)


# --- masked states ---

_MASKED: Final = frozenset(
    {
        "uid", "resourceVersion", "generation", "observedGeneration", "creationTimestamp", "managedFields", "revision",
        "incarnation", "accountUID", "epoch", "baseURL", "nodeName", "nodeSelector", "kubernetes.io/hostname",
        "volumeName", "podIP", "podIPs", "hostIP", "hostIPs", "renewTime", "acquireTime", "leaseTransitions",
        "tradingbot.dev/boot-id", "tradingbot.dev/incarnation",
        # A hash of what has a node's name in it.
        "tradingbot.dev/pod-template", "message",
    }
)  # fmt: skip
_STATUS: Final = ("phase", "podName")


def masked(value: Any, words: dict[str, str]) -> Any:
    """Without what differs between two undisturbed lives: times, UIDs, versions, counters, names made of them."""
    if isinstance(value, dict):
        return {
            masked(key, words): masked(item, words)
            for key, item in value.items()
            if key not in _MASKED and not key.endswith("Time")
        }
    if isinstance(value, list):
        return [masked(item, words) for item in value]
    if isinstance(value, str):
        if value.startswith("{"):
            # The configuration in the ConfigMap.
            with suppress(ValueError):
                return masked(json.loads(value), words)
        for word, mask in words.items():
            value = value.replace(word, mask)
    return value


def _conditions(status: Json, flat: bool) -> list[str]:
    found = [f"{item['type']}={item['status']} {item['reason']}" for item in status.get("conditions", [])]
    return sorted(found) if flat else sorted(item for item in found if not item.startswith("Protected"))


# --- one life ---


class Life:
    """One case: a namespace with a proxy and an operator, and the TradingBot's life in it."""

    def __init__(self, shared: World, proxy: FaultProxy, account: TestAccount, case: Case) -> None:
        self.world = shared
        self.proxy = proxy
        self.account = account
        self.case = case
        self.namespace = f"life-{uuid.uuid4().hex[:8]}"
        self.outcome = Outcome(case)
        self.folder = shared.folder / self.namespace
        self.operator: OperatorProcess | None = None
        self.log: list[Json] = []
        self.uid = ""
        blind = any(isinstance(fault.kind, WatchFaultKind) for fault in case.faults)
        self.patience = BLIND_PATIENCE if blind else PATIENCE
        self.safe: list[tuple[float, float]] = []
        """Times of the acknowledgement and of the release."""
        self.step = ""
        self._watchman = Watchman(shared.exchange, account, lambda: self.step)

    # --- the operator ---

    async def _start_operator(self) -> None:
        self.operator = await OperatorProcess.start(
            self.folder / "kubeconfig", self.folder / "authority", self.namespace, "--identity", "operator"
        )

    async def _supervise(self) -> None:
        """Starts the operator again as soon as it ended, as a kubelet does; why it ended is in its log."""
        while True:
            await self._start_operator()
            assert self.operator is not None
            await self.operator.process.wait()
            self.log += [*self.operator.log, {"event": "--- ended ---"}]
            self.operator = None

    async def _kill(self) -> None:
        """What the proxy calls."""
        assert self.operator is not None
        self.operator.process.kill()
        await self.operator.process.wait()

    def _logged(self) -> list[Json]:
        return self.log + (self.operator.log if self.operator is not None else [])

    # --- calls ---

    def path(self, resource: str, name: str = "") -> str:
        """Of an object in the namespace."""
        prefix = {
            "tradingbots": BOTS.format(self.namespace),
            "leases": LEASES.format(self.namespace),
        }.get(resource, f"/api/v1/namespaces/{self.namespace}/{resource}")
        return f"{prefix}/{name}" if name else prefix

    async def bot(self) -> Json:
        """The TradingBot, or nothing."""
        return await self.world.kube.get(self.path("tradingbots", NAME)) or {}

    async def patch(self, spec: Json) -> None:
        """What a user changes."""
        await self.world.kube.merge(self.path("tradingbots", NAME), {"spec": spec})

    async def reaches(self, what: str, test: Callable[[Json], bool]) -> Json:
        """Waits for a status that was written of the newest spec."""
        latest: Json = {}

        async def probe() -> bool:
            nonlocal latest
            latest = await self.bot()
            status = latest.get("status", {})
            return bool(
                status and status.get("observedGeneration") == latest["metadata"]["generation"] and test(status)
            )

        try:
            await until(what, probe, self.patience)
        except AssertionError as error:
            raise AssertionError(f"{error}; the status is {json.dumps(latest.get('status', {}))}") from error
        return latest

    # --- states ---

    async def state(self, flat: bool) -> Json:
        """Everything in the namespace, masked. `flat`: also what follows from holding no position."""
        words = {self.namespace: "NAMESPACE"}
        if self.uid:
            words |= {self.uid: "UID", self.uid[:8]: "UID8"}
        for lease in await self.world.kube.items(self.path("leases")):
            if lease["metadata"]["name"].startswith("claim-"):
                words[lease["metadata"]["name"]] = "CLAIM"
        found: Json = {}
        for resource in ("tradingbots", "pods", "configmaps", "secrets", "persistentvolumeclaims", "leases"):
            for raw in await self.world.kube.items(self.path(resource)):
                name = raw["metadata"]["name"]
                if name in {"kube-root-ca.crt", KEYS} or name.startswith(names.FIELD_MANAGER):
                    continue
                status = raw.pop("status", {})
                if resource == "secrets":
                    raw.pop("data", None)
                if resource == "persistentvolumeclaims":
                    # The binder's and the scheduler's notes.
                    raw["metadata"].pop("annotations", None)
                if resource == "tradingbots":
                    raw["status"] = {key: status.get(key) for key in _STATUS}
                    raw["conditions"] = _conditions(status, flat)
                    raw["safeMode"] = {
                        key: status.get("safeMode", {}).get(key) for key in ("level", "engaged", "acknowledged")
                    }
                found[masked(f"{resource}/{name}", words)] = masked(raw, words)
        return found

    async def waypoint(self, step: str, expected: dict[str, Json] | None, flat: bool = False) -> None:
        """Notes the masked state; where the undisturbed one is given, waits until it is the same."""
        if expected is None:
            self.outcome.waypoints[step] = await self.state(flat)
            return

        async def same() -> bool:
            self.outcome.waypoints[step] = await self.state(flat)
            return self.outcome.waypoints[step] == expected[step]

        try:
            await until("the undisturbed state", same, self.patience)
        except AssertionError:
            differences = _differences(expected[step], self.outcome.waypoints[step])
            raise AssertionError(f"after {step} the state is not the undisturbed one: {differences}") from None

    # --- the life ---

    async def run(self, expected: dict[str, Json] | None) -> None:
        """All steps; AssertionError where a promise is broken."""
        steps: dict[str, Callable[[], Awaitable[bool]]] = {
            "create": self._create, "configure": self._configure, "safe-mode": self._safe_mode,
            "release": self._release, "crash": self._crash, "update": self._update, "suspend": self._suspend,
            "resume": self._resume, "delete": self._delete,
        }  # fmt: skip
        for step, act in steps.items():
            if step in self._absent():
                continue
            writes, events, begun = len(self.proxy.mutations), self.proxy.events, time.monotonic()
            self._arm(step, writes, events)
            self.step = step
            try:
                flat = await act()
                await self.waypoint(step, expected, flat)
            finally:
                if self.proxy.fired.is_set():
                    self.outcome.fired.append(step)
                self.outcome.writes[step] = len(self.proxy.mutations) - writes
                self.outcome.events[step] = self.proxy.events - events
                self.outcome.times[step] = round(time.monotonic() - begun, 1)

    def _absent(self) -> set[str]:
        crd = json.loads(self.world.cluster.kubectl("get", "crd", f"{names.PLURAL}.{names.GROUP}", "-o", "json"))
        spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        absent = set() if "updateStrategy" in spec else {"update"}
        return absent | (set() if "suspend" in spec else {"suspend", "resume"})

    def _arm(self, step: str, writes: int, events: int) -> None:
        self.proxy.plan = self.proxy.watch_plan = self.proxy.shut = None
        self.proxy.fired.clear()
        fault = self.case.fault_of(step)
        if fault is None:
            return
        if isinstance(fault.kind, WatchFaultKind):
            self.proxy.watch_plan = WatchFault(fault.kind, events + fault.at)
        else:
            self.proxy.plan = Fault(fault.kind, writes + fault.at)

    async def _create(self) -> bool:
        keys = {"apiKey": self.account.api_key, "apiSecret": self.account.secret_key}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS}, "stringData": keys}
        await self.world.kube.call("POST", self.path("secrets"), secret)
        body = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": NAME},
            "spec": eager_spec(
                self.world.exchange,
                self.world.kubelet,
                deletionPolicy="ClosePosition",
                deletionDeadlineSeconds=60,
                storage={"size": "1Gi", "reclaimPolicy": "Retain"},
            ),
        }
        made = await self.world.kube.call("POST", self.path("tradingbots"), body)
        self.uid = made["metadata"]["uid"]
        await self.reaches("phase Trading", _trading)
        await self._enters()
        return False

    async def _enters(self) -> None:
        """Waits for one more entry: what is promised of entries says nothing of a bot that makes none."""
        before = await self._bought()

        async def more() -> bool:
            return bool(await self._bought() - before)

        await until("an entry", more, self.patience)

    async def _bought(self) -> set[int]:
        """Ids of the trades that bought; asked for where it costs no request weight, which bots need."""
        account = await self.world.exchange.account(self.account.uid)
        return {trade["id"] for trade in account["trades"] if trade["isBuyer"]}

    async def _configure(self) -> bool:
        await self.patch({"risk": {"maxPositionValue": "400"}})
        await self.reaches("the configuration to be in force", _trading)
        return False

    async def _safe_mode(self) -> bool:
        await self.patch({"safeMode": True})
        await self.reaches("the acknowledgement", lambda status: _is(status, "SafeModeAcknowledged", "True"))
        begun = time.time()
        # The strategy's own exits go on; flat and with nothing to tell, nothing is written.
        await self.reaches("the exit", lambda status: _is(status, "Protected", "True", "Flat"))
        await self.quiet("in safe mode", figures=1)
        self.safe.append((begun, time.time()))
        return True

    async def _release(self) -> bool:
        await self.patch({"safeMode": None})
        await self.reaches("phase Trading", _trading)
        await self._enters()
        return False

    async def _crash(self) -> bool:
        before = (await self.bot())["status"]["incarnation"]
        await self.world.kubelet.crash(self.namespace, NAME)
        await self.reaches(
            "trading again", lambda status: _trading(status) and bool(status.get("incarnation", 0) > before)
        )
        await self._enters()
        return False

    async def _update(self) -> bool:
        before = (await self.world.kube.call("GET", self.path("pods", NAME)))["metadata"]["uid"]
        await self.patch({"updateStrategy": "Immediate", "pod": {"annotations": {"example.org/changed": "true"}}})

        async def replaced() -> bool:
            pod = await self.world.kube.get(self.path("pods", NAME))
            return pod is not None and pod["metadata"]["uid"] != before

        await until("another pod", replaced, self.patience)
        await self.reaches("phase Trading", lambda status: _trading(status) and _is(status, "UpToDate", "True"))
        return False

    async def _suspend(self) -> bool:
        await self.patch({"suspend": True})
        await self.reaches("phase Suspended", lambda status: status.get("phase") == "Suspended")

        async def gone() -> bool:
            return await self.world.kube.get(self.path("pods", NAME)) is None

        await until("the pod to go", gone, self.patience)
        await self.quiet("while suspended")
        return False

    async def _resume(self) -> bool:
        await self.patch({"suspend": None})
        await self.reaches("phase Trading", _trading)
        await self._enters()
        return False

    async def _delete(self) -> bool:
        await self.world.kube.call("DELETE", self.path("tradingbots", NAME))

        async def gone() -> bool:
            left = await self.state(False)
            return set(left) <= {f"persistentvolumeclaims/{names.volume_claim_name(NAME)}"}

        await until("everything but the volume to go", gone, self.patience + 60)
        await self.quiet("after the deletion")
        return True

    async def quiet(self, when: str, figures: int = 0) -> None:
        """
        No write takes effect for a while once stable; `figures` writes of a status are their 60 seconds' due.

        What the API server refuses with a conflict changes nothing; it is tried again, later each time.
        """
        settled, since = len(self.proxy.mutations), time.monotonic()

        async def still() -> bool:
            nonlocal settled, since
            if settled != len(self.proxy.mutations):
                settled, since = len(self.proxy.mutations), time.monotonic()
            refused = self.proxy.mutations[-1].status == 409
            return time.monotonic() - since > (RETRY_SECONDS if refused else QUIET_SECONDS)

        # What is told of the last change may come a moment later; then nothing more.
        await asyncio.sleep(QUIET_SECONDS / 2)
        await until(f"an end of the writes {when}", still, self.patience)
        settled = len(self.proxy.mutations)
        await asyncio.sleep(QUIET_SECONDS)
        more = [item for item in self.proxy.mutations[settled:] if item.status != 409]
        if len(more) > figures or any("status" not in item.what for item in more):
            raise AssertionError(f"{when} there are still writes: {'; '.join(map(str, more))}")

    # --- what the exchange's records must say at the end ---

    async def audit(self) -> None:
        """Adds to the violations what the exchange's own records and the watchman tell."""
        violations = self.outcome.violations
        orders = await all_orders(self.world.exchange, self.account)
        made = entries(orders)
        self.outcome.entries = len(made)
        for (_, earlier, first), (_, later, second) in itertools.pairwise(made):
            if later < earlier:
                violations.append(f"two traders: {second} came after {first}")
        for begun, ended in self.safe:
            violations += [
                f"an entry in acknowledged safe mode: {name} at {moment}, acknowledged at {begun:.3f}"
                for moment, _, name in made
                if begun < moment / 1000 < ended
            ]
        if self._watchman.worst > UNPROTECTED_SECONDS:
            violations.append(
                f"a position was without its stop for {self._watchman.worst:.1f} s in {self._watchman.worst_step}"
            )
        if "delete" in self.outcome.waypoints:
            await self._audit_rest()
        # An error of the server in a watch ends kopf, and so the operator, which says why; the next one goes on.
        refused = any(fault.kind is WatchFaultKind.ERROR for fault in self.case.faults)
        for entry in self._logged():
            # On a machine that stands still for seconds an operator rightly ends itself; the next one goes on.
            lost = str(entry.get("event", "")).startswith("the Lease is lost")
            if refused and "Error in the watch-stream" in json.dumps(entry):
                continue
            if "exception" in entry or (entry.get("level") in {"error", "critical", "raw"} and not lost):
                violations.append(f"the operator's log has {json.dumps(entry)[:1500]}")

    async def _audit_rest(self) -> None:
        account = await self.world.exchange.account(self.account.uid)
        told = {item["reason"] for item in await self.world.kube.items(self.path("events"))}
        if told & {"PositionNotClosed", "DeletionIncomplete"}:
            self.outcome.violations.append(f"the deletion left something: {sorted(told)}")
        if account["openOrders"]:
            self.outcome.violations.append(f"left open and not reported: {account['openOrders']}")
        price = await self.world.exchange.last_price(SYMBOL)
        balance = account["balances"].get("BTC", {"free": "0", "locked": "0"})
        if (Decimal(balance["free"]) + Decimal(balance["locked"])) * price > DUST:
            self.outcome.violations.append(f"a position is left and not reported: {balance}")

    async def dump(self) -> str:
        """What a person needs to see why."""
        parts = ["--- writes", *map(str, self.proxy.mutations), "--- operator"]
        parts += [json.dumps(entry)[:600] for entry in self._logged()[-40:]]
        parts += ["--- status", json.dumps((await self.bot()).get("status", {}), indent=1)]
        events = await self.world.kube.items(self.path("events"))
        parts += ["--- events", *(f"{item['reason']}: {item['message']}" for item in events)]
        with suppress(IndexError):
            parts += ["--- bot", *self.world.kubelet.container(self.namespace, NAME).log[-25:]]
        parts += ["--- kubelet", *self.world.kubelet.trouble[-5:]]
        return "\n".join(parts)

    # --- around it ---

    @asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        """The namespace, the volume, the operator and the watchman."""
        kube = self.world.kube
        metadata = {"name": self.namespace}
        await kube.call("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        await kube.call("POST", "/api/v1/persistentvolumes", volume_for(self.namespace))
        make_authority(self.folder / "authority")
        self.proxy.kubeconfig(self.folder / "kubeconfig")
        self.proxy.kill = self._kill
        tasks = [asyncio.create_task(self._supervise()), asyncio.create_task(self._watchman.run())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for error in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(error, Exception):
                    self.outcome.violations.append(f"what a life needs ended: {error!r}")
            self.proxy.plan = self.proxy.watch_plan = None
            if self.operator is not None:
                await self.operator.stop(signal.SIGKILL)
            with suppress(KubeError):
                await kube.merge(self.path("tradingbots", NAME), {"metadata": {"finalizers": None}})
            await kube.call("DELETE", f"/api/v1/namespaces/{self.namespace}")
            await kube.call("DELETE", f"/api/v1/persistentvolumes/{self.namespace}")


def _is(status: Json, kind: str, wanted: str, reason: str | None = None) -> bool:
    return any(
        item["type"] == kind and item["status"] == wanted and reason in {None, item["reason"]}
        for item in status.get("conditions", [])
    )


def _trading(status: Json) -> bool:
    return status.get("phase") == "Trading" and _is(status, "Ready", "True") and _is(status, "ConfigApplied", "True")


def _differences(expected: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted(expected.keys() | found.keys())
        missing = object()
        return [
            line
            for key in keys
            for line in _differences(expected.get(key, missing), found.get(key, missing), f"{path}.{key}")
        ]
    if expected == found:
        return []
    if isinstance(expected, list) and isinstance(found, list):
        return [f"{path}: undisturbed only {[x for x in expected if x not in found]}, "
                f"here only {[x for x in found if x not in expected]}"]  # fmt: skip
    shown = [("absent" if type(value) is object else json.dumps(value)[:300]) for value in (expected, found)]
    return [f"{path}: undisturbed {shown[0]}, here {shown[1]}"]


async def live(shared: World, case: Case, expected: dict[str, Json] | None) -> Outcome:
    """One life with a fault, or an undisturbed one; never raises for a broken promise, the outcome names it."""
    begun = time.monotonic()
    account = await shared.exchange.create_account(USDT="10000")
    async with FaultProxy(shared.access) as proxy:
        life = Life(shared, proxy, account, case)
        async with life.alive():
            try:
                await life.run(expected)
            except AssertionError as error:
                life.outcome.violations.append(f"{life.step}: {error}")
            except (aiohttp.ClientError, KubeError, TimeoutError) as error:
                life.outcome.violations.append(f"{life.step}: the test itself was refused: {error!r}")
            await life.audit()
            life.outcome.seconds = time.monotonic() - begun
            if life.outcome.violations:
                life.outcome.dump = await life.dump()
    return life.outcome
