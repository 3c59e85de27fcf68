"""Orders as Binance's parameters: what is signed and sent, or given to a matching engine beside the bot; pure."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tradingbot.gateway.port import NewOco, NewOrder, NewOtoco, NewProtection
from tradingbot_api.base import canonical


def order_params(order: NewOrder) -> dict[str, Any]:
    """Of `POST order`; what the type does not have is None."""
    return {
        "symbol": order.symbol,
        "side": order.side.value,
        "type": order.type.value,
        "timeInForce": order.time_in_force and order.time_in_force.value,
        "quantity": canonical(order.quantity),
        "price": _optional(order.price),
        "stopPrice": _optional(order.stop_price),
        "trailingDelta": order.trailing_delta,
        "newClientOrderId": order.client_order_id,
    }


def oco_params(order: NewOco) -> dict[str, Any]:
    """Of `POST orderList/oco`, SELL: the take-profit above, the stop below."""
    return {
        "symbol": order.symbol,
        "side": "SELL",
        "quantity": canonical(order.pair.quantity),
        "listClientOrderId": order.list_client_id,
        **_legs(order.pair, ""),
    }


def otoco_params(order: NewOtoco) -> dict[str, Any]:
    """Of `POST orderList/otoco`: the working BUY and the pending pair."""
    entry = order.entry
    return {
        "symbol": entry.symbol,
        "listClientOrderId": order.list_client_id,
        "workingType": entry.type.value,
        "workingSide": entry.side.value,
        "workingClientOrderId": entry.client_order_id,
        "workingPrice": _optional(entry.price),
        "workingQuantity": canonical(entry.quantity),
        "workingTimeInForce": entry.time_in_force and entry.time_in_force.value,
        "pendingSide": "SELL",
        "pendingQuantity": canonical(order.pair.quantity),
        **_legs(order.pair, "pending"),
    }


def _optional(value: Decimal | None) -> str | None:
    return None if value is None else canonical(value)


def _legs(pair: NewProtection, prefix: str) -> dict[str, Any]:
    """Parameters of the two legs: `aboveType`... of an OCO, `pendingAboveType`... of an OTOCO."""

    def name(text: str) -> str:
        return prefix + text if prefix else text[0].lower() + text[1:]

    legs: dict[str, Any] = {
        name("AboveType"): "LIMIT_MAKER",
        name("AboveClientOrderId"): pair.take_profit_client_id,
        name("AbovePrice"): canonical(pair.take_profit_price),
        name("BelowType"): "STOP_LOSS" if pair.stop_limit_price is None else "STOP_LOSS_LIMIT",
        name("BelowClientOrderId"): pair.stop_client_id,
    }
    if pair.trailing_delta is None:
        legs[name("BelowStopPrice")] = canonical(pair.stop_price)
    else:
        legs[name("BelowTrailingDelta")] = pair.trailing_delta
    if pair.stop_limit_price is not None:
        legs[name("BelowPrice")] = canonical(pair.stop_limit_price)
        legs[name("BelowTimeInForce")] = "GTC"
    return legs
