"""A paper exchange for tests: in the same process, or as a process of its own, on free ports of the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import aiohttp

from paper_exchange.administration import Administration
from paper_exchange.keys import write_keys
from paper_exchange.server.app import Options, PaperExchangeServer, steady_clock_ms, wall_clock_ms

__all__ = ["Options", "PaperExchange", "TestAccount", "running_paper_exchange", "spawn_paper_exchange", "write_keys"]

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class TestAccount:
    """An account made for a test."""

    __test__ = False

    uid: int
    api_key: str
    secret_key: str


@dataclass(slots=True)
class PaperExchange:
    """A running exchange: where it listens, and its control port as methods."""

    base_url: str
    control_url: str
    session: aiohttp.ClientSession
    server: PaperExchangeServer | None = None
    """The server itself when it runs in this process."""
    process: asyncio.subprocess.Process | None = None

    @property
    def ws_url(self) -> str:
        """The address of WebSockets, without a path."""
        return self.base_url.replace("http", "ws", 1)

    async def create_account(self, **deposits: str | Decimal) -> TestAccount:
        """A new account, for example `create_account(USDT="10000")`."""
        body = {"deposits": {asset: str(amount) for asset, amount in deposits.items()}}
        made = await self._control("POST", "/control/accounts", body)
        return TestAccount(made["uid"], made["apiKey"], made["secretKey"])

    async def deposit(self, uid: int, **deposits: str | Decimal) -> None:
        """Pay in, for example `deposit(account.uid, BTC="1")`."""
        body = {"deposits": {asset: str(amount) for asset, amount in deposits.items()}}
        await self._control("POST", f"/control/accounts/{uid}/deposits", body)

    async def change_account(self, uid: int, **settings: Any) -> None:
        """What an account may do and pays, for example `change_account(uid, canTrade=False, tradeGroupId=7)`."""
        await self._control("PATCH", f"/control/accounts/{uid}", settings)

    async def create_key(self, uid: int, *permissions: str) -> TestAccount:
        """One more key of an account, as after a rotation; with permissions other than the usual ones if named."""
        body = {"permissions": list(permissions)} if permissions else {}
        made = await self._control("POST", f"/control/accounts/{uid}/keys", body)
        return TestAccount(made["uid"], made["apiKey"], made["secretKey"])

    async def delete_key(self, account: TestAccount) -> None:
        """From now on the exchange refuses this key."""
        await self._control("DELETE", f"/control/accounts/{account.uid}/keys/{account.api_key}")

    async def account(self, uid: int) -> dict[str, Any]:
        """Balances, open orders, open lists and trades as the exchange has them."""
        return dict(await self._control("GET", f"/control/accounts/{uid}"))

    def account_now(self, uid: int) -> dict[str, Any]:
        """The same at this very moment, of an exchange in this process."""
        assert self.server is not None  # noqa: S101, it runs here
        return Administration(self.server.venue).actions["show_account"]({"uid": str(uid)}, {})

    async def push_trade(self, symbol: str, price: str | Decimal) -> None:
        """An outside trade that sweeps the book to a price."""
        await self._control("POST", "/control/trades", {"symbol": symbol, "price": str(price)})

    async def set_speed(self, speed: float) -> None:
        """Play the market so many times as fast as real time from now on; 0 stands still."""
        await self._control("PATCH", "/control/market", {"speed": speed})

    async def drop_connections(self) -> int:
        """Close every WebSocket, as a server that is replaced does; returns how many."""
        return int((await self._control("DELETE", "/control/connections"))["closed"])

    async def fail_rest(self, status: int, seconds: float) -> None:
        """Answer every REST call with a status for some seconds."""
        await self._control("POST", "/control/faults", {"kind": "rest_status", "status": status, "seconds": seconds})

    async def start_fault(self, kind: str, **more: Any) -> int:
        """Put a fault in force, for example `start_fault("lost_answer", count=1)`; returns its number."""
        return int((await self._control("POST", "/control/faults", {"kind": kind} | more))["id"])

    async def fault_record(self) -> list[dict[str, Any]]:
        """What faults and steps of a scenario did, oldest first."""
        return list((await self._control("GET", "/control/faults/record"))["rows"])

    async def reset(self, **deposits: str | Decimal) -> None:
        """Forget orders, lists and trades, as the Testnet does about monthly; each account has these balances then."""
        await self._control(
            "POST", "/control/reset", {"deposits": {asset: str(amount) for asset, amount in deposits.items()}}
        )

    async def begin_scenario(self, scenario: str | list[dict[str, Any]]) -> None:
        """Begin a shipped scenario by its name, or one of these steps."""
        if isinstance(scenario, str):
            await self._control("POST", f"/control/scenario?name={scenario}")
        else:
            await self._control("POST", "/control/scenario", {"steps": scenario})

    async def clear_faults(self) -> None:
        """End all faults."""
        await self._control("DELETE", "/control/faults")

    async def last_price(self, symbol: str) -> Decimal:
        """The price of the last trade."""
        async with self.session.get(f"{self.base_url}/api/v3/ticker/price", params={"symbol": symbol}) as answer:
            return Decimal((await answer.json())["price"])

    async def kill(self) -> None:
        """End the process at once, as kill -9 does."""
        assert self.process is not None  # noqa: S101, only spawned exchanges are processes
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def _control(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        async with self.session.request(method, self.control_url + path, json=body) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status} {text}")
            return json.loads(text)


def _session() -> aiohttp.ClientSession:
    """A client without a limit of its own: WebSockets that stay open must not keep a call waiting."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@asynccontextmanager
async def running_paper_exchange(
    options: Options | None = None,
    steady_ms: Callable[[], int] = steady_clock_ms,
    wall_ms: Callable[[], int] = wall_clock_ms,
) -> AsyncIterator[PaperExchange]:
    """An exchange in this process and event loop.

    `steady_ms` is the clock on which its WebSockets age, `wall_ms` the exchange's time.
    """
    server = PaperExchangeServer(options or Options(), steady_ms, wall_ms)
    await server.start()
    try:
        async with _session() as session:
            yield PaperExchange(server.base_url, server.control_url, session, server=server)
    finally:
        await server.stop()


@asynccontextmanager
async def spawn_paper_exchange(
    data_dir: Path,
    *,
    symbols: str = "BTCUSDT,ETHUSDT,BNBUSDT",
    market: str = "synthetic",
    seed: int = 1,
    port: int = 0,
    journal: Path | None = None,
    scenario: str = "",
    weight_per_minute: int = 6000,
    log: IO[bytes] | None = None,
) -> AsyncIterator[PaperExchange]:
    """An exchange as a process of its own, ended with SIGTERM unless it was killed; `log` is where it writes its log.

    Without `log` it writes where the caller writes its errors.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paper_exchange",
        "serve",
        f"--port={port}",
        "--control-port=0",
        f"--data-dir={data_dir}",
        f"--symbols={symbols}",
        f"--market={market}",
        f"--seed={seed}",
        f"--scenario={scenario}",
        f"--weight-limit={weight_per_minute}",
        *([f"--journal={journal}"] if journal else []),
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=dict(os.environ),
    )
    try:
        assert process.stdout is not None  # noqa: S101, it is a pipe
        line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        if not line:
            raise RuntimeError(f"the paper exchange ended with {await process.wait()}; its log says why")
        listening = json.loads(line)
        async with _session() as session:
            yield PaperExchange(listening["baseURL"], listening["controlURL"], session, process=process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
