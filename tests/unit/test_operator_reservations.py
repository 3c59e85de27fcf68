"""Promises of the leader's reservations: a bot is answered by its own line, a new leader begins with empty books, and
whether limits hold for a bot is never guessed."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.operator_objects import UID, seen_bot, word
from tradingbot_api.bot_http import BotStatus, FleetReport, ImposedCause, Reservation, ReservationRequest
from tradingbot_operator import desired
from tradingbot_operator.bot_link import BotCallError, BotLink
from tradingbot_operator.bot_objects import BotObjects
from tradingbot_operator.budget import UNLIMITED, Bound, Limits
from tradingbot_operator.cluster import Cluster
from tradingbot_operator.fleet import Memory
from tradingbot_operator.imposed import NOBODY, Standing
from tradingbot_operator.inventory import Controller, Inventory, Manifest, SeenBot
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.reservations import Reservations, bound_of

LIMITS = Limits(Decimal(100), Decimal(10))
OF_SET = seen_bot(
    metadata={"ownerReferences": [{"kind": "TradingBotSet", "name": "x", "uid": "set", "controller": True}]}
)


class Line:
    """What was sent to a bot."""

    def __init__(self) -> None:
        self.sent: list[Reservation] = []
        self.broken = False

    async def put_reservation(self, reservation: Reservation) -> None:
        if self.broken:
            raise BotCallError("it is gone")
        self.sent.append(reservation)


class Scene:
    """Reservations of a leader of epoch 5 over one fleet with one bot."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.leader = SimpleNamespace(epoch=5)
        self.metrics = Metrics()
        self.reservations = Reservations(cast(Leader, self.leader), self.metrics)
        self.line = Line()
        self.told: list[bool] = []
        """Whether it was urgent, for each of the fleet's news."""
        self.bot = bot_of_set("60")
        self.configure(limits)

    def configure(self, limits: Limits, lost_day: str = "") -> bool:
        return self.reservations.configure(
            "set", limits, {UID: Bound(Decimal(60), Decimal(60))}, lost_day=lost_day, news=self.tell
        )  # fmt: skip

    def tell(self, urgent: bool) -> None:
        self.told.append(urgent)

    async def hear(self, status: BotStatus) -> list[Reservation]:
        """What is sent in answer."""
        before = len(self.line.sent)
        self.reservations.hear(self.bot, cast(BotLink, self.line), status)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.line.sent[before:]

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("tradingbot_operator_reservations_total", {"result": result}) or 0


def asks(request: int | None = 1, epoch: int = 5, **more: Any) -> BotStatus:
    asked = ReservationRequest(id=request, exposure=Decimal(50)) if request is not None else None
    fields: dict[str, Any] = {"clock": 1.0, "exposure": "0", "in_position": False, "number": 0, "reserved": "0"}
    return word(fleet=FleetReport.model_validate({**fields, "epoch": epoch, "request": asked, **more}))


async def test_a_bot_that_asks_is_answered_over_its_line_and_counted() -> None:
    scene = Scene()
    (answer,) = await scene.hear(asks())
    assert (answer.epoch, answer.boot_id, answer.request, answer.exposure) == (5, "boot-1", 1, 50)
    assert (scene.count("granted"), scene.count("refused")) == (1, 0)
    assert await scene.hear(asks(None)) == []


async def test_a_bot_that_learns_of_the_leader_is_no_answer_that_counts() -> None:
    scene = Scene()
    (introduced,) = await scene.hear(asks(epoch=-1))
    assert (introduced.request, introduced.exposure) == (None, 0)
    assert (scene.count("granted"), scene.count("refused")) == (0, 0)


async def test_an_answer_that_is_lost_is_sent_again_with_the_next_word() -> None:
    scene = Scene()
    scene.line.broken = True
    assert await scene.hear(asks()) == []
    scene.line.broken = False
    (answer,) = await scene.hear(asks(clock=2.0))
    assert answer.exposure == 50


async def test_another_leadership_begins_with_empty_books_under_its_own_epoch() -> None:
    scene = Scene()
    await scene.hear(asks())
    scene.leader.epoch = 7
    scene.reservations.begin()
    assert await scene.hear(asks()) == []
    assert scene.reservations.figures("set") is None
    scene.configure(LIMITS)
    (introduced,) = await scene.hear(asks())
    assert (introduced.epoch, introduced.request) == (7, None)


