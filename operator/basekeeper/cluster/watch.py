"""A watch that heals: kopf in a thread and a loop of its own, started again whenever it returns, raises or goes deaf.

Seen with kopf 1.45 against a real API server: a minute of 503 makes `kopf.operator()` raise, so does a deleted CRD;
where the CRD appears after the start it never watches; and objects that were deleted while it was disconnected give
no event after the next list. So kopf is started only when discovery serves every resource, and each start is told to
the owner, who lists everything anew. Nothing else of the program depends on this thread.

Only `kopf.on.event` handlers are used: timers, daemons and the handlers of changes put finalizers and annotations on
objects, and those would block deletions when no operator is there.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import kopf

from .api import Api, ApiError, Resource
from .backoff import Backoff
from .connection import Connection

_log = logging.getLogger(__name__)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_DEAF_AFTER = 90.0
"""Seconds in which an event must come that is sure to come, as after a write of our own."""
_LIVED = 60.0
"""Seconds after which an end counts as the first of its kind again."""
_STOP_TIMEOUT = 10.0
_LIST_SETTLES = 3.0
"""Seconds after the last object of a list until the list is taken to be over."""
_EMPTY_LIST_SETTLES = 10.0
"""The same after a start, for lists without an object."""
_CHUNK = 250
_IDLE = 0.1
"""Seconds after which kopf drops what it keeps for an object that is quiet; with kopf's default of 5, and whole lists
instead of chunks, 5,000 objects of 32 KiB took 1 GB."""

Event = Mapping[str, Any]
"""A watch event as the server sends it: `type` (None for an object that was there before) and `object`."""
Heard = Callable[[Event], None]
"""Takes one event, in kopf's thread: keeps what it needs and returns at once."""


@dataclass(frozen=True)
class Subject:
    """One kind of object to watch."""

    resource: Resource
    heard: Heard
    field_selector: str | None = None
    label_selector: str | None = None


@dataclass
class Watch:
    """Watches until it is stopped."""

    connection: Connection
    api: Api
    subjects: Sequence[Subject]
    finalizer: str
    """A name of our own: kopf's setting, never used, because no handler of ours needs one."""
    on_listed: Callable[[], None] = lambda: None
    """Told, in kopf's thread, when kopf has listed everything anew, which it does after a start and also on its own
    after a disconnection: what was deleted meanwhile gave no event."""
    restarts: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)
    _up: threading.Event = field(default_factory=threading.Event)
    _waiting_since: float | None = None
    _settles_at: float | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _end: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._supervise, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait a moment for that."""
        self._stopping.set()
        self._finish()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT)

    @property
    def up(self) -> bool:
        """Whether kopf runs and is not known to be deaf."""
        return self._up.is_set()

    def expect_event(self) -> None:
        """Say that an event is on its way: if none comes, the watch is deaf and is started again."""
        if self._up.is_set() and self._waiting_since is None:
            self._waiting_since = time.monotonic()

    def _supervise(self) -> None:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while not self._stopping.is_set():
            if not self._is_served():
                self._stopping.wait(backoff.failed())
                continue
            began = time.monotonic()
            self._run_once()
            self._up.clear()
            self.restarts += 1
            if time.monotonic() - began > _LIVED:
                backoff.reset()
            if not self._stopping.is_set():
                wait = backoff.failed()
                _log.warning("the watch has ended; it starts again in %.0f s", wait)
                self._stopping.wait(wait)

    def _is_served(self) -> bool:
        try:
            missing = [item.resource for item in self.subjects if not self.api.serves(item.resource)]
        except ApiError as error:
            _log.info("waiting for the API server: %s", error)
            return False
        if missing:
            _log.info("waiting for %s.%s to be installed", missing[0].plural, missing[0].group)
        return not missing

    def _run_once(self) -> None:
        try:
            asyncio.run(self._operate())
        except Exception as error:  # noqa: BLE001 (whatever kopf raises, what follows is a new start)
            _log.warning("kopf ended: %s", " ".join(f"{type(error).__name__}: {error}".split())[:300])

    async def _operate(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._waiting_since = None
        if self._stopping.is_set():
            return
        ready = asyncio.Event()
        namespaces = sorted({item.resource.namespace for item in self.subjects if item.resource.namespace})
        helpers = [asyncio.create_task(self._when_ready(ready)), asyncio.create_task(self._look_after())]
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=self._settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=self._end,
                ready_flag=ready,
            )
        finally:
            for helper in helpers:
                helper.cancel()

    async def _when_ready(self, ready: asyncio.Event) -> None:
        await ready.wait()
        self._up.set()
        self._settles_at = time.monotonic() + _EMPTY_LIST_SETTLES

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            if self._settles_at is not None and now > self._settles_at:
                self._settles_at = None
                self.on_listed()
            if self._waiting_since is not None and now - self._waiting_since > _DEAF_AFTER:
                self._waiting_since = None
                _log.warning("the watch is deaf: an event that is sure to come has not come")
                self._finish()

    def _finish(self) -> None:
        loop, end = self._loop, self._end
        if loop is not None and end is not None and not loop.is_closed():
            loop.call_soon_threadsafe(end.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        def login(**_: Any) -> kopf.ConnectionInfo:
            return self.connection.login()

        kopf.on.login(registry=registry, id="login")(login)
        for item in self.subjects:
            resource = item.resource
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)(
                self._handler(item)
            )
        return registry

    def _handler(self, subject: Subject) -> Callable[..., Any]:
        async def handle(event: Event, **_: Any) -> None:
            self._waiting_since = None
            if event["type"] is None:  # from a list
                self._settles_at = time.monotonic() + _LIST_SETTLES
            subject.heard(event)

        return handle

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.process.ultimate_exiting_timeout = None  # no kill of ours: whatever hangs is left behind
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.persistence.finalizer = self.finalizer
        settings.watching.chunk_size = _CHUNK
        settings.watching.connect_timeout = 10.0
        settings.queueing.idle_timeout = _IDLE
        settings.networking.request_timeout = 60.0
        for item in self.subjects:
            resource = item.resource
            key = (resource.group, resource.version, resource.plural)
            if item.field_selector:
                settings.watching.field_selectors[key] = item.field_selector
            if item.label_selector:
                settings.watching.label_selectors[key] = item.label_selector
        return settings
