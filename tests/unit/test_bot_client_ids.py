"""Client ids: 31 characters that say whose order it is, of which process start, and what for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradingbot.recovery.fence import ClientId, ClientIds, Purpose, parse, propose_incarnation
from tradingbot_api import names

KEY = names.bot_key("354937868", "BTCUSDT")


@given(st.integers(0, 36**7 - 1), st.integers(0, 36**6 - 1), st.sampled_from(Purpose))
def test_every_client_id_has_31_characters_and_is_read_back(incarnation: int, sequence: int, purpose: Purpose) -> None:
    client_id = ClientId(KEY, incarnation, sequence, purpose)

    assert len(str(client_id)) == 31
    assert re.fullmatch(r"[a-zA-Z0-9-_]{1,36}", str(client_id))
    assert parse(str(client_id)) == client_id


def test_the_key_is_the_same_in_every_process_and_differs_by_account_and_symbol() -> None:
    assert names.bot_key("354937868", "BTCUSDT") == KEY
    assert len({KEY, names.bot_key("354937868", "ETHUSDT"), names.bot_key("354937869", "BTCUSDT")}) == 3


@pytest.mark.parametrize(
    "text", ["", "web_1234", "x-HNA2TXFJ0123456789", "tb-short-0-0-en", f"tb-{KEY}-0000000-000001-zz"]
)
def test_orders_of_others_are_not_taken_for_a_bots(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("incarnation", "sequence", "message"),
    [
        (1, 36**6, f"expected a number below 36^6, got {36**6}"),
        (36**7, 1, f"expected a number below 36^7, got {36**7}"),
        (-1, 1, "expected a number below 36^7, got -1"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(incarnation: int, sequence: int, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        str(ClientId(KEY, incarnation, sequence, Purpose.ENTRY))


def test_sequence_numbers_follow_the_first_and_each_is_given_once() -> None:
    ids = ClientIds(KEY, 7, 40)

    assert [ids.next_sequence() for _ in range(3)] == [41, 42, 43]
    assert ids.make(43, Purpose.STOP_LOSS) == f"tb-{KEY}-0000007-000017-sl"


def test_only_the_ids_that_were_given_count_as_given() -> None:
    ids = ClientIds(KEY, 7, 40)
    assert not ids.used
    number = ids.next_sequence()
    assert ids.used
    assert ids.gave(ClientId(KEY, 7, number, Purpose.ENTRY))
    for other in (ClientId(KEY, 7, 40, Purpose.ENTRY), ClientId(KEY, 7, 42, Purpose.ENTRY)):
        assert not ids.gave(other)
    assert not ids.gave(ClientId(KEY, 6, number, Purpose.ENTRY))


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 2**32), st.integers(0, 2**32))
def test_a_new_incarnation_is_greater_than_all_known_ones(exchange_ms: int, stored: int, seen: int) -> None:
    proposed = propose_incarnation(exchange_ms, stored, seen)

    assert proposed > stored
    assert proposed > seen
    assert proposed >= exchange_ms // 1000
    # A whole number, and no greater than it must be: 36^7 seconds last until the year 4453.
    assert proposed in {exchange_ms // 1000, stored + 1, seen + 1}
    assert isinstance(proposed, int)


def test_operator_and_bot_name_a_bots_orders_alike() -> None:
    ids = ClientIds(KEY, 5, 0)
    assert ids.make(1, Purpose.STOP_LOSS).startswith(names.order_prefix("354937868", "BTCUSDT"))
