"""Promises of the whole bot on a paper exchange: it trades, stays protected, and survives what happens to it."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

import pytest

from paper_exchange.testing import PaperExchange, TestAccount
from support.bot_process import (
    UID,
    BotFolder,
    BotProcess,
    bot_process,
    by_hand,
    cancel_protection,
    config,
    enter,
    flat,
    hold,
    long,
    make,
    metric,
    settings,
)
from support.memory_limit import run_out_of_memory
from support.waiting import until
from tradingbot.gateway.port import NewOrder
from tradingbot.lab.flight_replay import read_flight, replay_flight
from tradingbot.model import OrderType, Side
from tradingbot.monitoring.flight_recorder import PATTERN
from tradingbot_api.bot_http import DrainPhase, DrainRequest, ImposedCause
from tradingbot_api.v1alpha1 import PositionPolicy

pytestmark = pytest.mark.integration
CALM = {"parameters": {"fast": 100, "slow": 300}}
"""Averages that do not cross while a test runs."""


@pytest.fixture
def exchange(exchange_beside: PaperExchange) -> PaperExchange:
    return exchange_beside


@pytest.fixture
async def account(exchange: PaperExchange) -> TestAccount:
    return await exchange.create_account(USDT="10000")


async def test_a_round_trip_is_traded_and_the_books_agree_with_the_account(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        status = await enter(bot)
        assert status.position is not None
        assert sorted(order.purpose for order in status.open_orders) == ["sl", "tp"]
        assert status.orders is not None
        assert (status.orders.active, status.orders.oco) == (2, 1)
        assert status.position.value <= 500
        await bot.until(lambda later: later.trades is not None and later.trades.total >= 1, 60)
        safe = settings(exchange.base_url, safeMode=True)
        assert (await bot.call("PUT", "/v1/config", config(safe, 2)))[0] == 200
        # Exits go on in safe mode: the strategy's own signal ends the last position.
        done = await bot.until(lambda later: flat(later) and later.safe_mode.acknowledged, 60)
        assert done.pnl is not None
        assert done.position is not None
        assert done.trades is not None
        assert done.trades.total == done.trades.successful + done.trades.failed
        held = await exchange.account(account.uid)
        quote = Decimal(held["balances"]["USDT"]["free"])
        # What is not sold is dust below the lot size; its cost is still in the books.
        dust = done.position.quantity * done.position.average_price
        assert abs(quote - 10000 - (done.pnl.realized - dust)) < Decimal("0.000001")
        assert bot.condition("BalanceSynced") == ("True", "Exact")
    (recording,) = await asyncio.to_thread(lambda: list((tmp_path / "state/flight").glob(PATTERN)))
    report = replay_flight(recording)
    assert report.exact
    assert {"Enter", "Exit", "Stay"} == {decision.partition("(")[0] for decision in report.decisions}
    assert report.calls["risk.calculate_position_size"] >= 1
    kept = b"".join(read_flight(recording))
    assert b'{"note":"fill",' in kept
    assert account.secret_key.encode() not in kept
    assert account.api_key.encode() not in kept


async def test_a_grant_that_ends_stops_entries_and_keeps_exits_and_protection(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        await bot.until(lambda status: status.ready)
        assert (await bot.grant(ttl_seconds=25))[0] == 200
        await bot.until(long, 25)
        await bot.until(lambda status: not status.grant.held, 40)
        await bot.until(flat, 60)
        entries = await metric(bot, "tradingbot_entries_total")
        refused = await metric(bot, "tradingbot_entries_refused_total")
        deadline = time.monotonic() + 60
        while await metric(bot, "tradingbot_entries_refused_total") < refused + 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
        assert await metric(bot, "tradingbot_entries_total") == entries
        assert flat(bot.status)


async def test_the_circuit_opens_while_idle_and_a_probe_closes_it_again(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account, strategy=CALM)) as bot:
        await bot.until(lambda status: status.ready)
        await bot.grant()
        await bot.until(lambda status: not status.safe_mode.engaged)
        await exchange.fail_rest(503, 30)
        await bot.until_condition("CircuitClosed", "False", "CircuitOpen", seconds=15)
        assert bot.status.circuit_breaker is not None
        assert bot.status.circuit_breaker.failures >= 2
        assert [cause.reason for cause in bot.status.safe_mode.causes] == ["BreakerOpen"]
        await exchange.clear_faults()
        await bot.until_condition("CircuitClosed", "True", "OK", seconds=15)
        await bot.grant()
        await bot.until_condition("TradingAllowed", "True", "OK", seconds=15)


@pytest.mark.parametrize("killed", ["by-hand", "for-its-memory"])
async def test_after_kill_9_in_position_the_same_position_and_orders_are_found(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount, killed: str
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        before = await enter(bot)
        if killed == "by-hand":
            await bot.kill()
        else:
            bot.process.send_signal(signal.SIGSTOP)  # it does nothing more between this status and its end
            await run_out_of_memory(bot.process)
            assert bot.process.returncode == -signal.SIGKILL
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.ready)
        after = next(status for status in bot.statuses if status.ready)
        assert before.position is not None
        assert after.position is not None
        assert after.position.quantity == before.position.quantity
        assert after.position.average_price == before.position.average_price
        assert [order.order_id for order in after.open_orders] == [order.order_id for order in before.open_orders], (
            "".join(bot.log)
        )
        assert (after.incarnation or 0) > (before.incarnation or 0)
        assert bot.condition("BalanceSynced")[0] == "True"
        if killed == "by-hand":
            # A kill switch that closes positions is in the mounted file: no operator need be there.
            closes = ImposedCause(
                id="kill-switch/incident", source="KillSwitch", reason="KillSwitch", level="ReduceOnly"
            )
            folder.write_config(config(settings(exchange.base_url), 2).model_copy(update={"imposed": [closes]}))
            held = await bot.until(lambda later: later.safe_mode.level == "ReduceOnly", 15)
            assert held.safe_mode.causes[0].id == "kill-switch/incident"
            sold = await bot.until(lambda later: flat(later) and later.safe_mode.acknowledged, 30)
            assert sold.open_orders == []


async def test_a_stop_out_ends_the_position_and_begins_the_cooldown(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(
        tmp_path,
        exchange,
        account,
        risk={"cooldownSeconds": 600},
        protection={"stopLossRatio": "0.002", "takeProfitRatio": "0.9"},
    )
    async with bot_process(folder) as bot:
        status = await enter(bot)
        assert status.position is not None
        price = (status.position.average_price * Decimal("0.99")).quantize(Decimal("0.01"))
        await exchange.push_trade("BTCUSDT", price)
        await bot.until(lambda later: flat(later) and bot.condition("TradingAllowed")[1] == "Cooldown", 20)
        _, text = await bot.probe("/metrics")
        assert 'tradingbot_order_events_total{kind="StopLoss",symbol="BTCUSDT"} 1.0' in text
        assert bot.status.open_orders == []


async def test_sigterm_leaves_the_protection_of_an_open_position(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        await enter(bot)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        held = await exchange.account(account.uid)
        base = Decimal(held["balances"]["BTC"]["locked"])
        orders = [order["type"] for order in held["openOrders"]]
        assert sorted(orders) == (["LIMIT_MAKER", "STOP_LOSS"] if base > 0 else [])


async def enter_and_begin_a_sale(
    bot: BotProcess, exchange: PaperExchange, account: TestAccount, *, deadline_seconds: int
) -> None:
    """Returns once the position's protection was taken off for a drain that sells it."""
    status = await enter(bot)
    request = DrainRequest(
        bot_uid=UID,
        boot_id=status.boot_id,
        position_policy=PositionPolicy.CLOSE_POSITION,
        deadline_seconds=deadline_seconds,
    )
    assert (await bot.call("POST", "/v1/drain", request))[0] == 202
    deadline = time.monotonic() + 10
    while (await exchange.account(account.uid))["openOrders"]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_sigterm_in_the_middle_of_a_sale_leaves_nothing_without_protection(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        await enter_and_begin_a_sale(bot, exchange, account, deadline_seconds=20)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        held = await exchange.account(account.uid)
        base = held["balances"]["BTC"]
        dust = Decimal("0.00001")
        assert Decimal(base["free"]) < dust, held["openOrders"]


async def covered(exchange: PaperExchange, account: TestAccount) -> bool:
    """Whether all base is sold, or locked in a pair; dust is neither."""
    held = await exchange.account(account.uid)
    free = Decimal(held["balances"]["BTC"]["free"])
    return free < Decimal("0.00001") and len(held["openOrders"]) in {0, 2}


async def test_sigterm_while_the_exchange_stutters_in_a_sale_leaves_nothing_without_protection(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        await enter_and_begin_a_sale(bot, exchange, account, deadline_seconds=60)
        await exchange.fail_rest(503, 4)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        assert await covered(exchange, account)


async def test_sigterm_restores_a_protection_that_was_just_lost(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot, by_hand(exchange, account) as hand:
        await enter(bot)
        await cancel_protection(hand)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        assert await covered(exchange, account)


async def test_sigterm_while_the_bot_connects_leaves_nothing_without_protection(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        await enter(bot)
        await bot.kill()
    async with by_hand(exchange, account) as hand:
        await cancel_protection(hand)
    async with bot_process(folder) as bot:
        await bot.until(lambda status: status.applied_revision == 1)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        assert await covered(exchange, account)


async def test_sigterm_between_two_sessions_leaves_nothing_without_protection(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    other = await exchange.create_key(account.uid)
    async with bot_process(folder) as bot, by_hand(exchange, other) as hand:
        await hold(bot, folder, exchange)
        await exchange.delete_key(account)
        await cancel_protection(hand)
        await bot.until_condition("BalanceSynced", "False", "CredentialsRejected")
        folder.write_keys(other)
        bot.process.terminate()
        assert await bot.process.wait() == 0
        assert await covered(exchange, account)


async def test_sigterm_between_two_sessions_is_obeyed_at_once_where_nothing_is_on_the_exchange(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        await enter_and_begin_a_sale(bot, exchange, account, deadline_seconds=20)
        await bot.until(lambda status: status.drain.phase is DrainPhase.DRAINED)
        folder.write_keys(replace(account, api_key="no-such-key"))
        await bot.until_condition("BalanceSynced", "False", "CredentialsRejected")
        begun = time.monotonic()
        bot.process.terminate()
        assert await bot.process.wait() == 0
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("policy", list(PositionPolicy))
async def test_a_drain_leaves_what_its_policy_says(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount, policy: PositionPolicy
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot:
        await enter(bot)
        request = DrainRequest(bot_uid=UID, boot_id=bot.status.boot_id, position_policy=policy, deadline_seconds=20)
        assert (await bot.call("POST", "/v1/drain", request))[0] == 202
        drained = await bot.until(lambda status: status.drain.phase is DrainPhase.DRAINED, 25)
        if policy is PositionPolicy.CLOSE_POSITION:
            assert flat(await bot.until(flat, 5))
            assert drained.drain.remaining == []
        elif long(drained):
            assert len(drained.drain.remaining) >= 2
            assert {order.purpose for order in drained.open_orders} == {"sl", "tp"}
            # Its pod may stay for long: exits go on, and what is told follows them.
            entries = await metric(bot, "tradingbot_entries_total")
            await bot.until(lambda status: flat(status) and not status.drain.remaining, 60)
            assert bot.status.drain.phase is DrainPhase.DRAINED
            assert await metric(bot, "tradingbot_entries_total") == entries


async def test_a_drain_waits_for_the_protection_of_what_it_leaves(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot, by_hand(exchange, account) as hand:
        held = await hold(bot, folder, exchange)
        status = bot.status
        assert status.position is not None
        await cancel_protection(hand)
        lot = held.quantize(Decimal("0.00001"), ROUND_DOWN)
        far = status.position.average_price.quantize(Decimal(1)) * 2
        lock = NewOrder("BTCUSDT", "hand-2", Side.SELL, OrderType.LIMIT_MAKER, lot, price=far)
        await hand.place_order(lock, hand.stamp())  # nothing is free: the bot cannot protect its position
        request = DrainRequest(
            bot_uid=UID, boot_id=status.boot_id, position_policy=PositionPolicy.HOLD, deadline_seconds=60
        )
        assert (await bot.call("POST", "/v1/drain", request))[0] == 202
        await bot.until(lambda later: any("unprotected" in line for line in later.drain.remaining), 10)
        assert bot.status.drain.phase is DrainPhase.DRAINING
        await hand.cancel_order("BTCUSDT", "hand-2", "hand-3", hand.stamp())
        drained = await bot.until(lambda later: later.drain.phase is DrainPhase.DRAINED, 20)
        assert flat(drained) or bot.condition("Protected") == ("True", "Protected")


async def test_of_two_processes_on_one_account_and_symbol_the_earlier_is_halted_within_a_second_of_the_later_ones_word(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    former = make(tmp_path / "former", exchange, account, strategy=CALM)
    later = make(tmp_path / "later", exchange, account, strategy=CALM)
    async with bot_process(former) as halted, by_hand(exchange, account) as hand:
        await halted.until(lambda status: status.ready)
        assert (await halted.grant())[0] == 200
        # Two starts within a second have one number, of which the operator's claim would raise the later one.
        taken = halted.status.incarnation or 0
        await until("another second", lambda: time.time() > taken + 1)
        async with bot_process(later) as trading:
            await trading.until(lambda status: status.ready)
            assert (await trading.grant())[0] == 200
            await halted.until(lambda status: status.safe_mode.level == "Halted", 20)
            cause = halted.status.safe_mode.causes[0]
            assert cause.reason == "TwoTraders"
            assert cause.since_time is not None
            shown = [order.time_ms for order in await hand.all_orders("BTCUSDT", from_order_id=0)][-1]
            assert cause.since_time.timestamp() * 1000 - shown < 1000
            assert trading.status.safe_mode.level == "Normal"


async def test_base_that_is_sold_by_hand_makes_the_bot_reduce_only_until_a_human_takes_the_accounts_word(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path, exchange, account)) as bot, by_hand(exchange, account) as hand:
        status = await enter(bot)
        assert status.position is not None
        await cancel_protection(hand)
        half = (status.position.quantity / 2).quantize(Decimal("0.00001"))
        await hand.place_order(NewOrder("BTCUSDT", "hand-2", Side.SELL, OrderType.MARKET, half), hand.stamp())
        await bot.until_condition("BalanceSynced", "False", "Drift", seconds=90)
        await bot.until(lambda later: later.safe_mode.level == "ReduceOnly", 20)
        await bot.until(lambda later: later.balance is not None and later.balance.base < Decimal("0.00001"))
        assert "sold by orders of others" in bot.message("BalanceSynced")
        assert "tradingbot.dev/clear=untrusted-books" in bot.message("BalanceSynced")
        # Its annotation comes with the next configuration: the human takes the account's word.
        adopt = config(settings(exchange.base_url, safeMode=True), 2)
        adopt.cleared_causes.append("untrusted-books")
        assert (await bot.call("PUT", "/v1/config", adopt))[0] == 200
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=20)
        await bot.until(flat)
        await bot.until(lambda later: later.safe_mode.level == "NoNewEntries", 20)


async def test_a_new_store_touches_no_position_of_its_key_before_the_first_grant(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path / "holder", exchange, account)) as holder:
        await enter(holder)
        await holder.kill()
    async with by_hand(exchange, account) as hand:
        await cancel_protection(hand)
    other = make(tmp_path / "other", exchange, account)
    for _ in range(2):  # a restart forgets it as little
        async with bot_process(other) as bot:
            await bot.until(lambda status: status.ready and long(status))
            await bot.until(lambda status: status.safe_mode.level == "Halted", 5)
            assert bot.condition("Protected") == ("False", "Unprotected")
            assert (await exchange.account(account.uid))["openOrders"] == []
            await bot.kill()
    async with bot_process(other) as bot:
        await bot.until(lambda status: status.ready)
        assert (await exchange.account(account.uid))["openOrders"] == []
        assert (await bot.grant())[0] == 200
        await bot.until(lambda status: flat(status) or bot.condition("Protected")[0] == "True", 15)
        assert bot.status.safe_mode.level == "Normal"


async def test_a_new_store_sells_what_a_former_process_left_once_a_drain_names_it_the_trader(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path / "holder", exchange, account)) as holder:
        await enter(holder)
        await holder.kill()
    async with bot_process(make(tmp_path / "other", exchange, account)) as bot:
        await bot.until(lambda status: status.ready and status.safe_mode.level == "Halted", 15)
        request = DrainRequest(
            bot_uid=UID, boot_id=bot.status.boot_id, position_policy=PositionPolicy.CLOSE_POSITION, deadline_seconds=20,
            account_known=True, claimed_incarnation=bot.status.incarnation,
        )  # fmt: skip
        assert (await bot.call("POST", "/v1/drain", request))[0] == 202
        drained = await bot.until(lambda status: status.drain.phase is DrainPhase.DRAINED, 25)
        assert drained.drain.remaining == []
        assert not drained.grant.held
        assert (await exchange.account(account.uid))["openOrders"] == []


# --- bad input ---


async def test_missing_and_wrong_keys_are_conditions_that_heal_without_a_restart(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = BotFolder.make(tmp_path, config(settings(exchange.base_url, strategy=CALM)))
    async with bot_process(folder) as bot:
        await bot.until_condition("BalanceSynced", "False", "CredentialsMissing", seconds=10)
        assert (await bot.probe("/readyz"))[0] == 503
        assert (await bot.probe("/healthz"))[0] == 200
        folder.write_keys(TestAccount(1, account.api_key, "wrong"))
        await bot.until_condition("BalanceSynced", "False", "CredentialsRejected", seconds=10)
        folder.write_keys(account)
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=15)
        assert bot.status.account_uid == str(account.uid)


async def test_rotated_keys_of_the_account_are_taken_up_in_position_without_a_restart(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account)
    async with bot_process(folder) as bot:
        await enter(bot)
        await bot.call("PUT", "/v1/config", config(settings(exchange.base_url, strategy=CALM), 2))
        before = await bot.until(lambda status: status.applied_revision == 2)
        incarnation = before.incarnation or 0
        rotated = await exchange.create_key(account.uid)
        folder.write_keys(rotated)
        await bot.until(lambda status: status.ready and (status.incarnation or 0) > incarnation, 15)
        await exchange.delete_key(account)
        # The other order: the key that is in use is refused before the Secret has the next one.
        await exchange.delete_key(rotated)
        # Where the strategy has sold, the account is asked each minute only.
        await bot.until_condition("BalanceSynced", "False", "CredentialsRejected", seconds=75)
        folder.write_keys(await exchange.create_key(account.uid))
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=15)
        assert bot.status.boot_id == before.boot_id
        # The strategy may have sold meanwhile; what is held is protected, and its orders are the bot's own.
        assert flat(bot.status) or bot.condition("Protected") == ("True", "Protected")
        held = await exchange.account(account.uid)
        assert [order["orderId"] for order in held["openOrders"]] == [o.order_id for o in bot.status.open_orders]


async def test_keys_of_another_account_halt_the_bot_until_the_former_come_back(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account, strategy=CALM)
    async with bot_process(folder) as bot:
        await bot.until_condition("BalanceSynced", "True", "Exact")
        other = await exchange.create_account(USDT="10000")
        folder.write_keys(other)
        await bot.until_condition("BalanceSynced", "False", "AccountChanged", seconds=15)
        assert not bot.status.ready
        assert bot.condition("TradingAllowed") == ("False", "AccountChanged")
        found = await exchange.account(other.uid)
        assert (found["openOrders"], found["trades"]) == ([], [])
        folder.write_keys(account)
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=15)


async def test_a_store_that_cannot_be_opened_is_a_condition_that_heals(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    folder = make(tmp_path, exchange, account, strategy=CALM)
    state = folder.root / "state"
    state.rmdir()
    state.write_text("no directory")
    async with bot_process(folder) as bot:
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=15)
        await bot.grant()
        await bot.until_condition("TradingAllowed", "False", "StoreFailed", seconds=10)
        assert bot.status.safe_mode.level == "NoNewEntries"
        state.unlink()
        await bot.until_condition("TradingAllowed", "True", "OK", seconds=20)


async def test_an_unknown_symbol_and_a_bad_strategy_are_conditions(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    async with bot_process(make(tmp_path / "symbol", exchange, account, symbol="NOPEUSDT")) as bot:
        await bot.until_condition("ConfigApplied", "False", "UnknownSymbol", seconds=10)
    wrong = {"parameters": {"fast": 30, "slow": 20}}
    async with bot_process(make(tmp_path / "strategy", exchange, account, strategy=wrong)) as bot:
        await bot.until_condition("ConfigApplied", "False", "StrategyParametersInvalid", seconds=10)
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=15)
        assert bot.status.applied_revision == 0
        right = config(settings(exchange.base_url), 2)
        assert (await bot.call("PUT", "/v1/config", right))[0] == 200
        await bot.until(lambda status: status.applied_revision == 2, 5)
        await enter(bot)


async def test_an_exchange_that_is_down_at_start_is_a_condition_that_heals(
    tmp_path: Path, exchange: PaperExchange, account: TestAccount
) -> None:
    await exchange.fail_rest(503, 120)
    async with bot_process(make(tmp_path, exchange, account, strategy=CALM)) as bot:
        await bot.until_condition("BalanceSynced", "False", "ExchangeUnreachable", seconds=10)
        await exchange.clear_faults()
        await bot.until_condition("BalanceSynced", "True", "Exact", seconds=20)
