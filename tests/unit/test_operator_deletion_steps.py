"""Promises of a deletion's steps: what an operator that begins in the middle of one may do, and that it ends."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from support.operator_objects import NOW, UID, seen_bot, seen_pod, word
from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, DrainPhase, DrainStatus
from tradingbot_api.v1alpha1 import PositionPolicy
from tradingbot_operator.bot_talk import Record
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.cluster import ApiError, ConflictError, NotFoundError
from tradingbot_operator.deletion import STUCK_POD_SECONDS, Deletion
from tradingbot_operator.fleet import MOST_MARKS, MOST_RELEASES, Memory
from tradingbot_operator.inventory import SeenBot, SeenPod

DEADLINE_SECONDS = 10


class World:
    """What a deletion does to everything around it, in order; nothing of it waits."""

    def __init__(self, bot: SeenBot, pod: SeenPod | None, *, leads_for: float = 3600.0, after: float = 5.0) -> None:
        """`leads_for`: seconds since this operator took the Lease; `after`: since the deletion."""
        self.done: list[str] = []
        self.release_error: ApiError | None = None
        self.finalizer_error: ApiError | None = None
        self.bot = bot
        self.pod = pod
        self.now = NOW + timedelta(seconds=after)
        self.memory = Memory(bot.uid, bot.key)
        leader = SimpleNamespace(since=asyncio.get_running_loop().time() - leads_for)
        stand_in: Any = self
        self._deletion = Deletion(
            cluster=stand_in, claims=stand_in, certainty=Certainty(stand_in, stand_in, leader),  # type: ignore[arg-type]
            objects=stand_in, talk=stand_in, reporter=stand_in, now=self.clock, metrics=stand_in,
        )  # fmt: skip
        self.deletions_incomplete = SimpleNamespace(inc=lambda: None)
        self.events = stand_in

    async def step(self, heard: BotStatus | None = None) -> str:
        """One step; what it did last."""
        self.memory.word = lambda: SimpleNamespace(status=heard) if heard else None  # type: ignore[method-assign,assignment,return-value]
        await self._deletion.step(self.bot, self.memory)
        return self.done[-1]

    def clock(self) -> datetime:
        return self.now

    def our_pod(self, bot: SeenBot) -> SeenPod | None:
        return self.pod

    def tend_link(self, *_: object) -> None: ...

    async def record(self, *_: object) -> Record:
        return Record.DONE

    async def holder(self, _: str) -> str:
        return UID

    async def any_of(self, _: str) -> bool:
        return True

    async def drain(self, *_: object, **__: object) -> None:
        self.done.append("drain")

    async def delete(self, plural: str, *_: object) -> None:
        self.done.append(f"delete {plural}")

    async def release(self, _: str) -> None:
        if self.release_error is not None:
            raise self.release_error
        self.done.append("release the claim")

    async def set_finalizer(self, _: SeenBot, *, present: bool) -> None:
        if self.finalizer_error is not None:
            raise self.finalizer_error
        self.done.append("let go")

    async def tell(self, _bot: object, _memory: object, accepted: Any, *_: object) -> None:
        self.done.append(accepted.message)

    async def post(self, *_: object) -> None: ...


def deleted(**status: Any) -> SeenBot:
    """A TradingBot that is being deleted."""
    return seen_bot(
        metadata={"deletionTimestamp": NOW.isoformat(), "finalizers": [names.FINALIZER]},
        deletionDeadlineSeconds=DEADLINE_SECONDS,
        status={"accountUID": "1001", **status},
    )


TAKEN_UP = {
    "conditions": [
        {"type": "Accepted", "status": "False", "reason": "Deleting", "lastTransitionTime": "2026-11-22T12:00:00Z"}
    ]
}


@pytest.mark.parametrize(
    ("leads_for", "granted_ago", "released"),
    [
        pytest.param(5.0, None, False, id="a-former-operator-may-have-granted"),
        pytest.param(3600.0, None, True, id="nobody-granted-for-long"),
        pytest.param(3600.0, 15.0, False, id="it-granted-itself"),
        pytest.param(3600.0, 300.0, True, id="its-grant-is-over"),
    ],
)
async def test_a_claim_is_not_released_while_a_process_that_nobody_saw_end_may_hold_a_grant(
    leads_for: float, granted_ago: float | None, released: bool
) -> None:
    stuck = seen_pod({"running": {}}, deleting=True)
    world = World(
        deleted(**TAKEN_UP), stuck, leads_for=leads_for, after=DEADLINE_SECONDS + STUCK_POD_SECONDS + 1
    )  # fmt: skip
    if granted_ago is not None:
        world.memory.last_grant = asyncio.get_running_loop().time() - granted_ago
    assert await world.step() == "let go"
    assert ("release the claim" in world.done) is released


async def test_a_status_that_cannot_hold_the_drain_does_not_hold_up_the_end() -> None:
    world = World(deleted(), seen_pod({"running": {}}, ready=True))
    drained = word(drain=DrainStatus(phase=DrainPhase.DRAINED, position_policy=PositionPolicy.HOLD))
    for _ in range(MOST_MARKS):
        assert "Mark" in await world.step(drained)
    await world.step(drained)
    assert "delete pods" in world.done


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)], ids=["forward", "back"])
async def test_a_clock_that_is_set_neither_cuts_a_drain_short_nor_lengthens_it(jump: timedelta) -> None:
    trading = word()
    world = World(deleted(), seen_pod({"running": {}}, ready=True))
    first = await world.step(trading)
    world.now += jump
    assert await world.step(trading) == first
    assert "Drain, until 12:00:15Z" in first
    taken_up = world.memory.deletion_begun
    assert taken_up is not None
    world.memory.deletion_begun = (taken_up[0], taken_up[1] - DEADLINE_SECONDS)
    assert "DeletePod" in await world.step(trading)


def ended() -> World:
    """A TradingBot whose process is gone for sure: only the claim and the finalizer are left."""
    return World(deleted(**TAKEN_UP), None, after=DEADLINE_SECONDS + 1)


async def test_a_conflict_does_not_leave_the_finalizer_on_for_ever() -> None:
    world = ended()
    world.finalizer_error = ConflictError(
        409, "Conflict", 'Operation cannot be fulfilled on tradingbots.tradingbot.dev "liquid": it has been modified'
    )
    with pytest.raises(ConflictError):
        await world.step()
    assert not world.memory.released
    world.finalizer_error = None
    assert await world.step() == "let go"


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(NotFoundError(404, "NotFound", "tradingbots.tradingbot.dev not found"), id="not-found"),
        pytest.param(
            ConflictError(409, "Conflict", "uid mismatch: the provided object specified uid a, and no existing object"),
            id="nothing-of-that-uid",
        ),
        pytest.param(
            ConflictError(409, "Conflict", "Precondition failed: UID in precondition: a, UID in object meta: b"),
            id="another-of-that-name",
        ),
    ],
)
async def test_a_tradingbot_that_is_gone_already_is_let_go(error: ApiError) -> None:
    world = ended()
    world.finalizer_error = error
    await world.step()
    assert world.memory.released


async def test_a_claim_is_released_again_after_an_error_of_the_server_and_holds_nobody_for_ever() -> None:
    world = ended()
    world.release_error = ApiError(500, "InternalError", "the server has an error")
    for _ in range(MOST_RELEASES - 1):
        with pytest.raises(ApiError):
            await world.step()
    assert await world.step() == "let go"
    other = ended()
    other.release_error = ApiError(403, "Forbidden", "denied by a policy")
    assert await other.step() == "let go"
