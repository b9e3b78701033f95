"""Writes the node's status: when it is news, and every half hour; again later when the API server is away."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from basekeeper.cluster.api import Api, ApiAway, ApiError, NotFound
from basekeeper.cluster.backoff import Backoff, jittered
from basekeeper.cluster.kinds import NODE_CACHES

from . import status

_log = logging.getLogger(__name__)
HEARTBEAT = 30 * 60.0
"""Seconds after which a status is written although nothing changed: less than a quarter of what counts as stale."""
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 120.0


@dataclass
class Reporter:
    """Knows what the API server has, and what it should have."""

    api: Api
    node: str
    there: Mapping[str, Any] = field(default_factory=dict)
    """The status that the object has, as far as is known."""
    last_error: str | None = None
    """Why the last write did not succeed."""
    _wanted: dict[str, Any] | None = None
    _heartbeat_at: float = 0.0
    _retry_at: float | None = None
    _backoff: Backoff = field(default_factory=lambda: Backoff(_FIRST_WAIT, _LONGEST_WAIT))

    def saw(self, found: Mapping[str, Any]) -> None:
        """The object was read: its status is what there is, whoever wrote it."""
        self.there = found.get("status") or {}

    def report(self, told: dict[str, Any]) -> bool:
        """Have this status told; True if it was written now."""
        self._wanted = told
        if time.monotonic() < self._heartbeat_at and not status.differs(told, self.there):
            self._done()
            return False
        return self._write(told)

    def forget(self) -> None:
        """There is no object to report into."""
        self.there, self._wanted, self._retry_at, self.last_error = {}, None, None, None

    def next_at(self) -> float | None:
        """When something is to be written again, as `time.monotonic` counts; None: nothing is."""
        if self._wanted is None:
            return None
        return self._heartbeat_at if self._retry_at is None else self._retry_at

    def again(self) -> bool:
        """Write what is due to be written again; True if that succeeded."""
        at = self.next_at()
        if self._wanted is None or at is None or time.monotonic() < at:
            return False
        return self._write(status.beaten(self._wanted, time.time()))

    def _write(self, told: dict[str, Any]) -> bool:
        now = time.monotonic()
        try:
            self.api.apply(NODE_CACHES, self.node, {"status": told}, subresource="status")
        except NotFound:
            self.forget()
            return False
        except ApiError as error:
            self.last_error = str(error)
            self._retry_at = now + self._backoff.failed()
            say = _log.info if isinstance(error, ApiAway) else _log.warning
            say("the status could not be written: %s", error)
            return False
        self.there, self._wanted = told, told
        self._done()
        self._heartbeat_at = now + jittered(HEARTBEAT * 0.9, 0.1)
        return True

    def _done(self) -> None:
        """What is to be told is told."""
        self.last_error, self._retry_at = None, None
        self._backoff.reset()
