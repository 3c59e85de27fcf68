"""What an uninstall is told that it would leave behind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.operator_objects import seen_bot
from tradingbot_operator.inventory import BotKey
from tradingbot_operator.uninstall import SHOWN, report


def status(phase: str, side: str, quantity: str, value: str, orders: int) -> dict[str, Any]:
    position = {"side": side, "quantity": quantity, "averagePrice": "200", "value": value, "validated": True}
    return {"phase": phase, "position": position, "orders": {"active": orders, "oco": 0}}


def test_each_tradingbot_is_named_with_its_position_and_its_orders() -> None:
    bots = [
        replace(seen_bot(status=status("SafeMode", "Flat", "0", "0", 0)), key=BotKey("trading", "flat")),
        replace(seen_bot(status=status("Trading", "Long", "0.5", "101.2", 2)), key=BotKey("desk", "long")),
        replace(seen_bot(), key=BotKey("trading", "silent")),
    ]
    said = report(bots, ["nevertheless: --no-hooks"])
    lines = [line.split() for line in said.splitlines()]
    assert ["desk/long", "BTCUSDT", "Trading", "0.5", "worth", "101.2", "2"] in lines
    assert ["trading/flat", "BTCUSDT", "SafeMode", "flat", "0"] in lines
    # What nobody knows any more is not called flat.
    assert ["trading/silent", "BTCUSDT", "unknown", "unknown", "unknown"] in lines
    assert said.startswith("not uninstalled: 3 TradingBots ")
    assert "kubectl delete tradingbots --all --namespace desk" in said
    assert said.splitlines()[-1] == "nevertheless: --no-hooks"


def test_many_are_counted_and_not_all_shown() -> None:
    bots = [
        replace(
            seen_bot(status=status("Trading", "Long", "0.5", "101.2", 2)), key=BotKey("trading", f"bot-{number:03d}")
        )
        for number in range(SHOWN + 7)
    ]
    said = report(bots)
    assert said.startswith(f"not uninstalled: {SHOWN + 7} TradingBots ")
    assert "and 7 more" in said.splitlines()
    assert len(said.splitlines()) < SHOWN + 20
