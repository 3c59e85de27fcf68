"""The campaign of pages: a fault for each alert on a real cluster, and how long it takes until somebody is told.

Chart, Prometheus and Alertmanager run as they are delivered, with their own thresholds and times.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from book import ROOT, Book
from seeds import Row, run_cases, show_failed

sys.path.append(str(ROOT / "dev/demo"))

from demo import OPERATOR_NAMESPACE, READ_RULES, Demo, Shell
from local_kubernetes.local import LocalCluster
from monitoring import Message, Monitoring, monitoring

from support.demo_bots import apply, manifest, patch
from tradingbot_api import names

NAMESPACE: Final = "pages"
ALONE_AT_ITS_ADDRESS: Final = {"kubernetes.io/hostname": "node1"}
"""Node selector of the bot whose address is banned: the others would keep its wait."""
VALUES: Final = (
    "--set", "prometheusRule.configMap=true", "--set", "sets.enabled=true",
    "--set-json", "egressGroups=" + json.dumps([{"name": "banned", "nodeSelector": ALONE_AT_ITS_ADDRESS}]),
)  # fmt: skip
TOLD_SECONDS: Final = 900.0
"""The longest until somebody is told that it fires, after the fault began."""
RESOLVED_SECONDS: Final = 1800.0
"""And that it is over, after the fault ended: refused orders count for a quarter of an hour."""
OPERATOR: Final = ("deployment/tradingbot-operator", "--namespace", OPERATOR_NAMESPACE)
SECOND_MANIFEST: Final = f"{names.STATE_DIR}/second.yaml"
SPEND_WEIGHT: Final = """
import contextlib, time, urllib.request
next_call = time.monotonic()
while True:
    with contextlib.suppress(OSError):
        urllib.request.urlopen("http://paper-exchange:8080/api/v3/depth?symbol=BTCUSDT&limit=5000", timeout=5).read()
    next_call += 3
    time.sleep(max(0, next_call - time.monotonic()))
