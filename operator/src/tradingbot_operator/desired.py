"""Pure: from a TradingBot's spec to the objects that it should have."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig, BotIdentity, ImposedCause
from tradingbot_api.v1alpha1 import BotSettings, ReclaimPolicy, TradingBotSpec
from tradingbot_operator.certificates import KeyPair
from tradingbot_operator.inventory import Manifest, SeenBot

USER_ID: Final = 65532
TERMINATION_SECONDS: Final = 30
TMP_SIZE: Final = "16Mi"
DEFAULT_RESOURCES: Final[Manifest] = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}
SCRAPE_ANNOTATIONS: Final = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": str(names.PROBE_PORT),
    "prometheus.io/path": "/metrics",
}


class SpecError(Exception):
    """A spec that the API server let through and this operator cannot read; the message names the fields."""

    code = "InvalidSpec"


def parse_spec(bot: SeenBot) -> TradingBotSpec:
    """The typed spec; SpecError names every field that is wrong.

    Fields of a newer CRD are left out. The API server fills their defaults into every TradingBot as soon as the CRD is
    upgraded, before the operator is: refusing them would take the grants of all bots.
    """
    try:
        return TradingBotSpec.model_validate(bot.spec, extra="ignore")
    except ValidationError as error:
        raise SpecError("; ".join(f"{_path(item)}: {item['msg']}" for item in error.errors())) from error


def unknown_fields(bot: SeenBot) -> str:
    """What a human should know of fields that `parse_spec` leaves out; empty where there are none."""
    try:
        TradingBotSpec.model_validate(bot.spec)
    except ValidationError as error:
        unknown = sorted(_path(item) for item in error.errors() if item["type"] == "extra_forbidden")
        return f"Without effect until the operator is upgraded, which does not know them: {', '.join(unknown)}."
    return ""


def _path(item: ErrorDetails) -> str:
    return ".".join(["spec", *(str(part) for part in item["loc"])])


@dataclass(frozen=True)
class Identity:
    """Which TradingBot an object belongs to."""

    namespace: str
    name: str
    uid: str

    @classmethod
    def of(cls, bot: SeenBot) -> Identity:
        """Of a TradingBot."""
        return cls(bot.key.namespace, bot.key.name, bot.uid)


def labels(identity: Identity) -> dict[str, str]:
    """The labels of every object of a TradingBot."""
    return {
        "app.kubernetes.io/name": "tradingbot",
        "app.kubernetes.io/instance": identity.name,
        names.MANAGED_BY_LABEL: names.FIELD_MANAGER,
        names.BOT_LABEL: identity.name,
    }


def _metadata(identity: Identity, name: str, *, owned: bool = True) -> Manifest:
    metadata: Manifest = {"namespace": identity.namespace, "name": name, "labels": labels(identity)}
    if owned:
        metadata["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": identity.name,
                "uid": identity.uid,
                "controller": True,
                # Foreground deletion would otherwise wait for the pod, and the pod's end for our drain.
                "blockOwnerDeletion": False,
            }
        ]
    return metadata


def owned_by(raw: Manifest, uid: str) -> bool:
    """Whether an object's controller is the TradingBot of this UID."""
    owners = raw["metadata"].get("ownerReferences", ())
    return any(owner.get("controller") and owner["uid"] == uid for owner in owners)


def formerly_owned(raw: Manifest, identity: Identity) -> bool:
    """Whether an object's controller is a former TradingBot of this name: garbage collection will remove it."""
    owners = raw["metadata"].get("ownerReferences", ())
    return any(
        owner.get("controller") and (owner["kind"], owner["name"]) == (names.KIND, identity.name)
        for owner in owners
        if owner["uid"] != identity.uid
    )


def needs_other_pod(bot: SeenBot, spec: TradingBotSpec) -> bool:
    """Whether a TradingBot's pod must be made anew for another spec."""
    try:
        present = parse_spec(bot)
    except SpecError:
        return True
    identity = Identity.of(bot)
    return pod(identity, present, "", "") != pod(identity, spec, "", "")


# --- configuration ---


def settings_of(spec: TradingBotSpec) -> BotSettings:
    """The part of the spec that the bot acts on."""
    return BotSettings.model_validate({field: getattr(spec, field) for field in BotSettings.model_fields})


def cleared_causes(bot: SeenBot) -> tuple[str, ...]:
    """Ids of latched safe-mode causes that a human cleared by annotation."""
    return tuple(item.strip() for item in bot.annotations.get(names.CLEAR_ANNOTATION, "").split(",") if item.strip())


def bot_config(
    identity: Identity,
    settings: BotSettings,
    revision: int,
    cleared: tuple[str, ...] = (),
    imposed: tuple[ImposedCause, ...] = (),
) -> BotConfig:
    """The whole configuration of a bot."""
    bot = BotIdentity(namespace=identity.namespace, name=identity.name, uid=identity.uid)
    return BotConfig(revision=revision, bot=bot, settings=settings, cleared_causes=[*cleared], imposed=[*imposed])


def encode(config: BotConfig) -> str:
    """A configuration as it stands in the ConfigMap: the same content is the same text."""
    return json.dumps(config.sparse(), indent=2, sort_keys=True) + "\n"


def decode(raw: Manifest) -> BotConfig | None:
    """The configuration of a ConfigMap; None where it has none that can be read."""
    try:
        return BotConfig.model_validate_json(raw.get("data", {}).get(names.CONFIG_KEY, ""))
    except ValidationError:
        return None


