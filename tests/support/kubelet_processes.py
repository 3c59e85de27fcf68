"""Plays the kubelet of one node for bot pods: runs the real bot as a process of its own and tells the API server.

For a cluster without nodes. Mounted folders are written from the API objects and refreshed; every pod has a loopback
address of its own, since the control port is fixed; a container that ends is started again; a deleted pod gets
SIGTERM, then SIGKILL.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from support.kube import Json, Kube, KubeError, pod_shape, register_node
from tradingbot_api import names

LOOK_SECONDS: Final = 0.2
REFRESH_SECONDS: Final = 1.0
"""A kubelet takes up to two minutes; tests have no such patience."""
START_SECONDS: Final = 90.0


@dataclass
class Container:
    """The bot's container in a pod, over all its starts."""

    namespace: str
    name: str
    uid: str
    folder: Path
    state: Path
    image: str
    address: str
    process: asyncio.subprocess.Process | None = None
    probe_port: int = 0
    restarts: int = 0
    told: Json = field(default_factory=dict)
    last: Json = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    refreshed: float = 0.0
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class KubeletProcesses:
    """Looks at the pods of its node, in all namespaces, several times a second."""

    def __init__(self, kube: Kube, node: str, folder: Path, seed: int = 0) -> None:
        self.containers: dict[str, Container] = {}
        """By the pod's UID."""
        self.trouble: list[str] = []
        self.python_paths: dict[str, str] = {}
        """PYTHONPATH by image, for bots of another version than this one."""
        self._kube = kube
        self._node = node
        self._folder = folder
        self._random = random.Random(f"{node}{seed}")
        self._task: asyncio.Task[None] | None = None
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))

    async def start(self) -> None:
        """Register the node and begin."""
        await register_node(self._kube, self._node)
        self._task = asyncio.create_task(self._run())

    def shape(self) -> Json:
        """What spec.pod must say so that the scheduler gives the pod to this node."""
        return pod_shape(self._node)

    async def stop(self) -> None:
        """End all."""
        tasks = [task for task in (self._task, *self._busy.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for container in list(self.containers.values()):
            await self._kill(container)
        await self._session.close()
        await self._kube.call("DELETE", f"/api/v1/nodes/{self._node}")

    def container(self, namespace: str, name: str) -> Container:
        """The newest container of a pod's name."""
        found = [item for item in self.containers.values() if (item.namespace, item.name) == (namespace, name)]
        return found[-1]

    async def crash(self, namespace: str, name: str) -> None:
        """kill -9 of the bot's process; it is started again as restartPolicy Always wants it."""
        process = self.container(namespace, name).process
        assert process is not None
        process.send_signal(signal.SIGKILL)
        await process.wait()

    # --- the loop ---

    async def _run(self) -> None:
        selector = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{self._node}"
        while True:
            try:
                pods = await self._kube.items(selector)
            except (aiohttp.ClientError, TimeoutError, KubeError) as error:
                self.trouble.append(str(error))
                pods = []
            for pod in pods:
                uid = pod["metadata"]["uid"]
                # Pods do not wait for each other: a start and an orderly end take seconds.
                if uid not in self._busy or self._busy[uid].done():
                    self._busy[uid] = asyncio.create_task(self._tend(pod))
            await asyncio.sleep(LOOK_SECONDS)

    async def _tend(self, pod: Json) -> None:
        try:
            if "deletionTimestamp" in pod["metadata"]:
                await self._end(pod)
            elif pod["metadata"]["uid"] not in self.containers:
                await self._begin(pod)
            else:
                await self._keep(pod, self.containers[pod["metadata"]["uid"]])
        except KubeError as error:
            if error.status not in {404, 409}:
                self.trouble.append(str(error))
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            self.trouble.append(f"{pod['metadata']['name']}: {error!r}")

    async def _begin(self, pod: Json) -> None:
        metadata = pod["metadata"]
        folder = self._folder / metadata["uid"]
        state = folder / "state"
        for volume in pod["spec"]["volumes"]:
            if volume["name"] == "state" and "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                found = await self._kube.call("GET", self._path(metadata["namespace"], "persistentvolumeclaims", claim))
                state = self._folder / "volumes" / found["metadata"]["uid"]
        address = f"127.{self._random.randint(1, 250)}.{self._random.randint(0, 255)}.{self._random.randint(2, 250)}"
        image = pod["spec"]["containers"][0]["image"]
        container = Container(metadata["namespace"], metadata["name"], metadata["uid"], folder, state, image, address)
        state.mkdir(parents=True, exist_ok=True)
        if not await self._mount(pod, container):
            return
        self.containers[container.uid] = container
        await self._start(container)

    async def _mount(self, pod: Json, container: Container) -> bool:
        """Writes what the pod's volumes show; False where something that is not optional is missing."""
        for volume in pod["spec"]["volumes"]:
            content: dict[str, bytes] = {}
            if "configMap" in volume:
                path = self._path(container.namespace, "configmaps", volume["configMap"]["name"])
                found = await self._kube.get(path)
                if found is None:
                    return False
                content = {key: value.encode() for key, value in found.get("data", {}).items()}
            elif "secret" in volume:
                path = self._path(container.namespace, "secrets", volume["secret"]["secretName"])
                found = await self._kube.get(path)
                if found is None and not volume["secret"].get("optional"):
                    return False
                data = (found or {}).get("data", {})
                content = {key: base64.b64decode(value) for key, value in data.items()}
            elif "downwardAPI" in volume:
                annotations = pod["metadata"].get("annotations", {})
                lines = [f"{key}={json.dumps(value)}\n" for key, value in sorted(annotations.items())]
                content = {item["path"]: "".join(lines).encode() for item in volume["downwardAPI"]["items"]}
            else:
                continue
            _write(container.folder / volume["name"], content)
        container.refreshed = asyncio.get_running_loop().time()
        return True

    async def _start(self, container: Container) -> None:
        folder = container.folder
        container.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tradingbot", "run",
            "--config", str(folder / "config" / names.CONFIG_KEY), "--tls-dir", str(folder / "tls"),
            "--credentials-dir", str(folder / names.CREDENTIALS_VOLUME), "--state-dir", str(container.state),
            "--host", container.address, "--probe-port", "0", "--control-port", str(names.CONTROL_PORT),
            # A former version does not know it.
            *(() if container.image in self.python_paths else ("--podinfo-dir", str(folder / "podinfo"))),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment(container.image),
        )  # fmt: skip
        assert container.process.stdout is not None
        assert container.process.stderr is not None
        container.tasks.append(asyncio.create_task(_collect(container.process.stderr, container.log)))
        async with asyncio.timeout(START_SECONDS):
            line = await container.process.stdout.readline()
        if not line:
            return  # It ended; the next look tells so.
        container.probe_port = json.loads(line)["probePort"]
        await self._tell(container, "Running", {"running": {}}, ready=False)

    def _environment(self, image: str) -> dict[str, str]:
        path = self.python_paths.get(image)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return environment if path is None else {**environment, "PYTHONPATH": path}

    async def _keep(self, pod: Json, container: Container) -> None:
        process = container.process
        if process is None or process.returncode is not None:
            code = 1 if process is None else process.returncode or 0
            container.last = {
                "terminated": {
                    "exitCode": code if code >= 0 else 128 - code,
                    "reason": "Error" if code else "Completed",
                }
            }
            container.restarts += 1
            container.log.append(f"--- ended with {code}, started again ---\n")
            await self._tell(container, "Running", container.last, ready=False)
            await self._mount(pod, container)
            await self._start(container)
            return
        if asyncio.get_running_loop().time() - container.refreshed > REFRESH_SECONDS:
            await self._mount(pod, container)
        await self._tell(container, "Running", {"running": {}}, ready=await self._is_ready(container))

    async def _is_ready(self, container: Container) -> bool:
        url = f"http://{container.address}:{container.probe_port}/readyz"
        with suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(url) as answer:
                return answer.status == 200
        return False

    async def _end(self, pod: Json) -> None:
        metadata = pod["metadata"]
        container = self.containers.get(metadata["uid"])
        if container is not None:
            code = await self._kill(container, metadata.get("deletionGracePeriodSeconds", 30))
            terminated = {"exitCode": code, "reason": "Completed" if code == 0 else "Error"}
            with suppress(KubeError):
                await self._tell(container, "Failed" if code else "Succeeded", {"terminated": terminated}, ready=False)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        await self._kube.call("DELETE", self._path(metadata["namespace"], "pods", metadata["name"]), options)
        self.containers.pop(metadata["uid"], None)

    async def _kill(self, container: Container, grace: float = 0.0) -> int:
        process = container.process
        if process is None:
            return 0
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM if grace > 0 else signal.SIGKILL)
            try:
                async with asyncio.timeout(grace or 5.0):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        for task in container.tasks:
            task.cancel()
        await asyncio.gather(*container.tasks, return_exceptions=True)
        code = process.returncode or 0
        return code if code >= 0 else 128 - code

    async def _tell(self, container: Container, phase: str, state: Json, *, ready: bool) -> None:
        status: Json = {
            "name": "bot",
            "ready": ready,
            "restartCount": container.restarts,
            "image": container.image,
            "imageID": container.image,
            "state": state,
        }
        if container.last:
            status["lastState"] = container.last
        told: Json = {
            "phase": phase,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [status],
            "podIP": container.address,
            "podIPs": [{"ip": container.address}],
        }
        if told == container.told:
            return
        path = self._path(container.namespace, "pods", container.name) + "/status"
        # The UID is a condition of the write: another pod may have the name by now.
        await self._kube.merge(path, {"metadata": {"uid": container.uid}, "status": told})
        container.told = told

    @staticmethod
    def _path(namespace: str, resource: str, name: str) -> str:
        return f"/api/v1/namespaces/{namespace}/{resource}/{name}"


def _write(folder: Path, content: dict[str, bytes]) -> None:
    """Writes files whole, and removes those that are gone, as a mounted volume shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in content:
            path.unlink()
    for name, data in content.items():
        path = folder / name
        if path.exists() and path.read_bytes() == data:
            continue
        part = folder / f".{name}.part"
        part.write_bytes(data)
        part.rename(path)


async def _collect(stream: asyncio.StreamReader, log: list[str]) -> None:
    async for line in stream:
        log.append(line.decode(errors="replace"))  # noqa: PERF401 - a comprehension would show nothing before the end


def node_name(prefix: str) -> str:
    """A name that no other run has."""
    return f"{prefix}-{os.getpid()}-{random.SystemRandom().randrange(16**6):06x}"
