"""File locks: asks for qemu's and nova's, takes nova's and our own; breaks none and unlinks none.

nova locks `<instances_path>/locks/nova-<name>` with `fcntl.lockf` (oslo.concurrency, fasteners). Our side uses
open-file-description locks: they exclude `lockf` both ways and, unlike it, are not lost when another part of
this process opens and closes the same file. qemu marks the images it uses by read locks on single bytes from
100 (permissions it uses) and 200 (permissions it does not share) on, see `block/file-posix.c`.

"Held by another" and "could not lock" are two errors, because the callers wait for one and report the other.
"""

import errno
import fcntl
import os
import secrets
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .files import FILE, open_quietly
from .names import display

_FLOCK = struct.Struct("@hhqqi0q")
_QEMU_BYTES = (100, 200)
"""Start and length of the range that holds all of qemu's image locks."""
_POLL = 0.02
_LOCK_FILE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})


class HeldByAnother(Exception):
    """Somebody holds the lock; trying again later may help."""


class LockError(Exception):
    """The lock cannot be asked or taken at all: permissions, a read-only or foreign file system."""


def qemu_holds(descriptor: int) -> bool:
    """Whether a running qemu holds an image lock on the open file. A read-only descriptor will do.

    "No" is no evidence of disuse: the destination of a live migration holds none. Raises OSError.
    """
    return _is_held(descriptor, *_QEMU_BYTES)


def nova_holds(locks: Path, lock_name: bytes) -> bool:
    """Whether somebody holds nova's lock of this name (`Name.lock_name`). Changes nothing; raises OSError."""
    return is_held(Path(os.fsdecode(_nova_path(locks, lock_name))))


@contextmanager
def nova_lock(locks: Path, lock_name: bytes, timeout: float = 2.0) -> Iterator[None]:
    """Hold nova's lock for a base, waiting up to `timeout` seconds for it.

    `locks` is the `locks` directory in the instances path; it and the lock file are made if missing, with the
    owner of the directory above, so that nova can open them. Raises `HeldByAnother` and `LockError`.
    """
    path = _nova_path(locks, lock_name)
    try:
        descriptor = _acquire(path, locks, time.monotonic() + timeout)
    except OSError as error:
        raise LockError(f"nova's lock {display(path)} could not be taken ({error.strerror})") from error
    if descriptor is None:
        raise HeldByAnother(f"nova's lock {display(path)} is held by another and was not released in {timeout:g} s")
    try:
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Held:
    """A lock of ours that is held."""

    path: bytes
    descriptor: int

    @property
    def is_at_its_path(self) -> bool:
        """Whether the lock file still has its name: a lock on one that lost it excludes nobody. Raises OSError."""
        return _is_at(self.path, self.descriptor)


@contextmanager
def program_lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path` that lets one basekeeper program at a time act on a cache.

    Raises `HeldByAnother` when another program acts, `LockError` when the lock cannot be taken.
    """
    try:
        with held(path):
            yield
    except HeldByAnother as error:
        raise HeldByAnother(f"another basekeeper is at work on this cache: it holds {display(bytes(path))}") from error


@contextmanager
def held(path: Path) -> Iterator[Held]:
    """Hold a lock of ours. It and its directory are made if missing, with the owner of the directory above.

    Never waits. Raises `HeldByAnother` and `LockError`.
    """
    shown = display(bytes(path))
    try:
        descriptor = _acquire(bytes(path), path.parent, 0.0)
    except OSError as error:
        raise LockError(f"the lock {shown} could not be taken ({error.strerror})") from error
    if descriptor is None:
        raise HeldByAnother(f"another program holds {shown}")
    try:
        yield Held(bytes(path), descriptor)
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether somebody holds a lock of ours, as this host sees it. Changes nothing; raises OSError."""
    try:
        descriptor = open_quietly(bytes(path), FILE)
    except FileNotFoundError:
        return False
    try:
        return _is_held(descriptor, 0, 0)
    finally:
        os.close(descriptor)


def _nova_path(locks: Path, lock_name: bytes) -> bytes:
    return bytes(locks) + b"/nova-" + lock_name.replace(b"/", b"_")


def _is_held(descriptor: int, start: int, length: int) -> bool:
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer: bytes = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, request)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _acquire(path: bytes, directory: Path, deadline: float) -> int | None:
    """Lock the file at `path` (made if missing) until `deadline`; the descriptor, or None: held by another."""
    while True:
        descriptor = _open_or_create(path, directory)
        try:
            locked = _lock_until(descriptor, deadline)
            # nova unlinks lock files after use: a lock on a file that has lost its name excludes nobody.
            if locked and _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if not locked:
            return None


def _lock_until(descriptor: int, deadline: float) -> bool:
    request = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(_POLL, left))


def _is_at(path: bytes, descriptor: int) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _open_or_create(path: bytes, directory: Path) -> int:
    while True:
        try:
            return os.open(path, _LOCK_FILE)
        except FileNotFoundError:
            _make_directory(directory)
        try:
            return _create(path, directory)
        except FileExistsError:
            continue


def _create(path: bytes, directory: Path) -> int:
    """Make a lock file that has the directory's owner from its first moment; FileExistsError if one is there."""
    owner = directory.stat()
    if os.geteuid() == owner.st_uid:
        return os.open(path, _LOCK_FILE | os.O_CREAT | os.O_EXCL, 0o644)
    parent = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _create_for(owner, os.path.basename(path), parent)
    finally:
        os.close(parent)


def _create_for(owner: os.stat_result, name: bytes, parent: int) -> int:
    try:
        descriptor = os.open(b".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o644, dir_fd=parent)
    except OSError as error:
        if error.errno not in _NO_TMPFILE:
            raise
        return _create_by_rename(owner, name, parent)
    try:
        _give(descriptor, owner)
        # With a directory descriptor Python calls linkat(AT_SYMLINK_FOLLOW), which gives the file its name.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=parent, follow_symlinks=True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _create_by_rename(owner: os.stat_result, name: bytes, parent: int) -> int:
    """For file systems without nameless files (NFS): a temporary name, linked to the right one."""
    temporary = b".basekeeper-" + secrets.token_hex(8).encode()
    descriptor = os.open(temporary, _LOCK_FILE | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=parent)
    try:
        _give(descriptor, owner)
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
    except BaseException:
        os.close(descriptor)
        raise
    finally:
        os.unlink(temporary, dir_fd=parent)
    return descriptor


def _give(descriptor: int, owner: os.stat_result) -> None:
    os.fchown(descriptor, owner.st_uid, owner.st_gid)
    os.fchmod(descriptor, 0o644)


def _make_directory(directory: Path) -> None:
    """Make `directory` with the owner and mode of its parent, complete before it has its name."""
    if directory.exists():
        return
    like = directory.parent.stat()
    # Always the same name: what a killed process left behind is finished by the next one.
    temporary = directory.with_name(f".basekeeper-{directory.name}.new")
    try:
        with suppress(FileExistsError):
            os.mkdir(temporary, 0o700)
        if os.geteuid() != like.st_uid:
            os.chown(temporary, like.st_uid, like.st_gid)
        os.chmod(temporary, stat.S_IMODE(like.st_mode))
        # An empty directory of this name, made by another meanwhile, is replaced by an equal one.
        os.rename(temporary, directory)
    except OSError:
        with suppress(OSError):
            os.rmdir(temporary)
        if not directory.is_dir():
            raise
