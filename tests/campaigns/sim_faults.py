"""A simulated bot among random faults of its exchange: afterwards it trades again, and its books are the exchange's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import structlog

from paper_exchange.testing import PaperExchange, TestAccount
from support.exchange_books import has_no_stop
from tradingbot.gateway.binance import ORDER_TIMEOUT
from tradingbot.lab.sim import START, Beside, SimReport, SimRun, simulate
from tradingbot_api.bot_http import BotStatus

SIMS: Final = 200
"""Simulations of the campaign."""
MINUTES: Final = 12
CALM: Final = 360.0
"""Seconds without faults at the end: what a breaker that opened last needs (300), and a reconciliation."""
UNPROTECTED_SECONDS: Final = 25.0
"""The longest without a stop while no fault lasts, whatever the reason."""
SYMBOL: Final = "BTCUSDT"
_WATCH_SECONDS: Final = 0.25
_KINDS: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("lost_answer", {}), ("lost_answer", {"cut": False}), ("lost_request", {}), ("lost_request", {"cut": False}),
    ("error_after", {"code": -1007}), ("error_after", {"code": -1006}), ("error", {"code": -1000}),
    ("error", {"code": -1001}), ("error", {"code": -1008}), ("order_refused", {"code": -2010}),
    ("list_refused", {"code": -2010}), ("rate_limited", {}), ("banned", {}), ("maintenance", {}),
    ("maintenance", {"form": 410}), ("maintenance", {"form": -1016}), ("delay", {"seconds": 2, "jitter": 5}),
    ("answer_delay", {"seconds": 2, "jitter": 5}), ("clock_skew", {"milliseconds": 3000}),
    ("clock_skew", {"milliseconds": -8000}),
)  # fmt: skip
_ENDPOINTS: Final = (
    ["POST /api/v3/*"], ["GET *"], ["DELETE *"], ["POST /api/v3/orderList/*"], ["GET /api/v3/account"],
    ["GET /api/v3/openOrders"],
)  # fmt: skip


@dataclass
class Outcome:
    """What came of one simulation."""

    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    """How often each kind befell a call."""
    trades: int = 0
    bought: int = 0
    """Purchases in the calm."""
    quietly: float = 0.0
    """As `unprotected`, while no fault was in force, nor kept anything waiting."""
    unprotected: float = 0.0
    """Seconds for which a position was longest without its stop, by the exchange's own books: bans and outages too."""
    told: float = 0.0
    """Seconds without protection as the bot tells them, all together."""
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


Disturb = Callable[[PaperExchange], Awaitable[None]]


def draw_fault(rng: Random) -> dict[str, Any]:
    """Any kind of what may befall a call, for less than a minute."""
    kind, parameters = rng.choice(_KINDS)
    fault = {"kind": kind} | parameters
    fault |= {"for": rng.uniform(1, 45), "probability": rng.choice((0.2, 0.5, 1.0))}
    if rng.random() < 0.5:
        fault["count"] = rng.choice((1, 2, 5))
    if rng.random() < 0.5 and kind != "clock_skew":
        fault["endpoints"] = rng.choice(_ENDPOINTS)
    return fault


def random_faults(seed: int, minutes: float) -> Disturb:
    """Faults of every kind, one after another and several at a time, until the calm begins."""

    async def disturb(exchange: PaperExchange) -> None:
        rng, loop = Random(f"{seed}/faults"), asyncio.get_running_loop()
        while loop.time() < minutes * 60 - CALM - 40:
            await asyncio.sleep(rng.uniform(5, 40))
            await exchange.start_fault(**draw_fault(rng))

    return disturb


def _watched(outcome: Outcome, disturb: Disturb) -> Beside:
    """Disturbs, looks at the exchange's own books meanwhile, and at last at what the faults did."""

    async def watch(exchange: PaperExchange, uid: int) -> None:
        assert exchange.server is not None
        books, loop = exchange.server.venue.exchange, asyncio.get_running_loop()
        since: float | None = None
        disturbed, quietly = 0.0, 0.0
        while True:
            if exchange.server.faults.engine.in_force():
                disturbed = loop.time() + ORDER_TIMEOUT + 1
            if not has_no_stop(books, uid, SYMBOL):
                since, quietly = None, 0.0
            else:
                quietly = quietly + _WATCH_SECONDS if loop.time() > disturbed else 0.0
                outcome.quietly = max(outcome.quietly, quietly)
                since = loop.time() if since is None else since
                outcome.unprotected = max(outcome.unprotected, loop.time() - since)
            await asyncio.sleep(_WATCH_SECONDS)

    async def beside(exchange: PaperExchange, account: TestAccount) -> None:
        watching = asyncio.create_task(watch(exchange, account.uid))
        try:
            await disturb(exchange)
            await exchange.clear_faults()
            record = await exchange.fault_record()
            kinds = {row["fault"]: row["is"]["kind"] for row in record if "fault" in row}
            outcome.faults = dict(Counter(kinds[row["applied"]] for row in record if "applied" in row))
            await watching
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    return beside


def sim_among_faults(seed: int, minutes: float = MINUTES, disturb: Disturb | None = None) -> Outcome:
    """One simulation among random faults, or those given; what it broke is in `violations`."""
    outcome, errors = Outcome(seed), list[str]()

    def keep_errors(_logger: Any, level: str, event: Any) -> Any:
        if level in {"error", "exception", "critical"}:
            errors.append(str(event)[:500])
        raise structlog.DropEvent

    structlog.configure(processors=[keep_errors])
    try:
        run = SimRun(SYMBOL, timedelta(minutes=minutes), seed=seed)
        report = simulate(run, lambda _: None, _watched(outcome, disturb or random_faults(seed, minutes)))
    finally:
        structlog.reset_defaults()
    assert report.status is not None
    outcome.told = report.status.unprotected_seconds
    outcome.trades, outcome.seconds = len(report.account["trades"]), report.took
    calm = (START.timestamp() + minutes * 60 - CALM) * 1000
    outcome.bought = sum(trade["isBuyer"] and trade["time"] > calm for trade in report.account["trades"])
    outcome.violations = [f"logged {error}" for error in errors] + _amiss(report)
    if outcome.quietly > UNPROTECTED_SECONDS:
        outcome.violations.append(f"unprotected for {outcome.quietly:.1f} s without a fault")
    if not outcome.bought:
        outcome.violations.append(f"bought nothing in {CALM:.0f} s without faults")
    return outcome


def _amiss(report: SimReport) -> list[str]:
    """What is not as it must be after the calm."""
    status, account = report.status, report.account
    if status is None:
        return ["there is no status"]
    wrong = [f"{name} is {told}" for name, told in _conditions(status).items() if told[0] != "True"]
    held = {asset: Decimal(row["free"]) + Decimal(row["locked"]) for asset, row in account["balances"].items()}
    position = status.position.quantity if status.position else None
    if position != held.get("BTC", Decimal(0)):
        wrong.append(f"the position is {position}, and the exchange has {held.get('BTC')}")
    known = {order["clientOrderId"] for order in account["openOrders"]}
    if known != {order.client_order_id for order in status.open_orders}:
        wrong.append(f"the exchange has {sorted(known)} open, and the bot knows {status.open_orders}")
    return wrong


def _conditions(status: BotStatus) -> dict[str, tuple[str, str]]:
    wanted = ("BalanceSynced", "TradingAllowed", "Protected")
    return {one.type: (one.status, one.reason) for one in status.conditions if one.type in wanted}
