"""Methods of the WebSocket API that are REST endpoints under another name."""

from __future__ import annotations

from typing import Final

METHODS: Final[dict[str, tuple[str, str]]] = {
    method: (verb, f"/api/v3/{path}")
    for method, verb, path in (
        ("ping", "GET", "ping"),
        ("time", "GET", "time"),
        ("exchangeInfo", "GET", "exchangeInfo"),
        ("executionRules", "GET", "executionRules"),
        ("referencePrice", "GET", "referencePrice"),
        ("referencePrice.calculation", "GET", "referencePrice/calculation"),
        ("depth", "GET", "depth"),
        ("trades.recent", "GET", "trades"),
        ("trades.historical", "GET", "historicalTrades"),
        ("trades.aggregate", "GET", "aggTrades"),
        ("blockTrades.historical", "GET", "historicalBlockTrades"),
        ("klines", "GET", "klines"),
        ("uiKlines", "GET", "uiKlines"),
        ("avgPrice", "GET", "avgPrice"),
        ("ticker", "GET", "ticker"),
        ("ticker.24hr", "GET", "ticker/24hr"),
        ("ticker.tradingDay", "GET", "ticker/tradingDay"),
        ("ticker.price", "GET", "ticker/price"),
        ("ticker.book", "GET", "ticker/bookTicker"),
        ("order.place", "POST", "order"),
        ("order.test", "POST", "order/test"),
        ("order.status", "GET", "order"),
        ("order.cancel", "DELETE", "order"),
        ("order.cancelReplace", "POST", "order/cancelReplace"),
        ("order.amend.keepPriority", "PUT", "order/amend/keepPriority"),
        ("order.amendments", "GET", "order/amendments"),
        ("openOrders.status", "GET", "openOrders"),
        ("openOrders.cancelAll", "DELETE", "openOrders"),
        ("allOrders", "GET", "allOrders"),
        ("orderList.place", "POST", "order/oco"),
        ("orderList.place.oco", "POST", "orderList/oco"),
        ("orderList.place.oto", "POST", "orderList/oto"),
        ("orderList.place.otoco", "POST", "orderList/otoco"),
        ("orderList.place.opo", "POST", "orderList/opo"),
        ("orderList.place.opoco", "POST", "orderList/opoco"),
        ("orderList.status", "GET", "orderList"),
        ("orderList.cancel", "DELETE", "orderList"),
        ("openOrderLists.status", "GET", "openOrderList"),
        ("allOrderLists", "GET", "allOrderList"),
        ("sor.order.place", "POST", "sor/order"),
        ("sor.order.test", "POST", "sor/order/test"),
        ("account.status", "GET", "account"),
        ("account.commission", "GET", "account/commission"),
        ("account.rateLimits.orders", "GET", "rateLimit/order"),
        ("myTrades", "GET", "myTrades"),
        ("myPreventedMatches", "GET", "myPreventedMatches"),
        ("myAllocations", "GET", "myAllocations"),
        ("myFilters", "GET", "myFilters"),
    )
}
"""Verb and path of each; one whose endpoint does not exist here is answered with -1020."""
