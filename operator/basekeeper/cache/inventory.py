"""One scan of `_base`: what lies there, with no opinion about use.

Through one directory descriptor, without following a symbolic link and without touching an access time.
"""

import os
import stat

from . import quarantine
from .evidence import CachedFile, FileType, Inventory, Note
from .files import DIRECTORY, Unobservable, open_quietly
from .names import parse
from .settings import Host


def scan(host: Host) -> Inventory:
    """Everything in `host.base` but our own directory, and the quarantine. Changes nothing.

    A cache that does not exist yet is an empty one: nova makes `_base` with the first image. Raises
    Unobservable if it exists and cannot be read.
    """
    try:
        fd = open_quietly(bytes(host.base), DIRECTORY)
    except FileNotFoundError:
        message = f"{host.base} does not exist yet; nova makes it with the first image"
        return Inventory(notes=(Note("NoCacheYet", message),))
    except OSError as error:
        raise Unobservable(f"the cache {host.base} cannot be read: {error.strerror}") from error
    try:
        directory = os.fstat(fd).st_ino
        files = tuple(_file(fd, name) for name in sorted(os.listdir(fd)) if name != quarantine.OWN_DIRECTORY)
    except OSError as error:
        raise Unobservable(f"the cache {host.base} cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    try:
        entries, notes = quarantine.read(host.base)
    except OSError as error:
        place = quarantine.directory(host.base)
        raise Unobservable(f"the quarantine {place} cannot be read: {error.strerror}") from error
    return Inventory(tuple(file for file in files if file is not None), entries, notes, directory)


def look_at(base_fd: int, name: bytes) -> CachedFile | None:
    """One entry of the cache as it is now; None if there is none. Raises OSError."""
    return _file(base_fd, os.fsdecode(name))


def _file(fd: int, name: str) -> CachedFile | None:
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return CachedFile(
        name=parse(os.fsencode(name)),
        type=_type(found.st_mode),
        inode=quarantine.inode_of(found),
        size=found.st_size,
        allocated=found.st_blocks * 512,
        links=found.st_nlink,
        mtime=found.st_mtime,
    )


def _type(mode: int) -> FileType:
    if stat.S_ISREG(mode):
        return FileType.REGULAR
    if stat.S_ISDIR(mode):
        return FileType.DIRECTORY
    return FileType.SYMLINK if stat.S_ISLNK(mode) else FileType.OTHER
