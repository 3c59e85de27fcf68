"""The command line of `dev/cluster/cluster`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from .basics import ClusterError
from .cluster import Cluster, choose


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="cluster",
        description="A Kubernetes for demo and tests. CLUSTER_NAME (tradingbot) says which one; CLUSTER says which "
        "kind: local (default; root and Debian), kind (with Docker), existing (the current kubeconfig, after a yes).",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="make it run, or repair it")
    up.add_argument("--no-node", action="store_true", help="API server, controllers and scheduler only")
    up.add_argument("--fake-nodes", type=int, default=0, metavar="N", help="add N kwok nodes that run nothing")
    commands.add_parser("down", help="remove it and all that belongs to it")
    commands.add_parser("status", help="what runs, and where its files are; ends with 1 unless it is ready")
    commands.add_parser("kubeconfig", help="print the path of its kubeconfig")
    load = commands.add_parser("load", help="put images into the node")
    load.add_argument("archives", nargs="+", type=Path, metavar="ARCHIVE", help="as `docker save` writes it")
    commands.add_parser("bin", help="print the folder with kubectl and helm (empty: use the PATH)")
    commands.add_parser("exec-env", help='print exports for a shell: eval "$(cluster exec-env)"')
    commands.add_parser("audit-log", help="print the path of the API server's audit log")
    commands.add_parser("recycle-volumes", help="wipe volumes whose claim is gone, and offer them again")
    return parser.parse_args(words)


def _exports(cluster: Cluster) -> str:
    lines = [f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig()))}"]
    if folder := cluster.binaries():
        lines.append(f"export PATH={shlex.quote(str(folder))}:$PATH")
        lines.append("export NO_PROXY=10.90.128.0/17${NO_PROXY:+,$NO_PROXY}")
    return "\n".join(lines)


def _run(cluster: Cluster, options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            cluster.up(node=not options.no_node, fake_nodes=options.fake_nodes)
        case "down":
            cluster.down()
        case "status":
            ready, text = cluster.status()
            print(text)
            return 0 if ready else 1
        case "kubeconfig":
            print(cluster.kubeconfig())
        case "load":
            cluster.load(options.archives)
        case "bin":
            print(cluster.binaries() or "")
        case "exec-env":
            print(_exports(cluster))
        case "audit-log":
            print(cluster.audit_log())
        case "recycle-volumes":
            print(f"{cluster.recycle_volumes()} volumes wiped")
    return 0


def main() -> int:
    """Run one command; 1 with a message on stderr where it could not be done."""
    options = _arguments(sys.argv[1:])
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `cluster status | head` is no error
    try:
        return _run(choose(os.environ), options)
    except ClusterError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
