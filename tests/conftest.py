"""For every tier: examples come from a fixed seed, a slow machine is no failure, logging is as it was before a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The bot's command logs to the stderr of its test, which is closed afterwards."""
    yield
    structlog.reset_defaults()
