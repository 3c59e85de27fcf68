"""An event loop whose time is virtual and whose network is in memory: hours pass in seconds, the same way each time."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, copy_context
from random import Random
from typing import Any, Final

from aiohttp import connector

_HIGH_WATER: Final = 64 * 1024
_FIRST_PORT: Final = 20_000
_AFTER: Final = 0.001
"""Seconds between the last data of an end that is torn and the news of it."""
Address = tuple[str, int]


class NothingToWaitForError(RuntimeError):
    """Everybody waits for somebody else: no timer runs and nothing is on its way."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still while somebody works, and jumps to the next timer when all wait.

    Connections between what runs on the loop are made of memory; each piece of data is under way for `latency`
    seconds (a least and a greatest one, drawn from `rng`) and keeps its place among those of its direction. Each end
    of a connection runs in the context of who connected, or listens. Nothing outside can be connected to. What is
    left to a thread is done at once.
    """

    def __init__(self, rng: Random, latency: tuple[float, float] = (0.0, 0.0)) -> None:
        self._virtual = 0.0
        self._rng = rng
        self._latency = latency
        self._servers: dict[Address, tuple[Callable[[], asyncio.Protocol], Context]] = {}
        self._connecting: dict[int, Address] = {}
        self._next_port = _FIRST_PORT
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual

    def run_forever(self) -> None:
        """As long as it runs, it is the clock of aiohttp's pool of connections too.

        By the machine's clock a client would open another connection, and so do all else that follows later, where
        the work of 15 virtual seconds takes as many real ones.
        """
        former = vars(connector)["monotonic"]
        vars(connector)["monotonic"] = self.time
        try:
            super().run_forever()
        finally:
            vars(connector)["monotonic"] = former

    def pass_time(self, seconds: float) -> None:
        """Nobody has anything to do for so long."""
        self._virtual += seconds

    def delay(self) -> float:
        """How long the next piece of data is under way."""
        least, greatest = self._latency
        return least if least == greatest else self._rng.uniform(least, greatest)

    # -- what others would do in threads -----------------------------------------------------------------------

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Done at once, in this thread."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        """Every name is its own address."""
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    # -- the network -------------------------------------------------------------------------------------------

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """Listen at an address of the loop's own; port 0 takes a free one. OSError where it is taken."""
        if not port:
            port, self._next_port = self._next_port, self._next_port + 1
        address = (str(host or "127.0.0.1"), int(port))
        if address in self._servers:
            raise OSError(f"address in use: {address[0]}:{address[1]}")
        self._servers[address] = protocol_factory, copy_context()
        return _MemoryServer(self, address)

    def forget_server(self, address: Address) -> None:
        """Nobody listens at an address any more."""
        self._servers.pop(address, None)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Note where a socket would connect; `create_connection` does."""
        await asyncio.sleep(self.delay())
        if tuple(address[:2]) not in self._servers:
            raise ConnectionRefusedError(f"nobody listens at {address[0]}:{address[1]}")
        self._connecting[sock.fileno()] = (str(address[0]), int(address[1]))

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: socket.socket | None = None, **_: Any
    ) -> Any:
        """Connect to who listens there. ConnectionRefusedError where nobody does."""
        address = (str(host), int(port or 0))
        if sock is not None:
            address = self._connecting.pop(sock.fileno())
            sock.close()
        listening = self._servers.get(address)
        if listening is None:
            raise ConnectionRefusedError(f"nobody listens at {address[0]}:{address[1]}")
        accept, its_context = listening[0], listening[1].copy()
        own: Address = ("127.0.0.1", self._next_port)
        self._next_port += 1
        client, server = protocol_factory(), its_context.run(accept)
        near = MemoryTransport(self, client, {"peername": address, "sockname": own}, copy_context())
        far = MemoryTransport(self, server, {"peername": own, "sockname": address}, its_context)
        near.peer, far.peer = far, near
        its_context.run(server.connection_made, far)
        client.connection_made(near)
        return near, client


class _Selector(selectors.SelectSelector):
    """Never waits, and asks for nothing outside: where the loop would wait, its time passes."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise NothingToWaitForError("no timer runs, and nothing is on its way")
        if timeout:
            self._loop.pass_time(timeout)
        return []


