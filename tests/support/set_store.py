"""A TradingBotSet and its TradingBots as an API server has them, for the unit tests of the set's steps."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from support.operator_objects import NOW, SPEC
from tradingbot_api import names
from tradingbot_api.sets import TradingBotSetStatus
from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.inventory import Inventory, Manifest, SeenBot, SeenSet, SetKey
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reservations import Reservations
from tradingbot_operator.set_controller import SetController
from tradingbot_operator.sharding import ALONE, Shard

KEY = SetKey("trading", "majors")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def metadata(name: str, version: int, **more: Any) -> Manifest:
    return {
        "namespace": "trading", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "generation": 1,
        "creationTimestamp": "2026-11-22T11:00:00Z", **more,
    }  # fmt: skip


class Store:
    """An API server that has a set and its bots; `labels` is what comes of a label that is written."""

    def __init__(self, overrides: dict[str, Any], **spec: Any) -> None:
        template = {key: value for key, value in SPEC.items() if key != "symbol"} | {"safeMode": True}
        bots = [{"symbol": symbol} for symbol in SYMBOLS]
        bots[0]["overrides"] = cast(Any, overrides)
        self.set = {
            "metadata": metadata("majors", 1), "spec": {"template": {"spec": template}, "bots": bots, **spec},
        }  # fmt: skip
        owner = {"kind": names.TRADING_BOT_SET.kind, "name": "majors", "uid": "uid-majors", "controller": True}
        self.version = 100
        self.bots = {
            name: {"metadata": metadata(name, 10, ownerReferences=[owner]), "spec": {**SPEC, "symbol": symbol}}
            for symbol in SYMBOLS
            for name in [f"majors-{symbol.lower()}"]
        }
        self.labels: ApiError | None = None
        self.placed: dict[str, str] = {}
        self.saw: Callable[[Manifest], None] = lambda _: None
        self.now = NOW
        self.refused: set[str] = set()
        """Names of TradingBots of which the API server takes no spec."""
        self.told = TradingBotSetStatus()
        """The set's status."""

    async def get(self, resource: str, _: str, name: str) -> Manifest | None:
        return self.set if resource == names.TRADING_BOT_SET.plural else self.bots.get(name)

    async def apply(self, _: str, manifest: Manifest, **__: str) -> Manifest:
        name, self.version = manifest["metadata"]["name"], self.version + 1
        if name in self.refused and "symbol" in manifest["spec"]:
            raise ApiError(422, "Invalid", "spec.exchange.environment is immutable")
        there = self.bots[name]
        self.bots[name] = {
            "metadata": {
                **there["metadata"], **manifest["metadata"], "resourceVersion": str(self.version),
                "annotations": {
                    **there["metadata"].get("annotations", {}), **manifest["metadata"].get("annotations", {}),
                },
            },
            "spec": {**there["spec"], **manifest["spec"]},
            "status": there.get("status", {}),
        }  # fmt: skip
        return self.bots[name]

    def tell(self, status: Manifest) -> None:
        """What the status of each bot is from now on."""
        for raw in self.bots.values():
            self.version += 1
            raw["metadata"] = {**raw["metadata"], "resourceVersion": str(self.version)}
            raw["status"] = {"observedGeneration": 1, **status}
            self.saw(raw)

    async def set_shard(self, bot: SeenBot, shard: str) -> Manifest:
        if self.labels is not None:
            raise self.labels
        self.placed[str(bot.spec["symbol"])] = shard
        return self.bots[bot.key.name]

    async def apply_status(self, seen: SeenSet, status: TradingBotSetStatus) -> SeenSet:
        self.told = status
        return seen.written(metadata("majors", int(seen.resource_version) + 1), status)

    async def create_event(self, *_: object, **__: object) -> None: ...

    def stopped(self) -> set[str]:
        return {str(raw["spec"]["symbol"]) for raw in self.bots.values() if raw["spec"].get("safeMode") is True}


def controller(store: Store, shard: Shard = ALONE) -> SetController:
    """The operator of a shard that has seen what there is."""
    bots, sets = Inventory[SeenBot](), Inventory[SeenSet]()
    leader = cast(Leader, SimpleNamespace(epoch=1))

    def saw(raw: Manifest) -> None:
        bots.see(SeenBot.of(raw))

    store.saw = saw
    result = SetController(
        cast(Cluster, store), sets=sets, bots=bots, saw_bot=saw,
        restart=lambda _: None, enqueue=lambda *_: None, enqueue_after=lambda *_: None, identity="me",
        now=lambda: store.now, random=Random(1), reservations=Reservations(leader, Metrics()), shard=shard,
    )  # fmt: skip
    bots.followers.append(result.bot_changed)
    for raw in store.bots.values():
        bots.see(SeenBot.of(raw))
    result.set_seen(store.set)
    return result
