"""Recorded markets that a test makes: candles of a seeded random walk, in units, and as a file of Binance's."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from paper_exchange.core.units import text
from tradingbot.lab.recording import Recording
from tradingbot_api.v1alpha1 import BotSettings

MINUTE_MS = 60_000
START_MS = 1_736_121_600_000
"""2025-01-06 00:00 UTC."""


def random_recording(
    seed: int, count: int, *, swing: float = 0.002, trades: int = 8, empty: float = 0.0, jump: int = 0
) -> Recording:
    """Minutes of BTCUSDT that move by about `swing` each; a share of them is `empty`: nothing was traded.

    From each close to the next open they `jump` by at most so many ticks.
    """
    rng = Random(seed)
    recording, price = Recording("BTCUSDT", MINUTE_MS), 2_000_000
    for number in range(count):
        if rng.random() < empty:
            prices, volume, traded, bought = [price] * 4, 0, 0, 0
        else:
            price += rng.randrange(-jump, jump) if jump else 0
            closed = max(1000, round(price * (1 + rng.gauss(0, swing))))
            high = max(price, closed) + rng.randrange(0, round(price * swing))
            low = max(500, min(price, closed) - rng.randrange(0, round(price * swing)))
            prices = [price, high, low, closed]
            volume = rng.randrange(1_000, 400_000) * 1_000
            traded, bought = rng.randrange(1, 2 * trades), volume // 1_000 * rng.randrange(0, 1_001)
            price = closed
        recording.add([START_MS + number * MINUTE_MS, *(one * 1_000_000 for one in prices), volume, traded, bought])
    return recording


def binance_rows(recording: Recording) -> str:
    """The file of Binance's archive with these candles."""
    lines = []
    for at in range(len(recording)):
        amounts = [column[at] for column in (recording.open, recording.high, recording.low, recording.close)]
        quote = recording.close[at] * recording.volume[at] // 10**8
        bought = recording.taker_base[at]
        fields = [
            recording.open_ms[at],
            *map(text, (*amounts, recording.volume[at])),
            recording.open_ms[at] + recording.width - 1,
            text(quote),
            recording.trades[at],
            text(bought),
            text(recording.close[at] * bought // 10**8),
            0,
        ]
        lines.append(",".join(map(str, fields)))
    return "\n".join(lines) + "\n"


def write_archive(recording: Recording, folder: Path) -> Path:
    """A folder's daily archive with these candles, which are of one day."""
    path = folder / "BTCUSDT-1m-2025-01-06.csv"
    path.write_text(binance_rows(recording))
    return path


def replay_settings(strategy: str = "donchian-breakout", **parts: Any) -> BotSettings:
    """Settings on minutes of BTCUSDT with wide limits; `parameters`, `protection`, `risk` and so on may be named."""
    parameters = parts.pop("parameters", {"entry": 5, "exit": 3} if strategy == "donchian-breakout" else {})
    risk = {"maxPositionValue": "3000", "maxDailyLoss": "9999", "maxDrawdownRatio": "0.99", "cooldownSeconds": 0}
    return BotSettings.model_validate(
        {
            "symbol": "BTCUSDT",
            "exchange": {"environment": "Paper", "baseURL": "http://x", "credentialsSecretRef": {"name": "keys"}},
            "strategy": {"name": strategy, "interval": "1m", "parameters": parameters},
            "capital": "10000",
            "protection": {"stopLossRatio": "0.005", "takeProfitRatio": "0.01"} | parts.pop("protection", {}),
            "risk": risk | parts.pop("risk", {}),
        }
        | parts
    )


def manifest(settings: BotSettings) -> dict[str, Any]:
    """A TradingBot with these settings."""
    return {
        "apiVersion": "tradingbot.dev/v1alpha1",
        "kind": "TradingBot",
        "metadata": {"name": "recorded"},
        "spec": settings.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def decimal_price(units: int) -> Decimal:
    """A price as a Decimal."""
    return Decimal(units).scaleb(-8)
