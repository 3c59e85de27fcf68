"""The exchange at a glance: what accounts are worth, and how much of many is told."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from paper_exchange.core.units import to_units
from paper_exchange.market.events import BookUpdate, Candle, MarketTrade
from paper_exchange.overview import overview
from paper_exchange.store import Store
from paper_exchange.venue import Venue
from support.paper import START_MS, units

SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture
def venue() -> Venue:
    """BTC at 50000; ETH has no price yet."""
    made = Venue(SYMBOLS, None, Store(None), lambda: START_MS, CollectorRegistry())
    one = Decimal(50000)
    zero = Decimal(0)
    made.seed("BTCUSDT", [Candle(START_MS - 1000, 1000, one, one, one, one, zero, zero, 0, zero, zero)], None)
    levels = tuple((units(str(49999 - step)), units("1")) for step in range(20))
    made.feed(BookUpdate("BTCUSDT", START_MS, levels, ((units("50001"), units("2")),), True))
    return made


def account(venue: Venue, **deposits: str) -> dict[str, Any]:
    key = venue.create_account({asset: to_units(Decimal(amount)) for asset, amount in deposits.items()})
    return next(one for one in overview(venue, None)["accounts"] if one["uid"] == key.uid)


def test_equity_is_everything_at_last_prices_and_what_has_no_price_is_named(venue: Venue) -> None:
    told = account(venue, USDT="100", BTC="0.5", ETH="3", USDC="7")
    assert told["equity"] == "25100.00000000"
    assert told["unvalued"] == ["ETH", "USDC"]
    assert told["balances"]["BTC"] == {"free": "0.50000000", "locked": "0.00000000"}


def test_an_account_without_money_is_worth_nothing(venue: Venue) -> None:
    assert account(venue)["equity"] == "0.00000000"


def test_the_best_levels_and_the_last_trades_are_told_newest_first(venue: Venue) -> None:
    for step in range(20):
        venue.feed(MarketTrade("BTCUSDT", START_MS, Decimal(50000 + step), Decimal("0.1"), False))
    told = overview(venue, "BTCUSDT")
    assert told["bids"][0] == ["49999.00000000", "1.00000000"]
    assert len(told["bids"]) == 9
    assert told["asks"] == [["50001.00000000", "2.00000000"]]
    assert [one["price"] for one in told["trades"][:2]] == ["50019.00000000", "50018.00000000"]
    assert len(told["trades"]) == 14


def test_a_symbol_that_is_not_there_is_the_first_one(venue: Venue) -> None:
    assert overview(venue, "ETHUSDT")["symbol"] == "ETHUSDT"
    assert overview(venue, "DOGEUSDT")["symbol"] == overview(venue, None)["symbol"] == "BTCUSDT"


def test_of_many_accounts_the_first_are_told_and_how_many_there_are(venue: Venue) -> None:
    for _ in range(60):
        venue.create_account({})
    told = overview(venue, None)
    assert (len(told["accounts"]), told["accountsInAll"]) == (50, 60)
