"""Reading a file leaves in the page cache what was there, and nothing else: in each way that kernels offer."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from basekeeper.cache.paging import Pages, Unreadable

SIZE = 9 << 20
WARM = ((0, 4096), (1 << 20, 300_000), (5 << 20, 1 << 20), (SIZE - 4096, 4096))
"""What somebody has read before."""
WAYS = {"all that this kernel offers": 0, "no uncached reads": 1, "no answer from mincore either": 2}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """An open file of which parts are in the page cache."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    for offset, length in WARM:
        os.pread(descriptor, length, offset)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_NORMAL)
    yield descriptor
    os.close(descriptor)


def resident(descriptor: int) -> list[int]:
    """The pages that are in the page cache, by number: as `mincore` tells the file's owner."""
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(descriptor, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        state = ctypes.create_string_buffer(-(-SIZE // mmap.PAGESIZE))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(SIZE), state) == 0
    return [page for page, there in enumerate(state.raw) if there & 1]


@pytest.mark.parametrize("without", WAYS.values(), ids=WAYS)
def test_what_was_in_the_page_cache_stays_and_nothing_is_added(file: int, without: int) -> None:
    before = resident(file)
    assert 0 < len(before) < SIZE // mmap.PAGESIZE / 2
    pages = Pages(file)
    del pages._ways[len(pages._ways) - without :]
    if without:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # as it is when a way is taken away
    buffer = memoryview(bytearray(4 << 20))
    content = b"".join(bytes(buffer[: pages.fill(buffer, offset)]) for offset in range(0, SIZE, len(buffer)))
    after = resident(file)
    assert content == os.pread(file, SIZE, 0)
    kept = set(before) - set(after)
    # A read that must not wait cannot see what lies behind a missing page, within its step.
    assert kept == set() or (without == 2 and len(kept) < len(before) / 2)
    assert set(after) <= set(before)


def test_where_no_way_is_known_to_be_careful_everything_that_was_read_is_dropped(file: int) -> None:
    pages = Pages(file)
    del pages._ways[1:]
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    assert pages.fill(memoryview(bytearray(4 << 20)), 0) == 4 << 20
    assert [page for page in resident(file) if page < (4 << 20) // mmap.PAGESIZE] == []


@pytest.mark.parametrize("without", WAYS.values(), ids=WAYS)
def test_a_file_ends_where_it_ends(file: int, without: int) -> None:
    pages = Pages(file)
    del pages._ways[len(pages._ways) - without :]
    assert pages.fill(memoryview(bytearray(4096)), SIZE - 100) == 100
    assert pages.fill(memoryview(bytearray(4096)), SIZE) == 0


def test_files_in_memory_are_read_too() -> None:
    descriptor = os.memfd_create("file")
    os.write(descriptor, b"content")
    buffer = memoryview(bytearray(7))
    assert (Pages(descriptor).fill(buffer, 0), bytes(buffer)) == (7, b"content")
    os.close(descriptor)


def test_an_error_says_where(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(Unreadable, match="Is a directory at byte 4096") as caught:
        Pages(descriptor).fill(memoryview(bytearray(10)), 4096)
    os.close(descriptor)
    assert caught.value.offset == 4096
