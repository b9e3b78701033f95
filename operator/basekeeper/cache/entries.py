"""What lies in one directory of the instances tree: the files that may be disks, and nova's `disk.info`.

A file is a disk by its name, or by its first bytes. Symbolic links to files are followed; what is named like
a disk but is none (a FIFO, a socket, a link that leads nowhere) is noted and holds nothing.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from .evidence import Inode
from .files import FILE, Head, open_quietly, read_head, why

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
"""What opening an entry says when it was renamed or deleted after it was listed."""
NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What following a symbolic link says when it leads nowhere."""

_LARGEST_INFO = 1 << 20
# What nova and libvirt keep beside the disks; logs and copies of kernels are never built on anything.
_NEVER_DISKS = ("console.log", "kernel", "ramdisk")
_NEVER_DISK_ENDINGS = (".xml", ".log")


@dataclass(slots=True)
class Directory:
    """A directory that was walked."""

    path: bytes
    name: bytes
    """Its entry in the instances path, or that of the directory it lies in; empty outside of it."""
    inode: Inode
    top: bool
    """Whether it is an entry of the instances path itself: an instance's directory."""
    snapshots: bool
    """Whether it is, or lies in, the directory of live snapshots."""
    changed_at: float
    """The latest ctime of it and, for an instance's directory, of its entries; Unix seconds."""
    info: bytes | None = None
    """The content of its `disk.info`."""


@dataclass(slots=True)
class Disk:
    """A file that is a disk by its name, or by its first bytes."""

    directory: Directory
    name: bytes
    head: Head | None
    error: str | None = None
    """Why there is no head."""

    @property
    def path(self) -> bytes:
        """Where it was found, through symlinks as walked."""
        return self.directory.path + b"/" + self.name


class Reading:
    """One attempt to read the files of one directory, which is open as `descriptor`.

    With `with_times` the directory's `changed_at` takes in its entries' ctimes.
    """

    def __init__(self, directory: Directory, descriptor: int, with_times: bool) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._with_times = with_times
        self.vanished = False
        """Whether an entry was gone when it was opened, so that the listing is no longer true."""
        self.notes: list[tuple[str, bytes, str]] = []
        """What a note is about, the path, and the end of its sentence."""

    def read(self, entries: "list[os.DirEntry[str]]") -> Iterator[Disk]:
        """Read the disks among `entries`; one that cannot be read carries its error."""
        directory = self._directory
        for entry in entries:
            name = entry.name
            if name == "disk.info":
                self._read_info(entry)
                continue
            by_name = name.startswith("disk") or (directory.snapshots and name.endswith(".delta"))
            if by_name or not (name.startswith(_NEVER_DISKS) or name.endswith(_NEVER_DISK_ENDINGS)):
                disk = self._read_disk(entry, by_name)
                if disk is not None:
                    yield disk
            elif self._with_times:
                self._time(entry)

    def _read_disk(self, entry: "os.DirEntry[str]", by_name: bool) -> Disk | None:
        """The disk that `entry` is, by its name or by its first bytes."""
        name = os.fsencode(entry.name)
        try:
            descriptor = self._open(entry, by_name)
            if descriptor is None:
                return None
            try:
                status = os.fstat(descriptor)
                head = read_head(descriptor, status)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in GONE:
                self.vanished = True
            elif by_name:
                return Disk(self._directory, name, None, why(error, self._directory.path + b"/" + name))
            return None
        if status.st_ctime > self._directory.changed_at and self._with_times:
            self._directory.changed_at = status.st_ctime
        return Disk(self._directory, name, head) if by_name or head.header is not None else None

    def _open(self, entry: "os.DirEntry[str]", by_name: bool) -> int | None:
        """Open what is, or leads to, a regular file; None for anything else."""
        if not entry.is_file(follow_symlinks=False):
            if self._with_times:
                self._time(entry)
            if not self._leads_to_file(entry, by_name):
                return None
        return open_quietly(entry.name, FILE, self._descriptor)

    def _leads_to_file(self, entry: "os.DirEntry[str]", by_name: bool) -> bool:
        path = self._directory.path + b"/" + os.fsencode(entry.name)
        if entry.is_symlink():
            try:
                if stat.S_ISREG(os.stat(entry.name, dir_fd=self._descriptor).st_mode):
                    return True
            except OSError as error:
                if error.errno not in NOWHERE:
                    raise
                if by_name:
                    self.notes.append(("DanglingLink", path, "is a symbolic link that leads nowhere"))
                return False
        if by_name:
            self.notes.append(("NotAFile", path, "is named like a disk but is no file"))
        return False

    def _read_info(self, entry: "os.DirEntry[str]") -> None:
        """Keep nova's `disk.info`; what cannot be read does not speak, and is noted."""
        path = self._directory.path + b"/disk.info"
        if not entry.is_file(follow_symlinks=False):
            self.notes.append(("DiskInfoUnreadable", path, "is not a regular file"))
            return
        try:
            descriptor = open_quietly("disk.info", FILE | os.O_NOFOLLOW, self._descriptor)
            try:
                status = os.fstat(descriptor)
                info = os.read(descriptor, min(status.st_size, _LARGEST_INFO) + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno in GONE:
                self.vanished = True
            else:
                self.notes.append(("DiskInfoUnreadable", path, f"cannot be read ({error.strerror})"))
            return
        if status.st_ctime > self._directory.changed_at and self._with_times:
            self._directory.changed_at = status.st_ctime
        if len(info) > _LARGEST_INFO:
            self.notes.append(("DiskInfoUnreadable", path, "is larger than 1 MiB"))
        else:
            self._directory.info = info

    def _time(self, entry: "os.DirEntry[str]") -> None:
        try:
            changed_at = entry.stat(follow_symlinks=False).st_ctime
        except OSError:
            return
        self._directory.changed_at = max(self._directory.changed_at, changed_at)
