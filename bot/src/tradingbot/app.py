"""Composition root and life cycle of a bot: tell the status first, then connect, reconcile, trade, drain and stop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from random import Random
from secrets import randbits
from typing import Any, Final, TypeVar

from tradingbot.applied import Applied, choose_at_start
from tradingbot.clocks import Clocks
from tradingbot.config import safe_mode_wish
from tradingbot.control import Control, LocalControl
from tradingbot.desk import CALM_FACT, CONFIG_FACT, Desk
from tradingbot.gateway.credentials import Credentials, CredentialsMissingError, load_credentials
from tradingbot.gateway.errors import AuthRejectedError, ExchangeError, UnknownSymbolError
from tradingbot.gateway.rate_limits import WeightBudgetError
from tradingbot.monitoring.alerts import Alerts
from tradingbot.monitoring.flight_recorder import FlightRecorder
from tradingbot.monitoring.health import UNREADY_AFTER_SECONDS, ConditionClock, Lasting, Problem, not_ready, unwell
from tradingbot.monitoring.http_api import Server, control_app, control_tls, probe_app, serve
from tradingbot.monitoring.local_api import LocalStatus, serving
from tradingbot.monitoring.metrics import Metrics
from tradingbot.monitoring.report import add_counts, build_status, extra_figures, state_of
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.parts import Parts
from tradingbot.recovery.circuit_breaker import Pace
from tradingbot.recovery.pod_annotations import PodAnnotations
from tradingbot.recovery.retry import full_jitter
from tradingbot.recovery.safe_mode import STORE_LOST, CauseKind, Level, SafeMode, Source
from tradingbot.session import AccountChangedError, Session
from tradingbot.state.lock import StateInUseError, StateLock
from tradingbot.state.store import Store, StoreCorruptError, StoreError, StoreFailedError, set_aside_store
from tradingbot_api.bot_http import BotConfig, FieldError
from tradingbot_api.conditions import ConditionType, Reason

T = TypeVar("T")
STORE_FILE: Final = "bot.db"
REFRESH_SECONDS: Final = 0.5
POLL_SECONDS: Final = 1.0
STORE_RETRY_SECONDS: Final = 10.0
"""Between two tries of a store that failed."""
STORE_OPEN_SECONDS: Final = 20.0
"""For each answer of its disk: an opened store was brought up to date and checked. Then the bot goes on without it."""
STORE_LOOK_SECONDS: Final = 1.0
STOP_SECONDS: Final = 22.0
"""For what is under way and for a missing protection, of the 30 s that a pod has to end."""
LAGS_KEPT: Final = 120
"""A minute of looks at how late the loop was: a scrape is rarer than a look."""
TURN_LIMIT_SECONDS: Final = 30.0
"""A loop that did not turn for this long is not alive."""
LOOKING: Final = CauseKind("looking", Source.COMMAND, Reason.UNKNOWN, "the look ends", (Level.HALTED,))
SEEN_BY_A_LOOK: Final = {ConditionType.BALANCE_SYNCED, ConditionType.CAPITAL_COVERED, ConditionType.PROTECTED}
"""Conditions that say nothing of a running process."""


class Care(Enum):
    """What this process knows to be on the exchange while it is not connected; its value is the longest back-off.

    Connecting costs request weight (START_WEIGHT), which an address shares with other bots.
    """

    NAKED = 5.0
    """A position may be without protection."""
    PROTECTED = 15.0
    """A position has its protection, and may lose it."""
    NOTHING = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """How a process is started."""

    config: BotConfig
    """Without the fields of it that this version does not know."""
    credentials_dir: Path
    state_dir: Path
    config_file: Path | None = None
    """Watched for a tightening, where an operator keeps it."""
    unknown_fields: tuple[FieldError, ...] = ()
    """What was left out: with it the configuration is not taken, and the last good one goes on."""
    flight_dir: Path | None = None
    """Where the flight recorder writes; None: nothing is recorded."""
    stand_in: bool = False
    """Nothing of it could be read but whose it is; `unknown_fields` say why."""
    podinfo_dir: Path | None = None
    """Where the pod's own annotations are kept, in a pod."""
    tls_dir: Path | None = None
    """With it the bot is controlled by an operator and enters only with its grant."""
    host: str = "127.0.0.1"
    probe_port: int = 0
    control_port: int = 0
    local: bool = False
    """Whoever may use the state directory may ask the process there."""
    flatten: bool = False
    """Sell what is held, and open nothing."""
    clear: tuple[str, ...] = ()
    """Latched causes of safe mode that the human who starts it has cleared."""

    @property
    def operated(self) -> bool:
        """Whether an operator controls this process."""
        return self.tls_dir is not None


