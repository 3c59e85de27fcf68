"""How soon an order at the best bid is filled: on a recording with its depth, and on its trades alone as an archive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paper_exchange.core.exchange import Exchange
from paper_exchange.core.requests import new_order
from paper_exchange.core.symbols import SYMBOLS
from paper_exchange.core.units import text, to_units
from paper_exchange.market import open_market
from paper_exchange.market.events import BookUpdate, MarketTrade
from support.paper import SYMBOL

DATA = os.environ.get("TRADINGBOT_TEST_DATA")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        DATA is None or not (Path(DATA) / "market").is_dir(),
        reason="TRADINGBOT_TEST_DATA names no directory with a recorded market",
    ),
]
START_MS = 1_723_075_200_000  # 2024-08-08, a full minute
UID = 1


class Orders:
    """Each two seconds an order at the best bid, cancelled after ten."""

    def __init__(self) -> None:
        self.exchange = Exchange([SYMBOLS[SYMBOL]], START_MS)
        self.exchange.open_account(UID, {"USDT": 10**18}, START_MS)
        self.placed: dict[int, int] = {}
        self.waited: dict[int, int] = {}

    def turn(self, now_ms: int) -> None:
        for order_id, placed_ms in self.placed.items():
            if now_ms - placed_ms == 10_000 and self.exchange.orders[order_id].open:
                self.exchange.cancel(UID, SYMBOL, order_id=order_id, client_order_id=None, now=now_ms)
        best = self.exchange.market(SYMBOL).bids.best_outside()
        assert best is not None
        order = {"side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": text(best)}
        answer = self.exchange.place(UID, new_order({"symbol": SYMBOL, **order}), now_ms, "ACK")
        self.placed[answer["orderId"]] = now_ms

    def play(self, spec: str) -> tuple[float, float]:
        """The shares of orders that were filled within 1 s and within 10 s."""
        next_ms = START_MS + 2000
        for event in open_market(spec, (SYMBOL,), 1, START_MS).events():
            while event.time_ms >= next_ms:
                self.turn(next_ms)
                next_ms += 2000
            if isinstance(event, MarketTrade):
                price, quantity = to_units(event.price), to_units(event.quantity)
                self.exchange.on_trade(SYMBOL, price, quantity, event.buyer_is_maker, event.time_ms)
            elif isinstance(event, BookUpdate):
                self.exchange.on_book(SYMBOL, event.bids, event.asks, event.snapshot, event.time_ms)
            self.exchange.take_outputs()
            for trade in self.exchange.take_changes().trades:
                self.waited.setdefault(trade.order_id, trade.time - self.placed[trade.order_id])
        soon = sum(waited <= 1000 for waited in self.waited.values())
        return soon / len(self.placed), len(self.waited) / len(self.placed)


def test_the_book_around_an_archive_fills_nearly_as_soon_as_the_recorded_one(tmp_path: Path) -> None:
    spec = f"capture:{DATA}/market"
    rows = [
        f"1,{event.price},{event.quantity},1.0,{event.time_ms},{event.buyer_is_maker},True\n"
        for event in open_market(spec, (SYMBOL,), 1, START_MS).events()
        if isinstance(event, MarketTrade)
    ]
    (tmp_path / "BTCUSDT-trades-2024-08-08.csv").write_text("".join(rows))
    recorded, archived = Orders().play(spec), Orders().play(f"archive:{tmp_path}")
    told = [f"{share:.1%}" for share in (*recorded, *archived)]
    print(f"filled within 1 s and 10 s: {told[:2]} with the recorded depth, {told[2:]} with the generated one")
    assert 0.15 < recorded[0] < 0.35
    assert abs(archived[0] - recorded[0]) < 0.1
    assert abs(archived[1] - recorded[1]) < 0.05
