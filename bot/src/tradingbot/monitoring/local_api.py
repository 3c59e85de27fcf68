"""The socket in a bot's state directory: what whoever may use the directory asks of the bot that runs on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from tradingbot_api.base import WireModel
from tradingbot_api.bot_http import BotIdentity, BotStatus
from tradingbot_api.v1alpha1 import BotSettings

SOCKET_FILE: Final = "control.sock"
STATUS_PATH: Final = "/v1/status"
FLATTEN_PATH: Final = "/v1/flatten"
ANSWER_SECONDS: Final = 30.0
"""A comparison with the account may be part of an answer."""


class LocalStatus(WireModel):
    """A bot, the settings in force, and how it is."""

    bot: BotIdentity
    settings: BotSettings
    status: BotStatus


class NoBotError(Exception):
    """No bot answers on the directory; the text says what was found."""


class LocalControls(Protocol):
    """What may be asked."""

    def local_status(self) -> LocalStatus:
        """The status as it is now."""

    async def flatten(self) -> LocalStatus:
        """Sell the position and cancel entries; again and again, until the answer says that it is done."""


@asynccontextmanager
async def serving(controls: LocalControls, directory: Path) -> AsyncIterator[None]:
    """Listen on the socket, which is for the user of this process alone; OSError where there can be none.

    The caller holds the lock on the directory: a socket that is there already is of a process that is gone.
    """

    async def status(_: web.Request) -> web.Response:
        return _json(controls.local_status())

    async def flatten(_: web.Request) -> web.Response:
        return _json(await controls.flatten())

    app = web.Application()
    app.router.add_get(STATUS_PATH, status)
    app.router.add_post(FLATTEN_PATH, flatten)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handle_signals=False)
    await runner.setup()
    try:
        with _address(directory) as path:
            path.unlink(missing_ok=True)
            await web.UnixSite(runner, str(path)).start()
            path.chmod(0o600)
        yield
    finally:
        await runner.cleanup()


async def ask(directory: Path, *, flatten: bool = False) -> LocalStatus:
    """What the bot on that state directory answers. NoBotError."""
    try:
        with _address(directory) as path:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.UnixConnector(str(path)), timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS)
                ) as session,
                session.request(
                    "POST" if flatten else "GET", f"http://bot{FLATTEN_PATH if flatten else STATUS_PATH}"
                ) as answer,
            ):
                answer.raise_for_status()
                return LocalStatus.model_validate_json(await answer.read())
    except (OSError, aiohttp.ClientError, TimeoutError, ValidationError) as error:
        raise NoBotError(f"no bot answers on {directory}: {type(error).__name__}: {error}") from error


@contextmanager
def _address(directory: Path) -> Iterator[Path]:
    """A name of the socket that is short enough for one, however long the directory's is. OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{descriptor}") / SOCKET_FILE
    finally:
        os.close(descriptor)


def _json(answer: LocalStatus) -> web.Response:
    return web.Response(text=answer.model_dump_json(by_alias=True), content_type="application/json")
