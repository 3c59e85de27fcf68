"""Measures the paper exchange: orders over loopback, events to subscribers, recordings through the core, memory.

make bench-paper-exchange; a part alone: python tests/performance/measure_paper_exchange.py orders
The machine's load stands beside each figure: on a busy one look at the processor times, not at the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import aiohttp
import uvloop

from paper_exchange.testing import PaperExchange, TestAccount, spawn_paper_exchange

SYMBOL = "BTCUSDT"
ACCOUNTS = 400
"""Enough that nobody comes near the limit of unfilled orders, 100 in 10 s for each."""
CONNECTIONS = 16
ORDERS = 10_000
RATE = 500
SUBSCRIBERS = 100
ROWS = 2_000_000
"""Trades of a day of BTCUSDT."""
_TICKS = os.sysconf("SC_CLK_TCK")


def load() -> str:
    """The machine beside a figure."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    """Memory of a process."""
    rows = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) / 1024


@dataclass
class Connection:
    """One HTTP connection that is kept open, with no more of HTTP than this needs."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def exchange(self, request: bytes) -> int:
        """Send a request and read its whole answer; the status."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length))
        return int(head[9:12])


def signed_order(exchange: PaperExchange, account: TestAccount, number: int) -> bytes:
    """The bytes of a limit order that rests, or, each second one, of one that takes at once."""
    side, price = ("BUY", "30000") if number % 2 else ("BUY", "90000")
    return signed(exchange, account, f"side={side}&type=LIMIT&timeInForce=GTC&quantity=0.001&price={price}")


def signed(exchange: PaperExchange, account: TestAccount, parameters: str) -> bytes:
    """The bytes of a new order with these parameters, signed now."""
    query = f"symbol={SYMBOL}&{parameters}&recvWindow=60000&timestamp={time.time_ns() // 1_000_000}"
    signature = hmac.new(account.secret_key.encode(), query.encode(), hashlib.sha256).hexdigest()
    return (
        f"POST /api/v3/order?{query}&signature={signature} HTTP/1.1\r\nHost: {urlsplit(exchange.base_url).netloc}\r\n"
        f"X-MBX-APIKEY: {account.api_key}\r\nContent-Length: 0\r\n\r\n"
    ).encode()


@asynccontextmanager
async def connections(exchange: PaperExchange, count: int) -> AsyncIterator[list[Connection]]:
    """Open connections to the exchange."""
    address = urlsplit(exchange.base_url)
    opened = [Connection(*await asyncio.open_connection(address.hostname, address.port)) for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.writer.close()


async def _orders(exchange: PaperExchange, count: int) -> list[bytes]:
    accounts = [await exchange.create_account(USDT="10000000") for _ in range(ACCOUNTS)]
    return [signed_order(exchange, accounts[number % ACCOUNTS], number // ACCOUNTS) for number in range(count)]


async def measure_orders() -> None:
    """POST order as fast as it goes, then at a fixed rate."""
    with tempfile.TemporaryDirectory() as folder:
        async with spawn_paper_exchange(Path(folder), symbols=SYMBOL) as exchange:
            assert exchange.process is not None
            server = exchange.process.pid
            requests = await _orders(exchange, ORDERS)
            async with connections(exchange, CONNECTIONS) as opened:
                refused = 0
                begun, own, its = time.monotonic(), time.process_time(), processor_seconds(server)

                async def work(connection: Connection) -> None:
                    nonlocal refused
                    while requests:
                        refused += await connection.exchange(requests.pop()) != 200

                await asyncio.gather(*(work(connection) for connection in opened))
                seconds = time.monotonic() - begun
                server_seconds = processor_seconds(server) - its
                print(
                    f"POST order, {CONNECTIONS} connections: {ORDERS / seconds:.0f} orders/s by the clock, "
                    f"{ORDERS / server_seconds:.0f} per second of the server's processor time "
                    f"(server {server_seconds:.1f} s, generator {time.process_time() - own:.1f} s, "
                    f"in {seconds:.1f} s); "
                    f"{refused} refused; each is in the store's file before its answer, "
                    f"safe from the end of the process; {load()}"
                )
            await asyncio.sleep(10)  # the window of unfilled orders
            await _at_rate(exchange)


async def _at_rate(exchange: PaperExchange) -> None:
    count = RATE * 10
    requests = await _orders(exchange, count)
    latencies: list[float] = []
    async with connections(exchange, CONNECTIONS * 4) as opened:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in opened:
            free.put_nowait(connection)

        async def one(due: float, request: bytes) -> None:
            connection = await free.get()
            status = await connection.exchange(request)
            # From when it was due: waiting for a connection counts too.
            latencies.append(time.monotonic() - due)
            assert status == 200, status
            free.put_nowait(connection)

        begun, tasks = time.monotonic() + 0.1, []
        for number, request in enumerate(requests):
            due = begun + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.append(asyncio.create_task(one(due, request)))
        await asyncio.gather(*tasks)
    latencies.sort()
    p50, p99 = (latencies[int(count * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"POST order at {RATE}/s: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {latencies[-1] * 1000:.1f} ms "
        f"over {count} orders, counted from when each was due; {load()}"
    )


async def measure_events() -> None:
    """Market events to 100 subscribers while the market is made to move."""
    with tempfile.TemporaryDirectory() as folder:
        async with spawn_paper_exchange(Path(folder), symbols=SYMBOL) as exchange:
            assert exchange.process is not None
            server, heard = exchange.process.pid, 0
            price = int(await exchange.last_price(SYMBOL))

            async def subscriber() -> None:
                nonlocal heard
                url = f"{exchange.ws_url}/ws/btcusdt@trade/btcusdt@bookTicker"
                async with exchange.session.ws_connect(url) as socket:
                    async for message in socket:
                        heard += message.type is aiohttp.WSMsgType.TEXT

            tasks = [asyncio.create_task(subscriber()) for _ in range(SUBSCRIBERS)]
            await asyncio.sleep(1)
            before, begun, its = heard, time.monotonic(), processor_seconds(server)
            own, pushed = time.process_time(), 0
            while time.monotonic() - begun < 10:
                await exchange.push_trade(SYMBOL, str(price + pushed % 7))
                pushed += 1
            seconds, server_seconds = time.monotonic() - begun, processor_seconds(server) - its
            told = heard - before
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            print(
                f"events to {SUBSCRIBERS} subscribers: {told / seconds:.0f} events/s by the clock, "
                f"{told / server_seconds:.0f} per second of the server's processor time "
                f"({pushed} outside trades; generator {time.process_time() - own:.1f} s); {load()}"
            )


async def measure_capture() -> None:
    """A recording through the core, with its candles and store in memory."""
    folder = os.environ.get("TRADINGBOT_TEST_DATA")
    if folder is None:
        print("capture: TRADINGBOT_TEST_DATA names no folder with a recorded market")
        return
    code = _CAPTURE.replace("FOLDER", repr(f"{folder}/market"))
    print(await _child(code) + f"; {load()}")


async def measure_archive() -> None:
    """A day of BTCUSDT's trades as Binance archives it, generated, through the core; then one of twice the length."""
    for rows in (ROWS, 2 * ROWS):
        with tempfile.TemporaryDirectory() as folder:
            write_archive(Path(folder), rows)
            print(await _child(_ARCHIVE.replace("FOLDER", repr(folder)).replace("ROWS", repr(rows))) + f"; {load()}")


