"""Posts events on the objects of our kinds, for people who look at them; best effort."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from random import Random

import structlog

from tradingbot_operator.cluster import ApiError, Cluster
from tradingbot_operator.inventory import SeenResource
from tradingbot_operator.status import Notice

log = structlog.get_logger(__name__)


class Events:
    """What one operator process posts; `identity` is its name in them."""

    def __init__(self, cluster: Cluster, identity: str, now: Callable[[], datetime], random: Random) -> None:
        self._cluster = cluster
        self._identity = identity
        self._now = now
        self._random = random

    async def post(self, seen: SeenResource, notice: Notice) -> None:
        """Posts an event, and logs it; one that cannot be posted is logged alone."""
        kind, about = seen.resource.kind, str(seen.key)
        level = log.warning if notice.warning else log.info
        level("event", kind=kind, about=about, reason=notice.reason, message=notice.message)
        name = f"{seen.key.name}.{self._random.getrandbits(64):016x}"
        try:
            await self._cluster.create_event(seen, name, notice, now=self._now(), reporter=self._identity)
        except ApiError as error:
            log.warning("an event could not be posted", kind=kind, about=about, error=str(error))
