"""What the parts of the order manager share: exchange, store, clocks, ids, the orders known, and how they tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from random import Random

import structlog

from tradingbot.gateway.errors import AuthRejectedError, ExchangeError
from tradingbot.gateway.port import Exchange
from tradingbot.model import SymbolRules
from tradingbot.orders.audit import AuditLog
from tradingbot.orders.tracker import OrderTracker
from tradingbot.orders.types import OrdersEvent, OrdersEventKind
from tradingbot.recovery.fence import LAST_SEQUENCE, ClientIds
from tradingbot.state.store import Store, StoreFailedError
from tradingbot_api import names
from tradingbot_api.v1alpha1 import BotSettings


class OrderContext:
    """What the parts of the order manager share; `rules`, `taker_rate` and `reset` change while it runs."""

    def __init__(
        self,
        *,
        exchange: Exchange,
        store: Store,
        rules: SymbolRules,
        account_uid: str,
        settings: Callable[[], BotSettings],
        notify: Callable[[OrdersEvent], None],
        monotonic: Callable[[], float],
        random: Random,
    ) -> None:
        self.exchange = exchange
        self.store = store
        self.rules = rules
        self.settings = settings
        self.monotonic = monotonic
        self.random = random
        self.log = structlog.get_logger("orders").bind(symbol=rules.symbol)
        self.audit = AuditLog(rules.symbol)
        self.tracker = OrderTracker()
        self.ids = ClientIds(names.bot_key(account_uid, rules.symbol), 0, random.randrange(LAST_SEQUENCE // 2))
        self.taker_rate = Decimal(0)
        self.reset: str | None = None
        """Which order the exchange no longer knows, or None; the books are worth nothing and the bot must halt."""
        self._notify = notify

    async def tolerate(self, work: Awaitable[None]) -> None:
        """Do it as far as it can be done: what follows must not wait for it. AuthRejectedError."""
        try:
            await work
        except AuthRejectedError:
            raise
        except (ExchangeError, StoreFailedError) as error:
            self.log.warning("not done", error=str(error))

    async def note(self, name: str, value: object) -> None:
        """Commit a fact; where that fails, entries stop and the position is looked after all the same."""
        try:
            await self.store.put(name, value)
        except StoreFailedError as error:
            self.log.error("not recorded", fact=name, error=str(error))

    def tell(
        self, kind: OrdersEventKind, message: str, quantity: Decimal = Decimal(0), price: Decimal = Decimal(0)
    ) -> None:
        """Tell the event, with the exchange's time."""
        self._notify(OrdersEvent(kind, self.exchange.exchange_ms(), message, quantity, price))


class OrderPart:
    """One part of the order manager, with what all share under the same names."""

    def __init__(self, ctx: OrderContext) -> None:
        self._ctx = ctx
        self._exchange = ctx.exchange
        self._tracker = ctx.tracker
        self._ids = ctx.ids
        self._log = ctx.log
        self._monotonic = ctx.monotonic
        self._audit = ctx.audit
        self._store = ctx.store
        self._settings = ctx.settings
        self._random = ctx.random