def write_archive(folder: Path, rows: int) -> None:
    """A day of so many trades, evenly over the day: takers of one or more levels around a price that wanders."""
    rng, name, day_ms = Random(1), f"{SYMBOL}-trades-2024-08-08", 1_723_075_200_000
    packed = zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED)
    with packed, packed.open(f"{name}.csv", "w") as csv:
        price, written = 5_500_000, 0
        while written < rows:
            sold, milliseconds = rng.random() < 0.5, written * 86_400_000 // rows
            price += int(rng.gauss(0, 120)) if rng.random() < 0.3 else 0
            for number in range(min(rows - written, 1 + int(rng.expovariate(1 / 1.5)))):
                at = (price - number if sold else price + 1 + number) / 100
                quantity = (1 + int(rng.expovariate(1 / 1500))) / 1e5
                amounts = f"{at:.8f},{quantity:.8f},{at * quantity:.8f}"
                csv.write(f"{written},{amounts},{day_ms + milliseconds},{sold},True\n".encode())
                written += 1


async def measure_memory() -> None:
    """Memory with 100 symbols, and after a million orders."""
    print(await _child(_SYMBOLS) + f"; {load()}")
    with tempfile.TemporaryDirectory() as folder:
        print(await _child(_MILLION.replace("FOLDER", repr(folder))) + f"; {load()}")


async def _child(code: str) -> str:
    """What a fresh interpreter prints, so that nobody else's memory is counted."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    told, _ = await process.communicate()
    if process.returncode:
        raise SystemExit(process.returncode)
    return told.decode().strip()


_CAPTURE = """
import time
from pathlib import Path
from paper_exchange.market import open_market
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from prometheus_client import CollectorRegistry
import gzip
folder, now = FOLDER, [1_700_000_000_000]
market = open_market(f"capture:{folder}", ("BTCUSDT",), 1, now[0])
venue = Venue(("BTCUSDT",), market, Store(None), lambda: now[0], CollectorRegistry())
begun, clock, events = time.process_time(), time.monotonic(), 0
for event in market.events():
    now[0] = event.time_ms
    venue.feed(event)
    events += 1
