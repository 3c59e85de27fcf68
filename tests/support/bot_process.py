"""A bot as a process, and an operator's side of its control port, for tests."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import BaseModel

from paper_exchange.testing import PaperExchange, TestAccount
from support.operator_process import make_authority
from tradingbot.gateway.binance import BinanceExchange
from tradingbot.gateway.credentials import Credentials
from tradingbot.gateway.port import OpenGuard
from tradingbot.gateway.rate_limits import WeightBudget
from tradingbot_api import names
from tradingbot_api.bot_http import BotConfig, BotIdentity, BotStatus, Grant
from tradingbot_api.v1alpha1 import BotSettings
from tradingbot_operator.certificates import CertificateAuthority, KeyPair

UID = "6b1f7f8e-0000-4000-8000-000000000001"
DEADLINE = 30.0
DAILY = {"interval": "1d"}
"""A strategy that decides nothing while a test runs."""


def settings(base_url: str, **changes: Any) -> BotSettings:
    """Settings of a bot on a paper exchange that trades at the first crossing."""
    spec: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "exchange": {"environment": "Paper", "baseURL": base_url, "credentialsSecretRef": {"name": "keys"}},
        "strategy": {"name": "ema-cross", "interval": "1s", "parameters": {"fast": 1, "slow": 2}},
        "capital": "1000",
        "entry": {"maxPerMinute": 60, "maxSlippageRatio": "0.01", "maxSpreadRatio": "0.01"},
        "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
        "risk": {"maxPositionValue": "500", "maxDailyLoss": "500", "cooldownSeconds": 0},
        "circuitBreaker": {"failureThreshold": 2, "recoveryTimeoutSeconds": 3},
    }
    for path, value in changes.items():
        spec[path] = {**spec[path], **value} if isinstance(value, dict) and path in spec else value
    return BotSettings.model_validate(spec)


def config(bot_settings: BotSettings, revision: int = 1) -> BotConfig:
    """A whole configuration."""
    return BotConfig(
        revision=revision, bot=BotIdentity(namespace="test", name="btcusdt", uid=UID), settings=bot_settings
    )


@dataclass
class BotFolder:
    """The files that a pod would have mounted."""

    root: Path
    authority: CertificateAuthority

    @classmethod
    def make(cls, root: Path, bot_config: BotConfig) -> BotFolder:
        """All but the credentials."""
        make_authority(root / "ca")
        folder = cls(root, CertificateAuthority.load(root / "ca"))
        for name in ("tls", "keys", "state"):
            (root / name).mkdir(parents=True)
        pair = folder.authority.issue_bot(UID, datetime.now(UTC))
        folder.write_pair(root / "tls", pair)
        (root / "tls" / "ca.crt").write_bytes(folder.authority.pem)
        folder.write_config(bot_config)
        return folder

    @staticmethod
    def write_pair(directory: Path, pair: KeyPair) -> None:
        """A certificate and its key."""
        (directory / "tls.crt").write_bytes(pair.certificate)
        (directory / "tls.key").write_bytes(pair.key)

    def write_config(self, bot_config: BotConfig) -> None:
        """The mounted configuration."""
        (self.root / names.CONFIG_KEY).write_text(bot_config.model_dump_json(by_alias=True))

    def write_keys(self, account: TestAccount) -> None:
        """The mounted credentials."""
        (self.root / "keys" / "apiSecret").write_text(account.secret_key)
        (self.root / "keys" / "apiKey").write_text(account.api_key)

    def write_annotations(self, annotations: dict[str, str]) -> None:
        """The pod's annotations, put in place in one step as the kubelet does."""
        (self.root / "podinfo").mkdir(exist_ok=True)
        lines = "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(annotations.items()))
        (self.root / "podinfo" / "next").write_text(lines)
        (self.root / "podinfo" / "next").rename(self.root / "podinfo" / names.ANNOTATIONS_FILE)

    def client_tls(self, pair: KeyPair | None = None) -> ssl.SSLContext:
        """What the operator shows, or what another certificate shows."""
        if pair is None:
            return self.authority.client_context(datetime.now(UTC))
        directory = self.root / "client"
        directory.mkdir(exist_ok=True)
        self.write_pair(directory, pair)
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
        return context


