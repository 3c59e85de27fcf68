"""The protocol between operator and bot: configuration, grant, drain, and the bot's status stream.

mTLS on port 8443, JSON bodies in the models below:

    GET  /v1/status/stream   newline-delimited BotStatus: one at once, one at every change of state, one each 5 s
    GET  /v1/info            BotInfo
    PUT  /v1/config          BotConfig -> ConfigReply (200), ErrorReply (409 stale or foreign, 422 invalid)
    PUT  /v1/grant           Grant -> GrantReply (200), ErrorReply (409 mismatch)
    PUT  /v1/reservation  Reservation -> ReservationReply (200), ErrorReply (409 mismatch or past)
    PUT  /v1/incarnation  RaiseIncarnation -> 200, ErrorReply (409 after the first order of this boot)
    PUT  /v1/wait            ExchangeWait -> 200, ErrorReply (409 mismatch)
    POST /v1/drain           DrainRequest -> DrainStatus (202), ErrorReply (409)

and plain HTTP on port 8080: GET /healthz, /readyz, /metrics.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from pydantic import Field, model_validator

from tradingbot_api.base import SignedDecimal, WireModel
from tradingbot_api.v1alpha1 import (
    APIStatus,
    BalanceStatus,
    BotSettings,
    CircuitBreakerStatus,
    Condition,
    OrdersStatus,
    PnLStatus,
    PositionPolicy,
    PositionStatus,
    RiskStatus,
    SafeModeStatus,
    TradesStatus,
    UsageStatus,
)

PROTOCOL_VERSION: Final = 1
GRANT_TTL_SECONDS: Final = 60
GRANT_RENEWAL_SECONDS: Final = 20
RESERVATION_TTL_SECONDS: Final = 15
HEARTBEAT_SECONDS: Final = 5
STALE_AFTER_SECONDS: Final = 15
STALE_REVISION: Final = "StaleRevision"
"""The code of the refusal of a configuration that is not newer than the bot's and not equal to it."""
EPOCH_PAST: Final = "EpochPast"
"""The code of the refusal of a former leader's call, and of one whose sender leads nothing."""
SHARED_PART: Final = Decimal("0.8")
"""What of an address's request weight bots share out among them; the rest is kept for what reduces risk."""
START_PART: Final = Decimal("0.6")
"""Up to which part of the address's weight a bot connects."""
START_WEIGHT: Final = 230
"""What a bot needs from its first connection to the first comparison of its books with live streams."""
FULL_PACE_WEIGHT: Final = 90
"""What it needs in a minute in which nothing is traded, with all its looks at their usual pace."""
LEAST_WEIGHT: Final = 32
"""The same with its looks as rare as they may be while it holds nothing; with less its books get too old."""
ENTRY_ORDERS_PART: Final = Decimal("0.6")
"""What of an account's new orders entries may use, all bots and programs together; the rest is kept for protection,
its replacement and exits."""
ENTRY_ORDERS: Final = 4
"""New orders of one entry at most: it is sent with its protection (3), and where the book is thin once more for a part
(1)."""
ORDER_SETTLE_SECONDS: Final = 15
"""So long an order that was sent may count in the exchange's ten seconds of now: its recvWindow, and those."""
EPOCH_NOT_LEADER: Final = -1
"""The epoch of a sender that is not the leader: of its configuration only a tightening is taken."""


class BotIdentity(WireModel):
    """Which TradingBot a process works for."""

    namespace: str
    name: str
    uid: str


class ImposedCause(WireModel):
    """A cause of safe mode that the operator imposes from outside the bot's spec."""

    id: str
    """Stable, such as kill-switch/NAME."""
    source: str
    reason: str
    level: str
    """NoNewEntries or ReduceOnly."""
    message: str = ""
    """What people are told of it."""
    clears: str = ""
    """What ends it."""


SETTINGS_SAFE_MODE: Final = "settingsSafeMode"
"""In a BotConfig's JSON: spec.safeMode, where settings.safeMode is true for the sake of imposed causes alone."""


