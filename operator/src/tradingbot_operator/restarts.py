"""When a bot's pod is ended while its TradingBot stays: to suspend it, or to make it anew from another manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, DrainPhase
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.v1alpha1 import PositionPolicy, TradingBotSpec, UpdateStrategy
from tradingbot_operator import status as statuses
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.bot_talk import DRAIN_REPEAT_SECONDS, BotTalk
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.cluster import Cluster
from tradingbot_operator.fleet import MARK_SECONDS, Asked, Memory
from tradingbot_operator.inventory import SeenBot, SeenPod
from tradingbot_operator.reporter import Reporter
from tradingbot_operator.status import NO_POD, Finding, Notice

REFUSED_RETRY_SECONDS: Final = 30.0


class Ending(StrEnum):
    """Why a pod should end."""

    NONE = "None"
    SUSPEND = "Suspend"
    UPDATE = "Update"


class PodStep(StrEnum):
    """What is done about it next."""

    KEEP = "Keep"
    WAIT = "Wait"
    DRAIN = "Drain"
    """Ask the bot to cancel its entries; the position and its protection stay."""
    QUEUE = "Queue"
    """Its TradingBotSet restarts a few at a time, and it is not its turn."""
    MARK = "Mark"
    """Write into the status what the drain left, before the pod ends: an operator that begins now must know."""
    DELETE = "Delete"


@dataclass(frozen=True)
class EndingFacts:
    """What the end of a pod is decided on."""

    wanted: Ending
    strategy: UpdateStrategy
    running: bool
    """The container runs."""
    could_trade: bool
    """The bot once named its account or holds a claim; else nothing of it can be on the exchange."""
    reachable: bool
    drained: bool
    flat: bool
    """The bot says that it has no position; False while it is not known."""
    late: bool
    """It was asked, or was silent, for long enough."""
    marked: bool
    """The status says that it drained, and what it left."""
    naked: bool
    """The bot says that its position has no protection: its process is what mends that."""
    turn: bool = True
    """No TradingBotSet holds its restart back."""


def pod_step(facts: EndingFacts) -> PodStep:
    """Pure: what to do next, so that each branch is a table row.

    A bot in a position is never restarted by an update unless the strategy is Immediate, and none is ended while its
    position is without protection. A container that does not run cannot be disturbed: it is replaced in any case, so
    that a mended spec heals a pod that never started.
    """
    step = _ending_step(facts)
    if facts.wanted is Ending.UPDATE and facts.running and not facts.turn and step in {PodStep.DRAIN, PodStep.DELETE}:
        return PodStep.QUEUE
    return PodStep.WAIT if step is PodStep.DELETE and facts.running and facts.naked else step


def _ending_step(facts: EndingFacts) -> PodStep:
    updating = facts.wanted is Ending.UPDATE
    if facts.wanted is Ending.NONE:
        if not facts.drained:
            return PodStep.KEEP
        # Drained for an end that is not wanted any more: only a new process trades again.
        return PodStep.DELETE if facts.flat or facts.strategy is UpdateStrategy.IMMEDIATE else PodStep.WAIT
    if not facts.running:
        return PodStep.DELETE
    if updating and facts.strategy is UpdateStrategy.MANUAL:
        return PodStep.KEEP
    if not facts.could_trade:
        return PodStep.DELETE
    if updating and facts.strategy is UpdateStrategy.WHEN_FLAT:
        if not facts.flat:
            return PodStep.WAIT
        return PodStep.DELETE if facts.drained else PodStep.DRAIN
    if facts.drained and not (facts.marked or updating or facts.late):
        return PodStep.MARK
    if facts.drained or facts.late:
        return PodStep.DELETE
    return PodStep.DRAIN if facts.reachable else PodStep.WAIT


def asked(
    before: Asked | None, wanted: Ending, strategy: UpdateStrategy, *, reachable: bool, now: float
) -> Asked | None:
    """Since when the end is asked for: anew for another reason and in silence, and not while an update only waits."""
    if wanted is Ending.NONE or (wanted is Ending.UPDATE and strategy is not UpdateStrategy.IMMEDIATE):
        return None
    if before is not None and (before.wanted, before.reachable) == (wanted, reachable):
        return before
    return Asked(wanted, reachable, now)


def is_flat(status: BotStatus) -> bool:
    """Whether a reconciled bot says that it holds nothing."""
    return status.ready and status.position is not None and status.position.quantity == 0


def is_naked(status: BotStatus) -> bool:
    """Whether the bot says that its position has no protection."""
    return any(item.type == ConditionType.PROTECTED and item.status == "False" for item in status.conditions)


def up_to_date(pod: SeenPod | None, bot: SeenBot, template: str, image: str, step: PodStep) -> Finding:
    """UpToDate: whether the pod is what the spec and the operator's settings now ask for."""
    if pod is None:
        return NO_POD
    if pod.template == template:
        return Finding.good()
    difference = (
        f"it runs image {pod.image}, {image} is asked for"
        if pod.image != image
        else "its shape is another than spec.pod, spec.exchange.credentialsSecretRef or the operator's release asks for"
    )
    if step is PodStep.KEEP:
        return Finding.bad(
            Reason.POD_OUTDATED,
            f"The pod is not restarted by itself (updateStrategy Manual): {difference}. An open position keeps its "
            f"protection on the exchange meanwhile: kubectl delete pod -n {pod.key.namespace} {pod.key.name}.",
        )
    if step is PodStep.WAIT and bot.spec.get("updateStrategy") == UpdateStrategy.WHEN_FLAT:
        return Finding.bad(
            Reason.AWAITING_FLAT, f"The pod is restarted once the bot says that it has no position: {difference}."
        )
    if step is PodStep.QUEUE:
        return Finding.bad(
            Reason.AWAITING_TURN, f"The pod is restarted in its turn, as its TradingBotSet says: {difference}."
        )
    return Finding.bad(Reason.UPDATING, f"The pod is being replaced: {difference}.")


