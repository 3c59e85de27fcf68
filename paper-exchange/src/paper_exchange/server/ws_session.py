"""One connection of the WebSocket API: the key it is logged on with, and its subscriptions to user events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from paper_exchange.auth import check_signature, check_time, find_key, unauthorized
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.keys import USER_DATA, ApiKey
from paper_exchange.venue import Venue

_ACTIVE: Final = 1000
_LIFETIME: Final = 65_535
"""Subscriptions that a connection may have at once, and in all."""

SESSION_METHODS: Final = (
    "session.logon",
    "session.status",
    "session.logout",
    "session.subscriptions",
    "userDataStream.subscribe",
    "userDataStream.subscribe.signature",
    "userDataStream.unsubscribe",
)
"""The methods of a connection's own."""

Tell = Callable[[int, int, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Subscription:
    key: ApiKey
    by_session: bool
    """Made with the key that the session is logged on with: it ends when that logs out."""
    end: Callable[[], None]


class Session:
    """What a connection may do without proving it again, and whose events it is told."""

    def __init__(self, venue: Venue, address: str, *, show_limits: bool, tell: Tell) -> None:
        """`tell` is called with the id of a subscription, its account and an event."""
        self._venue = venue
        self._address = address
        self._show_limits = show_limits
        self._tell = tell
        self._connected_ms = venue.now_ms()
        self._authorized_ms = 0
        self._key: ApiKey | None = None
        self._subscriptions: dict[int, _Subscription] = {}
        self._next = 0
        self.skew_ms = 0
        """How far the clock that the client sees is ahead, for the request at hand."""
        self.methods: dict[str, Callable[[dict[str, str]], Any]] = {
            "session.logon": self._log_on,
            "session.status": lambda _: self._status(),
            "session.logout": lambda _: self._log_out(),
            "session.subscriptions": lambda _: [{"subscriptionId": ident} for ident in self._subscriptions],
            "userDataStream.subscribe": self._subscribe,
            "userDataStream.subscribe.signature": self._subscribe_signed,
            "userDataStream.unsubscribe": self._unsubscribe,
        }

    # -- keys --------------------------------------------------------------------------------------------------

    def key_of(self, params: dict[str, str]) -> ApiKey:
        """The key that a request names, else the one of the session."""
        if "apiKey" not in params and self._key is not None:
            return self._key
        return find_key(self._venue.keys, params.get("apiKey"))

    def uid_of(self, params: dict[str, str]) -> int:
        """The account that a request is for, 0 where its key is nobody's."""
        key = self._venue.keys.get(params["apiKey"]) if "apiKey" in params else self._key
        return 0 if key is None else key.uid

    def prove(self, key: ApiKey, params: dict[str, str]) -> None:
        """The time is always checked; the signature, over all other parameters by name, unless the session has it."""
        check_time(params, self._venue.now_ms() + self.skew_ms)
        if "apiKey" not in params and key is self._key:
            return
        signed = sorted((name, value) for name, value in params.items() if name != "signature")
        raw = "&".join(f"{name}={value}" for name, value in signed)
        check_signature(key, [raw.encode(), urlencode(signed).encode()], params.get("signature"))

    def _proven(self, params: dict[str, str]) -> ApiKey:
        """The key that a request names and is signed with."""
        key = find_key(self._venue.keys, params.get("apiKey"))
        if not key.used_from(self._address):
            raise unauthorized()
        self.prove(key, params)
        return key

    def revoked(self) -> bool:
        """Whether the session's key is no longer one; it is logged out then."""
        if self._key is None or self._venue.keys.get(self._key.api_key) is self._key:
            return False
        self._key = None
        return True

    def on_key_deleted(self, key: ApiKey) -> None:
        """What was subscribed with the key ends at once."""
        self._end([ident for ident, one in self._subscriptions.items() if one.key.api_key == key.api_key])

    def _log_on(self, params: dict[str, str]) -> Any:
        key = self._proven(params)
        if key.kind != "ED25519":
            # What users of other keys report that Binance answers them, though their signature is right.
            raise ExchangeError(-1022, "Signature for this request is not valid.")
        self._key, self._authorized_ms = key, self._venue.now_ms()
        return self._status()

    def _log_out(self) -> Any:
        self._key = None
        self._end([ident for ident, one in self._subscriptions.items() if one.by_session])
        return self._status()

    def _status(self) -> Any:
        return {
            "apiKey": self._key.api_key if self._key is not None else None,
            "authorizedSince": self._authorized_ms if self._key is not None else None,
            "connectedSince": self._connected_ms,
            "returnRateLimits": self._show_limits,
            "serverTime": self._venue.now_ms() + self.skew_ms,
            "userDataStream": bool(self._subscriptions),
        }

    # -- user events -------------------------------------------------------------------------------------------

    def _subscribe(self, _params: dict[str, str]) -> Any:
        key = self._key if self._key is not None else find_key(self._venue.keys, None)
        return self._start(key, by_session=True)

    def _subscribe_signed(self, params: dict[str, str]) -> Any:
        return self._start(self._proven(params), by_session=False)

    def _start(self, key: ApiKey, *, by_session: bool) -> Any:
        if USER_DATA not in key.terms.permissions:
            raise unauthorized()
        if any(one.key.uid == key.uid for one in self._subscriptions.values()):
            raise ExchangeError(-2035, "User Data Stream subscription already active.")
        if len(self._subscriptions) >= _ACTIVE or self._next >= _LIFETIME:
            raise ExchangeError(-2042, "Maximum subscription ID reached for this connection.")
        ident = self._next
        self._next += 1
        end = self._venue.subscribe(key.uid, lambda event: self._tell(ident, key.uid, event))
        self._subscriptions[ident] = _Subscription(key, by_session, end)
        return {"subscriptionId": ident}

    def _unsubscribe(self, params: dict[str, str]) -> Any:
        asked = params.get("subscriptionId")
        if asked is not None and not (asked.isascii() and asked.isdigit()):
            raise illegal("subscriptionId", "^[0-9]{1,20}$")
        chosen = list(self._subscriptions) if asked is None else [int(asked)]
        if not chosen or any(ident not in self._subscriptions for ident in chosen):
            raise ExchangeError(-2036, "User Data Stream subscription not active.")
        self._end(chosen)
        return {}

    def _end(self, idents: list[int]) -> None:
        for ident in idents:
            ended = self._subscriptions.pop(ident)
            ended.end()
            self._tell(ident, ended.key.uid, {"e": "eventStreamTerminated", "E": self._venue.now_ms()})

    def close(self) -> None:
        """The connection is gone."""
        for subscription in self._subscriptions.values():
            subscription.end()
        self._subscriptions.clear()
