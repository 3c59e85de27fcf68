"""The order manager: the only room that sends, cancels or repairs an order; it owns position and protection."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tradingbot.gateway.port import Exchange
from tradingbot.model import SymbolRules, UserEvent
from tradingbot.orders.types import (
    EntryRequest,
    EntryResult,
    ExitResult,
    OrdersEvent,
    ProtectionStatus,
    RecoveryReport,
    TrackedOrder,
)
from tradingbot.state.balance_reconciler import Verdict
from tradingbot.state.ledger import LedgerState
from tradingbot.state.store import Store
from tradingbot_api.v1alpha1 import BotSettings, PositionPolicy


class OrderManager:
    """Every order of one bot.

    `may_enter` is asked immediately before an entry is sent, after its intent is committed: it returns None, or the
    code of why not. `settings` gives the settings in force. `notify` is called synchronously and must not block.
    """

    def __init__(
        self,
        *,
        exchange: Exchange,
        store: Store,
        rules: SymbolRules,
        account_uid: str,
        settings: Callable[[], BotSettings],
        may_enter: Callable[[], str | None],
        notify: Callable[[OrdersEvent], None],
        monotonic: Callable[[], float],
        random: Random,
    ) -> None: ...

    # --- life cycle ---
    async def start(self) -> RecoveryReport:
        """Start-up and crash recovery: load intents, ask the exchange, fold, compare, repair. Raises ExchangeError."""
        ...

    async def reconcile(self) -> Verdict:
        """Read account, open orders and trades, repair what differs; call each 60 s, after reconnects and on doubt."""
        ...

    async def tick(self) -> None:
        """Do what is due: resolve unknown intents, restore protection. Call about each second; never raises."""
        ...

    async def on_user_event(self, event: UserEvent) -> None:
        """Take an event of the user stream."""
        ...

    # --- actions ---
    async def enter(self, request: EntryRequest) -> EntryResult:
        """Buy, with protection, in one request."""
        ...

    async def exit(self, reason: str) -> ExitResult:
        """Sell the position: cancel its protection, then sell what is held."""
        ...

    async def cancel_entries(self) -> None:
        """Cancel every working entry; after it `entries_quiet` tells whether none is left."""
        ...

    async def drain(self, policy: PositionPolicy) -> list[str]:
        """Cancel entries, with ClosePosition sell; returns what stays on the exchange, a line each. Idempotent."""
        ...

    def raise_incarnation(self, minimum: int) -> bool:
        """Take `minimum` or more; False after the first order of this process."""
        ...

    # --- what is ---
    @property
    def incarnation(self) -> int: ...
    @property
    def entries_quiet(self) -> bool:
        """No entry is working, in flight or unknown."""
        ...

    @property
    def unknown(self) -> tuple[str, ...]:
        """Client ids of intents whose outcome is unknown."""
        ...

    @property
    def two_traders(self) -> str | None:
        """Why the fence is lost, or None; the bot must halt."""
        ...

    @property
    def books(self) -> LedgerState: ...
    @property
    def verdict(self) -> Verdict | None:
        """The last comparison with the account."""
        ...

    @property
    def protection(self) -> ProtectionStatus: ...
    @property
    def unprotected_seconds(self) -> float:
        """Seconds that a position has been without protection, summed since the process started."""
        ...

    @property
    def open_orders(self) -> tuple[TrackedOrder, ...]: ...
    @property
    def open_lists(self) -> int: ...
    @property
    def last_order_check_ms(self) -> int | None:
        """Exchange time at which open orders were last read."""
        ...
