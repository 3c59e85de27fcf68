"""What the exchange's own orders and fills must say of a bot, whatever was done to it. Pure: times are ms of its clock.

Each function gives what it finds; what is allowed of it is decided by whoever knows what was done, and when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from paper_exchange.core.model import LIVE, OPEN, Order, OrderList, OrderStatus, Side, Trade
from paper_exchange.core.units import to_decimal
from support.exchange_books import DUST
from tradingbot.model import Side as FillSide
from tradingbot.model import TradeFill
from tradingbot.recovery.fence import Purpose, parse
from tradingbot.state.ledger import LedgerState, book, steps

Span = tuple[int, float]
"""From one moment to another, in ms; infinity where it has no end yet."""


@dataclass(frozen=True)
class Log:
    """What the exchange has of one bot: all that it ever ordered of its symbol, and the fills."""

    base: str
    orders: Sequence[Order]
    lists: Mapping[int, OrderList]
    trades: Sequence[Trade]


# -- protection ----------------------------------------------------------------------------------------------------


def bare(log: Log) -> list[Span]:
    """When base worth more than dust was held beyond what the stops at work sell."""
    changes: defaultdict[int, Decimal] = defaultdict(Decimal)
    prices: dict[int, Decimal] = {}
    filled: dict[int, int] = {}
    for trade in log.trades:
        bought = trade.quantity if trade.buyer else -trade.quantity
        fee = trade.commission if trade.commission_asset == log.base else 0
        changes[trade.time] += to_decimal(bought - fee)
        prices[trade.time] = to_decimal(trade.price)
        filled[trade.order_id] = trade.time
    for order in log.orders:
        if order.side is Side.SELL and order.type.stop and (span := _at_work(order, log, filled)) is not None:
            changes[span[0]] -= to_decimal(order.quantity)
            if span[1] < float("inf"):
                changes[int(span[1])] += to_decimal(order.quantity)
    spans: list[Span] = []
    uncovered, price, since = Decimal(0), Decimal(0), None
    for moment in sorted(changes):
        uncovered += changes[moment]
        price = prices.get(moment, price)
        if uncovered * price > DUST:
            since = moment if since is None else since
        elif since is not None:
            spans.append((since, moment))
            since = None
    if since is not None:
        spans.append((since, float("inf")))
    return spans


def _at_work(stop: Order, log: Log, filled: Mapping[int, int]) -> Span | None:
    """From when to when a stop waited for its trigger; None where it never did."""
    begin = stop.time
    group = log.lists.get(stop.list_id)
    if group is not None and group.working_id:
        # It begins once the working order is filled; a stop without that has ended with it, or still waits.
        working = next((order for order in log.orders if order.order_id == group.working_id), None)
        if working is None or working.status is not OrderStatus.FILLED:
            return None
        begin = filled[working.order_id]
    if stop.status is OrderStatus.REJECTED:
        return None
    if stop.working_time >= 0:
        return begin, max(begin, stop.working_time)
    return begin, float("inf") if stop.status in LIVE else max(begin, stop.update_time)


def charged(spans: Iterable[Span], excused: Iterable[Span], now: int) -> list[tuple[Span, float]]:
    """Each span with its ms that nothing excuses."""
    holes = sorted(excused)
    found = []
    for begin, end in spans:
        left, at = 0.0, float(begin)
        last = min(end, now)
        for start, stop in holes:
            if stop <= at:
                continue
            if start >= last:
                break
            left += max(0.0, start - at)
            at = min(max(at, stop), last)
        found.append(((begin, end), left + max(0.0, last - at)))
    return found


# -- one trader ----------------------------------------------------------------------------------------------------


def overtaken(log: Log) -> list[tuple[Order, int]]:
    """Entries of a process that came after the first order of a newer one, with how many ms."""
    first: dict[int, int] = {}
    late = []
    for order in sorted(log.orders, key=lambda one: one.order_id):
        name = parse(order.client_order_id)
        if name is None:
            continue
        first.setdefault(name.incarnation, order.time)
        newer = [time for incarnation, time in first.items() if incarnation > name.incarnation]
        if newer and adds_exposure(order):
            late.append((order, order.time - min(newer)))
    return late


def adds_exposure(order: Order) -> bool:
    """Whether it buys: an entry, or the announcement of a process."""
    name = parse(order.client_order_id)
    return order.side is Side.BUY or (name is not None and name.purpose in {Purpose.ENTRY, Purpose.ANNOUNCE})


# -- safe means safe -----------------------------------------------------------------------------------------------


def unsafe(log: Log, safe: Iterable[Span]) -> list[str]:
    """Orders that add exposure and were accepted, or rested, while safe mode was acknowledged."""
    wrong = []
    for begin, end in safe:
        for order in filter(adds_exposure, log.orders):
            if begin < order.time < end:
                wrong.append(
                    f"{order.client_order_id} accepted {order.time - begin} ms after safe mode was acknowledged"
                )
            elif order.time <= begin and (order.status in OPEN or order.update_time > begin):
                wrong.append(f"{order.client_order_id} rested when safe mode was acknowledged")
    return wrong


# -- the books -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figures:
    """A bot's books from a moment on: base held, and what was realised after fees."""

    since: int
    quantity: Decimal
    realized: Decimal


def figures(log: Log, quote: str) -> list[Figures]:
    """The books after each fill, by the exchange's own fills; the first before any."""
    sides = {True: FillSide.BUY, False: FillSide.SELL}
    fills = [
        TradeFill(
            symbol=one.symbol,
            trade_id=one.trade_id,
            order_id=one.order_id,
            side=sides[one.buyer],
            price=to_decimal(one.price),
            quantity=to_decimal(one.quantity),
            commission=to_decimal(one.commission),
            commission_asset=one.commission_asset,
            is_maker=one.maker,
            time_ms=one.time,
        )
        for one in log.trades
    ]
    state = LedgerState(log.base, quote, Decimal(0))
    after = steps(state, [book(fill, log.base, quote) for fill in fills])
    before = Figures(0, Decimal(0), Decimal(0))
    return [before, *(Figures(one.last_fill_ms, one.quantity, one.realized) for one in after)]


def told_right(told: tuple[Decimal, Decimal], books: Sequence[Figures], begin: int, end: int) -> bool:
    """Whether position and realised profit, as told, were both the exchange's at a moment between two."""
    following = [one.since for one in books[1:]] + [end + 1]
    return any(
        (one.quantity, one.realized) == told
        for one, until in zip(books, following, strict=True)
        if one.since <= end and until >= begin
    )


# -- no order without a reason ------------------------------------------------------------------------------------


def unexplained(log: Log, reasons: Mapping[str, str], intents: Collection[str]) -> tuple[list[str], int]:
    """Orders for which neither the audit log nor the store has a reason; how many only the store knows."""
    wrong, by_store = [], 0
    for order in log.orders:
        name = order.client_order_id
        if reasons.get(name):
            continue
        if name in intents:
            by_store += 1
        else:
            wrong.append(f"{name} ({order.side} {order.type}) is of no line of the audit log and of no intent")
    return wrong, by_store
