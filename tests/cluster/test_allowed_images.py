"""Which images may run as bots: the chart's admission policies, on a real API server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from local_kubernetes.local import LocalCluster

from support import chart
from support.kube import BOTS, Json, Kube, KubeError
from support.operator_objects import SPEC
from support.waiting import until
from tradingbot_api import names

pytestmark = pytest.mark.cluster

ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PLURALS = {
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
DIGEST = f"@sha256:{'a' * 64}"
GOOD = f"registry.example.com/team/bot:7{DIGEST}"
EVIL = "evil.example.com/bot:7"
OF_BOT = {names.BOT_LABEL: "btcusdt"}


@dataclass
class Gate:
    """A namespace with a TradingBot and a pod of an image of before, held to two prefixes."""

    kube: Kube
    bots: str
    pods: str

    async def says(self, method: str, path: str, body: Json, kind: str = "application/json") -> str:
        """`yes`, or why the API server refuses; nothing is changed."""
        try:
            await self.kube.call(method, f"{path}?dryRun=All", body, kind)
        except KubeError as error:
            if error.status == 403:
                return str(error)
            raise
        return "yes"

    async def create(self, image: str, where: str = "containers", **metadata: Any) -> str:
        """What is said to a pod of a bot that has the image there."""
        return await self.says("POST", self.pods, pod(image, where, **{"labels": OF_BOT, **metadata}))

    async def update(self, path: str, patch: Json) -> str:
        """What is said to a change."""
        return await self.says("PATCH", path, patch, "application/merge-patch+json")


def bot(name: str, image: str | None) -> Json:
    """A TradingBot."""
    spec = SPEC if image is None else {**SPEC, "pod": {"image": image}}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}


def pod(image: str, where: str = "containers", **metadata: Any) -> Json:
    """A pod with the image in one of its lists, beside an allowed one."""
    item = {"image": {"reference": image}} if where == "volumes" else {"image": image}
    spec: Json = {"containers": [{"name": "bot", "image": GOOD}]}
    spec[where] = [*spec.get(where, []), {"name": "other", **item}]
    return {"metadata": {"name": f"p-{uuid.uuid4().hex[:8]}", **metadata}, "spec": spec}


@pytest.fixture
async def gate(served_cluster: LocalCluster, api_namespace: str) -> AsyncIterator[Gate]:
    """The chart's own policies under another name; what stood there before them is not allowed any more."""
    kube = await Kube.of(served_cluster.kubeconfig())
    suffix = f"-{uuid.uuid4().hex[:8]}"
    prefixes = "allowedImages.prefixes={registry.example.com/team/,tradingbot/bot}"
    rendered = chart.render("--set", "people.enabled=false,allowedImages.enabled=true", "--set", prefixes)
    made = [chart.of_its_own(o, suffix, api_namespace) for o in rendered if o["kind"] in PLURALS]
    made_gate = Gate(kube, BOTS.format(api_namespace), f"/api/v1/namespaces/{api_namespace}/pods")

    async def pods_can_be_made() -> bool:
        return await kube.get(f"{made_gate.pods.removesuffix('pods')}serviceaccounts/default") is not None

    stored = []
    try:
        await until("the namespace's service account", pods_can_be_made, 30)
        await kube.call("POST", made_gate.bots, bot("former", EVIL))
        for name, labels in (("former", OF_BOT), ("disguised", {})):
            await kube.call("POST", made_gate.pods, pod(EVIL, name=name, labels=labels))
        for document in made:
            await kube.call("POST", PLURALS[document["kind"]], document)
            stored.append(f"{PLURALS[document['kind']]}/{document['metadata']['name']}")

        async def in_force() -> bool:
            asked = await made_gate.says("POST", made_gate.bots, bot("new", EVIL))
            return "yes" not in {asked, await made_gate.create(EVIL)}

        await until("the policies to be in force", in_force, 30)
        yield made_gate
    finally:
        for path in stored:
            await kube.call("DELETE", path)
        await kube.close()


async def test_only_allowed_images_run_as_bots_and_what_runs_already_can_be_halted(gate: Gate) -> None:
    allowed = (
        None,
        GOOD,
        "tradingbot/bot",
        "tradingbot/bot:7",
        f"tradingbot/bot{DIGEST}",
        "registry.example.com/team/a/b",
    )
    lookalikes = (
        EVIL, "tradingbot/bot-evil:7", "tradingbot/bot:5000/evil", "evil.example.com/tradingbot/bot",
        "registry.example.com/team", "registry.example.com/teams/bot", "evil.example.com/tradingbot/bot:7",
        "evil.example.com/registry.example.com/team/a", "registryxexample.com/team/bot", "tradingbot/bot@sha256:7",
    )  # fmt: skip
    for image in allowed:
        assert await gate.says("POST", gate.bots, bot("new", image)) == "yes", image
    for image in lookalikes:
        said = await gate.says("POST", gate.bots, bot("new", image))
        assert "spec.pod.image: expected registry.example.com/team/, tradingbot/bot" in said, image
        assert f"found {image}" in said
    # What is there already keeps its image, and can be halted and let go.
    former = f"{gate.bots}/former"
    for patch in ({"spec": {"safeMode": True}}, {"metadata": {"finalizers": None}}, {"spec": {"pod": {"image": GOOD}}}):
        assert await gate.update(former, patch) == "yes", patch
    assert "found tradingbot/other" in await gate.update(former, {"spec": {"pod": {"image": "tradingbot/other"}}})

    # Nor by a pod that somebody makes or changes.
    owner = {"apiVersion": names.API_VERSION, "kind": names.KIND, "name": "former", "uid": str(uuid.uuid4())}
    for where in ("containers", "initContainers", "volumes"):
        assert await gate.create(GOOD, where) == "yes", where
        assert f"spec.{where}: expected registry.example.com/team/, tradingbot/bot" in await gate.create(EVIL, where)
        assert f"found {EVIL}" in await gate.create(EVIL, where, labels={}, ownerReferences=[owner])
    assert await gate.create(EVIL, labels={"app": "else"}) == "yes", "a pod that is no bot's is nobody's business here"
    assert f"found {EVIL}" in await gate.update(f"{gate.pods}/disguised", {"metadata": {"labels": OF_BOT}})
    former = f"{gate.pods}/former"
    assert await gate.update(former, {"metadata": {"annotations": {names.SAFE_MODE_ANNOTATION: "true"}}}) == "yes"
    other = {
        "spec": {"containers": [{"name": "bot", "image": "evil.example.com/next"}, {"name": "other", "image": EVIL}]}
    }
    for patch in (other, other | {"metadata": {"labels": {names.BOT_LABEL: None}}}):
        said = await gate.says("PATCH", former, patch, "application/strategic-merge-patch+json")
        assert "spec.containers: expected" in said
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": EVIL}]}}
    said = await gate.says("PATCH", f"{former}/ephemeralcontainers", debug, "application/strategic-merge-patch+json")
    assert "spec.ephemeralContainers: expected" in said