"""


class Stage:
    """The cluster with operator, paper exchange and the bots of the cases, each with an account of its own."""

    def __init__(self, demo: Demo, watched: Monitoring) -> None:
        self.demo = demo
        self.watched = watched
        self.uids: dict[str, int] = {}
        self.faults: dict[str, list[int]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.begun: set[str] = set()
        """Bots whose fault is there."""
        self._stopped: dict[str, set[int]] = {}

    def add_bot(self, name: str, spec: dict[str, Any]) -> None:
        """A bot with its account and keys."""
        apply(self.demo, self._bot(name, spec))

    def add_set(self, name: str, spec: dict[str, Any]) -> None:
        """A TradingBotSet of one bot with its account and keys; `limits` of the spec are the set's."""
        bot = self._bot(name, {key: value for key, value in spec.items() if key != "limits"})["spec"]
        made = {
            "apiVersion": names.API_VERSION, "kind": names.TRADING_BOT_SET.kind, "metadata": {"name": name},
            "spec": {
                "bots": [{"symbol": bot.pop("symbol")}],
                "template": {"spec": bot},
                "limits": spec.get("limits", {}),
                "updateStrategy": {"progressDeadlineSeconds": 60},
            },
        }  # fmt: skip
        apply(self.demo, made)

    def _bot(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        made = self.demo.control("create", "accounts", {"deposits": {"USDT": "10000"}})
        self.uids[name] = made["uid"]
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"keys-{name}"},
            "stringData": {"apiKey": made["apiKey"], "apiSecret": made["secretKey"]},
        }  # fmt: skip
        self.demo.shell.quiet("kubectl", "apply", "-f", "-", stdin=json.dumps(secret))
        bot = manifest(name, **{"symbol": "BTCUSDT", **spec})
        bot["spec"]["exchange"]["credentialsSecretRef"] = {"name": f"keys-{name}"}
        return bot

    def fault(self, bot: str, **fields: Any) -> None:
        """A fault of this bot's account alone, until `heal`; one with a `count` ends by itself."""
        made = self.demo.control("create", "faults", {"accounts": [self.uids[bot]], **fields})
        if "count" not in fields:
            self.faults.setdefault(bot, []).append(made["id"])

    def heal(self, bot: str) -> None:
        """The bot's faults end, what runs beside it too, and its process goes on."""
        for ident in self.faults.pop(bot, []):
            self.demo.control("delete", f"faults/{ident}")
        if (process := self.processes.pop(bot, None)) is not None:
            process.kill()
            process.wait()
        for pid in self._stopped.pop(bot, set()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def freeze(self, bot: str) -> bool:
        """Stops every process of the bot's pod that runs; whether one is stopped."""
        stopped = self._stopped.setdefault(bot, set())
        for pid in _processes(bot) - stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                stopped.add(pid)
        return bool(stopped)

    def cut_off(self, bot: str, verb: str = "-I") -> bool:
        """The bot's pod takes nothing on the operator's port any more (or again, by -D); whether it was found."""
        pids = _processes(bot)
        rule = ("INPUT", "-p", "tcp", "--dport", "8443", "-j", "DROP")
        if pids:
            subprocess.run(["nsenter", f"--net=/proc/{min(pids)}/ns/net", "iptables", verb, *rule], check=True)
        return bool(pids)

    def fall(self, symbol: str) -> bool:
        """The price falls through the stops."""
        steps = [{"at": 0, "market": {"symbol": symbol, "gap": "-8%"}}]
        self.demo.control("create", "scenario", {"description": "The price falls through the stops.", "steps": steps})
        return True

    def in_position(self, bot: str) -> bool:
        """Whether the bot has a position and its protection."""
        return self.demo.condition(bot, "Protected").startswith("True Protected")


def _processes(bot: str) -> set[int]:
    """The processes of a bot's pod."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            here = f"HOSTNAME={bot}".encode() in (folder / "environ").read_bytes().split(b"\0")
            if here and b"tradingbot" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found


def _nothing(_: Stage, __: str) -> None:
    """Nothing more."""


@dataclasses.dataclass(frozen=True)
class Case:
    """An alert and its fault. `begin` is asked each second until the fault is there, `again` until somebody is told."""

    alert: str
    bot: str
    """Empty: the fault is of the operator."""
    fault: str
    begin: Callable[[Stage, str], bool]
    end: Callable[[Stage, str], None] = Stage.heal
    again: Callable[[Stage, str], object] = _nothing
    spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    of_set: bool = False
    """`bot` is the name of a set of one bot."""
    resolves: bool = True
    """Whether somebody is told that it is over."""
    alone: bool = False
    """It meets every bot, so that no other fault is there meanwhile."""

    def wanted(self) -> dict[str, str]:
        """Labels of what must be told."""
        of_bot = {"namespace": NAMESPACE, "set" if self.of_set else "pod": self.bot} if self.bot else {}
        return {"alertname": self.alert, **of_bot, **self.labels}


def _calls(**fault: Any) -> Callable[[Stage, str], bool]:
    def begin(stage: Stage, bot: str) -> bool:
        stage.fault(bot, **fault)
        return True

    return begin


def _kubectl(*words: str) -> Callable[[Stage, str], bool]:
    def begin(stage: Stage, _: str) -> bool:
        stage.demo.shell.show("kubectl", *words)
        return True

    return begin


def _safe(stage: Stage, bot: str) -> bool:
    patch(stage.demo, bot, safeMode=True)
    return True


def _not_safe(stage: Stage, bot: str) -> None:
    stage.heal(bot)
    patch(stage.demo, bot, safeMode=None)


def _frozen_and_safe(stage: Stage, bot: str) -> bool:
    return stage.freeze(bot) and _safe(stage, bot)


def _spend_weight(stage: Stage, bot: str) -> bool:
    command = ["kubectl", "exec", bot, "--", "python", "-c", SPEND_WEIGHT]
    stage.processes[bot] = subprocess.Popen(command, env=stage.demo.shell.environment, stdout=subprocess.DEVNULL)
    return True


def _lose_quote_unheard(stage: Stage, bot: str) -> bool:
    for event in ("balanceUpdate", "outboundAccountPosition"):
        stage.fault(bot, kind="drop_events", events=[event], count=1)
    stage.demo.control("create", f"accounts/{stage.uids[bot]}/withdrawals", {"withdrawals": {"USDT": "100"}})
    return True


def _take_the_accounts_word(stage: Stage, bot: str) -> None:
    """As the runbook says of what will not come back."""
    clear = f"{names.CLEAR_ANNOTATION}=untrusted-books"
    stage.demo.shell.show("kubectl", "annotate", "--overwrite", "tradingbot", bot, clear)


def _with_the_other(stage: Stage, bot: str) -> bool:
    return bot in stage.begun


def _lack_capital(stage: Stage, bot: str) -> bool:
    stage.demo.control("create", f"accounts/{stage.uids[bot]}/withdrawals", {"withdrawals": {"USDT": "9000"}})
    return True


def _have_capital(stage: Stage, bot: str) -> None:
    stage.demo.control("create", f"accounts/{stage.uids[bot]}/deposits", {"deposits": {"USDT": "9000"}})


def _fall_through_the_stop(stage: Stage, bot: str) -> bool:
    return stage.in_position(bot) and stage.fall("BNBUSDT")


def _lose_protection(stage: Stage, bot: str) -> bool:
    if not stage.in_position(bot):
        return False
    for kind in ("order_refused", "list_refused"):
        stage.fault(bot, kind=kind)
    # A take-profit that is filled in part takes the stop with it.
    fill = {"symbol": "ETHUSDT", "fill": {"side": "SELL", "share": "0.4"}}
    stage.demo.control(
        "create", "scenario", {"description": "Protection is lost.", "steps": [{"at": 0, "market": fill}]}
    )
    return True


def _change_set(stage: Stage, name: str, change: dict[str, Any]) -> None:
    stage.demo.shell.show(
        "kubectl", "patch", names.TRADING_BOT_SET.plural, name, "--type", "merge", "-p", json.dumps({"spec": change})
    )


def _change_to_no_node(stage: Stage, name: str) -> bool:
    if not stage.demo.condition(f"{name}-bnbusdt", "TradingAllowed").startswith("True"):
        return False
    nowhere = {"nodeSelector": {"kubernetes.io/hostname": "nowhere"}}
    _change_set(stage, name, {"template": {"spec": {"pod": nowhere}}})
    return True


def _correct_template(stage: Stage, name: str) -> None:
    _change_set(stage, name, {"template": {"spec": {"pod": None}}})


def _lose_together(stage: Stage, name: str) -> bool:
    return stage.in_position(f"{name}-ethusdt") and stage.fall("ETHUSDT")


def _restore_operator(stage: Stage, _: str) -> None:
    stage.demo.install(*VALUES)
    stage.demo.shell.show("kubectl", "rollout", "status", *OPERATOR, "--timeout=120s")


def _skew(stage: Stage, bot: str) -> bool:
    # Nobody signs the question for the time: it meets every bot.
    stage.faults["every"] = [stage.demo.control("create", "faults", {"kind": "clock_skew", "milliseconds": 3000})["id"]]
    return True


def _trade_beside(stage: Stage, bot: str) -> bool:
    """A `tradingbot run` with the bot's keys, as on somebody's machine."""
    spec = stage.demo.bot(bot)["spec"]
    write = f"import sys; open({SECOND_MANIFEST!r}, 'w').write(sys.stdin.read())"
    second = json.dumps(manifest(bot, **spec))
    stage.demo.shell.quiet("kubectl", "exec", "-i", bot, "--", "python", "-c", write, stdin=second)
    command = (
        "kubectl", "exec", bot, "--", "tradingbot", "run", SECOND_MANIFEST,
        "--credentials-dir", names.CREDENTIALS_DIR, "--state-dir", f"{names.STATE_DIR}/second",
    )  # fmt: skip
    stage.processes[bot] = subprocess.Popen(command, env=stage.demo.shell.environment, stdout=subprocess.DEVNULL)
    return True


def _begin_anew(stage: Stage, bot: str) -> None:
    """As the runbook says: the other process is stopped (here it ends with the pod), and this one begins anew."""
    stage.demo.shell.show("kubectl", "delete", "pod", bot)
    stage.heal(bot)


HELD: Final = {"protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"}}
"""A position that lasts."""
CASES: Final = (
    Case("SafeModeActive", "safe", "`spec.safeMode: true`", _safe, _not_safe,
         labels={"reason": "Spec"}, resolves=False),
    Case("SafeModeNotAcknowledged", "deaf", "process stopped (SIGSTOP), then `spec.safeMode: true`",
         _frozen_and_safe, _not_safe, Stage.freeze),
    Case("HeartbeatStale", "cut-off", "its pod takes nothing on port 8443", Stage.cut_off,
         lambda stage, bot: stage.cut_off(bot, "-D")),
    Case("BotDown", "stopped", "process stopped (SIGSTOP), each new one too", Stage.freeze, again=Stage.freeze,
         labels={"severity": "critical"}),
    Case("CircuitBreakerOpen", "failing", "every call of the account answered with 500",
         _calls(kind="error", status=500)),
    Case("ExchangeBan", "banned", "418 with Retry-After 600", _calls(kind="banned", retryAfter=600),
         spec={"pod": {"nodeSelector": ALONE_AT_ITS_ADDRESS}}),
    Case("ApiErrorRate", "flaky", "three of ten calls answered with 500",
         _calls(kind="error", status=500, probability=0.3),
         spec={"circuitBreaker": {"failureThreshold": 100, "recoveryTimeoutSeconds": 10}}),
    Case("WeightBudgetLow", "greedy", "another program at its address uses 5,000 of 6,000 a minute", _spend_weight),
    Case("OrderRejections", "refused", "every order list refused", _calls(kind="list_refused")),
    Case("BalanceDrift", "robbed", "100 USDT gone, and no stream tells of it", _lose_quote_unheard,
         _take_the_accounts_word),
    Case("CapitalNotCovered", "poor", "9,000 of 10,000 USDT withdrawn, capital 3,000", _lack_capital, _have_capital),
    Case("DailyLossNear", "losing", "the price falls by 8 % through the stop", _fall_through_the_stop,
         spec={"symbol": "BNBUSDT", **HELD, "risk": {
             "maxPositionValue": "500", "maxDailyLoss": "45", "maxDrawdownRatio": "0.0155"}}, resolves=False),
    Case("DrawdownNear", "losing", "the same", _with_the_other, resolves=False),
    Case("PositionUnprotected", "naked", "take-profit filled in part, all orders refused after it", _lose_protection,
         spec={"symbol": "ETHUSDT", **HELD}),
    Case("GrantExpired", "robbed", "the same as of BalanceDrift: no grants while something lacks", _with_the_other,
         _take_the_accounts_word),
    Case("RolloutStopped", "rolling", "a template with a node that does not exist",
         _change_to_no_node, _correct_template, of_set=True,
         spec={"symbol": "BNBUSDT", "updateStrategy": "Immediate"}),
    Case("FleetDailyLossReached", "together", "the price falls by 8 % through the stop; the set may lose 10",
         _lose_together, spec={"symbol": "ETHUSDT", **HELD, "limits": {"maxDailyLoss": "10"}},
         of_set=True, resolves=False),
    Case("OperatorDown", "", "both operators scaled away",
         _kubectl("scale", *OPERATOR, "--replicas=0"), _restore_operator, alone=True),
    Case("LeaderMissing", "", "the right to Leases taken away",
         _kubectl("delete", "rolebinding", "tradingbot-operator-claims", "--namespace", OPERATOR_NAMESPACE),
         _restore_operator, alone=True),
    Case("ReconcileErrors", "", "the right to write statuses taken away",
         _kubectl("delete", "clusterrolebinding", f"{OPERATOR_NAMESPACE}-tradingbot-operator"),
         _restore_operator, alone=True),
    Case("ClockSkew", "safe", "the exchange's clock 3 s ahead", _skew, lambda stage, _: stage.heal("every"),
         alone=True),
    Case("TwoTraders", "doubled", "a second process on its account and symbol", _trade_beside, _begin_anew,
         labels={"severity": "critical"}),
)  # fmt: skip


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    rows = run_cases(
        options,
        Book.open("pages"),
        "alerts",
        [case.alert for case in CASES],
        lambda alerts: _run(options.cluster, alerts),
    )
    print("| Alert | Fault | Told | First page after | Told that it is over after |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['case']} | {row['fault']} | {row['receiver']} | {row['fired']} | {row['resolved']} |")
    return show_failed(rows)


def _run(cluster: str, alerts: Sequence[str]) -> Iterator[tuple[str, Row]]:
    if not alerts:
        return
    demo = Demo(Shell({**os.environ, "CLUSTER_NAME": cluster}), "synthetic", NAMESPACE)
    demo.cluster()
    demo.install(*VALUES)
    demo.exchange()
    demo.shell.show("kubectl", "apply", "-f", "examples/monitoring/prometheus-rights.yaml")
    rules = demo.shell.quiet(*READ_RULES)
    chosen = [case for case in CASES if case.alert in alerts]
    with monitoring(LocalCluster(cluster), rules, {}) as watched:
        stage = Stage(demo, watched)
        for case in CASES:
            if case.bot and case.bot not in stage.uids and any(one.bot == case.bot for one in chosen):
                (stage.add_set if case.of_set else stage.add_bot)(case.bot, case.spec)
        bots = sorted({case.bot for case in chosen if case.bot and not case.of_set})
        if bots:
            allowed = ("--for=condition=TradingAllowed", "--timeout=180s")
            demo.shell.show("kubectl", "wait", "tradingbot", *bots, *allowed)
        yield from ((one.case.alert, one.row(stage)) for one in _go_through(stage, chosen))


@dataclasses.dataclass
class Course:
    """How far a case is; moments by the monotonic clock, None until it came to that."""

    case: Case
    waiting_since: float | None = None
    begun: float | None = None
    fired: Message | None = None
    ended: float | None = None
    over: Message | None = None

    def look(self, stage: Stage, others: Sequence[Course]) -> bool:
        """Goes on by what happened; whether it is at its end. `others` are those of the same bot."""
        case, now = self.case, time.monotonic()
        if self.ended is not None:
            return self._resolved(stage, self.ended)
        if self.waiting_since is None:
            self.waiting_since = now
        if self.begun is None:
            if case.begin(stage, case.bot):
                self.begun = time.monotonic()
                stage.begun.add(case.bot)
        elif self.fired is None:
            self.fired = stage.watched.webhook.first("firing", self.begun, **case.wanted())
            if self.fired is not None:
                print(f"{case.alert}: told {self.fired.at - self.begun:.0f} s after its fault", flush=True)
            else:
                case.again(stage, case.bot)
        late = now - (self.begun or self.waiting_since) > TOLD_SECONDS
        if late or (self.fired is not None and all(one.fired is not None for one in others)):
            case.end(stage, case.bot)
            self.ended = time.monotonic()
        return self.ended is not None and self.fired is None

    def _resolved(self, stage: Stage, ended: float) -> bool:
        if self.fired is None or not self.case.resolves:
            return True
        self.over = stage.watched.webhook.first("resolved", ended, **self.case.wanted())
        if self.over is not None:
            print(f"{self.case.alert}: told as over {self.over.at - ended:.0f} s after its fault", flush=True)
        return self.over is not None or time.monotonic() - ended > RESOLVED_SECONDS

    def row(self, stage: Stage) -> Row:
        """What came of it."""
        row: Row = {"fault": self.case.fault, "receiver": "", "fired": "", "resolved": "", "broken": []}
        wanted = self.case.wanted()
        if self.begun is None:
            row["broken"] = ["its fault could not be made"]
        elif self.fired is None:
            firing = (message for message in stage.watched.webhook.messages if message.status == "firing")
            row["broken"] = [f"{wanted} was not told; told: {sorted({str(message.labels) for message in firing})}"]
        else:
            fired = f"{self.fired.at - self.begun:.0f} s"
            row |= {"receiver": self.fired.receiver, "fired": fired, "labels": self.fired.labels}
            if self.over is not None and self.ended is not None:
                row["resolved"] = f"{self.over.at - self.ended:.0f} s"
            elif self.case.resolves:
                row["broken"] = [f"{wanted} was not told as over"]
        return row


def _go_through(stage: Stage, cases: Sequence[Case]) -> Iterator[Course]:
    """The faults at once, then those that must be alone, one after another; each as it is at its end."""
    left = [Course(case) for case in sorted(cases, key=lambda case: case.alone)]
    while left:
        for one in [course for course in left if not course.case.alone] or left[:1]:
            same_bot = [other for other in left if other.case.bot == one.case.bot]
            if one.look(stage, same_bot):
                left.remove(one)
                yield one
        time.sleep(1)
