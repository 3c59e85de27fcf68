"""The event loop of simulations: time that jumps, a network of memory that keeps the order of what is written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from itertools import count
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from paper_exchange.virtual_loop import NothingToWaitForError, VirtualLoop

LATENCY = (0.001, 0.02)


def run(main: Coroutine[Any, Any, Any], seed: int = 1) -> tuple[Any, float]:
    """The result, and the virtual seconds that it took."""
    loop = VirtualLoop(Random(seed), LATENCY)
    try:
        return loop.run_until_complete(main), loop.time()
    finally:
        loop.close()


async def listening(handle: Any) -> tuple[web.AppRunner, str]:
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


def test_a_day_passes_at_once_and_timers_fire_in_their_order() -> None:
    fired: list[str] = []

    async def later(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        fired.append(name)

    async def main() -> None:
        await asyncio.gather(later(86_400, "day"), later(60, "minute"), later(3600, "hour"))

    begun = time.monotonic()
    _, took = run(main())
    assert fired == ["minute", "hour", "day"]
    assert took == pytest.approx(86_400)
    assert time.monotonic() - begun < 30


def test_what_is_written_arrives_whole_and_in_order_and_the_end_comes_last() -> None:
    async def main() -> list[str]:
        async def handle(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            for number in range(300):
                await socket.send_str(str(number) * 100)
            await socket.close()
            return socket

        runner, url = await listening(handle)
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
            told = [str(message.data) async for message in socket]
        await runner.cleanup()
        return told

    told, took = run(main())
    assert told == [str(number) * 100 for number in range(300)]
    assert LATENCY[0] * 4 < took < 60


def test_a_large_body_waits_for_who_reads_slowly() -> None:
    async def main() -> tuple[bytes, bytes]:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(body=await request.read())

        runner, url = await listening(handle)
        body = Random(5).randbytes(2**21)
        async with aiohttp.ClientSession(read_bufsize=2**12) as session, session.post(url, data=body) as answer:
            parts = bytearray()
            async for part in answer.content.iter_chunked(4096):
                parts += part
                await asyncio.sleep(0.01)
        await runner.cleanup()
        return body, bytes(parts)

    (body, came), _ = run(main())
    assert came == body


def test_nobody_listening_is_refused_as_by_a_machine() -> None:
    async def main() -> None:
        async def handle(_: web.Request) -> web.Response:
            return web.Response()

        runner, url = await listening(handle)
        await runner.cleanup()
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(url)

    run(main())


def test_timeouts_are_virtual_too() -> None:
    async def main() -> None:
        async def handle(_: web.Request) -> web.Response:
            await asyncio.sleep(3600)
            return web.Response()

        runner, url = await listening(handle)
        async with aiohttp.ClientSession() as session:
            with pytest.raises(asyncio.TimeoutError):
                await session.get(url, timeout=aiohttp.ClientTimeout(total=120))
        await runner.cleanup()

    _, took = run(main())
    assert 120 <= took < 3600


@pytest.mark.parametrize("machine", [0.0, 60.0], ids=["machine stands still", "machine is slow"])
def test_a_client_keeps_a_connection_for_virtual_seconds(machine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[int]:
        async def handle(request: web.Request) -> web.Response:
            assert request.transport is not None
            return web.Response(text=str(request.transport.get_extra_info("peername")[1]))

        runner, url = await listening(handle)
        ports = []
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(keepalive_timeout=15)) as session:
            for pause in (0, 10, 20):
                await asyncio.sleep(pause)
                async with session.get(url) as answer:
                    ports.append(int(await answer.text()))
        await runner.cleanup()
        return ports

    clock = count(0.0, machine)
    monkeypatch.setattr("aiohttp.connector.monotonic", lambda: next(clock))
    (first, second, third), _ = run(main())
    assert first == second != third


def test_waiting_for_nothing_is_told_instead_of_standing_still() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(NothingToWaitForError):
        run(main())


def test_latency_follows_from_the_seed() -> None:
    async def main() -> None:
        async def handle(_: web.Request) -> web.Response:
            return web.Response()

        runner, url = await listening(handle)
        async with aiohttp.ClientSession() as session:
            for _ in range(20):
                (await session.get(url)).release()
        await runner.cleanup()

    assert run(main(), 1)[1] == run(main(), 1)[1] != run(main(), 2)[1]
