"""The ledger: an exact, idempotent, order-independent fold over fills."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledgers import fold
from tradingbot.model import Side, TradeFill
from tradingbot.state.ledger import (
    BookedFill,
    CorrectionFill,
    LedgerState,
    Lot,
    RoundTrips,
    Trade,
    book,
    extend,
)
from tradingbot_api.v1alpha1 import RiskStatus

DUST = Decimal("0.00001")


def fill(  # noqa: PLR0917, a row of a table
    trade_id: int,
    side: Side,
    quantity: str | Decimal,
    price: str | Decimal,
    fee: str | Decimal = "0",
    asset: str = "USDT",
) -> TradeFill:
    return TradeFill(
        symbol="BTCUSDT",
        trade_id=trade_id,
        order_id=trade_id,
        side=side,
        price=Decimal(price),
        quantity=Decimal(quantity),
        commission=Decimal(fee),
        commission_asset=asset,
        is_maker=False,
        time_ms=1_000 + trade_id,
    )


def folded(*fills: TradeFill, fee_price: str | None = None) -> LedgerState:
    price = None if fee_price is None else Decimal(fee_price)
    return fold([book(one, "BTC", "USDT", price) for one in fills], "BTC", "USDT", DUST)


def test_equity_can_be_told_whatever_the_rate_of_the_fee() -> None:
    taxed, price = Decimal("0.00100232"), Decimal("0.5001")
    books = folded(fill(1, Side.BUY, "1000.1", "0.5123", "1.00242023", "BTC"))
    equity = books.equity(Decimal(1000), price, taxed)
    assert RiskStatus(level="LOW", drawdown=Decimal(0), daily_loss=1000 - equity).daily_loss == 1000 - equity
    exact = 1000 + books.realized + books.unrealized(price) - books.quantity * price * taxed
    assert abs(equity - exact) < Decimal("1e-16")


def test_books_without_a_fill_have_exact_zeros() -> None:
    books = folded()
    for figure in (books.quantity, books.cost, books.average_price, books.realized, books.unrealized(Decimal(1))):
        assert (type(figure), figure) == (Decimal, 0)


def test_buy_with_its_fee_in_base_leaves_the_quantity_less_the_fee() -> None:
    books = folded(fill(1, Side.BUY, "67", "1", "0.03", "BTC"))

    assert books.quantity == Decimal("66.97")
    assert books.average_price == 1
    assert books.fees == {"BTC": Decimal("0.03")}
    assert books.realized == Decimal("-0.03")


def test_a_round_trip_realises_the_difference_less_both_fees() -> None:
    books = folded(
        fill(1, Side.BUY, "2", "100", "0.002", "BTC"),
        fill(2, Side.SELL, "1.998", "110", "0.21978", "USDT"),
    )

    assert books.flat
    assert books.quantity == 0
    assert books.gross_realized == Decimal("19.98")
    assert books.realized == Decimal("19.98") - Decimal("0.2") - Decimal("0.21978")
    rate = (books.realized / Decimal(200)).quantize(Decimal("1e-20"))
    assert books.round_trips == RoundTrips(1, 1, rate, rate * rate, books.realized, Decimal(0), 1)


def test_the_books_of_an_open_and_of_a_closed_trade_to_the_last_figure() -> None:
    bought = fill(1, Side.BUY, "2", "100", "0.002", "BTC"), fill(2, Side.BUY, "1", "110", "0.11", "USDT")
    sold, rest = fill(3, Side.SELL, "1.5", "120", "0.001", "BNB"), fill(4, Side.SELL, "1.498", "90", "0.13482")
    books = folded(*bought, sold, fee_price="600")
    trade = Trade(
        opened_ms=1_001,
        bought=Decimal(3),
        paid=Decimal(310),
        sold=Decimal("1.5"),
        received=Decimal(180),
        fees=Decimal("0.91"),
        realized=Decimal("29.09"),
    )
    assert books == LedgerState(
        "BTC",
        "USDT",
        DUST,
        lots=(Lot(Decimal("0.498"), Decimal(100)), Lot(Decimal(1), Decimal(110))),
        gross_realized=Decimal(30),
        fees={"BTC": Decimal("0.002"), "USDT": Decimal("0.11"), "BNB": Decimal("0.001")},
        fees_value=Decimal("0.91"),
        fills=3,
        first_fill_ms=1_001,
        last_trade_id=3,
        last_fill_ms=1_003,
        trade=trade,
        flows={"BTC": Decimal("1.498"), "USDT": Decimal("-130.11"), "BNB": Decimal("-0.001")},
    )
    assert (books.quantity, books.cost, books.flat) == (Decimal("1.498"), Decimal("159.8"), False)
    assert books.average_price == Decimal("106.67556742")
    assert books.realized == Decimal("29.09")
    assert books.unrealized(Decimal(120)) == Decimal("19.96")
    assert books.equity(Decimal(1000), Decimal(120), Decimal("0.001")) == Decimal("1049.05") - Decimal("0.17976")

    ended = extend(books, [book(rest, "BTC", "USDT")])
    closed = replace(
        trade,
        closed_ms=1_004,
        sold=Decimal("2.998"),
        received=Decimal("314.82"),
        fees=Decimal("1.04482"),
        realized=Decimal("3.97518"),
    )
    rate = Decimal("0.01282316129032258065")  # 3.97518 / 310
    square = Decimal("0.0001644334654776274715080701352757544225")
    assert closed.rate == rate
    assert ended == replace(
        books,
        lots=(),
        gross_realized=Decimal("5.02"),
        fees={**books.fees, "USDT": Decimal("0.24482")},
        fees_value=Decimal("1.04482"),
        fills=4,
        last_trade_id=4,
        last_fill_ms=1_004,
        trade=Trade(),
        last_trade=closed,
        ended_by=4,
        round_trips=RoundTrips(1, 1, rate, square, Decimal("3.97518"), Decimal(0), 3),
        flows={"BTC": Decimal(0), "USDT": Decimal("4.57518"), "BNB": Decimal("-0.001")},
    )
    assert (ended.quantity, ended.cost, ended.flat, ended.average_price) == (0, 0, True, 0)

    # A second one, that loses.
    assert extend(ended, [book(fill(7, Side.BUY, "1", "100"), "BTC", "USDT")]).last_trade == closed
    lost = extend(
        ended, [book(one, "BTC", "USDT") for one in (fill(7, Side.BUY, "1", "100"), fill(9, Side.SELL, "1", "90"))]
    )
    trips = RoundTrips(
        2, 1, rate - Decimal("0.1"), Decimal(f"0.01{str(square)[4:]}"), Decimal("3.97518"), Decimal(10), 5
    )
    assert lost.round_trips == trips
    assert lost.first_fill_ms == 1_001


def test_a_trade_without_a_purchase_has_no_return() -> None:
    assert Trade(realized=Decimal(5)).rate == 0
    assert RoundTrips().add(Trade(opened_ms=7, realized=Decimal(0))) == RoundTrips(1)


@pytest.mark.parametrize(
    ("fee", "asset", "price", "value"),
    [("0", "BNB", None, "0"), ("2", "USDT", None, "2"), ("2", "BTC", None, "200"), ("2", "BNB", "600", "1200"),
     ("2", "BNB", None, None), ("2", "USDT", "600", "2")],
)  # fmt: skip
def test_a_fee_is_valued_in_quote_at_the_price_of_its_asset(
    fee: str, asset: str, price: str | None, value: str | None
) -> None:
    one = fill(1, Side.BUY, "1", "100", fee, asset)
    booked = book(one, "BTC", "USDT", None if price is None else Decimal(price))
    assert booked == BookedFill(one, None if value is None else Decimal(value))


def test_a_fee_in_base_is_taken_from_what_was_just_bought_and_from_the_oldest_that_is_left_of_a_sale() -> None:
    bought = folded(fill(1, Side.BUY, "1", "100"), fill(2, Side.BUY, "1", "200", "0.1", "BTC"))
    assert bought.lots == (Lot(Decimal(1), Decimal(100)), Lot(Decimal("0.9"), Decimal(200)))
    sold = extend(bought, [book(fill(3, Side.SELL, "0.5", "300", "0.1", "BTC"), "BTC", "USDT")])
    assert sold.lots == (Lot(Decimal("0.4"), Decimal(100)), Lot(Decimal("0.9"), Decimal(200)))
    assert (sold.gross_realized, sold.fees_value) == (120, 20 + 30)


def test_lots_are_sold_first_in_first_out() -> None:
    books = folded(fill(1, Side.BUY, "1", "100"), fill(2, Side.BUY, "1", "200"), fill(3, Side.SELL, "1.5", "200"))

    assert books.gross_realized == 100
    assert books.quantity == Decimal("0.5")
    assert books.average_price == 200


def test_a_fee_in_bnb_is_valued_at_the_price_given_when_it_was_paid() -> None:
    books = folded(fill(1, Side.BUY, "1", "100", "0.001", "BNB"), fee_price="600")

    assert books.quantity == 1
    assert books.fees == {"BNB": Decimal("0.001")}
    assert books.realized == Decimal("-0.6")


def test_a_fee_whose_value_is_unknown_is_counted_as_such() -> None:
    assert folded(fill(1, Side.BUY, "1", "100", "0.001", "BNB")).unvalued_fees == 1


def test_dust_counts_as_flat_and_closes_the_round_trip() -> None:
    books = folded(
        fill(1, Side.BUY, "0.004", "60000", "0.000004", "BTC"), fill(2, Side.SELL, "0.00399", "61000", "0.24", "USDT")
    )

    assert books.quantity == Decimal("0.000006")
    assert books.flat
    assert books.round_trips.total == 1


def test_what_a_fee_in_bnb_leaves_of_a_position_ends_the_trade_where_it_is_worth_too_little_to_be_sold() -> None:
    bought, pair = fill(1, Side.BUY, "0.004", "60000", "0.0003", "BNB"), fill(2, Side.SELL, "0.00399", "61000")
    fills = [book(one, "BTC", "USDT", Decimal(600)) for one in (bought, pair)]

    books = fold(fills, "BTC", "USDT", DUST, Decimal(5))

    assert books.quantity == DUST
    assert books.flat
    assert (books.round_trips.total, books.round_trips.successful) == (1, 1)
    assert not fold(fills, "BTC", "USDT", DUST, Decimal("0.6")).flat


def test_what_the_order_that_ended_a_trade_sells_yet_belongs_to_that_trade() -> None:
    sold = [fill(2, Side.SELL, "0.0039", "61000", "0.2"), fill(3, Side.SELL, "0.00009", "61000", "0.01")]
    fills = [fill(1, Side.BUY, "0.004", "60000"), sold[0], replace(sold[1], order_id=2)]

    books = fold([book(one, "BTC", "USDT") for one in fills], "BTC", "USDT", DUST, Decimal(5))

    assert books.last_trade == Trade(
        1_001, 1_003, Decimal("0.004"), Decimal(240), Decimal("0.00399"), Decimal("243.39"),
        fees=Decimal("0.21"), realized=Decimal("3.78"),
    )  # fmt: skip
    assert books.round_trips == RoundTrips().add(books.last_trade)
    assert books.trade == Trade()


def test_selling_what_was_never_bought_is_told_apart() -> None:
    assert folded(fill(1, Side.SELL, "1", "100")).oversold == 1


def test_a_fee_in_base_that_the_sale_left_nothing_for_is_paid_by_others_and_nothing_is_oversold() -> None:
    books = folded(
        fill(1, Side.BUY, "1", "600", "0.00075", "BTC"),
        fill(2, Side.SELL, "0.999", "600", "0.00074925", "BTC"),
    )

    assert (books.quantity, books.oversold) == (0, 0)
    assert books.foreign_fees == Decimal("0.00049925")
    assert books.fees == {"BTC": Decimal("0.00149925")}
    assert books.realized == -600 * Decimal("0.00149925")


def test_a_round_trip_without_profit_is_not_successful() -> None:
    books = folded(fill(1, Side.BUY, "1", "100"), fill(2, Side.SELL, "1", "99"))

    assert (books.round_trips.total, books.round_trips.successful) == (1, 0)


def test_books_cannot_be_extended_by_a_trade_that_is_not_later() -> None:
    books = folded(fill(5, Side.BUY, "1", "100"))

    with pytest.raises(ValueError, match="fold all fills"):
        extend(books, [BookedFill(fill(5, Side.BUY, "1", "100"), Decimal(0))])


def corrected(*fills: TradeFill, quantity: str, after: int) -> LedgerState:
    correction = CorrectionFill(after, 2_000, Decimal(quantity), Decimal(150))
    return extend(folded(), [book(one, "BTC", "USDT") for one in fills], [correction])


def test_a_correction_takes_what_is_not_there_out_of_the_books_at_its_price() -> None:
    books = corrected(fill(1, Side.BUY, "2", "100"), quantity="0.5", after=1)

    assert (books.quantity, books.cost, books.gross_realized) == (Decimal("1.5"), 150, 25)
    assert (books.fills, books.last_trade_id, books.corrections) == (1, 1, 1)
    assert (books.fees, books.unvalued_fees) == ({}, 0), "nobody was paid for it"
    books = extend(books, [book(fill(2, Side.SELL, "1.5", "110"), "BTC", "USDT")])
    assert (books.round_trips.total, books.realized, books.corrections) == (1, 40, 1)


def test_a_correction_settles_what_was_oversold_until_then() -> None:
    assert corrected(fill(1, Side.SELL, "1", "100"), quantity="0", after=1).oversold == 0
    assert corrected(fill(1, Side.BUY, "1", "1"), fill(2, Side.SELL, "2", "1"), quantity="0", after=1).oversold == 1


def test_the_flows_are_what_the_fills_changed_in_the_account_whatever_the_books_make_of_them() -> None:
    oversold = fill(1, Side.BUY, "1", "100", "0.001", "BTC"), fill(2, Side.SELL, "3", "110", "0.5", "USDT")
    flows = {"BTC": Decimal("-2.001"), "USDT": Decimal("229.5")}

    assert folded(*oversold).flows == flows
    for after in (1, 2):
        assert corrected(*oversold, quantity="1", after=after).flows == flows


def test_a_sale_that_was_missed_and_corrected_is_not_taken_twice_when_it_comes() -> None:
    bought, sold = fill(1, Side.BUY, "2", "100"), fill(2, Side.SELL, "2", "150")

    missed = corrected(bought, quantity="2", after=1)
    assert missed.flat
    came = corrected(bought, sold, quantity="2", after=2)
    assert (came.quantity, came.oversold, came.realized) == (0, 0, missed.realized)


def test_books_that_have_a_correction_do_not_take_it_again() -> None:
    first, second = fill(1, Side.BUY, "2", "100"), fill(3, Side.BUY, "1", "100")
    corrections = [CorrectionFill(1, 2_000, Decimal("0.5"), Decimal(150))]
    kept = extend(folded(), [book(first, "BTC", "USDT")], corrections)

    assert extend(kept, [book(second, "BTC", "USDT")], corrections).quantity == Decimal("2.5")


quantities = st.decimals(min_value="0.00001", max_value="10", places=5)
prices = st.decimals(min_value="0.01", max_value="100000", places=2)


@st.composite
def histories(draw: st.DrawFn) -> list[TradeFill]:
    """Buys and sells that never sell more than is held, with fees as Binance takes them, of sales also in base."""
    fills: list[TradeFill] = []
    held = Decimal(0)
    for trade_id in range(1, draw(st.integers(1, 25))):
        quantity, price = draw(quantities), draw(prices)
        if held >= quantity and draw(st.booleans()):
            asset = draw(st.sampled_from(["USDT", "BTC"]))
            fee = (quantity * (price if asset == "USDT" else 1) / 1000).quantize(Decimal("1e-8"))
            fills.append(fill(trade_id, Side.SELL, quantity, price, fee, asset))
            held -= quantity
            if asset == "BTC":
                held = max(held - fee, Decimal(0))
        else:
            fee = (quantity / 1000).quantize(Decimal("1e-8"))
            fills.append(fill(trade_id, Side.BUY, quantity, price, fee, "BTC"))
            held += quantity - fee
    return fills


@given(histories(), st.integers())
def test_order_of_arrival_and_duplicates_do_not_matter(history: list[TradeFill], seed: int) -> None:
    expected = folded(*history)
    shuffled = history + history[: len(history) // 2]
    Random(seed).shuffle(shuffled)

    assert folded(*shuffled) == expected


@given(histories())
def test_one_by_one_gives_the_same_books_as_all_at_once(history: list[TradeFill]) -> None:
    books = folded()
    for one in history:
        books = extend(books, [book(one, "BTC", "USDT")])

    assert books == folded(*history)


@given(histories(), st.integers(1, 9), st.sampled_from(["0", "5", "5000"]))
def test_the_trades_of_orders_that_were_filled_in_parts_are_those_of_orders_that_were_not(
    history: list[TradeFill], tenths: int, least: str
) -> None:
    parts = [
        replace(
            one,
            trade_id=2 * one.trade_id + part,
            quantity=one.quantity * share / 10,
            commission=one.commission * share / 10,
        )
        for one in history
        for part, share in enumerate((tenths, 10 - tenths))
    ]

    expected, found = (
        fold([book(one, "BTC", "USDT") for one in fills], "BTC", "USDT", DUST, Decimal(least))
        for fills in (history, parts)
    )

    assert (found.quantity, found.cost, found.realized) == (expected.quantity, expected.cost, expected.realized)
    assert (found.round_trips, found.trade, found.last_trade) == (
        expected.round_trips, expected.trade, expected.last_trade
    )  # fmt: skip


@given(histories())
def test_base_and_quote_are_conserved_to_the_last_decimal(history: list[TradeFill]) -> None:
    books = folded(*history)
    base = quote = Decimal(0)
    for one in history:
        sign = 1 if one.side is Side.BUY else -1
        base += sign * one.quantity - (one.commission if one.commission_asset == "BTC" else 0)
        quote -= sign * one.quote_quantity + (one.commission if one.commission_asset == "USDT" else 0)

    assert books.quantity - books.foreign_fees == base
    assert books.oversold == 0
    # Money is where it went: into the lots, into fees, or it was earned. Fees in base are valued at their fill, and
    # those that others' base paid are a loss too.
    assert quote + books.cost - _paid_by_others(history) == books.realized


def _paid_by_others(history: list[TradeFill]) -> Decimal:
    """Value of the fees that were not taken from the position."""
    value, books = Decimal(0), folded()
    for one in history:
        before, books = books.foreign_fees, extend(books, [book(one, "BTC", "USDT")])
        value += (books.foreign_fees - before) * one.price
    return value


def test_sums_and_products_of_more_than_28_digits_are_exact() -> None:
    many, price, fee = "900000000000000000000.00000001", "98765.43210987", "0.00000001"
    few, low, sale = "0.00000003", "0.00000007", "98765432.10987654"
    bought = folded(fill(1, Side.BUY, many, price, fee), fill(2, Side.BUY, few, low))
    cost = Fraction(many) * Fraction(price) + Fraction(few) * Fraction(low)
    assert Fraction(bought.quantity) == Fraction(many) + Fraction(few)
    assert Fraction(bought.cost) == cost
    assert Fraction(bought.unrealized(Decimal(sale))) == Fraction(bought.quantity) * Fraction(sale) - cost

    sold = extend(bought, [book(fill(3, Side.SELL, bought.quantity, sale, fee), "BTC", "USDT")])
    profit = Fraction(bought.quantity) * Fraction(sale) - cost - 2 * Fraction(fee)
    assert Fraction(sold.realized) == Fraction(sold.round_trips.profits) == profit
    again = sold.round_trips.add(Trade(bought=Decimal(1), paid=Decimal(1), realized=-Decimal(fee)))
    assert Fraction(again.profits) - Fraction(again.losses) == profit - Fraction(fee)
    in_base = book(fill(1, Side.BUY, many, price, many, "BTC"), "BTC", "USDT").fee_value
    assert in_base is not None
    assert Fraction(in_base) == Fraction(many) * Fraction(price)


def test_a_position_of_exactly_the_least_that_can_be_sold_is_not_flat() -> None:
    assert not folded(fill(1, Side.BUY, DUST, "1")).flat
    assert folded(fill(1, Side.BUY, DUST - Decimal("1e-8"), "1")).flat


def test_a_return_is_told_however_little_was_paid() -> None:
    assert Trade(paid=Decimal("0.5"), realized=Decimal("0.1")).rate == Decimal("0.2")
    assert Trade(paid=Decimal("1e-8"), realized=Decimal(99)).rate == Decimal("9.9e9"), "past 28 digits"
    assert Trade(paid=Decimal(0), realized=Decimal("0.1")).rate == 0
