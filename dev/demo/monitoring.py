"""Prometheus and Alertmanager beside a local cluster, by the files of examples/monitoring, and who they tell."""

from __future__ import annotations

import json
import math
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final

from local_kubernetes.local import LocalCluster

ROOT: Final = Path(__file__).resolve().parents[2]
EXAMPLES: Final = ROOT / "examples/monitoring"
DASHBOARDS: Final = ROOT / "charts/tradingbot-operator/dashboards"
TEMPLATES: Final = Path("/usr/share/prometheus/alertmanager")
"""Where Debian's Alertmanager looks for templates, whatever its configuration says."""
QUICK: Final = {
    "scrape_interval": "2s",
    "evaluation_interval": "1s",
    "group_wait": "1s",
    "group_interval": "2s",
}
"""Instead of the times in the examples, for who does not want to wait for them."""


class MonitoringError(Exception):
    """A program is missing, does not start, or refuses a query; the text has its words."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a receiver was told about one alert; `at` by the monotonic clock."""

    at: float
    receiver: str
    status: str
    labels: dict[str, str]
    annotations: dict[str, str]


class _Server(ThreadingHTTPServer):
    """Answers in a thread of its own, at a free port."""

    daemon_threads = True

    def __init__(self, host: str, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__((host, 0), handler)
        self.url = f"http://{host}:{self.server_port}/"
        self._thread = Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is its own affair."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close(self) -> None:
        """Answers nothing any more."""
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    def answer(self, body: bytes = b"", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Webhook:
    """Receives on the loopback address what Alertmanager tells, and keeps it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        webhook = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                now = time.monotonic()
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.messages += [
                    Message(now, body["receiver"], alert["status"], alert["labels"], alert["annotations"])
                    for alert in body["alerts"]
                ]
                self.answer()

        self._server = _Server("127.0.0.1", Handler)
        self.url = self._server.url
        self.close = self._server.close

    def first(self, status: str, since: float, **labels: str) -> Message | None:
        """The first message `firing` or `resolved` after a moment, about an alert with these labels."""
        return next(
            (
                message
                for message in tuple(self.messages)
                if message.status == status and message.at >= since and labels.items() <= message.labels.items()
            ),
            None,
        )


@contextmanager
def _running(command: Sequence[str], log: Path) -> Iterator[str]:
    """The address HOST:PORT on which a program of Prometheus says that it listens; it ends with this context."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while (found := re.search(r'"Listening on" address=(\S+)', log.read_text(encoding="utf-8"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise MonitoringError(f"{command[0]} does not listen:\n{log.read_text(encoding='utf-8')[-3000:]}")
            time.sleep(0.02)
        yield found[1]
    finally:
        process.terminate()
        process.wait()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MonitoringError(f"no {name} on the PATH: run `make setup`")
    return found


@contextmanager
def running_alertmanager(config: Path, folder: Path, host: str = "127.0.0.1") -> Iterator[str]:
    """The address of an Alertmanager, http://HOST:PORT; `folder` takes its data and its log."""
    program = _program("prometheus-alertmanager")
    command = [
        program, f"--config.file={config}", f"--storage.path={folder}", f"--web.listen-address={host}:0",
        "--cluster.listen-address=",
    ]  # fmt: skip
    if not TEMPLATES.is_dir():
        # It was unpacked and not installed: its files are put where it looks for them, for this process alone.
        script = 'mount -t tmpfs none /usr/share && ln -s "$0" /usr/share/prometheus && exec "$@"'
        files = Path(program).parents[1] / "share/prometheus"
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(files), *command]
    with _running(command, folder / "alertmanager.log") as address:
        yield f"http://{address}"


class Prometheus:
    """A running one, which is asked."""

    def __init__(self, address: str) -> None:
        self.address = address

    def _get(self, path: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.address}/api/v1/{path}?{query}", timeout=30) as answer:
                return json.load(answer)["data"]
        except OSError as error:
            raise MonitoringError(f"{path}?{query}: {error}") from error

    def targets(self) -> dict[tuple[str, str], str]:
        """up, down or unknown of each target, by job and pod."""
        return {
            (target["labels"]["job"], target["labels"]["pod"]): target["health"]
            for target in self._get("targets", state="active")["activeTargets"]
        }

    def has_values(self, expr: str, seconds: float) -> bool:
        """Whether a graph of this query over the last `seconds` shows anything (NaN is nothing)."""
        now = time.time()
        series = self._get("query_range", query=expr, start=now - seconds, end=now, step=2)["result"]
        return any(not math.isnan(float(value)) for one in series for _, value in one["values"])


def targets_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """A pod as the role `pod` of Prometheus' own discovery tells it: a target for each port of its containers."""
    if not pod["status"].get("podIP"):
        return []
    meta = {
        "namespace": pod["metadata"]["namespace"],
        "pod_name": pod["metadata"]["name"],
        "pod_uid": pod["metadata"]["uid"],
        "pod_ip": pod["status"]["podIP"],
        "pod_phase": pod["status"]["phase"],
        "pod_node_name": pod["spec"]["nodeName"],
    }
    for name, value in pod["metadata"].get("labels", {}).items():
        safe = re.sub(r"\W", "_", name, flags=re.ASCII)
        meta |= {f"pod_label_{safe}": value, f"pod_labelpresent_{safe}": "true"}
    return [
        {
            "targets": [f"{pod['status']['podIP']}:{port['containerPort']}"],
            "labels": {
                f"__meta_kubernetes_{name}": value
                for name, value in {
                    **meta,
                    "pod_container_name": container["name"],
                    "pod_container_port_name": port.get("name", ""),
                    "pod_container_port_number": str(port["containerPort"]),
                }.items()
            },
        }
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


@contextmanager
def _discovery(cluster: LocalCluster, host: str, inside: str) -> Iterator[str]:
    """The address of what lists the pods of a cluster, with the rights that the example gives to Prometheus.

    Debian builds Prometheus without its discovery by the Kubernetes API; it asks this in its place.
    """
    token = cluster.kubectl("create", "token", "prometheus", "--namespace=monitoring")
    # A namespace that was just made may not have it yet.
    authority = cluster.kubectl(
        "get", "configmap", "kube-root-ca.crt", "--namespace=default", r"-o=jsonpath={.data.ca\.crt}"
    )
    api = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)),
    )
    request = urllib.request.Request(f"https://{inside}:6443/api/v1/pods", headers={"Authorization": f"Bearer {token}"})

    class Handler(_Handler):
        def do_GET(self) -> None:
            try:
                with api.open(request, timeout=30) as answer:
                    pods = json.load(answer)["items"]
            except OSError as error:
                # Prometheus keeps the targets that it has.
                self.answer(str(error).encode(), 503)
                return
            self.answer(json.dumps([target for pod in pods for target in targets_of(pod)]).encode())

    server = _Server(host, Handler)
    try:
        yield server.url
    finally:
        server.close()


