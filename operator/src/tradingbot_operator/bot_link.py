"""The operator's line to one bot over mTLS: carries configuration, grant and drain, and follows its status stream."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import aiohttp
import structlog
from pydantic import BaseModel, ValidationError

from tradingbot_api import names
from tradingbot_api.bot_http import (
    STALE_AFTER_SECONDS,
    BotConfig,
    BotStatus,
    DrainRequest,
    ErrorReply,
    ExchangeWait,
    Grant,
    RaiseIncarnation,
    Reservation,
)
from tradingbot_api.v1alpha1 import TradingBotStatus
from tradingbot_operator.cluster import fencing
from tradingbot_operator.inventory import BotKey, SeenPod
from tradingbot_operator.metrics import Metrics

CALL_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 3.0
FIRST_RETRY_SECONDS: Final = 0.2
LONGEST_RETRY_SECONDS: Final = 2.0
LONGEST_LINE: Final = 2**20
LASTING: Final = BotStatus.model_fields.keys() & TradingBotStatus.model_fields.keys() - {"conditions"}
"""What of a bot's word goes into its status as it is."""
OPENED_AT_ONCE: Final = 16
OPENING_SECONDS: Final = 0.1

log = structlog.get_logger(__name__)


class BotCallError(Exception):
    """A call to a bot had no answer, or none that can be read."""

    code = "BotUnreachable"


class BotRefusedError(BotCallError):
    """The bot answered and refused."""

    code = "BotRefused"

    def __init__(self, status: int, reply: ErrorReply) -> None:
        self.status = status
        self.reply = reply
        fields = "".join(f"; {item.field}: {item.message}" for item in reply.fields)
        super().__init__(f"{status} {reply.code}: {reply.message}{fields}")


@dataclass(frozen=True)
class Word:
    """What the bot last told, and when it came, on the loop's clock."""

    status: BotStatus
    received: float


@dataclass(frozen=True)
class Peer:
    """The process that a link leads to."""

    key: BotKey
    uid: str
    pod_uid: str
    address: str

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"https://{host}:{names.CONTROL_PORT}"

    @classmethod
    def of(cls, uid: str, pod: SeenPod | None) -> Peer | None:
        """The process of a TradingBot's own pod, while it runs."""
        if pod is None or not pod.ip or not pod.container.running or pod.terminated:
            return None
        return cls(pod.key, uid, pod.uid, pod.ip)


def client_session(fence: Callable[[], None]) -> aiohttp.ClientSession:
    """Connections to bots: as many as there are bots, each kept open between calls.

    `fence` raises where this process does not lead; it is asked just before what only the leader may say is sent.
    """
    return aiohttp.ClientSession(
        trace_configs=[fencing(fence)],
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
        timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS),
        read_bufsize=LONGEST_LINE,
    )


class BotCalls:
    """What the operator says to one process; `epoch` gives the Lease's, which the bot compares."""

    def __init__(
        self,
        peer: Peer,
        session: aiohttp.ClientSession,
        tls: ssl.SSLContext,
        *,
        epoch: Callable[[], int],
        metrics: Metrics,
    ) -> None:
        self.peer = peer
        self._session = session
        self._tls = tls
        self._epoch = epoch
        self._metrics = metrics

    async def _call(self, method: str, call: str, body: dict[str, Any], *, leading: bool = True) -> str:
        result = "unreachable"
        try:
            async with self._session.request(
                method,
                f"{self.peer.url}/v1/{call}",
                json=body,
                trace_request_ctx=leading,
                ssl=self._tls,
                server_hostname=names.bot_server_name(self.peer.uid),
            ) as response:
                text = await response.text()
                result = str(response.status)
                if response.status >= 400:
                    raise BotRefusedError(response.status, _refusal(response.status, text))
                return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise BotCallError(f"{call}: {type(error).__name__}: {error}"[:200]) from error
        finally:
            self._metrics.bot_calls.labels(call, result).inc()

    async def put_config(self, config: BotConfig) -> None:
        """Hands over a whole configuration; returns when it is committed. BotRefusedError, BotCallError.

        One that engages safe mode needs no leadership.
        """
        body = config.model_copy(update={"epoch": self._epoch()}).sparse()
        tightens = config.settings.safe_mode is True or bool(config.imposed)
        await self._call("PUT", "config", body, leading=not tightens)

    async def put_grant(self, grant: Grant) -> None:
        """Gives the right to add exposure for a while."""
        await self._call("PUT", "grant", _whole(grant))

    async def put_reservation(self, reservation: Reservation) -> None:
        """Tells how much exposure is reserved."""
        await self._call("PUT", "reservation", _whole(reservation))

    async def raise_incarnation(self, request: RaiseIncarnation) -> None:
        """Asks for a greater incarnation before the first order of this boot."""
        await self._call("PUT", "incarnation", _whole(request))

    async def put_wait(self, wait: ExchangeWait) -> None:
        """Tells it to send the exchange nothing for a while."""
        await self._call("PUT", "wait", _whole(wait))

    async def drain(self, request: DrainRequest) -> None:
        """Asks to end trading; progress comes over the stream."""
        await self._call("POST", "drain", _whole(request))