async def test_a_changed_limit_is_in_force_at_once() -> None:
    scene = Scene()
    for limit, exposure in ((20, 20), (100, 50)):
        assert not scene.configure(Limits(Decimal(limit)))
        (answer,) = await scene.hear(asks(limit, clock=float(limit)))
        assert answer.exposure == exposure


async def test_after_an_epoch_that_is_raised_a_bot_counts_with_all_that_it_may_have_until_it_knows_of_it() -> None:
    scene = Scene()
    (answer,) = await scene.hear(asks())
    scene.leader.epoch = 9
    (introduced,) = await scene.hear(asks(2, clock=2.0))
    assert (introduced.epoch, introduced.request) == (9, None)
    assert introduced.number > answer.number
    figures = scene.reservations.figures("set")
    assert figures is not None
    assert (figures.reserved, figures.unheard) == (500, 1), "spec.risk.maxPositionValue"
    (again,) = await scene.hear(asks(2, epoch=9, clock=3.0, number=introduced.number))
    assert (again.epoch, again.request, again.exposure) == (9, 2, 50)


async def test_the_figures_of_a_fleet_are_news_when_a_bot_is_first_heard_and_when_a_reservation_comes_or_ends() -> None:
    scene = Scene()
    await scene.hear(asks(None, epoch=-1))
    assert scene.told == [], "its word does not count yet"
    await scene.hear(asks(None))
    await scene.hear(asks(None, clock=2.0))
    assert scene.told == [False]
    (answer,) = await scene.hear(asks(1, clock=3.0))
    await scene.hear(asks(1, clock=4.0))
    assert scene.told == [False, False]
    await scene.hear(asks(None, clock=5.0, number=answer.number))
    await scene.hear(asks(None, clock=6.0, number=answer.number))
    assert scene.told == [False, False, False]


def test_whether_a_bot_is_limited_stays_as_it_was_until_its_fleet_is_known() -> None:
    scene = Scene()
    limited, of_set = scene.reservations.limited, Controller("TradingBotSet", "x", "set")
    assert limited(of_set, before=False)
    other = of_set._replace(uid="other")
    assert [limited(other, before=before) for before in (True, False)] == [True, False]
    assert limited(other, before=None), "the first configuration of a bot that a former leader made"
    assert not limited(Controller("Deployment", "x", "other"), before=None)
    assert not limited(None, before=True)
    assert scene.configure(UNLIMITED)
    assert not limited(of_set, before=True)
    assert not limited(of_set, before=None)
    assert not scene.configure(UNLIMITED)
    assert scene.configure(LIMITS)
    assert not scene.configure(LIMITS)
    scene.reservations.forget("set")
    assert limited(of_set, before=True)


async def test_a_bot_that_was_made_and_not_configured_needs_reservations_until_a_new_leader_knows_its_set() -> None:
    written: list[Manifest] = []

    class ConfigMaps:
        async def get(self, *_: str) -> None: ...

        async def create(self, _: str, manifest: Manifest, *, whole: bool) -> Manifest:
            written.append(manifest)
            return {"metadata": {"uid": "map", "resourceVersion": str(whole)}}

    unused = cast(Any, None)
    objects = BotObjects(
        unused, cluster=cast(Cluster, ConfigMaps()), bots=Inventory(), pods=unused, authority=unused, certainty=unused,
        reporter=unused, impositions=NOBODY, shares=unused, pace=unused, now=unused, metrics=unused,
        reservations=Reservations(cast(Leader, SimpleNamespace(epoch=5)), Metrics()),
    )  # fmt: skip
    for bot in (OF_SET, seen_bot()):
        await objects.ensure_config(bot, Memory(bot.uid, bot.key))
    configs = [desired.decode(manifest) for manifest in written]
    assert [config.fleet_limited for config in configs if config is not None] == [True, False]


async def test_a_fleet_without_limits_and_a_bot_that_tells_of_none_are_answered_nothing() -> None:
    scene = Scene(UNLIMITED)
    assert await scene.hear(asks()) == []
    assert await Scene().hear(word()) == []


async def test_limits_that_were_taken_out_and_come_back_pass_over_nothing_that_a_bot_saw_or_still_holds() -> None:
    scene = Scene()
    (former,) = await scene.hear(asks())
    scene.configure(UNLIMITED)
    scene.configure(LIMITS)
    await scene.hear(asks(None, clock=2.0, number=former.number, reserved="50"))
    figures = scene.reservations.figures("set")
    assert figures is not None
    assert (figures.reserved, figures.bots_counted) == (50, 1), "it may enter by what it was given before"
    (answer,) = await scene.hear(asks(2, clock=3.0, number=former.number))
    assert answer.number > former.number, "a bot takes no older one"
    figures = scene.reservations.figures("set")
    assert figures is not None
    assert figures.reserved == 50


