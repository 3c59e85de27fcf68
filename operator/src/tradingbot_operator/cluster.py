"""The only module that writes to the Kubernetes API: raw JSON, a deadline on every call, one field manager.

Permissions, in the namespaces that are served:

    configmaps                        create get list patch
    clusterkillswitches               get list patch watch      (patch: the finalizer; where all namespaces are served)
    clusterkillswitches/status        patch
    events (core)                     create
    killswitches                      get list patch watch      (patch: the finalizer)
    killswitches/status               patch
    persistentvolumeclaims            create get patch          (patch: label and owner of one that is taken up)
    pods                              create delete get list watch
    secrets                           create
    tradingbots                       get list patch watch      (patch: finalizer, tradingbot.dev/clear, shard)
    tradingbots/status                patch
    tradingbotsets                    get list watch
    tradingbotsets/status             patch

and in the namespace of the claims:

    leases                            create delete get list update

and, where the chart enables TradingBotSets, in the namespaces that are served:

    tradingbots                       create delete
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import kopf
import structlog
from kubernetes.aio import client, config
from pydantic import BaseModel

from tradingbot_api import names
from tradingbot_operator import status as statuses
from tradingbot_operator.inventory import Manifest, SeenBot, SeenResource, read_status
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.settings import SettingsError
from tradingbot_operator.status import Notice

REQUEST_SECONDS: Final = 10.0
CONNECT_SECONDS: Final = 5.0
CONNECTIONS: Final = 32
LIST_CHUNK: Final = 100
"""Objects a page: to read one stops all else for some milliseconds."""
LONGEST_HOLD_SECONDS: Final = 60.0
RELOGIN_SECONDS: Final = 1.0
UNDECLARED_SECONDS: Final = 300.0
"""So long a field that the CRD does not have is left out before it is tried again."""

APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
METADATA: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METHODS: Final = {
    "get": "GET",
    "list": "GET",
    "create": "POST",
    "update": "PUT",
    "patch": "PATCH",
    "delete": "DELETE",
}
Seen = TypeVar("Seen", bound=SeenResource)
MANAGED: Final = f"{names.MANAGED_BY_LABEL}={names.FIELD_MANAGER}"


log = structlog.get_logger(__name__)


class ApiError(Exception):
    """The API server refused a call or could not be reached."""

    code = "ApiError"

    def __init__(
        self, status: int, reason: str, message: str, retry_after: float = 0.0, causes: frozenset[str] = frozenset()
    ) -> None:
        """`retry_after`: seconds for which the server wants no call, where it says so; `causes`: reasons of details."""
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.causes = causes

    @property
    def namespace_going(self) -> bool:
        """The namespace is being deleted: nothing can be made in it any more."""
        return "NamespaceTerminating" in self.causes

    @property
    def passing(self) -> bool:
        """It may well not happen again: no answer, a name or version that changed meanwhile, a busy server."""
        return isinstance(self, UnreachableError | ConflictError | NotFoundError) or self.status in {401, 429, 503, 504}

    @property
    def other_object(self) -> bool:
        """The object of this UID is gone; not so for a conflict with somebody who wrote at the same time.

        The API server names the UID then: "uid mismatch: ... no existing object was found", "Precondition failed: UID".
        """
        said = self.message.lower()
        uid = "uid mismatch" in said or "precondition failed: uid" in said
        return isinstance(self, NotFoundError) or (isinstance(self, ConflictError) and uid)


class NotFoundError(ApiError):
    """The object is not there."""

    code = "NotFound"


class ConflictError(ApiError):
    """The object is there already, or changed since it was read."""

    code = "Conflict"


class ExistsError(ConflictError):
    """The name is taken. Other conflicts of a creation say nothing of the object, as one over a quota's count."""

    code = "AlreadyExists"


class UnreachableError(ApiError):
    """No answer in time: the call may have had its effect."""

    code = "Unreachable"


_SURROGATES: Final = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")


def encode(body: Manifest) -> str:
    """JSON that is YAML too, as the API server reads what is applied.

    YAML has no pairs of escapes for a character beyond 16 bits: such a one stands for itself. Control characters stay
    escaped, since YAML takes none of them as they are.
    """
    return _SURROGATES.sub(lambda pair: str(json.loads(f'"{pair[0]}"')), json.dumps(body))


