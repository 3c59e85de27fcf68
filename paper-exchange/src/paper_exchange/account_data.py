"""What an account is told about itself: balances, rates, filters and how many orders it may still place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from paper_exchange.core import reports, requests
from paper_exchange.core.errors import neither
from paper_exchange.core.model import Account, Side
from paper_exchange.core.units import text
from paper_exchange.endpoint import Call, Params, Route, Security, fixed
from paper_exchange.keys import TRADE
from paper_exchange.limits import Limits
from paper_exchange.venue import Venue


class AccountData:
    """The endpoints over one venue."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._venue = venue
        self._exchange = venue.exchange
        self._limits = limits
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/account"): _route(self._account, 20),
            ("GET", "/api/v3/account/commission"): _route(self._commission, 20),
            ("GET", "/api/v3/myPreventedMatches"): Route(
                self._prevented_matches, self._prevented_weight, Security.USER_DATA
            ),
            ("GET", "/api/v3/rateLimit/order"): _route(self._order_counts, 40),
            ("GET", "/api/v3/myFilters"): _route(self._filters, 40),
        }

    def _account(self, call: Call) -> Any:
        held = self._exchange.accounts[call.uid]
        may_trade = held.can_trade and TRADE in self._venue.keys[call.api_key].terms.permissions
        return reports.account(
            held,
            omit_zero=requests.flag(call.params, "omitZeroBalances"),
            permissions={"canTrade": may_trade, "canWithdraw": False, "canDeposit": False},
        )

    def _commission(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        held = self._exchange.accounts[call.uid]
        told = {
            f"{name}Commission": {part: text(rate) for part, rate in asdict(rates).items()}
            for name, rates in held.rates(symbol).parts().items()
        }
        return {"symbol": symbol, **told, "discount": _discount(held, symbol)}

    def _prevented_matches(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        match_id = requests.integer(call.params, "preventedMatchId")
        order_id = requests.integer(call.params, "orderId")
        from_id = requests.integer(call.params, "fromPreventedMatchId") or 0
        if match_id is None and order_id is None:
            raise neither("preventedMatchId", "orderId")
        found = self._venue.store.history.prevented(
            call.uid, symbol, limit=call.limit(500, 1000), match_id=match_id, order_id=order_id, from_id=from_id
        )
        return [reports.my_prevented_match(match) for match in found]

    def _prevented_weight(self, params: Params) -> int:
        return 20 if "orderId" in params and params.get("symbol") in self._exchange.markets else 2

    def _filters(self, call: Call) -> Any:
        """The filters that an order of the account on a symbol must pass."""
        rules = self._exchange.market(requests.required(call.params, "symbol")).rules
        limits = self._exchange.accounts[call.uid].max_assets
        return {
            "exchangeFilters": self._exchange.rules.filters(),
            "symbolFilters": rules.filters(),
            "assetFilters": [
                {"filterType": "MAX_ASSET", "asset": asset, "limit": text(limits[asset])}
                for asset in (rules.base, rules.quote)
                if asset in limits
            ],
        }

    def _order_counts(self, call: Call) -> Any:
        return self._limits.orders(self._exchange.accounts[call.uid], call.now)


def _route(answer: Callable[[Call], Any], weight: int) -> Route:
    return Route(answer, fixed(weight), Security.USER_DATA)


def commission_for_order(held: Account, symbol: str, side: Side) -> dict[str, Any]:
    """The rates that an order would pay, as `computeCommissionRates` of order/test asks for them."""
    buyer = side is Side.BUY
    told: dict[str, Any] = {
        f"{name}CommissionForOrder": {
            "maker": text(rates.share(maker=True, buyer=buyer)),
            "taker": text(rates.share(maker=False, buyer=buyer)),
        }
        for name, rates in held.rates(symbol).parts().items()
    }
    return told | {"discount": _discount(held, symbol)}


def _discount(held: Account, symbol: str) -> dict[str, Any]:
    return {
        "enabledForAccount": held.bnb_discount,
        "enabledForSymbol": True,
        "discountAsset": "BNB",
        "discount": text(held.rates(symbol).discount),
    }
