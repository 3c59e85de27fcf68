"""One account on a still market, with what a request needs to be answered: parameters for every Spot endpoint."""

from __future__ import annotations

import itertools
from typing import Any, Final

from support.signing import Sender

SYMBOL: Final = "BTCUSDT"
PRICE: Final = 50_000
"""Where the market must stand."""
Json = dict[str, Any]

_LIMIT: Final = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001"}
_FAR: Final = str(PRICE - 10_000)
_OCO: Final = {
    "symbol": SYMBOL,
    "side": "SELL",
    "quantity": "0.001",
    "aboveType": "LIMIT_MAKER",
    "abovePrice": str(PRICE + 5000),
    "belowType": "STOP_LOSS_LIMIT",
    "belowStopPrice": str(PRICE - 4500),
    "belowPrice": str(PRICE - 5000),
    "belowTimeInForce": "GTC",
}
_WORKING: Final = {
    "symbol": SYMBOL,
    "workingType": "LIMIT",
    "workingSide": "BUY",
    "workingPrice": _FAR,
    "workingQuantity": "0.001",
    "workingTimeInForce": "GTC",
}
_PENDING: Final = {"pendingSide": "SELL", "pendingQuantity": "0.001"}
_PENDING_PAIR: Final = {
    "pendingAboveType": "LIMIT_MAKER",
    "pendingAbovePrice": str(PRICE + 5000),
    "pendingBelowType": "STOP_LOSS_LIMIT",
    "pendingBelowStopPrice": str(PRICE - 4500),
    "pendingBelowPrice": str(PRICE - 5000),
    "pendingBelowTimeInForce": "GTC",
}


class SpotScene:
    """Makes what requests speak of; needs USDT and BTC."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self._names = itertools.count(1)

    async def place(self, **params: Any) -> Json:
        """An order: BUY LIMIT far below the market unless told otherwise."""
        return dict(await self.sender.signed("POST", "/api/v3/order", **({**_LIMIT, "price": _FAR} | params)))

    async def resting(self) -> int:
        """The id of an order that rests."""
        return int((await self.place())["orderId"])

    async def bought(self) -> Json:
        """A BUY that filled at once."""
        return await self.place(price=str(PRICE + 100))

    async def oco(self) -> int:
        """The id of an OCO that waits."""
        return int((await self.sender.signed("POST", "/api/v3/orderList/oco", **_OCO))["orderListId"])

    async def trailing(self) -> int:
        """The id of an order that follows the price for a strategy."""
        more = {"trailingDelta": 100, "strategyId": 1, "strategyType": 1_000_000}
        order = {"symbol": SYMBOL, "side": "SELL", "type": "STOP_LOSS", "quantity": "0.001"} | more
        return int((await self.sender.signed("POST", "/api/v3/order", **order))["orderId"])

    async def prevented(self) -> int:
        """The id of an order that its own account's order would have met, and was kept from it."""
        maker = await self.place(side="SELL", price=str(PRICE))
        await self.place(price=str(PRICE), timeInForce="IOC", selfTradePreventionMode="EXPIRE_MAKER")
        return int(maker["orderId"])

    async def clear(self) -> None:
        """End all open orders, so that no limit of their number is met."""
        if await self.sender.signed("GET", "/api/v3/openOrders", symbol=SYMBOL):
            await self.sender.signed("DELETE", "/api/v3/openOrders", symbol=SYMBOL)

    async def params(self, endpoint: str) -> Json:
        """Parameters for `GET /api/v3/order`, or a method of the WebSocket API by its REST name, to be answered."""
        named = getattr(self, f"_{_key(endpoint)}", None)
        if named is not None:
            return dict(await named())
        return dict(_FIXED.get(endpoint, {}))

    async def _get_order(self) -> Json:
        return {"symbol": SYMBOL, "orderId": await self.resting()}

    async def _delete_order(self) -> Json:
        return {"symbol": SYMBOL, "orderId": await self.resting()}

    async def _put_order_amend_keeppriority(self) -> Json:
        order = await self.place(quantity="0.002")
        return {"symbol": SYMBOL, "orderId": order["orderId"], "newQty": "0.001"}

    async def _get_order_amendments(self) -> Json:
        changed = await self._put_order_amend_keeppriority()
        await self.sender.signed("PUT", "/api/v3/order/amend/keepPriority", **changed)
        return {"symbol": SYMBOL, "orderId": changed["orderId"]}

    async def _post_order_cancelreplace(self) -> Json:
        new = {**_LIMIT, "price": _FAR, "cancelReplaceMode": "STOP_ON_FAILURE"}
        return new | {"cancelOrderId": await self.resting()}

    async def _get_openorders(self) -> Json:
        await self.resting()
        return {"symbol": SYMBOL}

    async def _delete_openorders(self) -> Json:
        await self.clear()
        await self.resting()
        return {"symbol": SYMBOL}

    async def _get_allorders(self) -> Json:
        await self.resting()
        return {"symbol": SYMBOL}

    async def _get_mytrades(self) -> Json:
        await self.bought()
        return {"symbol": SYMBOL}

    async def _get_trades(self) -> Json:
        await self.bought()
        return {"symbol": SYMBOL}

    _get_aggtrades = _get_historicaltrades = _get_trades

    async def _get_mypreventedmatches(self) -> Json:
        return {"symbol": SYMBOL, "orderId": await self.prevented()}

    async def _get_orderlist(self) -> Json:
        return {"orderListId": await self.oco()}

    async def _delete_orderlist(self) -> Json:
        return {"symbol": SYMBOL, "orderListId": await self.oco()}

    async def _get_openorderlist(self) -> Json:
        await self.oco()
        return {}

    _get_allorderlist = _get_openorderlist


