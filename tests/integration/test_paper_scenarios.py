"""Each scenario that comes with the paper exchange, as a client goes through it; hours pass at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from paper_exchange.__main__ import main
from paper_exchange.faults.scenario import shipped
from paper_exchange.server.app import Options, wall_clock_ms
from paper_exchange.testing import PaperExchange, running_paper_exchange, spawn_paper_exchange
from support.paper_ws import DEADLINE_SECONDS, Talk, Trader, TurnedClock, rest, trader
from support.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SYMBOL = "BTCUSDT"
ORDER = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "20000"}


class Stage:
    """A running exchange whose clock of faults and scenarios a test turns."""

    def __init__(self, exchange: PaperExchange, clock: TurnedClock) -> None:
        self.exchange = exchange
        self._clock = clock

    def wait(self, seconds: float) -> None:
        """Time passes, and what is due in it happens."""
        assert self.exchange.server is not None
        self._clock.now_ms += int(seconds * 1000)
        self.exchange.server.director.tick()

    async def status(self, path: str = "/api/v3/ping") -> tuple[int, str | None]:
        """Status and Retry-After of a call without a signature."""
        async with self.exchange.session.get(self.exchange.base_url + path) as answer:
            return answer.status, answer.headers.get("Retry-After")

    async def price(self) -> float:
        """The last price, as who runs the exchange sees it."""
        assert self.exchange.server is not None
        return (self.exchange.server.venue.exchange.market(SYMBOL).last or 0) / 10**8

    async def open(self, who: Trader) -> list[dict[str, Any]]:
        """The open orders of an account, as the exchange has them."""
        return list((await self.exchange.account(who.uid))["openOrders"])

    @asynccontextmanager
    async def connected(self, path: str = "/ws-api/v3", who: Trader | None = None) -> AsyncIterator[Talk]:
        """A WebSocket to a path; on the WebSocket API it hears the events of an account."""
        async with self.exchange.session.ws_connect(self.exchange.ws_url + path) as opened:
            talk = Talk(opened)
            if who is not None:
                assert (await talk.ask("userDataStream.subscribe.signature", who.key.signed()))["status"] == 200
            yield talk


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Stage]:
    """One exchange for the module."""
    clock = TurnedClock()
    async with running_paper_exchange(Options(symbols=(SYMBOL,)), clock) as exchange:
        yield Stage(exchange, clock)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(running: Stage) -> AsyncIterator[Stage]:
    """It without what is left of the test before."""
    yield running
    async with running.exchange.session.delete(running.exchange.control_url + "/control/scenario") as answer:
        assert answer.status == 200
    await running.exchange.clear_faults()


def report(kind: str) -> Any:
    """Whether an event is a report of such an execution."""
    return lambda event: event.get("event", {}).get("x") == kind


async def test_lost_answers(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")
    await stage.exchange.begin_scenario("lost-answers")
    ends = []
    for _ in range(60):
        try:
            status, _, _ = await rest(stage.exchange, who, "POST", "/api/v3/order", timeout=0.2, **ORDER)
            ends.append(str(status))
        except aiohttp.ServerDisconnectedError:
            ends.append("cut")
        except TimeoutError:
            ends.append("silent")
    assert set(ends) == {"200", "504", "cut", "silent"}
    applied = [row["kind"] for row in await stage.exchange.fault_record() if row.get("uid") == who.uid]
    # All but the requests that were lost are executed, most of them without a word.
    assert len(await stage.open(who)) == 60 - applied.count("lost_request")
    assert ends.count("200") == 60 - len(applied)


async def test_dead_user_stream(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")
    async with stage.connected(who=who) as talk:
        await stage.exchange.begin_scenario("dead-user-stream")
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200
        stage.wait(599)
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200
        assert (await talk.ask("ping"))["status"] == 200
        assert talk.events == []
        stage.wait(1)
        assert (await talk.ask("openOrders.cancelAll", who.key.signed(symbol=SYMBOL)))["status"] == 200
        await talk.until(report("CANCELED"))


async def test_outage_hour(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")
    async with stage.connected(who=who) as talk, stage.connected("/ws/btcusdt@trade") as market:
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200
        await stage.exchange.begin_scenario("outage-hour")
        await talk.closed()
        await market.closed()
    for _ in range(2):
        assert (await rest(stage.exchange, who, "GET", "/api/v3/account"))[1]["code"] == -1008
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stage.exchange.session.ws_connect(stage.exchange.ws_url + "/stream?streams=btcusdt@trade")
        assert refused.value.status == 503
        stage.wait(3599)
    stage.wait(2)
    begun = asyncio.get_running_loop().time()
    assert await stage.status() == (200, None)
    assert asyncio.get_running_loop().time() - begun >= 0.5
    stage.wait(60)
    assert len((await rest(stage.exchange, who, "GET", "/api/v3/openOrders"))[1]) == 1


async def test_flash_crash_gap(stage: Stage) -> None:
    who = await trader(stage.exchange, BTC="1")
    before = await stage.price()
    stop = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.01"}
    near, limit, far = (f"{before * share:.0f}" for share in (0.95, 0.945, 0.87))
    async with stage.connected(who=who) as talk:
        gone = {"type": "STOP_LOSS_LIMIT", "stopPrice": near, "price": limit, "timeInForce": "GTC"}
        assert (await talk.ask("order.place", who.key.signed(**stop, **gone)))["status"] == 200
        assert (await talk.ask("order.place", who.key.signed(**stop, type="STOP_LOSS", stopPrice=far)))["status"] == 200
        await stage.exchange.begin_scenario("flash-crash-gap")
        stage.wait(10)
        # The price went through the limit: the order works, and rests above the market.
        triggered = (await talk.until(lambda event: event.get("event", {}).get("w") is True))["event"]
        assert (triggered["o"], triggered["X"], triggered["z"]) == ("STOP_LOSS_LIMIT", "NEW", "0.00000000")
        assert abs(await stage.price() / before - 0.91) < 0.02
        stage.wait(30)
        expired = (await talk.until(report("EXPIRED")))["event"]
        assert (expired["o"], expired["eR"]) == ("STOP_LOSS", "EXECUTION_RULE_PRICE_RANGE_EXCEEDED")
        assert [order["type"] for order in await stage.open(who)] == ["STOP_LOSS_LIMIT"]
        stage.wait(120)
        assert abs(await stage.price() / before - 0.967) < 0.02


async def test_ban(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")
    async with stage.connected() as talk:
        await stage.exchange.begin_scenario("ban")
        assert [await stage.status() for _ in range(11)] == [(429, "5")] * 10 + [(200, None)]
        stage.wait(5)
        assert await stage.status() == (418, "121")
        answer = await talk.ask("order.place", who.key.signed(**ORDER))
        assert (answer["status"], answer["error"]["code"]) == (418, -1003)
        await talk.closed()
    stage.wait(120)
    assert await stage.status() == (200, None)


async def test_testnet_wipe(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="500")
    assert (await rest(stage.exchange, who, "POST", "/api/v3/order", **ORDER))[0] == 200
    async with stage.connected(who=who) as talk:
        await stage.exchange.begin_scenario("testnet-wipe")
        stage.wait(10)
        await talk.closed()
    assert await stage.status() == (403, None)
    stage.wait(2)
    stage.wait(3)
    assert (await rest(stage.exchange, who, "GET", "/api/v3/allOrders", symbol=SYMBOL))[:2] == (200, [])
    balances = (await rest(stage.exchange, who, "GET", "/api/v3/account"))[1]["balances"]
    assert {one["asset"]: one["free"] for one in balances} == {"USDT": "10000.00000000", "BTC": "1.00000000"}


async def test_restarts() -> None:
    clock = TurnedClock()
    async with running_paper_exchange(Options(symbols=(SYMBOL,)), clock) as exchange:
        stage = Stage(exchange, clock)
        who = await trader(exchange, USDT="500")
        assert (await rest(exchange, who, "POST", "/api/v3/order", **ORDER))[0] == 200
        async with stage.connected(who=who) as talk:
            await exchange.begin_scenario([{"at": 0, "connections": {"refused": 0.5}}])
            await talk.closed()
        with pytest.raises(aiohttp.ClientConnectorError):
            await rest(exchange, who, "GET", "/api/v3/ping")

        async def answered() -> Any:
            with suppress(aiohttp.ClientConnectionError):
                return await rest(exchange, who, "GET", "/api/v3/account")

        status, _, headers = await until("the exchange to be back", answered, DEADLINE_SECONDS)
        assert status == 200
        assert headers["X-MBX-USED-WEIGHT-1M"] == "20", "weight is forgotten"
        assert len(await stage.open(who)) == 1

        await exchange.begin_scenario("restarts")
        stage.wait(60)
        assert len(await stage.open(who)) == 1
        stage.wait(1)
        assert await stage.open(who) == []
        with pytest.raises(aiohttp.ClientConnectorError):
            await rest(exchange, who, "GET", "/api/v3/ping")


async def test_flapping_streams(stage: Stage) -> None:
    await stage.exchange.begin_scenario("flapping-streams")
    steps: set[int] = set()
    price = f"{await stage.price():.2f}"
    async with asyncio.timeout(DEADLINE_SECONDS):
        # Lost, doubled and turned: trades have numbers without gaps. Connections are cut meanwhile, now and then.
        while not ({0, -1} <= steps and max(steps) > 1):
            async with stage.connected("/ws/btcusdt@trade") as talk:
                for _ in range(100):
                    await stage.exchange.push_trade(SYMBOL, price)
                stage.wait(5)
                ids = []
                while len(ids) < 80 and (message := await talk.socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    ids.append(json.loads(message.data)["t"])
                steps |= {later - earlier for earlier, later in pairwise(ids)}


async def test_foreign_hands(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000", BTC="1")
    async with stage.connected(who=who) as talk:
        await stage.exchange.begin_scenario("foreign-hands")
        stage.wait(10)
        updates = [(await talk.until(lambda event: event["event"]["e"] == "balanceUpdate"))["event"] for _ in range(2)]
        assert [(one["a"], one["d"]) for one in updates] == [("USDT", "100.00000000"), ("BTC", "-0.50000000")]
        stage.wait(5)
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["error"]["code"] == -2010
        stage.wait(60)
        assert (await talk.ask("order.place", who.key.signed(**ORDER)))["status"] == 200


async def test_half_a_profit(stage: Stage) -> None:
    who = await trader(stage.exchange, BTC="1")
    price = await stage.price()
    pair = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.5", "aboveType": "LIMIT_MAKER", "belowType": "STOP_LOSS"}
    pair |= {"abovePrice": f"{price * 1.02:.0f}", "belowStopPrice": f"{price * 0.98:.0f}"}
    async with stage.connected(who=who) as talk:
        assert (await talk.ask("orderList.place.oco", who.key.signed(**pair)))["status"] == 200
        await stage.exchange.begin_scenario("half-a-profit")
        stage.wait(10)
        assert (await talk.until(report("TRADE")))["event"]["z"] == "0.20000000"
        assert (await talk.until(report("EXPIRED")))["event"]["o"] == "STOP_LOSS"
        stage.wait(10)
        # What is left has no stop any more.
        assert [(one["type"], one["executedQty"]) for one in await stage.open(who)] == [("LIMIT_MAKER", "0.20000000")]
        assert await stage.price() < price * 0.98


async def test_refused_protection(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")
    price = await stage.price()
    entry = {"symbol": SYMBOL, "side": "BUY", "type": "MARKET", "quantity": "0.01"}
    stop = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.009", "type": "STOP_LOSS", "stopPrice": f"{price / 2:.0f}"}
    pair = {"symbol": SYMBOL, "side": "SELL", "quantity": "0.009", "aboveType": "LIMIT_MAKER", "belowType": "STOP_LOSS"}
    pair |= {"abovePrice": f"{price * 2:.0f}", "belowStopPrice": f"{price / 2:.0f}"}
    await stage.exchange.begin_scenario("refused-protection")

    async def ask(path: str, order: dict[str, str]) -> Any:
        return (await rest(stage.exchange, who, "POST", f"/api/v3/{path}", **order))[1].get("code")

    assert [await ask("order", entry), await ask("orderList/oco", pair), await ask("order", stop)] == [
        None,
        -2010,
        -2010,
    ]
    assert [await ask("orderList/oco", pair) for _ in range(3)] == [-2010, -2010, None]


async def test_wrong_clock(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")

    async def place(ahead: int) -> Any:
        stamp = str(wall_clock_ms() + ahead)
        return (await rest(stage.exchange, who, "POST", "/api/v3/order", timestamp=stamp, **ORDER))[1].get("code")

    async def told() -> int:
        async with stage.exchange.session.get(stage.exchange.base_url + "/api/v3/time") as answer:
            return int((await answer.json())["serverTime"]) - wall_clock_ms()

    await stage.exchange.begin_scenario("wrong-clock")
    assert [await place(0), await place(await told())] == [-1021, None]
    stage.wait(300)
    assert [await place(0), await place(await told())] == [-1021, None]
    stage.wait(300)
    assert await place(0) is None


async def test_halted_market(stage: Stage) -> None:
    who = await trader(stage.exchange, USDT="10000")

    async def place(**changed: str) -> Any:
        return (await rest(stage.exchange, who, "POST", "/api/v3/order", **ORDER | changed))[1]

    assert (await place())["status"] == "NEW"
    await stage.exchange.begin_scenario("halted-market")
    stage.wait(10)
    assert (await place())["msg"] == "Market is closed."
    stage.wait(30)
    assert (await place())["code"] == -2010
    assert (await rest(stage.exchange, who, "DELETE", "/api/v3/openOrders", symbol=SYMBOL))[0] == 200
    stage.wait(30)
    assert (await place(price="20000.01"))["msg"] == "Filter failure: PRICE_FILTER"
    assert (await place())["status"] == "NEW"


async def test_each_shipped_scenario_has_a_test() -> None:
    assert {f"test_{name.replace('-', '_')}" for name in shipped()} <= set(globals())


async def test_the_server_begins_with_a_scenario_and_writes_down_what_it_did(tmp_path: Path) -> None:
    async with spawn_paper_exchange(tmp_path, symbols=SYMBOL, scenario="ban") as exchange:
        async with exchange.session.get(exchange.base_url + "/api/v3/ping") as answer:
            assert answer.status == 429
        async with exchange.session.post(exchange.control_url + "/control/scenario", data="steps: 5") as answer:
            assert (answer.status, (await answer.json())["error"]) == (
                400,
                "body:1: steps: expected a list of steps, got 5",
            )
    lines = [json.loads(line) for line in (tmp_path / "faults.jsonl").read_text().splitlines()]
    assert [next(iter(set(row) & {"run", "fault", "applied"})) for row in lines] == ["run", "fault", "applied"]


async def test_a_run_is_repeated_from_the_file_that_it_wrote_itself(tmp_path: Path) -> None:
    async def statuses(scenario: str) -> list[int]:
        async with spawn_paper_exchange(tmp_path, symbols=SYMBOL, scenario=scenario) as exchange:
            told = []
            for _ in range(6):
                async with exchange.session.get(exchange.base_url + "/api/v3/ping") as answer:
                    told.append(answer.status)
            return told

    plan = tmp_path / "plan.yaml"
    plan.write_text("steps:\n  - at: 0\n    fault: {kind: error, endpoints: GET /api/v3/ping, skip: 2, count: 2}\n")
    first = await statuses(str(plan))
    assert first == [200, 200, 500, 500, 200, 200]
    assert await statuses(str(tmp_path / "faults.jsonl")) == first


async def test_a_bad_scenario_ends_the_command_line_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("steps:\n  - at: 0\n    fault: {kind: fire}\n")
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--port=0", "--control-port=0", f"--symbols={SYMBOL}", f"--scenario={bad}"])
    assert ended.value.code == 2
    assert f"argument --scenario: {bad}:3: steps[0].fault.kind: expected one of" in capsys.readouterr().err
