"""The unit of times: clients may send milliseconds or microseconds, and ask for answers in either."""

from __future__ import annotations

from typing import Any, Final

from paper_exchange.core.errors import ExchangeError

_MICROSECONDS_FROM: Final = 10**14
"""A time of this size is meant in microseconds; in milliseconds it would be in the year 5138."""
_TIMES: Final = frozenset(
    (
        "serverTime",
        "time",
        "updateTime",
        "workingTime",
        "transactTime",
        "transactionTime",
        "trailingTime",
        "openTime",
        "closeTime",
        "authorizedSince",
        "connectedSince",
        "T",
        "E",
    )
)
_KLINE_LENGTH: Final = 12
_KLINE_TIMES: Final = (0, 6)


def microseconds(stamp: int) -> int:
    """A client's time in microseconds, whichever of the two units it was sent in."""
    return stamp if stamp >= _MICROSECONDS_FROM else stamp * 1000


def milliseconds(stamp: int | None) -> int | None:
    """A client's time in milliseconds, whichever of the two units it was sent in; None stays None."""
    return stamp if stamp is None else microseconds(stamp) // 1000


def wants_microseconds(unit: str | None) -> bool:
    """What a client asked for by header or parameter; -1194 for anything but the two units, in either case."""
    if unit is None or unit in ("MILLISECOND", "millisecond"):
        return False
    if unit in ("MICROSECOND", "microsecond"):
        return True
    raise ExchangeError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")


def in_microseconds(answer: Any) -> Any:
    """An answer whose times are told in microseconds; a time of -1 (not yet) stays what it is."""
    if isinstance(answer, dict):
        return {
            name: value * 1000 if name in _TIMES and isinstance(value, int) and value > 0 else in_microseconds(value)
            for name, value in answer.items()
        }
    if isinstance(answer, list):
        if len(answer) == _KLINE_LENGTH and isinstance(answer[0], int):
            # The last millisecond of a candle, 59999, is 59999999 in microseconds.
            return [
                value * 1000 + (999 if place else 0) if place in _KLINE_TIMES else value
                for place, value in enumerate(answer)
            ]
        return [in_microseconds(one) for one in answer]
    return answer
