"""What a strategy of one's own is written with; nothing else of this package is promised to stay as it is."""

from tradingbot.engine.indicators import Atr, Bands, Ema, Highest, Lowest, Macd, Rsi, wilder
from tradingbot.engine.strategies.base import NoParameters, Regime, Signal, Strategy, show
from tradingbot.model import BookTicker, Candle

__all__ = [
    "Atr",
    "Bands",
    "BookTicker",
    "Candle",
    "Ema",
    "Highest",
    "Lowest",
    "Macd",
    "NoParameters",
    "Regime",
    "Rsi",
    "Signal",
    "Strategy",
    "show",
    "wilder",
]
