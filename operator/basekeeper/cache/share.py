"""The directory in which the hosts of one storage publish for each other: reading, writing, locks, the server's clock.

It lies in `_base/.basekeeper/hosts`, where nova looks at nothing: a file for each host, the latest round, and the
leader's lock. Every file is written under another name and renamed, so that nobody reads half of one. What is read is
opened anew each time, because that is what makes a network file system ask its server. Judges nothing.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

from . import clock, host_evidence, locks, quarantine
from .durable import own_like, sync_directory, write_new
from .files import FILE, list_quietly, open_quietly
from .host_evidence import HostEvidence, NoEvidence
from .hosts import Heard, Round
from .moments import timestamp
from .settings import Host

_ENDING = ".json"
_ROUND = "round"
_LEADER = "leader.lock"
_LONGEST_NAME = 200
_ROUND_BYTES = 4096
_SLOW = 60.0
"""Seconds that a write may take: what took longer says nothing of the server's clock."""


class ShareError(Exception):
    """This host cannot take part; one sentence says why and what to do."""


class Share:
    """What lies on the share, as this host reads and writes it."""

    def __init__(self, host: Host) -> None:
        self.own = host.nova_host or host.node
        self._base = host.base
        self._known: dict[str, tuple[tuple[int, int, int], Heard]] = {}
        """What was understood of each file already, while it is the same."""
        self.directory = host.base / quarantine.OWN_DIRECTORY / "hosts"

    def prepare(self) -> None:
        """Make the directory, owned like the cache. Raises OSError, ShareError."""
        if len(_file_name(self.own)) > _LONGEST_NAME:
            raise ShareError(f"the host's name {self.own[:40]}... is too long for a file; give a shorter --nova-host")
        for place in (self.directory.parent, self.directory):
            if not place.is_dir():
                with suppress(FileExistsError):  # another host has just made it
                    place.mkdir(mode=0o755)
                sync_directory(place.parent)
            own_like(place, self._base)

    # --- hosts -------------------------------------------------------------------------------------------------

    def heard(self) -> tuple[Heard, ...]:
        """What the other hosts have published, whatever it is. Raises OSError if it cannot be listed."""
        try:
            names = sorted(list_quietly(self.directory))
        except FileNotFoundError:
            return ()
        hosts = [name for name in names if name.endswith(_ENDING) and not name.startswith(".")]
        return tuple(self._read_host(name) for name in hosts if name != _file_name(self.own))

    def own_evidence(self) -> HostEvidence | None:
        """What lies there in this host's name; None: nothing that can be understood. Raises OSError."""
        try:
            with _opened(self.directory / _file_name(self.own)) as stream:
                return host_evidence.decode(stream.read(host_evidence.MAX_BYTES + 1), self.own)
        except (FileNotFoundError, NoEvidence):
            return None

    def _read_host(self, name: str) -> Heard:
        """A file that cannot be read or understood is told of as that: never as "no evidence of use"."""
        host = _host_of(name)
        try:
            with _opened(self.directory / name) as stream:
                status = os.fstat(stream.fileno())
                mark = status.st_ino, status.st_mtime_ns, status.st_size
                before, heard = self._known.get(name, (None, None))
                if heard is None or before != mark:
                    heard = _understood(host, stream.read(host_evidence.MAX_BYTES + 1), status.st_mtime)
                    self._known[name] = mark, heard
        except OSError as error:
            return Heard(host, None, f"cannot be read ({error.strerror or error})", told="an unknown time")
        return heard

    def publish(self, evidence: HostEvidence) -> None:
        """Put this host's evidence in the place of the last one. Raises OSError."""
        self._write(_file_name(self.own), host_evidence.encode(evidence))

    # --- rounds ------------------------------------------------------------------------------------------------

    def round(self) -> Round | None:
        """The latest round; None: there was none, or it cannot be understood. Raises OSError."""
        try:
            with _opened(self.directory / _ROUND) as stream:
                document = json.loads(stream.read(_ROUND_BYTES))
            number, host, instance = document["round"], document["host"], document["instance"]
        except (FileNotFoundError, ValueError, LookupError, TypeError):
            return None
        sound = isinstance(number, int) and not isinstance(number, bool) and number > 0
        return Round(number, str(host), str(instance)) if sound else None

    def round_opened_at(self) -> float | None:
        """When the latest round was opened, Unix seconds by the server's clock; None: never. Raises OSError."""
        try:
            return os.stat(self.directory / _ROUND).st_mtime
        except FileNotFoundError:
            return None

    def open_round(self, opened: Round) -> None:
        """Put a round in the place of the last one; the caller holds the leader's lock. Raises OSError."""
        document = {"version": 1, "round": opened.number, "host": opened.host, "instance": opened.instance}
        self._write(_ROUND, json.dumps(document).encode())

    # --- locks and clocks --------------------------------------------------------------------------------------

    @contextmanager
    def leader_lock(self) -> Iterator[locks.Held]:
        """Hold the leader's lock. Raises locks.HeldByAnother, locks.LockError."""
        with locks.held(self.directory / _LEADER) as lock:
            yield lock

    def sees_leader(self) -> bool:
        """Whether somebody holds the leader's lock, as this host sees it. Raises OSError."""
        return locks.is_held(self.directory / _LEADER)

    def measure_skew(self) -> float:
        """Seconds that the file server's clock is ahead of this host's. Raises OSError, ShareError."""
        draft = self._draft(_file_name(self.own))
        before = clock.read().wall
        try:
            write_new(draft, b"clock\n")
            after = clock.read().wall
            stamp = os.stat(draft).st_mtime
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()
        if not 0 <= after - before <= _SLOW:
            raise ShareError(
                f"{self.directory}: a small write took {after - before:.0f} s by this host's clock, which says nothing "
                "of the file server's; the next pass tries again"
            )
        # Servers stamp with their own granularity: what lies within the write is no difference.
        return stamp - after if stamp > after else min(0.0, stamp - before)

    # --- files -------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Clear away drafts of this host that a killed process left. Raises OSError."""
        prefix = self._draft(_file_name(self.own)).name.rpartition(".")[0]
        for name in list_quietly(self.directory):
            if name.startswith(f"{prefix}."):
                (self.directory / name).unlink(missing_ok=True)

    def _draft(self, name: str) -> Path:
        return self.directory / f".{name}.{secrets.token_hex(8)}"

    def _write(self, name: str, content: bytes) -> None:
        draft = self._draft(name)
        try:
            write_new(draft, content)
            own_like(draft, self.directory)
            os.rename(draft, self.directory / name)
        except BaseException:
            with suppress(OSError):
                draft.unlink()
            raise
        sync_directory(self.directory)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with open(open_quietly(bytes(path), FILE | os.O_NOFOLLOW), "rb") as stream:
        yield stream


def _understood(host: str, raw: bytes, at: float) -> Heard:
    try:
        return Heard(host, host_evidence.decode(raw, host), "", at, timestamp(at))
    except NoEvidence as error:
        return Heard(host, None, str(error), at, timestamp(at))


def _file_name(host: str) -> str:
    """The file of a host, named so that no host name leads elsewhere, is hidden, or is another file's."""
    safe = quote(host, safe="", errors="surrogateescape")
    return ("%2E" + safe[1:] if safe.startswith(".") else safe) + _ENDING


def _host_of(name: str) -> str:
    return unquote(name.removesuffix(_ENDING), errors="surrogateescape")
