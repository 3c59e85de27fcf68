"""What every request passes before its answer, on REST and the WebSocket API alike: limits, the key and its rights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from paper_exchange.auth import check_time, unauthorized
from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.model import Account, Trade
from paper_exchange.endpoint import Call, Route, Security, is_sapi
from paper_exchange.keys import ApiKey
from paper_exchange.limits import Limits
from paper_exchange.parameters import check_parameters
from paper_exchange.venue import Venue

_FROM_ENGINE: Final = frozenset((-2010, -2021, -2022))
"""Refusals of an order that had reached the engine: it counts as one that was placed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request for an endpoint, before anything of it was checked."""

    endpoint: tuple[str, str]
    """Method and path."""
    route: Route
    params: Mapping[str, str]
    address: str
    key: Callable[[], ApiKey]
    """The key it came with, or an ExchangeError; called where the endpoint needs one."""
    prove: Callable[[ApiKey], None]
    """An ExchangeError unless the time and the signature are right; called where the endpoint needs them."""
    counted: Callable[[int, int], None] = lambda ten_seconds, day: None
    """Told how many unfilled orders the account has when the request counted as new orders."""
    skew_ms: int = 0
    """How far the clock that the sender sees is ahead of the exchange's."""


class Gate:
    """The one way to an answer."""

    def __init__(self, venue: Venue, limits: Limits, refused: Callable[[int], None] = lambda code: None) -> None:
        """`refused` is told the code of each request that breaks a rule."""
        self._venue = venue
        self._limits = limits
        self._refused = refused
        venue.first_fill_listeners.append(self._on_first_fill)

    def answer(self, request: Request) -> Any:
        """The endpoint's answer, or an ExchangeError; what it costs is counted either way."""
        try:
            return self._answer(request)
        except ExchangeError as error:
            self._refused(error.code)
            raise

    def _answer(self, request: Request) -> Any:
        route, address = request.route, request.address
        now = self._venue.now_ms()
        weight = route.weight(request.params)
        if is_sapi(request.endpoint[1]):
            self._limits.admit_sapi((address, *request.endpoint), weight, now)
        else:
            self._limits.admit(address, weight, now)
        uid, api_key, excess = 0, "", None
        try:
            if route.security is not Security.NONE:
                key = request.key()
                if not key.used_from(address):
                    raise unauthorized()
                if route.security is not Security.KEY:
                    request.prove(key)
                    if route.security.value not in key.terms.permissions:
                        raise unauthorized()
                uid, api_key = key.uid, key.api_key
            check_parameters(request.endpoint, request.params, route.security is not Security.NONE)
            if route.orders:
                excess = self._excess(request, uid, now)
            now = self._venue.now_ms()
            if route.trade:
                # Time has passed since the key was proven: what is too old by now must not reach the engine.
                check_time(request.params, now + request.skew_ms)
            result = route.answer(Call(request.params, uid, now, api_key, excess, request.skew_ms))
        except ExchangeError as error:
            self._charge(request, weight, now)
            if route.orders and excess is None and error.code in _FROM_ENGINE:
                request.counted(*self._limits.count_orders(self._counting(uid), route.orders, now))
            raise
        if not route.trade:
            self._charge(request, weight, now)
        if route.orders:
            request.counted(*self._limits.count_orders(self._counting(uid), route.orders, now))
        return result

    def _charge(self, request: Request, weight: int, now: int) -> None:
        if is_sapi(request.endpoint[1]):
            self._limits.charge_sapi((request.address, *request.endpoint), weight, now)
        else:
            self._limits.charge(request.address, weight, now)

    def _excess(self, request: Request, uid: int, now: int) -> ExchangeError | None:
        """The refusal of the order limit: raised, unless the endpoint has a use for it."""
        try:
            self._limits.refuse_orders(self._venue.exchange.accounts[uid], request.route.orders, now)
        except ExchangeError as error:
            if not request.route.beyond_limit(request.params):
                raise
            return error
        return None

    def _on_first_fill(self, fill: Trade) -> None:
        self._limits.credit_fill(self._counting(fill.uid), fill.maker, fill.time)

    def _counting(self, uid: int) -> Account:
        """An account whose count of orders changes: it will be stored."""
        exchange = self._venue.exchange
        account = exchange.changes.accounts[uid] = exchange.accounts[uid]
        return account
