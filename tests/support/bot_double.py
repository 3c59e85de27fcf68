"""A bot without an exchange: the bot's own HTTP shell and status feed over decisions that a test makes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from tradingbot.monitoring.http_api import ControlError, Server, control_app, control_tls, serve
from tradingbot.monitoring.status_feed import StatusFeed
from tradingbot.recovery.grant import GrantKeeper, GrantRefusedError
from tradingbot.recovery.reservation import ReservationKeeper
from tradingbot_api import names
from tradingbot_api.bot_http import (
    EPOCH_NOT_LEADER,
    EPOCH_PAST,
    AssetClaim,
    BotConfig,
    BotInfo,
    BotStatus,
    ConfigReply,
    DrainPhase,
    DrainRequest,
    DrainStatus,
    ExchangeWait,
    FieldError,
    FleetReport,
    Grant,
    GrantReply,
    GrantStatus,
    OpenOrder,
    OrderCount,
    OrderUse,
    RaiseIncarnation,
    Reservation,
    ReservationReply,
)
from tradingbot_api.conditions import ConditionType, Reason
from tradingbot_api.v1alpha1 import (
    APIStatus,
    BalanceStatus,
    CircuitBreakerStatus,
    Condition,
    PnLStatus,
    PositionStatus,
    RiskStatus,
    SafeModeCause,
    SafeModeStatus,
    UsageStatus,
)


@dataclass
class BotDouble:
    """What a bot tells and how it answers; a test changes the fields and calls `wake`."""

    config: BotConfig
    account_uid: str | None = "1001"
    incarnation: int = 1000
    boot_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    balance_synced: tuple[str, str] = ("True", Reason.EXACT)
    quantity: Decimal = Decimal(0)
    unrealized: Decimal = Decimal(0)
    value: Decimal = Decimal(0)
    """Of the position."""
    drawdown: Decimal = Decimal(0)
    quote_asset: str | None = None
    """None: it does not tell."""
    acknowledges: bool = True
    drains: bool = True
    remaining: tuple[str, ...] = ()
    open_orders: tuple[OpenOrder, ...] = ()
    refuses: tuple[str, str] | None = None
    circuit: str = "Closed"
    grants: list[Grant] = field(default_factory=list)
    configs: list[BotConfig] = field(default_factory=list)
    told_by_standbys: list[BotConfig] = field(default_factory=list)
    drain_requests: list[DrainRequest] = field(default_factory=list)
    cpu: int = 0
    waits: list[tuple[float, ExchangeWait]] = field(default_factory=list)
    """With the time, on the monotonic clock, at which each came."""
    banned_until: datetime | None = None
    orders_refused_until: datetime | None = None
    knows_fleets: bool = True
    """False: of a version that knows of no reservations."""

    def __post_init__(self) -> None:
        self.engaged = self.config.settings.safe_mode is True
        self.imposed = {cause.id: cause for cause in self.config.imposed}
        self._drain = DrainStatus()
        self._granted_until = 0.0
        self._epochs = GrantKeeper(True, time.monotonic)
        self.reservations = ReservationKeeper(lambda: self.config.fleet_limited, time.monotonic)
        self.feed = StatusFeed(self.status, self._state, time.monotonic)
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, tls: Path, address: str) -> None:
        """Listen on the control port of an address."""
        self._task = asyncio.create_task(self.feed.run())
        self._server = await serve(control_app(self), address, names.CONTROL_PORT, control_tls(tls))

    async def stop(self) -> None:
        """End like a process: connections break."""
        if self._task is not None:
            self._task.cancel()
        if self._server is not None:
            await self._server.close()

    def wake(self) -> None:
        """Tell at once."""
        self.feed.wake()

    @property
    def granted(self) -> bool:
        """Whether a grant is held."""
        return time.monotonic() < self._granted_until

    # --- what the operator asks ---

    def info(self) -> BotInfo:
        """Versions."""
        return BotInfo(version="double", bot_uid=self.config.bot.uid, boot_id=self.boot_id)

    def status_lines(self) -> AsyncIterator[bytes]:
        """The stream."""
        return self.feed.lines()

    async def put_config(self, body: bytes) -> ConfigReply:
        """Take it, or refuse as the test says."""
        config = BotConfig.model_validate_json(body)
        if self.refuses is not None:
            code, name = self.refuses
            raise ControlError(422, code, "refused", [FieldError(field=name, message="must be less than slow")])
        if config.epoch == EPOCH_NOT_LEADER:
            self.told_by_standbys.append(config)
            self.engaged = self.engaged or config.settings.safe_mode is True
            self.imposed |= {cause.id: cause for cause in config.imposed}
            self.wake()
            raise ControlError(409, EPOCH_PAST, "only the tightening is taken")
        self._meet(config.epoch)
        self.configs.append(config)
        self.config, self.engaged = config, config.settings.safe_mode is True
        self.imposed = {cause.id: cause for cause in config.imposed}
        self.wake()
        return ConfigReply(revision=config.revision, in_force=True)

    async def put_grant(self, grant: Grant) -> GrantReply:
        """Take it unless it is for another process, configuration or status."""
        if (grant.boot_id, grant.revision, grant.incarnation) != (
            self.boot_id, self.config.revision, self.incarnation,
        ):  # fmt: skip
            raise ControlError(409, "Mismatch", "the grant is not for this process and configuration")
        if self.feed.sent_at(grant.status_sequence) is None:
            raise ControlError(409, "UnknownSequence", "no status of that sequence was sent")
        self._meet(grant.epoch)
        self.grants.append(grant)
        self._granted_until = time.monotonic() + grant.ttl_seconds
        self.wake()
        return GrantReply(expires_in_seconds=grant.ttl_seconds)

    async def put_reservation(self, reservation: Reservation) -> ReservationReply:
        """Hold it."""
        self._meet(reservation.epoch)
        seconds = self.reservations.take(reservation)
        self.wake()
        return ReservationReply(expires_in_seconds=seconds)

    async def raise_incarnation(self, request: RaiseIncarnation) -> None:
        """Take it."""
        self.incarnation = max(self.incarnation, request.minimum)
        self.wake()

    async def put_wait(self, wait: ExchangeWait) -> None:
        """Take it."""
        self._meet(wait.epoch)
        self.waits.append((time.monotonic(), wait))

    async def drain(self, request: DrainRequest) -> DrainStatus:
        """Drained at once, or never."""
        self._meet(request.epoch)
        self.drain_requests.append(request)
        phase = DrainPhase.DRAINED if self.drains else DrainPhase.DRAINING
        self._drain = DrainStatus(phase=phase, position_policy=request.position_policy, remaining=list(self.remaining))
        self.wake()
        return self._drain

    def _meet(self, epoch: int) -> None:
        try:
            self._epochs.meet(epoch)
        except GrantRefusedError as error:
            raise ControlError(409, error.code, str(error)) from error

    # --- what it tells ---

    def _fleet(self) -> FleetReport | None:
        keeper = self.reservations
        if not self.knows_fleets or not keeper.required:
            return None
        return FleetReport(
            clock=time.monotonic(), exposure=self.value, in_position=self.value > 0, epoch=keeper.seen[0],
            number=keeper.seen[1], reserved=keeper.exposure, request=keeper.request, quote_asset=self.quote_asset,
        )  # fmt: skip

    def _causes(self) -> list[SafeModeCause]:
        causes = []
        if self.engaged:
            causes.append(SafeModeCause(id="spec", source="Spec", reason=Reason.SPEC, level="NoNewEntries"))
        causes += [SafeModeCause(**cause.model_dump()) for cause in self.imposed.values()]
        if not self.granted:
            causes.append(
                SafeModeCause(id="grant", source="Operator", reason=Reason.AWAITING_GRANT, level="NoNewEntries")
            )
        return causes

    def _position(self) -> PositionStatus:
        side, nothing = "Long" if self.quantity else "Flat", Decimal(0)
        return PositionStatus(
            side=side, quantity=self.quantity, average_price=nothing, value=self.value, validated=True
        )

    def status(self, sequence: int) -> BotStatus:
        """All of it."""
        causes = self._causes()
        engaged = bool(causes)
        synced = self.balance_synced[0] == "True"
        self.cpu += 1
        said = {
            ConditionType.CONFIG_APPLIED: ("True", Reason.OK),
            ConditionType.BALANCE_SYNCED: self.balance_synced,
            ConditionType.CAPITAL_COVERED: ("True", Reason.OK),
            ConditionType.CIRCUIT_CLOSED: ("True" if self.circuit == "Closed" else "False", f"Circuit{self.circuit}"),
            ConditionType.PROTECTED: ("True", Reason.FLAT),
            ConditionType.TRADING_ALLOWED: ("False", Reason.ENGAGED) if engaged else ("True", Reason.OK),
        }
        return BotStatus(
            bot_uid=self.config.bot.uid,
            boot_id=self.boot_id,
            incarnation=self.incarnation if self.account_uid else None,
            sequence=sequence,
            applied_revision=self.config.revision,
            time=datetime.now(UTC),
            version="double",
            ready=synced,
            symbol=self.config.settings.symbol,
            account_uid=self.account_uid,
            grant=GrantStatus(held=self.granted),
            drain=self._drain,
            conditions=[Condition(type=kind, status=status, reason=reason) for kind, (status, reason) in said.items()],
            circuit_breaker=CircuitBreakerStatus(state=self.circuit),
            safe_mode=SafeModeStatus(
                level=max((cause.level for cause in causes), default="Normal"),
                engaged=engaged,
                acknowledged=engaged and self.acknowledges,
                causes=causes,
            ),
            balance=BalanceStatus(
                base=self.quantity, quote=Decimal(10000), drift=Decimal(0), last_sync_time=datetime.now(UTC)
            ),
            position=self._position() if self.account_uid else None,
            pnl=PnLStatus(realized=Decimal(0), unrealized=self.unrealized, total=self.unrealized),
            risk=RiskStatus(level="LOW", drawdown=self.drawdown),
            quote_claim=AssetClaim(asset=self.quote_asset, claimed=Decimal(0), held=Decimal(10000))
            if self.quote_asset is not None
            else None,
            open_orders=list(self.open_orders),
            fleet=self._fleet(),
            api=APIStatus(wait_until_time=self.banned_until),
            order_use=OrderUse(
                counts=[OrderCount(interval="10S", seconds=10, limit=100)],
                wanted=0,
                asks=False,
                allotted=None,
                refused_until_time=self.orders_refused_until,
            ),
            usage=UsageStatus(memory_bytes=1, cpu_seconds=Decimal(self.cpu)),
        )

    @staticmethod
    def _state(status: BotStatus) -> object:
        fleet = status.fleet.model_copy(update={"clock": 0}) if status.fleet is not None else None
        return status.model_copy(update={"sequence": 0, "time": None, "usage": None, "balance": None, "fleet": fleet})
