"""Which requests the paper exchange takes for whose: signatures over what was received, and what a key may do."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paper_exchange.keys import TRADE, USER_DATA, ApiKey, KeyTerms
from paper_exchange.server.rest import Reply, Sent
from paper_exchange.server.ws_session import Session
from support.paper import SYMBOL
from support.paper_rest import RestDesk

PrivateKey = Ed25519PrivateKey | RSAPrivateKey
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "50000"}


@pytest.fixture(scope="module")
def private_keys() -> dict[str, PrivateKey]:
    """One pair of each kind."""
    return {"ED25519": Ed25519PrivateKey.generate(), "RSA": generate_private_key(65537, 2048)}


@pytest.fixture
def desk() -> RestDesk:
    """An exchange with an account."""
    return RestDesk()


def pem(private: PrivateKey) -> str:
    """The public half."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signature_of(private: PrivateKey, payload: str) -> str:
    """Base64, percent-encoded."""
    if isinstance(private, RSAPrivateKey):
        raw = private.sign(payload.encode(), PKCS1v15(), SHA256())
    else:
        raw = private.sign(payload.encode())
    return quote(base64.b64encode(raw).decode(), safe="")


def signed(key: ApiKey, payload: str) -> str:
    """The HMAC of a text."""
    return hmac.new(key.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()


def post(desk: RestDesk, query: str, body: str = "", key: ApiKey | None = None) -> Reply:
    """A new order as raw query and body."""
    headers = {"x-mbx-apikey": (key or desk.key).api_key}
    return desk.receive(Sent("POST", "/api/v3/order", query, body, headers))


@pytest.mark.parametrize("kind", ["ED25519", "RSA"])
@pytest.mark.parametrize("place", ["query", "body"])
def test_a_pair_of_keys_signs_query_and_body(
    desk: RestDesk, private_keys: dict[str, PrivateKey], kind: str, place: str
) -> None:
    private = private_keys[kind]
    key = desk.account(KeyTerms(public_key=pem(private)), USDT="10000")
    assert (key.kind, key.secret) == (kind, "")
    payload = urlencode(ORDER | {"timestamp": desk.now})
    raw = f"{payload}&signature={signature_of(private, payload)}"
    reply = post(desk, raw, key=key) if place == "query" else post(desk, "", raw, key=key)
    assert (reply.status, reply.body.get("status")) == (200, "NEW")
    other = f"{payload}&signature={signature_of(private, payload + '0')}"
    assert post(desk, other, key=key).body["code"] == -1022
    assert post(desk, f"{payload}&signature=é!", key=key).body["code"] == -1022


def test_query_and_body_are_signed_one_after_the_other_and_the_query_wins(desk: RestDesk) -> None:
    query = urlencode(ORDER)
    body = f"price=40000&timestamp={desk.now}"
    reply = post(desk, query, f"{body}&signature={signed(desk.key, query + body)}")
    assert reply.body["price"] == "50000.00000000"
    separated = post(desk, query, f"{body}&signature={signed(desk.key, f'{query}&{body}')}")
    assert (separated.status, separated.body["code"]) == (400, -1022)


def test_the_signature_covers_what_was_sent_percent_encoded_and_in_any_case_of_letters(desk: RestDesk) -> None:
    told = urlencode({"symbols": '["BTCUSDT"]', "timestamp": desk.now})
    path = "/api/v3/account"
    headers = {"x-mbx-apikey": desk.key.api_key}
    encoded = desk.send("GET", path, f"{told}&signature={signed(desk.key, told).upper()}", **headers)
    assert encoded.body.get("code") != -1022
    plain = signed(desk.key, f'symbols=["BTCUSDT"]&timestamp={desk.now}')
    assert desk.send("GET", path, f"{told}&signature={plain}", **headers).body["code"] == -1022


@pytest.mark.parametrize(
    ("terms", "address", "read", "trade"),
    [
        pytest.param(KeyTerms(), "10.0.0.1", 200, 200, id="everything from anywhere"),
        pytest.param(KeyTerms(permissions=(USER_DATA,)), "10.0.0.1", 200, 401, id="read-only"),
        pytest.param(KeyTerms(permissions=(TRADE,)), "10.0.0.1", 401, 200, id="orders only"),
        pytest.param(KeyTerms(addresses=("10.0.0.1", "::1")), "::1", 200, 200, id="from its address"),
        pytest.param(KeyTerms(addresses=("10.0.0.1",)), "10.0.0.2", 401, 401, id="from another address"),
    ],
)
def test_a_key_may_do_what_its_terms_say(desk: RestDesk, terms: KeyTerms, address: str, read: int, trade: int) -> None:
    key = desk.account(terms, USDT="10000")
    reading = desk.ask("GET", "/api/v3/account", key=key, address=address)
    trading = desk.ask("POST", "/api/v3/order", key=key, address=address, **ORDER)
    testing = desk.ask("POST", "/api/v3/order/test", key=key, address=address, **ORDER)
    assert (reading.status, trading.status, testing.status) == (read, trade, trade)
    for reply in (reading, trading, testing):
        if reply.status == 401:
            assert reply.body == {"code": -2015, "msg": "Invalid API-key, IP, or permissions for action."}
    if read == 200:
        told = desk.ask("GET", "/sapi/v1/account/apiRestrictions", key=key, address=address).body
        assert told["enableSpotAndMarginTrading"] is (trade == 200)
        assert told["ipRestrict"] is bool(terms.addresses)
        assert reading.body["canTrade"] is (trade == 200)


def test_an_account_has_several_keys_and_a_deleted_one_is_refused(desk: RestDesk) -> None:
    uid = desk.key.uid
    second = desk.venue.create_key(uid, KeyTerms(permissions=(USER_DATA,)))
    assert [key.api_key for key in desk.venue.keys_of(uid)] == [desk.key.api_key, second.api_key]
    assert desk.ask("GET", "/api/v3/account", key=second).body["uid"] == uid
    assert desk.venue.delete_key(uid, desk.key.api_key)
    assert desk.ask("GET", "/api/v3/account").body["code"] == -2015
    assert desk.ask("GET", "/api/v3/account", key=second).status == 200


class SlowClock:
    """A clock that has gone on by a second each time somebody looks."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1000
        return self.now


def test_what_became_too_old_before_it_reached_the_engine_is_refused(desk: RestDesk) -> None:
    clock = SlowClock(desk.now)
    desk.venue.now_ms = clock

    def place(window: int) -> Reply:
        return desk.ask("POST", "/api/v3/order", timestamp=clock.now, recvWindow=window, **ORDER)

    assert place(3000).status == 200
    refused = place(2000)
    assert (refused.body["code"], refused.body["msg"][-11:]) == (-1021, "recvWindow.")
    assert "X-MBX-ORDER-COUNT-10S" not in refused.headers
    assert len(desk.venue.exchange.open_orders(desk.key.uid)) == 1


@pytest.mark.parametrize(
    ("unit", "factor"), [("MICROSECOND", 1000), ("microsecond", 1000), ("MILLISECOND", 1), ("millisecond", 1)]
)
def test_answers_tell_times_in_the_unit_asked_for(desk: RestDesk, unit: str, factor: int) -> None:
    def ask(path: str, query: str = "") -> Any:
        return desk.send("GET", path, query, **{"x-mbx-time-unit": unit}).body

    assert ask("/api/v3/time") == {"serverTime": desk.now * factor}
    kline = ask("/api/v3/klines", f"symbol={SYMBOL}&interval=1m&limit=1")[0]
    assert kline[6] + 1 == kline[0] + 60_000 * factor if factor == 1 else kline[6] + 1 == kline[0] + 60_000_000
    since = ask("/api/v3/klines", f"symbol={SYMBOL}&interval=1m&startTime={(desk.now - 120_000) * 1000}")
    assert len(since) == 3
    assert ask("/api/v3/trades", f"symbol={SYMBOL}")[0]["time"] == desk.now * factor


def test_an_unknown_unit_of_time_is_refused(desk: RestDesk) -> None:
    reply = desk.send("GET", "/api/v3/time", **{"x-mbx-time-unit": "SECOND"})
    told = "Invalid value for time unit; expected either MICROSECOND or MILLISECOND."
    assert (reply.status, reply.body) == (400, {"code": -1194, "msg": told})


def test_what_is_subscribed_with_a_dropped_key_ends(desk: RestDesk) -> None:
    told: list[tuple[int, str]] = []
    session = Session(
        desk.venue, "10.0.0.1", show_limits=False, tell=lambda _, uid, event: told.append((uid, event["e"]))
    )
    desk.venue.deleted_key_listeners.append(session.on_key_deleted)
    params = {"apiKey": desk.key.api_key, "timestamp": str(desk.now)}
    session.methods["userDataStream.subscribe.signature"](params | {"signature": signed(desk.key, urlencode(params))})
    desk.place()
    desk.venue.reset({})
    assert told[-1][1] == "outboundAccountPosition"
    desk.venue.reset({}, drop_accounts=True)
    assert told[-1] == (desk.key.uid, "eventStreamTerminated")
    assert session.methods["session.subscriptions"]({}) == []
    # The next account is another one: nobody hears of it who does not ask.
    assert desk.account(USDT="5").uid != desk.key.uid
    assert told[-1][1] == "eventStreamTerminated"
