"""The TradingBot resource, version v1alpha1: the models from which its CRD is generated."""

from __future__ import annotations

import json
import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from string import Template
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from tradingbot_api.base import Amount, Model, Ratio, SignedDecimal, WireModel

LONGEST_NAME = 52


class Environment(StrEnum):
    """Which exchange the bot talks to."""

    PAPER = "Paper"
    TESTNET = "Testnet"
    LIVE = "Live"


class PositionPolicy(StrEnum):
    """What happens to an open position: Hold keeps it with its protection, ClosePosition sells it."""

    HOLD = "Hold"
    CLOSE_POSITION = "ClosePosition"


class UpdateStrategy(StrEnum):
    """Whether a new image or pod shape may restart a running bot: only by hand, once it is flat, or at once."""

    MANUAL = "Manual"
    WHEN_FLAT = "WhenFlat"
    IMMEDIATE = "Immediate"


class ReclaimPolicy(StrEnum):
    """What happens to the bot's volume when the TradingBot is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Interval(StrEnum):
    """Binance's candle intervals up to a day."""

    S1 = "1s"
    M1 = "1m"
    M3 = "3m"
    M5 = "5m"
    M15 = "15m"
    M30 = "30m"
    H1 = "1h"
    H2 = "2h"
    H4 = "4h"
    H6 = "6h"
    H8 = "8h"
    H12 = "12h"
    D1 = "1d"


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected an integer or a string, got {value!r}")
    return value


IntOrString = Annotated[
    int | str, BeforeValidator(_int_or_string), WithJsonSchema({"x-kubernetes-int-or-string": True})
]
QUANTITY_PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _quantity(value: Any) -> int | str:
    amount = _int_or_string(value)
    if not re.fullmatch(QUANTITY_PATTERN, str(amount)):
        raise ValueError(f"expected an amount such as 100m, 1 or 256Mi, got {amount!r}")
    return amount


Quantity = Annotated[
    int | str,
    BeforeValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY_PATTERN}),
]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{5,20}$")]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Free = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]


def _rules(*rules: tuple[str, str, str]) -> ConfigDict:
    """CEL rules of an object as (rule, field path, message)."""
    return ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": rule, "fieldPath": path, "message": message} for rule, path, message in rules
            ]
        }
    )


class CredentialsSecretRef(Model):
    """The Secret that holds the exchange keys."""

    name: ObjectName = Field(
        description="Name of a Secret in this namespace with the keys apiKey and apiSecret (HMAC) or "
        "apiKey and privateKey (Ed25519, PEM). It may be rotated; the account may not change."
    )


class Exchange(Model):
    """Where the bot trades and with which keys."""

    model_config = _rules(
        (
            "self.environment == 'Paper' ? has(self.baseURL) : !has(self.baseURL)",
            ".baseURL",
            "baseURL is required with environment Paper, and only allowed there",
        )
    )

    environment: Environment = Field(
        description="Paper is a paper exchange at baseURL, Testnet is Binance's Spot Testnet, Live trades real "
        "money. Immutable.",
        json_schema_extra={
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "environment is immutable"}]
        },
    )
    base_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+$", max_length=253)] | None = Field(
        default=None,
        alias="baseURL",
        description="Address of the paper exchange, for example http://paper-exchange:8080.",
    )
    credentials_secret_ref: CredentialsSecretRef = Field(description="The Secret that holds the exchange keys.")
    allow_withdraw_key: bool = Field(
        default=False,
        description="Trade also with a key that may withdraw. Without it such a key adds no exposure: what it holds "
        "is protected and sold, and BalanceSynced says KeyCanWithdraw. The Testnet does not tell what a key may do.",
    )

    weight_share_percent: StrictInt = Field(
        default=100,
        ge=1,
        le=100,
        description="The most of the exchange's request weight per minute and address that this bot may use, whatever "
        "its operator allots it; without an operator, with ten bots behind one address about 10. A fifth of it is kept "
        "for cancels, protection and exits, which never wait.",
    )

    @model_validator(mode="after")
    def _base_url_belongs_to_paper(self) -> Self:
        if (self.environment is Environment.PAPER) != (self.base_url is not None):
            raise ValueError("baseURL is required with environment Paper, and only allowed there")
        return self


