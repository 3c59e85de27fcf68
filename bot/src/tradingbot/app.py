"""Composition root and life cycle of a bot: tell the status first, then connect, reconcile, trade, drain and stop."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any, Final

import structlog

from tradingbot.applied import Applied, ConfigRefusedError, advance, choose_at_start
from tradingbot.config import ConfigError, load_pod_config
from tradingbot.gateway.credentials import Credentials, CredentialsMissingError, load_credentials
from tradingbot.gateway.errors import AuthRejectedError, ExchangeError, UnknownSymbolError
from tradingbot.gateway.port import CallCounts
from tradingbot.gateway.streams import StreamName
from tradingbot.monitoring.health import ConditionClock, Facts, Problem, judge, not_ready
from tradingbot.monitoring.http_api import ControlError, Server, control_app, control_tls, probe_app, serve
from tradingbot.monitoring.metrics import Extra, Metrics
from tradingbot.monitoring.report import api_status, breaker_status, state_of, trading, usage_status
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.recovery.circuit_breaker import BreakerPanel
from tradingbot.recovery.grant import GrantKeeper, GrantRefusedError
from tradingbot.recovery.retry import full_jitter
from tradingbot.recovery.safe_mode import Level, SafeMode, Source
from tradingbot.risk.drawdown import DrawdownTracker, EquityMarks
from tradingbot.risk.risk_manager import Refusal, RiskManager
from tradingbot.risk.volatility import VolatilityTracker
from tradingbot.session import AccountChangedError, Parts, Session
from tradingbot.state.store import Store, StoreError
from tradingbot_api.bot_http import (
    BotConfig,
    BotInfo,
    BotStatus,
    ConfigReply,
    DrainPhase,
    DrainRequest,
    DrainStatus,
    Grant,
    GrantReply,
    GrantStatus,
    RaiseIncarnation,
)
from tradingbot_api.conditions import Reason
from tradingbot_api.v1alpha1 import BotSettings, Environment, PositionPolicy

STORE_FILE: Final = "bot.db"
REFRESH_SECONDS: Final = 0.5
POLL_SECONDS: Final = 1.0
LONGEST_BACKOFF: Final = 5.0
STOP_SECONDS: Final = 4.0
TURN_LIMIT_SECONDS: Final = 30.0
"""A loop that did not turn for this long is not alive."""

CONFIG_FACT: Final = "config"
BREAKER_FACT: Final = "breaker"
LATCHES_FACT: Final = "safe-mode"
EQUITY_FACT: Final = "equity"
RISK_FACT: Final = "risk"


@dataclass(frozen=True, slots=True)
class Options:
    """How a process is started."""

    config: BotConfig
    credentials_dir: Path
    state_dir: Path
    config_file: Path | None = None
    """Watched for a tightening, where an operator keeps it."""
    tls_dir: Path | None = None
    """With it the bot is controlled by an operator and enters only with its grant."""
    host: str = "127.0.0.1"
    probe_port: int = 0
    control_port: int = 0

    @property
    def operated(self) -> bool:
        """Whether an operator controls this process."""
        return self.tls_dir is not None


class BotApp:
    """One bot. `run` lasts until `stop`; the rest is the protocol with operator and probes."""

    def __init__(self, options: Options, tell: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        self._options = options
        self._identity = options.config.bot
        self.boot_id = uuid.uuid4().hex
        self._version = version("tradingbot")
        self._monotonic = time.monotonic
        self._random = Random()  # noqa: S311 - spreads retries, guards nothing
        self._tell = tell or (lambda _kind, _figures: None)
        self._log = structlog.get_logger("bot").bind(bot=f"{self._identity.namespace}/{self._identity.name}")
        self._stop = asyncio.Event()

        settings = options.config.settings
        self._applied = Applied.fresh(options.config)
        self._usable = False
        self._revision = 0
        self._config_problem: Problem | None = Problem(Reason.CONFIG_PENDING, "the bot is starting")
        self._spec_safe_mode = bool(settings.safe_mode)

        self.safe_mode = SafeMode()
        self.panel = BreakerPanel(self._monotonic, _utc_now)
        self.grants = GrantKeeper(options.operated, self._monotonic)
        self.risk = RiskManager(settings, DrawdownTracker(), VolatilityTracker())
        self.metrics = Metrics(settings.symbol, self._scraped)
        self.feed = StatusFeed(self._status, state_of, self._monotonic)
        self.session: Session | None = None
        self._store: Store | None = None
        self._store_problem: str | None = None
        self._connection_problem: Problem | None = None
        self._account_uid: str | None = None
        self._drain = DrainStatus()
        self._drain_task: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._condition_clock = ConditionClock()
        self._former_counts = CallCounts()
        self._saved: dict[str, Any] = {}
        self._turned_at = self._monotonic()
        self._lag = 0.0
        self._reconnect = asyncio.Event()
        self._config_lock = asyncio.Lock()
        self._safe_wake = asyncio.Event()

    @property
    def settings(self) -> BotSettings:
        """The settings in force."""
        return self._applied.in_force

    def stop(self) -> None:
        """End `run` in order."""
        self._stop.set()

    # --- life cycle ---

    async def run(self, listening: Callable[[int, int | None], None] | None = None) -> None:
        """Serve, trade and stop; `listening` is told the probe and the control port. OSError where one is taken."""
        self._refresh()
        servers = await self._serve()
        try:
            if listening is not None:
                listening(servers[0].port, servers[1].port if len(servers) > 1 else None)
            background = [asyncio.create_task(task) for task in (self.feed.run(), self._watch(), self._live())]
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait([stopping, *background], return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down(background)
            stopping.cancel()
            for task in background:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            for server in servers:
                with suppress(asyncio.TimeoutError):
                    async with asyncio.timeout(1):
                        await server.close()
            if self._store is not None:
                await self._save()
                await self._store.close()
        self._log.info("stopped")

    async def _serve(self) -> list[Server]:
        options = self._options
        servers = [await serve(probe_app(self), options.host, options.probe_port)]
        if options.tls_dir is not None:
            tls = control_tls(options.tls_dir)
            servers.append(await serve(control_app(self), options.host, options.control_port, tls))
        return servers

    async def _wind_down(self, background: list[asyncio.Task[None]]) -> None:
        """No new entry, entries cancelled, protection stays."""
        session = self.session
        if session is not None:
            session.stopping = True
            with suppress(ExchangeError, TimeoutError, StoreError):
                async with asyncio.timeout(STOP_SECONDS):
                    await session.manager.cancel_entries()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for extra in (self._drain_task, self._cancelling):
            if extra is not None:
                extra.cancel()

    async def _live(self) -> None:
        """Open the store, then connect again and again."""
        store = await self._open_store()
        if store is None:
            await self._stop.wait()
            return
        attempt = 0
        while True:
            self._reconnect.clear()
            wait = POLL_SECONDS
            try:
                credentials = load_credentials(self._options.credentials_dir)
                await self._trade(store, credentials)
            except CredentialsMissingError as error:
                self._report_problem(Reason.CREDENTIALS_MISSING, f"{error}; create or mend the Secret")
            except AuthRejectedError as error:
                self._report_problem(Reason.CREDENTIALS_REJECTED, f"{error}; check the keys in the Secret")
                attempt += 1
            except UnknownSymbolError as error:
                self._config_problem = Problem(Reason.UNKNOWN_SYMBOL, f"spec.symbol: {self.settings.symbol}: {error}")
                self._connection_problem = None
                attempt += 1
            except AccountChangedError as error:
                self._report_problem(Reason.ACCOUNT_CHANGED, str(error))
            except ExchangeError as error:
                self._report_problem(Reason.EXCHANGE_UNREACHABLE, f"{error}; it is tried again")
                attempt += 1
            except StoreError as error:
                self._store_problem = str(error)
                self._report_problem(Reason.STORE_FAILED, str(error))
                attempt += 1
            except Exception:
                # A bot must outlive a defect of its own: the position's protection is repaired by the next session.
                self._log.exception("the session failed")
                self._report_problem(Reason.NOT_RECONCILED, "the bot failed and starts again; see its log")
                attempt += 1
            else:
                attempt = 0
            self.feed.wake()
            if attempt:
                wait = max(0.2, full_jitter(attempt, 1.0, LONGEST_BACKOFF, self._random))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._reconnect.wait()

    def _report_problem(self, reason: Reason, message: str) -> None:
        if self._connection_problem is None or self._connection_problem.reason is not reason:
            self._log.warning("not connected", reason=reason.value, message=message)
            self._tell(reason.value, {"message": message})
        self._connection_problem = Problem(reason, message)

    async def _trade(self, store: Store, credentials: Credentials) -> None:
        """One session, from connecting to its end."""
        self.panel.bypass = True
        try:
            session = await Session.connect(self._parts(store), credentials)
        finally:
            self.panel.bypass = False
        self._account_uid = session.account_uid
        self._connection_problem = None
        if self._config_problem is not None and self._config_problem.reason is Reason.UNKNOWN_SYMBOL:
            self._config_problem = None
        self.session = session
        self._log.info("connected", account=session.account_uid, incarnation=session.manager.incarnation)
        self._tell("Connected", {"message": f"account {session.account_uid}"})
        self._refresh()
        self.feed.wake()
        run = asyncio.create_task(session.run())
        again = asyncio.create_task(self._until_reconnect(credentials))
        try:
            await asyncio.wait([run, again], return_when=asyncio.FIRST_COMPLETED)
            if run.done():
                _raise_first(run)
        finally:
            session.stopping = True
            for task in (run, again):
                task.cancel()
            await asyncio.gather(run, again, return_exceptions=True)
            self.session = None
            self._former_counts = _add(self._former_counts, session.exchange.counts)
            await session.close()

    async def _until_reconnect(self, credentials: Credentials) -> None:
        """Return when the keys on disk are others, or when the exchange's address changed."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._reconnect.wait()
                    return
            # Missing files mean that the kubelet is swapping them, or a human made a mistake: the keys still work.
            with suppress(CredentialsMissingError):
                if load_credentials(self._options.credentials_dir) != credentials:
                    self._log.info("the keys changed")
                    return

    def _parts(self, store: Store) -> Parts:
        return Parts(
            store=store,
            safe_mode=self.safe_mode,
            panel=self.panel,
            risk=self.risk,
            metrics=self.metrics,
            settings=lambda: self.settings,
            strategy_usable=lambda: self._usable,
            forbidden=self._forbidden,
            changed=self.feed.wake,
            tell=self._tell,
            monotonic=self._monotonic,
            wall=_utc_now,
            random=self._random,
        )

    def _forbidden(self) -> str | None:
        """Asked right before an entry is sent: safe mode, as it is at this moment."""
        self._refresh()
        causes = self.safe_mode.causes
        return causes[0].reason.value if causes else None

    # --- the store ---

    async def _open_store(self) -> Store | None:
        """Open the store and take over what the former process left; None where it cannot be trusted."""
        try:
            store = await asyncio.to_thread(Store.open, self._options.state_dir / STORE_FILE)
            stored = Applied.from_json(await store.get(CONFIG_FACT)) if self._options.operated else None
            breaker, latches = await store.get(BREAKER_FACT), await store.get(LATCHES_FACT)
            marks, risk = await store.get(EQUITY_FACT), await store.get(RISK_FACT)
        except StoreError as error:
            self._store_problem = str(error)
            self._log.error("the store cannot be used", error=str(error))
            self._report_problem(Reason.STORE_FAILED, f"{error}; restore the volume or delete the TradingBot")
            return None
        self._store = store
        start = choose_at_start(self._options.config, stored)
        self._usable, self._revision, self._config_problem = start.usable, start.revision, start.problem
        if start.problem is not None:
            self._log.warning("the configuration is not in force", message=start.problem.message)
        self._put_in_force(start.applied)
        self.panel.restore(breaker or {})
        self.safe_mode.restore_latches(latches or [])
        self.risk.drawdown.marks = EquityMarks.from_json(marks) if marks else None
        self.risk.restore(risk or {})
        self._saved = {BREAKER_FACT: breaker, LATCHES_FACT: latches, EQUITY_FACT: marks, RISK_FACT: risk}
        if start.usable:
            await store.put(CONFIG_FACT, start.applied.to_json())
        self.feed.wake()
        return store

    async def _save(self) -> None:
        """Commit what changed of the small facts."""
        store, marks = self._store, self.risk.drawdown.marks
        if store is None:
            return
        facts: dict[str, Any] = {
            BREAKER_FACT: self.panel.to_json(),
            LATCHES_FACT: self.safe_mode.latches_to_json(),
            EQUITY_FACT: marks.to_json() if marks else None,
            RISK_FACT: self.risk.to_json(),
        }
        for name, value in facts.items():
            if self._saved.get(name) != value:
                with suppress(StoreError):  # store.failed becomes a cause of safe mode
                    await store.put(name, value)
                    self._saved[name] = value

    # --- what follows from time ---

    async def _watch(self) -> None:
        """Each half second: causes of safe mode, equity, facts on disk, the configuration file."""
        file_seen: object = None
        while True:
            before = self._monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self._safe_wake.wait()
            self._safe_wake.clear()
            self._lag = max(0.0, self._monotonic() - before - REFRESH_SECONDS)
            self._turned_at = self._monotonic()
            if self.session is not None and (equity := self.session.equity) is not None:
                self.risk.update_equity(equity, _utc_now())
            if self._refresh():
                self.feed.wake()
            if self._cancelling is None or self._cancelling.done():
                # A task of its own: an entry in flight is waited for, and nothing else may wait with it.
                self._cancelling = asyncio.create_task(self._cancel_entries())
            await self._save()
            file_seen = await self._look_at_file(file_seen)

    def _refresh(self) -> bool:
        """Bring the causes of safe mode up to date; True when any began or ended."""
        now, safe, session = _utc_now(), self.safe_mode, self.session
        before = [cause.id for cause in safe.causes]
        pauses = {pause.code for pause in self.risk.should_pause_trading(now, self._monotonic())}
        safe.set(
            self._spec_safe_mode or bool(self.settings.safe_mode),
            "spec",
            Reason.SPEC,
            since=now,
            source=Source.SPEC,
            clears="set spec.safeMode to false or remove it",
        )
        safe.set(
            not self.grants.allows,
            "awaiting-grant",
            Reason.AWAITING_GRANT,
            since=now,
            source=Source.OPERATOR,
            clears="ends with a grant of the operator",
        )
        safe.set(
            self.panel.is_open(),
            "breaker",
            Reason.BREAKER_OPEN,
            since=now,
            clears="ends when a probe of the exchange succeeds",
        )
        safe.set(Refusal.DAILY_LOSS in pauses, "daily-loss", Reason.DAILY_LOSS, since=now, clears="ends at 00:00 UTC")
        if Refusal.DRAWDOWN in pauses:
            safe.activate(
                "drawdown",
                Reason.DRAWDOWN,
                since=now,
                clears="cleared with kubectl annotate tradingbot NAME tradingbot.dev/clear=drawdown",
                latched=True,
            )
        failed = self._store_problem or (self._store.failed if self._store else None)
        safe.set(
            failed is not None,
            "store",
            Reason.STORE_FAILED,
            since=now,
            level=Level.HALTED if self._store is None else Level.NO_NEW_ENTRIES,
            clears="ends with a restart on a store that can be written",
        )
        safe.set(
            self._drain.phase is not DrainPhase.NONE, "draining", Reason.DRAINING, since=now, clears="the bot ends"
        )
        self._refresh_books(session, now)
        return before != [cause.id for cause in safe.causes]

    def _refresh_books(self, session: Session | None, now: datetime) -> None:
        safe = self.safe_mode
        drifts = session.drifts if session else 0
        safe.set(
            drifts > 0,
            "untrusted-books",
            Reason.UNTRUSTED_BOOKS,
            since=now,
            # Once may be a fill on its way; twice is a difference.
            level=Level.REDUCE_ONLY if drifts > 1 and session and _uncovered(session) else Level.NO_NEW_ENTRIES,
            clears="ends when the books agree with the account again",
        )
        safe.set(
            bool(session and session.manager.unknown),
            "unknown-order",
            Reason.UNKNOWN_ORDER,
            since=now,
            clears="ends when the exchange has said what became of the order",
        )
        if session and session.books_rebuilt and self.settings.exchange.environment is Environment.LIVE:
            safe.activate(
                "store-lost",
                Reason.STORE_FAILED,
                since=now,
                clears="check the position, then kubectl annotate tradingbot NAME tradingbot.dev/clear=store-lost",
                latched=True,
            )
        lost = session.manager.two_traders if session else None
        if lost is not None:
            safe.activate(
                "two-traders",
                Reason.TWO_TRADERS,
                since=now,
                level=Level.HALTED,
                clears=f"another process trades this account and symbol ({lost}): stop it, then restart this bot",
            )

    async def _cancel_entries(self) -> None:
        session = self.session
        if session is None or self.safe_mode.should_allow_trading() or self.safe_mode.level is Level.HALTED:
            return
        if not session.manager.entries_quiet:
            with suppress(ExchangeError, StoreError):
                await session.manager.cancel_entries()
            self.feed.wake()

    async def _look_at_file(self, seen: object) -> object:
        """The mounted file may only tighten: safe mode works while the operator cannot reach this process."""
        path = self._options.config_file
        if path is None:
            return None
        with suppress(OSError):
            stat = path.stat()
            mark = (stat.st_mtime_ns, stat.st_ino)
            if mark != seen and seen is not None:
                with suppress(ConfigError):
                    config = load_pod_config(path)
                    newer = config.revision > self._applied.committed.revision
                    if config.bot.uid == self._identity.uid and newer and config.settings.safe_mode:
                        self._spec_safe_mode = True
                        self._safe_wake.set()
            return mark
        return seen

    def _put_in_force(self, applied: Applied) -> None:
        former, self._applied = self._applied, applied
        settings = applied.in_force
        self.risk.config = settings
        self.panel.configure(
            settings.circuit_breaker.failure_threshold, float(settings.circuit_breaker.recovery_timeout_seconds)
        )
        if self.session is not None:
            self.session.strategy_changed()
            if former.in_force.exchange != settings.exchange:
                self._reconnect.set()

    # --- what the operator asks (monitoring.http_api.Controls) ---

    def info(self) -> BotInfo:
        """Versions."""
        return BotInfo(version=self._version, bot_uid=self._identity.uid, boot_id=self.boot_id)

    def status_lines(self) -> AsyncIterator[bytes]:
        """The status stream."""
        return self.feed.lines()

    async def put_config(self, config: BotConfig) -> ConfigReply:
        """Commit a configuration, put in force what may be, and answer; safe mode is engaged before anything else."""
        if config.bot.uid != self._identity.uid:
            raise ControlError(409, "IdentityMismatch", f"bot.uid: expected {self._identity.uid}, got {config.bot.uid}")
        async with self._config_lock:
            store = self._store
            if store is None:
                raise ControlError(503, "StoreFailed", self._store_problem or "the store is not open yet")
            newest = config.revision >= self._applied.committed.revision
            if newest and config.settings.safe_mode:
                self._spec_safe_mode = True
                self._refresh()
            # Before any configuration was applied there is no limit that could be loosened.
            may_loosen = self.safe_mode.has("spec") or self._revision == 0
            try:
                applied = advance(self._applied, config, in_safe_mode=may_loosen)
            except ConfigRefusedError as error:
                if error.stale:
                    raise ControlError(409, "StaleRevision", str(error)) from error
                self._config_problem = Problem(error.reason, str(error))
                self.feed.wake()
                raise ControlError(422, error.reason.value, str(error), error.fields) from error
            try:
                await store.put(CONFIG_FACT, applied.to_json())
            except StoreError as error:
                raise ControlError(503, error.code, str(error)) from error
            first = config.revision > self._revision
            self._usable, self._revision, self._config_problem = True, config.revision, None
            self._spec_safe_mode = bool(config.settings.safe_mode)
            self._put_in_force(applied)
            if first:
                self._clear(config.cleared_causes)
        self._refresh()
        self._safe_wake.set()
        self.feed.wake()
        self._log.info("configuration", revision=config.revision, waiting=list(applied.loosened))
        return ConfigReply(revision=config.revision, in_force=not applied.loosened)

    def _clear(self, causes: list[str]) -> None:
        for cause in causes:
            if self.safe_mode.deactivate(cause):
                self._log.info("cause cleared by a human", cause=cause)
                if cause == "drawdown":
                    self.risk.drawdown.reset_peak()
                elif cause == "store-lost" and self.session is not None:
                    self.session.books_rebuilt = False

    async def put_grant(self, grant: Grant) -> GrantReply:
        """Take the right to add exposure."""
        session = self.session
        try:
            seconds = self.grants.take(
                grant,
                bot_uid=self._identity.uid,
                boot_id=self.boot_id,
                incarnation=session.manager.incarnation if session else None,
                revision=self._revision,
                sent_at=self.feed.sent_at(grant.status_sequence),
            )
        except GrantRefusedError as error:
            raise ControlError(409, error.code, str(error)) from error
        if self._refresh():
            self.feed.wake()
        return GrantReply(expires_in_seconds=seconds)

    async def raise_incarnation(self, request: RaiseIncarnation) -> None:
        """Take a greater incarnation before the first order."""
        self._check_process(request.bot_uid, request.boot_id)
        session = self.session
        if session is None:
            raise ControlError(409, "NotReady", "the bot is not connected to the exchange yet")
        if not await session.manager.raise_incarnation(request.minimum):
            raise ControlError(409, "AlreadyTraded", "this process has sent an order: restart it")
        self.feed.wake()

    async def drain(self, request: DrainRequest) -> DrainStatus:
        """Begin to drain, or tell how far it is."""
        self._check_process(request.bot_uid, request.boot_id)
        if self._drain.phase is DrainPhase.NONE or self._drain.position_policy is not request.position_policy:
            if self._drain_task is not None:
                self._drain_task.cancel()
            self._drain = DrainStatus(phase=DrainPhase.DRAINING, position_policy=request.position_policy)
            self._refresh()
            self._drain_task = asyncio.create_task(
                self._run_drain(request.position_policy, self._monotonic() + request.deadline_seconds)
            )
            self.feed.wake()
        return self._drain

    async def _run_drain(self, policy: PositionPolicy, deadline: float) -> None:
        """Until nothing but what the policy leaves is on the exchange, or the deadline."""
        message, remaining = "", ["unknown: the bot is not connected to the exchange"]
        while True:
            session = self.session
            if session is not None:
                try:
                    remaining = await session.manager.drain(policy)
                    done = session.manager.entries_quiet and (policy is PositionPolicy.HOLD or not session.holding)
                    if done:
                        break
                    message = "entries or position are still on the exchange"
                except (ExchangeError, StoreError) as error:
                    message = str(error)
            elif await self._never_traded():
                remaining = []
                break
            else:
                message = self._connection_problem.message if self._connection_problem else "not connected yet"
            if self._monotonic() >= deadline:
                break
            self._drain = self._drain.model_copy(update={"message": message, "remaining": remaining})
            self.feed.wake()
            await asyncio.sleep(1)
        self._drain = self._drain.model_copy(
            update={"phase": DrainPhase.DRAINED, "message": message if remaining else "", "remaining": remaining}
        )
        self._log.info("drained", policy=policy.value, remaining=remaining)
        self.feed.wake()

    async def _never_traded(self) -> bool:
        with suppress(StoreError):
            return self._store is not None and not await self._store.intent_ids()
        return False

    def _check_process(self, bot_uid: str, boot_id: str) -> None:
        if (bot_uid, boot_id) != (self._identity.uid, self.boot_id):
            raise ControlError(
                409,
                "IdentityMismatch",
                f"expected bot {self._identity.uid} boot {self.boot_id}, got {bot_uid} {boot_id}",
            )

    # --- what is told ---

    def unhealthy(self) -> str | None:
        """Why the process should be restarted."""
        age = self._monotonic() - self._turned_at
        return f"the loop has not turned for {age:.0f} s" if age > TURN_LIMIT_SECONDS else None

    def not_ready(self) -> str | None:
        """Why the bot is not reconciled with the exchange."""
        return not_ready(self._facts())

    def metrics_text(self) -> bytes:
        """Prometheus text."""
        return self.metrics.render()

    def _facts(self) -> Facts:
        session = self.session
        return Facts(
            config_problem=self._config_problem,
            loosened=self._applied.loosened,
            connection_problem=self._connection_problem,
            connected=session is not None,
            verdict=session.verdict if session else None,
            verdict_age=session.verdict_age if session else None,
            capital_problem=session.capital_problem() if session else None,
            breaker=self.panel.snapshot(),
            protection=session.manager.protection if session else None,
            causes=self.safe_mode.causes,
            trading_problem=session.trading_problem() if session else None,
        )

    def _status(self, sequence: int) -> BotStatus:
        self._refresh()
        session, facts, now = self.session, self._facts(), _utc_now()
        known = trading(session, self.risk) if session else None
        quiet = session is not None and session.manager.entries_quiet
        counts = _add(self._former_counts, session.exchange.counts) if session else self._former_counts
        return BotStatus(
            bot_uid=self._identity.uid,
            boot_id=self.boot_id,
            incarnation=session.manager.incarnation if session else None,
            sequence=sequence,
            applied_revision=self._revision,
            time=now,
            version=self._version,
            ready=not_ready(facts) is None,
            symbol=self.settings.symbol,
            account_uid=self._account_uid,
            grant=GrantStatus(held=self.grants.expires_in > 0, expires_in_seconds=round(self.grants.expires_in, 3)),
            drain=self._drain,
            conditions=self._condition_clock.stamp(judge(facts), now),
            circuit_breaker=breaker_status(facts.breaker),
            safe_mode=self.safe_mode.get_safe_mode_status(quiet),
            balance=known.balance if known else None,
            position=known.position if known else None,
            pnl=known.pnl if known else None,
            risk=known.risk if known else None,
            orders=known.orders if known else None,
            trades=known.trades if known else None,
            api=api_status(counts),
            usage=usage_status(),
            open_orders=known.open_orders if known else [],
            unprotected_seconds=known.unprotected_seconds if known else 0.0,
        )

    def _scraped(self) -> tuple[BotStatus, Extra]:
        session = self.session
        extra = Extra(loop_lag_seconds=self._lag)
        if session is not None:
            since = session.manager.protection.since
            extra = replace(
                extra,
                equity=self.risk.drawdown.equity,
                daily_loss=self.risk.drawdown.daily_loss,
                stream_ages={name.value: session.streams.health(name).age for name in StreamName},
                used_weight=session.exchange.counts.used_weight,
                unprotected_now_seconds=0.0 if since is None else self._monotonic() - since,
            )
        return self._status(0), extra


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _uncovered(session: Session) -> bool:
    return session.verdict is not None and session.verdict.drift < 0


def _add(left: CallCounts, right: CallCounts) -> CallCounts:
    return CallCounts(
        left.calls + right.calls, left.errors + right.errors, right.last_error or left.last_error, right.used_weight
    )


def _raise_first(task: asyncio.Task[None]) -> None:
    """Raise what ended a session: of several errors one that has an answer of its own."""
    error = task.exception()
    if isinstance(error, BaseExceptionGroup):
        known = error.subgroup((ExchangeError, StoreError))
        raise _leaf(known or error)
    if error is not None:
        raise error


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
