"""Reads a file and leaves the page cache as it found it: verification must not push out what guests read.

The kernel does all of it where it can (RWF_DONTCACHE, since Linux 6.14). Elsewhere the pages that a read brings in are
dropped after it, and those that were there stay: `mincore` tells them apart, but only to whoever could write the file;
from everybody else a read that must not wait (RWF_NOWAIT) finds out. Where neither works, on network file systems,
everything that was read is dropped.
"""

import ctypes
import errno
import mmap
import os
from collections.abc import Iterator

_DONTCACHE = 0x80
"""RWF_DONTCACHE, which Python's `os` does not name yet."""
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_STEP = 128 << 10
"""Bytes of a read that must not wait: what lies in it behind the first page that is missing counts as missing."""
_PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_NOWHERE = ctypes.c_void_p(-1).value


class Unreadable(Exception):
    """A file could not be read at `offset`, a number of bytes; the cause is the system's error."""

    def __init__(self, offset: int, error: OSError) -> None:
        super().__init__(f"{error.strerror or error} at byte {offset}")
        self.offset = offset


class Pages:
    """Reads one open file, from one thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ways = [self._and_drop_all, self._in_steps, self._by_residency, self._uncached]
        """The best comes last; one that this kernel or file system does not have is taken away."""

    def fill(self, buffer: memoryview, offset: int) -> int:
        """Read into the buffer until it is full; the number of bytes, less only at the file's end.

        Raises Unreadable with the offset of the first byte that could not be had.
        """
        done = 0
        while done < len(buffer):
            try:
                got = self._some(buffer[done:], offset + done)
            except OSError as error:
                raise Unreadable(offset + done, error) from error
            if got == 0:
                break
            done += got
        return done

    def drop(self, offset: int, length: int) -> None:
        """Forget what is cached of these bytes, so that a read asks the disk."""
        os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)

    def _some(self, buffer: memoryview, offset: int) -> int:
        while True:
            try:
                return self._ways[-1](buffer, offset)
            except OSError as error:
                if error.errno not in _UNSUPPORTED or len(self._ways) == 1:
                    raise
            self._ways.pop()
            # Read-ahead would bring in pages that nobody drops.
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def _uncached(self, buffer: memoryview, offset: int) -> int:
        return os.preadv(self._descriptor, [buffer], offset, _DONTCACHE)

    def _by_residency(self, buffer: memoryview, offset: int) -> int:
        if not self._may_ask():
            raise OSError(errno.EOPNOTSUPP, "mincore says nothing true here")
        absent = list(self._absent(offset, len(buffer)))
        got = os.preadv(self._descriptor, [buffer], offset)
        for start, length in absent:
            self.drop(start, length)
        return got

    def _may_ask(self) -> bool:
        """Whether `mincore` answers: of a file that the asker could not write it says that all of it is there."""
        owner = os.fstat(self._descriptor).st_uid
        return os.geteuid() in (0, owner) or os.access(f"/proc/self/fd/{self._descriptor}", os.W_OK)

    def _absent(self, offset: int, length: int) -> Iterator[tuple[int, int]]:
        """Start and length of what is not in the page cache of these bytes, in whole pages."""
        first = offset // _PAGE * _PAGE
        size = offset + length - first
        place = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, self._descriptor, first)
        if place == _NOWHERE:
            raise OSError(errno.EOPNOTSUPP, "cannot be mapped")
        pages = ctypes.create_string_buffer(-(-size // _PAGE))
        failed = _libc.mincore(place, size, pages)
        _libc.munmap(place, size)
        if failed:
            raise OSError(errno.EOPNOTSUPP, "mincore cannot be asked")
        for page, state in enumerate(pages.raw):
            if not state & 1:
                yield first + page * _PAGE, _PAGE

    def _in_steps(self, buffer: memoryview, offset: int) -> int:
        step = buffer[:_STEP]
        try:
            return os.preadv(self._descriptor, [step], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            got = os.preadv(self._descriptor, [step], offset)
        self.drop(offset, got)
        return got

    def _and_drop_all(self, buffer: memoryview, offset: int) -> int:
        got = os.preadv(self._descriptor, [buffer], offset)
        self.drop(offset, got)
        return got
