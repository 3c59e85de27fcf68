"""Promises of what a bot process takes over from the former one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tradingbot.applied import Applied, choose_at_start
from tradingbot.desk import CONFIG_FACT, Desk
from tradingbot.state.store import Store
from tradingbot_api.bot_http import BotConfig, BotIdentity
from tradingbot_api.v1alpha1 import BotSettings

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def config(revision: int, *, safe_mode: bool | None = None, cleared: tuple[str, ...] = ()) -> BotConfig:
    settings = BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {
                "environment": "Paper",
                "baseURL": "http://localhost:1",
                "credentialsSecretRef": {"name": "keys"},
            },
            "strategy": {"name": "ema-cross", "interval": "1m", "parameters": {"fast": 12, "slow": 26}},
            "capital": "1000",
            "protection": {"stopLossRatio": "0.05", "takeProfitRatio": "0.05"},
            "risk": {"maxPositionValue": "500", "maxDailyLoss": "50"},
            "safeMode": safe_mode,
        }
    )
    identity = BotIdentity(namespace="test", name="btcusdt", uid="u-1")
    return BotConfig(revision=revision, bot=identity, settings=settings, cleared_causes=list(cleared))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store.open(tmp_path / "bot.db")
    yield opened
    await opened.close()


async def start(store: Store, file: BotConfig) -> Desk:
    """A process that starts with that file."""
    desk = Desk(file, operated=True)
    await desk.take_over(store, choose_at_start(file, Applied.from_json(await store.get(CONFIG_FACT))))
    desk.refresh()
    return desk


@pytest.mark.parametrize(
    ("stored", "file", "engaged"),
    [
        pytest.param(config(6), config(5, safe_mode=True), False, id="file-lags"),
        pytest.param(config(6, safe_mode=True), config(5), True, id="file-lags-behind-safe-mode"),
        pytest.param(config(5), config(6, safe_mode=True), True, id="file-is-newer"),
        pytest.param(config(5, safe_mode=True), config(6), False, id="file-releases"),
    ],
)
async def test_the_newer_of_file_and_store_says_whether_safe_mode_is_on(
    store: Store, stored: BotConfig, file: BotConfig, engaged: bool
) -> None:
    await start(store, stored)
    assert (await start(store, file)).safe_mode.has("spec") is engaged