class StrategiesConfigMapRef(Model):
    """The ConfigMap with strategies of one's own."""

    name: ObjectName = Field(
        description="Name of a ConfigMap in this namespace whose keys end in .py: Python files that define strategies. "
        "They are read when the bot starts, and run beside its keys: who may write it trades with them."
    )


class Strategy(Model):
    """What decides when to buy and sell."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] = Field(
        description="Name of the strategy: one that is built in, for example ema-cross, one of a package in the bot's "
        "image, or one of configMapRef."
    )
    config_map_ref: StrategiesConfigMapRef | None = Field(
        default=None, description="Where to find strategies of one's own."
    )
    interval: Interval = Field(description="Candle interval; decisions are made when a candle closes.")
    parameters: dict[str, IntOrString] = Field(
        default_factory=dict,
        max_length=32,
        description="The strategy's own parameters, checked by the bot: a wrong one is reported in the condition "
        "ConfigApplied with the parameter's name.",
    )


class Entry(Model):
    """Limits on how a position is opened."""

    max_slippage_ratio: Ratio = Field(
        default=Decimal("0.001"),
        description="How far above the best ask the entry may be filled, as a share of it.",
    )
    max_spread_ratio: Ratio = Field(
        default=Decimal("0.001"),
        description="No entry while (ask - bid) / bid is larger than this.",
    )
    max_data_age_seconds: StrictInt = Field(
        default=5, ge=1, le=300, description="No entry on market data older than this."
    )
    max_per_minute: StrictInt = Field(default=10, ge=1, le=60, description="At most this many entries a minute.")
    max_age_seconds: StrictInt = Field(
        default=86_400,
        ge=60,
        le=604_800,
        description="An order to buy that rests for longer than this is canceled; what protects a position never is.",
    )


class Protection(Model):
    """The stop and the take-profit that every position has on the exchange."""

    model_config = _rules(
        (
            "!has(self.trailingRatio) || !isQuantity(self.trailingRatio) || !isQuantity(self.stopLossRatio) || "
            "quantity(self.trailingRatio).compareTo(quantity(self.stopLossRatio)) <= 0",
            ".trailingRatio",
            "trailingRatio must not exceed stopLossRatio",
        ),
        (
            "!has(self.trailingRatio) || self.trailingRatio.matches('^0[.][0-9]{1,4}0*$')",
            ".trailingRatio",
            "trailingRatio must be whole hundredths of a percent, such as 0.0125",
        ),
    )

    stop_loss_ratio: Ratio = Field(description="Distance of the stop below the entry price, as a share of it.")
    take_profit_ratio: Ratio = Field(description="Distance of the take-profit above the entry price, as a share of it.")
    deadline_seconds: StrictInt = Field(
        default=10,
        ge=1,
        le=300,
        description="A position without protection for longer than this is sold at the market.",
    )

    trailing_ratio: Ratio | None = Field(
        default=None,
        description="The stop follows the price upwards: the exchange sells once the price has fallen by this share "
        "from its highest since the entry. At most stopLossRatio. Absent: the stop stays where it is.",
    )

    @model_validator(mode="after")
    def _trailing_is_a_tighter_stop(self) -> Self:
        if self.trailing_ratio is not None:
            if self.trailing_ratio > self.stop_loss_ratio:
                raise ValueError("trailingRatio must not exceed stopLossRatio")
            if self.trailing_ratio % Decimal("0.0001"):
                raise ValueError("trailingRatio must be whole hundredths of a percent, such as 0.0125")
        return self


class Volatility(Model):
    """How the market's volatility, the standard deviation of the candles' returns, is judged."""

    window: StrictInt = Field(default=20, ge=2, le=1000, description="So many of the last returns are looked at.")
    high_threshold: Ratio = Field(
        default=Decimal("0.05"),
        description="Above it the volatility is high and the risk level HIGH. Up to half of it an entry takes the "
        "whole riskPerTradeRatio, above less in proportion: half at the threshold, a quarter at twice the threshold.",
    )


class Risk(Model):
    """How much may be lost before the bot stops opening positions."""

    risk_per_trade_ratio: Ratio = Field(
        default=Decimal("0.01"),
        description="Share of the capital that is lost if the stop is hit, fees included; less in a volatile market.",
    )
    max_position_value: Amount = Field(description="Largest value of the position, in the quote asset.")
    max_daily_loss: Amount = Field(
        description="Loss since 00:00 UTC, in the quote asset, at which entries stop until the next day. An entry is "
        "so small that its stop, 1 % missed, keeps the loss within it."
    )
    max_drawdown_ratio: Ratio = Field(
        default=Decimal("0.15"),
        description="Fall of the equity from its peak, as a share of it, at which entries stop until it is cleared. "
        "An entry is so small that its stop, 1 % missed, keeps the drawdown within it.",
    )
    volatility: Volatility = Field(
        default_factory=Volatility,
        json_schema_extra={"default": {}},
        description="How the market's volatility is judged.",
    )
    cooldown_seconds: StrictInt = Field(
        default=300, ge=0, le=86400, description="No entry for this long after a stop-loss was hit."
    )


class CircuitBreaker(Model):
    """When the bot stops calling an exchange that fails."""

    failure_threshold: StrictInt = Field(
        default=5, ge=1, le=100, description="Consecutive failed calls that open the circuit."
    )
    recovery_timeout_seconds: StrictInt = Field(
        default=300, ge=1, le=3600, description="How long the circuit stays open before one call probes."
    )


class NotificationKind(StrEnum):
    """What a bot may tell a webhook."""

    ENTRY_FILLED = "EntryFilled"
    ENTRY_EXPIRED = "EntryExpired"
    ENTRY_UNKNOWN = "EntryUnknown"
    TAKE_PROFIT = "TakeProfit"
    STOP_LOSS = "StopLoss"
    EXITED = "Exited"
    PROTECTION_LOST = "ProtectionLost"
    PROTECTION_RESTORED = "ProtectionRestored"
    TWO_TRADERS = "TwoTraders"
    UNKNOWN_RESOLVED = "UnknownResolved"
    FOREIGN_ORDER = "ForeignOrder"
    FOREIGN_ORDER_GONE = "ForeignOrderGone"
    BOOKS_DIFFER = "BooksDiffer"
    CIRCUIT_BREAKER = "CircuitBreaker"
    SAFE_MODE = "SafeMode"
    NOT_CONNECTED = "NotConnected"
    CONNECTED = "Connected"
    REFUSED = "Refused"
    SIGNAL = "Signal"


USUAL_NOTIFICATIONS = tuple(
    kind for kind in NotificationKind if kind not in {"EntryExpired", "Connected", "Refused", "Signal"}
)
TEMPLATE_WORDS = ("bot", "kind", "message", "namespace", "price", "quantity", "suppressed", "symbol", "time")


class Notifications(Model):
    """Messages of the bot to a webhook, for example of Slack or Telegram."""

    url_key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = Field(
        default="webhookURL",
        alias="urlKey",
        description="Key of the credentials Secret with the address that is posted to; it may be changed at any time.",
    )
    template: Annotated[str, StringConstraints(min_length=2, max_length=4096)] = Field(
        default='{"text": "$bot ($symbol) $kind: $message"}',
        description="The body, as JSON in whose strings these words are replaced: "
        f"{', '.join('$' + word for word in TEMPLATE_WORDS)}. $$ is a dollar sign.",
    )
    kinds: list[NotificationKind] = Field(
        default=list(USUAL_NOTIFICATIONS),
        min_length=1,
        max_length=len(NotificationKind),
        description="What is told; absent: all but EntryExpired, Connected, Refused and Signal.",
    )
    min_interval_seconds: StrictInt = Field(
        default=60,
        ge=1,
        le=86400,
        description="Of each kind at most one message in this time: the last one, with the number of those before it "
        "that were left out as $suppressed.",
    )

    @field_validator("template")
    @classmethod
    def _template_gives_json(cls, template: str) -> str:
        try:
            body = Template(template).substitute(dict.fromkeys(TEMPLATE_WORDS, "1"))
        except KeyError as error:
            raise ValueError(f"expected words of {', '.join(TEMPLATE_WORDS)}, got ${error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"expected $word or $$ for a dollar sign: {error}") from None
        try:
            json.loads(body)
        except ValueError as error:
            raise ValueError(f"expected JSON once the words are replaced: {error}") from None
        return template


class Storage(Model):
    """The volume that holds the bot's store of orders and fills."""

    size: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")] = Field(
        default="1Gi",
        description="Size of the volume. Immutable.",
        json_schema_extra={"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "size is immutable"}]},
    )
    reclaim_policy: ReclaimPolicy = Field(
        default=ReclaimPolicy.RETAIN,
        description="Whether the volume outlives the TradingBot. Immutable.",
        json_schema_extra={
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "reclaimPolicy is immutable"}]
        },
    )


