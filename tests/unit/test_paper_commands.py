"""The commands about money and resets, on the directory of an exchange that does not run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.__main__ import main
from paper_exchange.administration import Administration
from paper_exchange.core import requests
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from support.paper import START_MS, SYMBOL

ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01", "price": "50000"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One account with money and an order that rests."""
    store = Store(tmp_path)
    venue = Venue((SYMBOL,), None, store, lambda: START_MS, CollectorRegistry())
    uid = venue.create_account({"USDT": 1000 * 10**8}).uid
    venue.exchange.place(uid, requests.new_order(ORDER), START_MS)
    venue.commit()
    store.close()
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What a command answers."""
    assert main([*arguments, "--output", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def accounts(directory: Path) -> list[dict[str, Any]]:
    """What is in the directory."""
    store = Store(directory)
    try:
        administration = Administration(Venue((SYMBOL,), None, store, lambda: START_MS, CollectorRegistry()))
        told = administration.actions["list_accounts"]({}, {})["accounts"]
        return [administration.actions["show_account"]({"uid": str(one["uid"])}, {}) for one in told]
    finally:
        store.close()


def test_a_trade_group_and_commissions_are_set_and_stored(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("account", "set", "100000001", "--data-dir", str(directory))
    rates = ("standard.maker=0.0002", "BTCUSDT.tax.buyer=0.01", "BTCUSDT.standard.taker=0", "discount=0.5")
    run(capsys, *place, "--trade-group", "7", *(one for rate in rates for one in ("--commission", rate)))
    (account,) = accounts(directory)
    assert account["tradeGroupId"] == 7
    nothing = dict.fromkeys(("maker", "taker", "buyer", "seller"), "0.00000000")
    usual = nothing | {"maker": "0.00100000", "taker": "0.00100000"}
    assert account["commission"] == {
        "default": {
            "standard": usual | {"maker": "0.00020000"},
            "special": nothing,
            "tax": nothing,
            "discount": "0.50000000",
        },
        "BTCUSDT": {
            "standard": usual | {"taker": "0.00000000"},
            "special": nothing,
            "tax": nothing | {"buyer": "0.01000000"},
            "discount": "0.75000000",
        },
    }
    run(capsys, *place, "--trade-group", "none")
    (account,) = accounts(directory)
    assert (account["tradeGroupId"], len(account["commission"])) == (-1, 2)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        pytest.param(("--trade-group", "-3"), "--trade-group", id="no group"),
        pytest.param(("--trade-group", "all"), "--trade-group: expected a whole number such as 7, or none", id="word"),
        pytest.param(("--commission", "maker=0.1"), "--commission: expected [SYMBOL.]PART.SIDE=RATE", id="no part"),
        pytest.param(
            ("--commission", "tax.buyer=2"), "--commission: commission.default.tax.buyer: expected", id="rate"
        ),
        pytest.param(("--commission", "X.discount=1"), "--commission: commission: expected an object", id="symbol"),
    ],
)
def test_a_wrong_setting_names_its_option(
    directory: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str], told: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["account", "set", "100000001", "--data-dir", str(directory), *option])
    assert told in capsys.readouterr().err
    assert accounts(directory)[0]["commission"] == {}


def test_what_is_withdrawn_is_gone(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("100000001", "--data-dir", str(directory))
    told = run(capsys, "account", "withdraw", *place, "--amount", "USDT=499.5")
    assert told["balances"]["USDT"] == {"free": "0.50000000", "locked": "500.00000000"}
    assert accounts(directory)[0]["balances"] == told["balances"]


def test_what_orders_lock_is_not_withdrawn(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["account", "withdraw", "100000001", "--data-dir", str(directory), "--amount", "USDT=500.1"])
    assert "--amount: withdrawals.USDT: expected at most 500.00000000" in capsys.readouterr().err
    assert accounts(directory)[0]["balances"]["USDT"]["free"] == "500.00000000"


def test_a_reset_wipes_orders_and_gives_each_account_the_same(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "reset", "--data-dir", str(directory), "--deposit", "BTC=2") == {"accounts": 1}
    (account,) = accounts(directory)
    assert account["openOrders"] == account["openOrderLists"] == account["trades"] == []
    free = {asset: (one["free"], one["locked"]) for asset, one in account["balances"].items()}
    assert free == {"BTC": ("2.00000000", "0.00000000"), "USDT": ("0.00000000", "0.00000000")}
    store = Store(directory)
    assert len(store.api_keys()) == 1
    assert store.history.orders(100000001, SYMBOL, limit=10, from_id=None, start=None, end=None) == []
    store.close()


def test_a_reset_may_drop_accounts_and_keys(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "reset", "--data-dir", str(directory), "--drop-accounts") == {"accounts": 0}
    store = Store(directory)
    assert (store.accounts(), store.api_keys()) == ([], [])
    store.close()


def test_a_directory_that_an_exchange_has_open_is_left_alone(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = Store(directory)
    with pytest.raises(SystemExit, match="2"):
        main(["reset", "--data-dir", str(directory), "--drop-accounts"])
    assert "--data-dir: expected a directory that no exchange has open" in capsys.readouterr().err
    assert len(running.accounts()) == 1
    running.close()


@pytest.mark.parametrize(
    "command",
    [
        "account create",
        "account deposit",
        "account withdraw",
        "account reset",
        "account set",
        "key create",
        "key delete",
        "reset",
    ],
)
def test_the_help_of_a_command_shows_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    assert f"\n  paper-exchange {command} " in capsys.readouterr().out
