"""What may go wrong at the exchange, as classes by what the caller must do about it.

An answer is read here and not by the client library, which raises what is none of its errors where a body is JSON and
no object, or no UTF-8: a proxy's words would end a session, and hide the wait that a 429 demands. A dropped connection
is an aiohttp.ClientError; no answer is a builtin TimeoutError with an empty text. So type, HTTP status, code and
message are all looked at. Codes: Binance Spot API documentation, errors.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import aiohttp

_CLOCK: Final = {-1021}
_ORDERS: Final = {-1015}
_AUTH: Final = {-1022, -2014, -2015, -1002}
_NOT_FOUND: Final = {-2013}
_ARCHIVED: Final = {-2026}
_AMBIGUOUS: Final = {-1006, -1007}
_UNREACHABLE_CODES: Final = {-1000, -1001, -1008, -1016}
LONGEST_BAN: Final = 3 * 86_400.0
"""Seconds; Binance's bans last from two minutes to three days (rest-api.md)."""


class ExchangeError(Exception):
    """A call to the exchange failed; `code` is stable, the text is without secrets."""

    code: ClassVar[str] = "ExchangeError"
    counts_as_failure: ClassVar[bool] = False
    """Whether the circuit breaker counts it."""

    def __init__(self, message: str, *, api_code: int = 0, status: int = 0) -> None:
        super().__init__(message)
        self.api_code = api_code
        self.status = status

    def __str__(self) -> str:
        return f"{self.code}: {super().__str__()}"


class NotSentError(ExchangeError):
    """The request certainly did not reach the exchange; the circuit breaker's refusal is a subclass too."""

    code = "NotSent"


class UnreachableError(NotSentError):
    """No connection could be made."""

    code = "ExchangeUnreachable"
    counts_as_failure = True


class AmbiguousError(ExchangeError):
    """The outcome is unknown (5xx, -1006, -1007, timeout, dropped connection): it may have been executed."""

    code = "OutcomeUnknown"
    counts_as_failure = True


class RejectedError(ExchangeError):
    """The exchange understood and refused (-2010, -2011, -1013, ...); never a fault of the connection."""

    code = "Rejected"


class OrderArchivedError(RejectedError):
    """-2026: the order was canceled or expired without an execution, over 90 days ago."""

    code = "OrderArchived"


class NotFoundError(ExchangeError):
    """-2013: the exchange does not know the order (yet)."""

    code = "OrderNotFound"


class UnknownSymbolError(ExchangeError):
    """-1121: no such trading pair."""

    code = "UnknownSymbol"


class RateLimitedError(ExchangeError):
    """429: nothing was executed; wait `retry_after` seconds."""

    code = "RateLimited"
    counts_as_failure = True

    def __init__(self, message: str, *, retry_after: float, api_code: int = 0, status: int = 429) -> None:
        super().__init__(message, api_code=api_code, status=status)
        self.retry_after = retry_after


class TooManyOrdersError(RateLimitedError):
    """-1015: the account's count of new orders is used up for `retry_after` seconds; all else may go on."""

    code = "TooManyOrders"
    counts_as_failure = False


class BannedError(RateLimitedError):
    """418: this address is banned for `retry_after` seconds."""

    code = "Banned"


class ClockSkewError(ExchangeError):
    """-1021: the timestamp was outside the exchange's window; nothing was executed."""

    code = "ClockSkew"


class AuthRejectedError(ExchangeError):
    """The key or the signature was refused (-2014, -2015, -1022, HTTP 401)."""

    code = "CredentialsRejected"


def read_answer(status: int, body: bytes, headers: Mapping[str, str]) -> Any:
    """The JSON of an answer that is 2xx; ExchangeError of any other, and of a body that is not JSON."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    if not 200 <= status < 300:
        told = data if isinstance(data, dict) else {}
        code = told.get("code")
        raise classify_answer(status, code if isinstance(code, int) else 0, str(told.get("msg", "")), headers)
    if data is None:
        raise AmbiguousError("the exchange's answer was not JSON")
    return data


def classify(error: BaseException) -> ExchangeError | None:
    """The class of an exception of the client library; None where it is none of the exchange's doing."""
    if isinstance(error, ExchangeError):
        return error
    if isinstance(error, aiohttp.ClientConnectorError):  # before the request was written
        return UnreachableError(f"cannot connect to {error.host}:{error.port} ({type(error).__name__})")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return UnreachableError("connecting took too long")
    if isinstance(error, aiohttp.ClientError | ConnectionError):
        return AmbiguousError(f"the connection broke before an answer came ({type(error).__name__})")
    if isinstance(error, TimeoutError):
        return AmbiguousError("no answer in time")
    return None


def classify_answer(status: int, code: int, text: str, headers: Mapping[str, str]) -> ExchangeError:
    """The class of an answer that is not 2xx; `code` 0 means that the body had none."""
    if code == 0:
        text = "the body was not Binance's JSON"
    message = f"HTTP {status} {code} {text}".strip()
    if status in {418, 429}:
        kind = BannedError if status == 418 else TooManyOrdersError if code in _ORDERS else RateLimitedError
        return kind(message, retry_after=_retry_after(headers), api_code=code, status=status)
    if code in _CLOCK:
        return ClockSkewError(message, api_code=code, status=status)
    if code in _AUTH or (status == 401 and code != 0):
        return AuthRejectedError(message, api_code=code, status=status)
    if code in _NOT_FOUND:
        return NotFoundError(message, api_code=code, status=status)
    if code in _ARCHIVED:
        return OrderArchivedError(message, api_code=code, status=status)
    if code == -1121:
        return UnknownSymbolError(message, api_code=code, status=status)
    if status >= 500 or code in _AMBIGUOUS or code in _UNREACHABLE_CODES or code == 0:
        # Binance: a 5xx "must NOT be treated as failure"; an unreadable refusal of a proxy is no better known.
        return AmbiguousError(message, api_code=code, status=status)
    return RejectedError(message, api_code=code, status=status)


def classify_ws_answer(answer: Mapping[str, Any]) -> ExchangeError:
    """The class of an answer of the WebSocket API whose `status` is not 200; it tells a wait as a time in ms."""
    error = answer.get("error") or {}
    data = error.get("data") or {}
    headers: dict[str, str] = {}
    if "retryAfter" in data and "serverTime" in data:
        headers["Retry-After"] = str((int(data["retryAfter"]) - int(data["serverTime"])) / 1000)
    return classify_answer(int(answer["status"]), int(error.get("code") or 0), str(error.get("msg") or ""), headers)


def classify_handshake(error: aiohttp.WSServerHandshakeError) -> RateLimitedError | None:
    """The wait that the exchange demands instead of opening a WebSocket; None where it demands none.

    A 429 that does not say how long is about connections alone: it must not keep orders from being sent.
    """
    headers: Mapping[str, str] = error.headers or {}
    if error.status != 418 and (error.status != 429 or "Retry-After" not in headers):
        return None
    kind = BannedError if error.status == 418 else RateLimitedError
    return kind(f"HTTP {error.status}", retry_after=_retry_after(headers), status=error.status)


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(LONGEST_BAN, max(1.0, float(headers.get("Retry-After", ""))))
    except ValueError:
        return 60.0
