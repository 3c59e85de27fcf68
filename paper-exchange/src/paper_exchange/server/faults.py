"""Faults that the control port switches on: for some seconds the exchange answers as a failing one does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

REST_STATUS: Final = "rest_status"


class FaultInvalidError(Exception):
    """A fault that is not understood; the message names the field, what was expected and what came."""

    code = "FaultInvalid"


@dataclass(frozen=True, slots=True)
class Fault:
    """Every REST call under /api is answered with `status` until `ends` (monotonic seconds)."""

    status: int
    ends: float

    def body(self) -> dict[str, Any]:
        """What Binance says with such a status."""
        if self.status == 429:
            return {"code": -1003, "msg": "Too many requests queued."}
        if self.status == 418:
            return {"code": -1003, "msg": "Way too much request weight used; IP banned."}
        return {"code": -1000, "msg": "Unknown error, please check your request or try again later."}


class Faults:
    """The fault in force, if any; time comes from a monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fault: Fault | None = None

    def start(self, request: Mapping[str, Any]) -> None:
        """Put {"kind": "rest_status", "status": 503, "seconds": 20} in force, in place of the one before."""
        if request.get("kind") != REST_STATUS:
            raise FaultInvalidError(f"kind: expected {REST_STATUS!r}, got {request.get('kind')!r}")
        status, seconds = request.get("status"), request.get("seconds")
        if type(status) is not int or not 400 <= status <= 599:
            raise FaultInvalidError(f"status: expected a whole number from 400 to 599, got {status!r}")
        if type(seconds) not in (int, float) or not seconds or not 0 < seconds <= 86_400:
            raise FaultInvalidError(f"seconds: expected a number above 0 and at most 86400, got {seconds!r}")
        self._fault = Fault(status, self._clock() + seconds)

    def clear(self) -> None:
        """End the fault."""
        self._fault = None

    def active(self) -> Fault | None:
        """The fault in force."""
        if self._fault and self._clock() >= self._fault.ends:
            self._fault = None
        return self._fault

    def describe(self) -> list[dict[str, Any]]:
        """The fault in force with the seconds it still lasts."""
        fault = self.active()
        if fault is None:
            return []
        left = round(fault.ends - self._clock(), 1)
        return [{"kind": REST_STATUS, "status": fault.status, "secondsLeft": left}]

    def retry_after(self) -> int:
        """Seconds until the fault ends, for the Retry-After header."""
        fault = self.active()
        return max(1, int(fault.ends - self._clock()) + 1) if fault else 0
