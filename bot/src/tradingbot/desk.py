"""The desk: what the life cycle, the control port and the status of one bot share, and the causes of safe mode."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from importlib.metadata import version
from typing import Any, Final, NotRequired

import structlog
from typing_extensions import TypedDict

from tradingbot.applied import Applied, StartConfig
from tradingbot.clocks import Clocks, from_ms
from tradingbot.config import SafeModeWish
from tradingbot.gateway.connection_limits import ConnectionBudget
from tradingbot.gateway.order_limits import OrderBudget
from tradingbot.gateway.port import CallCounts
from tradingbot.gateway.rate_limits import WeightBudget
from tradingbot.monitoring.health import Facts, Problem
from tradingbot.orders.protection import UnprotectedTime
from tradingbot.recovery.circuit_breaker import BreakerPanel
from tradingbot.recovery.grant import GrantKeeper, GrantRefusedError
from tradingbot.recovery.reservation import ReservationKeeper
from tradingbot.recovery.safe_mode import (
    ANNOTATION,
    ANNOTATION_STANDS,
    AWAITING_GRANT,
    BREAKER,
    DAILY_LOSS,
    DRAINING,
    DRAWDOWN,
    EXCHANGE_RESET,
    FLATTENED,
    SPEC,
    STORE,
    STORE_LOST,
    TWO_TRADERS,
    UNKNOWN_ORDER,
    UNTRUSTED_BOOKS,
    Level,
    SafeMode,
)
from tradingbot.risk.drawdown import DrawdownTracker
from tradingbot.risk.risk_manager import Refusal, RiskManager
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot.session import Session
from tradingbot.state.position_validator import Correction
from tradingbot.state.store import Store, StoreError
from tradingbot_api.base import canonical
from tradingbot_api.bot_http import BotConfig, DrainPhase, DrainStatus, ImposedCause
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings, Environment

CONFIG_FACT: Final = "config"
BREAKER_FACT: Final = "breaker"
LATCHES_FACT: Final = "safe-mode"
EQUITY_FACT: Final = "equity"
RISK_FACT: Final = "risk"
CONFIRMED_FACT: Final = "books-confirmed"
TIGHTENED_FACT: Final = "tightened"
ADDRESS_FACT: Final = "address-bots"
CALM_FACT: Final = "calm-after"
"""The highest order id at which nothing was held and nothing rested; None while something may be."""
DELETE_LIVE: Final = "delete this TradingBot and its volume, and create it again with new books"
"""What ends a reset that the exchange for real money should never have."""


class KeptWish(TypedDict):
    """A SafeModeWish in the store."""

    revision: int
    spec: bool
    closes: bool
    imposed: list[dict[str, str]]


class Tightened(TypedDict):
    """Safe mode that was asked for: the uid of the TradingBot, the greatest revision, and what was asked for at which;
    a former version wrote no more than the revision of spec.safeMode."""

    bot: str
    revision: int
    wishes: NotRequired[list[KeptWish]]


class Desk:
    """State of one bot process. Whoever changes it calls `wake`, so that the change is told at once."""

    def __init__(self, config: BotConfig, *, operated: bool, clocks: Clocks | None = None) -> None:
        self.identity = config.bot
        self.boot_id = uuid.uuid4().hex
        self.version = version("tradingbot")
        self.clocks = clocks or Clocks()
        self.monotonic = self.clocks.monotonic
        self.wake: Callable[[], None] = lambda: None
        """Tells the status at once."""
        self.tell: Callable[[str, dict[str, Any]], None] = lambda _kind, _figures: None
        """Tells people what happened."""
        self.log = structlog.get_logger("bot").bind(bot=f"{config.bot.namespace}/{config.bot.name}")

        self.applied = Applied.fresh(config)
        self.usable = False
        """Whether a strategy can be made of the settings in force."""
        self.revision = 0
        """The revision that is applied; 0 before any is."""
        self.config_problem: Problem | None = Problem(Reason.CONFIG_PENDING, "the bot is starting")
        self.wishes: list[SafeModeWish] = []
        """Safe mode that configurations asked for, be they refused: only one of a greater revision ends it."""
        self.pod_wish = False
        """The pod's annotation asks for safe mode."""

        self.safe_mode = SafeMode()
        self.panel = BreakerPanel(self.monotonic, self.clocks.utc)
        self.budget = WeightBudget(self.monotonic)
        self.connections = ConnectionBudget(lambda: self.budget.address_bots, self.monotonic)
        self.orders = OrderBudget(self.monotonic)
        self.grants = GrantKeeper(operated, self.monotonic)
        self.reservations = ReservationKeeper(lambda: self.applied.committed.fleet_limited, self.monotonic)
        self.unprotected = UnprotectedTime(self.monotonic())
        self.risk = RiskManager(config.settings, DrawdownTracker(), VolatilityTracker())

        self.session: Session | None = None
        self.exchange_ms: Callable[[], int] | None = None
        """The exchange's clock as the last session measured it; None before the first."""
        self.former_counts = CallCounts()
        """Calls of the sessions before this one."""
        self.store: Store | None = None
        self.store_problem: str | None = None
        self.connection_problem: Problem | None = None
        self.account_uid: str | None = None
        self.drain = DrainStatus()
        self.books_confirmed = False
        """A human confirmed books that were made from the exchange's trades."""
        self.begin_anew = False
        """A human said that the books of before a reset of the exchange are past."""
        self.reconnect = asyncio.Event()
        self.look_now = asyncio.Event()
        """Set when safe mode may have changed and entries may have to be cancelled."""
        self._calm_after: int | None = None
        self._saved: dict[str, Any] = {}
        self._told_unreadable: set[tuple[str, str]] = set()

    @property
    def settings(self) -> BotSettings:
        """The settings in force."""
        return self.applied.in_force

    @property
    def exchange_time(self) -> datetime:
        """What days and pauses count by; the machine's clock, which people set, only before the exchange's is known."""
        return self.clocks.utc() if self.exchange_ms is None else from_ms(self.exchange_ms())

    @property
    def _live(self) -> bool:
        return self.settings.exchange.environment is Environment.LIVE

    def put_in_force(self, applied: Applied) -> None:
        """Work with these settings from now on."""
        former, self.applied = self.applied, applied
        settings = applied.in_force
        self.risk.configure(settings)
        self.panel.configure(
            settings.circuit_breaker.failure_threshold, float(settings.circuit_breaker.recovery_timeout_seconds)
        )
        if self.session is not None:
            self.session.strategy_changed()
            if former.in_force.exchange != settings.exchange:
                self.reconnect.set()

    def refresh(self) -> bool:
        """Bring the causes of safe mode up to date; True when any began, ended or changed its level."""
        now, safe, session = self.clocks.utc(), self.safe_mode, self.session
        before = [(cause.id, cause.level) for cause in safe.causes]
        pauses = {pause.code: pause for pause in self.risk.should_pause_trading(self.exchange_time, self.monotonic())}
        wishes = [SafeModeWish.of(self.applied.committed), *self.wishes]
        closes = any(wish.closes for wish in wishes)
        level = Level.REDUCE_ONLY if closes else Level.NO_NEW_ENTRIES
        safe.set(any(wish.spec for wish in wishes), SPEC, since=now, level=level)
        safe.impose([cause for wish in wishes for cause in wish.imposed], since=now)
        if self.pod_wish or safe.has(ANNOTATION.id):
            safe.activate(ANNOTATION, since=now, clears=ANNOTATION_STANDS if self.pod_wish else "")
        # What an unknown process start left on the exchange may be the position of whoever holds the claim.
        held_back = session is not None and session.manager.held_back
        level = Level.HALTED if held_back else Level.NO_NEW_ENTRIES
        safe.set(not self.grants.allows, AWAITING_GRANT, since=now, level=level)
        safe.set(self.panel.is_open(), BREAKER, since=now)
        past = self.risk.overshoot
        if Refusal.DAILY_LOSS in pauses:
            clears = f"the day's loss went {canonical(past.daily_loss)} past its limit: {DAILY_LOSS.clears}"
            safe.activate(DAILY_LOSS, since=now, clears=clears if past.daily_loss > 0 else "")
        else:
            safe.deactivate(DAILY_LOSS.id)
        if Refusal.DRAWDOWN in pauses:
            clears = f"the drawdown went {canonical(past.drawdown)} past its limit: {DRAWDOWN.clears}"
            safe.activate(DRAWDOWN, since=now, clears=clears if past.drawdown > 0 else "")
        failed = self.store_problem or (self.store.failed if self.store else None)
        if failed is not None:
            safe.activate(STORE, since=now, clears=f"{failed}: {STORE.clears}")
        else:
            safe.deactivate(STORE.id)
        if self.store is not None and self.store.unreadable - self._told_unreadable:
            self._told_unreadable |= self.store.unreadable
            counts = Counter(table for table, _ in self._told_unreadable)
            figures = ", ".join(f"{count} of {table}" for table, count in sorted(counts.items()))
            clears = f"rows of the store could not be read and were set aside ({figures}): {STORE_LOST.clears}"
            safe.activate(STORE_LOST, since=now, clears=clears)
        safe.set(self.drain.phase is not DrainPhase.NONE, DRAINING, since=now)
        self._refresh_books(session, now)
        if before == [(cause.id, cause.level) for cause in safe.causes]:
            return False
        # Without an operator the log is where people see it.
        limits = {code.value: pause.detail for code, pause in pauses.items()}
        limits |= {cause.reason.value: cause.message for cause in safe.causes if cause.message}
        reasons = {cause.id: cause.reason.value for cause in safe.causes}
        self.log.info("safe mode", level=safe.level.word, causes=reasons, limits=limits)
        told = ", ".join(f"{word} ({limits[word]})" if word in limits else word for word in reasons.values())
        self.tell("SafeMode", {"message": f"{safe.level.word}: {told}" if told else "ended"})
        return True

    def _refresh_books(self, session: Session | None, now: datetime) -> None:
        safe = self.safe_mode
        level = Level.REDUCE_ONLY if session and session.differs and _uncovered(session) else Level.NO_NEW_ENTRIES
        safe.set(bool(session and session.drifts), UNTRUSTED_BOOKS, since=now, level=level)
        safe.set(bool(session and session.manager.unknown), UNKNOWN_ORDER, since=now)
        if (
            session
            and session.books_rebuilt
            and not self.books_confirmed
            and self._live
            and not (self.store is not None and self.store.volatile)  # the cause `store` tells of that
            and not safe.has(STORE_LOST.id)
        ):
            safe.activate(STORE_LOST, since=now)
        reset = session.manager.exchange_reset if session and not self.begin_anew else None
        if reset is not None:
            ends = DELETE_LIVE if self._live else EXCHANGE_RESET.clears
            clears = f"{reset} (the Testnet is wiped about monthly): {ends}"
            safe.activate(EXCHANGE_RESET, since=now, clears=clears)
        lost = session.manager.two_traders if session else None
        if lost is not None:
            clears = f"another process trades this account and symbol ({lost}): {TWO_TRADERS.clears}"
            safe.activate(TWO_TRADERS, since=now, clears=clears)

    def tighten(self, wish: SafeModeWish) -> None:
        """Engage safe mode as a configuration asks for it, whatever becomes of the rest of it."""
        revision = max(wish.revision, self.applied.committed.revision)
        self.wishes = _with(self.wishes, dataclasses.replace(wish, revision=revision))
        if self.refresh():
            self.wake()
        self.look_now.set()

    def relax(self, revision: int) -> None:
        """A configuration of that revision is taken: what was asked for at a smaller one is past."""
        self.wishes = [wish for wish in self.wishes if wish.revision >= revision]

    def flatten(self) -> None:
        """A person closes the position: it is sold, and none is opened before a human clears the cause."""
        self.safe_mode.activate(FLATTENED, since=self.clocks.utc())
        self.look_now.set()
        self.wake()

    def remaining(self) -> list[str]:
        """What stays on the exchange after a drain, as far as it is known now."""
        if self.session is None or self.safe_mode.level is Level.HALTED:
            return self.drain.remaining
        return self.session.manager.remaining()

    @property
    def drain_now(self) -> DrainStatus:
        """How far the drain is; a position that ends later is not told any more."""
        if self.drain.phase is not DrainPhase.DRAINED:
            return self.drain
        remaining = self.remaining()
        return self.drain.model_copy(
            update={"remaining": remaining, "message": self.drain.message if remaining else ""}
        )

    def facts(self) -> Facts:
        """What conditions are made of."""
        session = self.session
        return Facts(
            config_problem=self.config_problem,
            loosened=self.applied.loosened,
            connection_problem=self.connection_problem or (session.admission.key_problem if session else None),
            connected=session is not None,
            verdict=session.verdict if session else None,
            verdict_age=session.verdict_age if session else None,
            correction=session.suggest_correction() if session else Correction.NONE,
            capital_problem=session.capital_problem() if session else None,
            breaker=self.panel.snapshot(),
            protection=session.manager.protection if session else None,
            orders_age=session.orders_age if session else None,
            causes=self.safe_mode.causes,
            trading_problem=session.trading_problem() if session else None,
            stream_problem=session.stream_problem() if session else None,
        )

    def clear(self, causes: list[str]) -> None:
        """End latched causes that a human cleared."""
        for cause in causes:
            if cause == ANNOTATION.id and self.pod_wish:
                self.log.warning("not cleared: the pod still has the annotation", cause=cause)
            elif cause == UNTRUSTED_BOOKS.id:
                if self.session is None or not self.session.adopt():
                    self.log.warning("not cleared: books and account were not found to differ", cause=cause)
            elif cause == EXCHANGE_RESET.id and self._live:
                self.log.warning("not cleared: Live is never reset", cause=cause)
            elif self.safe_mode.clear(cause):
                self.log.info("cause cleared by a human", cause=cause)
                if cause == DRAWDOWN.id:
                    self.risk.clear_drawdown()
                elif cause == STORE_LOST.id:
                    self.books_confirmed = True
                elif cause == EXCHANGE_RESET.id and self.session and self.session.manager.exchange_reset is not None:
                    self.begin_anew = True
                    self.reconnect.set()

    # --- the store ---

    async def take_over(self, store: Store, start: StartConfig) -> None:
        """Continue where the former process stopped. StoreError."""
        breaker, latches = await store.get(BREAKER_FACT), await store.get(LATCHES_FACT)
        marks, risk = await store.get(EQUITY_FACT), await store.get(RISK_FACT)
        self.books_confirmed = bool(await store.get(CONFIRMED_FACT, bool))
        tightened = await store.get(TIGHTENED_FACT, Tightened)
        self.store = store
        with suppress(GrantRefusedError):  # a newer leader called before the store was open
            self.grants.meet(start.applied.committed.epoch)
        self._take_over_safe_mode(start.applied.committed, tightened)
        self.usable, self.revision, self.config_problem = start.usable, start.revision, start.problem
        self.put_in_force(start.applied)
        await _restore(store, BREAKER_FACT, self.panel.restore, breaker or {})
        await _restore(store, LATCHES_FACT, self.safe_mode.restore_latches, latches or [])
        await _restore(store, EQUITY_FACT, self.risk.drawdown.restore, marks)
        await _restore(store, RISK_FACT, self.risk.restore, risk or {})
        self.budget.address_bots = max(1, await store.get(ADDRESS_FACT, int) or 1)
        self._calm_after = await store.get(CALM_FACT, int)
        self._saved = {
            BREAKER_FACT: breaker,
            LATCHES_FACT: latches,
            EQUITY_FACT: marks,
            RISK_FACT: risk,
            TIGHTENED_FACT: tightened,
            ADDRESS_FACT: self.budget.address_bots,
        }
        former = Applied.from_json(await store.get(CONFIG_FACT))
        if start.usable:
            with suppress(StoreError):  # entries stop, the position is looked after
                await self.commit(start.applied, newer=former is None or start.revision > former.committed.revision)

    def _take_over_safe_mode(self, committed: BotConfig, stored: Tightened | None) -> None:
        """The newer word counts, as the mounted file lags by up to the kubelet's refresh; edited by hand it is new."""
        file, taken = SafeModeWish.of(self.applied.committed), committed.revision
        # Those that were asked for since this process started.
        wishes = [dataclasses.replace(wish, revision=max(wish.revision, taken)) for wish in self.wishes]
        # Revisions of a former TradingBot, whose volume this one took over, are counted otherwise.
        if stored is not None and stored["bot"] == self.identity.uid:
            wishes += [wish for wish in _kept(stored) if wish.revision >= taken]
        edited = file.revision == taken and file != SafeModeWish.of(committed)
        if file and (file.revision > taken or edited):
            wishes.append(file)
        self.wishes = []
        for wish in wishes:
            self.wishes = _with(self.wishes, wish)

    async def commit(self, applied: Applied, *, newer: bool) -> None:
        """Commit a configuration; a newer one together with the causes that a human cleared with it. StoreError."""
        if newer:
            self.clear(applied.committed.cleared_causes)
        if self.store is not None:
            facts = self._facts()
            await self.store.put_all({CONFIG_FACT: applied.to_json(), **facts})
            self._saved.update(facts)

    async def save(self) -> None:
        """Commit what changed of the small facts."""
        changed = {name: value for name, value in self._facts().items() if self._saved.get(name) != value}
        if self.store is not None and changed:
            with suppress(StoreError):  # store.failed becomes a cause of safe mode
                await self.store.put_all(changed)
                self._saved.update(changed)

    @property
    def latches_kept(self) -> bool:
        """Whether the next process would find every latched cause: safe mode is not acknowledged before. Where the
        store fails nothing can be kept, and no process opens a position without its store."""
        if self.store is None or self.store.failed:
            return True
        saved = {(latch["id"], latch["level"]) for latch in self._saved.get(LATCHES_FACT) or ()}
        return {(latch["id"], latch["level"]) for latch in self.safe_mode.latches_to_json()} <= saved

    async def hand_over(self, store: Store) -> None:
        """Give a store that is to be taken over what is known now. StoreError."""
        await store.put_all(self._facts())

    def _facts(self) -> dict[str, Any]:
        marks = self.risk.drawdown.marks
        return {
            BREAKER_FACT: self.panel.to_json(),
            LATCHES_FACT: self.safe_mode.latches_to_json(),
            EQUITY_FACT: marks.to_json() if marks else None,
            RISK_FACT: self.risk.to_json(),
            CONFIRMED_FACT: self.books_confirmed,
            TIGHTENED_FACT: self._tightened_fact(),
            ADDRESS_FACT: self.budget.address_bots,
            CALM_FACT: self._calm_fact(),
        }

    def _calm_fact(self) -> int | None:
        """Between sessions, and as the process ends, what the last one knew."""
        if self.session is not None:
            self._calm_after = None if self.session.at_risk else self.session.manager.highest_order_id
        return self._calm_after

    def _tightened_fact(self) -> Tightened | None:
        if not self.wishes:
            return None
        wishes: list[KeptWish] = [
            {
                "revision": wish.revision,
                "spec": wish.spec,
                "closes": wish.closes,
                "imposed": [cause.model_dump(mode="json") for cause in wish.imposed],
            }
            for wish in self.wishes
        ]
        return {"bot": self.identity.uid, "revision": max(wish.revision for wish in self.wishes), "wishes": wishes}


def _with(wishes: list[SafeModeWish], wish: SafeModeWish) -> list[SafeModeWish]:
    """The wishes and another one; the same is kept once, at its greatest revision."""
    same = [other for other in wishes if dataclasses.replace(other, revision=wish.revision) == wish]
    revision = max(other.revision for other in (*same, wish))
    return [*(other for other in wishes if other not in same), dataclasses.replace(wish, revision=revision)]


def _kept(stored: Tightened) -> list[SafeModeWish]:
    if "wishes" not in stored:
        return [SafeModeWish(stored["revision"], spec=True)]
    return [
        SafeModeWish(
            wish["revision"], wish["spec"], wish["closes"], tuple(map(ImposedCause.model_validate, wish["imposed"]))
        )
        for wish in stored["wishes"]
    ]


async def _restore(store: Store, name: str, restore: Callable[[Any], None], fact: Any) -> None:
    """A fact that is not what it should be is set aside: it must not end each start."""
    try:
        restore(fact)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        await store.set_aside_fact(name, error)


def _uncovered(session: Session) -> bool:
    return session.verdict is not None and session.verdict.uncovered
