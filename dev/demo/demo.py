"""Shows the whole path on a real Kubernetes: each command as typed, its real output, and a check behind it."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "dev/cluster"))

from local_kubernetes.local import LocalCluster  # noqa: E402 - the path comes first
from monitoring import QUICK, Monitoring, MonitoringError, dashboard_queries, monitoring  # noqa: E402

CLUSTER = ROOT / "dev/cluster/cluster"
OPERATOR_NAMESPACE = "tradingbot-system"
BOTS = ("btcusdt", "ethusdt", "bnbusdt")
FAULT_SECONDS = 12
BAN_SECONDS = 12
QUICK_ALERTS = (
    "--set", "prometheusRule.configMap=true",
    "--set", "prometheusRule.thresholds.circuitBreakerOpenFor=3s",
    "--set", "prometheusRule.thresholds.exchangeBanFor=1s",
    "--set", "prometheusRule.thresholds.keepFiringFor=5s",
)  # fmt: skip
"""The rules of the chart, with alerts sooner than anybody would want them."""
READ_RULES = (
    "kubectl", "get", "configmap", "tradingbot-operator-rules", "--namespace", OPERATOR_NAMESPACE,
    "-o", r"jsonpath={.data.tradingbot\.rules\.yaml}",
)  # fmt: skip
PROXY_PORT = 8001
# A calm recording crosses its averages seldom.
POSITION_SECONDS = 360
# Binance takes no order below 5 USDT: what is worth less can be neither sold nor protected.
SMALLEST_ORDER = Decimal(5)


class DemoError(Exception):
    """A step did not come to the state that it shows."""


class Shell:
    """Runs commands and shows them as a person would type them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment

    def quiet(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """The standard output of a command that is not shown."""
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, input=stdin, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise DemoError(f"{shlex.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def show(self, *command: str, stdin: str | None = None) -> str:
        """Shows a command and its output."""
        print(f"\n$ {shlex.join(command)}", flush=True)
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(done.stdout.rstrip(), flush=True)
        if done.returncode:
            raise DemoError(f"{shlex.join(command)} ended with {done.returncode}")
        return done.stdout

    def stream(self, *command: str) -> None:
        """Shows a long command with its output as it comes."""
        print(f"\n$ {shlex.join(command)}", flush=True)
        if code := subprocess.run(command, cwd=ROOT, env=self.environment, check=False).returncode:
            raise DemoError(f"{shlex.join(command)} ended with {code}")


T = TypeVar("T")


def until(what: str, probe: Callable[[], T | None], seconds: float, describe: Callable[[], str]) -> T:
    """Polls until `probe` gives a value; shows that it waits; DemoError with `describe()` after `seconds`."""
    begun = time.monotonic()
    told = 0.0
    while (value := probe()) is None:
        waited = time.monotonic() - begun
        if waited > seconds:
            raise DemoError(f"waited {seconds:.0f} s for {what}; last seen: {describe()}")
        if waited - told >= 5:
            told = waited
            print(f"  ... waiting for {what} ({waited:.0f} s)", flush=True)
        time.sleep(0.25)
    return value


class Demo:
    """The steps, in order; each leaves its figures in `report`."""

    def __init__(self, shell: Shell, market: str, namespace: str = "trading") -> None:
        self.shell = shell
        self.market = market
        self.namespace = namespace
        self._control = f"/api/v1/namespaces/{namespace}/services/paper-exchange:control/proxy"
        self.page = f"http://127.0.0.1:{PROXY_PORT}{self._control}/"
        self.bots = BOTS if market.startswith("synthetic") else ("btcusdt",)
        self.report: dict[str, Any] = {"market": market.split(":", 1)[0], "bots": list(self.bots), "seconds": {}}
        self.begun = time.monotonic()
        self.watched: Monitoring | None = None
        self.failed_since = 0.0

    def step(self, title: str) -> None:
        """Prints the heading of a step with the time since the start."""
        print(f"\n\n=== [{time.monotonic() - self.begun:4.0f} s] {title}", flush=True)

    def bot(self, name: str) -> dict[str, Any]:
        """A TradingBot as JSON."""
        return dict(json.loads(self.shell.quiet("kubectl", "get", "tradingbot", name, "-o", "json")))

    def status(self, name: str) -> dict[str, Any]:
        """The status of a TradingBot."""
        return dict(self.bot(name).get("status", {}))

    def condition(self, name: str, kind: str) -> str:
        """`status reason: message` of a condition, for waiting and for errors."""
        for condition in self.status(name).get("conditions", []):
            if condition["type"] == kind:
                return f"{condition['status']} {condition['reason']}: {condition.get('message', '')}"
        return "absent"

    def position(self, name: str) -> Decimal:
        """The quantity held by a bot, as its status tells."""
        return Decimal(self.status(name).get("position", {}).get("quantity", "0"))

    def first_in_position(self, names: Sequence[str]) -> str:
        """Waits until one of the bots holds a protected position (what is left below the lot size counts as flat)."""
        return until(
            f"a position of {' or '.join(names)}",
            lambda: next((n for n in names if self.condition(n, "Protected").startswith("True Protected")), None),
            POSITION_SECONDS,
            lambda: self.shell.quiet("kubectl", "get", "tradingbots", "-o", "wide"),
        )

    def account(self) -> dict[str, Any]:
        """The account as the exchange itself tells it."""
        return dict(self.control("get", f"accounts/{self.uid}"))

    def control(self, verb: str, path: str, body: Any = None, *, shown: bool = False) -> Any:
        """Asks the control port of the paper exchange; `verb` is kubectl's, the path that below /control."""
        words = ("kubectl", verb, "--raw", f"{self._control}/control/{path}")
        run = self.shell.show if shown else self.shell.quiet
        return json.loads(run(*words, *(("-f", "-") if body is not None else ()), stdin=json.dumps(body)) or "null")

    def open_orders(self, symbol: str) -> list[dict[str, Any]]:
        """The open orders of a symbol as the exchange itself tells them."""
        return [order for order in self.account()["openOrders"] if order["symbol"] == symbol]

    # --- steps -----------------------------------------------------------------------------------

    def cluster(self) -> None:
        """The cluster, and the images in its node."""
        self.step("A local Kubernetes, and the images at the same time")
        environment = self.shell.environment
        with subprocess.Popen(["dev/images/build"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as images:
            self.shell.stream(str(CLUSTER.relative_to(ROOT)), "up")
        if images.returncode:
            raise DemoError(f"dev/images/build ended with {images.returncode}")
        environment["KUBECONFIG"] = self.shell.quiet(str(CLUSTER), "kubeconfig").strip()
        environment["PATH"] = f"{self.shell.quiet(str(CLUSTER), 'bin').strip()}:{environment['PATH']}"
        self.step("Images into the node")
        self.shell.stream("dev/images/build", "--load")

    def install(self, *settings: str) -> None:
        """The operator by its Helm chart, with these options of helm."""
        self.step("Install the operator")
        again = bool(self.shell.quiet("helm", "list", "--namespace", OPERATOR_NAMESPACE, "--short"))
        self.shell.show(
            "helm", "upgrade", "--install", "tradingbot-operator", "charts/tradingbot-operator",
            "--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s", *settings,
        )  # fmt: skip
        if again:
            # The tag of the images does not change with their content.
            operator = ("deployment/tradingbot-operator", "--namespace", OPERATOR_NAMESPACE)
            self.shell.show("kubectl", "rollout", "restart", *operator)
            self.shell.show("kubectl", "rollout", "status", *operator, "--timeout=120s")
        self.shell.show("kubectl", "get", "pods", "--namespace", OPERATOR_NAMESPACE)

    def exchange(self) -> None:
        """A paper exchange, an account on it, and its keys in a Secret."""
        self.step("A paper exchange with an account, its keys in a Secret")
        self.shell.quiet("kubectl", "config", "set-context", "--current", f"--namespace={self.namespace}")
        if self.shell.quiet("kubectl", "get", "namespace", self.namespace, "--ignore-not-found"):
            print("(a namespace of an earlier run is removed first)", flush=True)
            self.shell.quiet("kubectl", "delete", "tradingbots", "--all", "--timeout=180s")
            self.shell.quiet("kubectl", "delete", "namespace", self.namespace, "--timeout=120s")
        self.shell.show("kubectl", "create", "namespace", self.namespace)
        self.shell.show(
            "kubectl", "label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted"
        )
        if self.market.startswith("capture:"):
            self.shell.show("kubectl", "apply", "-f", "examples/paper-exchange-capture.yaml")
            self.copy_capture(Path(self.market.split(":", 1)[1]))
        else:
            self.shell.show("kubectl", "apply", "-f", "examples/paper-exchange.yaml")
        self.shell.show("kubectl", "rollout", "status", "deployment/paper-exchange", "--timeout=90s")
        kubeconfig, binaries = self.shell.environment["KUBECONFIG"], self.shell.environment["PATH"].split(":", 1)[0]
        print(
            "\nBook, trades, accounts and faults in the browser, while this command runs in another terminal:"
            f"\n  KUBECONFIG={kubeconfig} {binaries}/kubectl proxy --port={PROXY_PORT}"
            f"\n  {self.page}",
            flush=True,
        )
        created = self.shell.quiet(
            "kubectl", "exec", "deployment/paper-exchange", "--", "paper-exchange", "account", "create",
            "--deposit", "USDT=10000", "--control-url", "http://127.0.0.1:8081", "--output", "json",
        )  # fmt: skip
        print(
            "\n$ kubectl exec deployment/paper-exchange -- paper-exchange account create --deposit USDT=10000 ..."
            "\n(keys are not shown; they go into the Secret binance)",
            flush=True,
        )
        keys = json.loads(created)
        self.uid = keys["uid"]
        with tempfile.TemporaryDirectory() as folder:
            for name, key in (("apiKey", "apiKey"), ("apiSecret", "secretKey")):
                (Path(folder) / name).write_text(keys[key])
            self.shell.show(
                "kubectl", "create", "secret", "generic", "binance",
                f"--from-file=apiKey={folder}/apiKey", f"--from-file=apiSecret={folder}/apiSecret",
            )  # fmt: skip

    def copy_capture(self, folder: Path) -> None:
        """Hands a recorded market to the exchange's pod, which waits for it."""
        selector = ("--selector", "app.kubernetes.io/name=paper-exchange")
        pod = until(
            "the exchange's pod to ask for the capture",
            lambda: (
                self.shell.quiet(
                    "kubectl",
                    "get",
                    "pods",
                    *selector,
                    "-o",
                    "jsonpath={.items[?(@.status.initContainerStatuses[0].state.running)].metadata.name}",
                ).strip()
                or None
            ),
            60,
            lambda: self.shell.quiet("kubectl", "get", "pods"),
        )
        files = sorted(str(file.name) for file in folder.glob("*.gz"))
        if not files:
            raise DemoError(f"MARKET=capture:DIR: no *.gz in {folder}")
        print(f"\n(copying {', '.join(files)} into the pod)", flush=True)
        for file in files:
            self.shell.quiet("kubectl", "cp", f"{folder}/{file}", f"{pod}:/capture/{file}", "-c", "wait-for-capture")
        self.shell.quiet("kubectl", "exec", pod, "-c", "wait-for-capture", "--", "touch", "/capture/.complete")

    @contextmanager
    def monitoring(self) -> Iterator[None]:
        """Prometheus and Alertmanager run meanwhile; where they cannot reach pods it says so."""
        self.step("Prometheus and Alertmanager, by the files of examples/monitoring")
        if self.shell.environment.get("CLUSTER", "local") != "local":
            print("(not shown: from here they reach the pods of a local cluster only)", flush=True)
            yield
            return
        self.shell.show("kubectl", "apply", "-f", "examples/monitoring/prometheus-rights.yaml")
        print(
            f"\n$ {shlex.join(READ_RULES)} > tradingbot.rules.yaml"
            f"\n\nalerts come sooner here than by the files: {', '.join(f'{k} {v}' for k, v in QUICK.items())}"
        )
        rules = self.shell.quiet(*READ_RULES)
        cluster = LocalCluster(self.shell.environment.get("CLUSTER_NAME", "tradingbot"))
        with monitoring(cluster, rules, QUICK) as self.watched:
            print(f"Prometheus runs until the end of this demo: {self.watched.prometheus.address}", flush=True)
            yield
        self.watched = None

    def of_bot(self, alert: str) -> dict[str, str]:
        """Labels by which an alert about the first bot is known."""
        return {"alertname": alert, "namespace": self.namespace, "pod": self.bots[0]}

    def told(self, status: str, since: float, seconds: float, **labels: str) -> None:
        """Waits for what a receiver is told about an alert, shows it, and notes its time."""
        if self.watched is None:
            return
        webhook = self.watched.webhook
        message = until(
            f"{labels} {status} at the webhook",
            lambda: webhook.first(status, since, **labels),
            seconds,
            lambda: str([(message.status, message.labels) for message in webhook.messages]),
        )
        took = round(message.at - since, 1)
        print(
            f"\nwebhook, {took} s: {status.upper()} {labels['alertname']} to `{message.receiver}`: "
            f"{message.annotations['summary']}\n  runbook: {message.annotations['runbook_url']}",
            flush=True,
        )
        self.report.setdefault("alerts", {}).setdefault(labels["alertname"], {"receiver": message.receiver}).update(
            {status: took, "labels": message.labels}
        )

    def start(self) -> None:
        """TradingBots come up and trade."""
        self.step(f"Apply {len(self.bots)} TradingBot(s)")
        begun = time.monotonic()
        self.shell.show("kubectl", "apply", *(part for bot in self.bots for part in ("-f", f"examples/{bot}.yaml")))
        self.shell.show("kubectl", "wait", "tradingbot", *self.bots, "--for=condition=TradingAllowed", "--timeout=90s")
        self.report["seconds"]["applied to trading allowed"] = round(time.monotonic() - begun, 1)
        self.shell.show("kubectl", "get", "tradingbots")
        self.step("First fills and PnL in the status")
        name = until(
            "a closed round trip",
            lambda: next((bot for bot in self.bots if self.status(bot).get("trades", {}).get("total", 0) > 0), None),
            POSITION_SECONDS,
            lambda: self.shell.quiet("kubectl", "get", "tradingbots", "-o", "wide"),
        )
        self.report["seconds"]["applied to first round trip in the status"] = round(time.monotonic() - begun, 1)
        self.shell.show("kubectl", "get", "tradingbots", "-o", "wide")
        self.shell.show("kubectl", "get", "tradingbot", name, "-o", "jsonpath={.status.pnl}")
        pnl = self.status(name)["pnl"]
        if Decimal(pnl["realized"]) == 0:
            raise DemoError(f"{name} closed a round trip and tells no realized PnL: {pnl}")
        self.report["pnl"] = pnl

    def safe_mode(self) -> None:
        """kubectl patch enables safe mode; its acknowledgement is awaited and timed."""
        bot = self.bots[0]
        self.step("Safe mode by kubectl patch")
        begun = time.monotonic()
        self.shell.show("kubectl", "patch", "tradingbot", bot, "--type", "merge", "-p", '{"spec":{"safeMode":true}}')
        self.shell.show("kubectl", "wait", "tradingbot", bot, "--for=condition=SafeModeAcknowledged", "--timeout=30s")
        took = time.monotonic() - begun
        print(f"\npatch to acknowledged: {took:.2f} s, both kubectl commands included", flush=True)
        self.report["seconds"]["safe mode acknowledged"] = round(took, 2)
        self.shell.show("kubectl", "get", "tradingbot", bot)
        orders = [order for order in self.open_orders(bot.upper()) if order["side"] == "BUY"]
        if orders:
            raise DemoError(f"safe mode is acknowledged and the exchange has entries: {orders}")
        print("\nopen BUY orders of this symbol on the exchange: 0", flush=True)
        self.shell.show("kubectl", "patch", "tradingbot", bot, "--type", "merge", "-p", '{"spec":{"safeMode":null}}')
        self.shell.show("kubectl", "wait", "tradingbot", bot, "--for=condition=TradingAllowed", "--timeout=60s")

    def fault(self, fault: dict[str, Any]) -> float:
        """Puts a fault in force on the exchange; the moment."""
        begun = time.monotonic()
        self.control("create", "faults", fault, shown=True)
        return begun

    def breaker(self) -> None:
        """The exchange fails until the breaker opens; it closes again by itself."""
        bot = self.bots[0]
        self.step(f"The exchange answers 503 for {FAULT_SECONDS} s")
        begun = self.fault({"kind": "rest_status", "status": 503, "seconds": FAULT_SECONDS})
        self.shell.show("kubectl", "wait", "tradingbot", bot, "--for=condition=CircuitClosed=False", "--timeout=40s")
        self.report["seconds"]["fault to circuit open"] = round(time.monotonic() - begun, 1)
        self.shell.show("kubectl", "get", "tradingbots")
        self.failed_since = begun
        self.told("firing", begun, 60, **self.of_bot("CircuitBreakerOpen"))
        self.shell.show("kubectl", "wait", "tradingbot", *self.bots, "--for=condition=CircuitClosed", "--timeout=90s")
        self.report["seconds"]["fault to circuit closed"] = round(time.monotonic() - begun, 1)
        self.shell.show("kubectl", "get", "tradingbots")

    def kill_in_position(self) -> None:
        """A pod dies while its bot holds a position; the new process finds the same."""
        durable = [name for name in self.bots if "storage" in self.bot(name)["spec"]]
        self.step("Kill a bot's pod while it is in position")
        for attempt in range(1, 6):
            bot = self.first_in_position(durable)
            fills = self.fills(bot)
            # The status may not know yet of a fill that closed the position; counted before, it is seen below.
            held = until(
                "the status to tell what the exchange has",
                lambda bot=bot: held if (held := self.position(bot)) == self.holding(bot) else None,
                90,
                lambda bot=bot: f"status {self.position(bot)}, exchange {self.holding(bot)}",
            )
            uid = self.shell.quiet("kubectl", "get", "pod", bot, "-o", "jsonpath={.metadata.uid}")
            self.shell.show("kubectl", "get", "tradingbot", bot)
            begun = time.monotonic()
            self.shell.show("kubectl", "delete", "pod", bot, "--wait=false")
            until(
                "a new pod that trades",
                lambda bot=bot, uid=uid: self.replaced(bot, uid) or None,
                90,
                lambda bot=bot: self.condition(bot, "Ready"),
            )
            took = time.monotonic() - begun
            after = self.position(bot)
            self.shell.show("kubectl", "get", "tradingbot", bot)
            if self.fills(bot) == fills:
                if after != held:
                    raise DemoError(f"{bot} held {held} before the kill and {after} after it, without a fill between")
                print(f"\nsame position before and after: {after}; trading again after {took:.1f} s", flush=True)
                self.report["seconds"]["pod killed to trading allowed"] = round(took, 1)
                return
            print(f"\nthe exchange filled its stop or take-profit meanwhile; once more ({attempt})", flush=True)
        raise DemoError("the position was closed by the exchange during each of five restarts")

    def fills(self, bot: str) -> int:
        """How many trades of the bot's symbol the exchange has for the account."""
        return sum(1 for trade in self.account()["trades"] if trade["symbol"] == bot.upper())

    def holding(self, bot: str) -> Decimal:
        """How much of the bot's base asset the account has, as the exchange tells it."""
        balance = self.account()["balances"].get(bot.upper().removesuffix("USDT"), {"free": "0", "locked": "0"})
        return Decimal(balance["free"]) + Decimal(balance["locked"])

    def replaced(self, bot: str, old_uid: str) -> bool:
        """Whether another pod of the bot runs and the status, written about it, allows trading."""
        uid = self.shell.quiet("kubectl", "get", "pod", bot, "-o", "jsonpath={.metadata.uid}", check=False)
        if not uid or uid == old_uid:
            return False
        conditions = {c["type"]: c["status"] for c in self.status(bot).get("conditions", [])}
        return conditions.get("TradingAllowed") == "True" and conditions.get("PodReady") == "True"

    def breaker_over(self) -> None:
        """Somebody was told that it closed: the alert goes on for a while, in which other steps are shown."""
        self.told("resolved", self.failed_since, 60, **self.of_bot("CircuitBreakerOpen"))

    def ban(self) -> None:
        """The exchange bans the bots for a while: a page, and its resolve."""
        if self.watched is None:
            return
        self.step(f"The exchange bans its clients for {BAN_SECONDS} s: a page")
        begun = self.fault({"kind": "banned", "for": BAN_SECONDS})
        for status in ("firing", "resolved"):
            self.told(status, begun, 60, **self.of_bot("ExchangeBan"))

    def dashboards(self) -> None:
        """Every query of the dashboards of bots and operator shows something of this run."""
        if self.watched is None:
            return
        self.step("Every query of the three Grafana dashboards, on this run")
        seconds = time.monotonic() - self.begun
        queries = dashboard_queries(self.namespace, self.bots[0])
        empty = [f"{panel}: {expr}" for panel, expr in queries if not self.watched.prometheus.has_values(expr, seconds)]
        self.report["dashboards"] = {"queries": len(queries), "empty": empty}
        print(f"{len(queries)} queries, {len(empty)} show nothing", flush=True)
        if empty:
            raise DemoError("panels without a value:\n" + "\n".join(empty))

    def delete(self) -> None:
        """A TradingBot is deleted: no entry stays; its position is closed or still protected, by policy."""
        self.step("Delete a TradingBot in position")
        bot = self.first_in_position(self.bots)
        symbol = bot.upper()
        policy = self.bot(bot)["spec"]["deletionPolicy"]
        print(f"deletionPolicy of {bot}: {policy}", flush=True)
        self.shell.show("kubectl", "get", "tradingbot", bot)
        price = Decimal(self.status(bot)["position"]["averagePrice"])
        begun = time.monotonic()
        self.shell.show("kubectl", "delete", "tradingbot", bot, "--timeout=150s")
        self.report["seconds"]["deleted"] = round(time.monotonic() - begun, 1)
        orders = self.open_orders(symbol)
        entries = [order for order in orders if order["side"] == "BUY"]
        base, left = symbol.removesuffix("USDT"), self.holding(bot)
        protected = sum((Decimal(order["origQty"]) for order in orders if order["side"] == "SELL"), Decimal(0))
        print(
            f"\non the exchange: {len(entries)} entries, {len(orders)} open orders of {symbol}, {left:f} {base} held",
            flush=True,
        )
        if entries:
            raise DemoError(f"entries stayed on the exchange: {entries}")
        if policy == "ClosePosition" and orders:
            raise DemoError(f"orders stayed on the exchange: {orders}")
        if (left - protected) * price >= SMALLEST_ORDER:
            raise DemoError(f"{left - protected:f} {base} stayed without protection")
        self.report["deletion"] = {"policy": policy, "openOrders": len(orders), "base": f"{left:f}"}
        self.shell.show("kubectl", "wait", "pod", bot, "--for=delete", "--timeout=30s")

    def next(self) -> None:
        """What to try next."""
        self.step("What to try next; the cluster keeps running")
        kubeconfig, binaries = self.shell.environment["KUBECONFIG"], self.shell.environment["PATH"].split(":", 1)[0]
        print(
            f"""
  export KUBECONFIG={kubeconfig} PATH={binaries}:$PATH
  kubectl get tradingbots --watch
  kubectl describe tradingbot {self.bots[0]}
  kubectl explain tradingbot.spec.risk
  kubectl logs {self.bots[0]}
  kubectl edit tradingbot {self.bots[0]}
  kubectl proxy --port={PROXY_PORT}       # and in the browser: {self.page}
  make demo-down                  # removes the cluster and all that ran in it"""
        )

    def run(self) -> None:
        """All steps."""
        self.cluster()
        self.install(*QUICK_ALERTS)
        with self.monitoring():
            self.exchange()
            self.start()
            self.safe_mode()
            self.breaker()
            self.kill_in_position()
            self.breaker_over()
            # Last of the faults: it opens the circuits, too, and its alert mutes theirs.
            self.ban()
            self.dashboards()
            self.delete()
        self.next()


def main() -> int:
    """Brings up the cluster and the images, runs the demo, and writes its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--market", default="synthetic", help="synthetic or capture:DIR")
    parser.add_argument("--report", type=Path, help="write the figures to this file as JSON")
    options = parser.parse_args()
    demo = Demo(Shell(dict(os.environ)), options.market)
    try:
        demo.run()
    except (DemoError, MonitoringError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        demo.report["seconds"]["total"] = round(time.monotonic() - demo.begun, 1)
        if options.report:
            options.report.write_text(json.dumps(demo.report, indent=2) + "\n")
    print(f"\ndemo: done in {demo.report['seconds']['total']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
