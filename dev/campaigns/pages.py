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

NAMESPACE: Final = "pages"
RULES: Final = ("--set", "prometheusRule.configMap=true")
TOLD_SECONDS: Final = 900.0
"""The longest until somebody is told that it fires, after the fault began."""
RESOLVED_SECONDS: Final = 1800.0
"""And that it is over, after the fault ended: refused orders count for a quarter of an hour."""
OPERATOR: Final = ("deployment/tradingbot-operator", "--namespace", OPERATOR_NAMESPACE)
SPEND_WEIGHT: Final = """
import time, urllib.request
while True:
    urllib.request.urlopen("http://paper-exchange:8080/api/v3/depth?symbol=BTCUSDT&limit=5000", timeout=5).read()
    time.sleep(3)
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

    def control(self, verb: str, path: str, body: Any = None) -> Any:
        """Asks the control port of the paper exchange; `verb` is kubectl's."""
        words = ["kubectl", verb, "--raw", f"{self.demo.exchange_control}/control/{path}"]
        told = self.demo.shell.quiet(*words, *(("-f", "-") if body is not None else ()), stdin=json.dumps(body))
        return json.loads(told or "null")

    def add_bot(self, name: str, spec: dict[str, Any]) -> None:
        """A bot with its account and keys."""
        made = self.control("create", "accounts", {"deposits": {"USDT": "10000"}})
        self.uids[name] = made["uid"]
        secret = {
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"keys-{name}"},
            "stringData": {"apiKey": made["apiKey"], "apiSecret": made["secretKey"]},
        }  # fmt: skip
        bot = manifest(name, **{"symbol": "BTCUSDT", **spec})
        bot["spec"]["exchange"]["credentialsSecretRef"] = {"name": f"keys-{name}"}
        self.demo.shell.quiet("kubectl", "apply", "-f", "-", stdin=json.dumps(secret))
        apply(self.demo, bot)

    def fault(self, bot: str, **fields: Any) -> None:
        """A fault of this bot's account alone, until `heal`."""
        made = self.control("create", "faults", {"accounts": [self.uids[bot]], **fields})
        self.faults.setdefault(bot, []).append(made["id"])

    def heal(self, bot: str) -> None:
        """The bot's faults end, what runs beside it too, and its process goes on."""
        for ident in self.faults.pop(bot, []):
            self.control("delete", f"faults/{ident}")
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
    """Empty: the fault is of the operator, and no other fault is there meanwhile."""
    fault: str
    begin: Callable[[Stage, str], bool]
    end: Callable[[Stage, str], None] = Stage.heal
    again: Callable[[Stage, str], object] = _nothing
    spec: dict[str, Any] = dataclasses.field(default_factory=dict)
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    resolves: bool = True
    """Whether somebody is told that it is over."""

    def wanted(self) -> dict[str, str]:
        """Labels of what must be told."""
        of_bot = {"namespace": NAMESPACE, "pod": self.bot} if self.bot else {}
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
    stage.control("create", f"accounts/{stage.uids[bot]}/withdrawals", {"withdrawals": {"USDT": "100"}})
    return True


def _put_back(stage: Stage, bot: str) -> None:
    if stage.faults.get(bot):
        stage.heal(bot)
        stage.control("create", f"accounts/{stage.uids[bot]}/deposits", {"deposits": {"USDT": "100"}})


def _with_the_other(stage: Stage, bot: str) -> bool:
    return bot in stage.begun


def _lack_capital(stage: Stage, bot: str) -> bool:
    stage.control("create", f"accounts/{stage.uids[bot]}/withdrawals", {"withdrawals": {"USDT": "9000"}})
    return True


def _have_capital(stage: Stage, bot: str) -> None:
    stage.control("create", f"accounts/{stage.uids[bot]}/deposits", {"deposits": {"USDT": "9000"}})


