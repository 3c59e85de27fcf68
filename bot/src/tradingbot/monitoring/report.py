"""The bot's status: everything that requirements ask for, put together from the rooms that know it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from decimal import Decimal

from tradingbot.clocks import from_ms
from tradingbot.desk import Desk
from tradingbot.gateway import filters
from tradingbot.gateway.port import CallCounts
from tradingbot.gateway.streams import StreamName
from tradingbot.model import NO_LIST, Balance
from tradingbot.monitoring.health import ConditionClock, judge, not_ready
from tradingbot.monitoring.metrics import Extra
from tradingbot.monitoring.performance import Performance, exposure, time_held
from tradingbot.orders.manager import OrderManager
from tradingbot.orders.oco_monitor import OcoVerdict
from tradingbot.orders.types import TrackedOrder
from tradingbot.recovery.circuit_breaker import BreakerSnapshot
from tradingbot.risk.drawdown import DrawdownTracker, EquityMarks
from tradingbot.risk.risk_manager import RiskManager
from tradingbot.session import Session
from tradingbot.state.ledger import LedgerState
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import (
    AccountBooks,
    AssetClaim,
    BotStatus,
    FleetReport,
    GrantStatus,
    OpenOrder,
    ProtectionPair,
)
from tradingbot_api.v1alpha1 import (
    APIStatus,
    BalanceStatus,
    CircuitBreakerStatus,
    OrdersStatus,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    TradesStatus,
    UsageStatus,
)


def breaker_status(snapshot: BreakerSnapshot) -> CircuitBreakerStatus:
    """The circuit breaker."""
    return CircuitBreakerStatus(
        state=snapshot.state.value,
        failures=snapshot.failures,
        since_time=snapshot.since,
        next_probe_time=snapshot.next_probe,
    )


def api_status(desk: Desk, counts: CallCounts) -> APIStatus:
    """Calls to the exchange."""
    ends = desk.panel.demanded_until
    return APIStatus(
        calls=counts.calls,
        errors=counts.errors,
        last_error=counts.last_error,
        wait_until_time=ends if ends is not None and ends > desk.clocks.utc() else None,
    )


def usage_status() -> UsageStatus:
    """Memory and CPU time of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[1])
    return UsageStatus(memory_bytes=pages * resource.getpagesize(), cpu_seconds=Decimal(f"{time.process_time():.2f}"))


def open_order(order: TrackedOrder) -> OpenOrder:
    """One order for the stream."""
    return OpenOrder(
        client_order_id=order.client_order_id,
        order_id=order.order_id,
        order_list_id=order.order_list_id if order.order_list_id is not None else NO_LIST,
        type=order.type.value,
        side=order.side.value,
        status=order.status.value,
        quantity=canonical(order.quantity),
        executed_quantity=canonical(order.executed_quantity),
        price=canonical(order.price),
        stop_price=canonical(order.stop_price),
        purpose=order.purpose,
        created_time=from_ms(order.created_ms),
        updated_time=from_ms(order.updated_ms),
        fills=list(order.trade_ids),
        related_position=order.related_position,
    )


def protection_pair(verdict: OcoVerdict) -> ProtectionPair:
    """One pair for the stream."""
    pair = verdict.pair
    return ProtectionPair(
        order_list_id=pair.oco_id,
        state=verdict.state.value,
        stop_id=pair.stop_id,
        take_profit_id=pair.take_profit_id,
    )


@dataclass(frozen=True, slots=True)
class Trading:
    """The parts of the status that only a connected bot knows; None where it does not know them."""

    balance: BalanceStatus | None
    position: PositionStatus | None
    pnl: PnLStatus | None
    risk: RiskStatus | None
    orders: OrdersStatus
    trades: TradesStatus
    open_orders: list[OpenOrder]
    oco_orders: list[ProtectionPair]
    foreign_orders: list[str]
    base_claim: AssetClaim
    quote_claim: AssetClaim
    account_books: AccountBooks


def trading(session: Session, risk: RiskManager) -> Trading:
    """What a session knows."""
    manager, price = session.manager, session.price
    performance = session.performance
    checked = manager.last_order_check_ms
    return Trading(
        balance=_balance(session),
        position=_position(session, price),
        pnl=_pnl(session, risk, price, performance.sharpe),
        risk=risk_status(risk, manager.books.quantity * (price or Decimal(0))),
        orders=OrdersStatus(
            active=len(manager.open_orders),
            oco=manager.open_lists,
            foreign=len(manager.foreign_orders),
            last_check_time=from_ms(checked) if checked is not None else None,
        ),
        trades=_trades(session, performance, risk.drawdown.marks),
        open_orders=[open_order(order) for order in manager.open_orders],
        oco_orders=[protection_pair(verdict) for verdict in manager.pairs],
        foreign_orders=list(manager.foreign_orders),
        base_claim=_claim(session, session.rules.base_asset, manager.books.quantity, manager.books.dust_limit),
        quote_claim=_claim(session, session.rules.quote_asset, session.capital_needed),
        account_books=account_books(
            manager, session.balance_of, compared_ms=session.compared_ms, listening=session.streams.user_alive
        ),
    )


