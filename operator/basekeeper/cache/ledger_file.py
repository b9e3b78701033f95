"""The ledger's file: opened, made where there is none, brought up to date where an earlier release wrote it.

It lies on the host's own disk, never on the instances file system. A ledger that cannot be read is *lost*, and
says so; losing it starts every age anew and makes nothing more aggressive.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .durable import sync_directory
from .files import FILE as READ_ONLY
from .files import open_quietly
from .ledger import Ledger, LedgerError

FILE = "ledger.db"
_READ_ATTEMPTS = 10
_READ_PAUSE = 0.05
"""Seconds; a pass writes its ledger in far less."""
# meta: single values as JSON (ids, clock, last_pass, present, breaker, trips, ages_since, reclaimed, accepted,
# lost, removing and so on).
# used: when each name was last seen in use, Unix seconds, by whom (a JSON list), and which file it was then.
# pin: until when a restored name is kept.
# acknowledged: an operator's word (by_hand) or what a policy's path was when first met.
# Inode numbers and time stamps are text: some file systems' fill 64 bits without a sign, SQLite's integers have one.
# compared: whether a quarantined file has the content of the newer file (by inode number and size) of its name.
# baseline: the digests of a base's blocks, 16 bytes each, by the file's handle (`handles`).
# finding: what verification found wrong, with offsets in bytes (a JSON list). reading: how far a file has been read.
MIGRATIONS = (
    """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE used (name BLOB PRIMARY KEY, at REAL NOT NULL, users TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pin (name BLOB PRIMARY KEY, until REAL NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE acknowledged (
    path TEXT, by_hand INTEGER, identity TEXT, reason TEXT NOT NULL, until REAL, PRIMARY KEY (path, by_hand)
) STRICT, WITHOUT ROWID;
CREATE TABLE compared (
    entry TEXT PRIMARY KEY, inode TEXT NOT NULL, size INTEGER NOT NULL, same INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
""",
    """
ALTER TABLE used ADD COLUMN inode TEXT;
CREATE TABLE baseline (
    identity TEXT PRIMARY KEY, name BLOB NOT NULL, algorithm TEXT NOT NULL, size INTEGER NOT NULL,
    digests BLOB NOT NULL, root TEXT NOT NULL, taken_at REAL NOT NULL, verified_at REAL NOT NULL
) STRICT;
CREATE TABLE finding (
    identity TEXT PRIMARY KEY, name BLOB NOT NULL, flaw TEXT NOT NULL, message TEXT NOT NULL, offsets TEXT NOT NULL,
    found_at REAL NOT NULL, checked_at REAL NOT NULL
) STRICT;
CREATE TABLE reading (
    identity TEXT PRIMARY KEY, name BLOB NOT NULL, algorithm TEXT NOT NULL, size INTEGER NOT NULL,
    began_at REAL NOT NULL, mtime_ns TEXT NOT NULL, quiet INTEGER NOT NULL, digests BLOB NOT NULL,
    damaged TEXT NOT NULL, unreadable TEXT NOT NULL, candidate BLOB
) STRICT;
""",
)
"""What leads from each version to the next; a new ledger goes through all. A released one is never changed."""
VERSION = len(MIGRATIONS)


class Damaged(Exception):
    """The file is no ledger that can be read."""


@contextmanager
def reading(state: Path) -> Iterator[Ledger]:
    """The ledger as it is, for programs that change nothing; an empty one if there is none."""
    path = state / FILE
    lost = False
    connection = None
    try:
        if path.exists():
            connection = _open_copy(path) or _copy_while_written(path)
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
        _bring_up_to_date(connection)
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
        connection = _open(path)
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
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    connection = sqlite3.connect(draft)
    try:
        _bring_up_to_date(connection)
        if lost:
            connection.execute("INSERT INTO meta VALUES ('lost', 'true')")
            connection.commit()
    finally:
        connection.close()
    with contextlib.suppress(FileExistsError):  # another program has just made one
        os.link(draft, path)
    draft.unlink()
    sync_directory(path.parent)


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Lead a ledger from whatever version it has to this one, in one transaction: all of it, or nothing."""
    if _version(connection) == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for script in MIGRATIONS[_version(connection) :]:  # asked again: another program may have been faster
            for statement in script.split(";"):  # a script as a whole would end the transaction
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


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


def _copy_while_written(path: Path) -> sqlite3.Connection:
    """Copy a ledger that another program goes on writing, between two of its transactions."""
    copy = sqlite3.connect(":memory:")
    with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)) as there:
        there.backup(copy)
    return _checked(copy, path)


def _open(path: Path) -> sqlite3.Connection:
    """Open and check a ledger. Raises Damaged, LedgerError (a newer version's) or sqlite3.OperationalError."""
    return _checked(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10.0), path)


def _checked(connection: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        connection.execute("PRAGMA synchronous = FULL")
        version = _version(connection)
        if version > VERSION:
            raise LedgerError(f"{path} was written by a newer basekeeper (version {version}); use that one")
        if version < 1 or connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise Damaged(f"{path} is no ledger")
        _bring_up_to_date(connection)
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
        _open(path).close()
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
