"""The walk over the instances tree: every directory, and every file in it that may be a disk.

nova's names say little about use: `<uuid>_resize`, `<uuid>_del`, `instance-0000001a`, migration leftovers and
symlinked directories all hold overlays, so every directory counts. The walk records what it found and how
the files begin; what that means is `disks`' to say, because domains, which may declare a file's format, are
asked only after it. Symlinks to directories are followed at the top only, symlinks to files everywhere.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from .entries import GONE, NOWHERE, Directory, Disk, Reading
from .evidence import Inode, Note, Unknown
from .files import DIRECTORY, Unobservable, identity_of, inode_at, open_quietly, why
from .names import display
from .settings import Host

_DEEPEST = 8
_ATTEMPTS = 3
_NO_INSTANCES = frozenset({"_base", "locks", "lost+found"})
_NO_DISKS = frozenset({"compute_nodes", ".basekeeper-id"})


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
    _seen: dict[Inode, bytes] = field(default_factory=dict)
    """Where each directory was walked."""
    _listed: set[tuple[str, int]] = field(default_factory=set)
    _gone: list[str] = field(default_factory=list)
    _base: Inode | None = None
    _snapshots: Inode | None = None

    def walk(self) -> None:
        """Walk everything once; raises `Unobservable`."""
        self._base = inode_at(self.host.base)
        self._snapshots = inode_at(self.host.snapshots)
        self._gone = self._list_instances()
        self._walk_snapshots_elsewhere()

    def settle(self) -> None:
        """List the instances path again until no directory in it is new or was renamed away while we looked.

        nova renames `<uuid>` to `<uuid>_resize` or `<uuid>_del` at any time. Raises `Unobservable`.
        """
        for _ in range(_ATTEMPTS):
            before = set(self._seen)
            self._gone = self._list_instances()
            if not self._gone and self._seen.keys() == before:
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
            self._seen[status.st_dev, status.st_ino] = instances
            with os.scandir(descriptor) as entries:
                fresh = [entry for entry in entries if (entry.name, entry.inode()) not in self._listed]
            self._read_strays(fresh, descriptor, status)
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

    def _read_strays(self, fresh: "list[os.DirEntry[str]]", descriptor: int, status: os.stat_result) -> None:
        """Disks that lie in the instances path itself, where nova puts none."""
        place = Directory(bytes(self.host.instances), b"", (status.st_dev, status.st_ino), False, False, 0.0)
        strays = [entry for entry in fresh if entry.name not in _NO_DISKS and not _leads_to_directory(entry)]
        self.disks.extend(Reading(place, descriptor, False).read(strays))

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
            if entry.is_symlink() and error.errno in NOWHERE:
                self._note("DanglingLink", path, "is a symbolic link that leads nowhere")
                return True
            if error.errno in GONE:
                return False
            self._fail(path, f"cannot be opened ({why(error, path)})")
            return True
        self._walk_opened(descriptor, path, name, 1, snapshots=False)
        return True

    def _walk_snapshots_elsewhere(self) -> None:
        path = bytes(self.host.snapshots)
        try:
            descriptor = open_quietly(path, DIRECTORY)
        except OSError as error:
            if error.errno in GONE:
                self._marks[path] = None
            else:
                self._fail(path, f"cannot be opened ({why(error, path)})")
            return
        self._walk_opened(descriptor, path, b"", 1, snapshots=True)

    def _walk_opened(self, descriptor: int, path: bytes, name: bytes, depth: int, *, snapshots: bool) -> None:
        """Walk a directory that is open as `descriptor`, and close it."""
        try:
            status = os.fstat(descriptor)
            inode = status.st_dev, status.st_ino
            if inode == self._base or not self._is_new(inode):
                return
            self._seen[inode] = path
            snapshots = snapshots or inode == self._snapshots
            self._marks[path] = _mark(status)
            directory = Directory(path, name, inode, depth == 1 and name != b"", snapshots, status.st_ctime)
            self.directories.append(directory)
            for nested in self._read_directory(directory, descriptor):
                self._walk_nested(nested, descriptor, directory, depth + 1)
        except OSError as error:
            self._fail(path, f"cannot be listed ({why(error, path)})")
        finally:
            os.close(descriptor)

    def _is_new(self, inode: Inode) -> bool:
        """Whether this directory must be walked now; forgets it if it was walked where it no longer is.

        It may have been renamed, or deleted: file systems give inode numbers to the next file at once.
        """
        former = self._seen.get(inode)
        if former is None:
            return True
        if inode_at(former) == inode:
            return False
        inside = former + b"/"
        gone = [one for one in self.directories if one.path == former or one.path.startswith(inside)]
        paths = {one.path for one in gone}
        self.directories = [one for one in self.directories if one.path not in paths]
        self.disks = [disk for disk in self.disks if disk.directory.path not in paths]
        for directory in gone:
            self._seen.pop(directory.inode, None)
            self._marks.pop(directory.path, None)
        return True

    def _walk_nested(self, entry: "os.DirEntry[str]", parent: int, outer: Directory, depth: int) -> None:
        path = outer.path + b"/" + os.fsencode(entry.name)
        if entry.is_symlink():
            # It may lead anywhere, to the root of all files too: what lies in it is read, and nothing below that.
            depth = max(depth, _DEEPEST)
        if depth > _DEEPEST:
            self._fail(path, f"lies deeper than the {_DEEPEST} levels that basekeeper looks into")
            return
        try:
            descriptor = open_quietly(entry.name, DIRECTORY, parent)
        except OSError as error:
            # Nothing renames directories inside an instance's: what is gone was deleted.
            if error.errno not in GONE:
                self._fail(path, f"cannot be opened ({why(error, path)})")
            return
        self._walk_opened(descriptor, path, outer.name, depth, snapshots=outer.snapshots)

    def _read_directory(self, directory: Directory, descriptor: int) -> "list[os.DirEntry[str]]":
        """Read the disks in a directory; the directories in it, and links to some."""
        entries: list[os.DirEntry[str]] = []
        disks: list[Disk] = []
        for _ in range(_ATTEMPTS):
            with os.scandir(descriptor) as listed:
                entries = list(listed)
            reading = Reading(directory, descriptor, self.host.spawn_grace > 0 and directory.top)
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
        return [entry for entry in entries if _leads_to_directory(entry)]

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


def _leads_to_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _no_instances(path: bytes, error: OSError) -> str:
    return (
        f"the instances path {display(path)} cannot be read ({error.strerror}); nothing is known about any base "
        "until it can"
    )
