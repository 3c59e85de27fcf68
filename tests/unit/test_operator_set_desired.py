"""From a set's spec to its TradingBots: overrides are merged as documented, and what is wrong names its field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from support.operator_objects import SPEC
from tradingbot_api import names
from tradingbot_api.sets import PARTIAL_SPEC, SetReason, Template, TradingBotSetSpec
from tradingbot_api.v1alpha1 import TradingBotSpec
from tradingbot_operator import set_desired
from tradingbot_operator.set_desired import Owner, Problem, Wanted, contains, merged

ROOT = Path(__file__).resolve().parents[2]
OWNER = Owner("trading", "majors", "set-uid")
TEMPLATE: dict[str, Any] = {key: value for key, value in SPEC.items() if key != "symbol"}


def want(overrides: dict[str, Any] | None = None, owner: Owner = OWNER, **template: Any) -> Wanted | Problem:
    spec = merged(TEMPLATE, template)
    return set_desired.wanted(owner, Template.model_validate({"spec": spec}), "BTCUSDT", overrides or {})


def good(overrides: dict[str, Any] | None = None, **template: Any) -> Wanted:
    found = want(overrides, **template)
    assert isinstance(found, Wanted), found
    return found


def bad(overrides: dict[str, Any] | None = None, owner: Owner = OWNER, **template: Any) -> Problem:
    found = want(overrides, owner, **template)
    assert isinstance(found, Problem), found
    return found


# The examples of RFC 7396, appendix A.
RFC_7396: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396, ids=str)
def test_overrides_are_merged_as_a_json_merge_patch(target: Any, patch: Any, result: Any) -> None:
    assert merged(target, patch) == result


JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_what_was_merged_contains_the_patch_and_merging_it_again_changes_nothing(target: Any, patch: Any) -> None:
    result = merged(target, patch)
    assert merged(result, patch) == result
    assert contains(result, patch)


def test_a_bot_is_named_by_its_set_and_symbol_and_belongs_to_the_set() -> None:
    manifest = set_desired.manifest(OWNER, good())
    metadata = manifest["metadata"]
    assert (metadata["namespace"], metadata["name"]) == ("trading", "majors-btcusdt")
    assert metadata["labels"] == {names.SET_LABEL: "majors"}
    assert metadata["ownerReferences"] == [
        {
            "apiVersion": "tradingbot.dev/v1alpha1",
            "kind": "TradingBotSet",
            "name": "majors",
            "uid": "set-uid",
            "controller": True,
            "blockOwnerDeletion": False,
        }
    ]
    assert manifest["spec"]["symbol"] == "BTCUSDT"


def test_overrides_win_field_by_field_and_null_takes_a_field_of_the_template_away() -> None:
    bot = good({"risk": {"maxDailyLoss": "20"}, "strategy": {"parameters": {"fast": None, "mid": 20}}})
    assert bot.spec["risk"] == {"maxPositionValue": "500", "maxDailyLoss": "20"}
    assert bot.spec["strategy"]["parameters"] == {"slow": 26, "mid": 20}
    assert bot.spec["capital"] == "1000"


def test_only_named_fields_are_applied_so_that_all_others_are_left_to_people() -> None:
    assert set(good().spec) == set(SPEC)


@pytest.mark.parametrize("stop", set_desired.STOPS)
def test_a_stop_is_applied_apart_and_only_where_it_is_true(stop: str) -> None:
    assert stop not in good({stop: False}).spec
    assert good({stop: False}).stops == frozenset()
    assert good({stop: False}).digest == good().digest
    bot = good(**{stop: True})
    assert stop not in bot.spec
    assert bot.stops == {stop}
    assert set_desired.stopping(bot.key, bot.stops)["spec"] == {stop: True}
    assert good({stop: False}, **{stop: True}).stops == frozenset()


@pytest.mark.parametrize(
    ("overrides", "template", "reason", "message"),
    [
        pytest.param(
            {"capital": 5}, {}, SetReason.INVALID_OVERRIDES,
            "bots[BTCUSDT].overrides.capital: expected a decimal number as a string such as '0.02', got 5",
            id="a number instead of a string",
        ),
        pytest.param(
            {"capitol": "5"}, {}, SetReason.INVALID_OVERRIDES,
            "bots[BTCUSDT].overrides.capitol: Extra inputs are not permitted", id="an unknown field",
        ),
        pytest.param(
            {"risk": {"maxPositionValue": "5000"}}, {}, SetReason.INVALID_OVERRIDES,
            "bots[BTCUSDT].overrides.risk.maxPositionValue: risk.maxPositionValue must not exceed capital",
            id="a rule over two fields",
        ),
        pytest.param(
            {"capital": "100"}, {}, SetReason.INVALID_OVERRIDES,
            "bots[BTCUSDT].overrides.risk.maxPositionValue: risk.maxPositionValue must not exceed capital",
            id="a rule over a field of the template that the override breaks",
        ),
        pytest.param(
            {"capital": None}, {}, SetReason.INVALID_OVERRIDES, "bots[BTCUSDT].overrides.capital: Field required",
            id="a required field taken away",
        ),
        pytest.param({"symbol": "ETHUSDT"}, {}, SetReason.INVALID_OVERRIDES, "overrides.symbol", id="another symbol"),
        pytest.param(
            {}, {"capital": None}, SetReason.INVALID_TEMPLATE, "template.spec.capital: Field required",
            id="a required field of the template",
        ),
        pytest.param(
            {"entry": {"maxPerMinute": 5}}, {"capital": None}, SetReason.INVALID_TEMPLATE,
            "template.spec.capital: Field required", id="the template's, beside overrides that are good",
        ),
        pytest.param(
            {"protection": {"trailingRatio": "0.5"}}, {}, SetReason.INVALID_OVERRIDES,
            "bots[BTCUSDT].overrides.protection.trailingRatio: trailingRatio must not exceed stopLossRatio",
            id="a rule within an object",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_names_its_field_and_whose_it_is(
    overrides: dict[str, Any], template: dict[str, Any], reason: str, message: str
) -> None:
    problem = bad(overrides, **template)
    assert problem.reason == reason
    assert message in problem.message
    assert problem.message.endswith(" it.") or "remove it" in problem.message


def test_a_name_that_would_be_too_long_is_told_with_what_to_do() -> None:
    longest = Owner("trading", "s" * 44, "u")
    assert isinstance(want(owner=longest), Wanted)
    problem = bad(owner=Owner("trading", "s" * 45, "u"))
    assert problem.reason == SetReason.NAME_TOO_LONG
    assert "53 characters" in problem.message
    assert "shorter name" in problem.message


def test_the_digest_follows_the_wish_and_not_its_order() -> None:
    turned = dict(reversed(list(TEMPLATE.items())))
    other = set_desired.wanted(OWNER, Template.model_validate({"spec": turned}), "BTCUSDT", {})
    assert isinstance(other, Wanted)
    assert other.digest == good().digest
    assert good({"capital": "999"}).digest != good().digest


def test_the_stops_of_a_spec_are_found_even_where_the_rest_cannot_be_read() -> None:
    spec = {"template": {"spec": {"capital": 5, "safeMode": True}},
            "bots": [{"symbol": "A", "overrides": {"suspend": True}}, {"symbol": "B"}]}  # fmt: skip
    assert set_desired.stops_wanted(spec) == {("", "safeMode"), ("A", "suspend")}
    assert set_desired.stops_wanted({}) == frozenset()


def test_the_template_has_every_field_of_a_tradingbot_but_its_symbol_and_requires_none() -> None:
    assert set(PARTIAL_SPEC.model_fields) == set(TradingBotSpec.model_fields) - {"symbol"}
    assert PARTIAL_SPEC.model_validate({}).model_dump(exclude_none=True) == {}
    schema = PARTIAL_SPEC.model_json_schema()
    for part in [schema, *schema["$defs"].values()]:
        if part.get("title", "").startswith("Partial"):
            assert "required" not in part


def test_the_example_makes_a_bot_of_each_symbol() -> None:
    raw = yaml.safe_load((ROOT / "examples/tradingbotset.yaml").read_text(encoding="utf-8"))
    spec = TradingBotSetSpec.model_validate(raw["spec"])
    PARTIAL_SPEC.model_validate(spec.template.spec)
    made = [set_desired.wanted(OWNER, spec.template, bot.symbol, bot.overrides or {}) for bot in spec.bots]
    assert [bot.spec["capital"] for bot in made if isinstance(bot, Wanted)] == ["1000", "1000", "500"]
