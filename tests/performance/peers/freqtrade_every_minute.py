"""Buys at the close of each even minute and sells at the close of each odd one, by freqtrade."""

from __future__ import annotations

from freqtrade.strategy import IStrategy
from pandas import DataFrame


class EveryMinute(IStrategy):
    """By the candle's own minute, so that each one brings an order."""

    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi = {"0": 1000}  # noqa: RUF012, their interface
    stoploss = -0.99
    startup_candle_count = 0

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """None."""
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Even."""
        dataframe.loc[dataframe["date"].dt.minute % 2 == 0, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Odd."""
        dataframe.loc[dataframe["date"].dt.minute % 2 == 1, "exit_long"] = 1
        return dataframe