class BotConfig(WireModel):
    """A whole configuration. `revision` is the operator's counter; it grows with every change of the content.

    `cleared_causes` are ids of latched safe-mode causes that a human cleared; each is cleared once, when the revision
    is first applied. `epoch` is the transition count of the operator's Lease; a bot refuses a smaller one than it has
    seen (0: not told). `fleet_limited`: limits hold over several bots, so that an entry needs a Reservation. `imposed`
    causes count beside settings.safeMode, the strictest of all.
    """

    revision: int = Field(ge=1)
    bot: BotIdentity
    settings: BotSettings
    cleared_causes: list[str] = Field(default_factory=list)
    imposed: list[ImposedCause] = Field(default_factory=list)
    fleet_limited: bool = False
    epoch: int = 0

    @model_validator(mode="before")
    @classmethod
    def _settings_as_in_the_spec(cls, data: Any) -> Any:
        if isinstance(data, dict) and SETTINGS_SAFE_MODE in data and isinstance(data.get("settings"), dict):
            return {**data, "settings": {**data["settings"], "safeMode": data[SETTINGS_SAFE_MODE]}}
        return data

    def sparse(self) -> dict[str, Any]:
        """As JSON without what equals its default, so that a new field that nobody uses never reaches an older bot.

        It stands on the rule that a default never changes within a version of the API. A bot that does not know
        imposed causes is told safe mode instead: it sends no entry either, though it sells nothing.
        """
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        if self.imposed and not self.settings.safe_mode:
            data[SETTINGS_SAFE_MODE] = self.settings.safe_mode
            data["settings"]["safeMode"] = True
        return data


class ConfigReply(WireModel):
    """The configuration is committed to the bot's store.

    `in_force` is false where a loosened limit waits for safe mode; the stream's condition ConfigApplied says so.
    """

    revision: int
    in_force: bool


class Grant(WireModel):
    """The right to add exposure for `ttl_seconds`.

    The time counts on the bot's monotonic clock from when it sent the status of `status_sequence`, so that no
    delay between operator and bot lengthens it. `epoch` is the transition count of the operator's Lease: a bot
    refuses a smaller one than it has seen. `weight_per_minute` is the part of its address's request weight that this
    bot may use for all that does not reduce risk, for as long as the grant lasts; `address_bots` is how many share it.
    `entry_orders` is how many new orders its entries may be in any ORDER_SETTLE_SECONDS, for `entry_orders_seconds`
    counted like the grant and for none after that; None: it goes by what the exchange tells alone.
    """

    bot_uid: str
    boot_id: str
    incarnation: int
    revision: int
    status_sequence: int
    epoch: int
    ttl_seconds: int = GRANT_TTL_SECONDS
    weight_per_minute: int | None = Field(default=None, ge=0)
    address_bots: int | None = Field(default=None, ge=1)
    entry_orders: int | None = Field(default=None, ge=0)
    entry_orders_seconds: int = Field(default=GRANT_TTL_SECONDS, ge=0)


class GrantReply(WireModel):
    """The grant is held; seconds left of it."""

    expires_in_seconds: float


class ReservationRequest(WireModel):
    """An entry waits for room in the limits of the fleet; `id` counts the requests of this boot."""

    id: int
    exposure: SignedDecimal
    """What the bot's exposure would be with the entry, in quote."""


class Reservation(WireModel):
    """How much exposure a bot may have, in all, in quote; no entry of a bot of a limited fleet is sent beyond it.

    It lasts for `ttl_seconds` from `clock`, the bot's own clock as its status told, so that no delay lengthens it; what
    was bought meanwhile stays the bot's exposure. `number` counts the reservations of one bot in an `epoch`, which is
    the transition count of the operator's Lease: a bot takes no reservation twice, and none that is older than one that
    it has seen. `request` is the one that is answered, else None: then nothing is reserved, and the bot learns of the
    epoch alone.
    """

    bot_uid: str
    boot_id: str
    epoch: int
    number: int
    request: int | None = None
    exposure: SignedDecimal
    clock: float
    ttl_seconds: int = RESERVATION_TTL_SECONDS
    message: str = ""
    """Why there is no more room, for people."""


class ReservationReply(WireModel):
    """The reservation was seen; seconds left of it, 0 where it is of no use any more."""

    expires_in_seconds: float


class ExchangeWait(WireModel):
    """The exchange demanded of a bot of the same address to send nothing (429, 418): PUT /v1/wait.

    `until_time` is told on as it is, so that a new leader hears of it from any bot; `seconds` is how long that is from
    now, whatever clock the bot has. What does not reduce risk waits `turn_seconds` longer: not all come back at once.
    Where it refused a new order as too many for the account (-1015), `orders_until_time` and `orders_seconds` tell the
    same of entries alone, and the others are of now: an older bot so waits for nothing.
    """

    bot_uid: str
    boot_id: str
    epoch: int
    until_time: datetime
    seconds: float = Field(ge=0)
    turn_seconds: float = Field(default=0.0, ge=0)
    orders_until_time: datetime | None = None
    orders_seconds: float = Field(default=0.0, ge=0)


