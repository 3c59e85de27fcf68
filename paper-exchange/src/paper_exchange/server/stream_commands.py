"""What a client says on a stream connection: SUBSCRIBE and its like, understood or refused in Binance's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from paper_exchange.server.ws_frames import is_id

METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_PARAMETERS: Final = {"LIST_SUBSCRIPTIONS": 0, "SET_PROPERTY": 2, "GET_PROPERTY": 1}


@dataclass(frozen=True, slots=True)
class Command:
    """One request of a client."""

    method: str
    params: list[Any]
    ident: int | str | None


class CommandRefusedError(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: int, message: str, ident: Any = None, *, id_known: bool = True) -> None:
        super().__init__(message)
        body: dict[str, Any] = {"error": {"code": code, "msg": message}}
        self.answer = body | ({"id": ident} if id_known else {})


def parse_command(frame: str | bytes) -> Command:
    """The command in a frame; CommandRefusedError for anything else."""
    text = frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise CommandRefusedError(3, f"Invalid JSON: expected value at {place}", id_known=False) from None
    except (RecursionError, ValueError):
        raise CommandRefusedError(3, "Invalid JSON: expected value at line 1 column 1", id_known=False) from None
    if not isinstance(request, dict) or "method" not in request:
        raise CommandRefusedError(2, f"Invalid request: missing field `method` at {_end(text, text)}", id_known=False)
    method = request["method"]
    if method not in METHODS:
        name = method if isinstance(method, str) else json.dumps(method)
        expected = ", ".join(f"`{one}`" for one in METHODS)
        place = _end(text, json.dumps(method))
        raise CommandRefusedError(
            2, f"Invalid request: unknown variant `{name}`, expected one of {expected} at {place}", id_known=False
        )
    if "id" not in request or not is_id(request["id"]):
        raise CommandRefusedError(2, "Invalid request: request ID must be an unsigned integer", id_known=False)
    ident = request["id"]
    params = request.get("params", [])
    if not isinstance(params, list):
        raise CommandRefusedError(2, "Invalid request: params must be a list", ident)
    if len(params) > _PARAMETERS.get(method, len(params)):
        raise CommandRefusedError(2, "Invalid request: too many parameters", ident)
    if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
        if "params" not in request:
            raise CommandRefusedError(2, f"Invalid request: missing field `params` at {_end(text, text)}", ident)
        if not all(isinstance(name, str) for name in params):
            raise CommandRefusedError(2, "Invalid request: stream name must be a string", ident)
    return Command(method, params, ident)


def combined_property(command: Command) -> bool | None:
    """What SET_PROPERTY sets `combined` to, None for GET_PROPERTY; CommandRefusedError for another property."""
    if not command.params or not isinstance(command.params[0], str):
        raise CommandRefusedError(2, "Invalid request: property name must be a string", command.ident)
    if command.params[0] != "combined":
        raise CommandRefusedError(0, "Unknown property", command.ident)
    if command.method == "GET_PROPERTY":
        return None
    wanted = command.params[1] if len(command.params) == 2 else None
    if not isinstance(wanted, bool):
        raise CommandRefusedError(1, "Invalid value type: expected Boolean", command.ident)
    return wanted


def _end(text: str, part: str) -> str:
    """Where a part of the text ends, or all of it where the part is written differently."""
    place = text.find(part)
    upto = text[: place + len(part)] if place >= 0 else text
    line = upto.rpartition("\n")[2]
    return f"line {upto.count(chr(10)) + 1} column {len(line)}"
