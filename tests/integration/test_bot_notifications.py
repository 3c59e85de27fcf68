"""Notifications to a webhook over real sockets: one that answers, is slow, is dead, or refuses."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from paper_exchange.testing import PaperExchange
from support.bot_process import bot_process, config, enter, make, settings
from support.waiting import until
from tradingbot.clocks import Clocks
from tradingbot.monitoring.alerts import Alerts

pytestmark = pytest.mark.integration


class NoPatience(Random):
    """Retries follow at once."""

    def uniform(self, a: float, b: float) -> float:
        """The least."""
        return a


@dataclass
class Receiver:
    """A webhook that notes what it got and answers as the test says."""

    bodies: list[Any] = field(default_factory=list)
    answer: Callable[[], Awaitable[web.Response]] | None = None
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        """One post."""
        self.bodies.append(await request.json())
        return web.Response() if self.answer is None else await self.answer()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made, application = Receiver(), web.Application()
    application.router.add_post("/services/T0/secret-token", made.take)
    async with TestServer(application) as server:
        made.url = str(server.make_url("/services/T0/secret-token"))
        yield made


@asynccontextmanager
async def alerts(directory: Path, **notifications: Any) -> AsyncIterator[tuple[Alerts, Counter[str]]]:
    """Alerts of a bot that is not there, and how its notes fared."""
    wanted = settings("http://nowhere.invalid", notifications=notifications)
    counts: Counter[str] = Counter()

    def count(result: str) -> None:
        counts[result] += 1

    running = Alerts(config(wanted).bot, lambda: wanted, directory, Clocks(random=NoPatience()), count)
    task = asyncio.create_task(running.run())
    try:
        yield running, counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def write(directory: Path, url: str) -> None:
    (directory / "webhookURL").write_text(url + "\n")


async def test_a_note_becomes_the_body_of_the_template_and_others_wait_for_their_interval(
    tmp_path: Path, receiver: Receiver
) -> None:
    write(tmp_path, receiver.url)
    template = '{"chat_id": 7, "text": "$kind $message +$suppressed"}'
    async with alerts(tmp_path, template=template, minIntervalSeconds=1) as (running, counts):
        running.tell("Exited", {"message": "first"})
        await until("the first", lambda: receiver.bodies)
        for number in range(1000):
            running.tell("Exited", {"message": f"number {number}"})
        running.tell("Signal", {"message": "nobody asked for it"})
        await until("the last", lambda: len(receiver.bodies) == 2)
    assert receiver.bodies == [
        {"chat_id": 7, "text": "Exited first +0"},
        {"chat_id": 7, "text": "Exited number 999 +999"},
    ]
    assert counts == {"sent": 2, "suppressed": 999}


async def test_a_receiver_that_fails_is_tried_again_and_one_that_refuses_is_not(
    tmp_path: Path, receiver: Receiver
) -> None:
    write(tmp_path, receiver.url)
    codes = iter((503, 429, 200, 404))
    times: list[float] = []

    async def answer() -> web.Response:
        times.append(time.monotonic())
        return web.Response(status=next(codes), headers={"Retry-After": "1.1"} if len(times) == 1 else None)

    receiver.answer = answer
    async with alerts(tmp_path) as (running, counts):
        running.tell("TakeProfit", {"message": "a"})
        await until("the third try", lambda: counts == {"sent": 1})
        running.tell("StopLoss", {"message": "b"})
        await until("the refusal", lambda: counts == {"sent": 1, "failed": 1})
    assert len(receiver.bodies) == 4
    assert times[1] - times[0] > 1.1, "longer than the bot's own first pause"


async def test_no_redirect_is_followed(tmp_path: Path, receiver: Receiver) -> None:
    write(tmp_path, receiver.url)

    async def answer() -> web.Response:
        return web.Response(status=307, headers={"Location": receiver.url})

    receiver.answer = answer
    async with alerts(tmp_path) as (running, counts):
        running.tell("TakeProfit", {"message": "a"})
        await until("the refusal", lambda: counts == {"failed": 1})
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:9/secret-token", id="nobody-listens"),
        pytest.param("secret-token", id="no-address"),
        pytest.param(None, id="no-such-key"),
    ],
)
async def test_a_dead_receiver_costs_a_note_and_its_address_is_not_logged(
    tmp_path: Path, url: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if url is not None:
        write(tmp_path, url)
    async with alerts(tmp_path) as (running, counts):
        running.tell("TwoTraders", {"message": "a"})
        await until("the end of it", lambda: counts == {"failed": 1})
    log = capsys.readouterr().out
    assert "notification not delivered" in log
    assert "secret-token" not in log


async def test_a_slow_receiver_holds_nobody_up_and_no_memory(tmp_path: Path, receiver: Receiver) -> None:
    write(tmp_path, receiver.url)
    let_go = asyncio.Event()

    async def answer() -> web.Response:
        await let_go.wait()
        return web.Response()

    receiver.answer = answer
    async with alerts(tmp_path, minIntervalSeconds=1) as (running, counts):
        running.tell("Exited", {"message": "held"})
        await until("the post", lambda: receiver.bodies)
        started = time.process_time()
        for number in range(10_000):
            running.tell(("TakeProfit", "StopLoss", "Exited")[number % 3], {"message": str(number)})
        assert time.process_time() - started < 1  # a ten-thousandth of it per event of trading
        assert counts == {"suppressed": 10_000 - 3}  # one of each kind waits
        let_go.set()
        await until("the rest", lambda: counts["sent"] == 4)


async def test_a_bot_tells_a_webhook_of_its_trades_and_no_log_has_the_address(
    tmp_path: Path, small_paper: PaperExchange, receiver: Receiver
) -> None:
    account = await small_paper.create_account(USDT="10000")
    kinds = ["EntryFilled", "SafeMode"]
    folder = make(tmp_path, small_paper, account, notifications={"kinds": kinds, "minIntervalSeconds": 1})
    write(folder.root / "keys", receiver.url)
    async with bot_process(folder) as bot:
        await enter(bot)
        told = await until("the entry", lambda: [body for body in receiver.bodies if "EntryFilled" in body["text"]])
        await until("safe mode", lambda: {"text": "btcusdt (BTCUSDT) SafeMode: ended"} in receiver.bodies)
        _, metrics = await bot.probe("/metrics")
    assert told[0]["text"].startswith("btcusdt (BTCUSDT) EntryFilled: ")
    assert 'tradingbot_notifications_total{result="sent",symbol="BTCUSDT"}' in metrics
    assert "secret-token" not in "".join(bot.log) + metrics + json.dumps(bot.status.model_dump(mode="json"))
