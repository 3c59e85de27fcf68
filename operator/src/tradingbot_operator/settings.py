"""What an operator process is told at its start, from flags and environment."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tradingbot_api import names
from tradingbot_operator.egress import EgressGroup
from tradingbot_operator.sharding import ALONE, Shard, parse_name

T = TypeVar("T")
SERVICE_ACCOUNT_DIR: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WATCH_INACTIVITY_SECONDS: Final = 70.0
RESYNC_SECONDS: Final = 60.0
USUAL_WEIGHT: Final = 6_000
"""Binance's limit of an address in a minute."""
CA_CERTIFICATE: Final = "ca.crt"
CA_KEY: Final = "ca.key"


class SettingsError(Exception):
    """The process cannot start as it was told to; the message names the flag and what to do."""

    code = "SettingsInvalid"


@dataclass(frozen=True)
class Settings:
    """Everything that shapes an operator process."""

    namespaces: tuple[str, ...]
    """Namespaces whose TradingBots are served; empty means all."""
    claims_namespace: str
    """Where the claims live: the same for all operators that share a cluster, or two of them may let two
    bots trade one account and symbol."""
    ca_dir: Path
    """Holds ca.crt and ca.key (PEM). Bots trust only this authority: another one cuts every running bot off
    until its pod and its certificate are new."""
    bot_image: str
    image_pull_policy: str
    scrape_annotations: bool
    """Bots' pods made from now on are found by a Prometheus that goes by annotations."""
    probe_host: str
    probe_port: int
    metrics_port: int
    kubeconfig: str | None
    """None: the service account of the pod, or else the client's usual places."""
    identity: str
    """Holder of the operator's Lease. The name of the pod: a restarted container takes its own Lease at once."""
    workers: int
    watch_inactivity_seconds: float
    """A watch that tells nothing for this long, not even the bookmark of each minute, is opened again."""
    resync_seconds: float
    """How often the cluster is listed for what no watch told."""
    log_level: str
    egress_groups: tuple[EgressGroup, ...] = ()
    exchange_weight: int = USUAL_WEIGHT
    """What all bots of an address may use of its request weight in a minute; 0: they are not held to a sum."""
    shard: Shard = ALONE
    """Which TradingBots this operator serves, where there are several."""


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    """For argparse, which shows no message of a ValueError."""

    def parsed(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parsed


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tradingbot-operator", description="Runs one bot pod for every TradingBot of the cluster."
    )
    add = result.add_argument
    add("--namespace", action="append", default=[], metavar="NAME", help="serve this namespace only; repeatable")
    add(
        "--shard", type=_checked(parse_name), metavar="NAME",
        help=f"serve what is labelled {names.SHARD_LABEL}=NAME, and nothing else",
    )  # fmt: skip
    add(
        "--other-shard", action="append", default=[], type=_checked(parse_name), metavar="NAME",
        help="another operator has --shard NAME: leave to it what is labelled so; repeatable",
    )  # fmt: skip
    add("--claims-namespace", metavar="NAME", help="namespace of the claims; default: the operator's own")
    add("--ca-dir", type=Path, default=Path("/etc/tradingbot-operator/ca"), help="directory with ca.crt and ca.key")
    add("--bot-image", default="tradingbot/bot:dev", help="image of bots whose spec names none")
    add("--image-pull-policy", default="IfNotPresent", choices=["Always", "IfNotPresent", "Never"])
    add("--scrape-annotations", action="store_true", help="annotate pods of bots with prometheus.io/scrape, port, path")
    add("--probe-host", default="0.0.0.0", help="address of probes and metrics")  # noqa: S104 - the kubelet probes the pod's address
    add("--probe-port", type=int, default=names.OPERATOR_PROBE_PORT, help="port of /healthz and /readyz")
    add("--metrics-port", type=int, default=names.OPERATOR_METRICS_PORT, help="port of /metrics")
    add("--kubeconfig", help="file to reach the cluster with; default: the pod's service account, then KUBECONFIG")
    add("--identity", help="name in the operator's Lease; default: the pod's name")
    add("--workers", type=int, default=8, help="TradingBots worked on at the same time")
    add(
        "--watch-inactivity-seconds", type=float, default=WATCH_INACTIVITY_SECONDS, metavar="SECONDS",
        help="a watch that is silent for so long is opened again; more than the minute between bookmarks",
    )  # fmt: skip
    add(
        "--resync-seconds", type=float, default=RESYNC_SECONDS, metavar="SECONDS",
        help="how often the cluster is listed for what no watch told",
    )  # fmt: skip
    add(
        "--egress-group", action="append", default=[], type=_checked(EgressGroup.parse),
        metavar="NAME=KEY=VALUE[,KEY=VALUE]",
        help="bots whose pod's nodeSelector contains these labels reach the exchange from one address; repeatable; "
        "all others are of one group, default",
    )  # fmt: skip
    add(
        "--exchange-weight-per-minute", type=int, default=USUAL_WEIGHT, metavar="WEIGHT",
        help="request weight that the exchange allows an address in a minute; 0 does not hold bots to it together",
    )  # fmt: skip
    add("--log-level", default="info", type=str.lower, choices=["debug", "info", "warning", "error"])
    return result


