"""Parameters of the public endpoints: symbols, time zones and windows, and how wrong ones are refused."""

from __future__ import annotations

import json
import re
from typing import Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, illegal
from paper_exchange.core.exchange import Exchange
from paper_exchange.endpoint import Params

_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_SYMBOL: Final = re.compile(r"[A-Z0-9\-_.]{1,20}")
_SYMBOL_PATTERN: Final = "^[A-Z0-9-_.]{1,20}$"
_SYMBOLS_PATTERN: Final = '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$'
_WINDOW: Final = re.compile(r"(?:([1-9]|[1-5][0-9])m)|(?:([1-9]|1[0-9]|2[0-3])h)|(?:([1-7])d)")
_ZONE: Final = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-9]{2}))?")
_WEST_MS, _EAST_MS = -12 * _HOUR_MS, 14 * _HOUR_MS


def symbol_of(params: Params) -> str:
    """The mandatory parameter `symbol`; -1100 for what cannot be one."""
    symbol = requests.required(params, "symbol")
    if not _SYMBOL.fullmatch(symbol):
        raise illegal("symbol", _SYMBOL_PATTERN)
    return symbol


def symbols_of(params: Params, exchange: Exchange) -> list[str]:
    """The symbols asked for by `symbol` or `symbols`, else all."""
    several = requests.text_of(params, "symbols")
    if requests.text_of(params, "symbol") is not None:
        if several is not None:
            raise ExchangeError(-1128, "Combination of optional parameters invalid.")
        return [exchange.market(symbol_of(params)).rules.symbol]
    if several is None:
        return list(exchange.markets)
    names = listed(several)
    if not names:
        raise illegal("symbols", _SYMBOLS_PATTERN)
    if len(set(names)) < len(names):
        raise ExchangeError(-1151, "Symbol is present multiple times in the list.")
    return [exchange.market(name).rules.symbol for name in names]


def window_of(params: Params) -> int:
    """The ms of the parameter `windowSize`, a day when absent."""
    return parse_window(requests.text_of(params, "windowSize") or "1d")


def parse_window(size: str) -> int:
    """The ms of a window: 1m to 59m, 1h to 23h, 1d to 7d."""
    match = _WINDOW.fullmatch(size)
    if match is None:
        raise ExchangeError(-1130, "Data sent for parameter 'windowSize' is not valid.")
    minutes, hours, days = (int(part or 0) for part in match.groups())
    return minutes * _MINUTE_MS + hours * _HOUR_MS + days * _DAY_MS


def listed(symbols: str) -> list[str]:
    """The names in a JSON list, empty for anything else."""
    try:
        names = json.loads(symbols)
    except (ValueError, RecursionError):
        return []
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []


def zone_offset(params: Params) -> int:
    """How many ms the time zone of the parameter `timeZone`, such as `-1:00`, `05:45` or `8`, is ahead of UTC."""
    asked = requests.text_of(params, "timeZone")
    if asked is None:
        return 0
    match = _ZONE.fullmatch(asked)
    if match is not None:
        minutes = int(match[2]) * 60 + int(match[3] or 0)
        offset = (-minutes if match[1] == "-" else minutes) * _MINUTE_MS
        if int(match[3] or 0) < 60 and _WEST_MS <= offset <= _EAST_MS:
            return offset
    raise ExchangeError(-1130, "Data sent for parameter 'timeZone' is not valid.")
