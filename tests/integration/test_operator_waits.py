"""A ban of one bot: all of its address are told within a second over the operator's own links, and nobody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from support.bot_double import BotDouble
from support.operator_objects import raw_pod, seen_bot
from support.operator_process import make_authority
from support.waiting import until
from tradingbot.monitoring.http_api import TLS_AUTHORITY, TLS_CERTIFICATE, TLS_KEY
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus, Grant
from tradingbot_operator import desired
from tradingbot_operator.bot_link import BotLink, Opening, Peer, client_session
from tradingbot_operator.certificates import CertificateAuthority
from tradingbot_operator.egress import EgressGroup, address_of
from tradingbot_operator.fleet import Fleet, Memory
from tradingbot_operator.inventory import BotKey, Inventory, SeenBot, SeenPod
from tradingbot_operator.leader import Leader
from tradingbot_operator.metrics import Metrics
from tradingbot_operator.sharding import account_of
from tradingbot_operator.wait_lane import WaitLane

pytestmark = pytest.mark.integration
GROUPS = (EgressGroup("nat-2", {"zone": "b"}),)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Scene:
    """Bots that answer, and what the leader knows of them."""

    doubles: list[BotDouble]
    lane: WaitLane
    orders: WaitLane
    fleet: Fleet

    async def told(self, bots: list[BotDouble], begun: float, seconds: float = 30) -> float:
        """Seconds from `begun` until the last of them was told of a wait."""
        await until("all to be told", lambda: all(bot.waits for bot in bots), seconds)
        return max(bot.waits[0][0] for bot in bots) - begun


async def grant(memory: Memory) -> None:
    """As each bot gets it all the time: its connection is open."""
    link, word = memory.link, memory.word()
    assert link is not None
    assert word is not None
    status = word.status
    await link.put_grant(
        Grant(
            bot_uid=memory.uid,
            boot_id=status.boot_id,
            incarnation=status.incarnation or 0,
            revision=status.applied_revision,
            status_sequence=status.sequence,
            epoch=1,
        )
    )


@asynccontextmanager
async def scene(folder: Path, zones: list[str | None], network: int, weight: int = 6_000) -> AsyncIterator[Scene]:
    """A bot for each node selector's zone, each at an address of its own in 127.`network`.0.0/16."""
    make_authority(folder)
    authority = CertificateAuthority.load(folder)
    bots: Inventory[SeenBot] = Inventory()
    pods: Inventory[SeenPod] = Inventory()
    fleet, metrics = Fleet(), Metrics()
    leader = cast(Leader, SimpleNamespace(epoch=1))
    async with AsyncExitStack() as stack:
        session, opening = client_session(lambda: None), Opening()
        stack.push_async_callback(session.close)
        tls = authority.client_context(utc_now())
        lane = WaitLane(
            lambda bot: address_of(bot, pods.get(bot.key), GROUPS), weight,
            bots=bots, fleet=fleet, leader=leader, now=utc_now,
        )  # fmt: skip
        stack.push_async_callback(lane.close)

        def account(bot: SeenBot) -> tuple[str, str] | None:
            memory = fleet.known(bot.key)
            word = memory.word() if memory is not None else None
            return account_of(bot, word.status.account_uid if word is not None else None)

        orders = WaitLane(account, 0, bots=bots, fleet=fleet, leader=leader, now=utc_now, of_orders=True)
        stack.push_async_callback(orders.close)

        def heard(key: BotKey, _: BotStatus | None, after: BotStatus | None) -> None:
            bot, memory = bots.get(key), fleet.known(key)
            if after is not None and bot is not None and memory is not None:
                memory.last = memory.link.word if memory.link is not None else None
                lane.heard(bot, memory, after)
                orders.heard(bot, memory, after)

        doubles: list[BotDouble] = []

        async def stop_all() -> None:
            await asyncio.gather(*(double.stop() for double in doubles))

        stack.push_async_callback(stop_all)
        for number, zone in enumerate(zones):
            key, uid = BotKey("trading", f"b{number}"), f"0a1b2c3d-0000-4000-8000-{number:012d}"
            shape: dict[str, Any] = {"nodeSelector": {"zone": zone}} if zone else {}
            bot = seen_bot(pod=shape)
            bot = SeenBot(**{**bot.__dict__, "key": key, "uid": uid})
            raw = raw_pod({"running": {}})
            raw["metadata"] |= {"name": key.name, "ownerReferences": [{"uid": uid, "controller": True}]}
            raw["spec"] |= shape
            raw["status"]["podIP"] = f"127.{network}.{number // 250}.{number % 250 + 1}"
            pod = SeenPod.of(raw)
            bots.see(bot)
            pods.see(pod)
            pair = authority.issue_bot(uid, utc_now())
            tls_folder = folder / key.name
            tls_folder.mkdir()
            (tls_folder / TLS_CERTIFICATE).write_bytes(pair.certificate)
            (tls_folder / TLS_KEY).write_bytes(pair.key)
            (tls_folder / TLS_AUTHORITY).write_bytes(authority.pem)
            settings = desired.settings_of(desired.parse_spec(bot))
            config = BotConfig(
                revision=1, bot=BotIdentity(namespace="trading", name=key.name, uid=uid), settings=settings
            )
            double = BotDouble(config)
            await double.start(tls_folder, cast(str, pod.ip))
            peer = Peer.of(uid, pod)
            assert peer is not None
            link = BotLink(
                peer,
                session,
                tls,
                heard=heard,
                random=Random(number),
                metrics=metrics,
                epoch=lambda: 1,
                opening=opening,
            )
            stack.callback(link.close)
            fleet.of(bot).link = link
            doubles.append(double)
        await until("all to be heard", lambda: all(memory.word() is not None for memory in fleet), 60)
        await asyncio.gather(*(grant(memory) for memory in fleet))
        yield Scene(doubles, lane, orders, fleet)


