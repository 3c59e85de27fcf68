"""A ban that one bot meets stops the others of its address, and nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from support.operator_objects import seen_bot, word
from tradingbot_api.bot_http import Grant
from tradingbot_operator.bot_link import BotLink, Word
from tradingbot_operator.bot_talk import BotTalk
from tradingbot_operator.coverage import Coverage
from tradingbot_operator.egress import EgressWaits, group_of, same_group
from tradingbot_operator.equality import Equality
from tradingbot_operator.fleet import Memory
from tradingbot_operator.inventory import BotKey, SeenBot
from tradingbot_operator.status import Finding

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=90)


def bot(name: str, group: str | None, environment: str = "Live") -> SeenBot:
    made = seen_bot(exchange={"environment": environment, **({"egressGroup": group} if group else {})})
    return SeenBot(**{**made.__dict__, "key": BotKey("trading", name)})


def test_bots_of_one_address_wait_together_until_the_demanded_time() -> None:
    waits = EgressWaits()
    first, second, other, alone = bot("a", "nat-1"), bot("b", "nat-1"), bot("c", "nat-2"), bot("d", None)
    assert waits.tell(first, SOON)
    assert waits.until(second, NOW) == SOON
    assert waits.until(second, SOON) is None
    assert waits.until(other, NOW) is None
    assert waits.until(alone, NOW) is None
    assert same_group([first, second, other, alone], first) == [second]


def test_a_wait_is_news_once_and_only_a_longer_one_again() -> None:
    waits = EgressWaits()
    assert not waits.tell(bot("a", "nat-1"), None)
    assert waits.tell(bot("a", "nat-1"), SOON)
    assert not waits.tell(bot("b", "nat-1"), SOON)
    assert not waits.tell(bot("b", "nat-1"), NOW)
    assert waits.tell(bot("b", "nat-1"), SOON + timedelta(seconds=1))


def test_a_bot_without_a_group_and_one_of_another_exchange_share_nothing() -> None:
    waits = EgressWaits()
    assert not waits.tell(bot("a", None), SOON)
    assert waits.tell(bot("a", "nat-1", "Testnet"), SOON)
    assert waits.until(bot("b", "nat-1", "Live"), NOW) is None
    assert group_of({}) is None


async def test_a_wait_goes_out_with_a_grant_at_once_and_is_not_repeated_before_the_next() -> None:
    granted: list[Grant] = []

    async def put_grant(grant: Grant) -> None:
        granted.append(grant)

    waits = EgressWaits()
    talk = BotTalk(
        cluster=None, bots=None, claims=None, certainty=None, leader=SimpleNamespace(epoch=1), tls=None,
        session=None, heard=None, enqueue=None, now=lambda: NOW, random=None, metrics=None, waits=waits,
        coverage=Coverage(),
        equality=Equality(),
    )  # type: ignore[arg-type]  # fmt: skip
    me = bot("a", "nat-1")
    memory = Memory(me.uid, me.key, claim=Finding.good())
    memory.ledger = cast(Any, SimpleNamespace(revision=1, settings=None))
    told = word()
    memory.confirmed = (1, told.boot_id)
    link = cast(BotLink, SimpleNamespace(put_grant=put_grant, word=Word(told, asyncio.get_running_loop().time())))

    await talk._grant(me, memory, told, link, [])
    waits.tell(bot("b", "nat-1"), SOON)
    await talk._grant(me, memory, told, link, [])
    await talk._grant(me, memory, told, link, [])

    assert [grant.exchange_wait_seconds for grant in granted] == [0, 90]
