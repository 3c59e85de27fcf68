"""Promises of a fleet's book: what all bots have together stays within the limits, whatever becomes of messages,
processes and leaders. Each rule alone; all of them at once in a sample of random lives.

In full: make test-exhaustive CAMPAIGN=fleet
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from campaigns.fleet_walk import LIVES, live
from tradingbot_api.bot_http import RESERVATION_TTL_SECONDS, FleetReport, Reservation, ReservationRequest
from tradingbot_operator.budget import LOSS_HOLD_SECONDS, UNHEARD_HOLD_SECONDS, Bound, FleetBook, Full, Limits, Told

EPOCH = 7
FULL = Bound(Decimal(60), Decimal(60))
SAMPLE = 2


def told(bot: str, request: int | None = None, wanted: str = "60", **changes: Any) -> Told:
    """A bot's word; what is not said is that of a bot that has nothing and knows this leader."""
    boot, incarnation = changes.pop("boot", f"{bot}-1"), changes.pop("incarnation", 1)
    asked = None if request is None else ReservationRequest(id=request, exposure=Decimal(wanted))
    fields: dict[str, Any] = {
        "clock": 100.0, "exposure": "0", "in_position": False, "epoch": EPOCH, "number": 0, "reserved": "0",
        "quote_asset": "USDT",
    }  # fmt: skip
    return Told(bot, boot, incarnation, FleetReport.model_validate({**fields, "request": asked, **changes}))


def book(*heard: str, value: str | None = "100", bots: int | None = None, loss: str | None = None) -> FleetBook:
    """The book of three bots that may have 60 each, of which some told that they have nothing."""
    amounts = [None if amount is None else Decimal(amount) for amount in (value, loss)]
    result = FleetBook(EPOCH)
    result.configure(Limits(*amounts, bots), dict.fromkeys("abc", FULL))
    for name in heard:
        assert result.hear(told(name), 0.0) is None
    return result


def granted(book: FleetBook, word: Told, now: float = 0.0) -> str:
    """How much is reserved in answer to a word."""
    answer = book.hear(word, now)
    assert answer is not None
    return str(answer.exposure)


def test_bots_that_ask_at_the_same_moment_get_what_the_limit_leaves_and_no_more() -> None:
    fleet = book(*"abc")
    answers = [granted(fleet, told(name, 1)) for name in "abc"]
    assert answers == ["60", "40", "0"]
    assert fleet.figures.full is Full.POSITION_VALUE


def test_a_refusal_says_the_limit_and_what_it_is_used_by() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", exposure="55", in_position=True), 0.0)
    fleet.hear(told("b", 1), 0.0)
    refused = fleet.hear(told("c", 1), 0.0)
    assert refused is not None
    assert (refused.exposure, refused.message) == (0, "maxPositionValue=100 positions=55 reserved=45")


def test_no_more_bots_are_in_position_than_may_be_and_one_that_may_enter_counts() -> None:
    fleet = book(*"abc", value=None, bots=2)
    fleet.hear(told("a", exposure="5", in_position=True), 0.0)
    assert [granted(fleet, told(name, 1)) for name in "bc"] == ["60", "0"]
    assert fleet.figures.full is Full.BOTS_IN_POSITION
    sold = told("a", clock=101.0)
    fleet.hear(sold, 0.0)
    assert granted(fleet, told("c", 2)) == "60"


def test_a_refusal_for_the_number_of_bots_says_how_many_count() -> None:
    fleet = book(*"abc", value=None, bots=1)
    fleet.hear(told("a", exposure="5", in_position=True), 0.0)
    refused = fleet.hear(told("b", 1), 0.0)
    assert refused is not None
    assert refused.message == "maxBotsInPosition=1 counted=1"


def test_a_bot_in_position_is_no_other_one_to_itself_and_is_granted_nothing_unless_it_may_have_more() -> None:
    fleet = book(*"abc", bots=1)
    fleet.hear(told("a", exposure="30", in_position=True), 0.0)
    assert granted(fleet, told("a", 1, exposure="30", in_position=True)) == "60"
    fleet = book(*"abc")
    fleet.hear(told("b", exposure="60", in_position=True), 0.0)
    full = fleet.hear(told("a", 1, exposure="40", in_position=True), 0.0)
    assert full is not None
    assert (full.exposure, full.message) == (0, "maxPositionValue=100 positions=100 reserved=0")


def test_amounts_below_one_count_as_all_others_do() -> None:
    fleet = book(*"abc", value="0.02", bots=1)
    first = fleet.hear(told("a", 1, "0.015"), 0.0)
    assert first is not None
    assert granted(fleet, told("b", 1, "0.015")) == "0", "a place is reserved"
    fleet.hear(told("a", clock=101.0, number=first.number, reserved="0.015"), 0.0)
    assert granted(fleet, told("b", 2, "0.015")) == "0", "it holds the reservation"


def test_a_bot_gets_no_more_than_its_own_spec_allows() -> None:
    assert granted(book(*"abc"), told("a", 1, "90")) == "60"


def test_a_bot_of_another_fleet_is_answered_nothing() -> None:
    assert book(*"abc").hear(told("stranger", 1), 0.0) is None


def test_a_bot_that_has_not_told_counts_with_the_most_that_it_may_have_and_with_a_place() -> None:
    assert granted(book("a"), told("a", 1)) == "0"  # 120 of 100 may be bought
    assert granted(book("a", "b"), told("a", 1)) == "40"
    assert granted(book("a", "b", value=None, bots=1), told("a", 1)) == "0"
    assert book("a").figures.unheard == 2


def test_a_bot_that_nobody_heard_since_its_spec_was_tightened_counts_with_what_it_may_have_been_granted() -> None:
    fleet = book("a", "b")
    tightened = Bound.of(Decimal(10), "60")
    fleet.bind("c", tightened)
    assert granted(fleet, told("a", 1)) == "40"
    fleet.hear(told("c"), 0.0)
    assert granted(fleet, told("c", 1)) == "10"


def test_a_bound_that_was_raised_counts_of_a_bot_that_nobody_heard() -> None:
    fleet = book("a", "b")
    fleet.configure(Limits(Decimal(100)), {**dict.fromkeys("ab", FULL), "c": Bound(Decimal(90), Decimal(60))})
    assert granted(fleet, told("a", 1)) == "10"
    assert fleet.known("c") is None


def test_after_an_epoch_that_was_raised_what_was_reserved_counts_though_the_bound_is_less() -> None:
    fleet = book(*"abc")
    fleet.hear(told("c", 1), 0.0)
    fleet.bind("c", Bound(Decimal(10), Decimal(10)))
    fleet.lead(EPOCH + 1)
    for name in "ab":
        fleet.hear(told(name, epoch=EPOCH + 1), 0.0)
    assert granted(fleet, told("a", 1, epoch=EPOCH + 1)) == "40"


def test_a_process_that_knows_only_a_former_leader_counts_in_full_although_the_former_process_had_told() -> None:
    fleet = book(*"abc")
    fleet.hear(told("c", boot="c-2", incarnation=2, epoch=EPOCH - 1), 0.0)
    assert granted(fleet, told("a", 1)) == "40"


def test_a_bot_that_was_never_the_trader_of_its_symbol_has_nothing() -> None:
    fleet = book("a", "b")
    fleet.configure(Limits(Decimal(100), None, 1), {"a": FULL, "n": Bound.of(Decimal(60), "60", blank=True)})
    assert fleet.figures.unheard == 0, "nothing of it is to be told"
    assert granted(fleet, told("a", 1)) == "60"


def test_a_bot_that_knows_only_a_former_leader_is_told_first_and_counts_in_full_until_it_knows() -> None:
    fleet = book("a", "b")
    introduced = fleet.hear(told("c", 1, epoch=EPOCH - 1, number=90), 0.0)
    assert introduced is not None
    assert (introduced.epoch, introduced.request, introduced.exposure) == (EPOCH, None, 0)
    assert granted(fleet, told("a", 1)) == "40"
    assert granted(fleet, told("c", 1, number=introduced.number)) == "60"


def test_a_former_leader_grants_nothing_to_a_bot_that_knows_a_later_one() -> None:
    assert book(*"abc").hear(told("a", 1, epoch=EPOCH + 1), 0.0) is None


