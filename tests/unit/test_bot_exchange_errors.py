"""Errors of the exchange: each shape in which the client library raises them becomes what the caller must do."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from tradingbot.gateway.errors import (
    AmbiguousError,
    AuthRejectedError,
    BannedError,
    ClockSkewError,
    ExchangeError,
    NotFoundError,
    RateLimitedError,
    RejectedError,
    UnknownSymbolError,
    UnreachableError,
    classify,
    read_answer,
)


def answered(status: int, body: bytes, **headers: str) -> ExchangeError:
    with pytest.raises(ExchangeError) as caught:
        read_answer(status, body, headers)
    return caught.value


def api_error(status: int, code: int | None, text: str = "text", **headers: str) -> ExchangeError:
    body = "<html>bad gateway</html>" if code is None else json.dumps({"code": code, "msg": text})
    return answered(status, body.encode(), **headers)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(api_error(502, None), AmbiguousError, id="html-502"),
        pytest.param(api_error(503, -1008), AmbiguousError, id="overloaded"),
        pytest.param(api_error(500, -1000), AmbiguousError, id="5xx"),
        pytest.param(api_error(400, -1006), AmbiguousError, id="unexpected-response"),
        pytest.param(api_error(408, -1007), AmbiguousError, id="backend-timeout"),
        pytest.param(TimeoutError(), AmbiguousError, id="no-answer"),
        pytest.param(aiohttp.ServerDisconnectedError(), AmbiguousError, id="dropped-after-accept"),
        pytest.param(aiohttp.ClientOSError(104, "reset"), AmbiguousError, id="reset"),
        pytest.param(aiohttp.ClientPayloadError(), AmbiguousError, id="half-an-answer"),
        pytest.param(aiohttp.ConnectionTimeoutError(), UnreachableError, id="connect-timeout"),
        pytest.param(
            aiohttp.ClientConnectorError(SimpleNamespace(host="h", port=1, ssl=None), OSError(111, "refused")),  # type: ignore[arg-type]
            UnreachableError,
            id="refused-connection",
        ),
        pytest.param(api_error(400, -2010, "Account has insufficient balance"), RejectedError, id="balance"),
        pytest.param(api_error(400, -2010, "Duplicate order sent."), RejectedError, id="duplicate"),
        pytest.param(api_error(400, -2011, "Unknown order sent."), RejectedError, id="cancel"),
        pytest.param(api_error(400, -1013, "Filter failure: NOTIONAL"), RejectedError, id="filter"),
        pytest.param(api_error(400, -2013), NotFoundError, id="no-such-order"),
        pytest.param(api_error(400, -1121), UnknownSymbolError, id="symbol"),
        pytest.param(api_error(400, -1021), ClockSkewError, id="clock"),
        pytest.param(api_error(401, -2015), AuthRejectedError, id="key"),
        pytest.param(api_error(400, -1022), AuthRejectedError, id="signature"),
        pytest.param(api_error(429, -1003), RateLimitedError, id="rate-limit"),
        pytest.param(api_error(418, -1003), BannedError, id="ban"),
        pytest.param(api_error(403, None), AmbiguousError, id="firewall-html"),
    ],
)
def test_each_shape_of_error_has_its_class(error: Exception, kind: type[ExchangeError]) -> None:
    assert type(classify(error)) is kind


@pytest.mark.parametrize("code", [-2010, -2011, -1013])
def test_refusals_never_count_for_the_circuit_breaker(code: int) -> None:
    error = classify(api_error(400, code))

    assert error is not None
    assert not error.counts_as_failure


@pytest.mark.parametrize(
    ("told", "seconds"), [("7", 7), ("0", 1), ("259201", 259_200), ("inf", 259_200), ("nan", 1), ("soon", 60)]
)
def test_retry_after_is_read_from_the_headers_within_what_a_ban_may_last(told: str, seconds: float) -> None:
    error = api_error(429, -1003, **{"Retry-After": told})

    assert isinstance(error, RateLimitedError)
    assert error.retry_after == seconds


def test_a_body_that_is_not_json_does_not_leak_into_the_text() -> None:
    assert "gateway" not in str(api_error(502, None))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"502", b'"Bad Gateway"', b"indisponibilit\xe9", b'{"code": "Throttled"}', b'{"code": [1]}'],
)
def test_whatever_body_an_answer_has_its_status_is_heard(body: bytes) -> None:
    assert type(answered(502, body)) is AmbiguousError
    limited = answered(429, body, **{"Retry-After": "7"})
    assert isinstance(limited, RateLimitedError)
    assert limited.retry_after == 7


@pytest.mark.parametrize("body", [b"", b"null", b"<html>", b"\xe9", b"[" * 100_000], ids=repr)
def test_an_answer_without_json_says_nothing_of_what_was_done(body: bytes) -> None:
    assert type(answered(200, body)) is AmbiguousError


def test_the_json_of_an_answer_is_given_as_it_is() -> None:
    answers: list[Any] = [{}, [], {"code": 200, "msg": "é"}]
    assert [read_answer(200, json.dumps(data).encode(), {}) for data in answers] == answers


def test_what_is_not_the_exchanges_doing_is_left_alone() -> None:
    assert classify(KeyError("x")) is None
