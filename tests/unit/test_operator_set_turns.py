"""Promises of a set's turns: no bot of it is restarted for another pod but in a turn that it was given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from support.operator_objects import NOW
from support.set_store import KEY, Store, controller
from tradingbot_api import names
from tradingbot_operator.inventory import SeenBot
from tradingbot_operator.set_controller import SetController


def status(ready: bool = True, up_to_date: str = "OK") -> dict[str, Any]:
    latest = up_to_date == "OK"
    return {
        "phase": "Trading" if ready else "Degraded",
        "conditions": [
            {"type": "Ready", "status": str(ready), "reason": "OK" if ready else "ExchangeUnreachable"},
            {"type": "UpToDate", "status": str(latest), "reason": up_to_date},
        ],
    }


def in_turn(sets: SetController, store: Store) -> list[str]:
    return [name for name, raw in store.bots.items() if sets.has_turn(SeenBot.of(raw))]


async def test_bots_that_are_not_ready_are_restarted_for_another_pod_no_more_at_a_time_than_all_others() -> None:
    store = Store({}, updateStrategy={"maxUnavailable": 3})
    sets = controller(store)
    await sets.step(KEY)
    store.tell(status())
    await sets.step(KEY)
    store.set["spec"]["updateStrategy"] = {"maxUnavailable": 1}
    store.set["metadata"] = {**store.set["metadata"], "generation": 2, "resourceVersion": "50"}
    sets.set_seen(store.set)
    store.tell(status(ready=False))
    await sets.step(KEY)
    assert in_turn(sets, store) == []
    store.tell(status(ready=False, up_to_date="AwaitingTurn"))
    await sets.step(KEY)
    assert len(in_turn(sets, store)) == 1


async def test_a_bot_whose_change_the_api_server_refuses_keeps_it_from_no_other_one() -> None:
    store = Store({})
    store.refused = {"majors-btcusdt"}
    sets = controller(store)
    for _ in range(4):
        await sets.step(KEY)
        store.tell(status())
    given = [
        name for name, raw in store.bots.items() if names.SET_TEMPLATE_ANNOTATION in raw["metadata"]["annotations"]
    ]
    assert given == ["majors-ethusdt", "majors-solusdt"]
    assert [(problem.symbol, problem.reason) for problem in store.told.problems] == [("BTCUSDT", "Refused")]


async def test_bots_that_wait_for_their_turn_to_start_are_not_late_before_it() -> None:
    store = Store({}, updateStrategy={"maxUnavailable": 3})
    sets = controller(store)
    await sets.step(KEY)
    paced = {"type": "PodReady", "status": "False", "reason": "StartPaced"}
    store.tell({**status(ready=False), "conditions": [*status(ready=False)["conditions"], paced]})
    for seconds in (1, 3_600):
        store.now = NOW + timedelta(seconds=seconds)
        await sets.step(KEY)
    (figures,) = sets.figures()
    assert not figures.rollout_stopped
    store.tell(status(ready=False))
    for seconds, late in ((3_601, False), (4_202, True)):
        store.now = NOW + timedelta(seconds=seconds)
        await sets.step(KEY)
        (figures,) = sets.figures()
        assert figures.rollout_stopped is late


async def test_a_bot_that_awaits_to_be_flat_and_cannot_be_asked_whether_it_is_stops_the_rollout() -> None:
    store = Store({})
    sets = controller(store)
    store.tell(status(ready=False, up_to_date="AwaitingFlat"))
    await sets.step(KEY)
    for seconds in (1, 300, 599):
        store.now = NOW + timedelta(seconds=seconds)
        await sets.step(KEY)
    (figures,) = sets.figures()
    assert not figures.rollout_stopped
    store.now = NOW + timedelta(seconds=602)
    await sets.step(KEY)
    (figures,) = sets.figures()
    assert figures.rollout_stopped