def _key(endpoint: str) -> str:
    """`GET /api/v3/order/amend/keepPriority` as a name."""
    return endpoint.replace(" /api/v3/", "_").replace("/", "_").lower()


_ONE: Final = {"symbol": SYMBOL}
_FIXED: Final[dict[str, Json]] = {
    "GET /api/v3/exchangeInfo": _ONE,
    "GET /api/v3/depth": _ONE,
    "GET /api/v3/historicalBlockTrades": _ONE | {"fromId": 1},
    "GET /api/v3/klines": _ONE | {"interval": "1m", "limit": 5},
    "GET /api/v3/uiKlines": _ONE | {"interval": "1m", "limit": 5},
    "GET /api/v3/avgPrice": _ONE,
    "GET /api/v3/ticker": _ONE,
    "GET /api/v3/ticker/24hr": _ONE,
    "GET /api/v3/ticker/tradingDay": _ONE,
    "GET /api/v3/ticker/price": _ONE,
    "GET /api/v3/ticker/bookTicker": _ONE,
    "GET /api/v3/executionRules": _ONE,
    "GET /api/v3/referencePrice": _ONE,
    "GET /api/v3/referencePrice/calculation": _ONE,
    "POST /api/v3/order": _LIMIT | {"price": str(PRICE + 100)},
    "POST /api/v3/order/test": _LIMIT | {"price": _FAR, "computeCommissionRates": "true"},
    "POST /api/v3/sor/order": _LIMIT | {"price": _FAR},
    "POST /api/v3/sor/order/test": _LIMIT | {"price": _FAR},
    "POST /api/v3/orderList/oco": _OCO,
    "POST /api/v3/orderList/oto": _WORKING | _PENDING | {"pendingType": "MARKET"},
    "POST /api/v3/orderList/otoco": _WORKING | _PENDING | _PENDING_PAIR,
    "GET /api/v3/account/commission": _ONE,
    "GET /api/v3/myAllocations": _ONE,
    "GET /api/v3/myFilters": _ONE,
}
REST_NAMES: Final = {
    "account.commission": "GET /api/v3/account/commission",
    "account.rateLimits.orders": "GET /api/v3/rateLimit/order",
    "account.status": "GET /api/v3/account",
    "allOrders": "GET /api/v3/allOrders",
    "avgPrice": "GET /api/v3/avgPrice",
    "depth": "GET /api/v3/depth",
    "exchangeInfo": "GET /api/v3/exchangeInfo",
    "klines": "GET /api/v3/klines",
    "myAllocations": "GET /api/v3/myAllocations",
    "myPreventedMatches": "GET /api/v3/myPreventedMatches",
    "myTrades": "GET /api/v3/myTrades",
    "openOrderLists.status": "GET /api/v3/openOrderList",
    "openOrders.cancelAll": "DELETE /api/v3/openOrders",
    "openOrders.status": "GET /api/v3/openOrders",
    "order.amend.keepPriority": "PUT /api/v3/order/amend/keepPriority",
    "order.cancel": "DELETE /api/v3/order",
    "order.cancelReplace": "POST /api/v3/order/cancelReplace",
    "order.place": "POST /api/v3/order",
    "order.status": "GET /api/v3/order",
    "order.test": "POST /api/v3/order/test",
    "orderList.cancel": "DELETE /api/v3/orderList",
    "orderList.place.oco": "POST /api/v3/orderList/oco",
    "orderList.place.oto": "POST /api/v3/orderList/oto",
    "orderList.place.otoco": "POST /api/v3/orderList/otoco",
    "orderList.status": "GET /api/v3/orderList",
    "ping": "GET /api/v3/ping",
    "sor.order.place": "POST /api/v3/sor/order",
    "sor.order.test": "POST /api/v3/sor/order/test",
    "ticker": "GET /api/v3/ticker",
    "ticker.24hr": "GET /api/v3/ticker/24hr",
    "ticker.book": "GET /api/v3/ticker/bookTicker",
    "ticker.price": "GET /api/v3/ticker/price",
    "ticker.tradingDay": "GET /api/v3/ticker/tradingDay",
    "time": "GET /api/v3/time",
    "trades.aggregate": "GET /api/v3/aggTrades",
    "trades.historical": "GET /api/v3/historicalTrades",
    "trades.recent": "GET /api/v3/trades",
    "uiKlines": "GET /api/v3/uiKlines",
}
"""What the methods of the WebSocket API are called in REST."""
