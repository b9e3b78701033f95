"""The ledger: what basekeeper remembers of this node between passes. The only SQL.

It lies on the host's own disk, never on the instances file system. A ledger that cannot be read is *lost*, and
says so; losing it starts every age anew and makes nothing more aggressive.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from .durable import sync_directory
from .evidence import CachedFile, Identity
from .files import FILE as READ_ONLY
from .files import open_quietly
from .identity import Ids, KnownIds
from .memory import Acknowledged, Breaker, Clock, Directories, LastPass, Memory, Present
from .names import display, from_display
from .verdicts import Reason

FILE = "ledger.db"
_VERSION = 1
_MOST_USERS = 64
_READ_ATTEMPTS = 10
_READ_PAUSE = 0.05
"""Seconds; a pass writes its ledger in far less."""
# meta: single values as JSON (ids, clock, last_pass, present, breaker, ages_since, reclaimed, accepted, lost).
# used: when each name was last seen in use, Unix seconds, and by whom (a JSON list).
# pin: until when a restored name is kept.
# acknowledged: an operator's word (by_hand) or what a policy's path was when first met.
# Inode numbers and time stamps are text: some file systems' fill 64 bits without a sign, SQLite's integers have one.
# compared: whether a quarantined file has the content of the newer file (by inode number and size) of its name.
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE used (name BLOB PRIMARY KEY, at REAL NOT NULL, users TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pin (name BLOB PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE acknowledged (
    path TEXT, by_hand INTEGER, identity TEXT, reason TEXT NOT NULL, until REAL, PRIMARY KEY (path, by_hand)
) STRICT, WITHOUT ROWID;
CREATE TABLE compared (
    entry TEXT PRIMARY KEY, inode TEXT NOT NULL, size INTEGER NOT NULL, same INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class LedgerError(Exception):
    """The ledger cannot be used, and not because it is damaged; says where, why and what to do."""


class Damaged(Exception):
    """The file is no ledger that can be read."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the agent was told, and when that was last confirmed: it acts by it while the API server is away."""

    spec: Any
    """A `NodeImageCache`'s spec as JSON has it; what it means is not the ledger's business."""
    generation: int
    confirmed_at: float
    """Unix seconds."""


