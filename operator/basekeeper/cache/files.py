"""Reading files without leaving a trace.

Observation must change nothing, not even an access time where the kernel allows that, and must not hang
on a FIFO or wake a device. Every disk and directory that observation looks into is opened here.
"""

import errno
import os
import stat
from dataclasses import dataclass

from . import qcow2
from .evidence import Identity, Inode

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
"""Flags to open a directory."""
FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Flags to open a file: non-blocking, in case it became a FIFO after it was looked at."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a file that may be a disk."""

    inode: Inode
    size: int
    changed_at: float
    """The later of its mtime and ctime, Unix seconds."""
    header: qcow2.Header | None
    """Present when the file begins with the qcow magic; whether it is to be believed is for others to say."""
    cut_magic: bool = False
    """It is shorter than the magic, and what there is begins like it."""

    def is_of(self, status: os.stat_result) -> bool:
        """Whether the regular file of this status is the one that was read, unchanged."""
        same = self.inode == (status.st_dev, status.st_ino) and self.size == status.st_size
        return same and self.changed_at == max(status.st_mtime, status.st_ctime)


class Unobservable(Exception):
    """The cache or the instances directory cannot be read at all, so the pass fails; says which and why."""


class NotAFile(OSError):
    """Neither a regular file nor a block device."""


def open_quietly(path: bytes | str, flags: int, dir_fd: int | None = None) -> int:
    """`os.open` that leaves the access time alone where this process may (owner or CAP_FOWNER)."""
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError:
        return os.open(path, flags, dir_fd=dir_fd)


def list_quietly(path: os.PathLike[str]) -> list[str]:
    """`os.listdir` that leaves the access time alone where this process may."""
    descriptor = open_quietly(os.fspath(path), DIRECTORY)
    try:
        return os.listdir(descriptor)
    finally:
        os.close(descriptor)


def read_head(descriptor: int, status: os.stat_result) -> Head:
    """Read the head of an open file whose `fstat` is `status`.

    Raises OSError for what cannot be read, `NotAFile` for what is neither a regular file nor a block device.
    """
    if stat.S_ISREG(status.st_mode):
        size = status.st_size
    elif stat.S_ISBLK(status.st_mode):
        size = os.lseek(descriptor, 0, os.SEEK_END)
    else:
        raise NotAFile(0, "it is not a regular file")
    data = os.pread(descriptor, qcow2.HEAD_SIZE, 0)
    header = None
    if data[:4] == qcow2.MAGIC:
        header = qcow2.parse(data, size, lambda offset, length: os.pread(descriptor, length, offset))
    return Head(
        (status.st_dev, status.st_ino),
        size,
        max(status.st_mtime, status.st_ctime),
        header,
        cut_magic=0 < len(data) < 4 and qcow2.MAGIC.startswith(data),
    )


def read_head_of(path: bytes) -> Head:
    """Open `path` and read its head; raises OSError as `read_head` does."""
    status = os.stat(path)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
        raise NotAFile(0, "it is not a regular file")
    descriptor = open_quietly(path, FILE)
    try:
        return read_head(descriptor, os.fstat(descriptor))
    finally:
        os.close(descriptor)


def why(error: OSError, path: os.PathLike[str] | bytes) -> str:
    """The system's words for an error at `path`; where a right is missing also what must change for there to be one."""
    said = error.strerror or str(error)
    if error.errno not in {errno.EACCES, errno.EPERM}:
        return said
    asker = f"basekeeper is {os.geteuid()}:{os.getegid()}"
    try:
        status = os.stat(path)
    except OSError:
        return f"{said}: {asker} and may not enter a directory above"
    return f"{said}: owner {status.st_uid}:{status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}; {asker}"


def inode_at(path: os.PathLike[str] | bytes) -> Inode | None:
    """Which file or directory a path leads to; None if it leads nowhere or may not be asked."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def identity_of(path: bytes) -> Identity | None:
    """By which an operator's word about `path` is tied to what lies there now; None if nothing can be asked."""
    try:
        status = os.stat(path)
    except OSError:
        try:
            status = os.lstat(path)
        except OSError:
            return None
    return Identity(status.st_ino, status.st_size, status.st_mtime_ns)
