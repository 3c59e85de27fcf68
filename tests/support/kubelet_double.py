"""Plays the kubelet of one node for bot pods: runs a BotDouble on a loopback address, tells the API server, ends it."""

from __future__ import annotations

import asyncio
import base64
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

from support.bot_double import BotDouble
from support.kube import Json, Kube, KubeError, pod_shape, register_node
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig


class KubeletDouble:
    """Looks at the pods of one namespace several times a second."""

    def __init__(self, kube: Kube, namespace: str, folder: Path) -> None:
        self.bots: dict[str, BotDouble] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        """Fields for the double of a pod that starts, by the pod's name."""
        self.held: set[str] = set()
        """Pods that stay Pending, by name."""
        self.unending: set[str] = set()
        """Pods that do not end although they are deleted, by name."""
        self.runs: dict[str, list[BotDouble]] = {}
        """All doubles that ever ran, by the pod's name."""
        self.starts: dict[str, int] = {}
        self._kube = kube
        self._namespace = namespace
        self._folder = folder
        self._node = f"node-{namespace}"
        self._uids: dict[str, str] = {}
        self._task: asyncio.Task[None] | None = None

    def _path(self, resource: str, name: str = "") -> str:
        return f"/api/v1/namespaces/{self._namespace}/{resource}" + (f"/{name}" if name else "")

    async def start(self) -> None:
        """Register the node and begin."""
        await register_node(self._kube, self._node)
        self._task = asyncio.create_task(self._run())

    def shape(self) -> Json:
        """What spec.pod must say so that the scheduler gives the pod to this node."""
        return pod_shape(self._node)

    async def stop(self) -> None:
        """End all."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for bot in self.bots.values():
            await bot.stop()
        await self._kube.call("DELETE", f"/api/v1/nodes/{self._node}")

    async def crash(self, name: str) -> None:
        """The process of a pod dies at once and nobody tells the API server yet."""
        await self.bots.pop(name).stop()

    async def _run(self) -> None:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):  # an API server that is away comes back
                await self._look()
            await asyncio.sleep(0.1)

    async def _look(self) -> None:
        try:
            pods = await self._kube.items(self._path("pods"))
        except KubeError as error:
            if error.status < 500:
                raise
            return
        for pod in pods:
            try:
                await self._tend(pod)
            except KubeError as error:
                if error.status not in {404, 409}:
                    raise

    async def _tend(self, pod: Json) -> None:
        metadata = pod["metadata"]
        name, uid = metadata["name"], metadata["uid"]
        if "deletionTimestamp" in metadata:
            if name in self.unending:
                return
            await self._end(name, uid)
        elif "nodeName" in pod["spec"] and self._uids.get(name) != uid and name not in self.held:
            await self._begin(name, uid)

    async def _begin(self, name: str, uid: str) -> None:
        config_map = await self._kube.call("GET", self._path("configmaps", names.config_map_name(name)))
        config = BotConfig.model_validate_json(config_map["data"][names.CONFIG_KEY])
        secret = await self._kube.call("GET", self._path("secrets", names.tls_secret_name(name, config.bot.uid)))
        folder = self._folder / uid
        folder.mkdir(parents=True)
        for key, value in secret["data"].items():
            (folder / key).write_bytes(base64.b64decode(value))
        await self._run_double(name, config, folder)
        self._uids[name] = uid

    async def _run_double(self, name: str, config: BotConfig, folder: Path) -> None:
        self.starts[name] = self.starts.get(name, 0) + 1
        bot = BotDouble(config, **{"incarnation": 1000 + self.starts[name], **self.settings.get(name, {})})
        while True:
            # The control port is fixed, so each bot has a loopback address of its own.
            address = f"127.{random.randint(1, 250)}.{random.randint(0, 255)}.{random.randint(2, 250)}"
            try:
                await bot.start(folder, address)
                break
            except OSError:
                continue
        self.bots[name] = bot
        self.runs.setdefault(name, []).append(bot)
        await self._tell(name, "Running", address, {"running": {}}, ready="True")

    async def _end(self, name: str, uid: str) -> None:
        if self._uids.get(name) == uid:
            if name in self.bots:
                await self.bots.pop(name).stop()
            await self._tell(
                name, "Failed", None, {"terminated": {"exitCode": 0, "reason": "Completed"}}, ready="False"
            )
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        await self._kube.call("DELETE", self._path("pods", name), options)

    async def _tell(self, name: str, phase: str, address: str | None, state: Json, *, ready: str) -> None:
        status: Json = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": ready}],
            "containerStatuses": [
                {
                    "name": "bot",
                    "ready": ready == "True",
                    "restartCount": 0,
                    "image": "x",
                    "imageID": "x",
                    "state": state,
                }
            ],
        }
        if address is not None:
            status |= {"podIP": address, "podIPs": [{"ip": address}]}
        await self._kube.merge(self._path("pods", name) + "/status", {"status": status})
