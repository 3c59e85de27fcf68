"""The campaign of chaos: fifty bots in real pods, harmed step by step by a schedule from a seed.

After each step the three promises are checked from the exchange's own store: one trader, safe means safe, the books
balance; besides no position without a stop beyond its deadline, and no order without a reason.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

import yaml
from book import ROOT, Book
from seeds import Row, run_cases, show_failed

sys.path.append(str(ROOT / "dev/demo"))

from chaos_watch import BotLogs, Looker, Processes, Seen, Statuses, now_ms
from demo import OPERATOR_NAMESPACE, Demo, DemoError, Shell
from local_kubernetes.local import LocalCluster

from campaigns.chaos_oracles import Log, Span, bare, charged, figures, overtaken, told_right, unexplained, unsafe
from campaigns.chaos_plan import Blow, Harm, blows
from paper_exchange.core.reports import my_trade
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.history import History
from performance.measure_bot import slope
from support.demo_bots import manifest
from support.exchange_books import Fill, stored, twice
from tradingbot.app import STORE_FILE
from tradingbot.gateway.binance import ORDER_TIMEOUT
from tradingbot_api import names

T = TypeVar("T")
SEED: Final = int(os.environ.get("CHAOS_SEED", "1"))
BOTS: Final = int(os.environ.get("CHAOS_BOTS", "50"))
WITHOUT: Final = frozenset(Harm(harm) for harm in os.environ.get("CHAOS_WITHOUT", "").split(",") if harm)
"""Harms that are left out, so that operators live for long enough to tell how they grow."""
STEPS: Final = 240
"""More than an hour has: MINUTES ends a run."""
NAMESPACE: Final = "chaos"
WITHOUT_VOLUME: Final = 5
"""Every so manieth bot: with its pod its store is gone."""
TOGETHER: Final = 5
"""Every so manieth bot trades on one account with the others of them."""
AT_ONE_ADDRESS: Final = 10
"""So many share an address's limits: with more of them candles of a second, of which many have no trade and are asked
for, would take more weight than an address has."""
SPEED: Final = 0.2
"""Of the market: fifty symbols in real time would need a core of their own."""
DEADLINE_SECONDS: Final = 10
SLACK_SECONDS: Final = 1.0
"""As in other lives: what a protection may take beyond its deadline."""
WRONG_SECONDS: Final = 15.0
"""How old a status may be that tells its books as right: 2 s between writes, what a loaded machine takes, and the
8 s for which books may be wrong where nothing disturbs them."""
MISSED_SECONDS: Final = 90.0
"""The same after what makes a bot miss events: found within a minute, and told."""
RECOVER_SECONDS: Final = 300.0
"""After a step, until every bot trades again: an account is compared after three rounds of a minute."""
SAFE_SECONDS: Final = 120.0
"""Until safe mode is acknowledged, whatever else happens."""
CALM_SECONDS: Final = 5.0
OPEN_SECONDS: Final = 600.0
"""Until the exchange has made the history of fifty symbols: 36 s of a core."""
INFINITY: Final = float("inf")
LIMITS: Final = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "192Mi"}}
AT_ONCE: Final = 5
"""Bots that start at the same time."""
STORES: Final = 6
"""Stores that are compared after each step, of these bots and then of others."""
STORE_ATTEMPTS: Final = 6
_TELLING: Final = ("Ready", "BalanceSynced", "TradingAllowed")
LEAK_SECONDS: Final = 1200.0
"""A process that lived for so long tells how its memory grows."""


def _nat(bot: int) -> dict[str, str]:
    """The node selector of the address behind which a bot is, by its place in the fleet."""
    return {f"nat-{bot // AT_ONE_ADDRESS + 1}": "yes"}


class Fleet:
    """The cluster with operators, exchange and bots; what is done to them, and what is known of it."""

    def __init__(self, cluster: str, folder: Path) -> None:
        self.demo = Demo(Shell({**os.environ, "CLUSTER_NAME": cluster}), "synthetic", NAMESPACE)
        self.cluster = LocalCluster(cluster)
        self.folder = folder
        self.symbols = dict(
            zip(
                [f"c{number:02d}" for number in range(1, BOTS + 1)],
                (s for s in SYMBOLS if s != "BTCUSDC"),
                strict=False,
            )
        )
        self.bots = list(self.symbols)
        self.uids: dict[str, int] = {}
        self.disturbed: defaultdict[str, list[Span]] = defaultdict(list)
        """By bot: from when to when something was done that keeps it, or whoever tells of it, from doing better."""
        self.killed: defaultdict[str, list[int]] = defaultdict(list)
        self.safe: defaultdict[str, list[Span]] = defaultdict(list)
        self.acknowledged: list[float] = []
        """Seconds from the patch to the acknowledgement."""
        self._ends: dict[int, Callable[[], None]] = {}
        self._gap: dict[str, float] = {}
        self._wanted: dict[str, int] = {}
        self._stores: dict[str, Path] = {}
        self.broken: list[str] = []

    # -- its start ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """All up and trading."""
        self.demo.cluster()
        selectors = [_nat(first) for first in range(0, len(self.bots), AT_ONE_ADDRESS)]
        groups = [{"name": next(iter(selector)), "nodeSelector": selector} for selector in selectors]
        labels = [f"{name}={value}" for selector in selectors for name, value in selector.items()]
        self.demo.shell.quiet("kubectl", "label", "node", "--all", "--overwrite", *labels)
        memory, egress = "resources.limits.memory=256Mi", f"egressGroups={json.dumps(groups)}"
        self.demo.install("--set", memory, "--set-json", egress)
        self._open_exchange()
        self._add_bots()
        environment = self.demo.shell.environment
        self.statuses = Statuses(environment, NAMESPACE)
        self.statuses.start()
        root = Path(f"/proc/{self.cluster.network().pid}/root")
        self.logs = BotLogs(root / "var/log/pods", NAMESPACE)
        self.processes = Processes(f"tradingbot-{self.cluster.name}-")
        self.looker = Looker(self.logs, self.processes)
        self.looker.start()
        self.exchange = self._volume("paper-exchange") / "exchange.sqlite"
        self.recover(OPEN_SECONDS)
        print(f"{len(self.bots)} bots trade", flush=True)

    def _open_exchange(self) -> None:
        shell = self.demo.shell
        shell.quiet("kubectl", "config", "set-context", "--current", f"--namespace={NAMESPACE}")
        if shell.quiet("kubectl", "get", "namespace", NAMESPACE, "--ignore-not-found"):
            shell.show("kubectl", "delete", "tradingbots", "--all", "--timeout=180s")
            shell.show("kubectl", "delete", "namespace", NAMESPACE, "--timeout=180s")
        shell.show("kubectl", "create", "namespace", NAMESPACE)
        listed = [one for one in yaml.safe_load_all((ROOT / "examples/paper-exchange.yaml").read_text()) if one]
        for one in listed:
            if one["kind"] == "Deployment":
                (container,) = one["spec"]["template"]["spec"]["containers"]
                kept = [word for word in container["args"] if not word.startswith("--symbols")]
                container["args"] = [*kept, f"--symbols={','.join(self.symbols.values())}", f"--speed={SPEED}"]
                container["resources"]["limits"] = {"memory": "768Mi"}
        self._apply(listed)
        until(self._answers, OPEN_SECONDS, lambda: "the exchange does not answer")

    def _add_bots(self) -> None:
        objects: list[dict[str, Any]] = []
        shared = self.control("create", "accounts", {"deposits": {"USDT": "200000"}})
        for number, (name, symbol) in enumerate(self.symbols.items(), 1):
            account = shared
            if number % TOGETHER:
                account = self.control("create", "accounts", {"deposits": {"USDT": "10000"}})
            self.uids[name] = account["uid"]
            objects.append(
                {
                    "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"keys-{name}"},
                    "stringData": {"apiKey": account["apiKey"], "apiSecret": account["secretKey"]},
                }
            )  # fmt: skip
            bot = manifest(
                name,
                symbol=symbol,
                strategy={"name": "ema-cross", "interval": "1s", "parameters": {"fast": 20, "slow": 50}},
                protection={
                    "stopLossRatio": "0.0015", "takeProfitRatio": "0.0025", "deadlineSeconds": DEADLINE_SECONDS
                },
                risk={
                    "maxPositionValue": "300", "maxDailyLoss": "2000", "maxDrawdownRatio": "0.9", "cooldownSeconds": 5
                },
                pod={"resources": LIMITS, "nodeSelector": _nat(number - 1)},
            )  # fmt: skip
            if number % WITHOUT_VOLUME:
                bot["spec"]["storage"] = {"size": "1Gi", "reclaimPolicy": "Delete"}
            bot["spec"]["exchange"]["credentialsSecretRef"] = {"name": f"keys-{name}"}
            objects.append(bot)
        for first in range(0, len(self.bots), AT_ONCE):
            # All at once would not start on a small machine within the time that the kubelet gives each of them.
            some = self.bots[first : first + AT_ONCE]
            self._apply(objects[2 * first : 2 * (first + AT_ONCE)])
            self.kubectl("wait", "tradingbot", *some, "--for=condition=PodReady", f"--timeout={OPEN_SECONDS:.0f}s")

    def _apply(self, objects: list[dict[str, Any]]) -> None:
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
        self.kubectl("apply", "-f", "-", stdin=listed)

    def _volume(self, claim: str) -> Path:
        volume = self.kubectl("get", "pvc", claim, "-o", "jsonpath={.spec.volumeName}").strip()
        return Path(self.kubectl("get", "pv", volume, "-o", "jsonpath={.spec.local.path}").strip())

    def store(self, bot: str) -> Path | None:
        """Where a bot keeps its orders and fills, where that is a volume."""
        if bot not in self._stores and (self.bots.index(bot) + 1) % WITHOUT_VOLUME:
            self._stores[bot] = self._volume(names.volume_claim_name(bot)) / STORE_FILE
        return self._stores.get(bot)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Asks until the API server answers."""
        return persist(lambda: self.demo.shell.quiet("kubectl", *words, stdin=stdin))

    def control(self, verb: str, path: str, body: Any = None) -> Any:
        """Asks the exchange until it answers."""
        return persist(lambda: self.demo.control(verb, path, body))

    # -- what is done ------------------------------------------------------------------------------------------

    def begin(self, blow: Blow) -> None:
        """The harm begins."""
        bots = [self.bots[number] for number in blow.bots]
        begun = now_ms()
        print(f"  {blow}: {', '.join(bots[:12])}{'...' if len(bots) > 12 else ''}", flush=True)
        match blow.harm:
            case Harm.PODS_KILLED:
                self._kill(bots)
            case Harm.PODS_DELETED:
                self.killed_now(bots)
                self.kubectl("delete", "pod", *bots, "--wait=false")
            case Harm.LEADER_KILLED:
                self._kill([self._leader()])
            case Harm.LEADER_ENDED:
                self.kubectl("delete", "pod", self._leader(), "--namespace", OPERATOR_NAMESPACE, "--wait=false")
            case Harm.OPERATORS_KILLED:
                self._kill([pod for pod in self.processes.find() if pod.startswith("tradingbot-operator-")])
            case Harm.EXCHANGE_KILLED:
                self._kill([pod for pod in self.processes.find() if pod.startswith("paper-exchange-")])
                self._gap[str(blow.harm)] = begun
            case Harm.EXCHANGE_REFUSES:
                self._play({"at": 0, "connections": {"refused": round(blow.lasts)}})
            case Harm.PRICE_GAPS:
                for bot in bots:
                    self._play({"at": 0, "market": {"symbol": self.symbols[bot], "gap": blow.terms["gap"]}})
            case Harm.CALLS_DISTURBED | Harm.EVENTS_DISTURBED:
                fault = {**blow.terms, "accounts": sorted({self.uids[bot] for bot in bots})}
                if fault["kind"] == "clock_skew":
                    fault.pop("accounts")  # nobody signs the question for the time
                made = self.control("create", "faults", fault)
                self._ends[id(blow)] = lambda: self._heal(made["id"])
            case Harm.API_SERVER_KILLED | Harm.ETCD_KILLED:
                program = "kube-apiserver" if blow.harm is Harm.API_SERVER_KILLED else "etcd"
                os.kill(self.cluster.program(program), signal.SIGKILL)
            case Harm.KUBELET_STOPPED:
                kubelet = self.cluster.program("kubelet")
                os.kill(kubelet, signal.SIGSTOP)
                self._ends[id(blow)] = lambda: os.kill(kubelet, signal.SIGCONT)
            case Harm.NETWORK_CUT:
                cut = [pids[0] for bot, pids in self.processes.find().items() if bot in bots and pids]
                for pid in cut:
                    _packets(pid, "-I")
                self._ends[id(blow)] = lambda: [_packets(pid, "-D") for pid in cut] and None
            case Harm.SAFE_MODE:
                self._patch(bots, True)
                self._wanted |= dict.fromkeys(bots, begun)
                self._ends[id(blow)] = lambda: self._release(bots, begun)

    def end(self, blow: Blow, begun: int) -> None:
        """The harm ends."""
        self._ends.pop(id(blow), lambda: None)()
        bots = [self.bots[number] for number in blow.bots]
        ended = now_ms() + round((ORDER_TIMEOUT + 1) * 1000)
        if blow.harm is Harm.EXCHANGE_KILLED:
            until(self._answers, OPEN_SECONDS, lambda: "the exchange did not come back")
            ended = now_ms() + round((ORDER_TIMEOUT + 1) * 1000)
        everybody = {Harm.EXCHANGE_KILLED, Harm.EXCHANGE_REFUSES}
        if blow.harm in everybody or blow.terms.get("kind") == "clock_skew":
            bots = self.bots
        if blow.harm in everybody | {Harm.CALLS_DISTURBED, Harm.EVENTS_DISTURBED, Harm.NETWORK_CUT}:
            # Faults are of accounts, which bots may share.
            accounts = {self.uids[bot] for bot in bots}
            for bot in self.bots:
                if bot in bots or self.uids[bot] in accounts:
                    self.disturbed[bot].append((begun, ended))

    def _answers(self) -> bool:
        with suppress(DemoError, ValueError):
            self.demo.control("get", "faults")
            return True
        return False

    def killed_now(self, pods: Sequence[str]) -> None:
        """Notes who ends by our hand."""
        for pod in pods:
            self.killed[pod].append(now_ms())

    def _kill(self, pods: Sequence[str]) -> None:
        there = self.processes.find()
        self.killed_now(pods)
        for pid in (pid for pod in pods for pid in there.get(pod, ())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _leader(self) -> str:
        path = "jsonpath={.spec.holderIdentity}"
        return self.kubectl(
            "get", "lease", "tradingbot-operator", "--namespace", OPERATOR_NAMESPACE, "-o", path
        ).strip()

    def _play(self, *steps: dict[str, Any]) -> None:
        self.control("create", "scenario", {"description": "Chaos.", "steps": list(steps)})
        time.sleep(0.5)  # the next scenario would take the place of this one

    def _heal(self, fault: int) -> None:
        with suppress(DemoError):  # it may be over, or the exchange begun anew
            self.demo.control("delete", f"faults/{fault}")

    def _patch(self, bots: Sequence[str], safe: bool) -> None:
        change = json.dumps({"spec": {"safeMode": True if safe else None}})
        self.kubectl("patch", "tradingbot", *bots, "--type", "merge", "-p", change)

    def acknowledgement(self, bot: str, begun: int) -> int | None:
        """When safe mode was seen to be acknowledged, of a patch at `begun`."""
        return next((seen.at for seen in self.statuses.seen[bot] if seen.at >= begun and seen.safe), None)

    def _release(self, bots: Sequence[str], begun: int) -> None:
        missing = lambda: [bot for bot in bots if self.acknowledgement(bot, begun) is None]  # noqa: E731
        with suppress(ChaosError):
            until(lambda: not missing(), SAFE_SECONDS, lambda: "")
        self.broken += [f"{bot}: safe mode not acknowledged in {SAFE_SECONDS} s" for bot in missing()]
        ended = now_ms()
        self._patch(bots, False)
        for bot in bots:
            self._wanted.pop(bot, None)
            if (at := self.acknowledgement(bot, begun)) is not None and at < ended:
                self.safe[bot].append((at, ended))
                self.acknowledged.append((at - begun) / 1000)

    # -- what is seen ------------------------------------------------------------------------------------------

    def standing(self, bot: str) -> Seen | None:
        """The last that was told of a bot."""
        return self.statuses.seen[bot][-1] if self.statuses.seen[bot] else None

    def recover(self, seconds: float) -> float:
        """Seconds until each bot was told to trade since now; ChaosError where one was not in time."""
        since, idle = now_ms(), set(self.bots)

        def back() -> bool:
            for bot in list(idle):
                seen = self.statuses.seen[bot]
                if seen and (seen[-1].trades or any(one.trades for one in seen if one.at > since)):
                    idle.discard(bot)
            return not idle

        def why() -> str:
            told = {bot: (seen := self.standing(bot)) and [seen.condition(kind) for kind in _TELLING] for bot in idle}
            return f"not trading again: {told}"

        return until(back, seconds, why)

    def log(self, history: History, bot: str) -> Log:
        """What the exchange has of a bot."""
        uid, symbol = self.uids[bot], self.symbols[bot]
        unlimited: dict[str, Any] = {"limit": -1, "from_id": None, "start": None, "end": None}
        lists = {one.list_id: one for one in history.lists(uid, **unlimited) if one.symbol == symbol}
        orders = history.orders(uid, symbol, **unlimited)
        return Log(SYMBOLS[symbol].base, orders, lists, history.trades(uid, symbol, limit=-1))

    def down(self, bot: str) -> list[Span]:
        """From when to when no process of a bot knew its orders, by its log, and by when it was killed."""
        spans: list[Span] = []
        boots = sorted((boot for boot in self.logs.of[bot].boots if boot.first), key=lambda boot: boot.first)
        for former, boot in zip([None, *boots], boots, strict=False):
            since = 0
            if former is not None:
                kills = [at for at in self.killed[bot] if former.first <= at <= boot.first]
                since = max([former.last, *kills])
            spans.append((since, INFINITY if boot.connected is None else boot.connected))
        if boots and (kills := [at for at in self.killed[bot] if at >= boots[-1].first]):
            spans.append((min(kills), INFINITY))
        return spans

    def restarts(self) -> list[str]:
        """Ends of bots that nobody here brought about."""
        found = []
        for bot in self.bots:
            boots = sorted((boot for boot in self.logs.of[bot].boots if boot.first), key=lambda boot: boot.first)
            for former, boot in pairwise(boots):
                if not any(former.first <= at <= boot.first for at in self.killed[bot]):
                    found.append(f"{bot} began anew at {boot.first} without being killed")
        return found


class ChaosError(Exception):
    """Something did not come to be in time."""


def until(probe: Callable[[], bool], seconds: float, describe: Callable[[], str]) -> float:
    """Seconds until it holds; ChaosError where it does not in time."""
    begun = time.monotonic()
    while not probe():
        if time.monotonic() - begun > seconds:
            raise ChaosError(describe())
        time.sleep(0.5)
    return time.monotonic() - begun


def persist(call: Callable[[], T], seconds: float = 120.0) -> T:
    """What the call gives once nothing in its way is down."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except DemoError:
            if time.monotonic() > end:
                raise
            time.sleep(1)


def _packets(pid: int, verb: str) -> None:
    """Drops what goes to the exchange and comes from it (-I), or no longer (-D)."""
    for chain, port in (("OUTPUT", "--dport"), ("INPUT", "--sport")):
        rule = (chain, "-p", "tcp", port, "8080", "-j", "DROP")
        # The pod may have ended meanwhile, and the rule with it.
        subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", "iptables", verb, *rule], check=False, capture_output=True
        )


class Judge:
    """Looks after each step whether the promises held."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.counts: Counter[str] = Counter()
        self.longest: defaultdict[str, float] = defaultdict(float)
        self._known: set[str] = set()
        self._looked: Counter[str] = Counter()
        self._last: dict[str, Seen] = {}

    def look(self) -> list[str]:
        """What is not as it must be and was not told yet."""
        fleet, wrong = self.fleet, []
        fleet.looker.look()
        # Every status was told before the fills are read.
        statuses = {bot: list(fleet.statuses.seen[bot]) for bot in fleet.bots}
        with closing(sqlite3.connect(f"file:{fleet.exchange}?mode=ro", uri=True, timeout=30)) as db:
            history, now = History(db), now_ms()
            logs = {bot: fleet.log(history, bot) for bot in fleet.bots}
        totals: Counter[str] = Counter()
        for bot, log in logs.items():
            totals["orders"] += len(log.orders)
            totals["fills"] += len(log.trades)
            wrong += [f"{bot}: {one}" for one in self._judge(bot, log, statuses[bot], now, totals)]
        self.counts |= totals
        fresh = [one for one in [*wrong, *fleet.broken] if one not in self._known]
        self._known.update(fresh)
        fleet.broken.clear()
        return fresh

    def _judge(self, bot: str, log: Log, seen: Sequence[Seen], now: int, totals: Counter[str]) -> list[str]:
        fleet, own = self.fleet, self.fleet.logs.of[bot]
        fills = [Fill.read(my_trade(one)) for one in log.trades]
        wrong = twice(list(log.orders), fills, log.base)
        for order, late in overtaken(log):
            self.longest["late"] = max(self.longest["late"], late / 1000)
            wrong.append(f"{order.client_order_id} entered {late} ms after a newer process's first order")
        safe = list(fleet.safe[bot])
        if (begun := fleet._wanted.get(bot)) is not None and (at := fleet.acknowledgement(bot, begun)) is not None:
            safe.append((at, now))
        totals["spans of acknowledged safe mode"] += len(safe)
        wrong += unsafe(log, safe)
        wrong += self._protection(bot, log, now, totals)
        wrong += self._books(bot, log, seen, now)
        intents = self._intents(bot) if any(one.client_order_id not in own.reasons for one in log.orders) else set()
        without, by_store = unexplained(log, own.reasons, intents)
        totals["orders explained by the audit log"] += len(log.orders) - len(without) - by_store
        totals["orders explained by the store alone"] += by_store
        totals["round trips"] += own.trades
        return wrong + without

    def _protection(self, bot: str, log: Log, now: int, totals: Counter[str]) -> list[str]:
        fleet = self.fleet
        unknown = [(int(a), b) for spans in fleet.logs.of[bot].unknown.values() for a, b in spans]
        excused = [*fleet.disturbed[bot], *fleet.down(bot), *unknown]
        wrong = []
        for (begin, end), left in charged(bare(log), excused, now):
            lasted = (min(end, now) - begin) / 1000
            totals["times without a stop"] += 1
            self.longest["bare"] = max(self.longest["bare"], lasted)
            self.longest["bare and not excused"] = max(self.longest["bare and not excused"], left / 1000)
            if left / 1000 > DEADLINE_SECONDS + SLACK_SECONDS:
                wrong.append(
                    f"without a stop from {begin} for {lasted:.1f} s, {left / 1000:.1f} s of them without an excuse"
                )
        return wrong

    def _books(self, bot: str, log: Log, seen: Sequence[Seen], now: int) -> list[str]:
        wrong, books = [], figures(log, "USDT")
        fresh, self._looked[bot] = seen[self._looked[bot] :], len(seen)
        for one in fresh:
            self.counts["statuses"] += 1
            if one.told is None:
                self.counts["statuses that say their books are not right"] += 1
                continue
            self.counts["statuses compared"] += 1
            self.counts[f"of these {one.condition('BalanceSynced')[1]}"] += 1
            if not self._right(bot, one.told, books, one.at):
                wrong.append(
                    f"at {one.at} the status told {one.told} as right; the exchange had {_around(books, one.at)}"
                )
        return wrong

    def _right(self, bot: str, told: tuple[Decimal, Decimal], books: Sequence[Any], at: int) -> bool:
        missed = any(
            begin - 1000 <= at <= end + MISSED_SECONDS * 1000
            for begin, end in [*self.fleet.disturbed[bot], *self.fleet.down(bot)[1:]]
        )
        age = MISSED_SECONDS if missed else WRONG_SECONDS
        return told_right(told, books, round(at - age * 1000), at)

    def settle(self) -> None:
        """Waits until each bot's standing status was seen to be what the exchange has; ChaosError."""
        left = set(self.fleet.bots)

        def settled() -> bool:
            left.intersection_update(self._unsettled(left))
            return not left

        until(settled, MISSED_SECONDS, lambda: f"books: {list(self._unsettled(left).values())}")

    def _unsettled(self, bots: Collection[str]) -> dict[str, str]:
        """Those of the bots whose standing status is not what the exchange has, with why."""
        fleet, found = self.fleet, {}
        with closing(sqlite3.connect(f"file:{fleet.exchange}?mode=ro", uri=True, timeout=30)) as db:
            history = History(db)
            for bot in bots:
                seen = fleet.standing(bot)
                if seen is None or seen.told is None:
                    found[bot] = f"{bot}: no books"
                    continue
                books, now = figures(fleet.log(history, bot), "USDT"), now_ms()
                if not told_right(seen.told, books, round(now - WRONG_SECONDS * 1000), now):
                    found[bot] = f"{bot}: the status stands at {seen.told}; the exchange had {_around(books, now)}"
        return found

    def _intents(self, bot: str) -> set[str]:
        path = self.fleet.store(bot)
        if path is None:
            return set()
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
            rows = db.execute("SELECT body FROM intents").fetchall()
        return {name for (body,) in rows for name in json.loads(body)["client_ids"]}

    def stores(self, bots: Sequence[str]) -> list[str]:
        """What of these bots' stores is not what the exchange has, intents and fills."""
        wrong = []
        for bot in bots:
            path, found = self.fleet.store(bot), [""]
            if path is None:
                continue
            for _ in range(STORE_ATTEMPTS):  # a fill may be on its way
                if not found:
                    break
                found = self._compare_store(bot, path)
                time.sleep(1 if found else 0)
            self.counts["stores compared"] += 1
            wrong += [f"{bot}: in its store {one}" for one in found]
        return wrong

    def _compare_store(self, bot: str, path: Path) -> list[str]:
        copy = self.fleet.folder / "store.db"
        for file in self.fleet.folder.glob("store.db*"):
            file.unlink()
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db,
            closing(sqlite3.connect(copy)) as to,
        ):
            db.backup(to)
        with closing(sqlite3.connect(f"file:{self.fleet.exchange}?mode=ro", uri=True, timeout=30)) as db:
            log = self.fleet.log(History(db), bot)
        return asyncio.run(stored(copy, list(log.orders), [Fill.read(my_trade(one)) for one in log.trades]))


