"""What of the HTTP server's own errors is told: not what a client did, who was answered with it."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

_OF_THE_CLIENT: Final = (HttpProcessingError, RequestPayloadError, ConnectionResetError)
"""Bytes that are no HTTP, a body that is not what it says, and leaving in the middle."""


def http_logger() -> logging.Logger:
    """The logger of both ports: a client could fill the disk with traces otherwise."""
    logger = logging.getLogger("paper_exchange.http")
    logger.addFilter(_not_of_the_client)
    return logger


def _not_of_the_client(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], _OF_THE_CLIENT))
