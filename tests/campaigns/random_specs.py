"""Random valid specs from the CRD's schema, one after another on one TradingBot, and what must hold after each.

A case is a seed: a walk over some specs. The API server's dry run filters what the schema's rules refuse; whatever it
takes the operator must bring about or explain, and from wherever the walk ended the bot must come back to trading.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from local_kubernetes.local import LocalCluster

from support.kube import Json, KubeError
from support.operator_objects import SPEC
from support.operator_scene import Scene, operator_scene
from tradingbot_api import names
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_operator import desired
from tradingbot_operator.inventory import SeenBot

CRD: Final = Path(__file__).resolve().parents[2] / "crds/tradingbots.yaml"
PATIENCE: Final = 60.0
"""Seconds for one spec to be brought about; a refused pod is tried again within 30."""
UNSEEN_END: Final = 75.0
"""So long a new operator waits where it did not see how a pod ended: the former one's last grant must be over."""
RESTARTS: Final = 0.03
"""Share of the specs that the operator is killed after."""
BOT_IMAGE: Final = "tradingbot/bot:dev"
"""The operator's default."""
OPERATORS_OWN: Final = frozenset(
    {"deletionPolicy", "deletionDeadlineSeconds", "storage", "pod", "suspend", "updateStrategy"}
)
"""Fields of a spec that the bot is not told."""


# --- specs from the schema ---


