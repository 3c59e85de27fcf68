"""The REST API of a paper exchange without sockets, on a clock that a test turns."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from prometheus_client import CollectorRegistry

from paper_exchange.api import SpotApi
from paper_exchange.faults.calls import CallFaults
from paper_exchange.faults.engine import Engine
from paper_exchange.gate import Gate
from paper_exchange.journal import Journal
from paper_exchange.keys import ANY_USE, ApiKey, KeyTerms
from paper_exchange.limits import Limits
from paper_exchange.market.events import BookUpdate, Candle, MarketTrade
from paper_exchange.server.rest import Reply, RestApi, Sent
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from paper_exchange.wallet import Wallet
from support.paper import SYMBOL, units

START_MS = 1_704_067_200_000
"""Midnight of 2024-01-01 UTC: every window of the limits begins."""
PRICE = "60000"
"""Where the market stands; its book is one level of 5 on each side, 60000 and 60001."""


class StandingMarket:
    """A market where nothing happens: ten flat minutes before the start, and no events."""

    def history(self, _symbol: str) -> list[Candle]:
        """The minutes before the start."""
        price, volume = Decimal(PRICE), Decimal(1)
        return [
            Candle(
                open_time_ms=START_MS - minute * 60_000,
                interval_ms=60_000,
                open=price,
                high=price,
                low=price,
                close=price,
                volume=volume,
                quote_volume=price * volume,
                trades=1,
                taker_base=volume,
                taker_quote=price * volume,
            )
            for minute in range(10, 0, -1)
        ]

    def events(self) -> Iterator[BookUpdate | MarketTrade]:
        """None."""
        return iter(())


class RestDesk:
    """An exchange with a standing market; requests are signed with the key of the first account unless told."""

    def __init__(
        self,
        symbols: Sequence[str] = (SYMBOL,),
        limits: Limits | None = None,
        directory: Path | None = None,
        journal: Path | None = None,
    ) -> None:
        self.now = START_MS
        self._journal_path = journal
        self._symbols, self._directory = symbols, directory
        self._open(limits or Limits(6000))
        self.key = self.account(USDT="1000000", BTC="100")

    def restart(self) -> None:
        """End, and begin anew with what is stored in the directory; the market stands where it stood at first."""
        self.close()
        self._open(Limits(6000))

    def close(self) -> None:
        """End: the store and the journal are closed."""
        self.venue.store.close()
        if self.journal is not None:
            self.journal.close()

    def _open(self, limits: Limits) -> None:
        registry = CollectorRegistry()
        self.journal = Journal(self._journal_path) if self._journal_path else None
        self.venue = Venue(
            self._symbols, StandingMarket(), Store(self._directory), self.read_clock, registry, journal=self.journal
        )
        self.limits = limits
        api = SpotApi(self.venue, self.limits)
        api.routes |= Wallet(self.venue).routes
        self.api = api
        gate = Gate(self.venue, self.limits)
        faults = CallFaults(Engine(1, time.monotonic, lambda _: None))
        self.rest = RestApi(self.venue, api, gate=gate, limits=self.limits, faults=faults, registry=registry)
        self.book(PRICE, "60001")
        self.trade(PRICE)

    def read_clock(self) -> int:
        """The time in ms; it stands still."""
        return self.now

    def account(self, terms: KeyTerms = ANY_USE, **deposits: str) -> ApiKey:
        """A new account with money."""
        return self.venue.create_account({asset: units(amount) for asset, amount in deposits.items()}, terms)

    def book(self, bid: str, ask: str, quantity: str = "5") -> None:
        """The outside book of BTCUSDT: one level a side."""
        levels = [[(units(price), units(quantity))] for price in (bid, ask)]
        self.venue.exchange.on_book(SYMBOL, levels[0], levels[1], True, self.now)
        self.venue.commit()

    def trade(self, price: str, quantity: str = "0.00001") -> None:
        """A trade between outsiders; the seller takes."""
        self.venue.exchange.on_trade(SYMBOL, units(price), units(quantity), True, self.now)
        self.venue.commit()

    def send(self, method: str, path: str, query: str = "", *, address: str = "10.0.0.1", **headers: str) -> Reply:
        """A request as it stands."""
        return self.receive(Sent(method, path, query, headers=headers, address=address))

    def receive(self, sent: Sent) -> Reply:
        """A request as it was received, and what it changed stored."""
        reply = self.rest.respond(sent)
        self.venue.commit()
        return reply

    def ask(
        self, method: str, path: str, *, key: ApiKey | None = None, address: str = "10.0.0.1", **params: Any
    ) -> Reply:
        """A signed request."""
        key = key or self.key
        query = urlencode({"timestamp": self.now} | params)
        signature = hmac.new(key.secret.encode(), query.encode(), hashlib.sha256).hexdigest()
        headers = {"x-mbx-apikey": key.api_key}
        return self.send(method, path, f"{query}&signature={signature}", address=address, **headers)

    def place(self, key: ApiKey | None = None, **params: Any) -> Reply:
        """A new order: a buy far below the market unless told otherwise."""
        order = {"symbol": SYMBOL, "side": "BUY", "type": "LIMIT", "quantity": "0.01", "price": "50000"}
        order |= {} if params.get("type", "LIMIT") != "LIMIT" else {"timeInForce": "GTC"}
        wanted = {name: value for name, value in (order | params).items() if value is not None}
        return self.ask("POST", "/api/v3/order", key=key, **wanted)
