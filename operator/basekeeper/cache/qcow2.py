"""What a qcow or qcow2 header says about other files; bytes in, a typed header out.

A disk's header is the ground truth of which base it needs, so it is parsed here rather than asked of
`qemu-img`: one read instead of one process, and no probing of a format that nobody declared. This module
opens nothing; the caller passes the file's beginning and a reader for the rare name that lies further in.

The layout is that of qemu's `docs/interop/qcow2.txt`, `block/qcow2.c` and, for version 1, `block/qcow.c`.
"""

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

MAGIC = b"QFI\xfb"
"""The first four bytes of every version."""

HEAD_SIZE = 1024
"""How many bytes of a file to pass as its head: what qemu-img writes, its names included, fits in."""

Reader = Callable[[int, int], bytes]
"""Reads from the file: `(offset, length) -> bytes`, shorter only at the end of the file; may raise OSError."""

_V1 = struct.Struct(">4sIQIIQBBHIQ")
_V2 = struct.Struct(">4sIQIIQI")
_LENGTHS = {1: 48, 2: 72, 3: 104}
"""The least that a header of each version takes, bytes."""
_INCOMPATIBLE = struct.Struct(">Q")
_INCOMPATIBLE_AT = 72
_HEADER_LENGTH = struct.Struct(">I")
_HEADER_LENGTH_AT = 100
_EXTENSION = struct.Struct(">II")

_LONGEST_NAME = 1023
_CLUSTER_BITS = range(9, 22)
_EXTERNAL_DATA = 1 << 2
# Dirty, corrupt, external data file, compression type, extended L2 entries.
_KNOWN_FEATURES = 0b11111

_END = 0
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE = 0x44415441
# Real images have at most half a dozen; without a limit a crafted header could keep a pass busy.
_MOST_EXTENSIONS = 64


_MOST_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Header:
    """What a header names. With a `problem` the other fields hold what could be read all the same."""

    version: int = 0
    backing: bytes | None = None
    """The backing file's specification as stored: a path, `file:...`, `json:...`."""
    backing_format: str | None = None
    data_file: bytes | None = None
    encrypted: bool = False
    problem: str | None = None
    """Why the header may name more than this: the end of a sentence that begins with the file's name."""


@dataclass(slots=True)
class _Fields:
    """A header while it is read."""

    head: bytes
    size: int
    read: Reader
    backing: bytes | None = None
    backing_format: str | None = None
    data_file: bytes | None = None
    problem: str | None = None

    def bytes_at(self, offset: int, length: int) -> bytes:
        """What lies there; shorter only at the end of the file."""
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        return self.read(offset, length)

    def trouble(self, problem: str) -> None:
        """Note what keeps the header from being read to its end; the first trouble is the one to report."""
        self.problem = self.problem or problem


def parse(head: bytes, size: int, read: Reader) -> Header:
    """Parse the header of a file of `size` bytes that begins with `head`, which starts with `MAGIC`.

    Never raises for what the bytes say (`Header.problem` does); lets the reader's OSError through.
    """
    return _parse_alone(head) or _parse(head, size, read)


class _NeedsMore(Exception):
    """The header goes on beyond its head."""


@lru_cache(_MOST_REMEMBERED)
def _parse_alone(head: bytes) -> Header | None:
    """The header, if `head` holds it all: then the same bytes always say the same.

    Overlays over one base have equal heads, so a node's thousands of disks have a few dozen. None: it needs more.
    """

    def refuse(_offset: int, _length: int) -> bytes:
        raise _NeedsMore

    try:
        return _parse(head, sys.maxsize, refuse)
    except _NeedsMore:
        return None