class ImagePullSecret(Model):
    """A Secret with registry credentials."""

    name: ObjectName = Field(description="Name of the Secret.")


class Resources(Model):
    """Compute resources of the bot's container."""

    requests: dict[str, Quantity] = Field(
        default_factory=dict, max_length=8, description="Requested amounts by resource name."
    )
    limits: dict[str, Quantity] = Field(
        default_factory=dict, max_length=8, description="Upper limits by resource name."
    )


class Pod(Model):
    """What may be changed about the bot's pod; updateStrategy says when it takes effect."""

    image: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None, description="Image of the bot; the operator's default where absent."
    )
    resources: Resources | None = Field(
        default=None, description="Compute resources; the operator's defaults where absent."
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="Labels that the node must have."
    )
    tolerations: list[Free] = Field(default_factory=list, max_length=32, description="Tolerations of the pod.")
    affinity: Free | None = Field(default=None, description="Affinity of the pod.")
    labels: dict[str, str] = Field(default_factory=dict, max_length=32, description="Further labels of the pod.")
    annotations: dict[str, str] = Field(
        default_factory=dict, max_length=32, description="Further annotations of the pod."
    )
    priority_class_name: Annotated[str, StringConstraints(max_length=253)] | None = Field(
        default=None, description="Priority class of the pod."
    )
    image_pull_secrets: list[ImagePullSecret] = Field(
        default_factory=list, max_length=8, description="Secrets with registry credentials."
    )


