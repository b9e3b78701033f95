"""Which file this is, across boots and renames: the kernel's handle of it, which no other file ever has.

An inode number alone is given to the next file that is made, and most file systems do so at once.
"""

import ctypes
import os

_MOST = 128
_EMPTY_PATH = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


class _Handle(ctypes.Structure):
    _fields_ = (("size", ctypes.c_uint), ("type", ctypes.c_int), ("content", ctypes.c_ubyte * _MOST))


def of_open(descriptor: int) -> str:
    """The handle of an open file. Raises OSError if it cannot be asked at all."""
    return _handle(descriptor, b"", _EMPTY_PATH) or f"inode:{os.fstat(descriptor).st_ino}"


def of_entry(directory: int, name: bytes) -> str:
    """The handle of an entry of an open directory, without opening it; a link's own. Raises OSError."""
    found = _handle(directory, name, 0)
    return found or f"inode:{os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino}"


def _handle(directory: int, name: bytes, flags: int) -> str | None:
    """None where the file system has no handles, or this process may not ask for them."""
    handle, mount = _Handle(_MOST), ctypes.c_int()
    if _libc.name_to_handle_at(directory, name, ctypes.byref(handle), ctypes.byref(mount), flags) != 0:
        return None
    return f"{handle.type}:{bytes(handle.content[: handle.size]).hex()}"
