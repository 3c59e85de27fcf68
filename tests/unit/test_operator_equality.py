"""An account against the books of its bots: it is told equal where it is, and only a hidden loss is called one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.operator_objects import NOW, seen_bot, word
from tradingbot_api import names
from tradingbot_api.bot_http import AccountBooks
from tradingbot_api.v1alpha1 import TradingBotStatus
from tradingbot_operator.equality import EQUAL_LIFE_SECONDS, Equality, Kept, Standing, View, rest_of
from tradingbot_operator.inventory import BotKey, read_status
from tradingbot_operator.status import Finding, Observed, compose, encode, kept

BEAT = 5
ROUND = 60
MARKETS = {"btc": ("BTC", "USDT"), "eth": ("ETH", "USDT"), "bnb": ("BNB", "USDT"), "btcbnb": ("BTC", "BNB")}
"""A shared quote, a shared base, and an asset that is base, quote and fee."""


@dataclass
class Bot:
    """A bot as it sees its account: what is in `waiting` it takes with its next reading of it, or a heartbeat later."""

    name: str
    held: dict[str, Decimal]
    flows: dict[str, Decimal] = field(default_factory=dict)
    fills: int = 0
    since: int = 0
    moved: dict[str, Decimal] = field(default_factory=dict)
    by_hand: int = 0
    by_bots: dict[str, int] = field(default_factory=dict)
    read: int = 0
    deaf: bool = False
    late: bool = False
    """Balances come a heartbeat after what changed them."""
    settled: bool = True
    away: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)

    @property
    def key(self) -> str:
        return names.bot_key("1001", self.name)

    def told(self, take: Callable[[], None], *, balances: bool = False) -> None:
        if balances and self.late:
            self.waiting.append(take)
        elif not self.deaf:
            take()

    def view(self, now: float) -> View:
        base, quote = MARKETS[self.name]
        books = AccountBooks(
            held={asset: self.held[asset] for asset in (base, quote)},
            flows=dict(self.flows),
            fills=self.fills,
            settled=self.settled,
            compared_time=NOW + timedelta(seconds=self.read),
            listening_since=None if self.deaf else self.since,
            moved=dict(self.moved),
            trades_by_hand=self.by_hand,
            trades_by_bots=dict(self.by_bots),
        )
        return View(self.name, self.key, base, "boot", books, now)


class World:
    """An account, its bots, an operator that hears them, and a clock in seconds that runs by heartbeats."""

    def __init__(self, *bots: str) -> None:
        self.now = 1_000
        self.account = {asset: Decimal(1000) for asset in ("USDT", "BTC", "ETH", "BNB")}
        self.bots = {name: Bot(name, dict(self.account), read=1_000 - 13 * i) for i, name in enumerate(bots)}
        self.equality = Equality()

    def change(self, amounts: dict[str, Decimal]) -> None:
        """Balances change, and the user stream tells."""
        for asset, amount in amounts.items():
            self.account[asset] += amount
        present = dict(self.account)

        def take(bot: Bot) -> None:
            bot.held.update({asset: present[asset] for asset in amounts})

        for bot in self.bots.values():
            bot.told(lambda bot=bot: take(bot), balances=True)  # type: ignore[misc]

    def fill(self, name: str, quantity: int, fee: str) -> None:
        """A bot buys (or, below 0, sells) at 3, the fee paid in an asset."""
        bot, (base, quote) = self.bots[name], MARKETS[name]
        flows = {base: Decimal(quantity), quote: Decimal(-3 * quantity)}
        flows[fee] = flows.get(fee, Decimal(0)) - Decimal("0.01")

        def book() -> None:
            bot.fills += 1
            for asset, amount in flows.items():
                bot.flows[asset] = bot.flows.get(asset, Decimal(0)) + amount

        for other in self.bots.values():
            if other is not bot:
                other.told(lambda o=other: o.by_bots.update({bot.key: o.by_bots.get(bot.key, 0) + 1}))  # type: ignore[misc]
        if bot.deaf or not bot.settled:
            bot.waiting.append(book)  # read by REST once it can be
        else:
            bot.told(book)
        self.change(flows)

    def deposit(self, asset: str, amount: int) -> None:
        def take(bot: Bot) -> None:
            bot.moved[asset] = bot.moved.get(asset, Decimal(0)) + amount

        for bot in self.bots.values():
            bot.told(lambda bot=bot: take(bot))  # type: ignore[misc]
        self.change({asset: Decimal(amount)})

    def by_hand(self, asset: str, amount: int) -> None:
        def take(bot: Bot) -> None:
            bot.by_hand += 1

        for bot in self.bots.values():
            bot.told(lambda bot=bot: take(bot))  # type: ignore[misc]
        self.change({asset: Decimal(amount)})

    def hide(self, asset: str, amount: int) -> None:
        """Something moves and nobody is told."""
        self.account[asset] += amount

    def connect(self, bot: Bot) -> None:
        """The user stream is back: what it told is lost, and the account is read."""
        bot.deaf, bot.since, bot.moved, bot.by_hand, bot.by_bots = False, self.now, {}, 0, {}
        self.read(bot)

    def read(self, bot: Bot) -> None:
        for take in bot.waiting:
            take()
        bot.waiting.clear()
        bot.held, bot.read, bot.late = dict(self.account), self.now, False

    def beat(self, seconds: int = BEAT) -> None:
        """Time passes by heartbeats."""
        for _ in range(seconds // BEAT):
            self.now += BEAT
            for bot in self.bots.values():
                if bot.away:
                    continue
                if self.now - bot.read >= ROUND:
                    self.read(bot)
                self.equality.hear("account", BotKey("a", bot.name), bot.view(self.now), self.now)
                for take in bot.waiting if bot.late else ():
                    take()
                if bot.late:
                    bot.waiting.clear()
                bot.late = False

    def restart_operator(self) -> None:
        kept = {name: (self.equality.rest(name) or {}, self.of(name)) for name in self.bots}
        self.equality = Equality()
        for name, (rest, standing) in kept.items():
            why = standing.message if standing is not None and standing.differs else ""
            self.equality.expect("account", BotKey("a", name), name, Kept(rest, why), self.now)

    def of(self, name: str) -> Standing | None:
        return self.equality.of(name, self.now)

    def standing(self) -> Standing:
        found = self.of(next(iter(self.bots)))
        assert found is not None
        return found


def test_bots_that_trade_on_one_account_are_told_equal_whatever_they_pay_their_fees_in() -> None:
    world = World(*MARKETS)
    world.beat(20)
    for name, (base, quote) in MARKETS.items():
        for fee in (base, quote, "BNB"):
            world.fill(name, 2, fee)
            world.fill(name, -1, fee)
    world.beat(20)
    assert [world.of(name) for name in MARKETS] == [Standing(True, others_hold_base=shared) for shared in
                                                    (True, False, True, True)]  # fmt: skip
    assert world.equality.rest("btc") == {"BTC": 1000, "USDT": 1000}


@pytest.mark.parametrize("asset", ["USDT", "BTC", "BNB"])
@pytest.mark.parametrize("amount", [-7, 7], ids=["loss", "gain"])
def test_a_hidden_movement_is_found_within_four_rounds_and_a_loss_is_called_one(asset: str, amount: int) -> None:
    world = World(*MARKETS)
    world.beat(20)
    world.hide(asset, amount)
    for minute in range(4):
        world.fill("eth", 1, "USDT")
        world.beat(ROUND)
        assert not world.standing().unexplained or minute > 1
    world.beat(20)
    found = world.standing()
    assert (found.equal, found.differs, found.unexplained) == (False, amount < 0, {asset: Decimal(amount)})
    has = world.account[asset]
    assert f"it has {has} {asset}, expected {has - amount}" in found.message
    world.fill("eth", 1, "USDT")
    world.beat(ROUND)
    assert world.standing().unexplained == {asset: Decimal(amount)}


def lost(world: World) -> Standing:
    world.beat(20)
    world.hide("USDT", -7)
    world.beat(5 * ROUND)
    assert world.standing().differs
    return world.standing()


def test_a_loss_stands_until_it_is_put_back() -> None:
    world = World("btc", "eth")
    lost(world)
    world.deposit("USDT", 7)  # told, so it makes up for nothing
    world.beat(5 * ROUND)
    assert world.standing().differs
    world.hide("USDT", 7)
    world.beat(2 * ROUND)
    assert world.standing() == Standing(True)


def test_a_loss_stands_until_a_human_takes_the_accounts_word() -> None:
    world = World("btc", "eth")
    lost(world)
    world.equality.take_as_it_is("eth")
    world.beat(20)
    assert world.standing() == Standing(True)
    assert (world.equality.rest("btc") or {})["USDT"] == 993


def test_another_operator_takes_the_account_up_where_the_former_one_left_it() -> None:
    world = World("btc", "eth")
    message = lost(world).message
    world.restart_operator()
    assert world.standing() == Standing(False, True, message)
    world.beat(20)
    assert (world.standing().differs, world.standing().unexplained) == (True, {"USDT": Decimal(-7)})

    world = World("btc", "eth")
    world.beat(20)
    world.hide("USDT", -7)
    for bot in world.bots.values():
        world.read(bot)
    world.restart_operator()
    world.beat(20)  # nobody looked meanwhile: it is told, and is no alarm
    assert (world.standing().differs, world.standing().unexplained) == (False, {"USDT": Decimal(-7)})


def gap(world: World) -> None:
    for bot in world.bots.values():
        bot.deaf = True
    world.deposit("USDT", -7)
    world.beat(20)
    for bot in world.bots.values():
        world.connect(bot)


def hand(world: World) -> None:
    world.by_hand("USDT", -7)


def former_bot(world: World) -> None:
    world.equality.forget("btcbnb")
    del world.bots["btcbnb"]
    world.bots["eth"].by_bots[names.bot_key("1001", "btcbnb")] = 1
    world.change({"BNB": Decimal(-7)})


@pytest.mark.parametrize("happens", [gap, hand, former_bot])
def test_a_loss_that_has_a_likely_reason_is_told_and_is_no_alarm(happens: Callable[[World], None]) -> None:
    world = World(*MARKETS)
    world.beat(20)
    happens(world)
    world.beat(5 * ROUND)
    found = world.standing()
    assert (found.equal, found.differs, list(found.unexplained.values())) == (False, False, [Decimal(-7)])


def test_what_came_is_not_taken_apart_from_why_it_came() -> None:
    world = World("btc")
    world.beat(20)
    world.bots["btc"].late = True
    world.by_hand("USDT", -7)
    world.beat(5 * ROUND)
    assert (world.standing().differs, world.standing().unexplained) == (False, {"USDT": Decimal(-7)})


def test_each_difference_is_looked_at_again_for_two_minutes() -> None:
    world = World("btc", "eth")
    world.beat(20)
    world.hide("USDT", -7)
    world.beat(150)
    world.hide("USDT", -3)
    world.beat(120)
    assert world.standing().unexplained == {}
    world.beat(120)
    assert world.standing().unexplained == {"USDT": Decimal(-10)}


def test_a_bot_that_does_not_tell_keeps_its_account_from_being_called_equal() -> None:
    world = World("btc", "eth")
    world.beat(20)
    world.bots["eth"].away = True
    world.beat(5 * ROUND)
    assert not world.standing().equal


def test_the_next_operator_counts_a_bot_that_the_former_one_did_not() -> None:
    world = World("btc", "eth")
    world.fill("btc", 3, "USDT")
    world.equality.expect("account", BotKey("a", "eth"), "eth", Kept({"USDT": world.account["USDT"]}), world.now)
    world.beat(20)
    assert world.standing() == Standing(True)
    assert (world.equality.rest("eth") or {})["USDT"] == 1000


def one_hears(world: World) -> None:
    for bot in list(world.bots.values())[1:]:
        bot.deaf = True
    world.deposit("USDT", -7)
    world.fill("eth", 1, "BNB")
    world.beat(20)
    for bot in list(world.bots.values())[1:]:
        world.connect(bot)


def comes_back(world: World) -> None:
    world.fill("btcbnb", 3, "BNB")
    world.beat(20)
    bot = world.bots.pop("btcbnb")
    world.equality.forget(bot.name)
    world.beat(5 * ROUND)
    assert world.standing().equal
    world.bots["btcbnb"] = bot
    world.connect(bot)


def is_away(world: World) -> None:
    world.bots["eth"].away = world.bots["eth"].deaf = True
    world.fill("eth", 3, "BNB")
    world.fill("btc", 3, "BNB")
    world.beat(5 * ROUND)
    assert world.standing().message.endswith("for three minutes: a/eth does not tell")
    world.bots["eth"].away = False
    world.connect(world.bots["eth"])


@pytest.mark.parametrize("happens", [one_hears, comes_back, is_away])
def test_what_one_bot_heard_and_bots_that_come_and_go_leave_the_account_equal(
    happens: Callable[[World], None],
) -> None:
    world = World(*MARKETS)
    world.beat(20)
    happens(world)
    world.beat(5 * ROUND)
    assert world.standing().equal


def test_a_bot_that_was_away_from_the_account_while_its_order_was_filled_is_no_loss() -> None:
    world = World(*MARKETS)
    world.beat(20)
    bot = world.bots["btcbnb"]
    world.equality.forget(bot.name)
    bot.away = True
    world.fill(bot.name, 3, "BNB")
    world.beat(20)
    bot.away = False
    world.beat(5 * ROUND)
    assert not world.standing().differs


def test_a_bot_whose_fill_cannot_be_read_is_waited_for() -> None:
    world = World("btc", "eth")
    world.beat(20)
    bot = world.bots["btc"]
    bot.settled = False
    world.fill("btc", 3, "USDT")
    for _ in range(5 * ROUND // BEAT):
        bot.read = world.now - 2 * BEAT  # the account it can read
        world.beat()
        assert not world.standing().unexplained
    bot.settled = True
    world.read(bot)
    world.beat(ROUND)
    assert world.standing().equal


def test_nothing_is_said_of_an_account_while_a_bot_of_it_never_told() -> None:
    world = World("btc", "eth")
    world.equality.join("account", BotKey("a", "old"), "old", world.now)
    world.beat(5 * ROUND)
    assert world.of("btc") is None


def test_what_lacked_of_an_asset_is_not_told_any_more_once_no_bot_has_that_asset() -> None:
    world = World("btc", "eth")
    world.beat(20)
    world.hide("ETH", -7)
    world.beat(5 * ROUND)
    assert world.standing().unexplained == {"ETH": Decimal(-7)}
    world.equality.forget("eth")
    del world.bots["eth"]
    assert world.standing() == Standing(True)
    world.beat(20)
    assert world.standing() == Standing(True)


def test_books_that_began_anew_say_nothing_of_what_was_before() -> None:
    world = World("btc", "eth")
    world.fill("btc", 3, "USDT")
    world.beat(20)
    world.bots["btc"].flows, world.bots["btc"].fills = {}, 0
    world.beat(5 * ROUND)
    assert world.standing().equal


def test_an_asset_whose_fills_the_exchange_rounds_is_not_compared() -> None:
    books = AccountBooks(held={"ETH": Decimal(1), "BTC": Decimal(1)}, flows={"ETH": Decimal(1)}, rounded=["BTC"])
    other = AccountBooks(held={"BTC": Decimal(1), "USDT": Decimal(5)})
    views = [View(key, key, "", "boot", one, 0.0) for key, one in (("ethbtc", books), ("btcusdt", other))]
    assert rest_of(views) == {"ETH": 0, "USDT": 5}


EVENTS: Any = st.one_of(
    st.tuples(st.just("fill"), st.sampled_from(list(MARKETS)), st.integers(-5, 5).filter(bool),
              st.sampled_from(["USDT", "BNB", "BTC"])),
    st.tuples(st.just("deposit"), st.sampled_from(["USDT", "BNB", "BTC"]), st.integers(-5, 5).filter(bool)),
    st.tuples(st.just("late"), st.sampled_from(list(MARKETS))),
    st.tuples(st.just("away"), st.sampled_from(list(MARKETS))),
    st.tuples(st.just("deaf"), st.sampled_from(list(MARKETS))),
    st.tuples(st.just("hand"), st.sampled_from(["USDT", "BNB", "BTC"]), st.integers(-5, 5).filter(bool)),
    st.tuples(st.just("operator")),
    st.tuples(st.just("wait"), st.sampled_from([BEAT, 20, ROUND, 4 * ROUND])),
)  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(st.lists(EVENTS, max_size=25), st.sampled_from([0, -3, 4]), st.sampled_from(["USDT", "BNB", "BTC"]))
def test_whatever_bots_exchange_and_operator_do_only_a_hidden_loss_is_called_one_and_each_is_found(
    events: list[tuple[Any, ...]], hidden: int, asset: str
) -> None:
    world = World(*MARKETS)
    world.beat(20)
    for event in events:
        match event:
            case "fill", name, quantity, fee:
                world.fill(name, quantity, fee)
            case "deposit", what, amount:
                world.deposit(what, amount)
            case "hand", what, amount:
                world.by_hand(what, amount)
            case "late", name:
                world.bots[name].late = not world.bots[name].deaf
            case "away" | "deaf", name:
                bot = world.bots[name]
                if not (bot.away or bot.deaf or bot.late):
                    bot.away, bot.deaf = event[0] == "away", True
            case ("operator",):
                world.restart_operator()
            case "wait", seconds:
                world.beat(seconds)
                for bot in world.bots.values():
                    if bot.deaf:
                        bot.away = False
                        world.connect(bot)
        standing = world.of("btc")
        assert standing is None or not standing.differs
    # All is well again: what was told so far is what nobody could have heard.
    world.beat(20)
    for bot in world.bots.values():
        if bot.deaf:
            bot.away = False
            world.connect(bot)
    world.beat(6 * ROUND)
    before = world.standing()
    assert not before.differs
    assert before.equal is not bool(before.unexplained)
    if not any(event[0] in {"hand", "deaf", "away", "operator"} for event in events):
        assert before.equal
    world.equality.take_as_it_is("btc")
    world.beat(20)
    assert world.standing().equal

    world.hide(asset, hidden)
    world.fill("eth", 1, "BNB")
    world.beat(4 * ROUND)
    found = world.standing()
    assert (found.equal, found.differs) == (not hidden, hidden < 0)
    assert found.unexplained == ({asset: Decimal(hidden)} if hidden else {})
    assert world.now > EQUAL_LIFE_SECONDS


def test_a_status_hands_what_was_found_of_the_account_to_the_next_operator_and_outlives_a_silence() -> None:
    seen = Observed(NOW, seen_bot(), Finding.good(), Finding.good(), None, "", word(), Finding.good(), 1)
    rest = {"BTC": Decimal(0), "USDT": Decimal("993.5")}
    for account, expected in (
        (Standing(False, True, "it lacks"), Kept(rest, "it lacks")),
        (Standing(True), Kept(rest, equal=True)),
        (Standing(False, message="not compared"), Kept(rest)),
    ):
        told = compose(replace(seen, account=account, account_rest=rest))
        assert kept(read_status(TradingBotStatus, encode(told))) == expected
    silent = replace(seen, bot=seen_bot(status=encode(told)), word=None)
    assert kept(compose(silent)).rest == rest
    assert kept(TradingBotStatus()) == Kept()