def test_what_is_reserved_counts_until_the_bot_says_by_its_own_clock_that_it_is_over() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", 1), 0.0)
    last = 100.0 + RESERVATION_TTL_SECONDS
    fleet.hear(told("a", clock=last - 0.01), 1e9)  # it did not arrive yet, however late it is here
    assert granted(fleet, told("b", 1)) == "40"
    fleet.hear(told("b", clock=101.0, number=99), 1e9)
    fleet.hear(told("a", clock=last), 0.0)
    assert granted(fleet, told("b", 2, clock=102.0, number=99)) == "60"


def test_a_bot_that_gave_its_reservation_back_leaves_the_rest_to_others_at_once() -> None:
    fleet = book(*"abc")
    first = fleet.hear(told("a", 1), 0.0)
    assert isinstance(first, Reservation)
    fleet.hear(told("a", clock=101.0, number=first.number, reserved="60"), 0.0)
    assert granted(fleet, told("b", 1)) == "40"
    fleet.hear(told("a", clock=102.0, number=first.number, exposure="20", in_position=True), 0.0)
    assert granted(fleet, told("c", 1)) == "40"


def test_a_reservation_on_its_way_counts_though_the_bot_gave_an_older_one_back() -> None:
    fleet = book(*"abc")
    first = fleet.hear(told("a", 1), 0.0)
    second = fleet.hear(told("a", 2, "50", clock=101.0), 0.0)
    assert first is not None
    assert second is not None
    fleet.hear(told("a", clock=102.0, number=first.number), 0.0)
    assert granted(fleet, told("b", 1)) == "50"


def test_the_answer_to_a_request_that_is_heard_again_is_the_same() -> None:
    fleet = book(*"abc")
    first = fleet.hear(told("a", 1), 0.0)
    assert fleet.hear(told("a", 1, clock=105.0), 0.0) == first


def test_a_word_that_comes_late_changes_nothing() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", clock=105.0, exposure="60", in_position=True), 0.0)
    assert fleet.hear(told("a", 1, clock=104.0), 0.0) is None
    assert granted(fleet, told("b", 1)) == "40"


def test_a_restart_ends_what_was_reserved_once_the_new_process_tells_what_it_has() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", 1), 0.0)
    fleet.hear(told("a", boot="a-2", incarnation=None, exposure=None), 0.0)
    fleet.hear(told("a", boot="a-2", incarnation=2, epoch=-1), 0.0)
    assert granted(fleet, told("b", 1)) == "40"
    fleet.hear(told("a", boot="a-2", incarnation=2, exposure="10", in_position=True, clock=1.0), 0.0)
    assert granted(fleet, told("c", 1)) == "50"


def test_a_process_that_begins_anew_to_count_its_requests_is_answered() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", 5), 0.0)
    assert granted(fleet, told("a", 1, boot="a-2", incarnation=2, clock=1.0)) == "60"


def test_a_process_without_an_incarnation_is_not_the_trader_and_changes_nothing() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", exposure="30", in_position=True), 0.0)
    assert fleet.hear(told("a", 1, boot="a-2", incarnation=None), 0.0) is None
    assert fleet.known("a") == 30


def test_a_late_word_of_a_former_process_changes_nothing() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", boot="a-2", incarnation=2, exposure="60", in_position=True, clock=1.0), 0.0)
    assert fleet.hear(told("a", 1, clock=900.0), 0.0) is None
    assert granted(fleet, told("b", 1)) == "40"


def test_a_process_that_does_not_know_what_it_has_counts_as_the_former_one_did() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", exposure="30", in_position=True), 0.0)
    assert fleet.hear(told("a", 1, boot="a-2", incarnation=2, exposure=None), 0.0) is None
    assert granted(fleet, told("b", 1)) == "60"
    assert granted(fleet, told("c", 1)) == "10"


@pytest.mark.parametrize("epoch", [EPOCH, EPOCH - 1])
@pytest.mark.parametrize("incarnation", [1, 2])
def test_a_process_that_is_not_later_than_the_one_that_told_changes_nothing(epoch: int, incarnation: int) -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", boot="a-2", incarnation=2, exposure="30", in_position=True), 0.0)
    fleet.hear(told("a", boot="a-1", incarnation=incarnation, epoch=epoch), 0.0)
    assert (fleet.known("a"), fleet.known("nobody")) == (30, None)
    assert fleet.figures.unheard == 0


