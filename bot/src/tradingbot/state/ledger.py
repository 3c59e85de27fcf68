"""The books: a pure, exact fold over this bot's own fills into position, cost, fees and realised profit.

Lots are matched first in, first out, so that every figure is a finite decimal: an average cost would need divisions.
The average price is derived for display only. A fee counts when it is paid, valued in quote at that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Clamped, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from typing import Final

from tradingbot.gateway import filters
from tradingbot.model import NO_ORDER, Side, SymbolRules, TradeFill

# 60 digits hold any product of two exchange numbers; Inexact is trapped, so a figure is exact or an error.
EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Clamped])
RETURN_PLACES: Final = 20
"""Decimals of a return, so that the sums over any number of round trips stay exact."""
_RETURN_STEP: Final = Decimal(1).scaleb(-RETURN_PLACES)
EQUITY_PLACES: Final = 16
"""Of a quantity times a price; a fee's rate adds up to eight, and no message has room for so many."""
_EQUITY_STEP: Final = Decimal(1).scaleb(-EQUITY_PLACES)


@dataclass(frozen=True, slots=True)
class BookedFill:
    """A fill and its fee's value in the quote asset when it happened; None where no price was known."""

    fill: TradeFill
    fee_value: Decimal | None


@dataclass(frozen=True, slots=True)
class CorrectionFill:
    """Base that a human took out of the books, for the account has it no more: it counts as sold at `price` (quote).

    It comes after the fill `after_trade_id`, and settles what was oversold until then.
    """

    after_trade_id: int
    time_ms: int
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class Lot:
    """Base asset bought at one price and not sold yet."""

    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class Trade:
    """One round trip, from flat to flat again, or as far as it is; amounts in quote unless said otherwise."""

    opened_ms: int = 0
    """Time of the fill that made a position; 0 while there is none."""
    closed_ms: int | None = None
    """Time of the fill that ended it; None while it is open."""
    bought: Decimal = Decimal(0)
    """Base asset."""
    paid: Decimal = Decimal(0)
    sold: Decimal = Decimal(0)
    """Base asset."""
    received: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    realized: Decimal = Decimal(0)
    """Profit of what was sold, after all fees paid so far."""

    @property
    def rate(self) -> Decimal:
        """Its return: `realized` over `paid`, with RETURN_PLACES decimals; 0 where nothing was paid."""
        with localcontext(Context(prec=60)):
            return (self.realized / self.paid).quantize(_RETURN_STEP) if self.paid > 0 else Decimal(0)


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """What the closed trades sum to."""

    total: int = 0
    successful: int = 0
    """Those with a profit after fees."""
    returns: Decimal = Decimal(0)
    squares: Decimal = Decimal(0)
    """Sum of the returns' squares."""
    profits: Decimal = Decimal(0)
    """What the successful ones brought after fees, in quote."""
    losses: Decimal = Decimal(0)
    """What the others lost, at least 0."""
    held_ms: int = 0
    """How long there was a position."""

    def add(self, trade: Trade, count: int = 1) -> RoundTrips:
        """One more; with a `count` of -1 one that was added is taken back."""
        pnl, rate = trade.realized, trade.rate
        with localcontext(EXACT):
            return RoundTrips(
                self.total + count,
                self.successful + count * (pnl > 0),
                self.returns + count * rate,
                self.squares + count * rate * rate,
                self.profits + count * max(pnl, Decimal(0)),
                self.losses - count * min(pnl, Decimal(0)),
                self.held_ms + count * ((trade.closed_ms or trade.opened_ms) - trade.opened_ms),
            )