def of_schema(schema: Json) -> st.SearchStrategy[Any]:
    """Values that a structural schema of Kubernetes takes; rules in CEL are met often, not always."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        if "pattern" in schema:
            return st.integers(0, 4096) | _text(schema)
        return st.integers(-(2**31), 2**31) | st.text(max_size=12)
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "string":
            return _text(schema)
        case "array":
            least = schema.get("minItems", 0)
            return st.lists(of_schema(schema["items"]), min_size=least, max_size=min(least + 2, schema["maxItems"]))
        case _:
            return _object(schema)


def _matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(re.compile(pattern), fullmatch=True)


def _text(schema: Json) -> st.SearchStrategy[str]:
    rules = str(schema.get("x-kubernetes-validations", ""))
    longest = schema.get("maxLength", 30)
    if "isLessThan(quantity('1'))" in rules:
        return _matching(r"0\.[0-9]{0,7}[1-9]")
    if "pattern" in schema:
        return _matching(schema["pattern"]).filter(lambda text: len(text) <= longest)
    return st.text(min_size=schema.get("minLength", 0), max_size=min(20, longest))


def _object(schema: Json) -> st.SearchStrategy[Json]:
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        leaves = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5)
        return st.dictionaries(st.text(min_size=1, max_size=5), leaves, max_size=2)
    if "properties" in schema:
        required = set(schema.get("required", ()))
        fields = {name: of_schema(child) for name, child in schema["properties"].items()}
        return st.fixed_dictionaries(
            {name: fields[name] for name in fields if name in required},
            optional={name: fields[name] for name in fields if name not in required},
        )
    return st.dictionaries(st.text(max_size=12), of_schema(schema["additionalProperties"]), max_size=2)


@cache
def spec_schema() -> Json:
    """Of spec, as the CRD has it."""
    (version,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
    schema: Json = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def specs(number: int, count: int) -> list[Json]:
    """So many specs, always the same of one number; takes a moment."""
    found: list[Json] = []

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(of_schema(spec_schema()))
    def collect(spec: Json) -> None:
        found.append(spec)

    collect()
    return found


def mended(spec: Json, first: Json, shape: Json, rng: random.Random) -> Json:
    """A spec that is mostly valid after `first` on the same TradingBot, with a pod that mostly runs on our node."""
    spec = {**spec, "symbol": first["symbol"], "exchange": {**spec["exchange"]}}
    exchange = spec["exchange"]
    exchange["environment"] = first["exchange"]["environment"]
    exchange.pop("baseURL", None)
    if exchange["environment"] == "Paper":
        exchange["baseURL"] = first["exchange"]["baseURL"]
    spec.pop("storage", None)
    if "storage" in first:
        spec["storage"] = first["storage"]
    if Decimal(spec["risk"]["maxPositionValue"]) > Decimal(spec["capital"]):
        spec["risk"] = {**spec["risk"], "maxPositionValue": spec["capital"]}
    if "template" in spec.get("notifications", {}):  # no schema can say what a body is made of
        spec["notifications"] = {**spec["notifications"], "template": '{"text": "$kind"}'}
    protection = dict(spec["protection"])
    if "trailingRatio" in protection:
        widest = Decimal(protection["stopLossRatio"]).quantize(Decimal("0.0001"), ROUND_FLOOR)
        del protection["trailingRatio"]
        if widest > 0:
            protection["trailingRatio"] = f"{widest:f}"
    spec["protection"] = protection
    pod = dict(spec.get("pod", {}))
    # Each part of the pod's shape is tried alone now and then; all of them at once would never make a pod.
    for part in list(pod):
        if rng.random() < 0.8:
            del pod[part]
    if rng.random() < 0.8:
        pod |= {"labels": {"example.org/number": str(rng.randrange(3))}, **shape}
    if spec.get("suspend") and rng.random() < 0.5:
        del spec["suspend"]
    return {**spec, "pod": pod}


# --- what must hold ---


def _same(asked: Any, told: Any) -> bool:
    """Whether a field of the spec is what the bot is told; decimals may be spelled otherwise."""
    if isinstance(asked, dict) and isinstance(told, dict):
        return asked.keys() == told.keys() and all(_same(value, told[key]) for key, value in asked.items())
    if isinstance(asked, str) and isinstance(told, str) and asked != told:
        return asked.replace(".", "", 1).isdecimal() and told.replace(".", "", 1).isdecimal() and (
            Decimal(asked) == Decimal(told)
        )  # fmt: skip
    return bool(asked == told)


@dataclass
class View:
    """One look at all that belongs to a TradingBot."""

    bot: Json
    pod: Json | None
    config: Json | None

    @property
    def spec(self) -> Json:
        """As the API server stores it, defaults filled in."""
        spec: Json = self.bot["spec"]
        return spec

    def told(self, kind: ConditionType) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        for item in self.bot.get("status", {}).get("conditions", []):
            if item["type"] == kind:
                return item["status"], item["reason"], item.get("message", "")
        return "", "", ""


def pod_matches(spec: Json, pod: Json) -> bool | None:
    """Whether a pod has the shape that spec.pod asks for, found without the operator's own mark; None: hard to say."""
    asked, made = spec["pod"], pod["spec"]
    metadata, container = pod["metadata"], made["containers"][0]
    mounted = next(item["secret"]["secretName"] for item in made["volumes"] if item["name"] == names.CREDENTIALS_VOLUME)
    ours = desired.labels(desired.Identity(metadata["namespace"], metadata["name"], ""))
    labels = {key: value for key, value in asked.get("labels", {}).items() if key not in ours}
    extra = {key: value for key, value in metadata["labels"].items() if key not in {*ours, names.BOT_UID_LABEL}}
    annotations = dict(metadata.get("annotations", {}))
    annotations.pop(names.POD_TEMPLATE_ANNOTATION, None)
    same = (
        labels == extra
        and asked.get("annotations", {}) == annotations
        and asked.get("nodeSelector", {}) == made.get("nodeSelector", {})
        and asked.get("image", BOT_IMAGE) == container["image"]
        and asked.get("imagePullSecrets", []) == made.get("imagePullSecrets", [])
        and asked.get("priorityClassName", "") == made.get("priorityClassName", "")
        and asked.get("tolerations", []) == made.get("tolerations", [])[: len(asked.get("tolerations", []))]
        and spec["exchange"]["credentialsSecretRef"]["name"] == mounted
    )
    if same and asked.keys() & {"resources", "affinity"}:
        # The API server spells amounts anew and fills in.
        return None
    return same and "affinity" not in made and container["resources"] == desired.DEFAULT_RESOURCES


def amiss(view: View, scene: Scene) -> list[str]:
    """What is not yet as the spec asks for; empty: the operator has brought it about, or said why it cannot."""
    spec, status = view.spec, view.bot.get("status", {})
    if status.get("observedGeneration") != view.bot["metadata"]["generation"]:
        return ["the status speaks of an older generation"]
    accepted, ready = view.told(ConditionType.ACCEPTED), view.told(ConditionType.POD_READY)
    # A pod that the API server refuses is told by PodReady, and as a stalled step when it is refused again and again.
    stalled = accepted[1] == Reason.STALLED and _is_refused(ready)
    if accepted[0] != "True" and not stalled:
        return [f"Accepted is {accepted}"]
    if view.config is None:
        return ["there is no ConfigMap"]
    config = json.loads(view.config["data"][names.CONFIG_KEY])
    wrong = [
        f"{key}: the spec has {json.dumps(value)}, the ConfigMap {json.dumps(config['settings'].get(key))}"
        for key, value in _sparse(spec).items()
        if key not in OPERATORS_OWN and not _same(value, config["settings"].get(key))
    ]
    if spec.get("suspend"):
        if view.pod is not None:
            wrong.append("suspended, and there is a pod")
        if status.get("phase") != "Suspended":
            wrong.append(f"suspended, and the phase is {status.get('phase')}")
        return wrong
    return wrong + _pod_amiss(view, scene, config)


