"""Accounts and keys of the paper exchange from outside: its commands, its control port, and what keys may then do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "40000"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def exchange() -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module."""
    async with running_paper_exchange(Options(symbols=(SYMBOL,))) as running:
        yield running


def command(*arguments: str) -> Any:
    """What a command answers as JSON."""
    run = [sys.executable, "-m", "paper_exchange", *arguments, "--output", "json"]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


async def online(exchange: PaperExchange, *arguments: str) -> Any:
    """A command on the running exchange."""
    return await asyncio.to_thread(command, *arguments, "--control-url", exchange.control_url)


async def signed(exchange: PaperExchange, key: Any, method: str, path: str, **params: str) -> tuple[int, Any]:
    """A request signed with the secret of a key."""
    query = urlencode(params | {"timestamp": str(wall_clock_ms())})
    signature = hmac.new(key["secretKey"].encode(), query.encode(), hashlib.sha256).hexdigest()
    return await send(exchange, key["apiKey"], method, f"{path}?{query}&signature={signature}")


async def send(exchange: PaperExchange, api_key: str, method: str, target: str) -> tuple[int, Any]:
    """A request with a key."""
    headers = {"X-MBX-APIKEY": api_key}
    async with exchange.session.request(method, exchange.base_url + target, headers=headers) as answer:
        return answer.status, await answer.json()


async def test_commands_make_list_and_delete_keys_that_do_what_they_say(exchange: PaperExchange) -> None:
    first = await online(exchange, "account", "create", "--deposit", "USDT=10000")
    uid = str(first["uid"])
    reader = await online(exchange, "key", "create", uid, "--read-only", "--ip", "127.0.0.1")
    listed = await online(exchange, "key", "list", uid)
    assert [(key["apiKey"], key["type"], key["permissions"], key["ipAddresses"]) for key in listed["keys"]] == [
        (first["apiKey"], "HMAC", ["USER_DATA", "TRADE"], []),
        (reader["apiKey"], "HMAC", ["USER_DATA"], ["127.0.0.1"]),
    ]
    assert "secretKey" not in json.dumps(listed)
    assert (await signed(exchange, reader, "GET", "/api/v3/account"))[0] == 200
    assert (await signed(exchange, reader, "POST", "/api/v3/order", **ORDER))[1]["code"] == -2015
    assert (await signed(exchange, first, "POST", "/api/v3/order", **ORDER))[0] == 200
    await online(exchange, "key", "delete", uid, reader["apiKey"])
    assert (await signed(exchange, reader, "GET", "/api/v3/account"))[1]["code"] == -2015


async def test_a_key_for_another_address_is_refused(exchange: PaperExchange) -> None:
    account = await online(exchange, "account", "create", "--deposit", "USDT=1", "--ip", "192.0.2.1")
    status, body = await signed(exchange, account, "GET", "/api/v3/account")
    assert (status, body["code"]) == (401, -2015)


async def test_an_rsa_key_signs_over_sockets(exchange: PaperExchange, tmp_path: Path) -> None:
    private = generate_private_key(65537, 2048)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "public.pem").write_bytes(pem)
    account = await online(
        exchange, "account", "create", "--deposit", "USDT=10000", "--public-key", str(tmp_path / "public.pem")
    )
    assert "secretKey" not in account
    query = urlencode(ORDER | {"timestamp": str(wall_clock_ms())})
    signature = quote(base64.b64encode(private.sign(query.encode(), PKCS1v15(), SHA256())).decode(), safe="")
    target = f"/api/v3/order?{query}&signature={signature}"
    assert (await send(exchange, account["apiKey"], "POST", target))[0] == 200