def _error(status: int, body: str, retry_after: float) -> ApiError:
    try:
        answer = json.loads(body)
        reason, message = answer.get("reason", ""), answer.get("message", "")
        details = answer.get("details") or {}
        causes = frozenset(str(cause.get("reason")) for cause in details.get("causes") or ())
    except (ValueError, AttributeError):
        reason, message, causes = "", body[:200], frozenset()
    kind = {404: NotFoundError, 409: ExistsError if reason == ExistsError.code else ConflictError}.get(status, ApiError)
    return kind(status, reason, message, retry_after, causes)


def undeclared_fields(message: str) -> frozenset[str]:
    """The fields of a status in which server-side apply found something that the CRD does not have."""
    return frozenset(re.findall(r"\.status\.(\w+)[^:\s]*: field not declared in schema", message))


def _signed(headers: Mapping[str, str], authorization: str | None) -> dict[str, str]:
    return {**headers, "Authorization": authorization} if authorization is not None else dict(headers)


def _seconds(header: str | None) -> float:
    """Retry-After as the API server writes it; a date counts as not told."""
    return min(float(header), LONGEST_HOLD_SECONDS) if header is not None and header.isdigit() else 0.0


def fencing(fence: Callable[[], None]) -> aiohttp.TraceConfig:
    """Calls `fence` when a request with a true `trace_request_ctx` has its connection and is sent at once.

    A check before the request would leave a gap: it may wait for a connection, and a stopped process wakes up there.
    """

    async def check(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        if context.trace_request_ctx:
            fence()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(check)
    trace.on_connection_reuseconn.append(check)
    return trace


class Access:
    """How to reach the API server, from the pod's service account or a kubeconfig."""

    def __init__(self, configuration: client.Configuration, kubeconfig: str | None = None) -> None:
        self._configuration = configuration
        self._kubeconfig = kubeconfig
        self._logins = itertools.count()
        self._last_login = 0.0
        self.server = str(configuration.host).rstrip("/")
        self.tls: ssl.SSLContext | bool = False
        if self.server.startswith("https"):
            self.tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
            if configuration.cert_file:
                self.tls.load_cert_chain(configuration.cert_file, configuration.key_file)
            if not configuration.verify_ssl:
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE

    @classmethod
    async def load(cls, kubeconfig: str | None) -> Access:
        """Reads the kubeconfig, or with None the pod's service account; SettingsError where that fails."""
        try:
            return cls(await _configuration(kubeconfig), kubeconfig)
        except (config.ConfigException, OSError) as error:
            place = "the pod's service account" if kubeconfig is None else kubeconfig
            raise SettingsError(f"--kubeconfig: cannot reach a cluster with {place}: {error}") from error

    async def authorization(self) -> str | None:
        """The header's present value: a service account's token is read again each minute."""
        token = await self._configuration.get_api_key_with_prefix("BearerToken")
        return None if token is None else str(token)

    async def renewed(self, refused: str | None) -> bool:
        """Whether there is another authorization than the one that was just refused: the files are read again."""
        if await self.authorization() == refused:
            try:
                self._configuration = await _configuration(self._kubeconfig)
            except (config.ConfigException, OSError):
                return False
        return await self.authorization() != refused

    async def for_kopf(self) -> kopf.ConnectionInfo:
        """The same access for kopf, which asks again when it is refused."""
        loop = asyncio.get_running_loop()
        attempt = next(self._logins)
        if attempt:
            await asyncio.sleep(self._last_login + RELOGIN_SECONDS - loop.time())
            await self.renewed(await self.authorization())
        self._last_login = loop.time()
        scheme, _, token = (await self.authorization() or "").partition(" ")
        configuration = self._configuration
        return kopf.ConnectionInfo(
            server=self.server,
            ca_path=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
            # kopf ends when it is given what was refused before, but an API server that starts may refuse anybody.
            priority=attempt,
        )


async def _configuration(kubeconfig: str | None) -> client.Configuration:
    configuration = client.Configuration()
    if kubeconfig is None:
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    return configuration


class Cluster:
    """Calls to the API server. Reads and writes give the object as JSON and raise ApiError.

    `fence` raises where this process may not write; it is asked just before each write is sent. While the server
    wants no call (429 with Retry-After), calls fail at once with that error.
    """

    def __init__(
        self,
        access: Access,
        metrics: Metrics,
        *,
        fence: Callable[[], None] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> None:
        self._access = access
        self._metrics = metrics
        self._held_until = 0.0
        self._undeclared: frozenset[str] = frozenset()
        self._undeclared_until = 0.0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=access.tls),
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS)),
            trace_configs=[fencing(fence)] if fence is not None else [],
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def _call(
        self,
        verb: str,
        path: str,
        body: Manifest | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> Manifest:
        headers = {"Accept": accept, "Content-Type": content, "User-Agent": names.FIELD_MANAGER}
        authorization = await self._access.authorization()
        try:
            return await self._send(verb, path, body, params, _signed(headers, authorization))
        except ApiError as error:
            # A token that expired: its file has another one by now.
            if error.status != 401 or not await self._access.renewed(authorization):
                raise
        return await self._send(verb, path, body, params, _signed(headers, await self._access.authorization()))

    async def _send(
        self,
        verb: str,
        path: str,
        body: Manifest | None,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Manifest:
        resource = _resource(path)
        code = "none"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        if begun < self._held_until:
            left = self._held_until - begun
            raise ApiError(429, "TooManyRequests", f"the API server wants no call for {left:.1f} s", left)
        try:
            async with self._session.request(
                METHODS[verb],
                self._access.server + path,
                params=params,
                data=None if body is None else encode(body),
                headers=headers,
                trace_request_ctx=METHODS[verb] != "GET",
            ) as response:
                text = await response.text()
                code = str(response.status)
                if response.status >= 400:
                    retry_after = _seconds(response.headers.get("Retry-After"))
                    if response.status == 429:
                        self._held_until = max(self._held_until, loop.time() + retry_after)
                    raise _error(response.status, text, retry_after)
                answer: Manifest = json.loads(text)
                return answer
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UnreachableError(0, "Unreachable", f"{verb} {resource}: {type(error).__name__} {error}") from error
        finally:
            self._metrics.api_requests.labels(verb, resource, code).inc()
            self._metrics.api_seconds.observe(loop.time() - begun)

    # --- reading ---

    async def served(self) -> bool:
        """Whether the API server knows TradingBots."""
        try:
            await self._call("get", f"/apis/{names.API_VERSION}")
        except NotFoundError:
            return False
        return True

    async def published_schema(self) -> Manifest:
        """The OpenAPI document of the TradingBots that the API server serves; anybody may read it."""
        return await self._call("get", f"/openapi/v3/apis/{names.API_VERSION}")

    async def list_all(
        self, resource: str, namespaces: tuple[str, ...], *, metadata_only: bool = False
    ) -> list[Manifest]:
        """All objects of a kind of ours, or those of another kind that are made for TradingBots, in the namespaces;
        none named means all."""
        items: list[Manifest] = []
        for namespace in ("",) if resource in CLUSTER_SCOPED else namespaces or ("",):
            params = {"limit": str(LIST_CHUNK)}
            if resource not in OURS:
                params["labelSelector"] = MANAGED
            while True:
                page = await self._call(
                    "list",
                    _path(resource, namespace),
                    params=params,
                    accept=METADATA_LIST if metadata_only else "application/json",
                )
                items += page.get("items") or []  # null where a metadata list is empty
                if not (following := page.get("metadata", {}).get("continue")):
                    break
                params["continue"] = following
        return items

    async def get(self, resource: str, namespace: str, name: str) -> Manifest | None:
        """One object, or None where it is not there."""
        try:
            return await self._call("get", _path(resource, namespace, name))
        except NotFoundError:
            return None

    async def claims_of(self, namespace: str, uid_label: str) -> list[Manifest]:
        """The Leases that a label selector finds."""
        page = await self._call("list", _path("leases", namespace), params={"labelSelector": uid_label})
        return page.get("items") or []

    # --- writing ---

    async def create(self, resource: str, manifest: Manifest, *, whole: bool = True) -> Manifest:
        """Makes an object; ExistsError where the name is taken. The answer has its metadata at least."""
        return await self._call(
            "create",
            _path(resource, manifest["metadata"]["namespace"]),
            manifest,
            params={"fieldManager": names.FIELD_MANAGER},
            accept="application/json" if whole else METADATA,
        )

    async def try_create(self, resource: str, manifest: Manifest) -> None:
        """A dry run of making an object, which writes nothing."""
        params = {"fieldManager": names.FIELD_MANAGER, "dryRun": "All"}
        await self._call("create", _path(resource, manifest["metadata"]["namespace"]), manifest, params=params)

    async def refusal(self, resource: str, manifest: Manifest) -> str:
        """Why an object could not be made, empty where it could: a dry run, which writes nothing. That the name is
        taken, or a quota full, does not count: what is asked for may be to take the place of what is there."""
        try:
            await self.try_create(resource, manifest)
        except ApiError as error:
            if error.status not in {400, 403, 422} or "exceeded quota" in error.message:
                return ""
            return str(error)
        return ""

    async def replace(self, resource: str, manifest: Manifest) -> Manifest:
        """Writes a whole object that was read before; ConflictError where it changed since."""
        metadata = manifest["metadata"]
        return await self._call(
            "update",
            _path(resource, metadata["namespace"], metadata["name"]),
            manifest,
            params={"fieldManager": names.FIELD_MANAGER},
        )

    async def apply(
        self,
        resource: str,
        manifest: Manifest,
        subresource: str = "",
        *,
        manager: str = names.FIELD_MANAGER,
        whole: bool = True,
    ) -> Manifest:
        """Server-side apply of the fields that are ours, or another of our field managers'.

        The manifest carries the UID: applying to a name that is gone would make a new object otherwise. One that is to
        make an object carries a version that none has. The answer has its metadata at least.
        """
        metadata = manifest["metadata"]
        return await self._call(
            "patch",
            _path(resource, metadata.get("namespace", ""), metadata["name"], subresource),
            manifest,
            params={"fieldManager": manager, "force": "true"},
            content=APPLY,
            accept="application/json" if whole else METADATA,
        )

    async def delete(self, resource: str, namespace: str, name: str, uid: str, version: str | None = None) -> None:
        """Deletes the object of this UID (and version) in its own time; one that is gone is no error."""
        preconditions = {"uid": uid} if version is None else {"uid": uid, "resourceVersion": version}
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        try:
            await self._call("delete", _path(resource, namespace, name), body)
        except NotFoundError:
            return

    async def set_finalizer(self, seen: Seen, *, present: bool) -> Seen:
        """Puts our finalizer on an object or takes it off; others' stay. The object as it is then.

        ConflictError where it changed since it was seen: the answer would hide the change from the watch.
        """
        manifest = _header(seen)
        if present:
            manifest["metadata"] |= {"finalizers": [seen.finalizer], "resourceVersion": seen.resource_version}
        metadata = (await self.apply(seen.resource.plural, manifest, whole=False))["metadata"]
        there = metadata.get("finalizers", [])
        if not present and seen.finalizer in there:
            # Another's too, as who made the object from a manifest that has it: what they own stays when we apply.
            left = {"resourceVersion": metadata["resourceVersion"], "finalizers": sorted({*there} - {seen.finalizer})}
            metadata = (await self._merge(seen, left))["metadata"]
        return seen.written(metadata)

    async def _merge(self, seen: SeenResource, metadata: Manifest) -> Manifest:
        """Changes the metadata of an object, whoever wrote what is there; ConflictError where it is another version."""
        path = _path(seen.resource.plural, seen.key.namespace, seen.key.name)
        params, body = {"fieldManager": names.FIELD_MANAGER}, {"metadata": {"uid": seen.uid, **metadata}}
        return await self._call("patch", path, body, params=params, content=MERGE)

    async def set_shard(self, bot: SeenBot, shard: str) -> Manifest:
        """Labels a TradingBot with a shard, or with none, whoever labelled it before; ConflictError where it changed
        since it was seen."""
        labels = {names.SHARD_LABEL: shard or None}
        return await self._merge(bot, {"resourceVersion": bot.resource_version, "labels": labels})

    async def remove_annotation(self, bot: SeenBot, annotation: str) -> None:
        """Takes an annotation off a TradingBot whoever set it; ConflictError where it changed since it was seen."""
        await self._merge(bot, {"resourceVersion": bot.resource_version, "annotations": {annotation: None}})

    async def apply_status(self, seen: Seen, status: BaseModel) -> Seen:
        """Writes the whole status of an object as it was seen; ConflictError where it changed since. The object as it
        is then.

        Fields that the CRD of a former release does not have are left out: server-side apply refuses them, and with
        them all others.
        """
        while True:
            try:
                return await self._apply_status(seen, status)
            except ApiError as error:
                # One at a time: the API server names no more.
                unknown = undeclared_fields(error.message) - self.undeclared
                if not unknown:
                    raise
                self._undeclared = self.undeclared | unknown
                self._undeclared_until = asyncio.get_running_loop().time() + UNDECLARED_SECONDS
                log.warning("the CRD is older than this operator: apply the present one", left_out=sorted(unknown))

    async def _apply_status(self, seen: Seen, status: BaseModel) -> Seen:
        whole = statuses.encode(status)
        manifest = _header(seen) | {"status": self.declared(whole)}
        manifest["metadata"]["resourceVersion"] = seen.resource_version
        answer = await self.apply(seen.resource.plural, manifest, "status", whole=False)
        # It is as it was seen but for what was written: it has not changed since, or this was refused.
        told = status if manifest["status"] == whole else read_status(seen.status_model, manifest["status"])
        return seen.written(answer["metadata"], told)

    def declared(self, status: Manifest) -> Manifest:
        """A status without the `undeclared` fields."""
        return {field: value for field, value in status.items() if field not in self.undeclared}

    @property
    def undeclared(self) -> frozenset[str]:
        """Fields of a status that the CRD was found not to have, for a while: it may be upgraded at any time."""
        return self._undeclared if asyncio.get_running_loop().time() < self._undeclared_until else frozenset()

    async def create_event(
        self, seen: SeenResource, event_name: str, notice: Notice, *, now: datetime, reporter: str
    ) -> None:
        """Posts an event on an object; one without a namespace has them in `default`."""
        namespace = seen.key.namespace
        time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        await self.create(
            "events",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"namespace": namespace or "default", "name": event_name},
                "involvedObject": {
                    "apiVersion": names.API_VERSION,
                    "kind": seen.resource.kind,
                    **({"namespace": namespace} if namespace else {}),
                    "name": seen.key.name,
                    "uid": seen.uid,
                    "resourceVersion": seen.resource_version,
                },
                "type": "Warning" if notice.warning else "Normal",
                "reason": notice.reason,
                "message": notice.message[:1024],
                "firstTimestamp": time,
                "lastTimestamp": time,
                "count": 1,
                "source": {"component": names.FIELD_MANAGER},
                "reportingComponent": names.FIELD_MANAGER,
                "reportingInstance": reporter,
            },
            whole=False,
        )


