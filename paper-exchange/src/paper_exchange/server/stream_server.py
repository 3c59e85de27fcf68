"""The connections of /ws and /stream: which streams each one wants, and its commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final
from urllib.parse import unquote

from aiohttp import web

from paper_exchange.core.errors import ExchangeError
from paper_exchange.server.connections import Connections
from paper_exchange.server.stream_commands import Command, CommandRefusedError, combined_property, parse_command
from paper_exchange.server.stream_names import parse_stream
from paper_exchange.server.streams import MarketStreams, Subscriber, send
from paper_exchange.time_units import wants_microseconds

_MAX_STREAMS: Final = 1024
_MESSAGES_PER_SECOND: Final = 5


class StreamServer:
    """The handler of /ws and /stream."""

    def __init__(
        self,
        streams: MarketStreams,
        symbols: Collection[str],
        connections: Connections,
        now_ms: Callable[[], int],
    ) -> None:
        self._streams = streams
        self._symbols = frozenset(symbols)
        self._connections = connections
        self._now_ms = now_ms

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One connection: `/ws/<stream>/<stream>`, `/stream?streams=<stream>/<stream>`, or none and SUBSCRIBE."""
        combined = request.path.startswith("/stream")
        refusal = await self._connections.refuse(request, "GET /stream" if combined else "GET /ws")
        if refusal is not None:
            return refusal
        asked = _parameter(request, "streams") if combined else request.match_info.get("streams", "")
        try:
            microseconds = wants_microseconds(_parameter(request, "timeUnit") or None)
        except ExchangeError as error:
            return web.json_response({"code": error.code, "msg": error.message}, status=400)
        names = list(filter(None, asked.split("/")))
        if len(names) > _MAX_STREAMS:
            return web.json_response({"code": -1101, "msg": "Too many parameters sent for this endpoint."}, status=400)
        async with self._connections.open(request) as connection:
            subscriber = Subscriber(connection, combined, microseconds)
            connection.farewell = lambda: self._farewell(subscriber)
            try:
                self._subscribe(subscriber, names)
                async for frame in connection.frames(self._connections.clock_ms, _MESSAGES_PER_SECOND):
                    connection.send(json.dumps(self._answer(subscriber, frame), separators=(",", ":")).encode())
            finally:
                for name in subscriber.names:
                    self._streams.unsubscribe(subscriber, name)
        return connection.socket

    def _farewell(self, subscriber: Subscriber) -> None:
        send([subscriber], "!serverShutdown", {"e": "serverShutdown", "E": self._now_ms()})

    def _subscribe(self, subscriber: Subscriber, names: Iterable[str]) -> None:
        for name in names:
            subscriber.names[name] = None
            stream = parse_stream(name, self._symbols)
            # A name that does not exist is accepted and stays silent, as on Binance.
            if stream is not None:
                self._streams.subscribe(subscriber, stream)

    def _answer(self, subscriber: Subscriber, frame: str | bytes) -> dict[str, Any]:
        try:
            command = parse_command(frame)
            return {"result": self._execute(subscriber, command), "id": command.ident}
        except CommandRefusedError as refused:
            return refused.answer

    def _execute(self, subscriber: Subscriber, command: Command) -> Any:
        """The result of a command: null for one that is no question."""
        if command.method == "LIST_SUBSCRIPTIONS":
            return list(subscriber.names)
        if command.method == "SUBSCRIBE":
            if len(subscriber.names | dict.fromkeys(command.params)) > _MAX_STREAMS:
                raise CommandRefusedError(2, "Invalid request: too many parameters", command.ident)
            self._subscribe(subscriber, command.params)
        elif command.method == "UNSUBSCRIBE":
            for name in command.params:
                subscriber.names.pop(name, None)
                self._streams.unsubscribe(subscriber, name)
        else:
            wanted = combined_property(command)
            if wanted is None:
                return subscriber.combined
            subscriber.combined = wanted
        return None


def _parameter(request: web.Request, name: str) -> str:
    """A parameter of the address, where a plus sign (in a time zone) is no space."""
    pairs = (part.partition("=") for part in request.rel_url.raw_query_string.split("&"))
    return next((unquote(value) for key, _, value in pairs if key == name), "")
