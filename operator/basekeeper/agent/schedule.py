"""When the next pass is due. Monotonic seconds: a wall clock that is set moves no pass."""

from dataclasses import dataclass

from basekeeper.cluster.backoff import Backoff, jittered

_SPAWN_RETRY = 60.0
"""Seconds after a pass that starting instances alone held: busy nodes must not starve."""
_LEAST = 1.0
"""Seconds between passes at the least: a node's object has no floor, only the policy's has."""
_WINDOW_SPREAD = 60.0
_WINDOW_SHARE = 0.1
"""How long after a window has opened nodes begin: within so many seconds, or this part of a short one."""
_SOON = 5.0
_SOON_SHARE = 0.02


@dataclass
class Schedule:
    """Knows when to make the next pass; times are of `time.monotonic`."""

    due: float
    _interval: float = 0.0
    _retries: Backoff | None = None

    def passed(self, now: float, interval: float, *, held_by_spawns: bool = False, within: float | None = None) -> None:
        """A pass ended at `now`; the next one is due an interval later, or soon if only spawns held something.

        `within` so many seconds, if there is more to do for the disk's sake.
        """
        if interval != self._interval:
            self._interval, self._retries = interval, None
        wait = jittered(max(interval, _LEAST), 0.1)
        if held_by_spawns:
            self._retries = self._retries or Backoff(_SPAWN_RETRY, max(interval, _SPAWN_RETRY))
            wait = min(wait, self._retries.failed())
        else:
            self._retries = None
        if within is not None:
            wait = min(wait, max(_LEAST, jittered(within, 0.1)))
        self.due = now + wait

    def opens(self, now: float, wait: float, length: float) -> None:
        """At `now` a window opens in `wait` seconds, for `length` seconds: a pass early in it, if none is due before.

        Not at the same moment on every node, and never just before: clocks are slewed.
        """
        spread = min(_WINDOW_SPREAD, length * _WINDOW_SHARE)
        self.due = min(self.due, now + wait + jittered(spread * 0.55, 0.8))

    def told(self, now: float) -> None:
        """Something new was told at `now`: a pass soon, but not at the same moment on every node."""
        spread = min(_SOON, max(self._interval, _SPAWN_RETRY) * _SOON_SHARE)
        self.due = min(self.due, now + jittered(spread / 2, 1.0))

    def asked(self, now: float) -> None:
        """A person asked for a pass at `now`."""
        self.due = now

    def retry(self, now: float, seconds: float) -> None:
        """What was tried at `now` must be tried again in `seconds`."""
        self.due = now + jittered(seconds)