def account_books(
    manager: OrderManager, balance: Callable[[str], Balance], *, compared_ms: int | None, listening: bool
) -> AccountBooks:
    """What the operator needs to compare the account with the books of all its bots."""
    rules, books, heard, verdict = manager.rules, manager.books, manager.heard, manager.verdict
    lacking = verdict is None or not verdict.synced or verdict.drift < 0 or books.unvalued_fees > 0
    return AccountBooks(
        held={asset: balance(asset).total for asset in (rules.base_asset, rules.quote_asset)},
        flows=dict(books.flows),
        fills=books.fills,
        rounded=[] if filters.exact_quote(rules) else [rules.quote_asset],
        settled=manager.settled,
        complete=not lacking,
        compared_time=from_ms(compared_ms) if compared_ms is not None else None,
        listening_since=heard.since_ms if listening else None,
        moved=dict(heard.moved),
        trades_by_hand=heard.by_hand,
        trades_by_bots=dict(heard.by_bots),
    )


def _claim(session: Session, asset: str, claimed: Decimal, least: Decimal = Decimal(0)) -> AssetClaim:
    return AssetClaim(asset=asset, claimed=claimed, held=session.balance_of(asset).total, least=least)


def _balance(session: Session) -> BalanceStatus | None:
    verdict = session.verdict
    if verdict is None:
        return None
    base = session.balance_of(session.rules.base_asset).total
    quote = session.balance_of(session.rules.quote_asset).total
    return BalanceStatus(base=base, quote=quote, drift=verdict.drift, last_sync_time=from_ms(verdict.time_ms))


def _position(session: Session, price: Decimal | None) -> PositionStatus | None:
    books, verdict = session.manager.books, session.verdict
    if price is None and not books.flat:
        return None
    return PositionStatus(
        side="Flat" if books.flat else "Long",
        quantity=books.quantity,
        average_price=books.average_price,
        value=books.quantity * (price or Decimal(0)),
        validated=verdict is not None and verdict.synced and session.manager.validate(price or Decimal(0)).valid,
    )


def _pnl(session: Session, risk: RiskManager, price: Decimal | None, sharpe: Decimal | None) -> PnLStatus | None:
    books, marks = session.manager.books, risk.drawdown.marks
    if price is None and books.quantity > 0:
        return None
    unrealized = books.unrealized(price or Decimal(0))
    return PnLStatus(
        realized=books.realized,
        unrealized=unrealized,
        total=books.realized + unrealized,
        fees=dict(books.fees),
        max_drawdown=marks.max_drawdown if marks is not None else None,
        sharpe=sharpe,
    )


def _begun_ms(books: LedgerState, marks: EquityMarks | None) -> int:
    """Since when there may be a position; a lost store's fills are older than its marks."""
    begun = marks.begun if marks is not None else None
    return books.first_fill_ms if begun is None else min(books.first_fill_ms, int(begun.timestamp() * 1000))


def _trades(session: Session, performance: Performance, marks: EquityMarks | None) -> TradesStatus:
    books = session.manager.books
    last = books.last_trade
    # Until the last trade closed, so that the status of a bot that does nothing does not change.
    span = 0 if last is None or last.closed_ms is None else last.closed_ms - _begun_ms(books, marks)
    return TradesStatus(
        total=performance.total,
        successful=performance.successful,
        failed=performance.failed,
        win_rate=performance.win_rate,
        profit_factor=performance.profit_factor,
        exposure=exposure(books.round_trips.held_ms, span),
    )


def risk_status(risk: RiskManager, position_value: Decimal) -> RiskStatus | None:
    """What the risk manager sees; None before this process has seen the equity, of which all of it is made."""
    if risk.drawdown.equity is None:
        return None
    volatility = risk.volatility.calculate_volatility()
    return RiskStatus(
        level=risk.level(position_value).value,
        volatility=None if volatility is None else Decimal(f"{volatility:.10f}"),
        drawdown=risk.drawdown.drawdown,
        daily_loss=_daily_loss(risk.drawdown),
        daily_loss_overshoot=risk.overshoot.daily_loss or None,
        drawdown_overshoot=risk.overshoot.drawdown or None,
    )


def _daily_loss(drawdown: DrawdownTracker) -> Decimal | None:
    return drawdown.daily_loss if drawdown.equity is not None and drawdown.day_known else None


def fleet_report(desk: Desk) -> FleetReport | None:
    """What the operator needs to keep the limits of the fleet; None without any."""
    keeper, session = desk.reservations, desk.session
    if not keeper.required:
        return None
    exposure = session.manager.exposure if session is not None else None
    marks, equity = desk.risk.drawdown.marks, desk.risk.drawdown.equity
    known = marks is not None and equity is not None and marks.day_seen
    epoch, number = keeper.seen
    return FleetReport(
        clock=desk.monotonic(),
        exposure=exposure.value if exposure is not None else None,
        in_position=exposure is not None and exposure.in_position,
        epoch=epoch,
        number=number,
        reserved=keeper.exposure,
        request=keeper.request,
        quote_asset=session.rules.quote_asset if session is not None else None,
        day=marks.day if known and marks is not None else None,
        daily_pnl=equity - marks.day_start if known and marks is not None and equity is not None else None,
    )


