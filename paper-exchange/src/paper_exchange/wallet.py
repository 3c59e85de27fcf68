"""The /sapi calls that clients make as they start: the state of the system, the account and its key, coins and fees.

There is no wallet behind them: coins have no network to come or go by, and nothing is lent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.units import text, to_decimal
from paper_exchange.endpoint import Call, Route, Security, fixed
from paper_exchange.keys import TRADE, USER_DATA, WITHDRAW
from paper_exchange.venue import Venue

_TRIGGERS: Final = {"GCR": 150, "IFER": 150, "UFR": 300}
"""Below so many orders Binance does not judge an account's ratios; here they are never judged."""


class Wallet:
    """The endpoints over one venue."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/sapi/v1/system/status"): _route(lambda _: {"status": 0, "msg": "normal"}, 1, Security.NONE),
            ("GET", "/sapi/v1/account/status"): _route(lambda _: {"data": "Normal"}, 1),
            ("GET", "/sapi/v1/account/apiTradingStatus"): _route(self._trading_status, 1),
            ("GET", "/sapi/v1/account/apiRestrictions"): _route(self._restrictions, 1),
            ("GET", "/sapi/v1/asset/tradeFee"): _route(self._trade_fee, 1),
            ("GET", "/sapi/v1/bnbBurn"): _route(self._bnb_burn, 1),
            ("POST", "/sapi/v1/bnbBurn"): _route(self._set_bnb_burn, 1),
            ("GET", "/sapi/v1/capital/config/getall"): _route(self._coins, 10),
            ("POST", "/sapi/v3/asset/getUserAsset"): _route(self._assets, 5),
            ("GET", "/sapi/v1/margin/allPairs"): _route(_nothing, 1, Security.KEY),
            ("GET", "/sapi/v1/margin/isolated/allPairs"): _route(_nothing, 10),
            ("GET", "/sapi/v1/spot/delist-schedule"): _route(_nothing, 100),
        }

    def _trading_status(self, call: Call) -> Any:
        held = self._exchange.accounts[call.uid]
        status = {"isLocked": False, "plannedRecoverTime": 0, "triggerCondition": _TRIGGERS}
        return {"data": status | {"updateTime": held.update_time}}

    def _restrictions(self, call: Call) -> Any:
        key = self._venue.keys[call.api_key]
        return {
            "ipRestrict": bool(key.terms.addresses),
            "createTime": key.created_ms,
            "enableReading": USER_DATA in key.terms.permissions,
            "enableSpotAndMarginTrading": TRADE in key.terms.permissions,
            "enableWithdrawals": WITHDRAW in key.terms.permissions,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": False,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enablePortfolioMarginTrading": False,
        }

    def _trade_fee(self, call: Call) -> Any:
        asked = call.params.get("symbol")
        symbols = list(self._exchange.markets) if asked is None else [self._exchange.market(asked).rules.symbol]
        held = self._exchange.accounts[call.uid]
        return [
            {
                "symbol": symbol,
                "makerCommission": _plain(held.rates(symbol).standard.maker),
                "takerCommission": _plain(held.rates(symbol).standard.taker),
            }
            for symbol in symbols
        ]

    def _bnb_burn(self, call: Call) -> Any:
        """Whether BNB pays commissions; nothing is lent, so it pays no interest."""
        return {"spotBNBBurn": self._exchange.accounts[call.uid].bnb_discount, "interestBNBBurn": False}

    def _set_bnb_burn(self, call: Call) -> Any:
        if "spotBNBBurn" in call.params:
            self._exchange.set_bnb_discount(call.uid, requests.flag(call.params, "spotBNBBurn"))
        return self._bnb_burn(call)

    def _coins(self, call: Call) -> Any:
        """Every coin that can be traded or is held."""
        held = self._exchange.accounts[call.uid].balances
        rules = [market.rules for market in self._exchange.markets.values()]
        coins = {one.base for one in rules} | {one.quote for one in rules} | set(held)
        zero = text(0)
        return [
            {
                "coin": coin,
                "depositAllEnable": False,
                "withdrawAllEnable": False,
                "name": coin,
                "free": text(held[coin].free) if coin in held else zero,
                "locked": text(held[coin].locked) if coin in held else zero,
                "freeze": zero,
                "withdrawing": zero,
                "ipoing": zero,
                "ipoable": zero,
                "storage": zero,
                "isLegalMoney": False,
                "trading": True,
                "networkList": [],
            }
            for coin in sorted(coins)
        ]

    def _assets(self, call: Call) -> Any:
        """What the account holds, of one asset or of all."""
        asked = call.params.get("asset")
        zero = text(0)
        return [
            {
                "asset": asset,
                "free": text(balance.free),
                "locked": text(balance.locked),
                "freeze": zero,
                "withdrawing": zero,
                "ipoable": zero,
                "btcValuation": zero,
            }
            for asset, balance in sorted(self._exchange.accounts[call.uid].balances.items())
            if (balance.free or balance.locked) and asked in (None, asset)
        ]


def _nothing(_call: Call) -> Any:
    return []


def _route(answer: Callable[[Call], Any], weight: int, security: Security = Security.USER_DATA) -> Route:
    return Route(answer, fixed(weight), security)


def _plain(rate: int) -> str:
    return f"{to_decimal(rate).normalize():f}"
