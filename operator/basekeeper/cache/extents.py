"""Extents that files share: removing one of several files over the same blocks frees none of them.

`cp` makes such copies by itself on XFS and btrfs, and nova copies flat disks with it. FIEMAP (ioctl_fiemap, in the
kernel's Documentation/filesystems/fiemap.rst) tells which extents are shared; file systems without it share none
that we know of, and what that misjudges the next look at the disk shows.
"""

import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path

from . import quarantine
from .evidence import FileType, Inode, Inventory
from .files import FILE, open_quietly

_FS_IOC_FIEMAP = 0xC020660B
_HEAD = struct.Struct("=QQLLLL")
"""Where to begin, how many bytes to cover, flags, extents told, extents that there is room for, nothing."""
_EXTENT = struct.Struct("=QQQ16xL12x")
"""Where it lies in the file and on the disk, its length, its flags; bytes."""
_LAST, _SHARED = 0x1, 0x2000
_ROOM = 512
"""Extents that one question has room for."""
_TO_THE_END = 2**64 - 1


def shared(base: Path, inventory: Inventory) -> Mapping[Inode, int]:
    """Bytes of shared extents, by the files of cache and quarantine that have some. Changes nothing, raises nothing."""
    paths = {
        file.inode: base / os.fsdecode(file.name.raw)
        for file in inventory.files
        if file.type is FileType.REGULAR and file.reclaimable
    }
    paths |= {entry.inode: quarantine.file_of(base, entry) for entry in inventory.entries if entry.reclaimable}
    return {inode: size for inode, path in paths.items() if (size := _shared_bytes(path))}


def _shared_bytes(path: Path) -> int:
    """Bytes of a file that others share; 0 where that cannot be asked."""
    try:
        descriptor = open_quietly(bytes(path), FILE | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        return _count(descriptor)
    except OSError:
        return 0
    finally:
        os.close(descriptor)


def _count(descriptor: int) -> int:
    total = start = 0
    while True:
        answer = bytearray(_HEAD.size + _ROOM * _EXTENT.size)
        _HEAD.pack_into(answer, 0, start, _TO_THE_END - start, 0, 0, _ROOM, 0)
        fcntl.ioctl(descriptor, _FS_IOC_FIEMAP, answer)
        told = _HEAD.unpack_from(answer)[3]
        for at in range(told):
            logical, _, length, flags = _EXTENT.unpack_from(answer, _HEAD.size + at * _EXTENT.size)
            total += length if flags & _SHARED else 0
            start = logical + length
            if flags & _LAST:
                return total
        if not told:
            return total
