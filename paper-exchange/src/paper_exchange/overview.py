"""The exchange at a glance, for the status page: a book with its tape, orders, and accounts with their equity."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from paper_exchange.core import reports
from paper_exchange.core.units import product, text
from paper_exchange.venue import Venue

VALUED_IN: Final = "USDT"
_LEVELS: Final = 9
_TRADES: Final = 14
_ACCOUNTS: Final = 50
_ORDERS: Final = 200


def overview(venue: Venue, symbol: str | None) -> dict[str, Any]:
    """What the page shows, of `symbol` or of the first one; amounts as decimal texts, times in ms.

    `accounts` and `orders` have the first ones, `accountsInAll` and `ordersInAll` tell how many there are.
    """
    exchange = venue.exchange
    shown = symbol if symbol in exchange.markets else next(iter(exchange.markets))
    market = exchange.market(shown)
    orders = [(uid, order) for uid in exchange.accounts for order in exchange.open_orders(uid)]
    return {
        "time": venue.now_ms(),
        "symbols": [_symbol(venue, one) for one in exchange.markets],
        "symbol": shown,
        "bids": [[text(price), text(quantity)] for price, quantity in market.bids.levels(_LEVELS)],
        "asks": [[text(price), text(quantity)] for price, quantity in market.asks.levels(_LEVELS)],
        "trades": [
            {
                "id": one.trade_id,
                "time": one.time,
                "price": text(one.price),
                "quantity": text(one.quantity),
                "buyerIsMaker": one.buyer_is_maker,
            }
            for one in reversed(venue.tapes[shown].trades(_TRADES))
        ],
        "accounts": [_account(venue, uid) for uid in list(exchange.accounts)[:_ACCOUNTS]],
        "accountsInAll": len(exchange.accounts),
        "orders": [{"uid": uid, **reports.order_status(order)} for uid, order in orders[:_ORDERS]],
        "ordersInAll": len(orders),
        "valuedIn": VALUED_IN,
    }


def _symbol(venue: Venue, symbol: str) -> dict[str, Any]:
    market = venue.exchange.market(symbol)
    return {
        "symbol": symbol,
        "status": market.status,
        "lastPrice": None if market.last is None else text(market.last),
        "tick": f"{Decimal(text(market.rules.tick)).normalize():f}",
        "step": f"{Decimal(text(market.rules.step)).normalize():f}",
    }


def _account(venue: Venue, uid: int) -> dict[str, Any]:
    """An account with its equity at last prices; `unvalued` are the assets that no market here prices."""
    account = venue.exchange.accounts[uid]
    held = {
        asset: (balance.free, balance.locked)
        for asset, balance in account.balances.items()
        if balance.free or balance.locked
    }
    values = _values(venue, uid)
    return {
        "uid": uid,
        "canTrade": account.can_trade,
        "balances": {asset: {"free": text(free), "locked": text(locked)} for asset, (free, locked) in held.items()},
        "equity": text(_total(values)),
        "unvalued": sorted(asset for asset, value in values.items() if value is None),
    }


def equity_of(venue: Venue, uid: int) -> int:
    """What an account holds at last prices, in units of the asset it is valued in, without what no market prices."""
    return _total(_values(venue, uid))


def _values(venue: Venue, uid: int) -> dict[str, int | None]:
    balances = venue.exchange.accounts[uid].balances
    amounts = {asset: held.free + held.locked for asset, held in balances.items()}
    return {asset: value_of(venue, asset, amount) for asset, amount in amounts.items() if amount}


def _total(values: dict[str, int | None]) -> int:
    return sum(value for value in values.values() if value is not None)


def value_of(venue: Venue, asset: str, amount: int) -> int | None:
    """An amount at the last price, in units of what accounts are valued in; None where no market prices it."""
    if asset == VALUED_IN:
        return amount
    market = venue.exchange.markets.get(asset + VALUED_IN)
    if market is None or market.last is None:
        return None
    return product(market.last, amount)