class _MemoryServer:
    """What listens at an address, as far as servers of aiohttp ask."""

    def __init__(self, loop: VirtualLoop, address: Address) -> None:
        self._loop, self._address = loop, address
        self.sockets = [self]

    def getsockname(self) -> Address:
        return self._address

    def close(self) -> None:
        self._loop.forget_server(self._address)

    async def wait_closed(self) -> None:
        """Closed at once."""

    def is_serving(self) -> bool:
        return True


class MemoryTransport(asyncio.Transport):
    """One end of a connection; what is written arrives at the other one, in its order, after the latency."""

    peer: MemoryTransport

    def __init__(
        self, loop: VirtualLoop, protocol: asyncio.Protocol, extra: Mapping[str, Any], context: Context
    ) -> None:
        super().__init__(extra)
        self._loop, self._protocol, self._context = loop, protocol, context
        self._due = 0.0
        self._under_way: deque[bytes | None] = deque()
        """What was written and did not arrive; None is the end."""
        self._arrived: deque[bytes | None] = deque()
        """What came while reading was paused."""
        self._reading, self._closing, self._lost, self._writing_paused = True, False, False, False

    # -- writing -----------------------------------------------------------------------------------------------

    def write(self, data: Any) -> None:
        if data and not self._closing:
            self._send(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def _send(self, piece: bytes | None) -> None:
        self._under_way.append(piece)
        self._due = max(self._due, self._loop.time() + self._loop.delay())
        self._loop.call_at(self._due, self._deliver, context=self.peer._context)
        self._watch_buffer()

    def _deliver(self) -> None:
        """The oldest piece arrives: timers of one moment keep no order, the queue does."""
        if self._under_way:
            self.peer.arrive(self._under_way.popleft())
            self._watch_buffer()

    def get_write_buffer_size(self) -> int:
        return sum(len(piece or b"") for piece in (*self._under_way, *self.peer._arrived))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Fixed here."""

    def _watch_buffer(self) -> None:
        full = self.get_write_buffer_size() > _HIGH_WATER
        if full is not self._writing_paused and not self._lost:
            self._writing_paused = full
            (self._protocol.pause_writing if full else self._protocol.resume_writing)()

    # -- reading -----------------------------------------------------------------------------------------------

    def arrive(self, piece: bytes | None) -> None:
        """A piece from the other end, or its end."""
        self._arrived.append(piece)
        self._read()

    def _read(self) -> None:
        while self._reading and self._arrived and not self._lost:
            piece = self._arrived.popleft()
            if piece is None:
                self._lose(None)
            elif not self._closing:
                self._protocol.data_received(piece)
            self.peer._watch_buffer()

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self._read, context=self._context)

    # -- ending ------------------------------------------------------------------------------------------------

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._send(None)
            self._closing = True
            self._loop.call_soon(self._lose, None, context=self._context)

    def abort(self) -> None:
        self.close()

    def tear(self) -> None:
        """Whoever is at this end is gone: the other one hears of the end, this one of nothing any more."""
        if not self._closing:
            self._due = max(self._due, self._loop.time()) + _AFTER  # what was written is taken up before
            self._send(None)
        self._lost = self._closing = True

    def _lose(self, error: Exception | None) -> None:
        if self._lost:
            return
        if not self._closing:
            self._due = max(self._due, self._loop.time()) + _AFTER  # what was written is taken up before
            self._send(None)
        self._lost = self._closing = True
        self._protocol.connection_lost(error)

    def can_write_eof(self) -> bool:
        return False

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol
