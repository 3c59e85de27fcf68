"""The paper exchange's core with recorded candles as its market: what its archives play, without a wire or a clock.

Fill model: a candle is played as the paper exchange plays an archive, from the open to the low, the high and the close,
one trade a second at most, so that of stop and take-profit in one candle the stop comes first. Around each trade stands
a book of equal levels. What cannot fill an order of ours is not played: it changes nothing that anybody asks for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.list_requests import new_oco, new_otoco
from paper_exchange.core.model import AccountSettings, Order, OrderList, PreventedMatch, Trade
from paper_exchange.core.model import OrderType as CoreType
from paper_exchange.core.rates import CommissionRates, Rates
from paper_exchange.core.requests import new_order
from paper_exchange.core.symbols import SymbolRules as CoreRules
from paper_exchange.core.units import SCALE, to_decimal, to_units
from paper_exchange.market.book import LEVEL_SPACING, LEVELS
from paper_exchange.market.candle_path import path_of
from paper_exchange.market.events import Candle as PlayedCandle
from paper_exchange.market.events import MarketTrade
from paper_exchange.market.profiles import PROFILES
from tradingbot.gateway import payloads
from tradingbot.gateway.order_params import oco_params, order_params, otoco_params
from tradingbot.gateway.port import NewOco, NewOrder, NewOtoco
from tradingbot.lab.recording import Recording
from tradingbot.model import BookTicker, OrderType, Side, SymbolRules, TradeFill
from tradingbot_api.v1alpha1 import BotSettings

UID: Final = 1
AVERAGE_MS: Final = 300_000
"""What the filters' average price and the price range look back on."""
LEVEL_VALUE: Final = 8_000
"""What a level of the book is worth, in quote, of a symbol that the paper exchange does not have."""
_NEVER: Final = 2**63


@dataclass(frozen=True, slots=True)
class FillModel:
    """How orders meet the recorded market; printed in each report."""

    spread_ticks: int = 1
    """Between best bid and best ask; a recorded trade is the best bid."""
    fee: Decimal = Decimal("0.001")
    """Commission of maker and taker, a share of what is received."""
    latency_ms: int = 20
    """From the close of a candle to its order at the exchange."""
    next_open: bool = False
    """Nothing of all that but the fee: see `open_exchange`."""
    skip: bool = True
    """Leave out what cannot fill an order; without it everything is played, with the same fills."""

    def describe(self) -> str:
        """For people."""
        if self.next_open:
            return f"whole at the open of the next candle, no stop, fee {self.fee * 100:f} % in quote"
        return (
            f"the paper exchange's core; a candle is played open, low, high, close, one trade a second at most; "
            f"spread {self.spread_ticks} tick, fee {self.fee * 100:f} %, {self.latency_ms} ms from close to order; "
            "stop and take-profit in one candle: the stop"
        )