async def test_commands_pay_in_reset_and_bar_an_account(exchange: PaperExchange) -> None:
    account = await online(exchange, "account", "create", "--deposit", "USDT=10000")
    uid = str(account["uid"])
    await online(exchange, "account", "deposit", uid, "--deposit", "BTC=1.5")
    assert (await signed(exchange, account, "POST", "/api/v3/order", **ORDER))[0] == 200
    told = await online(exchange, "account", "show", uid)
    assert told["balances"]["USDT"] == {"free": "9600.00000000", "locked": "400.00000000"}
    assert [order["price"] for order in told["openOrders"]] == ["40000.00000000"]
    await online(exchange, "account", "reset", uid, "--deposit", "USDT=5")
    told = await online(exchange, "account", "show", uid)
    assert (told["openOrders"], told["balances"]["USDT"]["free"], told["balances"]["BTC"]["free"]) == (
        [],
        "5.00000000",
        "0.00000000",
    )
    await online(exchange, "account", "set", uid, "--can-trade", "no")
    status, body = await signed(exchange, account, "POST", "/api/v3/order", **ORDER)
    assert (status, body["msg"]) == (400, "This account may not place or cancel orders.")
    accounts = (await online(exchange, "account", "list"))["accounts"]
    assert {one["uid"]: one["canTrade"] for one in accounts}[account["uid"]] is False


async def test_an_account_is_told_of_the_group_and_the_rates_that_it_was_given(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="1")
    await exchange.change_account(
        account.uid, tradeGroupId=7, commission={SYMBOL: {"standard": {"taker": "0.0004"}, "discount": "0.5"}}
    )
    key = {"apiKey": account.api_key, "secretKey": account.secret_key}
    assert (await signed(exchange, key, "GET", "/api/v3/account"))[1]["tradeGroupId"] == 7
    told = (await signed(exchange, key, "GET", "/api/v3/account/commission", symbol=SYMBOL))[1]
    standard = told["standardCommission"]
    assert (standard["maker"], standard["taker"], told["discount"]["discount"]) == (
        "0.00100000",
        "0.00040000",
        "0.50000000",
    )


