"""Between passes: is the disk so full that the next pass must not wait for the interval? One question to the kernel.

Neither the API server nor libvirt is asked. A disk for which nothing more can be done is asked about as before, but
makes no further pass until its figure has moved.
"""

import time

from basekeeper.cache import storage
from basekeeper.cache.pressure import PressureState, is_above
from basekeeper.cache.report import Report
from basekeeper.cache.settings import Host, Mode, Policy

_MOVED = 1.0
"""Points of a percentage by which a disk must become fuller or emptier before a pass is made for it again."""
_WORKING = frozenset({PressureState.PRESSURE, PressureState.OVER_BUDGET})


class DiskWatch:
    """Watches the file system of one cache; `every` so many seconds."""

    def __init__(self, host: Host, every: float) -> None:
        self._host = host
        self.every = every
        self._policy: Policy | None = None
        self._next = 0.0
        self._known: float | None = None
        """How full the disk was when a pass was last made for it; None: it was not above the mark."""

    def passed(self, policy: Policy | None, report: Report | None) -> float | None:
        """Take in what a turn did; answers in how many seconds the next pass is due for the disk's sake, if so."""
        acting = policy is not None and policy.mode is Mode.ENFORCE and not policy.suspend
        self._policy = policy if acting else None
        relief = report.relief if report is not None else None
        if relief is None or report is None or self._policy is None:
            return None
        full = relief.state in (PressureState.PRESSURE, PressureState.NOT_OURS)
        self._known = relief.used_percent if full else None
        did_something = bool(report.removed) or report.reclaimed > 0
        if relief.state in _WORKING and did_something:
            return self.every
        return None if relief.next_at is None else max(self.every, relief.next_at - time.time())

    def calls(self, now: float) -> bool:
        """Whether a pass must be made now (`now` as `time.monotonic` counts): the disk has become too full."""
        if self._policy is None or self._policy.pressure is None or now < self._next:
            return False
        self._next = now + self.every
        room = storage.room(self._host)
        if room is None or not is_above(room, self._policy.pressure):
            self._known = None
            return False
        moved = self._known is None or abs(room.used_percent - self._known) >= _MOVED
        if moved:
            self._known = room.used_percent
        return moved