class Ledger:
    """An open ledger. Use `reading` or `writing` to get one."""

    def __init__(self, connection: sqlite3.Connection, *, lost: bool) -> None:
        self._db = connection
        self._lost = lost

    @property
    def lost(self) -> bool:
        """There was a ledger and it could not be read, and no age has started anew since.

        Written down, because whoever opens the new one first need not be the pass that must know.
        """
        return self._lost or bool(self._get("lost"))

    def ids(self) -> KnownIds | None:
        """The ids of the directories that it knows."""
        known = self._get("ids")
        if known is None:
            return None
        return KnownIds(Ids(known["instances"], known["base"]), bool(known["made"]))

    def set_ids(self, ids: Ids, *, made: bool) -> None:
        """Know these directories from now on."""
        self._set("ids", {"instances": ids.instances, "base": ids.base, "made": made})

    def memory(self, directories: Directories, message: str) -> Memory:
        """Everything that judgement may know, with what the id files say about the directories."""
        clock, last, breaker = self._get("clock"), self._get("last_pass"), self._get("breaker")
        ages_since, present = self._get("ages_since"), self._get("present")
        return Memory(
            last_used=dict(self._db.execute("SELECT name, at FROM used")),
            last_users={
                name: tuple(map(str, json.loads(users)))
                for name, users in self._db.execute("SELECT name, users FROM used WHERE users != '[]'")
            },
            ages_since=None if ages_since is None else float(ages_since),
            pins=dict(self._db.execute("SELECT name, until FROM pin")),
            acknowledged=tuple(_acknowledged(row) for row in self._db.execute("SELECT * FROM acknowledged")),
            compared={
                (row[0], int(row[1]), row[2]): bool(row[3]) for row in self._db.execute("SELECT * FROM compared")
            },
            clock=None if clock is None else Clock(float(clock["wall"]), float(clock["uptime"]), str(clock["boot"])),
            last_pass=None if last is None else LastPass(_names(last["used"]), int(last["places"])),
            present=None
            if present is None
            else Present(int(present["directory"]), _names(present["names"]), float(present["at"])),
            breaker=None
            if breaker is None
            else Breaker(Reason(breaker["cause"]), float(breaker["since"]), _names(breaker["names"])),
            directories=directories,
            directories_message=message,
        )

    def understand(self) -> None:
        """Read everything once; raises what damage makes of it. SQLite knows whole pages, not what they say."""
        self.ids()
        self.reclaimed()
        self.accepted()
        self.memory(Directories.KNOWN, "")

    def seen_in_use(self, users: Mapping[bytes, Sequence[str]], at: float) -> None:
        """Remember that these bases were in use at this time, and by whom; never moves a memory back.

        A use without users to name (a lock, a pin by hand) leaves the users that are known.
        """
        self._db.executemany(
            "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET at = max(at, excluded.at), "
            "users = CASE excluded.users WHEN '[]' THEN users ELSE excluded.users END",
            [(name, at, json.dumps(list(who[:_MOST_USERS]))) for name, who in users.items()],
        )

    def forget_users(self, names: Iterable[bytes]) -> None:
        """Forget who used these: the side-cars of the removed files know it, and the next file of a name is another."""
        self._db.executemany("UPDATE used SET users = '[]' WHERE name = ?", [(name,) for name in names])

    def forget_used(self, but: Iterable[bytes]) -> None:
        """Forget names that are neither in the cache nor in the quarantine any more."""
        keep = set(but)
        gone = [row for row in self._db.execute("SELECT name FROM used") if row[0] not in keep]
        self._db.executemany("DELETE FROM used WHERE name = ?", gone)

    def restart_ages(self, at: float) -> None:
        """No age counts from before this moment, and none from after it."""
        self._set("ages_since", at)
        self._db.execute("UPDATE used SET at = min(at, ?)", (at,))
        self._db.execute("DELETE FROM meta WHERE key = 'lost'")

    def pin(self, name: bytes, until: float) -> None:
        """Keep this name, used or not, until then."""
        self._db.execute("INSERT OR REPLACE INTO pin VALUES (?, ?)", (name, until))

    def acknowledge(self, row: Acknowledged) -> None:
        """Remember an acknowledged path and what it is now."""
        identity = None if row.identity is None else json.dumps(astuple(row.identity))
        self._db.execute(
            "INSERT OR REPLACE INTO acknowledged VALUES (?, ?, ?, ?, ?)",
            (row.path, int(row.by_hand), identity, row.reason, row.until),
        )

    def forget_acknowledged(self, paths: Iterable[str], *, by_hand: bool) -> None:
        """Forget these acknowledged paths."""
        self._db.executemany(
            "DELETE FROM acknowledged WHERE path = ? AND by_hand = ?", [(path, int(by_hand)) for path in paths]
        )

    def compared(self, entry_id: str, newer: CachedFile, *, same: bool) -> None:
        """Remember whether this quarantined file has the content of the newer one of its name, as that is now."""
        row = (entry_id, str(newer.inode[1]), newer.size, int(same))
        self._db.execute("INSERT OR REPLACE INTO compared VALUES (?, ?, ?, ?)", row)

    def end_pass(self, clock: Clock, last: LastPass | None, breaker: Breaker | None) -> None:
        """Remember how a pass ended; `last` is None when its evidence was not complete."""
        self._set("clock", {"wall": clock.wall, "uptime": clock.uptime, "boot": clock.boot})
        if last is not None:
            self._set("last_pass", {"used": _texts(last.used), "places": last.places})
        self._set(
            "breaker",
            None
            if breaker is None
            else {"cause": breaker.cause.value, "since": breaker.since, "names": _texts(breaker.names)},
        )
        self._db.execute("DELETE FROM pin WHERE until < ?", (clock.wall,))

    def set_present(self, present: Present) -> None:
        """Remember what lies in the cache now."""
        self._set("present", {"directory": present.directory, "names": _texts(present.names), "at": present.at})

    def reclaimed(self) -> int:
        """Bytes that purges have freed since this ledger began."""
        freed = self._get("reclaimed") or 0
        if not isinstance(freed, int) or freed < 0:
            raise ValueError(f"{freed!r} is no number of bytes")
        return freed

    def add_reclaimed(self, freed: int) -> None:
        """Count the bytes of a purge."""
        if freed:
            self._set("reclaimed", self.reclaimed() + freed)

    def accepted(self) -> Accepted | None:
        """The settings that the agent was last told."""
        kept = self._get("accepted")
        if kept is None:
            return None
        generation, confirmed_at = kept["generation"], kept["confirmed_at"]
        if not isinstance(generation, int) or not isinstance(confirmed_at, int | float) or not isfinite(confirmed_at):
            raise ValueError("the settings that were accepted have no generation or no time")
        return Accepted(kept["spec"], generation, float(confirmed_at))

    def accept(self, told: Accepted | None) -> None:
        """Remember what the agent was told; None: forget it."""
        kept = (
            None
            if told is None
            else {"spec": told.spec, "generation": told.generation, "confirmed_at": told.confirmed_at}
        )
        self._set("accepted", kept)

    def forget_last_pass(self) -> None:
        """Forget what concerned other directories: what lay and was in use in them, and a breaker of theirs."""
        self._db.execute("DELETE FROM meta WHERE key IN ('last_pass', 'present', 'breaker')")

    def commit(self) -> None:
        """Make everything so far durable. Raises LedgerError, e.g. on a full disk."""
        try:
            self._db.commit()
        except sqlite3.Error as error:
            message = f"the ledger could not be written: {error}; is the disk of the state directory full?"
            raise LedgerError(message) from error

    def _get(self, key: str) -> Any:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _set(self, key: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


@contextmanager
def reading(state: Path) -> Iterator[Ledger]:
    """The ledger as it is, for programs that change nothing; an empty one if there is none."""
    path = state / FILE
    lost = False
    connection = None
    try:
        if path.exists():
            connection = _open_copy(path) or _open(f"{path.absolute().as_uri()}?mode=ro", path)
        else:
            lost = _aside(path).exists()
    except Damaged:
        lost = True
    except (OSError, sqlite3.Error) as error:
        half_written = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY_ROLLBACK
        why = "a pass was killed while it wrote it; the next `basekeeper run` puts it right"
        message = why if half_written else f"{_why(error)}; run as the user that owns it"
        raise LedgerError(f"{path} cannot be read: {message}") from error
    if connection is None:
        connection = sqlite3.connect(":memory:")
        connection.executescript(_SCHEMA)
    try:
        yield Ledger(connection, lost=lost)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} cannot be read: {error}") from error
    finally:
        connection.close()