class Restarts:
    """Ends pods as spec.suspend and spec.updateStrategy say."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        certainty: Certainty,
        objects: BotObjects,
        talk: BotTalk,
        reporter: Reporter,
        has_turn: Callable[[SeenBot], bool],
    ) -> None:
        """`has_turn`: whether no TradingBotSet holds back the restart of a bot now."""
        self._has_turn = has_turn
        self._cluster = cluster
        self._certainty = certainty
        self._objects = objects
        self._talk = talk
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()

    async def step(
        self, bot: SeenBot, spec: TradingBotSpec, memory: Memory, pod: SeenPod | None, again: list[float]
    ) -> None:
        """Looks at the pod as it is and brings its end closer, where one is wanted."""
        manifest = self._objects.pod_manifest(bot, spec)
        template = manifest["metadata"]["annotations"][names.POD_TEMPLATE_ANNOTATION]
        image = manifest["spec"]["containers"][0]["image"]
        if not bot.suspended:
            memory.drained, memory.marks = None, 0
        elif memory.drained is None:
            memory.drained = statuses.noted_drain(bot)
        if pod is None or pod.deleting or pod.terminated:
            memory.asked = None
            memory.up_to_date = up_to_date(pod, bot, template, image, PodStep.DELETE)
            return
        wanted = Ending.SUSPEND if bot.suspended else Ending.UPDATE if pod.template != template else Ending.NONE
        word = memory.word()
        status = word.status if word is not None else None
        drained = status is not None and status.drain.phase is DrainPhase.DRAINED
        if wanted is Ending.SUSPEND:
            # A process that runs speaks for itself; a former one's drain says nothing of it.
            memory.drained = status.drain if status is not None and drained else None
        now = self._loop.time()
        memory.asked = asked(memory.asked, wanted, spec.update_strategy, reachable=status is not None, now=now)
        facts = EndingFacts(
            wanted=wanted,
            strategy=spec.update_strategy,
            running=pod.container.running,
            could_trade=wanted is not Ending.NONE and await self._could_trade(bot, memory, status),
            reachable=status is not None,
            drained=drained,
            flat=status is not None and is_flat(status),
            late=memory.asked is not None and memory.asked.late(now, spec.deletion_deadline_seconds),
            marked=memory.marked(bot),
            naked=status is not None and is_naked(status),
            turn=self._has_turn(bot),
        )
        action = pod_step(facts)
        memory.up_to_date = up_to_date(pod, bot, template, image, action)
        if wanted is Ending.UPDATE and facts.running and action in {PodStep.DRAIN, PodStep.DELETE}:
            refused = await self._cluster.refusal("pods", manifest)
            if refused:
                # The bot that runs is better than none.
                memory.up_to_date = Finding.bad(
                    Reason.POD_OUTDATED,
                    f"The pod is not replaced, as the API server refuses the new one: {refused}. Mend spec.pod, a "
                    "policy or a webhook; it is tried again.",
                )
                again.append(REFUSED_RETRY_SECONDS)
                return
        if action is PodStep.DRAIN:
            await self._talk.drain(bot, memory, PositionPolicy.HOLD, seconds_left=spec.deletion_deadline_seconds)
            again.append(DRAIN_REPEAT_SECONDS)
        elif action is PodStep.MARK:
            memory.marks += 1
            again.append(MARK_SECONDS)
        elif action is PodStep.QUEUE:
            # How long it may take to drain counts from its turn.
            memory.asked = None
            again.append(DRAIN_REPEAT_SECONDS)
        elif action is PodStep.WAIT:
            again.append(DRAIN_REPEAT_SECONDS)
        elif action is PodStep.DELETE:
            memory.drain_asked, memory.ended_on_purpose = None, True
            await self._cluster.delete("pods", bot.key.namespace, bot.key.name, pod.uid)
            if memory.end_told != pod.uid:
                memory.end_told = pod.uid
                await self._reporter.events.post(bot, _notice(wanted, memory.up_to_date))

    async def _could_trade(self, bot: SeenBot, memory: Memory, status: BotStatus | None) -> bool:
        named = status is not None and status.account_uid is not None
        return named or await self._certainty.could_trade(bot, memory)


def _notice(wanted: Ending, finding: Finding) -> Notice:
    if wanted is Ending.SUSPEND:
        return Notice("Suspended", "The pod ends; what the bot holds keeps its protection on the exchange.")
    if wanted is Ending.UPDATE:
        return Notice("Updating", finding.message)
    return Notice("Restarting", "The bot was drained for an end that is not wanted any more; a new process trades.")