class StartError(Exception):
    """The process cannot serve: the text names the option and what was expected."""


class BotApp:
    """One bot. `run` lasts until `stop`; the rest is the protocol with operator and probes."""

    def __init__(
        self,
        options: Options,
        tell: Callable[[str, dict[str, Any]], None] | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        self._options = options
        self._listener = tell or (lambda _kind, _figures: None)
        self._stop = asyncio.Event()
        self._cancelling: asyncio.Task[None] | None = None
        self._settled = False
        """The last session left in order, or nothing of this bot was on the exchange when it ended."""
        self._care = Care.NAKED
        self._lags = deque([0.0], maxlen=LAGS_KEPT)
        self._lock: StateLock | None = None
        self._healing: asyncio.Task[None] | None = None
        self._asked: dict[Callable[..., Any], asyncio.Task[Any]] = {}
        """What the disk did not answer yet."""
        self._store_look_at = 0.0
        self._has_facts = False
        """What is known goes on from what a store on the disk had."""
        self._annotations = PodAnnotations(options.podinfo_dir) if options.podinfo_dir is not None else None
        self._seed = None if clocks is not None else randbits(64)
        clocks = clocks or Clocks(random=Random(self._seed))  # noqa: S311, spreads retries
        self.desk = desk = Desk(options.config, operated=options.operated, clocks=clocks)
        self._turned_at = desk.monotonic()
        self._unwell = Lasting(UNREADY_AFTER_SECONDS, desk.monotonic)
        clock = ConditionClock()
        self.feed = StatusFeed(lambda sequence: build_status(desk, clock, sequence), state_of, desk.monotonic)
        desk.wake = self.feed.wake
        self.metrics = Metrics(
            desk.settings.symbol, lambda: (build_status(desk, clock, 0), extra_figures(desk, max(self._lags)))
        )
        self.local = LocalControl(desk, lambda: build_status(desk, clock, 0))
        self.alerts = Alerts(
            options.config.bot,
            lambda: self.desk.settings,
            options.credentials_dir,
            desk.clocks,
            self.metrics.notification,
        )
        desk.tell = self._tell
        self._recorder = self._flight_recorder(options.flight_dir) if options.flight_dir is not None else None
        self.control = Control(desk, self.feed)

    def _tell(self, kind: str, figures: dict[str, Any]) -> None:
        """Something happened that people may want to know."""
        self._listener(kind, figures)
        self.alerts.tell(kind, figures)

    def _flight_recorder(self, folder: Path) -> FlightRecorder:
        desk = self.desk
        about = {"version": desk.version, "boot": desk.boot_id, "bot": desk.identity, "seed": self._seed}
        recorder = FlightRecorder(folder, about, desk.clocks.utc)
        recorder.watch("risk", desk.risk, parts=("drawdown", "volatility"))
        return recorder

    def stop(self) -> None:
        """End `run` in order: a session ends as if it were to be made anew, and none follows."""
        self._stop.set()
        self.desk.reconnect.set()

    # --- life cycle ---

    async def run(self, listening: Callable[[int, int | None], None] | None = None) -> None:
        """Serve, trade and stop; `listening` is told the probe and the control port. StartError."""
        with suppress(StoreFailedError):  # asked for again before the store is opened
            await self._lock_state(STORE_LOOK_SECONDS)
        try:
            await self._run(listening)
        finally:
            if self._lock is not None:
                self._lock.release()

    async def _run(self, listening: Callable[[int, int | None], None] | None) -> None:
        self._look_at_annotations()
        self.desk.refresh()
        servers = await self._serve()
        local = AsyncExitStack()
        try:
            if self._options.local and not self._asked:  # a socket is made on the same disk
                try:
                    await local.enter_async_context(serving(self.local, self._options.state_dir))
                except OSError as missing:  # the volume is read-only or full
                    self.desk.log.warning("status and flatten cannot be asked for here", error=str(missing))
            if listening is not None:
                listening(servers[0].port, servers[1].port if len(servers) > 1 else None)
            live = asyncio.create_task(self._live())
            background: list[asyncio.Task[Any]] = [
                live,
                asyncio.create_task(self.feed.run()),
                asyncio.create_task(self._watch()),
                asyncio.create_task(self.alerts.run()),
                asyncio.create_task(self._stop.wait()),
            ]
            if self._recorder is not None:
                background.append(asyncio.create_task(self._recorder.run()))
            try:
                await asyncio.wait(background, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await self._wind_down(live, background)
            for task in background:
                if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            for close in (local.aclose, *(server.close for server in servers)):
                with suppress(asyncio.TimeoutError):
                    async with asyncio.timeout(1):
                        await close()
            if self.desk.store is not None:
                await self.desk.save()
                await self.desk.store.close()
            if self._recorder is not None:
                await self._recorder.flush(end=True)
        self.desk.log.info("stopped")

    async def _serve(self) -> list[Server]:
        options = self._options
        servers: list[Server] = []
        try:
            option = "--probe-port"
            servers.append(await serve(probe_app(self), options.host, options.probe_port))
            if options.tls_dir is not None:
                option = f"--tls-dir {options.tls_dir}: expected tls.crt, tls.key and ca.crt in PEM"
                tls = control_tls(options.tls_dir)
                option = "--control-port"
                servers.append(await serve(control_app(self.control), options.host, options.control_port, tls))
        except OSError as error:  # ssl.SSLError is one too
            for server in servers:
                await server.close()
            raise StartError(f"{option}: {error}") from error
        return servers

    async def _wind_down(self, live: asyncio.Task[None], background: list[asyncio.Task[Any]]) -> None:
        """No new entry; the session, be it that it is only being made, has its time to end in order."""
        self.stop()
        await asyncio.wait([live], timeout=STOP_SECONDS)
        self.control.close()
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for beside in (self._cancelling, self._healing):
            if beside is not None:
                beside.cancel()

    async def _live(self) -> None:
        """Open a store, then connect again and again; until `stop`, and where a position may be without protection
        then, until a session looked after it."""
        store = await self._open_store()
        with suppress(StoreError):
            self._care = await self.care_at_start(store)
        if self._care is Care.NOTHING and (spread := self.desk.budget.start_spread) > 0:
            # All bots of a node may start in this moment, and nobody paces them.
            await self._pause(self.desk.clocks.random.uniform(0.0, spread))
        attempt = 0
        while True:
            self.desk.reconnect.clear()
            if store.volatile or store.silent or self.desk.begin_anew:
                store = await self._open_store()
            if self._stop.is_set() and await self._looked_after(store):
                return
            credentials, demanded = None, 0.0
            wait = POLL_SECONDS
            if self.desk.applied.stand_in:
                # Nothing says where to trade: the operator hands over what can be read.
                await self._pause(wait)
                continue
            try:
                credentials = load_credentials(self._options.credentials_dir)
                await self._trade(store, credentials)
            except CredentialsMissingError as error:
                self._report_problem(Reason.CREDENTIALS_MISSING, f"{error}; create or mend the Secret")
            except AuthRejectedError as error:
                self._report_problem(Reason.CREDENTIALS_REJECTED, f"{error}; check the keys in the Secret")
                attempt += 1
            except UnknownSymbolError as error:
                self.desk.config_problem = Problem(
                    Reason.UNKNOWN_SYMBOL, f"spec.symbol: {self.desk.settings.symbol}: {error}"
                )
                self.desk.connection_problem = None
                attempt += 1
            except AccountChangedError as error:
                self._report_problem(Reason.ACCOUNT_CHANGED, str(error))
                attempt += 1
            except WeightBudgetError as error:
                self._report_problem(Reason.START_PACED, f"{error}; it is tried again")
                attempt, demanded = attempt + 1, error.seconds
            except ExchangeError as error:
                self._report_problem(Reason.EXCHANGE_UNREACHABLE, f"{error}; it is tried again")
                attempt += 1
            except StoreError as error:
                self.desk.store_problem = str(error)
                self._report_problem(Reason.STORE_FAILED, str(error))
                attempt += 1
            except Exception:
                # A bot must outlive a defect of its own: the position's protection is repaired by the next session.
                self.desk.log.exception("the session failed")
                self._report_problem(Reason.NOT_RECONCILED, "the bot failed and starts again; see its log")
                attempt += 1
            else:
                attempt = 0
            self.feed.wake()
            if attempt:
                demanded = max(demanded, self.desk.panel.wait_seconds())
                wait = backoff(self._care, attempt, demanded, self.desk.clocks.random)
            await self._pause(wait, credentials)

    @staticmethod
    async def care_at_start(store: Store) -> Care:
        """What the former process left, by its store; pure but for that. StoreError."""
        if await store.unused():
            return Care.NOTHING
        calm = not await store.open_intents() and await store.get(CALM_FACT, int) == await store.highest_order_id()
        return Care.NOTHING if calm else Care.NAKED

    async def _pause(self, seconds: float, tried: Credentials | None = None) -> None:
        """At most so long before the next session; other keys than those that were tried end it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                if tried is None or self._stop.is_set():
                    await self.desk.reconnect.wait()
                else:
                    await self._until_reconnect(tried)

    async def _looked_after(self, store: Store) -> bool:
        """Whether this process may end: it knows of nothing on the exchange that may be without protection."""
        with suppress(StoreError):
            return self.desk.applied.stand_in or self._settled or await store.unused()
        return False

    def _report_problem(self, reason: Reason, message: str) -> None:
        if self.desk.connection_problem is None or self.desk.connection_problem.reason is not reason:
            self.desk.log.warning("not connected", reason=reason.value, message=message)
            self._tell("NotConnected", {"message": f"{reason.value}: {message}"})
        self.desk.connection_problem = Problem(reason, message)

    async def _trade(self, store: Store, credentials: Credentials) -> None:
        """One session, from connecting to its end."""
        naked = self._care is Care.NAKED
        self.desk.panel.pace = Pace.PROTECTING if naked else Pace.CONNECTING
        self.desk.budget.suspended = naked
        self.desk.budget.at_risk = lambda: self._care is not Care.NOTHING
        try:
            session = await Session.connect(self._parts(store), credentials)
        finally:
            self.desk.panel.pace = Pace.TRADING
            self.desk.budget.suspended = False
        self.desk.account_uid = session.account_uid
        self.desk.connection_problem = None
        if self.desk.config_problem is not None and self.desk.config_problem.reason is Reason.UNKNOWN_SYMBOL:
            self.desk.config_problem = None
        self.desk.session, self.desk.exchange_ms = session, session.exchange.exchange_ms
        self.desk.log.info("connected", account=session.account_uid, incarnation=session.manager.incarnation)
        self._tell("Connected", {"message": f"account {session.account_uid}"})
        self.desk.refresh()
        self.feed.wake()
        run = asyncio.create_task(session.run())
        again = asyncio.create_task(self._until_reconnect(credentials))
        self._settled = False
        try:
            await asyncio.wait([run, again], return_when=asyncio.FIRST_COMPLETED)
            await session.finish(STOP_SECONDS)
            if self._stop.is_set():
                await session.leave(STOP_SECONDS)
                self._settled = True
            if run.done():
                _raise_first(run)
        finally:
            for task in (run, again):
                task.cancel()
            await asyncio.gather(run, again, return_exceptions=True)
            self._settled = self._settled or (session.manager.entries_quiet and not session.manager.remaining())
            self._care = care_of(session)
            self.desk.drain = self.desk.drain_now
            self.desk.session = None
            self.desk.former_counts = add_counts(self.desk.former_counts, session.exchange.counts)
            await session.close()

    async def _until_reconnect(self, credentials: Credentials) -> None:
        """Return when the keys or the store on disk are others, the exchange's address changed, or on `stop`."""
        while not self._stop.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self.desk.reconnect.wait()
                    return
            if await self._store_is_back():
                self.desk.log.info("the store can be opened again")
                return
            # Missing files mean that the kubelet is swapping them, or a human made a mistake: the keys still work.
            with suppress(CredentialsMissingError):
                if load_credentials(self._options.credentials_dir) != credentials:
                    self.desk.log.info("the keys changed")
                    return

    def _parts(self, store: Store) -> Parts:
        return Parts(
            store=store,
            safe_mode=self.desk.safe_mode,
            panel=self.desk.panel,
            budget=self.desk.budget,
            connections=self.desk.connections,
            orders=self.desk.orders,
            risk=self.desk.risk,
            reservations=self.desk.reservations,
            recorder=self._recorder,
            unprotected=self.desk.unprotected,
            metrics=self.metrics,
            settings=lambda: self.desk.settings,
            strategy_usable=lambda: self.desk.usable,
            forbidden=self._forbidden,
            proven=lambda: self.desk.grants.given,
            changed=self.feed.wake,
            tell=self._tell,
            monotonic=self.desk.monotonic,
            random=self.desk.clocks.random,
        )

    def _forbidden(self) -> str | None:
        """Asked right before an entry is sent: safe mode, as it is at this moment."""
        if self._stop.is_set():
            return "Stopping"
        self.desk.refresh()
        causes = self.desk.safe_mode.causes
        return causes[0].reason.value if causes else None

    # --- the store ---

    async def _ask_disk(self, work: Callable[..., T], *about: Any, seconds: float = STORE_OPEN_SECONDS) -> T:
        """What a thread makes of it. A disk that does not answer in time is neither asked twice nor waited for as long
        again. StoreFailedError."""
        if work in self._asked:
            seconds = STORE_LOOK_SECONDS
        else:
            self._asked[work] = asyncio.create_task(asyncio.to_thread(work, *about))
        await asyncio.wait({self._asked[work]}, timeout=seconds)
        if not self._asked[work].done():
            raise StoreFailedError(f"{self._options.state_dir}: the disk did not answer within {seconds:g} s")
        answer: T = self._asked.pop(work).result()
        return answer

    async def _lock_state(self, seconds: float = STORE_OPEN_SECONDS) -> None:
        """Two processes on one store would each take the other's orders for lost. StartError, StoreFailedError."""
        if self._lock is None:
            try:
                self._lock = await self._ask_disk(StateLock.take, self._options.state_dir, seconds=seconds)
            except StateInUseError as error:
                raise StartError(f"--state-dir: {error}") from error

    async def _open_store(self) -> Store:
        """Take over what the former process left; where that cannot be read, go on in memory with what the exchange
        tells: exits and protection must, entries do not."""
        desk, path = self.desk, self._options.state_dir / STORE_FILE
        former, store = desk.store, None
        try:
            if desk.begin_anew and former is not None:
                await former.close()
                former = desk.store = None
                self._has_facts = False
                await self._set_aside(path)
                desk.begin_anew = False
            await self._lock_state()  # the directory may not have been there at the start
            try:
                store = await self._ask_disk(Store.open, path)
            except StoreCorruptError as error:
                desk.safe_mode.activate(STORE_LOST, since=desk.clocks.utc())
                kept = await self._set_aside(path)
                desk.log.error("the store is damaged and was set aside", error=str(error), kept=kept.name)
                store = await self._ask_disk(Store.open, path)
                lost = f"the store was damaged ({error}) and is kept as {kept.name}: {STORE_LOST.clears}"
                desk.safe_mode.activate(STORE_LOST, since=desk.clocks.utc(), clears=lost)
            if self._has_facts:  # newer ones, where the disk was silent
                with suppress(StoreError):  # entries stop, the position is looked after
                    await desk.hand_over(store)
            await self._take_over(store)
            self._has_facts = True
        except StoreError as error:
            desk.store_problem = f"{error}; the bot goes on without it, and looks for it again"
            if store is not None:
                await store.close()
            if former is not None and not former.silent:
                desk.store = former
                return former
            desk.log.error("the store cannot be opened", error=str(error))
            store = Store.in_memory()
            if former is not None:
                await desk.hand_over(store)
                await former.close()
            await self._take_over(store)
            return store
        desk.store_problem = None
        if former is not None:
            await former.close()
        return store

    async def _set_aside(self, path: Path) -> Path:
        return await self._ask_disk(set_aside_store, path, self.desk.clocks.utc())

    async def _take_over(self, store: Store) -> None:
        """Continue with what is in the store. StoreError."""
        desk, options = self.desk, self._options
        # Without an operator the manifest is the user's word of now, whatever was in force before.
        stored = Applied.from_json(await store.get(CONFIG_FACT)) if options.operated else None
        first = desk.revision == 0
        if first:
            start = choose_at_start(options.config, stored, options.unknown_fields, stand_in=options.stand_in)
        else:  # not the first store of this process
            start = choose_at_start(desk.applied.committed, stored)
        await desk.take_over(store, start)
        if first:
            desk.clear(list(options.clear))
        if options.flatten:
            desk.flatten()
            await desk.save()
        if start.problem is not None:
            desk.log.warning("the configuration is not in force", message=start.problem.message)
        self.feed.wake()

    async def _store_is_back(self) -> bool:
        """Whether a process that goes on in memory may open the store on the disk."""
        store = self.desk.store
        if store is None or not store.volatile or self.desk.monotonic() < self._store_look_at:
            return False
        self._store_look_at = self.desk.monotonic() + STORE_RETRY_SECONDS
        if any(work != Store.open and not asked.done() for work, asked in self._asked.items()):
            return False
        path = self._options.state_dir / STORE_FILE
        try:
            found = await self._ask_disk(Store.open, path, seconds=STORE_LOOK_SECONDS)
        except StoreError as error:  # a damaged one is set aside once that is possible
            return isinstance(error, StoreCorruptError) and os.access(path.parent, os.W_OK)
        await found.close()
        return True

    def _heal_store(self) -> None:
        """After a failed commit: try again now and then, and compare the books before entries go on."""
        store, now = self.desk.store, self.desk.monotonic()
        failed = store is not None and not store.volatile and (store.failed or self.desk.store_problem)
        if store is None or not failed or now < self._store_look_at:
            return
        if self._healing is None or self._healing.done():
            self._store_look_at = now + STORE_RETRY_SECONDS
            self.desk.store_problem = str(failed)
            self._healing = asyncio.create_task(self._retry_store(store))

    async def _retry_store(self, store: Store) -> None:
        with suppress(ExchangeError, StoreError):
            await store.retry()
            if self.desk.session is not None:
                await self.desk.session.compare()
            self.desk.store_problem = None
            self.desk.log.info("the store can be written again")
            self.feed.wake()

    # --- what follows from time ---

    async def _watch(self) -> None:
        """Each half second: causes of safe mode, equity, facts on disk, the mounted files."""
        file_seen: object = None
        while True:
            before = self.desk.monotonic()
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_SECONDS):
                    await self.desk.look_now.wait()
            self.desk.look_now.clear()
            self._lags.append(max(0.0, self.desk.monotonic() - before - REFRESH_SECONDS))
            self._turned_at = self.desk.monotonic()
            if self.desk.session is not None and (equity := self.desk.session.equity) is not None:
                self.desk.risk.update_equity(equity, self.desk.exchange_time)
            self._look_at_annotations()
            if self.desk.refresh():
                self.feed.wake()
            self._unwell.look(unwell(self.desk.facts()))
            if self._cancelling is None or self._cancelling.done():
                # A task of its own: an entry in flight is waited for, and nothing else may wait with it.
                self._cancelling = asyncio.create_task(self._cancel_entries())
            kept = self.desk.latches_kept
            await self.desk.save()
            if not kept:
                self.feed.wake()
            self._heal_store()
            file_seen = await self._look_at_file(file_seen)

    async def _cancel_entries(self) -> None:
        session = self.desk.session
        if session is None or self.desk.safe_mode.should_allow_trading() or self.desk.safe_mode.level is Level.HALTED:
            return
        if not session.manager.entries_quiet:
            with suppress(ExchangeError, StoreError):
                await session.manager.cancel_entries()
            self.feed.wake()

    def _look_at_annotations(self) -> None:
        if self._annotations is not None:
            self.desk.pod_wish = self._annotations.safe_mode_wished()

    async def _look_at_file(self, seen: object) -> object:
        """The mounted file may only tighten: safe mode works while the operator cannot reach this process."""
        path = self._options.config_file
        if path is None or self.desk.store is None:  # only the store says which revision is past
            return None
        with suppress(OSError):
            stat = path.stat()
            mark = (stat.st_mtime_ns, stat.st_ino)
            if mark != seen:
                wish = safe_mode_wish(path.read_bytes(), self.desk.identity.uid)
                # Edited by hand it has the number of before.
                if wish is not None and wish.revision >= self.desk.applied.committed.revision:
                    self.desk.tighten(wish)
            return mark
        return seen

    # --- what is told ---

    async def look(self) -> LocalStatus:
        """How the bot is while it does not run, by a copy of its store and by the exchange; instead of `run`.

        Nothing is sent to the exchange but reads, and nothing is written to the disk. StoreError, ExchangeError,
        CredentialsMissingError, AccountChangedError.
        """
        store = await asyncio.to_thread(Store.snapshot, self._options.state_dir / STORE_FILE)
        try:
            await self._take_over(store)
            nothing_is_sent = SafeMode()
            nothing_is_sent.activate(LOOKING, since=self.desk.clocks.utc())
            parts = replace(self._parts(store), safe_mode=nothing_is_sent)
            session = await Session.connect(parts, load_credentials(self._options.credentials_dir))
            try:
                session.admission.key_problem = None  # no entry is to be made
                # A bid of nothing is no price.
                session.runner.last_close = (await session.exchange.book_ticker(self.desk.settings.symbol)).bid or None
                self.desk.session, self.desk.account_uid = session, session.account_uid
                told = self.local.local_status()
            finally:
                await session.close()
        finally:
            await store.close()
        known = [condition for condition in told.status.conditions if condition.type in SEEN_BY_A_LOOK]
        status = told.status.model_copy(
            update={"conditions": known, "ready": False, "incarnation": None, "usage": None, "api": None}
        )
        return told.model_copy(update={"status": status})

    def unhealthy(self) -> str | None:
        """Why the process should be restarted."""
        age = self.desk.monotonic() - self._turned_at
        if age > TURN_LIMIT_SECONDS:
            return f"the loop has not turned for {age:.0f} s"
        return self.desk.session.progress.stuck() if self.desk.session is not None else None

    def not_ready(self) -> str | None:
        """Why the bot is not reconciled with the exchange, or does not see or reach it."""
        facts = self.desk.facts()
        return not_ready(facts) or self._unwell.look(unwell(facts))

    def metrics_text(self) -> bytes:
        """Prometheus text."""
        return self.metrics.render()


def care_of(session: Session) -> Care:
    """What a session that ended left."""
    manager = session.manager
    if manager.naked or manager.unknown or not manager.entries_quiet:
        return Care.NAKED
    return Care.PROTECTED if manager.holding else Care.NOTHING


def backoff(care: Care, attempt: int, demanded: float, rng: Random) -> float:
    """Seconds before the next connection, after `attempt` of them failed; pure.

    After a wait that the exchange demanded, the bots of an address do not all come back in the same second.
    """
    if demanded > 0:
        return demanded + rng.uniform(0.0, care.value)
    return max(0.2, full_jitter(attempt, 1.0, care.value, rng))


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
