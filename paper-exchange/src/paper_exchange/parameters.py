"""Which parameters each endpoint reads: Binance refuses a request with any other before it looks at the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from paper_exchange.core.errors import ExchangeError

_SIGNED: Final = ("apiKey", "timestamp", "recvWindow", "signature")
"""What a request carries for its security; `apiKey` on the WebSocket API."""
_PEG: Final = ("pegPriceType", "pegOffsetValue", "pegOffsetType")
_ORDER: Final = (
    *("symbol", "side", "type", "timeInForce", "quantity", "quoteOrderQty", "price", "newClientOrderId", "strategyId"),
    *("strategyType", "stopPrice", "trailingDelta", "icebergQty", "newOrderRespType", "selfTradePreventionMode", *_PEG),
)
_CANCEL: Final = ("symbol", "orderId", "origClientOrderId", "newClientOrderId", "cancelRestrictions")
_LIST: Final = ("symbol", "listClientOrderId", "newOrderRespType", "selfTradePreventionMode")
_PRICED: Final = ("type", "clientOrderId", "price", "icebergQty", "timeInForce", "strategyId", "strategyType", *_PEG)
_LEG: Final = (*_PRICED, "stopPrice", "trailingDelta")
_PERIOD: Final = ("startTime", "endTime", "limit")
_SYMBOLS: Final = ("symbol", "symbols", "symbolStatus")


def _with(prefix: str, names: Iterable[str]) -> tuple[str, ...]:
    """The parameters of one order of a list: `price` of the working order is `workingPrice`."""
    return tuple(prefix + name[0].upper() + name[1:] for name in names)


_WORKING: Final = _with("working", (*_PRICED, "side", "quantity"))
_PENDING_PAIR: Final = (*_with("pendingAbove", _LEG), *_with("pendingBelow", _LEG), "pendingSide")
_SOR: Final = tuple(name for name in _ORDER if name not in ("quoteOrderQty", "stopPrice", "trailingDelta", *_PEG))
_OLD_OCO: Final = (
    *(*_LIST, "side", "quantity", "price", "trailingDelta", "stopPrice", "stopLimitPrice", "stopLimitTimeInForce"),
    *_with("limit", ("clientOrderId", "strategyId", "strategyType", "icebergQty")),
    *_with("stop", ("clientOrderId", "strategyId", "strategyType", "icebergQty")),
)

_READ: Final[dict[str, tuple[str, ...]]] = {
    "GET /api/v3/ping": (),
    "GET /api/v3/time": (),
    "GET /api/v3/exchangeInfo": (*_SYMBOLS, "permissions", "showPermissionSets"),
    "GET /api/v3/executionRules": _SYMBOLS,
    "GET /api/v3/referencePrice": ("symbol",),
    "GET /api/v3/referencePrice/calculation": ("symbol", "symbolStatus"),
    "GET /api/v3/depth": ("symbol", "limit", "symbolStatus"),
    "GET /api/v3/trades": ("symbol", "limit"),
    "GET /api/v3/historicalTrades": ("symbol", "limit", "fromId"),
    "GET /api/v3/historicalBlockTrades": ("symbol", "limit", "fromId"),
    "GET /api/v3/aggTrades": ("symbol", "fromId", *_PERIOD),
    "GET /api/v3/klines": ("symbol", "interval", "timeZone", *_PERIOD),
    "GET /api/v3/uiKlines": ("symbol", "interval", "timeZone", *_PERIOD),
    "GET /api/v3/avgPrice": ("symbol",),
    "GET /api/v3/ticker/24hr": (*_SYMBOLS, "type"),
    "GET /api/v3/ticker/tradingDay": (*_SYMBOLS, "timeZone", "type"),
    "GET /api/v3/ticker/price": _SYMBOLS,
    "GET /api/v3/ticker/bookTicker": _SYMBOLS,
    "GET /api/v3/ticker": (*_SYMBOLS, "windowSize", "type"),
    "POST /api/v3/order": _ORDER,
    "POST /api/v3/order/test": (*_ORDER, "computeCommissionRates"),
    "GET /api/v3/order": ("symbol", "orderId", "origClientOrderId"),
    "DELETE /api/v3/order": _CANCEL,
    "POST /api/v3/order/cancelReplace": (
        *(*_ORDER, "cancelReplaceMode", "cancelRestrictions", "cancelNewClientOrderId"),
        *("cancelOrigClientOrderId", "cancelOrderId", "orderRateLimitExceededMode"),
    ),
    "PUT /api/v3/order/amend/keepPriority": ("symbol", "orderId", "origClientOrderId", "newClientOrderId", "newQty"),
    "GET /api/v3/order/amendments": ("symbol", "orderId", "fromExecutionId", "limit"),
    "GET /api/v3/openOrders": ("symbol",),
    "DELETE /api/v3/openOrders": ("symbol",),
    "GET /api/v3/allOrders": ("symbol", "orderId", *_PERIOD),
    "POST /api/v3/order/oco": _OLD_OCO,
    "POST /api/v3/orderList/oco": (*_LIST, "side", "quantity", *_with("above", _LEG), *_with("below", _LEG)),
    "POST /api/v3/orderList/oto": (*_LIST, *_WORKING, *_with("pending", (*_LEG, "side", "quantity"))),
    "POST /api/v3/orderList/otoco": (*_LIST, *_WORKING, *_PENDING_PAIR, "pendingQuantity"),
    "POST /api/v3/orderList/opo": (*_LIST, *_WORKING, *_with("pending", (*_LEG, "side", "quantity"))),
    "POST /api/v3/orderList/opoco": (*_LIST, *_WORKING, *_PENDING_PAIR, "pendingQuantity"),
    "GET /api/v3/orderList": ("orderListId", "origClientOrderId"),
    "DELETE /api/v3/orderList": ("symbol", "orderListId", "listClientOrderId", "newClientOrderId"),
    "GET /api/v3/allOrderList": ("fromId", *_PERIOD),
    "GET /api/v3/openOrderList": (),
    "POST /api/v3/sor/order": _SOR,
    "POST /api/v3/sor/order/test": (*_SOR, "computeCommissionRates"),
    "GET /api/v3/account": ("omitZeroBalances",),
    "GET /api/v3/account/commission": ("symbol",),
    "GET /api/v3/myTrades": ("symbol", "orderId", "fromId", *_PERIOD),
    "GET /api/v3/myFilters": ("symbol",),
    "GET /api/v3/myPreventedMatches": ("symbol", "preventedMatchId", "orderId", "fromPreventedMatchId", "limit"),
    "GET /api/v3/myAllocations": ("symbol", "orderId", "fromAllocationId", *_PERIOD),
    "GET /api/v3/rateLimit/order": (),
}
"""An OPO list takes no quantity of its pending orders, which has a code of its own: it is read to be refused."""
_PARAMETERS: Final = {endpoint: frozenset(names) for endpoint, names in _READ.items()}


def check_parameters(endpoint: tuple[str, str], params: Mapping[str, str], signed: bool) -> None:
    """-1104 where a parameter is sent that the endpoint does not read, -1101 where it reads none at all."""
    read = _PARAMETERS.get(" ".join(endpoint))
    if read is None:
        return
    unread = sum(name not in read and not (signed and name in _SIGNED) for name in params)
    if not unread:
        return
    if not read and not signed:
        raise ExchangeError(-1101, f"Too many parameters; expected '0' and received '{len(params)}'.")
    raise ExchangeError(
        -1104,
        f"Not all sent parameters were read; read '{len(params) - unread}' parameter(s) but was sent '{len(params)}'.",
    )