def _fall_through_the_stop(stage: Stage, bot: str) -> bool:
    if not stage.in_position(bot):
        return False
    steps = [{"at": 0, "market": {"symbol": "BNBUSDT", "gap": "-8%"}}]
    stage.control("create", "scenario", {"description": "The price falls through the stop.", "steps": steps})
    return True


def _lose_protection(stage: Stage, bot: str) -> bool:
    if not stage.in_position(bot):
        return False
    for kind in ("order_refused", "list_refused"):
        stage.fault(bot, kind=kind)
    # A take-profit that is filled in part takes the stop with it.
    fill = {"symbol": "ETHUSDT", "fill": {"side": "SELL", "share": "0.4"}}
    stage.control("create", "scenario", {"description": "Protection is lost.", "steps": [{"at": 0, "market": fill}]})
    return True


def _restore_operator(stage: Stage, _: str) -> None:
    stage.demo.install(*RULES)
    stage.demo.shell.show("kubectl", "rollout", "status", *OPERATOR, "--timeout=120s")


def _skew(stage: Stage, bot: str) -> bool:
    # Nobody signs the question for the time: it meets every bot.
    stage.faults["every"] = [stage.control("create", "faults", {"kind": "clock_skew", "milliseconds": 3000})["id"]]
    return True


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
    Case("ExchangeBan", "banned", "418 with Retry-After 600", _calls(kind="banned", retryAfter=600)),
    Case("ApiErrorRate", "flaky", "three of ten calls answered with 500",
         _calls(kind="error", status=500, probability=0.3),
         spec={"circuitBreaker": {"failureThreshold": 100, "recoveryTimeoutSeconds": 10}}),
    Case("WeightBudgetLow", "greedy", "another program at its address uses 5,000 of 6,000 a minute", _spend_weight),
    Case("OrderRejections", "refused", "every order list refused", _calls(kind="list_refused")),
    Case("BalanceDrift", "robbed", "100 USDT gone, and no stream tells of it", _lose_quote_unheard,
         _put_back),
    Case("CapitalNotCovered", "poor", "9,000 of 10,000 USDT withdrawn, capital 3,000", _lack_capital, _have_capital),
    Case("DailyLossNear", "losing", "the price falls by 8 % through the stop", _fall_through_the_stop,
         spec={"symbol": "BNBUSDT", **HELD, "risk": {
             "maxPositionValue": "500", "maxDailyLoss": "45", "maxDrawdownRatio": "0.0155"}}, resolves=False),
    Case("DrawdownNear", "losing", "the same", _with_the_other, resolves=False),
    Case("PositionUnprotected", "naked", "take-profit filled in part, all orders refused after it", _lose_protection,
         spec={"symbol": "ETHUSDT", **HELD}),
    Case("GrantExpired", "robbed", "the same as of BalanceDrift: no grants while something lacks", _with_the_other,
         _put_back),
    Case("OperatorDown", "", "both operators scaled away",
         _kubectl("scale", *OPERATOR, "--replicas=0"), _restore_operator),
    Case("LeaderMissing", "", "the right to Leases taken away",
         _kubectl("delete", "rolebinding", "tradingbot-operator-claims", "--namespace", OPERATOR_NAMESPACE),
         _restore_operator),
    Case("ReconcileErrors", "", "the right to write statuses taken away",
         _kubectl("delete", "clusterrolebinding", f"{OPERATOR_NAMESPACE}-tradingbot-operator"), _restore_operator),
    Case("ClockSkew", "safe", "the exchange's clock 3 s ahead", _skew, lambda stage, _: stage.heal("every")),
)  # fmt: skip


def campaign(options: argparse.Namespace) -> int:
    """Runs what is asked for and not done yet; the exit code."""
    rows = run_cases(
        options,
        Book.open("pages"),
        "alerts",
        [case.alert for case in CASES],
        lambda names: _run(options.cluster, names),
    )
    print("| Alert | Fault | Told | First page after | Told that it is over after |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['case']} | {row['fault']} | {row['receiver']} | {row['fired']} | {row['resolved']} |")
    return show_failed(rows)


