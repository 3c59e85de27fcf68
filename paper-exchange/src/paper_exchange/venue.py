"""The exchange in operation: the core, its candles and store, and whoever listens, without any transport."""

from __future__ import annotations

import secrets
import string
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.model import Order, OrderList, Trade
from paper_exchange.core.state import Changes, TradePrint, UserEvent
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import LARGEST, to_decimal, to_units
from paper_exchange.journal import Journal
from paper_exchange.keys import ANY_USE, ApiKey, KeyTerms
from paper_exchange.market.candles import CandleBook
from paper_exchange.market.events import Candle, Market, MarketEvent, MarketTrade, TradingStatus
from paper_exchange.market.tape import AggTrade, Tape
from paper_exchange.store import Store

_ALPHABET: Final = string.ascii_letters + string.digits
_FIRST_UID: Final = 100_000_001

UserSink = Callable[[dict[str, Any]], None]


class MarketListener(Protocol):
    """Whoever publishes market data."""

    def on_print(self, trade: TradePrint) -> None:
        """A public trade happened."""

    def on_aggregates(self, symbol: str, aggregates: Sequence[AggTrade]) -> None:
        """What the trades of one input are together; told after them."""

    def on_book(self, symbol: str) -> None:
        """The book of a symbol changed."""


class Venue:
    """One exchange with its accounts; call `commit` after every input: it stores first, and tells then."""

    def __init__(
        self,
        symbols: Iterable[str],
        market: Market | None,
        store: Store,
        now_ms: Callable[[], int],
        registry: CollectorRegistry,
        *,
        kept: int = 10_000,
        journal: Journal | None = None,
    ) -> None:
        """`kept` orders and lists that are over stay in memory; of others the store tells."""
        self.now_ms = now_ms
        self.store = store
        start = self.started_ms = now_ms()
        self._journal = journal
        if journal is None:
            self.exchange = Exchange([SYMBOLS[symbol] for symbol in symbols], start)
        else:
            self.exchange = journal.exchange(symbols, start)
        store.restore(self.exchange)
        self._over: deque[Order | OrderList] = deque()
        self._kept = kept
        self._forgotten = 0
        self._last_uid = store.history.last_ids().get("account", _FIRST_UID - 1)
        self.keys = {key.api_key: key for key in store.api_keys()}
        self.candles: dict[str, CandleBook] = {}
        self.tapes = {s: Tape(start // 10) for s in self.exchange.markets}
        """Public trades; the ids of aggregates rise over restarts as trade ids do."""
        self.book_ids = dict.fromkeys(self.exchange.markets, start // 10)
        """Update ids of the books; they rise over restarts as trade ids do."""
        self.listeners: list[MarketListener] = []
        self.first_fill_listeners: list[Callable[[Trade], None]] = []
        """Called with the trade by which an order of an account began to be filled."""
        self.deleted_key_listeners: list[Callable[[ApiKey], None]] = []
        """Called with a key that is one no longer."""
        self._sinks: dict[int, list[UserSink]] = {}
        self._shifts: dict[str, int] = {}
        """By symbol, in units and whole ticks: how far above the market that is fed its own one stands."""
        self._stored = Histogram("paper_exchange_store_seconds", "Time that a transaction took", registry=registry)
        self._trades = Counter("paper_exchange_trades", "Fills of orders of our accounts", registry=registry)
        self._orders = Counter("paper_exchange_order_events", "Order events", ["execution"], registry=registry)
        last_prices = store.prices()
        self._statuses = {symbol: state.status for symbol, state in self.exchange.markets.items()}
        self._halted: set[str] = set()
        self._unknown: set[str] = set()
        for symbol in self.exchange.markets:
            if market is not None:
                self.seed(symbol, market.history(symbol), last_prices.get(symbol))

    def seed(self, symbol: str, history: list[Candle], last_price: int | None) -> None:
        """Begin with what was before the market's first event.

        Where the symbol's price before a restart is given, the new market is shifted to that price.
        """
        tick = self.exchange.market(symbol).rules.tick
        last = to_units(history[-1].close)
        shift = 0 if last_price is None else (last_price - last) // tick * tick
        if to_units(min(candle.low for candle in history)) + shift <= 0:
            shift = 0
        self._shifts[symbol] = shift
        if shift:
            history = [_shifted(candle, to_decimal(shift)) for candle in history]
        self.candles[symbol] = CandleBook(symbol, history, self.exchange.market(symbol).next_trade_id)
        recent = history[-300:]
        self.exchange.seed(
            symbol,
            to_units(history[-1].close),
            [(one.open_time_ms, to_units(one.volume), _cut(one.quote_volume)) for one in recent],
        )

    # -- inputs ------------------------------------------------------------------------------------------------

    def feed(self, event: MarketEvent) -> None:
        """One event of the outside market, at its own time.

        Where a gap is so deep that a price would be less than a tick, trades are at one tick, and the book ends there.
        """
        shift, rules = self._shifts[event.symbol], self.exchange.market(event.symbol).rules
        if isinstance(event, TradingStatus):
            (self._halted.discard if event.trading else self._halted.add)(event.symbol)
            self._put_status(event.symbol)
        elif isinstance(event, MarketTrade):
            self.exchange.on_trade(
                event.symbol,
                min(max(to_units(event.price) + shift, rules.tick), LARGEST),
                to_units(event.quantity),
                event.buyer_is_maker,
                event.time_ms,
            )
        else:
            bids, asks = event.bids, event.asks
            if shift:
                bids, asks = (
                    tuple((price + shift, size) for price, size in levels if rules.tick <= price + shift <= LARGEST)
                    for levels in (bids, asks)
                )
            self.exchange.on_book(event.symbol, bids, asks, event.snapshot, event.time_ms)
        self.commit()

    def gap(self, symbol: str, by: int) -> None:
        """The outside market jumps by so much, and all that comes of it later is there.

        It jumps by whole ticks, and not below one.
        """
        market = self.exchange.market(symbol)
        last, tick = market.last or 0, market.rules.tick
        by = market.rules.on_tick(last + by) - last
        by = by // tick * tick if by > 0 else -by // tick * -tick
        self._shifts[symbol] += by
        self.exchange.gap(symbol, by, self.now_ms())
        self.commit()

    def commit(self) -> None:
        """Store what the last input changed, then tell everybody."""
        self.keep()
        self.tell()

    def keep(self) -> None:
        """Store what the last input changed: nobody hears of it before."""
        if self._journal is not None:
            self._journal.flush()
        changes = self.exchange.changes
        if changes:
            # Taken only when it is stored: what the disk refused now is stored with the next input.
            with self._stored.time():
                self.store.save(changes)
            self.exchange.take_changes()
            self._forget(changes)
            self._trades.inc(len(changes.trades))
            for fill in _first_fills(changes):
                for hear in self.first_fill_listeners:
                    hear(fill)

    def tell(self) -> None:
        """Tell everybody what happened since the last time, user events and trades in their order."""
        traded: defaultdict[str, list[TradePrint]] = defaultdict(list)
        if self._journal is not None:
            self._journal.told(self.exchange.outputs)
        for output in self.exchange.take_outputs():
            if isinstance(output, UserEvent):
                if output.payload["e"] == "executionReport":
                    self._orders.labels(output.payload["x"]).inc()
                for sink in list(self._sinks.get(output.uid, ())):
                    sink(output.payload)
            else:
                traded[output.symbol].append(output)
                self._on_print(output)
        for symbol, trades in traded.items():
            aggregates = self.tapes[symbol].add(trades)
            for listener in self.listeners:
                listener.on_aggregates(symbol, aggregates)
        for symbol, state in self.exchange.markets.items():
            changed = len(state.bids.dirty) + len(state.asks.dirty)
            if changed:
                self.book_ids[symbol] += 1
                for listener in self.listeners:
                    listener.on_book(symbol)
                state.bids.dirty.clear()
                state.asks.dirty.clear()

    def _forget(self, changes: Changes) -> None:
        """What was over longest leaves the memory, once it is stored."""
        self.exchange.trades.clear()
        self._over.extend(one for one in changes.orders.values() if one.list_id < 0 and not one.open)
        self._over.extend(one for one in changes.lists.values() if one.done)
        while len(self._over) > self._kept:
            self.exchange.forget(self._over.popleft())
            self._forgotten += 1
            if self._forgotten % self._kept == 0:
                self.exchange.forget_triggers()

    def _on_print(self, trade: TradePrint) -> None:
        self.candles[trade.symbol].add(
            MarketTrade(
                trade.symbol,
                trade.time,
                to_decimal(trade.price),
                to_decimal(trade.quantity),
                trade.buyer_is_maker,
                trade.trade_id,
            )
        )
        for listener in self.listeners:
            listener.on_print(trade)

    def save_market(self) -> None:
        """Store where each symbol trades and where orders stand in their queues, for the next start."""
        self.exchange.keep_places()
        self.keep()
        self.store.save_prices({s: state.last for s, state in self.exchange.markets.items() if state.last})

    def reset(self, deposits: Mapping[str, int], *, drop_accounts: bool = False) -> None:
        """Begin anew, as the Testnet does about monthly: no orders, lists and trades; accounts with these balances.

        Accounts and keys stay unless they are dropped, and with them whatever is subscribed; owners of open orders are
        told of their end. Ids go on.
        """
        for uid in list(self.exchange.accounts):
            self.exchange.reset_account(uid, dict(deposits), self.now_ms())
        self.commit()
        last_traded = {symbol: state.next_trade_id - 1 for symbol, state in self.exchange.markets.items()}
        self.store.wipe(last_traded, drop_accounts=drop_accounts)
        self.exchange.forget_all(drop_accounts=drop_accounts)
        self._over.clear()
        if drop_accounts:
            for key in list(self.keys.values()):
                self._drop(key)

    def change_status(self, symbol: str, status: str) -> None:
        """What clients may do with a symbol until it is changed again; the market goes on whatever it is."""
        self.store.save_status(symbol, status)
        self._statuses[symbol] = status
        self._put_status(symbol)

    def set_known(self, symbol: str, known: bool) -> None:
        """Whether the outside market of a symbol is known: while it is not, orders can be cancelled only."""
        (self._unknown.discard if known else self._unknown.add)(symbol)
        self._put_status(symbol)

    def _put_status(self, symbol: str) -> None:
        """What was said of the symbol holds, unless the market halts, or nobody may trade on a book that is old."""
        status = self._statuses[symbol]
        if status == "TRADING" and symbol in self._halted:
            status = "HALT"
        elif status == "TRADING" and symbol in self._unknown:
            status = "CANCEL_ONLY"
        self.exchange.change_status(symbol, status)

    # -- accounts ----------------------------------------------------------------------------------------------

    def create_account(self, deposits: Mapping[str, int], terms: KeyTerms = ANY_USE) -> ApiKey:
        """A new account with its first key."""
        self._last_uid += 1
        uid = self._last_uid
        self.exchange.open_account(uid, dict(deposits), self.now_ms())
        self.commit()
        return self.create_key(uid, terms)

    def create_key(self, uid: int, terms: KeyTerms = ANY_USE) -> ApiKey:
        """One more key of an account."""
        key = ApiKey(
            api_key=_random_text(),
            uid=uid,
            secret="" if terms.public_key else _random_text(),
            created_ms=self.now_ms(),
            terms=terms,
        )
        self.store.save_key(key)
        self.keys[key.api_key] = key
        return key

    def keys_of(self, uid: int) -> list[ApiKey]:
        """The keys of an account, oldest first."""
        return sorted((key for key in self.keys.values() if key.uid == uid), key=lambda key: key.created_ms)

    def delete_key(self, uid: int, api_key: str) -> bool:
        """From now on nothing is signed with it; False where the account has no such key."""
        key = self.keys.get(api_key)
        if key is None or key.uid != uid:
            return False
        self.store.delete_key(api_key)
        self._drop(key)
        return True

    def _drop(self, key: ApiKey) -> None:
        del self.keys[key.api_key]
        for hear in self.deleted_key_listeners:
            hear(key)

    def subscribe(self, uid: int, sink: UserSink) -> Callable[[], None]:
        """Send the user events of an account to `sink` until the returned function is called."""
        sinks = self._sinks.setdefault(uid, [])
        sinks.append(sink)
        return lambda: sinks.remove(sink)


def _first_fills(changes: Changes) -> list[Trade]:
    """Of the orders that had not traded before these changes, the first trade of each."""
    fills: dict[int, list[Trade]] = {}
    for trade in changes.trades:
        fills.setdefault(trade.order_id, []).append(trade)
    return [
        trades[0]
        for order_id, trades in fills.items()
        if changes.orders[order_id].executed == sum(trade.quantity for trade in trades)
    ]


def _random_text() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(64))


def _cut(amount: Decimal) -> int:
    return int(amount * 10**8)


def _shifted(candle: Candle, shift: Decimal) -> Candle:
    return Candle(
        open_time_ms=candle.open_time_ms,
        interval_ms=candle.interval_ms,
        open=candle.open + shift,
        high=candle.high + shift,
        low=candle.low + shift,
        close=candle.close + shift,
        volume=candle.volume,
        quote_volume=candle.quote_volume + shift * candle.volume,
        trades=candle.trades,
        taker_base=candle.taker_base,
        taker_quote=candle.taker_quote + shift * candle.taker_base,
    )