@dataclass(frozen=True, slots=True)
class Monitoring:
    """A Prometheus that watches a cluster, and the receiver of all its alerts."""

    prometheus: Prometheus
    webhook: Webhook


def _with_times(text: str, times: dict[str, str]) -> str:
    for name, value in times.items():
        text = re.sub(rf"\b{name}: \w+", f"{name}: {value}", text)
    return text


@contextmanager
def monitoring(cluster: LocalCluster, rules: str, times: dict[str, str]) -> Iterator[Monitoring]:
    """Prometheus and Alertmanager by the examples, with the addresses of this place and `times` in them.

    `rules` is what the chart's ConfigMap has. The rights of examples/monitoring/prometheus-rights.yaml must be there.
    """
    webhook = Webhook()
    try:
        with tempfile.TemporaryDirectory(prefix="tradingbot-monitoring-") as name:
            folder = Path(name)
            told = re.sub(r'url: "[^"]*"', f'url: "{webhook.url}"', (EXAMPLES / "alertmanager.yaml").read_text())
            (folder / "alertmanager.yaml").write_text(_with_times(told, times))
            (folder / "tradingbot.rules.yaml").write_text(rules)
            place = cluster.network()
            with (
                running_alertmanager(folder / "alertmanager.yaml", folder, place.outside) as alertmanager,
                _discovery(cluster, place.outside, place.inside) as discovery,
            ):
                text = (EXAMPLES / "prometheus.yaml").read_text()
                text = text.replace("alertmanager:9093", alertmanager.removeprefix("http://"))
                text = text.replace(
                    "kubernetes_sd_configs: [{role: pod}]",
                    f'http_sd_configs: [{{url: "{discovery}", refresh_interval: 5s}}]',
                )
                (folder / "prometheus.yaml").write_text(_with_times(text, times))
                command = [
                    # Only the cluster's network knows the addresses of pods.
                    "nsenter", f"--net=/proc/{place.pid}/ns/net", "setpriv", "--pdeathsig=KILL", _program("prometheus"),
                    f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
                    f"--web.listen-address={place.inside}:0",
                ]  # fmt: skip
                with _running(command, folder / "prometheus.log") as address:
                    yield Monitoring(Prometheus(f"http://{address}"), webhook)
    finally:
        webhook.close()


def dashboard_queries(namespace: str, pod: str) -> list[tuple[str, str]]:
    """Panel and query of the dashboards, but for that of sets, which the demo has none of; with a bot chosen in those
    that want one."""
    queries = []
    for path in sorted(set(DASHBOARDS.glob("*.json")) - {DASHBOARDS / "tradingbot-sets.json"}):
        page = json.loads(path.read_text(encoding="utf-8"))
        for panel in page["panels"]:
            for target in panel["targets"]:
                expr = target["expr"].replace("$namespace", namespace).replace("$pod", pod)
                queries.append((f"{page['title']}, {panel['title']}", expr))
    return queries
