"""A program that is killed on a virtual loop is gone as by kill -9, and the rest of the loop goes on."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from random import Random

import aiohttp
from aiohttp import web

from support.virtual_program import MortalLoop, Program, killed, killed_in_thread

LATENCY = (0.001, 0.02)
NAME: ContextVar[str] = ContextVar("name", default="nobody")


def test_nothing_of_a_killed_program_runs_any_more() -> None:
    loop, told = MortalLoop(Random(1), LATENCY), list[str]()

    async def beside() -> None:
        try:
            await asyncio.sleep(1)
            told.append("beside")
        finally:
            told.append("beside finally")

    async def program() -> None:
        task = asyncio.create_task(beside())
        loop.call_later(1, told.append, "timer")
        try:
            await asyncio.sleep(0.5)
            loop.kill(programs[0])
            await killed()
        finally:
            told.append("finally")
            task.cancel()

    async def in_thread() -> None:
        def work() -> None:
            loop.kill(programs[1])
            killed_in_thread()

        try:
            await asyncio.to_thread(work)
        finally:
            told.append("finally")

    programs: list[Program] = []

    async def main() -> None:
        programs.extend(loop.start(one)[0] for one in (program, in_thread))
        await asyncio.sleep(10)
        told.append("the others")

    loop.run_until_complete(main())
    assert told == ["the others"]
    assert len(loop.dead) == 3
    # Freed, the coroutines would run what must not run.
    _kept.append(loop)


_kept: list[MortalLoop] = []


def test_what_a_killed_program_has_sent_is_executed_in_the_context_of_who_got_it() -> None:
    loop, told = MortalLoop(Random(1), LATENCY), list[str]()

    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(1)
        told.append(f"{NAME.get()} did {request.path}")
        return web.Response()

    async def main() -> None:
        NAME.set("server")
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]

        async def client() -> None:
            NAME.set("client")
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/work"):
                told.append("answered")

        program, _ = loop.start(client)
        program.wrote = lambda: loop.kill(program)
        await asyncio.sleep(5)
        await runner.cleanup()

    loop.run_until_complete(main())
    assert told == ["server did /work"]
    _kept.append(loop)