@dataclass(frozen=True, slots=True)
class LedgerState:
    """The books after some fills; quote amounts unless said otherwise.

    `dust_limit` is the base quantity below which nothing can be sold, `dust_value` the cost: a position under either
    counts as flat.
    `oversold` is base that was sold without having been bought by this bot: anything but zero is a drift.
    `foreign_fees` are fees in base that were taken from base which is not this bot's, as of the sale of a whole
    position in BNB that is paid for in BNB.
    """

    base_asset: str
    quote_asset: str
    dust_limit: Decimal
    dust_value: Decimal = Decimal(0)
    lots: tuple[Lot, ...] = ()
    gross_realized: Decimal = Decimal(0)
    fees: Mapping[str, Decimal] = field(default_factory=dict)
    fees_value: Decimal = Decimal(0)
    unvalued_fees: int = 0
    oversold: Decimal = Decimal(0)
    foreign_fees: Decimal = Decimal(0)
    fills: int = 0
    last_trade_id: int = -1
    first_fill_ms: int = 0
    last_fill_ms: int = 0
    round_trips: RoundTrips = RoundTrips()
    trade: Trade = Trade()
    """The round trip that is still open, or dust on its way to one."""
    last_trade: Trade | None = None
    """The one that was closed last."""
    ended_by: int = NO_ORDER
    """Id of the order that closed it, while no other one was executed: what it sells yet belongs to that trade."""
    corrections: int = 0
    flows: Mapping[str, Decimal] = field(default_factory=dict)
    """What the fills changed in the account, by asset, after fees; corrections change nothing there."""

    @property
    def quantity(self) -> Decimal:
        """Base asset held, exact, dust included."""
        with localcontext(EXACT):
            return sum((lot.quantity for lot in self.lots), Decimal(0))

    @property
    def cost(self) -> Decimal:
        """What the held quantity cost, without fees."""
        with localcontext(EXACT):
            return sum((lot.quantity * lot.price for lot in self.lots), Decimal(0))

    @classmethod
    def empty(cls, rules: SymbolRules) -> LedgerState:
        """The books of a symbol before its first fill."""
        return cls(rules.base_asset, rules.quote_asset, filters.dust_limit(rules), rules.notional.min_notional)

    @property
    def flat(self) -> bool:
        """Nothing that could be sold is held."""
        return self.quantity < self.dust_limit or self.cost < self.dust_value

    @property
    def average_price(self) -> Decimal:
        """Cost of a unit, rounded to eight decimals for display; zero without lots."""
        quantity = self.quantity
        return (self.cost / quantity).quantize(Decimal("1e-8")) if quantity > 0 else Decimal(0)

    @property
    def realized(self) -> Decimal:
        """Realised profit after all fees paid so far."""
        with localcontext(EXACT):
            return self.gross_realized - self.fees_value

    def unrealized(self, price: Decimal) -> Decimal:
        """Profit of the held quantity at `price`, before the fee of selling it."""
        with localcontext(EXACT):
            return self.quantity * price - self.cost

    def equity(self, capital: Decimal, price: Decimal, taker_rate: Decimal) -> Decimal:
        """Capital + realised + what is held at `price`, less the fee of selling it with EQUITY_PLACES decimals."""
        with localcontext(Context(prec=60)):
            fee = (self.quantity * price * taker_rate).quantize(_EQUITY_STEP)
            return capital + self.realized + self.unrealized(price) - fee


def book(fill: TradeFill, base_asset: str, quote_asset: str, fee_price: Decimal | None = None) -> BookedFill:
    """Value the fee of a fill; `fee_price` is the quote price of the fee's asset where that is a third one."""
    with localcontext(EXACT):
        if fill.commission == 0:
            return BookedFill(fill, Decimal(0))
        if fill.commission_asset == quote_asset:
            return BookedFill(fill, fill.commission)
        if fill.commission_asset == base_asset:
            return BookedFill(fill, fill.commission * fill.price)
        return BookedFill(fill, None if fee_price is None else fill.commission * fee_price)


def extend(state: LedgerState, fills: Iterable[BookedFill], corrections: Sequence[CorrectionFill] = ()) -> LedgerState:
    """The books after more fills, each of a greater trade id than any before; ValueError where one is not.

    `corrections` are all that were made so far, in order; those that the books have already stay as they are.
    """
    for after in steps(state, fills, corrections):
        state = after
    return state


def steps(
    state: LedgerState, fills: Iterable[BookedFill], corrections: Sequence[CorrectionFill] = ()
) -> Iterator[LedgerState]:
    """As `extend`, with the books after each fill and correction."""
    unique = {(booked.fill.symbol, booked.fill.trade_id): booked for booked in fills}
    pending = list(corrections[state.corrections :])
    for (_, trade_id), booked in sorted(unique.items(), key=lambda item: item[0]):
        if trade_id <= state.last_trade_id:
            raise ValueError(f"trade {trade_id} is not after {state.last_trade_id}: fold all fills instead")
        while pending and pending[0].after_trade_id < trade_id:
            state = _correct(state, pending.pop(0))
            yield state
        state = _apply(state, booked)
        yield state
    for correction in pending:
        state = _correct(state, correction)
        yield state


