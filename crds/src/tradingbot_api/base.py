"""What every model of the contracts shares: immutability, camelCase names and decimals as plain strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

MAX_DECIMAL_LENGTH = 25
UNSIGNED_PATTERN = r"^[0-9]{1,15}(\.[0-9]{1,8})?$"
SIGNED_PATTERN = r"^-?[0-9]{1,20}(\.[0-9]{1,18})?$"


@lru_cache(maxsize=1024)
def _one_set(fields: frozenset[str]) -> set[str]:
    return set(fields)


@lru_cache(maxsize=1024)
def _one_amount(text: str) -> Decimal:
    """Many amounts are the same, as 0: each is one object."""
    return Decimal(text)


class Model(BaseModel):
    """A frozen model with camelCase names on the wire that refuses fields it does not know."""

    model_config = ConfigDict(
        frozen=True, alias_generator=to_camel, populate_by_name=True, extra="forbid", use_enum_values=False
    )

    def model_post_init(self, _: Any, /) -> None:
        """The set of the fields that were given is one for all models that were given the same: it may take more
        memory than their values, and in a frozen model nobody changes it."""
        object.__setattr__(self, "__pydantic_fields_set__", _one_set(frozenset(self.__pydantic_fields_set__)))


class WireModel(Model):
    """A model of a message between versions: fields of a newer peer are ignored, not refused."""

    model_config = ConfigDict(extra="ignore")


def canonical(value: Decimal) -> str:
    """The one spelling of a decimal: no exponent, no trailing zeros, no negative zero."""
    if value == 0:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parser(pattern: str) -> BeforeValidator:
    compiled = re.compile(pattern)

    def parse(value: Any) -> Decimal:
        if isinstance(value, Decimal):
            value = canonical(value)
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(f"expected a decimal number as a string such as '0.02', got {value!r}")
        return _one_amount(value)

    return BeforeValidator(parse)


def decimal_schema(pattern: str = UNSIGNED_PATTERN, rules: tuple[Mapping[str, str], ...] = ()) -> WithJsonSchema:
    """The OpenAPI schema of a decimal string; `rules` are CEL validations beside the pattern."""
    schema: dict[str, Any] = {"type": "string", "pattern": pattern, "maxLength": MAX_DECIMAL_LENGTH}
    if pattern == SIGNED_PATTERN:
        schema["maxLength"] = 40
    if rules:
        schema["x-kubernetes-validations"] = [dict(rule) for rule in rules]
    return WithJsonSchema(schema)


def positive_decimal(message: str, upper: str | None = None) -> Any:
    """Annotated type of a decimal > 0 and, with `upper`, < upper; enforced here and by CEL at admission."""
    rule = "quantity(self).isGreaterThan(quantity('0'))"
    if upper is not None:
        rule = f"({rule} && quantity(self).isLessThan(quantity('{upper}')))"
    # Silent where the pattern has refused the text already: quantity() of it would be a second, obscure error.
    rule = f"!isQuantity(self) || {rule}"

    def check(value: Decimal) -> Decimal:
        if value <= 0 or (upper is not None and value >= Decimal(upper)):
            raise ValueError(f"{message}, got {canonical(value)}")
        return value

    return Annotated[
        Decimal,
        _parser(UNSIGNED_PATTERN),
        AfterValidator(check),
        PlainSerializer(canonical, return_type=str),
        decimal_schema(rules=({"rule": rule, "message": message},)),
    ]


Ratio = positive_decimal("must be greater than 0 and less than 1", upper="1")
Amount = positive_decimal("must be greater than 0")
SignedDecimal = Annotated[
    Decimal,
    _parser(SIGNED_PATTERN),
    PlainSerializer(canonical, return_type=str),
    decimal_schema(SIGNED_PATTERN),
]
