"""What an account lacks of what all its bots claim: who is told, and who gets no grant."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.operator_objects import NOW, UID, seen_bot, word
from tradingbot_api.bot_http import ENTRY_ORDERS, AssetClaim, Grant, OrderCount, OrderUse
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_operator.bot_controller import BotController, claims, news
from tradingbot_operator.bot_link import Word
from tradingbot_operator.bot_talk import BotTalk
from tradingbot_operator.certainty import Certainty
from tradingbot_operator.claims import Claims
from tradingbot_operator.coverage import COVERED, Coverage, Member, Shortage, judge
from tradingbot_operator.equality import Equality, Kept
from tradingbot_operator.fleet import Fleet, Ledger, Memory
from tradingbot_operator.imposed import NOBODY
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.order_shares import OrderShares
from tradingbot_operator.settings import Settings
from tradingbot_operator.sharding import ALONE, account_of
from tradingbot_operator.shares import Shares
from tradingbot_operator.status import Finding, Observed, compose


def claim(asset: str, claimed: str, held: str, least: str = "0") -> AssetClaim:
    return AssetClaim(asset=asset, claimed=Decimal(claimed), held=Decimal(held), least=Decimal(least))


def member(
    name: str, age: int, base: AssetClaim | None = None, quote: AssetClaim | None = None, heard: float = 1.0
) -> Member:
    """The greater `age`, the younger."""
    return Member(BotKey("trading", name), name, (age, name), base, quote, heard)


@pytest.mark.parametrize(
    ("members", "short"),
    [
        pytest.param(
            [
                member("new", 2, quote=claim("USDT", "1000", "1200")),
                member("old", 1, quote=claim("USDT", "1000", "1200")),
            ],
            {"new": "The account has 1200 USDT, the capitals of this bot and older ones need 2000."},
            id="the-youngest-capital",
        ),
        pytest.param(
            [member("a", 1, quote=claim("USDT", "1000", "1000")), member("b", 2, quote=claim("EUR", "1000", "1000"))],
            {},
            id="each-quote-apart",
        ),
        pytest.param(
            [
                member("old", 1, quote=claim("USDT", "1000", "1500", "0"), heard=1.0),
                member("new", 2, quote=claim("USDT", "1000", "2000", "0"), heard=2.0),
            ],
            {},
            id="the-newest-word-of-the-balance",
        ),
        pytest.param(
            [member("a", 1, base=claim("BTC", "1", "2")), member("b", 2, base=claim("BTC", "1", "2"))], {}, id="covered"
        ),
        pytest.param(
            [
                member("a", 1, base=claim("BTC", "1", "1.5")),
                member("b", 2, base=claim("BTC", "1", "1.5")),
                member("flat", 3, base=claim("BTC", "0", "1.5")),
            ],
            {"a": "The account has 1.5 BTC, the positions", "b": "need 2."},
            id="whose-base-lacks-is-not-known",
        ),
        pytest.param(
            [member("a", 1, base=claim("BTC", "1", "1.99998", "0.00001")),
             member("b", 2, base=claim("BTC", "1", "1.99998", "0.00001"))],
            {},
            id="dust",
        ),
        pytest.param(
            [member("btc", 1, base=claim("BTC", "1", "1.5")), member("ethbtc", 2, quote=claim("BTC", "1", "1.5"))],
            {"ethbtc": "1.5 BTC, the capitals of this bot and older ones need 2."},
            id="one-bots-position-is-not-anothers-capital",
        ),
    ],
)  # fmt: skip
def test_an_account_is_judged_over_all_its_bots(members: list[Member], short: dict[str, str]) -> None:
    found = {uid: shortage for uid, shortage in judge(members).items() if shortage}

    assert found.keys() == short.keys()
    assert all(text in f"{found[uid].position}{found[uid].capital}" for uid, text in short.items())


def test_who_is_concerned_by_a_change_hears_of_it_and_accounts_are_apart() -> None:
    coverage = Coverage()
    old, new = (member(name, age, quote=claim("USDT", "1000", "1200")) for age, name in enumerate(("old", "new")))
    assert coverage.see("one", old) == []
    assert coverage.see("two", new) == []
    assert coverage.see("one", new) == [new.key]
    assert coverage.of("new").capital
    assert coverage.forget("old") == [new.key]
    assert coverage.of("new") == COVERED == coverage.of("old")
    assert coverage.forget("old") == []


def test_other_amounts_are_a_reason_to_look_again_while_something_lacks_in_the_account() -> None:
    # The fill is told a moment before the balance that it changed.
    early, late = claim("BTC", "0.5", "0"), claim("BTC", "0.5", "0.5")
    before, after = word(base_claim=early), word(base_claim=late)
    assert news(before) == news(after)
    assert claims(before) != claims(after)
    coverage = Coverage()
    coverage.see("one", member("a", 1, base=early))
    coverage.see("one", member("b", 2))
    assert coverage.lacks("a")
    assert coverage.lacks("b")
    coverage.see("one", member("a", 1, base=late, heard=2.0))
    assert not coverage.lacks("b")
    assert not coverage.lacks("unknown")


@pytest.mark.parametrize(
    ("shortage", "kind", "reason"),
    [
        pytest.param(
            Shortage(capital="too little"), ConditionType.CAPITAL_COVERED, Reason.CAPITAL_NOT_COVERED, id="capital"
        ),
        pytest.param(Shortage(position="too little"), ConditionType.BALANCE_SYNCED, Reason.DRIFT, id="position"),
    ],
)
def test_a_shortage_of_the_account_is_told_by_the_condition_of_the_bot(
    shortage: Shortage, kind: ConditionType, reason: Reason
) -> None:
    seen = Observed(NOW, seen_bot(), Finding.good(), Finding.good(), None, "", word(), Finding.good(), 1)

    for given, expected in ((shortage, ("False", reason)), (COVERED, ("True", None))):
        status = compose(Observed(**{**vars(seen), "shortage": given}))
        told = next(item for item in status.conditions if item.type == kind)
        assert (told.status, told.reason if given else None) == expected


async def test_a_tradingbot_that_is_made_anew_under_its_name_shares_its_account_with_nobody_that_is_gone() -> None:
    bots, fleet, unused = Inventory[SeenBot](), Fleet(), cast(Any, None)
    settings = SimpleNamespace(namespaces=(), shard=ALONE, egress_groups=(), exchange_weight=0, identity="me")
    controller = BotController(
        cast(Settings, settings), cluster=unused, bots=bots, pods=Inventory(), fleet=fleet,
        claims=Claims(unused, "tb"), authority=unused, tls=unused, session=unused, enqueue=lambda *_: None,
        has_turn=lambda _: True, leader=unused, impositions=NOBODY, now=lambda: NOW, random=Random(1),
        metrics=Metrics(), reservations=unused,
    )  # fmt: skip
    for uid, version in (("1-former", "10"), ("2-anew", "20")):
        bot = seen_bot(metadata={"uid": uid, "resourceVersion": version})
        # Its step comes once both events were seen.
        bots.gone(bot.key, "1-former")
        bots.see(bot)
        memory = fleet.of(bot)
        memory.last = Word(word(quote_claim=claim("USDT", "1000", "1500")), 0.0)
        controller._see_claims(bot, memory)
    assert controller._coverage.of("2-anew") == COVERED
    account = account_of(bot, "1001")
    assert controller._equality.bots_of(account) == [bot.key]


async def test_a_bot_whose_account_lacks_something_gets_no_grant_until_it_is_there() -> None:
    class Link:
        granted: list[Grant] = []  # noqa: RUF012, of this test alone

        async def put_grant(self, grant: Grant) -> None:
            self.granted.append(grant)

    coverage, equality, link, unused = Coverage(), Equality(), Link(), cast(Any, None)
    leader = cast(Any, SimpleNamespace(epoch=1))
    talk = BotTalk(
        cluster=unused, bots=unused, claims=unused, certainty=Certainty(unused, unused, leader), coverage=coverage,
        equality=equality, impositions=NOBODY, leader=leader, tls=unused, session=unused, heard=unused, enqueue=unused,
        now=lambda: NOW, random=Random(1), metrics=unused,
        shares=Shares((), 0, bots=Inventory(), pods=Inventory(), time=lambda: 0.0),
        orders=OrderShares(lambda: 0.0, lambda: NOW),
    )  # fmt: skip
    bot, status = seen_bot(), word(causes=(Reason.AWAITING_GRANT,))
    memory = Memory(UID, bot.key, ledger=Ledger(None, None, None), claim=Finding.good(), confirmed=(1, "boot-1"))
    assert memory.ledger is not None
    memory.ledger.want_spec(bot)
    coverage.see("account", member(UID, 1, quote=claim("USDT", "1000", "900")))
    await talk._grant(bot, memory, status, cast(Any, link), [])
    assert link.granted == []
    coverage.see("account", member(UID, 1, quote=claim("USDT", "1000", "1000")))
    equality.expect("account", bot.key, UID, Kept(differs="something lacks that nobody told of"), 0.0)
    await talk._grant(bot, memory, status, cast(Any, link), [])
    assert link.granted == []
    equality.take_as_it_is(UID)
    await talk._grant(bot, memory, status, cast(Any, link), [])
    assert [grant.boot_id for grant in link.granted] == ["boot-1"]
    assert asyncio.get_running_loop().time() >= (memory.last_grant or 0)
    assert link.granted[-1].entry_orders is None, "a version that tells nothing of its account's orders"
    use = OrderUse(
        counts=[OrderCount(interval="10S", seconds=10, limit=100)], wanted=ENTRY_ORDERS, asks=True, allotted=0
    )
    await talk._grant(bot, memory, status.model_copy(update={"order_use": use}), cast(Any, link), [])
    assert link.granted[-1].entry_orders == ENTRY_ORDERS, "at once, though the grant is new"


def test_what_is_found_bot_by_bot_is_what_all_bots_together_show() -> None:
    for seed in range(40):
        random = Random(seed)
        coverage, members = Coverage(), {}
        for heard in range(60):
            name = f"bot-{random.randrange(6)}"
            if random.random() < 0.15:
                members.pop(name, None)
                coverage.forget(name)
            else:
                base = claim(random.choice(("BTC", "BNB")), str(random.randint(-1, 3)), str(random.randint(0, 9)), "1")
                quote = claim(
                    random.choice(("USDT", "BNB")), str(random.randint(-5, 900)), str(random.randint(0, 2500))
                )
                told = member(
                    name, int(name[-1]), random.choice((base, None)), random.choice((quote, None)), float(heard)
                )
                members[name] = told
                coverage.see("account", told)
            expected = judge(members.values())
            assert {name: coverage.of(name) for name in members} == expected, (seed, heard)
