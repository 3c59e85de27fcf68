"""A reverse proxy between one operator and the API server that numbers the writes and spoils what a test chooses.

The operator talks plain HTTP to a loopback port; the proxy talks to the API server with the rights of a kubeconfig.
Writes to the operator's own Lease are passed on, counted apart and never spoiled by a `Fault`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
import yaml
from aiohttp import web

from tradingbot_api import names
from tradingbot_operator.cluster import Access

MUTATING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP_HEADERS: Final = frozenset(
    {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "accept-encoding", "authorization"}
)
LOOK_SECONDS: Final = 0.05


class FaultKind(StrEnum):
    """What happens to one write."""

    KILL_BEFORE = "kill-before"
    """The operator is killed; the write never reaches the API server."""
    KILL_AFTER = "kill-after"
    """The API server did it; the operator is killed before it hears so."""
    STALE_RESTART = "stale-restart"
    """As KILL_AFTER, and the next operator reads, for `seconds`, what was true before the write."""
    ANSWER_LOST = "answer-lost"
    """The API server did it; the connection breaks instead of an answer."""
    RESET = "reset"
    """The connection breaks; the write never reaches the API server."""
    CONFLICT = "conflict"
    TOO_MANY = "too-many"
    SERVER_ERROR = "server-error"
    UNAUTHORIZED = "unauthorized"


REFUSALS: Final[dict[FaultKind, int]] = {
    FaultKind.CONFLICT: 409,
    FaultKind.TOO_MANY: 429,
    FaultKind.SERVER_ERROR: 500,
    FaultKind.UNAUTHORIZED: 401,
}


@dataclass(frozen=True)
class Fault:
    """Spoils the write of this number, once."""

    kind: FaultKind
    at: int
    """Number of the write, from 1, over all operators that used this proxy."""
    seconds: float = 4.0
    """How long reads are stale, from the first one."""


class WatchFaultKind(StrEnum):
    """What happens to one watch event."""

    DROP = "drop"
    REPEAT = "repeat"
    DELAY = "delay"
    """It and what follows in its stream come `seconds` later."""
    HANG = "hang"
    """Not a byte more comes in its stream, which stays open."""
    GONE = "gone"
    """410 comes instead, and the stream ends."""
    ERROR = "error"
    """An error of the server comes instead, and the stream ends."""
    UNAUTHORIZED = "watch-unauthorized"
    """The stream ends before it, and the next watch of the same objects is refused with 401: a token that expired."""


@dataclass(frozen=True)
class WatchFault:
    """Spoils the watch event of this number, once."""

    kind: WatchFaultKind
    at: int
    """Number of the event, from 1, over all watches; bookmarks do not count."""
    seconds: float = 3.0


@dataclass
class Mutation:
    """A write that the operator asked for."""

    number: int
    """0 for a write to the operator's own Lease."""
    verb: str
    what: str
    """Resource, name and subresource."""
    path: str
    status: int | None = None
    """The API server's answer, or the one made up for it; None where none was given."""
    reached: bool = False
    """Whether the API server was asked."""
    fault: FaultKind | None = None

    def __str__(self) -> str:
        told = f"{self.number:>3} {self.verb} {self.what} -> {self.status or 'no answer'}"
        return told + (f"  [{self.fault}]" if self.fault else "")


