"""Whether kopf really watches: seen from the HTTP session that it is given to work with.

kopf tells nobody that it lost the API server: it goes on trying. Nor does it tell that it has listed everything anew
because the server no longer knew where it had stopped, and a list without objects gives no event at all. Both show in
its requests: a watch is open from the moment it was answered until the next request for the same kind, and what a
list has found is followed by a watch.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
import kopf

from .backoff import jittered

_BLINK = 3.0
"""Seconds within which a watch may be opened anew: the server ends each one after half an hour or an hour."""
_APART = 1.0
"""Seconds between two openings of one watch: a server that ends each at once would be asked without a pause."""


@dataclass
class _Stream:
    """The watch on one kind."""

    open: bool = False
    opened_at: float = 0.0
    lost_at: float | None = None
    listed: bool = False
    """A list was asked for since the watch was last open."""


class Contact:
    """The watches of one kopf, on the kinds that these paths name."""

    def __init__(self, paths: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._streams = {path: _Stream() for path in paths}
        self._fresh = False
        self._began = 0.0
        self._sessions: list[aiohttp.ClientSession] = []

    @property
    def up(self) -> bool:
        """Whether every watch is open, or was a moment ago."""
        now = self._clock()
        return all(
            item.open or (item.lost_at is not None and now - item.lost_at < _BLINK) for item in self._streams.values()
        )

    @property
    def down_since(self) -> float | None:
        """Since when a watch has been lost or waited for, by the clock; None while all are open."""
        closed = [item.lost_at or self._began for item in self._streams.values() if not item.open]
        return min(closed, default=None)

    def begin(self) -> None:
        """A new kopf starts: nothing is open yet."""
        self._began, self._fresh = self._clock(), False
        self._streams = {path: _Stream() for path in self._streams}

    def end(self) -> None:
        """The watches are gone, because kopf has ended."""
        self._streams = {path: _Stream() for path in self._streams}

    def take_listed(self) -> bool:
        """Whether kopf has listed a kind anew since this was last asked, and watches everything again."""
        fresh = self._fresh and self.down_since is None
        if fresh:
            self._fresh = False
        return fresh

    def session(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """A session for kopf that is watched; made in its loop, and closed by it."""
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._asked)
        trace.on_request_end.append(self._answered)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trace_configs=[trace],
        )
        self._sessions.append(session)
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    async def close(self) -> None:
        """Close every session, as kopf does where it ends in order."""
        for session in self._sessions:
            await session.close()
        self._sessions.clear()

    async def _asked(
        self, _session: aiohttp.ClientSession, _context: SimpleNamespace, asked: aiohttp.TraceRequestStartParams
    ) -> None:
        stream = self._streams.get(asked.url.path)
        if stream is None:
            return
        now = self._clock()
        if stream.open:
            stream.open, stream.lost_at = False, now
        if "watch" not in asked.url.query:
            stream.listed = True
        elif (wait := stream.opened_at + _APART - now) > 0:
            await asyncio.sleep(jittered(wait, 0.3))

    async def _answered(
        self, _session: aiohttp.ClientSession, _context: SimpleNamespace, answered: aiohttp.TraceRequestEndParams
    ) -> None:
        stream = self._streams.get(answered.url.path)
        if stream is None or "watch" not in answered.url.query or not answered.response.ok:
            return
        stream.open, stream.opened_at = True, self._clock()
        self._fresh = self._fresh or stream.listed
        stream.listed = False
