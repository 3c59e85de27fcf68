"""Accounts and keys for who runs the exchange: what the control port and the command line can ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from paper_exchange.amounts import (
    DEFAULT_RATES,
    ControlInvalidError,
    parse_deposits,
    parse_settings,
    parse_status,
    parse_terms,
)
from paper_exchange.core import reports
from paper_exchange.core.rates import CommissionRates
from paper_exchange.core.units import text
from paper_exchange.keys import ApiKey
from paper_exchange.venue import Venue

_TRADES_SHOWN: Final = 1000

Place = Mapping[str, str]
"""What a path names: `uid`, `key`, `symbol`."""
Body = Mapping[str, Any]

ROUTES: Final[dict[str, tuple[str, str]]] = {
    "create_account": ("POST", "/control/accounts"),
    "list_accounts": ("GET", "/control/accounts"),
    "show_account": ("GET", "/control/accounts/{uid}"),
    "change_account": ("PATCH", "/control/accounts/{uid}"),
    "deposit": ("POST", "/control/accounts/{uid}/deposits"),
    "withdraw": ("POST", "/control/accounts/{uid}/withdrawals"),
    "reset_account": ("POST", "/control/accounts/{uid}/reset"),
    "change_symbol": ("PATCH", "/control/symbols/{symbol}"),
    "create_key": ("POST", "/control/accounts/{uid}/keys"),
    "list_keys": ("GET", "/control/accounts/{uid}/keys"),
    "delete_key": ("DELETE", "/control/accounts/{uid}/keys/{key}"),
    "reset": ("POST", "/control/reset"),
}
"""Method and path of each action on the control port."""


class NotFoundError(ControlInvalidError):
    """No such account or key; the message says which there are."""

    code = "NotFound"


class Administration:
    """The actions over one venue; each takes what its path names and a JSON object, and answers one."""

    def __init__(self, venue: Venue) -> None:
        self._venue = venue
        self.actions: dict[str, Callable[[Place, Body], dict[str, Any]]] = {
            "create_account": self._create_account,
            "list_accounts": self._list_accounts,
            "show_account": self._show_account,
            "change_account": self._change_account,
            "deposit": self._deposit,
            "withdraw": self._withdraw,
            "reset_account": self._reset_account,
            "change_symbol": self._change_symbol,
            "create_key": self._create_key,
            "list_keys": self._list_keys,
            "delete_key": self._delete_key,
            "reset": self._reset,
        }

    def _create_account(self, _place: Place, body: Body) -> dict[str, Any]:
        deposits = parse_deposits(body.get("deposits"))
        return self._venue.create_account(deposits, parse_terms(body)).answer()

    def _list_accounts(self, _place: Place, _body: Body) -> dict[str, Any]:
        return {"accounts": [self._summary(uid) for uid in self._venue.exchange.accounts]}

    def _summary(self, uid: int) -> dict[str, Any]:
        account = self._venue.exchange.accounts[uid]
        return {
            "uid": uid,
            "canTrade": account.can_trade,
            "permissions": account.permissions,
            "maxAssets": {asset: text(limit) for asset, limit in account.max_assets.items()},
            "tradeGroupId": account.trade_group_id,
            "commission": {symbol or DEFAULT_RATES: _rates(rates) for symbol, rates in account.commission.items()},
            "balances": {
                asset: {"free": text(balance.free), "locked": text(balance.locked)}
                for asset, balance in account.balances.items()
            },
        }

    def _show_account(self, place: Place, _body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        exchange = self._venue.exchange
        trades = self._venue.store.history.trades(uid, None, limit=_TRADES_SHOWN)
        lists = [group for group in exchange.lists.values() if group.uid == uid and not group.done]
        return self._summary(uid) | {
            "openOrders": [reports.order_status(order) for order in exchange.open_orders(uid)],
            "openOrderLists": [exchange.list_body(group) for group in lists],
            "trades": [reports.my_trade(trade) for trade in trades],
        }

    def _change_account(self, place: Place, body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        self._venue.exchange.change_account(uid, parse_settings(body))
        self._venue.commit()
        return self._summary(uid)

    def _deposit(self, place: Place, body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        for asset, amount in parse_deposits(body.get("deposits")).items():
            self._venue.exchange.deposit(uid, asset, amount, self._venue.now_ms())
        self._venue.commit()
        return self._summary(uid)

    def _withdraw(self, place: Place, body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        amounts = parse_deposits(body.get("withdrawals"), "withdrawals")
        account = self._venue.exchange.accounts[uid]
        for asset, amount in amounts.items():
            free = account.balances[asset].free if asset in account.balances else 0
            if amount > free:
                raise ControlInvalidError(
                    f"withdrawals.{asset}: expected at most {text(free)}, which is free, got {text(amount)}; "
                    "cancel orders that lock more"
                )
        for asset, amount in amounts.items():
            self._venue.exchange.withdraw(uid, asset, amount, self._venue.now_ms())
        self._venue.commit()
        return self._summary(uid)

    def _reset(self, _place: Place, body: Body) -> dict[str, Any]:
        drop = body.get("dropAccounts", False)
        if not isinstance(drop, bool):
            raise ControlInvalidError(f"dropAccounts: expected true or false, got {drop!r}")
        if drop and "deposits" in body:
            raise ControlInvalidError("deposits: expected none with dropAccounts, for no account is left to take them")
        deposits = {} if drop else parse_deposits(body.get("deposits"))
        self._venue.reset(deposits, drop_accounts=drop)
        return {"accounts": len(self._venue.exchange.accounts)}

    def _reset_account(self, place: Place, body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        deposits = parse_deposits(body.get("deposits"))
        self._venue.exchange.reset_account(uid, deposits, self._venue.now_ms())
        self._venue.commit()
        return self._summary(uid)

    def _change_symbol(self, place: Place, body: Body) -> dict[str, Any]:
        symbol = place["symbol"]
        if symbol not in self._venue.exchange.markets:
            raise NotFoundError(f"symbol: no symbol {symbol}; there are: {', '.join(self._venue.exchange.markets)}")
        status = parse_status(body)
        self._venue.change_status(symbol, status)
        return {"symbol": symbol, "status": status}

    def _create_key(self, place: Place, body: Body) -> dict[str, Any]:
        return self._venue.create_key(self._uid(place), parse_terms(body)).answer()

    def _list_keys(self, place: Place, _body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        return {"uid": uid, "keys": [key.describe() for key in self._venue.keys_of(uid)]}

    def _delete_key(self, place: Place, _body: Body) -> dict[str, Any]:
        uid = self._uid(place)
        if not self._venue.delete_key(uid, place["key"]):
            known = _known(self._venue.keys_of(uid))
            raise NotFoundError(f"key: account {uid} has no such key; it has: {known}")
        return {"uid": uid}

    def _uid(self, place: Place) -> int:
        accounts = self._venue.exchange.accounts
        asked = place["uid"]
        if not (asked.isascii() and asked.isdigit()) or int(asked) not in accounts:
            known = ", ".join(str(uid) for uid in list(accounts)[:10]) or "none yet"
            raise NotFoundError(f"uid: no account {asked}; there are: {known}")
        return int(asked)


def _known(keys: list[ApiKey]) -> str:
    return ", ".join(f"{key.api_key[:8]}..." for key in keys[:10]) or "none"


def _rates(rates: CommissionRates) -> dict[str, Any]:
    parts = {name: {who: text(rate) for who, rate in asdict(part).items()} for name, part in rates.parts().items()}
    return {**parts, "discount": text(rates.discount)}