def _around(books: Sequence[Any], at: int) -> list[str]:
    near = [one for one in books if one.since > at - 120_000] or books[-1:]
    return [f"{one.quantity}, {one.realized} since {one.since}" for one in near[-6:]]


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    steps = [str(number) for number in range(1, STEPS + 1)]
    book = Book.open("-".join(["chaos", f"{SEED}", f"{BOTS}", *sorted(WITHOUT)]))
    rows = run_cases(options, book, "steps", steps, lambda waiting: _run(options, waiting))
    harms = Counter(harm for row in rows for harm in row["harms"])
    print(f"harms done: {dict(harms)}")
    return show_failed(rows)


def _run(options: argparse.Namespace, waiting: Sequence[str]) -> Iterator[tuple[str, Row]]:
    if not waiting:
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # the report comes first
    with tempfile.TemporaryDirectory(prefix="tradingbot-chaos-") as folder:
        fleet = Fleet(options.cluster, Path(folder))
        fleet.start()
        judge = Judge(fleet)
        begun = time.monotonic()
        try:
            for case in waiting:
                yield case, _step(fleet, judge, int(case))
        finally:
            _report(fleet, judge, time.monotonic() - begun)


def _step(fleet: Fleet, judge: Judge, number: int) -> Row:
    planned = blows(SEED, number, len(fleet.bots), WITHOUT)
    begun, broken = time.monotonic(), []
    print(f"step {number}", flush=True)
    waiting = sorted(planned, key=lambda blow: blow.after)
    running: list[tuple[float, int, Blow]] = []
    while waiting or running:
        at = time.monotonic() - begun
        if waiting and at >= waiting[0].after:
            blow = waiting.pop(0)
            moment = now_ms()
            fleet.begin(blow)
            running.append((at + blow.lasts, moment, blow))
        for row in [row for row in running if at >= row[0]]:
            running.remove(row)
            fleet.end(row[2], row[1])
        time.sleep(0.2)
    harmed = time.monotonic() - begun
    time.sleep(CALM_SECONDS)
    recovered = 0.0
    try:
        recovered = fleet.recover(RECOVER_SECONDS)
        judge.settle()
    except ChaosError as error:
        broken.append(str(error))
    broken += judge.look()
    first = (number - 1) * STORES % len(fleet.bots)
    broken += judge.stores([*fleet.bots, *fleet.bots][first : first + STORES])
    told = ", ".join(str(blow) for blow in planned)
    print(
        f"step {number:<3} {told:<50} harmed {harmed:5.1f} s  back after {recovered:5.1f} s  "
        f"{judge.counts['orders']} orders  {judge.counts['round trips']} round trips  "
        f"{judge.counts['statuses compared']} statuses  {'FAILED' if broken else 'ok'}",
        flush=True,
    )
    return {
        "harms": [str(blow.harm) for blow in planned], "told": told, "seconds": round(time.monotonic() - begun, 1),
        "recovered": round(recovered, 1), "counts": dict(judge.counts), "longest": dict(judge.longest),
        "broken": broken,
    }  # fmt: skip


