"""What the exchange tells about orders, lists, fills and balances: Binance's answers and user events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from paper_exchange.core.model import Account, Amendment, Order, OrderList, OrderStatus, PreventedMatch, Trade
from paper_exchange.core.units import SCALE, product, text

Json = dict[str, Any]


def _conditional_fields(order: Order) -> Json:
    fields: Json = {}
    if order.stop_price:
        fields["stopPrice"] = text(order.stop_price)
    if order.iceberg_quantity:
        fields["icebergQty"] = text(order.iceberg_quantity)
    return fields | _labels(order)


def _labels(order: Order) -> Json:
    """Fields that every answer shows where the order has them."""
    fields: Json = {}
    if order.trailing_delta:
        fields |= {"trailingDelta": order.trailing_delta, "trailingTime": order.trailing_time}
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
    if order.prevented:
        body["preventedQuantity"] = text(order.prevented)
    if order.expiry_reason:
        body["expiryReason"] = order.expiry_reason
    return body


def fills(trades: Iterable[Trade]) -> Json:
    """What the fullest answer to a new order adds: its immediate fills."""
    return {
        "fills": [
            {
                "price": text(fill.price),
                "qty": text(fill.quantity),
                "commission": text(fill.commission),
                "commissionAsset": fill.commission_asset,
                "tradeId": fill.trade_id,
            }
            for fill in trades
        ]
    }


def prevented_matches(matches: Sequence[PreventedMatch]) -> Json:
    """What the answer to a new order adds when self-trade prevention kept it from trades."""
    fields: Json = {"preventedMatches": [_prevented_match(one) for one in matches]}
    if matches[0].trade_group_id >= 0:
        fields["tradeGroupId"] = matches[0].trade_group_id
    return fields


def _prevented_match(match: PreventedMatch) -> Json:
    fields: Json = {
        "preventedMatchId": match.match_id,
        "makerSymbol": match.symbol,
        "makerOrderId": match.maker_order_id,
        "price": text(match.price),
    }
    if match.taker_quantity:
        fields["takerPreventedQuantity"] = text(match.taker_quantity)
    if match.maker_quantity:
        fields["makerPreventedQuantity"] = text(match.maker_quantity)
    return fields


def my_prevented_match(match: PreventedMatch) -> Json:
    """One row of `GET /api/v3/myPreventedMatches`."""
    return _prevented_match(match) | {
        "symbol": match.symbol,
        "takerOrderId": match.taker_order_id,
        "tradeGroupId": match.trade_group_id,
        "selfTradePreventionMode": match.mode.value,
        "transactTime": match.time,
    }


def prevention(order: Order, match: PreventedMatch) -> Json:
    """What the user event adds when self-trade prevention took quantity off an order."""
    making = order.order_id == match.maker_order_id
    fields: Json = {
        "B": text(match.maker_quantity if making else match.taker_quantity),
        "U": match.taker_order_id if making else match.maker_order_id,
        "Cs": match.symbol,
        "pl": text(match.quantity),
        "pL": text(match.price),
        "pY": text(product(match.price, match.quantity)),
    }
    if match.trade_group_id >= 0:
        fields["u"] = match.trade_group_id
    return fields


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
        "icebergQty": text(order.iceberg_quantity),
        "time": order.time,
        "updateTime": order.update_time,
        "isWorking": order.working_time >= 0,
        "workingTime": order.working_time,
        "origQuoteOrderQty": text(order.quote_quantity),
        "selfTradePreventionMode": order.stp.value,
    }
    body |= _labels(order) | _prevented(order)
    if order.expiry_reason:
        body["expiryReason"] = order.expiry_reason
    return body


def _prevented(order: Order) -> Json:
    """What self-trade prevention took off an order so far."""
    if not order.prevented:
        return {}
    return {"preventedMatchId": order.prevented_match_id, "preventedQuantity": text(order.prevented)}


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
    body |= _conditional_fields(order) | {"selfTradePreventionMode": order.stp.value}
    return body | _prevented(order)


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
        "F": text(order.iceberg_quantity),
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
        "w": order.live and not order.untriggered and (order.type.priced or execution == "NEW"),
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
    if order.prevented:
        body |= {"v": order.prevented_match_id, "A": text(order.prevented)}
    if order.trailing_delta:
        body["d"] = order.trailing_delta
    if order.trailing_time >= 0:
        body["D"] = order.trailing_time
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


def account(held: Account, omit_zero: bool, permissions: Mapping[str, bool]) -> Json:
    """The answer to `GET /api/v3/account`."""
    rates = asdict(held.rates("").standard)
    body: Json = {
        **{f"{kind}Commission": rate * 10_000 // SCALE for kind, rate in rates.items()},
        "commissionRates": {kind: text(rate) for kind, rate in rates.items()},
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
    if held.trade_group_id >= 0:
        body["tradeGroupId"] = held.trade_group_id
    return body