def kubeconfig_of(option: str | None, environment: Mapping[str, str] | None = None) -> str | None:
    """The kubeconfig to use, with --kubeconfig as told; None: the service account of the pod."""
    environment = os.environ if environment is None else environment
    if option is None and "KUBERNETES_SERVICE_HOST" in environment:
        return None
    return str(Path(option or environment.get("KUBECONFIG") or "~/.kube/config").expanduser())


def load(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from a command line; raises SettingsError where something needed is missing or wrong."""
    environment = os.environ if environment is None else environment
    options = parser().parse_args(arguments)
    kubeconfig = kubeconfig_of(options.kubeconfig, environment)
    in_cluster = kubeconfig is None
    claims_namespace = options.claims_namespace
    if claims_namespace is None and in_cluster and (SERVICE_ACCOUNT_DIR / "namespace").is_file():
        claims_namespace = (SERVICE_ACCOUNT_DIR / "namespace").read_text(encoding="utf-8").strip()
    if not claims_namespace:
        raise SettingsError("--claims-namespace: expected a namespace, got none; name one outside a pod")
    for name in (CA_CERTIFICATE, CA_KEY):
        if not (options.ca_dir / name).is_file():
            raise SettingsError(
                f"--ca-dir: expected a file {name} in {options.ca_dir}, found none; mount the Secret of the "
                "certificate authority there"
            )
    if options.workers < 1:
        raise SettingsError(f"--workers: expected 1 or more, got {options.workers}")
    if options.exchange_weight_per_minute < 0:
        raise SettingsError(
            f"--exchange-weight-per-minute: expected 0 or more, got {options.exchange_weight_per_minute}"
        )
    if options.shard and options.other_shard:
        raise SettingsError("--other-shard: expected none beside --shard, which serves its own label alone")
    host = socket.gethostname()
    return Settings(
        namespaces=tuple(sorted(set(options.namespace))),
        claims_namespace=claims_namespace,
        ca_dir=options.ca_dir,
        bot_image=options.bot_image,
        image_pull_policy=options.image_pull_policy,
        scrape_annotations=options.scrape_annotations,
        probe_host=options.probe_host,
        probe_port=options.probe_port,
        metrics_port=options.metrics_port,
        kubeconfig=kubeconfig,
        # Outside a pod two processes may share a host.
        identity=options.identity or (host if in_cluster else f"{host}-{os.getpid()}"),
        workers=options.workers,
        watch_inactivity_seconds=options.watch_inactivity_seconds,
        resync_seconds=options.resync_seconds,
        log_level=options.log_level,
        egress_groups=tuple(options.egress_group),
        exchange_weight=options.exchange_weight_per_minute,
        shard=Shard(options.shard or "", frozenset(options.other_shard)),
    )
