"""What the exchange tells about orders, lists, fills and balances: Binance's answers and user events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from paper_exchange.core.model import Account, Amendment, Order, OrderList, OrderStatus, OrderType, Trade
from paper_exchange.core.units import text

Json = dict[str, Any]


def _conditional_fields(order: Order) -> Json:
    fields: Json = {}
    if order.stop_price:
        fields["stopPrice"] = text(order.stop_price)
    if order.strategy_id is not None:
        fields["strategyId"] = order.strategy_id
    if order.strategy_type is not None:
        fields["strategyType"] = order.strategy_type
    return fields


def ack(order: Order) -> Json:
    """The shortest answer to a new order."""
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_order_id,
        "transactTime": order.update_time,
    }


def result(order: Order) -> Json:
    """The answer to a new order without its fills."""
    body = ack(order) | {
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.executed),
        "origQuoteOrderQty": text(order.quote_quantity),
        "cummulativeQuoteQty": text(order.quote_executed),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "side": order.side.value,
    }
    if not order.quantity:
        # Of a pending order that sells what its list buys; no other order is without a quantity.
        del body["origQty"]
    body |= _conditional_fields(order)
    body["workingTime"] = order.working_time
    body["selfTradePreventionMode"] = order.stp.value
    if order.expiry_reason:
        body["expiryReason"] = order.expiry_reason
    return body


def full(order: Order, fills: Iterable[Trade]) -> Json:
    """The answer to a new order with its immediate fills."""
    return result(order) | {
        "fills": [
            {
                "price": text(fill.price),
                "qty": text(fill.quantity),
                "commission": text(fill.commission),
                "commissionAsset": fill.commission_asset,
                "tradeId": fill.trade_id,
            }
            for fill in fills
        ]
    }


def order_status(order: Order) -> Json:
    """The answer to a query for an order."""
    body: Json = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.client_order_id,
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.executed),
        "cummulativeQuoteQty": text(order.quote_executed),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "side": order.side.value,
        "stopPrice": text(order.stop_price),
        "icebergQty": text(0),
        "time": order.time,
        "updateTime": order.update_time,
        "isWorking": order.working_time >= 0,
        "workingTime": order.working_time,
        "origQuoteOrderQty": text(order.quote_quantity),
        "selfTradePreventionMode": order.stp.value,
    }
    if order.strategy_id is not None:
        body["strategyId"] = order.strategy_id
    if order.strategy_type is not None:
        body["strategyType"] = order.strategy_type
    if order.expiry_reason:
        body["expiryReason"] = order.expiry_reason
    return body


def canceled(order: Order) -> Json:
    """The answer to a cancel: the order's own id becomes the original one."""
    body: Json = {
        "symbol": order.symbol,
        "origClientOrderId": order.client_order_id,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "clientOrderId": order.cancel_client_id,
        "transactTime": order.update_time,
        "price": text(order.price),
        "origQty": text(order.quantity),
        "executedQty": text(order.executed),
        "origQuoteOrderQty": text(order.quote_quantity),
        "cummulativeQuoteQty": text(order.quote_executed),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "side": order.side.value,
    }
    return body | _conditional_fields(order) | {"selfTradePreventionMode": order.stp.value}


def order_list(group: OrderList, orders: Iterable[Order], time: int | None = None) -> Json:
    """A list of orders as it stands, without reports."""
    return {
        "orderListId": group.list_id,
        "contingencyType": group.contingency,
        "listStatusType": "ALL_DONE" if group.done else "EXEC_STARTED",
        "listOrderStatus": "ALL_DONE" if group.done else "EXECUTING",
        "listClientOrderId": group.client_list_id,
        "transactionTime": group.time if time is None else time,
        "symbol": group.symbol,
        "orders": [
            {"symbol": one.symbol, "orderId": one.order_id, "clientOrderId": one.client_order_id} for one in orders
        ],
    }


def amended(order: Order, group: OrderList | None, orders: Iterable[Order]) -> Json:
    """The answer to an amendment, the last one of the order; with the list it is in, and the orders of that."""
    last = order.amendments[-1]
    body: Json = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": order.list_id,
        "origClientOrderId": last.old_client_order_id,
        "clientOrderId": order.client_order_id,
        "price": text(order.price),
        "qty": text(order.quantity),
        "executedQty": text(order.executed),
        "preventedQty": text(0),
        "quoteOrderQty": text(order.quote_quantity),
        "cumulativeQuoteQty": text(order.quote_executed),
        "status": order.status.value,
        "timeInForce": order.time_in_force.value,
        "type": order.type.value,
        "side": order.side.value,
    }
    body |= _conditional_fields(order)
    if order.working_time >= 0:
        body["workingTime"] = order.working_time
    body["selfTradePreventionMode"] = order.stp.value
    answer: Json = {"transactTime": last.time, "executionId": last.execution_id, "amendedOrder": body}
    if group is not None:
        status = order_list(group, orders)
        answer["listStatus"] = {
            name: value for name, value in status.items() if name not in ("listStatusType", "transactionTime")
        }
    return answer


