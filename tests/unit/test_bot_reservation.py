"""Promises of the reservation: no entry beyond it, none after its end, and none by one that is old or not asked for."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from tradingbot.recovery.reservation import ReservationKeeper, Room
from tradingbot_api.bot_http import RESERVATION_TTL_SECONDS, Reservation

LIMIT = Decimal(50)


class Keeper(ReservationKeeper):
    """With a clock that tests move."""

    def __init__(self, *, required: bool = True) -> None:
        self.now = 100.0
        super().__init__(lambda: required, lambda: self.now)

    def receive(self, number: int = 1, request: int | None = 1, **changes: Any) -> float:
        """A reservation arrives; what is not said is that of one that answers the first request at once."""
        fields = {"bot_uid": "u", "boot_id": "b", "epoch": 3, "exposure": LIMIT, "clock": self.now}
        return self.take(Reservation.model_validate({**fields, "number": number, "request": request, **changes}))


def test_without_limits_over_a_fleet_nothing_is_needed() -> None:
    assert Keeper(required=False).covers(Decimal(10**9))


def test_an_entry_fits_into_what_is_reserved_with_what_the_bot_has_already() -> None:
    keeper = Keeper()
    assert keeper.covers(Decimal(0))
    assert not keeper.covers(Decimal("0.01"))
    keeper.ask(LIMIT)
    assert keeper.receive() == RESERVATION_TTL_SECONDS
    assert keeper.covers(LIMIT)
    assert not keeper.covers(LIMIT + Decimal("0.00000001"))
    assert not keeper.covers(None)


def test_it_ends_by_the_bots_own_clock_from_when_it_asked_and_no_later_than_agreed() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    keeper.now = 104.0
    assert keeper.receive(clock=100.0, ttl_seconds=3600) == RESERVATION_TTL_SECONDS - 4
    keeper.now = 100.0 + RESERVATION_TTL_SECONDS - 0.01
    assert keeper.covers(LIMIT)
    keeper.now = 100.0 + RESERVATION_TTL_SECONDS
    assert not keeper.covers(LIMIT)
    assert keeper.exposure == 0


@pytest.mark.parametrize(
    ("word", "counts"),
    [({"epoch": 3, "number": 4}, False), ({"epoch": 3, "number": 5}, False), ({"epoch": 2, "number": 9}, False),
     ({"epoch": 3, "number": 6}, True), ({"epoch": 4, "number": 1}, True)],
)  # fmt: skip
def test_one_that_is_not_newer_than_what_was_seen_is_of_no_use(word: dict[str, int], counts: bool) -> None:
    keeper = Keeper()
    keeper.receive(number=5, request=None, exposure="0")
    keeper.ask(LIMIT)
    assert (keeper.receive(**word) > 0) is counts
    assert keeper.covers(LIMIT) is counts
    assert keeper.seen == ((word["epoch"], word["number"]) if counts else (3, 5))


def test_the_answer_to_a_request_that_was_given_up_is_seen_and_not_held() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    second = keeper.ask(LIMIT)
    assert keeper.receive(number=1, request=1) == 0
    assert (keeper.seen, keeper.exposure, keeper.request) == ((3, 1), 0, second)
    keeper.receive(number=2, request=2)
    assert (keeper.exposure, keeper.request) == (LIMIT, None)


def test_what_is_given_back_is_of_no_use_any_more_nor_is_it_when_it_comes_again() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    keeper.receive()
    keeper.give_back()
    assert keeper.receive() == 0
    assert not keeper.covers(Decimal(1))


def test_a_newer_one_ends_what_was_held() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    keeper.receive()
    assert keeper.receive(number=1, epoch=4, request=None, exposure="0") == 0
    assert keeper.exposure == 0


async def test_who_waits_is_told_how_much_and_why_no_more() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    waiting = asyncio.create_task(keeper.answer(10))
    await asyncio.sleep(0)
    keeper.receive(exposure="20", message="full")
    assert await waiting == Room(Decimal(20), "full")


async def test_an_answer_that_came_before_anybody_waited_is_told() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    keeper.receive()
    assert await keeper.answer(10) == Room(LIMIT, "")
    keeper.ask(LIMIT)
    assert await keeper.answer(0.01) is None


async def test_who_waits_in_vain_gives_up() -> None:
    keeper = Keeper()
    keeper.ask(LIMIT)
    assert await keeper.answer(0.01) is None
    assert keeper.request is None
    assert keeper.receive() == 0
