"""What the operator sends to the API server can be read there, and has its effect, whatever people wrote before."""

from __future__ import annotations

import json

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.aio import client

from support.operator_objects import UID, seen_bot
from tradingbot_api import names
from tradingbot_operator.cluster import APPLY, MERGE, Access, Cluster, encode
from tradingbot_operator.metrics import Metrics


@given(st.text())
def test_whatever_is_written_is_json_and_yaml_of_the_same_content(text: str) -> None:
    body = {"a": text, text: "b", "nested": json.dumps({"message": text})}
    sent = encode(body)
    assert json.loads(sent) == body
    assert yaml.safe_load(sent) == body


def test_a_character_beyond_sixteen_bits_is_not_a_pair_of_escapes() -> None:
    assert encode({"message": "no PriorityClass \U0001f680\x80"}) == '{"message": "no PriorityClass \U0001f680\\u0080"}'


class Finalizers:
    """An API server that has one TradingBot's finalizers, and whose they are: server-side apply leaves others'."""

    def __init__(self, owners: dict[str, set[str]]) -> None:
        self.owners = owners

    async def patch(self, request: web.Request) -> web.Response:
        """Applies, or merges."""
        wanted, manager = (await request.json())["metadata"].get("finalizers", []), request.query["fieldManager"]
        if request.content_type == APPLY:
            for name in wanted:
                self.owners.setdefault(name, set()).add(manager)
            for name in self.owners.keys() - wanted:
                self.owners[name].discard(manager)
            self.owners = {name: owners for name, owners in self.owners.items() if owners}
        else:
            assert request.content_type == MERGE
            self.owners = {name: self.owners.get(name) or {manager} for name in wanted}
        metadata = {
            "namespace": "trading", "name": "btcusdt", "uid": UID, "resourceVersion": "11", "generation": 3,
            "creationTimestamp": "2026-11-22T11:00:00Z", "finalizers": list(self.owners),
        }  # fmt: skip
        return web.json_response({"metadata": metadata})


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param({names.FIELD_MANAGER}, id="we-put-it-on"),
        pytest.param({"kubectl-create"}, id="made-from-a-manifest-that-has-it"),
        pytest.param({names.FIELD_MANAGER, "velero"}, id="both"),
    ],
)
async def test_our_finalizer_goes_whoever_put_it_on_and_others_stay(owners: set[str]) -> None:
    server = Finalizers({names.FINALIZER: owners, "example.com/theirs": {"theirs"}})
    app = web.Application()
    app.router.add_patch("/{path:.*}", server.patch)
    async with TestServer(app) as listening:
        cluster = Cluster(Access(client.Configuration(host=str(listening.make_url("")))), Metrics())
        try:
            await cluster.set_finalizer(seen_bot(metadata={"finalizers": list(server.owners)}), present=False)
        finally:
            await cluster.close()
    assert list(server.owners) == ["example.com/theirs"]
