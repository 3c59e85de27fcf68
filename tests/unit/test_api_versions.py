"""Promises between versions: neither side stumbles over a field that only the other one knows."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from pydantic import BaseModel

from support.operator_objects import word
from tradingbot_api import bot_http, v1alpha1
from tradingbot_api.base import WireModel
from tradingbot_api.bot_http import (
    AccountBooks,
    AssetClaim,
    BotConfig,
    BotStatus,
    FleetReport,
    Grant,
    OpenOrder,
    OrderCount,
    OrderUse,
    ProtectionPair,
    WeightUse,
)
from tradingbot_api.v1alpha1 import (
    APIStatus,
    BalanceStatus,
    CircuitBreakerStatus,
    Condition,
    OrdersStatus,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    SafeModeCause,
    SafeModeStatus,
    TradesStatus,
    UsageStatus,
)

NOW = "2026-03-01T00:00:00Z"


def with_news(value: Any) -> Any:
    """What a newer version might send: every object has one field more."""
    if isinstance(value, dict):
        return {**{key: with_news(item) for key, item in value.items()}, "fromTheFuture": {"a": 1}}
    if isinstance(value, list):
        return [with_news(item) for item in value]
    return value


def full_status() -> BotStatus:
    """A status with every part that there is."""
    cause = SafeModeCause(id="spec", source="Spec", reason="Spec", level="NoNewEntries")
    order = dict.fromkeys(OpenOrder.model_fields, "x") | {"order_id": 1, "order_list_id": -1, "fills": [7]}
    order |= {"created_time": NOW, "updated_time": NOW}
    return word(
        conditions=[Condition(type="Ready", status="True", reason="OK")],
        circuit_breaker=CircuitBreakerStatus(state="Closed"),
        safe_mode=SafeModeStatus(level="NoNewEntries", engaged=True, acknowledged=True, causes=[cause]),
        balance=BalanceStatus(base="1", quote="2", drift="0"),
        position=PositionStatus(side="Long", quantity="1", average_price="2", value="3", validated=True),
        pnl=PnLStatus(realized="1", unrealized="0", total="1"),
        risk=RiskStatus(level="LOW", drawdown="0"),
        orders=OrdersStatus(),
        trades=TradesStatus(),
        api=APIStatus(),
        usage=UsageStatus(),
        open_orders=[OpenOrder.model_validate(order)],
        oco_orders=[ProtectionPair(order_list_id=1, state="Working", stop_id="s", take_profit_id="t")],
        base_claim=AssetClaim(asset="BTC", claimed="1", held="1"),
        quote_claim=AssetClaim(asset="USDT", claimed="1000", held="2000"),
        weight=WeightUse(limit=6000, used=90, wanted=110, address_used=2000),
        order_use=OrderUse(
            counts=[OrderCount(interval="10S", seconds=10, limit=100, used=7, told_time=NOW)],
            wanted=5,
            asks=True,
            allotted=5,
            refused_until_time=NOW,
        ),
        account_books=AccountBooks(held={"BTC": "1"}, flows={"BTC": "1"}, moved={"BTC": "1"}, trades_by_bots={"k": 1}),
        fleet=FleetReport(clock=1, exposure="1", in_position=True, epoch=1, number=1, reserved="1"),
    )


def test_a_status_of_a_newer_bot_is_read_and_what_is_not_known_is_left_out() -> None:
    status = full_status()
    assert all(getattr(status, name) is not None for name in BotStatus.model_fields)
    told = with_news(json.loads(status.model_dump_json(by_alias=True)))
    # Keys of these are no field names.
    books = told["accountBooks"]
    for by_asset in (told["pnl"]["fees"], books["held"], books["flows"], books["moved"], books["tradesByBots"]):
        del by_asset["fromTheFuture"]
    assert BotStatus.model_validate(told) == status


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, id=name)
        for module in (bot_http, v1alpha1)
        for name, model in inspect.getmembers(module, inspect.isclass)
        if issubclass(model, BaseModel)
        and model.__module__ == module.__name__
        and (module is bot_http or name.endswith("Status") or name in {"Condition", "SafeModeCause"})
    ],
)
def test_every_message_and_every_part_of_a_status_ignores_what_it_does_not_know(model: type[BaseModel]) -> None:
    assert issubclass(model, WireModel)


def test_a_message_of_an_older_peer_is_read_with_the_defaults() -> None:
    grant = {"botUid": "u", "bootId": "b", "incarnation": 1, "revision": 1, "statusSequence": 1, "epoch": 1}
    assert Grant.model_validate(with_news(grant)).ttl_seconds == bot_http.GRANT_TTL_SECONDS
    identity = {"namespace": "a", "name": "b", "uid": "c"}
    config = BotConfig.model_validate(
        {"revision": 1, "bot": with_news(identity), "settings": SETTINGS, "fromTheFuture": 1}
    )
    assert (config.epoch, config.cleared_causes) == (0, [])


SETTINGS: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "exchange": {"environment": "Testnet", "credentialsSecretRef": {"name": "keys"}},
    "strategy": {"name": "ema-cross", "interval": "1m"},
    "capital": "1000",
    "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
    "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
}
