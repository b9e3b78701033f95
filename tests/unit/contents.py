"""A cache of real files whose content a test decides, and short words to verify it."""

import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from basekeeper.cache import ledger_file
from basekeeper.cache.integrity import BLOCK
from basekeeper.cache.settings import Algorithm, Host, Integrity
from basekeeper.cache.verification import Outcome, Stop, Verified, Verifier
from basekeeper.cache.wholeness import Finding, Known
from tests.unit.judging import ORIGINAL

NAME = ORIGINAL.decode()
LONG_AGO = 30 * 86400.0
GRACE = 600.0


def after(blocks: int) -> Stop:
    """Stops a reading after so many blocks."""
    asked = itertools.count()
    return lambda: next(asked) >= blocks


def once(act: Callable[[], object], *, blocks: int = 1) -> Stop:
    """Stops nothing, and does something to the file after so many blocks."""
    asked = itertools.count()

    def stop() -> bool:
        if next(asked) == blocks:
            act()
        return False

    return stop


def block(number: int, length: int = BLOCK) -> bytes:
    """Content that no other block has."""
    return (number.to_bytes(4, "big") * (length // 4 + 1))[:length]


@dataclass
class Cache:
    """A host whose cache has files of known content."""

    host: Host

    @property
    def path(self) -> Path:
        """Where the original lies that most tests are about."""
        return self.host.base / NAME

    def write(self, content: bytes, *, name: str = NAME, age: float = LONG_AGO) -> Path:
        """Make a file, another one if there is one, which nothing has touched for `age` seconds."""
        path = self.host.base / name
        draft = path.with_name(f"{name}.new")
        draft.write_bytes(content)
        draft.rename(path)
        self.touch(path, age=age)
        return path

    def change(self, offset: int, content: bytes, path: Path | None = None) -> None:
        """Write into a file as damage does: its time stamp stays."""
        path = path or self.path
        before = path.stat()
        with path.open("r+b") as stream:
            stream.seek(offset)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def touch(self, path: Path | None = None, *, age: float = 0.0) -> None:
        """Set a time stamp."""
        then = time.time() - age
        os.utime(path or self.path, (then, then))

    def verifier(
        self,
        algorithm: Algorithm = Algorithm.XXH3,
        *,
        stop: Stop = lambda: False,
        interval: float = LONG_AGO,
        rate: int | None = None,
        told: list[tuple[int, int]] | None = None,
    ) -> Verifier:
        """What verifies this cache; `told` gets the bytes that are done and those that were read, block by block."""
        kept: list[tuple[int, int]] = [] if told is None else told
        return Verifier(
            self.host,
            Integrity(interval=interval, algorithm=algorithm),
            stop=stop,
            told=lambda _name, done, _of, read: kept.append((done, read)),
            rate=rate,
            oldest=interval,
        )

    def verify(self, name: str = NAME, algorithm: Algorithm = Algorithm.XXH3) -> Verified:
        """Verify one file now."""
        return self.verifier(algorithm).verify(name.encode())

    def outcome(self, name: str = NAME, algorithm: Algorithm = Algorithm.XXH3) -> Outcome:
        """What comes of that."""
        return self.verify(name, algorithm).outcome

    def known(self) -> Known:
        """What the ledger knows of contents."""
        with ledger_file.reading(self.host.state) as book:
            return book.contents.known()

    def finding(self) -> Finding:
        """The only finding."""
        (found,) = self.known().findings.values()
        return found


def make(place: Path, *, grace: float = 0.0) -> Cache:
    """An empty cache."""
    instances = place / "instances"
    (instances / "_base").mkdir(parents=True)
    (instances / "locks").mkdir()
    return Cache(
        Host(
            "node",
            instances,
            instances / "_base",
            instances / "snapshots",
            place / "state",
            libvirt=None,
            spawn_grace=grace,
        )
    )
