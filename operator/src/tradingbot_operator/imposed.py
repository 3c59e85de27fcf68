"""Causes of safe mode that are imposed on a TradingBot from outside its spec, whoever imposes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from tradingbot_api.bot_http import ImposedCause
from tradingbot_operator.inventory import SeenBot

Held = Mapping[str, ImposedCause]
"""What a bot's configuration has, by id."""


class Standing(Enum):
    """How it is with what a cause came from."""

    IN_FORCE = "InForce"
    ENDED = "Ended"
    """It was released, or is past."""
    GONE = "Gone"
    """It is not there, and nobody knows that it was released."""


class Imposer(Protocol):
    """One who imposes causes."""

    def imposes(self, bot: SeenBot, held: Held) -> Iterable[ImposedCause]:
        """What it imposes on a bot, what the bot `held` before among it as long as it is not released; never waits."""

    def owns(self, cause_id: str) -> bool:
        """Whether causes of that id are its own."""

    async def standing(self, bot: SeenBot, cause_id: str) -> Standing:
        """Asks the API server how it is with what a bot's cause of its own came from; ApiError."""


class Impositions:
    """All imposers."""

    def __init__(self, *imposers: Imposer) -> None:
        self._imposers = imposers

    def on(self, bot: SeenBot, held: Sequence[ImposedCause] = ()) -> tuple[ImposedCause, ...]:
        """What is imposed on a bot whose configuration `held` these causes, by id."""
        causes = {cause.id: cause for cause in held if self._owner(cause.id) is None}
        for imposer in self._imposers:
            own = {cause.id: cause for cause in held if imposer.owns(cause.id)}
            causes |= {cause.id: cause for cause in imposer.imposes(bot, own)}
        return tuple(causes[name] for name in sorted(causes))

    async def standing(self, bot: SeenBot, cause_id: str) -> Standing:
        """How it is with what a cause came from; that of a newer operator is not known. ApiError."""
        owner = self._owner(cause_id)
        return Standing.GONE if owner is None else await owner.standing(bot, cause_id)

    def _owner(self, cause_id: str) -> Imposer | None:
        return next((imposer for imposer in self._imposers if imposer.owns(cause_id)), None)


NOBODY = Impositions()