def build_status(desk: Desk, clock: ConditionClock, sequence: int) -> BotStatus:
    """The whole status as it is now; `clock` remembers since when conditions are as they are."""
    desk.refresh()
    session, facts, now = desk.session, desk.facts(), desk.clocks.utc()
    known = trading(session, desk.risk) if session else None
    quiet = session is not None and session.manager.entries_quiet and desk.latches_kept
    counts = add_counts(desk.former_counts, session.exchange.counts) if session else desk.former_counts
    return BotStatus(
        bot_uid=desk.identity.uid,
        boot_id=desk.boot_id,
        incarnation=session.manager.incarnation if session else None,
        sequence=sequence,
        applied_revision=desk.revision,
        time=now,
        version=desk.version,
        ready=not_ready(facts) is None,
        symbol=desk.settings.symbol,
        account_uid=desk.account_uid,
        announced=session is not None and session.manager.announced,
        grant=GrantStatus(held=desk.grants.expires_in > 0, expires_in_seconds=round(desk.grants.expires_in, 3)),
        drain=desk.drain_now,
        conditions=clock.stamp(judge(facts), now),
        circuit_breaker=breaker_status(facts.breaker),
        safe_mode=desk.safe_mode.get_safe_mode_status(quiet),
        balance=known.balance if known else None,
        position=known.position if known else None,
        pnl=known.pnl if known else None,
        risk=known.risk if known else None,
        orders=known.orders if known else None,
        trades=known.trades if known else None,
        api=api_status(desk, counts),
        usage=usage_status(),
        open_orders=known.open_orders if known else [],
        unprotected_seconds=desk.unprotected.seconds(desk.monotonic()),
        oco_orders=known.oco_orders if known else [],
        foreign_orders=known.foreign_orders if known else [],
        base_claim=known.base_claim if known else None,
        quote_claim=known.quote_claim if known else None,
        account_books=known.account_books if known else None,
        fleet=fleet_report(desk),
        weight=session.exchange.weight_use if session is not None else None,
        order_use=session.exchange.order_use if session is not None else None,
    )


def add_counts(left: CallCounts, right: CallCounts) -> CallCounts:
    """Calls of two sessions, `right` being the later one."""
    return CallCounts(
        left.calls + right.calls, left.errors + right.errors, right.last_error or left.last_error, right.used_weight
    )


def extra_figures(desk: Desk, loop_lag: float) -> Extra:
    """What is measured and not in the status."""
    session, settings, now = desk.session, desk.settings, desk.clocks.utc().timestamp()
    wait = desk.panel.wait_seconds()
    known = Extra(
        environment=settings.exchange.environment.value,
        daily_loss_limit=settings.risk.max_daily_loss,
        drawdown_limit=settings.risk.max_drawdown_ratio,
        exchange_wait_end=now + wait if wait > 0 else None,
        grant_required=desk.grants.required,
        protection_deadline_seconds=settings.protection.deadline_seconds,
        loop_lag_seconds=loop_lag,
    )
    if session is None:
        return known
    since = session.manager.protection.since
    books, now_ms = session.manager.books, session.exchange.exchange_ms()
    held_ms = time_held(books.round_trips, books.trade, now_ms)
    span = now_ms - _begun_ms(books, desk.risk.drawdown.marks) if books.first_fill_ms else 0
    return replace(
        known,
        position_seconds=held_ms / 1000,
        time_in_market=exposure(held_ms, span),
        equity=desk.risk.drawdown.equity,
        daily_loss=_daily_loss(desk.risk.drawdown),
        stream_ages={name.value: session.streams.health(name).age for name in StreamName},
        used_weight=session.exchange.counts.used_weight,
        weight_limit=desk.budget.limit,
        clock_offset_seconds=session.exchange.exchange_ms() / 1000 - now,
        task_ages=session.progress.ages(),
        unprotected_now_seconds=0.0 if since is None else desk.monotonic() - since,
    )


def state_of(status: BotStatus) -> Hashable:
    """What of a status is state: a change of it is sent at once; the rest are figures."""
    safe, breaker, orders, trades = status.safe_mode, status.circuit_breaker, status.orders, status.trades
    fleet = status.fleet
    return (
        status.ready,
        status.account_uid,
        status.incarnation,
        status.applied_revision,
        status.grant.held,
        (status.drain.phase, tuple(status.drain.remaining)),
        tuple((item.type, item.status, item.reason) for item in status.conditions),
        breaker and breaker.state,
        status.api and status.api.wait_until_time,
        status.order_use and (status.order_use.asks, status.order_use.refused_until_time),
        (safe.level, safe.engaged, safe.acknowledged, tuple(cause.id for cause in safe.causes)),
        status.position and (status.position.side, status.position.quantity, status.position.validated),
        orders and (orders.active, orders.oco, orders.foreign),
        fleet and (fleet.exposure, fleet.in_position, fleet.epoch, fleet.number, fleet.reserved, fleet.request),
        trades and trades.total,
        tuple((order.client_order_id, order.status) for order in status.open_orders),
    )