@dataclass
class BotProcess:
    """A running bot and what it told."""

    process: asyncio.subprocess.Process
    probe_url: str
    control_url: str
    session: aiohttp.ClientSession
    tls: ssl.SSLContext
    statuses: list[BotStatus] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def status(self) -> BotStatus:
        """The last word."""
        return self.statuses[-1]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        for item in self.status.conditions:
            if item.type == kind:
                return item.status, item.reason
        return "", ""

    def message(self, kind: str) -> str:
        """What a condition says."""
        return next((item.message for item in self.status.conditions if item.type == kind), "")

    async def follow(self) -> None:
        """Read the stream until it ends."""
        url = f"{self.control_url}/v1/status/stream"
        timeout = aiohttp.ClientTimeout(total=None)
        server = names.bot_server_name(UID)
        with suppress(aiohttp.ClientError):
            async with self.session.get(url, ssl=self.tls, server_hostname=server, timeout=timeout) as answer:
                async for line in answer.content:
                    self.statuses.append(BotStatus.model_validate_json(line))
                    async with self.heard:
                        self.heard.notify_all()

    async def until(self, test: Callable[[BotStatus], bool], seconds: float = DEADLINE) -> BotStatus:
        """Wait for a status, at most so long."""
        try:
            async with asyncio.timeout(seconds), self.heard:
                await self.heard.wait_for(lambda: bool(self.statuses) and test(self.status))
        except TimeoutError:
            last = self.statuses[-1].model_dump_json(by_alias=True) if self.statuses else "nothing"
            raise AssertionError(f"not told in {seconds} s; last: {last}\n" + "".join(self.log[-15:])) from None
        return self.status

    async def until_condition(self, kind: str, status: str, reason: str, seconds: float = DEADLINE) -> None:
        """Wait for a condition."""
        await self.until(lambda _: self.condition(kind) == (status, reason), seconds)

    async def call(self, method: str, path: str, body: BaseModel | None = None) -> tuple[int, Any]:
        """A control call: HTTP status and JSON."""
        return await self.call_json(method, path, None if body is None else body.model_dump(mode="json", by_alias=True))

    async def call_json(self, method: str, path: str, data: Any) -> tuple[int, Any]:
        """The same with a body that is in no model."""
        async with self.session.request(
            method, self.control_url + path, json=data, ssl=self.tls, server_hostname=names.bot_server_name(UID)
        ) as answer:
            return answer.status, await answer.json()

    async def grant(self, ttl_seconds: int = 60) -> tuple[int, Any]:
        """Grant for what the bot last told."""
        status = self.status
        assert status.incarnation is not None
        return await self.call(
            "PUT",
            "/v1/grant",
            Grant(
                bot_uid=UID,
                boot_id=status.boot_id,
                incarnation=status.incarnation,
                revision=status.applied_revision,
                status_sequence=status.sequence,
                epoch=1,
                ttl_seconds=ttl_seconds,
            ),
        )

    @property
    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        lines = [json.loads(line) for line in self.log if line.startswith("{")]
        return [line for line in lines if line.get("logger") == "tradingbot.audit"]

    async def probe(self, path: str) -> tuple[int, str]:
        """A plain call: HTTP status and text."""
        async with self.session.get(self.probe_url + path) as answer:
            return answer.status, await answer.text()

    async def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def bot_process(folder: BotFolder) -> AsyncIterator[BotProcess]:
    """A bot on free ports, its stream followed; ended with SIGTERM unless it ended before."""
    root = folder.root
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tradingbot", "run",
        "--config", str(root / names.CONFIG_KEY), "--tls-dir", str(root / "tls"),
        "--credentials-dir", str(root / "keys"), "--state-dir", str(root / "state"),
        "--podinfo-dir", str(root / "podinfo"),
        "--host", "127.0.0.1", "--probe-port", "0", "--control-port", "0",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = asyncio.create_task(_collect(process.stderr, log))
    follow: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(DEADLINE):
            line = await process.stdout.readline()
        assert line, "".join(log)
        ports = json.loads(line)
        async with aiohttp.ClientSession() as session:
            bot = BotProcess(
                process,
                f"http://127.0.0.1:{ports['probePort']}",
                f"https://127.0.0.1:{ports['controlPort']}",
                session,
                folder.client_tls(),
                log=log,
            )
            follow = asyncio.create_task(bot.follow())
            await bot.until(lambda _: True)
            yield bot
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(30):
                await process.wait()
        for task in (reader, follow):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in (reader, follow) if task), return_exceptions=True)


