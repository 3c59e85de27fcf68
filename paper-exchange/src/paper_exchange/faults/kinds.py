"""The kinds of faults: where each acts, its parameters, and whom it befalls unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from paper_exchange.faults.fields import REQUIRED, Field, choice, flag, number, text, whole
from paper_exchange.faults.model import Stage

LONGEST: Final = 86_400.0
"""Seconds that anything of a fault may last."""

ORDERS: Final = (
    "POST /api/v3/order",
    "POST /api/v3/order/cancelReplace",
    "order.place",
    "order.cancelReplace",
)
LISTS: Final = ("POST /api/v3/order/oco", "POST /api/v3/orderList/*", "orderList.place", "orderList.place.*")

_TEXTS: Final = {
    -1000: "An unknown error occurred while processing the request.",
    -1001: "Internal error; unable to process your request. Please try again.",
    -1003: "Too many requests queued.",
    -1006: "An unexpected response was received from the message bus. Execution status unknown.",
    -1007: "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    -1008: "Server is currently overloaded with other requests. Please try again in a few minutes.",
    -1013: "Filter failure: PERCENT_PRICE_BY_SIDE",
    -1015: "Too many new orders.",
    -1016: "This service is no longer available.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -2010: "Account has insufficient balance for requested action.",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2015: "Invalid API-key, IP, or permissions for action.",
}
"""What Binance says with a code."""
_STATUSES: Final = {-1000: 500, -1001: 500, -1006: 500, -1007: 504, -1008: 503, -1016: 503, -1003: 429, -2015: 401}
"""The HTTP status of a code, where it is not 400."""
_BANNED: Final = "Way too much request weight used; IP banned."
_FAILING: Final = "Unknown error, please check your request or try again later."


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind; `complete` adds to the parameters what follows from those that were given."""

    stage: Stage
    parameters: dict[str, Field] = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()
    streams: tuple[str, ...] = ()
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda parameters: parameters


def _told(parameters: dict[str, Any]) -> dict[str, Any]:
    """Status and message of a code, where they were left out."""
    code = parameters["code"]
    status = parameters["status"] or _STATUSES.get(code, 400)
    return parameters | {"status": status, "message": parameters["message"] or _TEXTS.get(code, _FAILING)}


def _of_status(parameters: dict[str, Any]) -> dict[str, Any]:
    """What Binance says with a status."""
    status = parameters["status"]
    code = -1003 if status in (418, 429) else -1000
    message = {429: _TEXTS[-1003], 418: _BANNED}.get(status, _FAILING)
    return {"status": status, "code": code, "message": message}


def _maintenance(parameters: dict[str, Any]) -> dict[str, Any]:
    """A page of HTML with status 403 or 410, or -1016."""
    form = parameters["form"]
    if form == -1016:
        return parameters | {"status": 503, "code": -1016, "message": _TEXTS[-1016]}
    title = {403: "403 Forbidden", 410: "410 Gone"}[form]
    page = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
    return parameters | {"status": form, "code": -1016, "message": _TEXTS[-1016], "page": page}


def _refusing(code: int, status: int = 0, message: str = "") -> dict[str, Field]:
    return {
        "code": Field(whole(-9999, -1), code),
        "status": Field(whole(400, 599), status),
        "message": Field(text, message),
    }


def _limiting(status: int, message: str) -> dict[str, Field]:
    return _refusing(-1003, status, message) | {"retryAfter": Field(whole(1, 259_200), None)}


_CUT: Final = {"cut": Field(flag, True)}
_SECONDS: Final = {"seconds": Field(number(0, LONGEST, above=True)), "jitter": Field(number(0, LONGEST), 0.0)}

KINDS: Final[dict[str, Kind]] = {
    "rest_status": Kind(
        Stage.REFUSE,
        {"status": Field(whole(400, 599)), "seconds": Field(number(0, LONGEST, above=True), REQUIRED)},
        ("* /api/*",),
        complete=_of_status,
    ),
    "error": Kind(Stage.REFUSE, _refusing(-1000), complete=_told),
    "rate_limited": Kind(Stage.REFUSE, _limiting(429, _TEXTS[-1003])),
    "banned": Kind(Stage.REFUSE, _limiting(418, _BANNED)),
    "maintenance": Kind(Stage.REFUSE, {"form": Field(choice(403, 410, -1016), 403)}, complete=_maintenance),
    "order_refused": Kind(Stage.REFUSE, _refusing(-2010), ORDERS, complete=_told),
    "list_refused": Kind(Stage.REFUSE, _refusing(-2010), LISTS, complete=_told),
    "lost_request": Kind(Stage.REFUSE, _CUT),
    "lost_answer": Kind(Stage.ANSWER, _CUT, (*ORDERS, *LISTS)),
    "error_after": Kind(Stage.ANSWER, _refusing(-1007), (*ORDERS, *LISTS), complete=_told),
    "delay": Kind(Stage.DELAY, _SECONDS),
    "answer_delay": Kind(Stage.ANSWER_DELAY, _SECONDS),
    "clock_skew": Kind(Stage.CLOCK, {"milliseconds": Field(whole(-86_400_000, 86_400_000))}),
    "drop_events": Kind(Stage.EVENT),
    "duplicate_events": Kind(Stage.EVENT),
    "reorder_events": Kind(Stage.EVENT),
    "delay_events": Kind(Stage.EVENT, _SECONDS),
    "dead_stream": Kind(Stage.EVENT, streams=("user",)),
    "cut_connection": Kind(Stage.EVENT),
}