used, took = time.process_time() - begun, time.monotonic() - clock
lines = sum(1 for path in Path(folder).glob("btcusdt_*.gz") for _ in gzip.open(path))
print(f"capture through the core: {lines / used:.0f} lines/s of processor time ({lines} lines, {events} events of them "
      f"for the core, {used:.2f} s; {took:.2f} s by the clock), unzipping and parsing included", end="")
"""

_ARCHIVE = """
import time
from pathlib import Path
from paper_exchange.market import open_market
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from prometheus_client import CollectorRegistry
def mib(which):
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(row for row in status if row.startswith(which)).split()[1]) // 1024
now = [1_700_000_040_000]
market = open_market(f"archive:{FOLDER}", ("BTCUSDT",), 1, now[0])
venue = Venue(("BTCUSDT",), market, Store(None), lambda: now[0], CollectorRegistry())
start, begun, clock, events = mib("VmRSS"), time.process_time(), time.monotonic(), 0
for event in market.events():
    now[0] = event.time_ms
    venue.feed(event)
    events += 1
used, took = time.process_time() - begun, time.monotonic() - clock
print(f"archive of {ROWS:,} trades through the core: {used:.0f} s of processor time, {took:.0f} s by the clock, "
      f"{ROWS / used:,.0f} trades/s ({events:,} events); {start} MiB at the start, {mib('VmHWM')} MiB at most", end="")
"""

_SYMBOLS = """
import asyncio, dataclasses
from pathlib import Path
from paper_exchange.core import symbols
from paper_exchange.market import profiles
rules, profile = symbols.SYMBOLS["BTCUSDT"], profiles.profile_of("BTCUSDT")
for number in range(100):
    name = f"B{number:02}USDT"
    symbols.SYMBOLS[name] = dataclasses.replace(rules, symbol=name, base=name[:3])
    profiles.PROFILES[name] = dataclasses.replace(profile)
from paper_exchange.server.app import Options, PaperExchangeServer
async def run():
    server = PaperExchangeServer(Options(symbols=tuple(f"B{number:02}USDT" for number in range(100))))
    await server.start()
    await asyncio.sleep(15)
    rows = Path("/proc/self/status").read_text().splitlines()
    print("100 symbols:", int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) // 1024, "MiB", end="")
    await server.stop()
asyncio.run(run())
"""

_MILLION = """
import time
from decimal import Decimal
from pathlib import Path
from paper_exchange.api import SpotApi
from paper_exchange.endpoint import Call
from paper_exchange.limits import Limits
from paper_exchange.market import open_market
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from prometheus_client import CollectorRegistry
now = [1_700_000_000_000]
market = open_market("synthetic", ("BTCUSDT",), 1, now[0])
venue = Venue(("BTCUSDT",), market, Store(Path(FOLDER)), lambda: now[0], CollectorRegistry())
api = SpotApi(venue, Limits(10**9))
uid = venue.create_account({"USDT": 10**18, "BTC": 10**15}).uid
for event in market.events():
    venue.feed(event)
    break
place, cancel = api.routes["POST", "/api/v3/order"].answer, api.routes["DELETE", "/api/v3/openOrders"].answer
def mib():
    rows = Path("/proc/self/status").read_text().splitlines()
    return int(next(row for row in rows if row.startswith("VmRSS")).split()[1]) // 1024
order = {"symbol": "BTCUSDT", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001"}
told, begun = [f"{mib()} MiB before"], time.process_time()
for number in range(1_000_000):
    now[0] += 1
    trader = {"side": "SELL", "price": "90000"} if number % 2 else {"side": "BUY", "price": "30000"}
    if number % 10 == 9:
        trader = {"side": "BUY", "price": "90000", "timeInForce": "IOC"}
    place(Call(order | trader, uid, now[0]))
    venue.commit()
    if number % 100 == 99:
        cancel(Call({"symbol": "BTCUSDT"}, uid, now[0]))
        venue.commit()
    if number + 1 in (10_000, 100_000, 300_000, 1_000_000):
        told.append(f"{mib()} MiB after {number + 1:,}")
print("orders in process:", ", ".join(told) + f", {time.process_time() - begun:.0f} s of processor time", end="")
"""

PARTS: dict[str, Callable[[], Awaitable[None]]] = {
    "orders": measure_orders,
    "events": measure_events,
    "capture": measure_capture,
    "archive": measure_archive,
    "memory": measure_memory,
}


async def main() -> None:
    """The parts asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which figures (default: all)")
    for part in parser.parse_args().parts or PARTS:
        await PARTS[part]()


if __name__ == "__main__":
    uvloop.run(main())
