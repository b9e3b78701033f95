"""Builds qcow and qcow2 headers, so that unit tests need no qemu."""

import struct
from collections.abc import Sequence

BACKING_FORMAT = 0xE2792ACA
DATA_FILE = 0x44415441
FEATURE_NAMES = 0x6803F857


def extension(magic: int, data: bytes) -> bytes:
    return struct.pack(">II", magic, len(data)) + data + bytes(-len(data) % 8)


def qcow2(
    backing: bytes | None = None,
    form: bytes | None = None,
    *,
    version: int = 3,
    data_file: bytes | None = None,
    external: bool | None = None,
    extensions: Sequence[bytes] = (),
    name_at: int | None = None,
    crypt: int = 0,
    incompatible: int | None = None,
    cluster_bits: int = 16,
    header_length: int = 104,
    size: int | None = None,
) -> bytes:
    """The first bytes of a qcow2 file, padded to `size` (default: the whole first cluster is there)."""
    parts = list(extensions)
    if form is not None:
        parts.append(extension(BACKING_FORMAT, form))
    if data_file is not None:
        parts.append(extension(DATA_FILE, data_file))
    body = b"".join(parts) + bytes(8)
    start = header_length if version == 3 else 72
    at = 0 if backing is None else name_at or start + len(body)
    features = incompatible if incompatible is not None else 4 * (external if external is not None else bool(data_file))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", version, at, len(backing or b""), cluster_bits, 10 << 20, crypt, 1, 0, 0, 1, 0, 0
    )
    if version == 3:
        header += struct.pack(">QQQII", features, 0, 0, 4, header_length) + bytes(max(0, header_length - 104))
    data = bytearray(header + body)
    if backing is not None:
        data.extend(bytes(max(0, at + len(backing) - len(data))))
        data[at : at + len(backing)] = backing
    wanted = size if size is not None else 8192
    data.extend(bytes(max(0, wanted - len(data))))
    return bytes(data[:wanted] if size is not None else data)


def qcow1(backing: bytes | None = None, *, crypt: int = 0) -> bytes:
    at = 48 if backing is not None else 0
    header = struct.pack(">4sIQIIQBBHIQ", b"QFI\xfb", 1, at, len(backing or b""), 0, 10 << 20, 12, 9, 0, crypt, 48)
    return header + (backing or b"") + bytes(512)
