"""Whether the exchange admits entries: asked of the key, the account and the symbol at the start and ever again.

What it refuses ends no session: a position is protected and sold with whatever the keys and the symbol still allow.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Final

from tradingbot.gateway.errors import AuthRejectedError, ExchangeError, RejectedError
from tradingbot.gateway.filters import FilterRefusal
from tradingbot.gateway.port import Exchange, NewOrder
from tradingbot.model import AccountSnapshot, OrderType, Side, SymbolRules, TimeInForce
from tradingbot.monitoring.health import Problem
from tradingbot.orders.planning import plan_entry, smallest_quantity
from tradingbot.recovery.retry import retry_read, retryable
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings

NOT_ASKED: Final = Problem(Reason.NOT_RECONCILED, "the exchange was not asked yet whether it would take an entry")
TEST_ID: Final = "test-order"
NO_MONEY: Final = "insufficient balance"
"""A test order that only lacks money has passed keys, clock and filters; CapitalCovered tells of the money."""


class Admission:
    """What the exchange last said; `ask` raises nothing that it answers."""

    def __init__(self, exchange: Exchange, settings: Callable[[], BotSettings], rng: Random) -> None:
        self._exchange = exchange
        self._settings = settings
        self._rng = rng
        self.key_problem: Problem | None = NOT_ASKED
        """Why the keys or their account are refused: as bad as wrong ones."""
        self.order_problem: Problem | None = NOT_ASKED
        """Why a plausible entry would be refused, although the keys are good."""

    async def ask(self, rules: SymbolRules, account: AccountSnapshot, taker_rate: Decimal) -> None:
        """Judge the keys, then have the smallest entry tested; what cannot be asked stays as it was answered last."""
        key_problem, order_problem = judge_account(rules, account) or await self._ask_key(), self.order_problem
        if key_problem is None and judge_symbol(rules) is None:
            key_problem, order_problem = await self._test_order(rules, taker_rate)
        self.key_problem, self.order_problem = key_problem, order_problem

    @property
    def problem(self) -> Problem | None:
        """Why no entry can be made."""
        return self.key_problem or self.order_problem

    async def _ask_key(self) -> Problem | None:
        try:
            permissions = await retry_read(self._exchange.key_permissions, retryable=retryable, rng=self._rng)
        except AuthRejectedError as error:
            return Problem(Reason.CREDENTIALS_REJECTED, f"{error}; check the keys in the Secret")
        except ExchangeError as error:
            if self.key_problem is not NOT_ASKED:
                return self.key_problem
            return Problem(Reason.EXCHANGE_UNREACHABLE, f"what the key may do is not known: {error}; it is tried again")
        if permissions is None:
            return None
        if permissions.withdraw and not self._settings().exchange.allow_withdraw_key:
            return Problem(
                Reason.KEY_CAN_WITHDRAW,
                "the key may withdraw, so no entry is made with it: take that permission from the key, give the "
                "Secret another one, or set spec.exchange.allowWithdrawKey",
            )
        if not permissions.trade:
            return Problem(Reason.KEY_CANNOT_TRADE, "the key may not trade: enable Spot trading for it at the exchange")
        return None

    async def _test_order(self, rules: SymbolRules, taker_rate: Decimal) -> tuple[Problem | None, Problem | None]:
        """The problem of the keys and that of the order."""
        try:
            price = await self._exchange.last_price(rules.symbol)
            order = smallest_entry(rules, self._settings(), price, taker_rate)
            if isinstance(order, FilterRefusal):
                return None, Problem(Reason.TEST_ORDER_REFUSED, f"{order.code}: {order.message}")
            await retry_read(lambda: self._exchange.test_order(order), retryable=retryable, rng=self._rng)
        except AuthRejectedError as error:
            text = f"a test order was refused ({error}): enable Spot trading for the key, from this address"
            return Problem(Reason.KEY_CANNOT_TRADE, text), None
        except RejectedError as error:
            if NO_MONEY not in str(error):
                return None, Problem(Reason.TEST_ORDER_REFUSED, f"{error}; it is tried again")
        except ExchangeError as error:
            if self.order_problem is not NOT_ASKED:
                return None, self.order_problem
            return None, Problem(Reason.TEST_ORDER_REFUSED, f"not tested: {error}; it is tried again")
        return None, None


def judge_symbol(rules: SymbolRules) -> Problem | None:
    """Why the symbol takes no entry; pure."""
    if not rules.trading:
        text = f"the exchange says that {rules.symbol} is {rules.status}; it is asked again each minute"
        return Problem(Reason.SYMBOL_HALTED, text)
    if not (rules.oco_allowed and rules.oto_allowed):
        text = f"spec.symbol: {rules.symbol} takes no order lists (OTO, OCO), without which no entry is protected"
        return Problem(Reason.CONFIG_INVALID, text)
    return None


def judge_account(rules: SymbolRules, account: AccountSnapshot) -> Problem | None:
    """Why the account may not trade the symbol; pure."""
    if not account.can_trade:
        return Problem(Reason.KEY_CANNOT_TRADE, "the exchange says that these keys or their account may not trade")
    for group in rules.permission_sets:
        if account.permissions and account.permissions.isdisjoint(group):
            wanted = ", ".join(sorted(group)[:5])
            text = f"the account may not trade {rules.symbol}: expected one of the permissions {wanted}"
            return Problem(Reason.KEY_CANNOT_TRADE, text)
    return None


def smallest_entry(
    rules: SymbolRules, settings: BotSettings, price: Decimal, taker_rate: Decimal
) -> NewOrder | FilterRefusal:
    """The smallest purchase at about `price` whose position could be protected and sold; pure."""
    quantity = smallest_quantity(rules, settings, price, taker_rate)
    plan = plan_entry(rules, settings, quantity=quantity, ask=price, taker_rate=taker_rate, held=Decimal(0))
    if isinstance(plan, FilterRefusal):
        return plan
    return NewOrder(
        rules.symbol,
        TEST_ID,
        Side.BUY,
        OrderType.LIMIT,
        plan.quantity,
        price=plan.limit_price,
        time_in_force=TimeInForce.FOK,
    )
