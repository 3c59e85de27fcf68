"""ema-cross for freqtrade: by the rules of ours."""

from __future__ import annotations

import talib.abstract as ta
from freqtrade.strategy import IStrategy
from pandas import DataFrame

FAST, SLOW = 12, 26


class EmaCross(IStrategy):
    """Enters at the candle of the crossing, exits as long as the fast average is below the slow one."""

    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi = {"0": 1000}  # noqa: RUF012, their interface
    stoploss = -0.99
    use_exit_signal = True
    process_only_new_candles = True
    startup_candle_count = 0

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Both averages."""
        dataframe["fast"] = ta.EMA(dataframe, timeperiod=FAST)
        dataframe["slow"] = ta.EMA(dataframe, timeperiod=SLOW)
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """The crossing up."""
        above = dataframe["fast"] > dataframe["slow"]
        known = dataframe["slow"].shift(1).notna()
        dataframe.loc[above & known & ~above.shift(1, fill_value=False), "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Below."""
        dataframe.loc[dataframe["fast"] < dataframe["slow"], "exit_long"] = 1
        return dataframe