def _correct(state: LedgerState, correction: CorrectionFill) -> LedgerState:
    fill = TradeFill(
        symbol="",
        trade_id=correction.after_trade_id,
        order_id=NO_ORDER,
        side=Side.SELL,
        price=correction.price,
        quantity=min(correction.quantity, state.quantity),  # less where a fill that was missed came after it
        commission=Decimal(0),
        commission_asset=state.quote_asset,
        is_maker=False,
        time_ms=correction.time_ms,
    )
    sold = _apply(state, BookedFill(fill, Decimal(0)))
    return replace(sold, oversold=Decimal(0), fills=state.fills, flows=state.flows, corrections=state.corrections + 1)


def _apply(state: LedgerState, booked: BookedFill) -> LedgerState:
    fill = booked.fill
    if state.ended_by == fill.order_id != NO_ORDER and state.last_trade is not None:
        last, trips = state.last_trade, state.round_trips.add(state.last_trade, -1)
        state = replace(state, trade=replace(last, closed_ms=None), round_trips=trips)
    with localcontext(EXACT):
        was_flat = not state.trade.opened_ms
        lots = list(state.lots)
        fees = dict(state.fees)
        if fill.commission:
            fees[fill.commission_asset] = fees.get(fill.commission_asset, Decimal(0)) + fill.commission
        fee_value = booked.fee_value or Decimal(0)
        in_base = fill.commission if fill.commission_asset == state.base_asset else Decimal(0)
        trade = state.trade
        missing = gained = Decimal(0)
        if fill.side is Side.BUY:
            trade = replace(trade, bought=trade.bought + fill.quantity, paid=trade.paid + fill.quote_quantity)
            lots.append(Lot(fill.quantity, fill.price))
        else:
            trade = replace(trade, sold=trade.sold + fill.quantity, received=trade.received + fill.quote_quantity)
            missing, gained = _take(lots, fill.quantity, fill.price)
        # The fee left the position at the price of the fill: its value is a fee, the rest the lot earned or lost.
        foreign_fee, gained_by_fee = _take(lots, in_base, fill.price, newest=fill.side is Side.BUY)
        gained += gained_by_fee
        trade = replace(trade, fees=trade.fees + fee_value, realized=trade.realized + gained - fee_value)
        result = LedgerState(
            base_asset=state.base_asset,
            quote_asset=state.quote_asset,
            dust_limit=state.dust_limit,
            dust_value=state.dust_value,
            lots=tuple(lots),
            gross_realized=state.gross_realized + gained,
            fees=fees,
            fees_value=state.fees_value + fee_value,
            unvalued_fees=state.unvalued_fees + (booked.fee_value is None),
            oversold=state.oversold + missing,
            foreign_fees=state.foreign_fees + foreign_fee,
            fills=state.fills + 1,
            last_trade_id=max(state.last_trade_id, fill.trade_id),
            first_fill_ms=state.first_fill_ms or fill.time_ms,
            last_fill_ms=max(state.last_fill_ms, fill.time_ms),
            round_trips=state.round_trips,
            trade=trade,
            last_trade=state.last_trade,
            corrections=state.corrections,
            flows=_add_flows(state, fill),
        )
        if was_flat == result.flat:
            return result
        if was_flat:
            return replace(result, trade=replace(trade, opened_ms=fill.time_ms))
        trade = replace(trade, closed_ms=fill.time_ms)
        trips = state.round_trips.add(trade)
        return replace(result, round_trips=trips, trade=Trade(), last_trade=trade, ended_by=fill.order_id)


def _add_flows(state: LedgerState, fill: TradeFill) -> dict[str, Decimal]:
    flows, sign = dict(state.flows), 1 if fill.side is Side.BUY else -1
    for asset, amount in (
        (state.base_asset, sign * fill.quantity),
        (state.quote_asset, -sign * fill.quote_quantity),
        (fill.commission_asset, -fill.commission),
    ):
        if amount:
            flows[asset] = flows.get(asset, Decimal(0)) + amount
    return flows


def _take(lots: list[Lot], quantity: Decimal, price: Decimal, newest: bool = False) -> tuple[Decimal, Decimal]:
    """Take `quantity` out of the lots; returns (what was not there, profit of what was taken at `price`)."""
    gained = Decimal(0)
    while quantity > 0 and lots:
        index = len(lots) - 1 if newest else 0
        lot = lots[index]
        part = min(lot.quantity, quantity)
        gained += part * (price - lot.price)
        quantity -= part
        if part == lot.quantity:
            del lots[index]
        else:
            lots[index] = Lot(lot.quantity - part, lot.price)
    return quantity, gained
