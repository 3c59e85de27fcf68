"""What an endpoint is: a function of a call with a weight and a security, told apart from any transport."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.keys import TRADE, USER_DATA
from paper_exchange.time_units import milliseconds

Params = Mapping[str, str]
_DAY_MS: Final = 86_400_000
_RESPONSES: Final = ("ACK", "RESULT", "FULL")


class Security(Enum):
    """What a request must carry: nothing, a key, or a key that may do this kind of call and its signature."""

    NONE = "nothing"
    KEY = "a key"
    USER_DATA = USER_DATA
    TRADE = TRADE


@dataclass(frozen=True, slots=True)
class Call:
    """One request whose sender is known: `uid` is 0 where none is needed."""

    params: Params
    uid: int
    now: int
    api_key: str = ""
    excess: ExchangeError | None = None
    """The refusal of the order limit, where the endpoint answers in spite of it."""
    skew_ms: int = 0
    """How far the clock that the sender sees is ahead of the exchange's."""

    @property
    def server_time(self) -> int:
        """What the exchange tells as its time; all else goes by `now`."""
        return self.now + self.skew_ms

    def limit(self, default: int, maximum: int) -> int:
        """The parameter `limit`, cut to what the endpoint gives at most; -1130 for 0."""
        asked = requests.integer(self.params, "limit")
        if asked == 0:
            raise ExchangeError(-1130, "Data sent for parameter 'limit' is not valid.")
        return default if asked is None else min(asked, maximum)


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: its answer, its weight, what it needs, and how many new orders it counts as."""

    answer: Callable[[Call], Any]
    weight: Callable[[Params], int]
    security: Security = Security.NONE
    orders: int = 0
    trade: bool = False
    """Places or cancels: costs no weight when it succeeds."""
    beyond_limit: Callable[[Params], bool] = lambda _: False
    """Whether the endpoint answers although the account may place no more orders now."""


def is_sapi(path: str) -> bool:
    """Whether it is a path of /sapi, which has limits of its own."""
    return path.startswith("/sapi/")


def fixed(weight: int) -> Callable[[Params], int]:
    """The same weight whatever is asked."""
    return lambda _: weight


def by_symbol(one: int, all_symbols: int) -> Callable[[Params], int]:
    """One weight with a symbol, another for all symbols."""
    return lambda params: one if "symbol" in params else all_symbols


def period(params: Params) -> tuple[int | None, int | None]:
    """The parameters startTime and endTime in ms, whichever unit they were sent in."""
    start, end = requests.integer(params, "startTime"), requests.integer(params, "endTime")
    return milliseconds(start), milliseconds(end)


def day_period(params: Params) -> tuple[int | None, int | None]:
    """As `period`, of questions that reach over 24 hours at most."""
    start, end = period(params)
    if start is not None and end is not None and end - start > _DAY_MS:
        raise ExchangeError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


def read(answer: Callable[[Call], Any], weight: Callable[[Params], int]) -> Route:
    """A question that only the owner of an account may ask."""
    return Route(answer, weight, Security.USER_DATA)


def trade(answer: Callable[[Call], Any], orders: int = 0) -> Route:
    """An endpoint that places or cancels orders."""
    return Route(answer, fixed(1), Security.TRADE, orders, trade=True)


def order_test_weight(params: Params) -> int:
    """The weight of testing an order: more with the commission it would cost."""
    return 20 if params.get("computeCommissionRates") == "true" else 1


def response_type(params: Params) -> str:
    """The form asked for of the answer to a new order, "" for the default."""
    asked = requests.text_of(params, "newOrderRespType")
    if asked is None:
        return ""
    if asked not in _RESPONSES:
        raise illegal("newOrderRespType", "^(ACK|RESULT|FULL)$")
    return asked
