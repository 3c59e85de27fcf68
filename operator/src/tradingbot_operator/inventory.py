"""What was last seen of our kinds and of pods: typed views of watch events, in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from pydantic import BaseModel, ValidationError

from tradingbot_api import names
from tradingbot_api.sets import TradingBotSetStatus
from tradingbot_api.v1alpha1 import TradingBotStatus

Manifest = dict[str, Any]
"""A Kubernetes object as JSON, on its way to or from the API server."""


Status = TypeVar("Status", bound=BaseModel)


def read_status(model: type[Status], raw: Mapping[str, Any]) -> Status:
    """The status of an object, without the fields that are of another version."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        unread = {str(item["loc"][0]) for item in error.errors()}
    return model.model_validate({field: value for field, value in raw.items() if field not in unread})


class BotKey(NamedTuple):
    """A TradingBot, and its pod, or another object, by namespace (empty where its kind has none) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}".removeprefix("/")

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From the JSON of an object."""
        return cls(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])


class Controller(NamedTuple):
    """The object that a TradingBot was made by and belongs to."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True)
class SeenResource:
    """An object of one of our kinds as the API server last showed it."""

    resource: ClassVar[names.Resource]
    finalizer: ClassVar[str]
    """Ours, of that kind."""
    status_model: ClassVar[type[BaseModel]]

    key: BotKey
    uid: str
    resource_version: str
    generation: int
    created: datetime
    deleted: datetime | None
    finalizers: frozenset[str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    controller: Controller | None
    spec: Mapping[str, Any]
    told: BaseModel
    """The status that stands."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """From the JSON of the object."""
        metadata = raw["metadata"]
        return cls(
            key=BotKey.of(raw),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            generation=metadata["generation"],
            created=datetime.fromisoformat(metadata["creationTimestamp"]),
            deleted=datetime.fromisoformat(deleted) if (deleted := metadata.get("deletionTimestamp")) else None,
            finalizers=frozenset(metadata.get("finalizers", ())),
            labels=dict(metadata.get("labels", {})),
            annotations=dict(metadata.get("annotations", {})),
            controller=next(
                (
                    Controller(owner["kind"], owner["name"], owner["uid"])
                    for owner in metadata.get("ownerReferences", ())
                    if owner.get("controller")
                ),
                None,
            ),
            spec=dict(raw.get("spec", {})),
            told=read_status(cls.status_model, raw.get("status", {})),
        )

    def written(self, metadata: Manifest, told: BaseModel | None = None) -> Self:
        """As the answer to a write shows it: as it was seen, but for its metadata and a status that was written."""
        return replace(type(self).of({"metadata": metadata}), spec=self.spec, told=told or self.told)

    @property
    def shard(self) -> str:
        """The shard that it is labelled with; empty where it is not."""
        return self.labels.get(names.SHARD_LABEL, "")

    @property
    def finalizing(self) -> bool:
        """Our finalizer is on it."""
        return self.finalizer in self.finalizers


class SeenBot(SeenResource):
    """A TradingBot as the API server last showed it."""

    resource = names.TRADING_BOT
    finalizer = names.FINALIZER
    status_model = TradingBotStatus
    told: TradingBotStatus

    @cached_property
    def exchange(self) -> str:
        """Where it trades, as names.exchange_name makes it."""
        exchange = self.spec.get("exchange") or {}
        environment, base_url = str(exchange.get("environment", "")), exchange.get("baseURL")
        return names.exchange_name(environment, base_url, self.key.namespace)

    @property
    def told_position(self) -> bool:
        """Whether the status tells of a position."""
        position = self.told.position
        return position is not None and position.quantity != 0

    @property
    def safe_mode(self) -> bool:
        """spec.safeMode; absent means false."""
        return self.spec.get("safeMode") is True

    @property
    def suspended(self) -> bool:
        """spec.suspend; absent means false."""
        return self.spec.get("suspend") is True


class SeenSet(SeenResource):
    """A TradingBotSet as the API server last showed it."""

    resource = names.TRADING_BOT_SET
    finalizer = names.FINALIZER
    status_model = TradingBotSetStatus
    told: TradingBotSetStatus


class SetKey(NamedTuple):
    """A TradingBotSet by namespace and name; not equal to the key of a TradingBot of that name."""

    namespace: str
    name: str
    kind: str = names.TRADING_BOT_SET.kind

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class SeenContainer:
    """The bot's container as the kubelet last told."""

    running: bool = False
    started_once: bool = False
    restarts: int = 0
    waiting_reason: str = ""
    waiting_message: str = ""
    exit_reason: str = ""
    exit_code: int | None = None
    exited: datetime | None = None
    """When it ended last."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> SeenContainer:
        """From one item of status.containerStatuses."""
        state = raw.get("state", {})
        ended = state.get("terminated") or raw.get("lastState", {}).get("terminated") or {}
        waiting = state.get("waiting", {})
        return cls(
            running="running" in state,
            started_once="running" in state or bool(ended),
            restarts=raw.get("restartCount", 0),
            waiting_reason=waiting.get("reason", ""),
            waiting_message=waiting.get("message", ""),
            exit_reason=ended.get("reason", ""),
            exit_code=ended.get("exitCode"),
            exited=datetime.fromisoformat(exited) if (exited := ended.get("finishedAt")) else None,
        )


@dataclass(frozen=True)
class SeenPod:
    """A pod of ours as the API server last showed it."""

    key: BotKey
    uid: str
    resource_version: str
    owner_uid: str | None
    deleting: bool
    phase: str
    reason: str
    message: str
    disruption: str
    """Why the control plane ended it, where that was not asked for."""
    ip: str | None
    node: str | None
    node_selector: Mapping[str, str]
    ready: bool
    unschedulable: str
    container: SeenContainer
    credentials: str | None
    """Name of the Secret that it mounts the exchange keys from."""
    image: str
    memory_limit: str
    template: str
    """Digest of the manifest that it was made from; empty where a former operator did not write it."""
    shard: str
    """The shard that its TradingBot was of when it was made."""
    terminated: bool
    """The kubelet reported that no container of it runs and none will."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> SeenPod:
        """From the JSON of a pod."""
        metadata, status = raw["metadata"], raw.get("status", {})
        owners = [owner["uid"] for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
        conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
        containers = status.get("containerStatuses", [])
        phase = status.get("phase", "Pending")
        node = raw.get("spec", {}).get("nodeName")
        container: Manifest = next(iter(raw.get("spec", {}).get("containers", ())), {})
        deleting = "deletionTimestamp" in metadata
        ended = bool(containers) and all("terminated" in item.get("state", {}) for item in containers)
        # The pod garbage collector ends pods of a node that is lost: nobody looked whether the process runs.
        disruption = conditions.get("DisruptionTarget", {}).get("reason", "")
        collected = node is not None and disruption == "DeletionByPodGC"
        scheduled = conditions.get("PodScheduled", {})
        return cls(
            key=BotKey(metadata["namespace"], metadata["name"]),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            # Deleting a TradingBot with --cascade=orphan strips the owner; the process is still its own.
            owner_uid=owners[0] if owners else metadata.get("labels", {}).get(names.BOT_UID_LABEL),
            deleting=deleting,
            phase=phase,
            reason=status.get("reason", ""),
            message=status.get("message", ""),
            disruption=disruption,
            ip=status.get("podIP"),
            node=node,
            node_selector=raw.get("spec", {}).get("nodeSelector", {}),
            ready=conditions.get("Ready", {}).get("status") == "True",
            unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
            container=SeenContainer.of(containers[0]) if containers else SeenContainer(),
            credentials=next(
                (
                    volume.get("secret", {}).get("secretName")
                    for volume in raw.get("spec", {}).get("volumes", ())
                    if volume["name"] == names.CREDENTIALS_VOLUME
                ),
                None,
            ),
            image=container.get("image", ""),
            memory_limit=str(container.get("resources", {}).get("limits", {}).get("memory", "")),
            template=metadata.get("annotations", {}).get(names.POD_TEMPLATE_ANNOTATION, ""),
            shard=metadata.get("labels", {}).get(names.SHARD_LABEL, ""),
            # A container that ended restarts unless the pod is at its end or going.
            terminated=(phase in {"Failed", "Succeeded"} and not collected) or ((deleting or collected) and ended),
        )

    @property
    def never_ran(self) -> bool:
        """No process of it can exist or have existed: it was not given to a node."""
        return self.node is None

    @property
    def may_wait_for_mounts(self) -> bool:
        """Whether its container may be kept from a start, also from one after its node's, by what it mounts."""
        container = self.container
        waits = not container.running and container.waiting_reason in {"", "ContainerCreating"}
        return waits and not (self.never_ran or self.deleting or self.terminated)


class Seen(Protocol):
    """What an inventory needs to know of an object."""

    @property
    def key(self) -> BotKey:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its UID."""

    @property
    def resource_version(self) -> str:
        """Its version."""


T = TypeVar("T", bound=Seen)


def newer(version: str, than: str) -> bool:
    """Compares two resourceVersions of one resource; they are decimal numbers that grow."""
    return int(version) > int(than)


class Inventory(Generic[T]):
    """The last seen objects of one kind; older news than what is held are ignored."""

    def __init__(self) -> None:
        self._objects: dict[BotKey, T] = {}
        self.followers: list[Callable[[T | None, T | None], None]] = []
        """Are told of each change, with what was known before and what is known now."""

    def get(self, key: BotKey) -> T | None:
        """The object, or None where none is known."""
        return self._objects.get(key)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def is_news(self, key: BotKey, version: str) -> bool:
        """Whether a version of an object is newer than what is known of it."""
        known = self._objects.get(key)
        return known is None or newer(version, known.resource_version)

    def see(self, seen: T) -> bool:
        """Takes an object in; False where it was known or is older than what is."""
        if not self.is_news(seen.key, seen.resource_version):
            return False
        known = self._objects.get(seen.key)
        self._objects[seen.key] = seen
        for follow in self.followers:
            follow(known, seen)
        return True

    def gone(self, key: BotKey, uid: str) -> bool:
        """Drops an object unless another one of that name is there by now."""
        known = self._objects.get(key)
        if known is None or known.uid != uid:
            return False
        del self._objects[key]
        for follow in self.followers:
            follow(known, None)
        return True


@dataclass(frozen=True)
class Watched(Generic[T]):
    """A kind that is watched and listed, and who takes in what is seen of it; the same for watch events and lists."""

    group: str
    plural: str
    inventory: Inventory[T]
    of: Callable[[Manifest], T]
    see: Callable[[Manifest], None]
    """An object was seen."""
    gone: Callable[[T], None]
    """An object is gone; the last that was known of it."""
    optional: bool = False
    """A CRD of a former release may lack it."""
