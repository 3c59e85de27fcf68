"""Runs nautilus_trader's back-test in its own environment: CANDLES -> one JSON object.

A quote at each open stands for the candle's first trade: what was decided at the close of the candle before is sent
when it comes, and meets it and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from pathlib import Path

BEGUN = time.monotonic()
STAKE, CAPITAL, FAST, SLOW = 1000, 1_000_000, 12, 26
MINUTE = 60_000_000_000


def main(candles: Path) -> None:
    """Start, load, trade; each timed."""
    import pandas
    from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
    from nautilus_trader.config import LoggingConfig
    from nautilus_trader.indicators import ExponentialMovingAverage
    from nautilus_trader.model.currencies import BTC, USDT
    from nautilus_trader.model.data import BarType
    from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
    from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
    from nautilus_trader.model.instruments import CurrencyPair
    from nautilus_trader.model.objects import Money, Price, Quantity
    from nautilus_trader.persistence.wranglers import BarDataWrangler, QuoteTickDataWrangler
    from nautilus_trader.trading.strategy import Strategy

    venue = Venue("BINANCE")
    pair = CurrencyPair(
        instrument_id=InstrumentId(Symbol("BTCUSDT"), venue),
        raw_symbol=Symbol("BTCUSDT"),
        base_currency=BTC,
        quote_currency=USDT,
        price_precision=2,
        size_precision=5,
        price_increment=Price(0.01, 2),
        size_increment=Quantity(0.00001, 5),
        lot_size=None,
        max_quantity=Quantity(9000, 5),
        min_quantity=Quantity(0.00001, 5),
        max_notional=None,
        min_notional=Money(5, USDT),
        max_price=Price(1000000, 2),
        min_price=Price(0.01, 2),
        margin_init=Decimal(0),
        margin_maint=Decimal(0),
        maker_fee=Decimal("0.001"),
        taker_fee=Decimal("0.001"),
        ts_event=0,
        ts_init=0,
    )
    bars_of = BarType.from_str("BTCUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL")

    class EmaCross(Strategy):
        """Enters at the candle of the crossing, exits as long as the fast average is below the slow one."""

        def on_start(self) -> None:
            self.fast, self.slow = ExponentialMovingAverage(FAST), ExponentialMovingAverage(SLOW)
            self.register_indicator_for_bars(bars_of, self.fast)
            self.register_indicator_for_bars(bars_of, self.slow)
            self.was_above = None
            self.subscribe_bars(bars_of)
            self.subscribe_quote_ticks(pair.id)
            self.wanted = None

        def on_bar(self, bar) -> None:
            if not self.slow.initialized:
                return
            fast, slow = self.fast.value, self.slow.value
            above, before, self.was_above = fast > slow, self.was_above, fast > slow
            if above and before is False and self.portfolio.is_flat(pair.id):
                self.wanted = OrderSide.BUY
            elif fast < slow and self.portfolio.is_net_long(pair.id):
                self.wanted = OrderSide.SELL

        def on_quote_tick(self, tick) -> None:
            if self.wanted is None:
                return
            side, self.wanted = self.wanted, None
            if side is OrderSide.BUY:
                # What the stake buys at the open, in whole steps.
                steps = int(Decimal(STAKE) / tick.ask_price.as_decimal() / Decimal("0.00001"))
                quantity = Quantity.from_str(f"{Decimal(steps) * Decimal('0.00001'):.5f}")
            else:
                quantity = self.cache.positions_open()[0].quantity
            self.submit_order(self.order_factory.market(pair.id, side, quantity))

    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True), run_analysis=False))
    engine.add_venue(
        venue,
        oms_type=OmsType.NETTING,
        account_type=AccountType.CASH,
        base_currency=None,
        starting_balances=[Money(CAPITAL, USDT)],
        bar_execution=False,
    )
    engine.add_instrument(pair)
    engine.add_strategy(EmaCross())
    started = time.monotonic()
    frame = pandas.read_csv(candles)
    frame.index = pandas.DatetimeIndex(pandas.to_datetime(frame.pop("open_time"), utc=True))
    opens = pandas.DataFrame({"bid_price": frame["open"], "ask_price": frame["open"]}, index=frame.index)
    # A bar is known at its end, a millisecond before the next one opens.
    engine.add_data(BarDataWrangler(bars_of, pair).process(frame, ts_init_delta=MINUTE - 1_000_000), sort=False)
    engine.add_data(QuoteTickDataWrangler(pair).process(opens))
    loaded, used = time.monotonic(), time.process_time()
    engine.run()
    ended, used = time.monotonic(), time.process_time() - used
    trades = [
        {
            "opened": position.ts_opened // 1_000_000,
            "closed": position.ts_closed // 1_000_000,
            "quantity": float(position.peak_qty),
            "entry": position.avg_px_open,
            "exit": position.avg_px_close,
            "pnl": float(position.realized_pnl),
            "why": "exit_signal",
        }
        for position in sorted(
            [*engine.cache.position_snapshots(), *engine.cache.positions_closed()], key=lambda one: one.ts_opened
        )
        if position.is_closed
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
    main(Path(sys.argv[1]))
