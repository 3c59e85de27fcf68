"""What the exchange's own books say of a bot's position, orders and fills, whatever the bot says."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Order
from paper_exchange.core.units import SCALE, to_decimal
from tradingbot.orders.intents import IntentKind, IntentState
from tradingbot.recovery.fence import parse
from tradingbot.state.store import _INTENTS, Store

DUST: Final = Decimal(11)
"""Value in quote that may be left: nothing as small can be sold."""


def has_no_stop(books: Exchange, uid: int, symbol: str, foreign: Decimal = Decimal(0)) -> bool:
    """Whether base of the account beyond `foreign`, and worth more than dust, is sold by no stop that rests."""
    market = books.market(symbol)
    balance = books.accounts[uid].balance(market.rules.base)
    stopped = sum(order.remaining for order in books.open_orders(uid, symbol) if order.protects)
    bare = to_decimal(balance.free + balance.locked - stopped) - foreign
    return bare * (market.last or 0) / SCALE > DUST


@dataclass(frozen=True, slots=True)
class Fill:
    """A trade as the exchange tells it."""

    number: int
    order_id: int
    buyer: bool
    price: Decimal
    quantity: Decimal
    commission: Decimal
    asset: str

    @classmethod
    def read(cls, row: dict[str, Any]) -> Self:
        amounts = (Decimal(row[name]) for name in ("price", "qty", "commission"))
        return cls(row["id"], row["orderId"], row["isBuyer"], *amounts, row["commissionAsset"])


def twice(orders: list[Order], trades: list[Fill], base: str) -> list[str]:
    """An id that two orders have, a purchase in a position that another one made, more sold than was bought."""
    counted = Counter(order.client_order_id for order in orders)
    wrong = [f"{count} orders are {client_id}" for client_id, count in counted.items() if count > 1]
    names_of = {order.order_id: order.client_order_id for order in orders}
    held, buying = Decimal(0), 0
    for trade in sorted(trades, key=lambda one: one.number):
        name = names_of[trade.order_id]
        if trade.buyer and trade.order_id != buying and held * trade.price > DUST:
            wrong.append(f"{name} bought in a position of {held}")
        buying = trade.order_id if trade.buyer else buying
        held += trade.quantity if trade.buyer else -trade.quantity
        held -= trade.commission if trade.asset == base else 0
        if held < 0:
            wrong.append(f"{name} sold {-held} more than was bought")
    return wrong


def _incarnation(client_order_id: str) -> int:
    client_id = parse(client_order_id)
    return client_id.incarnation if client_id else 0


async def stored(path: Path, orders: list[Order], trades: list[Fill]) -> list[str]:
    """The store's intents and fills against the exchange's orders and trades; those of other stores are none of it."""
    store = Store.open(path)
    try:
        fills = {booked.fill.trade_id: booked.fill for booked in await store.fills()}
        intents = await store._load(_INTENTS, "")
    finally:
        await store.close()
    wrong = [f"{intent.client_id} is {intent.state} at the end" for intent in intents if intent.state.is_open]
    sent = {name: one for one in intents if one.kind is not IntentKind.CANCEL for name in one.client_ids}
    own = {_incarnation(name) for name in sent}
    for order in orders:
        if _incarnation(order.client_order_id) not in own:
            continue
        intent = sent.get(order.client_order_id)
        if intent is None:
            wrong.append(f"order {order.client_order_id} is of no intent")
        elif intent.state in {IntentState.REJECTED, IntentState.NOT_FOUND}:
            wrong.append(f"order {order.client_order_id} is at the exchange, its intent {intent.state}")
    there = {one.number: (one.price, one.quantity, one.commission, one.asset) for one in trades}
    here = {n: (fill.price, fill.quantity, fill.commission, fill.commission_asset) for n, fill in fills.items()}
    if here != there:
        wrong.append(f"fills in the store {sorted(here)}, at the exchange {sorted(there)}")
    return wrong
