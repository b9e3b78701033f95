"""Between its passes an agent answers the other hosts of a shared cache, so that one of them can act on all answers."""

import logging
from dataclasses import dataclass

from basekeeper.cache import answering
from basekeeper.cache.engine import PassFailed
from basekeeper.cache.settings import Host, Policy, SharedStorageMode

_log = logging.getLogger(__name__)


@dataclass
class Answers:
    """Gives an answer where one is asked for; times are of `time.monotonic`."""

    host: Host
    policy: Policy | None = None
    """The one that the last pass ran under."""
    _due: float = 0.0
    _failure: str | None = None

    @property
    def every(self) -> float:
        """Seconds within which to call `give` again."""
        shared = self.policy is not None and self.policy.shared_storage is SharedStorageMode.COORDINATE
        return answering.EVERY if shared else float("inf")

    def give(self, now: float) -> None:
        """Answer if it is time to look and another host asks. Raises nothing that the storage can cause."""
        if self.policy is None or self.every == float("inf") or now < self._due:
            return
        self._due = now + answering.EVERY
        try:
            if answering.is_asked(self.host, self.policy):
                answering.answer(self.host, self.policy)
                _log.info("answered a round of the hosts that share the storage")
            self._failure = None
        except PassFailed as error:
            if str(error) != self._failure:  # once, not every few seconds
                _log.warning("no answer to the hosts that share the storage: %s", error)
            self._failure = str(error)
