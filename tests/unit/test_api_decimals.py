"""Money has one spelling on the wire, and is never a float; models share what is the same of them, and no more."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tradingbot_api.base import Amount, Model, SignedDecimal, canonical

decimals = st.decimals(min_value=Decimal("-99999999999999999999"), max_value=Decimal("99999999999999999999"), places=18)


class Money(Model):
    """A model with one of each."""

    amount: Amount
    signed: SignedDecimal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("1000.00", "1000", id="trailing-zeros"),
        pytest.param("1E+3", "1000", id="exponent"),
        pytest.param("1E-8", "0.00000001", id="negative-exponent"),
        pytest.param("-0.00", "0", id="negative-zero"),
        pytest.param("0.10", "0.1", id="fraction"),
        pytest.param("-2.50", "-2.5", id="negative"),
        pytest.param("100", "100", id="zeros-of-an-integer-stay"),
    ],
)
def test_a_decimal_has_one_plain_spelling(value: str, text: str) -> None:
    assert canonical(Decimal(value)) == text


@given(decimals)
def test_a_decimal_survives_the_wire_to_the_last_digit(value: Decimal) -> None:
    sent = Money(amount=Decimal("1"), signed=value)
    wire = sent.model_dump_json(by_alias=True)
    assert Money.model_validate_json(wire) == sent
    assert "E" not in wire.upper().replace("SIGNED", "")


@pytest.mark.parametrize(
    "value", [1, 1.5, True, None, "", " 1", "1 ", "1.", ".5", "+1", "1e3", "NaN", "Infinity", "0x1", "١"]
)
def test_only_plain_decimal_strings_are_money(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Money.model_validate({"amount": value, "signed": "0"})
    assert caught.value.errors()[0]["loc"] == ("amount",)


def test_an_amount_is_greater_than_zero() -> None:
    with pytest.raises(ValidationError, match="must be greater than 0, got 0"):
        Money.model_validate({"amount": "0.00", "signed": "0"})


def test_models_are_immutable() -> None:
    money = Money(amount=Decimal(1), signed=Decimal(0))
    with pytest.raises(ValidationError, match="frozen"):
        money.amount = Decimal(2)  # type: ignore[misc]


def test_what_was_given_is_known_of_each_model_by_itself() -> None:
    class Optional(Model):
        first: int = 0
        second: int = 0

    models = [Optional(first=1), Optional(first=2), Optional(second=1)]
    copied = models[0].model_copy(update={"second": 3})
    assert [model.model_fields_set for model in (*models, copied)] == [
        {"first"}, {"first"}, {"second"}, {"first", "second"}
    ]  # fmt: skip
