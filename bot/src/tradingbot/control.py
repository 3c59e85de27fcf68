"""What the operator asks of a bot: configuration, grant, incarnation and drain; and what a person beside it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from tradingbot.applied import ConfigRefusedError, advance
from tradingbot.config import ConfigError, parse_pod_config, safe_mode_wish
from tradingbot.desk import Desk
from tradingbot.gateway.errors import ExchangeError
from tradingbot.monitoring.health import Problem
from tradingbot.monitoring.http_api import ControlError
from tradingbot.monitoring.local_api import LocalStatus
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.orders.types import ProtectionState
from tradingbot.recovery.grant import GrantRefusedError
from tradingbot.recovery.safe_mode import AWAITING_GRANT, Level
from tradingbot.state.store import StoreError
from tradingbot_api.bot_http import (
    GRANT_TTL_SECONDS,
    STALE_REVISION,
    BotInfo,
    BotStatus,
    ConfigReply,
    DrainPhase,
    DrainRequest,
    DrainStatus,
    ExchangeWait,
    Grant,
    GrantReply,
    RaiseIncarnation,
    Reservation,
    ReservationReply,
)
from tradingbot_api.v1alpha1 import PositionPolicy


class Control:
    """The calls of tradingbot_api.bot_http, on one desk."""

    def __init__(self, desk: Desk, feed: StatusFeed) -> None:
        self._desk = desk
        self._feed = feed
        self._config_lock = asyncio.Lock()
        self._drain_task: asyncio.Task[None] | None = None
        self._drain_request: DrainRequest | None = None
        """The one that counts, and until when."""
        self._drain_until = 0.0

    def close(self) -> None:
        """Stop what was begun."""
        if self._drain_task is not None:
            self._drain_task.cancel()

    def info(self) -> BotInfo:
        """Versions."""
        return BotInfo(version=self._desk.version, bot_uid=self._desk.identity.uid, boot_id=self._desk.boot_id)

    def status_lines(self) -> AsyncIterator[bytes]:
        """The status stream."""
        return self._feed.lines()

    async def put_config(self, body: bytes) -> ConfigReply:
        """Commit a configuration, put in force what may be, and answer; safe mode is engaged before anything else.

        A wish for safe mode is taken from a former leader, at a stale revision and beside invalid fields too, and is
        ended by a configuration of a greater revision that is taken.
        """
        wish = safe_mode_wish(body, self._desk.identity.uid)
        if wish is not None:
            self._desk.tighten(wish)
            await self._desk.save()  # before any answer: who asked does not ask again
        try:
            received = parse_pod_config(body, "configuration")
        except ConfigError as error:
            raise ControlError(422, "Invalid", str(error), error.fields) from error
        config = received.config
        if config.bot.uid != self._desk.identity.uid:
            raise ControlError(
                409, "IdentityMismatch", f"bot.uid: expected {self._desk.identity.uid}, got {config.bot.uid}"
            )
        async with self._config_lock:
            if self._desk.store is None:
                raise ControlError(503, "StoreFailed", self._desk.store_problem or "the store is not open yet")
            self._meet(config.epoch)
            # Before any configuration was applied there is no limit that could be loosened.
            may_loosen = self._desk.safe_mode.has("spec") or self._desk.revision == 0
            try:
                applied = advance(self._desk.applied, config, in_safe_mode=may_loosen, unknown=received.unknown)
            except ConfigRefusedError as error:
                if error.stale:
                    raise ControlError(409, STALE_REVISION, str(error)) from error
                self._desk.config_problem = Problem(error.reason, str(error))
                self._desk.wake()
                raise ControlError(422, error.reason.value, str(error), error.fields) from error
            try:
                await self._desk.commit(applied, newer=config.revision > self._desk.revision)
            except StoreError as error:
                raise ControlError(503, error.code, str(error)) from error
            self._desk.usable, self._desk.revision, self._desk.config_problem = True, config.revision, None
            self._desk.relax(config.revision)
            self._desk.put_in_force(applied)
        self._desk.refresh()
        self._desk.look_now.set()
        self._desk.wake()
        self._desk.log.info("configuration", revision=config.revision, waiting=list(applied.loosened))
        return ConfigReply(revision=config.revision, in_force=not applied.loosened)

    async def put_grant(self, grant: Grant) -> GrantReply:
        """Take the right to add exposure."""
        session = self._desk.session
        try:
            seconds = self._desk.grants.take(
                grant,
                bot_uid=self._desk.identity.uid,
                boot_id=self._desk.boot_id,
                incarnation=session.manager.incarnation if session else None,
                revision=self._desk.revision,
                sent_at=self._feed.sent_at(grant.status_sequence),
            )
        except GrantRefusedError as error:
            raise ControlError(409, error.code, str(error)) from error
        if grant.weight_per_minute is not None and grant.address_bots is not None:
            self._desk.budget.allot(grant.weight_per_minute, grant.address_bots, seconds)
        self._desk.orders.allot(grant.entry_orders, seconds - (GRANT_TTL_SECONDS - grant.entry_orders_seconds))
        if self._desk.refresh():
            self._desk.wake()
        return GrantReply(expires_in_seconds=seconds)

    async def put_wait(self, wait: ExchangeWait) -> None:
        """The exchange told another bot of this address to send nothing, or of this account no entries."""
        self._check_process(wait.bot_uid, wait.boot_id)
        self._meet(wait.epoch)
        if wait.orders_until_time is not None:
            self._desk.orders.hold(wait.orders_until_time, wait.orders_seconds)
        else:
            self._desk.panel.wait_with_others(wait.until_time, wait.seconds, wait.turn_seconds)
        self._desk.refresh()
        self._desk.wake()

    async def put_reservation(self, reservation: Reservation) -> ReservationReply:
        """See how much exposure the fleet's limits leave this bot."""
        self._check_process(reservation.bot_uid, reservation.boot_id)
        self._meet(reservation.epoch)
        seconds = self._desk.reservations.take(reservation)
        self._desk.wake()
        return ReservationReply(expires_in_seconds=seconds)

    async def raise_incarnation(self, request: RaiseIncarnation) -> None:
        """Take a greater incarnation before the first order."""
        self._check_process(request.bot_uid, request.boot_id)
        session = self._desk.session
        if session is None:
            raise ControlError(409, "NotReady", "the bot is not connected to the exchange yet")
        if not await session.manager.raise_incarnation(request.minimum):
            raise ControlError(409, "AlreadyTraded", "this process has sent an order: restart it")
        self._desk.wake()

    async def drain(self, request: DrainRequest) -> DrainStatus:
        """Begin to drain, or tell how far it is."""
        self._check_process(request.bot_uid, request.boot_id)
        self._meet(request.epoch)
        session, named = self._desk.session, False
        if session is not None and request.claimed_incarnation == session.manager.incarnation:
            named = not self._desk.grants.given
            self._desk.grants.name_trader()
        drain = self._desk.drain
        if named or drain.phase is DrainPhase.NONE or drain.position_policy is not request.position_policy:
            self._drain_request, self._drain_until = request, self._desk.monotonic() + request.deadline_seconds
            self._desk.drain = DrainStatus(phase=DrainPhase.DRAINING, position_policy=request.position_policy)
            self._desk.refresh()
            if self._drain_task is None or self._drain_task.done():
                self._drain_task = asyncio.create_task(self._run_drain(request))
            self._desk.wake()
        return self._desk.drain_now

    async def _run_drain(self, request: DrainRequest) -> None:
        """Until nothing but what the policy leaves is on the exchange, or the deadline.

        A later request goes on from where this one is: a sale under way ends, as it has taken the protection off.
        """
        while True:
            request = self._drain_request or request
            done, message, remaining = await self._drain_once(request)
            if request is not self._drain_request:
                continue
            if done or self._desk.monotonic() >= self._drain_until:
                break
            self._desk.drain = self._desk.drain.model_copy(update={"message": message, "remaining": remaining})
            self._desk.wake()
            await asyncio.sleep(1)
        self._desk.drain = self._desk.drain.model_copy(
            update={"phase": DrainPhase.DRAINED, "message": message if remaining else "", "remaining": remaining}
        )
        self._desk.log.info("drained", policy=request.position_policy.value, remaining=remaining)
        self._desk.wake()

    async def _drain_once(self, request: DrainRequest) -> tuple[bool, str, list[str]]:
        """Whether there is nothing more to do, why not, and what is on the exchange."""
        session, policy = self._desk.session, request.position_policy
        halting = [cause for cause in self._desk.safe_mode.causes if cause.level is Level.HALTED]
        if halting:
            # The orders may be another process's: they are left as they are. A sale waits for the word whose they are.
            waits = policy is PositionPolicy.CLOSE_POSITION and all(one.id == AWAITING_GRANT.id for one in halting)
            return not waits, "halted: nothing is sent", [f"unknown: {halting[0].clears}"]
        unknown = ["unknown: the bot is not connected to the exchange"]
        if session is not None:
            try:
                remaining = await session.manager.drain(policy)
            except (ExchangeError, StoreError) as error:
                return False, str(error), self._desk.drain.remaining or unknown
            except Exception as error:
                # The session may end under the call, as when the keys change: the next one goes on.
                self._desk.log.exception("draining failed, it is tried again")
                return False, f"{type(error).__name__}: {error}", self._desk.drain.remaining or unknown
            closed = policy is PositionPolicy.HOLD or not session.manager.holding
            naked = session.manager.protection.state is ProtectionState.UNPROTECTED
            text = "entries, or a position that is to be closed or protected, are still on the exchange"
            return session.manager.entries_quiet and closed and not naked, text, remaining
        if not request.account_known and await self._never_traded():
            return True, "", []
        problem = self._desk.connection_problem
        return False, problem.message if problem else "not connected yet", self._desk.drain.remaining or unknown

    async def _never_traded(self) -> bool:
        with suppress(StoreError):
            return self._desk.store is not None and await self._desk.store.unused()
        return False

    def _meet(self, epoch: int) -> None:
        try:
            self._desk.grants.meet(epoch)
        except GrantRefusedError as error:
            raise ControlError(409, error.code, str(error)) from error

    def _check_process(self, bot_uid: str, boot_id: str) -> None:
        if (bot_uid, boot_id) != (self._desk.identity.uid, self._desk.boot_id):
            raise ControlError(
                409,
                "IdentityMismatch",
                f"expected bot {self._desk.identity.uid} boot {self._desk.boot_id}, got {bot_uid} {boot_id}",
            )


class LocalControl:
    """The calls of monitoring.local_api, on one desk; `status` makes the status of now."""

    def __init__(self, desk: Desk, status: Callable[[], BotStatus]) -> None:
        self._desk = desk
        self._status = status

    def local_status(self) -> LocalStatus:
        """The bot as it is now."""
        return LocalStatus(bot=self._desk.identity, settings=self._desk.settings, status=self._status())

    async def flatten(self) -> LocalStatus:
        """Latch the cause before any answer; where nothing is held any more, the account is compared before it."""
        self._desk.flatten()
        await self._desk.save()
        session = self._desk.session
        if session is not None and not session.manager.holding and session.manager.entries_quiet:
            with suppress(ExchangeError, StoreError):  # the verdict's time says that it is of before
                await session.compare()
        return self.local_status()
