"""Whatever anybody does on the paper exchange, no money appears, disappears or is locked for nothing."""

from __future__ import annotations

import contextlib
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from paper_exchange.core.errors import ExchangeError
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Side
from support.paper import START_MS, SYMBOL, Desk

USERS = (1, 2)
price = st.integers(59_800, 60_200).map(str)
quantity = st.sampled_from(["0.001", "0.01", "0.35", "1"])
user = st.sampled_from(USERS)
side = st.sampled_from(["BUY", "SELL"])
mode = st.sampled_from(["EXPIRE_MAKER", "EXPIRE_TAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"])

step = st.one_of(
    st.tuples(st.just("limit"), user, side, price, quantity, st.sampled_from(["GTC", "IOC", "FOK"]), mode),
    st.tuples(st.just("iceberg"), user, side, price, quantity, mode),
    st.tuples(st.just("trail"), user, side, quantity, st.sampled_from(["10", "25"])),
    st.tuples(st.just("market"), user, side, quantity),
    st.tuples(st.just("quote"), user, side, st.sampled_from(["50", "3000"])),
    st.tuples(st.just("stop"), user, side, price, quantity, st.sampled_from(["STOP_LOSS", "TAKE_PROFIT"])),
    st.tuples(st.just("bracket"), user, price, quantity, st.sampled_from(["GTC", "FOK"])),
    st.tuples(st.just("oco"), user, price, price, quantity),
    st.tuples(st.just("cancel"), user, st.integers(1, 12)),
    st.tuples(st.just("trade"), price, quantity, st.booleans()),
    st.tuples(st.just("book"), st.integers(59_850, 60_150), quantity, quantity),
    st.tuples(st.just("push"), price),
)


def act(desk: Desk, what: str, *rest: object) -> None:
    """One random step; refusals are fine, they must only change nothing."""
    arguments = [str(one) for one in rest]
    match what:
        case "limit":
            uid, where, at, amount, tif, stp = arguments
            desk.place(int(uid), where, price=at, quantity=amount, timeInForce=tif, selfTradePreventionMode=stp)
        case "iceberg":
            uid, where, at, amount, stp = arguments
            part = str(Decimal(amount) / 4)
            desk.place(int(uid), where, price=at, quantity=amount, icebergQty=part, selfTradePreventionMode=stp)
        case "trail":
            uid, where, amount, delta = arguments
            desk.place(int(uid), where, "STOP_LOSS", quantity=amount, trailingDelta=delta)
        case "market":
            uid, where, amount = arguments
            desk.place(int(uid), where, "MARKET", quantity=amount)
        case "quote":
            uid, where, amount = arguments
            desk.place(int(uid), where, "MARKET", quoteOrderQty=amount)
        case "stop":
            uid, where, at, amount, kind = arguments
            desk.place(int(uid), where, kind, quantity=amount, stopPrice=at)
        case "bracket":
            uid, at, amount, tif = arguments
            desk.bracket(
                int(uid),
                amount,
                limit=at,
                stop=str(int(at) - 50),
                profit=str(int(at) + 60),
                workingTimeInForce=tif,
            )
        case "oco":
            uid, stop, profit, amount = arguments
            desk.oco(int(uid), amount, stop=stop, profit=profit)
        case "cancel":
            uid, order = arguments
            desk.cancel(int(uid), int(order))
        case "trade":
            desk.trade(arguments[0], arguments[1], seller_takes=bool(rest[2]))
        case "book":
            middle = int(arguments[0])
            bids = [(str(middle - n), arguments[1]) for n in (1, 5)]
            asks = [(str(middle + n), arguments[2]) for n in (1, 5)]
            desk.book(bids, asks)
        case "push":
            desk.push(arguments[0])


def needed_locks(exchange: Exchange, uid: int) -> dict[str, int]:
    """What open orders need kept aside, computed anew: a pair needs the larger of its two once."""
    pairs: dict[int, list[int]] = {}
    assets: dict[int, str] = {}
    for order in exchange.open_orders(uid):
        if not order.live:
            continue
        key = min(order.order_id, order.sibling or order.order_id)
        selling = order.side is Side.SELL
        need = order.remaining if selling else (order.price or order.stop_price) * order.remaining // 10**8
        pairs.setdefault(key, []).append(need)
        assets[key] = "BTC" if selling else "USDT"
    result = {"BTC": 0, "USDT": 0}
    for key, needs in pairs.items():
        result[assets[key]] += max(needs)
    return result


@settings(max_examples=80)
@given(st.lists(step, max_size=30))
def test_money_is_conserved_by_any_sequence_of_inputs(steps: list[tuple[object, ...]]) -> None:
    desk = Desk()
    deposits = {"USDT": 50_000 * 10**8, "BTC": 2 * 10**8}
    for uid in USERS:
        desk.open(uid, USDT="50000", BTC="2")
    desk.book([("60000", "1"), ("59990", "2")], [("60001", "1"), ("60010", "2")])
    desk.trade("60000")
    for what, *rest in steps:
        with contextlib.suppress(ExchangeError):
            act(desk, str(what), *rest)
        for uid in USERS:
            account = desk.exchange.accounts[uid]
            expected = dict(deposits)
            for trade in desk.exchange.trades.get((uid, SYMBOL), []):
                sign = 1 if trade.buyer else -1
                expected["BTC"] += sign * trade.quantity
                expected["USDT"] -= sign * trade.quote
                expected[trade.commission_asset] -= trade.commission
            locks = needed_locks(desk.exchange, uid)
            for asset, total in expected.items():
                balance = account.balance(asset)
                assert balance.free + balance.locked == total
                assert balance.locked == locks[asset]
                assert balance.free >= 0
    for order in desk.exchange.orders.values():
        trades = [one for one in desk.exchange.trades.get((order.uid, SYMBOL), []) if one.order_id == order.order_id]
        assert order.executed == sum(one.quantity for one in trades) <= order.quantity


@settings(max_examples=20)
@given(st.lists(step, max_size=20))
def test_the_same_inputs_give_the_same_outputs(steps: list[tuple[object, ...]]) -> None:
    told = []
    for _ in range(2):
        desk = Desk()
        for uid in USERS:
            desk.open(uid, USDT="50000", BTC="2")
        desk.book([("60000", "1")], [("60001", "1")])
        for what, *rest in steps:
            with contextlib.suppress(ExchangeError):
                act(desk, str(what), *rest)
        assert desk.now > START_MS
        told.append(desk.exchange.take_outputs())
    assert told[0] == told[1]