async def test_a_daily_loss_is_told_once_and_recalled_by_the_next_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, loop = Scene(), asyncio.get_running_loop()
    for moment in (100.0, 103.0, 104.5):
        monkeypatch.setattr(loop, "time", lambda moment=moment: moment)
        scene.reservations.hear(scene.bot, None, asks(None, day="2026-03-01", daily_pnl="-10"))
        scene.reservations.hear(
            scene.bot, cast(BotLink, scene.line), asks(None, day="2026-03-01", daily_pnl="-10", clock=moment)
        )  # fmt: skip
    assert (scene.told.count(True), scene.reservations.lost_day("set")) == (1, "2026-03-01")
    assert scene.configure(LIMITS), "the bots need another configuration"
    assert not scene.configure(LIMITS)
    (cause,) = scene.reservations.imposes(OF_SET, {})
    assert (cause.id, cause.reason, cause.level) == ("fleet-daily-loss/x/2026-03-01", "DailyLoss", "NoNewEntries")
    assert await scene.reservations.standing(OF_SET, cause.id) is Standing.IN_FORCE
    assert scene.reservations.owns(cause.id)
    scene.reservations.begin()
    held = {cause.id: cause}
    assert list(scene.reservations.imposes(OF_SET, held)) == [cause], "the fleet is not known yet"
    assert scene.configure(LIMITS, lost_day="2026-03-01")
    assert list(scene.reservations.imposes(OF_SET, held)) == [cause], "no bot has told the day yet"
    monkeypatch.undo()
    (refused,) = await scene.hear(asks(2, day="2026-03-01", daily_pnl="0"))
    assert refused.exposure == 0
    (granted,) = await scene.hear(asks(3, clock=2.0, day="2026-03-02", daily_pnl="0"))
    assert (granted.exposure, scene.told.count(True)) == (50, 2)
    assert scene.configure(LIMITS)
    assert list(scene.reservations.imposes(OF_SET, held)) == []
    assert await scene.reservations.standing(OF_SET, cause.id) is Standing.ENDED


async def test_a_daily_loss_that_no_status_tells_yet_is_known_to_the_next_leader_by_what_its_bots_hold() -> None:
    told = "fleet-daily-loss/x/2026-03-01"
    cause = ImposedCause(id=told, source="Operator", reason="DailyLoss", level="NoNewEntries")
    scene = Scene()
    assert await scene.reservations.standing(OF_SET, told) is Standing.IN_FORCE
    assert scene.told == [True], "the set's status is written"
    (refused,) = await scene.hear(asks(day="2026-03-01", daily_pnl="0"))
    assert refused.exposure == 0, "prices came back, the day is lost all the same"
    assert [one.id for one in scene.reservations.imposes(OF_SET, {told: cause})] == [told]
    by_its_configuration = Scene()
    assert [one.id for one in by_its_configuration.reservations.imposes(OF_SET, {told: cause})] == [told]
    await by_its_configuration.hear(asks(day="2026-03-02", daily_pnl="0"))
    assert list(by_its_configuration.reservations.imposes(OF_SET, {told: cause})) == [], "another day"
    by_its_configuration.reservations.begin()
    assert await by_its_configuration.reservations.standing(OF_SET, told) is Standing.GONE, "the fleet is not known yet"


def test_no_safe_mode_is_imposed_on_a_bot_of_no_fleet_or_of_one_without_limits() -> None:
    reservations = Scene(UNLIMITED).reservations
    assert list(reservations.imposes(seen_bot(), {})) == []
    assert list(reservations.imposes(OF_SET, {})) == []


HELD = {"side": "Long", "quantity": "0.1", "averagePrice": "6000", "value": "610", "validated": True}


