"""exchangeInfo: what can be traded here, by whom, under which filters and limits."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, bad_combination
from paper_exchange.endpoint import Call, Params, Route, fixed
from paper_exchange.limits import Limits
from paper_exchange.market_params import listed, status_of, symbols_of
from paper_exchange.venue import Venue

_DEFAULT_PERMISSIONS: Final = frozenset(("SPOT", "MARGIN", "LEVERAGED"))


class ExchangeInfo:
    """The endpoint over one venue."""

    def __init__(self, venue: Venue, limits: Limits) -> None:
        self._exchange = venue.exchange
        self._limits = limits
        self.routes: dict[tuple[str, str], Route] = {("GET", "/api/v3/exchangeInfo"): Route(self._answer, fixed(20))}

    def _answer(self, call: Call) -> Any:
        params = call.params
        show_sets = requests.flag(params, "showPermissionSets", absent=True)
        return {
            "timezone": "UTC",
            "serverTime": call.server_time,
            "rateLimits": self._limits.info(),
            "exchangeFilters": self._exchange.rules.filters(),
            "symbols": [self._symbol(symbol, show_sets) for symbol in self._chosen(params)],
        }

    def _symbol(self, symbol: str, show_sets: bool) -> Any:
        market = self._exchange.market(symbol)
        info = market.rules.info(market.status)
        return info if show_sets else info | {"permissionSets": []}

    def _chosen(self, params: Params) -> list[str]:
        """By name, or else all that have the status and one of the permissions asked for."""
        named = "symbol" in params or "symbols" in params
        permissions = _permissions(params)
        if named:
            if permissions is not None or "symbolStatus" in params:
                raise bad_combination()
            return symbols_of(params, self._exchange)
        status_of(params)
        wanted = permissions or _DEFAULT_PERMISSIONS
        return [
            symbol
            for symbol in symbols_of(params, self._exchange)
            if any(wanted & set(groups) for groups in self._exchange.market(symbol).rules.permission_sets)
        ]


def _permissions(params: Params) -> frozenset[str] | None:
    """One permission as it is, or several as a JSON list; None when absent."""
    asked = requests.text_of(params, "permissions")
    if asked is None:
        return None
    several = listed(asked) if asked.startswith("[") else [asked]
    known = {*_DEFAULT_PERMISSIONS, *(f"TRD_GRP_{number:03}" for number in range(1, 1000))}
    if not several or not known.issuperset(several):
        raise ExchangeError(-1130, "Data sent for parameter 'permissions' is not valid.")
    return frozenset(several)
