"""What the operator sends to the API server can be read there, whatever characters people put into a spec."""

from __future__ import annotations

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from tradingbot_operator.cluster import encode


@given(st.text())
def test_whatever_is_written_is_json_and_yaml_of_the_same_content(text: str) -> None:
    body = {"a": text, text: "b", "nested": json.dumps({"message": text})}
    sent = encode(body)
    assert json.loads(sent) == body
    assert yaml.safe_load(sent) == body


def test_a_character_beyond_sixteen_bits_is_not_a_pair_of_escapes() -> None:
    assert encode({"message": "no PriorityClass \U0001f680\x80"}) == '{"message": "no PriorityClass \U0001f680\\u0080"}'