async def test_a_ban_of_one_stops_all_of_its_address_within_a_second_and_they_come_back_in_turn(tmp_path: Path) -> None:
    zones: list[str | None] = [*[None] * 40, *["b"] * 10]
    async with scene(tmp_path, zones, network=61) as it:
        banned, *others = it.doubles[:40]
        holders, elsewhere = others[-5:], it.doubles[40:]
        for holder in holders:
            holder.quantity = Decimal("0.01")
            holder.wake()
        await until("positions to be known", lambda: sum(_holding(memory) for memory in it.fleet) == 5)
        begun = time.monotonic()
        banned.banned_until = utc_now() + timedelta(seconds=120)
        banned.wake()

        assert await it.told(others, begun) < 1

        assert not any(bot.waits for bot in elsewhere)
        told = {id(bot): bot.waits[0][1] for bot in it.doubles[:40] if bot.waits}
        assert all(119 - (time.monotonic() - begun) < wait.seconds <= 120 for wait in told.values())
        turns = sorted(wait.turn_seconds for wait in told.values())
        assert len(set(turns)) == len(turns), "no two at the same time"
        assert {told[id(bot)].turn_seconds for bot in holders} == set(turns[:5])


async def test_who_comes_later_is_told_with_its_first_word_and_a_new_leader_hears_it_from_any_bot(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, [None] * 3, network=62) as it:
        first, second, third = it.doubles
        end = utc_now() + timedelta(seconds=90)
        first.banned_until = end
        first.wake()
        await it.told([second, third], time.monotonic())
        assert second.waits[0][1].until_time == end, "told on as it was told"
        # The bot that was banned is gone; another start of the third has heard nothing.
        await first.stop()
        third.boot_id, third.waits = "another", []
        third.wake()
        await until("the new start to be told", lambda: bool(third.waits))
        # Told on by bots that were told, the wait does not grow.
        second.banned_until = third.banned_until = end
        second.wake()
        third.wake()
        await until("both to be heard", lambda: sum(_tells(memory, end) for memory in it.fleet) == 3)
        assert {wait.until_time for bot in (second, third) for _, wait in bot.waits} == {end}


async def test_an_entry_refused_as_too_many_is_told_to_all_of_its_account_at_any_address_and_stops_nothing_else(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path, [None, None, "b", None], network=63) as it:
        refused, *others, another = it.doubles
        another.account_uid = "4711"
        another.wake()
        await until("its account to be known", lambda: any(_account(memory) == "4711" for memory in it.fleet))
        begun, end = time.monotonic(), utc_now() + timedelta(seconds=9)
        refused.orders_refused_until = end
        refused.wake()

        assert await it.told([refused, *others], begun) < 1

        waits = [wait for bot in others for _, wait in bot.waits]
        assert {wait.orders_until_time for wait in waits} == {end}
        assert all(0 < wait.orders_seconds <= 9 for wait in waits)
        assert all(wait.seconds == 0 and wait.until_time < utc_now() for wait in waits), (
            "an older bot waits for nothing"
        )
        others[0].orders_refused_until = end
        others[0].wake()
        await until("it to be heard", lambda: sum(_refused(memory) == end for memory in it.fleet) == 2)
        assert [len(bot.waits) for bot in (*others, another)] == [1, 1, 0]


def _account(memory: Memory) -> str | None:
    return memory.last.status.account_uid if memory.last is not None else None


def _refused(memory: Memory) -> datetime | None:
    use = memory.last.status.order_use if memory.last is not None else None
    return use.refused_until_time if use is not None else None


def _tells(memory: Memory, end: datetime) -> bool:
    api = memory.last.status.api if memory.last is not None else None
    return api is not None and api.wait_until_time == end


def _holding(memory: Memory) -> bool:
    position = memory.last.status.position if memory.last is not None else None
    return position is not None and position.quantity > 0
