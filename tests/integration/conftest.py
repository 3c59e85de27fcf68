"""Exchanges that several modules use: one for a test, one for a module that tries its faults, one beside bots."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
import pytest_asyncio

from paper_exchange.server.app import Options
from paper_exchange.testing import PaperExchange, TestAccount, running_paper_exchange
from support.bot_process import exchange_process

PLENTY = 60_000
"""Request weight: the bots of many tests come from one address, and would wait for each other."""


@pytest.fixture
async def paper() -> AsyncIterator[PaperExchange]:
    """A paper exchange for the test alone."""
    async with running_paper_exchange(Options(weight_per_minute=PLENTY)) as exchange:
        yield exchange


@pytest.fixture
async def small_paper() -> AsyncIterator[PaperExchange]:
    """The same with one symbol, which is made in a third of the time."""
    async with running_paper_exchange(Options(symbols=("BTCUSDT",), weight_per_minute=PLENTY)) as exchange:
        yield exchange


@pytest.fixture
async def account(paper: PaperExchange) -> TestAccount:
    """An account there with quote only; modules with another exchange have a fixture of their own."""
    return await paper.create_account(USDT="10000")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PaperExchange]:
    """One paper exchange for the module, which writes down what its faults did."""
    options = Options(symbols=("BTCUSDT",), fault_log=tmp_path_factory.mktemp("faults") / "log.jsonl")
    async with running_paper_exchange(options) as exchange:
        yield exchange


@pytest_asyncio.fixture(loop_scope="module")
async def exchange(serving: PaperExchange) -> AsyncIterator[PaperExchange]:
    """It without the faults of the test before; modules with another exchange have a fixture of their own."""
    yield serving
    await serving.clear_faults()


@pytest.fixture(scope="module")
def addresses() -> Iterator[tuple[str, str]]:
    """Of an exchange that is a process of its own, for whole bots."""
    with exchange_process("--symbols=BTCUSDT") as found:
        yield found


@pytest.fixture
async def exchange_beside(addresses: tuple[str, str]) -> AsyncIterator[PaperExchange]:
    """That one without the faults of the test before; modules that use it call it their `exchange`."""
    async with aiohttp.ClientSession() as session:
        running = PaperExchange(*addresses, session)
        yield running
        await running.clear_faults()
