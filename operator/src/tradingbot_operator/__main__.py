"""The command `tradingbot-operator`."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import Final

import structlog
import uvloop

from tradingbot_operator.settings import SettingsError, load

M_MMAP_THRESHOLD: Final = -3
"""Of glibc's malloc.h."""
MAPPED_FROM: Final = 128 * 1024


def map_large_buffers() -> None:
    """uvloop gives each TLS connection a buffer of 256 KiB, of which it uses a few pages. The rest costs nothing where
    each is mapped by itself, and not taken from memory that was in use before; glibc ceases to after the first ones."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)


def configure_logging(level: str) -> None:
    """JSON lines on stderr, from our own loggers and from the libraries'."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lower_what_is_tried_again)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def lower_what_is_tried_again(record: logging.LogRecord) -> bool:
    """A filter that drops nothing: kopf calls each call to the API server that it tries again an error."""
    if record.name.startswith("kopf._cogs.clients.") and record.levelno == logging.ERROR:
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def lease_lost(error: BaseException) -> BaseException | None:
    """The loss of the Lease among what ended the process."""
    if getattr(error, "code", None) == "LeaseLost":
        return error
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for part in parts if (found := lease_lost(part)) is not None), None)


def main() -> None:
    """Runs the operator; ends with 2 where it was told something wrong, 3 without its Lease, 1 where it failed."""
    try:
        # Heavy modules are imported after the command line was read: --help and mistakes are answered at once.
        if sys.argv[1:2] == ["uninstall-check"]:
            from tradingbot_operator.uninstall import check

            sys.exit(check(sys.argv[2:]))
        if sys.argv[1:2] == ["install-check"]:
            from tradingbot_operator import install_check

            sys.exit(install_check.check(sys.argv[2:]))
        settings = load(sys.argv[1:])
        map_large_buffers()
        configure_logging(settings.log_level)
        from tradingbot_operator.app import run

        uvloop.run(run(settings))
    except SettingsError as error:
        sys.stderr.write(f"tradingbot-operator: {error}\n")
        sys.exit(2)
    except Exception as error:
        log = structlog.get_logger("tradingbot_operator")
        if (lost := lease_lost(error)) is not None:
            log.error("the Lease is lost; another replica may work now", error=str(lost))
            sys.exit(3)
        log.exception("the operator failed")
        sys.exit(1)


if __name__ == "__main__":
    main()
