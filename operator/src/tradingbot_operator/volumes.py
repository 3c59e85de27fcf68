"""The volume claim of a bot's store: whose it is, and when a new TradingBot may take one up that is there."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import structlog

from tradingbot_api import names
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import TradingBotSpec
from tradingbot_operator import desired
from tradingbot_operator.cluster import Cluster
from tradingbot_operator.desired import Identity
from tradingbot_operator.fleet import ForeignObjectError
from tradingbot_operator.inventory import Inventory, Manifest, SeenBot

RESOURCE: Final = "persistentvolumeclaims"
KIND: Final = "PersistentVolumeClaim"

log = structlog.get_logger(__name__)


class Standing(StrEnum):
    """How a TradingBot stands to a volume claim of its name."""

    OWN = "Own"
    HISTORY = "History"
    """Its own, made before claims were labelled with the UID of the TradingBot that they serve."""
    FORMER = "Former"
    """It is being removed, or owned by a former TradingBot of that name and about to be."""
    LEFT = "Left"
    """A former TradingBot of that name left it; only a human says that another may take it up."""
    ADOPT = "Adopt"
    """Left, and a human said so."""
    USED = "Used"
    """It serves a TradingBot that still exists."""
    FOREIGN = "Foreign"


def standing(raw: Manifest, bot: SeenBot, living: frozenset[str]) -> Standing:
    """How `bot` stands to a claim; `living` are the UIDs of all TradingBots that exist. Pure.

    A store holds one TradingBot's ledger and its orders' outcomes: taken up unasked it would make another's history
    this one's. A claim without the UID label was made by a former version of the operator: it is the bot's own where
    it was made in the bot's lifetime (names are unique), or where the bot has run before, as then it ran on it.
    """
    metadata = raw["metadata"]
    if "deletionTimestamp" in metadata:
        return Standing.FORMER
    if desired.owned_by(raw, bot.uid):
        return Standing.OWN
    if metadata.get("ownerReferences"):
        return Standing.FORMER if desired.formerly_owned(raw, Identity.of(bot)) else Standing.FOREIGN
    labels: Mapping[str, str] = metadata.get("labels", {})
    if labels.get(names.BOT_LABEL) != bot.key.name:
        return Standing.FOREIGN
    served = labels.get(names.BOT_UID_LABEL)
    if served == bot.uid:
        return Standing.OWN
    if served in living:
        return Standing.USED
    told = bot.told
    ran = any(fact is not None for fact in (told.pod_name, told.incarnation, told.account_uid))
    if served is None and (ran or datetime.fromisoformat(metadata["creationTimestamp"]) >= bot.created):
        return Standing.HISTORY
    return Standing.ADOPT if bot.annotations.get(names.ADOPT_VOLUME_ANNOTATION) == metadata["uid"] else Standing.LEFT


class VolumeExistsError(ForeignObjectError):
    """A former TradingBot of that name left a volume claim; the message has the command that takes it up."""

    code = "VolumeExists"
    reason = Reason.VOLUME_EXISTS

    def __init__(self, bot: SeenBot, raw: Manifest) -> None:
        super().__init__(KIND, bot.key, raw["metadata"]["name"])
        uid = raw["metadata"]["uid"]
        self.args = (
            f"{KIND} {bot.key.namespace}/{raw['metadata']['name']} holds the store of a former TradingBot of that "
            f"name. To go on with its books: kubectl annotate tradingbot -n {bot.key.namespace} {bot.key.name} "
            f"{names.ADOPT_VOLUME_ANNOTATION}={uid}. To begin with empty ones, delete or rename the claim.",
        )


class Volumes:
    """Makes volume claims, and takes up those that were left."""

    def __init__(self, cluster: Cluster, bots: Inventory[SeenBot]) -> None:
        self._cluster = cluster
        self._bots = bots

    async def ensure(self, bot: SeenBot, spec: TradingBotSpec) -> None:
        """The claim is there, and this TradingBot's; ForeignObjectError, VolumeExistsError."""
        claim = desired.volume_claim(Identity.of(bot), spec)
        if claim is None:
            return
        name = claim["metadata"]["name"]
        raw = await self._cluster.get(RESOURCE, bot.key.namespace, name)
        if raw is None:
            await self._cluster.create(RESOURCE, claim)
            return
        found = standing(raw, bot, frozenset(other.uid for other in self._bots))
        match found:
            case Standing.LEFT:
                raise VolumeExistsError(bot, raw)
            case Standing.FOREIGN | Standing.USED | Standing.FORMER:
                raise ForeignObjectError(KIND, bot.key, name, passing=found is Standing.FORMER)
            case Standing.ADOPT | Standing.HISTORY:
                await self._take(raw, claim)
                log.info("a volume claim is taken up", bot=str(bot.key), claim=raw["metadata"]["uid"], standing=found)

    async def _take(self, raw: Manifest, claim: Manifest) -> None:
        """Labels it with this TradingBot's UID and, where it shall go with the TradingBot, makes it the owner."""
        there, wanted = raw["metadata"], claim["metadata"]
        metadata = {key: there[key] for key in ("namespace", "name", "uid", "resourceVersion")}
        metadata["labels"] = {names.BOT_UID_LABEL: wanted["labels"][names.BOT_UID_LABEL]}
        if "ownerReferences" in wanted:
            metadata["ownerReferences"] = wanted["ownerReferences"]
        # The version that was read goes with it: of two that write, one is refused.
        await self._cluster.apply(RESOURCE, {"apiVersion": "v1", "kind": KIND, "metadata": metadata})
