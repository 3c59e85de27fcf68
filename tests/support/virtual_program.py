"""Programs on a virtual loop that can be killed as by kill -9: nothing of them runs any more, not even a `finally`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

from paper_exchange.virtual_loop import Address, MemoryTransport, VirtualLoop

T = TypeVar("T")
_RUNNING: ContextVar[Program | None] = ContextVar("program", default=None)


class _KilledError(BaseException):
    """Leaves what a thread would have done, after its program was killed."""


class Program:
    """What was started by `MortalLoop.start`, with all tasks, timers and connections that came of it."""

    def __init__(self) -> None:
        self.alive = True
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self.connections: list[MemoryTransport] = []
        self.addresses: list[Address] = []
        self.wrote: Callable[[], object] = lambda: None
        """Told of whatever is written to one of its connections."""


def running() -> Program | None:
    """The program whose code runs now."""
    return _RUNNING.get()


async def killed() -> NoReturn:
    """Never returns: awaited by a program that was killed while it ran."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a program that was killed goes on")


def killed_in_thread() -> NoReturn:
    """The same where the program is in what it left to a thread."""
    raise _KilledError


class MortalLoop(VirtualLoop):
    """A virtual loop that knows whose each task, timer and connection is."""

    def __init__(self, rng: Random, latency: tuple[float, float]) -> None:
        self.dead: list[asyncio.Task[Any]] = []
        """Kept: a coroutine that is freed runs its `finally`."""
        super().__init__(rng, latency)

    def start(self, main: Callable[[], Coroutine[Any, Any, T]]) -> tuple[Program, asyncio.Task[T]]:
        """Start a program in a context of its own."""
        program = Program()
        return program, self.start_in(program, main)

    def start_in(self, program: Program, main: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Let a program that runs do something more."""
        context = copy_context()
        context.run(_RUNNING.set, program)
        return context.run(lambda: self.create_task(main()))

    def kill(self, program: Program) -> None:
        """End it at this point: it may be called by the program itself, which then awaits `killed`."""
        program.alive = False
        self.dead += program.tasks
        for handle in (*self._ready, *self._scheduled):  # type: ignore[attr-defined]
            if handle._context.get(_RUNNING) is program:
                handle.cancel()
        for connection in program.connections:
            connection.tear()
        for address in program.addresses:
            self.forget_server(address)

    # -- whose it is ---------------------------------------------------------------------------------------------

    def create_task(self, coro: Any, **more: Any) -> asyncio.Task[Any]:
        """A task, noted for its program."""
        task = super().create_task(coro, **more)
        program = running()
        if program is not None:
            program.tasks.add(task)
        return task

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """Not of a program that is dead."""
        return _buried(super().call_soon(callback, *args, context=context))

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        """Not of a program that is dead."""
        return _buried(super().call_at(when, callback, *args, context=context))

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Never done where the program was killed in it."""
        try:
            return super().run_in_executor(executor, func, *args)
        except _KilledError:
            return self.create_future()

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **more: Any) -> Any:
        """A server, noted for its program."""
        server = await super().create_server(protocol_factory, host, port, **more)
        if (program := running()) is not None:
            program.addresses.append(server.getsockname())
        return server

    async def create_connection(self, protocol_factory: Any, *args: Any, **more: Any) -> Any:
        """A connection, noted for its program."""
        near, protocol = await super().create_connection(protocol_factory, *args, **more)
        if (program := running()) is not None:
            program.connections = [one for one in program.connections if not one.is_closing()] + [near]
            write = near.write

            def told(data: Any) -> None:
                write(data)
                program.wrote()

            near.write = told
        return near, protocol


H = TypeVar("H", bound=asyncio.Handle)


def _buried(handle: H) -> H:
    program = handle._context.get(_RUNNING)  # type: ignore[attr-defined]
    if program is not None and not program.alive:
        handle.cancel()
    return handle