class RaiseIncarnation(WireModel):
    """Asked instead of a grant where the claim knows a greater incarnation: PUT /v1/incarnation.

    The bot takes `minimum` or more before its first order of this boot, or refuses with 409 after it.
    """

    bot_uid: str
    boot_id: str
    minimum: int


class DrainRequest(WireModel):
    """Cancel entries and, with ClosePosition, sell; progress is in the stream's `drain`. Idempotent.

    `account_known`: the TradingBot once named its account, so that an empty store is no proof that nothing of it
    is on the exchange; only a bot that reconciled may then say what is left. `claimed_incarnation` is what the claim
    names: the process start of that number is the one trader, as by a grant, and may look after what former ones left,
    though it gets no right to add exposure. `epoch` is as in BotConfig.
    """

    bot_uid: str
    boot_id: str
    position_policy: PositionPolicy
    deadline_seconds: int = Field(ge=1)
    account_known: bool = False
    claimed_incarnation: int | None = None
    epoch: int = 0


class DrainPhase(StrEnum):
    """How far a drain is."""

    NONE = "None"
    DRAINING = "Draining"
    DRAINED = "Drained"


class DrainStatus(WireModel):
    """Progress of a drain and what it leaves on the exchange."""

    phase: DrainPhase = DrainPhase.NONE
    position_policy: PositionPolicy | None = None
    message: str = ""
    remaining: list[str] = Field(default_factory=list)
    """What stays on the exchange, a line each: the position, every order and order list."""


class OpenOrder(WireModel):
    """One open order of the bot, for the stream only."""

    client_order_id: str
    order_id: int | None
    order_list_id: int
    type: str
    side: str
    status: str
    quantity: str
    executed_quantity: str
    price: str
    stop_price: str
    purpose: str
    created_time: datetime
    updated_time: datetime | None = None
    fills: list[int] = Field(default_factory=list)
    """Trade ids."""
    related_position: str = ""
    """Client id of the entry that made the position."""


class ProtectionPair(WireModel):
    """One protection pair of the bot and what has become of it, for the stream only."""

    order_list_id: int
    state: str
    """Pending, Working, StopTriggered; others while a leg is open still."""
    stop_id: str
    take_profit_id: str


class GrantStatus(WireModel):
    """The grant as the bot sees it."""

    held: bool
    expires_in_seconds: float = 0.0


class AssetClaim(WireModel):
    """What a bot needs of an asset of its account, and what the account has of it, free and locked.

    Less than `least` of it can be lacking without a harm: it could not be sold alone.
    """

    asset: str
    claimed: SignedDecimal
    held: SignedDecimal
    least: SignedDecimal = Decimal(0)


class AccountBooks(WireModel):
    """What a bot knows of its account, for the comparison of the account with the books of all its bots.

    `listening_since` names the time (ms of the exchange) since which the user stream told the bot of everything in the
    account, None while it does not; `moved` and the trades are what it told since then.
    """

    held: dict[str, SignedDecimal]
    """Base and quote of the account, free and locked."""
    flows: dict[str, SignedDecimal] = Field(default_factory=dict)
    """What this bot's fills changed, by asset, after fees, since its books began."""
    fills: int = 0
    rounded: list[str] = Field(default_factory=list)
    """Assets of which a fill's amount is not known to the last decimal: the exchange rounds it."""
    settled: bool = True
    """No outcome is awaited, and all that its orders executed is in its books."""
    complete: bool = True
    """The position is there, and all its fees have a value."""
    compared_time: datetime | None = None
    """When it last read the account."""
    listening_since: int | None = None
    moved: dict[str, SignedDecimal] = Field(default_factory=dict)
    """Deposits and transfers less withdrawals, by asset."""
    trades_by_hand: int = 0
    """Executions of orders that no bot made."""
    trades_by_bots: dict[str, int] = Field(default_factory=dict)
    """Executions of orders of other bots, by the key in their client ids (names.bot_key)."""


