"""A watch that heals: kopf in a thread and a loop of its own, started again whenever it returns, raises or goes deaf.

Seen with kopf 1.45 against a real API server: a minute of 503 makes `kopf.operator()` raise, so does a deleted CRD;
where the CRD appears after the start it never watches; with several kinds it may wait for ever when it should end,
each watch for credentials that nobody gives any more; and objects that were deleted while it was disconnected give
no event after the next list. So kopf is started only when discovery serves every resource, is left behind where it
does not end, and each list of its is told to the owner, who lists everything anew. Nothing else of the program
depends on this thread.

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
from .backoff import Backoff, jittered
from .connection import Connection
from .contact import Contact

_log = logging.getLogger(__name__)
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_DEAF_AFTER = 90.0
"""Seconds in which an event must come that is sure to come, as after a write of our own."""
_LIVED = 60.0
"""Seconds after which an end counts as the first of its kind again."""
_CLOSED_TOO_LONG = 120.0
"""Seconds without a watch after which kopf is started again, whatever it is waiting for."""
_JUST_HEARD = 2.0
"""Seconds after an event in which nothing is expected: the one that is sure to come may have been that."""
_STOP_TIMEOUT = 5.0
_TO_END = 3.0
"""Seconds for kopf to end once it is asked to, or says that it will."""
_RETRIES = (1.0, 2.0, 4.0, 8.0, 15.0, 15.0)
"""Seconds between kopf's attempts, jittered: what cut this watch has cut those of the whole fleet at once."""
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
    _stopping: threading.Event = field(default_factory=threading.Event)
    _contact: Contact = field(init=False)
    _waiting_since: float | None = None
    _heard_at: float = 0.0
    _loop: asyncio.AbstractEventLoop | None = None
    _end: asyncio.Event | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._contact = Contact(item.resource.path() for item in self.subjects)

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
        """Whether everything is watched."""
        return self._contact.up

    def expect_event(self) -> None:
        """Say that an event is on its way: if none comes, the watch is deaf and is started again."""
        now = time.monotonic()
        if self.up and self._waiting_since is None and now - self._heard_at > _JUST_HEARD:
            self._waiting_since = now

    def _supervise(self) -> None:
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        while not self._stopping.is_set():
            if not self._is_served():
                self._stopping.wait(backoff.failed())
                continue
            began = time.monotonic()
            self._run_once()
            self._contact.end()
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
            _log.info("waiting for the API server to serve %s", missing[0].plural)
        return not missing

    def _run_once(self) -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._operate())
        except Exception as error:  # noqa: BLE001 (whatever kopf raises, what follows is a new start)
            _log.warning("kopf ended: %s", " ".join(f"{type(error).__name__}: {error}".split())[:300])
        finally:
            _leave(loop)

    async def _operate(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._waiting_since = None
        self._contact.begin()
        if self._stopping.is_set():
            return
        namespaces = sorted({item.resource.namespace for item in self.subjects if item.resource.namespace})
        helper, end = asyncio.create_task(self._look_after()), asyncio.create_task(self._end.wait())
        operator = asyncio.create_task(
            kopf.operator(
                registry=self._registry(),
                settings=self._settings(),
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=self._end,
            )
        )
        await asyncio.wait({operator, end}, return_when=asyncio.FIRST_COMPLETED)
        helper.cancel()
        await asyncio.wait({operator}, timeout=_TO_END)
        await self._contact.close()
        if operator.done():
            operator.result()
        else:
            _log.info("kopf does not end and is left behind")

    async def _look_after(self) -> None:
        was_up = False
        while True:
            await asyncio.sleep(1)
            if (up := self.up) != was_up:
                _log.info("the watch is up" if up else "the watch is down")
                was_up = up
            if self._contact.take_listed():
                self.on_listed()
            now = time.monotonic()
            closed = self._contact.down_since
            if self._waiting_since is not None and now - self._waiting_since > _DEAF_AFTER:
                self._waiting_since = None
                _log.warning("the watch is deaf: an event that is sure to come has not come")
                self._finish()
            elif closed is not None and now - closed > _CLOSED_TOO_LONG:
                _log.warning("the watch could not be opened for %.0f s", now - closed)
                self._finish()

    def _finish(self) -> None:
        loop, end = self._loop, self._end
        if loop is not None and end is not None and not loop.is_closed():
            loop.call_soon_threadsafe(end.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        given: list[kopf.ConnectionInfo] = []

        async def login(**_: Any) -> kopf.AiohttpSession:
            info = self.connection.login()
            if info in given:
                # Asked again, because the server refused it: the same once more would be asked for without an end.
                self.connection.renew(info.as_http_headers().get("Authorization", ""))
                info = self.connection.login()
            if info in given:
                # Without an answer here kopf would wait for one for ever.
                self._finish()
                raise kopf.PermanentError("the API server refuses our credentials")
            given[:] = [info]
            return self._contact.session(info)

        async def cleanup(**_: Any) -> None:
            self._finish()  # whatever it ends for, it may take for ever

        kopf.on.login(registry=registry, id="login")(login)
        kopf.on.cleanup(registry=registry, id="cleanup")(cleanup)
        for item in self.subjects:
            resource = item.resource
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)(
                self._handler(item)
            )
        return registry

    def _handler(self, subject: Subject) -> Callable[..., Any]:
        async def handle(event: Event, **_: Any) -> None:
            self._waiting_since, self._heard_at = None, time.monotonic()
            subject.heard(event)

        return handle

    def _settings(self) -> kopf.OperatorSettings:
        settings = kopf.OperatorSettings()
        settings.process.ultimate_exiting_timeout = None  # no kill of ours: whatever hangs is left behind
        settings.scanning.disabled = True
        settings.posting.enabled = False
        settings.persistence.finalizer = self.finalizer
        settings.persistence.diffbase_storage = _NothingToCompare()
        settings.watching.chunk_size = _CHUNK
        settings.watching.connect_timeout = 10.0
        settings.queueing.idle_timeout = _IDLE
        settings.networking.request_timeout = 60.0
        settings.networking.error_backoffs = tuple(jittered(seconds, 0.5) for seconds in _RETRIES)
        for item in self.subjects:
            resource = item.resource
            key = (resource.group, resource.version, resource.plural)
            if item.field_selector:
                settings.watching.field_selectors[key] = item.field_selector
            if item.label_selector:
                settings.watching.label_selectors[key] = item.label_selector
        return settings


class _NothingToCompare(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object of each event, whole, to find what changed in it.

    That is for the handlers of changes, of which there are none; the handlers of events get the event as it came. With
    thousands of nodes the copies were a fifth of what this thread did.
    """

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


def _leave(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop, whatever still waits in it: what is cancelled may begin to wait anew."""
    for _ in range(2):
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()
