"""Pure: which TradingBots of a set are given its present template next, and which of them are late."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A TradingBot of a set, as a rollout sees it."""

    name: str
    current: bool
    """It was given the set's present template, and the turn to restart where it needs another pod."""
    available: bool
    """It is Ready, or suspended as it is asked to be."""
    settled: bool
    """Available, and all that its spec says is in force in its process."""
    flat: bool
    """It says that it has no position."""
    in_position: bool
    """It says that it has one."""
    restarts_flat: bool = False
    """It needs another pod, which its updateStrategy makes only while it is flat."""
    refused: bool = False
    """The API server lately refused what it would be given: it has its turn later, and keeps it from nobody."""
    since: float = 0.0
    """Since when it has the present template and is not settled, in seconds."""


@dataclass(frozen=True)
class Rollout:
    """The next step of a rollout."""

    give: tuple[str, ...]
    """Bots that are given the template now."""
    in_progress: tuple[str, ...]
    """Bots in the middle of the change, before this step."""
    late: tuple[str, ...]
    """Of these, those that did not become Ready in time: they stop the rollout."""
    awaiting_flat: tuple[str, ...]
    """Bots that are not given it until they are flat."""
    remaining: int
    """Bots that are not given it yet after this step."""
    again_in: float | None
    """Seconds until the next one is late."""


def most_unavailable(value: int | str, bots: int) -> int:
    """spec.updateStrategy.maxUnavailable as a number of bots."""
    if isinstance(value, int):
        return max(1, value)
    return max(1, bots * int(value.rstrip("%")) // 100 if value.endswith("%") else int(value))


def next_step(members: Iterable[Member], most: int, deadline: float, now: float) -> Rollout:
    """A few at a time: never more than `most` in the middle of the change.

    Bots that are not Ready anyway come first, as the change may be their cure; then flat ones; then those in a
    position. One that is late stops the rollout for all that are Ready. A healthy bot is not touched while `most`
    others are not Ready, for whatever reason.
    """
    bots = sorted(members, key=lambda bot: (bot.available, not bot.flat, bot.name))
    moving = [bot for bot in bots if bot.current and not bot.settled]
    late = [bot for bot in moving if now - bot.since >= deadline]
    pending = [bot for bot in moving if now - bot.since < deadline]
    outdated = [bot for bot in bots if not bot.current]
    waiting = [bot for bot in outdated if bot.restarts_flat and bot.in_position and bot.available]
    down = sum(not bot.available for bot in outdated)
    given: list[str] = []
    for bot in outdated:
        if len(moving) + len(given) >= most:
            break
        if bot in waiting or bot.refused:
            continue
        if bot.available and (late or len(moving) + len(given) + down >= most):
            break
        if not bot.available:
            down -= 1
        given.append(bot.name)
    return Rollout(
        give=tuple(given),
        in_progress=tuple(bot.name for bot in moving),
        late=tuple(bot.name for bot in late),
        awaiting_flat=tuple(bot.name for bot in waiting),
        remaining=len(outdated) - len(given),
        again_in=min((bot.since + deadline - now for bot in pending), default=None),
    )