class FleetReport(WireModel):
    """What a bot of a limited fleet tells of its exposure. All of it is as of `clock`, the bot's monotonic clock.

    `exposure` is what its position cost and what its entries that work, are in flight or of unknown outcome may cost,
    in quote; None where that is not known yet. `epoch` and `number` are of the newest reservation that it has seen,
    `reserved` what that one still allows; nothing older is of any use.
    """

    clock: float
    exposure: SignedDecimal | None = None
    in_position: bool
    epoch: int
    number: int
    reserved: SignedDecimal
    request: ReservationRequest | None = None
    quote_asset: str | None = None
    day: str | None = None
    """The day of `daily_pnl`, by exchange time in UTC."""
    daily_pnl: SignedDecimal | None = Field(default=None, alias="dailyPnL")
    """Change of the equity since 00:00 UTC; None where it is not known."""


class WeightUse(WireModel):
    """Request weight, by the exchange's minutes."""

    limit: int
    """Of an address in a minute."""
    used: int
    """By this bot in the last whole minute."""
    wanted: int
    """The same, and what waited because its part was used up."""
    address_used: int
    """By the whole address in this minute, as far as answers told."""


class OrderCount(WireModel):
    """New orders of an account in one of the exchange's intervals, as its last answer told."""

    interval: str
    """As in the header X-MBX-ORDER-COUNT-10S: 10S, 1D."""
    seconds: int
    limit: int
    used: int = 0
    """By the whole account in the interval of now; orders that were filled count no longer."""
    told_time: datetime | None = None
    """When the exchange last told, by its clock; None where it never did."""


class OrderUse(WireModel):
    """New orders, by account."""

    counts: list[OrderCount]
    wanted: int
    """What this bot's entries were in the last ORDER_SETTLE_SECONDS, and what the one that waits needs."""
    asks: bool
    """An entry waits for more than what is allotted."""
    allotted: int | None
    """What a grant told that still counts."""
    refused_until_time: datetime | None = None
    """Until then no bot of the account sends an entry: the exchange refused an order as too many (-1015)."""


class BotStatus(WireModel):
    """All that a bot tells; every line of the stream is whole.

    `ready`: reconciled with the exchange; /readyz wants live streams and a closed circuit too. `conditions` are those
    that only the bot can judge: ConfigApplied, BalanceSynced, CapitalCovered, CircuitClosed, Protected, TradingAllowed.
    Fields that the bot does not know (yet) are None.
    """

    bot_uid: str
    boot_id: str
    incarnation: int | None
    sequence: int
    applied_revision: int
    protocol: int = PROTOCOL_VERSION
    time: datetime
    version: str
    ready: bool
    symbol: str
    account_uid: str | None = Field(default=None, alias="accountUID")
    grant: GrantStatus
    drain: DrainStatus = Field(default_factory=DrainStatus)
    conditions: list[Condition] = Field(default_factory=list)
    circuit_breaker: CircuitBreakerStatus | None = None
    safe_mode: SafeModeStatus
    balance: BalanceStatus | None = None
    position: PositionStatus | None = None
    pnl: PnLStatus | None = None
    risk: RiskStatus | None = None
    orders: OrdersStatus | None = None
    trades: TradesStatus | None = None
    api: APIStatus | None = None
    usage: UsageStatus | None = None
    open_orders: list[OpenOrder] = Field(default_factory=list)
    oco_orders: list[ProtectionPair] = Field(default_factory=list)
    foreign_orders: list[str] = Field(default_factory=list)
    """Client ids of open orders on the symbol that are not this bot's."""
    announced: bool = False
    """This process start has shown itself on the exchange and cancelled that order: no entry of it rests any more."""
    unprotected_seconds: float = 0.0
    base_claim: AssetClaim | None = None
    """Its position."""
    quote_claim: AssetClaim | None = None
    """Its capital less what was lost and what the position cost."""
    account_books: AccountBooks | None = None
    fleet: FleetReport | None = None
    """Of a bot that knows that it belongs to a limited fleet: None with versions that know of none."""
    weight: WeightUse | None = None
    order_use: OrderUse | None = None


class BotInfo(WireModel):
    """Versions of a bot."""

    version: str
    protocol: int = PROTOCOL_VERSION
    bot_uid: str
    boot_id: str


class FieldError(WireModel):
    """One field that cannot be applied."""

    field: str
    message: str


class ErrorReply(WireModel):
    """Why a call was refused."""

    code: str
    message: str
    fields: list[FieldError] = Field(default_factory=list)
