"""Rows of docs/emergencies.md on virtual time: by the exchange's own books a position is stopped, or sold in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast
from unittest.mock import patch

import pytest

from paper_exchange.core.symbols import ORDER_TYPES
from paper_exchange.testing import write_keys
from support.emergency import DEADLINE_SECONDS, PRICE, SYMBOL, Emergency, run_emergency
from tradingbot.app import STORE_FILE
from tradingbot.engine.strategies.base import Signal
from tradingbot.engine.strategies.ema_cross import EmaCross
from tradingbot.model import Candle
from tradingbot.orders.known_orders import FRESH_MS
from tradingbot.recovery.fence import ClientId, Purpose
from tradingbot.session import RECONCILE_SECONDS
from tradingbot.state.lock import StateLock
from tradingbot.state.store import Store, StoreFailedError, set_aside_store
from tradingbot_api import names
from tradingbot_api.base import canonical

pytestmark = pytest.mark.integration
LONGEST_WAIT = 21
"""Seconds between two tries of what the exchange refuses."""


def test_a_flash_crash_is_ended_by_the_stop_on_the_exchange() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        world.move(PRICE * 0.9)
        world.move(PRICE)
        assert world.flat
        await world.at_peace()
        assert world.condition("Protected") == ("True", "Flat")

    world = run_emergency(befall)
    assert world.count("StopLoss") == 1
    assert world.unprotected == 0


def test_a_gap_through_a_stop_limit_is_sold_at_the_market() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        assert stop.type.priced
        world.move(PRICE * 0.95)
        await world.until("no position", lambda: world.flat)
        await world.at_peace()

    only_limits = tuple(kind for kind in ORDER_TYPES if kind != "STOP_LOSS")
    with patch("paper_exchange.core.symbols.ORDER_TYPES", only_limits):
        world = run_emergency(befall)
    assert world.unprotected < DEADLINE_SECONDS


def test_a_gap_through_a_stop_limit_that_stands_alone_is_sold_at_the_market() -> None:
    async def befall(world: Emergency) -> None:
        world.cancel_by_hand(await world.hold())
        world.fault("list_refused")
        await world.until("a stop alone", world.stops)
        world.move(PRICE * 0.95)
        await world.until("no position", lambda: world.flat)
        await world.at_peace()

    only_limits = tuple(kind for kind in ORDER_TYPES if kind != "STOP_LOSS")
    with patch("paper_exchange.core.symbols.ORDER_TYPES", only_limits):
        world = run_emergency(befall)
    assert world.unprotected < DEADLINE_SECONDS


@pytest.mark.parametrize(
    "trailing", [pytest.param({}, id="that-stays"), pytest.param({"trailingRatio": "0.01"}, id="that-follows")]
)
def test_a_stop_that_is_lost_while_nobody_buys_is_placed_again(trailing: dict[str, str]) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.buyers = False
        world.quote()
        world.cancel_by_hand(stop)
        await world.until("a stop", world.stops)
        world.buyers = True
        await world.at_peace()

    protection = {"stopLossRatio": "0.01", "takeProfitRatio": "0.02", "deadlineSeconds": DEADLINE_SECONDS}
    world = run_emergency(befall, protection=protection | trailing)
    assert world.unprotected < DEADLINE_SECONDS
    assert world.count("Connected") == 1


def test_a_start_while_nobody_buys_shows_itself_once_somebody_does() -> None:
    async def befall(world: Emergency) -> None:
        world.buyers = False
        world.quote()
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        await asyncio.sleep(10)
        assert not world.status.announced
        world.buyers = True
        await world.until("an announced bot", lambda: world.status.announced, seconds=90)

    assert run_emergency(befall).count("Connected") == 1


def test_a_gap_past_the_daily_loss_ends_entries_and_is_told_by_how_much() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        world.move(PRICE * 0.92)
        await world.until("the daily loss", lambda: "daily-loss" in world.causes and world.flat)
        await world.at_peace()
        risk, pnl = world.status.risk, world.status.pnl
        assert risk is not None
        assert pnl is not None
        assert risk.daily_loss is not None
        assert risk.daily_loss > 20
        assert abs(risk.daily_loss + pnl.total) < Decimal("0.01")  # the fee of selling dust
        # The worst there was, which the fee of a sale at the worst bid may have made a little worse than the end.
        assert risk.daily_loss_overshoot is not None
        assert 0 <= risk.daily_loss_overshoot - (risk.daily_loss - 20) < 1
        (told,) = [cause.clears for cause in world.status.safe_mode.causes if cause.id == "daily-loss"]
        assert told == f"the day's loss went {canonical(risk.daily_loss_overshoot)} past its limit: ends at 00:00 UTC"
        assert world.condition("TradingAllowed") == ("False", "DailyLoss")

    run_emergency(befall, risk={"maxPositionValue": "500", "maxDailyLoss": "20"})


@pytest.mark.parametrize("depth", [pytest.param("0.0005", id="in part"), pytest.param("0", id="whole")])
def test_the_rest_of_a_stop_that_expired_on_a_thin_book_is_sold_or_stopped_again(depth: str) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.depth = Decimal(depth)
        world.quote()
        world.move(PRICE * 0.985)
        assert not world.stops()
        assert (stop.executed > 0) == (world.depth > 0)
        await asyncio.sleep(3)
        world.depth = Decimal(5)
        await world.until("no position", lambda: world.flat)
        await world.at_peace()

    world = run_emergency(befall)
    assert world.unprotected < DEADLINE_SECONDS


def test_an_hour_without_the_exchange_leaves_the_stop_and_the_bot_goes_on_by_itself() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.market_moves = False
        await world.exchange.begin_scenario("outage-hour")
        await asyncio.sleep(3590)
        assert world.stops() == [stop]
        assert world.causes == {"breaker"}
        assert world.condition("Protected") == ("Unknown", "NotReconciled")
        world.market_moves = True
        await world.at_peace()
        assert world.stops() == [stop]

    assert run_emergency(befall).unprotected == 0


def test_a_ban_in_position_leaves_the_stop_and_nothing_is_asked_until_it_ends() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.fault("banned", **{"for": 120})
        await asyncio.sleep(60)
        assert world.causes == {"breaker"}
        await asyncio.sleep(61)
        await world.at_peace()
        assert world.stops() == [stop]
        told = [row.get("endpoint", "") for row in await world.exchange.fault_record() if "applied" in row]
        assert sum("/api/v3/" in endpoint for endpoint in told) <= 2

    assert run_emergency(befall).unprotected == 0


def test_an_exit_that_a_ban_interrupts_is_protected_or_sold_once_it_ends() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        leaving = asyncio.create_task(world.exit())
        await world.until("a position without its stop", lambda: not world.stops(), every=0.0002)
        world.fault("banned", **{"for": 30})
        await leaving
        assert world.condition("Protected") == ("False", "Unprotected")
        await world.at_peace()

    assert run_emergency(befall).unprotected < 30 + DEADLINE_SECONDS


@pytest.mark.parametrize("others", ["0", "1"])
def test_a_sale_that_gets_no_answer_is_not_repeated_before_the_position_is_protected_again(others: str) -> None:
    async def befall(world: Emergency) -> None:
        if others != "0":  # what is not known could sell it a second time
            await world.exchange.deposit(world.account.uid, BTC=others)
        await world.hold()
        world.fault("lost_request", cut=False, endpoints="POST /api/v3/order")
        await world.exit()
        await world.until("a new stop", world.stops, seconds=30)
        await world.exchange.clear_faults()
        await asyncio.sleep(6)  # the sale that failed is not tried again at once
        await world.exit()
        assert not world.stops()
        assert world.session.manager.held == 0

    # The client waits a little longer than the exchange does (10 s), and "not found" counts 15 s after the request.
    assert run_emergency(befall).unprotected < 35


@pytest.mark.parametrize("status", ["HALT", "BREAK", "CANCEL_ONLY"])
def test_a_halted_market_keeps_the_stop_until_it_trades_again(status: str) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        await world.market(status=status)
        await world.exit()
        await asyncio.sleep(60)
        assert world.stops() == [stop]
        await world.market(status="TRADING")
        await world.at_peace()
        await world.exit()
        assert world.flat
        await world.at_peace()

    assert run_emergency(befall).unprotected < 1


def test_filters_that_call_a_position_too_little_to_be_sold_do_not_take_its_stop() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        await world.market(filters={"minNotional": "600"})
        await world.exit()
        await asyncio.sleep(130)
        assert world.stops() == [stop]
        world.move(PRICE * 0.98)
        assert world.flat
        await world.at_peace()

    assert run_emergency(befall).unprotected == 0


def test_a_delisted_symbol_whose_stop_the_exchange_cancelled_is_told_and_mended_once_it_trades_again() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.cancel_by_hand(stop)
        world.venue.change_status(SYMBOL, "BREAK")
        world.venue.commit()
        sent, called = len(world.orders), world.session.exchange.counts.calls
        await asyncio.sleep(300)
        assert world.condition("Protected") == ("False", "Unprotected")
        assert len(world.orders) == sent
        assert world.session.exchange.counts.calls - called < 300
        await world.market(status="TRADING")
        assert await world.until("a stop, or no position", lambda: world.stops() or world.flat) < LONGEST_WAIT
        await world.at_peace()

    run_emergency(befall)


@pytest.mark.parametrize("milliseconds", [9_000, -9_000])
def test_a_wrong_clock_of_the_exchange_keeps_the_position_protected(milliseconds: int) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.fault("clock_skew", milliseconds=milliseconds)
        await asyncio.sleep(5)
        world.cancel_by_hand(stop)
        await world.until("a stop again", world.stops)
        await world.exchange.clear_faults()
        world.cancel_by_hand(world.stops()[0])
        await world.until("a stop again", world.stops)
        await world.at_peace()

    assert run_emergency(befall).unprotected < DEADLINE_SECONDS


@pytest.mark.parametrize("days", [1, -1])
def test_a_wrong_clock_of_the_pod_touches_no_position(days: int) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.pod_clock = timedelta(days=days)
        await asyncio.sleep(90)
        assert world.stops() == [stop]
        world.cancel_by_hand(stop)
        await world.until("a stop again", world.stops)
        await world.at_peace()

    assert run_emergency(befall).unprotected < DEADLINE_SECONDS


def test_while_protection_and_sale_are_refused_the_position_is_told_as_unprotected_and_mended_once_they_are_taken() -> (
    None
):
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.fault("list_refused")
        world.fault("order_refused")
        world.cancel_by_hand(stop)
        await asyncio.sleep(120)
        assert world.condition("Protected") == ("False", "Unprotected")
        refused = sum("applied" in row for row in await world.exchange.fault_record())
        assert 20 < refused < 60
        await world.exchange.clear_faults()
        mended = await world.until("a stop, or no position", lambda: world.stops() or world.flat)
        assert mended < LONGEST_WAIT
        await world.at_peace()

    run_emergency(befall)


def test_a_gap_out_of_the_price_range_is_sold_as_soon_as_the_exchange_lets_anybody_trade() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.move(PRICE * 0.8)
        assert stop.expiry_reason
        await asyncio.sleep(60)
        assert world.condition("Protected") == ("False", "Unprotected")
        sent = len(world.orders)
        world.move(PRICE * 0.98)
        assert await world.until("no position", lambda: world.flat) < LONGEST_WAIT
        assert sent < 30
        await world.at_peace()

    run_emergency(befall)


def test_the_rest_of_a_partly_filled_take_profit_is_stopped_or_sold() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        await world.market(fill={"side": "SELL", "share": "0.4"})
        assert not world.stops()
        await world.until("a stop again, or no position", lambda: world.stops() or world.flat)
        await world.at_peace()

    assert run_emergency(befall).unprotected < DEADLINE_SECONDS


def test_a_rest_of_a_take_profit_that_is_too_little_to_be_sold_keeps_no_entry_from_being_made() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        await world.market(fill={"side": "SELL", "share": "0.995"})
        world.move(PRICE * 0.99)
        await world.until("no position", lambda: not world.session.manager.holding)
        await world.until("nothing that rests", lambda: not world.resting)
        await world.at_peace()

    run_emergency(befall)


@pytest.mark.parametrize(
    ("gift", "after"),
    [
        pytest.param({}, 30, id="no base"),
        pytest.param({"BTC": "1"}, 30, id="base as a gift"),
        pytest.param({"BTC": "1"}, 5.3, id="base as a gift that is protected before anybody looks"),
    ],
)
def test_a_wiped_exchange_halts_the_bot_in_position(gift: dict[str, str], after: float) -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        await asyncio.sleep(after)
        await world.exchange.begin_scenario([{"at": 0, "account": {"reset": {"USDT": "10000"} | gift}}])
        await world.until("a halted bot", lambda: "exchange-reset" in world.causes)
        assert world.status.safe_mode.level == "Halted"
        sent = len(world.orders)
        world.move(PRICE * 1.001)
        await asyncio.sleep(90)
        assert len(world.orders) == sent

    run_emergency(befall)


def test_keys_that_are_revoked_in_position_leave_the_stop_and_new_ones_go_on() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        other = await world.exchange.create_key(world.account.uid)
        await world.exchange.delete_key(world.account)
        await world.until("keys told as refused", lambda: world.condition("BalanceSynced")[1] == "CredentialsRejected")
        assert world.stops() == [stop]
        write_keys(world.folder / "keys", other.api_key, other.secret_key)
        await world.at_peace()
        assert world.stops() == [stop]

    assert run_emergency(befall).unprotected == 0


def test_with_both_streams_dead_a_lost_stop_is_restored_and_a_stop_that_sold_is_seen() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        world.fault("drop_events")
        world.cancel_by_hand(stop)
        await world.until("a stop again", world.stops)
        world.move(PRICE * 0.98)
        assert world.flat
        await world.until("a bot that knows", lambda: not world.session.manager.holding, DEADLINE_SECONDS)
        await world.exchange.clear_faults()
        await world.at_peace()

    assert run_emergency(befall).unprotected < DEADLINE_SECONDS


def left_behind(world: Emergency, purpose: Purpose) -> str:
    """The client id of an order of a former process of this bot."""
    key = names.bot_key(str(world.account.uid), SYMBOL)
    return str(ClientId(key, world.session.manager.incarnation - 1, 7, purpose))


def test_an_entry_that_was_left_behind_is_cancelled_at_its_age_and_a_foreign_one_is_not() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        entry = left_behind(world, Purpose.ENTRY)
        for name in (entry, "somebody-else"):
            world.order_by_hand(name, side="BUY", quantity="0.001", price="30000")
        assert await world.until("a cancelled entry", lambda: entry not in world.resting, 400) > 180
        await asyncio.sleep(400)
        assert world.resting == {"somebody-else"}

    run_emergency(befall, entry={"maxAgeSeconds": 180})


def test_a_pair_that_protects_nothing_is_cancelled_and_a_foreign_one_is_not() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        await world.exchange.deposit(world.account.uid, BTC="1")
        own = left_behind(world, Purpose.STOP_LOSS)
        ids = {"listClientOrderId": left_behind(world, Purpose.PROTECTION_LIST), "belowClientOrderId": own}
        world.pair_by_hand("0.01", **ids, aboveClientOrderId=left_behind(world, Purpose.TAKE_PROFIT))
        world.pair_by_hand("0.01", belowClientOrderId="foreign-stop", aboveClientOrderId="foreign-profit")
        await world.until("a cancelled pair", lambda: own not in world.resting, 90)
        await asyncio.sleep(180)
        assert world.resting == {"foreign-stop", "foreign-profit"}
        assert world.held == 1

    run_emergency(befall)


def test_an_answer_that_is_as_late_as_the_exchange_gives_up_itself_is_waited_for() -> None:
    async def befall(world: Emergency) -> None:
        world.fault("answer_delay", seconds=10.5, endpoints="POST /api/v3/orderList/otoco", count=1)
        await world.hold()
        await world.at_peace()

    run_emergency(befall)


def test_candles_that_the_market_stream_lost_are_read_by_rest() -> None:
    async def befall(world: Emergency) -> None:
        await world.hold()
        assert world.session.runner.loop is not None
        before = world.session.runner.loop.seen
        world.fault("drop_events", streams="*@kline_1s", **{"for": 10})
        await asyncio.sleep(20)
        assert world.session.runner.loop.seen - before == 20

    slow = {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 100, "slow": 300}}
    run_emergency(befall, strategy=slow)


def test_a_bot_that_connects_anew_while_its_disk_is_silent_looks_after_the_position_without_it() -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        store = world.app.desk.store
        assert store is not None
        answer = world.loop.create_future()
        store._unanswered.add(answer)

        async def wait_for_the_disk(*_: object) -> None:
            await answer
            raise StoreFailedError("opened too late")

        with patch("tradingbot.app.asyncio.to_thread", wait_for_the_disk):
            former = world.session
            world.app.desk.reconnect.set()
            await world.until("another session", lambda: world.app.desk.session not in {None, former}, 40)
            assert world.condition("TradingAllowed") == ("False", "StoreFailed")
            world.cancel_by_hand(stop)
            await world.until("a stop again", world.stops, DEADLINE_SECONDS)
        answer.set_result(None)
        await world.until("the store taken up", lambda: not cast(Store, world.app.desk.store).volatile, 30)
        await world.at_peace()

    run_emergency(befall)


@pytest.mark.parametrize("unanswered", [StateLock.take, set_aside_store], ids=["lock", "damaged-store-renamed"])
def test_a_start_whose_disk_does_not_answer_looks_after_the_position_without_it(unanswered: Callable[..., Any]) -> None:
    async def befall(world: Emergency) -> None:
        stop = await world.hold()
        await world.stop()
        damaged = unanswered == set_aside_store
        if damaged:
            (world.folder / "state" / STORE_FILE).write_bytes(b"no store" * 100)
        answer = world.loop.create_future()

        async def ask(work: Callable[..., Any], *about: Any, **more: Any) -> Any:
            if work == unanswered:
                await answer
            return work(*about, **more)

        with patch("tradingbot.app.asyncio.to_thread", ask):
            world.start()
            await world.until("a session", lambda: world.app.desk.session is not None, 40)
            assert "store" in world.causes
            world.cancel_by_hand(stop)
            await world.until("a stop again", world.stops, DEADLINE_SECONDS)
            answer.set_result(None)
            await world.until("the store taken up", lambda: not cast(Store, world.app.desk.store).volatile, 30)
        assert world.causes == ({"store-lost"} if damaged else set())
        await world.at_peace()

    run_emergency(befall)


@pytest.mark.parametrize("anew", [False, True], ids=["gap-filled", "filled-anew"])
def test_an_exit_that_the_strategy_said_of_a_candle_that_could_not_be_read_ends_the_position(anew: bool) -> None:
    unread: list[int] = []

    def once(_strategy: EmaCross, candle: Candle) -> Signal:
        return Signal.EXIT if candle.open_ms in unread else Signal.NONE

    async def befall(world: Emergency) -> None:
        await world.hold()
        unread.append(world.session.exchange.exchange_ms() // 1000 * 1000 + 5000)
        world.fault("drop_events", streams="*@kline_1s", **{"for": 10})
        world.fault("error", endpoints="GET /api/v3/klines", **{"for": 10})
        await asyncio.sleep(10)
        assert not world.flat
        if anew:
            world.session.runner.loop = None
        await world.until("the position sold", lambda: world.flat, 10)

    with patch.object(EmaCross, "on_candle", once):
        run_emergency(befall, strategy={"name": "ema-cross", "interval": "1s", "parameters": {"fast": 1, "slow": 2}})


def test_open_orders_are_read_before_a_candle_closes_so_that_an_entry_waits_for_no_read() -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        for _ in range(2):  # not only where the books are compared in that second
            await asyncio.sleep(60 - world.session.exchange.exchange_ms() % 60_000 / 1000)
            assert world.session.orders_age is not None
            assert world.session.orders_age < FRESH_MS / 1000

    run_emergency(befall)


def test_what_an_exit_needs_is_read_at_once() -> None:
    begun: dict[str, float] = {}

    async def befall(world: Emergency) -> None:
        await world.hold()
        exchange = world.session.exchange

        def noted(name: str) -> Callable[..., Any]:
            read = getattr(exchange, name)

            def note(*args: Any, **more: Any) -> Any:
                begun.setdefault(name, world.loop.time())
                return read(*args, **more)

            return note

        reads = {name: noted(name) for name in ("rules", "account", "book_ticker", "cancel_list")}
        with patch.multiple(exchange, **reads):
            await world.exit()
        assert world.flat

    run_emergency(befall)
    assert begun["rules"] == begun["account"] == begun["book_ticker"] < begun["cancel_list"]


@pytest.mark.parametrize("holding", [False, True], ids=["flat", "in-position"])
@pytest.mark.parametrize("silence", ["dead_stream", "cut_connection"])
def test_a_process_whose_user_stream_tells_nothing_halts_within_a_minute_of_a_later_ones_word(
    silence: str, holding: bool
) -> None:
    async def befall(world: Emergency) -> None:
        await world.until("a bot that trades", lambda: world.condition("TradingAllowed")[0] == "True")
        if holding:
            await world.hold()
        await asyncio.sleep(5)
        world.fault(silence, **({} if silence == "dead_stream" else {"streams": "user"}))
        later = world.process(state_dir=world.folder / "later")
        running = asyncio.create_task(later.run())
        words = [order for order in world.orders if order.client_order_id.endswith(Purpose.ANNOUNCE)]
        await world.until(
            "the later one's word",
            lambda: len([one for one in world.orders if one.client_order_id.endswith(Purpose.ANNOUNCE)]) > len(words),
        )
        took = await world.until("the earlier one halted", lambda: "two-traders" in world.causes, 200)
        assert took <= RECONCILE_SECONDS + 1
        later.stop()
        await running

    run_emergency(befall)
