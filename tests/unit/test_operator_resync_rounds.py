"""Promises of the resync's comparison: what is old news, and what tells that the cluster's store went back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from support.operator_objects import SPEC, UID, watched
from tradingbot_api import names
from tradingbot_operator.cluster import Cluster, NotFoundError
from tradingbot_operator.inventory import BotKey, Inventory, Manifest, SeenBot
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.resync import Resync, WentBackError

KEY = BotKey("trading", "btcusdt")


def bot(version: int) -> Manifest:
    """A TradingBot of a version."""
    metadata = {
        "namespace": KEY.namespace, "name": KEY.name, "uid": UID, "resourceVersion": str(version), "generation": 1,
        "creationTimestamp": "2026-11-22T11:00:00Z",
    }  # fmt: skip
    return {"metadata": metadata, "spec": SPEC}


class Store:
    """An API server that has one TradingBot; a watch event comes while each of `during` is listed."""

    def __init__(self, stored: int, inventory: Inventory[SeenBot]) -> None:
        self.stored = stored
        self.during: list[int] = []
        self._inventory = inventory

    async def list_all(self, resource: str, _: tuple[str, ...], *, metadata_only: bool = False) -> list[Manifest]:
        """As of the moment at which it was asked."""
        listed = [bot(self.stored)] if resource == names.PLURAL else []
        if listed and self.during:
            self.stored = self.during.pop(0)
            self._inventory.see(SeenBot.of(bot(self.stored)))
        return listed

    async def get(self, *_: str) -> Manifest:
        """The TradingBot."""
        return bot(self.stored)


def parts(stored: int) -> tuple[Store, Inventory[SeenBot], Resync]:
    """A resync that saw all there is."""
    bots: Inventory[SeenBot] = Inventory()
    store = Store(stored, bots)
    return store, bots, Resync(
        cast(Cluster, store), (), [watched(bots, SeenBot)], now=lambda: datetime.now(UTC), metrics=Metrics(),
        settle=0.0,
    )  # fmt: skip


async def test_a_store_that_went_back_ends_the_process_in_a_round_and_before_a_standby_works() -> None:
    store, _, resync = parts(1000)
    await resync.take_in()
    assert await resync.round() == 0
    store.stored = 500
    with pytest.raises(WentBackError, match="trading/btcusdt"):
        await resync.round()
    with pytest.raises(WentBackError):
        await resync.take_in()
    # A process that begins anew sees it.
    _, bots, anew = parts(500)
    await anew.take_in()
    assert await anew.round() == 0
    assert bots.get(KEY) is not None


async def test_a_kind_whose_crd_comes_after_the_start_is_told_once_and_taken_in() -> None:
    bots: Inventory[SeenBot] = Inventory()
    served: list[str] = []

    class Late(Store):
        missing = True

        async def list_all(self, resource: str, _: tuple[str, ...], *, metadata_only: bool = False) -> list[Manifest]:
            if self.missing:
                raise NotFoundError(404, "NotFound", "the server could not find the requested resource")
            return await super().list_all(resource, _, metadata_only=metadata_only)

    store, kind = Late(1000, bots), replace(watched(bots, SeenBot), optional=True)
    resync = Resync(
        cast(Cluster, store), (), [kind], now=lambda: datetime.now(UTC), metrics=Metrics(), settle=0.0,
        served_late=lambda: served.append(kind.plural),
    )  # fmt: skip
    await resync.take_in()
    assert (await resync.round(), served) == (0, [])
    store.missing = False
    await resync.round()
    await resync.round()
    assert (served, bots.get(KEY) is not None) == ([names.PLURAL], True)


async def test_a_list_that_is_older_than_an_event_that_came_meanwhile_proves_nothing() -> None:
    store, bots, resync = parts(1000)
    await resync.take_in()
    store.during = [1001, 1002, 1003]
    assert await resync.round() == 0
    await resync.take_in()
    assert (seen := bots.get(KEY)) is not None
    assert seen.resource_version == "1002"
