"""The books against the account: fees in BNB, money that people move, and several bots on one account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from paper_exchange.core.units import to_units
from paper_exchange.testing import Options, PaperExchange, TestAccount, running_paper_exchange
from support.bot_orders import SYMBOL, BotSide, bot_side
from support.waiting import until
from tradingbot.gateway import filters
from tradingbot.gateway.errors import AmbiguousError, ExchangeError, NotFoundError
from tradingbot.gateway.port import NewOrder
from tradingbot.model import OrderType, Side, TradeFill
from tradingbot.monitoring.report import account_books
from tradingbot.orders import own_fills, tracker
from tradingbot.orders.types import EntryOutcome, ExitOutcome, ProtectionState
from tradingbot.state.balance_reconciler import Verdict, VerdictKind
from tradingbot.state.position_validator import Correction
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import AssetClaim
from tradingbot_api.names import bot_key
from tradingbot_operator.coverage import Member, judge
from tradingbot_operator.equality import Equality, Standing, View
from tradingbot_operator.inventory import BotKey

pytestmark = pytest.mark.integration


def pay_in_bnb(paper: PaperExchange, account: TestAccount) -> None:
    """Fees of the account are paid in BNB from now on."""
    assert paper.server is not None
    paper.server.venue.exchange.set_bnb_discount(account.uid, True)


async def test_a_sale_of_bnb_that_is_paid_for_in_bnb_leaves_the_books_exact(
    paper: PaperExchange, tmp_path: Path
) -> None:
    account = await paper.create_account(USDT="10000", BNB="1")
    pay_in_bnb(paper, account)
    async with bot_side(paper, account, tmp_path / "bot.db", symbol="BNBUSDT", stream=False) as bot:
        for _ in range(2):
            await bot.enter("1")
            await bot.orders.exit("test")
            verdict = await bot.orders.reconcile()

            books = bot.orders.books
            assert verdict.kind is VerdictKind.EXACT
            assert verdict.message.endswith("paid as fees of this bot")
            assert books.oversold == 0
            assert books.flat
            # The rest that cannot be sold pays of the fee what it can, the base that was there before the rest.
            assert books.foreign_fees > 0
            assert await bot.base_at_exchange() == 1 + books.quantity - books.foreign_fees


@pytest.fixture
async def bot(paper: PaperExchange, tmp_path: Path) -> AsyncIterator[BotSide]:
    """A bot in position on an account that had 0.5 BTC before."""
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db") as side:
        await side.enter()
        yield side


async def sell_by_hand(bot: BotSide, quantity: Decimal) -> None:
    order = NewOrder(SYMBOL, "hand-sale", Side.SELL, OrderType.MARKET, quantity)
    await bot.exchange.place_order(order, bot.exchange.stamp())


async def explained(bot: BotSide, message: str) -> Verdict:
    """The verdict once the user stream told what happened."""

    async def verdict() -> Verdict | None:
        found = await bot.orders.reconcile()
        return found if found.message.endswith(message) else None

    found = await until(message, verdict)
    assert isinstance(found, Verdict)
    return found


async def test_deposits_withdrawals_and_trades_of_others_are_explained_and_no_drift_also_after_a_restart(
    bot: BotSide, tmp_path: Path
) -> None:
    assert bot.paper.server is not None
    venue = bot.paper.server.venue
    await bot.paper.deposit(bot.account.uid, BTC="1")
    venue.exchange.withdraw(bot.account.uid, "BTC", to_units(Decimal("0.3")), venue.now_ms())
    await sell_by_hand(bot, Decimal("0.2"))

    told = "1.003996 BTC in the account, 1 are not this bot's: 0.7 deposited, 0.2 sold by orders of others"
    assert (await explained(bot, told)).kind is VerdictKind.EXACT
    async with bot_side(bot.paper, bot.account, tmp_path / "bot.db", stream=False) as again:
        verdict = await again.orders.reconcile()
        assert (verdict.kind, verdict.unexplained) == (VerdictKind.EXACT, Decimal(0))
        assert verdict.message.endswith(told)


async def test_what_moves_while_nobody_listens_is_told_with_its_figures(paper: PaperExchange, tmp_path: Path) -> None:
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
        await paper.deposit(account.uid, BTC="1")
        verdict = await bot.orders.reconcile()

    assert (verdict.kind, verdict.unexplained) == (VerdictKind.COVERED, Decimal(1))
    assert verdict.message == "of the 1 BTC in the account, 1 are not this bot's: 1 unexplained"


async def test_a_human_takes_the_accounts_word_for_a_position_that_was_sold_by_hand(
    bot: BotSide, tmp_path: Path
) -> None:
    held = bot.orders.books.quantity
    # Sold below what the position is: others' 0.5 and half of it.
    await bot.exchange.cancel_list(SYMBOL, bot.leg("sl").order_list_id, "hand-cancel", bot.exchange.stamp())
    await sell_by_hand(bot, Decimal("0.502"))
    verdict = await explained(bot, "0.502 sold by orders of others")
    assert (verdict.kind, verdict.uncovered) == (VerdictKind.DRIFT, True)
    price = bot.orders.books.average_price
    assert bot.orders.suggest_correction(price, compared_again=True) is Correction.ADOPT

    adopted = await bot.orders.adopt()

    rest = held - Decimal("0.002")
    assert (adopted.kind, adopted.message) == (VerdictKind.EXACT, "")
    assert bot.orders.books.quantity == rest == await bot.base_at_exchange()
    await bot.tick_until(lambda: bot.orders.protection.state is ProtectionState.PROTECTED)
    assert bot.leg("sl").quantity == Decimal("0.00199")
    assert (await bot.orders.adopt()).kind is VerdictKind.EXACT  # once: nothing differs any more
    async with bot_side(bot.paper, bot.account, tmp_path / "bot.db", stream=False) as again:
        assert again.orders.books == bot.orders.books
        assert (await again.orders.reconcile()).kind is VerdictKind.EXACT


async def test_nothing_is_corrected_while_own_trades_are_missing(paper: PaperExchange, tmp_path: Path) -> None:
    account = await paper.create_account(USDT="10000")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as bot:
        for call in ("order_trades", "trades"):
            bot.faults.always[call] = AmbiguousError("no answer in time")
        assert (await bot.enter()).outcome is EntryOutcome.UNKNOWN
        bot.faults.always = {"order_trades": NotFoundError("not readable yet")}
        with suppress(ExchangeError):
            verdict = await bot.orders.adopt()
            assert "its trades sum to" in verdict.message
        assert bot.orders.books.quantity == 0
        bot.faults.always.clear()
        assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


def pay_in_odd(bot: BotSide) -> None:
    """Fees of the bot are told in an asset without a market."""
    read = bot.exchange.order_trades

    async def in_odd(symbol: str, order_id: int, *, urgent: bool = False) -> list[TradeFill]:
        return [replace(fill, commission_asset="ODD") for fill in await read(symbol, order_id, urgent=urgent)]

    bot.exchange.order_trades = in_odd  # type: ignore[method-assign]


async def test_a_fee_whose_asset_has_no_market_is_asked_for_once_and_told(paper: PaperExchange, tmp_path: Path) -> None:
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as bot:
        pay_in_odd(bot)
        await bot.enter()
        for _ in range(3):
            verdict = await bot.orders.reconcile()

        assert verdict.message.endswith("the profit lacks them; no market tells the price of ODD in USDT")
        assert bot.faults.calls.count("last_price") + bot.faults.calls.count("candles") == 1


async def test_a_fee_that_is_read_long_after_it_was_paid_has_the_value_that_it_had_then(tmp_path: Path) -> None:
    async with running_paper_exchange(Options(symbols=("BTCUSDT", "BNBUSDT"))) as paper:
        account = await paper.create_account(USDT="10000", BNB="1")
        pay_in_bnb(paper, account)
        async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
            read, paid_ms = bot.exchange.order_trades, bot.exchange.exchange_ms() - 600_000
            paid_ms -= paid_ms % 60_000

            async def late(symbol: str, order_id: int, *, urgent: bool = False) -> list[TradeFill]:
                return [replace(fill, time_ms=paid_ms) for fill in await read(symbol, order_id, urgent=urgent)]

            bot.exchange.order_trades = late  # type: ignore[method-assign]
            await bot.enter()

            (then,) = await bot.exchange.candles("BNBUSDT", "1m", limit=1, start_ms=paid_ms)
            assert then.open_ms == paid_ms
            assert then.close != await bot.exchange.last_price("BNBUSDT")
            assert bot.orders.books.fees_value == bot.orders.books.fees["BNB"] * then.close


async def test_the_fees_of_all_fills_of_a_lost_store_are_valued_by_one_read_of_a_thousand_minutes(
    tmp_path: Path,
) -> None:
    async with running_paper_exchange(Options(symbols=("BTCUSDT", "BNBUSDT"))) as paper:
        account = await paper.create_account(USDT="10000", BNB="1")
        pay_in_bnb(paper, account)
        async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
            for _ in range(3):
                await bot.enter()
                await bot.orders.exit("Signal")
            first_ms = bot.exchange.exchange_ms() - 600_000
            first_ms -= first_ms % 60_000
        async with bot_side(paper, account, tmp_path / "lost.db", stream=False, faulty=True, start=False) as again:
            read = again.exchange.trades

            async def apart(symbol: str, *, from_id: int | None = None, urgent: bool = False) -> list[TradeFill]:
                fills = await read(symbol, from_id=from_id, urgent=urgent)
                return [replace(fill, time_ms=first_ms + 60_000 * n) for n, fill in enumerate(fills)]

            again.exchange.trades = apart  # type: ignore[method-assign]
            await again.orders.start()
            assert again.faults.calls.count("candles") == 1
            closes = [c.close for c in await again.exchange.candles("BNBUSDT", "1m", limit=10, start_ms=first_ms)]
            booked = again.orders._fills._by_id.values()
            assert [one.fee_value for one in booked] == [
                one.fill.commission * close for one, close in zip(booked, closes, strict=False)
            ]


async def test_fills_whose_fees_no_market_prices_are_only_summed_in_time_and_told_for_ever(
    paper: PaperExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker, "MOST_DONE", 3)
    monkeypatch.setattr(own_fills, "CHECKPOINT_FILLS", 1)
    account = await paper.create_account(USDT="10000", BTC="0.5")
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as bot:
        pay_in_odd(bot)
        for _ in range(2):
            await bot.enter()
            await bot.orders.exit("Signal")
        books = bot.orders.books
        await bot.orders.reconcile()
        assert books.unvalued_fees > 0
        assert len(bot.orders._fills._by_id) < books.fills
        assert bot.orders.books == books
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False) as again:
        assert again.orders.books == books
        assert f"{books.unvalued_fees} fees have no value" in (await again.orders.reconcile()).message


async def test_three_bots_on_one_account_that_pays_in_bnb_keep_their_books_apart_and_sell_only_their_own(
    tmp_path: Path,
) -> None:
    options = Options(symbols=("BTCUSDT", "BTCUSDC", "BNBUSDT"))
    async with running_paper_exchange(options) as paper, AsyncExitStack() as stack:
        account = await paper.create_account(USDT="10000", USDC="10000", BNB="1")
        pay_in_bnb(paper, account)
        bots = [
            await stack.enter_async_context(bot_side(paper, account, tmp_path / symbol, symbol=symbol))
            for symbol in options.symbols
        ]
        usdt, usdc, bnb = bots
        for bot, quantity in zip(bots, ("0.004", "0.005", "1"), strict=True):
            assert (await bot.enter(quantity)).outcome is EntryOutcome.FILLED

        async def members() -> list[Member]:
            balances = (await usdt.exchange.account()).balances
            found = []
            for age, bot in enumerate(bots):
                books, rules = bot.orders.books, bot.rules
                held = balances[rules.base_asset].total
                base = AssetClaim(
                    asset=rules.base_asset, claimed=books.quantity, held=held, least=filters.dust_limit(rules)
                )
                found.append(Member(BotKey("test", rules.symbol), rules.symbol, (age,), base, None, 0.0))
            return found

        # The fee of the first was paid in BNB; nothing tells the price of BNB in USDC, and the second paid in BTC.
        assert [usdt.orders.books.quantity, usdc.orders.books.quantity] == [Decimal("0.004"), Decimal("0.004995")]
        assert not any(judge(await members()).values())
        for bot in bots:
            verdict = await bot.orders.reconcile()
            assert verdict.synced, verdict.message
            assert bot.orders.protection.state is ProtectionState.PROTECTED

        assert (await usdt.orders.exit("test")).outcome is ExitOutcome.FLAT
        assert await usdc.base_at_exchange() == usdc.orders.books.quantity == Decimal("0.004995")
        assert usdc.leg("sl").quantity == Decimal("0.00499")
        assert (await bnb.orders.exit("test")).outcome is ExitOutcome.FLAT
        assert (await usdc.orders.exit("test")).outcome is ExitOutcome.FLAT

        books, fees = bnb.orders.books, usdt.orders.books.fees["BNB"]
        assert books.foreign_fees > 0
        assert await bnb.base_at_exchange() == 1 + books.quantity - books.foreign_fees - fees
        for bot in bots:
            assert bot.orders.books.oversold == 0
            assert (await bot.orders.reconcile()).synced


async def test_two_bots_of_one_account_are_told_equal_and_a_loss_that_nobody_told_of_is_found(tmp_path: Path) -> None:
    options = Options(symbols=("BTCUSDT", "BNBUSDT"))
    async with running_paper_exchange(options) as paper, AsyncExitStack() as stack:
        assert paper.server is not None
        account = await paper.create_account(USDT="10000", BNB="1")
        pay_in_bnb(paper, account)
        bots = [
            await stack.enter_async_context(bot_side(paper, account, tmp_path / symbol, symbol=symbol))
            for symbol in options.symbols
        ]
        for bot in bots:
            bot.orders.missed_events()  # as a session does once its user stream is there
        equality, now = Equality(), 0

        async def told(seconds: int) -> Standing | None:
            """Both tell so much later, and again."""
            nonlocal now
            present = await bots[0].exchange.account()
            for wait in (seconds, 5):
                now += wait
                for bot in bots:
                    rules = bot.rules
                    books = account_books(bot.orders, present.balance, compared_ms=now * 1000, listening=True)
                    key = bot_key(str(account.uid), rules.symbol)
                    view = View(rules.symbol, key, rules.base_asset, "boot", books, now)
                    equality.hear("account", BotKey("test", rules.symbol), view, now)
            return equality.of("BNBUSDT", now)

        balanced = Standing(True, others_hold_base=True)
        for bot, quantity in zip(bots, ("0.004", "1"), strict=True):
            await bot.enter(quantity)
        assert await told(60) == balanced
        await paper.deposit(account.uid, USDT="50")
        await until("the deposit", lambda: all(bot.orders.heard.moved == {"USDT": 50} for bot in bots))
        for bot in bots:
            await bot.orders.exit("test")
        assert await told(60) == balanced
        assert equality.rest("BNBUSDT") == {"BNB": 1, "USDT": 10050}

        paper.server.venue.exchange.accounts[account.uid].balance("USDT").free -= to_units(Decimal(7))
        for _ in range(4):
            found = await told(60)
        assert found is not None
        assert (found.differs, found.unexplained) == (True, {"USDT": Decimal(-7)})


@pytest.mark.parametrize(
    ("quantity", "legs"),
    [
        pytest.param("0.004", {"sl": ["0.00399"], "tp": ["0.00399"]}, id="the-rest-is-too-little-to-be-sold"),
        pytest.param("0.2", {"sl": ["0.0002", "0.1998"], "tp": ["0.0002", "0.1998"]}, id="the-rest-gets-its-own"),
    ],
)
async def test_what_a_fee_in_bnb_left_in_the_position_is_protected_beside_the_entrys_pair(
    paper: PaperExchange, tmp_path: Path, quantity: str, legs: dict[str, list[str]]
) -> None:
    account = await paper.create_account(USDT="20000", BNB="1")
    pay_in_bnb(paper, account)
    async with bot_side(paper, account, tmp_path / "bot.db", stream=False, faulty=True) as bot:
        await bot.enter(quantity)

        assert bot.orders.books.quantity == Decimal(quantity)
        assert bot.orders.protection.state is ProtectionState.PROTECTED
        open_orders = bot.orders.open_orders
        found = {
            purpose: sorted(f"{canonical(order.quantity)}" for order in open_orders if order.purpose == purpose)
            for purpose in legs
        }
        assert found == legs
        assert "cancel_list" not in bot.faults.calls  # the pair of the entry was never taken off
        assert (await bot.orders.exit("test")).outcome is ExitOutcome.FLAT
        assert (await bot.orders.reconcile()).kind is VerdictKind.EXACT


async def test_invariant_a_the_trades_of_each_own_order_sum_to_what_it_executed(bot: BotSide) -> None:
    await bot.orders.exit("test")
    await sell_by_hand(bot, Decimal("0.1"))

    listed = await bot.exchange.all_orders(SYMBOL, from_order_id=0)
    trades = await bot.exchange.trades(SYMBOL, from_id=0)
    booked = {item.fill.trade_id for item in await bot.store.fills()}
    own = {order.order_id: order.executed_quantity for order in listed if order.client_order_id.startswith("tb-")}
    sums = dict.fromkeys(own, Decimal(0))
    for trade in trades:
        if trade.order_id in own:
            sums[trade.order_id] += trade.quantity
    assert sums == own
    assert any(own.values())
    assert booked == {trade.trade_id for trade in trades if trade.order_id in own}


async def test_invariant_b_the_account_covers_what_the_bot_claims_also_with_protection_locked(bot: BotSide) -> None:
    balance = (await bot.exchange.account()).balance("BTC")

    assert balance.locked > 0
    assert balance.total >= bot.orders.books.quantity
    verdict = await bot.orders.reconcile()
    assert (verdict.uncovered, verdict.base.total) == (False, balance.total)


async def test_invariant_c_the_account_is_the_position_and_what_others_have_to_the_last_decimal(bot: BotSide) -> None:
    for _ in range(2):
        verdict = await bot.orders.reconcile()
        assert (verdict.kind, verdict.unexplained) == (VerdictKind.EXACT, Decimal(0))
        assert await bot.base_at_exchange() == bot.orders.books.quantity + Decimal("0.5")
        await bot.orders.exit("test")
