"""TradingBots on the cluster of the demo, as a person handles them with kubectl."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import yaml
from demo import ROOT, Demo, Shell


def installed(environment: dict[str, str], namespace: str) -> Demo:
    """The operator and a paper exchange with a synthetic market in a namespace, on the cluster of the environment."""
    made = Demo(Shell(dict(environment)), "synthetic", namespace)
    made.cluster()
    made.install()
    made.exchange()
    return made


def manifest(name: str, **spec: Any) -> dict[str, Any]:
    """The example bot under another name, with parts of its spec replaced."""
    example = yaml.safe_load((ROOT / "examples/bnbusdt.yaml").read_text())
    return {**example, "metadata": {"name": name}, "spec": {**example["spec"], **spec}}


def apply(demo: Demo, *objects: dict[str, Any]) -> None:
    """Applies objects as a user does."""
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    demo.shell.show("kubectl", "apply", "-f", "-", stdin=json.dumps(listed))


def patch(demo: Demo, name: str, **spec: Any) -> None:
    """A merge patch of the spec."""
    change = json.dumps({"spec": spec})
    demo.shell.show("kubectl", "patch", "tradingbot", name, "--type", "merge", "-p", change)


def wait(what: str, probe: Callable[[], bool], seconds: float, seen: Callable[[], object] = str) -> float:
    """Seconds until `probe` holds; fails with what was last `seen`."""
    begun = time.monotonic()
    while not probe():
        assert time.monotonic() - begun < seconds, f"waited {seconds} s for {what}; last seen: {seen()}"
        time.sleep(0.2)
    return time.monotonic() - begun


def wait_for(demo: Demo, name: str, kind: str, starts: str, seconds: float) -> str:
    """Waits for a condition and prints how long it took; the condition as text."""
    took = wait(
        f"{name} {kind} {starts}",
        lambda: demo.condition(name, kind).startswith(starts),
        seconds,
        lambda: demo.condition(name, kind),
    )
    last = demo.condition(name, kind)
    print(f"{name}: {took:.1f} s: {kind} {last}", flush=True)
    return last
