"""A bot's status as lines for people; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from tradingbot.monitoring.local_api import LocalStatus
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotStatus, OpenOrder
from tradingbot_api.conditions import ConditionType
from tradingbot_api.v1alpha1 import Condition

WIDTH = 12


def status_lines(told: LocalStatus, *, running: bool) -> list[str]:
    """All that a person asks first, a subject each, what continues one indented."""
    settings, strategy = told.settings, told.settings.strategy
    head = (
        f"{told.bot.namespace}/{told.bot.name} trades {settings.symbol} on {settings.exchange.environment} with "
        f"{strategy.name} ({strategy.interval.value}), capital {canonical(settings.capital)}"
    )
    return [head, *(line for name, texts in _subjects(told.status, running) for line in _lines(name, texts))]


def position_text(status: BotStatus) -> str:
    """The position in a phrase."""
    position = status.position
    if position is None:
        return "not known"
    base, quote = _assets(status)
    if position.side == "Flat":
        dust = f" ({canonical(position.quantity)} {base} are too little to be sold)" if position.quantity else ""
        return f"flat{dust}"
    return (
        f"{canonical(position.quantity)} {base} bought at {canonical(position.average_price)}, "
        f"worth {_rounded(position.value)} {quote}"
    )


def _subjects(status: BotStatus, running: bool) -> Iterator[tuple[str, list[str]]]:
    conditions = {condition.type: condition for condition in status.conditions}
    yield "process", [_process(status) if running else "no bot runs: read from its store and the exchange"]
    yield "position", [position_text(status)]
    yield "protection", [_judged(conditions.get(ConditionType.PROTECTED), "yes", "NO")]
    yield "PnL", _pnl(status)
    yield "balance", _balance(status, conditions)
    if (allowed := conditions.get(ConditionType.TRADING_ALLOWED)) is not None:
        yield "trading", [_judged(allowed, "allowed", "not allowed")]
    yield "safe mode", _safe_mode(status)
    yield "orders", [_order(order) for order in status.open_orders] or ["none open"]
    if status.foreign_orders:
        yield "", [f"{name} is open and not this bot's" for name in status.foreign_orders]
    breaker = status.circuit_breaker
    if breaker is not None and breaker.state != "Closed":
        yield "circuit", [f"{breaker.state} after {breaker.failures} failures"]
    troubled = [one for one in status.conditions if one.status != "True" and one.type not in _SHOWN]
    yield from (("problem", [f"{one.type} {_judged(one, 'yes', 'no')}"]) for one in troubled)


_SHOWN = {ConditionType.PROTECTED, ConditionType.BALANCE_SYNCED, ConditionType.TRADING_ALLOWED}


def _process(status: BotStatus) -> str:
    ready = "ready" if status.ready else "not ready"
    return f"runs: version {status.version}, incarnation {status.incarnation or 'not taken yet'}, {ready}"


def _judged(condition: Condition | None, yes: str, no: str) -> str:
    if condition is None or condition.status == "Unknown":
        word = "not known"
    else:
        word = yes if condition.status == "True" else no
    if condition is None or condition.reason == "OK":
        return word
    return f"{word}, {condition.reason}{condition.message and ': '}{condition.message}"


def _pnl(status: BotStatus) -> list[str]:
    pnl, trades = status.pnl, status.trades
    if pnl is None:
        return ["not known"]
    _, quote = _assets(status)
    fees = ", ".join(f"{canonical(amount)} {asset}" for asset, amount in pnl.fees.items()) or "none"
    lines = [
        f"{_signed(pnl.total)} {quote} (realized {_signed(pnl.realized)}, unrealized {_signed(pnl.unrealized)}), "
        f"fees {fees}"
    ]
    if trades is not None:
        fall = "" if pnl.max_drawdown is None else f", drawdown at most {pnl.max_drawdown * 100:.2f} %"
        lines.append(f"round trips: {trades.total}, {trades.successful} won{fall}")
    return lines


def _balance(status: BotStatus, conditions: dict[str, Condition]) -> list[str]:
    balance, synced = status.balance, conditions.get(ConditionType.BALANCE_SYNCED)
    base, quote = _assets(status)
    held = "" if balance is None else f"{canonical(balance.base)} {base}, {canonical(balance.quote)} {quote}; "
    return [held + _judged(synced, "agrees with the books", "DIFFERS from the books")]


def _safe_mode(status: BotStatus) -> list[str]:
    safe = status.safe_mode
    if not safe.engaged:
        return ["off"]
    word = "acknowledged" if safe.acknowledged else "engaged, entries may still be open"
    return [f"{safe.level}, {word}", *(f"{one.id} ({one.level}): {one.clears}" for one in safe.causes)]


def _order(order: OpenOrder) -> str:
    done = f" ({order.executed_quantity} done)" if Decimal(order.executed_quantity) else ""
    stop = f" stop {order.stop_price}" if Decimal(order.stop_price) else ""
    price = f" at {order.price}" if Decimal(order.price) else ""
    return f"{order.side} {order.type} {order.quantity}{done}{stop}{price}  {order.client_order_id}"


def _assets(status: BotStatus) -> tuple[str, str]:
    base, quote = status.base_claim, status.quote_claim
    return base.asset if base else "base", quote.asset if quote else "quote"


def _rounded(amount: Decimal) -> str:
    return f"{amount:.2f}"


def _signed(amount: Decimal) -> str:
    return f"{amount:+.4f}"


def _lines(name: str, texts: Iterable[str]) -> Iterator[str]:
    for index, text in enumerate(texts):
        yield f"{'' if index else name:<{WIDTH}} {text}"
