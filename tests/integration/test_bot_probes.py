"""A bot's probes on virtual time: ready where it sees and reaches the exchange, alive where its tasks go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import structlog

from paper_exchange.testing import PaperExchange, TestAccount
from paper_exchange.virtual_loop import VirtualLoop
from support.waiting import until
from tradingbot.app import BotApp
from tradingbot.gateway.market_watch import QUIET_SECONDS
from tradingbot.gateway.streams import StreamName
from tradingbot.lab.paper import drop_log
from tradingbot.lab.sim import SimRun, simulate
from tradingbot.monitoring.health import UNREADY_AFTER_SECONDS

pytestmark = pytest.mark.integration


@dataclass
class Probed:
    """A simulated bot, its exchange, and its probes."""

    exchange: PaperExchange
    apps: list[BotApp]
    ports: list[int]

    @property
    def app(self) -> BotApp:
        """The bot."""
        return self.apps[0]

    async def probe(self, path: str) -> tuple[int, str]:
        """Status and body."""
        async with self.exchange.session.get(f"http://127.0.0.1:{self.ports[0]}{path}") as answer:
            return answer.status, (await answer.text()).strip()

    async def until_told(self, path: str, text: str, seconds: float) -> str:
        """Wait until the body of a probe has this text."""

        async def told() -> str | None:
            _, body = await self.probe(path)
            return body if text in body else None

        return str(await until(f"{path} to say {text}", told, seconds, every=1.0))


@pytest.fixture
def beside_a_bot(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Simulates a bot for some minutes while the test does its work."""
    structlog.configure(processors=[drop_log])

    def run(work: Callable[[Probed], Coroutine[Any, Any, None]], minutes: float) -> None:
        apps, ports, done = list[BotApp](), list[int](), list[bool]()
        start = BotApp.run

        async def start_and_tell(app: BotApp) -> None:
            apps.append(app)
            await start(app, lambda probes, _: ports.append(probes))

        async def beside(exchange: PaperExchange, _account: TestAccount) -> None:
            probed = Probed(exchange, apps, ports)
            await until("the bot to serve", lambda: ports)
            await exchange.set_speed(0.2)
            await probed.until_told("/readyz", "ok", 30)
            await work(probed)
            done.append(True)

        monkeypatch.setattr(BotApp, "run", start_and_tell)
        simulate(SimRun("BTCUSDT", timedelta(minutes=minutes)), lambda _: None, beside)
        assert done, "the simulation ended before the test"

    yield run
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        pytest.param("GET /ws-api/v3", "StreamDead: the user stream", id="user"),
        pytest.param("GET /stream", "StreamDead: the market stream", id="market"),
    ],
)
def test_a_bot_with_a_dead_stream_is_not_ready_until_it_is_back_and_one_reconnect_is_none(
    beside_a_bot: Any, endpoint: str, reason: str
) -> None:
    async def work(it: Probed) -> None:
        await it.exchange.start_fault("error", endpoints=[endpoint])
        await it.exchange.drop_connections()
        await asyncio.sleep(UNREADY_AFTER_SECONDS - 2)
        assert await it.probe("/readyz") == (200, "ok")
        await it.until_told("/readyz", reason, 10)
        assert (await it.probe("/readyz"))[0] == 503
        # A restart would not bring the exchange back, and the operator is told by the conditions.
        assert (await it.probe("/healthz"))[0] == 200
        await it.exchange.clear_faults()
        await it.until_told("/readyz", "ok", 70)

    beside_a_bot(work, 1.5)


def test_a_bot_whose_market_stream_brings_nothing_is_not_ready_and_goes_on_with_the_price_of_the_exchange(
    beside_a_bot: Any,
) -> None:
    async def work(it: Probed) -> None:
        session = it.app.desk.session
        assert session is not None
        connects = session.streams.health(StreamName.MARKET).connects
        await it.exchange.start_fault("drop_events", streams=["btcusdt@*"])
        await it.until_told("/readyz", "StreamDead: the market stream", 60)
        known = session.market.book
        assert known is not None
        assert session.price == known.bid
        assert asyncio.get_running_loop().time() - known.received <= QUIET_SECONDS + 1
        assert session.streams.health(StreamName.MARKET).connects > connects
        await it.exchange.clear_faults()
        await it.until_told("/readyz", "ok", 10)

    beside_a_bot(work, 1.5)


def test_a_bot_with_an_open_circuit_is_not_ready(beside_a_bot: Any) -> None:
    async def work(it: Probed) -> None:
        await it.exchange.fail_rest(503, 60)
        await it.until_told("/readyz", "CircuitOpen: the exchange failed", 50)
        assert (await it.probe("/readyz"))[0] == 503
        assert (await it.probe("/healthz"))[0] == 200

    beside_a_bot(work, 1)


def test_a_lock_that_is_held_for_ever_fails_liveness(beside_a_bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tradingbot.monitoring.progress.STUCK_SECONDS", 20.0)

    async def work(it: Probed) -> None:
        assert it.app.desk.session is not None
        async with it.app.desk.session.manager._lock:
            await asyncio.sleep(18)
            assert (await it.probe("/healthz"))[0] == 200
            await it.until_told("/healthz", "orders has made no progress for 2", 10)
            assert (await it.probe("/healthz"))[0] == 503
        await it.until_told("/healthz", "ok", 5)

    beside_a_bot(work, 1)


def test_a_blocked_loop_is_measured_and_one_that_does_not_turn_fails_liveness(beside_a_bot: Any) -> None:
    async def lag(it: Probed) -> float:
        _, text = await it.probe("/metrics")
        (line,) = (line for line in text.splitlines() if line.startswith("tradingbot_loop_lag_seconds{"))
        return float(line.split()[-1])

    async def never() -> None:
        await asyncio.Event().wait()

    async def work(it: Probed) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert await lag(it) < 0.1
        loop.pass_time(4.0)  # as a call that blocks
        await asyncio.sleep(1)
        assert 3 <= await lag(it) <= 4
        await asyncio.sleep(61)
        assert await lag(it) < 0.1
        it.app.desk.save = never  # type: ignore[method-assign]
        await it.until_told("/healthz", "the loop has not turned for 3", 40)
        assert (await it.probe("/healthz"))[0] == 503
        del it.app.desk.save

    beside_a_bot(work, 2)
