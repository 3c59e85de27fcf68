"""The order manager on a paper exchange over real sockets: entries, legs, lost answers, lost protection, exits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_orders import SYMBOL, BotSide, bot_side, exchange_for
from support.silent_disk import silent_disk
from support.waiting import until
from tradingbot.gateway.errors import AmbiguousError, RejectedError
from tradingbot.gateway.port import EndpointClass, NewOrder
from tradingbot.model import OrderStatus, OrderType, Side, TimeInForce
from tradingbot.orders.oco_monitor import OcoState
from tradingbot.orders.types import EntryOutcome, ExitOutcome, OrdersEventKind, ProtectionState, Trace, TrackedOrder
from tradingbot.state.balance_reconciler import VerdictKind
from tradingbot_api.v1alpha1 import PositionPolicy

pytestmark = pytest.mark.integration


@pytest.fixture
async def bot(paper: PaperExchange, account: TestAccount, tmp_path: Path) -> AsyncIterator[BotSide]:
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        yield side


async def test_entry_is_filled_and_protected_in_one_request(bot: BotSide) -> None:
    result = await bot.enter()

    assert result.outcome is EntryOutcome.FILLED
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert bot.orders.open_lists == 1
    assert {order.purpose for order in bot.orders.open_orders} == {"sl", "tp"}
    assert bot.orders.unprotected_seconds == 0
    assert bot.orders.entries_quiet
    assert bot.orders.books.quantity == await bot.base_at_exchange()
    assert not bot.told(OrdersEventKind.PROTECTION_LOST)


async def test_position_left_by_the_fee_is_what_the_legs_sell(bot: BotSide) -> None:
    await bot.enter()

    assert bot.orders.books.quantity == Decimal("0.003996")
    assert bot.leg("sl").quantity == Decimal("0.00399")


@pytest.mark.parametrize(
    ("purpose", "kind"),
    [
        pytest.param("tp", OrdersEventKind.TAKE_PROFIT, id="take-profit"),
        pytest.param("sl", OrdersEventKind.STOP_LOSS, id="stop"),
    ],
)
async def test_each_leg_fills_and_the_books_agree_with_the_account_to_the_last_decimal(
    bot: BotSide, purpose: str, kind: OrdersEventKind
) -> None:
    quote_before = (await bot.exchange.account()).balance("USDT").total
    await bot.enter()
    leg = bot.leg(purpose)
    price = leg.price + 20 if purpose == "tp" else leg.stop_price - 20

    await bot.paper.push_trade(SYMBOL, price)
    await until("the leg to be told", lambda: bot.told(kind))
    await until("no position", lambda: bot.orders.protection.state is ProtectionState.FLAT)

    verdict = await bot.orders.reconcile()
    assert verdict.kind is VerdictKind.EXACT
    assert verdict.drift == 0
    books = bot.orders.books
    assert books.round_trips.total == 1
    # Quote moved by exactly what the books say: realised profit, less the cost of the dust, plus its fee in base.
    fees_in_quote = books.fees["USDT"]
    assert verdict.quote.total - quote_before == books.gross_realized - fees_in_quote - books.cost - (
        books.fees_value - fees_in_quote
    )


async def test_exit_cancels_the_protection_and_sells_what_is_held(bot: BotSide) -> None:
    await bot.enter()

    result = await bot.orders.exit("signal")

    assert result.outcome is ExitOutcome.FLAT
    assert bot.orders.open_orders == ()
    assert bot.orders.protection.state is ProtectionState.FLAT
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_a_sale_that_waited_its_turn_is_not_begun_once_the_connection_is_being_ended(bot: BotSide) -> None:
    await bot.enter()
    under_way = asyncio.create_task(bot.orders.reconcile())
    await asyncio.sleep(0)
    sale = asyncio.create_task(bot.orders.exit("Drain"))
    bot.orders.ending = True

    result = await sale
    await under_way

    assert (result.outcome, result.code) == (ExitOutcome.FAILED, "Stopping")
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert bot.orders.open_lists == 1


async def test_entry_beyond_the_collar_buys_nothing(bot: BotSide) -> None:
    result = await bot.enter("500")  # far more than the book has inside the collar

    assert result.outcome is not EntryOutcome.FILLED
    assert bot.orders.books.fills == 0
    assert bot.orders.open_orders == ()


async def test_a_refusal_between_decision_and_send_wins(bot: BotSide) -> None:
    bot.refusal = "AwaitingGrant"

    result = await bot.enter()

    assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "AwaitingGrant")
    assert (await bot.paper.account(bot.account.uid))["trades"] == []


async def test_an_entry_that_was_sized_by_other_settings_is_not_sent(bot: BotSide) -> None:
    request = await bot.request()
    tighter = bot.settings.risk.model_copy(update={"max_position_value": Decimal(100)})
    bot.settings = bot.settings.model_copy(update={"risk": tighter})

    result = await bot.orders.enter(request)

    assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "SettingsChanged")
    assert (await bot.paper.account(bot.account.uid))["trades"] == []


async def test_an_entry_that_was_priced_too_long_ago_is_not_sent(bot: BotSide) -> None:
    request = await bot.request()
    age = bot.settings.entry.max_data_age_seconds + 1

    result = await bot.orders.enter(replace(request, priced_at=request.priced_at - age))

    assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "DataTooOld")
    assert (await bot.paper.account(bot.account.uid))["trades"] == []


async def test_no_second_entry_while_a_position_is_open(bot: BotSide) -> None:
    await bot.enter()

    result = await bot.enter()

    assert (result.outcome, result.code) == (EntryOutcome.REFUSED, "PositionOpen")


async def test_entry_whose_answer_is_lost_is_not_sent_again_and_is_found(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as side:
        side.faults.after["place_otoco"] = AmbiguousError("no answer in time")
        result = await side.enter()
        assert result.outcome is EntryOutcome.UNKNOWN
        assert not side.orders.entries_quiet
        assert (await side.enter()).code == "UnknownOrder"

        await side.tick_until(lambda: side.orders.entries_quiet)

        assert side.faults.calls.count("place_otoco") == 1
        assert side.orders.protection.state is ProtectionState.PROTECTED
        assert side.orders.books.quantity == await side.base_at_exchange()
        assert (await side.orders.reconcile()).kind is VerdictKind.EXACT


async def test_entry_that_never_arrived_is_dropped_only_after_the_exchange_said_so_three_times(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as side:
        side.faults.before["place_otoco"] = AmbiguousError("connection reset")
        sent = side.exchange.exchange_ms()
        assert (await side.enter()).outcome is EntryOutcome.UNKNOWN
        await side.tick_until(lambda: side.orders.entries_quiet)

        assert side.exchange.exchange_ms() - sent > 15_000
        assert side.orders.books.fills == 0
        assert (await side.enter()).outcome is EntryOutcome.FILLED


async def test_during_503_the_outcome_is_unknown_and_is_resolved_afterwards(bot: BotSide) -> None:
    await bot.enter()
    await bot.paper.fail_rest(503, 60)

    result = await bot.orders.exit("signal")
    assert result.outcome is ExitOutcome.FAILED
    await bot.paper.clear_faults()
    await bot.tick_until(lambda: not bot.orders.unknown)
    await bot.orders.reconcile()

    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert (await bot.orders.exit("signal")).outcome is ExitOutcome.FLAT


async def test_protection_that_was_cancelled_by_hand_is_restored_within_the_deadline(bot: BotSide) -> None:
    await bot.enter()
    first = bot.leg("sl").client_order_id
    await bot.exchange.cancel_order(SYMBOL, first, "by-hand", bot.exchange.stamp())
    await until("no open order", lambda: not bot.orders.open_orders)

    await bot.tick_until(
        lambda: bot.orders.protection.state is ProtectionState.PROTECTED and bool(bot.orders.open_orders)
    )

    assert bot.leg("sl").client_order_id != first
    assert bot.leg("sl").quantity == Decimal("0.00399")
    assert 0 < bot.orders.unprotected_seconds < 10
    assert bot.told(OrdersEventKind.PROTECTION_RESTORED)


async def test_refused_pair_becomes_a_stop_alone(paper: PaperExchange, account: TestAccount, tmp_path: Path) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db", faulty=True) as side:
        await side.enter()
        side.faults.before["place_oco"] = RejectedError("-2010", api_code=-2010)
        await side.exchange.cancel_order(SYMBOL, side.leg("sl").client_order_id, "by-hand", side.exchange.stamp())
        await until("no open order", lambda: not side.orders.open_orders)
        await side.tick_until(lambda: bool(side.orders.open_orders))

        assert [order.type for order in side.orders.open_orders] == [OrderType.STOP_LOSS]
        assert side.orders.protection.state is ProtectionState.PROTECTED


async def test_position_without_protection_past_the_deadline_is_sold(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    path = tmp_path / "bot.db"
    async with bot_side(paper, account, path, faulty=True, deadlineSeconds=1) as side:
        await side.enter()
        await side.exchange.cancel_order(SYMBOL, side.leg("sl").client_order_id, "by-hand", side.exchange.stamp())
        await until("no open order", lambda: not side.orders.open_orders)
        side.faults.always["open_orders"] = AmbiguousError("no answer in time")
        await side.tick_until(lambda: side.orders.unprotected_seconds > 1)
        side.faults.always.clear()
        await side.tick_until(lambda: side.orders.books.round_trips.total == 1)

        assert side.orders.protection.state is ProtectionState.FLAT
        assert [event.message for event in side.events if event.kind is OrdersEventKind.EXITED] == [
            "ProtectionDeadline"
        ]


async def test_a_partly_filled_take_profit_has_its_rest_protected_again(bot: BotSide) -> None:
    await bot.enter()
    target = bot.leg("tp")
    buyer = exchange_for(bot.settings, await bot.paper.create_account(USDT="10000000"))
    await buyer.sync_clock()
    below = target.price - bot.rules.price.tick
    await bot.paper.push_trade(SYMBOL, below)

    async def buy(number: int, quantity: str, price: Decimal) -> None:
        order = NewOrder(SYMBOL, f"buy-{number}", Side.BUY, OrderType.LIMIT, Decimal(quantity), price=price)
        await buyer.place_order(replace(order, time_in_force=TimeInForce.IOC), buyer.stamp())

    # Another account buys what others offer up to the take-profit, and then bit by bit at its price.
    for number in range(0, 200, 2):
        await buy(number, "50", below)
        await buy(number + 1, "0.001", target.price)
        if (await bot.exchange.order(SYMBOL, target.client_order_id)).executed_quantity > 0:
            break
    await buyer.close()
    await until("the rest of the position", lambda: bot.orders.books.quantity == Decimal("0.002996"))

    lost = OrdersEventKind.PROTECTION_LOST
    await bot.tick_until(lambda: bot.told(lost) and bot.orders.protection.state is not ProtectionState.UNPROTECTED)

    # The rest has a stop again; or, with the market already at the take-profit, it was sold.
    stops = [order.quantity for order in bot.orders.open_orders if order.purpose == "sl"]
    assert stops == [Decimal("0.00299")] or bot.orders.protection.state is ProtectionState.FLAT
    assert 0 < bot.orders.unprotected_seconds < 10
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def make_smaller(bot: BotSide, stop: TrackedOrder, **name: str) -> None:
    """By hand, to 0.002; the exchange makes up a client id unless it is told one."""
    change = {"origClientOrderId": stop.client_order_id, "newQty": "0.002"} | name
    path = "order/amend/keepPriority"
    await bot.exchange._send(EndpointClass.REDUCE, "put", path, bot.exchange.stamp(), symbol=SYMBOL, **change)


@pytest.mark.parametrize("same_name", [pytest.param(True, id="as-it-was"), pytest.param(False, id="made-up")])
async def test_a_pair_that_somebody_made_smaller_gets_another_for_the_rest(bot: BotSide, same_name: bool) -> None:
    await bot.enter()
    stop = bot.leg("sl")
    await make_smaller(bot, stop, **({"newClientOrderId": stop.client_order_id} if same_name else {}))

    def stops() -> list[Decimal]:
        return [order.quantity for order in bot.orders.open_orders if order.purpose == "sl"]

    await bot.tick_until(lambda: stops() == [Decimal("0.002"), stop.quantity - Decimal("0.002")])
    assert bot.orders.protection.state is ProtectionState.PROTECTED
    assert bot.orders.exchange_reset is None
    assert bot.orders.foreign_orders == ()
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT
    assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT
    assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_a_stop_alone_that_somebody_gave_another_name_is_known_and_cancelled_by_its_number(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "alone.db", stream=False, faulty=True) as bot:
        bot.faults.always["place_oco"] = RejectedError("no pair")
        await bot.enter()
        await bot.exchange.cancel_list(SYMBOL, bot.leg("sl").order_list_id, "by-hand", bot.exchange.stamp())
        await bot.tick_until(lambda: len(bot.orders.open_orders) == 1)
        (stop,) = bot.orders.open_orders
        await make_smaller(bot, stop)

        await bot.tick_until(lambda: len(bot.orders.open_orders) == 2)
        assert bot.orders.exchange_reset is None
        assert (await bot.orders.exit("Signal")).outcome is ExitOutcome.FLAT
        assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_a_store_that_cannot_commit_forbids_entries_and_lets_exits_go(bot: BotSide) -> None:
    await bot.enter()
    bot.store._db.execute("PRAGMA query_only=ON")

    assert (await bot.orders.exit("signal")).outcome is ExitOutcome.FLAT
    assert await bot.base_at_exchange() < Decimal("0.00001")
    assert (await bot.enter()).code == "StoreFailed"


async def test_a_silent_disk_forbids_entries_and_lets_exits_go(bot: BotSide, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradingbot.state.store.ANSWER_SECONDS", 0.2)
    await bot.enter()
    with silent_disk(bot.store):
        assert (await bot.orders.exit("signal")).outcome is ExitOutcome.FLAT
        assert await bot.base_at_exchange() < Decimal("0.00001")
        assert (await bot.enter()).code == "StoreFailed"


async def test_a_start_on_a_store_that_cannot_commit_looks_after_the_position(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db") as former:
        await former.enter()
        stop = former.leg("sl")
        await former.exchange.cancel_list(SYMBOL, stop.order_list_id, "hand-1", former.exchange.stamp())
    async with bot_side(paper, account, tmp_path / "bot.db", start=False) as bot:
        bot.store._db.execute("PRAGMA query_only=ON")
        await bot.orders.start()

        assert bot.orders.protection.state is ProtectionState.PROTECTED
        assert (await bot.enter()).code == "StoreFailed"


async def test_the_first_entry_is_announced_by_an_order_that_is_cancelled(bot: BotSide) -> None:
    await bot.enter()

    orders = await bot.exchange.all_orders(SYMBOL, from_order_id=0)
    announced = [order for order in orders if order.client_order_id.endswith("-an")]
    assert [order.status for order in announced] == [OrderStatus.CANCELED]
    assert announced[0].price < Decimal("0.6") * (await bot.exchange.book_ticker(SYMBOL)).bid


async def test_an_open_position_is_valid_while_covered_and_protected(bot: BotSide) -> None:
    await bot.enter()
    bid = (await bot.exchange.book_ticker(SYMBOL)).bid

    assert bot.orders.validate(bid).valid


async def test_drain_with_hold_leaves_the_position_protected_and_says_so(bot: BotSide) -> None:
    await bot.enter()

    remaining = await bot.orders.drain(PositionPolicy.HOLD)

    assert any("position 0.003996 BTC, protected" in line for line in remaining)
    assert len(remaining) == 3
    assert bot.orders.protection.state is ProtectionState.PROTECTED


async def test_drain_with_close_position_sells_and_leaves_nothing(bot: BotSide) -> None:
    await bot.enter()

    assert await bot.orders.drain(PositionPolicy.CLOSE_POSITION) == []
    assert await bot.orders.drain(PositionPolicy.CLOSE_POSITION) == []


async def test_no_entry_is_sent_beside_as_many_stops_of_others_as_the_symbol_takes(bot: BotSide) -> None:
    ask = (await bot.exchange.book_ticker(SYMBOL)).ask
    for number in range(bot.rules.max_algo_orders or 0):
        stop = (ask * 2).quantize(Decimal(1))
        order = NewOrder(SYMBOL, f"other-{number}", Side.BUY, OrderType.STOP_LOSS, Decimal("0.001"), stop_price=stop)
        await bot.exchange.place_order(order, bot.exchange.stamp())
    await bot.orders.reconcile()

    refused = await bot.enter()

    assert (refused.outcome, refused.code) == (EntryOutcome.REFUSED, "MAX_NUM_ALGO_ORDERS")
    await bot.exchange.cancel_order(SYMBOL, "other-0", "hand-1", bot.exchange.stamp())
    await bot.orders.reconcile()
    assert (await bot.enter()).outcome is EntryOutcome.FILLED


async def test_orders_of_others_are_reported_and_not_touched(bot: BotSide) -> None:
    order = NewOrder(
        SYMBOL,
        "somebody-else",
        Side.BUY,
        OrderType.LIMIT,
        Decimal("0.001"),
        price=Decimal("30000.00"),
        time_in_force=TimeInForce.GTC,
    )
    await bot.exchange.place_order(order, bot.exchange.stamp())

    await bot.orders.reconcile()
    assert await bot.orders.drain(PositionPolicy.CLOSE_POSITION) == []

    assert bot.orders.foreign_orders == ("somebody-else",)
    assert [report.client_order_id for report in await bot.exchange.open_orders(SYMBOL)] == ["somebody-else"]


async def test_a_later_process_start_of_the_same_key_is_seen_as_a_second_trader(bot: BotSide, tmp_path: Path) -> None:
    async with bot_side(bot.paper, bot.account, tmp_path / "other.db") as other:
        assert other.orders.incarnation > 0
        if other.orders.incarnation <= bot.orders.incarnation:
            await other.orders.raise_incarnation(bot.orders.incarnation + 1)
        await other.enter()
        await until("the fence to be lost", lambda: bot.orders.two_traders is not None)

    assert bot.told(OrdersEventKind.TWO_TRADERS)
    assert (await bot.enter()).code == "TwoTraders"


async def test_the_id_of_a_position_outlives_the_process_to_its_take_profit(
    paper: PaperExchange, account: TestAccount, tmp_path: Path
) -> None:
    async with bot_side(paper, account, tmp_path / "bot.db") as bot:
        await bot.orders.enter(replace(await bot.request(), signal_id="BTCUSDT-1s-7"))
        entry_id = bot.orders.audit.trace.position
    async with bot_side(paper, account, tmp_path / "bot.db") as bot:
        assert {order.related_position for order in bot.orders.open_orders} == {entry_id}
        assert bot.orders.audit.trace == Trace("BTCUSDT-1s-7", entry_id)
        assert [pair.state for pair in bot.orders.pairs] == [OcoState.WORKING]
        with capture_logs() as lines:
            await paper.push_trade(SYMBOL, bot.leg("tp").price + 20)
            await until("no position", lambda: bot.orders.protection.state is ProtectionState.FLAT)
    (fill,) = [line for line in lines if line["event"] == "fill"]
    ended = [line for line in lines if line["event"] == "order" and line["type"] == "STOP_LOSS"]
    assert [line["expiry_reason"] for line in ended] == ["OCO_TRIGGER"]
    assert (fill["signal_id"], fill["position"], fill["side"]) == ("BTCUSDT-1s-7", entry_id, "SELL")
