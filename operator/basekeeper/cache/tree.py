"""The walk over the instances tree: every directory, and every file in it that may be a disk.

nova's names say little about use: `<uuid>_resize`, `<uuid>_del`, `instance-0000001a`, migration leftovers and
symlinked directories all hold overlays, so every directory counts. The walk records what it found and how
the files begin; what that means is `disks`' to say, because domains, which may declare a file's format, are
asked only after it. Symlinks to directories are followed at the top only, symlinks to files everywhere.
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .evidence import Inode, Note, Unknown
from .files import DIRECTORY, FILE, Head, identity_of, open_quietly, read_head
from .names import display
from .settings import Host

_DEEPEST = 8
_ATTEMPTS = 3
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESTALE})
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_LARGEST_INFO = 1 << 20
_NO_INSTANCES = frozenset({"_base", "locks", "lost+found"})
# What nova and libvirt keep beside the disks; logs and copies of kernels are never built on anything.
_NEVER_DISKS = ("console.log", "kernel", "ramdisk")
_NEVER_DISK_ENDINGS = (".xml", ".log")


class Unobservable(Exception):
    """The instances path itself cannot be read, so nothing can be said about any base."""


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


@dataclass(frozen=True, slots=True)
class TreeMark:
    """What the walked directories looked like just before each was listed."""

    directories: Mapping[bytes, tuple[int, int, int, int] | None]
    """Device, inode, mtime and ctime in nanoseconds by path; None: it did not exist."""

    def changed_since(self) -> tuple[bytes, ...]:
        """The directories that have got or lost entries, come or gone since; one `stat` for each."""
        return tuple(path for path, before in self.directories.items() if _mark_of(path) != before)


def _mark_of(path: bytes) -> tuple[int, int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return _mark(status)


def _mark(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@dataclass(slots=True)
class Tree:
    """What the walk has found so far."""

    host: Host
    directories: list[Directory] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    unknown: list[Unknown] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    _marks: dict[bytes, tuple[int, int, int, int] | None] = field(default_factory=dict)
    _seen: set[Inode] = field(default_factory=set)
    _listed: set[tuple[str, int]] = field(default_factory=set)
    _gone: list[str] = field(default_factory=list)
    _base: Inode | None = None
    _snapshots: Inode | None = None

    def walk(self) -> None:
        """Walk everything once; raises `Unobservable`."""
        self._base = _inode_of(self.host.base)
        self._snapshots = _inode_of(self.host.snapshots)
        self._gone = self._list_instances()
        self._walk_snapshots_elsewhere()

    def settle(self) -> None:
        """List the instances path again until no directory in it is new or was renamed away while we looked.

        nova renames `<uuid>` to `<uuid>_resize` or `<uuid>_del` at any time. Raises `Unobservable`.
        """
        for _ in range(_ATTEMPTS):
            before = len(self.directories)
            self._gone = self._list_instances()
            if not self._gone and len(self.directories) == before:
                return
        for name in self._gone:
            path = os.path.join(bytes(self.host.instances), os.fsencode(name))
            self._fail(path, "is listed, but is gone whenever it is opened")

    @property
    def mark(self) -> TreeMark:
        """By which the act can tell cheaply that the tree has changed since."""
        return TreeMark(dict(self._marks))

    def _list_instances(self) -> list[str]:
        """Walk each entry that was not walked yet; the names of those that were gone when opened."""
        instances = bytes(self.host.instances)
        gone: list[str] = []
        try:
            descriptor = open_quietly(instances, DIRECTORY)
        except OSError as error:
            raise Unobservable(_no_instances(instances, error)) from error
        try:
            status = os.fstat(descriptor)
            self._marks[instances] = _mark(status)
            self._seen.add((status.st_dev, status.st_ino))
            with os.scandir(descriptor) as entries:
                fresh = [entry for entry in entries if (entry.name, entry.inode()) not in self._listed]
            for entry in fresh:
                if self._walk_entry(entry, instances, descriptor):
                    self._listed.add((entry.name, entry.inode()))
                else:
                    gone.append(entry.name)
        except OSError as error:
            raise Unobservable(_no_instances(instances, error)) from error
        finally:
            os.close(descriptor)
        return gone

    def _walk_entry(self, entry: "os.DirEntry[str]", instances: bytes, parent: int) -> bool:
        """Walk one entry of the instances path if it is a directory; False if it is gone."""
        name = os.fsencode(entry.name)
        path = instances + b"/" + name
        if entry.name in _NO_INSTANCES:
            return True
        try:
            if not entry.is_dir():
                if entry.is_symlink():
                    os.stat(entry.name, dir_fd=parent)
                return True
            descriptor = open_quietly(entry.name, DIRECTORY, parent)
        except OSError as error:
            if entry.is_symlink() and error.errno in _NOWHERE:
                self._note("DanglingLink", path, "is a symbolic link that leads nowhere")
                return True
            if error.errno in _GONE:
                return False
            self._fail(path, f"cannot be opened ({error.strerror})")
            return True
        self._walk_opened(descriptor, path, name, 1, snapshots=False)
        return True

    def _walk_snapshots_elsewhere(self) -> None:
        path = bytes(self.host.snapshots)
        try:
            descriptor = open_quietly(path, DIRECTORY)
        except OSError as error:
            if error.errno in _GONE:
                self._marks[path] = None
            else:
                self._fail(path, f"cannot be opened ({error.strerror})")
            return
        self._walk_opened(descriptor, path, b"", 1, snapshots=True)

    def _walk_opened(self, descriptor: int, path: bytes, name: bytes, depth: int, *, snapshots: bool) -> None:
        """Walk a directory that is open as `descriptor`, and close it."""
        try:
            status = os.fstat(descriptor)
            inode = status.st_dev, status.st_ino
            if inode in self._seen or inode == self._base:
                return
            self._seen.add(inode)
            snapshots = snapshots or inode == self._snapshots
            self._marks[path] = _mark(status)
            directory = Directory(path, name, inode, depth == 1 and name != b"", snapshots, status.st_ctime)
            self.directories.append(directory)
            for nested in self._read_directory(directory, descriptor):
                self._walk_nested(nested, descriptor, directory, depth + 1)
        except OSError as error:
            self._fail(path, f"cannot be listed ({error.strerror})")
        finally:
            os.close(descriptor)

    def _walk_nested(self, entry: str, parent: int, outer: Directory, depth: int) -> None:
        path = outer.path + b"/" + os.fsencode(entry)
        if depth > _DEEPEST:
            self._fail(path, f"lies deeper than the {_DEEPEST} levels that basekeeper looks into")
            return
        try:
            descriptor = open_quietly(entry, DIRECTORY | os.O_NOFOLLOW, parent)
        except OSError as error:
            # Nothing renames directories inside an instance's: what is gone was deleted.
            if error.errno not in _GONE:
                self._fail(path, f"cannot be opened ({error.strerror})")
            return
        self._walk_opened(descriptor, path, outer.name, depth, snapshots=outer.snapshots)

    def _read_directory(self, directory: Directory, descriptor: int) -> list[str]:
        """Read the disks in a directory; the names of the directories in it."""
        entries: list[os.DirEntry[str]] = []
        disks: list[Disk] = []
        for _ in range(_ATTEMPTS):
            with os.scandir(descriptor) as listed:
                entries = list(listed)
            reading = _Reading(directory, descriptor, self.host.spawn_grace > 0 and directory.top)
            disks = list(reading.read(entries))
            self.notes.extend(
                Note(about, f"{self._show(path)} {message}", self._show(path)) for about, path, message in reading.notes
            )
            if not reading.vanished:
                break
            # A file that was renamed while we looked may be listed under its other name now.
        else:
            self._fail(directory.path, "has files that are gone whenever they are opened")
        self.disks.extend(disks)
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def _fail(self, path: bytes, what: str) -> None:
        shown = self._show(path)
        message = (
            f"{shown} {what}, so the bases that disks in it need may not be known; make it readable or remove it, "
            "or acknowledge it if it is harmless"
        )
        self.unknown.append(Unknown(message, shown, identity_of(path)))

    def _note(self, about: str, path: bytes, message: str) -> None:
        self.notes.append(Note(about, f"{self._show(path)} {message}", self._show(path)))

    def _show(self, path: bytes) -> str:
        return display(self.host.shown(path))


class _Reading:
    """One attempt to read the files of one directory."""

    def __init__(self, directory: Directory, descriptor: int, with_times: bool) -> None:
        self._directory = directory
        self._descriptor = descriptor
        self._with_times = with_times
        self.vanished = False
        self.notes: list[tuple[str, bytes, str]] = []

    def read(self, entries: "list[os.DirEntry[str]]") -> Iterator[Disk]:
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
            if error.errno in _GONE:
                self.vanished = True
            elif by_name:
                return Disk(self._directory, name, None, error.strerror or str(error))
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
                if error.errno not in _NOWHERE:
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
            if error.errno in _GONE:
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


def _no_instances(path: bytes, error: OSError) -> str:
    return (
        f"the instances path {display(path)} cannot be read ({error.strerror}); nothing is known about any base "
        "until it can"
    )


def _inode_of(path: os.PathLike[str]) -> Inode | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