async def test_commands_work_on_the_directory_of_an_exchange_that_does_not_run(tmp_path: Path) -> None:
    where = ("--data-dir", str(tmp_path))
    uid = str((await asyncio.to_thread(command, "account", "create", "--deposit", "USDT=50", *where))["uid"])
    await asyncio.to_thread(command, "account", "set", uid, "--permission", "TRD_GRP_004", *where)
    key = await asyncio.to_thread(command, "key", "create", uid, "--read-only", *where)
    told = await asyncio.to_thread(command, "account", "show", uid, *where)
    assert (told["permissions"], told["balances"]["USDT"]["free"]) == (["TRD_GRP_004"], "50.00000000")
    keys = (await asyncio.to_thread(command, "key", "list", uid, *where))["keys"]
    assert key["apiKey"] in {one["apiKey"] for one in keys}


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        pytest.param(
            "POST", "accounts", {"deposits": {"X": "1"}, "publicKey": "none"}, (400, "publicKey"), id="no key"
        ),
        pytest.param("POST", "accounts/{uid}/keys", {"permissions": ["FLY"]}, (400, "permissions"), id="permission"),
        pytest.param("POST", "accounts/{uid}/keys", {"ipAddresses": ["here"]}, (400, "ipAddresses"), id="address"),
        pytest.param("DELETE", "accounts/{uid}/keys/none", {}, (404, "key"), id="unknown key"),
        pytest.param("GET", "accounts/1/keys", {}, (404, "uid"), id="unknown account"),
        pytest.param("PATCH", "accounts/{uid}", {"canTrade": "no"}, (400, "canTrade"), id="no boolean"),
        pytest.param("PATCH", "accounts/{uid}", {"permissions": ["MOON"]}, (400, "permissions"), id="unknown group"),
        pytest.param("PATCH", "accounts/{uid}", {"maxAssets": {"BTC": 1}}, (400, "maxAssets.BTC"), id="no amount"),
        pytest.param("PATCH", "accounts/{uid}", {}, (400, "body"), id="nothing"),
        pytest.param("PATCH", "accounts/{uid}", {"canTrade": True, "trade": 1}, (400, "body"), id="unknown setting"),
        pytest.param("PATCH", "accounts/{uid}", {"tradeGroupId": "7"}, (400, "tradeGroupId"), id="no number"),
        pytest.param("PATCH", "accounts/{uid}", {"tradeGroupId": -2}, (400, "tradeGroupId"), id="number below none"),
        pytest.param("PATCH", "accounts/{uid}", {"commission": "0"}, (400, "commission"), id="no rates"),
        pytest.param("PATCH", "accounts/{uid}", {"commission": {"X": {}}}, (400, "commission"), id="no such symbol"),
        *(
            pytest.param(
                "PATCH", "accounts/{uid}", {"commission": {"default": rates}}, (400, where), id=f"{where} {rates}"
            )
            for rates, where in (
                ({"vip": {}}, "commission.default"),
                ({"tax": {"all": "0"}}, "commission.default.tax"),
                ({"tax": {"buyer": 0}}, "commission.default.tax.buyer"),
                ({"discount": "1.1"}, "commission.default.discount"),
                ({"special": {"seller": "0.000000001"}}, "commission.default.special.seller"),
                ({"tax": {"maker": "1"}, "special": {"seller": "0.1"}}, "commission.default"),
            )
        ),
        pytest.param("PATCH", "symbols/NOSUCH", {"status": "HALT"}, (404, "symbol"), id="unknown symbol"),
        pytest.param("PATCH", "symbols/BTCUSDT", {"status": "ASLEEP"}, (400, "status"), id="unknown status"),
    ],
)
async def test_a_bad_request_to_the_control_port_names_its_field(
    exchange: PaperExchange, method: str, path: str, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    account = await exchange.create_account(USDT="1")
    url = f"{exchange.control_url}/control/{path.format(uid=account.uid)}"
    async with exchange.session.request(method, url, json=body) as answer:
        assert (answer.status, (await answer.json())["error"].split(":")[0]) == refusal


async def test_a_halted_symbol_refuses_orders_until_it_trades_again(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="10000")
    key = {"apiKey": account.api_key, "secretKey": account.secret_key}
    url = f"{exchange.control_url}/control/symbols/{SYMBOL}"
    for status, told in (("HALT", "Market is closed."), ("TRADING", None)):
        async with exchange.session.patch(url, json={"status": status}) as answer:
            assert answer.status == 200
        assert (await signed(exchange, key, "POST", "/api/v3/order", **ORDER))[1].get("msg") == told


async def test_who_goes_on_after_429_gets_418_over_sockets() -> None:
    async with running_paper_exchange(Options(symbols=(SYMBOL,), weight_per_minute=20)) as exchange:
        for _ in range(60):
            async with exchange.session.get(f"{exchange.base_url}/api/v3/exchangeInfo") as answer:
                if answer.status == 418:
                    assert 110 <= int(answer.headers["Retry-After"]) <= 120
                    assert (await answer.json())["msg"].startswith("Way too much request weight used; IP banned until")
                    return
        pytest.fail("sixty requests in a row were not answered with 418")


async def test_frames_of_the_websocket_api_are_refused_with_their_codes(exchange: PaperExchange) -> None:
    account = await exchange.create_account(USDT="1")

    def frame(method: str, **params: Any) -> str:
        return json.dumps({"id": 1, "method": method, "params": params})

    params = {"apiKey": account.api_key, "timestamp": wall_clock_ms()}
    payload = "&".join(f"{name}={value}" for name, value in sorted(params.items()))
    signature = hmac.new(account.secret_key.encode(), payload.encode(), hashlib.sha256).hexdigest()
    subscribe = frame("userDataStream.subscribe.signature", **params, signature=signature)
    async with exchange.session.ws_connect(f"{exchange.ws_url}/ws-api/v3") as socket:
        codes = []
        for text in ("{", frame("fly"), frame("userDataStream.unsubscribe", subscriptionId=7), subscribe, subscribe):
            await socket.send_str(text)
            codes.append(json.loads((await socket.receive(10)).data).get("error", {}).get("code"))
    assert codes == [-1135, -1020, -2036, None, -2035]
