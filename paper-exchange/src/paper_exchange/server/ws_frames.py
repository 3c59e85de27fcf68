"""Frames of the WebSocket API: requests as they are understood or refused, and answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from paper_exchange.core.errors import ExchangeError, missing

_LONGEST_ID: Final = 36


class _Fraction(str):
    """A number with a fraction as it was written: that is how it is signed."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request; its parameters as they are signed."""

    ident: int | str | None
    method: str
    params: dict[str, str]
    show_limits: bool | None
    """Whether the answer is to tell the rate limits; None is what the connection was opened with."""


class RequestRefusedError(Exception):
    """A frame that is no request; answered under its id where it has one."""

    def __init__(self, error: ExchangeError, ident: int | str | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.ident = ident


def parse_request(frame: str | bytes) -> ApiRequest:
    """The request in a frame; RequestRefusedError for anything else."""
    invalid = RequestRefusedError(ExchangeError(-1135, "Invalid JSON Request"))
    try:
        request = json.loads(frame, parse_float=_Fraction, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid from None
    if not isinstance(request, dict):
        raise invalid
    if "id" not in request:
        raise RequestRefusedError(missing("id"))
    ident = request["id"]
    if not is_id(ident):
        raise RequestRefusedError(ExchangeError(-1130, "Data sent for parameter 'id' is not valid."))
    method = request.get("method")
    if type(method) is not str or not method:
        raise RequestRefusedError(missing("method"), ident)
    params = request.get("params")
    if params is not None and not isinstance(params, dict):
        raise RequestRefusedError(ExchangeError(-1135, "JSON sent for parameter 'params' is not valid"), ident)
    sent = {} if params is None else params
    shown = sent.get("returnRateLimits")
    if shown is not None and not isinstance(shown, bool):
        raise RequestRefusedError(
            ExchangeError(-1130, "Data sent for parameter 'returnRateLimits' is not valid."), ident
        )
    values = {name: _signed(value) for name, value in sent.items() if value is not None}
    try:
        "".join((*values, *values.values())).encode()
    except UnicodeEncodeError:  # half of a character: nothing that could be signed
        raise RequestRefusedError(invalid.error, ident) from None
    return ApiRequest(ident, method.removeprefix("v3/"), values, shown)


def success(ident: int | str | None, result: Any) -> dict[str, Any]:
    """The answer to a request that was executed."""
    return {"id": ident, "status": 200, "result": result}


def failure(ident: int | str | None, error: ExchangeError, now_ms: int) -> dict[str, Any]:
    """The answer to a request that was refused; a limit says when to come back."""
    told = error.told()
    if error.retry_at is not None:
        told["data"] = {"serverTime": now_ms, "retryAfter": error.retry_at}
    return {"id": ident, "status": error.status, "error": told}


def is_id(ident: Any) -> bool:
    """Whether it can be a request's id: a signed number of 64 bits, a text of at most 36 characters, or null."""
    if type(ident) is str:
        return len(ident) <= _LONGEST_ID
    return ident is None or (type(ident) is int and -(2**63) <= ident < 2**63)


def _signed(value: Any) -> str:
    """A JSON value as it is signed: true and false, lists without blanks."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, dict)):
        return json.dumps(value, separators=(",", ":"))
    return str(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
