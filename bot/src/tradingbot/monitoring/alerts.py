"""Notifications: what happened, told to a webhook of the user's own, without trading ever waiting for it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from string import Template
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import structlog

from tradingbot.clocks import Clocks
from tradingbot.recovery.retry import full_jitter
from tradingbot_api.bot_http import BotIdentity
from tradingbot_api.v1alpha1 import BotSettings, NotificationKind, Notifications

ATTEMPTS: Final = 5
TIMEOUT_SECONDS: Final = 10.0
LONGEST_WAIT: Final = 30.0
LONGEST_ASKED: Final = 120.0
"""For a receiver that asks for more: what it is told later may be about a position without protection."""
NO_URL: Final = "NoURL"


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell; `suppressed` others of its kind were left out before it."""

    kind: NotificationKind
    time: datetime
    message: str
    quantity: str = "0"
    price: str = "0"
    suppressed: int = 0


class Outbox:
    """What waits to be told: of each kind the last note at most, so it cannot grow. Pure; times are monotonic."""

    def __init__(self) -> None:
        self._waiting: dict[NotificationKind, Note] = {}
        self._told: dict[NotificationKind, float] = {}

    def offer(self, note: Note) -> bool:
        """Take a note; False where it takes the place of one that was not told yet."""
        former = self._waiting.pop(note.kind, None)
        self._waiting[note.kind] = note if former is None else replace(note, suppressed=former.suppressed + 1)
        return former is None

    def take(self, now: float, interval: float) -> Note | None:
        """The note that has waited longest of those that may be told now."""
        kind = next((kind for kind in self._waiting if self._due(kind, interval) <= now), None)
        if kind is None:
            return None
        self._told[kind] = now
        return self._waiting.pop(kind)

    def wait(self, now: float, interval: float) -> float | None:
        """Seconds until one may be told; None while none waits."""
        return min((max(0.0, self._due(kind, interval) - now) for kind in self._waiting), default=None)

    def _due(self, kind: NotificationKind, interval: float) -> float:
        return self._told.get(kind, float("-inf")) + interval


def render(template: str, note: Note, bot: BotIdentity, symbol: str) -> str:
    """The body: the template with its words replaced, each as it stands inside of a JSON string."""
    words = {
        "bot": bot.name,
        "kind": note.kind.value,
        "message": note.message,
        "namespace": bot.namespace,
        "price": note.price,
        "quantity": note.quantity,
        "suppressed": str(note.suppressed),
        "symbol": symbol,
        "time": note.time.isoformat(timespec="seconds"),
    }
    return Template(template).substitute({word: json.dumps(text)[1:-1] for word, text in words.items()})


class Alerts:
    """Takes notes at any time and posts them one after the other; address and secrets are in no log.

    The address is read from `credentials_dir` at each post, so that it can be changed. `count` is told `sent`,
    `suppressed` or `failed` of every note that is wanted.
    """

    def __init__(
        self,
        bot: BotIdentity,
        settings: Callable[[], BotSettings],
        credentials_dir: Path,
        clocks: Clocks,
        count: Callable[[str], None],
    ) -> None:
        self._bot = bot
        self._settings = settings
        self._directory = credentials_dir
        self._clocks = clocks
        self._count = count
        self._outbox = Outbox()
        self._offered = asyncio.Event()
        self._log = structlog.get_logger("alerts").bind(bot=f"{bot.namespace}/{bot.name}")

    def tell(self, kind: str, figures: Mapping[str, Any]) -> None:
        """Something happened; returns at once, and what nobody wants to be told of is forgotten."""
        wanted = self._settings().notifications
        if wanted is None or kind not in wanted.kinds:
            return
        note = Note(
            NotificationKind(kind),
            self._clocks.utc(),
            str(figures.get("message", "")),
            str(figures.get("quantity", "0")),
            str(figures.get("price", "0")),
        )
        if not self._outbox.offer(note):
            self._count("suppressed")
        self._offered.set()

    async def run(self) -> None:
        """Post until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                await self._next(session)

    async def _next(self, session: aiohttp.ClientSession) -> None:
        wanted, now = self._settings().notifications, self._clocks.monotonic()
        note, wait = None, None
        if wanted is not None:
            note = self._outbox.take(now, wanted.min_interval_seconds)
            wait = self._outbox.wait(now, wanted.min_interval_seconds)
        if wanted is None or note is None:
            self._offered.clear()
            await _wait_for(self._offered, wait)
            return
        problem = await self._deliver(session, wanted, note)
        self._count("sent" if problem is None else "failed")
        if problem is not None:
            self._log.warning("notification not delivered", kind=note.kind.value, problem=problem)

    async def _deliver(self, session: aiohttp.ClientSession, wanted: Notifications, note: Note) -> str | None:
        """None once a receiver took it, or why none did."""
        body = render(wanted.template, note, self._bot, self._settings().symbol)
        problem = ""
        for attempt in range(1, ATTEMPTS + 1):
            url = read_url(self._directory / wanted.url_key)
            if url is None:
                return f"{NO_URL}: expected an http or https address under the key {wanted.url_key} of the credentials"
            problem, asked = await _post(session, url, body, self._clocks.utc())
            if not problem:
                return None
            if asked is None:
                break
            if attempt < ATTEMPTS:
                await asyncio.sleep(max(asked, _pause(attempt, self._clocks.random)))
        return problem


def read_url(path: Path) -> str | None:
    """The address in a file; None where there is none. Never shown: it may be a secret."""
    try:
        url = path.read_text(encoding="utf-8").strip()
        parts = urlsplit(url)
    except (OSError, ValueError):  # UnicodeDecodeError is one
        return None
    return url if parts.scheme in {"http", "https"} and parts.hostname else None


def _pause(attempt: int, rng: Random) -> float:
    return max(0.1, full_jitter(attempt, 1.0, LONGEST_WAIT, rng))


def asked_wait(retry_after: str, now: datetime) -> float:
    """Seconds that a receiver asks for by `Retry-After`, in seconds or as a date: 0 to LONGEST_ASKED; pure."""
    seconds = 0.0
    with suppress(ValueError, OverflowError):
        date = parsedate_to_datetime(retry_after)
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
    with suppress(ValueError):
        seconds = float(retry_after)
    return min(max(0.0, seconds), LONGEST_ASKED) if math.isfinite(seconds) else 0.0


async def _post(session: aiohttp.ClientSession, url: str, body: str, now: datetime) -> tuple[str, float | None]:
    """What went wrong (empty: nothing), without the address, and after how many seconds at least to try again."""
    headers = {"Content-Type": "application/json"}
    try:
        # No redirect: a message goes to the address that was given and nowhere else.
        async with session.post(url, data=body.encode(), headers=headers, allow_redirects=False) as answer:
            if answer.status < 300:
                return "", None
            again = answer.status >= 500 or answer.status in {408, 429}
            return f"HTTP {answer.status}", asked_wait(answer.headers.get("Retry-After", ""), now) if again else None
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return type(error).__name__, 0.0
    except ValueError as error:
        return type(error).__name__, None


async def _wait_for(event: asyncio.Event, seconds: float | None) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