class CandleExchange:
    """One symbol and one account; time is that of the recording."""

    def __init__(self, recording: Recording, rules: CoreRules, model: FillModel, settings: BotSettings) -> None:
        """The capital of the settings is in the account, and orders are worth at most about their maxPositionValue."""
        self._recording, self.model, self._rules = recording, model, rules
        self.now_ms = recording.open_ms[0]
        self.core = _Core([self._rules], self.now_ms)
        self.core.open_account(UID, {self._rules.quote: to_units(settings.capital)}, self.now_ms)
        rate = to_units(model.fee)
        rates = CommissionRates(standard=Rates(maker=rate, taker=rate))
        self.core.change_account(UID, AccountSettings(commission={"": rates}))
        self.rules: SymbolRules = payloads.symbol_rules(self._rules.info("TRADING"))
        self.taker_rate = model.fee
        self._market = self.core.market(recording.symbol)
        self._tick_size, self._step_size, self._tick = to_decimal(rules.tick), to_decimal(rules.step), rules.tick
        profile, first = PROFILES.get(rules.symbol), to_decimal(recording.open[0])
        value = LEVEL_VALUE if profile is None else profile.level_value
        self._gap = max(1, round(recording.open[0] // rules.tick * LEVEL_SPACING))
        self._level = max(2, int(value / first / self._step_size)) * rules.step
        self._levels = min(LEVELS, 2 + int(settings.risk.max_position_value / value))
        self._reach = (self._levels + 1) * self._gap * self._tick
        """So far from the best price the book has levels: nearer than this they may be in the queue before ours."""
        self._bid = 0
        """The best bid that the book stands at, in ticks; 0 where it has yet to follow what was left out."""
        self._path: Iterator[MarketTrade] = iter(())
        self._begun = -1
        """The candle whose first trade was played last."""
        self._played = -1
        """The last candle that was played to its end, or left out."""
        self._stop, self._target, self._trails = 0, _NEVER, False
        self.below, self.above = (0, _NEVER) if model.skip else (_NEVER, 0)
        """A candle between these prices, in units, fills no order of ours and need not be played."""

    # --- the market ---

    def begin(self, index: int) -> None:
        """The candle opens: its first trade, or none where nothing was traded."""
        if self._begun == index:
            return
        if self._played < index - 1:
            self._catch_up(index - 1)
        self._begun = index
        self._path = self._trades(index)
        trade = next(self._path, None)
        if trade is not None:
            self._meet(trade)
        elif self._bid == 0:
            self._stand_at_close(index)

    def finish(self, index: int) -> None:
        """Up to the end of a candle, after which none follows at once."""
        if self._played < index:
            self._catch_up(index)
        if self._bid == 0:
            self._stand_at_close(index)

    def go_to(self, time_ms: int) -> None:
        """Time passes without a trade."""
        self.now_ms = max(self.now_ms, time_ms)

    def rest(self, index: int) -> Iterator[None]:
        """Plays what is left of a candle; stops after each trade that may have filled an order."""
        if self._begun != index:
            self.begin(index)
            yield
        left_out = False
        for trade in self._path:
            if self._left_out(trade):
                left_out = left_out or self._bid_of(trade) != self._bid
                continue
            if left_out:
                self._bid, left_out = 0, False
            self._meet(trade)
            yield
        self._played = index
        if left_out:
            self._bid = 0

    def _left_out(self, trade: MarketTrade) -> bool:
        return self.model.skip and not self._trails and self._stop < to_units(trade.price) < self._target

    def _meet(self, trade: MarketTrade) -> None:
        """The book moves to the trade, then the trade happens."""
        self.now_ms = max(self.now_ms, trade.time_ms)
        self._move(self._bid_of(trade))
        price, quantity = to_units(trade.price), to_units(trade.quantity)
        self.core.on_trade(trade.symbol, price, quantity, trade.buyer_is_maker, self.now_ms)

    def _move(self, bid: int) -> None:
        if bid == self._bid:
            return
        if self._bid == 0:  # what was taken before is whole again
            self._market.bids.replace(())
            self._market.asks.replace(())
        self._bid = bid
        ask, gap, tick, level = bid + self.model.spread_ticks, self._gap, self._tick, self._level
        behind = range(self._levels - 1)
        below = (bid - 1) // gap * gap
        above = (ask // gap + 1) * gap
        bids = [(bid * tick, level), *(((below - n * gap) * tick, level) for n in behind if below > n * gap)]
        asks = [(ask * tick, level), *(((above + n * gap) * tick, level) for n in behind)]
        self.core.on_book(self._rules.symbol, bids, asks, True, self.now_ms)

    def _bid_of(self, trade: MarketTrade) -> int:
        """A sold price is the best bid, and a bought one the best ask."""
        ticks, rest = divmod(to_units(trade.price), self._tick)
        return max(1, ticks - (self.model.spread_ticks if not trade.buyer_is_maker and not rest else 0))

    def _trades(self, index: int) -> Iterator[MarketTrade]:
        return path_of(self._as_played(index), self._recording.symbol, self._tick_size, self._step_size)

    def _as_played(self, index: int) -> PlayedCandle:
        recording = self._recording
        trades = recording.trades[index]
        return PlayedCandle(
            open_time_ms=recording.open_ms[index],
            interval_ms=recording.width,
            open=to_decimal(recording.open[index]),
            high=to_decimal(recording.high[index]),
            low=to_decimal(recording.low[index]),
            close=to_decimal(recording.close[index]),
            volume=to_decimal(recording.volume[index]),
            quote_volume=Decimal(0),
            trades=recording.width if trades < 0 else trades,
            taker_base=to_decimal(recording.taker_base[index]),
            taker_quote=Decimal(0),
        )

    def _catch_up(self, last: int) -> None:
        """Candles up to `last` were left out: last price, average price and book are as they would be."""
        recording, first = self._recording, max(0, self._played + 1)
        self._played = last
        recent = max(first, recording.index_at(recording.open_ms[last] - AVERAGE_MS))
        traded = [
            (
                recording.open_ms[at],
                recording.volume[at],
                (recording.high[at] + recording.low[at] + recording.close[at]) // 3 * recording.volume[at] // SCALE,
            )
            for at in range(recent, last + 1)
            if recording.volume[at]
        ]
        self.now_ms = max(self.now_ms, recording.open_ms[last] + recording.width - 1)
        self.core.seed(recording.symbol, recording.close[last], traded)
        self._bid = 0

    def _stand_at_close(self, index: int) -> None:
        """The book around the last trade up to the end of the candle."""
        recording = self._recording
        while index > 0 and not recording.volume[index]:
            index -= 1
        last = next(iter(deque(self._trades(index), maxlen=1)), None)
        price = to_units(last.price) if last else recording.close[index]
        self._move(self._bid_of(last) if last else max(1, price // self._tick))

    # --- the account ---

    def book(self) -> BookTicker:
        """Best bid and ask, as the market stream told them last."""
        bid, ask = self._market.bids.best_outside() or 0, self._market.asks.best_outside() or 0
        return BookTicker(
            self._rules.symbol,
            to_decimal(bid),
            to_decimal(self._market.bids.available(bid)),
            to_decimal(ask),
            to_decimal(self._market.asks.available(ask)),
            self.now_ms / 1000,
        )

    def free(self, asset: str) -> Decimal:
        """What of an asset no order holds."""
        return to_decimal(self.core.accounts[UID].balance(asset).free)

    @property
    def open_orders(self) -> list[Order]:
        """Orders that may still be filled."""
        return self.core.open_orders(UID, self._rules.symbol)

    @property
    def protected(self) -> bool:
        """Whether a stop waits for its price."""
        return any(order.protects for order in self.open_orders)

    def outlives(self, low: int) -> bool:
        """Whether a position is held at that price, in units, for sure: the stop is below."""
        return not self._trails and low > self._stop

    def enter(self, order: NewOtoco) -> None:
        """Entry and pair in one request. ExchangeError."""
        self.core.place_list(UID, new_otoco(_texts(otoco_params(order))), self.now_ms, "ACK")

    def protect(self, order: NewOco) -> None:
        """A pair for base that is held. ExchangeError."""
        self.core.place_list(UID, new_oco(_texts(oco_params(order))), self.now_ms, "ACK")

    def place(self, order: NewOrder) -> None:
        """A single order. ExchangeError."""
        self.core.place(UID, new_order(_texts(order_params(order))), self.now_ms, "ACK")

    def cancel_all(self) -> None:
        """Cancel whatever is open."""
        if self.open_orders:
            self.core.cancel_all(UID, self._rules.symbol, self.now_ms)

    def take_fills(self) -> list[tuple[TradeFill, OrderType]]:
        """Fills since the last call, each with its order's type; what is over is forgotten."""
        self.core.outputs.clear()
        if not self.core.changes:
            return []
        fills, self.core.executed = self.core.executed, []
        changes = self.core.take_changes()
        for group in changes.lists.values():
            if group.done:
                self.core.forget(group)
        for order in changes.orders.values():
            if not order.open and order.list_id < 0:
                self.core.forget(order)
        self.core.trades.clear()
        self._watch()
        return [(_fill(trade), OrderType(order_type.value)) for trade, order_type in fills]

    def _watch(self) -> None:
        """Which prices may fill what is open now."""
        self._stop, self._target, self._trails = 0, _NEVER, False
        for order in self.open_orders:
            if order.trailing_delta:
                self._trails = True
            elif order.untriggered:
                self._stop = max(self._stop, order.stop_price)
            else:
                self._target = min(self._target, order.price - self._reach)
        if self.model.skip:
            self.below, self.above = (_NEVER, 0) if self._trails else (self._stop, self._target)


class _Core(Exchange):
    """The core without its events, which nobody listens to: their text would take a good part of an order's time."""

    def __init__(self, symbols: list[CoreRules], start_ms: int) -> None:
        super().__init__(symbols, start_ms)
        self.executed: list[tuple[Trade, CoreType]] = []
        """Fills with the types of their orders, until they are taken."""

    def report(
        self,
        order: Order,
        execution: str,
        fill: Trade | None = None,
        *,
        prevented: PreventedMatch | None = None,
        replaced: str = "",
    ) -> None:
        """Keep the fill."""
        del execution, prevented, replaced
        self.changes.orders[order.order_id] = order
        if fill is not None:
            self.executed.append((fill, order.type))

    def report_list(self, group: OrderList, *, updated: bool = False) -> None:
        """Keep that it changed."""
        del updated
        self.changes.lists[group.list_id] = group

    def touch(self, uid: int, asset: str) -> None:
        """Balances are looked at where they are needed."""


def _fill(trade: Trade) -> TradeFill:
    return TradeFill(
        trade.symbol,
        trade.trade_id,
        trade.order_id,
        Side.BUY if trade.buyer else Side.SELL,
        to_decimal(trade.price),
        to_decimal(trade.quantity),
        to_decimal(trade.commission),
        trade.commission_asset,
        trade.maker,
        trade.time,
    )


def _texts(params: dict[str, Any]) -> dict[str, str]:
    """As they come over the wire."""
    return {name: str(value) for name, value in params.items() if value is not None}
