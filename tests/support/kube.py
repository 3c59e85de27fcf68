"""A thin client of the API server for tests: JSON in, JSON out, as the kubeconfig's user."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tradingbot_api import names
from tradingbot_operator.cluster import Access

Json = dict[str, Any]
BOTS = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.PLURAL}"
SETS = f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.TRADING_BOT_SET.plural}"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"


class KubeError(Exception):
    """The API server refused."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Kube:
    """Calls to the API server."""

    def __init__(self, access: Access, user: str | None = None) -> None:
        self._server = access.server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls),
            timeout=aiohttp.ClientTimeout(total=20),
            read_bufsize=2**20,  # a watch event is one line
            headers={} if user is None else {"Impersonate-User": user},
        )

    @classmethod
    async def of(cls, kubeconfig: Path, user: str | None = None) -> Kube:
        """With the rights of a kubeconfig, or of a user whom it may impersonate."""
        return cls(await Access.load(str(kubeconfig)), user)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Json:
        """One call; KubeError where it is refused."""
        async with self._session.request(
            method, self._server + path, data=None if body is None else json.dumps(body), headers={"Content-Type": kind}
        ) as response:
            text = await response.text()
            if response.status >= 400:
                raise KubeError(response.status, text)
            return dict(json.loads(text))

    async def get(self, path: str) -> Json | None:
        """An object, or None where it is not there."""
        try:
            return await self.call("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    async def merge(self, path: str, body: Json) -> Json:
        """A JSON merge patch."""
        return await self.call("PATCH", path, body, "application/merge-patch+json")

    async def items(self, path: str) -> list[Json]:
        """The items of a list."""
        return list((await self.call("GET", path))["items"])

    async def follow(self, path: str, **query: str) -> AsyncIterator[tuple[str, Json]]:
        """What is there, as ADDED, then each watch event without end; KubeError where events were missed."""
        listed = await self.call("GET", f"{path}?{urlencode(query)}")
        for item in listed["items"]:
            yield "ADDED", item
        version = listed["metadata"]["resourceVersion"]
        while True:
            async with self._session.get(
                self._server + path,
                params={**query, "watch": "1", "allowWatchBookmarks": "1", "resourceVersion": version},
                timeout=aiohttp.ClientTimeout(total=None),
            ) as stream:
                async for line in stream.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise KubeError(event["object"]["code"], line.decode())
                    version = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


async def register_node(kube: Kube, name: str) -> None:
    """A node that a test plays. It is unschedulable: only pods of `pod_shape` come to it."""
    metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
    node: Json = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": {"unschedulable": True}}
    await kube.call("POST", "/api/v1/nodes", node)
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"}
    status = {"status": {"capacity": capacity, "allocatable": capacity}}
    await kube.merge(f"/api/v1/nodes/{name}/status", status)


def pod_shape(node: str) -> Json:
    """What spec.pod must say so that the scheduler gives the pod to a node that a test plays."""
    return {"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": [{"operator": "Exists"}]}
