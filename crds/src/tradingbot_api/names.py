"""Every name, label, path and port that operator, bot and chart must agree on."""

from __future__ import annotations

import hashlib
from base64 import b32encode
from typing import Final, NamedTuple
from urllib.parse import urlsplit

GROUP: Final = "tradingbot.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "TradingBot"
PLURAL: Final = "tradingbots"


class Resource(NamedTuple):
    """A kind of the group."""

    kind: str
    plural: str
    namespaced: bool = True


TRADING_BOT: Final = Resource(KIND, PLURAL)
TRADING_BOT_SET: Final = Resource("TradingBotSet", "tradingbotsets")
KILL_SWITCH: Final = Resource("KillSwitch", "killswitches")
CLUSTER_KILL_SWITCH: Final = Resource("ClusterKillSwitch", "clusterkillswitches", namespaced=False)

FINALIZER: Final = f"{GROUP}/drain"
RELEASE_FINALIZER: Final = f"{GROUP}/release"
"""On a kill switch: it goes when it was released and no bot has it any more."""
FIELD_MANAGER: Final = "tradingbot-operator"
SET_FIELD_MANAGER: Final = "tradingbot-set"
"""Owns the fields of a TradingBot that its set names."""
SET_STOPS_FIELD_MANAGER: Final = "tradingbot-set-stops"
"""Owns safeMode and suspend of a TradingBot where its set names them."""
CLEAR_ANNOTATION: Final = f"{GROUP}/clear"
CONFIRM_STOPPED_ANNOTATION: Final = f"{GROUP}/confirm-stopped"
ADOPT_VOLUME_ANNOTATION: Final = f"{GROUP}/adopt-volume"
"""On a TradingBot: the UID of a volume claim that a former TradingBot of its name left, and that it may take up."""
SAFE_MODE_ANNOTATION: Final = f"{GROUP}/safe-mode"
"""On the bot's pod: any value but an empty one and `false` engages safe mode, without an operator."""
POD_TEMPLATE_ANNOTATION: Final = f"{GROUP}/pod-template"
BOT_LABEL: Final = f"{GROUP}/bot"
BOT_UID_LABEL: Final = f"{GROUP}/bot-uid"
SHARD_LABEL: Final = f"{GROUP}/shard"
"""On a TradingBot or a TradingBotSet: the name of the shard whose operator serves it; on a pod as it was made."""
SET_LABEL: Final = f"{GROUP}/set"
"""On a TradingBot: the name of the TradingBotSet that made it."""
SET_TEMPLATE_ANNOTATION: Final = f"{GROUP}/set-template"
"""On a TradingBot: a digest of what its set last applied to it."""
SET_STOPS_ANNOTATION: Final = f"{GROUP}/set-stops"
"""On a TradingBot: which of safeMode and suspend its set holds."""
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"

CONFIG_KEY: Final = "config.json"
CONFIG_DIR: Final = "/etc/tradingbot/config"
TLS_DIR: Final = "/etc/tradingbot/tls"
CREDENTIALS_VOLUME: Final = "credentials"
CREDENTIALS_DIR: Final = "/etc/tradingbot/credentials"
PODINFO_DIR: Final = "/etc/tradingbot/podinfo"
STRATEGIES_DIR: Final = "/etc/tradingbot/strategies"
ANNOTATIONS_FILE: Final = "annotations"
"""The pod's own annotations, as the downward API writes them."""
STATE_DIR: Final = "/var/lib/tradingbot"

CONTROL_PORT: Final = 8443
PROBE_PORT: Final = 8080
OPERATOR_PROBE_PORT: Final = 8080
OPERATOR_METRICS_PORT: Final = 9090

OPERATOR_SERVER_NAME: Final = f"operator.{GROUP}"


def config_map_name(bot: str) -> str:
    """The ConfigMap that holds the bot's configuration."""
    return f"{bot}-config"


def tls_secret_name(bot: str, uid: str) -> str:
    """The Secret with the bot's certificate; immutable, so a new TradingBot of that name has another."""
    return f"{bot}-tls-{uid[:8]}"


def volume_claim_name(bot: str) -> str:
    """The claim of the volume that holds the bot's store."""
    return f"{bot}-state"


def bot_server_name(uid: str) -> str:
    """The DNS name in the bot's certificate: the TradingBot's UID, not an address."""
    return f"{uid}.bot.{GROUP}"


def exchange_name(environment: str, base_url: str | None, namespace: str) -> str:
    """One name for one exchange: paper exchanges count their accounts alike, so their address is part of it.

    A Service's short name means the namespace of the bot; its longer names mean the same Service.
    """
    if base_url is None:
        return environment
    try:
        url = urlsplit(base_url.lower())
        port = url.port or {"https": 443}.get(url.scheme, 80)
    except ValueError:
        return f"{environment} {base_url}"
    host = (url.hostname or "").removesuffix(".").removesuffix(".cluster.local").removesuffix(".svc")
    if "." not in host and ":" not in host:
        host = f"{host}.{namespace}"
    return f"{environment} {url.scheme}://{host}:{port}"


def claim_name(exchange: str, account_uid: str, symbol: str) -> str:
    """The Lease that says who may trade `symbol` on the account of an exchange, as `exchange_name` names it.

    A hash keeps the account out of the name.
    """
    digest = hashlib.sha256(f"{exchange}|{account_uid}|{symbol}".encode()).hexdigest()
    return f"claim-{symbol.lower()}-{digest[:16]}"


def account_key(exchange: str, account_uid: str) -> str:
    """What metrics call an account of an exchange, as `exchange_name` names it."""
    return hashlib.sha256(f"{exchange}|{account_uid}".encode()).hexdigest()[:10]


def bot_key(account_uid: str, symbol: str) -> str:
    """The key of the one bot that may trade `symbol` on the account: 50 bits, the same in every process."""
    digest = hashlib.sha256(f"{account_uid}|{symbol}".encode()).digest()
    return b32encode(digest).decode()[:10].lower()


def order_prefix(account_uid: str, symbol: str) -> str:
    """How the client ids of all orders of a bot begin."""
    return f"tb-{bot_key(account_uid, symbol)}-"
