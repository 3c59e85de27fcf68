"""The rule on execution prices as clients ask for it: the range of each symbol and its reference price."""

from __future__ import annotations

import json
from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.price_range import PriceRange
from paper_exchange.core.units import text
from paper_exchange.endpoint import Call, Params, Route, fixed
from paper_exchange.market_params import symbols_of
from paper_exchange.venue import Venue

_ALL_WEIGHT: Final = 40


class ExecutionRules:
    """The endpoints over one venue."""

    def __init__(self, venue: Venue) -> None:
        self._exchange = venue.exchange
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/api/v3/executionRules"): Route(self._rules, _rules_weight),
            ("GET", "/api/v3/referencePrice"): Route(self._reference, fixed(2)),
            ("GET", "/api/v3/referencePrice/calculation"): Route(self._calculation, fixed(2)),
        }

    def _rules(self, call: Call) -> Any:
        ranges = {
            symbol: self._exchange.market(symbol).rules.price_range
            for symbol in symbols_of(call.params, self._exchange)
        }
        return {"symbolRules": [{"symbol": symbol, "rules": [_told(one)]} for symbol, one in ranges.items()]}

    def _reference(self, call: Call) -> Any:
        market = self._exchange.market(requests.required(call.params, "symbol"))
        price = market.reference.value(call.now)
        if price is None and market.last is None:
            raise ExchangeError(-2043, "This symbol doesn't have a reference price.")
        return {
            "symbol": market.rules.symbol,
            "referencePrice": None if price is None else text(price),
            "timestamp": call.now,
        }

    def _calculation(self, call: Call) -> Any:
        rules = self._exchange.market(requests.required(call.params, "symbol")).rules
        return {
            "symbol": rules.symbol,
            "calculationType": "ARITHMETIC_MEAN",
            "bucketCount": rules.price_range.bucket_count,
            "bucketWidthMs": rules.price_range.bucket_width_ms,
        }


def _told(one: PriceRange) -> dict[str, Any]:
    multiples = {
        "bidLimitMultUp": one.bid_up,
        "bidLimitMultDown": one.bid_down,
        "askLimitMultUp": one.ask_up,
        "askLimitMultDown": one.ask_down,
    }
    return {"ruleType": "PRICE_RANGE"} | {name: str(value) for name, value in multiples.items() if value is not None}


def _rules_weight(params: Params) -> int:
    if "symbol" in params:
        return 2
    try:
        return min(_ALL_WEIGHT, 2 * len(json.loads(params["symbols"])))
    except (KeyError, TypeError, ValueError):
        return _ALL_WEIGHT
