"""The command `tradingbot-operator install-check`: whether an installed operator works, as `helm test` asks it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import uvloop

from tradingbot_api import crd, names
from tradingbot_operator.cluster import Access, ApiError, Cluster
from tradingbot_operator.inventory import Manifest
from tradingbot_operator.leader import lease_name
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.settings import kubeconfig_of

SECONDS: Final = 40.0
"""So long a check is tried again: a standby takes a killed leader's Lease after 10 s, the schema is published late."""
RETRY_SECONDS: Final = 1.0
NEXT: Final = {
    "schema": "apply the CRD of this chart: kubectl apply --server-side --force-conflicts -f "
    "charts/tradingbot-operator/crds/",
    "deployment": "kubectl describe deployment {deployment} and kubectl logs deployment/{deployment}, both with "
    "--namespace {namespace}",
    "leader": "kubectl logs deployment/{deployment} --namespace {namespace}; where another release serves the same "
    "namespaces, remove one of them",
    "accepted": "see whether another admission policy, webhook or quota refuses TradingBots in that namespace",
    "refused": "apply the CRD of this chart, and see whether its admission policies are there: kubectl get "
    "validatingadmissionpolicies",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="tradingbot-operator install-check",
        description="Ends with 0 where the operator works; with 1 and what to do where not. It changes nothing.",
    )
    add = result.add_argument
    add("--namespace", action="append", default=[], metavar="NAME", help="served by the operator; repeatable")
    add("--deployment", required=True, metavar="NAME", help="the operator's Deployment")
    add("--deployment-namespace", required=True, metavar="NAME", help="its namespace")
    add("--claims-namespace", required=True, metavar="NAME", help="namespace of the operator's Lease")
    add("--refused-image", metavar="IMAGE", help="an image that an admission policy must refuse in spec.pod.image")
    add("--seconds", type=float, default=SECONDS, help="how long a check is tried again")
    add("--kubeconfig", help="file to reach the cluster with; default: as the operator itself")
    return result


def lacks(expected: Any, found: Any, path: str = "") -> str:
    """Where `found` is less than `expected`, empty where nowhere; pure.

    More keys and list items are no fault: after a rollback the CRD is a newer one. Texts for people are not compared.
    """
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            if key == "description" and isinstance(value, str):
                continue
            where = f"{path}.{key}".removeprefix(".")
            if key not in found:
                return f"{where}: expected {_short(value)}, found nothing"
            if trouble := lacks(value, found[key], where):
                return trouble
        return ""
    if isinstance(expected, list) and isinstance(found, list):
        missing = next((item for item in expected if all(lacks(item, other) for other in found)), None)
        return "" if missing is None else f"{path}: expected {_short(missing)} in it, found {_short(found)}"
    return "" if expected == found else f"{path}: expected {_short(expected)}, found {_short(found)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def schema_trouble(published: Manifest) -> str:
    """What the served TradingBot lacks of this operator's, from the API server's OpenAPI document; pure."""
    (version,) = crd.custom_resource_definition(crd.KINDS[0])["spec"]["versions"]
    expected = dict(version["schema"]["openAPIV3Schema"]["properties"])
    schemas = published.get("components", {}).get("schemas", {}).values()
    kind = {"group": names.GROUP, "version": names.VERSION, "kind": names.KIND}
    found = next((item for item in schemas if kind in item.get("x-kubernetes-group-version-kind", ())), None)
    if found is None:
        return f"expected {names.API_VERSION} {names.KIND}, found no such kind"
    # The rest is the API server's own.
    return lacks({key: expected[key] for key in ("spec", "status")}, found.get("properties", {}))


def deployment_trouble(deployment: Manifest | None) -> str:
    """Why not every replica works, empty where each does; pure."""
    if deployment is None:
        return "expected the operator's Deployment, found none"
    wanted, ready = deployment["spec"].get("replicas", 1), deployment.get("status", {}).get("readyReplicas", 0)
    return "" if ready >= wanted else f"expected {wanted} ready replicas, found {ready}"


def leader_trouble(before: Manifest | None, after: Manifest | None, deployment: str) -> str:
    """Why nobody of this release leads, by two looks at the Lease; pure. No clock is compared with another's."""
    if after is None:
        return "expected a Lease, found none: no operator has ever led"
    holder = after["spec"].get("holderIdentity")
    if not holder:
        return "expected a holder, found none: no operator leads"
    if not holder.startswith(f"{deployment}-"):
        return f"expected a holder of {deployment}, found {holder}: another operator serves the same namespaces"
    if before is None or before["spec"].get("renewTime") == after["spec"].get("renewTime"):
        return f"expected a renewal since {after['spec'].get('renewTime')}, found none by {holder}"
    return ""