@dataclass
class FaultProxy:
    """`async with FaultProxy(access) as proxy`; set `plan`, `watch_plan` and the switches at any time."""

    access: Access
    plan: Fault | None = None
    watch_plan: WatchFault | None = None
    shut: str | None = None
    """The next watch of this path is refused with 401."""
    kill: Callable[[], Awaitable[None]] | None = None
    """Kills the operator and returns when it is dead; needed by the faults that kill."""
    silent: bool = False
    """Every watch stays open without a byte, the new ones too."""
    refusing: int | None = None
    """Every request is refused with this HTTP status."""
    frozen: bool = False
    """No request is answered, and no connection breaks."""
    token: str | None = None
    """Whoever shows another one is refused with 401."""
    requests: int = 0
    """All that was asked so far."""
    mutations: list[Mutation] = field(default_factory=list)
    """What was asked for, in order, without the operator's own Lease."""
    lease_writes: list[Mutation] = field(default_factory=list)
    events: int = 0
    """Watch events so far."""
    fired: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the plan, or the watch plan, has acted."""
    url: str = ""

    def __post_init__(self) -> None:
        self._upstream: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._stale: tuple[str, float | None] | None = None
        """The version that is read, and until when: not known before the first read."""
        self._stale_seconds = 0.0
        self._down = False
        self._watching: list[web.Request] = []
        self._streams: set[asyncio.Task[web.StreamResponse]] = set()
        """Kept here: nothing else refers to a watch whose client is gone."""

    @property
    def down(self) -> bool:
        """Every connection breaks, the open ones too, as if there were no API server."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        if down:
            self.cut_watches()

    @property
    def watches(self) -> int:
        """How many are open."""
        return sum(not _ended(request) for request in self._watching)

    def cut_watches(self) -> None:
        """Breaks every open watch, once."""
        for request in self._watching:
            _cut(request)

    async def __aenter__(self) -> Self:
        self._upstream = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.access.tls, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._streams:
            task.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._upstream is not None:
            await self._upstream.close()

    def kubeconfig(self, path: Path, token_file: Path | None = None) -> Path:
        """Writes a kubeconfig whose API server is this proxy."""
        token = {"token": "of-the-fault-proxy"} if token_file is None else {"tokenFile": str(token_file)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url}}],
            # The proxy has the rights; a token is sent so that 401 means an expired one.
            "users": [{"name": "proxy", "user": token}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    # --- one request ---

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if self.down:
            return _cut(request)
        while self.frozen and not _ended(request):  # noqa: ASYNC110 - a broken connection is not told
            await asyncio.sleep(LOOK_SECONDS)
        if self.token is not None and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _refusal(401)
        if self.refusing is not None:
            return _refusal(self.refusing)
        body = await request.read()
        if request.method in MUTATING:
            return await self._mutate(request, body)
        if "watch" in request.query:
            if self.shut == request.path:
                self.shut = None
                self.fired.set()
                return _refusal(401)
            stream = asyncio.create_task(self._watch(request))
            self._streams.add(stream)
            stream.add_done_callback(self._streams.discard)
            return await stream
        path, query = request.path, dict(request.query)
        if (version := self._stale_version()) and not _is_own_lease(path) and path.startswith(("/api/v1/", "/apis/")):
            return await self._read_stale(request, path, query, version)
        return await self._forward(request, body)

    async def _mutate(self, request: web.Request, body: bytes) -> web.StreamResponse:
        mutation = self._note(request, body)
        plan = self.plan
        if plan is None or mutation.number != plan.at:
            return await self._forward(request, body, mutation)
        self.plan = None
        mutation.fault = plan.kind
        try:
            return await self._spoil(request, body, mutation, plan)
        finally:
            self.fired.set()

    async def _spoil(self, request: web.Request, body: bytes, mutation: Mutation, plan: Fault) -> web.StreamResponse:
        if plan.kind in REFUSALS:
            mutation.status = REFUSALS[plan.kind]
            return _refusal(mutation.status)
        before = await self._version() if plan.kind is FaultKind.STALE_RESTART else ""
        if plan.kind not in {FaultKind.KILL_BEFORE, FaultKind.RESET}:
            await self._ask(request, body, mutation)
        if plan.kind in {FaultKind.KILL_BEFORE, FaultKind.KILL_AFTER, FaultKind.STALE_RESTART}:
            assert self.kill is not None, "a fault that kills needs FaultProxy.kill"
            await self.kill()
        if plan.kind is FaultKind.STALE_RESTART:
            self._stale = before, None
            self._stale_seconds = plan.seconds
        return _cut(request)

    def _note(self, request: web.Request, body: bytes) -> Mutation:
        resource, name, subresource = _parts(request.path)
        if not name and body:
            with suppress(ValueError, AttributeError):
                name = json.loads(body)["metadata"].get("name", "")
        own = resource == "leases" and name.startswith(names.FIELD_MANAGER)
        what = "/".join(part for part in (resource, name, subresource) if part)
        notes = self.lease_writes if own else self.mutations
        mutation = Mutation(0 if own else len(notes) + 1, request.method, what, request.path)
        notes.append(mutation)
        return mutation

    async def _ask(self, request: web.Request, body: bytes, mutation: Mutation | None) -> tuple[int, bytes, str]:
        """Asks the API server: status, body and content type."""
        async with self._call(request, body) as answer:
            content = await answer.read()
            if mutation is not None:
                mutation.status, mutation.reached = answer.status, True
            return answer.status, content, answer.headers.get("Content-Type", "application/json")

    async def _forward(self, request: web.Request, body: bytes, mutation: Mutation | None = None) -> web.StreamResponse:
        try:
            status, content, kind = await self._ask(request, body, mutation)
        except aiohttp.ClientError:
            return _cut(request)
        return web.Response(status=status, body=content, headers={"Content-Type": kind})

    def _call(
        self, request: web.Request, body: bytes = b"", path: str | None = None, query: dict[str, str] | None = None
    ) -> Any:
        assert self._upstream is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_HEADERS}
        headers["Accept-Encoding"] = "identity"
        return self._upstream.request(
            request.method,
            self.access.server + (path or request.path),
            params=dict(request.query) if query is None else query,
            data=body or None,
            headers=headers,
        )

    # --- an old state ---

    async def _version(self) -> str:
        """The version of the cluster's state as it is now."""
        assert self._upstream is not None
        async with self._upstream.get(self.access.server + "/api/v1/namespaces", params={"limit": "1"}) as answer:
            return str((await answer.json())["metadata"]["resourceVersion"])

    def _stale_version(self) -> str | None:
        if self._stale is None:
            return None
        version, until = self._stale
        now = asyncio.get_running_loop().time()
        if until is None:
            until = now + self._stale_seconds
            self._stale = version, until
        if now >= until:
            self._stale = None
            return None
        return version

    async def _read_stale(
        self, request: web.Request, path: str, query: dict[str, str], version: str
    ) -> web.StreamResponse:
        """The answer as of a version: the API server keeps old states for some minutes."""
        resource, name, _ = _parts(path)
        if not resource:
            return await self._forward(request, b"")
        if "continue" not in query:
            query |= {"resourceVersion": version, "resourceVersionMatch": "Exact"}
        if name:
            query["fieldSelector"] = f"metadata.name={name}"
            path = path.rsplit("/", 1)[0]
        async with self._call(request, b"", path, query) as answer:
            content = await answer.read()
            status, kind = answer.status, answer.headers.get("Content-Type", "application/json")
        if not name or status != 200:
            return web.Response(status=status, body=content, headers={"Content-Type": kind})
        page = json.loads(content)
        if not page.get("items"):
            return _refusal(404)
        first = page["items"][0]
        first |= {"apiVersion": page["apiVersion"], "kind": page["kind"].removesuffix("List")}
        return web.json_response(first)

    # --- a watch ---

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        self._watching.append(request)
        try:
            async with self._call(request) as answer:
                response.set_status(answer.status)
                await response.prepare(request)
                while self._stale_version():  # noqa: ASYNC110 - a time passes, nothing is told
                    # A server that lags behind has no news either.
                    await asyncio.sleep(LOOK_SECONDS)
                await self._stream(request, answer, response)
        except (aiohttp.ClientError, ConnectionError):
            return _cut(request)
        finally:
            self._watching.remove(request)
        return response

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
        rest = b""
        async for chunk in answer.content.iter_any():
            # Lines may be longer than what a line reader takes.
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                # Nobody listens to a watch that was given up: a fault there would be for nothing.
                if _ended(request) or not await self._tell(request, line + b"\n", response):
                    return
        if rest:
            await response.write(rest)

    async def _tell(self, request: web.Request, line: bytes, response: web.StreamResponse) -> bool:
        """Passes one event on, or what a fault makes of it; whether the stream goes on."""
        while self.silent and not _ended(request):  # noqa: ASYNC110 - a broken connection is not told
            await asyncio.sleep(LOOK_SECONDS)
        plan = self.watch_plan
        if b'"type":"BOOKMARK"' not in line[:40]:
            self.events += 1
        if plan is None or self.events != plan.at or b'"type":"BOOKMARK"' in line[:40]:
            await response.write(line)
            return True
        self.watch_plan = None
        if plan.kind is WatchFaultKind.UNAUTHORIZED:
            self.shut = request.path  # it has acted once that is told
            return False
        self.fired.set()
        match plan.kind:
            case WatchFaultKind.DROP:
                return True
            case WatchFaultKind.REPEAT:
                await response.write(line)
                await response.write(line)
            case WatchFaultKind.DELAY:
                await asyncio.sleep(plan.seconds)
                await response.write(line)
            case WatchFaultKind.HANG:
                while not _ended(request):  # noqa: ASYNC110 - a broken connection is not told
                    await asyncio.sleep(LOOK_SECONDS)
                return False
            case WatchFaultKind.GONE | WatchFaultKind.ERROR:
                error = {"type": "ERROR", "object": _status(410 if plan.kind is WatchFaultKind.GONE else 500)}
                await response.write(json.dumps(error).encode() + b"\n")
                return False
        return True


def _ended(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _cut(request: web.Request) -> web.Response:
    """The connection breaks without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _status(code: int) -> dict[str, Any]:
    reasons = {
        401: ("Unauthorized", "the token expired"),
        404: ("NotFound", "not found"),
        409: ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410: ("Expired", "too old resource version"),
        429: ("TooManyRequests", "the server is busy"),
    }
    reason, message = reasons.get(code, ("InternalError", "the server has an error"))
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }


def _refusal(code: int) -> web.Response:
    headers = {"Retry-After": "1"} if code == 429 else {}
    return web.json_response(_status(code), status=code, headers=headers)


def _parts(path: str) -> tuple[str, str, str]:
    """Resource, name and subresource of an API path; empty where it has none."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    resource, name, subresource, *_ = [*rest, "", "", ""]
    return resource, name, subresource


def _is_own_lease(path: str) -> bool:
    resource, name, _ = _parts(path)
    return resource == "leases" and name.startswith(names.FIELD_MANAGER)
