"""Runs freqtrade's backtesting in its own environment: FOLDER CANDLES -> one JSON object.

The folder has a config.json.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

BEGUN = time.monotonic()
STAKE, FEE, CAPITAL = 1000, 0.001, 1_000_000


def main(folder: Path, candles: Path) -> None:
    """Start, load, trade; each timed."""
    import logging

    import pandas
    from freqtrade.configuration import setup_utils_configuration
    from freqtrade.enums import RunMode
    from freqtrade.optimize.backtesting import Backtesting

    logging.disable(logging.WARNING)
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    feather = data / "BTC_USDT-1m.feather"
    if not feather.exists():
        frame = pandas.read_csv(candles).rename(columns={"open_time": "date"})
        frame["date"] = pandas.to_datetime(frame["date"], utc=True)
        frame.to_feather(feather)
    config = json.loads((folder / "config.json").read_text())
    config |= {"dry_run": True, "dry_run_wallet": CAPITAL, "stake_amount": STAKE, "fee": FEE}
    (folder / "backtesting.json").write_text(json.dumps(config))
    options = {
        "config": [str(folder / "backtesting.json")],
        "user_data_dir": str(folder),
        "datadir": data,
        "strategy": "EmaCross",
        "strategy_path": str(Path(__file__).parent),
        "export": "none",
        "backtest_cache": "none",
    }
    backtesting = Backtesting(setup_utils_configuration(options, RunMode.BACKTEST))
    started = time.monotonic()
    frames, timerange = backtesting.load_bt_data()
    loaded, used = time.monotonic(), time.process_time()
    strategy = backtesting.strategylist[0]
    backtesting.backtest_one_strategy(strategy, frames, timerange)
    ended, used = time.monotonic(), time.process_time() - used
    results = backtesting.all_bt_content["EmaCross"]["results"]
    trades = [
        {
            "opened": int(row.open_date.timestamp() * 1000),
            "closed": int(row.close_date.timestamp() * 1000),
            "quantity": row.amount,
            "entry": row.open_rate,
            "exit": row.close_rate,
            "pnl": row.profit_abs,
            "why": row.exit_reason,
        }
        for row in results.itertuples()
    ]
    print(
        json.dumps(
            {
                "start": started - BEGUN,
                "load": loaded - started,
                "trade": ended - loaded,
                "processor": used,
                "trades": trades,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
