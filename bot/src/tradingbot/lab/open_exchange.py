"""The common denominator of back-testers: orders fill whole at the open of the next candle, with fees in quote.

No book, no spread, no stop and no take-profit: a protection rests and is never filled. Results can be compared with
those of other programs; what a bot would have made of the market is told by `candle_exchange`.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from paper_exchange.core.symbols import SymbolRules as CoreRules
from paper_exchange.core.units import to_decimal
from tradingbot.gateway import payloads
from tradingbot.gateway.port import NewOco, NewOrder, NewOtoco
from tradingbot.lab.candle_exchange import FillModel
from tradingbot.lab.recording import Recording
from tradingbot.model import BookTicker, OrderType, Side, SymbolRules, TradeFill

_CENT: Final = Decimal("1e-8")


class OpenExchange:
    """What a replay asks of its exchange, as `candle_exchange.CandleExchange` has it."""

    below, above = 0, 2**63
    """Within a candle nothing fills."""

    def __init__(self, recording: Recording, rules: CoreRules, model: FillModel, deposit: Decimal) -> None:
        """`deposit` of the quote asset is in the account."""
        self._recording, self.model = recording, model
        self.rules: SymbolRules = payloads.symbol_rules(rules.info("TRADING"))
        self.taker_rate = model.fee
        self.now_ms = recording.open_ms[0]
        self._price = Decimal(0)
        self._balances = {self.rules.base_asset: Decimal(0), self.rules.quote_asset: deposit}
        self._resting: list[NewOco | NewOtoco] = []
        self._fills: list[tuple[TradeFill, OrderType]] = []
        self._trades = 0

    def begin(self, index: int) -> None:
        """The candle opens."""
        self._price = to_decimal(self._recording.open[index])

    def finish(self, index: int) -> None:
        """The candle ends; the next one opens later."""
        self.begin(index + 1)

    def go_to(self, time_ms: int) -> None:
        """Time passes."""
        self.now_ms = max(self.now_ms, time_ms)

    def rest(self, index: int) -> Iterator[None]:
        """Nothing is left of a candle."""
        return iter(())

    def book(self) -> BookTicker:
        """Both prices are the open, for any quantity."""
        price, plenty = self._price, Decimal(10) ** 9
        return BookTicker(self.rules.symbol, price, plenty, price, plenty, self.now_ms / 1000)

    def free(self, asset: str) -> Decimal:
        """What of an asset there is."""
        return self._balances[asset]

    @property
    def protected(self) -> bool:
        """Whether a protection rests."""
        return bool(self._resting)

    def outlives(self, low: int) -> bool:
        """Whether a position is held at that price for sure: no stop ends it."""
        return True

    @property
    def open_orders(self) -> list[NewOco | NewOtoco]:
        """The protection that rests."""
        return self._resting

    def enter(self, order: NewOtoco) -> None:
        """Buys; the pair rests."""
        self.place(order.entry)
        self._resting = [order]

    def protect(self, order: NewOco) -> None:
        """Rests."""
        self._resting = [order]

    def cancel_all(self) -> None:
        """Nothing rests any more."""
        self._resting = []

    def place(self, order: NewOrder) -> None:
        """Fills it."""
        rules, value = self.rules, order.quantity * self._price
        fee = (value * self.taker_rate).quantize(_CENT)
        signed = order.quantity if order.side is Side.BUY else -order.quantity
        self._balances[rules.base_asset] += signed
        self._balances[rules.quote_asset] -= signed * self._price + fee
        self._trades += 1
        fill = TradeFill(
            rules.symbol,
            self._trades,
            self._trades,
            order.side,
            self._price,
            order.quantity,
            fee,
            rules.quote_asset,
            False,
            self.now_ms,
        )
        self._fills.append((fill, order.type))

    def take_fills(self) -> list[tuple[TradeFill, OrderType]]:
        """Fills since the last call, each with its order's type."""
        fills, self._fills = self._fills, []
        return fills
