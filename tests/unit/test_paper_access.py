"""Who may speak to the paper exchange, and how much: signatures, timestamps and rate limits."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paper_exchange.auth import check_signature, check_time, find_key, split_signature
from paper_exchange.core.errors import ExchangeError
from paper_exchange.keys import ApiKey, KeyTerms

NOW = 1_700_000_000_000


def test_published_hmac_signatures_are_accepted() -> None:
    if "TRADINGBOT_TEST_DATA" not in os.environ:
        pytest.skip("TRADINGBOT_TEST_DATA does not name the folder with the published vectors")
    vectors = json.loads((Path(os.environ["TRADINGBOT_TEST_DATA"]) / "vectors" / "hmac_signatures.json").read_text())
    key = ApiKey(vectors["apiKey"], 1, secret=vectors["secretKey"])
    for vector in vectors["vectors"]:
        check_signature(key, [vector["payload"].encode()], vector["signature"])
        check_signature(key, [vector["payload"].encode()], vector["signature"].upper())
        with pytest.raises(ExchangeError, match="-1022 Signature for this request is not valid"):
            check_signature(key, [vector["payload"].encode() + b"0"], vector["signature"])


def test_an_ed25519_signature_is_accepted() -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    key = ApiKey("k", 1, terms=KeyTerms(public_key=public))
    check_signature(key, [b"a=1"], base64.b64encode(private.sign(b"a=1")).decode())
    for wrong in (base64.b64encode(private.sign(b"a=2")).decode(), "not base64!"):
        with pytest.raises(ExchangeError, match="-1022"):
            check_signature(key, [b"a=1"], wrong)


def test_a_missing_signature_is_named() -> None:
    with pytest.raises(ExchangeError, match="-1102 Mandatory parameter 'signature'"):
        check_signature(ApiKey("k", 1, secret="s"), [b""], None)


@pytest.mark.parametrize(
    ("raw", "rest", "signature"),
    [
        pytest.param("a=1&signature=ab&b=2", "a=1&b=2", "ab", id="in the middle"),
        pytest.param("a=1&signature=x%2By%3D", "a=1", "x+y=", id="percent-encoded"),
        pytest.param("", "", None, id="nothing"),
    ],
)
def test_the_signature_is_taken_out_of_the_raw_text(raw: str, rest: str, signature: str | None) -> None:
    assert split_signature(raw) == (rest, signature)


@pytest.mark.parametrize(
    ("stamp", "window", "refusal"),
    [
        pytest.param(NOW, None, None, id="now"),
        pytest.param(NOW + 999, None, None, id="a little ahead"),
        pytest.param(NOW + 1000, None, "-1021 .*ahead of the server", id="a second ahead"),
        pytest.param(NOW - 5000, None, None, id="as old as the default window"),
        pytest.param(NOW - 5001, None, "-1021 .*outside of the recvWindow", id="too old"),
        pytest.param(NOW - 60_000, "60000", None, id="as old as the largest window"),
        pytest.param(NOW, "60001", "-1131 'recvWindow' must be less than 60000", id="window too large"),
        pytest.param(NOW * 1000, None, None, id="microseconds"),
        pytest.param("soon", None, "-1100 .*timestamp", id="not a number"),
        pytest.param("", None, "-1102 .*timestamp", id="absent"),
    ],
)
def test_a_request_counts_only_within_its_window(stamp: object, window: str | None, refusal: str | None) -> None:
    params = {"timestamp": str(stamp)} | ({"recvWindow": window} if window else {})
    if refusal is None:
        check_time(params, NOW)
    else:
        with pytest.raises(ExchangeError, match=refusal):
            check_time(params, NOW)


@pytest.mark.parametrize(
    ("api_key", "code"),
    [
        pytest.param(None, -2014, id="no key"),
        pytest.param("short", -2014, id="no key at all"),
        pytest.param("x" * 64, -2015, id="nobody's key"),
    ],
)
def test_a_wrong_key_is_unauthorized(api_key: str | None, code: int) -> None:
    with pytest.raises(ExchangeError) as refused:
        find_key({}, api_key)
    assert (refused.value.code, refused.value.status) == (code, 401)