def _report(fleet: Fleet, judge: Judge, seconds: float) -> None:
    print(f"\n{len(fleet.bots)} bots for {seconds / 60:.1f} minutes, seed {SEED}, market at {SPEED} of its speed")
    for what, count in judge.counts.items():
        print(f"{what}: {count}")
    for what, longest in judge.longest.items():
        print(f"longest {what}: {longest:.1f} s")
    if fleet.acknowledged:
        print(
            f"safe mode acknowledged {len(fleet.acknowledged)} times, "
            f"{statistics.median(fleet.acknowledged):.1f} s median, {max(fleet.acknowledged):.1f} s at most"
        )
    print(f"restarts of bots that nobody here brought about: {fleet.restarts()}")
    _growth(fleet)
    fleet.statuses.end()
    fleet.looker.end()


def _growth(fleet: Fleet) -> None:
    """Memory, files and processor time of the processes that lived for long, by kind."""
    kinds: defaultdict[str, list[list[Any]]] = defaultdict(list)
    for (pod, _), samples in fleet.processes.samples.items():
        kind = "bot" if pod in fleet.symbols else re.sub(r"-[0-9a-f]+-[0-9a-z]+$", "", pod)
        kinds[kind].append(samples)
    print("| Process | Lived | CPU | Memory | Growth | with 95 % below | Files |\n|---|---|---|---|---|---|---|")
    for kind, lives in kinds.items():
        for samples in sorted(lives, key=lambda one: one[-1].at - one[0].at, reverse=True)[:60]:
            lived = samples[-1].at - samples[0].at
            if lived < min(LEAK_SECONDS, 240.0):
                continue
            late = [one for one in samples if one.at - samples[0].at > lived / 3]
            per_hour, bound = slope([(one.at, one.mib) for one in late])
            cpu = (samples[-1].cpu - samples[0].cpu) / lived * 100
            files = f"{late[0].files} to {late[-1].files}, at most {max(one.files for one in late)}"
            print(
                f"| {kind} | {lived / 60:.0f} min | {cpu:.1f} % | {late[0].mib:.1f} to {late[-1].mib:.1f} MiB | "
                f"{per_hour:+.1f} MiB/h | {per_hour + bound:+.1f} MiB/h | {files} |"
            )