def _parse(head: bytes, size: int, read: Reader) -> Header:
    version = int.from_bytes(head[4:8], "big") if len(head) >= 8 else 0
    length = _LENGTHS.get(version)
    if len(head) < 8 or (length is not None and len(head) < length):
        return Header(version, problem=f"has a qcow2 header that is cut off after {len(head)} bytes")
    if length is None:
        return Header(version, problem=f"has a qcow2 header of version {version}, which basekeeper does not know")
    fields = _Fields(head, size, read)
    if version == 1:
        _, _, offset, length, _, _, _, _, _, crypt, _ = _V1.unpack_from(head)
        _read_backing(fields, offset, length)
    else:
        _, _, offset, length, cluster_bits, _, crypt = _V2.unpack_from(head)
        _read_backing(fields, offset, length)
        _read_features(fields, version, offset, cluster_bits)
    return Header(version, fields.backing, fields.backing_format, fields.data_file, crypt != 0, fields.problem)


def _read_backing(fields: _Fields, offset: int, length: int) -> None:
    """Read the backing file's name of `length` bytes at `offset`; 0 means that there is none."""
    if offset == 0 or length == 0:
        return
    if length > _LONGEST_NAME:
        fields.trouble(f"has a qcow2 header whose backing file name is too long ({length} bytes)")
    elif offset + length > fields.size:
        fields.trouble(f"has a qcow2 header whose backing file name lies past its end (at {offset})")
    else:
        fields.backing = _text(fields.bytes_at(offset, length))


def _read_features(fields: _Fields, version: int, backing_offset: int, cluster_bits: int) -> None:
    """Read what versions 2 and 3 say beyond the backing file's name."""
    features, start = 0, _LENGTHS[version]
    if version == 3:
        (features,) = _INCOMPATIBLE.unpack_from(fields.head, _INCOMPATIBLE_AT)
        (start,) = _HEADER_LENGTH.unpack_from(fields.head, _HEADER_LENGTH_AT)
    if features & ~_KNOWN_FEATURES:
        fields.trouble(f"has a qcow2 header with features that basekeeper does not know ({features:#x})")
    if cluster_bits not in _CLUSTER_BITS:
        fields.trouble(f"has a qcow2 header with an impossible cluster size (2^{cluster_bits})")
    elif not _LENGTHS[version] <= start <= 1 << cluster_bits:
        fields.trouble(f"has a qcow2 header with an impossible length ({start})")
    else:
        # qemu lets the extensions end where the backing file's name begins, or with the first cluster.
        _read_extensions(fields, start, backing_offset or 1 << cluster_bits, bool(features & _EXTERNAL_DATA))


def _read_extensions(fields: _Fields, at: int, end: int, external: bool) -> None:
    """Read the header extensions between `at` and `end`."""
    for _ in range(_MOST_EXTENSIONS):
        if at >= end:
            return
        prefix = fields.bytes_at(at, _EXTENSION.size)
        if len(prefix) < _EXTENSION.size:
            fields.trouble("has a qcow2 header that is cut off within its extensions")
            return
        magic, length = _EXTENSION.unpack(prefix)
        at += _EXTENSION.size
        if magic == _END:
            return
        if at + length > end:
            fields.trouble("has a qcow2 header extension that is longer than the header")
            return
        if magic == _BACKING_FORMAT:
            form = _text(_short(fields, at, length))
            fields.backing_format = form.decode("ascii", "backslashreplace") if form else None
        elif magic == _DATA_FILE and external:
            fields.data_file = _text(_short(fields, at, length))
        at += (length + 7) & ~7
    fields.trouble(f"has a qcow2 header with more than {_MOST_EXTENSIONS} extensions")


def _short(fields: _Fields, at: int, length: int) -> bytes:
    if length > _LONGEST_NAME:
        fields.trouble(f"has a qcow2 header extension with a name of {length} bytes")
        return b""
    value = fields.bytes_at(at, length)
    if len(value) < length:
        fields.trouble("has a qcow2 header that is cut off within its extensions")
    return value


def _text(name: bytes) -> bytes | None:
    # qemu reads names into C strings, so what it would open ends at the first NUL.
    return name.partition(b"\0")[0] or None