def make(root: Path, exchange: PaperExchange, account: TestAccount, **changes: Any) -> BotFolder:
    """The files of a bot that trades at the first crossing."""
    folder = BotFolder.make(root, config(settings(exchange.base_url, **changes)))
    folder.write_keys(account)
    return folder


def long(status: BotStatus) -> bool:
    """Whether a position is held."""
    return status.position is not None and status.position.side == "Long"


def flat(status: BotStatus) -> bool:
    """Whether it is known that none is."""
    return status.position is not None and status.position.side == "Flat"


async def enter(bot: BotProcess) -> BotStatus:
    """Grant, and wait until the bot holds a protected position."""
    await bot.until(lambda status: status.ready)
    assert (await bot.grant())[0] == 200
    return await bot.until(lambda status: long(status) and bot.condition("Protected")[1] == "Protected", 60)


def position(status: BotStatus) -> Decimal:
    """What is held."""
    assert status.position is not None
    return status.position.quantity


async def hold(bot: BotProcess, folder: BotFolder, exchange: PaperExchange) -> Decimal:
    """Buy, and keep what was bought: returns the position."""
    for revision in count(2, 2):
        await enter(bot)
        daily = config(settings(exchange.base_url, strategy=DAILY), revision)
        folder.write_config(daily)
        seen = len(bot.log)
        assert (await bot.call("PUT", "/v1/config", daily))[0] == 200
        # Candles are decided one after the other: from this line on the first strategy decides none.
        await bot.until(lambda _, n=seen: any("strategy filled" in line for line in bot.log[n:]))
        if long(await bot.until(lambda status: status.position is not None)):
            return position(bot.status)
        # The first strategy sold before it was replaced.
        assert (await bot.call("PUT", "/v1/config", config(settings(exchange.base_url), revision + 1)))[0] == 200
        await bot.until(lambda status, n=revision + 1: status.applied_revision == n)
    raise AssertionError


@asynccontextmanager
async def by_hand(exchange: PaperExchange, account: TestAccount) -> AsyncIterator[BinanceExchange]:
    """What a human may do on the account."""
    keys = Credentials(account.api_key, account.secret_key)
    budget = WeightBudget(time.monotonic)
    budget.suspended = True  # bots at the same address may have used it up
    hand = BinanceExchange.create(settings(exchange.base_url).exchange, keys, OpenGuard(), time.monotonic, budget)
    try:
        await hand.sync_clock()
        yield hand
    finally:
        await hand.close()


async def cancel_protection(hand: BinanceExchange) -> None:
    """The pair of a position."""
    order = (await hand.open_orders("BTCUSDT"))[0]
    await hand.cancel_list("BTCUSDT", order.order_list_id, "hand-1", hand.stamp())


async def metric(bot: BotProcess, name: str) -> float:
    """The sum of a metric's samples."""
    _, text = await bot.probe("/metrics")
    return sum(float(value) for value in re.findall(rf"^{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE))


@contextmanager
def exchange_process(*options: str) -> Iterator[tuple[str, str]]:
    """A paper exchange for all tests of a module: its addresses (API, control).

    It has request weight for the bots of all of them, which come from one address and would wait for each other.
    """
    serve = [sys.executable, "-m", "paper_exchange", "serve", "--port=0", "--control-port=0", "--weight-limit=60000"]
    command = [*serve, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()) as process:
        try:
            assert process.stdout is not None
            listening = json.loads(process.stdout.readline())
            yield listening["baseURL"], listening["controlURL"]
        finally:
            process.terminate()


def _environment() -> dict[str, str]:
    """With byte code, since a start that compiles everything takes twice the time."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def _collect(stream: asyncio.StreamReader, log: list[str]) -> None:
    async for line in stream:
        log.append(line.decode(errors="replace"))  # noqa: PERF401 - a comprehension would show nothing before the end