def sample(namespace: str, **spec: Any) -> Manifest:
    """A TradingBot that the API accepts; it is never stored."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "metadata": {"namespace": namespace, "generateName": "install-check-"},
        "spec": {
            "symbol": "BTCUSDT",
            "exchange": {"environment": "Testnet", "credentialsSecretRef": {"name": "none"}},
            "strategy": {"name": "ema-cross", "interval": "1m"},
            "capital": "100",
            "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
            "risk": {"maxPositionValue": "50", "maxDailyLoss": "10"},
            "suspend": True,
            **spec,
        },
    }


def samples(namespace: str, refused_image: str | None) -> Iterator[tuple[Manifest, str]]:
    """TradingBots, each with the field that its refusal must name; empty for the one that must be accepted."""
    yield sample(namespace), ""
    yield sample(namespace, capital="-1"), "spec.capital"
    if refused_image is not None:
        yield sample(namespace, pod={"image": refused_image}), "spec.pod.image"


def admission_trouble(refusal: str, field: str) -> str:
    """What is wrong about the API server's answer; pure."""
    if not field:
        return f"expected it to be accepted, found {refusal}" if refusal else ""
    if not refusal:
        return f"expected {field} to be refused, found it accepted"
    return "" if field in refusal else f"expected a refusal of {field}, found {refusal}"


class _Checks:
    """Asks the cluster; each look gives what is wrong, empty for nothing."""

    def __init__(self, cluster: Cluster, options: argparse.Namespace) -> None:
        self._cluster = cluster
        self._options = options
        self._lease: Manifest | None = None

    async def schema(self) -> str:
        return schema_trouble(await self._cluster.published_schema())

    async def deployment(self) -> str:
        options = self._options
        return deployment_trouble(
            await self._cluster.get("deployments", options.deployment_namespace, options.deployment)
        )

    async def leader(self) -> str:
        name = lease_name(tuple(sorted(set(self._options.namespace))))
        before, self._lease = self._lease, await self._cluster.get("leases", self._options.claims_namespace, name)
        return leader_trouble(before, self._lease, self._options.deployment)

    async def admission(self, bot: Manifest, field: str) -> str:
        try:
            await self._cluster.try_create(names.PLURAL, bot)
        except ApiError as error:
            return admission_trouble(str(error), field)
        return admission_trouble("", field)

    def all(self) -> Iterator[tuple[str, str, Callable[[], Awaitable[str]]]]:
        """Text, next step, and the look."""
        yield "the TradingBot that is served is this operator's", "schema", self.schema
        yield "every replica is ready", "deployment", self.deployment
        yield "one of them leads", "leader", self.leader
        for namespace in sorted(set(self._options.namespace)) or [self._options.deployment_namespace]:
            for bot, field in samples(namespace, self._options.refused_image):
                right, wrong = f"a TradingBot in {namespace}", f" with a wrong {field} is refused"
                text, kind = (right + wrong, "refused") if field else (f"{right} is accepted", "accepted")
                yield text, kind, partial(self.admission, bot, field)


async def _run(options: argparse.Namespace, kubeconfig: str | None) -> int:
    """Prints a line for each check; how many failed."""
    cluster = Cluster(await Access.load(kubeconfig), Metrics())
    failed = 0
    try:
        for text, kind, look in _Checks(cluster, options).all():
            trouble = await _settled(look, options.seconds)
            failed += bool(trouble)
            sys.stdout.write(f"{'FAILED' if trouble else 'ok':<8}{text}\n")
            if trouble:
                step = NEXT[kind].format(deployment=options.deployment, namespace=options.deployment_namespace)
                sys.stdout.write(f"        {trouble}\n        next: {step}\n")
            sys.stdout.flush()
    finally:
        await cluster.close()
    return failed


async def _settled(look: Callable[[], Awaitable[str]], seconds: float) -> str:
    """What is still wrong after `seconds`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        try:
            trouble = await look()
        except ApiError as error:
            trouble = f"expected an answer of the API server, found {error}"
        if not trouble or loop.time() >= until:
            return trouble
        await asyncio.sleep(RETRY_SECONDS)


def check(arguments: Sequence[str]) -> int:
    """Prints what works and what does not; the exit code. SettingsError where the cluster cannot be reached as told."""
    options = parser().parse_args(arguments)
    failed = uvloop.run(_run(options, kubeconfig_of(options.kubeconfig)))
    sys.stdout.write(f"{failed} check{'s' * (failed != 1)} failed\n" if failed else "the operator works\n")
    return int(failed > 0)