def _is_refused(ready: tuple[str, str, str]) -> bool:
    return ready[:2] == ("False", Reason.POD_MISSING) and "refuses" in ready[2]


def _keeps_former(up_to_date: tuple[str, str, str]) -> bool:
    return up_to_date[:2] == ("False", Reason.POD_OUTDATED) and "refuses" in up_to_date[2]


def _sparse(spec: Json) -> Json:
    """A stored spec without what the bot is not told since it equals the schema's default."""

    def strip(value: Any, child: Json) -> Any:
        if not isinstance(value, dict) or "properties" not in child:
            return value
        kept = {}
        for key, item in value.items():
            below = strip(item, child["properties"][key])
            default = child["properties"][key].get("default")
            empty = below == {} and (default == {} or child["properties"][key].get("type") == "object")
            if not empty and (default is None or not _same(default, below)):
                kept[key] = below
        return kept

    stripped: Json = strip(spec, spec_schema())
    return stripped


def _pod_amiss(view: View, scene: Scene, config: Json) -> list[str]:
    spec, status, pod = view.spec, view.bot["status"], view.pod
    ready, up_to_date = view.told(ConditionType.POD_READY), view.told(ConditionType.UP_TO_DATE)
    if pod is None:
        return [] if _is_refused(ready) else [f"there is no pod, and PodReady is {ready}"]
    if "deletionTimestamp" in pod["metadata"]:
        return ["the pod is being deleted"]
    name = view.bot["metadata"]["name"]
    double = scene.kubelet.bots.get(name)
    running = double is not None and pod.get("status", {}).get("phase") == "Running"
    wrong = []
    matches = pod_matches(spec, pod)
    if matches is None:
        # Only that the operator has come to a word on it.
        matches = up_to_date[0] == "True"
    if matches:
        if up_to_date[0] != "True":
            wrong.append(f"the pod has the shape that is asked for, and UpToDate is {up_to_date}")
    else:
        holds = {"Manual": Reason.POD_OUTDATED}
        if double is not None and double.quantity:
            holds["WhenFlat"] = Reason.AWAITING_FLAT
        expected = holds.get(spec["updateStrategy"])
        if running and _keeps_former(up_to_date):
            pass  # What runs is not ended for a pod that would be refused; whether it would is asked by who waits.
        elif not running or expected is None:
            wrong.append(f"the pod has another shape, {spec['updateStrategy']} replaces it, UpToDate {up_to_date}")
        elif up_to_date[:2] != ("False", expected):
            wrong.append(f"the pod has another shape, and UpToDate is {up_to_date}, not {expected}")
    if not running or double is None:
        stuck = {Reason.UNSCHEDULABLE, Reason.VOLUME_PENDING, Reason.POD_PENDING}
        if ready[0] != "False" or ready[1] not in stuck or "nodeName" in pod["spec"]:
            wrong.append(f"the pod does not run, and PodReady is {ready}")
        return wrong
    applied = view.told(ConditionType.CONFIG_APPLIED)
    if double.refuses is not None and applied[:2] == ("False", double.refuses[0]):
        return wrong
    if json.loads(desired.encode(double.config))["settings"] != config["settings"]:
        wrong.append("the bot has another configuration than the ConfigMap")
    if status.get("phase") != ("SafeMode" if spec.get("safeMode") else "Trading"):
        wrong.append(f"the phase is {status.get('phase')}")
    mounted = next(item for item in pod["spec"]["volumes"] if item["name"] == names.CREDENTIALS_VOLUME)
    if mounted["secret"]["secretName"] != spec["exchange"]["credentialsSecretRef"]["name"]:
        if applied[:2] != ("False", Reason.CONFIG_PENDING):
            wrong.append(f"the pod mounts another Secret, and ConfigApplied is {applied}")
    elif applied[0] != "True":
        wrong.append(f"ConfigApplied is {applied}")
    engaged = view.told(ConditionType.SAFE_MODE_ENGAGED)
    if bool(spec.get("safeMode")) != (engaged[:2] == ("True", Reason.SPEC)):
        wrong.append(f"safeMode is {spec.get('safeMode')}, and SafeModeEngaged is {engaged}")
    return wrong