@contextmanager
def writing(state: Path) -> Iterator[Ledger]:
    """The ledger, made if there is none; a damaged one is moved aside and a new one begun. Raises LedgerError."""
    path = state / FILE
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o750)
        if path.exists() and not _readable(path):
            _move_aside(path)
        if not path.exists():
            _make(path, lost=_aside(path).exists())
        connection = _open(f"{path.absolute().as_uri()}?mode=rw", path)
    except (OSError, sqlite3.Error, Damaged) as error:
        message = f"{path} cannot be used: {_why(error)}; give a writable directory with --state-dir"
        raise LedgerError(message) from error
    try:
        yield Ledger(connection, lost=False)
    except sqlite3.Error as error:
        raise LedgerError(f"{path} could not be read or written: {error}") from error
    finally:
        connection.close()


def _make(path: Path, *, lost: bool) -> None:
    """Make an empty ledger, whole before it has its name: a file without content would be one that was lost."""
    remark = "INSERT INTO meta VALUES ('lost', 'true');" if lost else ""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft)
    try:
        connection.executescript(f"BEGIN; {_SCHEMA} {remark} PRAGMA user_version = {_VERSION}; COMMIT;")
    finally:
        connection.close()
    with contextlib.suppress(FileExistsError):  # another program has just made one
        os.link(draft, path)
    draft.unlink()
    sync_directory(path.parent)


def _open_copy(path: Path) -> sqlite3.Connection | None:
    """Open a ledger as it is, without a lock and without its access time; None while a program writes it."""
    journal = path.with_name(f"{path.name}-journal")
    for _ in range(_READ_ATTEMPTS):
        if not journal.exists():
            before = path.stat()
            descriptor = open_quietly(bytes(path), READ_ONLY)
            with open(descriptor, "rb") as stream:
                content = stream.read()
            after = path.stat()
            if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns) and not journal.exists():
                return _from_content(content, path)
        time.sleep(_READ_PAUSE)
    return None


def _from_content(content: bytes, path: Path) -> sqlite3.Connection:
    if not content:
        raise Damaged(f"{path} is empty")
    connection = sqlite3.connect(":memory:")
    try:
        connection.deserialize(content)
        return _checked(connection, path)
    except sqlite3.OperationalError as error:  # nothing of the host is asked, so it is about the content
        raise Damaged(f"{path} is damaged: {error}") from error


def _open(uri: str, path: Path) -> sqlite3.Connection:
    """Open and check a ledger. Raises Damaged, LedgerError (a newer version's) or sqlite3.OperationalError."""
    return _checked(sqlite3.connect(uri, uri=True, timeout=10.0), path)


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise LedgerError(f"{path} was written by a newer basekeeper (version {version}); use that one")
        if version != _VERSION or connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise Damaged(f"{path} is no ledger")
        Ledger(connection, lost=False).understand()
        return connection
    except (sqlite3.DatabaseError, ValueError, LookupError, TypeError, OverflowError) as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and _is_the_host_s(error):
            raise
        raise Damaged(f"{path} is damaged: {error}") from error
    except BaseException:
        connection.close()
        raise


def _is_the_host_s(error: sqlite3.OperationalError) -> bool:
    """Whether it says that the file cannot be opened, locked, read or written, and nothing of what is in it."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) != sqlite3.SQLITE_ERROR


def _readable(path: Path) -> bool:
    if path.stat().st_size == 0:
        return False
    try:
        _open(f"{path.absolute().as_uri()}?mode=rw", path).close()
    except Damaged:
        return False
    return True


def _move_aside(path: Path) -> None:
    """Keep a damaged ledger for whoever wants to look at it; only the latest one."""
    path.replace(_aside(path))
    path.with_name(f"{path.name}-journal").unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _names(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(from_display(text) for text in texts)


def _texts(names: Iterable[bytes]) -> list[str]:
    return sorted(display(name) for name in names)


def _acknowledged(row: tuple[Any, ...]) -> Acknowledged:
    path, by_hand, identity, reason, until = row
    known = None if identity is None else Identity(*map(int, json.loads(identity)))
    return Acknowledged(path, known, bool(by_hand), reason, until)
