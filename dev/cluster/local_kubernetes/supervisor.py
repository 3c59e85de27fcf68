"""First process of a cluster's namespaces: mounts and network, then starts its programs and restarts what ends.

Called by `local.py` as `python3 -I supervisor.py TOKEN tradingbot-cluster STATE`, inside new network, mount and process
namespaces; it stands alone, since the work tree may change or go while the cluster runs. When it ends, the kernel
ends everything in the namespaces.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESTART_SECONDS = 1.0


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, flush=True)


def call(*argv: str) -> None:
    subprocess.run(argv, check=True)


def prepare_mounts(plan: dict[str, Any]) -> None:
    """Private folders where programs keep what must not outlive or leave the cluster."""
    call("mount", "--make-rprivate", "/")
    for folder in plan["private"]:
        Path(folder).mkdir(parents=True, exist_ok=True)
        call("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
    Path("/run/lock").mkdir(exist_ok=True)
    for number, (path, content) in enumerate(sorted(plan["shown"].items())):
        # The kubelet sets these for the whole machine; it is shown that they are set already.
        stand_in = Path(f"/run/shown-{number}")
        stand_in.write_text(content)
        if Path(path).exists():
            call("mount", "--bind", str(stand_in), path)
    call("mount", "--make-rshared", "/")


def prepare_network(plan: dict[str, Any]) -> None:
    """The node's address, and the link to the machine, which is moved in from outside."""
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    call("ip", "link", "set", "lo", "up")
    call("ip", "address", "add", f"{plan['node_address']}/32", "dev", "lo")
    link = plan["link"]
    while subprocess.run(["ip", "link", "show", link], check=False, capture_output=True).returncode != 0:
        time.sleep(0.05)
    call("ip", "address", "add", plan["inside"], "dev", link)
    call("ip", "link", "set", link, "up")


@dataclass
class Component:
    """A program that must run; `after` is a URL or a path that must answer or exist before its start."""

    name: str
    argv: list[str]
    after: str
    pid: int = 0
    due: float = 0.0


def answers(after: str, authority: str) -> bool:
    """Whether what a component waits for is there."""
    if not after.startswith("https://"):
        return not after or Path(after).exists()
    try:
        trust = ssl.create_default_context(cafile=authority)
        with urllib.request.urlopen(after, timeout=1, context=trust) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def start(component: Component, state: Path) -> None:
    log = str(state / "logs" / f"{component.name}.log")
    component.pid = os.posix_spawnp(
        component.argv[0],
        component.argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigmask=[],  # what we block for ourselves is not inherited
    )
    say(f"started {component.name}")


def reap(components: list[Component]) -> None:
    """Bury what ended: our programs, which start again, and whatever was orphaned to the first process."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        for component in components:
            if component.pid == pid:
                component.pid, component.due = 0, time.monotonic() + RESTART_SECONDS
                say(f"{component.name} ended with {os.waitstatus_to_exitcode(status)}; it starts again")


def supervise(plan: dict[str, Any], state: Path) -> None:
    components = [Component(entry["name"], entry["argv"], entry["after"]) for entry in plan["components"]]
    wake = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, wake)
    while True:
        reap(components)
        waiting = [component for component in components if component.pid == 0]
        for component in waiting:
            if time.monotonic() >= component.due and answers(component.after, plan["authority"]):
                start(component, state)
        woken = signal.sigtimedwait(wake, 0.1 if waiting else 5.0)
        if woken is not None and woken.si_signo == signal.SIGTERM:
            return


def main() -> None:
    token, state = sys.argv[1], Path(sys.argv[3])
    os.chdir(state)
    if Path("token").read_text() != token:
        say("another start of this cluster took over")
        return
    plan = json.loads((state / "plan.json").read_text())
    prepare_mounts(plan)
    prepare_network(plan)
    supervise(plan, state)


if __name__ == "__main__":
    main()
