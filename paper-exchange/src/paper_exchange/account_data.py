"""What an account is told about itself: balances, rates, filters and how many orders it may still place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paper_exchange.core import reports, requests
from paper_exchange.core.fills import COMMISSION
from paper_exchange.core.units import text, to_units
from paper_exchange.endpoint import Call, Route, Security, fixed
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
            ("GET", "/api/v3/rateLimit/order"): _route(self._order_counts, 40),
        }

    def _account(self, call: Call) -> Any:
        rate = text(to_units(COMMISSION))
        held = self._exchange.accounts[call.uid]
        may_trade = held.can_trade and TRADE in self._venue.keys[call.api_key].terms.permissions
        return reports.account(
            held,
            rate,
            rate,
            omit_zero=requests.flag(call.params, "omitZeroBalances"),
            permissions={"canTrade": may_trade, "canWithdraw": False, "canDeposit": False},
        )

    def _commission(self, call: Call) -> Any:
        symbol = self._exchange.market(requests.required(call.params, "symbol")).rules.symbol
        zero = {"maker": text(0), "taker": text(0), "buyer": text(0), "seller": text(0)}
        rate = text(to_units(COMMISSION))
        return {
            "symbol": symbol,
            "standardCommission": zero | {"maker": rate, "taker": rate},
            "specialCommission": zero,
            "taxCommission": zero,
            "discount": {
                "enabledForAccount": False,
                "enabledForSymbol": False,
                "discountAsset": "BNB",
                "discount": "0.75000000",
            },
        }

    def _order_counts(self, call: Call) -> Any:
        return self._limits.orders(call.uid, call.now)


def _route(answer: Callable[[Call], Any], weight: int) -> Route:
    return Route(answer, fixed(weight), Security.USER_DATA)
