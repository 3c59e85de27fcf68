"""Measures a running demo: safe-mode times, restart time, memory, image sizes and writes; `make bench-demo`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "dev/cluster/cluster"
NAMESPACE = "trading"
OPERATOR_USER = "system:serviceaccount:tradingbot-system:tradingbot-operator"
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
DEADLINE_SECONDS = 60


class API:
    """The API server over a local `kubectl proxy`: no process start inside what is measured."""

    def __init__(self, base: str) -> None:
        self.bots = f"{base}/apis/tradingbot.dev/v1alpha1/namespaces/{NAMESPACE}/tradingbots"
        self.base = base

    def get(self, url: str) -> Any:
        """The JSON at a URL."""
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)

    def patch(self, name: str, body: dict[str, Any]) -> None:
        """A merge patch of a TradingBot."""
        request = urllib.request.Request(
            f"{self.bots}/{name}",
            data=json.dumps(body).encode(),
            method="PATCH",
            headers={"Content-Type": "application/merge-patch+json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def watch(self, name: str) -> Callable[[Callable[[dict[str, str]], bool]], float]:
        """Follows one TradingBot; gives a function that waits for its conditions and returns the monotonic time."""
        events: queue.Queue[tuple[float, dict[str, str]]] = queue.Queue()

        def follow() -> None:
            url = f"{self.bots}?watch=1&fieldSelector=metadata.name%3D{name}"
            with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(url, timeout=3600) as stream:
                for line in stream:
                    status = json.loads(line)["object"].get("status", {})
                    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
                    events.put((time.monotonic(), conditions))

        threading.Thread(target=follow, daemon=True).start()

        def wait(wanted: Callable[[dict[str, str]], bool]) -> float:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while True:
                seen, conditions = events.get(timeout=max(0.01, deadline - time.monotonic()))
                if wanted(conditions):
                    return seen

        return wait


@contextlib.contextmanager
def kubectl_proxy(environment: dict[str, str]) -> Iterator[API]:
    """A `kubectl proxy` on a free loopback port."""
    command = ("kubectl", "proxy", "--port=0")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = process.stdout.readline().rsplit(":", 1)[1].strip()
        try:
            yield API(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def summary(values: list[float]) -> str:
    """Median and maximum in milliseconds."""
    return f"p50 {statistics.median(values) * 1000:.0f} ms, max {max(values) * 1000:.0f} ms (n={len(values)})"


def safe_mode(api: API, name: str, tries: int) -> tuple[list[float], list[float]]:
    """Seconds from the patch to the conditions SafeModeEngaged and SafeModeAcknowledged."""
    wait = api.watch(name)
    engaged, acknowledged = [], []
    for _ in range(tries):
        api.patch(name, {"spec": {"safeMode": None}})
        wait(lambda c: c.get("SafeModeEngaged") == "False" and c.get("TradingAllowed") == "True")
        begun = time.monotonic()
        api.patch(name, {"spec": {"safeMode": True}})
        seen: dict[str, float] = {}

        def both(c: dict[str, str], seen: dict[str, float] = seen) -> bool:
            if c.get("SafeModeEngaged") == "True":
                seen.setdefault("engaged", time.monotonic())
            return c.get("SafeModeAcknowledged") == "True"

        acknowledged.append(wait(both) - begun)
        engaged.append(seen["engaged"] - begun)
    api.patch(name, {"spec": {"safeMode": None}})
    return engaged, acknowledged


def memory(api: API) -> dict[str, str]:
    """Resident memory of operator and bots, as the kubelet tells it."""
    rows = {}
    for node in api.get(f"{api.base}/api/v1/nodes")["items"]:
        stats = api.get(f"{api.base}/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
        for pod in stats["pods"]:
            if pod["podRef"]["namespace"] in (NAMESPACE, "tradingbot-system"):
                rss = sum(container["memory"].get("rssBytes", 0) for container in pod["containers"])
                rows[pod["podRef"]["name"]] = f"{rss / 2**20:.0f} MiB"
    return rows


def operator_writes(audit: Path, name: str | None = None, since: float = 0.0) -> Counter[str]:
    """The operator's successful writes from the audit log, by resource and verb; `name`: those about one bot."""
    counts: Counter[str] = Counter()
    for line in audit.read_text().splitlines():
        event = json.loads(line)
        if event["verb"] not in WRITES or event["user"]["username"] != OPERATOR_USER:
            continue
        reference = event.get("objectRef", {})
        if reference.get("resource") in ("leases", "events") and not reference.get("name", "").startswith("claim-"):
            continue
        stamp = time.mktime(time.strptime(event["requestReceivedTimestamp"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
        if stamp < since or (name and name not in reference.get("name", "")):
            continue
        resource = "/".join(filter(None, (reference.get("resource"), reference.get("subresource"))))
        counts[f"{event['verb']} {resource}"] += 1
    return counts


def main() -> int:
    """Prints the figures of the demo's running cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--idle-seconds", type=int, default=120)
    parser.add_argument("--bot", default="btcusdt")
    options = parser.parse_args()
    environment = dict(os.environ)

    def cluster(command: str) -> str:
        done = subprocess.run([CLUSTER, command], env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    environment["KUBECONFIG"] = cluster("kubeconfig")
    environment["PATH"] = f"{cluster('bin')}:{environment['PATH']}"
    audit = Path(cluster("audit-log"))
    with kubectl_proxy(environment) as api:
        engaged, acknowledged = safe_mode(api, options.bot, options.tries)
        print(f"patch -> SafeModeEngaged:      {summary(engaged)}")
        print(f"patch -> SafeModeAcknowledged: {summary(acknowledged)}")
        print(f"memory: {memory(api)}")
        api.patch(options.bot, {"spec": {"safeMode": True}})
        time.sleep(65)  # figures of the last change are written at most a minute later
        begun = time.time()
        time.sleep(options.idle_seconds)
        idle = operator_writes(audit, options.bot, begun)
        print(f"writes about {options.bot} in {options.idle_seconds} s of safe mode: {sum(idle.values())} {dict(idle)}")
        api.patch(options.bot, {"spec": {"safeMode": None}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
