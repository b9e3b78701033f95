"""Verifies bases between passes, in a thread of its own: never in one, and never so that one would wait.

A pass that begins, an order that changes, a window that closes and the end of the program are heard between two blocks
of a file. What was read so far is kept, so that nothing is lost by that but the block.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from basekeeper.cache import priority
from basekeeper.cache.files import Unobservable
from basekeeper.cache.ledger import LedgerError
from basekeeper.cache.names import display
from basekeeper.cache.settings import Host, Integrity, Policy
from basekeeper.cache.verification import Outcome, Verified, Verifier, may_verify

_log = logging.getLogger(__name__)
_LONGEST_WAIT = 60.0
"""Seconds after which what is due is asked again."""
_LOOK_EVERY = 1.0
"""Seconds between looks at windows."""
_PROBLEMS = frozenset({Outcome.CORRUPT, Outcome.UNREADABLE})

Count = Callable[[int, float], None]
"""Told of bytes that were read and of the seconds that it took."""


@dataclass
class Verifying:
    """The thread, and what the passes tell it."""

    host: Host
    count: Count
    news: Callable[[], None]
    """Called when something was found out that a pass should tell of, or act on."""
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _policy: Policy | None = None
    _passing: bool = False
    _heard: int = 0
    """How often something was told that may matter now."""
    _stopped: bool = False
    _looked_at: float = 0.0
    _may: bool = False
    _verifier: Verifier | None = None
    _setting: Integrity | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, name="verification", daemon=True)

    def start(self) -> None:
        """Begin; nothing is verified before a policy is told."""
        self._thread.start()

    def stop(self, patience: float) -> None:
        """End between two blocks; waits for that as many seconds."""
        with self._changed:
            self._stopped = True
            self._hear()
        self._thread.join(patience)

    def told(self, policy: Policy | None) -> None:
        """What the node is to do from now on."""
        with self._changed:
            self._policy, self._looked_at = policy, 0.0
            self._hear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a pass runs nothing is read but the block that is being read."""
        with self._changed:
            self._passing = True
        try:
            yield
        finally:
            with self._changed:
                self._passing = False
                self._hear()

    def _work(self) -> None:
        with priority.idle():
            while not self._stopped:
                heard = self._heard
                wait = self._turn() if self._may_read() else _LONGEST_WAIT
                self._sleep(heard, min(max(wait, _LOOK_EVERY), _LONGEST_WAIT))

    def _sleep(self, heard: int, wait: float) -> None:
        """Wait, but not if something was heard since `heard` was all that had been."""
        with self._changed:
            self._changed.wait_for(lambda: self._heard != heard, wait)

    def _hear(self) -> None:
        self._heard += 1
        self._changed.notify_all()

    def _turn(self) -> float:
        """Verify what is due; seconds until something may be due again."""
        setting = self._policy.integrity if self._policy is not None else None
        if setting is None:
            return _LONGEST_WAIT
        try:
            return self._read(self._with(setting))
        except (OSError, LedgerError, Unobservable) as error:
            _log.warning("bases cannot be verified now: %s", error)
        except Exception:  # noqa: BLE001 (passes go on whatever becomes of this)
            _log.exception("verification failed in a way that nobody foresaw")
        return _LONGEST_WAIT

    def _with(self, setting: Integrity) -> Verifier:
        """What verifies under this setting; it remembers which files were not quiet."""
        if self._verifier is None or setting != self._setting:
            self._setting = setting
            self._verifier = Verifier(
                self.host,
                setting,
                stop=lambda: not self._may_read() or self._policy is None or self._policy.integrity != setting,
                told=lambda _name, _done, _of, read: self.count(read, 0.0),
                rate=setting.max_bytes_per_second,
                oldest=setting.interval,
            )
        return self._verifier

    def _read(self, verifier: Verifier) -> float:
        changed = False
        for result in verifier.due():
            self.count(0, result.seconds)
            _tell(result)
            changed = changed or result.outcome is Outcome.BASELINED or result.ends_finding
            if result.is_news:
                self.news()
        if not self._may_read():
            return _LONGEST_WAIT
        if changed:
            self.news()
        return verifier.wait()

    def _may_read(self) -> bool:
        """Whether to go on: asked between blocks, so that windows, which take reckoning, are looked at less often."""
        if self._stopped or self._passing or self._policy is None:
            return False
        if time.monotonic() - self._looked_at >= _LOOK_EVERY:
            self._looked_at, self._may = time.monotonic(), may_verify(self._policy, time.time())
        return self._may


def _tell(result: Verified) -> None:
    """A line for each file that was read to its end."""
    if result.outcome is Outcome.INTERRUPTED:
        return
    level = logging.WARNING if result.outcome in _PROBLEMS else logging.INFO
    told = {"file": display(result.name), "reason": result.message, "bytes": result.read}
    _log.log(level, "verified: %s", result.outcome.value.lower(), extra={**told, "seconds": round(result.seconds, 3)})
