"""Plays the processes of all bots on kwok nodes in one process, by their HTTP contract over mTLS.

    python -m performance.scale.light_bots KUBECONFIG NAMESPACE

Pods of kwok have loopback addresses: each bot listens on its pod's, with the certificate of its own Secret. What the
measurement must know of a bot is a JSON line on stdout: that it listens, that safe mode came to be engaged, and the
first grant of each leader; times are of the machine's monotonic clock, the same for every process.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import ssl
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from support.kube import Json, Kube
from tradingbot.monitoring.http_api import control_tls
from tradingbot_api import names
from tradingbot_api.bot_http import (
    EPOCH_NOT_LEADER,
    EPOCH_PAST,
    GRANT_TTL_SECONDS,
    HEARTBEAT_SECONDS,
    SETTINGS_SAFE_MODE,
    AccountBooks,
    AssetClaim,
    BotConfig,
    BotStatus,
    GrantStatus,
)
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.v1alpha1 import (
    BalanceStatus,
    CircuitBreakerStatus,
    Condition,
    OrdersStatus,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    SafeModeStatus,
    TradesStatus,
    UsageStatus,
)

ACCOUNT = "1001"
"""One account for all: what is said of an account is then said of as many bots as there are."""
RICH = Decimal(10**9)
COMPARED_SECONDS = 60
STARTED = 1000


def tell(**what: Any) -> None:
    """A line for the measurement."""
    sys.stdout.write(json.dumps({**what, "at": time.monotonic()}) + "\n")
    sys.stdout.flush()


class LightBot:
    """A flat bot that is in order: it takes each configuration and grant, and tells so."""

    def __init__(self, config: BotConfig) -> None:
        self.name = config.bot.name
        self._revision = config.revision
        self._wanted_safe = config.settings.safe_mode is True
        self._imposed: list[Json] = []
        self._spec_safe = self._wanted_safe
        self._granted_until = 0.0
        self._epoch = 0
        self._news: set[asyncio.Event] = set()
        self._boot = uuid.uuid4().hex
        self._sequence = 0
        self._line: Json = self._whole(config)
        self._server: asyncio.Server | None = None

    def _whole(self, config: BotConfig) -> Json:
        """What it tells, but for what `line` changes."""
        base, quote, nothing, now = config.settings.symbol.removesuffix("USDT"), "USDT", Decimal(0), datetime.now(UTC)
        said = {
            ConditionType.CONFIG_APPLIED: Reason.OK,
            ConditionType.BALANCE_SYNCED: Reason.COVERED,
            ConditionType.CAPITAL_COVERED: Reason.OK,
            ConditionType.CIRCUIT_CLOSED: Reason.OK,
            ConditionType.PROTECTED: Reason.FLAT,
        }
        status = BotStatus(
            bot_uid=config.bot.uid,
            boot_id=self._boot,
            incarnation=STARTED,
            sequence=0,
            applied_revision=0,
            time=now,
            version="light",
            ready=True,
            symbol=config.settings.symbol,
            account_uid=ACCOUNT,
            grant=GrantStatus(held=False),
            conditions=[Condition(type=kind, status="True", reason=reason) for kind, reason in said.items()],
            circuit_breaker=CircuitBreakerStatus(state="Closed"),
            safe_mode=SafeModeStatus(level="NoNewEntries", engaged=True, acknowledged=True),
            balance=BalanceStatus(base=nothing, quote=RICH, drift=nothing, last_sync_time=now),
            position=PositionStatus(
                side="Flat", quantity=nothing, average_price=nothing, value=nothing, validated=True
            ),
            pnl=PnLStatus(realized=nothing, unrealized=nothing, total=nothing),
            risk=RiskStatus(level="Low", drawdown=nothing),
            orders=OrdersStatus(active=0, oco=0, last_check_time=now),
            trades=TradesStatus(total=0, successful=0, failed=0),
            usage=UsageStatus(memory_bytes=2**26, cpu_seconds=Decimal(1)),
            announced=True,
            base_claim=AssetClaim(asset=base, claimed=nothing, held=nothing),
            quote_claim=AssetClaim(asset=quote, claimed=config.settings.capital, held=RICH),
            account_books=AccountBooks(held={base: nothing, quote: RICH}, compared_time=now, listening_since=1),
        )
        return status.model_dump(mode="json", by_alias=True, exclude_none=True)

    async def listen(self, address: str, tls: ssl.SSLContext) -> None:
        """Answer on the pod's address from now on."""
        loop = asyncio.get_running_loop()
        server = web.Server(self._answer)  # type: ignore[arg-type]
        self._server = await loop.create_server(server, address, names.CONTROL_PORT, ssl=tls, backlog=16)
        tell(listening=self.name)

    def end(self) -> None:
        """Like a process that is killed."""
        if self._server is not None:
            self._server.close()

    # --- what it is asked ---

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        match request.method, request.path:
            case "GET", "/v1/status/stream":
                return await self._stream(request)
            case "PUT", "/v1/config":
                return self._configure(await request.json())
            case "PUT", "/v1/grant":
                return self._grant(await request.json())
        return web.json_response({"code": "NotFound", "message": request.path}, status=404)

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        news = asyncio.Event()
        self._news.add(news)
        try:
            while True:
                news.clear()
                await response.write(self.line())
                with suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await news.wait()
        except ConnectionError:
            return response
        finally:
            self._news.discard(news)

    def _configure(self, body: Json) -> web.Response:
        # Also for the sake of what is imposed from outside the spec.
        safe = body["settings"].get("safeMode") is True
        imposed = [{name: told for name, told in cause.items() if told} for cause in body.get("imposed", ())]
        if body.get("epoch") == EPOCH_NOT_LEADER:
            if safe:
                self._imposed += [cause for cause in imposed if cause not in self._imposed]
                self._want_safe(safe)
                self._wake()
            return _refusal(EPOCH_PAST, "only the tightening is taken")
        self._revision = body["revision"]
        self._imposed = imposed
        self._spec_safe = body.get(SETTINGS_SAFE_MODE, safe) is True
        self._want_safe(safe)
        self._wake()
        return web.json_response({"revision": self._revision, "inForce": True})

    def _want_safe(self, safe: bool) -> None:
        if safe and not self._wanted_safe:
            tell(engaged=self.name)
        self._wanted_safe = safe

    def _grant(self, body: Json) -> web.Response:
        if (body["bootId"], body["revision"], body["incarnation"]) != (self._boot, self._revision, STARTED):
            return _refusal("Mismatch", "the grant is not for this process and configuration")
        if self._epoch != body["epoch"]:
            self._epoch = body["epoch"]
            tell(granted=self.name, epoch=self._epoch)
        held = self._granted
        self._granted_until = time.monotonic() + GRANT_TTL_SECONDS
        if not held:
            self._wake()
        return web.json_response({"expiresInSeconds": GRANT_TTL_SECONDS})

    # --- what it tells ---

    @property
    def _granted(self) -> bool:
        return time.monotonic() < self._granted_until

    def _wake(self) -> None:
        for news in self._news:
            news.set()

    def line(self) -> bytes:
        """The present line of its stream."""
        self._sequence += 1
        now = datetime.now(UTC).isoformat()
        causes = list(self._imposed)
        if self._wanted_safe and (self._spec_safe or not self._imposed):
            causes.append({"id": "spec", "source": "Spec", "reason": Reason.SPEC, "level": "NoNewEntries"})
        if not self._granted:
            causes.append(
                {"id": "grant", "source": "Operator", "reason": Reason.AWAITING_GRANT, "level": "NoNewEntries"}
            )
        engaged = bool(causes)
        line = self._line
        line["sequence"], line["time"], line["appliedRevision"] = self._sequence, now, self._revision
        line["grant"] = {"held": self._granted}
        line["safeMode"] = {
            "level": "NoNewEntries" if engaged else "Normal", "engaged": engaged, "acknowledged": engaged,
            "causes": causes,
        }  # fmt: skip
        line["balance"]["lastSyncTime"] = line["orders"]["lastCheckTime"] = now
        if self._sequence % (COMPARED_SECONDS // HEARTBEAT_SECONDS) == 0:
            line["accountBooks"]["comparedTime"] = now
        allowed = {
            "type": ConditionType.TRADING_ALLOWED, "status": "False" if engaged else "True",
            "reason": Reason.ENGAGED if engaged else Reason.OK,
        }  # fmt: skip
        return json.dumps(line | {"conditions": [*line["conditions"], allowed]}).encode() + b"\n"


def _refusal(code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=409)


class LightKubelet:
    """Starts the bot of each pod that runs, once its ConfigMap and its Secret are there."""

    def __init__(self, kube: Kube, namespace: str, folder: Path) -> None:
        self._kube = kube
        self._namespace = namespace
        self._folder = folder
        self._mounts: dict[str, Json] = {}
        """ConfigMaps and Secrets, by name."""
        self._pods: dict[str, Json] = {}
        """Pods that run and have no bot yet, by name."""
        self._bots: dict[str, LightBot] = {}
        """By the pod's UID."""

    async def run(self) -> None:
        """Without end."""
        async with asyncio.TaskGroup() as group:
            for resource in ("configmaps", "secrets", "pods"):
                group.create_task(self._watch(resource))

    async def _watch(self, resource: str) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/{resource}"
        managed = f"{names.MANAGED_BY_LABEL}={names.FIELD_MANAGER}"
        async for event, seen in self._kube.follow(path, labelSelector=managed):
            name = seen["metadata"]["labels"][names.BOT_LABEL]
            if resource == "pods":
                await self._see(event, seen, name)
            elif event != "DELETED":
                self._mounts[seen["metadata"]["name"]] = seen
            if name in self._pods:
                await self._begin(self._pods[name])

    async def _see(self, event: str, pod: Json, name: str) -> None:
        uid = pod["metadata"]["uid"]
        if event == "DELETED" or "deletionTimestamp" in pod["metadata"]:
            self._pods.pop(name, None)
            if (bot := self._bots.pop(uid, None)) is not None:
                bot.end()
        elif uid not in self._bots and pod["status"].get("podIP"):
            self._pods[name] = pod

    async def _begin(self, pod: Json) -> None:
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        config_map = self._mounts.get(names.config_map_name(name))
        secret = self._mounts.get(names.tls_secret_name(name, metadata["labels"][names.BOT_UID_LABEL]))
        if config_map is None or secret is None:
            return
        del self._pods[name]
        for key, value in secret["data"].items():
            (self._folder / key).write_bytes(base64.b64decode(value))
        tls = control_tls(self._folder)
        bot = self._bots[uid] = LightBot(BotConfig.model_validate_json(config_map["data"][names.CONFIG_KEY]))
        await bot.listen(pod["status"]["podIP"], tls)


async def main(kubeconfig: str, namespace: str) -> None:
    """Plays the bots of a namespace until it is ended."""
    # A pass over a thousand bots' objects would stop all of them, which is no bot's way.
    gc.disable()
    kube = await Kube.of(Path(kubeconfig))
    with tempfile.TemporaryDirectory() as folder:
        tell(begun=namespace)
        await LightKubelet(kube, namespace, Path(folder)).run()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