class BotSettings(Model):
    """The part of a TradingBot's spec that the bot itself acts on."""

    symbol: Symbol = Field(
        description="Trading pair in Binance's spelling, for example BTCUSDT. Immutable.",
        json_schema_extra={"x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "symbol is immutable"}]},
    )
    exchange: Exchange = Field(description="Where the bot trades and with which keys.")
    strategy: Strategy = Field(description="What decides when to buy and sell.")
    capital: Amount = Field(
        description="Quote asset the bot may use: entries and the cost of the position never exceed it."
    )
    entry: Entry = Field(
        default_factory=Entry,
        json_schema_extra={"default": {}},
        description="Limits on how a position is opened.",
    )
    protection: Protection = Field(description="The stop and the take-profit that every position has on the exchange.")
    risk: Risk = Field(description="How much may be lost before the bot stops opening positions.")
    circuit_breaker: CircuitBreaker = Field(
        default_factory=CircuitBreaker,
        json_schema_extra={"default": {}},
        description="When the bot stops calling an exchange that fails.",
    )
    notifications: Notifications | None = Field(
        default=None, description="Messages to a webhook; absent: none. Alerting rules for Prometheus need none."
    )
    safe_mode: StrictBool | None = Field(
        default=None,
        description="true: no entry is sent and resting entries are cancelled; an open position stays protected. "
        "Absent means false, and has no default, so that an emergency patch survives a kubectl apply of the manifest.",
    )
    safe_mode_policy: PositionPolicy | None = Field(
        default=None,
        description="What spec.safeMode does with an open position: Hold keeps it, protected, ClosePosition sells it. "
        "Absent means Hold, and has no default, as safeMode has none.",
    )

    @model_validator(mode="after")
    def _position_fits_capital(self) -> Self:
        if self.risk.max_position_value > self.capital:
            raise ValueError("risk.maxPositionValue must not exceed capital")
        return self


class TradingBotSpec(BotSettings):
    """What the user wants."""

    model_config = _rules(
        (
            "self.exchange.environment != 'Live' || has(self.storage)",
            ".storage",
            "storage is required with environment Live",
        ),
        (
            # Silent where a pattern has refused a figure already.
            "!isQuantity(self.risk.maxPositionValue) || !isQuantity(self.capital) || "
            "quantity(self.risk.maxPositionValue).compareTo(quantity(self.capital)) <= 0",
            ".risk.maxPositionValue",
            "risk.maxPositionValue must not exceed capital",
        ),
        (
            "has(self.storage) == has(oldSelf.storage)",
            ".storage",
            "storage cannot be added or removed later",
        ),
    )

    deletion_policy: PositionPolicy = Field(
        default=PositionPolicy.HOLD,
        description="On deletion entries are cancelled; Hold leaves the position and its protection on the exchange, "
        "ClosePosition sells it.",
    )
    deletion_deadline_seconds: StrictInt = Field(
        default=120,
        ge=10,
        le=3600,
        description="After this long a deletion goes on although the bot could not finish, and reports what is left.",
    )
    suspend: StrictBool | None = Field(
        default=None,
        description="true: entries are cancelled and the pod ends; an open position keeps its protection on the "
        "exchange. Absent means false, and has no default, so that a patch survives a kubectl apply of the manifest.",
    )
    update_strategy: UpdateStrategy = Field(
        default=UpdateStrategy.MANUAL,
        description="Whether a new image or pod shape restarts a running bot: Manual never does and shows "
        "UpToDate=False; WhenFlat waits until there is no position and cancels entries first; Immediate cancels "
        "entries and restarts it, an open position keeps its protection on the exchange. A pod whose container "
        "does not run is replaced in any case.",
    )
    storage: Storage | None = Field(
        default=None,
        description="The volume that holds the bot's store of orders and fills; without it the store lives as long "
        "as the pod. Required with environment Live.",
    )
    pod: Pod = Field(
        default_factory=Pod,
        json_schema_extra={"default": {}},
        description="What may be changed about the bot's pod.",
    )

    @model_validator(mode="after")
    def _live_needs_storage(self) -> Self:
        if self.exchange.environment is Environment.LIVE and self.storage is None:
            raise ValueError("storage is required with environment Live")
        return self


# --- status: no enums in the schema, so that an older CRD never refuses a newer operator's word ---


class CircuitBreakerStatus(WireModel):
    """The circuit breaker around the exchange."""

    state: str = Field(description="Closed, Open or HalfOpen.")
    failures: int = Field(default=0, description="Consecutive failures counted.")
    since_time: datetime | None = Field(default=None, description="When the state was entered.")
    next_probe_time: datetime | None = Field(default=None, description="When an open circuit is next probed.")


class SafeModeCause(WireModel):
    """One reason why entries are forbidden."""

    id: str = Field(description="Stable name of the cause.")
    source: str = Field(description="Spec, KillSwitch, ClusterKillSwitch, Pod, Operator, Bot or Command.")
    reason: str = Field(description="CamelCase reason.")
    level: str = Field(description="NoNewEntries, ReduceOnly or Halted.")
    since_time: datetime | None = Field(default=None, description="When it began.")
    clears: str = Field(default="", description="What ends it.")
    message: str | None = Field(default=None, description="What whoever imposed it from outside the spec says of it.")


class SafeModeStatus(WireModel):
    """Safe mode: the strictest of all causes is in force."""

    level: str = Field(description="Normal, NoNewEntries, ReduceOnly or Halted.")
    engaged: bool = Field(description="No entry is sent from now on.")
    acknowledged: bool = Field(
        description="Engaged, and no entry of this bot is working, in flight or unknown on the exchange."
    )
    causes: list[SafeModeCause] = Field(default_factory=list, description="All causes in force.")


class BalanceStatus(WireModel):
    """The account's balances of the two assets, free and locked together."""

    base: SignedDecimal = Field(description="Base asset.")
    quote: SignedDecimal = Field(description="Quote asset.")
    drift: SignedDecimal = Field(description="Account base minus what the bot's books say it holds at least.")
    last_sync_time: datetime | None = Field(default=None, description="When the account was last read.")


class PositionStatus(WireModel):
    """The position, folded from the exchange's own fills."""

    side: str = Field(description="Long or Flat.")
    quantity: SignedDecimal = Field(description="Base asset held.")
    average_price: SignedDecimal = Field(description="Average cost of a unit, in quote.")
    value: SignedDecimal = Field(description="Quantity at the best bid, in quote.")
    validated: bool = Field(description="It agrees with the account and with its protection.")


class PnLStatus(WireModel):
    """Profit and loss in the quote asset."""

    realized: SignedDecimal = Field(description="Of closed quantity, after fees.")
    unrealized: SignedDecimal = Field(description="Of the open position at the best bid.")
    total: SignedDecimal = Field(description="realized + unrealized.")
    fees: dict[str, SignedDecimal] = Field(default_factory=dict, description="Fees paid, by asset.")
    max_drawdown: SignedDecimal | None = Field(default=None, description="Largest fall from the peak equity, a ratio.")
    sharpe: SignedDecimal | None = Field(
        default=None,
        description="Mean over standard deviation of the returns of closed trades; not annualised.",
    )


class RiskStatus(WireModel):
    """The market and the account as the risk manager sees them."""

    level: str = Field(description="LOW, MEDIUM or HIGH.")
    volatility: SignedDecimal | None = Field(default=None, description="Standard deviation of recent returns.")
    drawdown: SignedDecimal = Field(description="Present fall from the peak equity, a ratio.")
    daily_loss: SignedDecimal | None = Field(default=None, description="Loss since 00:00 UTC, in quote.")
    daily_loss_overshoot: SignedDecimal | None = Field(
        default=None, description="How far the day's loss went past maxDailyLoss, by a gap or slippage; absent: not."
    )
    drawdown_overshoot: SignedDecimal | None = Field(
        default=None, description="How far the drawdown went past maxDrawdownRatio until it is cleared; absent: not."
    )


class OrdersStatus(WireModel):
    """Counts of this bot's open orders."""

    active: int = Field(default=0, description="Open orders.")
    oco: int = Field(default=0, description="Open order lists.")
    foreign: int = Field(default=0, description="Open orders of others on the symbol, which are left alone.")
    last_check_time: datetime | None = Field(default=None, description="When open orders were last read.")


class TradesStatus(WireModel):
    """Figures of round trips, see docs/performance.md."""

    total: int = Field(default=0, description="Closed round trips.")
    successful: int = Field(default=0, description="Of these, with a profit.")
    failed: int = Field(default=0, description="Of these, with a loss or none.")
    win_rate: SignedDecimal | None = Field(default=None, description="successful / total.")
    profit_factor: SignedDecimal | None = Field(
        default=None, description="Sum of the profits over sum of the losses; absent without a loss."
    )
    exposure: SignedDecimal | None = Field(
        default=None, description="Share of the time with a position, until the last trade closed."
    )


class APIStatus(WireModel):
    """Calls to the exchange since the process started."""

    calls: int = Field(default=0, description="Requests sent.")
    errors: int = Field(default=0, description="Requests that failed.")
    last_error: str | None = Field(default=None, description="The last failure, without secrets.")
    egress_group: str | None = Field(
        default=None, description="The group of bots that share its address, as the operator was told (--egress-group)."
    )
    wait_until_time: datetime | None = Field(
        default=None, description="Until then the exchange told a bot of the group to send nothing (429, 418)."
    )


class UsageStatus(WireModel):
    """What the bot's process uses."""

    memory_bytes: int = Field(default=0, description="Resident memory.")
    cpu_seconds: SignedDecimal = Field(
        default="0", validate_default=True, description="CPU time since the process started."
    )


class DrainedStatus(WireModel):
    """How the bot ended when its TradingBot was deleted or suspended."""

    position_policy: str = Field(description="Hold or ClosePosition: what the bot was asked to do.")
    remaining: list[str] = Field(
        default_factory=list, description="What stays on the exchange: the position and every order, a line each."
    )


class Condition(WireModel):
    """A Kubernetes condition."""

    type: str = Field(description="Type of the condition.")
    status: str = Field(description="True, False or Unknown.")
    reason: str = Field(description="CamelCase reason.")
    message: str = Field(default="", description="What happened and what to do.")
    last_transition_time: datetime | None = Field(default=None, description="When the status last changed.")
    observed_generation: int | None = Field(default=None, description="Generation of the spec it speaks of.")


class TradingBotStatus(WireModel):
    """What is; a field that is no longer known is absent."""

    observed_generation: int | None = Field(default=None, description="Generation of the spec this status speaks of.")
    phase: str | None = Field(default=None, description="Summary for display, derived from the conditions.")
    conditions: list[Condition] = Field(
        default_factory=list,
        description="The truth about this bot, one condition a question.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    pod_name: str | None = Field(default=None, description="The bot's pod.")
    pod_uid: str | None = Field(
        default=None,
        alias="podUID",
        description="UID of the bot's pod; of one that vanished, until its process is certainly gone.",
    )
    incarnation: int | None = Field(default=None, description="Number of the present process start; only grows.")
    account_uid: str | None = Field(default=None, alias="accountUID", description="The exchange account's uid.")
    quote_asset: str | None = Field(
        default=None, description="The quote asset of its symbol, in which its figures are; as the bot last told."
    )
    account_rest: dict[str, SignedDecimal] | None = Field(
        default=None,
        description="What of the account should be no bot's, of the bot's base and quote asset: what it has less what "
        "the fills of all its bots changed there.",
    )
    exposure_bound: SignedDecimal | None = Field(
        default=None,
        description="In a set with limits: the most exposure at cost, in quote, that may be granted to it, and that it "
        "counts with until it tells what it has.",
    )
    circuit_breaker: CircuitBreakerStatus | None = Field(default=None, description="Circuit breaker.")
    safe_mode: SafeModeStatus | None = Field(default=None, description="Safe mode.")
    balance: BalanceStatus | None = Field(default=None, description="Balances of the account.")
    position: PositionStatus | None = Field(default=None, description="The position.")
    pnl: PnLStatus | None = Field(default=None, description="Profit and loss.")
    risk: RiskStatus | None = Field(default=None, description="Risk.")
    orders: OrdersStatus | None = Field(default=None, description="Open orders.")
    trades: TradesStatus | None = Field(default=None, description="Round trips.")
    api: APIStatus | None = Field(default=None, description="Calls to the exchange.")
    usage: UsageStatus | None = Field(default=None, description="Process usage.")
    drained: DrainedStatus | None = Field(
        default=None, description="While it is deleted or suspended: the bot has finished, and its pod may end."
    )
