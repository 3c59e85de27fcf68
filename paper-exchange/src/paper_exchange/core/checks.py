"""What refuses a new order: filters, client ids, the number of open orders, and money."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paper_exchange.core.account_filters import check_assets, check_counts, check_position
from paper_exchange.core.errors import INSUFFICIENT_BALANCE, WOULD_MATCH, filter_failure, rejected, stp_not_allowed
from paper_exchange.core.filters import check_market_lot, check_static, check_trigger
from paper_exchange.core.market import MarketState
from paper_exchange.core.matching import offers
from paper_exchange.core.model import OrderType, Side
from paper_exchange.core.requests import NewOrder
from paper_exchange.core.state import State
from paper_exchange.core.units import SCALE, product


def check_filters(
    state: State,
    market: MarketState,
    uid: int,
    now: Sequence[NewOrder],
    later: Sequence[NewOrder] = (),
    *,
    sized: bool = True,
) -> None:
    """The filters, for orders that work now and those that are pending.

    Pending orders that are not `sized` get their quantity later, and are checked for it then.
    """
    average = market.yardstick(state.now)
    requests = (*now, *later)
    account = state.accounts[uid]
    for request in requests:
        check_static(market.rules, request, average, sized or request in now)
        check_assets(account, market, request, average or 0)
        if request.stp is not None and request.stp not in market.rules.stp_modes:
            raise stp_not_allowed()
    check_counts(state, market, uid, requests)
    check_position(state, market, uid, requests)


def check_entry(
    state: State, market: MarketState, uid: int, now: Sequence[NewOrder], later: Sequence[NewOrder] = ()
) -> None:
    """What else can be refused without looking at money: ids in use, and what would trade or trigger at once."""
    seen: set[str] = set()
    for request in (*now, *later):
        ident = request.client_order_id
        if ident is not None:
            known = state.by_client.get((uid, market.rules.symbol, ident))
            if ident in seen or (known is not None and state.orders[known].open):
                raise rejected("Duplicate order sent.")
            seen.add(ident)
    for request in now:
        if request.type is OrderType.LIMIT_MAKER and crosses(market, request.side, request.price):
            raise rejected(WOULD_MATCH)
        check_trigger(request, market.last)


def check_funds(state: State, market: MarketState, uid: int, requests: Sequence[NewOrder], quantity: int) -> None:
    """-2010 unless the free balance covers what the orders lock or, at market, cost."""
    account = state.accounts[uid]
    rules = market.rules
    request = requests[0]
    if request.side is Side.SELL:
        asset, needed = rules.base, quantity
    elif request.type is OrderType.MARKET:
        asset, needed = rules.quote, request.quote_quantity or _cost(state, market, uid, request)
    else:
        asset = rules.quote
        needed = max(product(one.price or one.stop_price or market.last or 0, one.quantity) for one in requests)
    if account.balance(asset).free < needed:
        raise rejected(INSUFFICIENT_BALANCE)


def _cost(state: State, market: MarketState, uid: int, request: NewOrder) -> int:
    """Quote that a market buy of a quantity costs on the book as it stands."""
    cost = 0
    quantity = request.quantity
    for price, shown in _offers(state, market, uid, request):
        part = min(quantity, shown)
        cost += product(price, part)
        quantity -= part
        if not quantity:
            break
    return cost


def market_quantity(state: State, market: MarketState, uid: int, request: NewOrder) -> int:
    """The quantity of an order; of one by quote amount, whole steps whose notional on the book is closest to it.

    A buy spends no more than the amount: it buys "as many as quoteOrderQty can".
    """
    if not request.quote_quantity:
        return request.quantity
    step = market.rules.step
    left = request.quote_quantity
    quantity = price = 0
    for price, shown in _offers(state, market, uid, request):
        part = min(_whole_steps(left, price, step), shown)
        quantity += part
        left -= product(price, part)
        if part < shown:
            if request.side is Side.SELL and 2 * left >= product(price, step):
                quantity += step
            break
    else:
        if not quantity:
            raise rejected("Order book liquidity is less than symbol minimum quantity.")
        # The book ends before the amount does: the rest cannot be filled, and the order will say so.
        quantity += _whole_steps(left, price, step)
    if quantity < market.rules.min_quantity:
        raise filter_failure("LOT_SIZE")
    check_market_lot(market.rules, quantity)
    return quantity


def _offers(state: State, market: MarketState, uid: int, request: NewOrder) -> Iterator[tuple[int, int]]:
    return offers(state, market, uid, request.side, request.stp or market.rules.default_stp)


def _whole_steps(amount: int, price: int, step: int) -> int:
    """The quantity that an amount of quote pays for, cut to the lot step."""
    return amount * SCALE // price // step * step


def crosses(market: MarketState, side: Side, price: int) -> bool:
    """Whether an order would trade at once."""
    ladder = market.ladder(side.opposite)
    best = ladder.best()
    return best is not None and ladder.reaches(best, price)