KINDS: Final = (names.TRADING_BOT, names.TRADING_BOT_SET, names.KILL_SWITCH, names.CLUSTER_KILL_SWITCH)
OURS: Final = frozenset(kind.plural for kind in KINDS)
CLUSTER_SCOPED: Final = frozenset(kind.plural for kind in KINDS if not kind.namespaced)
_PREFIX: Final = {
    **dict.fromkeys(OURS, f"/apis/{names.API_VERSION}"),
    "deployments": "/apis/apps/v1",
    "leases": "/apis/coordination.k8s.io/v1",
}


def _path(resource: str, namespace: str, name: str = "", subresource: str = "") -> str:
    parts = [_PREFIX.get(resource, "/api/v1")]
    if namespace:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource)
    parts += [quote(part, safe="") for part in (name, subresource) if part]
    return "/".join(parts)


def _resource(path: str) -> str:
    """The resource of a path, with its subresource; for metrics."""
    parts = path.split("/")
    if "namespaces" in parts:
        rest = parts[parts.index("namespaces") + 2 :]
        return "/".join(rest[:1] + rest[2:3])
    for plural in CLUSTER_SCOPED.intersection(parts):
        return "/".join([plural, *parts[parts.index(plural) + 2 :]])
    return parts[-1]


def _header(seen: SeenResource) -> Manifest:
    metadata = {"name": seen.key.name, "uid": seen.uid}
    if seen.key.namespace:
        metadata["namespace"] = seen.key.namespace
    return {"apiVersion": names.API_VERSION, "kind": seen.resource.kind, "metadata": metadata}
