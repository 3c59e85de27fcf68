"""How soon a patch of spec.safeMode holds: at the bot by the double's clock, and in the status as a watch shows it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from performance.scale.lab import NAMESPACE, Lab
from performance.scale.loads import at_once
from performance.scale.tables import percentile
from support.kube import BOTS
from support.waiting import until

DEADLINE_SECONDS = 240
LOOK_SECONDS = 0.005


@dataclass
class Tries:
    """Seconds of each try. What is counted from the answer is cut at 0: the bot may be told before the answer is here,
    and this process may be late to take it in, so what is counted from the sending bounds it."""

    engaged: list[float] = field(default_factory=list)
    """From the patch's answer to the bot."""
    engaged_after_sending: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    """From the patch's answer to SafeModeAcknowledged."""

    def summary(self) -> str:
        """For people who wait."""
        parts = {"engaged": self.engaged, "acknowledged": self.acknowledged}
        return ", ".join(f"{what} p99 {percentile(values, 0.99):.3f} s" for what, values in parts.items())


async def _wish(lab: Lab, name: str, safe: bool | None) -> None:
    await lab.kube.merge(f"{BOTS.format(NAMESPACE)}/{name}", {"spec": {"safeMode": safe}})


async def _try(lab: Lab, name: str, tries: Tries) -> None:
    before = len(lab.bots.engaged[name])
    sent = time.monotonic()
    await _wish(lab, name, True)
    answered = time.monotonic()
    engaged = lab.bots.engaged[name]
    await until(f"{name} to be engaged", lambda: len(engaged) > before, DEADLINE_SECONDS, LOOK_SECONDS)
    acknowledged = lab.tradingbots.acknowledged
    await until(f"{name} to be acknowledged", lambda: name in acknowledged, DEADLINE_SECONDS, LOOK_SECONDS)
    tries.engaged.append(max(0.0, engaged[before] - answered))
    tries.engaged_after_sending.append(engaged[before] - sent)
    tries.acknowledged.append(max(0.0, acknowledged[name] - answered))


async def one_after_another(lab: Lab, bots: Sequence[str]) -> Tries:
    """Each bot once; the next when the last is acknowledged."""
    tries = Tries()
    for name in bots:
        await _try(lab, name, tries)
    return tries


async def spread(lab: Lab, bots: Sequence[str], seconds: float) -> Tries:
    """Each bot once, evenly over so many seconds, whatever became of the others."""
    tries = Tries()
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number, name in enumerate(bots):
            await asyncio.sleep(begun + seconds * number / len(bots) - time.monotonic())
            group.create_task(_try(lab, name, tries))
    return tries


async def release(lab: Lab, bots: Sequence[str], count: int) -> None:
    """Ends safe mode of these bots; returns when `count` bots trade."""
    await at_once(_wish(lab, name, None) for name in bots)
    await lab.all_trade(count, DEADLINE_SECONDS)
