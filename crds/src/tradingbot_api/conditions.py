"""The condition types and reasons of a TradingBot: what people and alerts may rely on."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """Types of `status.conditions`; True is the good state unless the name says otherwise."""

    ACCEPTED = "Accepted"
    CLAIM_HELD = "ClaimHeld"
    POD_READY = "PodReady"
    BOT_REACHABLE = "BotReachable"
    CONFIG_APPLIED = "ConfigApplied"
    BALANCE_SYNCED = "BalanceSynced"
    CAPITAL_COVERED = "CapitalCovered"
    CIRCUIT_CLOSED = "CircuitClosed"
    PROTECTED = "Protected"
    SAFE_MODE_ENGAGED = "SafeModeEngaged"
    SAFE_MODE_ACKNOWLEDGED = "SafeModeAcknowledged"
    TRADING_ALLOWED = "TradingAllowed"
    UP_TO_DATE = "UpToDate"
    ADDRESS_SUFFICES = "AddressSuffices"
    READY = "Ready"


class Reason(StrEnum):
    """Reasons of conditions and of safe-mode causes, CamelCase as Kubernetes has it."""

    # any condition that holds without a story
    OK = "OK"
    # the bot has not said anything about it yet, or for too long
    UNKNOWN = "Unknown"
    STARTING = "Starting"
    # Accepted
    INVALID_SPEC = "InvalidSpec"
    FOREIGN_OBJECT = "ForeignObject"
    VOLUME_EXISTS = "VolumeExists"
    DELETING = "Deleting"
    STALLED = "Stalled"
    # ClaimHeld
    CLAIMED_BY_OTHER = "ClaimedByOther"
    CLAIM_REFUSED = "ClaimRefused"
    AWAITING_ACCOUNT = "AwaitingAccount"
    # PodReady
    POD_PENDING = "PodPending"
    POD_MISSING = "PodMissing"
    POD_NOT_READY = "PodNotReady"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOP = "CrashLoop"
    UNSCHEDULABLE = "Unschedulable"
    OUT_OF_MEMORY = "OutOfMemory"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    VOLUME_PENDING = "VolumePending"
    START_PACED = "StartPaced"
    SUSPENDED = "Suspended"
    # AddressSuffices
    TOO_MANY_BOTS = "TooManyBots"
    # UpToDate
    POD_OUTDATED = "PodOutdated"
    AWAITING_FLAT = "AwaitingFlat"
    AWAITING_TURN = "AwaitingTurn"
    UPDATING = "Updating"
    # BotReachable
    NO_HEARTBEAT = "NoHeartbeat"
    IDENTITY_MISMATCH = "IdentityMismatch"
    # ConfigApplied
    UNKNOWN_SYMBOL = "UnknownSymbol"
    UNKNOWN_STRATEGY = "UnknownStrategy"
    STRATEGY_PARAMETERS_INVALID = "StrategyParametersInvalid"
    STRATEGY_FAILED = "StrategyFailed"
    CONFIG_INVALID = "ConfigInvalid"
    CONFIG_PENDING = "ConfigPending"
    LOOSENING_NEEDS_SAFE_MODE = "LooseningNeedsSafeMode"
    # BalanceSynced
    EXACT = "Exact"
    COVERED = "Covered"
    ACCOUNT_SPLIT = "AccountSplit"
    DRIFT = "Drift"
    UNEXPLAINED = "Unexplained"
    CREDENTIALS_MISSING = "CredentialsMissing"
    CREDENTIALS_REJECTED = "CredentialsRejected"
    EXCHANGE_UNREACHABLE = "ExchangeUnreachable"
    KEY_CAN_WITHDRAW = "KeyCanWithdraw"
    KEY_CANNOT_TRADE = "KeyCannotTrade"
    ACCOUNT_CHANGED = "AccountChanged"
    NOT_RECONCILED = "NotReconciled"
    # CapitalCovered
    CAPITAL_NOT_COVERED = "CapitalNotCovered"
    # CircuitClosed
    CIRCUIT_OPEN = "CircuitOpen"
    CIRCUIT_HALF_OPEN = "CircuitHalfOpen"
    # Protected
    FLAT = "Flat"
    PROTECTED = "Protected"
    UNPROTECTED = "Unprotected"
    # safe mode
    ENGAGED = "Engaged"
    NOT_ENGAGED = "NotEngaged"
    SPEC = "Spec"
    KILL_SWITCH = "KillSwitch"
    POD_ANNOTATION = "PodAnnotation"
    AWAITING_GRANT = "AwaitingGrant"
    DAILY_LOSS = "DailyLoss"
    DRAWDOWN = "Drawdown"
    BREAKER_OPEN = "BreakerOpen"
    UNTRUSTED_BOOKS = "UntrustedBooks"
    UNKNOWN_ORDER = "UnknownOrder"
    EXCHANGE_RESET = "ExchangeReset"
    TWO_TRADERS = "TwoTraders"
    STORE_FAILED = "StoreFailed"
    DRAINING = "Draining"
    FLATTENED = "Flattened"
    ENTRIES_WORKING = "EntriesWorking"
    BOT_UNREACHABLE = "BotUnreachable"
    PROCESS_GONE = "ProcessGone"
    # TradingAllowed
    STREAM_DEAD = "StreamDead"
    SYMBOL_HALTED = "SymbolHalted"
    TEST_ORDER_REFUSED = "TestOrderRefused"
    COOLDOWN = "Cooldown"
    WARMING_UP = "WarmingUp"


class Phase(StrEnum):
    """The display column PHASE, derived from the conditions and nothing else."""

    PENDING = "Pending"
    STARTING = "Starting"
    TRADING = "Trading"
    SAFE_MODE = "SafeMode"
    PAUSED = "Paused"
    DEGRADED = "Degraded"
    UNREACHABLE = "Unreachable"
    INVALID = "Invalid"
    SUSPENDED = "Suspended"
    DRAINING = "Draining"