def amendment(order: Order, one: Amendment) -> Json:
    """One row of `GET /api/v3/order/amendments`."""
    return {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "executionId": one.execution_id,
        "origClientOrderId": one.old_client_order_id,
        "newClientOrderId": one.new_client_order_id,
        "origQty": text(one.old_quantity),
        "newQty": text(one.new_quantity),
        "time": one.time,
    }


def my_trade(trade: Trade) -> Json:
    """One row of `GET /api/v3/myTrades`."""
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "orderListId": trade.list_id,
        "price": text(trade.price),
        "qty": text(trade.quantity),
        "quoteQty": text(trade.quote),
        "commission": text(trade.commission),
        "commissionAsset": trade.commission_asset,
        "time": trade.time,
        "isBuyer": trade.buyer,
        "isMaker": trade.maker,
        "isBestMatch": True,
    }


def execution_report(order: Order, execution: str, now: int, execution_id: int, fill: Trade | None = None) -> Json:
    """The user event of one change of an order; `execution` is Binance's execution type."""
    is_cancel = execution == "CANCELED"
    market = order.type is OrderType.MARKET
    body: Json = {
        "e": "executionReport",
        "E": now,
        "s": order.symbol,
        "c": order.cancel_client_id if is_cancel else order.client_order_id,
        "S": order.side.value,
        "o": order.type.value,
        "f": order.time_in_force.value,
        "q": text(order.quantity),
        "p": text(order.price),
        "P": text(order.stop_price),
        "F": text(0),
        "g": order.list_id,
        "C": order.client_order_id if is_cancel else "",
        "x": execution,
        "X": order.status.value,
        "r": "NONE",
        "i": order.order_id,
        "l": text(fill.quantity) if fill else text(0),
        "z": text(order.executed),
        "L": text(fill.price) if fill else text(0),
        "n": text(fill.commission) if fill else "0",
        "N": fill.commission_asset if fill else None,
        "T": now,
        "t": fill.trade_id if fill else -1,
        "I": execution_id,
        "w": order.live and not order.untriggered and not (market and order.remaining == 0),
        "m": fill.maker if fill else False,
        "M": fill is not None,
        "O": order.time,
        "Z": text(order.quote_executed),
        "Y": text(fill.quote) if fill else text(0),
        "Q": text(order.quote_quantity),
        "V": order.stp.value,
    }
    if order.working_time >= 0:
        body["W"] = order.working_time
    if order.strategy_id is not None:
        body["j"] = order.strategy_id
    if order.strategy_type is not None:
        body["J"] = order.strategy_type
    if order.expiry_reason and order.status in (OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH):
        body["eR"] = order.expiry_reason
    return body


def list_status(group: OrderList, orders: Iterable[Order], now: int) -> Json:
    """The user event of one change of a list."""
    return {
        "e": "listStatus",
        "E": now,
        "s": group.symbol,
        "g": group.list_id,
        "c": group.contingency,
        "l": "ALL_DONE" if group.done else "EXEC_STARTED",
        "L": "ALL_DONE" if group.done else "EXECUTING",
        "r": "NONE",
        "C": group.client_list_id,
        "T": now,
        "O": [{"s": one.symbol, "i": one.order_id, "c": one.client_order_id} for one in orders],
    }


def account_position(account: Account, assets: Iterable[str], now: int) -> Json:
    """The user event with the balances that an input may have changed."""
    return {
        "e": "outboundAccountPosition",
        "E": now,
        "u": account.update_time,
        "B": [
            {
                "a": asset,
                "f": text(account.balance(asset).free),
                "l": text(account.balance(asset).locked),
            }
            for asset in sorted(assets)
        ],
    }


def balance_update(asset: str, delta: int, now: int) -> Json:
    """The user event of a deposit, or of a withdrawal (below 0)."""
    return {"e": "balanceUpdate", "E": now, "a": asset, "d": text(delta), "T": now}


def account(held: Account, maker: str, taker: str, omit_zero: bool, permissions: Mapping[str, bool]) -> Json:
    """The answer to `GET /api/v3/account`; commission rates as decimal texts."""
    return {
        "makerCommission": 10,
        "takerCommission": 10,
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": text(0), "seller": text(0)},
        **permissions,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": held.update_time,
        "accountType": "SPOT",
        "balances": [
            {"asset": asset, "free": text(balance.free), "locked": text(balance.locked)}
            for asset, balance in sorted(held.balances.items())
            if not omit_zero or balance.free or balance.locked
        ],
        "permissions": list(held.permissions),
        "uid": held.uid,
    }