def config_map(identity: Identity, config: BotConfig) -> Manifest:
    """The ConfigMap that the pod mounts."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(identity, names.config_map_name(identity.name)),
        "data": {names.CONFIG_KEY: encode(config)},
    }


# --- certificate, volume, pod ---


def tls_secret(identity: Identity, pair: KeyPair, authority: bytes) -> Manifest:
    """The immutable Secret with the bot's certificate."""
    data = {"tls.crt": pair.certificate, "tls.key": pair.key, "ca.crt": authority}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(identity, names.tls_secret_name(identity.name, identity.uid)),
        "type": "kubernetes.io/tls",
        "immutable": True,
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def volume_claim(identity: Identity, spec: TradingBotSpec) -> Manifest | None:
    """The volume claim of the bot's store; without an owner where it outlives the TradingBot."""
    if spec.storage is None:
        return None
    owned = spec.storage.reclaim_policy is ReclaimPolicy.DELETE
    metadata = _metadata(identity, names.volume_claim_name(identity.name), owned=owned)
    # Whose books it holds, also when its TradingBot is gone.
    metadata["labels"][names.BOT_UID_LABEL] = identity.uid
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": spec.storage.size}}},
    }


def _probe(path: str, **times: int) -> Manifest:
    return {"httpGet": {"path": path, "port": "probes"}, **times}


def pod(
    identity: Identity, spec: TradingBotSpec, image: str, pull_policy: str, *, scraped: bool = False, shard: str = ""
) -> Manifest:
    """The bot's pod: it satisfies Pod Security `restricted` and has no token of a service account.

    `scraped`: with annotations by which Prometheus finds it. `shard`: whose operator ends it, should its TradingBot be
    gone.
    """
    shape = spec.pod
    metadata = _metadata(identity, identity.name)
    # Ours win: they are what the operator finds its pods by.
    metadata["labels"] = {**shape.labels, **metadata["labels"], names.BOT_UID_LABEL: identity.uid}
    if shape.annotations:
        metadata["annotations"] = dict(shape.annotations)
    state: Manifest = {"emptyDir": {}}
    if spec.storage is not None:
        state = {"persistentVolumeClaim": {"claimName": names.volume_claim_name(identity.name)}}
    resources = DEFAULT_RESOURCES
    if shape.resources is not None:
        resources = shape.resources.model_dump(mode="json", by_alias=True)
    container: Manifest = {
        "name": "bot",
        "image": shape.image or image,
        "imagePullPolicy": pull_policy,
        "args": ["run", "--config", f"{names.CONFIG_DIR}/{names.CONFIG_KEY}"],
        "ports": [
            {"name": "probes", "containerPort": names.PROBE_PORT, "protocol": "TCP"},
            {"name": "control", "containerPort": names.CONTROL_PORT, "protocol": "TCP"},
        ],
        "resources": resources,
        # The kubelet restarts a bot that hangs; whether it trades is told by the status, not by a probe.
        "startupProbe": _probe("/healthz", periodSeconds=1, timeoutSeconds=5, failureThreshold=60),
        "livenessProbe": _probe("/healthz", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "readinessProbe": _probe("/readyz", periodSeconds=2, timeoutSeconds=5, failureThreshold=1),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": names.CONFIG_DIR, "readOnly": True},
            {"name": "tls", "mountPath": names.TLS_DIR, "readOnly": True},
            {"name": names.CREDENTIALS_VOLUME, "mountPath": names.CREDENTIALS_DIR, "readOnly": True},
            {"name": "podinfo", "mountPath": names.PODINFO_DIR, "readOnly": True},
            {"name": "state", "mountPath": names.STATE_DIR},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        ],
    }
    pod_spec: dict[str, Any] = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": TERMINATION_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": names.config_map_name(identity.name)}},
            {
                "name": "tls",
                "secret": {"secretName": names.tls_secret_name(identity.name, identity.uid), "defaultMode": 0o440},
            },
            {
                "name": names.CREDENTIALS_VOLUME,
                # Optional: the bot reports what is missing, so that the operator needs no right to read Secrets.
                "secret": {
                    "secretName": spec.exchange.credentials_secret_ref.name,
                    "optional": True,
                    "defaultMode": 0o440,
                },
            },
            # Safe mode by an annotation on the pod reaches the bot while no operator runs.
            {
                "name": "podinfo",
                "downwardAPI": {
                    "items": [{"path": names.ANNOTATIONS_FILE, "fieldRef": {"fieldPath": "metadata.annotations"}}]
                },
            },
            {"name": "state", **state},
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": TMP_SIZE}},
        ],
    }
    strategies = spec.strategy.config_map_ref
    if strategies is not None:
        # Optional: the bot reports that it does not know the strategy, and looks after a position all the same.
        source = {"name": strategies.name, "optional": True}
        pod_spec["volumes"].append({"name": "strategies", "configMap": source})
        mount = {"name": "strategies", "mountPath": names.STRATEGIES_DIR, "readOnly": True}
        container["volumeMounts"].append(mount)
    if shape.node_selector:
        pod_spec["nodeSelector"] = dict(shape.node_selector)
    if shape.tolerations:
        pod_spec["tolerations"] = list(shape.tolerations)
    if shape.affinity:
        pod_spec["affinity"] = shape.affinity
    if shape.priority_class_name:
        pod_spec["priorityClassName"] = shape.priority_class_name
    if shape.image_pull_secrets:
        pod_spec["imagePullSecrets"] = [{"name": item.name} for item in shape.image_pull_secrets]
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec}
    template = {names.POD_TEMPLATE_ANNOTATION: _digest(manifest)}
    # Not in the digest: who scrapes, or serves it, is no reason to restart a bot.
    metadata["labels"].pop(names.SHARD_LABEL, None)
    if shard:
        metadata["labels"][names.SHARD_LABEL] = shard
    metadata["annotations"] = {**(SCRAPE_ANNOTATIONS if scraped else {}), **shape.annotations, **template}
    return manifest


def _digest(manifest: Manifest) -> str:
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