class Opening:
    """Turns to open a stream: a leader that begins opens a thousand, and what it has to say to one bot would wait for
    all of their handshakes. Who does not answer keeps the others for a moment only."""

    def __init__(self, at_once: int = OPENED_AT_ONCE, seconds: float = OPENING_SECONDS) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._seconds = seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a turn, which ends by itself after a while."""
        loop = asyncio.get_running_loop()
        await self._turns.acquire()
        due = loop.time() + self._seconds
        timer = loop.call_at(due, self._turns.release)
        try:
            yield
        finally:
            # Where it is due already the timer gives the turn back, or has.
            if loop.time() < due:
                timer.cancel()
                self._turns.release()


class BotLink(BotCalls):
    """Follows one bot's stream for as long as it is open; `heard` is called after every line and every loss."""

    def __init__(
        self,
        peer: Peer,
        session: aiohttp.ClientSession,
        tls: ssl.SSLContext,
        *,
        heard: Callable[[BotKey, BotStatus | None, BotStatus | None], None],
        random: Random,
        metrics: Metrics,
        epoch: Callable[[], int],
        opening: Opening,
    ) -> None:
        super().__init__(peer, session, tls, epoch=epoch, metrics=metrics)
        self._opening = opening
        self.word: Word | None = None
        self.trouble = ""
        self.mismatch = ""
        self._heard = heard
        self._random = random
        self._loop = asyncio.get_running_loop()
        self.opened = self._loop.time()
        self._task = self._loop.create_task(self._follow(), name=f"link {peer.key}")

    def fresh(self) -> Word | None:
        """The last word if it is not older than a live bot's would be."""
        word = self.word
        return word if word is not None and self._loop.time() - word.received <= STALE_AFTER_SECONDS else None

    def silence(self) -> float:
        """Seconds since the last word, or since a first one is waited for."""
        return self._loop.time() - self._last

    def silent_at(self) -> float:
        """When, on the loop's clock, the bot counts as unreachable if nothing more comes."""
        return self._last + STALE_AFTER_SECONDS

    @property
    def _last(self) -> float:
        return self.opened if self.word is None else self.word.received

    def close(self) -> None:
        """Ends it; nothing is awaited."""
        self._task.cancel()

    # --- the stream ---

    async def _follow(self) -> None:
        delay = FIRST_RETRY_SECONDS
        while True:
            begun = self._loop.time()
            try:
                await self._read_stream()
                self.trouble = "the status stream ended"
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                self.trouble = f"{type(error).__name__}: {error}"[:200]
            except Exception as error:
                # Nobody makes a link anew that ended by itself: its bot would be granted nothing any more.
                log.exception("the status stream failed", bot=str(self.peer.key))
                self.trouble = f"{type(error).__name__}: {error}"[:200]
            if self._loop.time() - begun > LONGEST_RETRY_SECONDS:
                delay = FIRST_RETRY_SECONDS
            self._heard(self.peer.key, None, None)
            await asyncio.sleep(delay * (0.5 + self._random.random()))
            delay = min(LONGEST_RETRY_SECONDS, delay * 2)

    async def _read_stream(self) -> None:
        async with self._opening.turn():
            opened = await self._session.get(
                f"{self.peer.url}/v1/status/stream",
                ssl=self._tls,
                server_hostname=names.bot_server_name(self.peer.uid),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALE_AFTER_SECONDS),
            )
        async with opened as response:
            if response.status != 200:
                raise ValueError(f"the status stream answered {response.status}")
            async for line in response.content:
                if line.strip():
                    self._take(BotStatus.model_validate_json(line))

    def _take(self, status: BotStatus) -> None:
        if status.bot_uid != self.peer.uid:
            self.mismatch = f"the process says that it is the bot of uid {status.bot_uid}"
            raise ValueError(self.mismatch)
        self.mismatch = self.trouble = ""
        before = self.word.status if self.word is not None else None
        if before is not None:
            share(before, status)
        self.word = Word(status, self._loop.time())
        self._heard(self.peer.key, before, status)


def share(former: BotStatus, latest: BotStatus) -> None:
    """What is as it was before is the same object in both: the status that was made of the former word has it too."""
    before, now = vars(former), vars(latest)
    now.update({field: before[field] for field in LASTING if before[field] == now[field]})


def _whole(body: BaseModel) -> dict[str, Any]:
    return body.model_dump(mode="json", by_alias=True, exclude_none=True)


def _refusal(status: int, text: str) -> ErrorReply:
    try:
        return ErrorReply.model_validate_json(text)
    except ValidationError:
        return ErrorReply(code="Unexpected", message=f"HTTP {status} without a reason")
