"""A disk that neither answers nor fails, for tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tradingbot.state.store import Store


@contextmanager
def silent_disk(store: Store) -> Iterator[None]:
    """Until its end whatever the store asks of the disk waits."""
    answer = threading.Event()
    store._writer.submit(answer.wait)
    try:
        yield
    finally:
        answer.set()
