"""TradingBots, pods and bot words for the operator's unit tests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tradingbot_api import names
from tradingbot_api.bot_http import BotStatus, GrantStatus
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.v1alpha1 import Condition, SafeModeCause, SafeModeStatus
from tradingbot_operator.inventory import Inventory, SeenBot, SeenPod, SeenResource, Watched

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
UID = "0a1b2c3d-0000-4000-8000-000000000001"
SPEC: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "exchange": {
        "environment": "Paper",
        "baseURL": "http://paper-exchange:8080",
        "credentialsSecretRef": {"name": "binance"},
    },
    "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 12, "slow": 26}},
    "capital": "1000",
    "protection": {"stopLossRatio": "0.02", "takeProfitRatio": "0.04"},
    "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
}


def watched(inventory: Inventory[Any], of: type[SeenResource] | type[SeenPod]) -> Watched[Any]:
    """A kind whose objects are taken into an inventory, and no more."""
    plural = of.resource.plural if issubclass(of, SeenResource) else "pods"
    return Watched(
        "", plural, inventory, of.of, lambda raw: inventory.see(of.of(raw)) and None,
        lambda seen: inventory.gone(seen.key, seen.uid) and None,
    )  # fmt: skip


def seen_bot(*, status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any) -> SeenBot:
    """A TradingBot `trading/btcusdt`."""
    return SeenBot.of(
        {
            "metadata": {
                "namespace": "trading",
                "name": "btcusdt",
                "uid": UID,
                "resourceVersion": "10",
                "generation": 3,
                "creationTimestamp": "2026-11-22T11:00:00Z",
                **(metadata or {}),
            },
            "spec": {**SPEC, **spec},
            "status": status or {},
        }
    )


def raw_pod(state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The JSON of its pod with a container in `state`; `more` is read below."""
    container = {"name": "bot", "restartCount": more.get("restarts", 0), "state": state or {}}
    if "last" in more:
        container["lastState"] = {"terminated": more["last"]}
    metadata: dict[str, Any] = {
        "namespace": "trading",
        "name": "btcusdt",
        "uid": "pod-1",
        "resourceVersion": "20",
        "ownerReferences": [{"uid": UID, "controller": True}],
        "labels": {names.BOT_LABEL: "btcusdt"},
    }
    if more.get("deleting"):
        metadata["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    conditions = [{"type": "Ready", "status": "True" if more.get("ready") else "False"}]
    if "disruption" in more:
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": more["disruption"]})
    annotations = {names.POD_TEMPLATE_ANNOTATION: more["template"]} if "template" in more else {}
    if "scheduled" in more:
        conditions.append(more["scheduled"])
    return {
        "metadata": {**metadata, "annotations": annotations},
        "spec": {
            "containers": [
                {"name": "bot", "image": more.get("image", "bot:1"), "resources": more.get("resources", {})}
            ],
            **({} if more.get("node", "node1") is None else {"nodeName": more.get("node", "node1")}),
            "volumes": [{"name": "credentials", "secret": {"secretName": more.get("credentials", "binance")}}],
        },
        "status": {
            "phase": more.get("phase", "Running"),
            "reason": more.get("reason", ""),
            "message": more.get("message", ""),
            "podIP": "10.244.0.7",
            "conditions": conditions,
            "containerStatuses": [] if state is None else [container],
        },
    }


def seen_pod(state: dict[str, Any] | None = None, **more: Any) -> SeenPod:
    """The view of `raw_pod`."""
    return SeenPod.of(raw_pod(state, **more))


RUNNING = seen_pod({"running": {}}, ready=True)
GOOD: dict[str, tuple[str, str]] = {
    ConditionType.CONFIG_APPLIED: ("True", Reason.OK),
    ConditionType.BALANCE_SYNCED: ("True", Reason.EXACT),
    ConditionType.CAPITAL_COVERED: ("True", Reason.OK),
    ConditionType.CIRCUIT_CLOSED: ("True", Reason.OK),
    ConditionType.PROTECTED: ("True", Reason.FLAT),
    ConditionType.TRADING_ALLOWED: ("True", Reason.OK),
}


def word(
    *,
    causes: tuple[str, ...] = (),
    acknowledged: bool = True,
    said: dict[str, tuple[str, str]] | None = None,
    **more: Any,
) -> BotStatus:
    """What a bot tells: trading, unless `causes` (reasons) engage its safe mode or `said` changes conditions."""
    conditions = {**GOOD, **(said or {})}
    if causes and ConditionType.TRADING_ALLOWED not in (said or {}):
        conditions[ConditionType.TRADING_ALLOWED] = ("False", Reason.ENGAGED)
    fields: dict[str, Any] = {
        "bot_uid": UID,
        "boot_id": "boot-1",
        "incarnation": 100,
        "sequence": 7,
        "applied_revision": 1,
        "time": NOW,
        "version": "0",
        "ready": True,
        "symbol": "BTCUSDT",
        "account_uid": "1001",
        "grant": GrantStatus(held=not causes),
        "conditions": [
            Condition(type=kind, status=value, reason=reason) for kind, (value, reason) in conditions.items()
        ],
        "safe_mode": SafeModeStatus(
            level="NoNewEntries" if causes else "Normal",
            engaged=bool(causes),
            acknowledged=bool(causes) and acknowledged,
            causes=[SafeModeCause(id=item, source="Bot", reason=item, level="NoNewEntries") for item in causes],
        ),
    }
    return BotStatus(**{**fields, **more})