def test_a_bot_that_fell_silent_counts_with_what_it_had_and_what_was_reserved_for_it() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", 1, "30"), 0.0)
    assert granted(fleet, told("b", 1), now=1e9) == "60"
    assert granted(fleet, told("c", 1), now=1e9) == "10"


def test_limits_below_what_is_held_grant_nothing_until_there_is_room() -> None:
    fleet = book(*"abc")
    fleet.hear(told("a", exposure="60", in_position=True), 0.0)
    fleet.configure(Limits(Decimal(50)), dict.fromkeys("abc", FULL))
    assert granted(fleet, told("b", 1)) == "0"


@pytest.mark.parametrize(("value", "loss", "exposure"), [("100", None, "0"), (None, "10", "0"), (None, None, "60")])
def test_amounts_in_two_quote_assets_are_never_added(value: str | None, loss: str | None, exposure: str) -> None:
    fleet = book("a", "c", value=value, loss=loss, bots=3)
    fleet.hear(told("b", quote_asset="EUR"), 0.0)
    answer = fleet.hear(told("a", 1), 0.0)
    assert answer is not None
    assert str(answer.exposure) == exposure
    assert fleet.figures.full == (Full.QUOTE_ASSETS if exposure == "0" else None)
    if exposure == "0":
        assert answer.message == "the bots trade against EUR, USDT: limits hold in one quote asset"


def test_a_bot_that_no_leader_of_now_heard_trades_against_the_quote_asset_that_its_status_tells() -> None:
    fleet = book("a", "b")
    fleet.bind("c", replace(FULL, quote_asset="BTC"))
    assert granted(fleet, told("a", 1)) == "0"
    assert fleet.figures.full is Full.QUOTE_ASSETS
    fleet.hear(told("c"), 0.0)
    assert granted(fleet, told("a", 2)) == "60", "its own word counts for more"


def test_losses_in_two_quote_assets_make_no_lost_day_and_amounts_of_them_no_figure() -> None:
    fleet, today = book("c", loss="10"), {"day": "2026-03-01"}
    for now in (0.0, 10.0, 20.0):
        fleet.hear(told("a", daily_pnl="-3", exposure="30", in_position=True, **today), now)
        fleet.hear(told("b", daily_pnl="-300", exposure="90", in_position=True, quote_asset="JPY", **today), now)
    found = fleet.figures
    assert (fleet.lost_day, found.full, found.daily_loss_reached) == ("", Full.QUOTE_ASSETS, False)
    assert (found.position_value, found.reserved, found.daily_pnl, found.bots_in_position) == (None, None, None, 2)


def test_a_loss_of_the_day_ends_entries_until_midnight_once_it_held_for_three_seconds() -> None:
    fleet = book(*"abc", loss="10")
    today = {"day": "2026-03-01"}
    fleet.hear(told("a", daily_pnl="-14", **today), 0.0)
    fleet.hear(told("b", daily_pnl="5", **today), 0.0)
    assert granted(fleet, told("c", 1)) == "60"
    fleet.hear(told("b", daily_pnl="4", **today), 10.0)
    assert granted(fleet, told("c", 2), now=10.0) == "0"  # nothing more while it is lost
    assert (fleet.figures.full, fleet.figures.daily_loss_reached) == (Full.DAILY_LOSS, False)
    fleet.hear(told("b", daily_pnl="5", **today), 10.5)
    assert (fleet.lost_day, granted(fleet, told("c", 3), now=10.5)) == ("", "60")
    fleet.hear(told("b", daily_pnl="4", **today), 20.0)
    fleet.hear(told("b", daily_pnl="4", **today), 20.0 + LOSS_HOLD_SECONDS)
    fleet.hear(told("b", daily_pnl="50", **today), 24.0)
    refused = fleet.hear(told("c", 4), 24.0)
    assert refused is not None
    assert (refused.exposure, refused.message) == (0, "maxDailyLoss=10 dailyPnL=36 until 00:00 UTC")
    assert (fleet.lost_day, fleet.figures.full) == ("2026-03-01", Full.DAILY_LOSS)
    fleet.hear(told("a", daily_pnl="0", day="2026-03-02"), 30.0)
    assert (fleet.daily_pnl, granted(fleet, told("c", 5), now=30.0)) == (0, "60")


