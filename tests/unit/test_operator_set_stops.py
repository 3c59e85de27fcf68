"""Promises of a set: what stops its bots, and its shard, goes to all of them at once, whatever else is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from support.set_store import KEY, SYMBOLS, Store, controller
from tradingbot_api import names
from tradingbot_operator.cluster import ApiError
from tradingbot_operator.sharding import Shard

broken = pytest.mark.parametrize(
    ("overrides", "more"),
    [
        pytest.param({}, {}, id="nothing-is-wrong"),
        pytest.param({"capital": "much"}, {}, id="a-bot's-overrides"),
        pytest.param({}, {"updateStrategy": {"progressDeadlineSeconds": "soon"}}, id="the-set"),
    ],
)


@broken
async def test_safe_mode_of_a_template_comes_to_all_bots_though_something_else_cannot_be_read(
    overrides: dict[str, Any], more: dict[str, Any]
) -> None:
    store = Store(overrides, **more)
    await controller(store).step(KEY)
    assert store.stopped() == set(SYMBOLS)


@broken
async def test_the_shard_of_a_set_comes_to_all_bots_though_something_else_cannot_be_read(
    overrides: dict[str, Any], more: dict[str, Any]
) -> None:
    store = Store(overrides, **more)
    store.set["metadata"]["labels"] = {names.SHARD_LABEL: "a"}
    await controller(store, Shard("a")).step(KEY)
    assert store.placed == dict.fromkeys(SYMBOLS, "a")


async def test_an_override_takes_safe_mode_of_the_template_from_its_bot_alone() -> None:
    store = Store({"safeMode": None})
    await controller(store).step(KEY)
    assert store.stopped() == {"ETHUSDT", "SOLUSDT"}


async def test_safe_mode_of_a_template_waits_for_no_label_of_a_shard() -> None:
    store = Store({})
    store.set["metadata"]["labels"] = {names.SHARD_LABEL: "a"}
    store.labels = ApiError(503, "ServiceUnavailable", "later")
    with pytest.raises(ApiError):
        await controller(store, Shard("a")).step(KEY)
    assert store.stopped() == set(SYMBOLS)