def _run(cluster: str, names: Sequence[str]) -> Iterator[tuple[str, Row]]:
    if not names:
        return
    demo = Demo(Shell({**os.environ, "CLUSTER_NAME": cluster}), "synthetic", NAMESPACE)
    demo.cluster()
    demo.install(*RULES)
    demo.exchange()
    demo.shell.show("kubectl", "apply", "-f", "examples/monitoring/prometheus-rights.yaml")
    rules = demo.shell.quiet(*READ_RULES)
    chosen = [case for case in CASES if case.alert in names]
    with monitoring(LocalCluster(cluster), rules, {}) as watched:
        stage = Stage(demo, watched)
        for case in CASES:
            if case.bot and case.bot not in stage.uids and any(one.bot == case.bot for one in chosen):
                stage.add_bot(case.bot, case.spec)
        demo.shell.show(
            "kubectl", "wait", "tradingbot", *stage.uids, "--for=condition=TradingAllowed", "--timeout=180s"
        )
        alone = [case for case in chosen if not case.bot or case.alert == "ClockSkew"]
        told = [
            one
            for together in ([case for case in chosen if case not in alone], *([case] for case in alone))
            for one in _phase(stage, together)
        ]
        for one in told:
            yield one.case.alert, _row(stage, one)


@dataclasses.dataclass(frozen=True)
class Told:
    """How a case went; moments by the monotonic clock, None where it did not come to that."""

    case: Case
    begun: float | None
    fired: Message | None
    ended: float


def _phase(stage: Stage, cases: Sequence[Case]) -> list[Told]:
    """The faults of these cases at once, until each was told or its time is over; then they end."""
    begun: dict[str, float] = {}
    fired: dict[str, Message] = {}
    ended: dict[str, float] = {}
    started = time.monotonic()
    while len(ended) < len(cases):
        for case in cases:
            if case.alert in ended:
                continue
            if case.alert not in begun:
                if case.begin(stage, case.bot):
                    begun[case.alert] = time.monotonic()
                    stage.begun.add(case.bot)
            elif (message := stage.watched.webhook.first("firing", begun[case.alert], **case.wanted())) is not None:
                if case.alert not in fired:
                    print(f"{case.alert}: told {message.at - begun[case.alert]:.0f} s after its fault", flush=True)
                fired[case.alert] = message
            else:
                case.again(stage, case.bot)
            late = time.monotonic() - begun.get(case.alert, started) > TOLD_SECONDS
            others = [one for one in cases if case.bot and one.bot == case.bot and one.alert not in fired]
            if late or (case.alert in fired and not others):
                case.end(stage, case.bot)
                ended[case.alert] = time.monotonic()
        time.sleep(1)
    return [Told(case, begun.get(case.alert), fired.get(case.alert), ended[case.alert]) for case in cases]


def _row(stage: Stage, told: Told) -> Row:
    case, begun, fired, webhook = told.case, told.begun, told.fired, stage.watched.webhook
    row: Row = {"fault": case.fault, "receiver": "", "fired": "", "resolved": "", "broken": []}
    if begun is None or fired is None:
        seen = sorted({str(message.labels) for message in webhook.messages if message.status == "firing"})
        row["broken"] = [f"{case.wanted()} was not told; told: {seen}" if begun else "its fault could not be made"]
        return row
    row |= {"receiver": fired.receiver, "fired": f"{fired.at - begun:.0f} s", "labels": fired.labels}
    if not case.resolves:
        return row
    while (over := webhook.first("resolved", told.ended, **case.wanted())) is None:
        if time.monotonic() - told.ended > RESOLVED_SECONDS:
            row["broken"] = [f"{case.wanted()} was not told as over"]
            return row
        time.sleep(1)
    print(f"{case.alert}: told as over {over.at - told.ended:.0f} s after its fault", flush=True)
    return row | {"resolved": f"{over.at - told.ended:.0f} s"}