def test_a_sum_of_the_day_that_lacks_bots_is_no_lost_day_until_they_had_the_time_to_tell() -> None:
    fleet, today = book(loss="10"), {"day": "2026-03-01"}
    fleet.configure(Limits(None, Decimal(10)), {**dict.fromkeys("abc", FULL), "n": replace(FULL, blank=True)})
    lost = told("a", daily_pnl="-14", **today)
    for now in (0.0, LOSS_HOLD_SECONDS):
        fleet.hear(lost, now)
    assert granted(fleet, told("a", 1, daily_pnl="-14", **today), now=5.0) == "0", "nothing is granted meanwhile"
    fleet.hear(told("b", daily_pnl="9", **today), 6.0)
    fleet.hear(lost, 20.0)
    assert fleet.lost_day == ""
    fleet.hear(told("b", daily_pnl="0", **today), 30.0)
    fleet.hear(lost, 30.0 + UNHEARD_HOLD_SECONDS / 2)
    assert fleet.lost_day == "", "c may be connected still"
    fleet.hear(told("c", **today), 32.0 + UNHEARD_HOLD_SECONDS / 2)
    assert fleet.lost_day == "2026-03-01", "all but the one that never traded have told"


def test_a_bot_that_never_tells_keeps_no_loss_from_being_reached() -> None:
    fleet = book(loss="10")
    for now in (0.0, UNHEARD_HOLD_SECONDS):
        fleet.hear(told("a", daily_pnl="-14", day="2026-03-01"), now)
    assert fleet.lost_day == "2026-03-01"


def test_a_leader_that_follows_goes_on_with_the_day_that_was_lost() -> None:
    fleet = book(*"abc", loss="10")
    fleet.recall_loss("2026-03-01")
    assert fleet.daily_loss_reached, "nobody has told the day yet"
    fleet.hear(told("a", daily_pnl="0", day="2026-03-01"), 0.0)
    assert granted(fleet, told("b", 1)) == "0"


def test_a_day_that_was_lost_is_undone_by_no_limit_and_by_no_higher_one() -> None:
    fleet = book(*"abc", loss="10")
    fleet.recall_loss("2026-03-01")
    fleet.configure(Limits(Decimal(100), Decimal(50)), dict.fromkeys("abc", FULL))
    assert fleet.daily_loss_reached
    for limit, lost in ((None, ""), (Decimal(50), "")):
        fleet.configure(Limits(Decimal(100), limit), dict.fromkeys("abc", FULL))
        if limit is None:
            fleet.recall_loss("2026-03-01")  # the set's status tells it still
        fleet.hear(told("a", daily_pnl="-14", day="2026-03-01"), 0.0)
        assert fleet.lost_day == lost
    assert granted(fleet, told("b", 1)) == "60"


def test_the_last_day_that_was_lost_is_kept_whatever_a_former_leader_wrote() -> None:
    fleet = book(*"abc", loss="10")
    for day in ("2026-03-01", "2026-03-02", "2026-03-01", ""):
        fleet.recall_loss(day)
    assert fleet.lost_day == "2026-03-02"


def test_the_figures_tell_what_is_held_and_what_is_beyond_it() -> None:
    fleet = book("a", "b")
    fleet.hear(told("a", exposure="30", in_position=True, daily_pnl="-2", day="2026-03-01"), 0.0)
    found = fleet.figures
    assert (found.position_value, found.reserved, found.bots_in_position) == (30, 60, 1)
    assert (found.daily_pnl, found.unheard, found.full) == (-2, 1, None)


def test_no_random_life_of_a_fleet_passes_a_limit() -> None:
    lives = [live(number, examples=40) for number in range(1, SAMPLE + 1)]
    for found in lives:
        again = f"of {LIVES}; run it alone: make test-exhaustive CAMPAIGN=fleet CASES={found.seed}"
        assert not found.violation, f"{again}\n{found.violation}"
    done = sum((found.done for found in lives), lives[0].done.__class__())
    assert {"granted", "refused", "sent", "leader", "learned of a leader"} <= done.keys()
