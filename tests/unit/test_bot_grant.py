"""Promises of the grant: who may give one, how long it lasts, and what a refusal says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tradingbot.recovery.grant import GrantKeeper, GrantRefusedError
from tradingbot_api.bot_http import EPOCH_PAST, GRANT_TTL_SECONDS, Grant


@dataclass
class Now:
    """A monotonic clock that tests move."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def take(keeper: GrantKeeper, *, sent_at: float | None = 100.0, **changes: Any) -> float:
    """A grant for the process that the keeper is in, but for the changes."""
    fields = {"bot_uid": "u", "boot_id": "b", "incarnation": 7, "revision": 3, "status_sequence": 5, "epoch": 2}
    grant = Grant.model_validate({**fields, **changes})
    return keeper.take(grant, bot_uid="u", boot_id="b", incarnation=7, revision=3, sent_at=sent_at)


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"bot_uid": "v"}, "GrantMismatch", "botUid: expected u, got v"),
        ({"boot_id": "c"}, "GrantMismatch", "bootId: expected b, got c"),
        ({"incarnation": 8}, "GrantMismatch", "incarnation: expected 7, got 8"),
        ({"revision": 2}, "GrantMismatch", "revision: expected 3, got 2"),
        ({"epoch": 1}, EPOCH_PAST, "epoch: expected at least 2, got 1"),
        ({"sent_at": None}, "SequenceUnknown", "statusSequence: 5 was not sent or is long past"),
    ],
)
def test_a_grant_for_something_else_is_refused_with_what_differs_and_changes_nothing(
    changes: dict[str, Any], code: str, message: str
) -> None:
    keeper = GrantKeeper(required=True, monotonic=Now())
    keeper.meet(2)
    with pytest.raises(GrantRefusedError) as refused:
        take(keeper, **changes)
    assert (refused.value.code, str(refused.value)) == (code, message)
    assert not keeper.given
    assert (keeper.allows, keeper.expires_in) == (False, 0)


def test_a_grant_counts_from_the_status_that_it_answers_and_no_longer_than_agreed() -> None:
    now = Now()
    keeper = GrantKeeper(required=True, monotonic=now)
    assert not keeper.given
    assert not keeper.allows
    assert take(keeper, sent_at=90.0, ttl_seconds=3600) == GRANT_TTL_SECONDS - 10
    assert keeper.given
    assert keeper.allows
    # One that was overtaken on its way takes nothing from a later one.
    assert take(keeper, sent_at=80.0) == GRANT_TTL_SECONDS - 10
    assert take(keeper, sent_at=95.0, ttl_seconds=56) == 51
    now.seconds = 150.5
    assert (keeper.allows, keeper.expires_in) == (True, 0.5)
    now.seconds = 151
    assert (keeper.allows, keeper.expires_in) == (False, 0)
    assert keeper.given


def test_without_an_operator_none_is_needed() -> None:
    keeper = GrantKeeper(required=False, monotonic=Now())
    assert (keeper.given, keeper.allows, keeper.expires_in) == (True, True, 0)


def test_the_claims_word_names_the_trader_and_adds_no_exposure() -> None:
    keeper = GrantKeeper(required=True, monotonic=Now())
    keeper.name_trader()
    assert keeper.given is True
    assert not keeper.allows


def test_a_former_leader_is_refused_and_a_newer_one_remembered() -> None:
    keeper = GrantKeeper(required=True, monotonic=Now())
    keeper.meet(0)
    take(keeper, epoch=0)  # no leader before this one
    keeper.meet(1)
    take(keeper, epoch=4)
    keeper.meet(4)
    keeper.meet(0)  # not told: refused nothing, and does not lower what is known
    for epoch in (3, 1, -1):
        with pytest.raises(GrantRefusedError) as refused:
            keeper.meet(epoch)
        assert (refused.value.code, str(refused.value)) == (EPOCH_PAST, f"epoch: expected at least 4, got {epoch}")
    keeper.meet(6)
    with pytest.raises(GrantRefusedError, match="expected at least 6, got 5"):
        take(keeper, epoch=5)
    assert take(keeper, epoch=6) == GRANT_TTL_SECONDS
