"""Plans of entries and protections: pure prices and quantities, on the symbol's steps, that will be accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tradingbot.gateway import filters
from tradingbot.gateway.filters import FilterRefusal
from tradingbot.gateway.port import NewOrder, NewProtection
from tradingbot.model import OrderType, Side, SymbolRules, TimeInForce
from tradingbot.recovery.fence import Purpose
from tradingbot.risk.risk_manager import STOP_SLIPPAGE
from tradingbot_api.v1alpha1 import BotSettings

STOP_LIMIT_GAP: Final = STOP_SLIPPAGE
"""How far below its trigger a STOP_LOSS_LIMIT sells, where the symbol has no STOP_LOSS; wide, so that it fills."""

BIPS: Final = 10_000


@dataclass(frozen=True, slots=True)
class ProtectionPlan:
    """Quantity and prices of a protection pair."""

    quantity: Decimal
    stop_price: Decimal
    stop_limit_price: Decimal | None
    take_profit_price: Decimal
    trailing_delta: int | None = None
    """How far below the highest price the stop follows it, in 1/100 of a percent; None: it stays at `stop_price`."""


@dataclass(frozen=True, slots=True)
class EntryPlan:
    """A buy inside the slippage collar and what protects it."""

    quantity: Decimal
    limit_price: Decimal
    protection: ProtectionPlan


def stop_limit(rules: SymbolRules, stop_price: Decimal) -> Decimal | None:
    """The limit of a stop: None where the symbol has STOP_LOSS, which sells at the market."""
    if OrderType.STOP_LOSS in rules.order_types:
        return None
    return filters.floor_price(rules, stop_price * (1 - STOP_LIMIT_GAP))


def plan_protection(
    rules: SymbolRules, settings: BotSettings, quantity: Decimal, entry_price: Decimal
) -> ProtectionPlan:
    """Stop and take-profit around `entry_price` for `quantity` of base (floored to the step)."""
    stop = filters.floor_price(rules, entry_price * (1 - settings.protection.stop_loss_ratio))
    target = filters.ceil_price(rules, entry_price * (1 + settings.protection.take_profit_ratio))
    trailing = settings.protection.trailing_ratio
    delta = None if trailing is None else int(trailing * BIPS)
    return ProtectionPlan(filters.floor_quantity(rules, quantity), stop, stop_limit(rules, stop), target, delta)


def smallest_quantity(rules: SymbolRules, settings: BotSettings, price: Decimal, taker_rate: Decimal) -> Decimal:
    """The smallest purchase at `price` that, less the fee, can still be sold at the stop (LOT_SIZE, NOTIONAL)."""
    protection = plan_protection(rules, settings, Decimal(0), price)
    exit_price = protection.stop_limit_price or protection.stop_price or price
    least = max(rules.notional.min_notional / exit_price, rules.lot.min_quantity) / (1 - taker_rate)
    return filters.floor_quantity(rules, least) + 2 * (rules.lot.step or Decimal("0.00000001"))


def plan_entry(
    rules: SymbolRules,
    settings: BotSettings,
    *,
    quantity: Decimal,
    ask: Decimal,
    taker_rate: Decimal,
    held: Decimal,
) -> EntryPlan | FilterRefusal:
    """A buy of `quantity` at up to the collar above `ask`, or the filter that refuses it.

    The pair sells what is left after the fee, which is taken from the bought base, with the dust `held` before.
    """
    limit = filters.floor_price(rules, ask * (1 + settings.entry.max_slippage_ratio))
    wanted = filters.floor_quantity(rules, quantity)
    protection = plan_protection(rules, settings, wanted * (1 - taker_rate) + held, ask)
    exit_price = protection.stop_limit_price or protection.stop_price
    checks = (
        filters.check_price(rules, limit),
        filters.check_quantity(rules, wanted),
        filters.check_notional(rules, limit, wanted),
        filters.check_price(rules, protection.stop_price, "stop price"),
        filters.check_price(rules, protection.take_profit_price, "take-profit price"),
        filters.check_trailing_delta(rules, protection.trailing_delta),
        filters.check_quantity(rules, protection.quantity),
        # Sized so that the exit at the stop still passes: a position that cannot be sold must not be bought.
        filters.check_notional(rules, exit_price, protection.quantity),
        filters.check_percent_price(rules, Side.BUY, limit, ask),
        filters.check_percent_price(rules, Side.SELL, protection.take_profit_price, ask),
        filters.check_percent_price(rules, Side.SELL, exit_price, ask),
    )
    refusal = next((check for check in checks if check is not None), None)
    return refusal or EntryPlan(wanted, limit, protection)


def entry_order(symbol: str, client_id: str, plan: EntryPlan, time_in_force: TimeInForce) -> NewOrder:
    """The purchase of a plan, inside its collar."""
    return NewOrder(
        symbol,
        client_id,
        Side.BUY,
        OrderType.LIMIT,
        plan.quantity,
        price=plan.limit_price,
        time_in_force=time_in_force,
    )


def protection_pair(plan: ProtectionPlan, client_id: Callable[[Purpose], str]) -> NewProtection:
    """The plan as two orders; `client_id` names each by its purpose."""
    return NewProtection(
        quantity=plan.quantity,
        take_profit_client_id=client_id(Purpose.TAKE_PROFIT),
        take_profit_price=plan.take_profit_price,
        stop_client_id=client_id(Purpose.STOP_LOSS),
        stop_price=plan.stop_price,
        stop_limit_price=plan.stop_limit_price,
        trailing_delta=plan.trailing_delta,
    )


def stop_order(symbol: str, client_id: str, plan: ProtectionPlan) -> NewOrder:
    """The stop of a plan alone, where a pair is refused."""
    limited = plan.stop_limit_price is not None
    return NewOrder(
        symbol,
        client_id,
        Side.SELL,
        OrderType.STOP_LOSS_LIMIT if limited else OrderType.STOP_LOSS,
        plan.quantity,
        price=plan.stop_limit_price,
        stop_price=plan.stop_price if plan.trailing_delta is None else None,
        trailing_delta=plan.trailing_delta,
        time_in_force=TimeInForce.GTC if limited else None,
    )


def sale_order(
    rules: SymbolRules, client_id: str, quantity: Decimal, *, bid: Decimal | None, max_slippage_ratio: Decimal
) -> NewOrder:
    """A slice of an exit inside the collar below `bid`; without one at the market, and no more than that takes."""
    if bid is None:
        quantity = filters.floor_market_quantity(rules, quantity)
        return NewOrder(rules.symbol, client_id, Side.SELL, OrderType.MARKET, quantity)
    return NewOrder(
        rules.symbol,
        client_id,
        Side.SELL,
        OrderType.LIMIT,
        quantity,
        price=filters.floor_price(rules, bid * (1 - max_slippage_ratio)),
        time_in_force=TimeInForce.IOC,
    )
