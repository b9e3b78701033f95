"""Digests of bases, block by block: what tells later whether one has changed, and where. Reads, and never repairs.

A block of zeros has the same digest whether it is written or a hole, so a sparse copy equals its model and holes cost
nothing. Time stamps and owners are no content: nova touches its bases, libvirt chowns them.
"""

import errno
import functools
import hashlib
import mmap
import os
import stat
from collections.abc import Collection
from types import TracebackType
from typing import Self

import xxhash

from . import handles
from .files import FILE, NotAFile, open_quietly
from .paging import Pages, Unreadable
from .settings import Algorithm

BLOCK = 4 << 20
"""Bytes that share a digest; a file's last block may be shorter."""
DIGEST = 16
"""Bytes of a digest; of a longer one these are the first."""


def digest(algorithm: Algorithm, content: bytes | memoryview) -> bytes:
    """The digest of a block's content."""
    if algorithm is Algorithm.XXH3:
        return xxhash.xxh3_128_digest(content)
    return hashlib.sha256(content).digest()[:DIGEST]


@functools.lru_cache(maxsize=16)
def of_zeros(algorithm: Algorithm, length: int) -> bytes:
    """The digest of a block without content, of `length` bytes."""
    return digest(algorithm, bytes(length))


def root(algorithm: Algorithm, size: int, digests: bytes) -> str:
    """One digest of a whole file: of its size and of its blocks' digests in their order; 32 hexadecimal digits."""
    return digest(algorithm, size.to_bytes(8, "little") + digests).hex()


class Changed(Exception):
    """The file became shorter while it was read."""


class Base:
    """An open base, as it was when it was opened. Of one thread."""

    def __init__(self, path: bytes) -> None:
        """Open it; no symbolic link is followed. Raises OSError, NotAFile for what is no regular file."""
        self._path = path
        self._descriptor = open_quietly(path, FILE | os.O_NOFOLLOW)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NotAFile(0, "it is not a regular file")
            self.identity = handles.of_open(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise
        self.status = status
        self.size = status.st_size
        self._pages = Pages(self._descriptor)
        self._buffer = memoryview(mmap.mmap(-1, BLOCK))  # aligned, as reading past the page cache wants it
        self._hole = (0, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return -(-self.size // BLOCK)

    def length(self, block: int) -> int:
        """Bytes of a block."""
        start, end = self._span(block)
        return end - start

    def is_hole(self, block: int) -> bool:
        """Whether nothing of a block is allocated, so that it need not be read."""
        start, end = self._span(block)
        if not self._hole[0] <= start < self._hole[1]:
            try:
                self._hole = start, os.lseek(self._descriptor, start, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    return False  # a file system that knows no holes
                self._hole = start, self.size
        return end <= self._hole[1]

    def read(self, block: int) -> memoryview:
        """The content of a block, until the next one is read. Raises Unreadable, Changed."""
        start, end = self._span(block)
        return self._whole(self._pages.fill(self._buffer[: end - start], start), end - start)

    def read_from_disk(self, block: int) -> memoryview:
        """The same, past the page cache where that can be done, in any case without what it has of the block."""
        start, end = self._span(block)
        self._pages.drop(start, end - start)
        try:
            descriptor = os.open(f"/proc/self/fd/{self._descriptor}", FILE | os.O_DIRECT)
        except OSError:
            return self.read(block)
        try:
            got = os.preadv(descriptor, [self._buffer], start)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return self.read(block)
            raise Unreadable(start, error) from error
        finally:
            os.close(descriptor)
        return self._whole(min(got, end - start), end - start)

    def digests(self, block: int, algorithms: Collection[Algorithm]) -> dict[Algorithm, bytes]:
        """Digests of a block, which is read once, and not at all if it is a hole. Raises Unreadable, Changed."""
        if self.is_hole(block):
            return {each: of_zeros(each, self.length(block)) for each in algorithms}
        content = self.read(block)
        return {each: digest(each, content) for each in algorithms}

    def digests_from_disk(self, block: int, algorithms: Collection[Algorithm]) -> dict[Algorithm, bytes]:
        """The same of what `read_from_disk` reads."""
        content = self.read_from_disk(block)
        return {each: digest(each, content) for each in algorithms}

    def is_still_there(self) -> bool:
        """Whether its path still leads to it, and it has the size that it had."""
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(found, self.status) and found.st_size == self.size

    def modified_at(self) -> int:
        """Its mtime now, nanoseconds: a write moves it, as a touch does. Raises OSError."""
        return os.fstat(self._descriptor).st_mtime_ns

    def _span(self, block: int) -> tuple[int, int]:
        start = block * BLOCK
        return start, min(start + BLOCK, self.size)

    def _whole(self, got: int, wanted: int) -> memoryview:
        if got < wanted:
            raise Changed
        return self._buffer[:got]
