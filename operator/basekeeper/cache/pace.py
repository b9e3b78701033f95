"""How fast bases are read: no faster than asked, and evenly, so that guests on the same disk do not feel it."""

import time
from collections.abc import Callable

_TICK = 0.2
_CREDIT = 1.0
"""Seconds of the rate that may be made up for after a slow moment."""


class Pace:
    """Keeps a rate: a bucket of tokens that holds those of a second."""

    def __init__(self, bytes_per_second: int | None, stop: Callable[[], bool]) -> None:
        self._rate = bytes_per_second
        self._stop = stop
        self._free_at = time.monotonic()

    def spend(self, spent: int) -> None:
        """Account for bytes that were read, and wait until the next may be."""
        if self._rate is None:
            return
        self._free_at = max(self._free_at, time.monotonic() - _CREDIT) + spent / self._rate
        while (left := self._free_at - time.monotonic()) > 0 and not self._stop():
            time.sleep(min(left, _TICK))