@pytest.mark.parametrize(
    ("spec", "status", "bound"),
    [
        ({}, {"accountUID": "1", "exposureBound": "500"}, (500, 500, False)),
        ({"capital": "400"}, {"accountUID": "1", "exposureBound": "500"}, (500, 400, False)),
        ({}, {"accountUID": "1", "exposureBound": "400"}, (500, 400, False)),
        ({}, {"accountUID": "1"}, (500, 0, False)),
        ({}, {}, (500, 0, True)),
        ({}, {"accountUID": "1", "position": HELD}, (600, 0, False)),
        ({"risk": {}, "capital": None}, {"accountUID": "1"}, (10**15, 0, False)),
        (
            {"suspend": True},
            {"accountUID": "1", "drained": {"positionPolicy": "Hold", "remaining": []}},
            (500, 0, True),
        ),
        (
            {"suspend": True},
            {"accountUID": "1", "drained": {"positionPolicy": "Hold", "remaining": ["position 1 BTC"]}},
            (500, 0, False),
        ),
        ({"suspend": True}, {"accountUID": "1"}, (500, 0, False)),
        ({}, {"accountUID": "1", "drained": {"positionPolicy": "Hold", "remaining": []}}, (500, 0, False)),
    ],
    ids=[
        "as-told",
        "tightened",
        "raised",
        "not-told-yet",
        "never-traded",
        "holds-more",
        "unreadable",
        "suspended-with-nothing-left",
        "suspended-in-position",
        "suspended-and-silent",
        "not-suspended-any-more",
    ],
)
def test_a_bot_counts_with_the_most_that_its_spec_or_its_status_tells_and_is_granted_the_least(
    spec: dict[str, Any], status: dict[str, Any], bound: tuple[int, int, bool]
) -> None:
    found = bound_of(seen_bot(status=status, **spec))
    assert (found.value, found.grantable, found.blank) == bound


def test_a_bot_counts_in_the_quote_asset_that_its_status_tells() -> None:
    assert bound_of(seen_bot(status={"accountUID": "1", "quoteAsset": "BTC"})).quote_asset == "BTC"


async def test_a_bot_that_is_suspended_and_left_nothing_takes_no_room_of_a_leader_that_never_hears_it() -> None:
    scene = Scene()
    bounds = {
        "away": bound_of(
            seen_bot(status={"accountUID": "1", "drained": {"positionPolicy": "Hold", "remaining": []}}, suspend=True)
        ),
        UID: bound_of(scene.bot),
    }
    scene.reservations.configure("set", Limits(Decimal(500)), bounds, lost_day="", news=scene.tell)
    (answer,) = await scene.hear(asks())
    assert answer.exposure == 50


def bot_of_set(recorded: str | None = None, **spec: Any) -> SeenBot:
    """A bot of the scene's set."""
    owners = [{"kind": "TradingBotSet", "name": "x", "uid": "set", "controller": True}]
    status = {"accountUID": "1", **({"exposureBound": recorded} if recorded is not None else {})}
    return seen_bot(metadata={"ownerReferences": owners}, status=status, **spec)


async def test_no_more_is_granted_than_the_status_tells_already() -> None:
    scene = Scene()
    for recorded, exposure in ((None, 0), ("20", 20), ("500", 50)):
        scene.bot = bot_of_set(recorded)
        (answer,) = await scene.hear(asks(exposure + 1, clock=float(exposure)))
        assert answer.exposure == exposure
        if recorded is None:
            assert answer.message.startswith("bound=0 of this bot alone: ")
    assert (scene.count("granted"), scene.count("refused")) == (2, 1)


async def test_a_tightened_bound_is_told_only_once_the_bot_is_known_to_have_no_more() -> None:
    scene = Scene()
    bound, tightened = scene.reservations.exposure_bound, bot_of_set("500", capital="40")
    assert bound(tightened) == 500, "it was not heard"
    scene.bot = bot_of_set("500")
    (answer,) = await scene.hear(asks())
    assert (answer.exposure, bound(tightened)) == (50, 500), "it may still use what is reserved"
    await scene.hear(asks(None, clock=2.0, number=answer.number, exposure="41", in_position=True))
    assert bound(tightened) == 500, "it has more"
    await scene.hear(asks(None, clock=3.0, number=answer.number, exposure="40", in_position=True))
    assert bound(tightened) == 40


def test_a_raised_bound_is_told_at_once_and_none_of_a_bot_without_limits() -> None:
    scene = Scene()
    bound = scene.reservations.exposure_bound
    assert bound(bot_of_set()) == 500
    assert bound(bot_of_set("40")) == 500
    assert bound(seen_bot()) is None
    scene.configure(UNLIMITED)
    assert bound(bot_of_set("40")) is None
    scene.reservations.begin()
    assert bound(bot_of_set("40")) == 40, "what stands is kept until the fleet is known"