# --- a walk ---


@dataclass
class Walk:
    """What a walk over specs showed."""

    number: int
    seconds: float = 0.0
    taken: int = 0
    refused: int = 0
    """By the API server's dry run."""
    restarts: int = 0
    """Of the operator, by this walk."""
    slowest: float = 0.0
    states: dict[str, int] = field(default_factory=dict)
    """How often the bot ended up in each phase."""
    violations: list[str] = field(default_factory=list)


class Walker:
    """Walks one TradingBot of a scene."""

    _restarting = asyncio.Lock()

    def __init__(self, scene: Scene, number: int, restarts: float) -> None:
        self._scene = scene
        self._restarts = restarts
        self._name = f"walk-{number}"
        self._rng = random.Random(number)
        self._path = scene.path("tradingbots", self._name)
        self._walk = Walk(number)
        self._first_operator = scene.operator

    async def run(self, drawn: list[Json]) -> Walk:
        """These specs, the way back to trading, and the end; a broken promise ends it and is noted."""
        begun = time.monotonic()
        try:
            if await self._begin(drawn):
                for spec in drawn:
                    await self._go(spec)
                await self._come_back()
            await self._end()
        except AssertionError as error:
            told = [line for line in map(json.dumps, self._scene.operator.log) if self._name in line]
            self._walk.violations.append("\n".join([str(error), *told[-15:]]))
        self._walk.seconds = time.monotonic() - begun
        return self._walk

    async def _begin(self, drawn: list[Json]) -> bool:
        scene = self._scene
        scene.kubelet.settings[self._name] = {"account_uid": str(10_000 + self._walk.number)}
        for spec in drawn:
            first = {**spec, "exchange": dict(spec["exchange"])}
            if first["exchange"]["environment"] == "Paper":
                first["exchange"].setdefault("baseURL", "http://paper-exchange:8080")
            else:
                first["exchange"].pop("baseURL", None)
            if first["exchange"]["environment"] == "Live":
                first.setdefault("storage", {"size": "1Gi"})
            self._first = first
            made = await self._write("POST", mended(first, first, scene.kubelet.shape(), self._rng))
            if made is not None:
                if "storage" in made["spec"]:
                    await self._make_volume(made["spec"]["storage"]["size"])
                await self._settle()
                return True
        return False

    async def _make_volume(self, size: str) -> None:
        claim = {"namespace": self._scene.namespace, "name": names.volume_claim_name(self._name)}
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "claimRef": claim,
            "hostPath": {"path": "/nowhere"},
        }
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"{self._scene.namespace}-{self._name}"},
            "spec": spec,
        }
        await self._scene.kube.call("POST", "/api/v1/persistentvolumes", body)

    async def _go(self, spec: Json) -> None:
        double = self._scene.kubelet.bots.get(self._name)
        if double is not None:
            odd = self._rng.random()
            double.refuses = ("StrategyParametersInvalid", "strategy.parameters") if odd < 0.1 else None
            double.quantity = Decimal("0.5") if odd > 0.7 else Decimal(0)
            double.wake()
        if await self._write("PUT", mended(spec, self._first, self._scene.kubelet.shape(), self._rng)) is not None:
            if self._rng.random() < self._restarts:
                await self._restart()
            await self._settle()

    async def _restart(self) -> None:
        """kill -9 of the operator just after a spec was written; the other walks go on."""
        async with self._restarting:
            assert self._scene.operator.complaints() == []
            await self._scene.restart_operator()
            self._walk.restarts += 1

    async def _write(self, method: str, spec: Json) -> Json | None:
        """Writes a spec as a user does, unless the dry run refuses it: that is what admission is for."""
        body: Json = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": {"name": self._name},
            "spec": spec,
        }
        path = self._path if method == "PUT" else self._scene.path("tradingbots")
        for tries in range(20):
            if method == "PUT":
                body["metadata"] = (await self._scene.kube.call("GET", self._path))["metadata"]
            try:
                await self._scene.kube.call(method, f"{path}?dryRun=All", body)
                made = await self._scene.kube.call(method, path, body)
            except KubeError as error:
                if error.status == 409 and tries < 19:
                    continue  # The operator wrote in between.
                if error.status not in {400, 422}:
                    raise AssertionError(f"a spec was answered with {error}: {json.dumps(spec)}") from error
                self._walk.refused += 1
                return None
            self._walk.taken += 1
            return made
        raise AssertionError("no write got through")

    async def _look(self) -> View:
        get, path = self._scene.kube.get, self._scene.path
        bot, pod, config = await asyncio.gather(
            get(self._path),
            get(path("pods", self._name)),
            get(path("configmaps", names.config_map_name(self._name))),
        )
        assert bot is not None
        return View(bot, pod, config)

    async def _settle(self) -> View:
        """Waits until nothing is amiss."""
        begun = restarted = time.monotonic()
        operator = self._scene.operator
        while True:
            view = await self._look()
            wrong = amiss(view, self._scene)
            refused = _keeps_former(view.told(ConditionType.UP_TO_DATE)) or (
                view.pod is None and not view.spec.get("suspend")
            )
            if not wrong and refused and not await self._pod_is_refused(view):
                wrong = ["the API server takes the pod that is said to be refused"]
            if operator is not self._scene.operator:
                # Another walk killed it: an end that was not seen is waited for from its successor's start.
                operator, restarted = self._scene.operator, time.monotonic()
            took = time.monotonic() - begun
            if not wrong:
                break
            patience = PATIENCE + (0.0 if operator is self._first_operator else UNSEEN_END)
            if time.monotonic() - restarted > patience:
                raise AssertionError(
                    f"walk {self._walk.number}, spec {self._walk.taken}, after {took:.0f} s: {'; '.join(wrong)}\n"
                    f"spec {json.dumps(view.spec)}\nstatus {json.dumps(view.bot.get('status'))[:3000]}\n"
                    f"pod {json.dumps(view.pod)[:2500]}"
                )
            await asyncio.sleep(0.2)
        self._walk.slowest = max(self._walk.slowest, took)
        state = str(view.bot["status"]["phase"])
        self._walk.states[state] = self._walk.states.get(state, 0) + 1
        return view

    async def _pod_is_refused(self, view: View) -> bool:
        bot = SeenBot.of(view.bot)
        manifest = desired.pod(desired.Identity.of(bot), desired.parse_spec(bot), "tradingbot/bot:test", "IfNotPresent")
        try:
            await self._scene.kube.call("POST", self._scene.path("pods") + "?dryRun=All", manifest)
        except KubeError as error:
            return error.status in {400, 403, 422}
        return False

    async def _come_back(self) -> None:
        """From wherever it is, a plain spec must bring it to trading with the pod that is asked for."""
        double = self._scene.kubelet.bots.get(self._name)
        if double is not None:
            double.refuses, double.quantity = None, Decimal(0)
            double.wake()
        # Not what it may have by chance: the bot is asked again.
        plain = {**SPEC, "capital": f"1000.{self._walk.number}1", "updateStrategy": "Immediate"}
        shape = self._scene.kubelet.shape()
        spec = mended(plain, self._first, shape, random.Random(0)) | {"pod": shape}
        assert await self._write("PUT", spec) is not None, f"a plain spec was refused: {json.dumps(spec)}"
        view = await self._settle()
        assert view.bot["status"]["phase"] == "Trading", view.bot["status"]
        assert view.told(ConditionType.UP_TO_DATE)[0] == "True", view.bot["status"]

    async def _end(self) -> None:
        found = await self._scene.kube.get(self._path)
        if found is None:
            return
        await self._scene.kube.call("DELETE", self._path)
        begun = time.monotonic()
        while await self._scene.kube.get(self._path) is not None:
            assert time.monotonic() - begun < PATIENCE, "the TradingBot did not go"
            await asyncio.sleep(0.2)


@asynccontextmanager
async def walking(cluster: LocalCluster, folder: Path) -> AsyncIterator[Scene]:
    """A namespace with an operator for any number of walks; afterwards nothing of them is left."""
    namespace = f"walks-{random.SystemRandom().randrange(16**6):06x}"
    cluster.kubectl("create", "namespace", namespace)
    try:
        async with operator_scene(cluster, namespace, folder) as scene:
            yield scene
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        volumes = cluster.kubectl("get", "pv", "-o", "name").split()
        mine = [name for name in volumes if name.startswith(f"persistentvolume/{namespace}-")]
        if mine:
            cluster.kubectl("delete", "--wait=false", *mine)


async def walk(scene: Scene, number: int, drawn: list[Json], restarts: float = RESTARTS) -> Walk:
    """One case: the walk of that number over specs that were drawn for it."""
    return await Walker(scene, number, restarts).run(drawn)
