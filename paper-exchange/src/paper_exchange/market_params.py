"""Parameters of the public endpoints: symbols, time zones and windows, and how wrong ones are refused."""

from __future__ import annotations

import json
import re
from typing import Final

from paper_exchange.core import requests
from paper_exchange.core.errors import ExchangeError, bad_combination, illegal
from paper_exchange.core.exchange import Exchange
from paper_exchange.core.market import MarketState
from paper_exchange.core.symbols import STATUSES
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
    """The symbols asked for by `symbol` or `symbols`, else all; `symbolStatus` refuses or leaves out the others."""
    status = status_of(params)
    several = requests.text_of(params, "symbols")
    if requests.text_of(params, "symbol") is not None:
        if several is not None:
            raise bad_combination()
        market = exchange.market(symbol_of(params))
        check_status(params, market)
        return [market.rules.symbol]
    if several is None:
        return [symbol for symbol, market in exchange.markets.items() if status in (None, market.status)]
    names = listed(several)
    if not names:
        raise illegal("symbols", _SYMBOLS_PATTERN)
    if len(set(names)) < len(names):
        raise ExchangeError(-1151, "Symbol is present multiple times in the list.")
    markets = [exchange.market(name) for name in names]
    for market in markets:
        check_status(params, market)
    return [market.rules.symbol for market in markets]


def status_of(params: Params) -> str | None:
    """The parameter `symbolStatus`; -1122 for what is none."""
    status = requests.text_of(params, "symbolStatus")
    if status is not None and status not in STATUSES:
        raise ExchangeError(-1122, "Invalid symbolStatus.")
    return status


def check_status(params: Params, market: MarketState) -> None:
    """-1220 where a symbol is not in the status asked for."""
    if status_of(params) not in (None, market.status):
        raise ExchangeError(-1220, "The symbol's status does not match the requested symbolStatus.")


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
